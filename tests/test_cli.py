"""The command line, end to end through `main([...])`: commands, flags, configs, runs, mistakes."""

import csv
import json
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pages
import pytest
import scenes
import torch
import yaml
from PIL import Image

from ltnet_pl.cli import COMMANDS, main

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
BASE = ["--config", str(EXPERIMENTS / "base.yaml"), "--config", str(EXPERIMENTS / "debug.yaml")]


def arguments(root, run, *more, lists=None):
    """Flags of a tiny any-to-any run."""
    flags = [*BASE, f"--data.root={root}", f"--trainer.default_root_dir={run}", "--data.val_scenes=2", "--data.test_scenes=2"]
    pairs = lists or Path(run).parent / "pairs"
    return [*flags, f"--data.pairs={pairs}", "--data.pairs_per_scene=2", "--trainer.accelerator=cpu", *more]


def pixels(path):
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


@pytest.fixture(scope="module")
def fitted(vidit_root, tmp_path_factory):
    """A finished run of four steps, tested; read only."""
    run = tmp_path_factory.mktemp("cli") / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["fit", *arguments(vidit_root, run)]) == 0
        assert main(["test", *arguments(vidit_root, run), "--ckpt_path=best"]) == 0
    return run


def test_fit_leaves_a_whole_run_folder(fitted):
    assert {"config.yaml", "checkpoints", "logs", "panels", "test"} <= {p.name for p in fitted.iterdir()}
    assert {p.name for p in (fitted / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    with (fitted / "logs" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["train/loss"] for row in rows)
    assert any(row["val/psnr"] for row in rows)
    config = yaml.safe_load((fitted / "config.yaml").read_text())
    assert config["model"]["net"]["init_args"]["widths"] == [8, 12]


def test_test_writes_metrics_images_and_summary(fitted):
    folder = fitted / "test" / "LTNet-guide-light"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["row"] == "LTNet (guide light)"
    assert {"psnr", "ssim", "input_direction_accuracy", "guide_mired_error"} <= set(summary["metrics"])
    assert "lpips" in summary["absent"]
    with (folder / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == summary["pairs"] == 4
    values = [float(row["psnr"]) for row in rows]
    assert np.mean(values) == pytest.approx(summary["metrics"]["psnr"], abs=1e-3)
    for row in rows:
        assert pixels(folder / "images" / f"{row['name']}.png").shape == (32, 45, 3)
        assert (folder / "panels" / f"{row['name']}.png").exists()


def test_test_is_the_metric_of_the_written_image(fitted, vidit_root):
    """PSNR recomputed from the files on disk."""
    folder = fitted / "test" / "LTNet-guide-light"
    with (folder / "per_image.csv").open() as file:
        row = next(csv.DictReader(file))
    source, _, wanted = row["name"].partition("_to_")
    scene = source.split("_")[0]
    target = Image.fromarray(pixels(vidit_root / f"{scene}_{wanted}.png"))
    relit = pixels(folder / "images" / f"{row['name']}.png").astype(float) / 255
    reduced = np.asarray(target.resize((45, 32), Image.Resampling.BOX), dtype=float) / 255
    psnr = -10 * np.log10(((relit - reduced) ** 2).mean())
    assert psnr == pytest.approx(float(row["psnr"]), abs=0.05)


def test_label_light_is_a_row_of_its_own(fitted):
    """By the run's own configuration, as a user would."""
    flags = ["--config", str(fitted / "config.yaml"), "--model.net.init_args.light=label", "--ckpt_path=best"]
    assert main(["test", *flags]) == 0
    assert json.loads((fitted / "test" / "LTNet-label-light" / "summary.json").read_text())["light"] == "label"


def test_validate_and_its_row(fitted, vidit_root, capsys):
    assert main(["validate", *arguments(vidit_root, fitted), "--ckpt_path=last"]) == 0
    assert "val/psnr" in capsys.readouterr().out


def test_a_second_fit_into_the_same_folder_is_refused(fitted, vidit_root, capsys):
    before = (fitted / "checkpoints" / "last.ckpt").read_bytes()
    assert main(["fit", *arguments(vidit_root, fitted)]) == 2
    assert "already holds a run with checkpoints; go on with it by --ckpt_path last" in capsys.readouterr().err
    assert (fitted / "checkpoints" / "last.ckpt").read_bytes() == before


def test_resume_keeps_flags_and_the_old_config(fitted, vidit_root, tmp_path):
    """The checkpoint's own hyperparameters must not override what the user writes."""
    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    more = ("--trainer.max_steps=6", "--model.optimizer.init_args.weight_decay=0.07", "--model.optimizer.init_args.lr=0.5")
    flags = arguments(vidit_root, run, *more)
    assert main(["fit", *flags, f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["optimizer"]["init_args"]["weight_decay"] == 0.07
    assert yaml.safe_load((run / "config.1.yaml").read_text())["model"]["optimizer"]["init_args"]["weight_decay"] == 0.01
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6
    # the optimiser too, and a schedule as if it had been this one from the start: at its end, the cosine is at 0
    (group,) = checkpoint["optimizer_states"][0]["param_groups"]
    assert (group["weight_decay"], group["initial_lr"]) == (0.07, 0.5)
    assert group["lr"] == pytest.approx(0.0, abs=1e-9)
    assert checkpoint["lr_schedulers"][0]["T_max"] == 6
    curves = [path for path in run.glob("logs/*/metrics.csv") if "train/loss" in path.read_text()]
    assert len(curves) == 2


def test_schedule_follows_an_override_of_max_steps(vidit_root, tmp_path):
    assert main(["fit", *arguments(vidit_root, tmp_path / "run", "--trainer.max_steps=2")]) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["model"]["scheduler"]["init_args"]["T_max"] == 2
    assert config["trainer"]["logger"]["init_args"]["save_dir"] == str(tmp_path / "run")


def test_python_none_becomes_null(vidit_root, tmp_path):
    assert main(["fit", *arguments(vidit_root, tmp_path / "run", "--model.row=None", "--trainer.max_steps=2")]) == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["row"] is None


@pytest.mark.parametrize("name", ["copy_input", "color_affine"])
@pytest.mark.filterwarnings("ignore:.*this fit will run with no optimizer", "ignore:.*`training_step` returned `None`")
def test_baselines_run(name, vidit_root, tmp_path):
    more = ["--config", str(EXPERIMENTS / "baselines" / f"{name}.yaml")]
    common = arguments(vidit_root, tmp_path / name)
    # the baseline's file comes after base and before the flags
    flags = [*common[:4], *more, *common[4:]]
    if name == "color_affine":
        assert main(["fit", *flags]) == 0
        flags += ["--ckpt_path=best"]
    assert main(["test", *flags]) == 0
    assert list(tmp_path.glob(f"{name}/test/*/summary.json"))


def test_wandb_offline(vidit_root, tmp_path):
    flags = arguments(vidit_root, tmp_path / "run", "--trainer.max_steps=2")
    flags = [*flags[:4], "--config", str(EXPERIMENTS / "wandb.yaml"), *flags[4:]]
    # in a process of its own: wandb leaves threads and warnings behind
    result = subprocess.run(
        [sys.executable, "-m", "ltnet_pl", "fit", *flags], capture_output=True, text=True, timeout=200, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    run = next((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert list(run.glob("*.wandb"))
    assert list(run.glob("files/media/images/val/panels*.png"))
    assert "name: null" in (tmp_path / "run" / "config.yaml").read_text()
    assert (tmp_path / "run" / "config.yaml").exists()


def test_predict_by_light_and_by_guide(fitted, vidit_root, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("Image000_6500_N.png", "Image001_6500_N.png"):
        shutil.copy(vidit_root / name, folder)
    for name in ("Image000.npy", "Image001.npy"):
        shutil.copy(vidit_root / name, folder)
    for wanted in (["--data.azimuth=90", "--data.temperature=4500"], [f"--data.guide={vidit_root / 'Image002_4500_E.png'}"]):
        run = tmp_path / f"predicted{len(wanted)}"
        flags = ["--config", str(fitted / "config.yaml"), f"--trainer.default_root_dir={run}"]
        flags += ["--config", str(EXPERIMENTS / "predict.yaml"), f"--data.folder={folder}", *wanted]
        assert main(["predict", *flags, f"--ckpt_path={fitted / 'checkpoints' / 'best.ckpt'}"]) == 0
        assert pixels(run / "predict" / "Image000_6500_N.png").shape == (40, 56, 3)
        assert (run / "predict" / "per_image.csv").read_text().startswith("name,input_azimuth,input_temperature,target_azimuth")
        assert main(["report", str(run / "predict"), "--output", str(run / "report.html")]) == 0
        assert "Direction of the input" in (run / "report.html").read_text()


def test_challenge_layout_gets_a_submission(fitted, vidit_root, tmp_path):
    root = scenes.write_pairs_layout(tmp_path / "track2")
    flags = arguments(vidit_root, fitted, f"--data.test_root={root}", "--data.test_scenes=0", "--model.row=track 2")
    assert main(["test", *flags, "--ckpt_path=best"]) == 0
    with zipfile.ZipFile(fitted / "test" / "track-2" / "submission.zip") as archive:
        assert archive.namelist()
        assert all(name.startswith("Pair") for name in archive.namelist())


# ---- the table of commands


def test_help_lists_every_command_and_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'jsonargparse', 'pytorch_lightning'}"
    code = f"import sys; from ltnet_pl.cli import main; main(['--help']); print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
    for name, command in COMMANDS.items():
        assert f"  {name}" in out
        assert command.summary in out


@pytest.mark.parametrize("name", COMMANDS)
def test_table_matches_the_real_parsers(name, capsys):
    """Every command of the table has a parser of its own that answers --help."""
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    flags = {"fit": "--trainer.max_steps", "validate": "--ckpt_path", "test": "--metrics.lpips_weights", "predict": "--data"}
    flags |= {
        "render": "--scenes",
        "relight": "--azimuth",
        "demo": "--port",
        "report": "--output",
        "bench": "quality",
        "fit-rig": "--out",
        "cache": "--verify",
        "sweep": "--slots",
        "export": "--opset",
    }
    assert flags[name] in out


def test_lightning_has_no_command_that_the_table_lacks():
    from ltnet_pl.experiment import RelightCLI

    assert set(RelightCLI.subcommands()) == {name for name, c in COMMANDS.items() if c.where.startswith("ltnet_pl.experiment")}


def test_version_and_bare_call(capsys):
    assert main(["--version"]) == 0
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].count(".") == 2
    assert "usage: python -m ltnet_pl COMMAND" in out


def test_a_command_without_a_flag(monkeypatch, capsys):
    """All defaults; and what has none is asked for as by any other parser."""
    called = []

    def quality(tier: str = "screen", table: bool = False) -> None:
        """Stands for the benchmark."""
        called.append((tier, table))

    monkeypatch.setattr("ltnet_pl.bench.quality.quality", quality)
    assert main(["bench", "quality"]) == 0
    assert main(["bench", "quality", "--table"]) == 0
    assert called == [("screen", False), ("screen", True)]
    with pytest.raises(SystemExit) as stop:
        main(["report"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "usage: python -m ltnet_pl report" in error
    assert "runs" in error


# ---- mistakes


def test_unknown_command(capsys):
    assert main(["trian"]) == 2
    assert "unknown command 'trian'; expected one of fit, validate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model.loss.charbonier=1"], "charbonier"),
        (["--model.net.init_args.feild=affine"], "feild"),
        (["--trainer.max_step=3"], "max_step"),
        (["--model.net.init_args.field=gian"], "gian"),
        (["--config=missing.yaml"], "missing.yaml"),
    ],
)
def test_misspelt_keys_are_named(more, message, vidit_root, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments(vidit_root, tmp_path / "run", *more)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data.crop=500"], "--data.crop"),
        (["--data.root=nowhere"], "nowhere"),
        (["--model.loss.ssim=-1"], "loss weight ssim"),
        (["--metrics.lpips_weights=nowhere.pth", "--model.loss.perceptual=1"], "nowhere.pth"),
        (["--ckpt_path=nowhere.ckpt"], "--ckpt_path nowhere.ckpt is not a file"),
        (["--data.val_scenes=9"], "val_scenes"),
        (["--ckpt_path=best"], "run fit first"),
        (["--trainer.max_epochs=1", "--trainer.max_steps=-1"], "T_max is -1"),
        (["--model.net.init_args.camera.fov=500"], "fov"),
        (["--model.net.init_args.widths=[]"], "widths"),
    ],
)
def test_mistakes_end_with_one_line_and_status_2(more, message, vidit_root, tmp_path, capsys):
    assert main(["fit", *arguments(vidit_root, tmp_path / "run", *more)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_run_folder_that_is_a_file(vidit_root, tmp_path, capsys):
    (tmp_path / "run").write_text("")
    assert main(["fit", *arguments(vidit_root, tmp_path / "run")]) == 2
    assert "is a file" in capsys.readouterr().err


def test_checkpoint_of_another_network(fitted, vidit_root, tmp_path, capsys):
    flags = arguments(vidit_root, tmp_path / "run", "--model.net.init_args.widths=[8,16]")
    assert main(["test", *flags, f"--ckpt_path={fitted / 'checkpoints' / 'best.ckpt'}"]) == 2
    assert "holds the weights of LTNet, which do not fit --model.net LTNet as configured" in capsys.readouterr().err


def test_broken_checkpoint(fitted, vidit_root, tmp_path, capsys):
    path = tmp_path / "half.ckpt"
    path.write_bytes((fitted / "checkpoints" / "best.ckpt").read_bytes()[:5000])
    assert main(["test", *arguments(vidit_root, fitted), f"--ckpt_path={path}"]) == 2
    assert "half.ckpt is broken or no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["test", "validate"])
def test_untrained_weights_are_not_scored(command, vidit_root, tmp_path, capsys):
    assert main([command, *arguments(vidit_root, tmp_path / "run")]) == 2
    assert f"{command} has no --ckpt_path, and LTNet has weights to load" in capsys.readouterr().err


def test_a_checkpoint_of_another_run_does_not_open_this_one(fitted, vidit_root, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    assert main(["fit", *arguments(vidit_root, run), f"--ckpt_path={fitted / 'checkpoints' / 'best.ckpt'}"]) == 2
    assert "already holds a run with checkpoints" in capsys.readouterr().err


def test_another_optimiser_does_not_resume(fitted, vidit_root, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    flags = arguments(vidit_root, run, "--trainer.max_steps=6", "--model.optimizer=torch.optim.SGD")
    assert main(["fit", *flags, "--ckpt_path=last"]) == 2
    assert "trained with another optimiser than --model.optimizer SGD" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(fitted, vidit_root, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    # a learning rate that no weight survives: the next step's loss is not finite
    more = ("--trainer.max_steps=8", "--model.optimizer.init_args.lr=1e38")
    assert main(["fit", *arguments(vidit_root, run, *more), "--ckpt_path=last"]) == 2
    assert "the loss is not finite at step 5" in capsys.readouterr().err
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_foreign_network(vidit_root, tmp_path, monkeypatch):
    """The example of docs/howto/own_network.md, word for word."""
    pages.write_network(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    common = arguments(vidit_root, tmp_path / "run", "--model.net=my_package.Mine", "--model.loss.light=0")
    flags = ["--config", str(EXPERIMENTS / "base.yaml"), *common[4:], "--trainer.max_steps=2", "--data.samples_per_epoch=16"]
    assert main(["fit", *flags]) == 0
    del sys.modules["my_package"]  # other tests want one that is not there
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


@pytest.mark.slow
def test_mixed_precision(vidit_root, tmp_path):
    """bf16 with clipping, in a process of its own."""
    flags = arguments(vidit_root, tmp_path / "bf16", "--trainer.precision=bf16-mixed")
    result = subprocess.run([sys.executable, "-m", "ltnet_pl", "fit", *flags], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "bf16" / "checkpoints" / "best.ckpt").exists()


def test_missing_checkpoint_says_what_there_is(vidit_root, tmp_path, capsys):
    assert main(["test", *arguments(vidit_root, tmp_path / "run"), "--ckpt_path=best"]) == 2
    assert "run fit first" in capsys.readouterr().err


def test_several_devices_are_refused_in_test(fitted, vidit_root, capsys):
    flags = arguments(vidit_root, fitted, "--trainer.devices=2", "--trainer.strategy=ddp_spawn", "--ckpt_path=best")
    assert main(["test", *flags]) == 2
    assert "results come from one device" in capsys.readouterr().err
