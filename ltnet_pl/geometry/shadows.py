"""Cast shadows: rays from points to a light, followed through the depth map of the frame."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ltnet_pl.geometry.open_sizes import is_open
from ltnet_pl.geometry.surface import Slopes, anchor, aspect_of, rays, tangents, window_of, working

STEPS = 32
"""Steps of the march towards a light when nobody says otherwise."""

# A "texel" is a pixel of the frame's depth map, in which shadows are looked up.
_OFFSET = 0.05  # how far a ray starts off its surface, along the normal, in texels: lets crop and frame depth disagree a little
_BIAS = 0.005  # how far behind a surface a ray must pass to be hidden, in texels
_DEPTH_OF_WIDTH = 0.7  # how deep a thing is taken to be, in units of its visible width
_THICKEST = 0.2  # and at most, in units of the distance to the anchor
_THINNEST = 0.01  # and at least, in the same units
_UNKNOWN = 0.08  # where an end of the thing is hidden or out of the frame, so that its width is unknown, in the same units
_CROWDING = 1.5  # the samples of a ray stand at this power of evenly spread places
_BESIDE = 0.05  # this share of a ray's samples stands right beside the point
_TOGETHER = 16  # samples of a ray that an export looks up at once
_FADE = 0.3  # behind that thickness the shadow fades over this share of it


def visibility(
    points: Tensor,
    normals: Tensor,
    frame_depth: Tensor,
    light_position: Tensor,
    camera: Tensor,
    crop: Tensor | None = None,
    steps: int = STEPS,
) -> Tensor:
    """How much of a point light each point sees past what the frame's depth shows: cast shadows.

    Each point's ray to the light is followed through the frame's depth map, in ever larger steps, as far as it stays in the frame
    and below the highest thing seen. It is blocked where it runs behind a surface and within the thickness of what that
    surface belongs to. A depth map does not show thickness: a thing is taken to be 0.7 times as deep as it is wide (or high,
    whichever is less), between 1 and 20 % of the distance to the anchor, and 8 % where its ends are not seen. What turns away
    from the light (n.l <= 0) is dark in `irradiance`; its visibility here means little.

    Args:
        points: ``(B, 3, H, W)`` of the crop, camera frame; z = 0 for background.
        normals: Unit normals ``(B, 3, H, W)``.
        frame_depth: The whole frame's depth ``(B, 1, h, w)``, of any resolution, in the points' scale.
        light_position: L, ``(B, 3)`` in the camera frame.
        camera: ``(B, 2)``: vertical field of view of the frame and pitch, in degrees.
        crop: Window of the points in the frame, ``(B, 4)`` as fractions; None for the whole frame.
        steps: Steps of the march, 1 or more.

    Returns:
        ``(B, 1, H, W)``, 0 (in shadow) to 1 (background too), in the points' dtype. Edges of shadows are soft over one pixel
        of the frame's depth. Carries no gradient.

    Raises:
        ValueError: If a shape is not as stated or steps is less than 1.
    """
    p, frame, seen = working(points), working(frame_depth), working(camera)
    aspect = aspect_of(p, window_of(crop, p))
    relief = relief_of(Spans.of(frame), anchor(frame, seen), seen, aspect)
    return march(p, working(normals), relief, working(light_position), seen, aspect, steps).to(points.dtype)


def _width(w: Tensor, linked: Tensor) -> Tensor:
    """How many pixels of the last axis the thing at each pixel spans; inf where an end of it is hidden or out of the frame."""
    n = w.shape[-1]
    place = torch.arange(n, device=w.device).expand(w.shape)
    apart = ~linked[..., :-1]
    first = (functional.pad(apart, (1, 0), value=True) * place).cummax(dim=-1).values
    from_end = (functional.pad(apart, (0, 1), value=True) * (n - 1 - place)).flip(-1).cummax(dim=-1).values.flip(-1)
    last = n - 1 - from_end
    # an end is the thing's own only where what lies beyond is farther
    own_start = (functional.pad(w[..., :-1], (1, 0), value=torch.inf) < w).gather(-1, first)
    own_end = (functional.pad(w[..., 1:], (0, 1), value=torch.inf) < w).gather(-1, last)
    return torch.where(own_start & own_end, (last - first + 1).to(w.dtype), torch.inf)


class Spans(NamedTuple):
    """What of a frame's depth, ``(B, 1, h, w)``, no camera changes: its slopes, and how many pixels each thing spans."""

    depth: Tensor
    slopes: Slopes
    wide: Tensor
    tall: Tensor

    @classmethod
    def of(cls, depth: Tensor) -> Spans:
        """Of a depth."""
        slopes = Slopes.of(depth)
        wide = _width(slopes.w, slopes.goes_right)
        tall = _width(slopes.w.mT.contiguous(), slopes.goes_down.mT.contiguous()).mT
        return cls(depth, slopes, wide, tall)

    def repeated(self, times: int) -> Spans:
        """Each sample's so many times in a row."""
        depth, wide, tall = (x.repeat_interleave(times, dim=0) for x in (self.depth, self.wide, self.tall))
        return Spans(depth, self.slopes.repeated(times), wide, tall)


