"""The two streams: the depth stream computes geometry features and cues, the light stream reads a light off an image."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltnet_pl import InputError
from ltnet_pl.geometry import Geometry
from ltnet_pl.nets.blocks import Block

CueKind = Literal["none", "shading", "visibility"]
CameraSource = Literal["assumed", "estimated", "true"]


def known_or(assumed: Tensor, known: Tensor, use: bool) -> Tensor:
    """Camera or rig tensor ``(B, 2)``: the assumed one, or, where ``use``, the known one wherever it is not NaN."""
    return torch.where(known.isnan(), assumed, known) if use else assumed


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

    Two readings meet. One needs no training: on the depth, the light of each of 16 directions is computed at a low resolution,
    cast shadows included, and correlated with the brightness of the image. The other is a small convolutional trunk on the image
    and its geometry; a perceptron takes both, adds its own opinion on the 16 directions, reads the temperature, and adds a
    latent. The azimuth is the sum of the directions, weighted by the softmax of correlations and opinions.

    Args:
        latent: Length of the latent, for what azimuth and temperature do not say.
        width: Channels of the trunk's first stage.
        match: Use the computed lights.
    """

    trunk_size = 64
    candidates = 16
    match_size, match_steps = 32, 12
    # the camera is sought on fewer and coarser pictures
    pitch_candidates, pitch_size, pitch_steps, pitch_span = 8, 24, 8, 15.0
    pitch_sharpness = 100.0

    def __init__(self, latent: int = 8, width: int = 16, match: bool = True) -> None:
        super().__init__()
        self.match = match
        widths = (width, 2 * width, 4 * width, 6 * width)
        stages: list[nn.Module] = []
        for before, after in zip((3 + 8, *widths[:-1]), widths, strict=True):
            stages += [nn.Conv2d(before, after, 3, stride=2, padding=1), Block(after), nn.SiLU()]
        self.trunk = nn.Sequential(*stages)
        inputs = 2 * widths[-1] + 6 + self.candidates * match
        self.head = nn.Sequential(nn.Linear(inputs, 96), nn.SiLU(), nn.Linear(96, self.candidates + 1 + latent))
        # how sharply the best correlation wins: those of neighbours differ by some hundredths
        self.sharpness = nn.Parameter(torch.tensor(60.0)) if match else None

    def forward(self, image: Tensor, depth: Tensor, camera: Tensor, rig: Tensor, crop: Tensor) -> tuple[Tensor, Tensor]:
        """Image ``(B, 3, H, W)`` and depth ``(B, 1, H, W)``, zeros for none, to a raw code ``(B, 3)`` and a latent."""
        seen, seen_depth = reduce(image, depth, self.trunk_size)
        with torch.no_grad():
            plain = plain_geometry(Geometry.of(seen_depth, seen_depth, crop, camera))
        features = self.trunk(torch.cat([seen, plain.to(seen.dtype)], dim=1))
        parts = [features.mean(dim=(2, 3)), features.amax(dim=(2, 3)), colour_statistics(seen)]
        own, yaw = own_camera(camera, crop, image.shape[-1] / image.shape[-2])
        prior: Tensor | float = 0.0
        if self.sharpness is not None:
            scores = self.correlations(image, depth, own, rig).to(features.dtype)
            parts.append(scores)
            prior = self.sharpness * scores
        opinion, temperature, latent = self.head(torch.cat(parts, dim=1)).tensor_split(
            [self.candidates, self.candidates + 1], dim=1
        )
        bearings = self._bearings(image)[None] + yaw[:, None]
        weights = torch.softmax(prior + opinion, dim=1)
        azimuth = torch.stack([(weights * bearings.sin()).sum(dim=1), (weights * bearings.cos()).sum(dim=1)], dim=1)
        return torch.cat([azimuth.to(temperature.dtype), temperature], dim=1), latent

    def _bearings(self, like: Tensor) -> Tensor:
        """The directions in radians."""
        return torch.arange(self.candidates, device=like.device) * (2 * torch.pi / self.candidates)

    def correlations(self, image: Tensor, depth: Tensor, camera: Tensor, rig: Tensor) -> Tensor:
        """Correlation ``(B, 16)`` of an image's brightness with what 16 directions would light; 0 where there is no depth.

        Image and depth are taken as a whole frame of the camera.
        """
        return correlate(*reduce(image, depth, self.match_size), camera, rig, self.candidates, self.match_steps)

    def pitch(self, image: Tensor, depth: Tensor, camera: Tensor, rig: Tensor, crop: Tensor) -> Tensor:
        """Pitch of the camera ``(B,)`` in degrees, under which some light explains the image best; the given one without depth.

        Under a wrong pitch, computed light and shadow fit the image less well from any direction. Three pitches are tried, the
        given one in the middle, and averaged by the softmax of their best correlations.
        """
        own, _ = own_camera(camera, crop, image.shape[-1] / image.shape[-2])
        small = reduce(image, depth, self.pitch_size)
        offsets = camera.new_tensor([-self.pitch_span, 0.0, self.pitch_span])
        scores = [
            correlate(*small, own + torch.stack([torch.zeros_like(o), o]), rig, self.pitch_candidates, self.pitch_steps).amax(
                dim=1
            )
            for o in offsets
        ]
        return camera[:, 1] + torch.softmax(self.pitch_sharpness * torch.stack(scores, dim=1), dim=1) @ offsets


