"""Images in, files out: 8-bit RGB reading that trusts no file name, and writing that leaves no half-written file."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ltnet_pl import InputError

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
"""What files of the two kinds start with."""

_PNG_HEADER = 26  # signature, then the length, name, width, height, bit depth and colour type of the first chunk
_PNG_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
_JPEG_SUFFIXES = {".jpg", ".jpeg"}
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 are the quarter turns
_MAX_PIXELS = 2**26  # 64 megapixels: far above VIDIT's one, far below what a forged header could make us allocate
BROKEN = (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for files that are truncated, damaged or forged."""


def load_bytes(path: Path, limit: int = -1) -> bytes:
    """The first `limit` bytes of a file, or all of it.

    Raises:
        InputError: If the file is missing, empty, a folder, or may not be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(limit)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path, or fetch the missing file again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a readable file") from error
    if not data:
        raise InputError(f"{path}: the file is empty; fetch or write it again")
    return data


def read_image(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """An 8-bit colour image as an array.

    PNG in RGB or RGBA (the alpha channel is dropped; in VIDIT it is 255 everywhere), and JPEG in RGB where the file is also
    named so, turned as its EXIF orientation says.

    Args:
        path: The file.
        size: ``(height, width)`` that the image must have, for instance its partner's.

    Returns:
        ``(H, W, 3)`` uint8, writable and contiguous.

    Raises:
        InputError: If the file is missing, truncated, of another format than its name says, grey, of a palette, 16-bit, or of
            another size.
    """
    path = Path(path)
    data = load_bytes(path)
    found = _size(path, data)
    _expect_size(path, found, size)
    try:
        with Image.open(BytesIO(data)) as image:
            if data.startswith(JPEG):
                return np.array(ImageOps.exif_transpose(image))
            return np.array(image.convert("RGB"))
    except BROKEN as error:
        raise InputError(f"{path}: the image is truncated or damaged ({error}); fetch or write it again") from error


def image_size(path: Path, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Height and width of an image in pixels, from its header alone.

    The header is held to all that `read_image` asks of it, so a check before training costs no decoding.

    Args:
        path: The file.
        size: ``(height, width)`` that the image must have, for instance its partner's.

    Raises:
        InputError: As `read_image`, but for pixels that are truncated or damaged.
    """
    path = Path(path)
    found = _size(path, load_bytes(path, _PNG_HEADER))
    _expect_size(path, found, size)
    return found


def _expect_size(path: Path, found: tuple[int, int], size: tuple[int, int] | None) -> None:
    if size is not None and found != tuple(size):
        raise InputError(
            f"{path}: is {found[0]} x {found[1]} (height x width), expected {size[0]} x {size[1]} as its partner; "
            "all files of one scene must have one size: resize it or fetch it again"
        )


def _size(path: Path, data: bytes) -> tuple[int, int]:
    """Height and width of a file that starts with `data`, once format, bit depth and colour type are found right."""
    jpeg_name = path.suffix.lower() in _JPEG_SUFFIXES
    if data.startswith(PNG):
        if jpeg_name:
            raise InputError(f"{path}: is a PNG by content, but named {path.suffix}; rename it to {path.stem}.png")
        height, width = _png_size(path, data)
    elif data.startswith(JPEG):
        if not jpeg_name:
            raise InputError(
                f"{path}: is a JPEG by content, but named {path.suffix or 'without suffix'}; VIDIT images are PNG, and JPEG has "
                "already lost detail: fetch the original, or name the file .jpg where a JPEG is meant"
            )
        height, width = _jpeg_size(path)
    else:
        raise InputError(
            f"{path}: is neither PNG nor JPEG (starts with {data[:8]!r}); expected an 8-bit RGB or RGBA PNG: convert it"
        )
    if not 0 < height * width <= _MAX_PIXELS:
        raise InputError(f"{path}: claims {height} x {width} pixels; expected 1 to {_MAX_PIXELS}: resize it or fetch it again")
    return height, width


def _png_size(path: Path, data: bytes) -> tuple[int, int]:
    # read here, since Pillow turns 16-bit colour into 8-bit without a word
    if len(data) < _PNG_HEADER or data[12:16] != b"IHDR":
        raise InputError(f"{path}: the image is truncated or damaged (no PNG header); fetch or write it again")
    width, height, bits, colour = struct.unpack(">IIBB", data[16:_PNG_HEADER])
    if colour not in (2, 6):
        name = _PNG_COLOURS.get(colour, f"of unknown colour type {colour}")
        raise InputError(f"{path}: is a {name} image; expected 8-bit RGB or RGBA: convert it to RGB")
    if bits != 8:
        raise InputError(f"{path}: has {bits} bits per channel; expected 8: save it as an 8-bit RGB PNG")
    return height, width


def _jpeg_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            mode, (width, height) = image.mode, image.size
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except BROKEN as error:
        raise InputError(f"{path}: the image is truncated or damaged ({error}); fetch or write it again") from error
    if mode != "RGB":
        raise InputError(f"{path}: is a JPEG of mode {mode}; expected RGB: convert it to RGB")
    return (width, height) if turned else (height, width)
