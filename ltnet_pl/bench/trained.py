"""Trained rows and test scenes as the picture benchmarks take them: from a command's flags to networks and batches."""

from __future__ import annotations

import inspect
import re
import shlex
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ltnet_pl import InputError
from ltnet_pl.bench.configs import trained_config
from ltnet_pl.bench.hashes import machine
from ltnet_pl.bench.plan import reads
from ltnet_pl.bench.scoring import TEST_PAIRS, ask, has_light_stream
from ltnet_pl.bench.training import checkpoint
from ltnet_pl.data import AnyToAnyDataModule
from ltnet_pl.data.datasets import PairDataset
from ltnet_pl.metrics import quantize
from ltnet_pl.weights import load_net, load_weights

LightFrom = Literal["label", "guide"]

WEIGHTS = ".safetensors"
"""How the name of a file of weights ends, which is no checkpoint."""


@dataclass(frozen=True)
class Method:
    """One trained row.

    Args:
        name: Its name on pictures and in tables.
        checkpoint: Where its weights are.
        net: The network, in evaluation mode.
        reads: Whether it has a light stream that was trained.
    """

    name: str
    checkpoint: Path
    net: Any
    reads: bool

    @torch.inference_mode()
    def relit(self, batch: Mapping[str, Any]) -> Tensor:
        """Relit images ``(B, 3, H, W)`` as an 8-bit file would keep them."""
        return quantize(self.net(batch)["relit"])


def load_methods(runs: Sequence[str], light: LightFrom = "label") -> list[Method]:
    """The networks of finished runs.

    Args:
        runs: Run folders, whose ``checkpoints/last.ckpt`` is taken, or checkpoint or safetensors files; ``NAME=PATH`` names a
            row, else it is named after its run folder, without ``-seedN`` where that leaves all names different.
        light: Where networks whose light stream was trained take the lights from. The others have labels alone, and with
            ``guide`` their name says so.

    Raises:
        InputError: If a path has no checkpoint, a file is none or another version's, or two rows have one name.
    """
    if light not in get_args(LightFrom):
        raise InputError(f"--light {light}: unknown; expected one of {', '.join(get_args(LightFrom))}: correct it")
    given = [_split(run) for run in runs]
    files = [_checkpoint(path) for _, path in given]
    folders = [file.parent.parent.name if file.parent.name == "checkpoints" else file.stem for file in files]
    names = [name or re.sub(r"-seed\d+$", "", folder) for (name, _), folder in zip(given, folders, strict=True)]
    if len(set(names)) < len(names):
        names = [name or folder for (name, _), folder in zip(given, folders, strict=True)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two rows are called {name}; expected names that differ: give NAME=PATH for them")
    methods = []
    for name, file in zip(names, files, strict=True):
        net, reading = _network(file)
        ask(net, light if reading else "label")
        if light == "guide" and not reading and getattr(net, "light", None):
            name += " (label)"
        methods.append(Method(name, file, net, reading))
    return methods


def _network(file: Path) -> tuple[Any, bool]:
    """The network of a file, and whether it has a light stream that was trained."""
    if file.suffix == WEIGHTS:
        net: Any = load_weights(file)
        return net, has_light_stream(net) and not net.told
    net = load_net(file)
    return net, has_light_stream(net) and reads(trained_config(file))


def _split(run: str) -> tuple[str | None, Path]:
    """Name and path of what a user gave for a row."""
    name, sign, path = run.partition("=")
    # a folder may have the sign in its own name
    return (name, Path(path)) if sign and not Path(run).exists() else (None, Path(run))


def _checkpoint(path: Path) -> Path:
    """The checkpoint file of a run."""
    file = checkpoint(path) if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"RUNS {path}: there is no {file}; expected a finished run's folder, a checkpoint, or a .safetensors: run fit first"
        )
    if file.suffix != WEIGHTS and not zipfile.is_zipfile(file):
        raise InputError(f"RUNS {file}: is broken or no checkpoint; expected a file that fit wrote: choose another")
    return file


def pairs_of(data: str, scenes: int) -> PairDataset:
    """The benchmark's any-to-any test list of a rendered set, as a dataset.

    Args:
        data: Folder of the set.
        scenes: Number of test scenes, the last of the set.

    Raises:
        InputError: If the set is none, was not rendered, or has too few scenes.
    """
    if not (Path(data) / "scenes").is_dir():
        raise InputError(
            f"--data {data}: has no folder scenes; expected a set that `python -m ltnet_pl render` wrote, with the family, "
            "camera and exposure of its scenes: give such a folder"
        )
    if scenes < 1:
        raise InputError(f"--test_scenes {scenes}; expected 1 or more: raise it")
    module = AnyToAnyDataModule(root=data, test_scenes=scenes, pairs_per_scene=TEST_PAIRS, pairs_seed=0)
    module.setup("test")
    dataset = module.datasets["test"]
    assert isinstance(dataset, PairDataset)  # a list, not training samples
    return dataset


def provenance(call: Callable[..., None], runs: Sequence[str], flags: Mapping[str, Any]) -> dict[str, str]:
    """What a result's reader must know: the command that makes it again, the kind of machine, and the date.

    Args:
        call: The benchmark's function.
        runs: What the user gave.
        flags: Its other arguments by name; those at their defaults are left out.

    Returns:
        ``command``, ``machine`` and ``date``.
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(call).parameters.items()}
    given = [part for name, value in flags.items() if value != defaults[name] for part in (f"--{name}", str(value))]
    command = shlex.join(["python", "-m", "ltnet_pl", "bench", call.__name__, *runs, *given])
    return {"command": command, "machine": machine(), "date": date.today().isoformat()}
