"""Ending a run from outside: on a signal all processes write a checkpoint together, and go."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import WandbLogger

from ltnet_pl import InputError
from ltnet_pl.callbacks.files import checkpoint_path
from ltnet_pl.callbacks.run import Checkpoint as LastCheckpoint

TERMINATED = 128 + signal.SIGTERM
"""Exit status of a run that was stopped: what a shell says of a process that SIGTERM ended."""

_Handler = Callable[[int, FrameType | None], Any] | int | None


class Stopped(SystemExit):
    """A run was stopped by a signal; its checkpoint is written. The code is the status to leave with."""


class GracefulStop(Checkpoint):
    """Ends a run on SIGTERM or SIGUSR1 with ``checkpoints/last.ckpt``, from which ``--ckpt_path last`` goes on to the bit.

    The signal may reach any process of the run, or all of them. It only leaves a note; after every `every`-th batch of training,
    and every batch of a validation, all processes ask each other for notes, and stop together. Lightning's own handler waits for
    the others within the signal, while they wait for something else: a deadlock.

    SIGTERM leaves with status 143, or with 0 under a W&B sweep agent, whose stop command it is. SIGUSR1 is preemption: the W&B
    run is marked as preempting, and the status is 143, so that an agent takes the run up again.

    A validation that was stopped is done anew; in the last one of a run there is nothing to go on with, and its score is lost.

    Args:
        every: Batches of training from one question to the next, over epochs. It costs a reduction of one number on the CPU.
        save_every: Batches of training from one writing of ``last.ckpt`` to the next, over epochs and in addition to their ends;
            null for none. A killed run loses no more than these.
    """

    def __init__(self, every: int = 1, save_every: int | None = None) -> None:
        for name, value in (("every", every), ("save_every", save_every)):
            if value is not None and value < 1:
                raise InputError(f"{name} of the callback GracefulStop is {value}; expected 1 or more: raise it")
        self.every, self.save_every = every, save_every
        self._unasked = self._unsaved = 0
        self._noted = 0
        self._before: dict[int, _Handler] = {}
        self._group: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen to the signals, in place of Lightning's handler."""
        if trainer.world_size > 1:
            # on the CPU, so that no question waits for a GPU
            self._group = torch.distributed.new_group(backend="gloo", timeout=timedelta(minutes=30))
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                self._before[number] = signal.signal(number, self._note)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the signals to whom they were before."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """The same."""
        self._restore()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask, where a run can go on from: neither amid gathered gradients nor before the epoch's own end."""
        self._unasked += 1
        self._unsaved += 1
        done = batch_idx + 1
        if trainer.is_last_batch or done % trainer.accumulate_grad_batches or getattr(trainer, "fast_dev_run", False):
            return
        if self._unasked >= self.every:
            self._ask(trainer)
        if self.save_every is not None and self._unsaved >= self.save_every:
            self._save(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask between epochs too, which may have a single batch: a run goes on from what the last one's end has written."""
        saved = any(isinstance(callback, LastCheckpoint) for callback in trainer.checkpoint_callbacks)
        if saved and self._unasked >= self.every and not getattr(trainer, "fast_dev_run", False):
            self._ask(trainer, save=False)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Ask within a validation too, which may take long."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not getattr(trainer, "fast_dev_run", False):
            self._ask(trainer)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # preemption gives way to an end
        self._noted = number if self._noted != signal.SIGTERM else self._noted

    def _ask(self, trainer: pl.Trainer, save: bool = True) -> None:
        """Stop where any process has a note."""
        self._unasked = 0
        noted = torch.tensor([self._noted == signal.SIGTERM, self._noted == signal.SIGUSR1], dtype=torch.uint8)
        if self._group is not None:
            torch.distributed.all_reduce(noted, torch.distributed.ReduceOp.MAX, group=self._group)
        terminated, preempted = noted.tolist()
        if not terminated and not preempted:
            return
        if not terminated:
            for logger in trainer.loggers if trainer.is_global_zero else ():
                if isinstance(logger, WandbLogger):
                    logger.experiment.mark_preempting()
        if save:
            self._save(trainer)
        if trainer.is_global_zero:
            name = "SIGTERM" if terminated else "SIGUSR1"
            print(f"stopped by {name} at step {trainer.global_step}; go on with --ckpt_path last", flush=True)
        raise Stopped(0 if terminated and "WANDB_SWEEP_ID" in os.environ else TERMINATED)

    def _save(self, trainer: pl.Trainer) -> None:
        self._unsaved = 0
        trainer.save_checkpoint(checkpoint_path(trainer, "last"), weights_only=False)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
