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


def step_of(depth: NDArray[np.float32]) -> float | None:
    """The step that depth was rounded to; None where it was not, or so finely that no slope suffers, or too coarsely to tell.

    Whole numbers were rounded. Other numbers were where they are evenly spaced and lie in terraces: neighbours are equal, or a
    step apart, along both axes. The rows of an exact plane are evenly spaced too.

    Args:
        depth: ``(h, w)``, 0 is background.
    """
    found = np.unique(depth[depth > 0]).astype(np.float64)
    if len(found) < _FEWEST:
        return None
    places = found - found[0]
    if not (found % 1).any():
        step: float | None = float(np.gcd.reduce(found.astype(np.int64)))
    else:
        step = _spacing(places, found[-1]) if len(found) <= _MOST else None
        step = step if step is not None and _terraced(depth, step) else None
    return step if step is not None and _FEWEST <= places[-1] / step <= _MOST else None


def _terraced(depth: NDArray[np.float32], step: float) -> bool:
    """Whether neighbours are equal, and a step apart, often enough."""
    for axis in (0, 1):
        lines = np.moveaxis(depth, axis, 0)
        apart = np.abs(np.diff(lines, axis=0))[(lines[1:] > 0) & (lines[:-1] > 0)]
        equal = apart < step / 2
        if not len(apart) or equal.mean() < _FLAT or (~equal & (apart < 1.5 * step)).mean() < _EDGES:
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
    valid = (depth > 0).astype(np.float32)
    low, high = np.maximum(depth - step / 2, depth / 2), depth + step / 2
    smooth, radius = depth.copy(), max(2, round(max(depth.shape) / _WIDEST))
    while radius:
        window = (2 * radius + 1, 2 * radius + 1)
        share = np.maximum(cv2.blur(valid, window, borderType=cv2.BORDER_REPLICATE), 1e-6)
        for _ in range(_TIMES):
            mean = cv2.blur(smooth * valid, window, borderType=cv2.BORDER_REPLICATE) / share
            smooth = np.clip(mean, low, high)
        radius //= 2
    return np.asarray(smooth * valid, dtype=np.float32)
