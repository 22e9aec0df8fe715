"""`bench quality --confirm`: results of earlier code that today's code would reach too."""

import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml

from ltnet_pl import InputError
from ltnet_pl.bench import confirm, training
from ltnet_pl.bench.configs import config_hash
from ltnet_pl.bench.plan import Job
from ltnet_pl.bench.results import Result
from ltnet_pl.bench.rows import Row
from ltnet_pl.bench.training import Mark
from ltnet_pl.files import locked

# ---- what speaks against a result, on runs that are made up


CONFIG = {
    "seed_everything": 0,
    "trainer": {"max_steps": 800},
    "model": {"scheduler": {"init_args": {"T_max": 800}}},
    "data": {"class_path": "x"},
}
HASH = config_hash(CONFIG)
NUMBERS = {"train/loss": "0.32565248012542725", "train/ssim": "0.14215464890003204"}
RESULT = Result(
    row="mine",
    tier="tiny",
    seed=0,
    config=HASH,
    data="d",
    code="earlier",
    stream=None,
    versions={"torch": torch.__version__},
    machine="2 cores, X",
    date="2026-02-03",
    seconds=90.0,
    threads=2,
    parameters=1,
    operations={"network": 1},
    label={"psnr": 20.1234, "ssim": 0.5},
    guide={"psnr": 19.0},
    identity={"psnr": 60.0, "capped": 4, "pairs": 4},
    per_scene={"label": {"psnr": [20.0, 20.2468]}},
)


def write_log(run, numbers, step=49):
    folder = run / "logs" / "version_0"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(f"epoch,step,{','.join(numbers)},val/psnr\n0,{step},{','.join(numbers.values())},\n")


class Case:
    """One finished run of code `earlier`, its result, and what today's code trains and scores."""

    def __init__(self, folder, monkeypatch, capsys):
        self.run, self.capsys = folder / "tiny" / "mine-seed0", capsys
        (self.run / "checkpoints").mkdir(parents=True)
        (self.run / "checkpoints" / "last.ckpt").write_bytes(b"weights")
        write_log(self.run, NUMBERS)
        training.write_mark(self.run, Mark(HASH, "d", "earlier", 90.04, 2, 0.0, True))
        self.job = Job(Row("mine", "g", (), ()), 0, "tiny", ("--a=b",), CONFIG, HASH, None, "d", self.run, True, False)
        self.old, self.new, self.kept, self.flags, self.threads = RESULT, replace(RESULT, code="today"), [], [], []
        self.numbers, self.step, self.status, self.written = NUMBERS, 49, 0, {}
        self.scorer = SimpleNamespace(
            code="today",
            machine="2 cores, X",
            references={0: replace(self.job, row=Row("LTNet", "g", (), ()))},
            found=lambda job: self.old,
            score=lambda job: (replace(self.new, machine="2 cores, X"), None),
            keep=lambda job, result, readings: self.kept.append(result),
        )
        monkeypatch.setattr(training, "code_hash", lambda: "today")
        monkeypatch.setattr(training.Trainer, "_child", lambda trainer, *given: self.child(*given))

    def child(self, run, flags, lock, threads):
        assert run.parent == self.run.parent
        self.threads.append(threads)
        self.flags += flags
        (run / "fit.log").write_text("no memory\n")
        config = {**CONFIG, "trainer": {"max_steps": 50}, **self.written}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        write_log(run, self.numbers, self.step)
        return self.status

    def mark(self, **change):
        training.write_mark(self.run, replace(training.read_mark(self.run), **change))

    def __call__(self):
        """What is said of the row; None where it is today's."""
        marked = training.read_mark(self.run)
        confirmer = confirm.Confirmer([self.job], self.scorer, 1)
        self.failed = confirmer.run()
        out = self.capsys.readouterr().out
        assert [path.name for path in self.run.parent.iterdir()] in ([self.run.name], [])
        said = re.search(r"mine, seed 0: stays as it is: (.*)", out)
        if said:
            assert self.kept == []
            assert training.read_mark(self.run) == marked
            return said[1]
        assert "mine, seed 0: is a result of today's code" in out
        return None


@pytest.fixture
def case(tmp_path, monkeypatch, capsys):
    return Case(tmp_path, monkeypatch, capsys)


