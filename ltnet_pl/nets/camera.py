"""The camera that took an image: assumed, told by the batch, or estimated from the depth and from the light in the image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltnet_pl.geometry import Geometry, arriving, is_open, normals_from_depth, resampled, size_within
from ltnet_pl.light import power
from ltnet_pl.nets.areas import reduced

CameraSource = Literal["assumed", "estimated", "true"]

DISPLAY = 2.2  # exponent of a display
THINNED = 2  # every so many points are compared along each side: neighbours agree, and shadows are cast by all
_STEP_OPERATIONS = 60  # of the march for one pixel and step: counted in `geometry.shadows.march`, a lookup as one
_FLOOR = 0.03  # light that reaches even what no lamp sees, in units of the irradiance at the anchor


def known_or(assumed: Tensor, known: Tensor, use: bool) -> Tensor:
    """Camera or rig tensor ``(B, 2)``: the assumed one, or, where ``use``, the known one wherever it is not NaN."""
    return torch.where(known.isnan(), assumed, known) if use else assumed


def displayed(light: Tensor) -> Tensor:
    """Computed light in the encoding of the image, bounded; a power is near enough to the sRGB curve."""
    return power(light.clamp(0, 4), 1 / DISPLAY)


def reduce(image: Tensor, depth: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Image and depth at a resolution of at most ``side`` pixels along the longer side."""
    size = reduced_size(image, side)
    if not is_open(*size) and size == tuple(image.shape[-2:]):
        return image, depth
    return reduced(image, size), resampled(depth, size)


def reduced_size(image: Tensor, side: int) -> tuple[int, int]:
    """Height and width of an image at a resolution of at most ``side`` pixels along the longer side, but at least 8."""
    return size_within(image.shape[-2:], side, least=8)


def march_operations(pixels: int, steps: int, lights: int) -> int:
    """Multiply-adds of marching from so many pixels towards so many lights, which no counter of torch sees."""
    return pixels * steps * lights * _STEP_OPERATIONS


@torch.no_grad()
def correlate(image: Tensor, geometry: Geometry, lights: Tensor, rig: Tensor, steps: int) -> Tensor:
    """Correlation of an image's brightness with the light that would fall on its geometry, cast shadows included.

    Args:
        image: ``(B, 3, H, W)``.
        geometry: Of ``B * n`` guesses, those of one image in a row: n guesses of its camera, or n times the same.
        lights: Light tensors ``(B * n, 2 or 4)``, without NaN but in the elevation.
        rig: ``(B * n, 2)``.
        steps: Steps of the march for cast shadows.

    Returns:
        ``(B, n)``, float32, within [-1, 1]; 0 where there is no depth.
    """
    image, geometry = image.detach()[..., ::THINNED, ::THINNED], geometry.thinned(THINNED)
    shape = (len(image), -1, *image.shape[-2:])
    lit = displayed(arriving(geometry.cues(lights, rig, steps), lights) + _FLOOR).view(shape)
    valid = (geometry.points[:, 2] < 0).to(lit.dtype).view(shape)
    count = valid.sum(dim=(2, 3)).clamp(min=1)

    def standardise(x: Tensor) -> Tensor:
        centred = (x - ((x * valid).sum(dim=(2, 3)) / count)[:, :, None, None]) * valid
        return centred / centred.square().sum(dim=(2, 3)).sqrt().clamp(min=1e-6)[:, :, None, None]

    return (standardise(lit) * standardise(image.to(lit.dtype).mean(dim=1, keepdim=True))).sum(dim=(2, 3))


