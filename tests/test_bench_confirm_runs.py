"""`bench quality --confirm` end to end: first steps are trained again, compared and scored."""
# ruff: noqa: F811 - fixtures are imported

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from bench_tiny import TINY, Bench, bench, data, foreign, set_code, trainings, write_row  # noqa: F401 - fixtures go by name

from ltnet_pl.bench import hashes, training
from ltnet_pl.bench.results import read_result, result_path, write_result
from ltnet_pl.data import OneToOneDataModule
from ltnet_pl.losses import RelightLoss

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*this fit will run with no optimizer",
    "ignore:.*`training_step` returned `None`",
    "ignore:.*class_path.*discard",
    # an attempt ends before the first validation
    "ignore:.*could not find the monitored key",
)


def logging(bench, every=3, batches=4, one_to_one=True):
    """Have the tiny tier log every so many of its steps, in one epoch of so many batches."""
    samples = batches * TINY["data"]["init_args"]["batch_size"]
    tier = {
        **TINY,
        "trainer": {"max_steps": 4, "log_every_n_steps": every},
        "data": {"init_args": {**TINY["data"]["init_args"], "samples_per_epoch": samples}},
    }
    if one_to_one:
        tier["data"]["class_path"] = f"{OneToOneDataModule.__module__}.{OneToOneDataModule.__name__}"
    (bench.experiments / "benchmark" / "tiny.yaml").write_text(yaml.safe_dump(tier))


@pytest.fixture
def old(bench, foreign, trainings, tmp_path, monkeypatch, capsys):
    """Flags of a command whose rows `mine` and CopyInput were made by code `earlier`; today's is `today`."""
    logging(bench)
    flags = ("--rows=CopyInput", f"--add=mine={write_row(tmp_path / 'mine.yaml')}")
    set_code(monkeypatch, "earlier")
    assert bench(*flags) == 0
    set_code(monkeypatch, "today")
    capsys.readouterr()
    trainings.clear()
    return flags


def found(bench, row):
    return read_result(bench.results, "tiny", row, 0)


def run_of(bench, row="mine"):
    return bench.runs / "tiny" / f"{row}-seed0"


# ---- the command


def test_the_same_first_steps_and_scores_make_a_result_todays(bench, old, trainings, monkeypatch, capsys):
    before = {row: found(bench, row) for row in ("mine", "CopyInput")}
    assert before["mine"].code == "earlier"
    config = (run_of(bench) / "config.yaml").read_bytes()
    tried, attempt = [], training.Trainer.attempt

    def spy(trainer, run, flags):
        attempt(trainer, run, flags)
        tried.append(yaml.safe_load((run / "config.yaml").read_text()))

    monkeypatch.setattr(training.Trainer, "attempt", spy)
    assert bench(*old, "--confirm") == 0
    out = capsys.readouterr().out
    assert "2 runs, 2 to confirm" in out
    assert "mine, seed 0: is a result of today's code" in out
    assert "trained with other code" not in out
    # what is kept of the training is what the training was
    assert {row: found(bench, row) for row in before} == {row: replace(r, code="today") for row, r in before.items()}
    mark = training.read_mark(run_of(bench))
    assert (mark.code, mark.finished, mark.threads) == ("today", True, 1)
    assert round(mark.seconds, 1) == before["mine"].seconds
    # three steps of a schedule of four, in a folder of their own, that is gone
    assert [name.partition("-seed0-")[0] for name in trainings] == [".confirm-mine"]
    assert [(c["trainer"]["max_steps"], c["model"]["scheduler"]["init_args"]["T_max"]) for c in tried] == [(3, 4)]
    assert [path.name for path in run_of(bench).parent.iterdir()] == ["mine-seed0"]
    assert (run_of(bench) / "config.yaml").read_bytes() == config

    assert bench(*old, "--confirm") == 0
    assert "2 runs, 0 to confirm" in capsys.readouterr().out
    assert bench(*old) == 0
    assert "2 runs, 0 to do" in capsys.readouterr().out


def test_code_that_trains_otherwise_is_found_out(bench, old, monkeypatch, capsys):
    forward = RelightLoss.forward

    def changed(self, out, batch):
        parts = forward(self, out, batch)
        return parts | {"loss": parts["loss"] * (1 + 1e-6)}

    monkeypatch.setattr(RelightLoss, "forward", changed)
    kept = [result_path(bench.results, "tiny", "mine", 0), run_of(bench) / training.MARK]
    before = [path.read_bytes() for path in kept]
    assert bench(*old, "--confirm") == 0
    said = re.search(r"mine, seed 0: stays as it is: (.*)", capsys.readouterr().out)[1]
    assert re.fullmatch(r"train/loss at step 2 was 0\.\d+, and is 0\.\d+ by today's code; --redo trains it anew", said)
    assert [path.read_bytes() for path in kept] == before
    assert [path.name for path in run_of(bench).parent.iterdir()] == ["mine-seed0"]


def test_a_light_stream_is_confirmed_before_what_borrows_it(bench, trainings, monkeypatch, capsys):
    logging(bench, one_to_one=False)
    set_code(monkeypatch, "earlier")
    assert bench() == 0
    before = {row: found(bench, row) for row in ("LTNet", "CopyInput")}
    set_code(monkeypatch, "today")
    assert bench("--confirm") == 0
    assert found(bench, "LTNet") == replace(before["LTNet"], code="today")
    assert found(bench, "CopyInput") == replace(before["CopyInput"], code="today", stream_code="today")
    readings = json.loads((run_of(bench, "LTNet") / "readings.json").read_text())
    assert readings["code"] == "today"
    capsys.readouterr()
    assert bench("--table") == 0
    assert "seed 0:" not in capsys.readouterr().out


def test_what_borrows_a_confirmed_light_stream_stays_in_the_tables(bench, trainings, monkeypatch, capsys):
    """Its own confirmation may fail, or not be asked for: the stream that read its guides is the same."""
    logging(bench, one_to_one=False)
    set_code(monkeypatch, "earlier")
    assert bench() == 0
    before = found(bench, "CopyInput")
    set_code(monkeypatch, "today")
    assert bench("--confirm", "--rows=LTNet") == 0
    assert found(bench, "CopyInput") == replace(before, stream_code="today")
    capsys.readouterr()
    assert bench("--table") == 0
    out = capsys.readouterr().out
    assert "| CopyInput | " in out
    assert "left out" not in out


@pytest.mark.slow
def test_a_child_of_its_own_takes_the_same_first_steps(tmp_path, data, foreign):
    """Two processes, one after the other, agree to the last bit."""
    bench = Bench(tmp_path, data)
    logging(bench)
    flags = ("--rows=mine", f"--add=mine={write_row(tmp_path / 'mine.yaml')}")
    command = [sys.executable, "-m", "ltnet_pl", *bench.flags(*flags)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, timeout=300, env=environment)
    write_result(bench.results, replace(found(bench, "mine"), code="earlier"))
    training.write_mark(run_of(bench), replace(training.read_mark(run_of(bench)), code="earlier"))
    subprocess.run([*command, "--confirm"], check=True, timeout=300, env=environment)
    assert found(bench, "mine").code == training.read_mark(run_of(bench)).code == hashes.code_hash()
