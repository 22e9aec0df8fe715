"""The two streams: the depth stream computes geometry features and cues, the light stream reads a light off an image."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltnet_pl import InputError
from ltnet_pl.geometry import Geometry
from ltnet_pl.light import Camera, Rig
from ltnet_pl.nets.blocks import Block

CueKind = Literal["none", "shading", "visibility"]


def camera_and_rig(batch: dict[str, Tensor], camera: Camera, rig: Rig, known: bool) -> tuple[Tensor, Tensor]:
    """Camera and rig tensors ``(B, 2)``: the assumed ones, or, where ``known``, the batch's own wherever it has them."""
    depth = batch["depth"]
    assumed_camera = depth.new_tensor([camera.fov, camera.pitch], dtype=torch.float32).expand(len(depth), 2)
    assumed_rig = depth.new_tensor([rig.radius, rig.height], dtype=torch.float32).expand(len(depth), 2)
    if not known:
        return assumed_camera, assumed_rig
    return (
        torch.where(batch["camera"].isnan(), assumed_camera, batch["camera"]),
        torch.where(batch["rig"].isnan(), assumed_rig, batch["rig"]),
    )


class DepthStream(nn.Module):
    """Geometry features of the input for its present and its wanted light; no learned weights.

    Per pixel: validity, log of the depth relative to the point P that the camera looks at, normal, position relative to P, then
    for each light the cues.

    Args:
        cues: ``none``; ``shading``: irradiance; ``visibility``: irradiance, visibility and their product.
        steps: Steps of the march towards each light.
    """

    def __init__(self, cues: CueKind = "visibility", steps: int = 32) -> None:
        super().__init__()
        if cues not in get_args(CueKind):
            raise InputError(f"cues is {cues!r}; expected one of {', '.join(get_args(CueKind))}")
        self.cues, self.steps = cues, steps
        self.channels = 8 + 2 * {"none": 0, "shading": 1, "visibility": 3}[cues]

    @torch.no_grad()
    def forward(self, batch: dict[str, Tensor], lights: tuple[Tensor, Tensor], camera: Tensor, rig: Tensor) -> Tensor:
        """Features ``(B, channels, H, W)`` of a batch for its present and its wanted light (light tensors without NaN)."""
        geometry = Geometry.of(batch["depth"], batch["frame_depth"], batch["crop"], camera)
        features = [plain_geometry(geometry)]
        for light in lights if self.cues != "none" else ():
            if self.cues == "shading":
                features.append(geometry.shading(light, rig))
                continue
            cue = geometry.cues(light, rig, self.steps)
            features += [cue, cue[:, :1] * cue[:, 1:]]
        return torch.cat(features, dim=1)


def plain_geometry(geometry: Geometry) -> Tensor:
    """Validity, relative log depth, normal, relative position: channels ``(B, 8, H, W)``, free of the depth's unknown scale."""
    reach = geometry.anchor.norm(dim=1).clamp(min=1e-6)[:, None, None, None]
    depth = -geometry.points[:, 2:]
    valid = (depth > 0).to(depth.dtype)
    relative = torch.log((depth / reach).clamp(0.05, 20.0)) * valid
    position = ((geometry.points - geometry.anchor[:, :, None, None]) / reach).clamp(-4, 4) * valid
    return torch.cat([valid, relative, geometry.normals, position], dim=1)


class LightStream(nn.Module):
    """Reads the light off one image, with its depth where there is one.

    Two readings meet in a small perceptron: a convolutional trunk on the image and its geometry, and, where there is depth, the
    correlation of the image's log luminance with the shading that each of 16 light directions would cause on that geometry.

    Args:
        latent: Length of the latent, for what azimuth and temperature do not say.
        width: Channels of the trunk's first stage.
        size: Longer side in pixels at which the light is read; larger images are reduced.
        match: Use the correlation with computed shading.
    """

    candidates = 16

    def __init__(self, latent: int = 8, width: int = 16, size: int = 96, match: bool = True) -> None:
        super().__init__()
        self.size, self.match = size, match
        widths = (width, 2 * width, 4 * width, 6 * width)
        stages: list[nn.Module] = []
        for before, after in zip((3 + 8, *widths[:-1]), widths, strict=True):
            stages += [nn.Conv2d(before, after, 3, stride=2, padding=1), Block(after), nn.SiLU()]
        self.trunk = nn.Sequential(*stages)
        self.head = nn.Sequential(
            nn.Linear(2 * widths[-1] + 6 + self.candidates * match, 96), nn.SiLU(), nn.Linear(96, 3 + latent)
        )

    def forward(self, image: Tensor, depth: Tensor, camera: Tensor, rig: Tensor, crop: Tensor) -> tuple[Tensor, Tensor]:
        """Image ``(B, 3, H, W)`` and depth ``(B, 1, H, W)``, zeros for none, to a raw code ``(B, 3)`` and a latent."""
        scale = self.size / max(image.shape[-2:])
        if scale < 1:
            size = [max(8, round(side * scale)) for side in image.shape[-2:]]
            image = functional.interpolate(image, size=size, mode="area")
            depth = functional.interpolate(depth, size=size, mode="nearest-exact")
        with torch.no_grad():
            geometry = Geometry.of(depth, depth, crop, camera)
            plain = plain_geometry(geometry)
        features = self.trunk(torch.cat([image, plain], dim=1))
        parts = [features.mean(dim=(2, 3)), features.amax(dim=(2, 3)), colour_statistics(image)]
        if self.match:
            parts.append(self.correlations(image, geometry, rig))
        code, latent = self.head(torch.cat(parts, dim=1)).tensor_split([3], dim=1)
        return code, latent

    @torch.no_grad()
    def correlations(self, image: Tensor, geometry: Geometry, rig: Tensor) -> Tensor:
        """Correlation ``(B, 16)`` of the image's luminance with the shading of 16 directions; 0 where there is no depth."""
        valid = (geometry.points[:, 2:] < 0).float()
        count = valid.sum(dim=(2, 3)).clamp(min=1)

        def standardise(x: Tensor) -> Tensor:
            centred = (x - ((x * valid).sum(dim=(2, 3)) / count)[:, :, None, None]) * valid
            return centred / centred.square().sum(dim=(2, 3)).sqrt().clamp(min=1e-6)[:, :, None, None]

        brightness = standardise(image.detach().float().mean(dim=1, keepdim=True).clamp(min=0.0))
        azimuths = torch.arange(self.candidates, device=image.device) * (360.0 / self.candidates)
        shadings = []
        for azimuth in azimuths:
            light = torch.stack([azimuth, azimuth.new_tensor(5000.0)]).expand(len(image), 2)
            shadings.append(geometry.shading(light, rig))
        return (standardise(torch.cat(shadings, dim=1)) * brightness).sum(dim=(2, 3)).to(image.dtype)


def colour_statistics(image: Tensor) -> Tensor:
    """Mean linear-light colour of the brighter pixels and of all, as log ratios and levels ``(B, 6)``: it tells a temperature."""
    linear = image.clamp(0, 1).float() ** 2.2
    luminance = linear.mean(dim=1, keepdim=True)
    bright = (luminance >= luminance.mean(dim=(2, 3), keepdim=True)).float()
    parts = []
    for weight in (bright, torch.ones_like(bright)):
        mean = (linear * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp(min=1) + 1e-4
        level = mean.mean(dim=1, keepdim=True)
        parts += [torch.log(mean[:, :1] / mean[:, 1:2]), torch.log(mean[:, 2:] / mean[:, 1:2]), torch.log(level)]
    return torch.cat(parts, dim=1).to(image.dtype)
