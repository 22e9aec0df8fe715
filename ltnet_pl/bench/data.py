"""`bench data`: training samples per second, from image files and from a cache, and the memory of a process that reads them."""

from __future__ import annotations

import datetime
import multiprocessing
import re
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ltnet_pl import InputError
from ltnet_pl.bench.hashes import machine
from ltnet_pl.bench.plan import parse_numbers
from ltnet_pl.bench.threads import torch_threads
from ltnet_pl.cache import cache as make_cache
from ltnet_pl.data import AnyToAnyDataModule, AugmentSettings
from ltnet_pl.data.datasets import Batch, TrainingDataset, load, to_tensors
from ltnet_pl.data.loader import Collate, Loader
from ltnet_pl.report.tables import MISSING, markdown

SOURCES = ("files", "cache")
FLOATS = "floats"
"""The cache again, with images as floats, which training without a GPU makes in its own process."""


def data(
    data: str,
    crop: int = 512,
    size: int | None = None,
    workers: str = "1,2",
    samples: int = 64,
    batch: int = 4,
    repeats: int = 3,
    cache: str | None = None,
) -> None:
    """Read training samples from image files and from a cache, with and without augmentation; print samples per second.

    The sources take turns, so that a machine that slows down slows both; the median counts. Nothing that was decoded is
    remembered (cache_mb 0), as in a set that does not fit into memory. The files themselves are in the system's file cache.
    Images arrive as 8-bit numbers, of which a GPU makes floats; the last column is for training without one. The column before
    it compares with the least that a sample needs: its windows cut out of the mapped frames and turned into tensors.

    Args:
        data: Folder of an any-to-any set.
        crop: Side of the windows in pixels.
        size: Shorter side to which frames are resized; by default the files' size.
        workers: Numbers of reading processes, separated by commas.
        samples: Timed samples of each measurement.
        batch: Samples per batch.
        repeats: Measurements of each kind.
        cache: A cache of the set at that size; by default one is made, and removed at the end.

    Raises:
        InputError: If an argument is out of range, or the set does not serve.
    """
    counts = parse_numbers("--workers", workers)
    least = {
        "crop": (crop, 8),
        "samples": (samples, 1),
        "batch": (batch, 1),
        "repeats": (repeats, 1),
        "workers": (min(counts), 1),
    }
    for flag, (value, low) in least.items():
        if value < low:
            raise InputError(f"--{flag} {value}: expected {low} or more; give another")
    with TemporaryDirectory(prefix="bench-data-") as folder:
        place = cache or f"{folder}/cache"
        if cache is None:
            make_cache(data, place, size=size)
        rates: dict[tuple[str, int, str], list[float]] = {}
        augments = {"off": AugmentSettings.off(), "on": AugmentSettings()}
        chosen = {
            (kind, source): (data, place if source == "cache" else None, crop, size, settings, f"{folder}/pairs")
            for kind, settings in augments.items()
            for source in SOURCES
        }
        sets = {key: _dataset(*values) for key, values in chosen.items()}
        for _ in range(repeats):
            for kind in augments:
                for count in counts:
                    for source in (*SOURCES, FLOATS):
                        read = sets[kind, source if source in SOURCES else "cache"]
                        rates.setdefault((kind, count, source), []).append(_rate(read, count, samples, batch, source == FLOATS))
        bare = _bare_rate(sets["off", "cache"], samples, crop)
        memory = {key: [_memory_apart(values, count, batch) for count in counts] for key, values in chosen.items()}
    found = {key: statistics.median(values) for key, values in rates.items()}
    given = {"crop": (crop, 512), "size": (size, None), "workers": (workers, "1,2"), "samples": (samples, 64)}
    given |= {"batch": (batch, 4), "repeats": (repeats, 3), "cache": (cache, None)}
    said = " ".join(f"--{flag} {value}" for flag, (value, default) in given.items() if value != default)
    frames = "x".join(map(str, _frame_size(sets["off", "files"])))
    print(f"\n`python -m ltnet_pl bench data {data}{' ' * bool(said)}{said}`", end=" ")
    print(f"({machine()}; {datetime.date.today().isoformat()}; frames of {frames}, windows of {crop})\n")
    head = [
        "augmentation",
        "workers",
        "files (samples/s)",
        "cache (samples/s)",
        "ratio",
        "of what bare windows reach",
        "cache, floats (samples/s)",
    ]
    body = []
    for kind in augments:
        for count in counts:
            files, mapped, made = (found[kind, count, source] for source in (*SOURCES, FLOATS))
            share = mapped / (bare * count)
            body.append(
                [kind, str(count), f"{files:.1f}", f"{mapped:.1f}", f"{mapped / files:.1f}", f"{share:.0%}", f"{made:.1f}"]
            )
    print(markdown(head, body))
    head = ["memory of a worker of its own, above one of an empty set (MB)", *(f"{count} workers" for count in counts)]
    body = [
        [f"{source}, augmentation {kind}", *(MISSING if found is None else f"{found:.0f}" for found in row)]
        for (kind, source), row in memory.items()
    ]
    print(markdown(head, body))


