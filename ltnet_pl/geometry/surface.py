"""The surface that a depth map shows: points, normals, and the point that the camera looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ltnet_pl.geometry.open_sizes import is_open, number, open_size_within

# Changes of 1 / depth from one pixel to the next, relative to it:
_JUMP = 0.04  # what may be a discontinuity
_ROUND = 0.02  # the most that a round surface bends
_MOVED = 0.2  # the most that resampling moves a pixel
_SMOOTH = 1e-10  # square of bend times square of slope that is no crease but roughness


def unproject(depth: Tensor, camera: Tensor, crop: Tensor | None = None) -> Tensor:
    """Points in the camera frame, ``depth * ((u - cx) / f, -(v - cy) / f, -1)``.

    Args:
        depth: Planar depth ``(B, 1, H, W)``.
        camera: ``(B, 2)``: vertical field of view of the whole frame and pitch (not used), in degrees.
        crop: Window ``(B, 4)`` in the frame as fractions; None for the whole frame.

    Returns:
        ``(B, 3, H, W)``, x right, y up, z towards the viewer, in the depth's unit and dtype.

    Raises:
        ValueError: If a shape is not as stated.
    """
    d = working(depth)
    x, y = rays(d, working(camera), window_of(crop, d))
    return torch.cat([d * x, d * y, -d], dim=1).to(depth.dtype)


def normals_from_depth(depth: Tensor, camera: Tensor, crop: Tensor | None = None) -> Tensor:
    """Unit normals that face the viewer, exact on planes, one-sided at edges and silhouettes.

    Args:
        depth: Planar depth ``(B, 1, H, W)``, 0 = background.
        camera: ``(B, 2)``: vertical field of view of the whole frame and pitch (not used), in degrees.
        crop: Window ``(B, 4)`` in the frame as fractions; None for the whole frame.

    Returns:
        ``(B, 3, H, W)`` in the camera frame and the depth's dtype; 0 where there is background.

    Raises:
        ValueError: If a shape is not as stated.
    """
    d, seen = working(depth), working(camera)
    window = window_of(crop, d)
    return normals_of(Slopes.of(d), rays(d, seen, window), steepness(d, seen, window)).to(depth.dtype)


def steepness(depth: Tensor, camera: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels per unit of x to the right and of y upwards, each ``(B, 1, 1, 1)``: makes slopes per unit of slopes per pixel."""
    across, up = tangents(camera, aspect_of(depth, window))
    # the window spans 2 tan(fov / 2) crop_height of y over H pixels
    right, down = depth.shape[-1] / (2 * across * window[:, 3]), -depth.shape[-2] / (2 * up * window[:, 2])
    return right[:, None, None, None], down[:, None, None, None]


def normals_of(slopes: Slopes, places: tuple[Tensor, Tensor], steep: tuple[Tensor, Tensor]) -> Tensor:
    """Unit normals ``(B, 3, H, W)`` of a depth's slopes, its rays and what `steepness` says; see `normals_from_depth`."""
    x, y = places
    # the plane 1 / depth = a x + b y + c is a X + b Y - c Z = 1; times the depth it is free of the depth's scale
    a, b = slopes.right * steep[0], slopes.down * steep[1]
    z = 1 - a * x - b * y
    # not functional.normalize: its norm over a short strided axis is some fifty times as slow
    shortened = (a.square() + b.square() + z.square()).rsqrt() * (slopes.w > 0)
    return torch.cat([-a, -b, z], dim=1) * shortened


