"""LightningCLI for `fit`, `validate`, `test` and `predict`."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import set_parsing_settings
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

# imported so that class paths may be given by their last name alone
import ltnet_pl.callbacks
import ltnet_pl.data
import ltnet_pl.nets  # noqa: F401  # unused by name: importing it registers its classes
from ltnet_pl import InputError
from ltnet_pl.callbacks import RunConfig, check_devices
from ltnet_pl.callbacks.stop import TERMINATED
from ltnet_pl.metrics import MetricSettings
from ltnet_pl.tasks import RelightTask

NOISE = (
    # RunConfig refuses a folder that holds another run; what is left is a resume
    "Checkpoint directory .* exists and is not empty",
    # a test restores the averaged weights alone, which is what it should do
    "You're using the WeightAveraging callback, but loading a checkpoint outside the 'fit' stage",
    # Lightning 2.6 against torch 2.13
    ".isinstance.treespec, LeafSpec.. is deprecated",
    # the metrics are reduced over the processes before they are logged
    ".*It is recommended to use .self.log.* when logging on epoch level in distributed setting",
    # small sets that are decoded once need no worker processes
    ".*does not have many workers which may be a bottleneck",
)
"""Warnings of Lightning that do not concern the user, each with its reason."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Precisions that the networks work in: what is computed from depth stays in 32 bits, whatever the weights have."""

PATIENCE = 3.0
"""Seconds for which the other processes of a run may clear up after an error before they are killed."""

_SHORT_PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}

OTHER_VERSION = "train anew with this version, or install the version that wrote it"
"""What to do with a checkpoint that was written by another version."""


