"""Photographs in PNG and JPEG files, with what must survive the way through a network: transparency, 16 bits, colour profile."""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from ltnet_pl import InputError
from ltnet_pl.files import atomic_write
from ltnet_pl.vidit.files import load_bytes

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

SMALLEST, LARGEST = 64, 8192
"""Pixels along each side that a photograph may have."""

_ORIENTATION = 0x0112
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = 33  # bytes of the signature and of the first chunk, after which others may stand
_BROKEN = (OSError, SyntaxError, ValueError, struct.error, zlib.error)  # what Pillow raises on damaged files
_TURNS: dict[int, tuple[int, bool]] = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True)}
_TURNS[8] = (1, False)  # EXIF's orientations: quarter turns to the left, then whether mirrored


@dataclass(frozen=True)
class Photo:
    """One photograph.

    Args:
        pixels: ``(H, W, 3)``, uint8 or uint16, display-encoded.
        alpha: Opacity ``(H, W)`` of the same type; None: opaque.
        profile: ICC profile that says what the pixels' colours are; None: sRGB.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    profile: bytes | None = None


def read_photo(path: str | Path) -> Photo:
    """Read a PNG (8 or 16 bits; grey, palette and transparency too) or a JPEG (grey and CMYK too), upright as EXIF says.

    Grey becomes colour; CMYK becomes sRGB, by its own profile where it has one.

    Args:
        path: The file.

    Raises:
        InputError: If the file is missing, empty, no such image, damaged, animated, or has a side outside 64-8192 pixels.
    """
    path = Path(path)
    data = load_bytes(path)
    try:
        with warnings.catch_warnings():
            # of large files, which are refused below by what is expected of them
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(data), formats=("PNG", "JPEG"))
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: {error}; expected at most {LARGEST} pixels along each side: reduce it") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: is no PNG and no JPEG; expected one of them: convert it") from error
    except _BROKEN as error:
        raise InputError(f"{path}: is truncated or damaged ({error}); fetch or write it again") from error
    with image:
        width, height = image.size
        if min(width, height) < SMALLEST or max(width, height) > LARGEST:
            raise InputError(
                f"{path}: is {width} x {height} pixels (width x height); expected {SMALLEST} to {LARGEST} along each side: "
                f"{'enlarge' if min(width, height) < SMALLEST else 'reduce'} it"
            )
        # a JPEG of a phone may carry further pictures, of which the first is the photograph
        count = getattr(image, "n_frames", 1)
        if image.format == "PNG" and count > 1:
            raise InputError(f"{path}: is animated ({count} frames); expected a single picture: save one of them")
        try:
            photo = _deep(path, data, image) if _is_deep(data) else _shallow(image)
            orientation = int(image.getexif().get(_ORIENTATION, 1))
        except _BROKEN as error:
            raise InputError(f"{path}: is truncated or damaged ({error}); fetch or write it again") from error
    if orientation in _TURNS:
        alpha = None if photo.alpha is None else _turned(photo.alpha, orientation)
        photo = Photo(_turned(photo.pixels, orientation), alpha, photo.profile)
    return photo


def write_photo(path: str | Path, photo: Photo, overwrite: bool = False) -> None:
    """Write a photograph as PNG or JPEG (quality 95, full colour), whole or not at all.

    16 bits become 8 in a JPEG, rounded; a PNG keeps them.

    Args:
        path: The file; its ending chooses the format.
        photo: The photograph.
        overwrite: Replace a file that is there.

    Raises:
        InputError: If the file is there already, its folder is not, or its format cannot hold the photograph.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.exists() and not overwrite:
        raise InputError(f"{path}: is there already; give --overwrite true to replace it, or another name")
    if suffix == ".png":
        content = _png(photo)
    elif suffix in (".jpg", ".jpeg"):
        if photo.alpha is not None:
            raise InputError(f"{path}: a JPEG has no transparency, and the photograph has; expected a name that ends in .png")
        eight = photo.pixels if photo.pixels.dtype == np.uint8 else np.round(photo.pixels / 257).astype(np.uint8)
        buffer = BytesIO()
        Image.fromarray(eight).save(buffer, "JPEG", quality=95, subsampling=0, icc_profile=photo.profile)
        content = buffer.getvalue()
    else:
        raise InputError(f"{path}: ends in {path.suffix or 'nothing'}; expected .png, .jpg or .jpeg: choose another name")
    with atomic_write(path) as file:
        file.write(content)


def _is_deep(data: bytes) -> bool:
    """Whether a file is a PNG of 16 bits: the byte says so that follows width and height in its first chunk."""
    return data.startswith(_PNG_START) and data[24] == 16


def _deep(path: Path, data: bytes, image: Image.Image) -> Photo:
    """A PNG of 16 bits; Pillow would cut its colours to 8."""
    found: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16:
        raise InputError(f"{path}: is truncated or damaged; fetch or write it again")
    grey = image.mode in ("I;16", "I", "LA", "L")
    profile = None if grey else image.info.get("icc_profile")
    if found.ndim == 2:
        return Photo(np.repeat(found[..., None], 3, axis=2))
    alpha = np.ascontiguousarray(found[..., 3]) if found.shape[2] == 4 else None
    return Photo(np.ascontiguousarray(found[..., 2::-1]), alpha, profile)


def _shallow(image: Image.Image) -> Photo:
    """An image of 8 bits or fewer."""
    profile = image.info.get("icc_profile")
    if image.mode == "CMYK":
        if profile is not None:
            known: Any = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            return Photo(np.array(known))
        return Photo(np.array(image.convert("RGB")))
    if image.mode not in ("RGB", "RGBA", "P", "PA"):
        profile = None  # one of greys says nothing of colours
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        whole = np.array(image.convert("RGBA"))
        return Photo(np.ascontiguousarray(whole[..., :3]), np.ascontiguousarray(whole[..., 3]), profile)
    return Photo(np.array(image.convert("RGB")), None, profile)


def _turned(x: Pixels, orientation: int) -> Pixels:
    """Pixels upright, as an EXIF orientation says."""
    quarters, mirrored = _TURNS[orientation]
    turned = np.rot90(x, quarters)
    upright: Any = np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)
    return upright  # type: ignore[no-any-return]


def _png(photo: Photo) -> bytes:
    parts = [photo.pixels] if photo.alpha is None else [photo.pixels, photo.alpha[..., None]]
    whole = np.concatenate(parts, axis=2)
    if photo.pixels.dtype == np.uint8:
        buffer = BytesIO()
        Image.fromarray(whole).save(buffer, "PNG", icc_profile=photo.profile)
        return buffer.getvalue()
    order = [2, 1, 0, 3][: whole.shape[2]]
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(whole[..., order]))
    assert done  # an array of this kind has a form as PNG
    content = encoded.tobytes()
    if photo.profile is None:
        return content
    # OpenCV writes no profile: a chunk of that name, after the header
    body = b"iCCP" + b"ICC Profile\0\0" + zlib.compress(photo.profile)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return content[:_PNG_HEADER] + chunk + content[_PNG_HEADER:]
