"""Which trial comes next, and which one has no hope: grid and random here, bayes and hyperband by the package `sweeps`."""

from __future__ import annotations

import importlib
import itertools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ltnet_pl import InputError
from ltnet_pl.files import METRICS, read_lines
from ltnet_pl.sweep.journal import Trial
from ltnet_pl.sweep.plan import Parameters, Sweep, drawn, grid

STATES = {"running": "running", "finished": "finished", "stopped": "killed", "failed": "failed"}


class Search:
    """Makes the parameters of a sweep's trials.

    Args:
        sweep: The sweep.
        count: Largest number of trials; None: as the YAML says.
        seed: Seed of the draws.

    Raises:
        InputError: If there is no end to the trials, or the package `sweeps` is needed and absent.
    """

    def __init__(self, sweep: Sweep, count: int | None, seed: int) -> None:
        self.sweep, self.seed = sweep, seed
        limits = [limit for limit in (count, sweep.cap) if limit is not None]
        self.limit = min(limits, default=None)
        if self.limit is None and sweep.method != "grid":
            raise InputError(
                f"{sweep.path}: {sweep.method} has no last trial; expected run_cap in it, or --count: say how many trials"
            )
        self._engine = engine(sweep.path) if sweep.searches else None

    @property
    def total(self) -> int:
        """How many trials there will be."""
        if self.sweep.method != "grid":
            assert self.limit is not None
            return self.limit
        all_of_them = math.prod(len(spec["values"]) if "values" in spec else 1 for spec in self.sweep.parameters.values())
        return all_of_them if self.limit is None else min(self.limit, all_of_them)

    def parameters(self, number: int, trials: Sequence[Trial], places: Sequence[Path]) -> Parameters:
        """Those of a trial that has none yet.

        Args:
            number: Which trial.
            trials: All trials before.
            places: Their run folders.
        """
        if self.sweep.method == "grid":
            return next(itertools.islice(grid(self.sweep), number, None))
        if self.sweep.method == "random":
            return drawn(self.sweep, number, self.seed)
        assert self._engine is not None
        state = np.random.get_state()  # noqa: NPY002 - the package draws from the global generator
        np.random.seed((self.seed + 7919 * number) % 2**32)  # noqa: NPY002 - the same
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self._engine.next_run(dict(self.sweep.content), self._runs(trials, places))
        finally:
            np.random.set_state(state)  # noqa: NPY002 - the same
        if found is None:
            raise InputError(f"{self.sweep.path}: the package sweeps suggests no trial; expected one: look at the search space")
        return {key: plain(value["value"]) for key, value in found.config.items()}

    def hopeless(self, trials: Sequence[Trial], places: Sequence[Path]) -> list[int]:
        """Numbers of running trials that early termination would stop."""
        if self.sweep.early is None or self._engine is None:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stopped = self._engine.stop_runs(dict(self.sweep.content), self._runs(trials, places))
        return [int(run.name) for run in stopped]

    def _runs(self, trials: Sequence[Trial], places: Sequence[Path]) -> list[Any]:
        """The trials as the package knows them: each logged value of the metric is an iteration of hyperband."""
        assert self._engine is not None
        metric, runs = self.sweep.metric, []
        for trial, place in zip(trials, places, strict=True):
            values = values_of(place, str(metric))
            best = self.sweep.best(values)
            runs.append(
                self._engine.SweepRun(
                    name=str(trial.number),
                    state=self._engine.RunState(STATES.get(trial.status, "pending")),
                    config={key: {"value": value} for key, value in trial.parameters.items()},
                    # by their aliases: under pydantic 2, release 0.2.0 takes no notice of the fields' own names
                    sampledHistory=[{metric: value} for value in values],
                    summaryMetrics={} if best is None else {metric: best},
                )
            )
        return runs


def engine(path: Path) -> ModuleType:
    """The package `sweeps`.

    Raises:
        InputError: If it is not installed.
    """
    try:
        with warnings.catch_warnings():
            # it was written for an earlier pydantic
            warnings.simplefilter("ignore")
            return importlib.import_module("sweeps")
    except ImportError as error:
        raise InputError(
            f"{path}: bayes and early termination need the package sweeps, which is not installed; expected it: "
            "pip install 'ltnet_pl[sweeps]', or use grid or random without early_terminate"
        ) from error


def values_of(place: Path, metric: str) -> list[float]:
    """Every finite value of a metric that a run has logged, in order."""
    values = [line.get(metric) for line in read_lines(place / METRICS)]
    return [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]


def plain(value: Any) -> Any:
    """A number of numpy's as one of Python's."""
    return value.item() if hasattr(value, "item") else value
