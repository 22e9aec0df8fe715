"""Frames at the wanted size: from a cache on disk where there is one, else decoded once per process as long as memory allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.augment import resized_depth
from ltnet_pl.data.cached import Frame, FrameCache
from ltnet_pl.vidit import image_size, read_depth, read_image


def fitted_size(size: tuple[int, int], shorter_side: int | None) -> tuple[int, int]:
    """Height and width once the shorter side is resized to a number of pixels; None keeps the size.

    Example:
        >>> fitted_size((480, 640), 96)
        (96, 128)
    """
    if shorter_side is None:
        return size
    scale = shorter_side / min(size)
    return (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Image at another size: area mean where it shrinks, bilinear where it grows, on display-encoded values.

    Args:
        image: ``(H, W, 3)`` uint8.
        size: ``(height, width)`` wanted.
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.array(Image.fromarray(image).resize((width, height), method))


class Frames:
    """Reads images and depths, resizes them, and remembers the most recently used ones.

    Files of one scene must have one size on disk. Each call compares them, whether or not they are remembered: pixels that do not
    stand on each other could be cut to windows of one size, and nothing later would notice.

    Args:
        size: Length to which the shorter side is resized, in pixels; None keeps the files' size.
        cache_mb: Memory for decoded frames per process, in MB (10^6 bytes); 0 remembers nothing.
        caches: Caches of sets, whose frames are mapped and not remembered; files of other folders are decoded.
    """

    def __init__(self, size: int | None, cache_mb: float, caches: Sequence[FrameCache] = ()) -> None:
        self.size, self.caches = size, tuple(caches)
        self.capacity = int(cache_mb * 1e6)
        self._held: OrderedDict[tuple[str, Path], Frame] = OrderedDict()
        self._bytes = 0

    def image(self, path: Path, partner: Path | None = None) -> NDArray[np.uint8]:
        """An image, ``(H, W, 3)`` uint8; shared, so not to be written to.

        Args:
            path: The file.
            partner: Image whose size it must have.

        Raises:
            InputError: As `ltnet_pl.vidit.read_image`, or if its size is not the partner's.
        """

        def load() -> Frame:
            image = read_image(path)
            size = (image.shape[0], image.shape[1])
            return Frame(resize_image(image, fitted_size(size, self.size)), size)

        frame = self._remembered(("image", path), load)
        if partner is not None:
            self._expect_size_of(partner, path, frame.original)
        return frame.array

    def depth(self, path: Path, image: Path) -> NDArray[np.float32]:
        """The depth that belongs to an image, ``(H, W)`` float32; shared, so not to be written to.

        Raises:
            InputError: As `ltnet_pl.vidit.read_depth`, or if its size is not the image's.
        """

        def load() -> Frame:
            depth = read_depth(path)
            size = (depth.shape[0], depth.shape[1])
            self._expect_size_of(image, path, size)  # before the resizing, whose own mistake would hide this one
            fitted = fitted_size(size, self.size)
            if fitted == size:
                return Frame(depth, size)
            small = resized_depth(depth, fitted)
            if not small.any():
                raise InputError(f"{path}: nothing above 0 is left at {fitted[0]} x {fitted[1]}; raise --data.size")
            return Frame(small, size)

        frame = self._remembered(("depth", path), load)
        self._expect_size_of(image, path, frame.original)
        return frame.array

    def original(self, image: Path) -> tuple[int, int]:
        """Height and width that an image has on disk.

        Raises:
            InputError: As `ltnet_pl.vidit.image_size`.
        """
        for cache in self.caches:
            known = cache.original(image)
            if known is not None:
                return known
        held = self._held.get(("image", image))
        return image_size(image) if held is None else held.original

    def _expect_size_of(self, image: Path, path: Path, found: tuple[int, int]) -> None:
        """Refuse a file whose size on disk is not that of an image of its scene."""
        size = self.original(image)
        if found != size:
            raise InputError(
                f"{path}: is {found[0]} x {found[1]} (height x width), but {image} is {size[0]} x {size[1]}; expected one size "
                "for image, depth and ground truth of a scene: resize the odd one (depth by nearest neighbour) or fetch it again"
            )

    def _remembered(self, key: tuple[str, Path], load: Callable[[], Frame]) -> Frame:
        """What a cache has, or what was loaded under a key, loading it now; the longest unused goes first when memory is full."""
        for cache in self.caches:
            mapped = cache.get(key[1])
            if mapped is not None:
                return mapped
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
            return held
        frame = load()
        frame.array.setflags(write=False)  # a sample that changed it in place would change every later one
        if frame.array.nbytes <= self.capacity:
            self._held[key] = frame
            self._bytes += frame.array.nbytes
            while self._bytes > self.capacity:
                self._bytes -= self._held.popitem(last=False)[1].array.nbytes
        return frame

    def __getstate__(self) -> dict[str, Any]:
        # what another process can read from disk is not sent to it
        return {**self.__dict__, "_held": OrderedDict(), "_bytes": 0}
