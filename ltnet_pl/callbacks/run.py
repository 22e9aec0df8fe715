"""Callbacks of a training run: its folder, reproducible epochs, averaged weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.cli import SaveConfigCallback
from torch import Tensor

from ltnet_pl import InputError
from ltnet_pl.callbacks.files import WholeCheckpoints, checkpoint_path, run_seed, write_bytes


class RunConfig(SaveConfigCallback):
    """Writes ``config.yaml`` into the run folder (``trainer.default_root_dir``) and into the logger, once per fit.

    A folder that holds a run already is refused unless that run is resumed; on a resume with another configuration the old one is
    kept under a numbered name.
    """

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Called by the base class on rank 0, before any work.

        Raises:
            InputError: If the run folder holds another run.
        """
        if stage != "fit":
            return
        folder = Path(trainer.default_root_dir)
        config = folder / "config.yaml"
        resumed = self.config.get("ckpt_path")
        # the file says what was trained, not where one of its parts began
        plain = self.config.clone()
        plain["ckpt_path"] = None
        text = self.parser.dump(plain, skip_none=False)
        own = resumed is not None and Path(resumed).resolve().parent == (folder / "checkpoints").resolve()
        if not own and any(folder.glob("checkpoints/*.ckpt")):
            raise InputError(
                f"--trainer.default_root_dir {folder} already holds a run with checkpoints; go on with it by --ckpt_path "
                "last, or name another folder"
            )
        if config.exists() and config.read_text() != text:
            number = 1 + sum(1 for _ in folder.glob("config.*.yaml"))
            config.rename(folder / f"config.{number}.yaml")
        write_bytes(config, text.encode())
        if trainer.logger is not None:
            trainer.logger.log_hyperparams(yaml.safe_load(text))


class EpochSeed(pl.Callback):
    """Seeds torch at the start of every training epoch, so that a resumed run draws what an uninterrupted one would have.

    A checkpoint that is written within an epoch keeps where the generators of all processes stand.
    """

    def __init__(self) -> None:
        self._states: list[list[Tensor]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed from the run's seed, the epoch and the rank."""
        self._states = []
        state = np.random.SeedSequence([run_seed() or 0, trainer.current_epoch, trainer.global_rank]).generate_state(1)
        torch.manual_seed(int(state[0]))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Go on within an epoch: where another number of processes does, as if it had been seeded anew."""
        states, self._states = self._states, []
        if not states:
            return
        if len(states) != trainer.world_size:
            self.on_train_epoch_start(trainer, pl_module)
            return
        cpu, *cuda = states[trainer.global_rank]
        torch.set_rng_state(cpu)
        if cuda and torch.cuda.is_available():
            torch.cuda.set_rng_state(cuda[0])

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the generators' states; every process takes part."""
        mine = [torch.get_rng_state(), *([torch.cuda.get_rng_state().cpu()] if torch.cuda.is_available() else [])]
        states: list[Any] = [mine]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, mine)
        checkpoint["generators"] = states

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take them back; a new epoch is seeded all the same."""
        self._states = checkpoint.get("generators", [])


class Checkpoint(ModelCheckpoint):
    """Keeps ``checkpoints/best.ckpt`` and ``checkpoints/last.ckpt`` in the run folder.

    A network that is fitted in closed form takes no optimiser step, for which Lightning would save nothing: it is saved at the
    end.

    Args:
        monitor: Logged value that tells which is best.
        mode: ``max`` or ``min``.
    """

    def __init__(self, monitor: str = "val/psnr", mode: Literal["max", "min"] = "max") -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            save_last=True,
            # at the boundary of epochs, where a resumed run goes on exactly as an uninterrupted one
            save_on_train_epoch_end=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self._resumed_at = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """The folder follows the run's, and what is written there is whole."""
        self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # and not one that was asked for
            trainer.strategy.checkpoint_io = WholeCheckpoints()
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning ends a resumed epoch once more, without a metric; what would be saved there is saved already."""
        super().on_train_start(trainer, pl_module)
        self._last_global_step_saved = self._resumed_at = trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the best, and the last always: the base class keeps no last where an epoch was not among the best."""
        if getattr(trainer, "fast_dev_run", False):
            return
        if trainer.global_step == self._resumed_at:
            if self.monitor not in trainer.callback_metrics:
                return
            # stopped within the validation, which was done anew
            self._last_global_step_saved = -1
        super().on_train_epoch_end(trainer, pl_module)
        if self._last_global_step_saved != trainer.global_step:
            trainer.save_checkpoint(checkpoint_path(trainer, "last"), weights_only=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what was fitted without a step, or before the first validation."""
        super().on_train_end(trainer, pl_module)
        for name in ("best", "last"):
            path = checkpoint_path(trainer, name)
            # asked once for all ranks, since saving waits for all of them
            missing = trainer.strategy.broadcast(not path.exists())
            if missing and not getattr(trainer, "fast_dev_run", False):
                trainer.save_checkpoint(path, weights_only=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The best score so far belongs to a run folder; a checkpoint from another one brings none along."""
        if state_dict.get("dirpath") == self.dirpath:
            super().load_state_dict(state_dict)


class EMA(WeightAveraging):
    """Exponential moving average of the weights, used in validation, tests and checkpoints.

    The average warms up: after n steps it keeps min(decay, (1 + n) / (10 + n)) of itself, so that it is usable from the first
    step on. A network without trainable weights is left alone.

    Args:
        decay: Share of the average that is kept per step in the long run, within [0, 1).
    """

    def __init__(self, decay: float = 0.995) -> None:
        if not 0.0 <= decay < 1.0:
            raise InputError(f"EMA decay is {decay}; expected a share within [0, 1): correct it, or leave EMA out for none")
        # buffers are copied, not averaged: the average of counters or of solved transforms means nothing
        super().__init__(use_buffers=False, multi_avg_fn=partial(_average, decay))
        self._validating = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start an average where there is something to average."""
        if any(p.requires_grad for p in pl_module.parameters()):
            super().setup(trainer, pl_module, stage)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._validating = True

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the weights."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._validating = False

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average, and the weights beside it; in a validation each of them stands in the other's place."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._validating and self._average_model is not None:
            weights, average = checkpoint["state_dict"], checkpoint["current_model_state"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = average, weights

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After every optimiser step."""
        return self._average_model is not None and step_idx is not None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the averaged weights in the module."""
        if self._average_model is not None:
            super().on_train_end(trainer, pl_module)


@torch.no_grad()
def _average(decay: float, averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
    """Move the averaged weights towards the current ones, in place; ``count`` averages were taken before."""
    keep = min(decay, (1 + int(count)) / (10 + int(count)))
    for mean, value in zip(averaged, current, strict=True):
        mean.lerp_(value.to(mean.dtype), 1 - keep)
