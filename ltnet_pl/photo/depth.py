"""Depth in the files that people have: arrays, 16-bit pictures, and what renderers write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ltnet_pl import InputError
from ltnet_pl.vidit import read_depth as read_array
from ltnet_pl.vidit.files import load_bytes

DEPTH_SUFFIXES = (".npy", ".png", ".exr")
"""Files of depth that are read."""

_RATIO, _TREND = 1.5, 0.8  # how much farther the bottom must be than the top, and how steadily, to be sure


def read_depth(path: str | Path, size: tuple[int, int] | None = None, inverse: bool = False) -> NDArray[np.float32]:
    """Planar depth at the file's own resolution: larger is farther, 0 is background, any scale.

    Args:
        path: ``.npy`` (a plain array, or VIDIT's form), ``.png`` (grey, 16 or 8 bits), or ``.exr`` (channel Z, or its only one).
        size: ``(height, width)`` of the photograph, whose aspect the depth must have, to half a pixel; None: any.
        inverse: The file holds inverse depth: larger is nearer, 0 is infinitely far, which is background.

    Returns:
        ``(h, w)`` float32.

    Raises:
        InputError: If the file is missing, none of these, of another aspect, has no value above 0, or one that is negative or
            not finite.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in DEPTH_SUFFIXES:
        raise InputError(
            f"{path}: ends in {path.suffix or 'nothing'}; expected a depth in {', '.join(DEPTH_SUFFIXES)}: convert it"
        )
    depth = read_array(path) if suffix == ".npy" else _checked(path, _picture(path) if suffix == ".png" else _exr(path))
    if size is not None:
        _check_aspect(path, depth.shape, size)
    if not inverse:
        return depth
    return np.divide(1, depth, out=np.zeros_like(depth), where=depth > 0)


def looks_inverted(depth: NDArray[np.float32]) -> bool:
    """Whether a depth is surely inverse depth taken for depth: what stands at the bottom is farther, row by row.

    In a photograph that shows ground, the ground at the bottom is nearest. Only what is beyond doubt is said: the bottom fifth is
    half again as far as the top fifth, and the rows' medians grow steadily downwards. A frontal wall, a ceiling or a rugged scene
    is none of that.

    Args:
        depth: ``(h, w)``, 0 for background.
    """
    medians = np.array([np.median(row[row > 0]) for row in depth if (row > 0).mean() > 0.5])
    if len(medians) < 8:
        return False
    fifth = max(1, len(medians) // 5)
    ranks = np.argsort(np.argsort(medians, kind="stable"), kind="stable")
    trend = np.corrcoef(ranks, np.arange(len(medians)))[0, 1] if np.ptp(medians) > 0 else 0.0
    return bool(np.median(medians[-fifth:]) > _RATIO * np.median(medians[:fifth]) and trend > _TREND)


def _check_aspect(path: Path, found: tuple[int, ...], size: tuple[int, int]) -> None:
    """Refuse a depth whose pixels would not be square on the photograph, but for what rounding a size does."""
    height, width = size
    if abs(found[0] * width - found[1] * height) > 0.5 * max(height, width) + 0.5 * max(found):
        raise InputError(
            f"{path}: is {found[0]} x {found[1]} pixels (height x width), and the photograph {height} x {width}; expected "
            "the same aspect: give the depth of the whole photograph, uncut and unstretched"
        )


def _picture(path: Path) -> NDArray[Any]:
    """A grey PNG."""
    data = load_bytes(path)
    found: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise InputError(f"{path}: is no PNG, or damaged; expected a grey picture of 16 bits: write it again")
    if found.ndim == 3 and (found[..., :1] == found[..., :3]).all():
        found = found[..., 0]
    if found.ndim != 2:
        raise InputError(f"{path}: is a picture in colour; expected a grey one, whose brightness is the depth: convert it")
    grey: NDArray[Any] = found
    return grey


def _exr(path: Path) -> NDArray[Any]:
    try:
        import OpenEXR
    except ImportError as error:
        raise InputError(f"{path}: OpenEXR needs the extra photo; pip install 'ltnet_pl[photo]'") from error
    load_bytes(path, 1)  # a missing file is named as all others are
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{path}: is no OpenEXR file, or damaged ({error}); expected one with a channel Z") from error
    named = next((name for name in ("Z", "depth.Z", "Depth.Z", "Y", "V") if name in channels), None)
    if named is None and len(channels) == 1:
        named = next(iter(channels))
    if named is None:
        raise InputError(f"{path}: has the channels {', '.join(sorted(channels))}; expected one called Z: rename the depth's")
    return channels[named]


def _checked(path: Path, found: NDArray[Any]) -> NDArray[np.float32]:
    """A depth held to what an array's is held to."""
    depth = np.ascontiguousarray(found, dtype=np.float32)
    # renderers write infinity, or a number near the largest that there is, where nothing was hit
    if path.suffix.lower() == ".exr":
        depth = np.where(np.isposinf(depth) | (depth > 1e9), np.float32(0), depth)
    bad = "NaN or infinite" if not np.isfinite(depth).all() else "negative" if (depth < 0).any() else None
    if bad is not None:
        raise InputError(f"{path}: has {bad} values; expected a depth of 0 (background) or more")
    if not (depth > 0).any():
        raise InputError(f"{path}: has no value above 0, so all of it is background; expected a depth: write it again")
    return depth
