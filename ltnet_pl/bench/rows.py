"""Which rows the benchmark has: config files by name, and the tiers that train them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ltnet_pl import InputError

REFERENCE = "LTNet"
"""The row that all others are held against, and whose light stream reads guides for networks that have none."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_KEYS = {"group", "configs", "tiers"}
_OPTIONAL = {"against"}


@dataclass(frozen=True)
class Row:
    """One method.

    Args:
        name: Its name in tables and files.
        group: The table that it belongs to.
        configs: Its config files, put on top of the shared ones in this order; none for the default.
        tiers: Tiers that train it.
        versus: The row that it is held against, where `Book.against` would choose another; None for its choice.
    """

    name: str
    group: str
    configs: tuple[Path, ...]
    tiers: tuple[str, ...]
    versus: str | None = None

    @property
    def question(self) -> str:
        """What the row asks: the first comment of its last config file whose first comment asks, else that of its last one."""
        if not self.configs:
            return "The default."
        firsts = [_first_comment(file) for file in self.configs]
        return next((first for first in reversed(firsts) if "?" in first), firsts[-1])


def _first_comment(file: Path) -> str:
    """The first comment line of a config file; the file's name where it has none."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comments = (line.lstrip("# ") for line in lines if line.startswith("#"))
    return next(filter(None, comments), file.name)


@dataclass(frozen=True)
class Book:
    """All rows and tiers of one folder of experiments.

    Args:
        experiments: The folder that holds ``base.yaml`` and ``benchmark/``.
        rows: Rows by name, in the order of tables.
        seeds: Seeds by tier.
    """

    experiments: Path
    rows: Mapping[str, Row]
    seeds: Mapping[str, tuple[int, ...]]

    def configs(self, row: Row, tier: str | None) -> list[Path]:
        """The config files of a row in a tier, in the order in which they are put on each other; None for no tier."""
        shared = [self.experiments / "base.yaml", self.experiments / "benchmark" / "benchmark.yaml"]
        return [*shared, *([] if tier is None else [self.experiments / "benchmark" / f"{tier}.yaml"]), *row.configs]

    def choose(self, tier: str, names: Sequence[str] | None) -> list[Row]:
        """The rows of a tier, or those that are named, whatever their tiers; the reference comes first.

        Raises:
            InputError: If a name or the tier is unknown.
        """
        self.check_tier(tier)
        for name in names or ():
            if name not in self.rows:
                raise InputError(
                    f"--rows {name}: unknown; expected some of {', '.join(self.rows)}: correct it, or add a row of your own by "
                    f"--add {name}=FILE.yaml"
                )
        chosen = [row for row in self.rows.values() if (row.name in names if names else tier in row.tiers)]
        return sorted(chosen, key=lambda row: row.name != REFERENCE)

    def against(self, row: Row, known: Collection[str]) -> str | None:
        """The row that a row is held against: the one it names, else that whose config files it adds to, of several the longest.

        Args:
            row: The row.
            known: Names of the rows that have results.

        Returns:
            Its name; where no row of that kind has results, the first of the reference's name (``LTNet``, ``LTNet-labels``) that
            has; None where there is none, or for that row itself.
        """
        if row.versus in known:
            return row.versus
        others = [other for other in self.rows.values() if other.name in known and other.name != row.name]
        added_to = [other for other in others if other.configs == row.configs[: len(other.configs)] != row.configs]
        if added_to:
            return max(added_to, key=lambda other: len(other.configs)).name
        if row.name.partition("-")[0] == REFERENCE:
            return None
        return next((other.name for other in others if other.name.partition("-")[0] == REFERENCE), None)

    def check_tier(self, tier: str) -> None:
        """Refuse an unknown tier.

        Raises:
            InputError: If it is unknown.
        """
        if tier not in self.seeds:
            raise InputError(f"--tier {tier}: unknown; expected one of {', '.join(self.seeds)}: correct it")


def read_book(experiments: Path, add: str | None = None) -> Book:
    """Read ``benchmark/rows.yaml`` of a folder of experiments.

    Args:
        experiments: The folder.
        add: Further rows, ``name=file.yaml``, several separated by commas, several files of one row by ``+``; a row of that name
            is replaced.

    Raises:
        InputError: If the file is missing or wrong, or a row's config file does not exist.
    """
    path = experiments / "benchmark" / "rows.yaml"
    if not path.is_file():
        raise InputError(f"{path}: is missing; expected the rows of the benchmark: give their folder as --experiments")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: {error}; expected YAML: correct it") from error
    if not isinstance(content, dict) or content.keys() != {"tiers", "rows"}:
        raise InputError(f"{path}: expected the keys tiers and rows, and nothing else: correct it")
    seeds = {str(tier): _seeds(path, tier, value) for tier, value in content["tiers"].items()}
    rows = {str(name): _row(path, experiments, str(name), value, seeds) for name, value in content["rows"].items()}
    for part in filter(None, (add or "").split(",")):
        name, _, files = part.partition("=")
        if not files:
            raise InputError(f"--add {part}: expected NAME=FILE.yaml: correct it")
        rows[name] = _checked(Row(name, "added", tuple(map(Path, files.split("+"))), tuple(seeds)), f"--add {part}")
    for row in rows.values():
        if row.versus is not None and (not isinstance(row.versus, str) or row.versus not in rows or row.versus == row.name):
            raise InputError(
                f"{path}: row {row.name} is held against {row.versus!r}; expected the name of another row: correct it"
            )
    if REFERENCE not in rows:
        raise InputError(f"{path}: has no row {REFERENCE}, which the others are held against; add it")
    return Book(experiments, rows, seeds)


def _seeds(path: Path, tier: Any, value: Any) -> tuple[int, ...]:
    seeds = value.get("seeds") if isinstance(value, dict) and value.keys() == {"seeds"} else None
    if not isinstance(seeds, list) or not seeds or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise InputError(f"{path}: tier {tier} is {value!r}; expected {{seeds: [0, ...]}}: correct it")
    return tuple(seeds)


def _row(path: Path, experiments: Path, name: str, value: Any, tiers: Mapping[str, Any]) -> Row:
    if not isinstance(value, dict) or value.keys() - _OPTIONAL != _KEYS:
        raise InputError(
            f"{path}: row {name} is {value!r}; expected the keys {', '.join(sorted(_KEYS))}, and against if need be: correct it"
        )
    for tier in value["tiers"]:
        if tier not in tiers:
            raise InputError(f"{path}: row {name} names the tier {tier!r}; expected some of {', '.join(tiers)}: correct it")
    configs = tuple(experiments / file for file in value["configs"])
    row = Row(name, str(value["group"]), configs, tuple(value["tiers"]), value.get("against"))
    return _checked(row, f"{path}: row {name}")


def _checked(row: Row, where: str) -> Row:
    if not _NAME.fullmatch(row.name):
        raise InputError(f"{where}: {row.name!r} cannot name a file; expected letters, digits, '.', '_', '+' and '-': rename it")
    for file in row.configs:
        if not file.is_file():
            raise InputError(f"{where}: {file} does not exist; expected a config file: correct the path")
    return row
