"""`bench sizes` and `bench photos`: tables of what large photographs cost, on small ones."""

import re

import pytest
import torch
from nets_small import awake

from ltnet_pl.bench import photos as module
from ltnet_pl.cli import main
from ltnet_pl.nets import LTNet
from ltnet_pl.weights import save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    settings = {"widths": [8, 16], "light_width": 4}
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, awake(LTNet(**settings)), {"class_path": "ltnet_pl.nets.LTNet", "init_args": settings})
    return str(path)


def rows(text):
    lines = [line.strip("|").split("|") for line in text.splitlines() if re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line] for line in lines]


def test_sizes_are_scored_side_by_side(weights, vidit_copy, capsys):
    (vidit_copy / "scenes").mkdir(exist_ok=True)
    flags = ["--weights", weights, "--working", "16,32", "--scenes", "2", "--pairs", "2", "--threads", "1"]
    assert main(["bench", "sizes", str(vidit_copy), *flags]) == 0
    said = capsys.readouterr().out
    assert "2 pairs, 1 threads" in said
    found = rows(said)
    assert [row[0] for row in found] == ["16", "32"]
    for row in found:
        assert 3 < float(row[1]) < 60
        assert -1 <= float(row[2]) <= 1
        assert float(row[4]) > float(row[5]) > 0


def test_what_a_photograph_costs_is_measured(weights):
    prepared, first, further, grown = module.measured(96, 1, 2, weights)
    assert min(prepared, first, further) > 0
    assert grown is None or 0 < grown < 2000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["sizes", "nowhere", "--working", "8"], "--working 8: 8 is too small; expected 16 or more each"),
        (["sizes", "nowhere", "--working", "x"], "--working x: expected whole numbers"),
        (["sizes", "nowhere", "--pairs", "0"], "--pairs 0; expected 1 or more"),
        (["photos", "--sizes", "32"], "--sizes 32: expected 64 or more"),
        (["photos", "--repeats", "0"], "--repeats 0: expected 1 or more"),
    ],
)
def test_bad_flags_are_named(flags, message, capsys):
    assert main(["bench", *flags]) == 2
    assert message in capsys.readouterr().err
