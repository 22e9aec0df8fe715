"""Pair lists: chosen the same everywhere, balanced, and stored so that a person can read and the reader checks every row."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltnet_pl import InputError
from ltnet_pl.light import SETTINGS, Light, angular_distance
from ltnet_pl.vidit import (
    Pair,
    View,
    any_to_any_pairs,
    find_settings,
    identity_pairs,
    one_to_one_from_settings,
    read_pairs,
    split_scenes,
    write_pairs,
)

NAMES = tuple(light.name for light in SETTINGS)


def make_settings(scenes=3, lights=NAMES):
    root = Path("set")
    return {
        scene: {
            light: View(scene, root / f"{scene}_{light}.png", root / f"{scene}.npy", Light.from_name(light)) for light in lights
        }
        for scene in (f"Image{i:03d}" for i in range(scenes))
    }


def change(pair):
    return angular_distance(pair.input.light.azimuth, pair.target.light.azimuth)


# --- any-to-any


GOLDEN = """\
name,input_scene,input_light,target_light,guide_scene
Image000_6500_E_to_4500_E,Image000,6500_E,4500_E,Image001
Image000_6500_NE_to_3500_E,Image000,6500_NE,3500_E,Image001
Image001_2500_NW_to_3500_SW,Image001,2500_NW,3500_SW,Image000
Image001_6500_W_to_3500_SE,Image001,6500_W,3500_SE,Image002
Image002_3500_SW_to_6500_SW,Image002,3500_SW,6500_SW,Image000
Image002_4500_S_to_2500_N,Image002,4500_S,2500_N,Image001
"""
GOLDEN_IDENTITY = """\
name,input_scene,input_light,target_light,guide_scene
Image000_2500_NE_to_2500_NE,Image000,2500_NE,2500_NE,Image002
Image000_4500_N_to_4500_N,Image000,4500_N,4500_N,Image001
Image001_2500_E_to_2500_E,Image001,2500_E,2500_E,Image000
Image001_6500_SE_to_6500_SE,Image001,6500_SE,6500_SE,Image002
Image002_5500_S_to_5500_S,Image002,5500_S,5500_S,Image001
Image002_5500_SW_to_5500_SW,Image002,5500_SW,5500_SW,Image000
"""


def test_stored_lists_never_shift(tmp_path):
    write_pairs(tmp_path / "pairs.csv", any_to_any_pairs(make_settings(), per_scene=2, seed=7))
    write_pairs(tmp_path / "identity.csv", identity_pairs(make_settings(), per_scene=2, seed=7))
    assert (tmp_path / "pairs.csv").read_text() == GOLDEN
    assert (tmp_path / "identity.csv").read_text() == GOLDEN_IDENTITY


def test_list_depends_on_nothing_but_seed_and_names(tmp_path):
    settings = make_settings(4)
    expected = any_to_any_pairs(settings, seed=3)
    shuffled = [(scene, list(views.items())) for scene, views in settings.items()]
    random.Random(0).shuffle(shuffled)
    for _, views in shuffled:
        random.Random(1).shuffle(views)
    assert any_to_any_pairs({scene: dict(views) for scene, views in shuffled}, seed=3) == expected
    assert any_to_any_pairs(settings, seed=4) != expected
    code = "from test_vidit_pairs import *\nwrite_pairs(Path(sys.argv[1]), any_to_any_pairs(make_settings(4), seed=3))"
    write_pairs(tmp_path / "here.csv", expected)
    here = Path(__file__).resolve().parent
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there.csv")], check=True, env=environment)
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


@pytest.mark.parametrize("per_scene", [1, 5, 20, 23])
def test_pairs_are_balanced_and_guided_by_another_scene(per_scene):
    settings = make_settings(6)
    pairs = any_to_any_pairs(settings, per_scene)
    assert len(pairs) == 6 * per_scene
    assert len({pair.name for pair in pairs}) == len(pairs)
    assert list(Counter(pair.input.scene for pair in pairs).values()) == [per_scene] * 6
    counts = Counter(map(change, pairs))
    assert max(counts.values()) - min(counts.values() if len(pairs) >= 5 else [0]) <= 1
    for pair in pairs:
        assert pair.input.light != pair.target.light
        assert pair.target.scene == pair.input.scene
        assert pair.guide.scene != pair.input.scene
        assert pair.guide == settings[pair.guide.scene][pair.target.light.name]
        assert pair.target_light == pair.target.light
    assert len({pair.guide.scene for pair in pairs}) >= min(per_scene, 4)


def test_each_change_comes_equally_often_within_a_scene():
    pairs = any_to_any_pairs(make_settings(2), 20)
    for scene in ("Image000", "Image001"):
        assert Counter(change(pair) for pair in pairs if pair.input.scene == scene) == dict.fromkeys((0, 45, 90, 135, 180), 4)


def test_guides_are_spread_over_the_other_scenes():
    pairs = any_to_any_pairs(make_settings(5), 200)
    counts = Counter((pair.input.scene, pair.guide.scene) for pair in pairs)
    assert len(counts) == 20
    assert min(counts.values()) > 25  # 50 each on average; 25 is four standard deviations below


def test_one_temperature_allows_no_change_of_temperature_alone():
    pairs = any_to_any_pairs(make_settings(2, NAMES[:8]), 8)
    assert Counter(map(change, pairs)) == dict.fromkeys((45, 90, 135, 180), 4)


def test_few_lights_give_all_their_pairs():
    pairs = any_to_any_pairs(make_settings(2, ("2500_N", "6500_E")), 20)
    assert [pair.name for pair in pairs] == [f"Image00{i}_{a}" for i in (0, 1) for a in ("2500_N_to_6500_E", "6500_E_to_2500_N")]


def test_targets_without_any_guide_are_left_out():
    settings = make_settings(2, ("2500_N", "6500_E", "4500_S"))
    del settings["Image001"]["4500_S"]
    pairs = any_to_any_pairs(settings, 20)
    assert {pair.target.light.name for pair in pairs} == {"2500_N", "6500_E"}
    assert "Image000_4500_S_to_2500_N" in {pair.name for pair in pairs}


def test_same_scene_guide_is_the_target_itself():
    pairs = any_to_any_pairs(make_settings(1), 20, same_scene_guide=True)
    assert len(pairs) == 20
    assert all(pair.guide == pair.target for pair in pairs)


@pytest.mark.parametrize("choose", [any_to_any_pairs, identity_pairs])
@pytest.mark.parametrize(
    ("settings", "per_scene", "message"),
    [
        (make_settings(1), 20, r"scene Image000 allows no pair: it has 40 images, 0 of them under a light that another scene"),
        (make_settings(2) | {"Image009": {}}, 20, "scene Image009 allows no pair: it has 0 images"),
        (make_settings(2), 0, "0 pairs per scene were asked for; expected 1 or more"),
        ({}, 20, "no scenes to make pairs of"),
    ],
)
def test_impossible_lists(choose, settings, per_scene, message):
    with pytest.raises(InputError, match=message):
        choose(settings, per_scene)


def test_one_light_allows_no_change():
    with pytest.raises(InputError, match="scene Image000 allows no pair: it has 1 images, 1 of them under a light"):
        any_to_any_pairs(make_settings(2, ("2500_N",)))


# --- identity and one-to-one


def test_identity_asks_for_the_present_light():
    pairs = identity_pairs(make_settings(3), per_scene=8, seed=1)
    assert len(pairs) == 24
    for pair in pairs:
        assert pair.target == pair.input
        assert pair.guide.light == pair.input.light
        assert pair.guide.scene != pair.input.scene
    for scene in ("Image000", "Image001", "Image002"):
        assert len({pair.input.light.azimuth for pair in pairs if pair.input.scene == scene}) == 8


def test_one_to_one_from_settings():
    settings = make_settings(2)
    plain = one_to_one_from_settings(settings)
    assert plain == [Pair(scene, settings[scene]["6500_N"], settings[scene]["4500_E"]) for scene in ("Image000", "Image001")]
    assert not any(pair.mirrored for pair in plain)
    both = one_to_one_from_settings(settings, mirrored=True)
    assert both[:2] == plain
    assert [(pair.name, pair.mirrored, pair.target.light.name) for pair in both[2:]] == [
        ("Image000_mirror", True, "4500_W"),
        ("Image001_mirror", True, "4500_W"),
    ]
    # the law behind the extra pairs: flipped, they show exactly the one-to-one lights
    assert {(pair.input.light.mirror().name, pair.target.light.mirror().name) for pair in both[2:]} == {("6500_N", "4500_E")}


@pytest.mark.parametrize(
    ("lights", "missing"), [(("6500_N",), "4500_E"), (("4500_E", "4500_W"), "6500_N"), (("6500_N", "4500_E"), "4500_W")]
)
def test_one_to_one_needs_its_lights(lights, missing):
    with pytest.raises(InputError, match=rf"scene Image000 has no image Image000_{missing}\.png, which one-to-one needs"):
        one_to_one_from_settings(make_settings(2, lights), mirrored=missing == "4500_W")


def test_one_to_one_needs_scenes():
    with pytest.raises(InputError, match="no scenes to make pairs of"):
        one_to_one_from_settings({})


# --- stored lists


@given(per_scene=st.integers(1, 30), seed=st.integers(-(2**70), 2**70), scenes=st.integers(2, 4), identity=st.booleans())
def test_stored_list_round_trip(tmp_path_factory, per_scene, seed, scenes, identity):
    settings = make_settings(scenes)
    pairs = (identity_pairs if identity else any_to_any_pairs)(settings, per_scene, seed)
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    write_pairs(path, pairs)
    assert read_pairs(path, settings) == pairs


def test_list_without_guides_and_with_mirrors_round_trips(tmp_path):
    pairs = one_to_one_from_settings(make_settings(), mirrored=True)
    write_pairs(tmp_path / "pairs.csv", pairs)
    assert read_pairs(tmp_path / "pairs.csv", make_settings()) == pairs


def test_list_that_went_through_a_spreadsheet(tmp_path):
    write_pairs(tmp_path / "pairs.csv", any_to_any_pairs(make_settings()))
    text = (tmp_path / "pairs.csv").read_text()
    (tmp_path / "pairs.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_pairs(tmp_path / "pairs.csv", make_settings()) == any_to_any_pairs(make_settings())


HEADER = "name,input_scene,input_light,target_light,guide_scene\n"
ROW = "a,Image000,6500_N,4500_E,Image001\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name,scene\n" + ROW,
            r"line 1: header is 'name,scene'; expected 'name,input_scene,input_light,target_light,guide_scene'",
        ),
        (ROW, r"line 1: header is 'a,Image000"),
        (HEADER, "holds no pairs"),
        ("", "the file is empty"),
        (HEADER + ROW + "b,Image000,6500_N,4500_E\n", r"line 3: 4 fields; expected 5"),
        (HEADER + ROW + "\n" + ROW, r"line 3: 0 fields; expected 5"),
        (HEADER + ROW + ROW, r"line 3: pair name 'a' appears twice"),
        (HEADER + ROW.replace("a,", "../a,", 1), r"line 2: pair name '\.\./a' cannot name a file"),
        (HEADER + ROW.replace("a,", ",", 1), r"line 2: pair name '' cannot name a file"),
        (
            HEADER + ROW.replace("Image000", "Image077"),
            r"line 2: unknown scene 'Image077'; expected one of the set's 3, Image000, Image001",
        ),
        (HEADER + ROW.replace("Image001", "Image077"), r"line 2: unknown scene 'Image077'"),
        (HEADER + ROW.replace("6500_N", "6500_X"), r"line 2: unknown light direction 'X'; expected one of N, NE"),
        (HEADER + ROW.replace("4500_E", "4600_E"), r"line 2: unknown light temperature '4600'"),
        (HEADER + ROW.replace("6500_N", "2500_N"), r"line 2: scene Image000 has no image under 2500_N; it has 4500_E, 6500_N"),
        (HEADER + ROW.replace("4500_E", "2500_N"), r"line 2: scene Image001 has no image under 2500_N"),
        (HEADER + 'a,"Image000', r"line 2: unexpected end of data; expected CSV"),
    ],
)
def test_bad_lists_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "val.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"val\.csv(, |: ){message}"):
        read_pairs(path, make_settings(3, ("6500_N", "4500_E")))


@pytest.mark.parametrize(
    ("data", "message"), [(None, "no such file"), (b"\xff\xfe\x00", "is no UTF-8 text"), (HEADER.encode() + b"a\0b\n", "line 2")]
)
def test_what_is_no_list_at_all(tmp_path, data, message):
    path = tmp_path / "val.csv"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=rf"val\.csv.*{message}"):
        read_pairs(path, make_settings())


UNKNOWN = View("Pair000", Path("Pair000.png"), None, None)
KNOWN = View("Image000", Path("Image000_6500_N.png"), None, Light(0, 6500))
NAMELESS = View("Image000", Path("Image000.png"), None, Light(10, 6500))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "an empty pair list"),
        ([Pair("Pair000", UNKNOWN, KNOWN)], "pair Pair000 has an unknown light"),
        ([Pair("a", KNOWN)], "pair a has an unknown light"),
        ([Pair("a", KNOWN, NAMELESS)], "pair a: .* has no name; only pairs of VIDIT's settings"),
        ([Pair("a", KNOWN, KNOWN), Pair("a", KNOWN, KNOWN)], "pair name 'a' appears twice"),
        ([Pair("a/b", KNOWN, KNOWN)], "pair name 'a/b' cannot name a file"),
    ],
)
def test_lists_that_cannot_be_stored(tmp_path, pairs, message):
    with pytest.raises(InputError, match=rf"val\.csv: {message}"):
        write_pairs(tmp_path / "val.csv", pairs)
    assert not list(tmp_path.iterdir())


# --- splits


@given(scenes=st.lists(st.integers(0, 999).map(lambda n: f"Image{n:03d}"), unique=True, min_size=1), data=st.data())
def test_split_keeps_every_scene_once_and_in_order(scenes, data):
    val = data.draw(st.integers(0, len(scenes) - 1))
    test = data.draw(st.integers(0, len(scenes) - 1 - val))
    parts = split_scenes(scenes, val, test)
    assert [len(part) for part in parts] == [len(scenes) - val - test, val, test]
    assert [scene for part in parts for scene in part] == sorted(scenes)


@pytest.mark.parametrize(
    ("val", "test", "message"),
    [
        (-1, 1, "val_scenes -1 and test_scenes 1: expected numbers of scenes, 0 or more"),
        (1, -1, "expected numbers of scenes, 0 or more"),
        (2, 1, "val_scenes 2 and test_scenes 1 leave no scene for training out of 3; expected at most 2 together"),
    ],
)
def test_impossible_splits(val, test, message):
    with pytest.raises(InputError, match=message):
        split_scenes(["Image000", "Image001", "Image002"], val, test)


def test_pairs_of_the_analytic_scenes(vidit_root):
    settings = find_settings(vidit_root)
    pairs = any_to_any_pairs(settings, 10)
    assert len(pairs) == 10 * len(settings)
    for pair in pairs:
        assert all(view.image.is_file() and view.depth.is_file() for view in (pair.input, pair.target, pair.guide))
    assert len(one_to_one_from_settings(settings, mirrored=True)) == 2 * len(settings)
