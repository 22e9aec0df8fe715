"""The record of a run: lines as they come, and a summary that says how the run stands."""

from __future__ import annotations

import json
import signal
from itertools import pairwise

import pytest
from fits import flags, signal_at

from ltnet_pl.cli import main
from ltnet_pl.files import read_lines


def record(run):
    return read_lines(run / "metrics.jsonl"), json.loads((run / "summary.json").read_text())


@pytest.fixture(scope="module")
def whole(vidit_root, tmp_path_factory):
    run = tmp_path_factory.mktemp("record") / "run"
    assert main(flags(vidit_root, run, "--trainer.log_every_n_steps=2")) == 0
    return record(run)


def test_lines_and_summary_of_a_finished_run(whole):
    lines, summary = whole
    assert [line["step"] for line in lines if "train/loss" in line] == [2, 4, 6, 8, 10, 12]
    validations = [line for line in lines if "val/psnr" in line]
    assert [(line["step"], line["epoch"]) for line in validations] == [(4, 0), (8, 1), (12, 2)]
    assert all(line["seconds"] <= after["seconds"] for line, after in pairwise(lines))
    assert not any("train/loss" in line for line in validations)
    assert (summary["status"], summary["steps"], summary["seed"], summary["net"]) == ("finished", 12, 0, "LTNet")
    assert summary["last"]["val/psnr"] == validations[-1]["val/psnr"]
    best = max(validations, key=lambda line: line["val/psnr"])
    assert summary["best"] == {key: value for key, value in best.items() if "/" in key}
    assert summary["parameters"] > 1000


def test_a_loss_of_a_metrics_name_stands_beside_it(vidit_root, tmp_path):
    """What `fit` logs of a validation is what `validate` finds of the same weights: the metric, and the loss 1 - SSIM apart."""
    run = tmp_path / "run"
    assert main(flags(vidit_root, run, "--trainer.max_steps=4", "--model.loss.ssim=0.5")) == 0
    logged = next(line for line in record(run)[0] if "val/psnr" in line)
    assert 0 < logged["val/ssim"] < 1
    assert logged["val/ssim_loss"] != logged["val/ssim"]
    data = ["--data.test_split=val", "--ckpt_path=last", "--model.row=val"]
    given = [flag for flag in flags(vidit_root, run) if "max_steps" not in flag][1:]
    assert main(["test", *given, *data]) == 0
    tested = json.loads((run / "test/val/summary.json").read_text())["metrics"]
    assert tested["psnr"] == pytest.approx(logged["val/psnr"], abs=1e-3)
    assert tested["ssim"] == pytest.approx(logged["val/ssim"], abs=1e-4)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, "stopped"), (0, "failed")])
def test_a_run_that_goes_on_has_each_line_once(vidit_root, whole, tmp_path, number, status):
    run, log = tmp_path / "run", "--trainer.log_every_n_steps=2"
    # the exception comes in the second epoch, and what was logged of it is done again
    with pytest.raises(SystemExit if number else RuntimeError):
        main(flags(vidit_root, run, log, *signal_at("train", 6, number)))
    lines, summary = record(run)
    assert summary["status"] == status
    assert lines[-1]["step"] == 6
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "tr')
    assert main(flags(vidit_root, run, log, "--ckpt_path=last")) == 0
    lines, summary = record(run)
    drop = lambda line: {key: value for key, value in line.items() if key != "seconds"}  # noqa: E731
    assert list(map(drop, lines)) == list(map(drop, whole[0]))
    assert {key: summary[key] for key in ("status", "best", "last")} == {key: whole[1][key] for key in ("status", "best", "last")}
