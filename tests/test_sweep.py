"""Sweeps that run: trials on slots, the journal, retries, early termination, tests."""

from __future__ import annotations

import json
import re
import signal

import pytest
import yaml
from fits import EXPERIMENTS, environment, flags
from sweeping import calls, journal, run, start, wait_for, write

from ltnet_pl import InputError, results
from ltnet_pl.cli import main
from ltnet_pl.files import locked
from ltnet_pl.sweep import sweep
from ltnet_pl.sweep.sitting import at_work


def test_every_trial_runs_once_and_the_best_comes_first(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "outer")
    file, out = write(tmp_path / "x.yaml", {"a": {"values": [1, 3, 2]}, "b": {"values": [None, True]}}), tmp_path / "out"
    assert run(file, out) == 0
    printed = capsys.readouterr().out
    found = journal(out)
    assert {number: trial["status"] for number, trial in found.items()} == dict.fromkeys(range(6), "finished")
    assert found[2]["parameters"] == {"a": 3, "b": None}
    assert (found[2]["value"], found[2]["step"], found[2]["code"]) == (3.02, 2, 0)
    assert calls(out, 3)[0]["args"] == ["--a=3", "--b=True"]
    ids = {calls(out, number)[0]["env"]["WANDB_RUN_ID"] for number in range(6)}
    assert len(ids) == 6
    assert calls(out, 3)[0]["env"] == {
        "WANDB_RUN_ID": next(name for name in ids if name.endswith("-0003")),
        "CUDA_VISIBLE_DEVICES": "",
        "WANDB_MODE": "offline",
        "WANDB_RUN_GROUP": "out",
        "WANDB_SWEEP_ID": None,
    }
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    assert rows[0] == "| trial | a | b | status | val/psnr | seconds |"
    assert [row.split(" | ")[1] for row in rows[2:]] == ["3", "3", "2", "2", "1", "1"]
    assert (out / "sweep.yaml").read_text() == file.read_text()

    assert run(file, out) == 0
    assert "6 of 6 trials have ended already" in capsys.readouterr().out
    assert all(len(calls(out, number)) == 1 for number in range(6))


def test_a_failing_trial_is_told_and_the_rest_goes_on(tmp_path, capsys):
    file = write(tmp_path / "x.yaml", {"a": {"values": [1, 2, 3]}, "broken": {"value": 2}})
    assert run(file, tmp_path / "out") == 2
    captured = capsys.readouterr()
    found = journal(tmp_path / "out")
    assert [found[number]["status"] for number in range(3)] == ["finished", "failed", "finished"]
    assert "RuntimeError: this trial is broken" in found[1]["tail"]
    assert "  | RuntimeError: this trial is broken" in captured.out
    assert "1 of 3 trials failed: 1; the ends of their logs stand in" in captured.err
    assert "to try them again, give --retry" in captured.err


def test_failed_trials_are_tried_again_when_asked_for(tmp_path, capsys):
    mended, out = tmp_path / "mended", tmp_path / "out"
    parameters = {"a": {"values": [1, 2, 3, 4]}, "broken": {"value": 2}, "mended": {"value": str(mended)}}
    file = write(tmp_path / "x.yaml", parameters)
    assert run(file, out) == 2
    mended.write_text("")
    assert run(file, out) == 2
    assert [len(calls(out, number)) for number in range(4)] == [1, 1, 1, 1]
    assert run(file, out, "--retry") == 0
    assert [len(calls(out, number)) for number in range(4)] == [1, 2, 1, 1]
    assert (journal(out)[1]["status"], journal(out)[1]["tail"]) == ("finished", None)
    # one W&B run for each trial, and others for the same sweep in another folder
    ids = [call["env"]["WANDB_RUN_ID"] for call in calls(out, 1)]
    assert ids[0] == ids[1]
    run(file, tmp_path / "other")
    assert calls(tmp_path / "other", 1)[0]["env"]["WANDB_RUN_ID"] != ids[0]


def test_a_trial_whose_lines_are_taken_out_runs_anew_and_no_other(tmp_path):
    file, out = write(tmp_path / "x.yaml", {"a": {"values": [1, 2, 3, 4]}}), tmp_path / "out"
    assert run(file, out) == 0
    path = out / "journal.jsonl"
    lines = [line for line in path.read_text().splitlines() if json.loads(line).get("number") != 1]
    path.write_text("".join(f"{line}\n" for line in lines))
    assert run(file, out) == 0
    assert [len(calls(out, number)) for number in range(4)] == [1, 2, 1, 1]
    assert journal(out)[1]["parameters"] == {"a": 2}


