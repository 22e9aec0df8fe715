"""What was seen of a scene under several directions of light."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ltnet_pl import InputError
from ltnet_pl.geometry import resampled, size_within
from ltnet_pl.light import light_tensor, srgb_to_linear
from ltnet_pl.vidit import View, read_depth, read_image

LEAST_DIRECTIONS = 3
"""Directions that a pixel must be seen under: with two, its two unknowns explain everything."""

THINNED = 2
"""Every so many pixels along each side are compared; shadows are cast by all."""

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of linear sRGB, IEC 61966-2-1
_SATURATED = 254  # display value from which a channel may be clipped
_CLIPPED_SHARE = 0.05  # of a pixel's area, from which the pixel is left out
_DARK = 0.01  # linear luminance that a pixel must reach under some light, so that 8 bits tell its changes
_STILL = 1e-3  # root mean square of the relative change from which the light moves at all


@dataclass(frozen=True)
class Observation:
    """What was seen of one scene under K directions.

    Args:
        name: The scene.
        depth: Of the whole frame at the working resolution, ``(1, 1, H, W)`` float32, 0 for background.
        lights: Light tensor ``(K, 2)``, azimuth in degrees and kelvin.
        used: Which of the thinned pixels count, ``(ceil(H / 2), ceil(W / 2))`` bool, N of them.
        brightness: Luminance in linear light of each pixel that counts, divided by its root mean square over the trusted
            directions, ``(K, N)``.
        weight: 1 where a brightness can be trusted, 0 where it may be clipped, ``(K, N)``; each pixel has at least three.
    """

    name: str
    depth: Tensor
    lights: Tensor
    used: Tensor
    brightness: Tensor
    weight: Tensor


def observe(views: Iterable[View], size: int) -> Observation:
    """Read one scene, at a resolution of at most ``size`` pixels along the longer side.

    Of several colour temperatures the one with the most directions is taken, of equals the highest, whose channels clip least.

    Args:
        views: The images of one scene, each with its light.
        size: Pixels, from 16.

    Raises:
        InputError: If there is no depth, too few directions share a temperature, a file is broken, or the pictures show no
            light that moves.
    """
    chosen = _one_temperature(list(views))
    first = chosen[0]
    if first.depth is None:
        raise InputError(
            f"{first.image}: {first.scene} has no depth; expected {first.scene}.npy beside it or in a folder depth: add the "
            "depth, or remove the scene's images"
        )
    full = read_depth(first.depth)
    depth = resampled(torch.from_numpy(full)[None, None], size_within(full.shape, size, least=8))
    seen = [_reduced(read_image(view.image, full.shape), depth) for view in chosen]
    brightness, weight = (torch.stack([pair[i] for pair in seen]) for i in (0, 1))
    lit = (brightness.amax(dim=0) >= _DARK) & (depth[0, 0, ::THINNED, ::THINNED] > 0)
    used = lit & (weight.sum(dim=0) >= LEAST_DIRECTIONS)
    if not used.any():
        raise InputError(
            f"{first.image}: no pixel of {first.scene} that has depth is lit, and unclipped in {LEAST_DIRECTIONS} or more of its "
            f"{len(chosen)} pictures; expected pictures that are neither black nor white: fetch them again, or remove the scene"
        )
    brightness, weight = brightness[:, used], weight[:, used]
    power = (weight * brightness.square()).sum(dim=0) / weight.sum(dim=0)
    observation = Observation(
        first.scene,
        depth,
        light_tensor([view.light for view in chosen if view.light is not None]),
        used,
        brightness / power.sqrt().clamp(min=1e-6),
        weight,
    )
    if change(observation) < _STILL**2:
        raise InputError(
            f"{first.image}: the {len(chosen)} pictures of {first.scene} are the same whatever the direction in their names; "
            "expected light that moves: correct the names, or remove the scene"
        )
    return observation


def change(scene: Observation) -> float:
    """Mean square of what direction changes in a scene's relative brightness: how far each pixel strays from its mean."""
    mean = (scene.weight * scene.brightness).sum(dim=0) / scene.weight.sum(dim=0)
    return float((scene.weight * (scene.brightness - mean).square()).sum() / scene.weight.sum())


def _one_temperature(views: list[View]) -> list[View]:
    """The views of one colour temperature."""
    groups: defaultdict[float, list[View]] = defaultdict(list)
    for view in views:
        if view.light is not None:
            groups[view.light.temperature].append(view)
    temperature = max(groups, key=lambda kelvin: (len(groups[kelvin]), kelvin))
    chosen = groups[temperature]
    if len(chosen) < LEAST_DIRECTIONS:
        raise InputError(
            f"{chosen[0].image}: {chosen[0].scene} is seen under {len(chosen)} direction{'s' * (len(chosen) > 1)} of "
            f"{temperature:.0f} K, its best temperature; expected {LEAST_DIRECTIONS} or more directions, better all eight: add "
            "the missing images, or remove the scene's"
        )
    return chosen


def _reduced(image: NDArray[np.uint8], depth: Tensor) -> tuple[Tensor, Tensor]:
    """Linear luminance of an image at the resolution of its depth, thinned, and whether it is free of clipping: ``(h, w)``."""
    curve = srgb_to_linear(np.arange(256) / 255).astype(np.float32)
    luminance = torch.from_numpy(curve[image] @ _LUMINANCE.astype(np.float32))
    clipped = torch.from_numpy((image.max(axis=-1) >= _SATURATED).astype(np.float32))
    both = functional.interpolate(torch.stack([luminance, clipped])[None], size=depth.shape[-2:], mode="area")[0]
    small, share = both[:, ::THINNED, ::THINNED]
    return small, (share <= _CLIPPED_SHARE).float()
