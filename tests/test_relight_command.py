"""The command ``relight``, end to end."""

import re
import sys
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
from ltnet_pl.photo import orbit
from ltnet_pl.relight import Relighter, job
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


@pytest.fixture
def unread(monkeypatch):
    """Nothing may be read: what is wrong is found before."""
    monkeypatch.setattr(job, "read_photo", lambda path: pytest.fail(f"{path} was read"))


def swapped_profile():
    """A profile in which the first channel is green and the second red."""
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return plain.replace(b"rXYZ", b"none").replace(b"gXYZ", b"rXYZ").replace(b"none", b"gXYZ")


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


@pytest.mark.parametrize(
    ("out", "flags", "message"),
    [
        ("/nonexistent/x.png", [], "x.png: its folder /nonexistent does not exist; expected one that may be"),
        ("x.bmp", [], "x.bmp: ends in .bmp; expected .png, .jpg, .jpeg"),
        ("x.tar.gz", [], "x.tar.gz: ends in .gz; expected .png"),
        (f"{'x' * 296}.png", [], r"xx.png: cannot be written \(File name too long\)"),
        (f"{'x' * 300}", [], r"xx: is neither a folder nor a file name with an ending"),
        ("/nonexistent/x.webp", ["--orbit", 4], "x.webp: its folder /nonexistent does not exist"),
        (f"{'x' * 296}.webp", ["--orbit", 4], r"xx.webp: cannot be written \(File name too long\)"),
        ("x.mp4", ["--orbit", 4, "--format", "mp4"], "x.mp4: MP4 needs PyAV, which is not installed"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_read(run, photo, unread, monkeypatch, out, flags, message):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.chdir(photo.parent)
    status, said, err = run(photo, *(flags or ["--direction", "E"]), "--out", out)
    assert (status, said) == (2, "")
    assert re.match(f"error: .*{message}", err)


def test_a_whole_batch_is_checked_before_the_first_is_read(run, photo, tmp_path, unread):
    second = tmp_path / "barn.png"
    second.write_bytes(photo.read_bytes())
    (tmp_path / "barn_E.png").write_bytes(b"mine")
    status, said, err = run(photo, second, "--direction", "E")
    assert (status, said) == (2, "")
    assert "barn_E.png: exists already" in err
    assert (tmp_path / "barn_E.png").read_bytes() == b"mine"


def test_names_that_are_too_long_are_a_line(run, photo):
    for flag in ("--depth", "--guide", "--out"):
        status, _, err = run(photo, flag, "x" * 300 + ".png", *([] if flag == "--guide" else ["--direction", "E"]))
        assert status == 2
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    long = photo.with_name("y" * 250 + ".png")
    long.write_bytes(photo.read_bytes())
    status, _, err = run(long, "--direction", "E", "--depth", "none")
    assert status == 2
    assert "yy_E.png: cannot be written (File name too long)" in err


def test_transparency_that_a_jpeg_would_lose_is_said_before_the_work(run, photo, tmp_path, monkeypatch):
    path = tmp_path / "clear.jpg"
    Image.fromarray(np.dstack([pixels(photo), np.zeros(SIZE, np.uint8)])).save(path, "PNG")
    monkeypatch.setattr(job, "read_depth", lambda *_: pytest.fail("its depth was read"))
    np.save(tmp_path / "clear.npy", np.ones(SIZE, np.float32))
    status, _, err = run(path, "--direction", "E")
    assert status == 2
    assert "clear_E.jpg: a JPEG cannot keep the transparency of" in err


@pytest.mark.parametrize("name", ["b.webp", "b"])
def test_a_photograph_of_another_name_gives_a_png(run, photo, tmp_path, name):
    photo.rename(tmp_path / name)
    photo.with_suffix(".npy").rename(tmp_path / "b.npy")
    assert run(tmp_path / name, "--direction", "E")[0] == 0
    with Image.open(tmp_path / "b_E.png") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("kind", ["webp", "gif", "mp4"])
def test_an_orbit_has_the_colours_and_the_transparency_of_its_photograph(run, photo, tmp_path, kind):
    av = pytest.importorskip("av")
    colours = np.broadcast_to(np.array([220, 60, 40], np.uint8), (*SIZE, 3))
    alpha = np.full(SIZE, 255, np.uint8)
    alpha[:, :40] = 0
    profile, path = swapped_profile(), tmp_path / "wide.png"
    Image.fromarray(np.dstack([colours, alpha])).save(path, icc_profile=profile)
    (tmp_path / "wide.npy").write_bytes(photo.with_suffix(".npy").read_bytes())
    status, out, err = run(path, "--orbit", 2, "--strength", 0, "--format", kind, "--present", "5500_S")
    assert (status, err) == (0, "")
    result = tmp_path / f"wide_orbit.{kind}"
    assert (f"note: {result}: .{kind} is written without transparency, which .webp keeps" in out) == (kind != "webp")
    red, green = (220, 60) if kind == "webp" else (60, 220)  # what the profile's colours are in sRGB
    if kind == "mp4":
        with av.open(result) as film:
            frame = next(film.decode(video=0)).to_ndarray(format="rgb24")
    else:
        with Image.open(result) as film:
            assert film.info.get("icc_profile") == (profile if kind == "webp" else None)
            frame = np.asarray(film.convert("RGBA"))
        assert kind == "gif" or np.array_equal(frame[..., 3], alpha)
    assert np.abs(frame[:, 60:, :3].astype(int) - [red, green, 40]).mean() < 12


def test_frames_that_no_memory_holds_are_refused_before_the_work(run, photo, monkeypatch):
    monkeypatch.setattr(orbit, "HELD", 4 * 48 * 64)
    monkeypatch.setattr(job, "read_depth", lambda *_: pytest.fail("its depth was read"))
    status, _, err = run(photo, "--orbit", 5, "--size", 64)
    assert status == 2
    assert re.search(r"shed_orbit.webp: has 5 frames of 48 x 64 pixels, .* give --size 57, or fewer frames, or make it", err)
    assert not photo.with_name("shed_orbit.webp").exists()


def test_frames_of_an_mp4_are_held_one_at_a_time(run, photo, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setattr(orbit, "HELD", 48 * 64)
    assert run(photo, "--orbit", 5, "--size", 64, "--format", "mp4")[0] == 0


def test_inverse_depth_of_a_guide_is_said_by_a_flag_of_its_own(run, photo, tmp_path):
    frame = trace(scene(1), SIZE)
    guide, depth = tmp_path / "guide.png", stored_depth(frame)
    Image.fromarray(picture(frame, Light(90, 2500))).save(guide)
    np.save(tmp_path / "guide.npy", depth)
    np.save(tmp_path / "inverse.npy", np.where(depth > 0, 1 / np.maximum(depth, 1e-6), 0).astype(np.float32))
    names = ["right.png", "wrong.png", "plain.png"]
    given = ["--guide_depth", tmp_path / "inverse.npy"]
    flags = [[*given, "--inverse_guide_depth"], given, []]
    said = [run(photo, "--guide", guide, *more, "--out", tmp_path / name) for name, more in zip(names, flags, strict=True)]
    assert [status for status, _, _ in said] == [0, 0, 0]
    right, wrong, plain = (pixels(tmp_path / name).astype(int) for name in names)
    assert np.abs(right - plain).max() <= 1
    assert np.abs(wrong - plain).mean() > 0.1


def test_a_guide_that_is_read_the_wrong_way_round_names_its_own_flag(run, photo, tmp_path):
    rows = np.linspace(0.1, 1, SIZE[0])[:, None]
    guide = tmp_path / "guide.png"
    Image.fromarray(picture(trace(scene(1), SIZE), Light(90, 2500))).save(guide)
    np.save(tmp_path / "guide.npy", np.broadcast_to(rows, SIZE).astype(np.float32))
    status, out, _ = run(photo, "--guide", guide)
    assert status == 0
    assert "guide.npy: the depth looks inverted, its ground runs away from the horizon: give --inverse_guide_depth\n" in out


def test_size_makes_it_smaller(run, photo):
    assert run(photo, "--direction", "N", "--size", 64)[0] == 0
    assert pixels(photo.with_name("shed_N.png")).shape == (48, 64, 3)


def test_a_size_that_leaves_too_little_of_a_long_photograph_is_said(run, tmp_path):
    path = tmp_path / "long.png"
    Image.new("RGB", (1024, 64), (200, 150, 100)).save(path)
    flags = ["--temperature", 3000, "--depth", "none", "--out", tmp_path / "out.png"]
    status, _, err = run(path, *flags, "--size", 128)
    assert status == 2
    assert f"{path}: is 64 x 1024 (height x width), which --size 128 makes 8 x 128; expected sides of 16 or more" in err
    assert "raise --size to 256" in err
    assert run(path, *flags, "--size", 256)[0] == 0


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
    assert "without depth only the colour of the light changes" in out


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
    assert f"{there}: exists already; expected a new file: give another name, or --overwrite to replace it" in err
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
        (["--inverse_guide_depth", "--direction", "E"], "--inverse_guide_depth is given without --guide; give both"),
        (["--temperature", "999"], "temperature must lie within 1000-20000 kelvin, got 999"),
        (["--orbit", "4", "--depth", "none"], "--orbit 4 with --depth none: without depth no light moves"),
        (["--direction", "E", "--elevation", "91"], r"elevation must lie within \(-90, 90\] degrees, got 91"),
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


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--azimuth=east", "Expected a <class 'float'>"),
        ("--azimuth=nan", "Expected a <class 'float'>"),
        ("--direction=Q", "Expected a typing.Literal['N', 'NE'"),
        ("--format=avi", "Expected a typing.Literal['webp', 'mp4', 'gif']"),
        ("--size=8.5", "Expected a <class 'int'>"),
    ],
)
def test_what_no_flag_allows_is_refused_by_the_parser(photo, flag, expected, capsys):
    """Below the usage: the flag, what was expected, and what was given."""
    with pytest.raises(SystemExit) as stopped:
        main(["relight", str(photo), flag])
    assert stopped.value.code == 2
    usage, _, error = capsys.readouterr().err.partition("\nerror: ")
    name, _, value = flag.strip("-").partition("=")
    assert usage.startswith("usage: python -m ltnet_pl relight")
    assert error.startswith(f'Parser key "{name}":')
    assert expected in error
    assert value in error.splitlines()[-1]
    assert "Traceback" not in error


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