def test_folders_of_others_are_refused(tmp_path, capsys):
    out = tmp_path / "out"
    file = write(tmp_path / "x.yaml", {"a": {"values": [1]}})
    assert run(file, out) == 0
    before = (out / "journal.jsonl").read_bytes()
    assert run(write(tmp_path / "y.yaml", {"a": {"values": [2]}}), out) == 2
    assert "holds the journal of another sweep (x.yaml, " in capsys.readouterr().err
    assert run(file, out, "--seed=1") == 2
    assert "--seed 1: " in capsys.readouterr().err
    assert (out / "journal.jsonl").read_bytes() == before
    (out / "journal.jsonl").unlink()
    assert run(file, out) == 2
    assert "holds trials without a journal" in capsys.readouterr().err
    assert run(file, out, "--count=0") == 2


def test_a_metric_that_no_trial_of_ours_logs_is_named(vidit_root, tmp_path, capsys):
    command = ["${interpreter}", "-m", "ltnet_pl", *flags(vidit_root, tmp_path / "run", "--trainer.max_steps=4"), "${args}"]
    metric = {"name": "val/pnsr", "goal": "maximize"}
    file = write(tmp_path / "x.yaml", {"model.loss.ssim": {"values": [0.0, 0.1]}}, command=command, metric=metric)
    assert main(["sweep", str(file), f"--out={tmp_path / 'out'}", "--every=0.1"]) == 2
    error = capsys.readouterr().err
    assert "metric.name is val/pnsr, which trial 0 did not log; expected one of " in error
    assert "val/psnr" in error
    assert len(journal(tmp_path / "out")) == 1


@pytest.mark.parametrize("method", ["grid", "bayes"])
def test_a_metric_that_is_never_finite_is_recorded_and_the_sweep_goes_on(tmp_path, capsys, method):
    if method == "bayes":
        pytest.importorskip("sweeps", reason="bayes needs the package sweeps (extra sweeps)")
    parameters = {"a": {"values": [1, 2]}, "strange": {"value": 2}}
    file, out = write(tmp_path / "x.yaml", parameters, method=method, run_cap=2 if method == "grid" else 4), tmp_path / "out"
    assert main(["sweep", str(file), f"--out={out}", "--slots=cpu", "--every=0.05"]) == 0
    printed = capsys.readouterr().out
    for trial in journal(out).values():
        finite = trial["parameters"]["a"] == 1
        assert (trial["status"], trial["value"], trial["finite"]) == ("finished", 1.02 if finite else None, finite)
    assert {trial["parameters"]["a"] for trial in journal(out).values()} == {1, 2}
    assert "s, val/psnr never finite" in printed
    assert re.search(r"\| 2 +\| finished \| never finite \|", printed), printed


