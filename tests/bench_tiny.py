"""A tiny benchmark: a tier of four steps on analytic scenes, and training in this process instead of a child's."""

import shutil
import sys
import traceback
from pathlib import Path

import pytest
import scenes
import yaml

from ltnet_pl.bench import quality, scorer, scoring, training
from ltnet_pl.bench.training import Trainer
from ltnet_pl.cli import main

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"

TINY = {
    "trainer": {"max_steps": 4},
    "model": {"net": {"init_args": {"widths": [8, 12], "steps": 8, "light_width": 8}}},
    "data": {"init_args": {"size": 32, "batch_size": 2, "samples_per_epoch": 2, "val_scenes": 2, "test_scenes": 2}},
}

FOREIGN = '''"""A network of one's own: all that it must meet is a batch in and a dict with `relit` out."""

import time
from pathlib import Path

import torch


class Mine(torch.nn.Module):
    """One convolution; waits after `steps` batches as long as the file `hold` exists."""

    def __init__(self, width: int = 4, hold: str | None = None, steps: int = 1, broken: bool = False) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(3 + 4, width, 3, padding=1), torch.nn.Conv2d(width, 3, 1)
        self.hold, self.steps, self.broken, self.count = hold, steps, broken, 0

    def forward(self, batch):
        if self.broken:
            raise RuntimeError("this network is broken")
        self.count += self.training
        while self.count > self.steps and self.hold and Path(self.hold).exists():
            time.sleep(0.05)
        lights = torch.cat([batch["input_light"], batch["target_light"]], dim=1) / 1000
        planes = lights[:, :, None, None].expand(-1, -1, *batch["input"].shape[-2:])
        return {"relit": batch["input"] + self.last(torch.relu(self.first(torch.cat([batch["input"], planes], dim=1))))}
'''


def write_experiments(folder):
    """``base.yaml`` and ``benchmark/`` of the repository, with a tier `tiny` and two rows."""
    (folder / "benchmark").mkdir(parents=True)
    shutil.copytree(EXPERIMENTS / "baselines", folder / "baselines")
    shutil.copy(EXPERIMENTS / "base.yaml", folder)
    for name in ("benchmark.yaml", "closed_form.yaml"):
        shutil.copy(EXPERIMENTS / "benchmark" / name, folder / "benchmark")
    (folder / "benchmark" / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    rows = {"LTNet": [], "CopyInput": ["baselines/copy_input.yaml"]}
    rows = {name: {"group": "methods", "configs": files, "tiers": ["tiny"]} for name, files in rows.items()}
    content = {"tiers": {"tiny": {"seeds": [0]}}, "rows": rows}
    (folder / "benchmark" / "rows.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def write_row(path, **init):
    """The config file of a row of the foreign network."""
    config = {"model": {"net": {"class_path": "bench_mine.Mine", "init_args": init}, "loss": {"light": 0.0}}}
    path.write_text(f"# Does my own network do better?\n{yaml.safe_dump(config)}")
    return path


def train_here(trainer, run, flags, lock, threads):
    """What `Trainer._child` does, in this process."""
    with (run / "fit.log").open("a") as log:
        try:
            return main(["fit", *flags, f"--trainer.default_root_dir={run}", "--ckpt_path=last"])
        except RuntimeError:
            log.write(traceback.format_exc())
            return 1


class Bench:
    """Calls `bench quality` on a set, with everything that it writes below one folder."""

    def __init__(self, folder, data):
        self.data, self.runs, self.results = data, folder / "runs", folder / "results"
        self.experiments = write_experiments(folder / "experiments")

    def flags(self, *more):
        places = (f"--data={self.data}", f"--runs={self.runs}", f"--results={self.results}", f"--experiments={self.experiments}")
        return ["bench", "quality", "--tier=tiny", "--threads=1", *places, *more]

    def one_to_one(self):
        """Make the tier one-to-one, where nothing has guides, so that no light stream is trained to read them."""
        tier = {**TINY, "data": {"class_path": "ltnet_pl.data.OneToOneDataModule", "init_args": TINY["data"]["init_args"]}}
        (self.experiments / "benchmark" / "tiny.yaml").write_text(yaml.safe_dump(tier))

    def __call__(self, *more):
        return main(self.flags(*more))


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """The module of a foreign network, importable here and in children."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "bench_mine.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path / "own")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "own"))
    yield
    sys.modules.pop("bench_mine", None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six scenes of 40x56: two to train on, two to validate, two to test."""
    return scenes.write_any_to_any(tmp_path_factory.mktemp("bench") / "set", temperatures=(2500, 4500, 6500))


@pytest.fixture
def bench(tmp_path, data, monkeypatch):
    """The benchmark on that set, training in this process; multiply-adds counted on a small image."""
    monkeypatch.setattr(Trainer, "_child", train_here)
    monkeypatch.setattr(scorer, "COUNTED_SIZE", 64)
    monkeypatch.setattr(scoring, "TEST_PAIRS", 5)
    monkeypatch.setattr(scoring, "IDENTITY_PAIRS", 2)
    monkeypatch.delenv("LTNET_LPIPS_WEIGHTS", raising=False)
    return Bench(tmp_path, data)


@pytest.fixture
def trainings(bench, monkeypatch):
    """Names of the run folders that are trained, in their order."""
    names = []

    def child(trainer, run, flags, lock, threads):
        names.append(run.name)
        return train_here(trainer, run, flags, lock, threads)

    monkeypatch.setattr(Trainer, "_child", child)
    return names


def set_code(monkeypatch, code):
    """Have the package's code be another."""
    for module in (quality, scorer, training):
        monkeypatch.setattr(module, "code_hash", lambda: code)
