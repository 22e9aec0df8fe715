"""The rows as tables: what stands in which column, which value is best, and what a reader must know beside the numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ltnet_pl.files import better
from ltnet_pl.report.runs import Row

MISSING = "–"  # noqa: RUF001 - an en dash is how tables say that there is nothing


class Cell(NamedTuple):
    """One cell of a table: its text, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """A table ready to be set in Markdown, on a terminal or as HTML; the first column holds names."""

    caption: str
    head: list[str]
    rows: list[list[Cell]]


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown: one table of image metrics, one of light readings where there are any, and the notes.

    Args:
        rows: What `read_rows` returned.

    Returns:
        Markdown text that ends with a line break. The best value of a column is bold where at least two rows have one.

    Example:
        >>> from pathlib import Path
        >>> summary = {"metrics": {"psnr": 10.5}, "labels": {"psnr": "PSNR"}, "absent": {}, "parameters": 0}
        >>> print(table([Row("copy", Path("runs/copy/test/copy"), summary, images=[])]))
        | row | PSNR | parameters |
        | --- | ---: | ---: |
        | copy | 10.50 | 0 |
        <BLANKLINE>
    """
    blocks = []
    for grid in grids(rows):
        body = [[f"**{cell.text}**" if cell.best else cell.text for cell in row] for row in grid.rows]
        blocks.append(markdown(grid.head, body).rstrip("\n"))
    blocks += [f"Warning: {line}" for line in warnings(rows)]
    blocks += absences(rows)
    return "\n\n".join(blocks) + "\n"


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table that ends with a line break; the first column holds names, the others numbers."""
    bar = r"\|"  # a bar within a cell would end it
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', bar) for cell in line)} |" for line in lines) + "\n"


CHOOSE: dict[str | None, Callable[[Sequence[float]], float]] = {"max": max, "min": min}
"""What picks the better of several values, by what `ltnet_pl.files.better` says."""


def metric_text(key: str, value: float) -> str:
    """A metric as the field prints it."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    digits = 2 if key.startswith("psnr") else 1 if key.endswith("error") else 3 if key.endswith("accuracy") else 4
    return f"{value:.{digits}f}"


def psnr_text(value: float) -> str:
    """A PSNR in dB as the tables print it."""
    return metric_text("psnr", value)


def _columns(rows: Sequence[Row]) -> dict[str, str]:
    """Keys and titles of all metrics that any row has, in table order."""
    keys: list[str] = []
    for row in rows:
        at = 0
        for key in row.summary["metrics"]:
            if key in keys:
                at = keys.index(key) + 1
            else:  # a metric that earlier rows lack comes after its neighbour, not at the end
                keys.insert(at, key)
                at += 1
    return {key: next((row.summary["labels"][key] for row in rows if key in row.summary["labels"]), key) for key in keys}


def grids(rows: Sequence[Row]) -> list[Grid]:
    """The table of image metrics, and that of light readings where any row reads lights."""
    columns = _columns(rows)
    found = []
    for caption, light in (("Relit images", False), ("Light readings", True)):
        keys = [key for key in columns if key.startswith(("input_", "guide_")) == light]
        shown = [row for row in rows if not light or any(not math.isnan(row.value(key)) for key in keys)]
        if light and not shown:
            continue
        best = {}
        for key in keys:
            values = [value for row in shown if not math.isnan(value := row.value(key))]
            choose = CHOOSE.get(better(key))
            # compared as printed: a difference that the table does not show decides nothing
            best[key] = metric_text(key, choose(values)) if choose and len(values) > 1 else None
        body = []
        for row in shown:
            texts = {key: metric_text(key, row.value(key)) for key in keys}
            body.append([Cell(row.name), *(Cell(text, text == best[key]) for key, text in texts.items())])
            if not light:
                body[-1].append(Cell(f"{row.summary['parameters']:,}"))
        head = ["row", *(columns[key] for key in keys), *([] if light else ["parameters"])]
        found.append(Grid(caption, head, body))
    return found


def warnings(rows: Sequence[Row]) -> list[str]:
    """What makes the numbers of the table incomparable."""
    groups: dict[frozenset[str], list[str]] = {}
    for row in rows:
        groups.setdefault(row.pairs, []).append(row.name)
    if len(groups) < 2:
        return []
    common = len(frozenset.intersection(*groups))
    largest, *others = sorted(groups.items(), key=lambda group: -len(group[1]))
    # the rows that differ are named; the many that agree need no list
    parts = [f"{_names(largest[1], limit=3)} on {len(largest[0])}"] + [
        f"{_names(names, 6)} on {len(pairs)}" for pairs, names in others
    ]
    return [
        f"the rows were tested on different pairs, so their numbers do not compare: {'; '.join(parts)}; common to all: {common}."
    ]


def _names(names: Sequence[str], limit: int) -> str:
    """Names as a list, or their number where there are too many."""
    return ", ".join(names) if len(names) <= limit else f"{len(names)} rows"


def absences(rows: Sequence[Row]) -> list[str]:
    """One line for each reason why columns, or cells of them, are absent."""
    lacking: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        for key, reason in row.summary["absent"].items():
            lacking.setdefault(reason, {}).setdefault(row.summary["labels"].get(key, key.upper()), []).append(row.name)
    lines = []
    for reason, labels in lacking.items():
        names = list(dict.fromkeys(name for of in labels.values() for name in of))
        where = "" if len(names) == len(rows) else f" for {', '.join(names)}"
        lines.append(f"{', '.join(labels)}: absent{where}; {reason}")
    return lines


_KINDS = (
    (r"psnr", "mean over images of each image's PSNR, in dB, on 8-bit images; higher is better."),
    (r"ssim", "mean over images, scikit-image's Gaussian form (sigma 1.5), on 8-bit images; higher is better."),
    (r"lpips_\w+", "distance in the features of the trunk in brackets, v0.1 weights; lower is better. Trunks do not compare."),
    (r"mps_\w+", "(SSIM + 1 - LPIPS) / 2 with the LPIPS of the trunk in brackets; higher is better."),
    (r"psnr_\d+", "PSNR of the pairs whose light turns by that many degrees; higher is better."),
    (r"\w+_accuracy", "share of pairs whose light was read as the right one of the eight directions; higher is better."),
    (r"\w+_angular_error", "mean distance between the true azimuth and the one read, in degrees; lower is better."),
    (r"\w+_mired_error", "median distance between the true colour temperature and the one read, in mired; lower is better."),
)


def explanations(rows: Sequence[Row]) -> list[str]:
    """One line on what each kind of column is."""
    columns = _columns(rows)
    titles = [(", ".join(title for key, title in columns.items() if re.fullmatch(kind, key)), text) for kind, text in _KINDS]
    return [f"{title}: {text}" for title, text in titles if title]
