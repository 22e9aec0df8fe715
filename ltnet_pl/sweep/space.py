"""What one parameter of a sweep may be: values or a distribution, checked and drawn from."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ltnet_pl import InputError

DISTRIBUTIONS = {
    **dict.fromkeys(("uniform", "int_uniform", "q_uniform"), ("min", "max")),
    **dict.fromkeys(("log_uniform_values", "q_log_uniform_values", "inv_log_uniform_values"), ("min", "max")),
    **dict.fromkeys(("log_uniform", "q_log_uniform"), ("min", "max")),
    **dict.fromkeys(("normal", "q_normal", "log_normal", "q_log_normal"), ()),
}
"""Distributions that are drawn from, with the keys that each needs."""

POSITIVE = ("log_uniform_values", "q_log_uniform_values", "inv_log_uniform_values")
"""Those whose bounds are values of which the logarithm is taken."""

SETTINGS = ("min", "max", "mu", "sigma", "q")
"""What a distribution may be told, all numbers."""

LARGEST_EXPONENT = 700
"""e to more than this is no number."""


def check_parameter(where: str, key: str, spec: Any, method: str) -> None:
    """Refuse a parameter that has no values, or none that this method can take.

    Args:
        where: The file, and the parameter in it, for the message.
        key: Its name.
        spec: What the YAML says of it.
        method: grid, random or bayes.

    Raises:
        InputError: If it serves not.
    """
    if not isinstance(spec, dict):
        raise InputError(f"{where} is {spec}; expected value, values or a distribution, such as {{values: [1, 2]}}: correct it")
    if "parameters" in spec:
        raise InputError(
            f"{where} has parameters of its own; expected flat keys with dots, such as {key}.init_args.x: write it so"
        )
    if "value" in spec and "values" in spec:
        raise InputError(f"{where} has value and values; expected one of them: leave the other out")
    if "value" in spec:
        return
    if "values" in spec:
        if not isinstance(spec["values"], list) or not spec["values"]:
            raise InputError(f"{where}.values is {spec['values']}; expected a list of one or more: fill it, or remove the key")
        chances = spec.get("probabilities")
        if chances is not None and not _chances(where, chances, len(spec["values"])):
            raise InputError(f"{where}.probabilities is {chances}; expected one for each value, 1 in all: write a list of them")
        return
    kind = distribution(spec)
    if kind not in DISTRIBUTIONS:
        raise InputError(f"{where}: distribution {kind} is unknown; expected one of {', '.join(DISTRIBUTIONS)}: correct it")
    missing = [name for name in DISTRIBUTIONS[kind] if name not in spec]
    if missing:
        raise InputError(f"{where}: {kind} lacks {' and '.join(missing)}; expected {' and '.join(DISTRIBUTIONS[kind])}: add it")
    _check_numbers(where, kind, spec)
    if method == "grid":
        raise InputError(
            f"{where}: a grid needs values, but this is {kind}; expected {{values: [...]}}: list them, or use random"
        )


def _check_numbers(where: str, kind: str, spec: Mapping[str, Any]) -> None:
    """Refuse bounds and other settings that are no numbers, or that nothing can be drawn between."""
    given = {name: number(where, name, spec[name], whole=kind == "int_uniform") for name in SETTINGS if name in spec}
    low, high = given.get("min"), given.get("max")
    if low is not None and high is not None and not low < high:
        raise InputError(f"{where}: min {spec['min']} is not below max {spec['max']}; its search space is empty: correct it")
    if kind in POSITIVE and low is not None and low <= 0:
        raise InputError(f"{where}.min is {spec['min']}, and {kind} takes its logarithm; expected more than 0: raise it")
    if kind in ("log_uniform", "q_log_uniform") and high is not None and high > LARGEST_EXPONENT:
        raise InputError(
            f"{where}.max is {spec['max']}, and {kind} raises e to it; expected at most {LARGEST_EXPONENT}: use "
            "log_uniform_values for bounds of the value itself"
        )
    for name in ("sigma", "q"):
        if given.get(name, 1.0) <= 0:
            raise InputError(f"{where}.{name} is {spec[name]}; expected more than 0: raise it")


def _chances(where: str, chances: Any, count: int) -> bool:
    """Whether these are the chances of so many values."""
    if not isinstance(chances, list) or len(chances) != count:
        return False
    numbers = [number(where, "probabilities", chance) for chance in chances]
    return min(numbers) >= 0 and math.isclose(sum(numbers), 1.0, rel_tol=1e-6)


def number(where: str, name: str, value: Any, whole: bool = False) -> float:
    """A number of the YAML.

    Args:
        where: What it belongs to, for the message.
        name: Its name there.
        value: What YAML made of it.
        whole: Whether it must be a whole one.

    Raises:
        InputError: If it is none, or not finite.
    """
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (not whole or value == int(value))
    ):
        return float(value)
    kind, remedy = "a whole number" if whole else "a number", "correct it"
    if isinstance(value, str):
        # YAML wants a point in what has an exponent
        with contextlib.suppress(ValueError):
            remedy = f"write {_with_point(float(value))}"
            kind += f", but YAML reads {value} as text"
    raise InputError(f"{where}.{name} is {value!r}; expected {kind}: {remedy}")


def _with_point(value: float) -> str:
    """A number as YAML takes it for one.

    Example:
        >>> _with_point(1e-4), _with_point(2.5e-7), _with_point(3.0)
        ('1.0e-4', '2.5e-7', '3.0')
    """
    if "e" not in repr(value) and abs(value) >= 1e-3:
        return repr(value)
    mantissa, _, exponent = f"{value:e}".partition("e")
    mantissa = mantissa.rstrip("0")
    return f"{mantissa}{'0' * mantissa.endswith('.')}e{int(exponent):+d}"


def distribution(spec: Mapping[str, Any]) -> str:
    """The distribution of a parameter with bounds; whole bounds alone mean whole numbers, as they do for W&B."""
    whole = all(isinstance(spec.get(key), int) for key in ("min", "max"))
    return str(spec.get("distribution", "int_uniform" if whole else "uniform"))


def draw(spec: Mapping[str, Any], rng: np.random.Generator) -> Any:
    """A value of a parameter.

    Args:
        spec: What the YAML says of it.
        rng: What it is drawn by.
    """
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
