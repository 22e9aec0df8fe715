"""Each mistake a user can make with data is named before the first epoch: file or flag, value, expectation, remedy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scenes

from ltnet_pl import InputError
from ltnet_pl.data import AnyToAnyDataModule, AugmentSettings, OneToOneDataModule
from ltnet_pl.data.datasets import InOrder
from ltnet_pl.vidit import Pair, find_settings


@pytest.fixture
def small(tmp_path):
    """Three tiny scenes in four lights, free to be broken."""
    root = scenes.write_any_to_any(tmp_path / "set", scenes=3, size=(16, 20), temperatures=(4500, 6500), truth=False)
    for path in root.glob("*.png"):
        if path.stem.split("_")[2] not in ("N", "E"):
            path.unlink()
    return root


def refused(match, module=AnyToAnyDataModule, stage="fit", **kwargs):
    with pytest.raises(InputError, match=match):
        module(**kwargs).setup(stage)


# --- flags ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("batch_size", 0),
        ("size", 0),
        ("crop", -1),
        ("frame_size", 0),
        ("samples_per_epoch", 0),
        ("num_workers", -1),
        ("cache_mb", -1),
        ("seed", -1),
        ("pairs_per_scene", 0),
    ],
)
def test_numbers_too_small(flag, value):
    refused(rf"--data\.{flag} is {value}; expected .* or more: raise it", **{flag: value})


def test_probability_outside_its_range():
    refused(r"--data\.guide_depth_dropout is 1\.5; expected a probability within 0 to 1: correct it", guide_depth_dropout=1.5)


@pytest.mark.parametrize("split", ["val", "test"])
def test_scenes_and_folder_both_given(split):
    refused(
        rf"--data\.{split}_root x and --data\.{split}_scenes 2 are both given", **{f"{split}_root": "x", f"{split}_scenes": 2}
    )


def test_ground_truth_without_its_set():
    refused(r"--data\.val_target_root gt is given without --data\.val_root; give both", val_target_root="gt")


def test_mirror_in_one_to_one(small):
    settings = AugmentSettings(mirror=0.5)
    refused(r"--data\.augment\.mirror is 0\.5; expected 0 for one-to-one", OneToOneDataModule, root=str(small), augment=settings)


# --- sets -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [AnyToAnyDataModule, OneToOneDataModule])
def test_no_root(module):
    refused(r"--data\.root is not given; expected the folder of a set", module)


@pytest.mark.parametrize("module", [AnyToAnyDataModule, OneToOneDataModule])
def test_missing_and_empty_root(module, tmp_path):
    refused(r"nowhere: no such folder", module, root=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    refused(r"empty: no VIDIT images; the folder is empty", module, root=str(tmp_path / "empty"))


def test_scene_without_depth(small):
    (small / "Image001.npy").unlink()
    refused(r"Image001_.*png: scene Image001 has no depth; expected .*Image001\.npy.*fetch it, or remove", root=str(small))
    refused(r"Image001_.*: scene Image001 has no depth", stage="test", root=str(small), test_scenes=2)
    refused(r"Image001_.*: scene Image001 has no depth", OneToOneDataModule, root=str(small))


def test_crop_larger_than_the_image(small):
    refused(r"--data\.crop 17 is larger than the frames of .*, 16 x 20 .*expected at most 16: lower", root=str(small), crop=17)
    refused(r"--data\.crop 13 is larger .* 12 x 15 \(height x width after --data\.size\)", root=str(small), crop=13, size=12)
    AnyToAnyDataModule(root=str(small), crop=16).setup("fit")  # as large is allowed


def test_frames_of_different_sizes(small):
    frame = scenes.trace(scenes.scene(0, 2), (20, 16))
    for path in small.glob("Image002_*.png"):
        scenes.write_image(path, scenes.picture(frame, scenes.Light.from_name(path.stem[9:])))
    scenes.write_depth(small / "Image002.npy", scenes.stored_depth(frame))
    refused(r"Image002_.* is 20 x 16 .* but .* is 16 x 20; expected one size for all frames", root=str(small))


def test_too_many_scenes_set_aside(small):
    for module in (AnyToAnyDataModule, OneToOneDataModule):
        refused(
            r"val_scenes 2 and test_scenes 1 leave no scene for training out of 3",
            module,
            root=str(small),
            val_scenes=2,
            test_scenes=1,
        )


def test_a_split_of_one_scene_has_no_guides(small):
    refused(r"val has the one scene Image002, .* expected two scenes or more", stage="validate", root=str(small), val_scenes=1)
    refused(r"training scene Image000 allows no any-to-any pair: .* 0 of them under a light", root=str(small), val_scenes=2)
    AnyToAnyDataModule(root=str(small), val_scenes=2, same_scene_guide=True).setup("fit")


def test_nothing_to_evaluate(small):
    refused(r"nothing to run val on; set --data\.val_scenes or --data\.val_root", stage="validate", root=str(small))
    refused(r"nothing to run test on; set --data\.test_scenes or --data\.test_root", stage="test", root=str(small))
    refused(r"nothing to run test on", stage="test")
    refused(r"nothing to run identity on; set --data\.test_scenes", stage="test", root=str(small), test_split="identity")


def test_training_without_validation_is_allowed(small):
    data = AnyToAnyDataModule(root=str(small))
    data.setup("fit")
    assert data.val_dataloader() == []


def test_identity_where_lights_are_unknown(small, tmp_path):
    pairs = scenes.write_pairs_layout(tmp_path / "pairs", size=(16, 20))
    refused(r"identity needs images of known lights", stage="test", test_root=str(pairs), test_split="identity")
    refused(r"identity is not a list of one-to-one", OneToOneDataModule, "test", root=str(small), test_split="identity")


def test_one_to_one_sets_that_lack_something(small, tmp_path):
    track = scenes.write_one_to_one(tmp_path / "track", size=(16, 20))
    refused(
        r"--data\.mirrored_pairs is true, but .* no images lit from W", OneToOneDataModule, root=str(track), mirrored_pairs=True
    )
    refused(r"Image000_4500_W\.png, which one-to-one needs", OneToOneDataModule, root=str(small), mirrored_pairs=True)
    flat = scenes.write_one_to_one(tmp_path / "flat", size=(16, 20), flat_target=tmp_path / "truth")
    refused(r"Image000\.png: has no ground truth to train on", OneToOneDataModule, root=str(flat))


def test_a_set_of_another_task(small, tmp_path):
    track = scenes.write_one_to_one(tmp_path / "track", size=(16, 20))
    refused(r"one-to-one set .* use OneToOneDataModule", root=str(track))
    pairs = scenes.write_pairs_layout(tmp_path / "pairs", size=(16, 20))
    refused(r"any-to-any pairs .* use them as the val_root", root=str(pairs))
    refused(r"any-to-any pairs", OneToOneDataModule, "test", test_root=str(pairs))


def test_broken_scene_file(small):
    (small / "scenes" / "Image001").mkdir(parents=True)
    (small / "scenes" / "Image001" / "scene.json").write_text("{}")
    refused(r"scene\.json: .*render the scene again", root=str(small))


def test_a_list_that_is_no_list(small, tmp_path):
    last = sorted({path.stem[:8] for path in small.glob("Image*.npy")})[-2:]
    (tmp_path / f"any_to_any-val-{last[0]}_to_{last[1]}-20_each-seed0.csv").write_text("a,b\n")
    refused(r"csv, line 1: header is 'a,b'; expected", stage="validate", root=str(small), val_scenes=2, pairs=str(tmp_path))


# --- files that are read later ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_image_is_named_from_any_process(small, workers):
    for path in small.glob("Image000_*.png"):
        path.write_bytes(path.read_bytes()[:200])
    data = AnyToAnyDataModule(root=str(small), num_workers=workers, batch_size=2)
    data.setup("fit")
    with pytest.raises(InputError, match=r"^[^\n]*Image000_\d+_[NE]\.png: the image is truncated or damaged[^\n]*$") as caught:
        list(data.train_dataloader())
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("depth", [np.full((16, 20), np.nan, np.float32), np.zeros((16, 20), np.float32)])
def test_broken_depth_is_named(small, depth):
    scenes.write_depth(small / "Image000.npy", depth)
    data = AnyToAnyDataModule(root=str(small))
    data.setup("fit")
    with pytest.raises(InputError, match=r"Image000\.npy: depth is "):
        list(data.train_dataloader())


def test_depth_and_target_of_another_size(small, tmp_path):
    scenes.write_depth(small / "Image000.npy", np.ones((8, 10), np.float32))
    data = AnyToAnyDataModule(root=str(small))
    data.setup("fit")
    with pytest.raises(
        InputError, match=r"Image000\.npy: is 8 x 10 \(height x width\), but .*Image000_.*png is 16 x 20; .*resize"
    ):
        list(data.train_dataloader())
    track = scenes.write_one_to_one(tmp_path / "track", size=(16, 20))
    scenes.write_image(track / "target" / "Image001.png", np.zeros((8, 10, 3), np.uint8))
    data = OneToOneDataModule(root=str(track))
    data.setup("fit")
    with pytest.raises(InputError, match=r"target/Image001\.png: is 8 x 10"):
        list(data.train_dataloader())


@pytest.mark.parametrize("cache_mb", [512, 0])
@pytest.mark.parametrize("crop", [None, 12])
@pytest.mark.parametrize(
    ("start", "target", "guide", "odd", "other"),
    [
        (
            "Image001_6500_E",
            "Image001_4500_N",
            "Image000_4500_N",
            r"Image001\.npy: is 16 x 20",
            r"Image001_6500_E\.png is 20 x 24",
        ),
        ("Image001_4500_N", "Image001_6500_E", "Image000_6500_E", r"Image001_6500_E\.png: is 20 x 24", r"4500_N\.png is 16 x 20"),
        (
            "Image000_4500_N",
            "Image000_6500_E",
            "Image001_6500_E",
            r"Image001\.npy: is 16 x 20",
            r"Image001_6500_E\.png is 20 x 24",
        ),
    ],
    ids=["input", "target", "guide"],
)
def test_one_light_of_another_size(small, start, target, guide, odd, other, crop, cache_mb):
    scenes.write_image(small / "Image001_6500_E.png", np.zeros((20, 24, 3), np.uint8))
    views = {view.image.stem: view for lights in find_settings(small).values() for view in lights.values()}
    data = AnyToAnyDataModule(root=str(small), crop=crop, cache_mb=cache_mb, batch_size=1)
    data.setup("fit")
    train = data.datasets["train"]

    def read(*stems):
        train.draw = InOrder([Pair("a", *(views[stem] for stem in stems))])
        return train[0]

    read("Image001_4500_N", "Image001_4500_E", "Image000_4500_E")  # depths are in the cache from here on
    read("Image000_4500_N", "Image000_4500_E", "Image001_4500_E")
    for _ in range(2):  # a refused file is refused again
        with pytest.raises(InputError, match=rf"{odd} \(height x width\), but .*{other}; expected one size .*: resize"):
            read(start, target, guide)
    with pytest.raises(InputError, match="expected one size"):
        list(data.train_dataloader())


@pytest.mark.parametrize("crop", [None, 12])
def test_guide_without_depth_of_another_size(small, crop):
    scenes.write_image(small / "Image001_6500_E.png", np.zeros((20, 24, 3), np.uint8))
    settings = find_settings(small)
    odd = replace(settings["Image001"]["6500_E"], depth=None)
    data = AnyToAnyDataModule(root=str(small), crop=crop)
    data.setup("fit")
    train = data.datasets["train"]
    train.draw = InOrder([Pair("a", settings["Image000"]["4500_N"], settings["Image000"]["6500_E"], odd)])
    with pytest.raises(
        InputError, match=r"Image001_6500_E\.png: is 20 x 24 .*Image000_4500_N\.png is 16 x 20; expected .*resize"
    ):
        list(data.train_dataloader())
