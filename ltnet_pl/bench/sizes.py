"""Which working size: the quality of large pictures, and the time they take, by the size that the interaction works at."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ltnet_pl import InputError
from ltnet_pl.bench.plan import parse_numbers
from ltnet_pl.bench.threads import torch_threads
from ltnet_pl.bench.trained import pairs_of, provenance
from ltnet_pl.data.loader import together
from ltnet_pl.light import Light
from ltnet_pl.metrics import psnr, ssim
from ltnet_pl.processes import cores
from ltnet_pl.relight import Relighter
from ltnet_pl.report.tables import markdown


def sizes(
    data: str,
    weights: str | None = None,
    working: str = "96,128,192,256,384,512",
    scenes: int = 3,
    pairs: int = 40,
    threads: int | None = None,
) -> None:
    """Relight test pairs of a rendered set of large pictures, the interaction at one working size after the other.

    Args:
        data: Folder of the set.
        weights: Run folder, checkpoint or safetensors file; by default the weights in the package.
        working: Working sizes in pixels, separated by commas.
        scenes: Test scenes, the last of the set.
        pairs: Pairs that are scored, spread over the stored list.
        threads: Threads of torch; by default one for each core.

    Raises:
        InputError: If a size is no number of 16 or more, or the set is none.
    """
    asked = parse_numbers("--working", working)
    if min(asked) < 16:
        raise InputError(f"--working {working}: {min(asked)} is too small; expected 16 or more each: correct it")
    for flag, value in (("scenes", scenes), ("pairs", pairs)):
        if value < 1:
            raise InputError(f"--{flag} {value}; expected 1 or more: raise it")
    relighter = Relighter.pretrained() if weights is None else Relighter.from_run(weights)
    dataset = pairs_of(data, scenes)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(pairs, len(dataset))).round().astype(int))
    scores: dict[int, list[tuple[float, ...]]] = {size: [] for size in asked}
    with torch_threads(threads or cores()) as count:
        for index in chosen:
            batch: Any = together([dataset[int(index)]])
            image, guide = (_pixels(batch[name]) for name in ("input", "guide"))
            depth, guide_depth = (batch[name][0, 0].numpy() for name in ("depth", "guide_depth"))
            present, wanted = (Light(*batch[name][0].tolist()[:2]) for name in ("input_light", "target_light"))
            for size in asked:
                relighter.working_size = size
                begin = time.perf_counter()
                prepared = relighter.prepare(image, depth, present)
                middle = time.perf_counter()
                label = prepared.relight(wanted)
                end = time.perf_counter()
                read = relighter.prepare(image, depth).relight_by(guide, guide_depth)
                found = [*_scores(label, batch["target"]), _scores(read, batch["target"])[0]]
                scores[size].append((*found, 1000 * (end - begin), 1000 * (end - middle)))
    side = max(batch["input"].shape[-2:])
    origin = provenance(
        sizes, [data], {"weights": weights, "working": working, "scenes": scenes, "pairs": pairs, "threads": threads}
    )
    print(f"`{origin['command']}` ({side} px, {len(chosen)} pairs, {count} threads; {origin['machine']}; {origin['date']})\n")
    head = ["working size", "PSNR, label light", "SSIM", "PSNR, guide", "ms, first light", "of them the light"]
    body = []
    for size, rows in scores.items():
        label, structure, read, *_ = np.mean(rows, axis=0)
        first, light = (statistics.median(row[k] for row in rows) for k in (3, 4))
        body.append([str(size), f"{label:.2f}", f"{structure:.4f}", f"{read:.2f}", f"{first:.0f}", f"{light:.0f}"])
    print(markdown(head, body))


def _pixels(image: torch.Tensor) -> NDArray[np.uint8]:
    """A batch of one image as an array."""
    return (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def _scores(relit: NDArray[Any], target: torch.Tensor) -> tuple[float, float]:
    """PSNR and SSIM."""
    pred = torch.from_numpy(relit).permute(2, 0, 1)[None].float() / 255
    return float(psnr(pred, target)[0]), float(ssim(pred, target)[0])