def test_a_metric_of_a_trial_of_ours_may_be_nowhere_finite(vidit_root, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    given = flags(vidit_root, tmp_path / "run", "--trainer.max_steps=4", "--trainer.callbacks+=fits.Strange")
    file = write(
        tmp_path / "x.yaml",
        {"model.loss.ssim": {"values": [0.0]}},
        command=["${interpreter}", "-m", "ltnet_pl", *given, "${args}"],
        metric={"name": "val/strange", "goal": "maximize"},
    )
    assert main(["sweep", str(file), f"--out={tmp_path / 'out'}", "--every=0.1"]) == 0
    assert (journal(tmp_path / "out")[0]["status"], journal(tmp_path / "out")[0]["finite"]) == ("finished", False)


@pytest.mark.parametrize(
    ("key", "value"), [("model.net.init_args.feild", "affine"), ("trainer.max_step", 3), ("model.loss.ssim", "much")]
)
def test_a_key_that_is_no_flag_is_named_before_anything_starts(vidit_root, tmp_path, capsys, key, value):
    command = ["${interpreter}", "-m", "ltnet_pl", *flags(vidit_root, tmp_path / "run"), "${args}"]
    file = write(tmp_path / "x.yaml", {"model.loss.light": {"value": 0.1}, key: {"values": [value]}}, command=command)
    assert main(["sweep", str(file), f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert f"parameters.{key} is refused by fit: " in error
    assert not list((tmp_path / "out").glob("trials/*"))


@pytest.mark.parametrize("asked", ["flag", "parameter"])
def test_slots_with_fewer_devices_than_trials_ask_for_are_named_before_anything_starts(
    vidit_root, tmp_path, capsys, monkeypatch, asked
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    more = ["--trainer.accelerator=auto", *(["--trainer.devices=2"] if asked == "flag" else [])]
    command = ["${interpreter}", "-m", "ltnet_pl", *flags(vidit_root, tmp_path / "run", *more), "${args}"]
    parameters = {"model.loss.light": {"value": 0.1}} | ({"trainer.devices": {"values": [1, 2]}} if asked == "parameter" else {})
    file = write(tmp_path / "x.yaml", parameters, command=command)
    assert main(["sweep", str(file), f"--out={tmp_path / 'out'}", "--slots=0,1;2"]) == 2
    error = capsys.readouterr().err
    assert "a trial asks for 2 GPUs, and the slot 2 has 1; expected no more than --slots gives" in error
    assert not list((tmp_path / "out").glob("trials/*"))


def test_a_program_that_is_not_there_is_named_before_anything_starts(tmp_path, capsys):
    for command in (["no-such-program", "${args}"], ["${env}", "X=1", "no-such-program"]):
        assert run(write(tmp_path / "x.yaml", {"a": {"value": 1}}, command=command), tmp_path / command[0][:2]) == 2
        assert "x.yaml: command runs no-such-program, which is not found" in capsys.readouterr().err
        assert not list(tmp_path.glob("*/trials/*"))


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    for out in (tmp_path / "out", tmp_path / "out" / "below"):
        assert run(write(tmp_path / "x.yaml", {"a": {"values": [1]}}), out) == 2
        assert f"error: {out} is no folder; expected one for the sweep: name another --out" in capsys.readouterr().err


def test_hyperband_stops_what_has_no_hope(tmp_path):
    pytest.importorskip("sweeps", reason="early termination needs the package sweeps (extra sweeps)")
    early = {"type": "hyperband", "min_iter": 2, "eta": 2}
    parameters = {"a": {"values": [9, 8, 1, 2]}, "steps": {"value": 12}, "wait": {"value": 0.1}}
    assert run(write(tmp_path / "x.yaml", parameters, early_terminate=early), tmp_path / "out") == 0
    found = journal(tmp_path / "out")
    assert [found[number]["status"] for number in range(2)] == ["finished", "finished"]
    assert [found[number]["status"] for number in range(2, 4)] == ["stopped", "stopped"]
    assert found[2]["step"] < 12
    assert found[2]["code"] == 143


def test_what_has_no_hope_and_does_not_stop_is_killed(tmp_path, monkeypatch):
    pytest.importorskip("sweeps", reason="early termination needs the package sweeps (extra sweeps)")
    monkeypatch.setattr("ltnet_pl.sweep.sitting.PATIENCE", 0.2)
    early = {"type": "hyperband", "min_iter": 2, "eta": 2}
    parameters = {"a": {"values": [9, 8, 1]}, "steps": {"value": 40}, "wait": {"value": 0.1}, "deaf": {"value": 1}}
    assert run(write(tmp_path / "x.yaml", parameters, early_terminate=early), tmp_path / "out") == 0
    found = journal(tmp_path / "out")[2]
    assert (found["status"], found["code"]) == ("stopped", -signal.SIGKILL)
    assert found["step"] < 40


def test_bayes_suggests_within_the_space_and_is_the_same_again(tmp_path):
    pytest.importorskip("sweeps", reason="bayes needs the package sweeps (extra sweeps)")
    parameters = {"a": {"min": 0.0, "max": 1.0}, "steps": {"values": [1, 2]}}
    file = write(tmp_path / "x.yaml", parameters, method="bayes", run_cap=3)
    found = []
    for name in ("one", "two"):
        assert main(["sweep", str(file), f"--out={tmp_path / name}", "--every=0.05"]) == 0
        found.append([trial["parameters"] for trial in journal(tmp_path / name).values()])
    assert found[0] == found[1]
    assert len(found[0]) == 3
    assert all(0 <= trial["a"] <= 1 and trial["steps"] in (1, 2) for trial in found[0])


@pytest.mark.slow
def test_trainings_on_two_slots(vidit_root, tmp_path):
    """None, booleans, floats and lists arrive; a killed sweep's trainings go on from their checkpoints, as the same W&B runs."""
    given = flags(vidit_root, tmp_path / "run", "--config", str(EXPERIMENTS / "wandb.yaml"))
    command = ["${interpreter}", "-m", "ltnet_pl", *given, "${args}"]
    parameters = {
        "model.net.init_args.tint": {"values": [True, False]},
        "model.loss.ssim": {"values": [0.0, 0.25]},
        "data.init_args.crop": {"value": None},
        "model.net.init_args.widths": {"value": [8, 12]},
    }
    file, out = write(tmp_path / "x.yaml", parameters, command=command), tmp_path / "out"
    process = start(file, out)
    wait_for(lambda: list(out.glob("trials/*/checkpoints/last.ckpt")))
    process.kill()
    process.communicate()
    # they write their checkpoints first
    wait_for(lambda: not at_work(out))
    assert run(file, out) == 0
    found, sittings = journal(out), []
    assert {trial["status"] for trial in found.values()} == {"finished"}
    assert len(found) == 4
    for number, trial in found.items():
        folder = out / "trials" / f"{number:04d}"
        config = yaml.safe_load((folder / "config.yaml").read_text())
        net = config["model"]["net"]["init_args"]
        assert net["tint"] is trial["parameters"]["model.net.init_args.tint"]
        assert config["model"]["loss"]["ssim"] == trial["parameters"]["model.loss.ssim"]
        assert config["data"]["init_args"]["crop"] is None
        assert net["widths"] == [8, 12]
        assert trial["step"] == 12
        assert trial["value"] is not None
        ids = [re.fullmatch(r"offline-run-\w+?-(.*)", path.name)[1] for path in folder.glob("wandb/offline-run-*")]
        assert len(set(ids)) == 1
        assert ids[0].endswith(f"-{number:04d}")
        sittings.append(len(ids))
    assert max(sittings) == 2


@pytest.mark.slow
def test_finished_trials_are_tested(vidit_root, tmp_path, capsys):
    given = flags(vidit_root, tmp_path / "run", "--trainer.max_steps=4", "--config", str(EXPERIMENTS / "wandb.yaml"))
    command = ["${interpreter}", "-m", "ltnet_pl", *given, "${args}"]
    file, out = write(tmp_path / "x.yaml", {"model.loss.ssim": {"values": [0.0, 0.25]}}, command=command), tmp_path / "out"
    assert run(file, out, "--count=1") == 0
    trained = journal(out)[0]
    # the first one, which was finished without a test, and the second one
    assert run(file, out, "--test") == 0
    printed = capsys.readouterr().out
    assert "trial 0 is tested" in printed
    assert "the test of trial 1 finished after" in printed
    found = journal(out)
    assert [(found[number]["status"], found[number]["tested"]) for number in (0, 1)] == [("finished", "finished")] * 2
    assert found[0] == trained | {"tested": "finished"}
    frame = results.collect(out)
    assert sorted(frame["run"]) == ["trials/0000", "trials/0001"]
    assert (frame["test/psnr"] > 5).all()
    compared = results.compare(frame, {"model.loss.ssim": 0.0}, {"model.loss.ssim": 0.25})
    assert compared.images > 0
    # one that fails is told and done again when asked for; what is tested is not tested again
    line = found[1] | {"tested": None}
    with (out / "journal.jsonl").open("a") as journal_file:
        journal_file.write(json.dumps(line) + "\n")
    best = out / "trials" / "0001" / "checkpoints" / "best.ckpt"
    best.rename(tmp_path / "best.ckpt")
    assert run(file, out, "--test") == 2
    assert "1 of 2 tests failed: 1; the ends of their logs stand in" in capsys.readouterr().err
    assert "--ckpt_path best is not a file" in journal(out)[1]["tail"]
    (tmp_path / "best.ckpt").rename(best)
    # without tests, what failed in one stays
    assert run(file, out, "--retry") == 2
    assert journal(out)[1]["tested"] == "failed"
    assert run(file, out, "--test", "--retry") == 0
    assert "trial 0 is tested" not in capsys.readouterr().out
    assert (journal(out)[1]["tested"], journal(out)[1]["status"]) == ("finished", "finished")


def test_what_is_not_ours_is_not_tested(tmp_path, capsys):
    assert run(write(tmp_path / "x.yaml", {"a": {"values": [1]}}), tmp_path / "out", "--test") == 2
    assert "--test: the command of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_second_command_on_the_same_folder_is_refused(tmp_path):
    file = write(tmp_path / "x.yaml", {"a": {"values": [1]}})
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out", "holds it"), pytest.raises(InputError, match="another process runs this sweep"):
        sweep(str(file), str(tmp_path / "out"))
