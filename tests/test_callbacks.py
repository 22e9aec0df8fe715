"""Callbacks: panels show what they say, files appear whole, results are written, averages are averages."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.callbacks import EMA, EpochSeed, Panels, PredictResults, TestResults
from ltnet_pl.callbacks.files import write_bytes, write_png
from ltnet_pl.callbacks.panels import image_of_depth, panel
from ltnet_pl.callbacks.results import light_columns, relative, slug, submission, table_of
from ltnet_pl.files import TILES


def tiles_of(picture, width):
    """The tiles of a panel row, cut at its two-pixel gaps."""
    return {name: picture[:, i * (width + 2) : i * (width + 2) + width] for i, name in enumerate(TILES)}


def test_panel_shows_every_tile_in_order(batch):
    relit = (batch["target"] + 0.05).clamp(0, 1)
    tiles = tiles_of(panel(batch, relit, 1), 50)
    for key, shown in (("input", batch["input"]), ("guide", batch["guide"]), ("target", batch["target"]), ("relit", relit)):
        expected = (shown[1].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        np.testing.assert_array_equal(tiles[key], expected)
    error = ((relit - batch["target"])[1].abs().mean(dim=0) * 4 * 255).numpy()
    np.testing.assert_allclose(tiles["error"][..., 0], error, atol=1)


def test_panel_without_guide_and_target_is_grey_there(batch):
    bare = {key: value for key, value in batch.items() if key not in ("guide", "target")}
    tiles = tiles_of(panel(bare, batch["input"], 0), 50)
    for name in ("guide", "target", "error"):
        assert set(np.unique(tiles[name])) == {128}


def test_panel_reduces_large_images(batch):
    assert panel(batch, batch["input"], 0, side=25).shape == (18, 6 * 25 + 5 * 2, 3)


def test_depth_picture_near_is_bright_background_black():
    depth = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    shown = image_of_depth(depth)[0]
    assert shown[0, 0] == 0
    assert shown[0, 1] > shown[1, 0] > shown[1, 1] > 0
    assert image_of_depth(torch.zeros(2, 2)).sum() == 0


def test_files_leave_nothing_half_written(tmp_path, full_disk):
    """A disk that fills up in the middle leaves the old file, and no partial one."""
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        write_bytes(target, b"new")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_png_round_trip(tmp_path):
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    write_png(tmp_path / "new" / "x.png", pixels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "x.png")), pixels)


def test_table_keeps_order_and_leaves_unknown_empty(batch):
    outputs = {"guide_azimuth_pred": torch.tensor([10.0, 20.0, 30.0])}
    columns = light_columns({**batch, "input_light": torch.full((3, 2), torch.nan)}, outputs)
    rows = [{"name": batch["name"][i], "psnr": 20.0 + i, "ssim": 0.5, **{k: v[i] for k, v in columns.items()}} for i in range(3)]
    lines = table_of(rows).splitlines()
    assert lines[0].startswith("name,psnr,ssim,input_azimuth,input_temperature,target_azimuth")
    assert lines[1] == "pair0,20,0.5,,,90,4500,,,10,"
    assert len(lines) == 4


def test_slug_and_relative(tmp_path, monkeypatch):
    assert slug("LTNet (guide light)") == "LTNet-guide-light"
    assert slug("///") == "row"
    monkeypatch.chdir(tmp_path)
    assert relative(tmp_path / "runs" / "best.ckpt") == "runs/best.ckpt"
    assert relative("/elsewhere/best.ckpt") == "best.ckpt"
    assert relative(None) is None


def test_submission_holds_the_images_flat(tmp_path):
    import io
    import zipfile

    for name in ("Image301", "Image300"):
        write_png(tmp_path / f"{name}.png", np.zeros((2, 2, 3), np.uint8))
    with zipfile.ZipFile(io.BytesIO(submission(tmp_path, ["Image301", "Image300"]))) as archive:
        assert archive.namelist() == ["Image300.png", "Image301.png"]


def fake_task(light="guide"):
    net = torch.nn.Linear(2, 1)
    net.light = light
    return SimpleNamespace(
        net=net,
        row=None,
        row_name="Linear (guide light)",
        test_values={"psnr": torch.tensor(20.5)},
        test_metrics=SimpleNamespace(
            labels={"psnr": "PSNR", "ssim": "SSIM"}, absent={"mps": "LPIPS and MPS are absent: no weights"}
        ),
    )


def test_test_results_writes_everything(batch, tmp_path, capsys):
    trainer = SimpleNamespace(default_root_dir=str(tmp_path), ckpt_path=None, world_size=1)
    callback, task = TestResults(), fake_task()
    named = {**batch, "name": ["Pair000", "Pair001", "Pair002"]}
    callback.setup(trainer, task, "test")
    callback.on_test_start(trainer, task)
    callback.on_test_batch_end(trainer, task, {"relit": batch["target"], "psnr": torch.tensor([1.0, 2.0, 3.0])}, named, 0)
    callback.on_test_end(trainer, task)
    folder = tmp_path / "test" / "Linear-guide-light"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["row"] == "Linear (guide light)"
    assert summary["net"] == "Linear"
    assert summary["light"] == "guide"
    assert summary["pairs"] == 3
    assert summary["parameters"] == 3
    assert summary["metrics"] == {"psnr": 20.5}
    assert summary["labels"] == {"psnr": "PSNR"}
    assert {p.name for p in folder.iterdir()} == {"images", "panels", "per_image.csv", "summary.json", "submission.zip"}
    assert len(list((folder / "images").iterdir())) == len(list((folder / "panels").iterdir())) == 3
    assert "LPIPS and MPS are absent: no weights" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["test", "predict"])
def test_a_killed_run_leaves_no_summary_of_the_one_before(kind, batch, tmp_path):
    """Killed after its first batch: new images beside old numbers would look like a whole row."""
    trainer = SimpleNamespace(default_root_dir=str(tmp_path), ckpt_path=None, world_size=1)
    callback, task = {"test": TestResults, "predict": PredictResults}[kind](), fake_task()
    folder = tmp_path / ("test/Linear-guide-light" if kind == "test" else "predict")
    other = tmp_path / "test" / "other"
    for path in (folder, other):
        path.mkdir(parents=True)
        for name in ("summary.json", "per_image.csv", "submission.zip"):
            (path / name).write_text("old")
    getattr(callback, f"on_{kind}_start")(trainer, task)
    getattr(callback, f"on_{kind}_batch_end")(trainer, task, {"relit": batch["target"]}, batch, 0)
    left = {path.name for path in folder.iterdir() if path.suffix in (".json", ".csv", ".zip")}
    assert left == (set() if kind == "test" else {"submission.zip"}), "predict writes no submission, and touches none"
    assert list(folder.rglob("pair0.png"))
    assert len(list(other.iterdir())) == 3, "other rows stay"


def test_rows_of_other_lists_get_names_of_their_own():
    data = SimpleNamespace(test_split="identity", folders={"test": (None, None)})
    trainer = SimpleNamespace(default_root_dir="run", datamodule=data)
    assert TestResults.row(trainer, fake_task()) == "Linear (guide light), identity"
    data.test_split, data.folders = "test", {"test": ("some/track2", None)}
    assert TestResults.row(trainer, fake_task()) == "Linear (guide light), track2"
    chosen = fake_task()
    chosen.row = chosen.row_name = "mine"
    assert TestResults.row(trainer, chosen) == "mine"


@pytest.mark.parametrize("arguments", [{"every": 0}, {"images": -1}])
def test_panels_refuse(arguments):
    with pytest.raises(InputError, match=rf"{next(iter(arguments))} of the callback Panels is .*; expected . or more: raise it"):
        Panels(**arguments)


def test_test_refuses_several_devices():
    with pytest.raises(InputError, match=r"--trainer.devices gives 2 processes.*use --trainer.devices 1"):
        TestResults().setup(SimpleNamespace(world_size=2), SimpleNamespace(), "test")


class Drift(pl.LightningModule):
    """One weight that each step moves by one."""

    def __init__(self, frozen=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1), requires_grad=not frozen)
        self.seen = []

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.zeros(4, 1))

    def val_dataloader(self):
        return torch.utils.data.DataLoader(torch.zeros(1, 1))

    def training_step(self, batch, _):
        self.seen.append(torch.rand(()).item())
        return -self.weight.sum() if self.weight.requires_grad else None

    def validation_step(self, batch, _):
        self.validated = self.weight.item()

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=1.0) if self.weight.requires_grad else None


def trainer_of(tmp_path, *callbacks, **arguments):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(default_root_dir=tmp_path, callbacks=list(callbacks), max_epochs=1, accelerator="cpu", **quiet, **arguments)


def test_ema_warms_up_then_keeps_its_share(tmp_path):
    """Weights 1, 2, 3, 4; the first average is a copy, then it keeps (1 + n) / (10 + n) until that passes the decay."""
    task = Drift()
    trainer_of(tmp_path, EMA(decay=0.2), num_sanity_val_steps=0).fit(task)
    expected = 1.0
    for count, weight in ((1, 2.0), (2, 3.0), (3, 4.0)):
        keep = min(0.2, (1 + count) / (10 + count))
        expected = keep * expected + (1 - keep) * weight
    assert task.validated == pytest.approx(expected)
    assert task.weight.item() == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:.*this fit will run with no optimizer")
@pytest.mark.filterwarnings("ignore:.*`training_step` returned `None`")
def test_ema_leaves_a_network_without_weights_alone(tmp_path):
    task = Drift(frozen=True)
    trainer_of(tmp_path, EMA(), num_sanity_val_steps=0).fit(task)
    assert task.weight.item() == 0


def test_ema_refuses_a_decay_of_one():
    with pytest.raises(InputError, match=r"EMA decay is 1.0; expected a share within .*: correct it, or leave EMA out"):
        EMA(decay=1.0)


def test_epoch_seed_depends_on_seed_and_epoch(monkeypatch):
    def draw(seed, epoch):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        EpochSeed().on_train_epoch_start(SimpleNamespace(current_epoch=epoch, global_rank=0), None)
        return torch.rand(()).item()

    assert draw(1, 2) == draw(1, 2)
    assert len({draw(1, 2), draw(1, 3), draw(2, 2)}) == 3
