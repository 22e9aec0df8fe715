"""A light that turns in small steps: are directions between the trained eight as good, and does anything flicker?"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ltnet_pl import InputError
from ltnet_pl.bench.sheets import Line, Tile, pixels_of, sheet, side_of, write_within
from ltnet_pl.bench.trained import Method, load_methods, pairs_of, provenance
from ltnet_pl.bootstrap import difference
from ltnet_pl.data.datasets import Batch, PairDataset
from ltnet_pl.data.loader import together
from ltnet_pl.files import atomic_write
from ltnet_pl.light import DIRECTIONS, direction_of
from ltnet_pl.metrics import psnr
from ltnet_pl.report.tables import MISSING, markdown, psnr_text

Array = NDArray[np.float64]

STEPS = 24
"""Azimuths of a full turn, N first."""

DEGREES = 360 // STEPS
"""From one azimuth to the next."""

EVERY = STEPS // len(DIRECTIONS)
"""Every so many of them is one of the eight directions that networks are trained on."""

TRAINED = np.arange(STEPS) % EVERY == 0
"""Which of the azimuths are trained on."""

TEMPERATURE = 4500
"""Colour temperature of all lights in kelvin."""

BATCH = 8
"""Images relit at once."""

ACROSS = 12
"""Pictures side by side on the strip."""


@dataclass(frozen=True)
class Scores:
    """What one method scored on all scenes.

    Args:
        psnr: PSNR in dB, ``(scenes, inputs, 24)``; NaN where nothing is scored: the input's own azimuth, and lights that do not
            stand free.
        flicker: Mean absolute second difference of the results along the azimuth, ``(scenes, inputs)``.
        truth: The same of the renderer's pictures, ``(scenes,)``.
    """

    psnr: Array
    flicker: Array
    truth: Array


def turning(
    runs: list[str],
    data: str = "data/benchmark",
    out: str = "runs/benchmark/turning",
    results: str = "experiments/benchmark/results/turning.json",
    scenes: int = 20,
    inputs: list[int] | None = None,
    strip: str | None = None,
    error: bool = False,
    test_scenes: int = 20,
) -> None:
    """Turn the light around test scenes in steps of 15 degrees; score directions between the trained eight, and flicker.

    Networks take the light from its label. Truth is rendered at 4500 K in the exposure of the set and kept in its folder
    ``turning``, once (half a minute per scene of 128 pixels on one core). Each result is compared with it from every input, at
    all azimuths but the input's own. The strip (``strip.jpg``, below 300 KiB) shows one scene.

    The plain means over trained and in-between directions compare unlike changes of light, since the latter include small ones.
    So each in-between direction is also held against its two trained neighbours, weighted by nearness; those next to the input
    have none and are left out.

    Args:
        runs: Run folders or checkpoints; NAME=PATH names a row.
        data: Folder of a rendered set.
        out: Folder of the strip.
        results: JSON file of the numbers.
        scenes: Number of test scenes to score, the first of them.
        inputs: Azimuths in degrees that the input is lit from, multiples of 45; by default 180 and 0. The strip shows the first.
        strip: The scene of the strip, such as Image108; by default the first that is scored.
        error: Show the absolute errors on the strip too, times four.
        test_scenes: Number of test scenes, the last of the set.

    Raises:
        InputError: If a run has no checkpoint, the set was not rendered or cannot be rendered again, or a flag is out of range.
    """
    flags = {name: value for name, value in locals().items() if name != "runs"}
    from ltnet_pl.render.turning import turn

    if not 1 <= scenes <= test_scenes:
        raise InputError(f"--scenes {scenes}; expected 1 to {test_scenes}, the number of --test_scenes: change one of them")
    starts = _starts([180, 0] if inputs is None else inputs)
    dataset = pairs_of(data, test_scenes)
    names = sorted({pair.input.scene for pair in dataset.pairs})[:scenes]
    shown = names[0] if strip is None else strip
    if shown not in names:
        raise InputError(f"--strip {shown}: is not scored; expected one of {', '.join(names)}: choose one of them")
    methods = load_methods(runs)
    collected: dict[str, list[Scores]] = {method.name: [] for method in methods}
    blocked = {}
    for place, name in enumerate(names, start=1):
        print(f"{name}, {place} of {len(names)}", file=sys.stderr)
        found = turn(Path(data), name, range(0, 360, DEGREES), TEMPERATURE)
        truth = torch.from_numpy(found.images).permute(0, 3, 1, 2).float() / 255
        if not found.free.all():
            blocked[name] = [DEGREES * int(k) for k in np.flatnonzero(~found.free)]
        sample = _sample(dataset, name)
        turned = {}
        for method in methods:
            relit = [relight(method, sample, truth, start) for start in starts]
            collected[method.name].append(score(relit, truth, starts, found.free))
            turned[method.name] = relit[0]
        if name == shown:
            _write_strip(Path(out) / "strip.jpg", name, truth, turned, starts[0], error)
    rows = {name: summary(_joined(parts)) for name, parts in collected.items()}
    content = {
        **provenance(turning, runs, flags),
        "scenes": names,
        "temperature": TEMPERATURE,
        "input_azimuths": [DEGREES * start for start in starts],
        "blocked": blocked,
        "rows": rows,
    }
    _save(Path(results), content)
    print(tables(content))
    print(f"wrote {Path(out) / 'strip.jpg'} and {results}")


def _starts(inputs: Sequence[int]) -> list[int]:
    """The inputs as places on the turn."""
    if not inputs or len(set(inputs)) < len(inputs) or any(azimuth not in range(0, 360, 45) for azimuth in inputs):
        raise InputError(
            f"--inputs {list(inputs)}; expected azimuths that the set has, each once: choose some of {list(range(0, 360, 45))}"
        )
    return [azimuth // DEGREES for azimuth in inputs]


def _sample(dataset: PairDataset, scene: str) -> Batch:
    """A batch of one with what a scene's batches share: depth, crop, camera, rig."""
    index = next(i for i, pair in enumerate(dataset.pairs) if pair.input.scene == scene)
    batch = together([dataset[index]])
    assert isinstance(batch, dict)  # a single sample raises its own mistakes
    return batch