def own_camera(camera: Tensor, crop: Tensor, aspect: float) -> tuple[Tensor, Tensor]:
    """The camera ``(B, 2)`` that would see a crop as its whole frame, and how far it is turned to the right, in radians ``(B,)``.

    A crop off the centre is really a sheared view; this is the rotated one nearest to it.
    """
    up = torch.tan(torch.deg2rad(camera[:, 0]) / 2)
    across = up * aspect * crop[:, 2] / crop[:, 3]  # the frame's own aspect, since aspect is the crop's
    down = torch.rad2deg(torch.atan(up * (2 * crop[:, 0] + crop[:, 2] - 1)))
    fov = 2 * torch.rad2deg(torch.atan(up * crop[:, 2]))
    return torch.stack([fov, camera[:, 1] + down], dim=1), torch.atan(across * (2 * crop[:, 1] + crop[:, 3] - 1))


@torch.no_grad()
def correlate(image: Tensor, depth: Tensor, camera: Tensor, rig: Tensor, candidates: int, steps: int) -> Tensor:
    """Correlation of an image's brightness with the computed light of some directions, spread evenly from N.

    Args:
        image: ``(B, 3, H, W)``.
        depth: ``(B, 1, H, W)``, 0 for background.
        camera: ``(B, 2)``.
        rig: ``(B, 2)``.
        candidates: Number of directions.
        steps: Steps of the march for cast shadows.

    Returns:
        ``(B, candidates)``, float32, within [-1, 1]; 0 where there is no depth.
    """
    image, depth = image.detach().float(), depth.float()
    geometry = Geometry.of(depth, depth, None, camera)
    every = {f.name: getattr(geometry, f.name) for f in fields(geometry)}
    every = {k: v.repeat_interleave(candidates, dim=0) if torch.is_tensor(v) else v for k, v in every.items()}
    azimuths = torch.arange(candidates, device=image.device) * (360.0 / candidates)
    lights = torch.stack([azimuths, torch.full_like(azimuths, 5000.0)], dim=1).repeat(len(image), 1)
    cue = Geometry(**every).cues(lights, rig.repeat_interleave(candidates, dim=0), steps)
    # the image is display-encoded, so the computed light is too (a power is near enough to the sRGB curve)
    lit = (cue[:, 0] * cue[:, 1]).clamp(min=0).pow(1 / 2.2).view(len(image), candidates, *image.shape[-2:])
    valid = (depth > 0).float()
    count = valid.sum(dim=(2, 3)).clamp(min=1)

    def standardise(x: Tensor) -> Tensor:
        centred = (x - ((x * valid).sum(dim=(2, 3)) / count)[:, :, None, None]) * valid
        return centred / centred.square().sum(dim=(2, 3)).sqrt().clamp(min=1e-6)[:, :, None, None]

    return (standardise(lit) * standardise(image.mean(dim=1, keepdim=True))).sum(dim=(2, 3))


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
