"""Depth that comes with a photograph, from the forms in which cameras, renderers and networks write it."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from ltnet_pl import InputError, vidit
from ltnet_pl.photo.rounding import step_of, unrounded
from ltnet_pl.vidit.files import BROKEN, PNG, load_bytes

_EXR = b"\x76\x2f\x31\x01"
_MIN_SIDE, _MAX_SIDE = 16, 8192
_PNG_KIND = slice(24, 26)  # where the header of a PNG says its bit depth and colour type; type 0 is grey
_FORMS = "expected .npy, a 16-bit grey PNG, or .exr"
# when depth is taken to be inverted, see `looks_inverted`
_FIFTHS_RATIO, _ROW_CORRELATION, _STRAIGHTER = 1.5, 0.8, 0.5
_ROW_VALID, _ROWS_VALID = 0.25, 0.5
_SAMPLES = 256  # rows and columns that the judgement looks at, at most


def read_depth(
    path: Path, photo_size: tuple[int, int], inverse: bool = False, flag: str = "--inverse_depth"
) -> NDArray[np.float32]:
    """The depth of a photograph, at the file's own resolution; `geometry.resampled` brings it to another.

    Values are planar depth up to any positive scale, larger is farther, and 0 is background; with `inverse`, they are its
    reciprocal (as disparity is): larger is nearer, and 0 is infinitely far, so background too. Nothing is guessed. Where the
    ground shows that the wrong one was said, a warning says so.

    * ``.npy``: VIDIT's pickled dict, read without running it, or a plain array of floats, ``(h, w)`` or ``(h, w, 1)``.
    * PNG: grey of 16 bits; of 8 bits with a warning, since 255 steps say little of slopes.
    * ``.exr``: the channel Z, else the only one, else Y.

    Values that were rounded to equal steps, as integers are, are smoothed by less than they were rounded (`rounding.unrounded`).

    Orientation tags of depth files are not looked at: depth is upright, as the photograph after its own tag.

    Args:
        path: The file.
        photo_size: Height and width of the photograph, upright. The depth may be of another size, but of one shape with it: one
            of its sides scaled as the other, to the nearest pixel.
        inverse: Whether the file holds inverse depth.
        flag: How a user says so, for the warning.

    Returns:
        ``(h, w)`` float32, finite, larger is farther, 0 is background.

    Raises:
        InputError: If the file is missing, empty, truncated, of another format, colour, or several channels; has NaN, infinite or
            negative values or no value above 0; has sides of fewer than 16 or more than 8192 pixels, or another shape than the
            photograph; or OpenEXR is needed and not installed.
    """
    path = Path(path)
    start = load_bytes(path, len(PNG))
    if start == PNG:
        depth = vidit.check_depth(path, _png(path, load_bytes(path)))
    elif start.startswith(_EXR):
        depth = vidit.check_depth(path, _exr(path))
    elif path.suffix.lower() == ".npy":
        depth = vidit.read_depth(path)
    else:
        raise InputError(f"{path}: is no depth by its content (starts with {start!r}); {_FORMS}: convert it")
    height, width = depth.shape
    _check_size(path, height, width)
    _check_shape(path, (height, width), photo_size)
    step = step_of(depth)
    if step is not None:
        depth = unrounded(depth, step)
    if inverse:
        depth = _reciprocal(path, depth)
    if looks_inverted(depth):
        remedy = f"{'leave out' if inverse else 'give'} {flag}"
        warnings.warn(f"{path}: the depth looks inverted, its ground runs away from the horizon: {remedy}", stacklevel=2)
    return depth


def looks_inverted(depth: NDArray[np.float32]) -> bool:
    """Whether depth is certainly the wrong way round, from what it says about the ground.

    In a photograph the ground comes nearer towards the lower edge. Depth is inverted if, instead, it grows downwards in three
    ways at once: its median in the lowest fifth of the rows is more than 1.5 times that in the highest; the rank correlation of
    depth and row is above 0.8; and over the lower half, the rows' medians lie along a straight line, with at most half the
    unexplained variance that their reciprocals leave. The last tells ground from a ceiling: over a plane, it is the reciprocal
    of true depth that is linear in the row. All else is undecided, and False.

    Args:
        depth: ``(h, w)``, 0 is background. Rows of which less than a quarter is valid do not count; fewer than half of the rows
            decide nothing.
    """
    steps = [-(-side // _SAMPLES) for side in depth.shape]
    sample = np.asarray(depth[:: steps[0], :: steps[1]], dtype=np.float64)
    rows = np.flatnonzero((sample > 0).mean(axis=1) >= _ROW_VALID)
    if len(rows) < max(_MIN_SIDE // 2, _ROWS_VALID * len(sample)):
        return False
    sample = sample[rows]
    valid = sample > 0
    fifth = len(rows) // 5
    top, bottom = (np.median(part[part > 0]) for part in (sample[:fifth], sample[-fifth:]))
    if bottom <= _FIFTHS_RATIO * top:
        return False
    if _correlation(_ranks(sample[valid]), _ranks(np.broadcast_to(rows[:, None], sample.shape)[valid])) <= _ROW_CORRELATION:
        return False
    lower = slice(len(rows) // 2, None)
    medians = np.array([np.median(row[row > 0]) for row in sample[lower]])
    straight, reciprocal = _correlation(medians, rows[lower]), _correlation(1 / medians, rows[lower])
    return bool(straight > 0 and 1 - straight**2 < _STRAIGHTER * (1 - reciprocal**2))


def _check_size(path: Path, height: int, width: int) -> None:
    if min(height, width) < _MIN_SIDE or max(height, width) > _MAX_SIDE:
        raise InputError(
            f"{path}: the depth is {height} x {width} (height x width); expected sides of {_MIN_SIDE} to {_MAX_SIDE} pixels: "
            "resize it (nearest neighbour)"
        )


def _check_shape(path: Path, size: tuple[int, int], photo_size: tuple[int, int]) -> None:
    """Refuse depth that is no scaled form of the photograph, but for half a pixel that rounding may move."""
    if _one_shape(size, photo_size):
        return
    turned = _one_shape((size[1], size[0]), photo_size)
    raise InputError(
        f"{path}: the depth is {size[0]} x {size[1]} and its photograph {photo_size[0]} x {photo_size[1]} (height x width, "
        "upright); expected one shape: "
        + ("it lies on its side, turn it as the photograph is" if turned else "cut both to the same part of the scene")
    )


def _one_shape(one: tuple[int, int], two: tuple[int, int]) -> bool:
    """Whether a size is another one scaled, with the smaller one's sides rounded."""
    small, large = sorted((one, two))
    (h, w), (height, width) = small, large
    return min(abs(h / height * width - w), abs(w / width * height - h)) <= 0.5 + 1e-6


