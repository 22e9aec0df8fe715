"""`bench quality` end to end: train, score, skip, resume, report failures."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import scenes
import torch
import yaml
from bench_tiny import TINY, Bench, foreign, train_here, write_row  # noqa: F401 - a fixture is used by its name

from ltnet_pl.bench import quality, scoring, training
from ltnet_pl.bench.quality import SET, ensure_set
from ltnet_pl.bench.results import read_result
from ltnet_pl.bench.training import Mark, Trainer
from ltnet_pl.data import AnyToAnyDataModule

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*this fit will run with no optimizer", "ignore:.*`training_step` returned `None`", "ignore:.*class_path.*discard"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six scenes of 40x56: two to train on, two to validate, two to test."""
    return scenes.write_any_to_any(tmp_path_factory.mktemp("bench") / "set", temperatures=(2500, 4500, 6500))


@pytest.fixture
def bench(tmp_path, data, monkeypatch):
    """The benchmark on that set, training in this process; multiply-adds counted on a small image."""
    monkeypatch.setattr(Trainer, "_child", train_here)
    monkeypatch.setattr(quality, "COUNTED_SIZE", 64)
    monkeypatch.setattr(scoring, "TEST_PAIRS", 5)
    monkeypatch.setattr(scoring, "IDENTITY_PAIRS", 2)
    monkeypatch.delenv("LTNET_LPIPS_WEIGHTS", raising=False)
    return Bench(tmp_path, data)


def result(bench, row, tier="tiny"):
    return read_result(bench.results, tier, row, 0)


def test_rows_are_trained_scored_and_then_skipped(bench, foreign, tmp_path, capsys):  # noqa: F811
    mine = write_row(tmp_path / "mine.yaml", width=4)
    add = f"--add=mine={mine}"
    assert bench(add) == 0
    out = capsys.readouterr().out
    assert "3 runs, 3 to do" in out
    assert "| mine | " in out
    assert "mine - LTNet" in out
    assert "Does my own network do better?" in out

    ltnet, copy, own = (result(bench, name) for name in ("LTNet", "CopyInput", "mine"))
    # a copy is the same whatever light it is asked for, and changes nothing
    assert copy.label["psnr"] == copy.guide["psnr"]
    assert copy.identity == {"psnr": 60.0, "capped": 4, "pairs": 4}
    assert (copy.parameters, copy.threads, copy.seconds) == (0, 0, 0.0)
    assert copy.operations == {"network": 0, "guide_size": 256}
    assert own.parameters == 7 * 4 * 9 + 4 + 4 * 3 + 3
    assert own.operations["network"] == 64 * 64 * (7 * 4 * 9 + 4 * 3)
    assert own.guide != own.label
    assert own.seconds > 0
    # the light stream's readings belong to the network that has one, and the others relight by them
    assert own.readings is None is copy.readings
    assert ltnet.readings["count"] == 20
    assert ltnet.stream is None
    assert own.stream == copy.stream == ltnet.config
    for scored in (ltnet, own):
        for light in ("label", "guide"):
            values = scored.per_scene[light]["psnr"]
            assert len(values) == 2
            assert sum(values) / 2 == pytest.approx(getattr(scored, light)["psnr"], abs=2e-4)
    file = bench.results / "tiny" / "LTNet-seed0.json"
    assert file.stat().st_size < 10 * 1024
    assert str(tmp_path) not in file.read_text()

    before = file.read_bytes()
    assert bench(add) == 0
    assert "3 runs, 0 to do" in capsys.readouterr().out
    assert file.read_bytes() == before

    write_row(mine, width=5)
    assert bench("--rows=mine", add, "--table") == 0
    assert "mine, seed 0: left out; its configuration has changed since it was trained" in capsys.readouterr().out
    assert bench("--rows=mine", add) == 0
    assert "1 runs, 1 to do" in capsys.readouterr().out
    assert result(bench, "mine").parameters == 7 * 5 * 9 + 5 + 5 * 3 + 3


def test_a_trial_is_kept_apart(bench, foreign, tmp_path):  # noqa: F811
    bench.one_to_one()
    assert bench("--rows=mine", f"--add=mine={write_row(tmp_path / 'mine.yaml')}", "--steps=2", "--size=24") == 0
    assert result(bench, "mine") is None
    trial = result(bench, "mine", "tiny-2steps-24px")
    config = yaml.safe_load((bench.runs / "tiny-2steps-24px" / "mine-seed0" / "config.yaml").read_text())
    assert (config["trainer"]["max_steps"], config["data"]["init_args"]["size"]) == (2, 24)
    assert config["model"]["scheduler"]["init_args"]["T_max"] == 2
    assert trial.tier == "tiny-2steps-24px"


