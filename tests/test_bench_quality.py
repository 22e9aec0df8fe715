"""`bench quality` end to end: train, score, skip, resume, report failures."""
# ruff: noqa: F811 - fixtures are imported

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from bench_tiny import TINY, Bench, bench, data, foreign, set_code, trainings, write_row  # noqa: F401 - fixtures go by name

from ltnet_pl import InputError
from ltnet_pl.bench import scorer, scoring, training
from ltnet_pl.bench.quality import SET, ensure_set
from ltnet_pl.bench.results import read_result, write_result
from ltnet_pl.bench.training import Trainer
from ltnet_pl.data import AnyToAnyDataModule
from ltnet_pl.files import locked
from ltnet_pl.lpips import TRUNKS
from ltnet_pl.report.tables import MISSING

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*this fit will run with no optimizer", "ignore:.*`training_step` returned `None`", "ignore:.*class_path.*discard"
)


def result(bench, row, tier="tiny"):
    return read_result(bench.results, tier, row, 0)


def test_rows_are_trained_scored_and_then_skipped(bench, foreign, tmp_path, capsys):
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
    assert own.stream_code == copy.stream_code == ltnet.code
    assert ltnet.stream_code is None
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


def test_a_trial_is_kept_apart(bench, foreign, tmp_path):
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


def test_what_is_named_twice_is_done_once(bench, capsys):
    bench.one_to_one()
    assert bench("--rows=CopyInput, CopyInput", "--seeds=0,1,00,1") == 0
    assert "2 runs, 2 to do" in capsys.readouterr().out


def test_pairs_that_the_light_stream_has_not_read_are_refused_with_a_remedy():
    jobs = [SimpleNamespace(seed=0, name="a", data_hash=data, readings=lambda: None) for data in ("x", "y")]
    here = SimpleNamespace(references={0: jobs[1]})
    with pytest.raises(
        InputError, match=r"its test pairs are not those of LTNet.*; expected the same data: correct the settings"
    ):
        scorer.Scorer._stream(here, jobs[0])
    with pytest.raises(
        InputError, match=r"a, whose light stream.* has no readings of the test pairs; expected .*: run the command"
    ):
        scorer.Scorer._stream(here, jobs[1])


# ---- what is scored anew without training


def test_lpips_weights_that_come_later_fill_the_columns(bench, foreign, trainings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "nowhere"))
    bench.one_to_one()
    flags = ("--rows=CopyInput", f"--add=mine={write_row(tmp_path / 'mine.yaml')}")
    assert bench(*flags) == 0
    before = result(bench, "mine")
    assert set(before.absent) == {"lpips", "mps"}
    assert trainings == ["mine-seed0"]
    assert bench(*flags) == 0
    assert "2 runs, 0 to do" in capsys.readouterr().out

    weights = tmp_path / "squeeze.pth"
    torch.manual_seed(0)
    torch.save(TRUNKS["squeeze"].build().state_dict(), weights)
    monkeypatch.setenv("LTNET_LPIPS_WEIGHTS", str(weights))
    code = before.code
    # weights that other code trained are not scored by this one, and are not trained anew either
    set_code(monkeypatch, "later")
    assert bench(*flags) == 0
    out = capsys.readouterr().out
    assert "mine, seed 0: LPIPS and MPS could not be computed when it was scored, and now can, but there are no weights" in out
    assert "2 runs, 1 to do" in out
    assert result(bench, "mine") == before
    set_code(monkeypatch, code)
    assert bench(*flags) == 0
    after = result(bench, "mine")
    assert after.absent == {}
    assert after.label["lpips_squeeze"] > 0
    assert (after.label["psnr"], after.seconds, after.threads) == (before.label["psnr"], before.seconds, before.threads)
    assert trainings == ["mine-seed0"]
    capsys.readouterr()
    assert bench(*flags) == 0
    assert "2 runs, 0 to do" in capsys.readouterr().out


def test_guides_are_read_anew_when_the_light_stream_is_of_other_code(bench, foreign, trainings, tmp_path, monkeypatch, capsys):
    add = f"--add=mine={write_row(tmp_path / 'mine.yaml')}"
    set_code(monkeypatch, "first")
    assert bench("--rows=LTNet") == 0
    set_code(monkeypatch, "second")
    assert bench("--rows=CopyInput", add) == 0
    assert result(bench, "mine").stream_code == result(bench, "CopyInput").stream_code == "first"
    assert result(bench, "mine").code == "second"
    # as if LTNet were trained anew
    write_result(bench.results, replace(result(bench, "LTNet"), code="second"))
    readings = bench.runs / "tiny" / "LTNet-seed0" / scoring.READINGS
    readings.write_text(json.dumps(json.loads(readings.read_text()) | {"code": "second"}))
    capsys.readouterr()
    assert bench(add, "--table") == 0
    out = capsys.readouterr().out
    assert "without their guides, which LTNet's light stream of earlier code read" in out
    assert "mine, seed 0" in out.partition("without their guides")[2].splitlines()[0]
    # PSNR with labels stands, that with guides and its cost do not
    head, line = (next(x for x in out.splitlines() if x.startswith(start)).split(" | ") for start in ("| row", "| mine"))
    cells = dict(zip(head, line, strict=True))
    assert float(cells["PSNR"]) == pytest.approx(result(bench, "mine").label["psnr"], abs=0.01)
    assert (cells["guide PSNR"], cells["guide costs (dB)"]) == (MISSING, MISSING)
    assert bench(add) == 0
    assert "3 runs, 2 to do" in capsys.readouterr().out
    assert trainings == ["LTNet-seed0", "mine-seed0"]
    assert result(bench, "mine").stream_code == result(bench, "CopyInput").stream_code == "second"
    assert bench(add) == 0
    assert "3 runs, 0 to do" in capsys.readouterr().out


