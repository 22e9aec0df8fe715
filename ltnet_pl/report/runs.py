"""Run folders read back: one `Row` for each tested row, every file checked before a number of it is shown."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltnet_pl import InputError
from ltnet_pl.files import CONFIG, LIGHT_COLUMNS, SUMMARY

_SUMMARY = {"row": str, "net": str, "pairs": int, "parameters": int, "metrics": dict, "labels": dict, "absent": dict}


@dataclass(frozen=True)
class Row:
    """One tested row of a run.

    Args:
        name: Its name in the table, different from every other row's.
        folder: The folder ``test/<row>`` that it was read from.
        summary: What ``summary.json`` holds.
        images: The rows of ``per_image.csv``, cells as text.
    """

    name: str
    folder: Path
    summary: dict[str, Any]
    images: list[dict[str, str]]

    @property
    def run(self) -> Path:
        """The run folder."""
        folder = self.folder.resolve()
        return folder.parent if folder.name == "predict" else folder.parent.parent

    @property
    def pairs(self) -> frozenset[str]:
        """Names of the pairs that it was tested on."""
        return frozenset(image["name"] for image in self.images)

    def value(self, key: str) -> float:
        """A metric; NaN where the row lacks it."""
        value = self.summary["metrics"].get(key)
        return math.nan if value is None else float(value)


def read_rows(runs: Sequence[str | Path]) -> list[Row]:
    """Read the tested rows of run folders, or single rows, in the order given and each once.

    Raises:
        InputError: If a folder is missing or holds no test results, or if a file in it is broken.
    """
    if not runs:
        raise InputError("no run was given; expected at least one run folder: python -m ltnet_pl report RUN...")
    folders: dict[Path, Path] = {}
    for run in map(Path, runs):
        if not run.is_dir():
            raise InputError(f"run folder {run} does not exist; expected a folder that `fit` or `test` wrote, such as runs/NAME")
        # a run has a summary of its own, beside its configuration
        own = (run / SUMMARY).is_file() and not (run / CONFIG).is_file()
        found = [run] if own else sorted(path.parent for path in run.glob(f"test/*/{SUMMARY}"))
        if not found:
            raise InputError(
                f"{run} holds no test results (no test/*/summary.json); run `python -m ltnet_pl test --config {run}/config.yaml "
                f"--ckpt_path {run}/checkpoints/best.ckpt` first"
            )
        for folder in found:
            folders.setdefault(folder.resolve(), folder)
    read = [(folder, *_read_row(folder)) for folder in folders.values()]
    names = [summary["row"] for _, summary, _ in read]
    labels = [
        name if names.count(name) == 1 else f"{name} ({folder.resolve().parent.parent.name})"
        for name, (folder, _, _) in zip(names, read, strict=True)
    ]
    return [
        Row(label if labels.count(label) == 1 else f"{name} ({folder})", folder, summary, images)
        for label, name, (folder, summary, images) in zip(labels, names, read, strict=True)
    ]


def _read_row(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Summary and per-image rows of one test folder, checked."""
    path = folder / "summary.json"
    again = "run `python -m ltnet_pl test` again"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSON and UTF-8 errors both
        raise InputError(f"{path} is broken ({error}); expected the JSON that `test` writes: {again}") from error
    for key, kind in _SUMMARY.items():
        if not isinstance(summary, dict) or not isinstance(summary.get(key), kind):
            found = f"{summary[key]!r}" if isinstance(summary, dict) and key in summary else "nothing"
            raise InputError(f"{path} is broken: found {found} for {key!r}, expected a value of type {kind.__name__}; {again}")
    for key, value in summary["metrics"].items():
        if value is not None and not isinstance(value, int | float):
            raise InputError(f"{path} is broken: found {value!r} for the metric {key!r}, expected a number; {again}")
    for field in ("labels", "absent"):
        for key, value in summary[field].items():
            if not isinstance(value, str):
                raise InputError(f"{path} is broken: found {value!r} for {key!r} of {field!r}, expected text; {again}")
    path = folder / "per_image.csv"
    scored = ["psnr"] if "psnr" in summary["metrics"] else []
    images = read_csv(path, ["name", *scored, *LIGHT_COLUMNS], again)
    if len(images) != summary["pairs"]:
        raise InputError(f"{path} has {len(images)} rows, but summary.json beside it says {summary['pairs']} pairs; {again}")
    return summary, images


def read_csv(path: Path, needed: Sequence[str], remedy: str) -> list[dict[str, str]]:
    """Rows of a CSV file whose cells, but for those of a column ``name``, are numbers or empty.

    Args:
        path: The file.
        needed: Columns that it must have.
        remedy: What the user can do where it is wrong.

    Raises:
        InputError: If the file is missing or broken, lacks a column or holds something else than a number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, restval="")
            rows = list(reader)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; {remedy}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is broken ({error}); expected CSV: {remedy}") from error
    for column in needed:
        if column not in (reader.fieldnames or ()):
            raise InputError(f"{path} has no column {column!r}; expected {', '.join(needed)}: {remedy}")
    for line, row in enumerate(rows, 2):
        for column, cell in row.items():
            if column != "name" and not _is_number(cell):
                raise InputError(f"{path}, line {line}: found {cell!r} for {column!r}, expected a number; {remedy}")
    return rows


def _is_number(cell: str | list[str]) -> bool:
    """Whether a cell is empty or a number; cells beyond the header arrive as a list."""
    try:
        float(cell or "nan")  # type: ignore[arg-type]  # a list is what the except is for
    except (ValueError, TypeError):
        return False
    return True


def number(cell: str) -> float:
    """A cell's number, NaN where it is empty."""
    return float(cell or "nan")
