"""Results on disk: one small JSON per row and seed, kept with the experiments."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ltnet_pl import InputError
from ltnet_pl.files import atomic_write


@dataclass(frozen=True)
class Result:
    """What one row reached from one seed.

    Args:
        row: Name of the row.
        tier: Tier that trained it, with what was changed of it.
        seed: Seed of the run.
        config: Hash of the configuration.
        data: Hash of the data and its pair lists.
        code: Hash of the code that trained it, or of later code that was confirmed to train the same.
        stream: Hash of the configuration of the light stream that read its guides; None where it has its own, or needs none.
        stream_code: Hash of the code of that light stream; None where there is none, or where it is not known.
        versions: Versions of torch and of the package.
        machine: Kind of machine that trained it.
        date: Day of the scores, ``2026-01-31``.
        seconds: Wall time of training.
        threads: Threads that trained it, 0 where nothing was trained.
        parameters: Number of parameters.
        operations: Multiply-adds for one image of 1024 x 1024: ``network``, ``cues`` where the network states them, and
            ``guide_size``, the side of the guide in pixels.
        label: Image metrics with label light, by name; means over pairs.
        guide: The same with guide light; None where there are no guides.
        identity: ``psnr`` of the output against the input, ``pairs``, and how many of them were ``capped``; None where there is
            no such list.
        readings: How well the network's own light stream reads; None where it has none.
        per_scene: Means by scene, for ``label`` and ``guide``, by metric.
        absent: Metrics that could not be computed, each with the reason.
    """

    row: str
    tier: str
    seed: int
    config: str
    data: str
    code: str
    stream: str | None
    versions: dict[str, str]
    machine: str
    date: str
    seconds: float
    threads: int
    parameters: int
    operations: dict[str, int]
    label: dict[str, float]
    guide: dict[str, float] | None = None
    identity: dict[str, float] | None = None
    readings: dict[str, float] | None = None
    stream_code: str | None = None
    per_scene: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def unguided(self) -> Result:
        """The same without what it reached by guides."""
        return replace(self, guide=None, per_scene={key: value for key, value in self.per_scene.items() if key != "guide"})


def result_path(folder: Path, tier: str, row: str, seed: int) -> Path:
    """Where the result of a run is."""
    return folder / tier / f"{row}-seed{seed}.json"


def write_result(folder: Path, result: Result) -> Path:
    """Write a result, whole or not at all; returns its path."""
    path = result_path(folder, result.tier, result.row, result.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {key: value for key, value in asdict(result).items() if value is not None}
    with atomic_write(path) as file:
        file.write((_compact(content) + "\n").encode())
    return path


def read_result(folder: Path, tier: str, row: str, seed: int) -> Result | None:
    """A result; None where there is none.

    Raises:
        InputError: If the file is broken.
    """
    path = result_path(folder, tier, row, seed)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Result(**({"stream": None} | content))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}; expected a result that bench wrote: delete it to have it made anew") from error


def read_results(folder: Path, tier: str, seed: int) -> list[Result]:
    """All results of a tier and seed.

    Raises:
        InputError: If a file is broken.
    """
    ending = f"-seed{seed}.json"
    names = sorted(path.name.removesuffix(ending) for path in (folder / tier).glob(f"*{ending}"))
    return [result for name in names if (result := read_result(folder, tier, name, seed)) is not None]


def _compact(content: dict[str, Any]) -> str:
    """JSON with a line for each key, so that differences read well and lists stay short."""
    lines = []
    for key, value in content.items():
        if key == "per_scene":
            parts = [
                f"  {json.dumps(light)}: {{\n"
                + ",\n".join(f"   {json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in scores.items())
                + "\n  }"
                for light, scores in value.items()
            ]
            lines.append(f' "per_scene": {{\n{",".join(chr(10) + part for part in parts).lstrip(chr(10))}\n }}')
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}")
    return "{\n" + ",\n".join(lines) + "\n}"
