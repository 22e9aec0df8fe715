"""The cues of a light: where it stands, how it shades the surface, and `Geometry`, which shares the work among lights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import torch
from torch import Tensor

from ltnet_pl.geometry.bands import by_bands
from ltnet_pl.geometry.open_sizes import is_open
from ltnet_pl.geometry.shadows import STEPS, Relief, Spans, march, relief_of
from ltnet_pl.geometry.surface import (
    Slopes,
    anchor,
    aspect_of,
    normals_of,
    rays,
    resampled,
    size_within,
    steepness,
    tangents,
    window_of,
    working,
)
from ltnet_pl.geometry.upsampling import Lattice, Window

T = TypeVar("T")

MARCHED_SIDE = 256
"""Points along the longer side that shadows are looked up for; what lies between takes the visibility of its neighbours."""


@dataclass(frozen=True)
class Geometry:
    """What all lights of a batch share: points, normals, anchor. Made by `Geometry.of`.

    Args:
        points: ``(B, 3, H, W)`` in the camera frame, float32; 0 where there is background.
        normals: Unit normals ``(B, 3, H, W)`` that face the viewer, float32; 0 where there is background.
        anchor: ``(B, 3)``, the point that the rig stands around.
        frame_depth: ``(B / guesses, 1, h, w)``, the whole frame's depth.
        aspect: ``(B,)``, width over height of the frame.
        camera: ``(B, 2)``: field of view and pitch in degrees.
        texel: ``(B,)``, side of a pixel per unit of depth.
        dtype: What the cues are returned as.
        guesses: How many of the samples in a row share one frame.
        relief: The frame's depth prepared for marching; None: prepared when it is needed.
        window: Of the points in the frame, ``(B, 4)``.
        source: Who looks shadows up for these points, and which window of it they show; None: they do it themselves, or, where
            they are too many, a geometry of fewer points.
    """

    points: Tensor
    normals: Tensor
    anchor: Tensor
    frame_depth: Tensor
    aspect: Tensor
    camera: Tensor
    texel: Tensor
    dtype: torch.dtype
    guesses: int = 1
    relief: Relief | None = None
    window: Tensor | None = None
    source: tuple[Geometry, Window | None] | None = None
    # in place of functools.cached_property, whose lock breaks the graph of a compiler
    _kept: dict[str, object] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, depth: Tensor, frame_depth: Tensor, crop: Tensor | None, camera: Tensor) -> Geometry:
        """Geometry of a crop's depth ``(B, 1, H, W)`` within its frame's ``(B, 1, h, w)``; ``crop`` None for whole frames.

        Raises:
            ValueError: If a shape is not as stated.
        """
        return cls.guessed(depth, frame_depth, crop, camera, 1)

    @classmethod
    def guessed(cls, depth: Tensor, frame_depth: Tensor, crop: Tensor | None, cameras: Tensor, guesses: int) -> Geometry:
        """Geometry under several guesses of each sample's camera, ``(B * guesses, 2)``, those of one sample in a row.

        What no camera changes is computed once.

        Raises:
            ValueError: If a shape is not as stated.
        """

        def again(x: Tensor) -> Tensor:
            return x if guesses == 1 else x.repeat_interleave(guesses, dim=0)

        d, frame, seen = working(depth), working(frame_depth), working(cameras)
        whole, window = again(d), again(window_of(crop, d))
        at = again(anchor(frame, seen[::guesses]))
        aspect = aspect_of(whole, window)
        texel = 2 * tangents(seen, aspect)[1] * window[:, 2] / d.shape[-2]
        (x, y), steep = rays(whole, seen, window), steepness(whole, seen, window)

        def surface(rows: slice) -> tuple[Tensor, Tensor]:
            slopes = Slopes.of(d, rows) if guesses == 1 else Slopes.of(d, rows).repeated(guesses)
            part, y_part = whole[:, :, rows], y[:, :, rows]
            return torch.cat([part * x, part * y_part, -part], dim=1), normals_of(slopes, (x, y_part), steep)

        points, normals = by_bands(surface, whole)
        return cls(points, normals, at, frame, aspect, seen, texel, depth.dtype, guesses, window=window)

    def repeated(self, times: int) -> Geometry:
        """Each sample's geometry so many times in a row, for as many lights; what marching needs is prepared once."""

        def again(x: Tensor) -> Tensor:
            return x.repeat_interleave(times, dim=0)

        relief = Relief(self._relief[0], *(again(table) for table in self._relief[1:]))
        points, normals, at, camera, aspect, texel = (
            again(x) for x in (self.points, self.normals, self.anchor, self.camera, self.aspect, self.texel)
        )
        guesses = times * self.guesses
        return Geometry(points, normals, at, self.frame_depth, aspect, camera, texel, self.dtype, guesses, relief)

    def thinned(self, stride: int) -> Geometry:
        """Only every so many points along each side; all that may stand between them and a light stays."""
        points, normals = (x[..., ::stride, ::stride].contiguous() for x in (self.points, self.normals))
        return replace(self, points=points, normals=normals, texel=self.texel * stride)

    def _once(self, name: str, make: Callable[[], T]) -> T:
        """What is made the first time that it is asked for."""
        if name not in self._kept:
            self._kept[name] = make()
        return cast(T, self._kept[name])

    @property
    def _relief(self) -> Relief:
        """The frame's depth prepared for marching; only visibility needs it."""

        def make() -> Relief:
            spans = Spans.of(self.frame_depth)
            return relief_of(spans.repeated(self.guesses) if self.guesses > 1 else spans, self.anchor, self.camera, self.aspect)

        return self._once("relief", make) if self.relief is None else self.relief

    @property
    def marched(self) -> Geometry:
        """The geometry whose points shadows are looked up for: this one, or one of fewer points."""
        if self.source is not None:
            return self.source[0]
        size = (self.points.shape[-2], self.points.shape[-1])
        fewer = size_within(size, MARCHED_SIDE)
        # guesses are of few points; what has no window is no image; a size that an export leaves open may be large
        if self.window is None or self.guesses > 1 or not (is_open(*size) or fewer != size):
            return self

        def make() -> Geometry:
            return Geometry.of(resampled(-self.points[:, 2:], fewer), self.frame_depth, self.window, self.camera)

        return self._once("marched", make)

    @property
    def _lattice(self) -> Lattice | None:
        """Where the points stand among those that shadows are looked up for; None where they are the same."""
        if self.marched is self:
            return None
        window = None if self.source is None else self.source[1]
        return self._once(
            "lattice", lambda: Lattice.of(self.points, self.normals, self.marched.points, self.marched.texel, window)
        )

    def shading(self, lights: Tensor, rig: Tensor) -> Tensor:
        """Shading cue ``(B, 1, H, W)`` of light tensors ``(B, 2 or 4)`` on a rig ``(B, 2)``: (1 - ambient) irradiance + ambient.

        Differentiable in the lights and the rig.
        """
        position = light_position(lights, self.anchor, self.camera, rig)
        direct = irradiance(self.points, self.normals, position, self.anchor)
        if lights.shape[1] > 2:
            share = lights[:, 3].to(direct.dtype)[:, None, None, None]
            direct = (1 - share) * direct + share * (self.points[:, 2:] < 0)
        return direct.to(self.dtype)

    def shadow(self, lights: Tensor, rig: Tensor, steps: int = STEPS) -> Tensor:
        """Visibility ``(B, 1, h, w)`` in [0, 1] at the points that shadows are looked up for, 256 along the longer side at most.

        Carries no gradient. What it costs does not grow with the number of points, and all windows of one source share it.
        """
        of = self.marched
        position = light_position(lights, of.anchor, of.camera, rig)
        return march(of.points, of.normals, of._relief, position, of.camera, of.aspect, steps)

    def visibility(self, lights: Tensor, rig: Tensor, steps: int = STEPS, shadow: Tensor | None = None) -> Tensor:
        """Visibility cue ``(B, 1, H, W)`` in [0, 1] of light tensors ``(B, 2 or 4)`` on a rig ``(B, 2)``; carries no gradient.

        Of more than 256 points along a side only as many are marched from, and each takes what those see that stand on its own
        surface: the frame's depth, in which shadows are looked up, holds no more. Who has the `shadow` of the lights gives it.
        """
        seen = self.shadow(lights, rig, steps) if shadow is None else shadow
        if self._lattice is not None:
            # background sees all, whatever surface is beside it; NaN stays
            spread = self._lattice.spread(seen)
            seen = torch.where((self.points[:, 2:] < 0) | spread.isnan(), spread, 1.0)
        return seen.to(self.dtype)

    def cues(self, lights: Tensor, rig: Tensor, steps: int = STEPS, shadow: Tensor | None = None) -> Tensor:
        """Shading and visibility, ``(B, 2, H, W)``."""
        return torch.cat([self.shading(lights, rig), self.visibility(lights, rig, steps, shadow)], dim=1)