def test_a_run_is_todays(case):
    assert case() is None
    assert case.flags == [
        "--a=b",
        "--trainer.max_steps=50",
        "--trainer.log_every_n_steps=50",
        "--model.scheduler.init_args.T_max=800",
    ]
    assert case.threads == [2]
    assert case.kept == [replace(RESULT, code="today")]
    assert training.read_mark(case.run) == Mark(HASH, "d", "today", 90.04, 2, 0.0, True)


def test_a_run_without_a_schedule_is_todays(case):
    case.written = {"model": {"scheduler": None}}
    config = {**CONFIG, **case.written}
    key = config_hash(config)
    case.job = replace(case.job, config=config, config_hash=key)
    case.old = case.new = replace(RESULT, config=key)
    case.mark(config=key)
    assert case() is None
    assert case.flags[-1] == "--trainer.log_every_n_steps=50"


def test_what_is_of_todays_code_or_stale_is_passed_over(case):
    for result in (case.new, replace(case.old, config="other"), replace(case.old, data="other"), None):
        case.old = result
        assert confirm.Confirmer([case.job], case.scorer, 1).pending == []


def test_one_bit_is_a_difference(case):
    case.numbers = NUMBERS | {"train/ssim": "0.14215464890003205"}
    assert case() == (
        "train/ssim at step 49 was 0.14215464890003204, and is 0.14215464890003205 by today's code; --redo trains it anew"
    )
    assert case.failed == []


def test_a_number_more_or_less_is_a_difference(case):
    case.numbers = NUMBERS | {"train/new": "0.1"}
    assert case().startswith("train/new at step 49 was absent, and is 0.1")
    case.numbers = {"train/loss": NUMBERS["train/loss"]}
    assert case().startswith("train/ssim at step 49 was 0.14215464890003204, and is absent")
    case.numbers, case.step = NUMBERS, 48
    assert case() == "today's code logs nothing at step 49; --redo trains it anew"


def test_another_torch_is_said_beside_a_difference(case):
    case.old = replace(RESULT, versions={"torch": "1.0"})
    case.numbers = NUMBERS | {"train/ssim": "0.2"}
    assert f"(torch 1.0 then, {torch.__version__} now)" in case()


def harm_log(case):
    shutil.rmtree(case.run / "logs")


def harm_checkpoint(case):
    (case.run / "checkpoints" / "last.ckpt").unlink()


def harm_length(case):
    config = {**CONFIG, "trainer": {"max_steps": -1}}
    case.job = replace(case.job, config=config)


def harm_machine(case):
    case.old = replace(RESULT, machine="96 cores, Z")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda case: (case.run / training.MARK).unlink(),
            "there is no run of the benchmark in .*mine-seed0; bring the folder back",
        ),
        (lambda case: shutil.rmtree(case.run), "there is no run of the benchmark in .*mine-seed0; bring the folder back"),
        (harm_checkpoint, "last.ckpt is missing; bring it back"),
        (harm_log, "logs holds no metrics.csv with numbers of training; --redo"),
        (harm_length, "its length is not given in steps, and no first steps can be compared; --redo"),
        (
            harm_machine,
            "was trained on 96 cores, Z, and here is 2 cores, X, which may round otherwise; confirm it on such a machine",
        ),
        (lambda case: case.mark(finished=False), "holds a run that is not finished, or of another configuration or data; --redo"),
        (lambda case: case.mark(data="other"), "of another configuration or data; --redo"),
        (lambda case: case.mark(code="third"), "a run of code third, and the result is of code earlier; --redo"),
    ],
)
def test_what_cannot_be_compared_is_said_and_left(case, harm, message):
    harm(case)
    assert re.search(message, case())
    assert case.flags == []
    assert case.failed == []


def test_a_training_that_fails_is_a_failure(case):
    case.status = 1
    assert case().startswith("training failed with exit status 1; the end of ")
    assert case.failed == ["mine, seed 0"]


def test_a_configuration_that_follows_the_length_otherwise_is_refused(case):
    case.written = {"model": {"scheduler": {"init_args": {"T_max": 800, "warm_up": 50}}}}
    assert "changes with --trainer.max_steps beyond the length and the schedule's T_max" in case()
    assert case.failed == ["mine, seed 0"]


