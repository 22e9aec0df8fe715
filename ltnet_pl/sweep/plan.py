"""What a sweep asks for: its YAML read and checked, and the parameters of its trials."""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ltnet_pl import InputError
from ltnet_pl.files import CONFIG
from ltnet_pl.sweep.space import check_parameter, draw, number

METHODS = ("grid", "random", "bayes")

KNOWN = {
    *("program", "method", "metric", "parameters", "command", "early_terminate", "run_cap", "name", "description"),
    *("project", "entity"),
}
"""Keys of a sweep's YAML that are understood."""

COMMAND = ("${env}", "${interpreter}", "-m", "ltnet_pl", "fit", "${args}")
"""What a trial runs where the YAML does not say."""

BLOCKS = {
    "metric": "metric: {name: val/psnr, goal: maximize}",
    "early_terminate": "early_terminate: {type: hyperband, min_iter: 2, eta: 2}",
}
"""Parts of the YAML with keys of their own, and how they are written."""

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """A sweep's YAML.

    Args:
        path: Its file.
        method: grid, random or bayes.
        parameters: What each flag may be.
        command: What a trial runs, with ``${...}`` in it.
        metric: Name of the value that says how good a trial is, as in ``metrics.jsonl``; None where none is given.
        goal: maximize or minimize.
        early: Settings of early termination; None for none.
        cap: Largest number of trials; None for no limit.
        content: All of the YAML, for the package `sweeps` and for the journal.
    """

    path: Path
    method: str
    parameters: Mapping[str, Mapping[str, Any]]
    command: Sequence[str]
    metric: str | None
    goal: str
    early: Mapping[str, Any] | None
    cap: int | None
    content: Mapping[str, Any] = field(repr=False)

    @property
    def hash(self) -> str:
        """Of what decides its trials, 16 hexadecimal digits: comments, name and order of keys do not."""
        kept = {key: value for key, value in self.content.items() if key not in ("name", "description", "project", "entity")}
        return blake2b(json.dumps(kept, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()

    def best(self, values: Sequence[float]) -> float | None:
        """The best of a trial's values; None where it has none."""
        return (max if self.goal == "maximize" else min)(values, default=None)

    @property
    def searches(self) -> bool:
        """Whether it needs the package `sweeps`."""
        return self.method == "bayes" or self.early is not None

    @property
    def ours(self) -> bool:
        """Whether a trial runs our own `fit`."""
        return flags_of(expand(self, {})) is not None


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep.

    Args:
        path: The YAML, as `wandb sweep` takes it.

    Raises:
        InputError: If it is no sweep, its search space is empty, or it holds what is not supported.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a sweep, such as sweeps/paper_claim.yaml: name one") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder; expected a sweep, such as sweeps/paper_claim.yaml: name one") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}; expected YAML: correct it") from error
    if not isinstance(content, dict) or "parameters" not in content:
        raise InputError(f"{path}: holds no parameters; expected a sweep with method, parameters and command: correct it")
    for key in content.keys() - KNOWN:
        raise InputError(f"{path}: {key} is not understood; expected one of {', '.join(sorted(KNOWN))}: correct or remove it")
    method = content.get("method")
    if method not in METHODS:
        raise InputError(f"{path}: method is {method}; expected one of {', '.join(METHODS)}: correct it")
    parameters = content["parameters"]
    if not isinstance(parameters, dict) or not parameters:
        raise InputError(f"{path}: its search space is empty; expected parameters with values: add some")
    for key, spec in parameters.items():
        check_parameter(f"{path}: parameters.{key}", str(key), spec, method)
    metric, early = (_block(path, content, key, like) for key, like in BLOCKS.items())
    if metric is not None and not (isinstance(metric.get("name", ""), str)):
        raise InputError(
            f"{path}: metric.name is {metric['name']}; expected the name of a logged value, such as val/psnr: correct it"
        )
    name, goal = (metric or {}).get("name"), (metric or {}).get("goal", "minimize")
    if (method == "bayes" or early is not None) and not name:
        raise InputError(
            f"{path}: {method if early is None else 'early termination'} needs a metric; expected {BLOCKS['metric']}: add it"
        )
    if goal not in ("maximize", "minimize"):
        raise InputError(f"{path}: metric.goal is {goal}; expected maximize or minimize: correct it")
    cap = content.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or isinstance(cap, bool) or cap < 1):
        raise InputError(f"{path}: run_cap is {cap}; expected a number of trials, 1 or more: correct it")
    if early is not None:
        _check_hyperband(path, early)
    return Sweep(path, method, parameters, _command(path, content), name, goal, early, cap, content)


def _block(path: Path, content: Mapping[str, Any], key: str, like: str) -> Mapping[str, Any] | None:
    """A part of the YAML that holds keys of its own; None where it is absent or empty."""
    found = content.get(key)
    if found is not None and not isinstance(found, dict):
        raise InputError(f"{path}: {key} is {found}; expected {like}: write it so")
    return found or None


