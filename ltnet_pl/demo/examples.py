"""The pictures that come with the page, and how they were made.

``python -m ltnet_pl.demo.examples SET`` makes them anew, out of the set that
``python -m ltnet_pl render SET --scenes 4 --size 384 --seed 5 --variant llvm_ad_rgb`` renders.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent / "examples"

CHOSEN = {"courtyard": ("Image001", "4500_W"), "room": ("Image002", "5500_E"), "things": ("Image003", "5500_S")}
"""Scene and light of each, by the name that it is given."""

DEPTH_SIDE, DEPTH_STEP = 384, 4
"""Pixels along a side of the stored depth, and its step: all of 384 pixels and 16 bits would pack into 125 KB, this into 50."""


class Example(NamedTuple):
    """One picture with its depth: 16-bit PNG, planar, larger is farther, 0 is background."""

    photo: Path
    depth: Path


def examples() -> list[Example]:
    """The pictures that come along, in the order of their names."""
    return [Example(path, path.with_name(f"{path.stem}_depth.png")) for path in sorted(FOLDER.glob("*.jpg"))]


def make(rendered: Path) -> None:
    """Write them out of a rendered set.

    Args:
        rendered: Its folder.
    """
    from ltnet_pl.vidit.depth import read_depth

    FOLDER.mkdir(exist_ok=True)
    for name, (scene, light) in CHOSEN.items():
        with Image.open(rendered / f"{scene}_{light}.png") as image:
            image.convert("RGB").save(FOLDER / f"{name}.jpg", quality=88, optimize=True)
        depth = read_depth(rendered / f"{scene}.npy")
        # picked, not averaged: no depth lies between an edge and what is behind it
        step = depth.shape[0] / DEPTH_SIDE
        rows = ((np.arange(DEPTH_SIDE) + 0.5) * step).astype(int)
        small = depth[np.ix_(rows, rows)]
        stored = np.round(small / small.max() * (65535 // DEPTH_STEP)).astype(np.uint16) * np.uint16(DEPTH_STEP)
        cv2.imwrite(str(FOLDER / f"{name}_depth.png"), stored, [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    make(Path(sys.argv[1]))
