"""The W&B logger: what it starts, what it says, what it logs, and what it does where there is no server."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import wandb
import yaml
from fits import EXPERIMENTS, command, environment, flags, signal_at, validations
from lightning_utilities.core.rank_zero import rank_zero_only
from wandb_stub import Stub, wait_for

import ltnet_pl
from ltnet_pl import InputError
from ltnet_pl.callbacks import WandbLog
from ltnet_pl.callbacks.wandb_log import choose_mode, versions
from ltnet_pl.cli import main

ROOT = EXPERIMENTS.parent
WANDB = ("--config", str(EXPERIMENTS / "wandb.yaml"))
TREE = {"seed_everything", "trainer", "model", "data", "metrics", "ckpt_path", "weights_only", "versions"}

# --- the environment decides ------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """No key, no mode, no sweep."""
    for name in ("MODE", "API_KEY", "IDENTITY_TOKEN_FILE", "BASE_URL", "SWEEP_ID"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


@pytest.mark.parametrize(
    ("offline", "variables", "mode", "why"),
    [
        (None, {}, "offline", "no key is set"),
        (None, {"WANDB_API_KEY": "x"}, "online", "a key is set"),
        (None, {"WANDB_API_KEY": "x", "WANDB_MODE": "offline"}, "offline", "WANDB_MODE is offline"),
        (None, {"WANDB_MODE": "dryrun"}, "offline", "WANDB_MODE is dryrun"),
        (None, {"WANDB_MODE": "disabled"}, "disabled", "WANDB_MODE is disabled"),
        (True, {"WANDB_API_KEY": "x", "WANDB_MODE": "online"}, "offline", "--trainer.logger.init_args.offline is true"),
        (False, {}, "online", "--trainer.logger.init_args.offline is false"),
    ],
)
def test_offline_unless_there_is_a_key(bare, offline, variables, mode, why):
    for name, value in variables.items():
        bare.setenv(name, value)
    found = choose_mode(offline)
    assert found[0] == mode
    assert why in found[1]


@pytest.mark.parametrize("offline", [None, True])
def test_a_mode_that_is_none_is_refused(bare, offline):
    bare.setenv("WANDB_MODE", "")
    with pytest.raises(InputError, match="WANDB_MODE is ''; expected one of online, offline, disabled, shared, dryrun, run: "):
        choose_mode(offline)


def test_a_key_is_found_where_login_puts_it(bare, tmp_path):
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    assert choose_mode(None)[0] == "online"
    bare.setenv("WANDB_BASE_URL", "http://own.server:8080")
    assert choose_mode(None)[0] == "offline"
    (tmp_path / "other").write_text("machine own.server:8080 login user password x\n")
    bare.setenv("NETRC", str(tmp_path / "other"))
    assert choose_mode(None)[0] == "online"
    (tmp_path / "other").write_text("machine machine machine")
    assert choose_mode(None)[0] == "offline"


@pytest.mark.parametrize("name", ["timeout", "finish_timeout"])
def test_settings_out_of_range(name):
    with pytest.raises(InputError, match=rf"init_args.{name} 0: expected seconds above 0"):
        WandbLog(**{name: 0})


def test_versions_name_the_commit_of_a_checkout(monkeypatch, tmp_path):
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout
    if commit:
        assert versions()["commit"].removesuffix("-dirty") == commit.strip()
    monkeypatch.setattr(ltnet_pl, "__file__", str(tmp_path / "ltnet_pl" / "__init__.py"))
    assert versions() == {"ltnet_pl": ltnet_pl.__version__}
    (tmp_path / ".git").mkdir()
    assert versions() == {"ltnet_pl": ltnet_pl.__version__}


# --- with a run that only takes notes -----------------------------------------------------------------------------------------


class Config(dict):
    """W&B's, as far as it is used."""

    def update(self, more, allow_val_change=False):
        super().update(more)


