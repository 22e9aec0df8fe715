"""Where the numbers come from: a folder of runs, or a W&B sweep."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltnet_pl import InputError
from ltnet_pl.results.frames import frame_of, needed
from ltnet_pl.results.runs import find_runs, flat

if TYPE_CHECKING:
    import pandas as pd

SERVER = "wandb:"
"""What a source on a W&B server begins with."""

_STATES = {"crashed": "failed", "killed": "stopped", "preempted": "stopped", "preempting": "running", "pending": "running"}
_WATCHED = "val/psnr"


def collect(source: str | Path) -> pd.DataFrame:
    """All runs of a folder or of a W&B sweep, one row each.

    Args:
        source: A folder, searched to any depth for runs (``summary.json`` beside ``config.yaml``, or ``test/*/summary.json``),
            or a W&B sweep as ``wandb:ENTITY/PROJECT/SWEEP``, or as ``ENTITY/PROJECT/SWEEP`` where no folder has that name.

    Returns:
        A frame sorted by ``run``, the folder's name as seen from the source (on a server the run's name). ``folder``: the folder
        itself, missing on a server. ``status``: running, stopped, failed, finished, or tested where there is no record of a
        training. ``row``: name of the method; ``net``: class of the network; ``seed``; ``steps``: optimiser steps; ``seconds``;
        ``parameters``: their number. Then the configuration, with keys as on the command line (``model.net.init_args.field``);
        lists are text, callbacks are told by class. Then numbers, NaN where a run has none: ``best/...`` and ``last/...`` as
        logged, and ``test/<metric>`` of the run's own row, which ``tested`` names; other tested rows of the run have their
        folder's name between, ``test/<row>/<metric>``.

    Raises:
        InputError: If there are no runs, a file is broken (it is named), the server does not answer, or the extra ``notebooks``
            is not installed.
    """
    needed("pandas")
    sweep = _sweep(source)
    records = [run.record() for run in find_runs(source)] if sweep is None else _server_records(_server_runs(sweep))
    return frame_of(records)


def curves(source: str | Path) -> pd.DataFrame:
    """Everything that runs logged, as one long frame.

    Args:
        source: As `collect` takes it.

    Returns:
        One row for each number: ``run`` as `collect` names it, ``step`` (optimiser steps done), ``key`` (``val/psnr``) and
        ``value``, NaN where it was not finite.

    Raises:
        InputError: As `collect`, or if no run logged anything.
    """
    library = needed("pandas")
    sweep = _sweep(source)
    if sweep is None:
        logged: list[tuple[str, list[dict[str, Any]]]] = [(run.name, run.lines) for run in find_runs(source)]
    else:
        runs = _server_runs(sweep)
        logged = [(name, _history(run)) for name, run in zip(_names(runs), runs, strict=True)]
    rows = [
        (name, line["step"], key, math.nan if value is None else float(value))
        for name, lines in logged
        for line in lines
        for key, value in line.items()
        if "/" in key
    ]
    if not rows:
        raise InputError(f"no run of {source} logged a number; expected metrics.jsonl, which the callback RunRecord writes")
    frame: pd.DataFrame = library.DataFrame(rows, columns=["run", "step", "key", "value"])
    return frame


def _sweep(source: str | Path) -> str | None:
    """The sweep's path where the source is one on a server."""
    text = str(source)
    if isinstance(source, str) and text.startswith(SERVER):
        path = text.removeprefix(SERVER)
        if not re.fullmatch(r"[^/\s]+/[^/\s]+/[^/\s]+", path):
            raise InputError(f"{text!r} names no sweep; expected wandb:ENTITY/PROJECT/SWEEP, as `wandb sweep` prints it")
        return path
    is_sweep = isinstance(source, str) and re.fullmatch(r"[\w-]+/[\w-]+/[a-z0-9]{8}", text) and not Path(text).exists()
    return text if is_sweep else None


def _server_runs(sweep: str) -> list[Any]:
    """The runs of a sweep, in the order of their names.

    Raises:
        InputError: If the server does not answer or knows no such sweep, or if that has no runs.
    """
    import wandb  # here, since it is slow to import and a folder does without

    try:
        api: Any = wandb.Api()
        runs = list(api.sweep(sweep).runs)
    except (wandb.Error, ValueError, OSError) as error:
        raise InputError(
            f"the W&B sweep {sweep} cannot be read ({error}); expected ENTITY/PROJECT/SWEEP on a server that you are logged in "
            "to: check the name and `wandb login`, or give a folder of runs"
        ) from error
    if not runs:
        raise InputError(f"the W&B sweep {sweep} has no runs; expected some: start an agent with `wandb agent {sweep}`")
    return sorted(runs, key=lambda run: (str(run.name), str(run.id)))


def _names(runs: list[Any]) -> list[str]:
    """Names of runs, with their ids where a name comes twice."""
    names = [str(run.name) for run in runs]
    return [name if names.count(name) == 1 else f"{name} ({run.id})" for name, run in zip(names, runs, strict=True)]


def _server_records(runs: list[Any]) -> list[dict[str, Any]]:
    """Runs of a server as records of the frame.

    A server keeps the last value of each number alone, so the best ones are those of the validation that was best by
    ``val/psnr``, looked up in the history.
    """
    records = []
    for name, run in zip(_names(runs), runs, strict=True):
        tree, summary = dict(run.config), dict(run.summary)
        if "model" in tree:
            # what the sweep gave as flags stands in the tree too, under its full name
            tree = {key: value for key, value in tree.items() if "." not in key}
        config = flat(tree)
        numbers = {key: number for key, value in summary.items() if "/" in key and _finite(number := _last(value))}
        steps = summary.get("trainer/global_step")
        net = str(config.get("model.net.class_path", "")).rpartition(".")[2] or None
        record = {
            "run": name,
            "status": _STATES.get(run.state, run.state),
            "row": config.get("model.row") or net,
            "net": net,
            "seed": config.get("seed_everything"),
            "steps": None if steps is None else int(steps) + 1,
            "seconds": summary.get("_runtime"),
            **config,
        }
        record |= {f"best/{key}": value for key, value in _best(_history(run)).items()}
        record |= {f"last/{key}": value for key, value in numbers.items() if key.startswith(("train/", "val/"))}
        record |= {key: value for key, value in numbers.items() if key.startswith(("test/", "best/"))}
        records.append(record)
    return records


def _last(value: Any) -> Any:
    """The last value of a number, whose summary may also hold the lowest and the highest."""
    return value["last"] if not isinstance(value, str) and hasattr(value, "keys") and "last" in value else value


def _history(run: Any) -> list[dict[str, Any]]:
    """What a run on a server logged, as lines of a ``metrics.jsonl``; Lightning counts steps from 0 there."""
    return [
        {"step": int(line["trainer/global_step"]) + 1}
        | {
            key: value if _finite(value) else None
            for key, value in line.items()
            if key.startswith(("train/", "val/")) and value is not None
        }
        for line in run.scan_history()
        if line.get("trainer/global_step") is not None
    ]


def _best(lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of the best validation."""
    validations = [line for line in lines if line.get(_WATCHED) is not None]
    best = max(validations, key=lambda line: float(line[_WATCHED]), default={})
    return {key: value for key, value in best.items() if key.startswith("val/")}


def _finite(value: Any) -> bool:
    """Whether a value is a number; a server writes others as text."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