def marched_points(height: int, width: int) -> int:
    """For how many points of so many shadows are looked up."""
    rows, columns = size_within((height, width), MARCHED_SIDE)
    return rows * columns


def cues(
    depth: Tensor, frame_depth: Tensor, crop: Tensor | None, lights: Tensor, camera: Tensor, rig: Tensor, steps: int = STEPS
) -> Tensor:
    """Shading and visibility of one light per sample; for several lights, `Geometry.of` shares the work.

    Args:
        depth: ``(B, 1, H, W)``, 0 = background.
        frame_depth: The whole frame's depth, ``(B, 1, h, w)``, of any resolution, in the same scale.
        crop: Window of ``depth`` in the frame, ``(B, 4)``: top, left, height, width as fractions; None for the whole frame.
        lights: Light tensor ``(B, 2)`` or ``(B, 4)``, without NaN but in the elevation.
        camera: ``(B, 2)``: vertical field of view of the frame and pitch, in degrees.
        rig: ``(B, 2)``: radius and height in units of the distance to the anchor.
        steps: Steps of the march towards the light.

    Returns:
        ``(B, 2, H, W)``: ``(1 - ambient) * irradiance + ambient`` (1 at the anchor for a surface that faces the light, 0 for
        background), and visibility in [0, 1] (1 for background).

    Raises:
        ValueError: If a shape is not as stated.
    """
    return Geometry.of(depth, frame_depth, crop, camera).cues(lights, rig, steps)


