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

_DISPLAY = 2.2  # exponent of a display
_BOUNCED = 0.05  # light that reaches even what no lamp sees, in units of the irradiance at the anchor
_STEP_OPERATIONS = 60  # of the march for one pixel and step: counted in `geometry.shadows.march`, a lookup as one


def known_or(assumed: Tensor, known: Tensor, use: bool) -> Tensor:
    """Camera or rig tensor ``(B, 2)``: the assumed one, or, where ``use``, the known one wherever it is not NaN."""
    return torch.where(known.isnan(), assumed, known) if use else assumed


class DepthStream(nn.Module):
    """Geometry features of the input for its present and its wanted light; no learned weights.

    Per pixel: validity, log of the depth relative to the point P that the camera looks at, normal, position relative to P, then
    for each light the cues, and last the log of the change of light that they predict.

    Args:
        cues: ``none``; ``shading``: irradiance; ``visibility``: irradiance, visibility and their product.
        steps: Steps of the march towards each light.
    """

    def __init__(self, cues: CueKind = "visibility", steps: int = 16) -> None:
        super().__init__()
        if cues not in get_args(CueKind):
            raise InputError(f"cues is {cues!r}; expected one of {', '.join(get_args(CueKind))}")
        self.cues, self.steps = cues, steps
        self.channels = 8 + {"none": 0, "shading": 3, "visibility": 7}[cues]

    @torch.no_grad()
    def forward(self, geometry: Geometry, lights: tuple[Tensor, Tensor], rig: Tensor) -> Tensor:
        """Features ``(B, channels, H, W)`` of a scene for its present and its wanted light (light tensors without NaN)."""
        features, lit = [plain_geometry(geometry)], []
        for light in lights if self.cues != "none" else ():
            cue = geometry.shading(light, rig) if self.cues == "shading" else geometry.cues(light, rig, self.steps)
            lit.append(cue.prod(dim=1, keepdim=True))
            # the image is display-encoded, so the computed light is too (a power is near enough to the sRGB curve)
            features.append(displayed(cue[:, :1]))
            if self.cues == "visibility":
                features += [cue[:, 1:], displayed(lit[-1])]
        if lit:
            present, wanted = lit
            features.append(torch.log((wanted + _BOUNCED) / (present + _BOUNCED)) / _DISPLAY)
        return torch.cat(features, dim=1)

    def operations(self, height: int, width: int) -> int:
        """Multiply-adds of the march for one image: pixels x steps x lights x operations of a step."""
        return height * width * self.steps * 2 * _STEP_OPERATIONS if self.cues == "visibility" else 0


def displayed(light: Tensor) -> Tensor:
    """Computed light in the encoding of the image, bounded."""
    return light.clamp(0, 4).pow(1 / _DISPLAY)


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
    match_size, match_steps = 48, 12

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


class PitchEstimate(nn.Module):
    """Reads the camera's pitch off the normals: the ground and all that lies flat point up, walls point sideways.

    Each normal votes for the pitches under which it would stand upright or level; the answer is the mean of all pitches,
    weighted by the softmax of their votes. It needs no image and no light, has no weights, and does not depend on the depth's
    scale. The field of view is taken as given.
    """

    lowest, highest, step = 10.0, 64.0, 2.0
    upright, level = 0.01, 0.1  # how far from upright (1 - cosine) and from level (cosine) a vote still counts
    sharpness = 40.0
    side = 48  # at most so many normals along each side vote

    @torch.no_grad()
    def forward(self, normals: Tensor, assumed: Tensor) -> Tensor:
        """Pitch ``(B,)`` in degrees from normals ``(B, 3, H, W)``, 0 for background; the assumed one where all is background."""
        stride = max(1, max(normals.shape[-2:]) // self.side)
        y, z = normals[:, 1, ::stride, ::stride].flatten(1), normals[:, 2, ::stride, ::stride].flatten(1)
        pitches = torch.arange(self.lowest, self.highest + self.step, self.step, device=normals.device, dtype=normals.dtype)
        bearing = torch.deg2rad(pitches)[None, :, None]
        cosine = y[:, None] * bearing.cos() + z[:, None] * bearing.sin()
        valid = (normals.square().sum(dim=1)[:, ::stride, ::stride] > 0.5).to(normals.dtype).flatten(1)
        votes = torch.exp((cosine - 1) / self.upright) + torch.exp(-(cosine / self.level).square())
        count = valid.sum(dim=1)
        share = (votes * valid[:, None]).sum(dim=2) / count.clamp(min=1)[:, None]
        return torch.where(count > 0, torch.softmax(self.sharpness * share, dim=1) @ pitches, assumed)


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
    lit = displayed(cue[:, 0] * cue[:, 1]).view(len(image), candidates, *image.shape[-2:])
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
    linear = image.clamp(0, 1).float() ** _DISPLAY
    luminance = linear.mean(dim=1, keepdim=True)
    bright = (luminance >= luminance.mean(dim=(2, 3), keepdim=True)).float()
    parts = []
    for weight in (bright, torch.ones_like(bright)):
        mean = (linear * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp(min=1) + 1e-4
        level = mean.mean(dim=1, keepdim=True)
        parts += [torch.log(mean[:, :1] / mean[:, 1:2]), torch.log(mean[:, 2:] / mean[:, 1:2]), torch.log(level)]
    return torch.cat(parts, dim=1).to(image.dtype)
