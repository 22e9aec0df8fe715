"""The recipe of the 2021 challenge entry that is very likely LTNet: a pyramid of parallel convolutions, adding a residual."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltnet_pl.geometry import normals_from_depth
from ltnet_pl.light import Camera
from ltnet_pl.nets.baselines import light_planes
from ltnet_pl.nets.blocks import zero_head

_KERNELS = (3, 5, 7, 9)
_ENCODER = (16, 32, 64, 128)
_SLOPE = 0.2  # of the leaky rectifier


class Challenge2021(nn.Module):
    """Image, depth, inverted depth and normals through a pyramid of four scales; the output is input plus residual.

    An encoder of 16, 32, 64 and 128 channels goes down by max-pooling. A thin decoder comes back up: at each scale, convolutions
    with kernels of 3, 5, 7 and 9 pixels run side by side and their results are concatenated, 32 channels from each kernel at the
    coarsest scale, then 16, 8, 4, and 2 before the residual. The two finer scales have twice of everything, which brings
    parameters and multiply-adds to the published 1.07 million and 84.5 G at 1024x1024 (within 1 and 4 %; what the description
    leaves open, such as the normalisation, was chosen). The entry relights one fixed light to another, so it knows no light.

    Args:
        lights: Also see the codes of the present and the wanted light, as constant channels, for any-to-any; false is the
            published one-to-one form.
        camera: The camera assumed where normals are computed from depth.

    Reference:
        Ignatov et al., "Replacing Mobile Camera ISP with a Single Deep Learning Model", CVPR 2020 workshops, for the pyramid.
    """

    def __init__(self, lights: bool = True, camera: Camera = Camera()) -> None:
        super().__init__()
        self.lights, self.camera = lights, camera
        self.light = "label" if lights else None
        sizes = (3 + 5 + 6 * lights, *_ENCODER)
        repeats = (2, 2, 1, 1)
        self.encoder = nn.ModuleList(
            nn.Sequential(*(_convolution(before if i == 0 else after, after) for i in range(times)))
            for (before, after), times in zip(pairwise(sizes), repeats, strict=True)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(*(Parallel(width, width // len(_KERNELS)) for _ in range(times)))
            for width, times in zip(reversed(_ENCODER), reversed(repeats), strict=True)
        )
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in reversed(list(pairwise(_ENCODER))))
        self.last = Parallel(_ENCODER[0], 2)
        self.head = zero_head(2 * len(_KERNELS), 3)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """``relit`` ``(B, 3, H, W)``, unclamped.

        Raises:
            InputError: If ``lights``, and a light of the batch is unknown.
        """
        image = batch["input"]
        channels = [image, self._geometry(batch).to(image.dtype)]
        if self.lights:
            channels.append(light_planes(batch, type(self).__name__))
        x = torch.cat(channels, dim=1)
        skips = []
        for i, stage in enumerate(self.encoder):
            x = stage(x if i == 0 else functional.max_pool2d(x, 2, ceil_mode=True))
            skips.append(x)
        x = self.decoder[0](skips.pop())
        for up, stage in zip(self.up, self.decoder[1:], strict=True):
            skip = skips.pop()
            # 1x1 before interpolation is the same as after it, and a quarter of the work
            x = stage(functional.interpolate(up(x), size=skip.shape[-2:], mode="bilinear", align_corners=False) + skip)
        return {"relit": image + self.head(self.last(x))}

    @torch.no_grad()
    def _geometry(self, batch: dict[str, Tensor]) -> Tensor:
        """Depth with 1 for the frame's farthest point, the same inverted, and normals: ``(B, 5, H, W)``; background is 0."""
        depth = batch["depth"].float()
        # the frame's low-resolution depth may lack its farthest pixel
        farthest = torch.maximum(depth.amax(dim=(1, 2, 3)), batch["frame_depth"].float().amax(dim=(1, 2, 3)))
        valid = (depth > 0).float()
        relative = depth / torch.where(farthest > 0, farthest, 1.0)[:, None, None, None]
        normals = normals_from_depth(depth, self.camera.tensor(depth, len(depth)), batch["crop"])
        return torch.cat([relative, (1 - relative) * valid, normals], dim=1)


class Parallel(nn.Module):
    """Convolutions with kernels of 3, 5, 7 and 9 pixels side by side, concatenated, normalised, through a leaky rectifier.

    Args:
        in_channels: Channels of the input.
        width: Channels from each kernel.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(in_channels, width, k, padding=k // 2) for k in _KERNELS)
        self.norm = nn.GroupNorm(len(_KERNELS), width * len(_KERNELS))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, H, W)`` to ``(B, 4 width, H, W)``."""
        return functional.leaky_relu(self.norm(torch.cat([branch(x) for branch in self.branches], dim=1)), _SLOPE)


def _convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 3x3 convolution with normalisation and leaky rectifier."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.GroupNorm(len(_KERNELS), out_channels), nn.LeakyReLU(_SLOPE)
    )
