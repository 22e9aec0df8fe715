"""The benchmark's parts: hashes, the bootstrap, multiply-adds and timings, the command."""

import copy

import contract
import numpy as np
import pytest
import scenes
import torch

from ltnet_pl.bench import BENCHES, bench, speed
from ltnet_pl.bench.configs import config_hash
from ltnet_pl.bench.hashes import bare, code_hash, data_hash, files_hash, machine
from ltnet_pl.bootstrap import difference
from ltnet_pl.cli import main
from ltnet_pl.vidit import any_to_any_pairs, find_settings

# ---- hashes

CONFIG = {
    "seed_everything": 0,
    "trainer": {
        "max_steps": 800,
        "default_root_dir": "runs/a",
        "logger": {"class_path": "CSVLogger"},
        "callbacks": [
            {"class_path": "ltnet_pl.callbacks.EMA", "init_args": {"decay": 0.995}},
            {"class_path": "pytorch_lightning.callbacks.RichProgressBar", "init_args": {"leave": False}},
        ],
    },
    "model": {"net": {"class_path": "ltnet_pl.nets.UNet", "init_args": {"widths": [8, 12]}}, "loss": {"ssim": 0.1}, "row": None},
    "data": {
        "class_path": "ltnet_pl.data.AnyToAnyDataModule",
        "init_args": {"root": "a", "size": 96, "num_workers": 2, "seed": 0},
    },
}


def changed(path, value):
    """The configuration with one leaf changed."""
    config = copy.deepcopy(CONFIG)
    *parts, last = path.split(".")
    at = config
    for part in parts:
        at = at[int(part) if isinstance(at, list) else part]
    at[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("trainer.default_root_dir", "runs/b"),
        ("trainer.logger", None),
        ("trainer.enable_progress_bar", False),
        ("trainer.callbacks.1.init_args", {}),
        ("model.row", "my row"),
        ("model.net.init_args.new", None),  # a setting that a later version gains, and that is not set
        ("data.init_args.root", "elsewhere"),
        ("data.init_args.num_workers", 0),
    ],
)
def test_what_changes_no_weight_changes_no_hash(path, value):
    assert config_hash(changed(path, value)) == config_hash(CONFIG)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed_everything", 1),
        ("trainer.max_steps", 801),
        ("trainer.gradient_clip_val", 1.0),
        ("trainer.callbacks.0.init_args.decay", 0.99),
        ("model.net.class_path", "ltnet_pl.nets.LTNet"),
        ("model.net.init_args.widths", [12, 8]),
        ("model.loss.ssim", 0.2),
        ("data.init_args.size", 128),
        ("data.init_args.seed", 1),
    ],
)
def test_what_changes_weights_changes_the_hash(path, value):
    assert config_hash(changed(path, value)) != config_hash(CONFIG)


def test_the_order_of_keys_is_nothing():
    assert config_hash(dict(reversed(CONFIG.items()))) == config_hash(CONFIG)


def test_data_is_its_bytes_and_its_lists(tmp_path):
    roots = [scenes.write_any_to_any(tmp_path / name, scenes=2, size=(16, 20), temperatures=(2500, 4500)) for name in "ab"]
    pairs = [any_to_any_pairs(find_settings(root), 4) for root in roots]
    assert data_hash(roots[0], [pairs[0]]) == data_hash(roots[1], [pairs[1]])
    assert data_hash(roots[0], [pairs[0]]) != data_hash(roots[0], [pairs[0][1:]])
    assert data_hash(roots[0], [pairs[0], []]) != data_hash(roots[0], [pairs[0]])
    (roots[1] / "pairs").mkdir()
    (roots[1] / "pairs" / "list.csv").write_text("name\n")
    assert files_hash.__wrapped__(roots[1]) == files_hash(roots[0])
    scene = roots[1] / "scenes" / "Image001" / "scene.json"
    scene.write_text(scene.read_text().replace("analytic", "other"))
    camera = files_hash.__wrapped__(roots[1])
    assert camera != files_hash(roots[0])
    (roots[1] / "Image000_2500_N.png").write_bytes((roots[1] / "Image000_2500_S.png").read_bytes())
    assert files_hash.__wrapped__(roots[1]) != camera


