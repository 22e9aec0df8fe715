"""Two processes on the CPU: the same numbers as one, stops that no process outlives, and errors that end the job."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fits import EXPERIMENTS, checkpoint, command, environment, flags, same, signal_at, validations

from ltnet_pl import InputError
from ltnet_pl.bench.ddp import WARM_UP, Stopwatch
from ltnet_pl.cli import main
from ltnet_pl.data import AnyToAnyDataModule
from ltnet_pl.data.sampler import EpochSampler, Share

TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")


def run_two(root, run, *more, launcher=None, **variables):
    """A run of two processes; returns what it left."""
    call = command(root, run, *TWO, *more)
    if launcher is not None:
        call = [*launcher, *call[2:]]
    return subprocess.run(call, check=False, capture_output=True, text=True, timeout=300, env=environment(**variables))


@pytest.fixture(scope="module")
def whole(vidit_root, tmp_path_factory):
    """An uninterrupted run of two processes."""
    run = tmp_path_factory.mktemp("two") / "run"
    done = run_two(vidit_root, run)
    assert done.returncode == 0, done.stderr
    return run


def logged(run):
    """Every number of validation by step and name."""
    numbers = {}
    for path in (run / "logs").glob("version_*/metrics.csv"):
        with path.open() as file:
            for row in csv.DictReader(file):
                numbers |= {(row["step"], key): float(value) for key, value in row.items() if key.startswith("val/") and value}
    return numbers


# --- shares -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [2, 3, 4])
def test_steps_of_several_processes_are_those_of_one(world):
    alone, batch = EpochSampler(24, seed=1), 12
    alone.set_epoch(3)
    order, shares = list(alone), []
    for rank in range(world):
        sampler = EpochSampler(24, 1, rank, world)
        sampler.set_epoch(3)
        shares.append(list(sampler))
    mine = batch // world
    for step in range(24 // batch):
        together = {number for share in shares for number in share[step * mine : (step + 1) * mine]}
        assert together == set(order[step * batch : (step + 1) * batch])


@pytest.mark.parametrize(("length", "world"), [(7, 2), (8, 2), (5, 4), (3, 3)])
def test_a_list_is_shared_whole_and_padded_beyond_its_end(length, world):
    shares = [list(Share(length, rank, world)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    numbers = sorted(number for share in shares for number in share)
    assert numbers == list(range(len(numbers)))
    assert length <= len(numbers) < length + world


class Devices:
    """What a data module asks of a trainer."""

    def __init__(self, rank, world):
        self.global_rank, self.world_size = rank, world
        self.strategy = SimpleNamespace(root_device=torch.device("cpu"))


def data_of(root, pairs, rank, world, **more):
    data = AnyToAnyDataModule(root=str(root), pairs=str(pairs), val_scenes=2, pairs_per_scene=3, batch_size=4, **more)
    data.trainer = Devices(rank, world)
    return data


def test_validation_marks_what_only_pads(vidit_root, tmp_path):
    names, padded = [], []
    for rank in range(4):
        data = data_of(vidit_root, tmp_path, rank, 4)
        data.setup("fit")
        batches = list(data.val_dataloader())
        assert [len(batch["name"]) for batch in batches] == [1, 1]
        names += [name for b in batches for name, pads in zip(b["name"], b["padding"].tolist(), strict=True) if not pads]
        padded.append(sum(int(batch["padding"].sum()) for batch in batches))
    alone = data_of(vidit_root, tmp_path, 0, 1)
    alone.setup("fit")
    whole = list(alone.val_dataloader())
    assert sorted(names) == sorted(name for batch in whole for name in batch["name"])
    assert padded == [0, 0, 1, 1]
    assert "padding" not in whole[0]


def test_what_processes_cannot_share_is_refused(vidit_root, tmp_path):
    with pytest.raises(
        InputError, match=r"--data.batch_size 4 is shared by 3 processes; expected a multiple of 3: choose 3 or 6"
    ):
        data_of(vidit_root, tmp_path, 0, 3).setup("fit")
    data = AnyToAnyDataModule(root=str(vidit_root), pairs=str(tmp_path), val_scenes=2, pairs_per_scene=1, batch_size=4)
    data.trainer = Devices(0, 4)
    data.setup("fit")
    with pytest.raises(InputError, match=r"--trainer.devices gives 4 processes, but there are 2 pairs to validate on"):
        data.val_dataloader()


# --- two processes ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_find_what_one_finds(vidit_root, whole, tmp_path):
    """Every metric and loss of every validation, an odd number of pairs included; only the order of additions differs."""
    more = ["--data.pairs_per_scene=3", "--data.val_scenes=1", "--data.same_scene_guide=true"]
    assert main(flags(vidit_root, tmp_path / "one")) == 0
    assert main(flags(vidit_root, tmp_path / "odd", *more)) == 0
    done = run_two(vidit_root, tmp_path / "odd_two", *more)
    assert done.returncode == 0, done.stderr
    for one, two in ((tmp_path / "one", whole), (tmp_path / "odd", tmp_path / "odd_two")):
        alone, together = logged(one), logged(two)
        assert alone.keys() == together.keys()
        assert len(validations(one)) == 3
        for key, value in alone.items():
            assert together[key] == pytest.approx(value, rel=2e-4, abs=1e-5), key


@pytest.mark.slow
def test_torchrun_starts_the_same_run(vidit_root, whole, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    done = run_two(vidit_root, tmp_path / "run", launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert same(checkpoint(tmp_path / "run"), checkpoint(whole))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "batch", "rank", "variables", "status"),
    [
        ("train", 5, 0, {}, 143),
        ("train", 5, 1, {}, 143),
        ("val", 0, 0, {}, 143),
        ("val", 1, 1, {}, 143),
        ("train", 6, 0, {"WANDB_SWEEP_ID": "abc"}, 0),
    ],
)
def test_all_processes_stop_together_and_go_on(vidit_root, whole, tmp_path, stage, batch, rank, variables, status):
    """Within five seconds, whichever process got the signal; the resumed run ends as the uninterrupted one."""
    run = tmp_path / "run"
    done = run_two(vidit_root, run, *signal_at(stage, batch, rank=rank), **variables)
    ended = time.time()
    assert done.returncode == status, done.stderr
    assert ended - float(re.search(r"signal at (\S+)", done.stdout)[1]) < 5
    assert "stopped by SIGTERM at step" in done.stdout
    assert not subprocess.run(["pgrep", "-f", str(run)], check=False, capture_output=True).stdout
    done = run_two(vidit_root, run, "--ckpt_path=last")
    assert done.returncode == 0, done.stderr
    assert same(checkpoint(run), checkpoint(whole))
    assert validations(run) == validations(whole)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_crashes_takes_the_job_down(vidit_root, tmp_path, rank):
    begun = time.monotonic()
    done = run_two(vidit_root, tmp_path / "run", *signal_at("train", 2, number=0, rank=rank))
    assert done.returncode not in (0, 143)
    assert time.monotonic() - begun < 60
    assert f"RuntimeError: rank {rank} is broken" in done.stderr
    assert "Traceback" in done.stderr
    assert not subprocess.run(["pgrep", "-f", str(tmp_path)], check=False, capture_output=True).stdout


@pytest.mark.slow
def test_a_mistake_ends_all_processes_with_its_message(vidit_root, whole, tmp_path):
    """The run folder is refused by the first process alone, while the other waits for it."""
    done = run_two(vidit_root, whole)
    assert done.returncode == 2
    assert "already holds a run with checkpoints; go on with it by --ckpt_path last" in done.stderr
    assert not subprocess.run(["pgrep", "-f", str(whole)], check=False, capture_output=True).stdout


@pytest.mark.slow
def test_preemption_of_two_processes(vidit_root, tmp_path):
    done = run_two(vidit_root, tmp_path / "run", *signal_at("train", 5, signal.SIGUSR1, rank=1))
    assert done.returncode == 143, done.stderr
    assert "stopped by SIGUSR1 at step 6" in done.stdout
    assert np.isfinite([float(value) for value in validations(tmp_path / "run").values()]).all()


# --- the benchmark ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bench_ddp_prints_equality_and_scaling(vidit_root, capsys):
    config = f"{EXPERIMENTS / 'base.yaml'}+{EXPERIMENTS / 'debug.yaml'}"
    assert main(["bench", "ddp", str(vidit_root), "--steps=6", "--batch=2", f"--config={config}"]) == 0
    out = capsys.readouterr().out
    found = dict(re.findall(r"^\| (val/\w+) \|.*\| (\S+) \|$", out, re.MULTILINE))
    assert {"val/psnr", "val/loss", "val/guide_direction_accuracy"} <= found.keys()
    assert max(map(float, found.values())) < 1e-3
    assert re.search(r"\| weights, largest difference \|.* of the largest weight \|", out)
    rates = re.findall(r"^\| ([12]) \| ([24]) \| ([\d.]+) \| (\d+)% \| ([\d.]+)% \|$", out, re.MULTILINE)
    assert all(0 < float(row[4]) < 100 for row in rates)
    assert [row[:2] for row in rates] == [("1", "2"), ("2", "4")]
    assert rates[0][3] == "100"
    assert int(rates[1][3]) == pytest.approx(100 * float(rates[1][2]) / float(rates[0][2]) / 2, abs=1)


@pytest.mark.slow
def test_bench_ddp_of_one_process_says_how_long_it_waits(vidit_root, capsys):
    config = f"{EXPERIMENTS / 'base.yaml'}+{EXPERIMENTS / 'debug.yaml'}"
    assert main(["bench", "ddp", str(vidit_root), "--processes=1", "--steps=6", "--batch=2", f"--config={config}"]) == 0
    out = capsys.readouterr().out
    assert "weights, largest difference" not in out
    assert len(re.findall(r"^\| 1 \| 2 \| [\d.]+ \| 100% \| [\d.]+% \|$", out, re.MULTILINE)) == 1


def test_the_stopwatch_tells_work_from_waiting(tmp_path, monkeypatch):
    """Batches that take 3 s to come and 1 s of work, after the warm-up; before it, anything."""
    now, watch = [0.0], Stopwatch()
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")), is_global_zero=True, max_steps=8, default_root_dir=tmp_path
    )
    for step in range(1, 9):
        now[0] += 3.0 if step > WARM_UP else 50.0
        watch.on_train_batch_start(trainer, None, None, step)
        now[0] += 1.0
        trainer.global_step = step
        watch.on_train_batch_end(trainer, None, None, None, step)
    steps = 8 - WARM_UP
    found = json.loads((tmp_path / "stopwatch.json").read_text())
    assert found == {"steps": steps, "seconds": 4.0 * steps, "waited": 3.0 * steps}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--processes=0"], "--processes 0: expected 1 or more"),
        (["--steps=3"], "--steps 3: expected 5 or more"),
        (["--device=gpu", "--processes=99"], "--processes 99: there are "),
    ],
)
def test_bench_ddp_refuses(vidit_root, capsys, flags, said):
    assert main(["bench", "ddp", str(vidit_root), *flags]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_bench_ddp_shows_why_a_training_failed(tmp_path, capsys):
    assert main(["bench", "ddp", str(tmp_path), "--steps=5"]) == 2
    error = capsys.readouterr().err
    assert "training on 1 processes failed with exit status 2:" in error
    assert "no VIDIT images" in error
