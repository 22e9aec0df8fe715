"""Where VIDIT's files lie: every layout is found whole, and every other folder is named for what it is."""

import os
import time
from pathlib import Path

import pytest

from ltnet_pl import InputError
from ltnet_pl.light import SETTINGS, Light
from ltnet_pl.vidit import Pair, View, detect_layout, find_one_to_one, find_pairs, find_settings

N_LIGHT, E_LIGHT = Light(0, 6500), Light(90, 4500)


def touch(root, *names):
    """Empty files: the layouts look at names alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_settings_flat(tmp_path):
    touch(
        tmp_path,
        "Image001_4500_E.png",
        "Image000_6500_N.png",
        "Image000_2500_NE.png",
        "Image000.npy",
        "scenes/Image000/normals.npy",
    )
    touch(tmp_path, "._Image000_2500_N.png", "overview.png", "README.txt")
    settings = find_settings(tmp_path)
    image = tmp_path / "Image000_6500_N.png"
    assert settings == {
        "Image000": {
            "2500_NE": View("Image000", tmp_path / "Image000_2500_NE.png", tmp_path / "Image000.npy", Light(45, 2500)),
            "6500_N": View("Image000", image, tmp_path / "Image000.npy", N_LIGHT),
        },
        "Image001": {"4500_E": View("Image001", tmp_path / "Image001_4500_E.png", None, E_LIGHT)},
    }
    assert list(settings) == ["Image000", "Image001"]
    assert list(settings["Image000"]) == ["2500_NE", "6500_N"]
    assert detect_layout(tmp_path) == "settings"


@pytest.mark.parametrize(
    ("image", "depth"),
    [
        ("Image000_6500_N.png", "depth/Image000.npy"),
        ("train/Image000_6500_N.png", "train/Image000.npy"),
        ("input/Image000_6500_N.png", "input/Image000.npy"),
        ("input/Image000_6500_N.png", "depth/Image000.npy"),
        ("input/Image000_6500_N.png", "Image000.npy"),
        ("images/Image000_6500_N.png", "depth/Image000.npy"),
        ("train/images/Image000_6500_N.PNG", "train/depth/Image000.npy"),
    ],
)
def test_settings_split_and_in_train(tmp_path, image, depth):
    touch(tmp_path, image, depth)
    view = find_settings(tmp_path)["Image000"]["6500_N"]
    assert view == View("Image000", tmp_path / image, tmp_path / depth, N_LIGHT)


def test_depth_beside_the_image_comes_first(tmp_path):
    touch(tmp_path, "input/Image000_6500_N.png", "input/Image000.npy", "depth/Image000.npy", "Image000.npy")
    assert find_settings(tmp_path)["Image000"]["6500_N"].depth == tmp_path / "input" / "Image000.npy"


@pytest.mark.parametrize(
    "names",
    [
        ("input/Image300.png", "input/Image300.npy", "target/Image300.png"),
        ("input/Image300.png", "depth/Image300.npy", "target/Image300.png"),
        ("train/input/Image300.png", "train/depth/Image300.npy", "train/target/Image300.png"),
        ("input/Image300_6500_N.png", "depth/Image300.npy", "target/Image300_4500_E.png"),
        ("Image300.png", "Image300.npy", "track1_validation_gt/Image300.png"),
    ],
)
def test_one_to_one(tmp_path, names):
    touch(tmp_path, *names)
    image, depth, target = (tmp_path / name for name in names)
    views = View("Image300", image, depth, N_LIGHT), View("Image300", target, depth, E_LIGHT)
    expected = Pair("Image300", *views, wanted=E_LIGHT)
    assert find_one_to_one(tmp_path) == [expected]
    assert detect_layout(tmp_path) == "one_to_one"


def test_one_to_one_flat_with_ground_truth_elsewhere(tmp_path):
    touch(tmp_path, "val/Image301.png", "val/Image300.png", "val/Image300.npy", "gt/Image300.png", "gt/Image301.png")
    pairs = find_one_to_one(tmp_path / "val", tmp_path / "gt")
    assert [pair.name for pair in pairs] == ["Image300", "Image301"]
    assert pairs[1].target == View("Image301", tmp_path / "gt" / "Image301.png", None, E_LIGHT)
    assert pairs[1].input.depth is None
    # a test set, whose ground truth is private, asks for the same light
    private = find_one_to_one(tmp_path / "val")
    assert [(pair.target, pair.target_light) for pair in private] == [(None, E_LIGHT)] * 2


def test_pairs(tmp_path):
    touch(tmp_path, *(f"{part}/Pair00{i}.{kind}" for part in ("input", "guide") for i in (1, 0) for kind in ("png", "npy")))
    pairs = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ["Pair000", "Pair001"]
    source = View("Pair000", tmp_path / "input" / "Pair000.png", tmp_path / "input" / "Pair000.npy", None)
    guide = View("Pair000_guide", tmp_path / "guide" / "Pair000.png", tmp_path / "guide" / "Pair000.npy", None)
    assert pairs[0] == Pair("Pair000", source, None, guide)
    assert pairs[0].target_light is None
    assert detect_layout(tmp_path) == "pairs"


@pytest.mark.parametrize("truth", ["set/target", "set/track2_validation_gt", "track2_validation_gt"])
def test_ground_truth_of_pairs_is_found(tmp_path, truth):
    root = tmp_path / "set_val" if truth == "track2_validation_gt" else tmp_path / "set"
    touch(root, "input/Pair000.png", "depth/Pair000.npy", "guide/Pair000.png")
    touch(tmp_path, f"{truth}/Pair000.png", f"{truth}/Pair001.png")
    (pair,) = find_pairs(root)
    assert pair.target == View("Pair000", tmp_path / truth / "Pair000.png", root / "depth" / "Pair000.npy", None)
    assert pair.guide.depth is None  # the folder depth belongs to the inputs
    assert find_pairs(root, tmp_path / truth) == [pair]


def test_a_test_set_never_gets_the_ground_truth_of_validation(tmp_path):
    touch(tmp_path, "track2_validation_gt/Pair000.png", "track2_test/input/Pair000.png", "track2_test/guide/Pair000.png")
    (pair,) = find_pairs(tmp_path / "track2_test")
    assert pair.target is None


def test_target_light_and_mirrored():
    views = [View("Image000", Path("a.png"), None, light) for light in (None, N_LIGHT, E_LIGHT)]
    assert Pair("a", views[0], views[1], views[2]).target_light == N_LIGHT
    assert Pair("a", views[0], views[0], views[2]).target_light == E_LIGHT
    assert Pair("a", views[1], views[0]).target_light is None
    assert Pair("a_mirror", views[0]).mirrored
    assert not Pair("mirror_a", views[0]).mirrored


# --- folders that are something else


ALL = pytest.mark.parametrize("find", [find_settings, find_one_to_one, find_pairs, detect_layout])


@ALL
def test_missing_root_file_root_and_empty_root(tmp_path, find):
    with pytest.raises(InputError, match=r"none: no such folder; expected the root of a VIDIT set"):
        find(tmp_path / "none")
    touch(tmp_path, "file.zip")
    with pytest.raises(InputError, match=r"file\.zip: is a file; expected the folder"):
        find(tmp_path / "file.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no VIDIT images; the folder is empty; expected Image000_4500_E\.png"):
        find(tmp_path / "empty")


@ALL
def test_root_that_cannot_be_listed(tmp_path, find):
    with pytest.raises(InputError, match=r"cannot be listed \(File name too long\); expected a readable folder"):
        find(tmp_path / ("x" * 300))


@ALL
def test_foreign_folder_lists_its_first_entries(tmp_path, find):
    touch(tmp_path, *"gfedcba")
    with pytest.raises(
        InputError, match=r"no VIDIT images; found a, b, c, d, e, \.\.\.; expected Image000_4500_E\.png with Image000\.npy"
    ):
        find(tmp_path)


LAYOUTS = {
    "settings": (
        ["Image000_4500_E.png"],
        r"an any-to-any training set \(images such as Image000_4500_E\.png\): use AnyToAnyDataModule",
    ),
    "one_to_one": (["input/Image000.png", "target/Image000.png"], r"a one-to-one set \(track 1.*: use OneToOneDataModule"),
    "pairs": (
        ["input/Pair000.png", "guide/Pair000.png"],
        r"any-to-any pairs .*: use them as the val_root or test_root of AnyToAny",
    ),
}


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize(("find", "own"), [(find_settings, "settings"), (find_one_to_one, "one_to_one"), (find_pairs, "pairs")])
def test_confused_layouts_name_the_data_module_that_fits(tmp_path, kind, find, own):
    names, message = LAYOUTS[kind]
    touch(tmp_path, *names)
    if kind == own:
        assert len(find(tmp_path)) == 1
    else:
        with pytest.raises(InputError, match=rf"looks like {message}"):
            find(tmp_path)


@pytest.mark.parametrize(
    ("find", "names", "message"),
    [
        (find_settings, ["Image000_4500_E.png", "Image000_4500_Q.png"], r"Image000_4500_Q\.png: unknown light direction 'Q'"),
        (find_settings, ["Image000_4500_E.png", "Image000_450_E.png"], r"Image000_450_E\.png: unknown light temperature '450'"),
        (find_settings, ["Image000_4500_E.png", "Image001.png"], r"Image001\.png: names no light.*expected Image001_4500_E\.png"),
        (find_settings, ["Image000_4500_E.png", "Image0x.png"], r"Image0x\.png: 'Image0x' is no VIDIT name"),
        (find_settings, ["Image000_4500_E.png", "Image000_4500_E.PNG"], "the same scene and light as"),
        (
            find_one_to_one,
            ["input/Image000_6500_N.png", "input/Image000.png", "target/Image000.png"],
            "is a second image of Image000",
        ),
        (find_one_to_one, ["input/Image000.png", "target/Image000_4500_W.png"], "names the light 4500_W; expected 4500_E"),
        (
            find_one_to_one,
            ["input/Image000.png", "input/Image001.png", "target/Image000.png"],
            r"has no ground truth.*1 of 2 are missing",
        ),
        (
            find_pairs,
            ["input/Pair000.png", "input/Pair001.png", "guide/Pair001.png"],
            r"Pair000\.png: has no guide; expected .*guide",
        ),
        (find_pairs, ["input/Pair000.png"], "no folder guide lies beside input"),
        (find_pairs, ["Pair000.png"], "ground truth alone is a target root"),
    ],
)
def test_bad_sets(tmp_path, find, names, message):
    touch(tmp_path, *names)
    with pytest.raises(InputError, match=message):
        find(tmp_path)


def test_twelve_thousand_images_are_listed_without_touching_them(tmp_path, monkeypatch):
    touch(tmp_path, *(f"Image{i:03d}_{light.name}.png" for i in range(300) for light in SETTINGS))
    opened = []
    monkeypatch.setattr(Path, "stat", lambda self, **_: opened.append(self))
    monkeypatch.setattr(os, "stat", lambda path, **_: opened.append(path))
    monkeypatch.setattr("builtins.open", lambda path, *_, **__: opened.append(path))
    start = time.perf_counter()
    settings = find_settings(tmp_path)
    seconds = time.perf_counter() - start
    monkeypatch.undo()
    assert not opened
    assert sum(map(len, settings.values())) == 12_000
    assert seconds < 5  # 0.25 s alone; the machine may be busy
