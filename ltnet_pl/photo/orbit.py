"""A photograph under a light that goes round it, as a moving picture."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from ltnet_pl import InputError
from ltnet_pl.geometry import size_within
from ltnet_pl.photo.output import check_output, store

SUFFIXES = (".webp", ".gif", ".mp4")
"""What an orbit is written as."""

HELD = 2**28
"""Pixels of all frames together that a WebP or GIF may have: they are held until the last one is there, in 4 bytes each."""

_MIN_SIDE = 16
_MAX_FPS = 60.0
_MAX_GIF_FPS = 50.0  # browsers show a frame of less than 2 hundredths of a second for 10
_WEBP_FLAGS, _WEBP_ALPHA = 20, 0x10  # where the header of a WebP says what it holds, and that it holds alpha
_BT709 = 1  # FFmpeg's number of that standard, in each of its lists


def check_orbit(path: Path, overwrite: bool = False) -> None:
    """Refuse a moving picture that could not be written, before a frame is computed for it.

    Args:
        path: File to write: ``.webp``, ``.gif`` or ``.mp4``.
        overwrite: Whether a file that is there may be replaced.

    Raises:
        InputError: As `check_output`, or if the MP4 writer is not installed.
    """
    check_output(path, SUFFIXES, overwrite)
    if Path(path).suffix.lower() == ".mp4":
        try:
            import av  # noqa: F401 - to see whether it is there
        except ImportError as error:
            raise InputError(
                f"{path}: MP4 needs PyAV, which is not installed; expected the extra photo: pip install 'ltnet_pl[photo]', or "
                "name a .webp or .gif"
            ) from error


def check_frames(path: Path, size: tuple[int, int], count: int) -> None:
    """Refuse more frames than a file's form lets be written with bounded memory.

    Args:
        path: File to write.
        size: Height and width of a frame.
        count: Frames.

    Raises:
        InputError: If a WebP or GIF was to have more than `HELD` pixels.
    """
    height, width = size
    if Path(path).suffix.lower() != ".mp4" and count * height * width > HELD:
        side = math.floor(max(size) * math.sqrt(HELD / (count * height * width)))
        while side > 1 and count * math.prod(size_within(size, side)) > HELD:  # the shorter side may be rounded up
            side -= 1
        raise InputError(
            f"{path}: has {count} frames of {height} x {width} pixels, which are held in memory together; expected "
            f"{HELD / 1e6:.0f} million pixels at most: give --size {side}, or fewer frames, or make it an .mp4, which holds one"
        )


def write_orbit(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: float = 12.0,
    overwrite: bool = False,
    alpha: NDArray[np.uint8] | None = None,
    profile: bytes | None = None,
) -> None:
    """Write frames of one turn as a moving picture, whole or not at all, as what the name's suffix says.

    The picture loops without a seam where the frames are one turn in equal steps and the first is not repeated at the end.

    * ``.webp``: 24-bit colour, lossy of quality 90, with alpha and profile; repeats for ever. The smallest.
    * ``.gif``: 256 colours for each frame, repeats for ever. Its clock ticks in hundredths of a second: frames last a tick more
      or less, so that the whole turn lasts what it should.
    * ``.mp4``: H.264 in BT.709, 4:2:0, which every player shows; repeating is up to the player. Its sides are even: of an odd
      one, the last row or column is cut off.

    GIF and MP4 carry no profile: colours of another one are converted to sRGB. They are written opaque; a warning says so.

    Args:
        path: File to write: ``.webp``, ``.gif`` or ``.mp4``.
        frames: Frames ``(H, W, 3)`` uint8 in turn, all of one size with sides of 16 or more. Those of an MP4 are held one at a
            time, others together.
        fps: Frames per second, 1 to 60; for ``.gif`` 50 at most.
        overwrite: Whether a file that is there may be replaced.
        alpha: ``(H, W)`` of all frames, 0 where nothing is to be seen; None for none.
        profile: ICC profile, of RGB, that says what the colours mean; None for sRGB.

    Raises:
        InputError: If the suffix or the frame rate is outside of these, the file exists and may not be replaced, it cannot be
            written, the MP4 writer is not installed, or a WebP or GIF has more than `HELD` pixels.
        ValueError: If there is no frame, or one, or alpha, has another shape or type.
    """
    path = Path(path)
    check_orbit(path, overwrite)
    suffix = path.suffix.lower()
    highest = _MAX_GIF_FPS if suffix == ".gif" else _MAX_FPS
    if not 1 <= fps <= highest:
        raise InputError(f"{path}: --fps is {fps:g}; expected 1 to {highest:g} frames per second for {suffix}: correct it")
    checked = _checked(path, frames, alpha)
    if suffix == ".webp":
        store(path, _webp(checked, fps, alpha, profile))
        return
    if alpha is not None and (alpha != 255).any():
        warnings.warn(f"{path}: {suffix} is written without transparency, which .webp keeps", stacklevel=2)
    plain = checked if profile is None else map(_to_srgb(path, profile), checked)
    store(path, _mp4(plain, fps) if suffix == ".mp4" else _gif(plain, fps))


def _checked(path: Path, frames: Iterable[NDArray[np.uint8]], alpha: NDArray[np.uint8] | None) -> Iterator[NDArray[np.uint8]]:
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
        if alpha is not None and (alpha.dtype != np.uint8 or alpha.shape != shape[:2]):
            raise ValueError(f"alpha is {alpha.shape} {alpha.dtype}; expected {shape[:2]} uint8 like the frames")
        check_frames(path, (shape[0], shape[1]), number + 1)
        yield frame
    if shape is None:
        raise ValueError("an orbit has no frames; expected at least one")


def _to_srgb(path: Path, profile: bytes) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """What brings a frame from a profile's colours to sRGB's; a profile that cannot be used is left aside, with a warning."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        turn = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB", intent, flags)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        warnings.warn(f"{path}: the colour profile cannot be used ({error}); its colours are taken for sRGB", stacklevel=3)
        return lambda frame: frame
    return lambda frame: np.array(ImageCms.applyTransform(Image.fromarray(frame), turn))


def _lasting(count: int, fps: float, tick: int) -> list[int]:
    """How long each frame lasts in milliseconds, in whole ticks, so that all together last what they should."""
    ends = [round(1000 / tick * number / fps) * tick for number in range(count + 1)]
    return [end - start for start, end in pairwise(ends)]


def _webp(frames: Iterator[NDArray[np.uint8]], fps: float, alpha: NDArray[np.uint8] | None, profile: bytes | None) -> bytes:
    first, *rest = (Image.fromarray(frame if alpha is None else np.dstack([frame, alpha])) for frame in frames)
    buffer = BytesIO()
    lasting = _lasting(1 + len(rest), fps, 1)
    options = {"duration": lasting, "loop": 0, "quality": 90, "method": 4, "icc_profile": profile}
    first.save(buffer, "WEBP", save_all=True, append_images=rest, **options)
    data = bytearray(buffer.getvalue())
    if alpha is not None and data[12:16] == b"VP8X":
        # left out where what is to be seen is a rectangle: frames are cut to it, and what is around them is shown as black then
        data[_WEBP_FLAGS] |= _WEBP_ALPHA
    return bytes(data)


def _gif(frames: Iterator[NDArray[np.uint8]], fps: float) -> bytes:
    first, *rest = (Image.fromarray(frame) for frame in frames)
    buffer = BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=_lasting(1 + len(rest), fps, 10), loop=0)
    return buffer.getvalue()


def _mp4(frames: Iterator[NDArray[np.uint8]], fps: float) -> bytes:
    import av
    from av.video.reformatter import ColorRange, Colorspace

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
