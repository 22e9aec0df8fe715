"""The two streams: the depth stream computes geometry features and cues, the light stream reads a light off an image."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ltnet_pl import InputError
from ltnet_pl.geometry import Geometry, arriving, is_open, number
from ltnet_pl.light import to_linear
from ltnet_pl.nets.areas import reduced
from ltnet_pl.nets.blocks import Block
from ltnet_pl.nets.camera import DISPLAY, correlate, displayed, reduce, reduced_size

CueKind = Literal["none", "shading", "visibility"]

_CERTAINTY = 5.0  # factor on the logits of mireds: they start undecided, and must be able to become sure soon
_BOUNCED = 0.05  # light that reaches even what no lamp sees, in units of the irradiance at the anchor


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
    def shadow(self, geometry: Geometry, light: Tensor, rig: Tensor) -> Tensor | None:
        """What all views of a scene share of a light's visibility (`Geometry.shadow`); None where it is no cue."""
        return geometry.shadow(light, rig, self.steps) if self.cues == "visibility" else None

    @torch.no_grad()
    def forward(self, geometry: Geometry, present: Tensor, rig: Tensor, shadow: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Geometry features and the present light's cues, and the light that arrives, ``(B, 1, H, W)`` (None without cues).

        Args:
            geometry: Of the view.
            present: Light tensor without NaN.
            rig: ``(B, 2)``.
            shadow: What `shadow` returned for the present light.
        """
        plain = plain_geometry(geometry)
        if self.cues == "none":
            return plain, None
        cues, lit = self._cues(geometry, present, rig, shadow)
        return torch.cat([plain, *cues], dim=1), lit

    @torch.no_grad()
    def wanted(
        self, geometry: Geometry, wanted: Tensor, rig: Tensor, shadow: Tensor | None, present: Tensor | None
    ) -> list[Tensor]:
        """The wanted light's cues, and the log of the change of light: what follows the features of `forward`, in parts.

        Args:
            geometry: Of the view.
            wanted: Light tensor without NaN.
            rig: ``(B, 2)``.
            shadow: What `shadow` returned for the wanted light.
            present: The present light that arrives, as `forward` returned it.
        """
        if present is None:
            return []
        cues, lit = self._cues(geometry, wanted, rig, shadow)
        return [*cues, torch.log((lit + _BOUNCED) / (present + _BOUNCED)) / DISPLAY]

    def _cues(self, geometry: Geometry, light: Tensor, rig: Tensor, shadow: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """A light's cues as the network sees them, and the light that arrives."""
        cue = geometry.shading(light, rig) if shadow is None else geometry.cues(light, rig, self.steps, shadow)
        lit = arriving(cue, light)
        # the image is display-encoded, so the computed light is too (a power is near enough to the sRGB curve)
        cues = [displayed(cue[:, :1])]
        if self.cues == "visibility":
            cues += [cue[:, 1:], displayed(lit)]
        return cues, lit


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
    and its geometry; a perceptron takes both, adds its own opinion on the 16 directions, and a latent. The azimuth is the sum of
    the directions, weighted by the softmax of correlations and opinions. The temperature is read off the colours alone.

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
        inputs = 2 * widths[-1] + self.candidates * match
        self.head = nn.Sequential(nn.Linear(inputs, 96), nn.SiLU(), nn.Linear(96, self.candidates + latent))
        self.colour = ColourReading()
        # how sharply the best correlation wins: those of neighbours differ by some hundredths
        self.sharpness = nn.Parameter(torch.tensor(100.0)) if match else None

    def forward(self, image: Tensor, depth: Tensor, camera: Tensor, rig: Tensor, crop: Tensor) -> tuple[Tensor, Tensor]:
        """Image ``(B, 3, H, W)`` and depth ``(B, 1, H, W)``, zeros for none, to a raw code ``(B, 3)`` and a latent."""
        seen, seen_depth = reduce(image, depth, self.trunk_size)
        with torch.no_grad():
            plain = plain_geometry(Geometry.of(seen_depth, seen_depth, crop, camera))
        features = self.trunk(torch.cat([seen, plain.to(seen.dtype)], dim=1))
        parts = [features.mean(dim=(2, 3)), features.amax(dim=(2, 3))]
        own, yaw = own_camera(camera, crop, image.shape[-1] / image.shape[-2])
        prior: Tensor | float = 0.0
        if self.sharpness is not None:
            scores = self.correlations(image, depth, own, rig)
            parts.append(scores.to(features.dtype))
            # in 32 bits: what tells neighbours apart would be rounded away in 16
            prior = self.sharpness * scores
        opinion, latent = self.head(torch.cat(parts, dim=1)).tensor_split([self.candidates], dim=1)
        bearings = self._bearings(image)[None] + yaw[:, None]
        weights = torch.softmax(prior + opinion, dim=1)
        azimuth = torch.stack([(weights * bearings.sin()).sum(dim=1), (weights * bearings.cos()).sum(dim=1)], dim=1)
        return torch.cat([azimuth, self.colour(image).to(azimuth.dtype)], dim=1), latent

    def _bearings(self, like: Tensor) -> Tensor:
        """The directions in radians."""
        return torch.arange(self.candidates, device=like.device) * (2 * torch.pi / self.candidates)

    def correlations(self, image: Tensor, depth: Tensor, camera: Tensor, rig: Tensor) -> Tensor:
        """Correlation ``(B, 16)`` of an image's brightness with what 16 directions would light; 0 where there is no depth.

        Image and depth are taken as a whole frame of the camera.
        """
        image, depth = reduce(image, depth, self.match_size)
        geometry = Geometry.of(depth.float(), depth.float(), None, camera).repeated(self.candidates)
        azimuths = torch.rad2deg(self._bearings(image)).repeat(len(image))
        lights = torch.stack([azimuths, torch.full_like(azimuths, 5000.0)], dim=1)
        return correlate(image, geometry, lights, rig.repeat_interleave(self.candidates, dim=0), self.match_steps)


def own_camera(camera: Tensor, crop: Tensor, aspect: float) -> tuple[Tensor, Tensor]:
    """The camera ``(B, 2)`` that would see a crop as its whole frame, and how far that turns what is read, in radians ``(B,)``.

    A crop off the centre is really a sheared view, and the light stands around the frame's centre, not the crop's: both turn
    what matches, against each other. How much of the angle to the crop's centre is left depends on where the light stands: on
    traced scenes most of it where the light is behind the scene, hardly any where it stands beside or before it. A quarter, its
    mean over the eight directions, is taken.
    """
    up = torch.tan(torch.deg2rad(camera[:, 0]) / 2)
    across = up * aspect * crop[:, 2] / crop[:, 3]  # the frame's own aspect, since aspect is the crop's
    down = torch.rad2deg(torch.atan(up * (2 * crop[:, 0] + crop[:, 2] - 1)))
    fov = 2 * torch.rad2deg(torch.atan(up * crop[:, 2]))
    return torch.stack([fov, camera[:, 1] + down], dim=1), 0.25 * torch.atan(across * (2 * crop[:, 1] + crop[:, 3] - 1))


class ColourReading(nn.Module):
    """Reads a colour temperature off the colours of an image as a set: where they stand in it does not matter.

    Each pixel of a small image becomes its two log chromaticities and its log brightness relative to the whole, so that the
    exposure cancels; a perceptron turns each into features, their mean and soft maximum into a distribution over mireds, whose
    mean is the reading. A distribution can be sure where a single number hedges between what is likely.

    Args:
        hidden: Channels of each layer.
        bins: Number of mireds, spread evenly at the start over a little more than the range of the scaled mired.
    """

    side = 16  # pixels along the longer side
    frequencies = 2  # octaves of sines and cosines of each number
    floor = 2e-3  # added to linear light: below it, rounding is all there is

    def __init__(self, hidden: int = 64, bins: int = 21) -> None:
        super().__init__()
        # learned too: a distribution that is sure of one of them has no other way to come nearer to the truth
        self.mireds = nn.Parameter(torch.linspace(-1.15, 1.15, bins))
        self.pixel = nn.Sequential(
            nn.Linear(3 * (1 + 2 * self.frequencies), hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
        )
        self.whole = nn.Sequential(
            nn.LayerNorm(2 * hidden), nn.Linear(2 * hidden, 2 * hidden), nn.SiLU(), nn.Linear(2 * hidden, bins)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Image ``(B, 3, H, W)`` to a scaled mired ``(B, 1)``."""
        small = reduced(image.float(), reduced_size(image, self.side))
        linear = to_linear(small.clamp(0, 1)).flatten(2) + self.floor
        red, green, blue = linear.log().unbind(dim=1)
        brightness = linear.mean(dim=1)
        relative = torch.log(brightness / brightness.mean(dim=1, keepdim=True))
        colours = 3 * torch.stack([red - green, blue - green, relative / 3], dim=2)
        waves = [f(colours * 2**octave) for octave in range(self.frequencies) for f in (torch.sin, torch.cos)]
        features = self.pixel(torch.cat([colours, *waves], dim=2))
        count = features.shape[1]
        log_count = number(count).log().to(features.dtype) if is_open(count) else math.log(count)
        pooled = torch.cat([features.mean(dim=1), torch.logsumexp(features, dim=1) - log_count], dim=1)
        weights = torch.softmax(_CERTAINTY * self.whole(pooled), dim=1)
        return (weights * self.mireds).sum(dim=1, keepdim=True)
