"""What a report draws: training curves, contact sheets of single cases, and how the lights were read."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.light import DIRECTIONS, TEMPERATURES, direction_of, mired
from ltnet_pl.report.runs import Row, number, read_csv

CASES = 3
"""How many of the best, of the median and of the worst cases a contact sheet shows."""

POINTS = 400
"""Most points of one drawn curve; longer ones are averaged over equal stretches."""

# middle tones that stand out on white and on black
COLOURS = ("#3b82d6", "#e0762f", "#2fa36b", "#cc4b78", "#8b66d6", "#a08a1f", "#25a0aa", "#8a8a8a")
# matplotlib's and CSS's words for the same lines
DASHES = ("solid", "dashed", "dotted")
# matplotlib draws in this ink, which then becomes the text colour of the page, light or dark
_INK = "#010203"


# ---- training curves


class Curve(NamedTuple):
    """Values of one logged quantity, by step or by epoch."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]


def training_curves(run: Path) -> dict[str, Curve]:
    """The curves that a run logged: ``train/loss`` by step and ``val/psnr`` by epoch, each only where there are values.

    `test` and `validate` leave logs beside the training's, which are passed over. A run that was resumed has one log for each
    part. Where a later part begins, what earlier parts logged from that step on is dropped: those steps were lost with the
    interruption and done again.

    Args:
        run: The run folder.

    Raises:
        InputError: If a log is not a CSV file of numbers with a column ``step``.
    """
    logs = sorted(run.glob("logs/version_*/metrics.csv"), key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))
    lines: list[dict[str, str]] = []
    for log in logs:
        part = read_csv(log, ["step"], "remove the file or train again")
        # `test` and `validate` log too, at step 0, and are no part of the training
        start = min((number(line["step"]) for line in part), default=0)
        if any(line.get("train/loss") for line in part) or start > 0:
            lines = [line for line in lines if number(line["step"]) < start] + part
    curves = {}
    for key, axis in (("train/loss", "step"), ("val/psnr", "epoch")):
        points = [(number(line.get(axis, "")), number(line.get(key, ""))) for line in lines]
        kept = [point for point in points if all(map(math.isfinite, point))]
        if kept:
            curves[key] = Curve(*np.array(kept).T)
    return curves


def draw_curves(runs: Mapping[str, Mapping[str, Curve]]) -> list[str]:
    """Curves of several runs overlaid, as SVG elements that take their ink from the page around them.

    Args:
        runs: Curves as `training_curves` returns them, by the name of the run.

    Returns:
        One SVG text for each quantity that any run logged, without a legend: `line_of` says which run is which.
    """
    every = (("train/loss", "Training loss", "step"), ("val/psnr", "Validation PSNR (dB)", "epoch"))
    return [
        _draw({i: curves[key] for i, curves in enumerate(runs.values()) if key in curves}, title, axis, log=key == "train/loss")
        for key, title, axis in every
        if any(key in curves for curves in runs.values())
    ]


def _draw(curves: Mapping[int, Curve], title: str, axis: str, log: bool) -> str:
    """One quantity of several runs, by the number of the run, as SVG."""
    with matplotlib.rc_context(
        {
            # text stays text, in a font that the page has, and the same curves give the same bytes
            "svg.fonttype": "none",
            "svg.hashsalt": "ltnet",
            "font.family": "sans-serif",
            "font.size": 10,
            "text.color": _INK,
            "axes.edgecolor": _INK,
            "axes.labelcolor": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
        }
    ):
        figure = Figure(figsize=(5.6, 3.2), layout="constrained")
        axes = figure.subplots()
        for index, curve in curves.items():
            x, y = thin(curve)
            colour, dash = line_of(index)
            axes.plot(x, y, color=colour, linestyle=dash, linewidth=1.4, marker="o" if len(x) < 2 else "", markersize=4)
        axes.set(title=title, xlabel=axis)
        axes.grid(color=_INK, alpha=0.12)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if log and all((curve.y > 0).all() for curve in curves.values()):
            axes.set_yscale("log")
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")


def line_of(index: int) -> tuple[str, str]:
    """Colour and dash of the run of that number: a colour comes again only with another dash, up to 24 runs."""
    return COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]