class Notes:
    """A run that notes what it is told."""

    def __init__(self, **given):
        self.given, self.config, self.rows, self.metrics, self.ended, self.marks = given, Config(), [], {}, [], []
        self.id, self.settings = "abc", type("Settings", (), {"sync_dir": "somewhere"})

    def define_metric(self, name, **how):
        self.metrics[name] = how

    def log(self, row):
        self.rows.append(row)

    def finish(self, exit_code=0):
        self.ended.append(exit_code)

    def mark_preempting(self):
        self.marks.append(len(self.ended))


@pytest.fixture
def started(bare):
    """All runs that are started, as notes."""
    runs = []

    def init(**given):
        runs.append(Notes(**given))
        return runs[-1]

    bare.setattr(wandb, "init", init)
    bare.setattr(WandbLog, "_latest", None)
    return runs


def test_nothing_starts_before_it_is_asked_for_nor_on_another_process(started, tmp_path, monkeypatch):
    log = WandbLog(save_dir=str(tmp_path / "run"), project="own", tags=["a"])
    assert not started
    with monkeypatch.context() as patch:
        patch.setattr(rank_zero_only, "rank", 1)
        log.experiment.log({"x": 1})
        log.log_hyperparams({"trainer": {}, "model": {}, "data": {}})
        log.log_metrics({"val/psnr": 1.0}, step=1)
        log.finalize("success")
    assert not started
    assert log.experiment is log.experiment is started[0]
    given = started[0].given
    assert (given["project"], given["tags"], given["mode"], given["resume"]) == ("own", ["a"], "offline", "allow")
    assert "anonymous" not in given
    assert (tmp_path / "run").is_dir()


