"""Runs that are stopped by a signal: they leave a checkpoint, and go on as if nothing had been."""

from __future__ import annotations

import random
import signal
import subprocess

import pytest
import torch
from fits import checkpoint, command, environment, flags, same, signal_at, validations

from ltnet_pl import InputError
from ltnet_pl.callbacks import GracefulStop
from ltnet_pl.cli import main


@pytest.fixture(scope="module")
def whole(vidit_root, tmp_path_factory):
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(flags(vidit_root, run)) == 0
    return run


def stopped(root, run, *more, status=143):
    with pytest.raises(SystemExit) as stop:
        main(flags(root, run, *more))
    assert stop.value.code == status


SLOW = {"marks": pytest.mark.slow}


@pytest.mark.parametrize(
    ("stage", "batch", "step"),
    [
        ("train", 2, 3),
        ("val", 4, 8),
        pytest.param("train", 0, 1, **SLOW),
        pytest.param("train", 3, 4, **SLOW),
        pytest.param("train", 4, 5, **SLOW),
        pytest.param("train", 6, 7, **SLOW),
        pytest.param("val", 0, 4, **SLOW),
        pytest.param("val", 2, 4, **SLOW),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(vidit_root, whole, tmp_path, capsys, stage, batch, step):
    """Within an epoch, at its last batch (the validation's first then stops), at the next one's first, and in validations."""
    run = tmp_path / "run"
    stopped(vidit_root, run, *signal_at(stage, batch))
    assert f"stopped by SIGTERM at step {step}; go on with --ckpt_path last" in capsys.readouterr().out
    assert checkpoint(run)["global_step"] == step
    assert main(flags(vidit_root, run, "--ckpt_path=last")) == 0
    assert same(checkpoint(run), checkpoint(whole))
    assert validations(run) == validations(whole)
    best = [checkpoint(r, "best") for r in (run, whole)]
    assert best[0]["global_step"] == best[1]["global_step"]
    assert all(torch.equal(best[0]["state_dict"][key], best[1]["state_dict"][key]) for key in best[1]["state_dict"])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_killed_without_notice_and_resumed_equals_uninterrupted(vidit_root, whole, tmp_path, number):
    """At ten random batches, with a checkpoint after every third batch of an epoch beside those at the epochs' ends."""
    run, rng = tmp_path / "run", random.Random(number)
    stage, batch = rng.choice([("train", rng.randrange(4, 12)), ("val", rng.randrange(4, 10))])
    saves = ["--trainer.callbacks+=ltnet_pl.callbacks.GracefulStop", "--trainer.callbacks.save_every=3"]
    killed = [*command(vidit_root, run, *saves), *signal_at(stage, batch, signal.SIGKILL)]
    process = subprocess.run(killed, check=False, capture_output=True, text=True, timeout=300, env=environment())
    assert process.returncode == -signal.SIGKILL, process.stderr
    steps = batch if stage == "train" else 4 * (batch // 4 + 1)
    # the steps that were done count from the last checkpoint before: at 3, 4, 7, 8, 11 steps
    assert checkpoint(run)["global_step"] == max(step for step in (3, 4, 7, 8, 11) if step <= steps - (stage == "val"))
    assert main(flags(vidit_root, run, "--ckpt_path=last")) == 0
    assert same(checkpoint(run), checkpoint(whole))
    assert validations(run) == validations(whole)


def test_a_sweep_agents_stop_is_no_failure(vidit_root, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    stopped(vidit_root, tmp_path / "run", *signal_at("train", 1), status=0)
    stopped(vidit_root, tmp_path / "other", *signal_at("train", 1, signal.SIGUSR1))


def test_preemption_saves_too(vidit_root, tmp_path, capsys):
    stopped(vidit_root, tmp_path / "run", *signal_at("train", 1, signal.SIGUSR1))
    assert "stopped by SIGUSR1 at step 2" in capsys.readouterr().out
    assert checkpoint(tmp_path / "run")["global_step"] == 2


def test_another_epoch_is_refused_within_one(vidit_root, tmp_path, capsys):
    stopped(vidit_root, tmp_path / "run", *signal_at("train", 1))
    assert main(flags(vidit_root, tmp_path / "run", "--ckpt_path=last", "--data.samples_per_epoch=12")) == 2
    error = capsys.readouterr().err
    assert "stands at batch 2 of an epoch of 4, which has 6 now; expected as many: leave --data.batch_size" in error


@pytest.mark.parametrize("name", ["every", "save_every"])
def test_settings_out_of_range(name):
    with pytest.raises(InputError, match=rf"{name} of the callback GracefulStop is 0; expected 1 or more"):
        GracefulStop(**{name: 0})