class RelightCLI(LightningCLI):
    """LightningCLI with one task, any data module, and `--metrics.*` as settings of their own."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """`--metrics.*` are the task's."""
        parser.add_class_arguments(MetricSettings, "metrics", as_group=True)
        parser.link_arguments("metrics", "model.metrics", apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        # the base class lets the checkpoint's hyperparameters override config files and flags; what the user wrote must hold
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it; where it ends by an error, no process that it started stays behind."""
        try:
            super()._run_subcommand(subcommand)
        except BaseException:
            children = getattr(self.trainer.strategy.launcher, "procs", [])
            deadline = time.monotonic() + PATIENCE
            for child in children:
                try:
                    child.wait(max(deadline - time.monotonic(), 0.1))
                except subprocess.TimeoutExpired:
                    child.kill()
            raise

    def before_fit(self) -> None:
        """Refuse another network's checkpoint, and a closed-form fit to one process's share of the training pairs."""
        net, processes = self.model.net, self.trainer.world_size
        if processes > 1 and hasattr(net, "observe"):
            raise InputError(
                f"--trainer.devices gives {processes} processes; {type(net).__name__} is fitted in closed form, and each of them "
                "would see its own share of the training pairs alone: use --trainer.devices 1"
            )
        self._check_weights()

    def before_test(self) -> None:
        """Refuse several devices before any process is started, and weights that are missing or another network's."""
        check_devices(self.trainer)
        self._check_weights()

    def before_predict(self) -> None:
        """The same."""
        self.before_test()

    def before_validate(self) -> None:
        """Refuse weights that are missing or another network's."""
        self._check_weights()

    def _check_weights(self) -> None:
        path = self.config[self.subcommand].get("ckpt_path")
        if path is not None:
            content = read_checkpoint(Path(path))
            check_weights(
                Path(path),
                content,
                self.model.state_dict(),
                f"--model.net {type(self.model.net).__name__} as configured",
                f"use it with the config.yaml of its own run; where another version wrote it, {OTHER_VERSION}",
            )
        elif self.subcommand != "fit" and self.model.net.state_dict():
            raise InputError(
                f"{self.subcommand} has no --ckpt_path, and {type(self.model.net).__name__} has weights to load; give best, last "
                "or a file"
            )

    def before_instantiate_classes(self) -> None:
        """Check the precision, turn `--ckpt_path best` or `last` into the run folder's file, and check that a file is there.

        `fit` from `last` starts afresh where there is none yet, so that one command both starts a run and goes on with it.
        """
        config = self.config[self.subcommand]
        precision = config.trainer.get("precision")
        if precision is not None and _SHORT_PRECISIONS.get(str(precision), precision) not in PRECISIONS:
            raise InputError(
                f"--trainer.precision {precision} is not supported, since what is computed from depth stays in 32 bits; expected "
                f"one of {', '.join(PRECISIONS)}: choose one of them"
            )
        run = Path(config.trainer.default_root_dir or ".")
        if run.exists() and not run.is_dir():
            raise InputError(f"--trainer.default_root_dir {run} is a file; a run needs a folder: name another")
        path = config.get("ckpt_path")
        if path is None:
            return
        folder = run / "checkpoints"
        file = folder / f"{path}.ckpt" if path in ("best", "last") else Path(path)
        if self.subcommand == "fit" and path == "last" and not file.exists():
            print(f"no checkpoint in {folder} yet: the run starts")
            config.ckpt_path = None
            return
        if not file.is_file():
            there = sorted(str(p) for p in folder.glob("*.ckpt"))
            raise InputError(
                f"--ckpt_path {path} is not a file; "
                + (f"this run has {', '.join(there)}" if there else f"there is no checkpoint in {folder} either: run fit first")
            )
        if not zipfile.is_zipfile(file):
            raise InputError(f"--ckpt_path {file} is broken or no checkpoint; expected a file that fit wrote: choose another")
        config.ckpt_path = str(file)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU; its weights stay on disk until they are used.

    Args:
        file: The checkpoint.

    Raises:
        InputError: If the file is broken, no checkpoint, or holds classes that are unknown here.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (UnpicklingError, EOFError, RuntimeError) as error:
        unknown = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        if unknown is not None:
            raise InputError(
                f"{file}: holds an object of {unknown[1]}, which is unknown here; expected a checkpoint of this version: "
                f"{OTHER_VERSION}"
            ) from error
        raise InputError(f"{file}: is broken or no checkpoint; expected a file that fit wrote: choose another") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise InputError(f"{file}: holds no state_dict; expected a checkpoint that fit wrote: choose another")
    return content


def check_weights(file: Path, content: Mapping[str, Any], own: Mapping[str, Tensor], whose: str, remedy: str) -> None:
    """Refuse weights that are not those of what they are to be loaded into.

    Args:
        file: The checkpoint, for the message.
        content: What it holds.
        own: The state of what it is to be loaded into.
        whose: What that is.
        remedy: What to do where they do not fit.

    Raises:
        InputError: If a tensor is missing, unexpected, or of another shape.
    """
    found = content["state_dict"]
    wrong = {
        "missing": own.keys() - found.keys(),
        "unexpected": found.keys() - own.keys(),
        "of another shape": {key for key in own.keys() & found.keys() if own[key].shape != found[key].shape},
    }
    parts = [
        f"{len(keys)} {what} ({', '.join(sorted(keys)[:3])}{', ...' * (len(keys) > 3)})" for what, keys in wrong.items() if keys
    ]
    if parts:
        net = content.get("ltnet_pl", {}).get("net", "an unknown network")
        raise InputError(f"{file}: holds the weights of {net}, which do not fit {whose}: keys {', '.join(parts)}; {remedy}")


def run(command: str, args: Sequence[str], kind: type[RelightCLI] = RelightCLI) -> RelightCLI:
    """Run one of Lightning's four commands.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        args: Its flags.
        kind: The class that runs it; one that only reads the configuration for `bench`.

    Returns:
        What was configured and has run: task, data, trainer.

    Raises:
        InputError: If something that the user gave is wrong; a flag that the parser refuses ends the process with status 2.
    """
    # Lightning 2.6 calls what jsonargparse 5 will drop; setup.cfg keeps that version out
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    # Lightning advertises other packages through its logger
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(lambda record: "litlogger" not in record.getMessage())
    # relative interpolation follows overrides, also inside a subcommand
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    # a sweep agent writes Python's None where YAML has null
    given = [f"{arg[:-4]}null" if arg.startswith("--") and arg.endswith("=None") else arg for arg in args]
    before = sys.argv
    # not as an argument: further ranks are started with the command line of this process
    sys.argv = [before[0], command, *given]
    try:
        cli = kind(
            RelightTask,
            pl.LightningDataModule,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=RunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            parser_kwargs={"parser_mode": "omegaconf+", "prog": "python -m ltnet_pl", "allow_abbrev": False},
        )
    except SIGTERMException as stop:
        # Lightning would leave with 0, and a stopped run would look like a finished one
        raise SystemExit(TERMINATED) from stop
    except MisconfigurationException as error:
        raise InputError(str(error)) from error
    finally:
        sys.argv = before
    return cli


class _Parsed(RelightCLI):
    """Reads the configuration and stops there."""

    def before_instantiate_classes(self) -> None:
        """No checkpoint is asked for."""

    def instantiate_classes(self) -> None:
        """Nothing is built."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing runs."""


def configuration(flags: Sequence[str]) -> dict[str, Any]:
    """The configuration that `fit` would run with, defaults and interpolations filled in: what its ``config.yaml`` would hold.

    Args:
        flags: Flags of `fit`; where the parser refuses them, it prints why and raises SystemExit.
    """
    noise = logging.getLogger("lightning_fabric.utilities.seed")
    level = noise.level
    noise.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # what changes the class of the network drops the settings of the one before, as it should
            warnings.filterwarnings("ignore", ".*class_path.*discard")
            cli = run("fit", flags, _Parsed)
    finally:
        noise.setLevel(level)
    config: dict[str, Any] = yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))["fit"]
    return config