def test_a_closed_form_sees_as_many_pairs(bench):
    bench.one_to_one()
    files = [bench.experiments / name for name in ("baselines/color_affine.yaml", "benchmark/closed_form.yaml")]
    assert bench("--rows=ColorAffine", f"--add=ColorAffine={'+'.join(map(str, files))}") == 0
    state = torch.load(bench.runs / "tiny" / "ColorAffine-seed0" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["net.gram"][..., 3, 3].sum() == TINY["trainer"]["max_steps"] * TINY["data"]["init_args"]["batch_size"]
    assert result(bench, "ColorAffine").threads == 1


def test_one_to_one_has_neither_guide_nor_identity(bench):
    bench.one_to_one()
    # nothing is borrowed, so that the reference is not trained for it
    assert bench("--rows=CopyInput") == 0
    assert not (bench.runs / "tiny" / "LTNet-seed0").exists()
    found = result(bench, "CopyInput")
    assert found.guide is found.identity is found.readings is found.stream is None
    assert set(found.per_scene) == {"label"}
    assert found.label["psnr_90"] == found.label["psnr"]


def test_a_failing_run_is_reported_and_the_rest_goes_on(bench, foreign, tmp_path, capsys):  # noqa: F811
    bench.one_to_one()
    bad = write_row(tmp_path / "bad.yaml", broken=True)
    assert bench("--rows=CopyInput,bad", f"--add=bad={bad}") == 2
    captured = capsys.readouterr()
    assert "bad, seed 0: training failed with exit status 1; the end of" in captured.out
    assert "RuntimeError: this network is broken" in captured.out
    assert "1 of 2 runs failed, see above: bad, seed 0" in captured.err
    assert result(bench, "CopyInput") is not None
    assert result(bench, "bad") is None


def test_without_the_reference_there_are_no_guides(bench, capsys, monkeypatch):
    monkeypatch.setattr(Trainer, "_child", lambda trainer, run, flags, lock: (run / "fit.log").write_text("no memory") and 1)
    assert bench("--rows=CopyInput") == 2
    captured = capsys.readouterr()
    assert "LTNet, seed 0: is trained too, since its light stream reads the guides of the others" in captured.out
    assert "| no memory" in captured.out
    assert "CopyInput, seed 0: scoring failed" in captured.out
    assert "2 of 2 runs failed" in captured.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tier=big"], "--tier big: unknown; expected one of tiny"),
        (["--rows=mine"], "--rows mine: unknown; expected some of LTNet, CopyInput"),
        (["--seeds=one"], "--seeds one: expected whole numbers"),
        (["--jobs=0"], "--jobs 0: expected 1 or more"),
        (["--steps=0"], "--steps 0: expected 1 or more"),
        (["--add=mine"], "--add mine: expected NAME=FILE.yaml"),
        (["--add=mine=gone.yaml"], "gone.yaml does not exist"),
        (["--add=a/b=base.yaml"], "'a/b' cannot name a file"),
        (["--experiments=elsewhere"], "elsewhere/benchmark/rows.yaml: is missing"),
    ],
)
def test_mistakes_are_said(bench, flags, message, capsys):
    assert bench(*flags) == 2
    assert message in capsys.readouterr().err


def test_a_refused_configuration_names_its_row(bench, tmp_path, capsys):
    (tmp_path / "typo.yaml").write_text("model: {loss: {charbonier: 1.0}}\n")
    assert bench(f"--add=typo={tmp_path / 'typo.yaml'}") == 2
    assert "row typo: its configuration is refused" in capsys.readouterr().err


# ---- what a run may go on from


