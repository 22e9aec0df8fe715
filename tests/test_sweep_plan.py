"""The YAML of sweeps: what it may say, the trials that it makes, and their command lines."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ltnet_pl import InputError
from ltnet_pl.sweep import plan
from ltnet_pl.sweep.search import Search
from ltnet_pl.sweep.slots import misfit, parse_slots
from ltnet_pl.sweep.tables import short

GRID = {"method": "grid", "parameters": {"a": {"values": [1, 2, 3]}, "b": {"values": [None, True]}, "c": {"value": 0.5}}}


def read(tmp_path, **content):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return plan.read_sweep(path)


def test_a_grid_is_every_combination_once(tmp_path):
    sweep = read(tmp_path, **GRID)
    trials = list(plan.grid(sweep))
    assert trials[:2] == [{"a": 1, "b": None, "c": 0.5}, {"a": 1, "b": True, "c": 0.5}]
    assert len({tuple(trial.items()) for trial in trials}) == 6
    search = Search(sweep, None, 0)
    assert search.total == 6
    assert [search.parameters(i, [], []) for i in range(6)] == trials
    assert Search(sweep, 4, 0).total == 4
    assert Search(read(tmp_path, **GRID, run_cap=2), 4, 0).total == 2


@given(number=st.integers(0, 1000), seed=st.integers(0, 10))
def test_random_trials_are_functions_of_seed_and_number_within_their_bounds(tmp_path_factory, number, seed):
    parameters = {
        "u": {"min": 0.5, "max": 2.0},
        "i": {"min": 1, "max": 3},
        "log": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
        "inv": {"distribution": "inv_log_uniform_values", "min": 1e-3, "max": 1.0},
        "exp": {"distribution": "log_uniform", "min": -2, "max": 0},
        "q": {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25},
        "n": {"distribution": "normal", "mu": 1.0, "sigma": 0.1},
        "one": {"values": ["x", "y"], "probabilities": [1.0, 0.0]},
        "fixed": {"value": [1, 2]},
    }
    sweep = read(tmp_path_factory.getbasetemp(), method="random", run_cap=3, parameters=parameters)
    found = plan.drawn(sweep, number, seed)
    assert found == plan.drawn(sweep, number, seed)
    assert 0.5 <= found["u"] <= 2
    assert found["i"] in (1, 2, 3)
    assert isinstance(found["i"], int)
    assert 1e-4 <= found["log"] <= 1e-1
    assert 1e-3 <= found["inv"] <= 1 + 1e-12
    assert math.exp(-2) <= found["exp"] <= 1
    assert found["q"] in (0, 0.25, 0.5, 0.75, 1)
    assert (found["one"], found["fixed"]) == ("x", [1, 2])
    assert not any(isinstance(value, np.generic) for value in found.values())


def test_log_uniform_draws_each_decade_as_often(tmp_path):
    spec = {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}
    sweep = read(tmp_path, method="random", run_cap=1, parameters={"x": spec})
    decades = np.floor([math.log10(plan.drawn(sweep, i, 0)["x"]) for i in range(600)])
    assert all(150 < (decades == decade).sum() < 250 for decade in (-4, -3, -2))


def test_command_lines_are_those_of_an_agent(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_DATA", "here")
    command = ["${interpreter}", "-m", "ltnet_pl", "fit", "--data.root", "${envvar:MY_DATA}", "${args}"]
    sweep = read(tmp_path, **GRID, command=command)
    line = plan.expand(sweep, {"b": None, "a": [1, 2.5], "c": True})
    assert line == [sys.executable, "-m", "ltnet_pl", "fit", "--data.root", "here", "--a=[1, 2.5]", "--b=None", "--c=True"]
    assert plan.flags_of(line) == ["--data.root", "here", "--a=[1, 2.5]", "--b=None", "--c=True"]
    assert plan.flags_of(["bash", "x.sh"]) is None
    switches = read(tmp_path, **GRID, command=["x", "${args_no_boolean_flags}"])
    assert plan.expand(switches, {"a": True, "b": False, "c": 1}) == ["x", "--a", "--c=1"]
    default = plan.expand(read(tmp_path, **GRID), {"a": 1})
    assert default[-5:] == [sys.executable, "-m", "ltnet_pl", "fit", "--a=1"]
    with pytest.raises(InputError, match=r"command has \$\{nope\}; expected one of .*\$\{args\}"):
        plan.expand(read(tmp_path, **GRID, command=["${nope}"]), {})


def test_what_decides_the_trials_is_in_the_hash(tmp_path):
    one = read(tmp_path, **GRID).hash
    assert read(tmp_path, **GRID, name="other", project="p").hash == one
    assert read(tmp_path, **dict(reversed(GRID.items()))).hash == one
    assert read(tmp_path, **GRID, run_cap=2).hash != one


TEXT = "a.{0} is '{1}'; expected a number, but YAML reads {1} as text: write {2}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parameters": {}}, "its search space is empty"),
        ({"parameters": {"a": {"value": 1, "values": [1, 2]}}}, "parameters.a has value and values; expected one of them"),
        ({"parameters": {"a": {"values": []}}}, r"parameters.a.values is \[\]; expected a list of one or more"),
        (
            {"parameters": {"a": {"min": 2.0, "max": 2.0}}, "method": "random"},
            "min 2.0 is not below max 2.0; its search space is empty",
        ),
        (
            {"parameters": {"a": {"parameters": {"b": {"value": 1}}}}},
            "parameters.a has parameters of its own; expected flat keys",
        ),
        ({"parameters": {"a": 3}}, "parameters.a is 3; expected value, values or a distribution"),
        ({"parameters": {"a": {"min": 0, "max": 1}}}, "a grid needs values, but this is int_uniform"),
        ({"parameters": {"a": {"distribution": "beta"}}, "method": "random"}, "distribution beta is unknown"),
        ({"parameters": {"a": {"distribution": "uniform", "min": 1}}, "method": "random"}, "uniform lacks max"),
        ({"parameters": {"a": {"values": [1, 2], "probabilities": [0.5]}}, "method": "random"}, "expected one for each value"),
        ({"method": "anneal"}, "method is anneal; expected one of grid, random, bayes"),
        ({"method": "bayes"}, "needs a metric"),
        ({"metric": {"name": "x", "goal": "up"}}, "metric.goal is up; expected maximize or minimize"),
        ({"run_cap": 0}, "run_cap is 0; expected a number of trials"),
        ({"parametres": {}}, "parametres is not understood"),
        (
            {"metric": {"name": "x"}, "early_terminate": {"type": "envelope"}},
            "early_terminate.type is envelope; expected hyperband",
        ),
        # what YAML takes for something else
        ({"method": "random", "parameters": {"a": {"min": "1e-4", "max": "1e-2"}}}, TEXT.format("min", "1e-4", "1.0e-4")),
        ({"method": "random", "parameters": {"a": {"min": 0.0, "max": "2e5"}}}, TEXT.format("max", "2e5", "200000.0")),
        ({"method": "random", "parameters": {"a": {"min": 0, "max": "high"}}}, "a.max is 'high'; expected a number: correct it"),
        ({"method": "random", "parameters": {"a": {"min": 0, "max": math.inf}}}, "a.max is inf; expected a number"),
        ({"method": "random", "parameters": {"a": {"min": False, "max": 2}}}, "a.min is False; expected a whole number"),
        ({"method": "random", "parameters": {"a": {"distribution": "normal", "sigma": 0}}}, "a.sigma is 0; expected more than 0"),
        (
            {"method": "random", "parameters": {"a": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.0}}},
            "a.q is 0.0; expected more than 0",
        ),
        (
            {"method": "random", "parameters": {"a": {"distribution": "int_uniform", "min": 0.5, "max": 3}}},
            "a.min is 0.5; expected a whole number",
        ),
        (
            {"method": "random", "parameters": {"a": {"distribution": "log_uniform_values", "min": 0, "max": 1}}},
            "a.min is 0, and log_uniform_values takes its logarithm; expected more than 0",
        ),
        (
            {"method": "random", "parameters": {"a": {"distribution": "log_uniform", "min": 0, "max": 1000}}},
            "a.max is 1000, and log_uniform raises e to it; expected at most 700",
        ),
        (
            {"parameters": {"a": {"values": [1, 2], "probabilities": 0.5}}},
            "a.probabilities is 0.5; expected one for each value, 1 in all: write a list",
        ),
        ({"parameters": {"a": {"values": [1, 2], "probabilities": [1.5, -0.5]}}}, "expected one for each value"),
        ({"parameters": {"a": {"values": [1, 2], "probabilities": [0.5, "x"]}}}, "a.probabilities is 'x'; expected a number"),
        ({"metric": "val/psnr"}, "metric is val/psnr; expected metric: {name: val/psnr, goal: maximize}"),
        ({"metric": {"name": ["x"]}}, r"metric.name is \['x'\]; expected the name of a logged value"),
        ({"early_terminate": "hyperband"}, "early_terminate is hyperband; expected early_terminate: {type: hyperband"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 2}}, "early termination needs a metric"),
        ({"early_terminate": {"type": "hyperband"}}, "early_terminate has no min_iter; expected it, or max_iter and s"),
        ({"early_terminate": {"type": "hyperband", "max_iter": 9}}, "early_terminate has no min_iter; expected it, or max_iter"),
        ({"early_terminate": {"type": "hyperband", "min_iter": "two"}}, "early_terminate.min_iter is 'two'; expected a whole"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 0}}, "early_terminate.min_iter is 0; expected 1 or more"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 1}}, "early_terminate.eta is 1; expected more than 1"),
        ({"run_cap": True}, "run_cap is True; expected a number of trials"),
        ({"command": "python x.py"}, "command is python x.py; expected a list of words"),
        ({"command": ["x", {"a": 1}]}, "expected a list of words"),
        ({"command": ["${program}", "${args}"]}, r"command has \$\{program\}, and program is None; expected its name"),
        ({"program": "train.py"}, "program is train.py, and no command says how it runs; expected one"),
    ],
)
def test_yaml_that_is_refused(tmp_path, change, said):
    if "early_terminate" in change and "needs a metric" not in said:
        change = {"metric": {"name": "x"}} | change
    with pytest.raises(InputError, match=said) as error:
        read(tmp_path, **GRID | change)
    assert str(tmp_path / "sweep.yaml") in str(error.value)


def test_files_that_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file; expected a sweep"):
        plan.read_sweep(tmp_path / "gone.yaml")
    with pytest.raises(InputError, match="is a folder; expected a sweep"):
        plan.read_sweep(tmp_path)
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"bad.yaml: .*; expected YAML"):
        plan.read_sweep(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="holds no parameters"):
        plan.read_sweep(tmp_path / "list.yaml")


def test_random_without_an_end_is_refused(tmp_path):
    sweep = read(tmp_path, method="random", parameters={"a": {"min": 0.0, "max": 1.0}})
    with pytest.raises(InputError, match="random has no last trial; expected run_cap in it, or --count"):
        Search(sweep, None, 0)
    assert Search(sweep, 3, 0).total == 3


def test_bayes_without_the_package_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sweeps", None)
    sweep = read(tmp_path, method="bayes", metric={"name": "x"}, parameters={"a": {"min": 0.0, "max": 1.0}}, run_cap=3)
    with pytest.raises(InputError, match=r"need the package sweeps, which is not installed; .*'ltnet_pl\[sweeps\]'"):
        Search(sweep, None, 0)


def test_slots(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert parse_slots(None) == ["0", "1", "2", "3"]
    assert parse_slots("0,1; 2, 3") == ["0,1", "2,3"]
    assert parse_slots("cpu;cpu") == ["", ""]
    for slots, said in (
        ("0,4", "there is no GPU 4, there are 4; expected 0 to 3"),
        ("0;0", "GPU 0 is named twice"),
        ("0;00", "GPU 00 is named twice"),
        ("0;x", "'x' is no device"),
    ):
        with pytest.raises(InputError, match=f"--slots {slots}: {said}"):
            parse_slots(slots)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert parse_slots(None) == [""]
    with pytest.raises(InputError, match="there is no GPU 0, there are 0; expected cpu"):
        parse_slots("0")


def test_slots_are_those_of_the_devices_that_are_visible(monkeypatch):
    """As torch counts them: the first number is the first device of the list."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for visible, names in (("2,3", ["2", "3"]), ("GPU-1b, MIG-7", ["GPU-1b", "MIG-7"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert parse_slots(None) == names
        assert parse_slots("1;0") == names[::-1]
        assert parse_slots("0,1;cpu") == [",".join(names), ""]
    with pytest.raises(InputError, match="there is no GPU 2, there are 2 in CUDA_VISIBLE_DEVICES=GPU-1b, MIG-7; expected 0 to 1"):
        parse_slots("2")
    # what torch makes nothing of is none
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert parse_slots(None) == [""]


@pytest.mark.parametrize("devices", [2, "2", [0, 1], "0,1", [1]])
def test_slots_that_are_too_small(devices):
    assert misfit(devices, "auto", ["0,1", "2"]) == "2 GPUs, and the slot 2 has 1"
    assert misfit(devices, "gpu", ["", "0,1"]) == "a GPU, and the slot cpu has none"
    assert misfit(devices, "auto", ["0,1", "2,3,4", ""]) is None
    # processes are no devices
    assert misfit(devices, "cpu", ["0", ""]) is None
    assert all(misfit(any_number, "gpu", ["0"]) is None for any_number in (1, "auto", -1, "-1", [0], "0,"))


def test_short_names():
    assert short("model.net.init_args.field") == "net.field"
    assert short("lr") == "lr"