def _check_hyperband(path: Path, early: Mapping[str, Any]) -> None:
    """Refuse early termination that the package `sweeps` would not take."""
    where = f"{path}: early_terminate"
    if early.get("type") != "hyperband":
        raise InputError(f"{where}.type is {early.get('type')}; expected hyperband: correct it")
    if "min_iter" not in early and not {"max_iter", "s"} <= early.keys():
        raise InputError(f"{where} has no min_iter; expected it, or max_iter and s: {BLOCKS['early_terminate']}: add it")
    for name in ("min_iter", "max_iter", "s"):
        if name in early and number(where, name, early[name], whole=True) < 1:
            raise InputError(f"{where}.{name} is {early[name]}; expected 1 or more: raise it")
    if "eta" in early and number(where, "eta", early["eta"]) <= 1:
        raise InputError(f"{where}.eta is {early['eta']}; expected more than 1: raise it")


def _command(path: Path, content: Mapping[str, Any]) -> list[str]:
    """What a trial runs."""
    given, program = content.get("command"), content.get("program")
    if given is None:
        if program not in (None, "ltnet_pl"):
            raise InputError(
                f"{path}: program is {program}, and no command says how it runs; expected one, such as command: "
                "['${interpreter}', '${program}', '${args}']: add it, or remove program to run fit"
            )
        return list(COMMAND)
    if not isinstance(given, list) or not given or any(isinstance(part, dict | list) or part is None for part in given):
        raise InputError(
            f"{path}: command is {given}; expected a list of words, such as ['${{interpreter}}', -m, ltnet_pl, fit, "
            "'${args}']: write it so"
        )
    if "${program}" in given and not isinstance(program, str):
        raise InputError(f"{path}: command has ${{program}}, and program is {program}; expected its name: add it")
    return [str(part) for part in given]


def grid(sweep: Sweep) -> Iterator[Parameters]:
    """All combinations; the last key changes fastest."""
    lists = [[spec["value"]] if "value" in spec else spec["values"] for spec in sweep.parameters.values()]
    for values in itertools.product(*lists):
        yield dict(zip(sweep.parameters, values, strict=True))


def drawn(sweep: Sweep, trial: int, seed: int) -> Parameters:
    """The parameters of a random trial: a function of the seed and the trial's number alone."""
    rng = np.random.default_rng([seed, trial])
    return {key: draw(spec, rng) for key, spec in sweep.parameters.items()}


def expand(sweep: Sweep, parameters: Parameters) -> list[str]:
    """A trial's command line, as a W&B agent writes it, but by the interpreter that runs the sweep.

    Raises:
        InputError: If the command names something that is not supported.
    """
    pairs = sorted(parameters.items())
    switches = [f"--{key}" if value is True else f"--{key}={value}" for key, value in pairs if value is not False]
    parts = {
        "env": ["/usr/bin/env"] if os.path.exists("/usr/bin/env") else [],
        "interpreter": [sys.executable],
        "program": [str(sweep.content.get("program", ""))],
        "args": [f"--{key}={value}" for key, value in pairs],
        "args_no_hyphens": [f"{key}={value}" for key, value in pairs],
        "args_no_boolean_flags": switches,
        "args_json": [json.dumps(parameters)],
    }
    line: list[str] = []
    for word in sweep.command:
        name = re.fullmatch(r"\$\{(\w+)\}", word)
        variable = re.fullmatch(r"\$\{envvar:(\w+)\}", word)
        if name is not None and name[1] in parts:
            line += parts[name[1]]
        elif variable is not None:
            line.append(os.environ.get(variable[1], ""))
        elif "${" in word:
            known = ", ".join(f"${{{part}}}" for part in parts)
            raise InputError(f"{sweep.path}: command has {word}; expected one of {known}, ${{envvar:NAME}}: correct it")
        else:
            line.append(word)
    return line


def flags_of(line: Sequence[str]) -> list[str] | None:
    """The flags of our own `fit` in a command line; None where it runs something else."""
    at = _fit(line)
    return None if at is None else list(line[at + 3 :])


def test_line(line: Sequence[str], place: Path) -> list[str]:
    """The command line that tests what one of our own `fit` has trained.

    Args:
        line: The trial's.
        place: Its run folder.
    """
    at = _fit(line)
    assert at is not None
    flags = [f"--config={place / CONFIG}", f"--trainer.default_root_dir={place}", "--ckpt_path=best", "--trainer.devices=1"]
    return [*line[:at], "-m", "ltnet_pl", "test", *flags]


def _fit(line: Sequence[str]) -> int | None:
    """Where a command line starts our own `fit`."""
    return next((at for at in range(len(line) - 2) if list(line[at : at + 3]) == ["-m", "ltnet_pl", "fit"]), None)
