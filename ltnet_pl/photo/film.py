"""Films of a light that circles a scene."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.files import atomic_write

Frame = NDArray[np.uint8]


def write_orbit(path: str | Path, frames: Iterable[Frame], fps: int = 12, overwrite: bool = False) -> None:
    """Write frames as a film that begins anew when it ends: ``.webp``, ``.gif``, or ``.mp4`` (H.264).

    An MP4 has even sides: of an odd one the last row or column is left out.

    Args:
        path: The file, which appears whole or not at all; its ending chooses the format.
        frames: ``(H, W, 3)`` each, all of one size.
        fps: Frames per second.
        overwrite: Replace a file that is there.

    Raises:
        InputError: If the file is there already, its folder is not, its ending is none of these, or there is no frame.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise InputError(f"{path}: is there already; give --overwrite true to replace it, or another name")
    writers = {".webp": _animation, ".gif": _animation, ".mp4": _video}
    if path.suffix.lower() not in writers:
        raise InputError(f"{path}: ends in {path.suffix or 'nothing'}; expected {', '.join(writers)}: choose another name")
    with atomic_write(path) as file:
        file.write(writers[path.suffix.lower()](path, frames, fps))


def _animation(path: Path, frames: Iterable[Frame], fps: int) -> bytes:
    images = (Image.fromarray(frame) for frame in frames)
    first = next(images, None)
    if first is None:
        raise InputError(f"{path}: there are no frames to write; expected one or more")
    buffer = BytesIO()
    kind = path.suffix[1:].upper()
    options = {"quality": 90, "method": 4} if kind == "WEBP" else {}
    first.save(buffer, kind, save_all=True, append_images=images, duration=round(1000 / fps), loop=0, **options)
    return buffer.getvalue()


def _video(path: Path, frames: Iterable[Frame], fps: int) -> bytes:
    try:
        import av
    except ImportError as error:
        raise InputError(f"{path}: MP4 needs the extra photo; pip install 'ltnet_pl[photo]', or choose .webp or .gif") from error
    buffer = BytesIO()
    count = 0
    with av.open(buffer, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=fps)
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
        for frame in frames:
            height, width = (side // 2 * 2 for side in frame.shape[:2])
            if not count:
                stream.height, stream.width = height, width
            even = np.ascontiguousarray(frame[:height, :width])
            film.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            count += 1
        if count:
            film.mux(stream.encode())
    if not count:
        raise InputError(f"{path}: there are no frames to write; expected one or more")
    return buffer.getvalue()