def test_redo_goes_on_where_it_was_stopped(bench, foreign, trainings, tmp_path, monkeypatch, capsys):
    """Rows of other code are trained anew, each once: what the stopped command finished stands."""
    bench.one_to_one()
    add = ",".join(f"{name}={write_row(tmp_path / f'{name}.yaml')}" for name in ("a", "b"))
    flags = ("--rows=a,b", f"--add={add}")
    set_code(monkeypatch, "first")
    assert bench(*flags) == 0
    set_code(monkeypatch, "second")
    assert bench(*flags) == 0
    assert trainings == ["a-seed0", "b-seed0"]

    train = Trainer._child

    def stop(trainer, run, *rest):
        if run.name == "b-seed0":
            raise KeyboardInterrupt
        return train(trainer, run, *rest)

    monkeypatch.setattr(Trainer, "_child", stop)
    with pytest.raises(SystemExit):
        bench(*flags, "--redo")
    assert "stopped; the same command goes on" in capsys.readouterr().out
    assert (result(bench, "a").code, result(bench, "b").code) == ("second", "first")
    monkeypatch.setattr(Trainer, "_child", train)
    trainings.clear()
    assert bench(*flags, "--redo") == 0
    assert trainings == ["b-seed0"]
    assert (result(bench, "a").code, result(bench, "b").code) == ("second", "second")
    capsys.readouterr()
    assert bench(*flags, "--redo") == 0
    assert "2 runs, 0 to do" in capsys.readouterr().out


def test_a_loss_that_needs_weights_which_are_not_here_is_left_out(bench, trainings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "nowhere"))
    (tmp_path / "row.yaml").write_text("# Does it look better?\nmodel: {loss: {perceptual: 0.1}}\n")
    assert bench("--rows=soft", f"--add=soft={tmp_path / 'row.yaml'}") == 0
    assert "soft, seed 0: is left out; its loss needs the weights of an LPIPS trunk: name them" in capsys.readouterr().out
    assert trainings == []


def test_a_mean_over_several_states_of_the_code_is_said(bench, foreign, tmp_path, capsys):
    bench.one_to_one()
    flags = ("--rows=a", f"--add=a={write_row(tmp_path / 'a.yaml')}", "--seeds=0,1")
    assert bench(*flags) == 0
    assert "several states" not in capsys.readouterr().out
    write_result(bench.results, replace(result(bench, "a"), code="earlier"))
    assert bench(*flags, "--table") == 0
    assert "a mean over several states of the code: a." in capsys.readouterr().out
    # as in a clone that has not rendered the set
    write_result(bench.results, replace(result(bench, "a"), data="another"))
    bench.data = tmp_path / "absent"
    assert bench(*flags, "--table") == 0
    assert "of 2 renders of the data: a, seed 0 | a, seed 1." in capsys.readouterr().out


def test_a_failing_run_is_reported_and_the_rest_goes_on(bench, foreign, tmp_path, capsys):
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
    monkeypatch.setattr(Trainer, "_child", lambda trainer, run, *_: (run / "fit.log").write_text("no memory") and 1)
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
        (["--seeds=²"], "--seeds ²: expected whole numbers"),
        (["--confirm", "--redo"], "--confirm with --redo: expected one of them alone"),
        (["--confirm", "--table"], "--confirm with --table: expected one of them alone"),
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
    scoring.write_readings(tmp_path, readings._replace(code="k"), "config", "data")
    again = scoring.read_readings(tmp_path, "config", "data")
    assert torch.equal(again.input, readings.input)
    assert torch.equal(again.guide, readings.guide)
    assert again.code == "k"
    assert scoring.read_readings(tmp_path, "other", "data") is None
    assert scoring.read_readings(tmp_path, "config", "other") is None
    assert scoring.read_readings(tmp_path / "nowhere", "config", "data") is None
    # a file of before the code was kept
    file = tmp_path / scoring.READINGS
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "code"}))
    assert scoring.read_readings(tmp_path, "config", "data").code is None


# ---- real children


def command(bench, *more):
    return [sys.executable, "-m", "ltnet_pl", *bench.flags(*more)]


@pytest.mark.slow
def test_a_stopped_benchmark_ends_its_children_and_goes_on(tmp_path, data, foreign):
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
    with locked(run, "trains it"):  # no child holds it any more
        assert not training.read_mark(run).finished
    hold.unlink()
    subprocess.run(command(bench, *flags), check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    log = (run / "fit.log").read_text()
    assert log.count("$ ") == 2
    assert "Restored all states from the checkpoint" in log
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    assert result(bench, "mine").threads == 1
