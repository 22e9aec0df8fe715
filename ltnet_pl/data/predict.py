"""A user's own images, to be relit to a wanted light or to a guide's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray

from ltnet_pl import InputError
from ltnet_pl.augment import Sample, Window, resized_depth, with_frame_depth
from ltnet_pl.data.datasets import UNKNOWN, Batch, SampleDataset, to_tensors
from ltnet_pl.data.frames import Frames, fitted_size, resize_image
from ltnet_pl.data.loader import Collate, Loader
from ltnet_pl.light import DIRECTIONS, TEMPERATURES, Light, azimuth_of, clamp_temperature
from ltnet_pl.vidit import image_size

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Images that are looked for."""


def light_in_name(stem: str) -> tuple[float, float]:
    """Azimuth and kelvin that a file name ends in, NaN for what it does not say.

    Example:
        >>> light_in_name("Image000_4500_E"), light_in_name("A_NE")
        ((90.0, 4500.0), (45.0, nan))
    """
    azimuth, kelvin = UNKNOWN
    parts = stem.split("_")[1:]
    if parts and parts[-1] in DIRECTIONS:
        azimuth = azimuth_of(parts.pop())
    if parts and parts[-1] in map(str, TEMPERATURES):
        kelvin = float(parts[-1])
    return azimuth, kelvin


class PredictDataset(SampleDataset):
    """Images in turn, each under each wanted light or with the one guide.

    Args:
        images: Files and their depths; None for a missing depth, which becomes zeros.
        lights: Wanted lights; empty with a guide.
        guide: Guide image and its depth; None with lights.
        frames: Where frames come from.
        frame_size: Longer side of ``frame_depth`` in pixels.
    """

    def __init__(
        self,
        images: Sequence[tuple[Path, Path | None]],
        lights: Sequence[Light],
        guide: tuple[Path, Path | None] | None,
        frames: Frames,
        frame_size: int,
    ) -> None:
        wanted: Sequence[Light | None] = lights or [None]
        self.tasks = [(image, depth, light) for image, depth in images for light in wanted]
        self.guide, self.frames, self.frame_size = guide, frames, frame_size
        self.several = len(lights) > 1
        # a light tensor has one width for the whole batch
        self.plain = all(light.elevation is None and light.ambient == 0 for light in lights)

    def __len__(self) -> int:
        """Number of results."""
        return len(self.tasks)

    def __getitem__(self, index: int) -> Batch:
        """One task as tensors, without target."""
        path, depth_path, light = self.tasks[index]
        image = self.frames.image(path)
        size = (image.shape[0], image.shape[1])
        depth = np.zeros(size, np.float32) if depth_path is None else self.frames.depth(depth_path, path)
        wanted: tuple[float, ...] = UNKNOWN
        name = path.stem
        if light is not None:
            wanted = light.row()[:2] if self.plain else light.row()
            name += f"_{light.temperature:g}K_{light.azimuth:g}deg" if self.several else ""
        sample = Sample(name, image, depth, light_in_name(path.stem), wanted)
        if self.guide is not None:
            sample = self._with_guide(sample, *self.guide)
        return to_tensors(with_frame_depth(sample, self.frame_size))

    def _with_guide(self, sample: Sample, path: Path, depth_path: Path | None) -> Sample:
        """The guide scaled to cover the input's frame, and the middle of it: a guide of another shape is cut, not distorted."""
        image = self.frames.image(path)
        depth = None if depth_path is None else self.frames.depth(depth_path, path)
        height, width = sample.input.shape[:2]
        scale = max(height / image.shape[0], width / image.shape[1])
        # rounding may not leave the frame a pixel short
        size = (max(height, round(image.shape[0] * scale)), max(width, round(image.shape[1] * scale)))
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        here = (slice(top, top + height), slice(left, left + width))
        window: Window = (top / size[0], left / size[1], height / size[0], width / size[1])
        guide: NDArray[np.uint8] = resize_image(image, size)[here]
        guide_depth = None if depth is None else resized_depth(depth, size)[here]
        return replace(sample, guide=guide, guide_depth=guide_depth, guide_crop=window)