def test_a_scoring_that_fails_is_a_failure(case):
    def fail(job):
        raise RuntimeError("broken")

    case.scorer.score = fail
    assert case() == "RuntimeError: broken"
    assert case.failed == ["mine, seed 0"]


def test_a_run_that_is_trained_meanwhile_is_left(case):
    """Its last checkpoint may be of any step."""
    score, finished = case.scorer.score, training.read_mark(case.run)

    def train_meanwhile(job):
        with pytest.raises(InputError, match="another process trains it"), locked(job.run, "trains it"):
            pass
        return score(job)

    case.scorer.score = train_meanwhile
    assert case() is None
    case.kept.clear()
    training.write_mark(case.run, finished)
    confirmer = confirm.Confirmer([case.job], case.scorer, 1)
    settle = confirmer._settle

    def begin_first(job, future):
        future.result()
        case.mark(code="today", finished=False)
        settle(job, future)

    confirmer._settle = begin_first
    confirmer.run()
    assert "stays as it is: " in (out := case.capsys.readouterr().out)
    assert "mine-seed0 was trained meanwhile; run the command again" in out
    assert case.kept == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"label": {"psnr": 20.1237, "ssim": 0.5}}, "label psnr"),
        ({"guide": {"psnr": 18.0}}, "guide psnr"),
        ({"identity": {"psnr": 60.0, "capped": 3, "pairs": 4}}, "identity capped"),
        ({"per_scene": {"label": {"psnr": [20.0, 20.3]}}}, "label psnr of test scene 1"),
    ],
)
def test_other_scores_of_the_same_weights_are_a_difference(case, change, name):
    case.new = replace(case.new, **change)
    said = case()
    assert re.fullmatch(rf"{name} was \S+, and is \S+ when today's code scores the same weights; --redo trains it anew", said)


def test_the_last_digit_may_differ_and_more_may_be_scored(case):
    case.new = replace(case.new, label={"psnr": 20.1235, "ssim": 0.5, "lpips_squeeze": 0.1})
    assert case() is None
    assert case.kept[0].label["lpips_squeeze"] == 0.1


def test_guides_that_another_network_reads_may_be_read_otherwise(case):
    case.job = replace(case.job, borrows=True)
    case.old = replace(RESULT, stream=HASH, stream_code="before")
    case.new = replace(case.new, stream=HASH, stream_code="today", guide={"psnr": 18.0})
    assert case() is None
    assert case.kept[0].stream_code == "today"


@pytest.mark.parametrize("trains", [True, False])
def test_a_score_that_cannot_be_had_any_more_is_not_lost(case, trains):
    case.job = replace(case.job, trains=trains)
    case.old = replace(RESULT, label=RESULT.label | {"lpips_squeeze": 0.1})
    assert (
        case() == "label lpips_squeeze was scored, and cannot be now; name the weights that it takes by --metrics.lpips_weights"
    )


def test_what_trains_nothing_or_was_trained_by_todays_code_is_only_scored(case):
    case.new = replace(case.new, label={"psnr": 1.0, "ssim": 0.1})
    case.mark(code="today")
    assert case() is None
    case.job = replace(case.job, trains=False)
    shutil.rmtree(case.run)
    assert case() is None
    assert case.flags == []
    assert [result.label["psnr"] for result in case.kept] == [1.0, 1.0]


def test_the_first_log_of_a_resumed_run_counts(tmp_path):
    for version, step in ((0, 49), (1, 99), (10, 149)):
        folder = tmp_path / "logs" / f"version_{version}"
        folder.mkdir(parents=True)
        lines = ["epoch,step,train/loss,train/ssim,val/loss", f"0,{step - 1},,,0.5", f"0,{step},0.{step},,", "1,9999,0.1,0.2,"]
        (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    assert confirm.first_logged(tmp_path) == confirm.Logged(49, {"train/loss": "0.49"})
    (tmp_path / "logs" / "version_0" / "metrics.csv").unlink()
    (tmp_path / "logs" / "version_1" / "metrics.csv").unlink()
    assert confirm.first_logged(tmp_path).step == 149
    assert confirm.first_logged(tmp_path / "nowhere") is None