def _reciprocal(path: Path, inverse: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth from inverse depth; 0 stays 0, which is background in both."""
    depth = np.zeros_like(inverse)
    with np.errstate(over="ignore"):  # named below
        np.divide(1, inverse, out=depth, where=inverse > 0)
    if not np.isfinite(depth).all():
        least = inverse[inverse > 0].min()
        raise InputError(
            f"{path}: the inverse depth goes down to {least:g}, too little for a reciprocal; expected 0 where nothing was hit: "
            "set such pixels to 0"
        )
    return depth


def _png(path: Path, data: bytes) -> NDArray[Any]:
    """The values of a grey PNG."""
    bits, colour = data[_PNG_KIND].ljust(2, b"\0")
    try:
        with PngImageFile(BytesIO(data)) as image:
            _check_size(path, image.height, image.width)
            if colour != 0 or bits not in (8, 16):
                raise InputError(
                    f"{path}: is a PNG of mode {image.mode} with {bits} bits per channel; expected grey of 16 bits: save the "
                    "values themselves, not a picture of them"
                )
            values = np.array(image)
    except InputError:
        raise
    except BROKEN as error:
        raise InputError(f"{path}: the depth is truncated or damaged ({error}); fetch or write it again") from error
    if bits == 8:
        warnings.warn(
            f"{path}: has 8 bits, so at most 255 depths, from which slopes can only be guessed; write 16 bits, .npy or .exr",
            stacklevel=3,
        )
    return values


def _exr(path: Path) -> NDArray[Any]:
    """The values of the depth channel of an OpenEXR file."""
    try:
        import OpenEXR
    except ImportError as error:
        raise InputError(
            f"{path}: .exr needs OpenEXR, which is not installed; expected the extra photo: pip install 'ltnet_pl[photo]'"
        ) from error
    try:
        parts = OpenEXR.File(str(path), separate_channels=True, header_only=True).parts
        found = [(number, channel.name) for number, part in enumerate(parts) for channel in part.header["channels"]]
        chosen = _channel(path, found)
        header = parts[chosen[0]].header
        (left, top), (right, bottom) = (corner.tolist() for corner in header["dataWindow"])
        _check_size(path, bottom - top + 1, right - left + 1)
        if any((a != b).any() for a, b in zip(header["dataWindow"], header["displayWindow"], strict=True)):
            raise InputError(f"{path}: its pixels do not fill its frame; expected equal data and display windows: crop or pad it")
        values = OpenEXR.File(str(path), separate_channels=True).parts[chosen[0]].channels[chosen[1]].pixels
    except InputError:
        raise
    # the library has no errors of its own: a damaged file raises what its C++ raises, or lacks what its header tells
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, MemoryError) as error:
        raise InputError(f"{path}: the depth is truncated or damaged ({error}); fetch or write it again") from error
    if values is None or not np.issubdtype(values.dtype, np.floating) or values.shape != (bottom - top + 1, right - left + 1):
        raise InputError(f"{path}: channel {chosen[1]} holds no float for each pixel; expected HALF or FLOAT: write it as one")
    return np.asarray(values)


def _channel(path: Path, found: list[tuple[int, str]]) -> tuple[int, str]:
    """Part and name of the channel that is the depth."""
    if len(found) == 1:
        return found[0]
    for wanted in ("Z", "Y"):
        matching = [(part, name) for part, name in found if name == wanted]
        if len(matching) == 1:
            return matching[0]
        if matching:
            break
    names = ", ".join(name for _, name in found) or "none"
    raise InputError(f"{path}: has the channels {names}; expected one Z, one Y, or a single one: write the depth alone, as Z")


def _correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Pearson's correlation; 0 where one does not vary."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks, equal values sharing the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place], dtype=np.float64)