def anchor(frame_depth: Tensor, camera: Tensor) -> Tensor:
    """The point P that the ray through the frame's centre hits, which the rig stands around.

    Between centre pixels (even sizes) reciprocal depth is averaged, over the larger group of them that agree within a fifth
    (the nearer one of equal groups). Where the centre is background, the depth is the median of the nearest valid 1 % of
    the frame's pixels; where all is background, 1.

    Args:
        frame_depth: Depth of the whole frame, ``(B, 1, h, w)``.
        camera: ``(B, 2)``; P lies on the optical axis, so that no value of it matters.

    Returns:
        ``(B, 3)`` in the camera frame and the depth's dtype: ``(0, 0, -depth)``.

    Raises:
        ValueError: If a shape is not as stated.
    """
    d = working(frame_depth)
    check(d, camera)
    height, width = d.shape[-2:]
    rows, columns = slice((height - 1) // 2, height // 2 + 1), slice((width - 1) // 2, width // 2 + 1)
    w = reciprocal(d[..., rows, columns]).flatten(1)
    one, other = w[:, :, None], w[:, None, :]
    agree = ((one - other).abs() <= 0.2 * torch.maximum(one, other)) & (one > 0) & (other > 0)
    rank = agree.sum(dim=2) + 0.5 * w / w.amax(dim=1, keepdim=True).clamp(min=torch.finfo(w.dtype).tiny)
    group = agree.gather(1, rank.argmax(dim=1)[:, None, None].expand(-1, 1, w.shape[1]))[:, 0]
    count = group.sum(dim=1)
    total = torch.where(count > 0, (w * group).sum(dim=1), 1.0)
    reach = torch.where(count > 0, count / total, _depth_near_centre(d))
    zero = torch.zeros_like(reach)
    return torch.stack([zero, zero, -reach], dim=1).to(frame_depth.dtype)


def resampled(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Depth at another resolution: the nearest pixel's, moved to the new pixel's centre along that pixel's own surface.

    Depth is never averaged: between foreground and background, or beside a 0, the mean is a surface that does not exist. Nor is
    it merely picked: a picked pixel stands up to half a pixel beside where it is taken to stand, by turns to either side, and
    that roughness ruins every normal. Exact on planes.

    Args:
        depth: ``(B, 1, H, W)``, 0 = background.
        size: ``(height, width)`` wanted.

    Returns:
        ``(B, 1, height, width)`` in the depth's dtype; background where the nearest pixel is background.
    """
    if not is_open(*size) and tuple(depth.shape[-2:]) == tuple(size):
        return depth
    whole = working(depth)
    places = []
    for new, old in zip(size, whole.shape[-2:], strict=True):
        at = (torch.arange(new, device=whole.device, dtype=whole.dtype) + 0.5) * (old / new) - 0.5
        index = at.round().clamp(0, old - 1)
        # where it is enlarged, the outermost new pixels stand outside the outermost old centres
        places.append((index.long(), at - index))
    (rows, down), (columns, right) = places

    def beside(below: int, beyond: int) -> Tensor:
        """Reciprocal depth so many rows below and columns beyond the picked pixels; outside is background."""
        at = [index + step for index, step in ((rows, below), (columns, beyond))]
        inside = [(index >= 0) & (index < length) for index, length in zip(at, whole.shape[-2:], strict=True)]
        row, column = (index.clamp(0, length - 1) for index, length in zip(at, whole.shape[-2:], strict=True))
        return reciprocal(whole[..., row[:, None], column]) * (inside[0][:, None] & inside[1])

    # slopes of the picked pixels alone, which are few in a large map
    here = beside(0, 0)
    scale = reciprocal(here)
    per_column = _slope_of(beside(0, -2), beside(0, -1), here, beside(0, 1), beside(0, 2), scale)[0]
    per_row = _slope_of(beside(-2, 0), beside(-1, 0), here, beside(1, 0), beside(2, 0), scale)[0]
    moved = here * (1 + (per_column * right + per_row * down[:, None]).clamp(-_MOVED, _MOVED))
    return reciprocal(moved).to(depth.dtype)


def size_within(size: Sequence[int], longer: int, least: int = 1) -> tuple[int, int]:
    """Height and width once the longer side has at most so many pixels, and no side that shrinks has fewer than the least.

    Example:
        >>> size_within((480, 640), 96)
        (72, 96)
    """
    height, width = size
    if is_open(height, width):
        return open_size_within((height, width), longer, least)
    scale = longer / max(height, width)
    return (height, width) if scale >= 1 else (max(least, round(height * scale)), max(least, round(width * scale)))


def working(x: Tensor) -> Tensor:
    """What is computed in: float64 for float64, else float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def check(depth: Tensor, camera: Tensor) -> None:
    """Refuse depth and camera tensors of the wrong shape."""
    if depth.ndim != 4 or depth.shape[1] != 1 or 0 in depth.shape:
        raise ValueError(f"a depth must have shape (B, 1, H, W), got {tuple(depth.shape)}")
    if camera.shape != (len(depth), 2):
        raise ValueError(f"a camera must have shape ({len(depth)}, 2) (field of view, pitch), got {tuple(camera.shape)}")


def window_of(crop: Tensor | None, like: Tensor) -> Tensor:
    """The crop window ``(B, 4)``; None is the whole frame."""
    if crop is None:
        return like.new_tensor([0.0, 0.0, 1.0, 1.0]).expand(len(like), 4)
    if crop.shape != (len(like), 4):
        raise ValueError(f"a crop must have shape ({len(like)}, 4) (top, left, height, width), got {tuple(crop.shape)}")
    return crop.to(like.dtype)


def aspect_of(image: Tensor, window: Tensor) -> Tensor:
    """Width over height of the whole frame, ``(B,)``, from an image of the window; pixels are square."""
    return image.shape[-1] * window[:, 2] / (image.shape[-2] * window[:, 3])


def tangents(camera: Tensor, aspect: Tensor) -> tuple[Tensor, Tensor]:
    """Tangents ``(B,)`` of half the horizontal and half the vertical field of view."""
    up = torch.tan(torch.deg2rad(camera[:, 0]) / 2)
    return up * aspect, up


def rays(depth: Tensor, camera: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Rays: x ``(B, 1, 1, W)`` and y ``(B, 1, H, 1)`` per unit of depth at the pixel centres of a window."""
    check(depth, camera)
    height, width = depth.shape[-2:]
    across, up = tangents(camera, aspect_of(depth, window))
    v = (torch.arange(height, device=depth.device, dtype=depth.dtype) + 0.5) / height
    u = (torch.arange(width, device=depth.device, dtype=depth.dtype) + 0.5) / width
    x = (2 * (window[:, 1:2] + window[:, 3:4] * u) - 1) * across[:, None]
    y = (1 - 2 * (window[:, 0:1] + window[:, 2:3] * v)) * up[:, None]
    return x[:, None, None, :], y[:, None, :, None]


def reciprocal(depth: Tensor) -> Tensor:
    """1 / depth; background, infinitely far, is 0."""
    there = depth > 0
    return torch.where(there, 1 / torch.where(there, depth, 1.0), 0.0)


def _hundredth(height: int, width: int) -> Tensor:
    """A hundredth of the pixels of an open size, 1 or more."""
    return (0.01 * number(height) * number(width)).round().clamp(min=1)


def _depth_near_centre(depth: Tensor) -> Tensor:
    """Median ``(B,)`` of the valid 1 % of pixels nearest to the centre; 1 where there is none."""
    height, width = depth.shape[-2:]
    v = torch.arange(height, device=depth.device) - (height - 1) / 2
    u = torch.arange(width, device=depth.device) - (width - 1) / 2
    order = (v[:, None].square() + u.square()).flatten().argsort(stable=True)
    d = depth.flatten(1)[:, order]
    nearest = _hundredth(height, width) if is_open(height, width) else max(1, round(0.01 * height * width))
    chosen = (d > 0) & ((d > 0).cumsum(dim=1) <= nearest)
    ranked = torch.where(chosen, d, torch.inf).sort(dim=1).values
    count = chosen.sum(dim=1, keepdim=True)
    middle = ranked.gather(1, (count - 1).clamp(min=0) // 2) + ranked.gather(1, (count // 2).clamp(max=d.shape[1] - 1))
    return torch.where(count > 0, middle / 2, 1.0)[:, 0]


class Slopes(NamedTuple):
    """How a depth map changes from pixel to pixel, which no camera changes; each ``(B, 1, H, W)``."""

    w: Tensor  # reciprocal depth, 0 = background
    right: Tensor  # its change to the next column, relative to it
    goes_right: Tensor  # whether the surface goes on in it
    down: Tensor  # the same for the next row
    goes_down: Tensor

    @classmethod
    def of(cls, depth: Tensor, rows: slice = slice(None)) -> Slopes:
        """Of the rows of a depth ``(B, 1, H, W)``; rows beside them tell how the surface goes on."""
        if rows == slice(None):
            w = reciprocal(depth)
            return cls(w, *_slope(w, depth, -1), *_slope(w, depth, -2))
        start, stop, _ = rows.indices(depth.shape[-2])
        first = max(0, start - 2)
        around = depth[:, :, first : stop + 3]
        inner = (..., slice(start - first, stop - first), slice(None))
        w = reciprocal(around)
        down, goes_down = _slope(w, around, -2)
        return cls(w[inner], *_slope(w[inner], around[inner], -1), down[inner], goes_down[inner])

    def repeated(self, times: int) -> Slopes:
        """Each sample's so many times in a row."""
        return Slopes(*(x.repeat_interleave(times, dim=0) for x in self))


def _slope(w: Tensor, depth: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Relative change of reciprocal depth per pixel along an axis, and whether each pixel's surface goes on in the next one.

    The slope is a mean of the two one-sided differences. Each weighs less the more the surface bends beyond it and the steeper
    it is, so that a crease or a silhouette leaves the weight to the other side, while smooth ground gets the central
    difference. What is one-sided is freed of the bend, so that round things keep their shape up to their rims. A side that
    leaps and then does not go on as it leapt is a discontinuity and has no weight; nor has background.
    """
    n = w.shape[dim]
    padded = functional.pad(w, (0, 0) * (-1 - dim) + (2, 2))
    before, last, following, after = (padded.narrow(dim, k, n) for k in (0, 1, 3, 4))
    slope, goes_on, came_from = _slope_of(before, last, w, following, after, depth)
    there = w > 0
    came_next = functional.pad((came_from & there).narrow(dim, 1, n - 1), (0, 0) * (-1 - dim) + (0, 1))
    return slope, (goes_on & there) | came_next


def _slope_of(
    before: Tensor, last: Tensor, w: Tensor, following: Tensor, after: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The relative slope at w, whose reciprocal is the scale, between its two neighbours on each side.

    Also whether the surface goes on in the next, and whether in the last; where w is background both mean nothing.
    """
    # all is relative to w; a step from a pixel to background is -1, which is no surface's, since what follows cannot go on so
    forward, backward = (following - w) * scale, (last - w) * scale
    squares = forward.square(), backward.square()
    floor = 0.1 * (squares[0] + squares[1])

    def side(step: Tensor, square: Tensor, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        there = far > 0
        bend = torch.where(there, (far - 2 * near + w) * scale, step)
        much, large = bend.abs(), step.abs()
        sound = (much <= 0.5 * large) | (large <= _JUMP)
        weight = sound / (bend.square() * (square + floor) + _SMOOTH)
        return weight, sound, bend * (there & (much <= _ROUND))

    ahead, goes_on, bend_ahead = side(forward, squares[0], following, after)
    behind, came_from, bend_behind = side(backward, squares[1], last, before)
    total = (ahead + behind).clamp(min=1.0)  # a weight is 0 or much more than 1
    ahead, behind = ahead / total, behind / total
    uneven = 0.5 * (ahead - behind)
    forward = forward - bend_ahead * uneven.clamp(min=0)
    backward = backward + bend_behind * uneven.clamp(max=0)
    return ahead * forward - behind * backward, goes_on, came_from
