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
# Lightning's hint where nothing is validated, which is what these tests are about
unvalidated = pytest.mark.filterwarnings(r"ignore:.ModelCheckpoint\(monitor='val/psnr'\). could not find the monitored key")


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
    """At ten random batches, with a checkpoint after every third batch beside those at the epochs' ends."""
    run, rng = tmp_path / "run", random.Random(number)
    stage, batch = rng.choice([("train", rng.randrange(4, 12)), ("val", rng.randrange(4, 10))])
    saves = ["--trainer.callbacks+=ltnet_pl.callbacks.GracefulStop", "--trainer.callbacks.save_every=3"]
    killed = [*command(vidit_root, run, *saves), *signal_at(stage, batch, signal.SIGKILL)]
    process = subprocess.run(killed, check=False, capture_output=True, text=True, timeout=300, env=environment())
    assert process.returncode == -signal.SIGKILL, process.stderr
    steps = batch if stage == "train" else 4 * (batch // 4 + 1)
    # the steps that were done count from the last checkpoint before: every third batch, and the epochs' ends
    assert checkpoint(run)["global_step"] == max(step for step in (3, 4, 6, 8, 9) if step <= steps - (stage == "val"))
    assert main(flags(vidit_root, run, "--ckpt_path=last")) == 0
    assert same(checkpoint(run), checkpoint(whole))
    assert validations(run) == validations(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, **SLOW)])
def test_a_signal_to_all_processes_leaves_the_workers_to_the_main_one(vidit_root, whole, tmp_path, number):
    """As `timeout` and cluster schedulers send it; and a run with workers goes on within an epoch like one without."""
    run, workers = tmp_path / "run", "--data.num_workers=2"
    ended = [*command(vidit_root, run, workers), *signal_at("train", 2, number, group=True)]
    process = subprocess.run(
        ended, check=False, capture_output=True, text=True, timeout=300, env=environment(), start_new_session=True
    )
    assert process.returncode == 143, process.stderr
    assert f"stopped by {number.name} at step 3" in process.stdout
    assert main(flags(vidit_root, run, "--ckpt_path=last", workers)) == 0
    assert same(checkpoint(run), checkpoint(whole))


@unvalidated
def test_epochs_of_one_batch_hear_signals(vidit_root, tmp_path, capsys):
    """Where no validation and no batch but the last one of an epoch could ask."""
    short = ("--data.samples_per_epoch=2", "--trainer.limit_val_batches=0", "--trainer.max_steps=4")
    for run, more in ((tmp_path / "run", signal_at("train", 1)), (tmp_path / "whole", ())):
        if more:
            stopped(vidit_root, run, *short, *more)
            assert "stopped by SIGTERM at step 2" in capsys.readouterr().out
        assert main(flags(vidit_root, run, *short, *(["--ckpt_path=last"] if more else ()))) == 0
    assert same(checkpoint(tmp_path / "run"), checkpoint(tmp_path / "whole"))


@unvalidated
def test_questions_are_counted_over_epochs(vidit_root, tmp_path, capsys):
    """Every fifth batch, where an epoch has four, the fourth of which cannot ask."""
    asks = ["--trainer.callbacks+=ltnet_pl.callbacks.GracefulStop", "--trainer.callbacks.every=5"]
    stopped(vidit_root, tmp_path / "run", "--trainer.limit_val_batches=0", *asks, *signal_at("train", 0))
    assert "stopped by SIGTERM at step 5" in capsys.readouterr().out


def test_a_checkpoint_that_breaks_off_leaves_the_last_one(vidit_root, tmp_path, monkeypatch):
    run, save = tmp_path / "run", torch.save

    def full(checkpoint, file):
        if checkpoint["global_step"] == 8:
            file.write(b"half a file")
            raise OSError("No space left on device")
        save(checkpoint, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        main(flags(vidit_root, run))
    assert checkpoint(run)["global_step"] == 4
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    monkeypatch.undo()
    assert main(flags(vidit_root, run, "--ckpt_path=last")) == 0
    assert checkpoint(run)["global_step"] == 12


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
