"""The sweep files say only what `fit` understands, and a real agent runs real trials against a server on the loopback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from fits import EXPERIMENTS, flags
from wandb_stub import ENTITY, Stub, wait_for

from ltnet_pl.bench.configs import resolve

ROOT = EXPERIMENTS.parent
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))

pytestmark = pytest.mark.filterwarnings("ignore:.*class_path.*discard")


# --- the files --------------------------------------------------------------------------------------------------------------


def values(parameter):
    """Some values that a trial may be given."""
    return parameter["values"] if "values" in parameter else [parameter["min"], parameter["max"]]


def expand(sweep, given):
    """The flags of `fit` that an agent makes of the command."""
    args = [f"--{key}={given[key]}" for key in sorted(given)]
    command = [part for word in sweep["command"] for part in (args if word == "${args}" else [word])]
    assert command[:5] == ["${env}", "${interpreter}", "-m", "ltnet_pl", "fit"]
    return command[5:]


def found(config, key):
    """What a resolved configuration holds under a flag."""
    for part in key.split("."):
        config = config["init_args"][part] if part not in config else config[part]
    return config


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_parameter_is_a_flag(path, monkeypatch):
    """Each value arrives where its name says; what a file brings along, in whole."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "run")
    sweep = yaml.safe_load(path.read_text())
    parameters = sweep["parameters"]
    longest = max(len(values(part)) for part in parameters.values())
    for i in range(longest):
        given = {key: values(part)[min(i, len(values(part)) - 1)] for key, part in parameters.items()}
        config = resolve(expand(sweep, given), path.stem)
        wanted = dict(given)
        if "config" in wanted:
            brought = yaml.safe_load(Path(wanted.pop("config")).read_text())
            wanted |= {f"model.net.{key}": value for key, value in brought["model"]["net"]["init_args"].items()}
            wanted |= {f"model.loss.{key}": value for key, value in brought["model"].get("loss", {}).items()}
        assert {key: found(config, key) for key in wanted} == wanted
        # a folder of its own, which no file of the row takes away; a logger that sweeps can see; a stop that is heard
        assert config["trainer"]["default_root_dir"] == "runs/sweeps/sweep/run"
        assert config["trainer"]["logger"]["class_path"] == "ltnet_pl.callbacks.WandbLog"
        assert config["trainer"]["logger"]["init_args"]["save_dir"] == "runs/sweeps/sweep/run"
        assert "ltnet_pl.callbacks.GracefulStop" in [part["class_path"] for part in config["trainer"]["callbacks"]]
        assert config["ckpt_path"] == "last"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_says_what_it_asks_and_costs(path):
    first, second = path.read_text().splitlines()[:2]
    assert first.startswith("# ")
    assert first.endswith("?")
    sweep = yaml.safe_load(path.read_text())
    parameters = sweep["parameters"]
    # flat: nested blocks arrive as dictionaries that no parser takes
    assert not any("parameters" in part for part in parameters.values())
    assert sweep["metric"] == {"name": "val/psnr", "goal": "maximize"}
    trials = sweep.get("run_cap", 1)
    if sweep["method"] == "grid":
        for part in parameters.values():
            trials *= len(part["values"])
    assert re.match(rf"# Cost: .*\b{trials} trials\b.*(estimated|guess)", second)


def test_the_papers_claim_has_its_four_rows(monkeypatch):
    monkeypatch.chdir(ROOT)
    sweep = yaml.safe_load((ROOT / "sweeps" / "paper_claim.yaml").read_text())
    rows = []
    for config in sweep["parameters"]["config"]["values"]:
        model = resolve(expand(sweep, {"config": config, "seed_everything": 1}), config)["model"]
        rows.append((model["net"]["init_args"]["field"], model["loss"]["charbonnier"], model["loss"]["residual"]))
    assert rows == [("direct", 1, 0), ("residual", 1, 0), ("residual", 2, 0), ("residual", 1, 1)]


# --- agents -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """The server; whatever it could not answer fails the test."""
    with Stub() as stub:
        yield stub


def process_environment(server, home):
    """That of a process that uses the server, and starts `python` and this checkout's package."""
    own = {**os.environ, **server.environment(home), "PYTHONPATH": f"{Path(__file__).parent}:{ROOT}", "OMP_NUM_THREADS": "1"}
    # an agent must hear of the server; how a run is kept it decides by itself
    del own["WANDB_MODE"]
    return own | {"PATH": f"{Path(sys.executable).parent}:{own['PATH']}"}


def create(server, home, root, parameters, *more):
    """A sweep of short trainings of two processes; its id."""
    plain = [flag for flag in flags(root, home / "run", *more)[1:] if not flag.startswith("--trainer.default_root_dir")]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    log, trial = (["--config", str(EXPERIMENTS / name)] for name in ("wandb.yaml", "sweep.yaml"))
    command = ["${env}", "${interpreter}", "-m", "ltnet_pl", "fit", *plain, *two, *log, "--ckpt_path=last", "${args}", *trial]
    config = {"program": "ltnet_pl", "project": "tiny", "method": "grid", "parameters": parameters, "command": command}
    return register(server, home, config | {"metric": {"name": "val/psnr", "goal": "maximize"}})


