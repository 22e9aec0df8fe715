"""Photographs in and out: what cameras and editors write becomes upright RGB, and bit depth, alpha and profile stay."""

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
from PIL import Image, ImageCms
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from ltnet_pl import InputError
from ltnet_pl.photo.output import check_output, store
from ltnet_pl.vidit.files import BROKEN, JPEG, PNG, load_bytes

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

SUFFIXES = (".png", ".jpg", ".jpeg")
"""What a photograph is written as."""

MIN_SIDE, MAX_SIDE = 64, 8192
"""Pixels that each side of a photograph may have."""

_QUALITY = 95
_ORIENTATION = 0x0112  # EXIF tag
_BITS = 24  # where the header of a PNG says its bit depth
_HEADER_END = 33  # signature and first chunk of a PNG


@dataclass(frozen=True, eq=False)
class Photo:
    """A photograph, upright.

    Args:
        pixels: ``(H, W, 3)`` uint8 or uint16, RGB, display-encoded; full scale is the type's largest value.
        alpha: ``(H, W)`` of the same type, 0 where nothing is to be seen; None for none.
        profile: ICC profile that says what the colours mean; None for sRGB.
        path: File that it came from.

    Raises:
        ValueError: If shapes or types are others.
    """

    pixels: Pixels
    alpha: Pixels | None
    profile: bytes | None
    path: Path

    def __post_init__(self) -> None:
        pixels, alpha = self.pixels, self.alpha
        if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"pixels of a photo are (H, W, 3) uint8 or uint16, got {pixels.shape} {pixels.dtype}")
        if alpha is not None and (alpha.dtype != pixels.dtype or alpha.shape != pixels.shape[:2]):
            raise ValueError(f"alpha is {pixels.shape[:2]} {pixels.dtype} like its pixels, got {alpha.shape} {alpha.dtype}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def transparent(self) -> bool:
        """Whether any pixel is not opaque."""
        return self.alpha is not None and bool((self.alpha != np.iinfo(self.alpha.dtype).max).any())


def read_photo(path: Path) -> Photo:
    """A PNG or JPEG as cameras, phones and editors write it; the content decides, not the name.

    * PNG in RGB, grey or palette, with or without transparency, of up to 16 bits per channel; JPEG in RGB, grey or CMYK. Of a
      JPEG with several pictures (as phones write them), the first is read: it is the photograph.
    * The EXIF orientation is applied. Where EXIF cannot be read, a warning says so, and the pixels stay as they are.
    * An RGB profile is kept beside the pixels, which stay what they are. Other profiles do not fit the result: a grey one is
      dropped, and CMYK is converted to sRGB through its profile, or, where it has none, as (1 - ink) (1 - black).

    Args:
        path: The file.

    Raises:
        InputError: If the file is missing, empty, a folder, of another format, animated, truncated or damaged, or one of its
            sides has fewer than 64 or more than 8192 pixels (as the header says, before anything is decoded).
    """
    path = Path(path)
    start = load_bytes(path, len(PNG))
    if not start.startswith((PNG, JPEG)):
        raise InputError(f"{path}: is neither PNG nor JPEG (starts with {start!r}); expected a photograph as one: convert it")
    data = load_bytes(path)
    try:
        # the classes themselves: Image.open would judge the size by a limit of its own
        with PngImageFile(BytesIO(data)) if start == PNG else JpegImageFile(BytesIO(data)) as image:
            _check(path, image)
            image.load()  # finds what is truncated, whoever decodes; in a PNG, EXIF may come after the pixels
            turn = _orientation(path, image)
            profile = image.info.get("icc_profile")
            if start == PNG and data[_BITS] == 16:
                pixels, alpha = _deep(image, data)
            else:
                pixels, alpha = _shallow(path, image, profile)
    except InputError:
        raise
    except BROKEN as error:
        raise InputError(f"{path}: the image is truncated or damaged ({error}); fetch or write it again") from error
    # bytes 16 to 20 of a profile say what it describes
    kept = profile if profile and profile[16:20] == b"RGB " else None
    return Photo(upright(pixels, turn), None if alpha is None else upright(alpha, turn), kept, path)


def write_photo(path: Path, photo: Photo, overwrite: bool = False) -> None:
    """Write a photograph, whole or not at all, as what the name's suffix says.

    PNG keeps everything to the bit: 8 or 16 bits, alpha, profile. JPEG is written with quality 95 and full colour resolution; it
    keeps the profile, 16 bits are rounded to the nearest of 8, and an alpha that is opaque everywhere is left out. Nothing of
    the original's EXIF is written: the pixels are upright already.

    Args:
        path: File to write: ``.png``, ``.jpg`` or ``.jpeg``.
        photo: The photograph.
        overwrite: Whether a file that is there may be replaced.

    Raises:
        InputError: If the suffix is another one, the file exists and may not be replaced, it cannot be written, or a photograph
            with transparent pixels was to become a JPEG.
    """
    path = Path(path)
    check_output(path, SUFFIXES, overwrite)
    check_kept(path, photo)
    if path.suffix.lower() == ".png":
        store(path, _deep_png(photo) if photo.pixels.dtype == np.uint16 else _shallow_png(photo))
        return
    buffer = BytesIO()
    # subsampling 0: colour edges as sharp as brightness
    Image.fromarray(eight_bit(photo.pixels)).save(buffer, "JPEG", quality=_QUALITY, subsampling=0, icc_profile=photo.profile)
    store(path, buffer.getvalue())


def check_kept(path: Path, photo: Photo) -> None:
    """Refuse a file that could not keep what a photograph carries, for instance before it is relit.

    Args:
        path: File that is to be written; its suffix says what it will be.
        photo: The photograph.

    Raises:
        InputError: If a photograph with transparent pixels was to become a JPEG.
    """
    if Path(path).suffix.lower() != ".png" and photo.transparent:
        raise InputError(
            f"{path}: a JPEG cannot keep the transparency of {photo.path}; expected .png: give the result that suffix"
        )


def eight_bit(pixels: Pixels) -> NDArray[np.uint8]:
    """Pixels of 8 or 16 bits as 8 bits, each value to the nearest.

    Example:
        >>> eight_bit(np.array([0, 128, 129, 65535], dtype=np.uint16)).tolist()
        [0, 0, 1, 255]
    """
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, dtype=np.uint8)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def upright(pixels: Any, orientation: int) -> Any:
    """An array ``(H, W, ...)`` turned as EXIF asks, contiguous.

    Args:
        pixels: The array, as stored.
        orientation: EXIF's value; 1 and all that EXIF does not know leave the array as it is.
    """
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _check(path: Path, image: ImageFile) -> None:
    """Refuse what the header tells already."""
    width, height = image.size
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_SIDE:
        raise InputError(
            f"{path}: is {height} x {width} (height x width); expected sides of {MIN_SIDE} to {MAX_SIDE} pixels: resize it"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise InputError(f"{path}: is an animation of {frames} frames; expected one photograph: save one frame as a PNG")


def _orientation(path: Path, image: ImageFile) -> int:
    """EXIF's orientation; 1 where there is none."""
    try:
        Image.Exif().load(image.info.get("exif", b""))  # a JPEG may have met the fault before, and answers with nothing
        value = image.getexif().get(_ORIENTATION, 1)
    except BROKEN as error:
        warnings.warn(f"{path}: its EXIF cannot be read ({error}); the picture is taken to be upright as stored", stacklevel=3)
        return 1
    return value if isinstance(value, int) else 1


def _shallow(path: Path, image: ImageFile, profile: bytes | None) -> tuple[Pixels, Pixels | None]:
    """Colours and alpha of an image of up to 8 bits."""
    if image.mode == "CMYK":
        return np.array(_from_inks(path, image, profile)), None
    if image.has_transparency_data:
        whole = np.array(image.convert("RGBA"))
        return whole[..., :3], whole[..., 3]
    return np.array(image.convert("RGB")), None


def _from_inks(path: Path, image: Image.Image, profile: bytes | None) -> Image.Image:
    """CMYK as RGB; Pillow has undone the inversion that Adobe's files carry."""
    if not profile:
        return image.convert("RGB")
    try:
        inks = ImageCms.ImageCmsProfile(BytesIO(profile))
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        turned = ImageCms.profileToProfile(image, inks, ImageCms.createProfile("sRGB"), intent, "RGB", flags=flags)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: its colours are CMYK and their profile cannot be used ({error}); expected RGB: convert it to sRGB"
        ) from error
    if turned is None:
        raise InputError(f"{path}: its CMYK profile gave no colours; expected RGB: convert it to sRGB")
    return turned


