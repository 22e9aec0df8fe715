"""What the data modules share: the batch contract, checks before training, and the loaders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch.utils.data import Sampler

from ltnet_pl import InputError
from ltnet_pl.augment import Augment, AugmentSettings
from ltnet_pl.data.cached import FrameCache
from ltnet_pl.data.datasets import Batch, Draw, PairDataset, TrainingDataset, Truth, no_depth
from ltnet_pl.data.frames import Frames, fitted_size
from ltnet_pl.data.loader import Collate, Loader, floats, outlive_stops
from ltnet_pl.data.sampler import EpochSampler, Share
from ltnet_pl.vidit import Pair, View, read_scene

# a checkpoint keeps these settings, and torch refuses to load classes that it does not know
torch.serialization.add_safe_globals([AugmentSettings])

Split = Literal["val", "test", "identity"]


class RelightDataModule(pl.LightningDataModule, ABC):
    """What the data modules share: splits by scene, the loaders, and the batch.

    **The batch.** ``input``, ``target``, ``guide`` ``(B, 3, H, W)``: RGB float32 in [0, 1], display-encoded; ``depth``,
    ``guide_depth`` ``(B, 1, H, W)``: float32, planar z up to one positive scale per image, 0 = background; ``frame_depth``
    ``(B, 1, h, w)``: the whole frame's depth of the input, low resolution, same scale as ``depth``; ``input_light``,
    ``target_light`` ``(B, 2)``: azimuth in degrees and kelvin (``(B, 4)`` with elevation and ambient share where a user asks for
    more), NaN where unknown; ``crop``, ``guide_crop`` ``(B, 4)``: top, left, height, width as fractions of the frame
    (``0, 0, 1, 1`` for a whole frame); ``chance`` ``(B, 2)``, in training: uniform in [0, 1), for what a network leaves out of
    input and guide at random; ``camera`` ``(B, 2)``: vertical field of view and pitch in degrees, ``rig`` ``(B, 2)``:
    radius and height, both NaN where unknown; ``name``: list of str. A missing guide depth is zeros. A batch without ground truth
    lacks ``target``; one without a guide lacks ``guide``, ``guide_depth``, ``guide_crop``. The size of the whole frame in pixels
    follows from the crop: ``frame_height = H / crop_height``.

    A training sample is a function of the seed and its number alone, whatever the number of workers; validation and test show
    whole frames, unchanged. User mistakes raise `ltnet_pl.InputError` in `setup`, before the first batch, unless they hide
    inside a file that is read later.

    Args:
        root: Folder of the set, split by scene. Needed unless only `val_root` or `test_root` is evaluated.
        batch_size: Samples per batch, over all processes: a step is the same step on one device and on eight.
        size: Resize all frames so that the shorter side has this many pixels; null keeps the files' size.
        crop: Side in pixels of the square windows that training sees; null trains on whole frames.
        frame_size: Longer side in pixels of the whole frame's low-resolution depth.
        val_scenes: Number of scenes of `root` kept for validation (before the test scenes, sorted by name).
        test_scenes: Number of scenes of `root` kept for test (the last ones).
        val_root: Folder of a separate validation set, in place of `val_scenes`.
        val_target_root: Folder of its ground truth, where that lies apart.
        test_root: Folder of a separate test set, in place of `test_scenes`.
        test_target_root: Folder of its ground truth, where that lies apart.
        samples_per_epoch: Training samples per epoch over all processes; null: see the data module.
        augment: Random changes of training samples.
        test_split: The list that `test` runs on: test, val, or identity (asks for the light that is there already).
        num_workers: Processes that read and augment; 0 does it in the training process.
        cache_mb: Memory for decoded frames per reading process, in MB; 0 decodes anew each time. Frames of a cache need none.
        cache: Folder that `cache` made of `root`, or a list of such folders, for instance also of `val_root`; frames of sets
            without one are decoded from their files. The cache must be of this `size`.
        seed: Seed of the training samples.
    """

    guide_depth_dropout = 0.0

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 8,
        size: int | None = None,
        crop: int | None = None,
        frame_size: int = 96,
        val_scenes: int = 0,
        test_scenes: int = 0,
        val_root: str | None = None,
        val_target_root: str | None = None,
        test_root: str | None = None,
        test_target_root: str | None = None,
        samples_per_epoch: int | None = None,
        augment: AugmentSettings = AugmentSettings(),
        test_split: Split = "test",
        num_workers: int = 0,
        cache_mb: int = 512,
        seed: int = 0,
        cache: str | list[str] | None = None,
    ) -> None:
        super().__init__()
        # the whole config is logged by RunConfig; a logger cannot take frozen dataclasses
        self.save_hyperparameters(logger=False)
        least = {"batch_size": (batch_size, 1), "size": (size, 8), "crop": (crop, 8), "frame_size": (frame_size, 8)}
        least |= {"samples_per_epoch": (samples_per_epoch, 1), "num_workers": (num_workers, 0), "cache_mb": (cache_mb, 0)}
        least |= {"seed": (seed, 0)}
        for flag, (value, low) in least.items():
            if value is not None and value < low:
                raise InputError(f"--data.{flag} is {value}; expected {low} or more: raise it")
        for split, count in (("val", val_scenes), ("test", test_scenes)):
            own, targets = (val_root, val_target_root) if split == "val" else (test_root, test_target_root)
            if own is not None and count:
                raise InputError(
                    f"--data.{split}_root {own} and --data.{split}_scenes {count} are both given; expected one of them: "
                    f"set --data.{split}_scenes 0"
                )
            if own is None and targets is not None:
                raise InputError(f"--data.{split}_target_root {targets} is given without --data.{split}_root; give both")
        self.root, self.batch_size, self.size, self.crop, self.frame_size = root, batch_size, size, crop, frame_size
        self.val_scenes, self.test_scenes, self.samples_per_epoch = val_scenes, test_scenes, samples_per_epoch
        self.folders = {"val": (val_root, val_target_root), "test": (test_root, test_target_root)}
        self.augment, self.test_split, self.num_workers, self.seed = augment, test_split, num_workers, seed
        self.cache, self.cache_mb = [] if cache is None else [cache] if isinstance(cache, str) else cache, cache_mb
        self.frames = Frames(size, cache_mb)
        self.datasets: dict[str, TrainingDataset | PairDataset] = {}

    @abstractmethod
    def training_pairs(self) -> tuple[Draw, int, list[View]]:
        """What draws the training pairs, the default number of samples per epoch, and one view of each scene in use."""

    @abstractmethod
    def listed_pairs(self, split: Split) -> list[Pair]:
        """The fixed pairs of a split, empty where it has none."""

    def setup(self, stage: str | None = None) -> None:
        """Find the files and choose the pairs of a stage.

        Args:
            stage: ``fit``, ``validate``, ``test``; None for all.

        Raises:
            InputError: If the set lacks what the stage needs, or a cache is of another set or size, or stale.
        """
        world = self._processes()[1]
        if self.batch_size % world:
            raise InputError(
                f"--data.batch_size {self.batch_size} is shared by {world} processes; expected a multiple of {world}: choose "
                f"{self.batch_size // world * world or world} or {(self.batch_size // world + 1) * world}"
            )
        if self.cache and not self.frames.caches:
            folders = [self.root, *(folder for both in self.folders.values() for folder in both)]
            roots = [Path(folder) for folder in folders if folder is not None] or [self.required_root()]
            self.frames = Frames(self.size, self.cache_mb, [FrameCache(Path(folder), self.size, roots) for folder in self.cache])
        if stage in (None, "fit") and "train" not in self.datasets:
            draw, length, views = self.training_pairs()
            for view in views:
                if view.depth is None:
                    raise no_depth(view)
            self._check(views, self.crop)
            augment = Augment(self.augment, self.crop, self.frame_size)
            truth = self._truth(self.root, views)
            length = self.samples_per_epoch or length
            self.datasets["train"] = TrainingDataset(
                draw, length, self.frames, augment, truth, self.seed, self.guide_depth_dropout
            )
        if stage in (None, "fit", "validate"):
            self._setup_list("val", needed=stage == "validate")
        if stage in (None, "test"):
            self._setup_list(self.test_split, needed=stage == "test")

    def _setup_list(self, split: Split, needed: bool) -> None:
        if split in self.datasets:
            return
        pairs = self.listed_pairs(split)
        if not pairs:
            if needed:
                where = "test" if split == "identity" else split
                raise InputError(f"there is nothing to run {split} on; set --data.{where}_scenes or --data.{where}_root")
            return
        views = [view for pair in pairs for view in (pair.input, pair.guide) if view is not None]
        self._check(views)
        for pair in pairs:
            if pair.input.depth is None:
                raise no_depth(pair.input)
        own = self.folders["test" if split == "identity" else split][0]
        truth = self._truth(own or self.root, [pair.input for pair in pairs])
        self.datasets[split] = PairDataset(pairs, self.frames, self.frame_size, truth)

    def _check(self, views: Sequence[View], crop: int | None = None) -> None:
        """One size for all frames, and windows no larger than frames; from headers, one image per scene.

        The other files of a scene are held against each other as they are read, by `load`.
        """
        sizes: dict[str, tuple[tuple[int, int], View]] = {}
        for view in views:
            if view.scene not in sizes:
                sizes[view.scene] = (fitted_size(self.frames.original(view.image), self.size), view)
        (first, view), *others = sizes.values()
        for other, odd in others:
            if other != first:
                raise InputError(
                    f"{odd.image}: is {other[0]} x {other[1]} (height x width{' after --data.size' if self.size else ''}), but "
                    f"{view.image} is {first[0]} x {first[1]}; expected one size for all frames of a set, which are stacked into "
                    "batches: move the scene into a set of its own"
                )
        if crop is not None and crop > min(first):
            raise InputError(
                f"--data.crop {crop} is larger than the frames of {view.image.parent}, {first[0]} x {first[1]} (height x width"
                f"{' after --data.size' if self.size else ''}); expected at most {min(first)}: lower --data.crop or raise "
                "--data.size"
            )

    def _truth(self, root: str | None, views: Sequence[View]) -> Truth:
        """Camera and rig of every scene."""
        if root is None:
            return {}
        return {scene: read_scene(Path(root), scene) for scene in sorted({view.scene for view in views})}

    def required_root(self) -> Path:
        """`root` as a path.

        Raises:
            InputError: If it is not given.
        """
        if self.root is None:
            raise InputError("--data.root is not given; expected the folder of a set, such as one that render wrote")
        return Path(self.root)

    def train_dataloader(self) -> Loader:
        """Training batches, in an order given by seed and epoch."""
        dataset = self.datasets["train"]
        return self._loader(dataset, EpochSampler(len(dataset), self.seed, *self._processes()))

    def val_dataloader(self) -> Loader | list[Any]:
        """Validation batches, of this process's share of the list; an empty list where no validation scenes were asked for."""
        dataset, (rank, world) = self.datasets.get("val"), self._processes()
        if dataset is None:
            return []
        if world == 1 or not isinstance(dataset, PairDataset):
            return self._loader(dataset)
        if len(dataset) < world:
            raise InputError(
                f"--trainer.devices gives {world} processes, but there are {len(dataset)} pairs to validate on; expected one or "
                "more for each: raise --data.val_scenes or --data.pairs_per_scene, or use fewer devices"
            )
        dataset.padded = True
        return self._loader(dataset, Share(len(dataset), rank, world))

    def _processes(self) -> tuple[int, int]:
        """Rank of this process, and how many there are."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def test_dataloader(self) -> Loader:
        """Batches of the list that `test_split` names."""
        return self._loader(self.datasets[self.test_split])

    def _loader(self, dataset: TrainingDataset | PairDataset, sampler: Sampler[int] | None = None) -> Loader:
        loader = Loader(
            dataset,
            batch_size=self.batch_size // self._processes()[1],
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=Collate(),
            worker_init_fn=outlive_stops,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            # a generator of its own: making an iterator then takes nothing from torch's global one, which a resumed run
            # would have used differently
            generator=torch.Generator().manual_seed(self.seed),
        )
        # a GPU gets 8-bit images, a quarter of the bytes
        loader.raw = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return loader

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Images as floats, made on the device."""
        return floats(batch)