def thin(curve: Curve) -> Curve:
    """A curve of at most `POINTS` points, each the mean over an equal stretch of the original."""
    if len(curve.x) <= POINTS:
        return curve
    return Curve(*(np.array([part.mean() for part in np.array_split(values, POINTS)]) for values in curve))


# ---- single cases


@dataclass(frozen=True)
class Case:
    """One tested pair of a contact sheet.

    Args:
        name: The pair.
        psnr: Its PSNR in dB.
        image: Its panel as a ``data:`` address; None where the panel file is missing.
        size: Width and height of the panel in pixels.
    """

    name: str
    psnr: float
    image: str | None
    size: tuple[int, int]


def contact_sheet(row: Row) -> dict[str, list[Case]]:
    """The best, median and worst pairs of a row by PSNR, no pair twice; empty where nothing was scored.

    Raises:
        InputError: If a panel is not a PNG image.
    """
    scored = [(number(image.get("psnr", "")), image["name"]) for image in row.images]
    order = sorted((pair for pair in scored if not math.isnan(pair[0])), key=lambda pair: (-pair[0], pair[1]))
    best = order[:CASES]
    worst = order[len(best) :][-CASES:]
    middle = order[len(best) : len(order) - len(worst)]
    first = max(0, (len(middle) - CASES) // 2)
    groups = {"best": best, "median": middle[first : first + CASES], "worst": worst}
    return {title: [_case(row.folder, name, psnr) for psnr, name in group] for title, group in groups.items() if group}


def _case(folder: Path, name: str, psnr: float) -> Case:
    path = folder / "panels" / f"{name}.png"
    if not path.is_file():
        return Case(name, psnr, None, (0, 0))
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            image.load()
            size = image.size
    except (OSError, SyntaxError) as error:  # Pillow raises either for broken data
        raise InputError(f"{path} is broken ({error}); expected a PNG image: run `python -m ltnet_pl test` again") from error
    return Case(name, psnr, f"data:image/png;base64,{base64.b64encode(content).decode()}", size)


# ---- light readings


@dataclass(frozen=True)
class Confusion:
    """How often a class was read as which.

    Args:
        title: What was read.
        names: The classes.
        counts: Pairs, ``(classes, classes)``: true class by class read.
    """

    title: str
    names: tuple[str, ...]
    counts: NDArray[np.int64]

    @property
    def total(self) -> int:
        """Pairs that were read."""
        return int(self.counts.sum())

    @property
    def correct(self) -> int:
        """Pairs that were read right."""
        return int(np.trace(self.counts))

    @property
    def shares(self) -> NDArray[np.float64]:
        """Counts as shares of their true class, 0 where it has none."""
        totals = np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        shares: NDArray[np.float64] = self.counts / totals
        return shares


def confusions(row: Row) -> list[Confusion]:
    """Directions and temperatures that the row read off guides and inputs against the true ones; only those with any pair.

    A value counts as the nearest of VIDIT's eight directions or five temperatures, the latter in mired. A guide's true light is
    the target's.
    """
    found = []
    quantities: tuple[tuple[str, Iterable[str], Callable[[float], int]], ...] = (
        ("azimuth", DIRECTIONS, _direction_index),
        ("temperature", (f"{kelvin} K" for kelvin in TEMPERATURES), _temperature_index),
    )
    for quantity, classes, index in quantities:
        names = tuple(classes)
        for which, truth in (("guide", "target"), ("input", "input")):
            counts = np.zeros((len(names), len(names)), dtype=np.int64)
            for image in row.images:
                true, read = number(image[f"{truth}_{quantity}"]), number(image[f"{which}_{quantity}_pred"])
                if math.isfinite(true) and math.isfinite(read):
                    counts[index(true), index(read)] += 1
            if counts.any():
                title = f"{'Direction' if quantity == 'azimuth' else 'Temperature'} of the {which}"
                found.append(Confusion(title, names, counts))
    return found


def _direction_index(azimuth: float) -> int:
    return DIRECTIONS.index(direction_of(azimuth))


def _temperature_index(kelvin: float) -> int:
    distances = [abs(mired(float(known)) - mired(kelvin)) for known in TEMPERATURES]
    return distances.index(min(distances))
