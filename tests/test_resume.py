"""A run that is killed and resumed ends where the uninterrupted one ends."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def command(root, run, *more):
    flags = ["--config", str(EXPERIMENTS / "base.yaml"), "--config", str(EXPERIMENTS / "debug.yaml"), f"--data.root={root}"]
    flags += [
        f"--trainer.default_root_dir={run}",
        "--data.val_scenes=2",
        "--data.test_scenes=2",
        "--data.pairs_per_scene=4",
        "--trainer.max_steps=12",
    ]
    flags += ["--data.samples_per_epoch=8", f"--data.pairs={run.parent / 'pairs'}"]
    return [sys.executable, "-m", "ltnet_pl", "fit", *flags, "--trainer.accelerator=cpu", *more]


def validations(run):
    """The last value of val/psnr for each step, over all logs of a run."""
    found = {}
    for path in sorted((run / "logs").glob("version_*/metrics.csv")):
        with path.open() as file:
            found |= {int(row["step"]): row["val/psnr"] for row in csv.DictReader(file) if row.get("val/psnr")}
    return found


@pytest.mark.slow
def test_a_terminated_run_does_not_look_finished(vidit_root, tmp_path):
    process = subprocess.Popen(
        command(vidit_root, tmp_path / "run", "--trainer.max_steps=100000"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=100) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(vidit_root, tmp_path):
    """Three epochs of four steps; the second run is killed without notice once the first epoch's checkpoint is there."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command(vidit_root, whole), check=True, capture_output=True, timeout=300)
    process = subprocess.Popen(command(vidit_root, broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (broken / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    resumed = subprocess.run(
        command(vidit_root, broken, "--ckpt_path=last"), check=True, capture_output=True, text=True, timeout=300
    )
    assert "Restoring states from the checkpoint" in resumed.stderr + resumed.stdout
    expected, found = validations(whole), validations(broken)
    assert len(expected) == 3
    last = max(expected)
    assert found[last] == expected[last]
