"""What a photograph costs: time of the first light and of each further one, and memory, by its size."""

from __future__ import annotations

import multiprocessing
import statistics
import time

import numpy as np

from ltnet_pl import InputError
from ltnet_pl.bench.plan import parse_numbers
from ltnet_pl.bench.speed import resident, synthetic_batch
from ltnet_pl.bench.threads import torch_threads
from ltnet_pl.bench.trained import provenance
from ltnet_pl.light import Light
from ltnet_pl.relight import Relighter
from ltnet_pl.report.tables import MISSING, markdown

Found = tuple[float, float, float, float | None]


def photos(sizes: str = "512,1024,2048,4096", threads: str = "1,2", repeats: int = 5, weights: str | None = None) -> None:
    """Relight one synthetic photograph of each size, each in a process of its own, and print medians.

    *Prepared* is what no light changes; the *first light* is without it; a *further light* finds the geometry of images up to 4
    megapixels kept. The memory is what the process grew by, photograph, depth and result included.

    Args:
        sizes: Sides of square photographs in pixels, separated by commas.
        threads: Numbers of torch's threads, separated by commas.
        repeats: Timed turns, after one that is not.
        weights: Run folder, checkpoint or safetensors file; by default the weights in the package.

    Raises:
        InputError: If a number is too small, or there are no weights.
    """
    sides, counts = parse_numbers("--sizes", sizes), parse_numbers("--threads", threads)
    for flag, value, least in (("sizes", min(sides), 64), ("threads", min(counts), 1), ("repeats", repeats, 1)):
        if value < least:
            raise InputError(f"--{flag} {value}: expected {least} or more; give another")
    body = []
    for side in sides:
        for count in counts:
            # spawned: a fork would start as large as this process is
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                prepared, first, further, grown = pool.apply(measured, (side, count, repeats, weights))
            share = f"{further / (prepared + first):.0%}"
            memory = MISSING if grown is None else f"{grown:.0f}"
            body.append([str(side), str(count), f"{prepared:.0f}", f"{first:.0f}", f"{further:.0f}", share, memory])
    origin = provenance(photos, [], {"sizes": sizes, "threads": threads, "repeats": repeats, "weights": weights})
    print(f"`{origin['command']}` ({origin['machine']}; {origin['date']})\n")
    head = ["side (px)", "threads", "prepared (ms)", "first light (ms)", "further light (ms)", "of the whole", "memory (MiB)"]
    print(markdown(head, body))


def measured(side: int, threads: int, repeats: int, weights: str | None) -> Found:
    """Medians of milliseconds for preparing, the first light and a further one; and the memory that it took, in MiB."""
    with torch_threads(threads):
        relighter = Relighter.pretrained() if weights is None else Relighter.from_run(weights)
        small = np.zeros((64, 64, 3), np.uint8) + np.arange(64, dtype=np.uint8)[:, None, None]
        # what a first call loads and compiles is not the photograph's
        relighter.prepare(small, np.ones((64, 64), np.float32)).relight(Light(90, 4000))
        start = resident(reset=True)
        batch = synthetic_batch(side)
        image = (batch.pop("input")[0].permute(1, 2, 0) * 255).round().byte().numpy()
        depth = batch.pop("depth")[0, 0].numpy()
        del batch
        peak = 0
        times: list[tuple[float, float, float]] = []
        for turn in range(repeats + 1):
            marks = [time.perf_counter()]
            resident(reset=True)
            prepared = relighter.prepare(image, depth)
            marks.append(time.perf_counter())
            for azimuth in (100, 200):
                prepared.relight(Light(azimuth, 3500))
                marks.append(time.perf_counter())
            peak = max(peak, resident() or 0)
            del prepared
            if turn:
                times.append((marks[1] - marks[0], marks[2] - marks[1], marks[3] - marks[2]))
    first, second, third = (1000 * statistics.median(column) for column in zip(*times, strict=True))
    return first, second, third, None if start is None else (peak - start) / 1024