def _deep(image: ImageFile, data: bytes) -> tuple[Pixels, Pixels | None]:
    """Colours and alpha of a 16-bit PNG that was found whole."""
    if image.mode.startswith("I"):  # grey; OpenCV would lose the grey that stands for transparent
        grey = np.asarray(image).astype(np.uint16)
        clear = image.info.get("transparency")
        alpha = None if clear is None else np.where(grey == clear, 0, 65535).astype(np.uint16)
        return np.repeat(grey[..., None], 3, axis=2), alpha
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)  # Pillow has only 8 bits for colour
    if whole is None or whole.dtype != np.uint16 or whole.ndim != 3:
        raise ValueError("its 16-bit colours cannot be decoded")
    colours = np.ascontiguousarray(whole[..., 2::-1]).astype(np.uint16)
    return colours, whole[..., 3].astype(np.uint16) if whole.shape[2] == 4 else None


def _shallow_png(photo: Photo) -> bytes:
    whole = photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])
    buffer = BytesIO()
    Image.fromarray(whole).save(buffer, "PNG", icc_profile=photo.profile)
    return buffer.getvalue()


def _deep_png(photo: Photo) -> bytes:
    """A 16-bit PNG; OpenCV writes it without profile, which becomes the second chunk."""
    colours = photo.pixels[..., ::-1]
    whole = colours if photo.alpha is None else np.dstack([colours, photo.alpha])
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(whole))
    if not done:
        raise RuntimeError(f"OpenCV could not encode {whole.shape} {whole.dtype} as PNG")
    data = encoded.tobytes()
    if photo.profile is None:
        return data
    content = b"iCCP" + b"ICC Profile\0\0" + zlib.compress(photo.profile)
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return data[:_HEADER_END] + chunk + data[_HEADER_END:]
