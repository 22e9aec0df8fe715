"""What a sweep asks for: its YAML read and checked, and the parameters of its trials."""

from __future__ import annotations

import itertools
import json
import math
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

METHODS = ("grid", "random", "bayes")

KNOWN = {
    *("program", "method", "metric", "parameters", "command", "early_terminate", "run_cap", "name", "description"),
    *("project", "entity"),
}
"""Keys of a sweep's YAML that are understood."""

COMMAND = ("${env}", "${interpreter}", "-m", "ltnet_pl", "fit", "${args}")
"""What a trial runs where the YAML does not say."""

DISTRIBUTIONS = {
    **dict.fromkeys(("uniform", "int_uniform", "q_uniform"), ("min", "max")),
    **dict.fromkeys(("log_uniform_values", "q_log_uniform_values", "inv_log_uniform_values"), ("min", "max")),
    **dict.fromkeys(("log_uniform", "q_log_uniform"), ("min", "max")),
    **dict.fromkeys(("normal", "q_normal", "log_normal", "q_log_normal"), ()),
}
"""Distributions that are drawn from, with the keys that each needs."""

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
        _check_parameter(path, str(key), spec, method)
    metric = content.get("metric") or {}
    if (method == "bayes" or content.get("early_terminate")) and not metric.get("name"):
        raise InputError(
            f"{path}: {method} with early termination needs a metric; expected metric: {{name: val/psnr, goal: maximize}}"
        )
    goal = metric.get("goal", "minimize")
    if goal not in ("maximize", "minimize"):
        raise InputError(f"{path}: metric.goal is {goal}; expected maximize or minimize: correct it")
    cap = content.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or cap < 1):
        raise InputError(f"{path}: run_cap is {cap}; expected a number of trials, 1 or more: correct it")
    early = content.get("early_terminate")
    if early is not None and early.get("type") != "hyperband":
        raise InputError(f"{path}: early_terminate.type is {early.get('type')}; expected hyperband: correct it")
    command = [str(part) for part in content.get("command") or COMMAND]
    return Sweep(path, method, parameters, command, metric.get("name"), goal, early, cap, content)


def _check_parameter(path: Path, key: str, spec: Any, method: str) -> None:
    """Refuse a parameter that has no values, or none that this method can take."""
    where = f"{path}: parameters.{key}"
    if not isinstance(spec, dict):
        raise InputError(f"{where} is {spec}; expected value, values or a distribution, such as {{values: [1, 2]}}: correct it")
    if "parameters" in spec:
        raise InputError(
            f"{where} has parameters of its own; expected flat keys with dots, such as {key}.init_args.x: write it so"
        )
    if "value" in spec:
        return
    if "values" in spec:
        if not isinstance(spec["values"], list) or not spec["values"]:
            raise InputError(f"{where}.values is {spec['values']}; expected a list of one or more: fill it, or remove the key")
        chances = spec.get("probabilities")
        if chances is not None and (len(chances) != len(spec["values"]) or not math.isclose(sum(chances), 1.0, rel_tol=1e-6)):
            raise InputError(f"{where}.probabilities is {chances}; expected one for each value, 1 in all: correct it")
        return
    kind = distribution(spec)
    if kind not in DISTRIBUTIONS:
        raise InputError(f"{where}: distribution {kind} is unknown; expected one of {', '.join(DISTRIBUTIONS)}: correct it")
    missing = [name for name in DISTRIBUTIONS[kind] if name not in spec]
    if missing:
        raise InputError(f"{where}: {kind} lacks {' and '.join(missing)}; expected {' and '.join(DISTRIBUTIONS[kind])}: add it")
    if "min" in spec and "max" in spec and not spec["min"] < spec["max"]:
        raise InputError(f"{where}: min {spec['min']} is not below max {spec['max']}; its search space is empty: correct it")
    if method == "grid":
        raise InputError(
            f"{where}: a grid needs values, but this is {kind}; expected {{values: [...]}}: list them, or use random"
        )


def distribution(spec: Mapping[str, Any]) -> str:
    """The distribution of a parameter with bounds; whole bounds alone mean whole numbers, as they do for W&B."""
    whole = all(isinstance(spec.get(key), int) for key in ("min", "max"))
    return str(spec.get("distribution", "int_uniform" if whole else "uniform"))


def grid(sweep: Sweep) -> Iterator[Parameters]:
    """All combinations; the last key changes fastest."""
    lists = [[spec["value"]] if "value" in spec else spec["values"] for spec in sweep.parameters.values()]
    for values in itertools.product(*lists):
        yield dict(zip(sweep.parameters, values, strict=True))


def drawn(sweep: Sweep, number: int, seed: int) -> Parameters:
    """The parameters of a random trial: a function of the seed and the trial's number alone."""
    rng = np.random.default_rng([seed, number])
    return {key: _draw(spec, rng) for key, spec in sweep.parameters.items()}


def _draw(spec: Mapping[str, Any], rng: np.random.Generator) -> Any:
    if "value" in spec:
        return spec["value"]
    if "values" in spec:
        return spec["values"][int(rng.choice(len(spec["values"]), p=spec.get("probabilities")))]
    kind = distribution(spec)
    low, high = float(spec.get("min", 0)), float(spec.get("max", 1))
    mean, deviation = float(spec.get("mu", 0)), float(spec.get("sigma", 1))
    if kind == "int_uniform":
        return int(rng.integers(int(low), int(high) + 1))
    plain = kind.removeprefix("q_")
    if plain == "uniform":
        value = rng.uniform(low, high)
    elif plain == "log_uniform_values":
        value = math.exp(rng.uniform(math.log(low), math.log(high)))
    elif plain == "inv_log_uniform_values":
        value = 1 / math.exp(rng.uniform(math.log(1 / high), math.log(1 / low)))
    elif plain == "log_uniform":
        value = math.exp(rng.uniform(low, high))
    else:
        value = rng.normal(mean, deviation)
        value = math.exp(value) if plain == "log_normal" else value
    if not kind.startswith("q_"):
        return float(value)
    step = float(spec.get("q", 1))
    quantised = round(value / step) * step
    return int(quantised) if float(step).is_integer() else float(quantised)


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
    for at in range(len(line) - 2):
        if list(line[at : at + 3]) == ["-m", "ltnet_pl", "fit"]:
            return list(line[at + 3 :])
    return None
