"""Run folders: where they are, and what each says of itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ltnet_pl import InputError
from ltnet_pl.files import CONFIG, METRICS, SUMMARY, read_lines
from ltnet_pl.report.runs import Row, read_rows

_INNER = {"checkpoints", "logs", "panels", "predict", "test", "wandb"}
"""Folders of a run in which no other run lies."""

_KINDS: dict[str, type | tuple[type, ...]] = {"status": str, "row": str, "net": str, "steps": int, "seconds": (int, float)}
_KINDS |= {"best": dict, "last": dict}

# the parser of LibYAML where there is one: a sweep has hundreds of files
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Run:
    """One run on disk.

    Args:
        name: Its folder as seen from the folder of runs.
        folder: Its folder.
    """

    name: str
    folder: Path

    @cached_property
    def rows(self) -> list[Row]:
        """What was tested, none where nothing was."""
        return read_rows([self.folder]) if any(self.folder.glob(f"test/*/{SUMMARY}")) else []

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What was logged, line by line."""
        return read_lines(self.folder / METRICS)

    def row(self, name: str | None) -> Row | None:
        """The tested row of that name, which is the run's own; else the only one; else none."""
        own = [row for row in self.rows if row.summary["row"] == name]
        return own[0] if own else self.rows[0] if len(self.rows) == 1 else None

    def record(self) -> dict[str, Any]:
        """The run as one row of the frame.

        Raises:
            InputError: If one of its files is broken.
        """
        summary = self._summary()
        own = self.row(summary.get("row"))
        if not summary and self.rows:
            # nothing was trained, or before runs kept a record of themselves: the tested row says which network it is
            of = (own or self.rows[0]).summary
            summary = {"status": "tested", **{key: of.get(key) for key in ("row", "net", "seed", "parameters")}}
            summary |= {} if own else {"row": None}
        keys = ("status", "row", "net", "seed", "steps", "seconds", "parameters")
        record = {"run": self.name, "folder": str(self.folder), **{key: summary.get(key) for key in keys}}
        record["tested"] = own.summary["row"] if own else None
        record |= flat(self.config())
        for part in ("best", "last"):
            record |= {f"{part}/{key}": value for key, value in summary.get(part, {}).items()}
        for row in self.rows:
            place = "test" if row is own else f"test/{row.folder.name}"
            record |= {f"{place}/{key}": value for key, value in row.summary["metrics"].items()}
        return record

    def config(self) -> dict[str, Any]:
        """The configuration, empty where the folder has none.

        Raises:
            InputError: If the file is broken.
        """
        path = self.folder / CONFIG
        try:
            found = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
        except FileNotFoundError:
            return {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path} is broken ({error}); expected the configuration that `fit` wrote: remove the run"
            ) from error
        if not isinstance(found, dict):
            raise InputError(f"{path} holds {found!r}; expected the configuration that `fit` wrote: remove the run")
        return found

    def _summary(self) -> dict[str, Any]:
        path = self.folder / SUMMARY
        remedy = "expected what `fit` writes: go on with the run by --ckpt_path last, or remove it"
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:  # JSON and UTF-8 errors both
            raise InputError(f"{path} is broken ({error}); {remedy}") from error
        if not isinstance(summary, dict):
            raise InputError(f"{path} is broken: found {summary!r}; {remedy}")
        for key, kind in _KINDS.items():
            if not isinstance(summary.get(key), kind):
                found = f"{summary[key]!r}" if key in summary else "nothing"
                raise InputError(f"{path} is broken: found {found} for {key!r}; {remedy}")
        for part in ("best", "last"):
            for key, value in summary[part].items():
                if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                    raise InputError(f"{path} is broken: found {value!r} for {key!r} of {part!r}, not a number; {remedy}")
        return summary


def find_runs(source: str | Path) -> list[Run]:
    """Every run in a folder, however deep, in the order of names.

    A run is a folder that holds ``summary.json`` and ``config.yaml``, or ``test/*/summary.json``.

    Args:
        source: A folder of runs, or a single run.

    Raises:
        InputError: If the folder is missing or holds no run.
    """
    root = Path(source)
    if not root.is_dir():
        raise InputError(
            f"{root} is no folder; expected a folder of runs, such as runs, or a W&B sweep as wandb:ENTITY/PROJECT/SWEEP"
        )
    found, begun = [], 0
    for at, folders, files in os.walk(root):
        folder = Path(at)
        recorded = SUMMARY in files and CONFIG in files
        if recorded or ("test" in folders and any(folder.glob(f"test/*/{SUMMARY}"))):
            name = folder.relative_to(root).as_posix()
            found.append(Run(folder.resolve().name if name == "." else name, folder))
        if recorded or CONFIG in files or (found and found[-1].folder == folder):
            begun += 1
            folders[:] = [name for name in folders if name not in _INNER]
    if not found:
        raise InputError(
            f"{root} holds no runs{f' but {begun} that wrote no record yet' if begun else ''}; expected folders with {SUMMARY} "
            f"and {CONFIG}, which `fit` writes with the callback ltnet_pl.callbacks.RunRecord, or with test/*/{SUMMARY}"
        )
    return sorted(found, key=lambda run: run.name)


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with dotted keys, as they are written on the command line.

    A list of objects, such as callbacks, is told by the names of their classes; other lists become text.

    Args:
        config: What ``config.yaml`` holds.

    Returns:
        Text, numbers, truth values or None by key.

    Example:
        >>> flat({"model": {"net": {"class_path": "a.Net", "init_args": {"widths": [8, 12]}}, "row": None}})
        {'model.net.class_path': 'a.Net', 'model.net.init_args.widths': '[8, 12]', 'model.row': None}
        >>> flat({"callbacks": [{"class_path": "a.EMA", "init_args": {"decay": 0.9}}, {"class_path": "a.Stop"}]})
        {'callbacks.EMA.decay': 0.9, 'callbacks.Stop': True}
    """
    found: dict[str, Any] = {}

    def put(key: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                put(f"{key}.{name}" if key else str(name), inner)
        elif isinstance(value, list) and value and all(isinstance(part, Mapping) and "class_path" in part for part in value):
            for part in value:
                name = f"{key}.{str(part['class_path']).rpartition('.')[2]}"
                put(name, part.get("init_args") or True)
        elif value is None or isinstance(value, bool | int | float | str):
            found[key] = value
        else:
            found[key] = json.dumps(value, default=str) if isinstance(value, list | tuple) else str(value)

    put("", config)
    return found