@pytest.fixture
def run(tmp_path):
    """A run folder of the benchmark with a checkpoint and a mark."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    training._write_mark(folder, Mark("config", "data", "code", 60.0, 1, time.time() - 30, False))
    return folder


def attempt(run, monkeypatch, config="config", data="data", fresh=False):
    """Try to train; returns what the child found in the folder, and the mark at the end."""
    seen = []

    def child(trainer, folder, flags, lock):
        seen.extend(path.name for path in folder.glob("checkpoints/*"))
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").write_bytes(b"trained")
        (folder / "config.yaml").write_text("{}")
        return 0

    monkeypatch.setattr(Trainer, "_child", child)
    monkeypatch.setattr(training, "code_hash", lambda: "code")
    monkeypatch.setattr(training, "config_hash", lambda _: config)
    Trainer(1, "code").fit(run, [], config, data, fresh)
    return seen, training.read_mark(run)


def test_a_stopped_run_goes_on_and_its_time_adds_up(run, monkeypatch):
    seen, mark = attempt(run, monkeypatch)
    assert seen == ["last.ckpt"]
    assert mark.finished
    # what was lost after the last checkpoint does not count
    assert 89 < mark.seconds < 95
    assert training.trained(run, "config", "data", "code")
    assert not training.trained(run, "config", "data", "other")


@pytest.mark.parametrize("change", [{"config": "other"}, {"data": "other"}, {"fresh": True}])
def test_another_run_starts_afresh(run, monkeypatch, change):
    seen, mark = attempt(run, monkeypatch, **change)
    assert seen == []
    assert mark.seconds < 5


def test_a_folder_of_others_is_left_alone(run, monkeypatch):
    (run / training.MARK).unlink()
    with pytest.raises(Exception, match="which bench did not write"):
        attempt(run, monkeypatch)
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == b"weights"


def test_code_that_changes_meanwhile_is_refused(run, monkeypatch):
    monkeypatch.setattr(training, "code_hash", lambda: "edited")
    with pytest.raises(Exception, match="code was changed since this command began"):
        Trainer(1, "code").fit(run, [], "config", "data")


def test_a_run_that_another_process_trains_is_refused(run, monkeypatch):
    monkeypatch.setattr(training, "code_hash", lambda: "code")
    with training._locked(run), pytest.raises(Exception, match="another process trains it"):
        Trainer(1, "code").fit(run, [], "config", "data")


def test_a_configuration_that_is_not_the_one_asked_for_is_noticed(run, monkeypatch):
    monkeypatch.setattr(Trainer, "_child", lambda trainer, folder, flags, lock: (folder / "config.yaml").write_text("{}") * 0)
    monkeypatch.setattr(training, "code_hash", lambda: "code")
    monkeypatch.setattr(training, "config_hash", lambda _: "another")
    with pytest.raises(Exception, match="trained with a configuration of hash another"):
        Trainer(1, "code").fit(run, [], "config", "data")


# ---- the set


@pytest.mark.parametrize(
    ("there", "rendered"),
    [
        (None, True),
        ({"seed": SET["seed"], "size": SET["size"]}, True),  # a render that was stopped
        ({"seed": 5, "size": SET["size"]}, False),
        ({"seed": SET["seed"], "size": [40, 56]}, False),
    ],
)
def test_the_set_is_rendered_where_it_is_missing(tmp_path, monkeypatch, there, rendered):
    calls = []
    monkeypatch.setattr("ltnet_pl.render.render", lambda out, **options: calls.append((out, options)))
    root = tmp_path / "set"
    if there is not None:
        (root / "scenes" / "Image000").mkdir(parents=True)
        (root / "scenes" / "Image000" / "scene.json").write_text(json.dumps(there))
    ensure_set(root)
    assert calls == ([(str(root), SET)] if rendered else [])


# ---- readings


def test_readings_are_judged_as_the_eye_would(data):
    lists = scoring._ready(AnyToAnyDataModule(root=str(data), val_scenes=2, test_scenes=2, pairs_per_scene=1))
    truth = [scoring._lights(lists, which) for which in ("input", "target")]
    perfect = scoring.judged(scoring.Readings(*truth), lists)
    assert perfect == {"direction": 1.0, "within_45": 1.0, "temperature": 1.0, "mired": 0.0, "count": 4}
    turned = [light.clone() for light in truth]
    turned[0][0, 0] += 45  # one off by one direction
    turned[0][1, 0] += 90  # one off by two
    turned[1][0, 1] = 1e6 / (1e6 / turned[1][0, 1] - 60)  # and one colder by more than half a class
    found = scoring.judged(scoring.Readings(*turned), lists)
    assert (found["direction"], found["within_45"], found["mired"]) == (0.5, 0.75, 0.0)
    assert found["temperature"] == 0.75


def test_kept_readings_are_those_of_their_configuration_and_data(tmp_path):
    readings = scoring.Readings(torch.tensor([[10.0, 2500.0]]), torch.tensor([[355.5, 6400.0]]))
    scoring.write_readings(tmp_path, readings, "config", "data")
    again = scoring.read_readings(tmp_path, "config", "data")
    assert all(torch.equal(a, b) for a, b in zip(again, readings, strict=True))
    assert scoring.read_readings(tmp_path, "other", "data") is None
    assert scoring.read_readings(tmp_path, "config", "other") is None
    assert scoring.read_readings(tmp_path / "nowhere", "config", "data") is None


# ---- real children


def command(bench, *more):
    return [sys.executable, "-m", "ltnet_pl", *bench.flags(*more)]


@pytest.mark.slow
def test_a_stopped_benchmark_ends_its_children_and_goes_on(tmp_path, data, foreign):  # noqa: F811
    bench, hold = Bench(tmp_path, data), tmp_path / "hold"
    bench.one_to_one()
    mine = write_row(tmp_path / "mine.yaml", hold=str(hold), steps=2)
    flags = ("--rows=mine", f"--add=mine={mine}")
    run = bench.runs / "tiny" / "mine-seed0"
    hold.touch()
    process = subprocess.Popen(command(bench, *flags), stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (run / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from the last checkpoints" in out
    with training._locked(run):  # no child holds it any more
        assert not training.read_mark(run).finished
    hold.unlink()
    subprocess.run(command(bench, *flags), check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    log = (run / "fit.log").read_text()
    assert log.count("$ ") == 2
    assert "Restored all states from the checkpoint" in log
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    assert result(bench, "mine").threads == 1
