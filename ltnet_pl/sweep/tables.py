"""What a sweep shows of its trials: while they run, and at the end."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rich.table import Table

from ltnet_pl.files import METRICS, read_lines
from ltnet_pl.report.tables import markdown
from ltnet_pl.sweep.journal import Journal, Trial
from ltnet_pl.sweep.plan import Sweep
from ltnet_pl.sweep.search import values_of


def progress(plan: Sweep, journal: Journal, total: int, at_work: Mapping[int, float]) -> Table:
    """All trials so far.

    Args:
        plan: The sweep.
        journal: Its journal.
        total: How many trials there will be.
        at_work: Seconds that each trial at work has taken, by its number.
    """
    table = Table(title=f"{plan.path.name}: {len(journal.trials)} of {total} trials begun")
    for name in ("trial", "parameters", "status", "step", plan.metric or "", "seconds"):
        table.add_column(name)
    for trial in journal.ordered:
        step, value, seconds = trial.step, trial.value, trial.seconds
        if trial.number in at_work:
            lines = read_lines(journal.place(trial) / METRICS)
            step = lines[-1]["step"] if lines else None
            value = plan.best(values_of(journal.place(trial), plan.metric or ""))
            seconds = round(at_work[trial.number])
        cells = [
            "" if cell is None else f"{cell:.5g}" if isinstance(cell, float) else str(cell) for cell in (step, value, seconds)
        ]
        testing = trial.number in at_work and trial.status == "finished"
        table.add_row(str(trial.number), words(trial), "testing" if testing else trial.status, *cells)
    return table


def ranking(plan: Sweep, journal: Journal) -> str:
    """The table of the end, in Markdown, best first; of the parameters those that differ."""
    trials = journal.ordered
    sign = -1 if plan.goal == "maximize" else 1
    trials.sort(key=lambda trial: (trial.value is None, sign * (trial.value or 0.0)))
    keys = [key for key in plan.parameters if len({str(trial.parameters.get(key)) for trial in trials}) > 1]
    body = []
    for trial in trials:
        numbers = [
            score(trial),
            "" if trial.seconds is None else f"{trial.seconds:.0f}",
        ]
        body.append([str(trial.number), *(str(trial.parameters.get(key)) for key in keys), trial.status, *numbers])
    return markdown(["trial", *map(short, keys), "status", plan.metric or "value", "seconds"], body)


def score(trial: Trial) -> str:
    """A trial's value in words; empty where it has none."""
    if trial.value is None:
        return "" if trial.finite else "never finite"
    return f"{trial.value:.5g}"


def words(trial: Trial) -> str:
    """A trial's parameters in one line."""
    return ", ".join(f"{short(key)} {value}" for key, value in trial.parameters.items())


def short(key: str) -> str:
    """A flag's last names, without what class paths put between them.

    Example:
        >>> short("model.net.init_args.field"), short("seed_everything")
        ('net.field', 'seed_everything')
    """
    names = [name for name in key.split(".") if not re.fullmatch("init_args|dict_kwargs", name)]
    return ".".join(names[-2:])
