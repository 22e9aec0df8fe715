"""Networks with their trained weights: out of a run, or out of and into safetensors files, reading which runs no code."""

from __future__ import annotations

import json
import os
import re
from argparse import ArgumentError
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from jsonargparse import ArgumentParser
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ltnet_pl import InputError
from ltnet_pl.files import atomic_write

T = TypeVar("T")
Spec = Mapping[str, Any]

WEIGHTS = ".safetensors"
"""What the name of a file of weights ends in."""

_OURS = "ltnet_pl.nets."
_KEY = "ltnet_pl"


def build(kind: type[T], spec: Spec) -> T:
    """An object from its ``class_path`` and ``init_args``.

    Args:
        kind: What it must be an instance of.
        spec: The part of a configuration that describes it.
    """
    parser = ArgumentParser(exit_on_error=False)
    # not add_subclass_arguments, which allows null too, and buries what a constructor says among what null is not
    parser.add_argument("--part", type=kind)
    found: T = parser.instantiate(parser.parse_object({"part": dict(spec)})).part
    return found


def load(path: str | Path) -> nn.Module:
    """The network of a run folder, a checkpoint, or a safetensors file, on the CPU, in evaluation mode.

    Raises:
        InputError: As `load_run` and `load_weights`.
    """
    return load_weights(path) if Path(path).suffix == WEIGHTS else load_run(path)


def load_run(path: str | Path) -> nn.Module:
    """The network of a run folder (its best weights, else its last) or of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        InputError: If there is no checkpoint, or its network cannot be built or loaded by this version.
    """
    return load_net(checkpoint_of(path))


def checkpoint_of(path: str | Path) -> Path:
    """The checkpoint of a run folder, the best or else the last; a file is taken as it is.

    Raises:
        InputError: If there is none.
    """
    path = Path(path)
    candidates = [path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")] if os.path.isdir(path) else [path]
    for file in candidates:
        if os.path.isfile(file):  # of a name that is too long, pathlib raises
            return file
    raise InputError(
        f"{path}: there is no {' and no '.join(map(str, candidates))}; expected a run's folder, or a checkpoint: run fit first"
    )


def load_net(checkpoint: Path) -> nn.Module:
    """The trained network of a checkpoint (averaged weights where the run kept an average), on the CPU, in evaluation mode.

    Not `RelightTask.load_from_checkpoint`: it cannot rebuild the task of a run of the command line, whose metric settings are
    stored as an object where Lightning expects a configuration.

    Raises:
        InputError: If the file is no checkpoint, or its network cannot be built or loaded by this version.
    """
    # not at the top: it brings all of Lightning, which weights in safetensors do without
    from ltnet_pl.experiment import OTHER_VERSION, check_weights, read_checkpoint

    content = read_checkpoint(checkpoint)
    net = _built(checkpoint, spec_of(checkpoint, content), OTHER_VERSION)
    state = {k.removeprefix("net."): v for k, v in content["state_dict"].items() if k.startswith("net.")}
    check_weights(checkpoint, {**content, "state_dict": state}, net.state_dict(), "that network as it is here", OTHER_VERSION)
    net.load_state_dict(state)
    return net.eval()


def spec_of(checkpoint: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Class and settings of the network that a checkpoint holds.

    Raises:
        InputError: If it does not say.
    """
    spec = content.get("hyper_parameters", {}).get("net")
    if not isinstance(spec, dict):
        raise InputError(
            f"{checkpoint}: does not say which network it holds; expected a checkpoint that fit wrote: choose another"
        )
    return spec


def save_weights(path: str | Path, net: nn.Module, spec: Spec, half: bool = False) -> None:
    """Write a network's weights as safetensors, with its class and settings in the file's metadata.

    Args:
        path: The file, which appears whole or not at all.
        net: The network.
        spec: Its ``class_path`` within `ltnet_pl.nets` and its ``init_args``, as in a configuration.
        half: Write 16-bit floats, half the bytes; they are read back as 32-bit ones.

    Raises:
        InputError: If the class is none of ours, which no other machine would have.
    """
    _check_ours(str(path), spec)
    kind = torch.float16 if half else torch.float32
    state = {
        key: (value.to(kind) if value.is_floating_point() else value).contiguous() for key, value in net.state_dict().items()
    }
    content = save(state, {_KEY: json.dumps(dict(spec), sort_keys=True)})
    with atomic_write(Path(path)) as file:
        file.write(content)


def load_weights(path: str | Path) -> nn.Module:
    """The network of a safetensors file that `save_weights` wrote, on the CPU, in evaluation mode; runs no code of the file.

    Raises:
        InputError: If the file is missing, none of these, or of a network that this version cannot build or fill.
    """
    remedy = "expected what `python -m ltnet_pl export RUN OUT --to safetensors` writes: export it anew"
    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get(_KEY)
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 # no mapping, whatever it looks like
        spec = None if said is None else json.loads(said)
    except FileNotFoundError as error:
        raise InputError(f"{path}: is not there; {remedy}") from error
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(f"{path}: is broken or no safetensors file ({error}); {remedy}") from error
    if not isinstance(spec, dict):
        raise InputError(f"{path}: does not say which network it holds; {remedy}")
    _check_ours(str(path), spec)
    net = _built(Path(path), spec, remedy)
    own = net.state_dict()
    wrong = sorted(key for key in {*state, *own} if key not in state or key not in own or state[key].shape != own[key].shape)
    if wrong:
        raise InputError(f"{path}: {len(wrong)} of {len(own)} tensors do not fit its network ({wrong[0]} first); {remedy}")
    net.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()})
    return net.eval()


def _check_ours(path: str, spec: Spec) -> None:
    """Refuse classes from elsewhere: importing one would run its code."""
    name = spec.get("class_path")
    # one module below at most: further names would be what these modules import themselves
    if not (isinstance(name, str) and re.fullmatch(re.escape(_OURS) + r"(\w+\.)?\w+", name)):
        raise InputError(f"{path}: holds a network of class {name}; expected one of {_OURS.rstrip('.')}: it runs no other code")
    if '"class_path"' in json.dumps(spec.get("init_args"), default=vars):
        raise InputError(f"{path}: the settings of its network name a class; expected plain values: it runs no other code")


def _built(path: Path, spec: Spec, remedy: str) -> nn.Module:
    try:
        return build(nn.Module, spec)
    except (ArgumentError, InputError) as error:
        raise InputError(
            f"{path}: its network {spec.get('class_path')} cannot be built here: {' '.join(str(error).split())}; expected "
            f"a class and settings that this version knows, importable from here: {remedy}"
        ) from error
