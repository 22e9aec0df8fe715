"""A user's own images: names, depths, wanted lights, guides, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scenes
import torch
from contract import check_contract, first

from ltnet_pl import InputError
from ltnet_pl.data import PredictDataModule
from ltnet_pl.data.predict import light_in_name, scene_of
from ltnet_pl.light import Light

EAST = {"azimuth": 90.0, "temperature": 4500.0}


@pytest.fixture
def folder(tmp_path):
    """Three images of one scene with one depth, 24x32, of which one name says nothing about the light."""
    frame = scenes.trace(scenes.scene(4, 0), (24, 32))
    for name, light in (("Image000_6500_N", "6500_N"), ("Image000_2500_SW", "2500_SW"), ("Image000", "4500_S")):
        scenes.write_image(tmp_path / "in" / f"{name}.png", scenes.picture(frame, Light.from_name(light)))
    scenes.write_depth(tmp_path / "in" / "Image000.npy", scenes.stored_depth(frame))
    return tmp_path / "in"


def loaded(folder, **kwargs):
    data = PredictDataModule(folder=str(folder), **kwargs)
    data.setup("predict")
    return list(data.predict_dataloader())


def refused(match, folder, **kwargs):
    with pytest.raises(InputError, match=match):
        loaded(folder, **kwargs)


@pytest.mark.parametrize(
    ("stem", "azimuth", "kelvin", "scene"),
    [
        ("Image000_4500_E", 90, 4500, "Image000"),
        ("A_NE", 45, math.nan, "A"),
        ("A_4500", math.nan, 4500, "A"),
        ("Image000", math.nan, math.nan, "Image000"),
        ("my_photo_N", 0, math.nan, "my_photo"),
        ("my_photo", math.nan, math.nan, "my_photo"),
        ("N", math.nan, math.nan, "N"),  # the whole name is no light
        ("A_4567_E", 90, math.nan, "A_4567"),
        ("A_4500_E_final", math.nan, math.nan, "A_4500_E_final"),
    ],
)
def test_lights_in_file_names(stem, azimuth, kelvin, scene):
    np.testing.assert_equal(light_in_name(stem), (azimuth, kelvin))
    assert scene_of(stem) == scene


def test_one_light_for_a_folder(folder):
    (batch,) = loaded(folder, **EAST, batch_size=3)
    check_contract(batch, 24, 32, (24, 32), guide=False, target=False)
    assert batch["name"] == ["Image000", "Image000_2500_SW", "Image000_6500_N"]
    assert batch["target_light"].tolist() == [[90, 4500]] * 3
    torch.testing.assert_close(batch["input_light"], torch.tensor([[math.nan, math.nan], [225, 2500], [0, 6500]]), equal_nan=True)
    frame = scenes.trace(scenes.scene(4, 0), (24, 32))
    assert np.array_equal(batch["depth"][2, 0], scenes.stored_depth(frame))
    picture = scenes.picture(frame, Light.from_name("6500_N"))
    assert np.array_equal((batch["input"][2] * 255).round().permute(1, 2, 0).numpy(), picture)


def test_every_combination_of_lights(folder):
    batches = loaded(folder, azimuth=[0.0, 22.5], temperature=[2500.0, 6500.0])
    assert len(batches) == 12
    assert [batch["name"][0] for batch in batches[:4]] == [
        "Image000_2500K_0deg", "Image000_6500K_0deg", "Image000_2500K_22.5deg", "Image000_6500K_22.5deg"
    ]  # fmt: skip
    assert [batch["target_light"][0].tolist() for batch in batches[:4]] == [[0, 2500], [0, 6500], [22.5, 2500], [22.5, 6500]]


def test_elevation_and_ambient_widen_the_light(folder):
    assert loaded(folder, **EAST, elevation=60.0, ambient=0.25)[0]["target_light"].tolist() == [[90, 4500, 60, 0.25]]
    row = loaded(folder, **EAST, ambient=0.25)[0]["target_light"][0]
    assert row[2].isnan()


def test_temperatures_outside_the_trained_range_are_clamped_with_a_warning(folder):
    with pytest.warns(UserWarning, match="9000 K is outside the trained range"):
        assert loaded(folder, azimuth=0.0, temperature=9000.0)[0]["target_light"].tolist() == [[0, 6500]]


def test_sizes(folder):
    check_contract(loaded(folder, **EAST, size=12, frame_size=8)[0], 12, 16, (6, 8), guide=False, target=False)


def test_depth_in_a_folder_of_its_own(folder, tmp_path):
    (tmp_path / "depth").mkdir()
    (folder / "Image000.npy").rename(tmp_path / "depth" / "Image000.npy")
    refused(r"Image000\.png: has no depth; expected .*Image000\.npy.*--data\.allow_missing_depth true", folder, **EAST)
    assert loaded(folder, **EAST, depth=str(tmp_path / "depth"))[0]["depth"].any()
    batch = loaded(folder, **EAST, allow_missing_depth=True)[0]
    assert not batch["depth"].any()
    assert not batch["frame_depth"].any()
    # an image's own depth goes before its scene's
    scenes.write_depth(folder / "Image000.npy", np.ones((24, 32), np.float32))
    scenes.write_depth(folder / "Image000_6500_N.npy", np.full((24, 32), 7, np.float32))
    assert [float(batch["depth"].max()) for batch in loaded(folder, **EAST)] == [1, 1, 7]


@pytest.mark.parametrize("size", [(24, 32), (48, 64), (30, 32), (24, 60), (12, 12)])
def test_guide_of_any_shape_is_cut_to_the_inputs(folder, tmp_path, size):
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = np.stack([rows * 4, columns * 4, rows * 0], axis=2).astype(np.uint8)
    scenes.write_image(tmp_path / "guide.png", image)
    places = []
    for place in (columns, rows):
        # resizing keeps what is linear in the reciprocal of the depth
        scenes.write_depth(tmp_path / "guide.npy", (1 / (1 + 0.01 * place)).astype(np.float32))
        batch = first(loaded(folder, guide=str(tmp_path / "guide.png")))
        places.append((1 / batch["guide_depth"][0, 0].numpy() - 1) * 100)
    check_contract(batch, 24, 32, (24, 32), guide=True, target=False)
    assert batch["target_light"].isnan().all()
    top, left, height, width = batch["guide_crop"][0].tolist()
    # one of the sides is whole, and what is cut is cut evenly
    assert max(height, width) == pytest.approx(1, abs=0.02)
    assert top == pytest.approx((1 - height) / 2, abs=0.02)
    assert left == pytest.approx((1 - width) / 2, abs=0.02)
    # pixels stand where the window says: the middle of the window shows the middle of the guide
    column, row = places
    assert row.mean() == pytest.approx((size[0] - 1) / 2, abs=0.6)
    assert column.mean() == pytest.approx((size[1] - 1) / 2, abs=0.6)
    assert batch["guide"][0, 0].mean() * 255 / 4 == pytest.approx((size[0] - 1) / 2, abs=0.6)
    # not distorted: as many guide pixels to an input pixel down as across
    down, across = np.ptp(row) / 23, np.ptp(column) / 31
    assert down == pytest.approx(across, rel=0.12)


def test_guide_without_depth_is_zeros(folder, tmp_path):
    frame = scenes.trace(scenes.scene(4, 1), (24, 32))
    scenes.write_image(tmp_path / "guide.png", scenes.picture(frame, Light.from_name("4500_E")))
    assert not loaded(folder, guide=str(tmp_path / "guide.png"))[0]["guide_depth"].any()
    scenes.write_depth(tmp_path / "other.npy", scenes.stored_depth(frame))
    batch = loaded(folder, guide=str(tmp_path / "guide.png"), guide_depth=str(tmp_path / "other.npy"))[0]
    assert np.array_equal(batch["guide_depth"][0, 0], scenes.stored_depth(frame))


def test_wanted_light_and_guide(folder):
    refused(r"no wanted light: expected --data\.azimuth .* or --data\.guide", folder)
    refused(r"no wanted light: .*found azimuth 90\.0 and temperature None", folder, azimuth=90.0)
    refused(r"--data\.guide g\.png and a light .* are both given", folder, guide="g.png", **EAST)
    refused(r"--data\.guide_depth d\.npy is given without --data\.guide", folder, guide_depth="d.npy", **EAST)
    refused(r"g\.png: no such file", folder, guide="g.png")


@pytest.mark.parametrize("value", [{"azimuth": math.nan}, {"temperature": 500.0}, {"elevation": 95.0}, {"ambient": 2.0}])
def test_impossible_lights(folder, value):
    refused(rf"--data\.azimuth.*: {next(iter(value))} must .*; correct the flag", folder, **{**EAST, **value})


def test_no_light_in_a_list(folder):
    refused(r"no wanted light", folder, azimuth=[], temperature=4500.0)


@pytest.mark.parametrize("flag", ["size", "frame_size", "batch_size"])
def test_numbers_too_small(folder, flag):
    refused(rf"--data\.{flag} is 0; expected . or more: raise it", folder, **EAST, **{flag: 0})


def test_folders_without_images(folder, tmp_path):
    refused(r"nowhere is not a folder; expected one .*: correct it", tmp_path / "nowhere", **EAST)
    (tmp_path / "empty").mkdir()
    refused(r"empty holds no images; expected files that end in \.png, .*: name another folder", tmp_path / "empty", **EAST)


def test_images_of_different_sizes_need_single_batches(folder):
    scenes.write_image(folder / "wide.png", np.zeros((24, 48, 3), np.uint8))
    scenes.write_depth(folder / "wide.npy", np.ones((24, 48), np.float32))
    assert len(loaded(folder, **EAST)) == 4
    refused(r"--data\.batch_size is 2, but .* expected one size: set --data\.batch_size 1", folder, **EAST, batch_size=2)


def test_two_images_of_one_name(folder):
    (folder / "Image000.jpg").write_bytes(b"")
    refused(r"have one stem, which names the result; rename one", folder, **EAST)


def test_depth_of_another_size(folder):
    scenes.write_depth(folder / "Image000.npy", np.ones((8, 8), np.float32))
    refused(r"Image000\.npy: is 8 x 8 \(height x width\), but .*Image000.*png is 24 x 32; .*resize", folder, **EAST)


def test_one_light_of_another_size(folder):
    """The scene's depth fits its other images, and is remembered from them."""
    scenes.write_image(folder / "Image000_6500_N.png", np.zeros((20, 24, 3), np.uint8))
    refused(r"Image000\.npy: is 24 x 32 \(height x width\), but .*6500_N\.png is 20 x 24; .*resize", folder, **EAST)


def test_real_frames_with_lights_in_their_names(samples):
    batches = loaded(samples / "vidit" / "frames_512" / "A_directions", **EAST, allow_missing_depth=True, size=64)
    assert {batch["name"][0]: batch["input_light"][0, 0].item() for batch in batches} == {
        f"A_{name}": 45.0 * i for i, name in enumerate(("N", "NE", "E", "SE", "S", "SW", "W", "NW"))
    }
    assert all(batch["input_light"][0, 1].isnan() for batch in batches)
