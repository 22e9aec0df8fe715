"""Short runs of `fit`, in this process or in one of their own, and callbacks that disturb them."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytorch_lightning as pl
import torch

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def flags(root, run, *more):
    """Three epochs of four steps on a set of analytic scenes, each validated; a later flag wins."""
    given = ["--config", str(EXPERIMENTS / "base.yaml"), "--config", str(EXPERIMENTS / "debug.yaml"), f"--data.root={root}"]
    given += [f"--trainer.default_root_dir={run}", "--data.val_scenes=2", "--data.test_scenes=2", "--data.pairs_per_scene=4"]
    given += ["--trainer.max_steps=12", "--data.samples_per_epoch=8", f"--data.pairs={run.parent / 'pairs'}"]
    return ["fit", *given, "--trainer.accelerator=cpu", *more]


def command(root, run, *more):
    """The same as a process of its own."""
    return [sys.executable, "-m", "ltnet_pl", *flags(root, run, *more)]


def environment(**more):
    """That of a process of its own, in which this module can be imported."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1", **more}


def validations(run, key="val/psnr"):
    """The last value of a validation metric for each step, over all logs of a run."""
    found = {}
    for path in sorted((run / "logs").glob("version_*/metrics.csv")):
        with path.open() as file:
            found |= {int(row["step"]): row[key] for row in csv.DictReader(file) if row.get(key)}
    return found


def checkpoint(run, name="last"):
    """What a run's checkpoint holds."""
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def same(one, other):
    """Whether two checkpoints hold the same weights, averages and moments, to the bit."""

    def equal(a, b):
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
        if isinstance(a, list):
            return len(a) == len(b) and all(map(equal, a, b))
        return a == b

    keys = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step")
    return all(equal(one[key], other[key]) for key in keys)


class SignalAt(pl.Callback):
    """Sends this process a signal at a batch: counted over all batches of training, or of validations.

    Args:
        stage: train or val.
        batch: Which batch, from 0.
        number: The signal; 0 for an exception.
        rank: The process that gets it.
        group: Whether its whole group gets it, from a process apart.
    """

    def __init__(self, stage: str, batch: int, number: int = signal.SIGTERM, rank: int = 0, group: bool = False) -> None:
        self.stage, self.batch, self.number, self.rank, self.group, self.seen = stage, batch, number, rank, group, 0

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        self._count(trainer, "train")

    def on_validation_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        self._count(trainer, "val")

    def _count(self, trainer: pl.Trainer, stage: str) -> None:
        if stage == self.stage:
            if self.seen == self.batch and trainer.global_rank == self.rank:
                if not self.number:
                    raise RuntimeError(f"rank {self.rank} is broken")
                print(f"signal at {time.time()}", flush=True)
                if self.group:
                    # the sender is of the group, too
                    subprocess.run(["kill", f"-{self.number}", "--", f"-{os.getpgid(0)}"], check=False)
                else:
                    os.kill(os.getpid(), self.number)
            self.seen += 1


class Strange(pl.Callback):
    """Logs a number of validation that is not finite."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("val/strange", float("nan"))


def signal_at(stage, batch, number=signal.SIGTERM, rank=0, group=False):
    """Flags that add the callback."""
    given = {"stage": stage, "batch": batch, "rank": rank, "number": int(number), "group": group}
    return ["--trainer.callbacks+=fits.SignalAt", *(f"--trainer.callbacks.{key}={value}" for key, value in given.items())]