def test_a_sweep_decides_project_entity_and_id(started, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert WandbLog(save_dir=str(tmp_path), project="own", entity="me", id="x").experiment.given["project"] is None
    assert (started[0].given["entity"], started[0].given["id"]) == (None, None)


def test_it_says_in_one_line_what_it_does(started, tmp_path, capsys, monkeypatch):
    _ = WandbLog(save_dir=str(tmp_path)).experiment
    out = capsys.readouterr().out
    assert out == "W&B: offline, since no key is set (WANDB_API_KEY or `wandb login`); upload it by: wandb sync somewhere\n"
    monkeypatch.setenv("WANDB_API_KEY", "x")
    _ = WandbLog(save_dir=str(tmp_path)).experiment
    assert capsys.readouterr().out == "W&B: online, since a key is set\n"


def test_a_run_goes_on_offline_where_the_server_does_not_answer(started, tmp_path, capsys, monkeypatch):
    take_notes = wandb.init

    def init(mode, **given):
        if mode == "online":
            raise wandb.errors.CommError("no\nanswer")
        return take_notes(mode=mode, **given)

    monkeypatch.setattr(wandb, "init", init)
    run = WandbLog(save_dir=str(tmp_path), offline=False).experiment
    assert run.given["mode"] == "offline"
    assert "offline, since the server did not let the run start: no answer; upload it by" in capsys.readouterr().out


def test_a_key_that_is_none_is_the_users_mistake(started, tmp_path, monkeypatch):
    def init(**given):
        raise wandb.errors.AuthenticationError("API key must have 40+ characters")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(InputError, match=r"W&B refuses the run: API key must have 40\+ characters; expected a key"):
        _ = WandbLog(save_dir=str(tmp_path), offline=False).experiment


def test_a_second_training_of_a_process_gets_a_run_of_its_own(started, tmp_path, monkeypatch):
    first = WandbLog(save_dir=str(tmp_path)).experiment
    monkeypatch.setattr(wandb, "run", first)
    second = WandbLog(save_dir=str(tmp_path)).experiment
    assert first.ended == [0]
    assert second is not first
    foreign = Notes()
    monkeypatch.setattr(wandb, "run", foreign)
    with pytest.warns(UserWarning, match="There is a wandb run already in progress"):
        assert WandbLog(save_dir=str(tmp_path)).experiment is foreign
    assert not foreign.ended


def test_the_configuration_is_a_tree_without_noise(started, tmp_path):
    log = WandbLog(save_dir=str(tmp_path))
    tree = {"trainer": {"devices": 1, "precision": None}, "model": {"net": {"init_args": {"widths": [8]}}}, "data": {"x": 1}}
    log.log_hyperparams(tree)
    log.log_hyperparams({"_instantiator": "x", "loss": 1, "root": "data"})
    assert started[0].config == {**tree, "versions": versions()}
    notebook = WandbLog(save_dir=str(tmp_path))
    notebook.log_hyperparams({"_instantiator": "x", "loss": 1})
    assert started[1].config == {"loss": 1, "versions": versions()}


def test_the_summary_holds_the_best_and_the_last_of_validations(started, tmp_path):
    log = WandbLog(save_dir=str(tmp_path))
    for step in (1, 2):
        log.log_metrics({"val/psnr": 1.0, "val/loss": 2.0, "train/loss": 3.0, "val/panels": ["picture"]}, step=step)
    step = {"step_metric": "trainer/global_step"}
    assert started[0].metrics == {
        "trainer/global_step": {},
        "*": {**step, "step_sync": True},
        "val/psnr": {**step, "summary": "max,last"},
        "val/loss": {**step, "summary": "min,last"},
    }
    assert [row["trainer/global_step"] for row in started[0].rows] == [1, 2]


@pytest.mark.parametrize("error", [None, RuntimeError("broken")])
def test_other_ends_are_left_to_wandb(started, tmp_path, error):
    log = WandbLog(save_dir=str(tmp_path))
    log.finalize("failed")
    assert not started
    _ = log.experiment
    try:
        if error is not None:
            raise error
    except RuntimeError:
        log.finalize("failed")
    log.finalize("success")
    assert not started[0].ended


@pytest.mark.parametrize(
    ("number", "variables", "status", "marks"),
    [(signal.SIGTERM, {"WANDB_SWEEP_ID": "abc"}, 0, []), (signal.SIGTERM, {}, 143, []), (signal.SIGUSR1, {}, 143, [0])],
)
def test_a_stopped_run_ends_with_the_status_of_the_process(
    started, vidit_root, tmp_path, monkeypatch, number, variables, status, marks
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stop:
        main(flags(vidit_root, tmp_path / "run", *WANDB, *signal_at("train", 5, number)))
    (run,) = started
    assert stop.value.code == status
    assert run.ended == [status]
    # before its end
    assert run.marks == marks
    assert set(run.config) == TREE
    assert [len(row["val/panels"]) for row in run.rows if "val/panels" in row] == [1]


# --- real runs against a server on the loopback -------------------------------------------------------------------------------


@pytest.fixture
def server():
    """The server; whatever it could not answer fails the test."""
    with Stub() as stub:
        yield stub


def process_environment(server, home, **variables):
    """That of a process that uses the server; a variable that is None is not set."""
    own = environment(**(server.environment(home) | variables))
    own["PYTHONPATH"] = f"{Path(__file__).parent}:{ROOT}"
    return {name: value for name, value in own.items() if value is not None}


def fit(root, run, server, *more, **variables):
    """A run in a process of its own; how that ended."""
    own = process_environment(server, run.parent, **variables)
    return subprocess.run(
        command(root, run, *WANDB, *more), check=False, capture_output=True, text=True, timeout=300, env=own, cwd=run.parent
    )


def check_run(found, run, project="ltnet_pl"):
    """What the server knows is what the run folder knows."""
    assert found.project == project
    assert set(found.tree) == TREE
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert found.tree["model"]["net"] == config["model"]["net"]
    assert found.tree["trainer"]["max_steps"] == 12
    assert found.tree["versions"]["ltnet_pl"] == ltnet_pl.__version__
    logged = {row["trainer/global_step"]: row["val/psnr"] for row in found.history if "val/psnr" in row}
    assert list(logged) == [3, 7, 11]
    assert found.summary["val/psnr"] == {"max": max(logged.values()), "last": logged[11]}
    losses = [row["val/loss"] for row in found.history if "val/loss" in row]
    assert found.summary["val/loss"] == {"min": min(losses), "last": losses[-1]}
    assert sum(name.startswith("media/images/val/panels") for name in found.files) == 3


@pytest.mark.slow
def test_an_online_run_arrives(vidit_root, tmp_path, server):
    done = fit(vidit_root, tmp_path / "run", server)
    assert done.returncode == 0, done.stderr
    assert "W&B: online, since WANDB_MODE is online" in done.stdout
    assert "anonymous" not in done.stderr
    (found,) = server.runs.values()
    check_run(found, tmp_path / "run")
    assert found.state == "finished"


@pytest.mark.slow
def test_an_offline_run_is_uploaded_later(vidit_root, tmp_path, server):
    done = fit(vidit_root, tmp_path / "run", server, WANDB_MODE=None, WANDB_API_KEY=None)
    assert done.returncode == 0, done.stderr
    assert not server.runs
    folder = re.search(r"W&B: offline, since no key is set .*; upload it by: wandb sync (\S+)", done.stdout)[1]
    call = [sys.executable, "-m", "wandb", "sync", folder]
    own = process_environment(server, tmp_path)
    synced = subprocess.run(call, check=False, capture_output=True, text=True, timeout=120, env=own, cwd=tmp_path)
    assert synced.returncode == 0, synced.stderr
    (found,) = server.runs.values()
    check_run(found, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("log_model", [False, True])
def test_checkpoints_are_artifacts_on_request(vidit_root, tmp_path, server, log_model):
    more = ["--trainer.max_steps=4", f"--trainer.logger.init_args.log_model={log_model}"]
    done = fit(vidit_root, tmp_path / "run", server, *more, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert (b"model.ckpt" in record.read_bytes()) == log_model


@pytest.mark.slow
def test_a_preempted_run_is_marked_and_taken_up_again(vidit_root, tmp_path, server):
    """As an agent does it: the same command with the same id."""
    same = {"WANDB_RUN_ID": "again", "WANDB_SWEEP_ID": "sweep"}
    done = fit(vidit_root, tmp_path / "run", server, *signal_at("train", 5, signal.SIGUSR1), "--ckpt_path=last", **same)
    assert done.returncode == 143, done.stderr
    (found,) = server.runs.values()
    assert (found.id, found.state, found.exitcode, found.preempting) == ("again", "preempted", 143, True)
    done = fit(vidit_root, tmp_path / "run", server, "--ckpt_path=last", **same)
    assert done.returncode == 0, done.stderr
    assert list(server.runs) == ["again"]
    check_run(found, tmp_path / "run", project="uncategorized")
    assert (found.state, found.exitcode) == ("finished", 0)
    assert found.display == "again"


@pytest.mark.slow
@pytest.mark.parametrize("failing", [500, "silent"])
def test_training_goes_on_without_a_server(vidit_root, tmp_path, failing):
    with Stub(failing) as server:
        begun = time.monotonic()
        done = fit(vidit_root, tmp_path / "run", server, "--trainer.logger.init_args.timeout=3")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 90
    assert done.stdout.count("W&B: offline, since the server did not let the run start") == 1
    folder = re.search(r"wandb sync (\S+)", done.stdout)[1]
    assert list((tmp_path / folder).glob("*.wandb"))
    assert validations(tmp_path / "run") == {}
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


@pytest.mark.slow
def test_training_goes_on_when_the_server_goes_away(vidit_root, tmp_path):
    with Stub() as server:

        def fail():
            wait_for(lambda: any(run.config for run in server.runs.values()), 90)
            server.failing = 500

        threading.Thread(target=fail, daemon=True).start()
        begun = time.monotonic()
        done = fit(vidit_root, tmp_path / "run", server, "--trainer.logger.init_args.finish_timeout=3")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 90
    (run,) = (tmp_path / "run" / "wandb").glob("run-*")
    assert list(run.glob("*.wandb"))
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()
