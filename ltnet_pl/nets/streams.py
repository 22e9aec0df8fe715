"""The two streams: the depth stream computes geometry features and cues, the light stream reads a light off an image."""

from __future__ import annotations

from dataclasses import fields
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

    Two readings meet. One needs no training: on the depth, the light of each of 16 directions is computed, cast shadows included,
    at a low resolution, and correlated with the brightness of the image; the directions, weighted by a softmax of the
    correlations, add up to a first azimuth. The other is a small convolutional trunk on the image and its geometry; a perceptron
    takes both and corrects the azimuth, reads the temperature, and adds a latent.

    Args:
        latent: Length of the latent, for what azimuth and temperature do not say.
        width: Channels of the trunk's first stage.
        match: Use the computed lights.
    """

    trunk_size = 64
    match_size = 32
    match_steps = 12
    candidates = 16

    def __init__(self, latent: int = 8, width: int = 16, match: bool = True) -> None:
        super().__init__()
        self.match = match
        widths = (width, 2 * width, 4 * width, 6 * width)
        stages: list[nn.Module] = []
        for before, after in zip((3 + 8, *widths[:-1]), widths, strict=True):
            stages += [nn.Conv2d(before, after, 3, stride=2, padding=1), Block(after), nn.SiLU()]
        self.trunk = nn.Sequential(*stages)
        inputs = 2 * widths[-1] + 6 + (self.candidates + 2) * match
        self.head = nn.Sequential(nn.Linear(inputs, 96), nn.SiLU(), nn.Linear(96, 3 + latent))
        # how sharply the best correlation wins; correlations of neighbours differ by some hundredths
        self.sharpness = nn.Parameter(torch.tensor(30.0)) if match else None

    def forward(self, image: Tensor, depth: Tensor, camera: Tensor, rig: Tensor, crop: Tensor) -> tuple[Tensor, Tensor]:
        """Image ``(B, 3, H, W)`` and depth ``(B, 1, H, W)``, zeros for none, to a raw code ``(B, 3)`` and a latent."""
        seen, seen_depth = reduce(image, depth, self.trunk_size)
        with torch.no_grad():
            plain = plain_geometry(Geometry.of(seen_depth, seen_depth, crop, camera))
        features = self.trunk(torch.cat([seen, plain.to(seen.dtype)], dim=1))
        parts = [features.mean(dim=(2, 3)), features.amax(dim=(2, 3)), colour_statistics(seen)]
        first: Tensor | None = None
        if self.sharpness is not None:
            scores = self.correlations(image, depth, camera, rig).to(features.dtype)
            bearings = torch.arange(self.candidates, device=image.device) * (2 * torch.pi / self.candidates)
            compass = torch.stack([bearings.sin(), bearings.cos()], dim=1).to(features.dtype)
            first = torch.softmax(self.sharpness * scores, dim=1) @ compass
            parts += [scores, first]
        code, latent = self.head(torch.cat(parts, dim=1)).tensor_split([3], dim=1)
        if first is not None:
            code = torch.cat([code[:, :2] + first, code[:, 2:]], dim=1)
        return code, latent

    @torch.no_grad()
    def correlations(self, image: Tensor, depth: Tensor, camera: Tensor, rig: Tensor) -> Tensor:
        """Correlation ``(B, 16)`` of an image's brightness with what 16 directions would light; 0 where there is no depth."""
        image, depth = reduce(image.detach().float(), depth.float(), self.match_size)
        geometry = Geometry.of(depth, depth, None, camera)
        every = {f.name: getattr(geometry, f.name) for f in fields(geometry)}
        every = {k: v.repeat_interleave(self.candidates, dim=0) if torch.is_tensor(v) else v for k, v in every.items()}
        azimuths = torch.arange(self.candidates, device=image.device) * (360.0 / self.candidates)
        lights = torch.stack([azimuths, torch.full_like(azimuths, 5000.0)], dim=1).repeat(len(image), 1)
        cue = Geometry(**every).cues(lights, rig.repeat_interleave(self.candidates, dim=0), self.match_steps)
        # the image is display-encoded, so the computed light is too (a power is near enough to the sRGB curve)
        lit = (cue[:, 0] * cue[:, 1]).clamp(min=0).pow(1 / 2.2).view(len(image), self.candidates, *image.shape[-2:])
        valid = (depth > 0).float()
        count = valid.sum(dim=(2, 3)).clamp(min=1)

        def standardise(x: Tensor) -> Tensor:
            centred = (x - ((x * valid).sum(dim=(2, 3)) / count)[:, :, None, None]) * valid
            return centred / centred.square().sum(dim=(2, 3)).sqrt().clamp(min=1e-6)[:, :, None, None]

        brightness = standardise(image.mean(dim=1, keepdim=True))
        return (standardise(lit) * brightness).sum(dim=(2, 3))


def reduce(image: Tensor, depth: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Image and depth at a resolution of at most ``side`` pixels along the longer side; depth is picked, never averaged."""
    scale = side / max(image.shape[-2:])
    if scale >= 1:
        return image, depth
    size = [max(8, round(length * scale)) for length in image.shape[-2:]]
    return functional.interpolate(image, size=size, mode="area"), functional.interpolate(depth, size=size, mode="nearest-exact")


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
