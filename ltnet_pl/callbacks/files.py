"""What the callbacks write: text, images and checkpoints, whole or not at all, in folders made as needed; and where it goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from numpy.typing import NDArray
from PIL import Image

from ltnet_pl.files import atomic_write


def checkpoint_path(trainer: pl.Trainer, name: str) -> Path:
    """The file of a run's checkpoint, ``best`` or ``last``."""
    return Path(trainer.default_root_dir) / "checkpoints" / f"{name}.ckpt"


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that lie on the disk whole before they take the place of what was there.

    Lightning writes them to the system's folder for temporary files and moves them, which from another file system is a copy: a
    kill within it, or a power cut after it, may leave half a file and nothing else.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint to a local file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # one name for all processes, of which one writes: what a kill leaves is written over
        with atomic_write(path, path.with_name(f".{path.name}.partial")) as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


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
