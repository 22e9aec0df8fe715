"""What the callbacks write: text and 8-bit images, whole or not at all, in folders made as needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltnet_pl.files import atomic_write


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(content)


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an 8-bit image ``(H, W, 3)``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        Image.fromarray(pixels).save(file, format="PNG")