def relight(method: Method, sample: Batch, truth: Tensor, start: int) -> Tensor:
    """A scene relit to every azimuth from one input.

    Args:
        method: The method.
        sample: A batch of one of the scene; its images and lights are replaced, and it has no guide.
        truth: The scene's pictures ``(24, 3, H, W)``.
        start: Which of them is the input.

    Returns:
        Results ``(24, 3, H, W)``, 8-bit rounded.
    """
    kept = ("depth", "frame_depth", "crop", "camera", "rig")
    parts = []
    for first in range(0, STEPS, BATCH):
        places = torch.arange(first, min(first + BATCH, STEPS))
        count = len(places)
        lights = torch.stack([places * float(DEGREES), torch.full((count,), float(TEMPERATURE))], dim=1)
        batch: Batch = {key: sample[key].expand(count, *sample[key].shape[1:]) for key in kept}
        batch |= {"input": truth[start].expand(count, -1, -1, -1), "name": sample["name"] * count, "target_light": lights}
        batch["input_light"] = lights.new_tensor([start * float(DEGREES), TEMPERATURE]).expand(count, 2)
        parts.append(method.relit(batch))
    return torch.cat(parts)


def score(relit: Sequence[Tensor], truth: Tensor, starts: Sequence[int], free: NDArray[np.bool_]) -> Scores:
    """Scores of one method on one scene.

    Args:
        relit: Results ``(24, 3, H, W)`` for each input.
        truth: The renderer's pictures ``(24, 3, H, W)``.
        starts: Place of each input on the turn.
        free: Whether the light stands free, ``(24,)``.
    """
    values = np.stack([psnr(images, truth).numpy().astype(np.float64) for images in relit])
    values[:, ~free] = np.nan
    values[np.arange(len(starts)), list(starts)] = np.nan
    flickers = np.array([flicker(images.numpy(), free) for images in relit])
    return Scores(values[None], flickers[None], np.array([flicker(truth.numpy(), free)]))


def flicker(images: NDArray[Any], free: NDArray[np.bool_]) -> float:
    """Mean absolute second difference along a closed sequence, ``mean |x[k-1] - 2 x[k] + x[k+1]|``.

    Args:
        images: ``(K, ...)``; the first follows the last.
        free: Which images count, ``(K,)``; a difference counts where all three do.

    Example:
        >>> flicker(np.array([0.0, 1.0, 0.0, 1.0]), np.ones(4, bool))
        2.0
    """
    bend = np.abs(np.roll(images, 1, axis=0) - 2 * images + np.roll(images, -1, axis=0))
    return float(bend[free & np.roll(free, 1) & np.roll(free, -1)].mean(dtype=np.float64))


def _joined(parts: Sequence[Scores]) -> Scores:
    return Scores(*(np.concatenate([getattr(part, key) for part in parts]) for key in ("psnr", "flicker", "truth")))


def summary(scores: Scores) -> dict[str, Any]:
    """Means over scenes of each scene's means.

    Returns:
        ``trained`` and ``between``: PSNR in dB; ``loss``: trained minus between; ``neighbour_loss``: what an in-between direction
        loses against its trained neighbours; ``by_azimuth``: PSNR by azimuth; ``flicker``, ``flicker_truth`` and their
        ``flicker_ratio``. The losses are mean, low and high end of the 95 % interval of a bootstrap over scenes. None for what
        cannot be told.
    """
    trained, between = _mean(scores.psnr[..., TRAINED]), _mean(scores.psnr[..., ~TRAINED])
    losses = {"loss": trained - between, "neighbour_loss": _mean(neighbours(scores.psnr) - scores.psnr)}
    found: dict[str, Any] = {"trained": _overall(trained), "between": _overall(between)}
    for key, values in losses.items():
        known = values[~np.isnan(values)].tolist()
        found[key] = [round(value, 4) for value in difference([known], [[0.0] * len(known)])] if known else None
    found["by_azimuth"] = {str(DEGREES * k): _overall(scores.psnr[..., k]) for k in range(STEPS)}
    found["flicker"], found["flicker_truth"] = float(scores.flicker.mean()), float(scores.truth.mean())
    found["flicker_ratio"] = found["flicker"] / found["flicker_truth"]
    return found


