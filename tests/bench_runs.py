"""Run folders for tests of the benchmarks, as `fit` leaves them."""

import warnings
from pathlib import Path

from ltnet_pl.bench import sheets
from ltnet_pl.cli import main

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def fit(data, run, *more):
    """A tiny run of a few steps; returns its folder as text.

    Args:
        data: An any-to-any set of four scenes or more.
        run: Folder of the run.
        more: Further flags of `fit`.
    """
    flags = ["--config", str(EXPERIMENTS / "base.yaml"), "--config", str(EXPERIMENTS / "debug.yaml"), *more]
    flags += [
        f"--data.root={data}",
        f"--data.pairs={run.parent}",
        f"--trainer.default_root_dir={run}",
        "--trainer.accelerator=cpu",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["fit", *flags, "--data.val_scenes=2", "--data.test_scenes=2"]) == 0
    return str(run)


def fit_copy(data, run):
    """A U-Net that learned nothing, and so copies its input."""
    return fit(data, run, "--config", str(EXPERIMENTS / "baselines" / "unet.yaml"), "--model.optimizer.init_args.lr=0")


def record_texts(monkeypatch):
    """A list that gets every text that a sheet shows."""
    texts = []
    write = sheets._write
    monkeypatch.setattr(
        sheets, "_write", lambda draw, text, *rest, **more: (texts.append(text), write(draw, text, *rest, **more))
    )
    return texts