class Relief(NamedTuple):
    """A frame's depth prepared for marching.

    The tables ``(B, 2 * (h + 1) * (w + 1))`` hold the map twice, last row and column repeated: first column by column, for rays
    that run sideways, then row by row. Neighbours across a ray are then neighbours in memory.
    """

    size: tuple[int, int]
    w: Tensor  # reciprocal depth at the texel's centre, 0 = background
    slope: Tensor  # its change to the next entry
    fade: Tensor  # the reciprocal of the depth over which the shadow of the thing here fades
    nearest: Tensor  # this and the following: bounds, (B, 1)
    farthest: Tensor
    highest: Tensor
    thickest: Tensor


@torch.no_grad()
def relief_of(spans: Spans, at: Tensor, camera: Tensor, aspect: Tensor) -> Relief:
    """Prepare a frame's depth."""
    depth, slopes, wide, tall = spans
    height, width = depth.shape[-2:]
    valid = depth > 0
    across, up = (t[:, None, None, None] for t in tangents(camera, aspect))
    visible = torch.minimum(wide * (2 * across / width), tall * (2 * up / height)) * torch.where(valid, depth, 1.0)
    reach = at.norm(dim=1)[:, None, None, None]
    known = (_DEPTH_OF_WIDTH * visible).clamp(_THINNEST * reach, _THICKEST * reach)
    thickness = torch.where(visible.isinf(), _UNKNOWN * reach, known)
    _, y = rays(depth, camera, window_of(None, depth))
    pitch = torch.deg2rad(camera[:, 1])[:, None, None, None]
    level = torch.where(valid, depth * (y * pitch.cos() - pitch.sin()), -torch.inf)

    def tables(for_sideways: Tensor, for_upright: Tensor) -> Tensor:
        first, second = (functional.pad(x, (0, 1, 0, 1), mode="replicate") for x in (for_sideways, for_upright))
        return torch.cat([first.mT.flatten(1), second.flatten(1)], dim=1)

    fade = 1 / (_FADE * thickness)
    return Relief(
        (height, width),
        tables(slopes.w, slopes.w),
        tables(slopes.w * slopes.down, slopes.w * slopes.right),
        tables(fade, fade),
        torch.where(valid, depth, torch.inf).amin(dim=(2, 3)),
        depth.amax(dim=(2, 3)),
        level.amax(dim=(2, 3)),
        max(_THICKEST, _UNKNOWN) * reach[:, :, 0, 0],
    )


