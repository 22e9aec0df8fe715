"""Stored pair lists, reproducible training samples, and the cache of frames."""

from __future__ import annotations

import csv
import pickle

import numpy as np
import pytest
import pytorch_lightning as pl
import scenes
import torch
from contract import equal, first
from torch.utils.data import DistributedSampler

from ltnet_pl import InputError
from ltnet_pl.augment import resized_depth
from ltnet_pl.data import AnyToAnyDataModule
from ltnet_pl.data.frames import Frames, fitted_size, resize_image
from ltnet_pl.data.sampler import EpochSampler

# --- lists ------------------------------------------------------------------------------------------------------------------


def test_lists_are_written_once_and_then_only_read(any_to_any, tmp_path):
    data = any_to_any(None)
    names = {path.name for path in (tmp_path / "pairs").iterdir()}
    stored = {"val": "Image002_to_Image003", "test": "Image004_to_Image005"}
    assert names == {f"any_to_any-{split}-{scenes}-4_each-seed0.csv" for split, scenes in stored.items()}
    path = tmp_path / "pairs" / "any_to_any-val-Image002_to_Image003-4_each-seed0.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 8
    assert all(row["input_light"] != row["target_light"] for row in rows)
    # a person changes the list: it is obeyed, not overwritten
    text = path.read_text().splitlines(keepends=True)
    path.write_text("".join([text[0], text[1], text[-1]]))
    again = any_to_any(None)
    assert [pair.name for pair in again.datasets["val"].pairs] == [rows[0]["name"], rows[-1]["name"]]
    assert len(data.datasets["val"]) == 8


def test_default_folder_and_seed_of_lists(vidit_copy):
    lists = []
    for seed in (0, 0, 1):
        data = AnyToAnyDataModule(root=str(vidit_copy), val_scenes=2, pairs_per_scene=4, pairs_seed=seed, seed=7)
        data.setup("validate")
        lists.append([pair.name for pair in data.datasets["val"].pairs])
    assert lists[0] == lists[1] != lists[2]
    assert len(list((vidit_copy / "pairs").glob("*.csv"))) == 2


def test_a_list_of_other_scenes_is_refused(any_to_any, tmp_path):
    any_to_any(None)
    path = tmp_path / "pairs" / "any_to_any-val-Image002_to_Image003-4_each-seed0.csv"
    text = path.read_text().splitlines(keepends=True)
    path.write_text("".join(text[:5]))
    with pytest.raises(InputError, match=r"any_to_any-val.*: has no pair of Image003; expected .*delete it"):
        any_to_any("validate")


def test_a_folder_for_lists_that_cannot_be_written(any_to_any, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"the pair list cannot be written \(.*--data\.pairs"):
        any_to_any("validate", pairs=str(tmp_path / "file" / "pairs"))


# --- reproducibility --------------------------------------------------------------------------------------------------------


def test_samples_depend_on_seed_and_number_alone(any_to_any):
    one, two, other = (any_to_any(seed=seed).datasets["train"] for seed in (0, 0, 1))
    forwards = {i: one[i] for i in range(6)}
    backwards = {i: two[i] for i in reversed(range(6))}
    assert all(equal(forwards[i], backwards[i]) for i in range(6))
    assert not any(equal(forwards[i], other[i]) for i in range(6))
    # beyond the epoch: the same scene, another sample
    assert not equal(one[0], one[len(one)])


def test_workers_change_nothing(any_to_any):
    epochs = []
    for workers in (0, 2):
        loader = any_to_any(num_workers=workers, samples_per_epoch=8).train_dataloader()
        loader.sampler.set_epoch(3)
        epochs.append(list(loader))
    assert len(epochs[0]) == len(epochs[1]) == 3
    assert all(equal(a, b) for a, b in zip(*epochs, strict=True))


