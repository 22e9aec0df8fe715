"""Depth that was rounded to equal steps, as 8 bits round it, and what it may have been before."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_FEWEST, _MOST = 16, 2**15  # steps within the range: fewer are things that stand apart, more need no smoothing
_PARTS = 8  # how many steps the two nearest values of an image may be apart
_FLOAT = 2.5e-7  # how far, as a share of the largest, values may lie off an even spacing: twice what 32-bit floats round
_FLAT, _EDGES = 0.05, 0.01  # least shares of neighbours that are equal, and a step apart, along both axes
_WIDEST = 96  # the first blur reaches 1 / 96 of the longer side
_TIMES = 4  # blurs of each width
_ROWS = 256  # of a band: what is computed on the way to a result is no larger, whatever the image; no blur reaches as far


def step_of(depth: NDArray[np.float32]) -> float | None:
    """The step that depth was rounded to; None where it was not, or so finely that no slope suffers, or too coarsely to tell.

    Whole numbers were rounded. Other numbers were where they are evenly spaced and lie in terraces: neighbours are equal, or a
    step apart, along both axes. The rows of an exact plane are evenly spaced too.

    Args:
        depth: ``(h, w)``, 0 is background.
    """
    found = _values(depth)
    if found is None or len(found) < _FEWEST:
        return None
    places = found - found[0]
    if not (found % 1).any():
        step: float | None = float(np.gcd.reduce(found.astype(np.int64)))
    else:
        step = _spacing(places, found[-1]) if len(found) <= _MOST else None
        step = step if step is not None and _terraced(depth, step) else None
    return step if step is not None and _FEWEST <= places[-1] / step <= _MOST else None


def _values(depth: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """The values above 0, in order; None where there are more than there are steps at most."""
    found = np.empty(0, np.float32)
    for top in range(0, len(depth), _ROWS):
        band = depth[top : top + _ROWS]
        found = np.union1d(found, band[band > 0])
        if len(found) > _MOST + 1:
            return None
    return found.astype(np.float64)


def _terraced(depth: NDArray[np.float32], step: float) -> bool:
    """Whether neighbours are equal, and a step apart, often enough."""
    for axis in (0, 1):
        pairs = equal = next_to = 0
        for top in range(0, len(depth), _ROWS):
            # the first row of the next band belongs to a pair of this one
            lines = np.moveaxis(depth[top : top + _ROWS + 1 - axis], axis, 0)
            apart = np.abs(np.diff(lines, axis=0))[(lines[1:] > 0) & (lines[:-1] > 0)]
            same = apart < step / 2
            pairs, equal = pairs + len(apart), equal + int(same.sum())
            next_to += int((~same & (apart < 1.5 * step)).sum())
        if not pairs or equal / pairs < _FLAT or next_to / pairs < _EDGES:
            return False
    return True


def _spacing(places: NDArray[np.float64], largest: float) -> float | None:
    """The step of evenly spaced values above the first; None where they are not evenly spaced."""
    least = float(np.diff(places).min())
    # no two neighbours need to be in the image
    for parts in range(1, _PARTS + 1):
        step = _refined(places, least / parts)
        if np.abs(places - (places / step).round() * step).max() <= _FLOAT * largest <= step / 4:
            return step
    return None


def _refined(places: NDArray[np.float64], step: float) -> float:
    """A step that is known from two values, each with its own error, by ever more distant ones."""
    reach = 4.0
    while reach < 4 * _MOST:
        farthest = float(places[places <= reach * step].max())
        if farthest > 0:
            step = farthest / max(1, round(farthest / step))
        reach *= 4
    return step


def unrounded(depth: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """A smoother depth that rounds to the given one.

    Normals are differences of neighbours, so that of 8 bits they are those of terraces. Each pass blurs the depth and puts every
    pixel back to within half a step of what the file says: within a terrace the blur has its way, an edge is higher than that and
    stays. Wide blurs come first, since terraces can be wide.

    Args:
        depth: ``(h, w)``, 0 is background, which stays.
        step: What it was rounded to.

    Returns:
        ``(h, w)``, nowhere more than half a step off, above 0 wherever there was depth.
    """
    smooth, radius = depth.copy(), max(2, round(max(depth.shape) / _WIDEST))
    while radius:
        for _ in range(_TIMES):
            _blur_within(smooth, depth, step, radius)
        radius //= 2
    return smooth


def _blur_within(smooth: NDArray[np.float32], depth: NDArray[np.float32], step: float, radius: int) -> None:
    """Blur a smoother depth, in place, and put it back to within half a step of the given one."""
    window, above = (2 * radius + 1, 2 * radius + 1), smooth[:0]
    for top in range(0, len(smooth), _ROWS):
        bottom = min(top + _ROWS, len(smooth))
        inner = slice(len(above), len(above) + bottom - top)
        # the band and as many rows around as the blur reaches, those above as they were before
        old = np.concatenate([above, smooth[top : bottom + radius]])
        above = smooth[max(top, bottom - radius) : bottom].copy()
        valid = depth[top - inner.start : bottom + radius] > 0
        mean = cv2.blur(old, window, borderType=cv2.BORDER_REPLICATE)[inner]
        if not valid.all():  # background is 0 in what was blurred
            share = cv2.boxFilter(valid.astype(np.uint8), cv2.CV_32F, window, borderType=cv2.BORDER_REPLICATE)[inner]
            mean = mean / np.maximum(share, 1e-6)
        here = depth[top:bottom]
        low, high = np.maximum(here - step / 2, here / 2), here + step / 2
        smooth[top:bottom] = np.where(valid[inner], np.clip(mean, low, high), 0)
