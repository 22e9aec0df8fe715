"""LTNet as a function of plain tensors: what an exported file computes."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ltnet_pl import InputError
from ltnet_pl.geometry import resampled, size_within
from ltnet_pl.light import BLACK_BODIES, TEMPERATURES, body_gain
from ltnet_pl.nets import LTNet

LightKind = Literal["direct", "guide"]

SMALLEST, LARGEST = 32, 4096
"""Sides in pixels that an exported file takes."""

FRAME_SIZE = 96
"""Longer side of the depth in which shadows are looked up, as `predict` has it."""


TRAINED = (float(TEMPERATURES[0]), float(TEMPERATURES[-1]))
"""Kelvin that networks are trained on; the nearer end is what one is told beyond them."""


class Plain(nn.Module):
    """An LTNet that takes plain tensors of one whole image instead of a batch; what its kinds of light share.

    Args:
        net: The network. From here on it takes a light as its label wherever that is known, and reads it elsewhere.

    Raises:
        InputError: If it is no LTNet.
    """

    names: tuple[str, ...] = ()

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        if not isinstance(net, LTNet):
            raise InputError(
                f"--to onnx and torch know LTNet, and the run holds {type(net).__name__}; expected an LTNet: use --to safetensors"
            )
        net.light = "label"
        self.net = net.eval().requires_grad_(False)

    def relight(self, image: Tensor, depth: Tensor, present: Tensor, wanted: Tensor, **guide: Tensor) -> Tensor:
        """The image under the wanted light; NaN of a light is read off the image or off the guide.

        Args:
            image: ``(1, 3, H, W)``, display-encoded, in [0, 1].
            depth: ``(1, 1, H, W)``, planar, larger is farther, 0 = background, any scale; zeros where there is none.
            present: The image's light ``(1, 2)``: azimuth in degrees and kelvin, which is brought within `TRAINED`.
            wanted: The wanted one, within `TRAINED`.
            guide: ``guide`` ``(1, 3, h, w)`` and ``guide_depth`` ``(1, 1, h, w)``, if there is a guide.

        Returns:
            ``(1, 3, H, W)`` within [0, 1].
        """
        unknown, whole = image.new_full((1, 2), math.nan), image.new_tensor([[0.0, 0.0, 1.0, 1.0]])
        frame = resampled(depth, size_within(depth.shape[-2:], FRAME_SIZE))
        batch = {"input": image, "depth": depth, "frame_depth": frame, "crop": whole, "camera": unknown, "rig": unknown}
        batch |= {"input_light": _within(present, TRAINED), "target_light": wanted, **guide}
        if guide:
            batch["guide_crop"] = whole
        relit: Tensor = self.net(batch)["relit"]
        return relit.clamp(0, 1)


class Direct(Plain):
    """The wanted light is given as numbers.

    Outside `TRAINED` the network brings the nearer end, and the ratio of the two black bodies' colours the rest, as the command
    ``relight`` has it; beyond `BLACK_BODIES` the nearer of those is taken.
    """

    names = ("image", "depth", "light", "present")

    def forward(self, image: Tensor, depth: Tensor, light: Tensor, present: Tensor) -> Tensor:
        """Relit image ``(1, 3, H, W)``; see `relight`."""
        known, asked = _within(light, TRAINED), _within(light, BLACK_BODIES)
        relit = self.relight(image, depth, present, known)
        finished = scaled(relit, body_gain(asked[:, 1], known[:, 1])[:, :, None, None]).clamp(0, 1)
        return torch.where((asked == known)[:, 1, None, None, None], relit, finished)


def scaled(image: Tensor, gain: Tensor) -> Tensor:
    """A display-encoded image whose linear light is multiplied by a gain, off by 0.007 at most for those of black bodies.

    It takes no power of every pixel. sRGB's curve is a line in the dark and a power above it: of a pixel that stays on one of
    them the result is exact, and where it changes over both are near.

    Args:
        image: ``(B, 3, H, W)`` in [0, 1].
        gain: ``(B, 3, 1, 1)``, 0 or more.
    """
    line, power = gain * image, gain ** (1 / 2.4) * (image + 0.055) - 0.055
    return torch.where(gain >= 1, torch.minimum(line, power), torch.maximum(line, power))


class Guided(Plain):
    """The wanted light is read off a guide.

    Raises:
        InputError: If the network reads no lights.
    """

    names = ("image", "depth", "guide", "guide_depth", "present")

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        if self.net.told:
            raise InputError(
                "--light guide needs a network that reads lights, and this one takes all from labels (label_dropout 0 and no "
                "latent); expected another: use --light direct"
            )

    def forward(self, image: Tensor, depth: Tensor, guide: Tensor, guide_depth: Tensor, present: Tensor) -> Tensor:
        """Relit image ``(1, 3, H, W)``; see `relight`."""
        unknown = torch.full_like(present, math.nan)
        return self.relight(image, depth, present, unknown, guide=guide, guide_depth=guide_depth)


KINDS: dict[LightKind, type[Plain]] = {"direct": Direct, "guide": Guided}
"""The function of each kind of light."""


def _within(light: Tensor, kelvin: tuple[float, float]) -> Tensor:
    """A light ``(1, 2)`` with its temperature brought within bounds; NaN stays."""
    low, high = (torch.full_like(light, value) for value in kelvin)
    # not clamp, which in a file need not keep NaN
    near = torch.where(light < low, low, torch.where(light > high, high, light))
    return torch.cat([light[:, :1], near[:, 1:]], dim=1)


def example(
    kind: LightKind, size: tuple[int, int], guide: tuple[int, int] = (72, 104), known: bool = False
) -> tuple[Tensor, ...]:
    """Inputs of a wrapped network: a made scene, in which whatever branches has something to branch on.

    A ground that recedes below a sky, with two boxes on it, lit from the right, under light grain.

    Args:
        kind: Kind of light.
        size: Height and width of the image.
        guide: Those of the guide.
        known: Whether the present light is given.
    """
    image, depth = _scene(*size)
    present = torch.tensor([[40.0, 5600.0]]) if known else torch.full((1, 2), math.nan)
    if kind == "guide":
        return image, depth, *_scene(*guide), present
    return image, depth, torch.tensor([[250.0, 3800.0]]), present


def _scene(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Image ``(1, 3, H, W)`` and depth ``(1, 1, H, W)``."""
    v, u = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    sky, grey = v < 0.12, 0.45 + 0.2 * torch.sin(37 * u) * torch.sin(29 * v)
    depth = 1 / (0.35 + 0.65 * v)
    for top, bottom, left, right in ((0.35, 0.62, 0.2, 0.4), (0.3, 0.8, 0.55, 0.7)):
        box = (v > top) & (v < bottom) & (u > left) & (u < right)
        depth = torch.where(box, 1 / (0.35 + 0.65 * bottom), depth)
        shade = (v > bottom) & (v < bottom + 0.1) & (u > left - 0.12) & (u < right)
        grey = torch.where(box, 0.25 + 0.5 * (u - left) / (right - left), torch.where(shade, 0.3 * grey, grey))
    grain = torch.rand(3, height, width, generator=torch.Generator().manual_seed(height * 8192 + width))
    image = torch.where(sky, 0.1, grey) * torch.tensor([1.0, 0.9, 0.75])[:, None, None] + 0.02 * (grain - 0.5)
    return image.clamp(0, 1)[None], torch.where(sky, 0.0, depth)[None, None]
