"""Data modules: the batch contract, who is paired with whom, and the layouts."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import scenes
import torch
from contract import check_contract, equal, first

from ltnet_pl.data import AnyToAnyDataModule, AugmentSettings, OneToOneDataModule
from ltnet_pl.data.datasets import InOrder
from ltnet_pl.data.loader import floats
from ltnet_pl.light import SETTINGS, Light
from ltnet_pl.vidit import Pair

OFF = AugmentSettings.off()
LIGHTS = {light.name for light in SETTINGS}


# --- batches ----------------------------------------------------------------------------------------------------------------


def test_any_to_any_training_batch(any_to_any):
    batch = first(any_to_any(augment=AugmentSettings(depth=1)).train_dataloader())
    assert check_contract(batch, 32, 32, (40, 56), guide=True) == 3
    # the size of the frame follows from the window
    assert torch.allclose(32 / batch["crop"][:, 2], torch.tensor(40.0))
    assert torch.allclose(32 / batch["guide_crop"][:, 3], torch.tensor(56.0))
    for key in ("input_light", "target_light"):
        assert all(Light(*row).name in LIGHTS for row in batch[key].tolist())
    assert not (batch["input_light"] == batch["target_light"]).all(dim=1).any()
    assert torch.isfinite(batch["camera"]).all()
    assert torch.isfinite(batch["rig"]).all()


def test_any_to_any_list_batch_shows_the_files_as_they_are(any_to_any, vidit_root):
    data = any_to_any("test", frame_size=28)
    batch = first(data.test_dataloader())
    assert check_contract(batch, 40, 56, (20, 28), guide=True) == 3
    assert torch.equal(batch["crop"], torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(3, 1))
    pair = data.datasets["test"].pairs[0]
    frame = scenes.trace(scenes.scene(0, int(pair.input.scene[-3:])), (40, 56))
    other = scenes.trace(scenes.scene(0, int(pair.guide.scene[-3:])), (40, 56))
    for key, traced, light in (
        ("input", frame, pair.input.light),
        ("target", frame, pair.target.light),
        ("guide", other, pair.target.light),
    ):
        # the set is shaded once per direction and tinted, so the last bit may differ
        assert np.abs(batch[key][0].permute(1, 2, 0).numpy() * 255 - scenes.picture(traced, light)).max() < 1.001
    assert np.array_equal(batch["depth"][0, 0], scenes.stored_depth(frame))
    assert np.array_equal(batch["guide_depth"][0, 0], scenes.stored_depth(other))
    assert batch["input_light"][0].tolist() == [pair.input.light.azimuth, pair.input.light.temperature]
    camera, rig = frame.scene.camera, frame.scene.rig
    assert batch["camera"][0].tolist() == pytest.approx([camera.fov, camera.pitch])
    assert batch["rig"][0].tolist() == pytest.approx([rig.radius, rig.height])


def test_guide_is_another_scene_of_the_same_split_under_the_wanted_light(any_to_any):
    data = any_to_any(None)
    train = {f"Image{i:03d}" for i in (0, 1)}
    rng = np.random.default_rng(0)
    drawn = [data.datasets["train"].draw(i, rng) for i in range(200)]
    for pairs, allowed in ((drawn, train), (data.datasets["val"].pairs, {"Image002", "Image003"})):
        for pair in pairs:
            assert {pair.input.scene, pair.guide.scene} == allowed
            assert pair.target.scene == pair.input.scene
            assert pair.guide.light == pair.target.light != pair.input.light
    # scenes in turn, and every light is asked for and started from
    assert [pair.input.scene for pair in drawn[:4]] == ["Image000", "Image001"] * 2
    assert len({pair.target.light for pair in drawn}) == len({pair.input.light for pair in drawn}) == 24


def test_same_scene_guide_is_the_target(any_to_any):
    data = any_to_any(None, same_scene_guide=True)
    batch = first(data.val_dataloader())
    assert torch.equal(batch["guide"], batch["target"])
    assert data.datasets["train"].draw(0, np.random.default_rng(0)).guide.scene == "Image000"


def test_identity_list(any_to_any):
    batch = first(any_to_any("test", test_split="identity").test_dataloader())
    assert torch.equal(batch["input"], batch["target"])
    assert torch.equal(batch["input_light"], batch["target_light"])
    assert not torch.equal(batch["guide"], batch["input"])


def test_guide_depth_dropout(any_to_any):
    for probability, low, high in ((0.0, 0, 0), (0.5, 10, 30), (1.0, 40, 40)):
        train = any_to_any(guide_depth_dropout=probability).datasets["train"]
        assert low <= sum(not train[i]["guide_depth"].any() for i in range(40)) <= high


def test_mirroring_through_the_pipeline_is_the_mirrored_set(tmp_path, any_to_any):
    """The whole way: files of a set, mirrored by the module, equal the files of the mirrored set under mirrored lights."""
    flipped = scenes.write_any_to_any(tmp_path / "flipped", scenes=2, mirrored=True)
    always = AugmentSettings(mirror=1, jitter=0, noise=0, jpeg=0, depth=0)
    kwargs = {"crop": None, "guide_depth_dropout": 0.0}
    mine = any_to_any(augment=always, **kwargs).datasets["train"]
    theirs = any_to_any(augment=OFF, root=str(flipped), val_scenes=0, test_scenes=0, **kwargs).datasets["train"]
    views = theirs.draw.settings
    pairs = [mine.draw(i, np.random.default_rng(i)) for i in range(16)]

    def twin(view):
        return views[view.scene][view.light.mirror().name]

    mine.draw = InOrder(pairs)
    theirs.draw = InOrder([Pair(p.name, twin(p.input), twin(p.target), twin(p.guide)) for p in pairs])
    assert len({pair.target.light for pair in pairs}) > 8
    assert all(equal(mine[i], theirs[i]) for i in range(16))


def test_without_scene_files_camera_and_rig_are_unknown(vidit_copy):
    shutil.rmtree(vidit_copy / "scenes")
    data = AnyToAnyDataModule(root=str(vidit_copy), crop=16)
    data.setup("fit")
    batch = first(data.train_dataloader())
    assert batch["camera"].isnan().all()
    assert batch["rig"].isnan().all()


def test_split_folders_and_plain_depth_give_the_same_samples(tmp_path, any_to_any):
    other = scenes.write_any_to_any(tmp_path / "split", split=True, plain_depth=True)
    assert equal(any_to_any().datasets["train"][5], any_to_any(root=str(other)).datasets["train"][5])


# --- one-to-one -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [False, True])
def test_one_to_one_on_track_1_files(tmp_path, split):
    root = scenes.write_one_to_one(tmp_path, scenes=3, split=split)
    data = OneToOneDataModule(root=str(root), val_scenes=1, batch_size=2, crop=32, augment=OFF)
    data.setup("fit")
    batch = first(data.train_dataloader())
    check_contract(batch, 32, 32, (40, 56), guide=False)
    assert batch["input_light"].tolist() == [[0, 6500]] * 2
    assert batch["target_light"].tolist() == [[90, 4500]] * 2
    assert first(data.val_dataloader())["name"] == ["Image002"]


def test_one_to_one_mirrored_pairs_are_lit_from_e(tmp_path, vidit_root):
    data = OneToOneDataModule(root=str(vidit_root), val_scenes=2, test_scenes=1, mirrored_pairs=True, augment=OFF)
    data.setup("fit")
    train = data.datasets["train"]
    assert len(train) == 6
    samples = {train[i]["name"]: floats(train[i]) for i in range(6)}
    twin = samples["Image001_mirror"]
    assert twin["target_light"].tolist() == [90, 4500]
    assert twin["input_light"].tolist() == [0, 6500]
    flipped = scenes.trace(scenes.scene(0, 1).mirror(), (40, 56))
    for key, name in (("input", "6500_N"), ("target", "4500_E")):
        picture = scenes.picture(flipped, Light.from_name(name))
        assert np.abs(twin[key].permute(1, 2, 0).numpy() * 255 - picture).max() < 1.001
    assert np.array_equal(twin["depth"][0], scenes.stored_depth(flipped))
    assert [pair.name for pair in data.datasets["val"].pairs] == ["Image003", "Image004"]


def test_one_to_one_shows_every_pair_once_an_epoch(vidit_root):
    data = OneToOneDataModule(root=str(vidit_root), batch_size=4)
    data.setup("fit")
    loader = data.train_dataloader()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        assert sorted(name for batch in loader for name in batch["name"]) == [f"Image{i:03d}" for i in range(6)]


def test_one_to_one_validation_folder(tmp_path, vidit_root):
    val = scenes.write_one_to_one(tmp_path / "track1_val", flat_target=tmp_path / "truth")
    data = OneToOneDataModule(root=str(vidit_root), val_root=str(val), val_target_root=str(tmp_path / "truth"))
    data.setup("fit")
    assert len(data.datasets["train"]) == 6
    batch = first(data.val_dataloader())
    check_contract(batch, 40, 56, (40, 56), guide=False)


# --- challenge pairs --------------------------------------------------------------------------------------------------------


def test_challenge_pairs_with_unknown_lights(tmp_path):
    scenes.write_pairs_layout(tmp_path / "pairs")
    data = AnyToAnyDataModule(test_root=str(tmp_path / "pairs"), batch_size=3)
    data.setup("test")
    batch = first(data.test_dataloader())
    check_contract(batch, 40, 56, (40, 56), guide=True)
    assert batch["name"] == ["Pair000", "Pair001", "Pair002"]
    for key in ("input_light", "target_light", "camera", "rig"):
        assert batch[key].isnan().all()


def test_challenge_pairs_without_ground_truth_and_guide_depth(tmp_path):
    scenes.write_pairs_layout(tmp_path / "test_pairs", target=False)
    for path in (tmp_path / "test_pairs" / "guide").glob("*.npy"):
        path.unlink()
    data = AnyToAnyDataModule(test_root=str(tmp_path / "test_pairs"))
    data.setup("test")
    batch = first(data.test_dataloader())
    check_contract(batch, 40, 56, (40, 56), guide=True, target=False)
    assert (batch["guide_depth"] == 0).all()


def test_challenge_ground_truth_apart(tmp_path):
    scenes.write_pairs_layout(tmp_path / "pairs", flat_target=tmp_path / "truth")
    data = AnyToAnyDataModule(test_root=str(tmp_path / "pairs"), test_target_root=str(tmp_path / "truth"))
    data.setup("test")
    frame = scenes.trace(scenes.scene(0, 0), (40, 56))
    target = first(data.test_dataloader())["target"][0].permute(1, 2, 0) * 255
    assert np.array_equal(target.round().numpy(), scenes.picture(frame, Light.from_name("4500_E")))


def test_real_files_of_both_tracks(samples):
    for module, track in ((AnyToAnyDataModule, "track2"), (OneToOneDataModule, "track1")):
        data = module(test_root=str(samples / "vidit" / "native_layout" / track), size=96)
        data.setup("test")
        batch = first(data.test_dataloader())
        height, width = batch["input"].shape[2:]
        check_contract(batch, height, width, tuple(batch["frame_depth"].shape[2:]), guide=track == "track2")
        assert min(height, width) == 96
