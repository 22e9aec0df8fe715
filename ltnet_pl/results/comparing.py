"""Two rows against each other on the same test scenes."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltnet_pl import InputError
from ltnet_pl.bootstrap import Difference, difference
from ltnet_pl.files import LIGHT_COLUMNS
from ltnet_pl.report.runs import Row, number
from ltnet_pl.report.tables import metric_text
from ltnet_pl.results.collecting import collect
from ltnet_pl.results.frames import expect_columns, said
from ltnet_pl.results.runs import Run

if TYPE_CHECKING:
    import pandas as pd

Choice = str | Mapping[str, Any]
"""A row by name, or runs by what their columns hold."""


@dataclass(frozen=True)
class Comparison:
    """One row minus another, averaged over scenes.

    Args:
        metric: What is compared.
        one: The row.
        other: The row that is taken off it.
        difference: Mean difference, and the ends of its 95 % interval over scenes.
        scenes: How many scenes were averaged over.
        images: How many images these have.
        seeds: Seeds of the runs of either row; None where a run has none.
    """

    metric: str
    one: str
    other: str
    difference: Difference
    scenes: int
    images: int
    seeds: tuple[tuple[int | None, ...], tuple[int | None, ...]]

    @property
    def claimed(self) -> bool:
        """Whether the interval excludes zero."""
        return self.difference.claimed

    def __str__(self) -> str:
        mean, low, high = (("+" if value >= 0 else "") + metric_text(self.metric, value) for value in self.difference)
        one, other = (f"{len(of)} seed{'s' if len(of) > 1 else ''}" for of in self.seeds)
        runs = f"{one} each" if one == other else f"{one} and {other}"
        verdict = "" if self.claimed else "; the interval holds zero, so they are not distinguishable"
        return (
            f"{self.metric}: {self.one} - {self.other} = {mean} [{low}, {high}] "
            f"(95 % interval of a bootstrap over {self.scenes} scenes, {self.images} images; {runs}){verdict}"
        )


def compare(source: str | Path | pd.DataFrame, one: Choice, other: Choice, metric: str = "psnr") -> Comparison:
    """Hold one row against another by a bootstrap that is paired by scene.

    The images of a scene are averaged first, since they resemble each other, then the seeds; the scenes are what is resampled.
    The interval therefore says what other test scenes would change, and nothing about other seeds.

    Args:
        source: A folder of runs, or what `collect` made of one.
        one: A tested row by its name, or a mapping of columns of the frame to values, which chooses runs:
            ``{"model.net.init_args.field": "gain"}``. Each run that has it counts as one seed.
        other: The row to compare with, likewise.
        metric: A column of ``per_image.csv``, such as ``psnr``.

    Raises:
        InputError: If nothing has such a row or metric, if two runs of a row have the same seed, if the rows were tested on
            different images, or if a value is not finite.
    """
    frame = collect(source) if isinstance(source, str | Path) else source
    rows = [(_label(choice), _chosen(frame, choice, flag)) for choice, flag in ((one, "one"), (other, "other"))]
    scored = [[(row.folder, _values(row, metric)) for _, row in found] for _, found in rows]
    first, reference = scored[0][0]
    for folder, values in (pair for found in scored for pair in found):
        if values.keys() != reference.keys():
            raise InputError(
                f"{first} and {folder} were tested on different images ({len(reference)} and {len(values)}, "
                f"{len(reference.keys() & values.keys())} in common); expected the same: test both on the same set and pair list"
            )
    scenes = sorted({scene_of(name) for name in reference})
    lists = []
    for found in scored:
        means = [_by_scene(values) for _, values in found]
        lists.append([[of[scene] for scene in scenes] for of in means])
    (label, runs), (other_label, other_runs) = rows
    seeds = tuple(seed for seed, _ in runs), tuple(seed for seed, _ in other_runs)
    return Comparison(metric, label, other_label, difference(lists[0], lists[1]), len(scenes), len(reference), seeds)


def scene_of(name: str) -> str:
    """The scene of a pair's name: what stands before its light; the mirror image of a scene is the same scene.

    Example:
        >>> scene_of("Image004_2500_N_to_6500_NE"), scene_of("Pair012"), scene_of("Image300_mirror")
        ('Image004', 'Pair012', 'Image300')
    """
    return re.split(r"_\d+_[NSEW]{1,2}(?=_|$)", name, maxsplit=1)[0].removesuffix("_mirror")


def _label(choice: Choice) -> str:
    if isinstance(choice, str):
        return choice
    return ", ".join(f"{key.rpartition('.')[2]} {said(value)}" for key, value in choice.items())


def _chosen(frame: pd.DataFrame, choice: Choice, flag: str) -> list[tuple[int | None, Row]]:
    """Seeds and tested rows of a choice.

    Raises:
        InputError: If there are none, or a seed comes twice.
    """
    part = frame
    if not isinstance(choice, str):
        expect_columns(frame, choice, flag)
        for key, value in choice.items():
            left = part[part[key].isna() if value is None else part[key] == value]
            if left.empty:
                there = ", ".join(dict.fromkeys(said(found) for found in part[key].dropna()))
                raise InputError(f"{flag}: no run has {key} = {said(value)}; there are {there or 'none'}: choose one of these")
            part = left
    if part["folder"].isna().all():
        raise InputError(f"{flag}: the runs lie on a server; expected run folders with test/*/per_image.csv: give their folder")
    found: list[tuple[int | None, Row, str]] = []
    names: dict[str, None] = {}
    for run in (Run(str(name), Path(folder)) for name, folder in zip(part["run"], part["folder"], strict=True)):
        rows = run.rows
        names |= dict.fromkeys(str(row.summary["row"]) for row in rows)
        if isinstance(choice, str):
            mine = [row for row in rows if row.summary["row"] == choice]
        else:
            tested = part.loc[part["run"] == run.name, "tested"].iloc[0]
            own = run.row(tested if isinstance(tested, str) else None)
            mine = [own] if own else []
        found += [(row.summary.get("seed"), row, run.name) for row in mine]
    if not found:
        raise InputError(
            f"{flag} {_label(choice)!r}: no run was tested as such a row; there are {', '.join(names) or 'no tested rows'}: "
            + ("choose one of these" if names else "run `python -m ltnet_pl test` first")
        )
    seeds = [seed for seed, _, _ in found]
    for seed in seeds:
        runs = [run for own, _, run in found if own == seed]
        if len(runs) > 1:
            raise InputError(
                f"{flag} {_label(choice)!r}: the runs {runs[0]} and {runs[1]} are both of seed {seed}; expected one run for each"
                ' seed: choose by what tells them apart, such as {"model.net.init_args.field": "gain"}, or select runs'
            )
    return [(seed, row) for seed, row, _ in found]


def _values(row: Row, metric: str) -> dict[str, float]:
    """A metric of every image of a row.

    Raises:
        InputError: If it has no such metric, or a value is not finite.
    """
    path = row.folder / "per_image.csv"
    there = [key for key in (row.images[0] if row.images else {}) if key != "name" and key not in LIGHT_COLUMNS]
    if metric not in there:
        raise InputError(f"{path} has no metric {metric!r}; there are {', '.join(there) or 'none'}: choose one of these")
    values = {image["name"]: number(image[metric]) for image in row.images}
    for name, value in values.items():
        if not math.isfinite(value):
            raise InputError(
                f"{path}: {metric} of {name} is {value}, which has no mean; choose another metric of {', '.join(there)}"
            )
    return values


def _by_scene(values: Mapping[str, float]) -> dict[str, float]:
    """Means by scene."""
    scenes: dict[str, list[float]] = {}
    for name, value in values.items():
        scenes.setdefault(scene_of(name), []).append(value)
    return {scene: statistics.fmean(of) for scene, of in scenes.items()}
