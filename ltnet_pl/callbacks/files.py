"""What the callbacks write: text and 8-bit images, whole or not at all, in folders made as needed; and where it goes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from PIL import Image

from ltnet_pl.files import atomic_write


def checkpoint_path(trainer: pl.Trainer, name: str) -> Path:
    """The file of a run's checkpoint, ``best`` or ``last``."""
    return Path(trainer.default_root_dir) / "checkpoints" / f"{name}.ckpt"


def run_seed() -> int | None:
    """The seed of this run, which Lightning keeps in the environment; None where none was set."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    return None if seed is None else int(seed)


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