def register(server, home, config):
    """A sweep on the server, by `wandb sweep`; its id."""
    (home / "sweep.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    call = [sys.executable, "-m", "wandb", "sweep", "sweep.yaml"]
    own = process_environment(server, home)
    done = subprocess.run(call, check=False, capture_output=True, text=True, timeout=60, env=own, cwd=home)
    assert done.returncode == 0, done.stderr
    (sweep,) = server.sweeps
    return sweep


def agent(server, home, sweep, count, project="tiny"):
    """A `wandb agent` on it, started."""
    call = [sys.executable, "-m", "wandb", "agent", "--count", str(count), f"{ENTITY}/{project}/{sweep}"]
    own = process_environment(server, home)
    return subprocess.Popen(call, env=own, cwd=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


READ_BACK = """
import json, wandb
api = wandb.Api()
sweep = api.sweep("stub/tiny/{sweep}")
runs = {{
    run.id: {{
        "state": run.state, "config": dict(run.config), "psnr": run.summary["val/psnr"].get("max"),
        "steps": [row["trainer/global_step"] for row in run.scan_history(keys=["trainer/global_step", "val/psnr"])],
    }}
    for run in sweep.runs
}}
print("RESULT" + json.dumps(runs))
"""


@pytest.mark.slow
def test_a_grid_of_two_trials_of_two_processes(vidit_root, tmp_path, server):
    """Two agents at once, one W&B run for each trial; what YAML says arrives in its configuration, and results are read back."""
    given = {
        "model.net.field": {"values": ["residual", "affine"]},
        "data.size": {"values": [None]},
        "model.net.tint": {"values": [False]},
        "model.loss.ssim": {"values": [0.25]},
        "model.loss.light": {"values": [1.0]},
        "model.net.widths": {"values": [[8, 16]]},
    }
    sweep = create(server, tmp_path, vidit_root, given)
    agents = [agent(server, tmp_path, sweep, 1) for _ in range(2)]
    try:
        # both at work
        assert wait_for(lambda: [run.state for run in server.runs.values()] == ["running", "running"], 200)
        outputs = [process.communicate(timeout=400)[0] for process in agents]
    finally:
        for process in agents:
            process.kill()
    output = "".join(outputs)
    assert [process.returncode for process in agents] == [0, 0], output
    assert "Ignoring project" not in output
    assert sorted(server.runs) == server.sweeps[sweep].given, output
    assert len(server.runs) == 2
    fields = []
    for name, run in server.runs.items():
        assert (run.state, run.exitcode, run.sweep, run.project) == ("finished", 0, sweep, "tiny"), output
        config = yaml.safe_load((tmp_path / "runs" / "sweeps" / sweep / name / "config.yaml").read_text())
        net, loss = config["model"]["net"]["init_args"], config["model"]["loss"]
        assert (config["data"]["init_args"]["size"], net["tint"], loss["ssim"], loss["light"]) == (None, False, 0.25, 1.0)
        assert net["widths"] == [8, 16]
        assert run.tree["model"]["net"] == config["model"]["net"]
        fields.append(net["field"])
    assert sorted(fields) == ["affine", "residual"]
    # the Api in a process of its own: wandb leaves threads behind
    call = [sys.executable, "-c", READ_BACK.format(sweep=sweep)]
    own = process_environment(server, tmp_path)
    done = subprocess.run(call, check=False, capture_output=True, text=True, timeout=60, env=own, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    back = json.loads(done.stdout.partition("RESULT")[2])
    assert back.keys() == server.runs.keys()
    for name, run in back.items():
        assert (run["state"], run["steps"]) == ("finished", [3, 7, 11])
        assert run["psnr"] == server.runs[name].summary["val/psnr"]["max"]
        assert run["config"]["model.loss.ssim"] == 0.25


@pytest.mark.slow
def test_a_file_of_ours_is_run_by_an_agent(vidit_root, tmp_path, server):
    """The smallest one as it stands, but for what makes its trials short."""
    config = yaml.safe_load((ROOT / "sweeps" / "paper_claim_small.yaml").read_text())
    short = [flag for flag in flags(vidit_root, tmp_path / "run", "--trainer.max_steps=4")[5:] if "default_root_dir" not in flag]
    at = config["command"].index("${args}")
    config["command"][at:at] = ["--config", "experiments/debug.yaml", *short]
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    sweep = register(server, tmp_path, config)
    process = agent(server, tmp_path, sweep, 2, "ltnet_pl")
    try:
        output = process.communicate(timeout=400)[0]
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert sorted(server.runs) == server.sweeps[sweep].given, output
    assert len(server.sweeps[sweep].trials) == 6
    for seed, name in enumerate(server.sweeps[sweep].given):
        run = server.runs[name]
        assert (run.state, run.exitcode, run.sweep, run.project) == ("finished", 0, sweep, "ltnet_pl"), output
        found = yaml.safe_load((tmp_path / "runs" / "sweeps" / sweep / name / "config.yaml").read_text())
        assert (found["seed_everything"], found["model"]["net"]["init_args"]["field"]) == (seed, "direct")
        assert run.summary["val/psnr"]["max"] > 0


@pytest.mark.slow
def test_a_stop_command_ends_a_trial_within_seconds(vidit_root, tmp_path, server):
    more = ["--trainer.max_steps=100000", "--data.samples_per_epoch=2000"]
    sweep = create(server, tmp_path, vidit_root, {"model.loss.ssim": {"values": [0.25]}}, *more)
    process = agent(server, tmp_path, sweep, 1)
    try:
        assert wait_for(lambda: any(run.history for run in server.runs.values()), 90)
        (run,) = server.runs.values()
        server.stops.add(run.id)
        # an agent asks every five seconds
        assert wait_for(lambda: run.stop_sent is not None, 20)
        assert wait_for(lambda: run.state != "running", 60)
        assert time.monotonic() - run.stop_sent < 15
        output = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert (run.state, run.exitcode) == ("finished", 0), output
    assert "stopped by SIGTERM at step" in output
    folder = tmp_path / "runs" / "sweeps" / sweep / run.id
    assert (folder / "checkpoints" / "last.ckpt").exists()
    assert json.loads((folder / "summary.json").read_text())["status"] == "stopped"
    assert not subprocess.run(["pgrep", "-f", str(tmp_path)], check=False, capture_output=True).stdout
