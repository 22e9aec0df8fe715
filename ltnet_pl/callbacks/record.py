"""The record of a run, for whoever compares runs without a server: what was logged, line by line, and a summary."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ltnet_pl.callbacks.files import run_seed, write_bytes
from ltnet_pl.callbacks.stop import Stopped
from ltnet_pl.files import METRICS, SUMMARY, read_lines


class RunRecord(pl.Callback):
    """Writes ``metrics.jsonl`` and ``summary.json`` into the run folder, on the first process.

    A line holds ``step`` (optimiser steps done), ``epoch``, ``seconds`` (of this and all earlier sittings), and either numbers of
    training (``train/*``, every `trainer.log_every_n_steps`) or of a validation (``val/*``). A run that goes on drops the lines
    after the step that it goes on from.

    The summary holds ``status`` (running, stopped, failed or finished), ``row``, ``net``, ``seed``, ``parameters``, ``steps``,
    ``seconds``, ``last`` (the last value of every number) and ``best`` (the numbers of the validation that was best by the
    monitored value; ``monitor``, ``mode``). Numbers that are not finite are null.
    """

    def __init__(self) -> None:
        self._begun = self._before = 0.0
        self._monitor, self._mode = "val/psnr", "max"
        self._last: dict[str, float | None] = {}
        self._best: dict[str, float | None] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read what an earlier sitting wrote, as far as this one goes on from it."""
        self._begun, self._before, self._last, self._best = time.monotonic(), 0.0, {}, {}
        watch = trainer.checkpoint_callback
        if watch is not None and getattr(watch, "monitor", None):
            self._monitor, self._mode = str(getattr(watch, "monitor", "")), str(getattr(watch, "mode", "max"))
        if not self._writes(trainer):
            return
        path = Path(trainer.default_root_dir) / METRICS
        kept = [line for line in read_lines(path) if line["step"] <= trainer.global_step] if trainer.global_step else []
        write_bytes(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        for line in kept:
            self._before = line["seconds"]
            self._take({key: value for key, value in line.items() if "/" in key})
        self._summarise(trainer, pl_module, "running")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the numbers of training where they are logged."""
        if self._writes(trainer) and trainer.global_step % int(getattr(trainer, "log_every_n_steps", 50)) == 0:
            # callback metrics hold the last value of each number, of whatever step
            self._note(trainer, {key: value for key, value in trainer.callback_metrics.items() if key.startswith("train/")})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the numbers of a validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self._writes(trainer):
            self._note(trainer, {key: value for key, value in trainer.callback_metrics.items() if key.startswith("val/")})
            self._summarise(trainer, pl_module, "running")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The run is finished."""
        if self._writes(trainer):
            self._summarise(trainer, pl_module, "finished")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """The run was stopped, or failed."""
        if self._begun and self._writes(trainer):
            stopped = isinstance(exception, Stopped | KeyboardInterrupt)
            self._summarise(trainer, pl_module, "stopped" if stopped else "failed")

    def _writes(self, trainer: pl.Trainer) -> bool:
        return trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False)

    def _seconds(self) -> float:
        return round(self._before + time.monotonic() - self._begun, 3)

    def _note(self, trainer: pl.Trainer, numbers: dict[str, Any]) -> None:
        """One more line, written at once."""
        if not numbers:
            return
        plain = {key: number if math.isfinite(number := float(value)) else None for key, value in numbers.items()}
        head = {"step": trainer.global_step, "epoch": trainer.current_epoch, "seconds": self._seconds()}
        with open(Path(trainer.default_root_dir) / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(head | plain) + "\n")
        self._take(plain)

    def _take(self, numbers: dict[str, float | None]) -> None:
        self._last |= numbers
        value, best = numbers.get(self._monitor), self._best.get(self._monitor)
        if value is not None and (best is None or (value > best if self._mode == "max" else value < best)):
            self._best = dict(numbers)

    def _summarise(self, trainer: pl.Trainer, task: Any, status: str) -> None:
        net = getattr(task, "net", None)
        summary = {
            "status": status,
            "row": getattr(task, "row_name", type(task).__name__),
            "net": type(net).__name__,
            "seed": run_seed(),
            "parameters": sum(p.numel() for p in net.parameters()) if net is not None else None,
            "steps": trainer.global_step,
            "seconds": self._seconds(),
            "monitor": self._monitor,
            "mode": self._mode,
            "best": self._best,
            "last": self._last,
        }
        write_bytes(Path(trainer.default_root_dir) / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
