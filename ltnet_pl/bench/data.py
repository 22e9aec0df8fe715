"""`bench data`: training samples per second, from image files and from a cache, and the memory of a process that reads them."""

from __future__ import annotations

import datetime
import multiprocessing
import re
import statistics
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.utils.data import DataLoader

from ltnet_pl import InputError
from ltnet_pl.bench.hashes import machine
from ltnet_pl.bench.plan import parse_numbers
from ltnet_pl.bench.threads import torch_threads
from ltnet_pl.cache import cache as make_cache
from ltnet_pl.data import AnyToAnyDataModule, AugmentSettings
from ltnet_pl.data.datasets import TrainingDataset, load, to_tensors
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
        memory: dict[tuple[str, int], float] = {}
        sets = {
            (kind, source): _dataset(data, place if source == "cache" else None, crop, size, settings, f"{folder}/pairs")
            for kind, settings in (("off", AugmentSettings.off()), ("on", AugmentSettings()))
            for source in SOURCES
        }
        empty = [_memory_of_workers(_Empty(), count) for count in counts]
        for _ in range(repeats):
            for kind in ("off", "on"):
                for count in counts:
                    for source in (*SOURCES, FLOATS):
                        read = sets[kind, source if source in SOURCES else "cache"]
                        rate, used = _rate(read, count, samples, batch, source == FLOATS)
                        rates.setdefault((kind, count, source), []).append(rate)
                        if used is not None:
                            memory[source, count] = max(memory.get((source, count), 0.0), used)
        bare = _bare_rate(sets["off", "cache"], samples, crop)
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
    for kind in ("off", "on"):
        for count in counts:
            files, mapped, made = (found[kind, count, source] for source in (*SOURCES, FLOATS))
            share = mapped / (bare * count)
            body.append(
                [kind, str(count), f"{files:.1f}", f"{mapped:.1f}", f"{mapped / files:.1f}", f"{share:.0%}", f"{made:.1f}"]
            )
    print(markdown(head, body))
    head = ["memory of a worker of its own, above one of an empty set (MB)", *(f"{count} workers" for count in counts)]
    body = [
        [source, *(_megabytes(memory.get((source, count)), before) for count, before in zip(counts, empty, strict=True))]
        for source in SOURCES
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


def _rate(dataset: TrainingDataset, workers: int, samples: int, batch: int, floats: bool = False) -> tuple[float, float | None]:
    """Samples per second once the workers are warm, and the private memory of the largest of them in MB."""
    # what is on its way when the time begins: two batches of each worker
    ahead = 2 * workers
    loader = Loader(dataset, batch_size=batch, sampler=range(1_000_000), num_workers=workers, collate_fn=Collate())
    loader.raw = not floats
    batches = iter(loader)
    for _ in range(ahead):
        next(batches)
    count = -(-samples // batch)
    begin = time.perf_counter()
    for _ in range(count):
        next(batches)
    seconds = time.perf_counter() - begin
    return count * batch / seconds, _private_memory()


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


class _Empty(torch.utils.data.Dataset[torch.Tensor]):
    """Holds nothing."""

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.zeros(1)


def _memory_of_workers(dataset: torch.utils.data.Dataset[torch.Tensor], workers: int) -> float | None:
    batches = iter(DataLoader(dataset, batch_size=4, num_workers=workers))
    for _ in range(2 * workers):
        next(batches)
    return _private_memory()


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


def _megabytes(value: float | None, before: float | None) -> str:
    return MISSING if value is None or before is None else f"{value - before:.0f}"