class PredictDataModule(pl.LightningDataModule):
    """A folder of images with depth, to be relit to a wanted light or to a guide's. Batches as in `RelightDataModule`, no target.

    The wanted light is either `azimuth` with `temperature`, or the light of a `guide` image. With several azimuths or
    temperatures every image is relit to every combination, and the light becomes part of the result's name; else the name is the
    file's stem.
    Where a file's name says its light (``Image000_4500_E.png``, ``A_NE.png``), a network with ``light: label`` uses it, and the
    readings that are written can be compared with it.

    Args:
        folder: Folder of the images (PNG, JPEG).
        depth: Folder of the depths, ``<stem>.npy`` each (or ``<scene>.npy`` for ``<scene>_4500_E.png``); null: the images'
            folder.
        azimuth: Wanted compass bearing in degrees, one or several: 0 behind the scene, 90 on the image's right.
        temperature: Wanted colour temperature in kelvin, one or several; brought into 2500-6500 with a warning.
        elevation: Wanted angle above the horizon in degrees; null: as the network assumes.
        ambient: Share of light from everywhere, 0 to 1.
        guide: Image whose light is wanted.
        guide_depth: Depth of the guide; null: ``<stem>.npy`` beside it where there is one, else none.
        size: Resize all frames so that the shorter side has this many pixels; null keeps the files' size.
        frame_size: Longer side in pixels of the whole frame's low-resolution depth.
        allow_missing_depth: Relight images without depth too; their depth is zeros.
        batch_size: Images per batch; more than 1 needs images of one size.
        num_workers: Processes that read; 0 reads in the main process.

    Raises:
        InputError: If both or neither of light and guide are given, or a value is outside its range.
    """

    def __init__(
        self,
        folder: str,
        depth: str | None = None,
        azimuth: float | list[float] | None = None,
        temperature: float | list[float] | None = None,
        elevation: float | None = None,
        ambient: float = 0.0,
        guide: str | None = None,
        guide_depth: str | None = None,
        size: int | None = None,
        frame_size: int = 96,
        allow_missing_depth: bool = False,
        batch_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        for flag, value, low in (("size", size, 8), ("frame_size", frame_size, 8), ("batch_size", batch_size, 1)):
            if value is not None and value < low:
                raise InputError(f"--data.{flag} is {value}; expected {low} or more: raise it")
        asked = azimuth is not None or temperature is not None or elevation is not None or ambient != 0
        if asked and guide is not None:
            raise InputError(
                f"--data.guide {guide} and a light (--data.azimuth, temperature, elevation or ambient) are both given; expected "
                "one of them: a guide's light is read from the guide"
            )
        if guide is None and not (_listed(azimuth) and _listed(temperature)):
            raise InputError(
                "no wanted light: expected --data.azimuth (degrees) with --data.temperature (kelvin), or --data.guide (an "
                f"image); found azimuth {azimuth} and temperature {temperature}"
            )
        if guide is None and guide_depth is not None:
            raise InputError(f"--data.guide_depth {guide_depth} is given without --data.guide; give both")
        self.folder, self.depth, self.guide, self.guide_depth = folder, depth, guide, guide_depth
        self.size, self.frame_size, self.allow_missing_depth = size, frame_size, allow_missing_depth
        self.batch_size, self.num_workers = batch_size, num_workers
        self.lights = [_light(a, t, elevation, ambient) for a in _listed(azimuth) for t in _listed(temperature)]

    def setup(self, stage: str | None = None) -> None:
        """Find the images and their depths.

        Raises:
            InputError: If there is no image, a depth is missing, or sizes differ where a batch needs them equal.
        """
        images = [(path, self._depth_of(path)) for path in self._images()]
        sizes = {fitted_size(image_size(path), self.size): path for path, _ in reversed(images)}
        if self.batch_size > 1 and len(sizes) > 1:
            (one, first), (two, second), *_ = sizes.items()
            raise InputError(
                f"--data.batch_size is {self.batch_size}, but {first} is {one[0]} x {one[1]} and {second} {two[0]} x {two[1]} "
                "(height x width); expected one size: set --data.batch_size 1"
            )
        guide = None
        if self.guide is not None:
            path = Path(self.guide)
            image_size(path)  # a wrong file is named now, not in the middle of the work
            beside = path.with_suffix(".npy")
            guide = (path, Path(self.guide_depth) if self.guide_depth else beside if beside.is_file() else None)
        # the guide alone is read again and again
        frames = Frames(self.size, cache_mb=64)
        self.dataset = PredictDataset(images, self.lights, guide, frames, self.frame_size)

    def _images(self) -> list[Path]:
        """The images of the folder, sorted."""
        folder = Path(self.folder)
        if not folder.is_dir():
            raise InputError(
                f"--data.folder {folder} is not a folder; expected one that holds images ({', '.join(SUFFIXES)}): correct it"
            )
        images = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if not images:
            raise InputError(
                f"--data.folder {folder} holds no images; expected files that end in {', '.join(SUFFIXES)}: name another folder"
            )
        stems: dict[str, Path] = {}
        for path in images:
            if path.stem in stems:
                raise InputError(f"{path} and {stems[path.stem].name} have one stem, which names the result; rename one of them")
            stems[path.stem] = path
        return images

    def _depth_of(self, image: Path) -> Path | None:
        """The depth that belongs to an image."""
        folder = image.parent if self.depth is None else Path(self.depth)
        # VIDIT has one depth for all lights of a scene
        candidates = [folder / f"{stem}.npy" for stem in dict.fromkeys((image.stem, scene_of(image.stem)))]
        for path in candidates:
            if path.is_file():
                return path
        if not self.allow_missing_depth:
            raise InputError(
                f"{image}: has no depth; expected {' or '.join(map(str, candidates))}: write it with "
                "ltnet_pl.vidit.write_depth, give its folder as --data.depth, or set --data.allow_missing_depth true to relight "
                "without"
            )
        return None

    def predict_dataloader(self) -> Loader:
        """Batches without target, in the order of file names."""
        return Loader(self.dataset, batch_size=self.batch_size, num_workers=self.num_workers, collate_fn=Collate())


def scene_of(stem: str) -> str:
    """A file's stem without the light that it ends in.

    Example:
        >>> scene_of("Image000_4500_E"), scene_of("my_photo")
        ('Image000', 'my_photo')
    """
    parts = stem.split("_")
    azimuth, kelvin = light_in_name(stem)
    return "_".join(parts[: len(parts) - (not math.isnan(azimuth)) - (not math.isnan(kelvin))])


def _listed(values: float | list[float] | None) -> list[float]:
    if values is None:
        return []
    return values if isinstance(values, list) else [values]


def _light(azimuth: float, temperature: float, elevation: float | None, ambient: float) -> Light:
    """A light out of flags."""
    try:
        return clamp_temperature(Light(azimuth, temperature, elevation, ambient))
    except ValueError as error:
        raise InputError(f"--data.azimuth, temperature, elevation, ambient: {error}; correct the flag") from error