def test_loaders_leave_the_global_generator_alone(any_to_any):
    data = any_to_any()
    before = torch.get_rng_state()
    first(data.train_dataloader())
    first(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_sampler_numbers_every_sample_once():
    sampler = EpochSampler(length=7, seed=3)
    assert isinstance(sampler, DistributedSampler)  # else Lightning wraps it in one, which hides set_epoch
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert sorted(epochs[-1]) == list(range(7 * epoch, 7 * epoch + 7))
    assert [n % 7 for n in epochs[0]] != [n % 7 for n in epochs[1]]
    sampler.set_epoch(1)
    assert list(sampler) == epochs[1]


def test_sampler_shares_an_epoch_between_processes():
    ranks = [EpochSampler(length=7, seed=3, rank=rank, world_size=3) for rank in range(3)]
    numbers = [list(sampler) for sampler in ranks]
    assert [len(sampler) for sampler in ranks] == [len(part) for part in numbers] == [2, 2, 2]
    assert len({n for part in numbers for n in part}) == 6


class _Recorder(pl.LightningModule):
    """Learns nothing, notes which samples it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((batch["name"], batch["input"].sum().item()))
        return self.weight * batch["input"].mean()

    def validation_step(self, batch, batch_idx):
        assert "target" in batch

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_a_resumed_run_sees_what_the_uninterrupted_one_would_have(any_to_any, tmp_path):
    def fit(epochs, ckpt_path=None):
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path, enable_checkpointing=False,
        )  # fmt: skip
        module = _Recorder()
        trainer.fit(module, datamodule=any_to_any(samples_per_epoch=6), ckpt_path=ckpt_path)
        return trainer, module.seen

    whole = fit(3)[1]
    trainer, start = fit(2)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    rest = fit(3, ckpt_path=tmp_path / "last.ckpt")[1]
    assert len(whole) == 6
    assert len(set(map(str, whole))) == 6
    assert start + rest == whole


def test_hyperparameters_load_without_running_code(any_to_any, tmp_path):
    torch.save(dict(any_to_any().hparams), tmp_path / "h.pt")
    stored = torch.load(tmp_path / "h.pt", weights_only=True)
    assert AnyToAnyDataModule(**stored).hparams == any_to_any().hparams
    assert stored["crop"] == 32


# --- frames -----------------------------------------------------------------------------------------------------------------


def test_resizing(vidit_root):
    assert fitted_size((480, 640), 96) == (96, 128)
    assert fitted_size((640, 480), 96) == (128, 96)
    image = np.array([[0, 100], [200, 100]], np.uint8)[..., None].repeat(3, axis=2)
    assert resize_image(image, (1, 1)).tolist() == [[[100] * 3]]  # the mean, not one of them
    frames = Frames(20, cache_mb=1)
    path = vidit_root / "Image000_4500_E.png"
    assert frames.image(path).shape == (20, 28, 3)
    depth = frames.depth(vidit_root / "Image000.npy", path)
    full = scenes.stored_depth(scenes.trace(scenes.scene(0, 0), (40, 56)))
    assert np.array_equal(depth, resized_depth(full, (20, 28)))


def test_cache_keeps_what_fits(vidit_copy):
    frames = Frames(None, cache_mb=2 * 40 * 56 * 3 / 1e6)  # two images
    paths = [vidit_copy / f"Image000_4500_{d}.png" for d in ("N", "E", "S")]
    pictures = [frames.image(path).copy() for path in paths]
    assert frames._bytes == 2 * 40 * 56 * 3
    for path in paths:
        path.unlink()
    assert np.array_equal(frames.image(paths[2]), pictures[2])
    assert np.array_equal(frames.image(paths[1]), pictures[1])
    with pytest.raises(InputError, match="no such file"):  # the longest unused had to go
        frames.image(paths[0])
    with pytest.raises(ValueError, match="read-only"):
        frames.image(paths[1])[0] = 0
    assert len(pickle.dumps(frames)) < 1000  # another process reads for itself


def test_no_cache_reads_anew(vidit_copy):
    frames = Frames(None, cache_mb=0)
    path = vidit_copy / "Image000_4500_E.png"
    frames.image(path)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        frames.image(path)