def arriving(cues: Tensor, lights: Tensor) -> Tensor:
    """Light that arrives at each point: shading times visibility; the ambient part comes from everywhere and casts no shadow.

    Args:
        cues: ``(B, 1 or 2, H, W)``: shading, and visibility where there is one.
        lights: The light tensor that they are of, ``(B, 2)`` or ``(B, 4)``.

    Returns:
        ``(B, 1, H, W)``: ``(1 - ambient) * irradiance * visibility + ambient``, 0 for background.
    """
    if lights.shape[1] == 2 or cues.shape[1] == 1:
        return cues.prod(dim=1, keepdim=True)
    shading, seen = cues[:, :1], cues[:, 1:]
    # shading is at least the ambient share, but for background, where it is 0
    ambient = torch.minimum(shading, lights[:, 3].to(cues.dtype)[:, None, None, None])
    return (shading - ambient) * seen + ambient


def light_position(lights: Tensor, anchor: Tensor, camera: Tensor, rig: Tensor) -> Tensor:
    """Where lights stand: ``L = P + |P| (radius * dir(azimuth) + height * up)``; differentiable in all arguments.

    Args:
        lights: Light tensor ``(B, 2)`` or ``(B, 4)``: azimuth in degrees, kelvin, elevation in degrees (NaN: the rig's), ambient.
            A light with an elevation keeps the rig's distance.
        anchor: P, ``(B, 3)`` in the camera frame.
        camera: ``(B, 2)``: field of view (not used) and pitch, in degrees.
        rig: ``(B, 2)``: radius and height in units of ``|P|``.

    Returns:
        ``(B, 3)`` in the camera frame and the anchor's dtype.
    """
    at = working(anchor)
    lights, camera, rig = lights.to(at.dtype), camera.to(at.dtype), rig.to(at.dtype)
    radius, height = rig[:, 0], rig[:, 1]
    if lights.shape[1] > 2:
        own = ~lights[:, 2].isnan()
        elevation = torch.deg2rad(torch.where(own, lights[:, 2], 0.0))
        reach = torch.hypot(radius, height)
        radius = torch.where(own, reach * elevation.cos(), radius)
        height = torch.where(own, reach * elevation.sin(), height)
    bearing, pitch = torch.deg2rad(lights[:, 0]), torch.deg2rad(camera[:, 1])
    forth = -radius * bearing.cos()
    y = pitch.cos() * height - pitch.sin() * forth
    z = pitch.sin() * height + pitch.cos() * forth
    offset = torch.stack([radius * bearing.sin(), y, z], dim=1)
    distance = at.square().sum(dim=1, keepdim=True).sqrt()
    return (at + distance * offset).to(anchor.dtype)


def irradiance(points: Tensor, normals: Tensor, light_position: Tensor, anchor: Tensor) -> Tensor:
    r"""Irradiance of a point light without cast shadows, in units of what a surface at the anchor gets that faces the light.

    .. math:: E = \max(0, n \cdot l) \, (|L - P| / r)^2

    Args:
        points: ``(B, 3, H, W)``.
        normals: Unit normals ``(B, 3, H, W)``; 0 gives 0.
        light_position: L, ``(B, 3)``.
        anchor: P, ``(B, 3)``.

    Returns:
        ``(B, 1, H, W)``, 0 or more, in the points' dtype; differentiable in all arguments.
    """
    p, n, light, at = (working(x) for x in (points, normals, light_position, anchor))
    towards = light[:, :, None, None] - p
    squared = towards.square().sum(dim=1, keepdim=True)
    reach = (light - at).square().sum(dim=1)[:, None, None, None]
    facing = (n * towards).sum(dim=1, keepdim=True).clamp(min=0)
    return (facing * squared.rsqrt() * (reach / squared)).to(points.dtype)
