"""Contact sheets: tiles in lines with text around them, written as files of a limited size."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ltnet_pl import InputError
from ltnet_pl.files import atomic_write

Pixels = NDArray[np.uint8]

LIMIT = 300 * 1024 - 1
"""Largest size of a written picture in bytes."""

GAP = 2
"""Pixels between tiles."""

TITLE, CAPTION, SMALLEST = 13, 11, 7
"""Sizes of fonts in pixels: titles, captions, and the smallest to which a text is shrunk."""

QUALITIES = (92, 86, 80, 74, 68)
"""JPEG qualities, tried in turn before the tiles are made smaller."""


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        caption: Text below it.
    """

    pixels: Pixels
    caption: str = ""


@dataclass(frozen=True)
class Line:
    """One line of a sheet.

    Args:
        title: Text above it, from its left end.
        tiles: Its tiles; lines may differ in length.
    """

    title: str
    tiles: Sequence[Tile]


def sheet(head: Sequence[str], lines: Sequence[Line], side: int) -> Image.Image:
    """Draw lines of tiles on white.

    Args:
        head: Titles of the columns; empty for none.
        lines: At least one, of tiles that all have one size.
        side: Longer side of a tile in pixels; larger ones are averaged, smaller ones enlarged pixel by pixel.

    Returns:
        The picture, RGB.
    """
    rows, columns = lines[0].tiles[0].pixels.shape[:2]
    scale = side / max(rows, columns)
    width, height = max(1, round(columns * scale)), max(1, round(rows * scale))
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    above, below = TITLE + 5, CAPTION + 4
    top = TITLE + 6 if head else 0
    count = max(len(head), *(len(line.tiles) for line in lines))
    # a line without a title or captions takes no room for them
    heights = [above * bool(line.title) + height + (below if any(tile.caption for tile in line.tiles) else GAP) for line in lines]
    picture = Image.new("RGB", (count * (width + GAP) + GAP, top + sum(heights) + GAP), "white")
    draw = ImageDraw.Draw(picture)
    for column, text in enumerate(head):
        _write(draw, text, (GAP + column * (width + GAP), 3), width, TITLE, centred=True)
    y = top
    for line, step in zip(lines, heights, strict=True):
        if line.title:
            _write(draw, line.title, (GAP + 1, y + 2), picture.width - 2 * GAP - 2, CAPTION, centred=False)
        for column, tile in enumerate(line.tiles):
            x = GAP + column * (width + GAP)
            picture.paste(Image.fromarray(tile.pixels).resize((width, height), method), (x, y + above * bool(line.title)))
            if tile.caption:
                _write(draw, tile.caption, (x, y + above * bool(line.title) + height + 1), width, CAPTION, centred=True)
        y += step
    return picture


def _write(draw: ImageDraw.ImageDraw, text: str, at: tuple[int, int], width: int, size: int, centred: bool) -> None:
    """Write a text into a width: smaller where it is too long, then cut."""
    x, y = at
    while size > SMALLEST and draw.textlength(text, font=_font(size)) > width:
        # the base line stays where it is
        size, y = size - 1, y + 1
    font = _font(size)
    if draw.textlength(text, font=font) > width:
        while text and draw.textlength(f"{text}…", font=font) > width:
            text = text[:-1]
        text += "…"
    x += round((width - draw.textlength(text, font=font)) / 2 * centred)
    draw.text((x, y), text, fill="black", font=font)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib: the same everywhere, and with the signs of the field."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def write_within(path: Path, draw: Callable[[int], Image.Image], side: int, limit: int = LIMIT) -> None:
    """Write a picture, whole or not at all, in no more than so many bytes: by JPEG's quality first, then by smaller tiles.

    Args:
        path: File to write, ``.jpg`` or ``.png``; its folder is made.
        draw: Draws the picture with tiles of a side.
        side: The side wanted, in pixels.
        limit: Largest size in bytes.

    Raises:
        InputError: If even tiles of 32 pixels are too many.
    """
    jpeg = path.suffix == ".jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    while side >= 32:
        picture = draw(side)
        for quality in QUALITIES if jpeg else (0,):
            content = io.BytesIO()
            if jpeg:
                picture.save(content, format="JPEG", quality=quality)
            else:
                picture.save(content, format="PNG", optimize=True)
            if content.tell() <= limit:
                with atomic_write(path) as file:
                    file.write(content.getvalue())
                return
        side = side * 9 // 10
    raise InputError(f"{path}: exceeds {limit} bytes with the smallest tiles; expected less to show: give fewer runs or --scenes")


def side_of(pixels: Pixels) -> int:
    """Side at which tiles are shown: their own, at least 96 for the captions' sake, at most 256 pixels."""
    return min(256, max(96, int(max(pixels.shape[:2]))))


def pixels_of(image: Tensor) -> Pixels:
    """Image ``(3, H, W)`` in [0, 1], or one channel of it ``(1, H, W)``, as 8-bit pixels ``(H, W, 3)``."""
    grey: Pixels = (image.expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    return grey


def nearness(depth: Tensor) -> Tensor:
    """Depth ``(1, H, W)`` as a grey image of the same shape: the nearest point over the depth, black where there is none."""
    seen = depth > 0
    # a depth that is no depth stays 0, whatever it is divided by
    return (depth[seen].min() / depth.clamp(min=1e-12)).where(seen, 0.0) if seen.any() else depth
