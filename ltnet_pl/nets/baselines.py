"""Baselines: copy the input, a global colour transform per pair of lights, and a U-Net that sees everything as plain channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ltnet_pl import InputError
from ltnet_pl.geometry import Geometry
from ltnet_pl.light import TEMPERATURES, Camera, encode
from ltnet_pl.nets.blocks import Backbone, zero_head
from ltnet_pl.nets.streams import plain_geometry

OutputKind = Literal["direct", "residual"]


class CopyInput(nn.Module):
    """Returns the input unchanged: what every other method must beat."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """``relit`` is the batch's ``input``."""
        return {"relit": batch["input"]}


class ColorAffine(nn.Module):
    """One affine colour transform (3x4) per pair of VIDIT's 40 lights, fitted in closed form on the training split.

    Each pair of lights is fitted by ridge regression towards the transform of all pairs with the same two temperatures, which in
    turn is fitted towards the identity; so a pair seen rarely, or never, falls back on what is known. It knows no geometry: it is
    the best that a change of colour and brightness alone can do.

    Args:
        prior_images: Weight of the prior, in images.
    """

    light = "label"

    def __init__(self, prior_images: float = 4.0) -> None:
        super().__init__()
        if prior_images <= 0:
            raise InputError(f"prior_images is {prior_images}; expected a positive number of images")
        self.prior_images = prior_images
        settings = 8 * len(TEMPERATURES)
        identity = torch.eye(4, 3, dtype=torch.float64)
        self.gram: Tensor
        self.cross: Tensor
        self.transforms: Tensor
        self.register_buffer("gram", torch.zeros(settings, settings, 4, 4, dtype=torch.float64))
        self.register_buffer("cross", torch.zeros(settings, settings, 4, 3, dtype=torch.float64))
        self.register_buffer("transforms", identity.repeat(settings, settings, 1, 1))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """``relit`` ``(B, 3, H, W)``: the input under the transform of its pair of lights.

        Raises:
            InputError: If a light of the batch is unknown.
        """
        transform = self.transforms[self._setting(batch["input_light"]), self._setting(batch["target_light"])]
        relit = torch.einsum("bchw,bcd->bdhw", _homogeneous(batch["input"]), transform.to(batch["input"].dtype))
        return {"relit": relit}

    @torch.no_grad()
    def observe(self, batch: dict[str, Tensor]) -> None:
        """Add a training batch to the normal equations."""
        x = _homogeneous(batch["input"]).double().flatten(2)
        y = batch["target"].double().flatten(2)
        where = (self._setting(batch["input_light"]), self._setting(batch["target_light"]))
        self.gram.index_put_(where, x @ x.mT / x.shape[-1], accumulate=True)
        self.cross.index_put_(where, x @ y.mT / x.shape[-1], accumulate=True)

    @torch.no_grad()
    def solve(self) -> None:
        """Fit the transforms to what was observed.

        Raises:
            InputError: If nothing was observed.
        """
        images = self.gram[..., 3, 3].sum()
        if images == 0:
            raise InputError("ColorAffine has seen no training pair; run `python -m ltnet_pl fit` with it before it is tested")
        precision = self.prior_images * self.gram.sum(dim=(0, 1)) / images
        split = (len(TEMPERATURES), 8, len(TEMPERATURES), 8)
        gram, cross = self.gram.view(*split, 4, 4), self.cross.view(*split, 4, 3)
        identity = torch.eye(4, 3, dtype=torch.float64, device=gram.device)
        by_temperature = torch.linalg.solve(gram.sum(dim=(1, 3)) + precision, cross.sum(dim=(1, 3)) + precision @ identity)
        prior = by_temperature[:, None, :, None].expand(*split, 4, 3)
        self.transforms.copy_(torch.linalg.solve(gram + precision, cross + precision @ prior).view_as(self.transforms))

    def _setting(self, lights: Tensor) -> Tensor:
        """Index ``(B,)`` of the nearest of the 40 settings, temperature by temperature."""
        if not torch.compiler.is_compiling() and lights[:, :2].isnan().any():
            raise InputError("ColorAffine needs labelled lights, but the batch's input or target light is unknown")
        mireds = 1e6 / lights.new_tensor([float(t) for t in TEMPERATURES])
        temperature = (1e6 / lights[:, 1:2] - mireds).abs().argmin(dim=1)
        return temperature * 8 + (lights[:, 0] / 45.0).round().long() % 8


def _homogeneous(image: Tensor) -> Tensor:
    """Image ``(B, 3, H, W)`` with a fourth channel of ones."""
    return torch.cat([image, torch.ones_like(image[:, :1])], dim=1)


class UNet(nn.Module):
    """U-Net on image, depth, normals and both light codes as plain channels: no cues, no light stream.

    Args:
        widths: Channels per level, each level at half the resolution of the one before.
        output: ``direct`` predicts the relit image, ``residual`` the change of the input.
        camera: The camera assumed where normals are computed from depth.
    """

    light = "label"

    def __init__(
        self, widths: Sequence[int] = (24, 48, 96, 128), output: OutputKind = "residual", camera: Camera = Camera()
    ) -> None:
        super().__init__()
        if output not in get_args(OutputKind):
            raise InputError(f"output is {output!r}; expected one of {', '.join(get_args(OutputKind))}")
        self.output, self.camera = output, camera
        self.backbone = Backbone(3 + 8 + 6, widths)
        self.head = zero_head(widths[0], 3)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """``relit`` ``(B, 3, H, W)``, unclamped.

        Raises:
            InputError: If a light of the batch is unknown.
        """
        image = batch["input"]
        planes = light_planes(batch, type(self).__name__)
        camera = self.camera.tensor(image, len(image))
        with torch.no_grad():
            plain = plain_geometry(Geometry.of(batch["depth"], batch["frame_depth"], batch["crop"], camera))
        features = self.backbone(torch.cat([image, plain.to(image.dtype), planes], dim=1))
        change = self.head(features)
        return {"relit": change if self.output == "direct" else image + change}


def light_planes(batch: dict[str, Tensor], who: str) -> Tensor:
    """The codes of a batch's present and wanted light as constant channels: ``(B, 6, H, W)`` in the input's size and dtype.

    Args:
        batch: The batch.
        who: The network that needs them, for the message.

    Raises:
        InputError: If a light of the batch is unknown.
    """
    image = batch["input"]
    codes = torch.cat([encode(batch["input_light"]), encode(batch["target_light"])], dim=1)
    if not torch.compiler.is_compiling() and codes.isnan().any():
        raise InputError(f"{who} needs labelled lights, but the batch's input or target light is unknown")
    return codes.to(image.dtype)[:, :, None, None].expand(-1, -1, *image.shape[-2:])