@torch.no_grad()
def march(points: Tensor, normals: Tensor, relief: Relief, light: Tensor, camera: Tensor, aspect: Tensor, steps: int) -> Tensor:
    """Visibility ``(B, 1, H, W)``; see `visibility`."""
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, got {steps}")
    height, width = relief.size
    across, up = (t[:, None] for t in tangents(camera, aspect))
    texel = 2 * up / height  # side of a texel per unit of depth
    x, y, z = points.flatten(2).unbind(dim=1)
    valid = z < 0
    depth = torch.where(valid, -z, 1.0)
    lift = _OFFSET * texel * depth
    nx, ny, nz = normals.flatten(2).unbind(dim=1)
    start = (x + lift * nx, y + lift * ny, depth - lift * nz)
    goal = (light[:, 0:1], light[:, 1:2], -light[:, 2:3])
    unknown = (goal[0] + goal[1] + goal[2] + across + camera[:, 1:2]) * 0  # 0, or NaN where anything is NaN
    way = tuple(b - a for a, b in zip(start, goal, strict=True))
    end = _way_within(start, way, relief, across, up, torch.deg2rad(camera[:, 1:2]))

    def project(share: Tensor | float) -> tuple[Tensor, ...]:
        px, py, pz = (a + share * b for a, b in zip(start, way, strict=True))
        w = 1 / pz
        placed = (0.5 + 0.5 * px * w / across) * width - 0.5, (0.5 - 0.5 * py * w / up) * height - 0.5, w
        return tuple(torch.nan_to_num(x, 0.0, 0.0, 0.0) for x in placed)  # an index must be a number

    (u0, v0, w0), (u1, v1, w1) = project(0.0), project(end)
    du, dv, dw = u1 - u0, v1 - v0, w1 - w0
    # The ray is sampled where it crosses the texels' centre lines across its main direction, so that only the two texels beside
    # it matter at each sample; the tables hold those next to each other. Indices are computed as floats, which is faster.
    sideways = du.abs() >= dv.abs()
    m0, dm = torch.where(sideways, u0, v0), torch.where(sideways, du, dv)
    s0, ds = torch.where(sideways, v0, u0), torch.where(sideways, dv, du)
    long = dm.abs() > 1  # within one texel nothing can stand between
    dm = torch.where(long, dm, 1.0)
    m_most, s_most = torch.where(sideways, width - 1.0, height - 1.0), torch.where(sideways, height - 1.0, width - 1.0)
    row, table = torch.where(sideways, height + 1.0, width + 1.0), torch.where(sideways, 0.0, (height + 1.0) * (width + 1.0))
    leap, per_m, per_bias = dm.sign(), 1 / dm, 1 / (_BIAS * texel)
    stride = (dm - leap) / steps
    near = (m0 + leap).clamp(min=0).minimum(m_most)
    hidden = torch.zeros_like(m0)
    # closer together near the point: what stands nearest throws the sharpest shadow
    crowded = stride.new_tensor([steps * ((k + 0.5) / steps) ** _CROWDING for k in range(steps)])
    # one sample of every ray at a time stays in the cache; an export, whose graph should be short, takes several together
    count = _TOGETHER if is_open(height, width) else 1
    for first in range(0, steps, count):
        m = torch.addcmul(near[:, None], stride[:, None], crowded[first : first + count, None])
        m = m.round().clamp(min=0).minimum(m_most[:, None])
        share = (m - m0[:, None]) * per_m[:, None]
        s, w = torch.addcmul(s0[:, None], share, ds[:, None]), torch.addcmul(w0[:, None], share, dw[:, None])
        low = s.clamp(min=0).minimum(s_most[:, None]).floor()
        part = (s - low).clamp(0, 1)
        index = torch.addcmul(low + table[:, None], m, row[:, None]).long().flatten(1)
        sides = [t[:, j:].gather(1, index).view_as(m) for t in (relief.w, relief.slope, relief.fade) for j in (0, 1)]
        w_low, w_high, slope_low, slope_high, fade_low, fade_high = sides
        # a surface goes on past its texel's centre, but not in front of both texels: that would be beyond an edge
        front = torch.maximum(w_low, w_high)
        per_w = 1 / w

        def blocked(surface: Tensor, fade: Tensor, per_w: Tensor = per_w, front: Tensor = front) -> Tensor:
            surface = surface.minimum(front)
            behind = (surface * per_w - 1) * per_bias[:, None] - 1
            within = (1 + 1 / _FADE) - (per_w - 1 / surface) * fade
            return behind.clamp(0, 1) * within.clamp(0, 1)

        at_low = blocked(torch.addcmul(w_low, slope_low, part), fade_low)
        at_high = blocked(torch.addcmul(w_high, slope_high, part - 1), fade_high)
        # right beside the point both texels must agree: continued past a ridge, one face would shade the other
        beside = [k < _BESIDE * steps for k in range(first, min(first + count, steps))]
        block = torch.minimum(at_low, at_high) if all(beside) else torch.lerp(at_low, at_high, part)
        if any(beside) and not all(beside):
            block = torch.where(torch.tensor(beside, device=m.device)[:, None], torch.minimum(at_low, at_high), block)
        hidden = torch.maximum(hidden, block.amax(dim=1) if count > 1 else block[:, 0])
    return (1 - hidden * (valid & long) + unknown).reshape(points[:, :1].shape)


def _way_within(
    start: tuple[Tensor, ...], way: tuple[Tensor, ...], relief: Relief, across: Tensor, up: Tensor, pitch: Tensor
) -> Tensor:
    """The share of each ray's way to the light on which something seen could hide it."""
    (x, y, z), (dx, dy, dz) = start, way
    c, s = pitch.cos(), pitch.sin()
    end = torch.ones_like(x)
    for room, loss in (
        (across * z - x, dx - across * dz),
        (across * z + x, -dx - across * dz),
        (up * z - y, dy - up * dz),
        (up * z + y, -dy - up * dz),
        (z - 0.5 * relief.nearest, -dz),
        (relief.farthest + relief.thickest - z, dz),
        (relief.highest - (c * y - s * z), c * dy - s * dz),
    ):
        # room is what is left to a bound at the start, loss how much of it the whole way uses up
        end = torch.minimum(end, torch.where(loss > 0, room.clamp(min=0) / loss.clamp(min=1e-30), 1.0))
    return end
