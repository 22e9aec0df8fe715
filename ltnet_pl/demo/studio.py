"""What the page knows and computes, without a word about how it looks: pictures, lights, and the little that is kept."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ltnet_pl import InputError
from ltnet_pl.demo.files import Files
from ltnet_pl.demo.inputs import Depth, Pixels, Readers
from ltnet_pl.demo.lights import Wanted
from ltnet_pl.geometry import size_within
from ltnet_pl.light import Light
from ltnet_pl.relight import SMALLEST, Prepared, Relighter

Preview = NDArray[np.uint8]

PREVIEW = 512
"""Longer side in pixels of what follows the light by hand."""

KEPT = 6
"""Photographs whose preview stays ready, some 35 MB each; the one that was not used for longest goes."""

DISK_MB = 1024
"""Size of the folder of uploads, previews and results; the files that were not used for longest go."""

FRAMES = 24
"""Pictures of one turn of the light."""

ESTIMATED_SIDE = 1024
"""Longer side in pixels that depth is estimated at."""


@dataclass(frozen=True)
class Picture:
    """A photograph that someone chose, and where its depth comes from.

    Args:
        photo: Its file.
        depth: Its depth's file; None: flat.
        nearer: Whether larger is nearer in that file.
        estimated: Whether the depth was estimated from the photograph.
    """

    photo: Path
    depth: Path | None = None
    nearer: bool = False
    estimated: bool = False


@dataclass(frozen=True)
class Ready:
    """A photograph whose preview can be relit at once.

    Args:
        prepared: The preview, for the network.
        depth: Its depth as a picture, near is bright; None: flat.
        notes: What the readers of its files warn of.
    """

    prepared: Prepared
    depth: Preview | None
    notes: tuple[str, ...]


class Studio:
    """Opens photographs and relights them; bounded in memory and on disk.

    Nothing but paths is kept per visitor. The previews that were used last stay ready for anyone who comes back to them, and
    others are read again. On disk are uploads, results, and the pictures that the page shows (a pair for each place of the lamp).

    Args:
        relighter: What relights.
        readers: What reads and writes files.
        folder: Where all of these lie; old files in it are removed.
        max_megapixels: Pixels that a photograph or a depth picture may have, in millions.
        preview: Longer side in pixels of a preview.
        kept: Previews that stay ready.
        disk_mb: Size of the folder in MiB, within which those of its files stay that were used last.
    """

    def __init__(
        self,
        relighter: Relighter,
        readers: Readers,
        folder: Path,
        max_megapixels: float = 64,
        preview: int = PREVIEW,
        kept: int = KEPT,
        disk_mb: float = DISK_MB,
    ) -> None:
        self.relighter, self.readers, self.folder = relighter, readers, folder.resolve()
        self.max_megapixels, self.preview_side, self.kept = max_megapixels, preview, kept
        self.files = Files(self.folder, disk_mb)
        self._ready: OrderedDict[Picture, Ready] = OrderedDict()
        # one picture at a time, whoever asks: memory is that of one, and torch has all cores
        self._one = threading.Lock()

    def open(self, photo: Path) -> Picture:
        """Take a photograph in, without depth.

        Raises:
            InputError: If it cannot be read or is too large.
        """
        return self._taken(Picture(photo))

    def with_depth(self, picture: Picture, depth: Path | None, nearer: bool = False) -> Picture:
        """The same photograph with the depth of a file, or, of None, flat.

        Raises:
            InputError: If the file cannot be read or is of another picture.
        """
        return self._taken(Picture(picture.photo, depth, nearer and depth is not None))

    def with_estimate(self, picture: Picture) -> Picture:
        """The same photograph with a depth that is estimated from it.

        Raises:
            InputError: If that is not possible here.
        """
        if self.readers.estimate is None:
            raise InputError(NO_ESTIMATE)
        with self._named(picture.photo), self._one:
            pixels = _within(self._photo(picture.photo).pixels, ESTIMATED_SIDE)
            depth = self.readers.estimate(pixels)
        path = self.files.new(picture.photo.stem, "depth", ".npy")
        np.save(path, depth)
        return self._taken(Picture(picture.photo, path, estimated=True))

    def ready(self, picture: Picture) -> Ready:
        """The preview, from what is kept or read again.

        Raises:
            InputError: As `open` and `with_depth`.
        """
        with self._named(*_paths(picture)), self._one:
            return self._prepare(picture)

    def preview(self, picture: Picture, wanted: Wanted) -> tuple[Preview, Preview]:
        """The preview before and after.

        Raises:
            InputError: If the photograph or the guide cannot be read.
        """
        before, after = self._pair(picture, wanted)
        self.files.expect(before.nbytes + after.nbytes)  # to be shown, they are written, in fewer bytes
        return before, after

    def full(self, picture: Picture, wanted: Wanted) -> Path:
        """The photograph at its own size and bit depth under another light, as a PNG.

        Raises:
            InputError: As `preview`.
        """
        with self._named(*_paths(picture), wanted.guide), self._one:
            photo = self._photo(picture.photo)
            size = photo.pixels.shape[:2]
            prepared = self.relighter.prepare(photo.pixels, self._depth(picture, size))
            path = self.files.new(picture.photo.stem, wanted.name, ".png")
            self.readers.write_photo(path, replace(photo, pixels=self._relit(prepared, wanted)))
        self.files.tidy()
        return path

    def turn(self, picture: Picture, light: Light, progress: Callable[[int], None] = lambda done: None) -> Path:
        """One turn of the light around the preview, as an animated WebP.

        Args:
            picture: The photograph.
            light: The light; its azimuth is where the turn begins.
            progress: Called with the number of frames that are done.

        Raises:
            InputError: As `preview`.
        """
        frames = []
        for index in range(FRAMES):
            turned = replace(light, azimuth=light.azimuth + 360 * index / FRAMES)
            # each frame takes its place in the line, so that others' hands on the light do not wait for the whole turn
            frames.append(self._pair(picture, Wanted(turned))[1])
            progress(index + 1)
        path = self.files.new(picture.photo.stem, "turn", ".webp")
        self.readers.write_turn(path, frames)
        self.files.tidy()
        return path

    def light_of(self, guide: Path) -> Light:
        """The light of a guide image, as it is read.

        Raises:
            InputError: If the image cannot be read or is too dark.
        """
        try:
            with self._named(guide), self._one:
                return self.relighter.read(self._guide(guide))
        finally:
            self.files.tidy()

    def guide_picture(self, guide: Path) -> Preview:
        """A guide image, small enough to be shown.

        Raises:
            InputError: If it cannot be read.
        """
        with self._named(guide), self._one:
            small = self._guide(guide)
        self.files.expect(small.nbytes)
        return small

    def _taken(self, picture: Picture) -> Picture:
        try:
            self.ready(picture)
        finally:
            # an upload that is refused takes room as well
            self.files.tidy()
        return picture

    def _pair(self, picture: Picture, wanted: Wanted) -> tuple[Preview, Preview]:
        """The preview before and after."""
        with self._named(*_paths(picture), wanted.guide), self._one:
            prepared = self._prepare(picture).prepared
            before, after = prepared.image, self._relit(prepared, wanted)
            return before.astype(np.uint8, copy=False), after.astype(np.uint8, copy=False)

    def _prepare(self, picture: Picture) -> Ready:
        known = self._ready.get(picture)
        if known is None:
            # room first, so that there are never more than `kept`
            while len(self._ready) >= self.kept:
                self._ready.popitem(last=False)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                photo = self._photo(picture.photo)
                depth = self._depth(picture, photo.pixels.shape[:2])
            notes = tuple(dict.fromkeys(_renamed(str(warning.message), *_paths(picture)) for warning in caught))
            small = self._small(photo.pixels, picture.photo)
            seen = None if depth is None else depth_picture(_within(depth, self.preview_side, cv2.INTER_NEAREST))
            known = Ready(self.relighter.prepare(small, depth), seen, notes)
            self._ready[picture] = known
        else:
            # what is looked at for long must not go before what was looked at once
            for path in filter(None, _paths(picture)):
                self.files.used(path)
        self._ready.move_to_end(picture)
        return known

    def _relit(self, prepared: Prepared, wanted: Wanted) -> Pixels:
        if wanted.guide is None:
            return prepared.relight(wanted.light, wanted.strength)
        return prepared.relight_by(self._guide(wanted.guide), None, wanted.strength)

    def _guide(self, path: Path) -> Preview:
        return self._small(self._photo(path).pixels, path)

    def _small(self, pixels: Pixels, path: Path) -> Preview:
        """For the screen: few pixels, of 8 bits."""
        height, width = pixels.shape[:2]
        if min(size_within((height, width), self.preview_side)) < SMALLEST <= min(height, width):
            raise InputError(
                f"{path}: is {height} x {width} (height x width), too narrow for its preview; expected a longer side of at most "
                f"{self.preview_side // SMALLEST} times the shorter: cut a part out of it"
            )
        small: Pixels = _within(pixels, self.preview_side)
        return np.round(small / (1 if small.dtype == np.uint8 else 257)).astype(np.uint8)

    def _photo(self, path: Path) -> Any:
        if not self.files.used(path):
            raise InputError(f"{path}: is no longer here; expected a recent upload: choose the photograph again")
        self._check_size(path, known=True)
        return self.readers.read_photo(path)

    def _depth(self, picture: Picture, size: tuple[int, ...]) -> Depth | None:
        if picture.depth is None:
            return None
        if not self.files.used(picture.depth):
            raise InputError(f"{picture.depth}: is no longer here; expected a recent upload: give the depth again")
        if picture.estimated:
            estimate: Depth = np.load(picture.depth, allow_pickle=False)
            return estimate
        self._check_size(picture.depth, known=False)
        return self.readers.read_depth(picture.depth, (size[0], size[1]), picture.nearer)

    def _check_size(self, path: Path, known: bool) -> None:
        """Refuse by its header, before anything is decoded, what is no image or too large a one.

        Args:
            path: The file.
            known: Whether it must be an image; the arrays that depth may come as are left to their reader.
        """
        limit = f"expected at most {self.max_megapixels:g} megapixels: make it smaller"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path) as image:
                    megapixels = image.width * image.height / 1e6
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise InputError(f"{path}: has far too many pixels; {limit}") from error
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            if known:
                raise InputError(f"{path}: is not an image that can be read; expected a PNG or JPEG: choose another") from error
            return
        if megapixels > self.max_megapixels:
            raise InputError(f"{path}: has {megapixels:.1f} megapixels; {limit}")

    @contextmanager
    def _named(self, *paths: Path | None) -> Iterator[None]:
        """Names files in errors as the visitor knows them, not by where they lie here."""
        try:
            yield
        except InputError as error:
            raise InputError(_renamed(str(error), *paths)) from error


NO_ESTIMATE = (
    "Depth cannot be estimated here. Whoever starts the demo can make it possible: pip install 'ltnet_pl[photo]', then "
    "python -m ltnet_pl demo --depth_model MODEL"
)


NEARER = "In this file, larger numbers are nearer"
"""The box that a visitor ticks for a file of inverse depth."""

SAID = {"give --inverse_depth": f'tick "{NEARER}"', "leave out --inverse_depth": f'do not tick "{NEARER}"'}
"""What the readers tell people on the command line, as the page says it."""


def depth_picture(depth: Depth) -> Preview:
    """A depth as a grey picture: near is bright, and background, which has none, is black."""
    near = np.zeros_like(depth)
    inside = depth > 0
    near[inside] = 1 / depth[inside]
    if not inside.any():
        return near.astype(np.uint8)
    low, high = np.percentile(near[inside], [1, 99])
    grey = np.clip((near - low) / max(high - low, 1e-6 * high), 0, 1)
    return np.where(inside, np.round(35 + 220 * grey), 0).astype(np.uint8)


def _paths(picture: Picture) -> tuple[Path, Path | None]:
    return picture.photo, picture.depth


def _renamed(text: str, *paths: Path | None) -> str:
    """What a reader says, in words that the page has: a file's name without its place, and the box for a flag."""
    for path in filter(None, paths):
        text = text.replace(str(path), path.name)
    for flag, box in SAID.items():
        text = text.replace(flag, box)
    return text


def _within(array: Any, side: int, how: int = cv2.INTER_AREA) -> Any:
    height, width = size_within(array.shape[:2], side, least=8)
    if (height, width) == array.shape[:2]:
        return array
    return cv2.resize(array, (width, height), interpolation=how)
