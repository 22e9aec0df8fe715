"""A photograph under a light that goes round it, as a moving picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.photo.output import check_output, store

SUFFIXES = (".webp", ".gif", ".mp4")
"""What an orbit is written as."""

_MIN_SIDE = 16
_MAX_FPS = 60.0
_MAX_GIF_FPS = 50.0  # browsers show a frame of less than 2 hundredths of a second for 10
_BT709 = 1  # FFmpeg's number of that standard, in each of its lists


def write_orbit(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float = 12.0, overwrite: bool = False) -> None:
    """Write frames of one turn as a moving picture, whole or not at all, as what the name's suffix says.

    The picture loops without a seam where the frames are one turn in equal steps and the first is not repeated at the end.

    * ``.webp``: 24-bit colour, lossy of quality 90, repeats for ever. The smallest.
    * ``.gif``: 256 colours for each frame, repeats for ever. Its clock ticks in hundredths of a second: frames last a tick more
      or less, so that the whole turn lasts what it should.
    * ``.mp4``: H.264 in BT.709, 4:2:0, which every player shows; repeating is up to the player. Its sides are even: of an odd
      one, the last row or column is cut off.

    Args:
        path: File to write: ``.webp``, ``.gif`` or ``.mp4``.
        frames: Frames ``(H, W, 3)`` uint8 in turn, sRGB, all of one size with sides of 16 or more.
        fps: Frames per second, 1 to 60; for ``.gif`` 50 at most.
        overwrite: Whether a file that is there may be replaced.

    Raises:
        InputError: If the suffix or the frame rate is outside of these, the file exists and may not be replaced, it cannot be
            written, or the MP4 writer is not installed.
        ValueError: If there is no frame, or one has another shape or type.
    """
    path = Path(path)
    check_output(path, SUFFIXES, overwrite)
    suffix = path.suffix.lower()
    highest = _MAX_GIF_FPS if suffix == ".gif" else _MAX_FPS
    if not 1 <= fps <= highest:
        raise InputError(f"{path}: --fps is {fps:g}; expected 1 to {highest:g} frames per second for {suffix}: correct it")
    checked = _checked(frames)
    store(path, _mp4(path, checked, fps) if suffix == ".mp4" else _looped(list(checked), fps, suffix))


def _checked(frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """The frames, once each is found to be like the first."""
    shape: tuple[int, ...] | None = None
    for number, frame in enumerate(frames):
        shape = frame.shape if shape is None else shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or min(frame.shape[:2]) < _MIN_SIDE:
            raise ValueError(
                f"frame {number} is {frame.shape} {frame.dtype}; expected (H, W, 3) uint8 with sides of {_MIN_SIDE} or more"
            )
        if frame.shape != shape:
            raise ValueError(f"frame {number} is {frame.shape}, the first {shape}; expected one size")
        yield frame
    if shape is None:
        raise ValueError("an orbit has no frames; expected at least one")


def _looped(frames: Sequence[NDArray[np.uint8]], fps: float, suffix: str) -> bytes:
    """An animated GIF or WebP."""
    tick = 10 if suffix == ".gif" else 1  # milliseconds
    ends = [round(1000 / tick * number / fps) * tick for number in range(len(frames) + 1)]
    lasting = [end - start for start, end in pairwise(ends)]
    first, *rest = (Image.fromarray(frame) for frame in frames)
    buffer = BytesIO()
    options = {} if suffix == ".gif" else {"quality": 90, "method": 4}
    first.save(buffer, suffix[1:].upper(), save_all=True, append_images=rest, duration=lasting, loop=0, **options)
    return buffer.getvalue()


def _mp4(path: Path, frames: Iterator[NDArray[np.uint8]], fps: float) -> bytes:
    try:
        import av
        from av.video.reformatter import ColorRange, Colorspace
    except ImportError as error:
        raise InputError(
            f"{path}: MP4 needs PyAV, which is not installed; expected the extra photo: pip install 'ltnet_pl[photo]', or name a "
            ".webp or .gif"
        ) from error
    first = next(frames)
    height, width = (side - side % 2 for side in first.shape[:2])
    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "17"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        # untagged, players take small pictures for another standard's
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        for frame in (first, *frames):
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            image = image.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return buffer.getvalue()