def test_code_is_what_it_does():
    one = 'X = 1  # a comment\n"""What X is."""\ndef f(a):\n    """Doc."""\n    return (a + X)\n'
    same = "X = 1\n\n\ndef f(a):\n    # another\n    return a + X\n"
    assert bare(one) == bare(same)
    assert bare(one) != bare(same.replace("+", "-"))
    assert bare('def f():\n    """Doc."""\n') == bare("def f():\n    pass\n")
    assert len(code_hash()) == 16


def test_a_machine_has_no_name():
    import platform

    assert "core" in machine()
    assert platform.node() not in machine()


# ---- bootstrap


def test_bootstrap_is_paired_by_scene():
    hard = np.linspace(-5, 5, 20)  # scenes differ far more than rows
    found = difference([hard + 0.5], [hard])
    assert found == pytest.approx((0.5, 0.5, 0.5))
    assert found.claimed


def test_bootstrap_interval_is_that_of_the_mean():
    """Of many scenes it approaches mean +- 1.96 standard errors."""
    change = np.random.default_rng(3).normal(0.1, 1.0, 400)
    found = difference([change], [np.zeros(400)])
    error = change.std() / 20
    assert found.mean == pytest.approx(change.mean())
    assert found.low == pytest.approx(change.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(change.mean() + 1.96 * error, abs=0.1 * error)


def test_bootstrap_averages_seeds_first():
    """Seeds that differ by opposite amounts cancel, scene by scene."""
    noise = np.array([3.0, -2.0, 1.0, 0.5])
    found = difference([1 + noise, 1 - noise], [np.zeros(4), np.zeros(4)])
    assert found == pytest.approx((1.0, 1.0, 1.0))


def test_bootstrap_claims_no_chance():
    change = [1.0, -1.0, 0.5, -0.5, 0.2]
    assert not difference([change], [[0.0] * 5]).claimed
    assert difference([change], [[0.0] * 5]) == difference([change], [[0.0] * 5])
    with pytest.raises(ValueError, match="5 and 4 scenes"):
        difference([change], [[0.0] * 4])


# ---- multiply-adds and time


class Conv(torch.nn.Module):
    """8 filters of 3x3, and cues that it states."""

    def __init__(self, whole_guide=False):
        super().__init__()
        self.conv, self.whole_guide = torch.nn.Conv2d(3, 8, 3, padding=1), whole_guide

    def forward(self, batch):
        image = batch["input"] + batch["guide"] if self.whole_guide else batch["input"]
        return {"relit": self.conv(image)[:, :3]}

    def cue_operations(self, height, width):
        return 10 * height * width


def test_multiply_adds_of_a_convolution():
    assert speed.cost(Conv(), 64) == {"network": 64 * 64 * 8 * 27, "cues": 40960, "guide_size": 256}
    # one that takes only guides as large as its input is counted with such a one, and that is said
    assert speed.cost(Conv(whole_guide=True), 64) == {"network": 64 * 64 * 8 * 27, "cues": 40960, "guide_size": 64}


def test_the_synthetic_batch_keeps_the_contract():
    batch = speed.synthetic_batch(64, guide_size=64)
    assert contract.check_contract(batch, 64, 64, (speed.FRAME_SIZE, speed.FRAME_SIZE), guide=True) == 1
    assert speed.synthetic_batch(64)["guide"].shape == (1, 3, 256, 256)
    assert contract.equal(speed.synthetic_batch(64), speed.synthetic_batch(64))


def test_rows_take_turns_and_the_first_does_not_count(monkeypatch):
    order, clock = [], iter(range(1000))

    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    found = speed.timed({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, "cpu", repeats=2)
    assert order == ["a", "b"] * 3
    assert found["a"]["ms"] == 1000.0


# ---- the command


def test_bench_lists_its_parts(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in BENCHES)
    assert main(["bench", "everything"]) == 2
    assert "bench everything: unknown; expected one of quality, speed" in capsys.readouterr().err


@pytest.mark.parametrize(("what", "flag"), [("quality", "--tier"), ("speed", "--repeats")])
def test_each_part_has_its_own_flags(what, flag, capsys):
    with pytest.raises(SystemExit):
        main(["bench", what, "--help"])
    assert flag in capsys.readouterr().out
    assert bench(what).__name__ == what
    with pytest.raises(SystemExit) as stop:
        main(["bench", what, "--gone=1"])
    assert stop.value.code == 2