def neighbours(values: Array) -> Array:
    """At each in-between azimuth the values of its two trained neighbours, weighted by nearness.

    Args:
        values: ``(..., 24)``.

    Returns:
        The same shape; NaN at trained azimuths, and where a neighbour is NaN.

    Example:
        >>> neighbours(np.arange(24.0))[[0, 1, 2, 3, 4]].round(6).tolist()
        [nan, 1.0, 2.0, nan, 4.0]
    """
    before = np.arange(STEPS) // EVERY * EVERY
    share = (np.arange(STEPS) - before) / EVERY
    mixed = (1 - share) * values[..., before] + share * values[..., (before + EVERY) % STEPS]
    return np.where(TRAINED, np.nan, mixed)


def _mean(values: Array) -> Array:
    """Mean over all axes but the first of what is not NaN; NaN where nothing is left."""
    flat = values.reshape(len(values), -1)
    known = ~np.isnan(flat)
    counts = known.sum(axis=1)
    return np.where(counts > 0, np.where(known, flat, 0.0).sum(axis=1) / np.maximum(counts, 1), np.nan)


def _overall(values: Array) -> float | None:
    """Mean of all that is not NaN; None, which JSON has, where nothing is left."""
    mean = float(_mean(values.reshape(1, -1))[0])
    return None if np.isnan(mean) else round(mean, 4)


def tables(content: Mapping[str, Any]) -> str:
    """The numbers as Markdown: one table of means, one by azimuth, and where they come from.

    Args:
        content: What is stored as JSON.
    """
    rows: Mapping[str, Mapping[str, Any]] = content["rows"]
    starts = " and ".join(f"{azimuth}°" for azimuth in content["input_azimuths"])
    title = (
        f"Light turning in steps of {DEGREES}°, {content['temperature']} K, label light, {len(content['scenes'])} scenes, inputs "
        f"lit from {starts}. PSNR in dB, losses with 95 % intervals of a bootstrap over scenes."
    )
    head = ["row", "trained eight", "in between", "loss", "loss against trained neighbours", "flicker, ratio to the truth's"]
    body = [
        [
            name,
            *(_cell(row[key]) for key in ("trained", "between")),
            *(_interval(row[key]) for key in ("loss", "neighbour_loss")),
            _cell(row["flicker_ratio"]),
        ]
        for name, row in rows.items()
    ]
    turn = [[_azimuth(k), *(_cell(row["by_azimuth"][str(DEGREES * k)]) for row in rows.values())] for k in range(STEPS)]
    parts = [title, markdown(head, body), markdown(["PSNR (dB) by azimuth", *rows], turn)]
    left = sum(map(len, content["blocked"].values()))
    if left:
        parts.append(f"Left out: {left} azimuths of {len(content['blocked'])} scenes, where the light does not stand free.")
    parts.append(f"`{content['command']}`; {content['machine']}; {content['date']}")
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _azimuth(place: int) -> str:
    """An azimuth's text: trained ones have their name too."""
    return f"{DEGREES * place}° {direction_of(float(DEGREES * place))}" if TRAINED[place] else f"{DEGREES * place}°"


def _cell(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}"


def _interval(values: Sequence[float] | None) -> str:
    if values is None:
        return MISSING
    mean, low, high = values
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _save(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def _write_strip(path: Path, scene: str, truth: Tensor, turned: Mapping[str, Tensor], start: int, error: bool) -> None:
    """Write the strip of one scene: half a turn to a block, in it a line for the truth and one or two for each method."""
    lines = []
    for first in range(0, STEPS, ACROSS):
        places = range(first, first + ACROSS)
        captions = [f"{_azimuth(k)}, input" if k == start else _azimuth(k) for k in places]
        here = slice(first, first + ACROSS)
        lines.append(Line(f"{scene}: rendered", _tiles(truth[here], captions)))
        for name, images in turned.items():
            values = [f"{psnr_text(value)} dB" for value in psnr(images[here], truth[here]).tolist()]
            lines.append(Line(f"{name}, from the input at {_azimuth(start)}", _tiles(images[here], values)))
            if error:
                apart = (images[here] - truth[here]).abs().mean(dim=1, keepdim=True) * 4
                lines.append(Line(f"{name}: absolute error, times four", _tiles(apart, [""] * ACROSS)))

    def draw(side: int) -> Image.Image:
        return sheet([], lines, side)

    write_within(path, draw, side_of(lines[0].tiles[0].pixels))


def _tiles(images: Tensor, captions: Sequence[str]) -> list[Tile]:
    return [Tile(pixels_of(image), caption) for image, caption in zip(images, captions, strict=True)]
