"""The command ``relight``, end to end."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from nets_small import awake
from PIL import Image, ImageCms
from scenes import picture, scene, stored_depth, trace

from ltnet_pl.cli import main
from ltnet_pl.light import Light
from ltnet_pl.nets import LTNet
from ltnet_pl.relight import Relighter
from ltnet_pl.weights import save_weights

SOUTH = Light(azimuth=180, temperature=5500)
SIZE = (96, 128)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    settings = {"widths": [8, 16], "light_width": 4}
    save_weights(path, awake(LTNet(**settings)), {"class_path": "ltnet_pl.nets.LTNet", "init_args": settings})
    return path


@pytest.fixture
def photo(tmp_path):
    """A photograph with its depth beside it, under the south light."""
    frame = trace(scene(), SIZE)
    path = tmp_path / "shed.png"
    Image.fromarray(picture(frame, SOUTH)).save(path)
    np.save(tmp_path / "shed.npy", stored_depth(frame))
    return path


@pytest.fixture
def run(weights, capsys):
    def call(*args):
        status = main(["relight", *map(str, args), "--weights", str(weights)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_photograph_is_relit_beside_itself(run, photo):
    status, out, err = run(photo, "--direction", "E", "--temperature", 3500, "--present", "5500_S")
    assert (status, err) == (0, "")
    result = photo.with_name("shed_E_3500K.png")
    assert f"{photo}: light given as 5500 K from 180 degrees (S)" in out
    assert f"{result}: 128 x 96 px" in out
    relit = pixels(result)
    assert relit.shape == (*SIZE, 3)
    assert np.abs(relit.astype(int) - pixels(photo)).mean() > 2


def test_the_command_gives_what_the_class_gives(run, photo, weights, tmp_path):
    out = tmp_path / "relit.png"
    assert run(photo, "--azimuth", 77.5, "--temperature", 4000, "--elevation", 30, "--ambient", 0.2, "--out", out)[0] == 0
    prepared = Relighter.from_run(weights).prepare(pixels(photo), np.load(photo.with_suffix(".npy")))
    assert np.array_equal(pixels(out), prepared.relight(Light(77.5, 4000, elevation=30, ambient=0.2)))


def test_what_is_not_asked_for_stays(run, photo, tmp_path):
    out = tmp_path / "warm.png"
    assert run(photo, "--temperature", 2500, "--present", "5500_S", "--out", out)[0] == 0
    before, after = pixels(photo).astype(float), pixels(out).astype(float)
    # a warmer light from the same place: more red against blue wherever there is colour to change, no shadow moved
    lit = (before.min(axis=2) > 20) & (before.max(axis=2) < 220)
    assert lit.sum() > 100
    assert ((after[..., 0] + 1) / (after[..., 2] + 1) > (before[..., 0] + 1) / (before[..., 2] + 1))[lit].all()


def test_a_guide_takes_the_place_of_a_light(run, photo, tmp_path):
    guide = tmp_path / "guide.png"
    Image.fromarray(picture(trace(scene(1), SIZE), Light(90, 2500))).save(guide)
    assert run(photo, "--guide", guide)[0] == 0
    assert photo.with_name("shed_by_guide.png").is_file()


@pytest.mark.parametrize("kind", ["webp", "gif", "mp4"])
def test_an_orbit_circles_the_scene(run, photo, kind):
    assert run(photo, "--orbit", 4, "--format", kind)[0] == 0
    path = photo.with_name(f"shed_orbit.{kind}")
    if kind == "mp4":
        assert path.read_bytes()[4:8] == b"ftyp"
        return
    with Image.open(path) as film:
        assert film.n_frames == 4
        frames = []
        for k in range(4):
            film.seek(k)
            frames.append(np.asarray(film.convert("RGB")).astype(int))
    assert all(np.abs(a - b).mean() > 0.5 for a, b in pairwise(frames))


def test_several_photographs_go_to_a_folder(run, photo, tmp_path):
    for name in ("barn.png", "barn.npy"):
        (tmp_path / name).write_bytes((tmp_path / name.replace("barn", "shed")).read_bytes())
    there = tmp_path / "results"
    there.mkdir()
    assert run(photo, tmp_path / "barn.png", "--direction", "W", "--out", there)[0] == 0
    assert sorted(path.name for path in there.iterdir()) == ["barn_W.png", "shed_W.png"]


def test_profile_transparency_and_bits_are_kept(run, photo, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    alpha = np.tile(np.arange(128, dtype=np.uint8), (96, 1))
    path = tmp_path / "clear.png"
    Image.fromarray(np.dstack([pixels(photo), alpha])).save(path, icc_profile=profile)
    (tmp_path / "clear.npy").write_bytes(photo.with_suffix(".npy").read_bytes())
    assert run(path, "--direction", "N")[0] == 0
    with Image.open(tmp_path / "clear_N.png") as result:
        assert result.info["icc_profile"] == profile
        assert np.array_equal(np.asarray(result)[..., 3], alpha)


def test_size_makes_it_smaller(run, photo):
    assert run(photo, "--direction", "N", "--size", 64)[0] == 0
    assert pixels(photo.with_name("shed_N.png")).shape == (48, 64, 3)


def test_no_depth_is_said_and_needed_only_where_light_moves(run, photo):
    photo.with_suffix(".npy").unlink()
    for asked in (("--direction", "E"), ("--elevation", 30), ("--ambient", 0.3)):
        status, _, err = run(photo, *asked)
        assert status == 2
        assert "shed.png: has no depth in" in err
        assert "--depth FILE, --depth estimate" in err
    assert run(photo, "--temperature", 3000)[0] == 0
    status, out, _ = run(photo, "--direction", "E", "--depth", "none")
    assert status == 0
    assert "without depth no shadow can be moved" in out


def test_a_temperature_beyond_the_trained_range_is_said(run, photo):
    status, out, err = run(photo, "--temperature", 9000)
    assert (status, err) == (0, "")
    assert "note: colour temperature 9000 K is outside the trained range" in out


def test_an_animation_says_so_once(run, photo):
    status, out, err = run(photo, "--temperature", 9000, "--orbit", 4)
    assert (status, err) == (0, "")
    assert out.count("outside the trained range") == 1


def test_nothing_is_overwritten(run, photo):
    there = photo.with_name("shed_E.png")
    there.write_bytes(b"mine")
    status, _, err = run(photo, "--direction", "E")
    assert status == 2
    assert f"{there}: is there already; give --overwrite true" in err
    assert there.read_bytes() == b"mine"
    assert run(photo, "--direction", "E", "--overwrite")[0] == 0
    assert pixels(there).shape == (*SIZE, 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no wanted light; expected --direction"),
        (["--direction", "E", "--azimuth", "90"], "--direction E and --azimuth 90 both say where the light stands"),
        (["--guide", "g.png", "--temperature", "3000"], "--guide g.png is given together with a light"),
        (["--guide_depth", "g.npy", "--direction", "E"], "--guide_depth g.npy is given without --guide"),
        (["--temperature", "999"], "temperature must lie within 1000-20000 kelvin, got 999"),
        (["--temperature", "20001"], "temperature must lie within 1000-20000 kelvin, got 20001"),
        (["--direction", "E", "--elevation", "91"], r"elevation must lie within \(-90, 90\] degrees, got 91"),
        (["--direction", "E", "--ambient", "1.5"], "ambient must lie within 0-1, got 1.5"),
        (["--direction", "E", "--strength", "2"], r"--strength 2: expected 0 \(no change\) to 1"),
        (["--direction", "E", "--size", "10"], "--size 10: expected 64 pixels or more"),
        (["--direction", "E", "--orbit", "1"], "--orbit 1: expected 2 to 360 pictures"),
        (["--direction", "E", "--present", "5000_E"], "--present 5000_E: unknown light temperature '5000'"),
        (["--direction", "E", "--depth", "nowhere"], "--depth nowhere: is no file and no folder"),
        (["--direction", "E", "--out", "nowhere"], "--out nowhere: is neither a folder nor a file name with an ending"),
        (["--orbit", "4", "--out", "x.gif"], r"--out x.gif: the animation has --format webp; expected a name that ends in .webp"),
        (["--direction", "E", "--device", "quantum"], "--device quantum"),
    ],
)
def test_bad_flags_are_named(run, photo, flags, message):
    status, _, err = run(photo, *flags)
    assert status == 2
    assert err.startswith("error: ")

    assert re.search(message, err)
    assert sorted(path.name for path in photo.parent.iterdir()) == ["shed.npy", "shed.png"]


@pytest.mark.parametrize("flag", ["--azimuth=east", "--azimuth=nan", "--direction=Q", "--format=avi"])
def test_what_no_flag_allows_is_refused_by_the_parser(photo, flag, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["relight", str(photo), flag])
    assert stopped.value.code == 2
    assert flag.partition("=")[0].strip("-") in capsys.readouterr().err


def test_bad_files_are_named(run, photo, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    missing = tmp_path / "missing.png"
    for path in (text, missing):
        status, _, err = run(path, "--direction", "E", "--depth", "none")
        assert status == 2
        assert str(path) in err
    status, _, err = run(photo, "--direction", "E", "--depth", tmp_path / "missing.npy")
    assert status == 2
    assert "missing.npy: is no file and no folder" in err
    black = tmp_path / "black.png"
    Image.new("RGB", (128, 96)).save(black)
    status, _, err = run(photo, "--guide", black)
    assert status == 2
    assert "guide is black" in err


def test_weights_that_are_none_are_named(photo, tmp_path, capsys):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    assert main(["relight", str(photo), "--direction", "E", "--weights", str(broken)]) == 2
    assert str(broken) in capsys.readouterr().err
