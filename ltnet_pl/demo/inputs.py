"""Who reads and writes the page's files."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Depth = NDArray[np.float32]


@dataclass(frozen=True)
class Readers:
    """What turns files into arrays and back.

    Args:
        read_photo: A file to a dataclass with ``pixels``, ``(H, W, 3)`` uint8 or uint16.
        write_photo: A path and such a dataclass to a file.
        read_depth: A file, the photograph's height and width, and whether larger is nearer in it, to ``(h, w)`` float32.
        write_turn: A path and frames, ``(H, W, 3)`` uint8, to a moving picture.
        estimate: Pixels to depth; None: it cannot be estimated here.
    """

    read_photo: Callable[[Path], Any]
    write_photo: Callable[[Path, Any], None]
    read_depth: Callable[[Path, tuple[int, int], bool], Depth]
    write_turn: Callable[[Path, list[NDArray[np.uint8]]], None]
    estimate: Callable[[Pixels], Depth] | None = None


def readers(depth_model: str | None = None, device: str = "cpu") -> Readers:
    """The readers of the package.

    Args:
        depth_model: What depth is estimated with; None: nothing.
        device: Where it is estimated.

    Raises:
        InputError: If the model cannot be loaded.
    """
    photo: Any = importlib.import_module("ltnet_pl.photo")

    def read_depth(path: Path, size: tuple[int, int], inverse: bool) -> Depth:
        depth: Depth = photo.read_depth(path, size, inverse=inverse)
        return depth

    estimate = None if depth_model is None else photo.DepthEstimator(depth_model, device)
    return Readers(photo.read_photo, photo.write_photo, read_depth, photo.write_orbit, estimate)