class CameraEstimate(nn.Module):
    """Reads field of view and pitch off a depth map, and off its image where the light is known; no learned weights.

    Every guess of a grid makes other normals of the same depth. Under the right one the ground and all that lies flat point
    straight up, and walls straight sideways: each normal votes for the guesses under which it does so. Terrain has little that
    is upright or level. So a coarser grid of guesses is also compared by how well the light that would fall on the depth, cast
    shadows included, explains the image's brightness: by the likelihood of what a straight line through both leaves over. What
    neither can tell is left to a broad prior around the assumed camera. The answer is the mean of the guesses, weighted by the
    softmax of what speaks for them; it lies within 35-65 and 10-64 degrees, and does not depend on the depth's scale.
    """

    fovs = tuple(range(35, 66, 3))
    pitches = tuple(range(10, 65, 2))
    coarse_shape = (3, 7)  # guesses of each that are compared with the image
    upright, level = 0.004, 0.1  # how far from upright (1 - cosine) and from level (cosine) a vote still counts
    vote, match = 40.0, 18.0  # what a mean vote is worth; half of how many pixels with independent errors the image counts as
    spread = (7.0, 12.0)  # standard deviations of the prior, in degrees
    side, stride = 48, 3  # pixels of the depth along the longer side; every so many normals vote, since neighbours agree
    image_side, steps = 64, 12  # pixels of the image along the longer side, and steps of the march for cast shadows

    def __init__(self) -> None:
        super().__init__()
        self.grid: Tensor
        self.coarse: Tensor
        coarse = [torch.linspace(g[0], g[-1], n) for g, n in zip((self.fovs, self.pitches), self.coarse_shape, strict=True)]
        self.register_buffer("grid", torch.cartesian_prod(*(torch.tensor(g).float() for g in (self.fovs, self.pitches))), False)
        self.register_buffer("coarse", torch.cartesian_prod(*coarse), False)

    @torch.no_grad()
    def of_depth(self, depth: Tensor, crop: Tensor | None, assumed: Tensor) -> Tensor:
        """What votes and the prior say for each guess, ``(B, guesses)``.

        Args:
            depth: ``(B, 1, H, W)``, 0 for background.
            crop: Its window in the frame, ``(B, 4)``; None for the whole frame.
            assumed: Camera ``(B, 2)`` that the prior stands around.
        """
        depth = resampled(depth.float(), reduced_size(depth, self.side))
        normals = normals_from_depth(depth, assumed, crop)[..., :: self.stride, :: self.stride].flatten(2)
        grid = self.grid.view(len(self.fovs), len(self.pitches), 2)
        # another field of view stretches x and y of what is seen, and thus shrinks those of its normals
        tangent, assumed_tangent = (torch.tan(torch.deg2rad(fov.to(normals.dtype)) / 2) for fov in (grid[:, 0, 0], assumed[:, 0]))
        shrunk = (assumed_tangent[:, None] / tangent)[:, :, None]
        x, y, z = (normals[:, k, None] * (shrunk if k < 2 else 1) for k in range(3))
        length = (x.square() + y.square() + z.square()).sqrt().clamp(min=1e-6)
        pitch = torch.deg2rad(grid[0, :, 1])[:, None]
        cosine = (y / length)[:, :, None] * pitch.cos() + (z / length)[:, :, None] * pitch.sin()
        votes = torch.exp((cosine - 1) / self.upright) + torch.exp(-(cosine / self.level).square())
        valid = (normals[:, 2] != 0).to(votes.dtype)[:, None]
        mean = ((votes.flatten(1, 2) * valid).sum(dim=2)) / valid.sum(dim=2).clamp(min=1)
        off = (self.grid - assumed[:, None].to(mean.dtype)) / self.grid.new_tensor(self.spread)
        return self.vote * mean - 0.5 * off.square().sum(dim=2)

    @torch.no_grad()
    def of_image(self, batch: dict[str, Tensor], lights: Tensor, rig: Tensor) -> Tensor:
        """What the input of a batch says for each guess, ``(B, guesses)``, under its light (light tensor without NaN).

        Where the brightness of n pixels is a straight line of the computed light plus independent normal errors, its
        log-likelihood under the best line is ``-n / 2 log(1 - correlation^2)`` and a constant. A correlation below 0 says
        nothing.
        """
        image, depth = reduce(batch["input"], batch["depth"], self.image_side)
        frame = resampled(batch["frame_depth"], reduced_size(batch["frame_depth"], self.image_side))
        each = len(self.coarse)
        guesses = self.coarse.repeat(len(image), 1)
        geometry = Geometry.guessed(depth.float(), frame.float(), batch["crop"], guesses, each)
        lights, rig = (x.float().repeat_interleave(each, dim=0) for x in (lights, rig))
        coarse = correlate(image, geometry, lights, rig, self.steps).view(-1, 1, *self.coarse_shape)
        size = (len(self.fovs), len(self.pitches))
        correlation = functional.interpolate(coarse, size=size, mode="bilinear", align_corners=True).flatten(1)
        # bounds of one type: torch's exporter finds no clamp of a whole and a fractional one
        return -self.match * torch.log1p(-correlation.clamp(min=0.0, max=0.999).square())

    def camera(self, scores: Tensor) -> Tensor:
        """Camera ``(B, 2)`` in degrees: the guesses' mean, weighted by the softmax of what speaks for them."""
        with torch.autocast(scores.device.type, enabled=False):  # bfloat16 would round a degree
            return torch.softmax(scores, dim=1) @ self.grid