def _dataset(root: str, cache: str | None, crop: int, size: int | None, augment: AugmentSettings, pairs: str) -> TrainingDataset:
    module = AnyToAnyDataModule(
        root=root, cache=cache, crop=crop, size=size, augment=augment, pairs=pairs, cache_mb=0, samples_per_epoch=1_000_000
    )
    module.setup("fit")
    dataset = module.datasets["train"]
    assert isinstance(dataset, TrainingDataset)
    return dataset


def _frame_size(dataset: TrainingDataset) -> tuple[int, int]:
    pair = dataset.draw(0, np.random.default_rng(0))
    height, width, _ = dataset.frames.image(pair.input.image).shape
    return height, width


def _warm(dataset: Dataset[Batch], workers: int, batch: int, floats: bool = False) -> Iterator[Batch]:
    """Batches of workers that are at work, images as floats or as 8-bit numbers."""
    loader = Loader(dataset, batch_size=batch, sampler=range(1_000_000), num_workers=workers, collate_fn=Collate())
    loader.raw = not floats
    batches = iter(loader)
    # what is on its way when a measurement begins: two batches of each worker
    for _ in range(2 * workers):
        next(batches)
    return batches


def _rate(dataset: TrainingDataset, workers: int, samples: int, batch: int, floats: bool) -> float:
    """Samples per second once the workers are warm."""
    batches, count = _warm(dataset, workers, batch, floats), -(-samples // batch)
    begin = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * batch / (time.perf_counter() - begin)


def _bare_rate(dataset: TrainingDataset, samples: int, crop: int) -> float:
    """Samples per second of one process that only cuts windows out of mapped frames and makes tensors of them."""
    rng, window = np.random.default_rng(0), np.s_[:crop, :crop]
    # as a worker has
    with torch_threads(1):
        begin = time.perf_counter()
        for number in range(samples):
            sample = load(dataset.draw(number, rng), dataset.frames)
            parts = {name: getattr(sample, name) for name in ("input", "target", "guide", "depth", "guide_depth")}
            cut = {name: part[window] for name, part in parts.items() if part is not None}
            to_tensors(replace(sample, **cut, frame_depth=cut["depth"][:96, :96]))
        return samples / (time.perf_counter() - begin)


class _Empty(Dataset[Batch]):
    """Holds nothing."""

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> Batch:
        return {"nothing": torch.zeros(1)}


def _memory_apart(chosen: tuple[Any, ...], workers: int, batch: int) -> float | None:
    """What `memory_above_empty` finds for such a data set, in a process that has read nothing before.

    A worker shares the memory of the process that starts it, and has for its own what it touches of that.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_memory_of, chosen, workers, batch).result()


def _memory_of(chosen: tuple[Any, ...], workers: int, batch: int) -> float | None:
    """The same in this process; settings travel to another one, a data set need not."""
    return memory_above_empty(_dataset(*chosen), workers, batch)


def memory_above_empty(dataset: Dataset[Batch], workers: int, batch: int, batches: int = 16) -> float | None:
    """Private memory (USS) in MB of the largest worker above that of one that reads an empty set; None where it is not told.

    Args:
        dataset: What the workers read.
        workers: How many.
        batch: Samples per batch.
        batches: Batches that are read before the memory is looked at.
    """
    found = []
    for of in (_Empty(), dataset):
        running = _warm(of, workers, batch)
        for _ in range(batches):
            next(running)
        found.append(_private_memory())
        del running
    empty, full = found
    return None if empty is None or full is None else full - empty


def _private_memory() -> float | None:
    """Memory in MB that the largest child has for itself alone (USS), as Linux counts it; None on other systems."""
    found = []
    for child in multiprocessing.active_children():
        try:
            text = Path(f"/proc/{child.pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            continue
        found.append(sum(map(int, re.findall(r"^Private_\w+:\s+(\d+) kB$", text, re.MULTILINE))) / 1000)
    return max(found, default=None)
