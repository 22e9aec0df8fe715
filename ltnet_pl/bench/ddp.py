"""`bench ddp`: one process against several, by the metrics that they find and the samples that they take per second."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from ltnet_pl import InputError
from ltnet_pl.bench.hashes import machine
from ltnet_pl.experiment import read_checkpoint
from ltnet_pl.files import METRICS, atomic_write, read_lines
from ltnet_pl.processes import quoted, tail
from ltnet_pl.report.tables import markdown

WARM_UP = 3
"""Steps that are not timed: they pay for memory and for what is read first."""


class Stopwatch(pl.Callback):
    """Writes ``stopwatch.json`` into the run folder: how many steps took how many seconds, without the first ones.

    ``waited`` are the seconds from one step's end to the next one's begin: what the next batch took to come and to be moved.
    """

    def __init__(self) -> None:
        self._begin = self._left = self._waited = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Note how long the batch took to come."""
        self._waited += time.perf_counter() - self._left

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start after the warm-up, and note the time after every later step."""
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self._left = time.perf_counter()
        if trainer.global_step == WARM_UP:
            self._begin, self._waited = self._left, 0.0
        elif trainer.global_step > WARM_UP and trainer.is_global_zero and trainer.global_step == trainer.max_steps:
            seconds = self._left - self._begin
            content = {"steps": trainer.global_step - WARM_UP, "seconds": seconds, "waited": self._waited}
            with atomic_write(Path(trainer.default_root_dir) / "stopwatch.json") as file:
                file.write(json.dumps(content).encode())


def ddp(
    data: str,
    processes: int = 2,
    steps: int = 40,
    batch: int = 4,
    size: int | None = None,
    device: Literal["cpu", "gpu"] = "cpu",
    config: str = "experiments/base.yaml",
) -> None:
    """Train the same on one process and on several; print how far metrics and weights differ, and the weak scaling.

    Two scenes of the set are validated on at the end, four pairs each.

    For the first table every process count trains with the same global batch; for the second, the batch grows with the processes,
    and each of them has the same work; it says too which share of the time the first one waits for its batches. On the CPU each
    process has one thread.

    Args:
        data: Folder of an any-to-any set.
        processes: How many processes are held against one; with 1, how fast it is alone, and whether it waits for data.
        steps: Steps of each training.
        batch: Samples per process and step.
        size: Shorter side of the frames in pixels; by default that of the files.
        device: cpu (gloo) or gpu (NCCL).
        config: Configuration that is trained; several files are joined by +.

    Raises:
        InputError: If an argument is out of range, there are too few GPUs, or a training fails.
    """
    for flag, value, least in (("processes", processes, 1), ("steps", steps, WARM_UP + 2), ("batch", batch, 1)):
        if value < least:
            raise InputError(f"--{flag} {value}: expected {least} or more; give another")
    if device == "gpu" and torch.cuda.device_count() < processes:
        raise InputError(f"--processes {processes}: there are {torch.cuda.device_count()} GPUs here; give fewer, or --device cpu")
    flags = [
        *(f"--config={file}" for file in config.split("+")),
        f"--data.root={data}",
        f"--trainer.max_steps={steps}",
        "--trainer.log_every_n_steps=1",
    ]
    flags += [f"--data.size={'null' if size is None else size}", "--trainer.callbacks+=ltnet_pl.bench.ddp.Stopwatch"]
    flags += [f"--trainer.accelerator={device}", "--data.val_scenes=2", "--data.test_scenes=0", "--data.pairs_per_scene=4"]
    command = f"python -m ltnet_pl bench ddp {data} --processes {processes} --steps {steps} --batch {batch}"
    command += "" if size is None else f" --size {size}"
    said = f"`{command}{'' if device == 'cpu' else f' --device {device}'}`"
    where = f"{machine(device == 'gpu')}; {datetime.date.today().isoformat()}"
    with TemporaryDirectory(prefix="bench-ddp-") as folder:
        runs = {}
        several = [("alone", 1, processes * batch), ("together", processes, processes * batch)] if processes > 1 else []
        for name, count, samples in (*several, ("small", 1, batch)):
            runs[name] = Path(folder) / name
            _fit(runs[name], [*flags, f"--data.pairs={Path(folder) / 'pairs'}"], count, samples, steps)
        rows = [(1, batch, *_rate(runs["small"], batch))]
        if several:
            print(f"{said} ({where})\n\n{markdown(*_equality(runs['alone'], runs['together'], processes))}\n")
            rows.append((processes, processes * batch, *_rate(runs["together"], processes * batch)))
    head = ["processes", "samples per step", "samples per second", "efficiency", "waiting for data"]
    body = [[str(n), str(b), f"{rate:.2f}", f"{rate / rows[0][2] / n:.0%}", f"{waited:.1%}"] for n, b, rate, waited in rows]
    print(f"{said} ({where})\n\n{markdown(head, body)}")


def _fit(run: Path, flags: list[str], processes: int, batch: int, steps: int) -> None:
    """Train in processes of their own."""
    given = [*flags, f"--trainer.default_root_dir={run}", f"--data.batch_size={batch}", f"--trainer.devices={processes}"]
    given += [f"--data.samples_per_epoch={batch * steps}", *(["--trainer.strategy=ddp"] if processes > 1 else [])]
    call = [sys.executable, "-m", "ltnet_pl", "fit", *given]
    done = subprocess.run(call, check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        end = quoted(tail(done.stderr))
        raise InputError(f"training on {processes} processes failed with exit status {done.returncode}:\n{end}")


def _equality(alone: Path, together: Path, processes: int) -> tuple[list[str], list[list[str]]]:
    """The validation's numbers of both runs, and the largest difference of the weights."""
    one, many = _validation(alone), _validation(together)
    head = ["", "1 process", f"{processes} processes", "relative difference"]
    rows = [
        [name, f"{value:.6g}", f"{many[name]:.6g}", f"{abs(many[name] - value) / max(abs(value), 1e-12):.1e}"]
        for name, value in one.items()
    ]
    states = [read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (alone, together)]
    largest = max(float(value.abs().max()) for value in states[0].values() if value.is_floating_point())
    apart = max(float((value - states[1][key]).abs().max()) for key, value in states[0].items() if value.is_floating_point())
    return head, [*rows, ["weights, largest difference", "", "", f"{apart / largest:.1e} of the largest weight"]]


def _validation(run: Path) -> dict[str, float]:
    lines = read_lines(run / METRICS)
    numbers = {key: value for line in lines for key, value in line.items() if key.startswith("val/") and value is not None}
    if not numbers:
        raise InputError(f"{run}: no validation was logged; expected one at the end: give a set with --data.val_scenes of scenes")
    return dict(sorted(numbers.items()))


def _rate(run: Path, batch: int) -> tuple[float, float]:
    """Samples per second, and the share of the time that was spent waiting for them."""
    watch = json.loads((run / "stopwatch.json").read_text(encoding="utf-8"))
    return batch * watch["steps"] / watch["seconds"], watch["waited"] / watch["seconds"]
