"""What the demo's page knows and computes, without a browser."""

from __future__ import annotations

import importlib.util
import inspect
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from demo_page import ESTIMATING, ROOT, SIMPLE, durations, free_port, small_relighter
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.cli import COMMANDS, main
from ltnet_pl.demo import serve
from ltnet_pl.demo.examples import examples
from ltnet_pl.demo.lights import Wanted, light_from, said, usual_elevation
from ltnet_pl.demo.studio import DISK_MB, FRAMES, KEPT, PREVIEW, Picture, Studio, depth_picture
from ltnet_pl.light import Light
from ltnet_pl.photo import MAX_SIDE, MIN_SIDE
from ltnet_pl.relight import SMALLEST

E, W = Wanted(Light(90, 4500)), Wanted(Light(270, 3000))


@pytest.fixture(scope="module")
def relighter():
    return small_relighter()


@pytest.fixture
def studio(relighter, tmp_path):
    return Studio(relighter, ESTIMATING, tmp_path / "files", max_megapixels=1, preview=64, kept=2)


@pytest.fixture
def photo(studio):
    studio.folder.mkdir(exist_ok=True)
    return saved(studio.folder / "garden.png")


def saved(path, height=90, width=128, seed=0):
    pixels = np.random.default_rng(seed).integers(60, 250, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def depth_of(path, height=90, width=128):
    depth = np.repeat(np.linspace(3, 1, height, dtype=np.float32)[:, None], width, axis=1)
    depth[30:60, 40:80] = 1.0
    np.save(path, depth)
    return path


def test_a_preview_is_small_and_follows_the_light(studio, photo):
    picture = studio.open(photo)
    before, east = studio.preview(picture, E)
    _, west = studio.preview(picture, W)
    assert before.shape == east.shape == (45, 64, 3)
    assert before.dtype == east.dtype == np.uint8
    assert np.abs(east.astype(int) - west).max() > 2


def test_strength_none_changes_nothing(studio, photo):
    before, after = studio.preview(studio.open(photo), Wanted(E.light, strength=0))
    np.testing.assert_array_equal(before, after)


def test_full_size_keeps_size_and_name(studio, photo):
    path = studio.full(studio.open(photo), E)
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (128, 90))
    assert path.name == "garden_90deg_4500K.png"
    assert studio.full(studio.open(photo), E) != path  # two visitors' results are two files


def test_a_turn_is_24_frames_in_a_loop(studio, photo, tmp_path):
    done = []
    deep = studio.with_depth(studio.open(photo), depth_of(tmp_path / "depth.npy"))
    path = studio.turn(deep, E.light, done.append)
    with Image.open(path) as image:
        assert (image.format, image.size, image.info["loop"]) == ("WEBP", (64, 45), 0)
        assert sum(durations(image)) == 24 * 80  # frames that look alike are stored as one
    assert done == list(range(1, 25))


def test_depth_changes_the_result_and_can_be_taken_back(studio, photo, tmp_path):
    flat = studio.open(photo)
    deep = studio.with_depth(flat, depth_of(tmp_path / "depth.npy"))
    assert studio.ready(flat).depth is None
    assert studio.ready(deep).depth.shape == (45, 64)
    assert np.abs(studio.preview(flat, W)[1].astype(int) - studio.preview(deep, W)[1]).max() > 0
    assert studio.with_depth(deep, None) == flat


def test_depth_can_be_estimated(studio, photo):
    picture = studio.with_estimate(studio.open(photo))
    assert picture.estimated
    assert studio.ready(picture).depth is not None


def test_depth_cannot_be_estimated_without_a_model(relighter, photo, tmp_path):
    studio = Studio(relighter, SIMPLE, tmp_path)
    with pytest.raises(InputError, match=r"--depth_model"):
        studio.with_estimate(Picture(photo))


def test_the_light_of_another_picture(studio, photo, tmp_path):
    guide = saved(tmp_path / "evening.png", seed=4)
    after = studio.preview(studio.open(photo), Wanted(E.light, guide))[1]
    assert after.shape == (45, 64, 3)
    assert 0 <= studio.light_of(guide).azimuth < 360
    assert studio.full(studio.open(photo), Wanted(E.light, guide)).name == "garden_as_evening.png"


def test_memory_is_that_of_the_last_pictures(studio, tmp_path):
    studio.folder.mkdir()
    pictures = [studio.open(saved(studio.folder / f"{index}.png", seed=index)) for index in range(4)]
    assert list(studio._ready) == pictures[2:]
    studio.preview(pictures[0], E)  # one that was let go is read again
    assert list(studio._ready) == [pictures[3], pictures[0]]


def test_a_text_with_the_name_of_a_picture(studio, tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("no picture")
    with pytest.raises(InputError, match=r"^notes\.png: is not an image that can be read; expected a PNG or JPEG"):
        studio.open(path)


def test_too_many_pixels_are_refused_by_the_header(studio, tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("RGB", (2000, 1000)).save(path)
    monkeypatch.setattr("demo_page.Image.Image.convert", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(InputError, match=r"^large\.png: has 2\.0 megapixels; expected at most 1 megapixels"):
        studio.open(path)


def test_a_bomb_is_refused(studio, tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (20000, 20000)).save(path)
    with pytest.raises(InputError, match=r"^bomb\.png: has far too many pixels"):
        studio.open(path)


def test_depth_of_another_picture(studio, photo, tmp_path):
    with pytest.raises(InputError, match="same aspect"):
        studio.with_depth(studio.open(photo), depth_of(tmp_path / "depth.npy", 50, 50))


def test_warnings_of_readers_become_notes(relighter, photo, tmp_path):
    import dataclasses
    import warnings

    def read(path, size, inverse):
        warnings.warn(f"{path}: looks inverted", stacklevel=1)
        return np.load(path)

    studio = Studio(relighter, dataclasses.replace(SIMPLE, read_depth=read), tmp_path, preview=64)
    picture = studio.with_depth(Picture(photo), depth_of(tmp_path / "depth.npy"))
    assert studio.ready(picture).notes == ("depth.npy: looks inverted",)


def test_many_at_once_are_all_answered(studio, photo):
    picture, results = studio.open(photo), []
    wanted = [Wanted(Light(18 * index, 4500)) for index in range(20)]
    threads = [threading.Thread(target=lambda w=w: results.append(studio.preview(picture, w))) for w in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20
    assert len(studio._ready) == 1


def test_light_from_the_controls(relighter):
    usual = usual_elevation(relighter)
    assert usual == 45
    assert light_from(90, 4500, 45, 0, usual=usual) == Light(90, 4500)
    assert light_from(90, 4500, 20, 30, usual=usual) == Light(90, 4500, 20, 0.3)
    with pytest.raises(InputError, match="temperature"):
        light_from(90, 100, 45, 0, usual=usual)


@pytest.mark.parametrize(
    ("azimuth", "words"), [(0, "from behind the scene (N)"), (181, "camera stands (S)"), (275, "from the left (W)")]
)
def test_a_light_in_words(azimuth, words):
    assert words in said(Light(azimuth, 4512))
    assert said(Light(azimuth, 4512)).endswith("4500 K")


def test_near_is_bright_in_the_picture_of_a_depth():
    seen = depth_picture(np.array([[0, 1, 2, 4]], np.float32))
    assert seen[0, 0] == 0
    assert seen[0, 1] > seen[0, 2] > seen[0, 3] > 0
    assert depth_picture(np.zeros((2, 2), np.float32)).max() == 0
    assert depth_picture(np.ones((2, 2), np.float32)).min() > 0


def test_examples_are_whole_and_small():
    found = examples()
    assert 2 <= len(found) <= 4
    for example in found:
        assert example.photo.stat().st_size < 60_000
        assert example.depth.stat().st_size < 60_000
        with Image.open(example.photo) as photo, Image.open(example.depth) as depth:
            assert photo.size == depth.size == (384, 384)
            values = np.array(depth)
        assert values.dtype in (np.uint16, np.int32)
        assert len(np.unique(values)) > 1000
        assert values.max() > 60_000


def test_examples_can_be_opened(relighter, tmp_path):
    studio = Studio(relighter, SIMPLE, tmp_path, preview=64)
    for example in examples():
        assert studio.ready(studio.with_depth(Picture(example.photo), example.depth)).depth.shape == (64, 64)


def test_the_documentation_tells_the_limits():
    text = (ROOT / "docs" / "howto" / "demo.md").read_text()
    given = {name: known.default for name, known in inspect.signature(serve.demo).parameters.items()}
    rows = [
        f"| {given['max_mb']} MiB | `--max_mb` |",
        f"| {given['max_megapixels']:g} million, read off its header | `--max_megapixels` |",
        f"| {MIN_SIDE} to {MAX_SIDE} pixels, the longer at most {PREVIEW // SMALLEST} times the shorter |",
        f"| {KEPT}, some 35 MB each |",
        f"| {DISK_MB / 1024:g} GiB of uploads",
        f"{PREVIEW} pixels along its longer side",
        f"{FRAMES} previews as a moving picture",
        f"open http://{given['host']}:{given['port']}",
    ]
    assert not [row for row in rows if row not in text]


def test_the_command_is_listed():
    assert COMMANDS["demo"].where == "ltnet_pl.demo:demo"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--port", "0"], r"--port 0: expected 1 to 65535"),
        (["--port", "70000"], r"--port 70000: expected 1 to 65535"),
        (["--host", "no.such.host.invalid"], r"--host no\.such\.host\.invalid: is no address"),
        (["--host", "192.0.2.1"], r"cannot be listened on .*; expected an address of this machine"),
        (["--max_mb", "0"], r"--max_mb 0: expected 1 or more"),
        (["--max_megapixels", "0"], r"--max_megapixels 0: expected 0\.01 to 1000"),
    ],
)
def test_wrong_flags(args, message, capsys):
    assert main(["demo", *args]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(InputError, match=message):
        serve.demo(**{args[0][2:]: type_of(args[0])(args[1])})


def type_of(flag):
    return {"--host": str, "--max_megapixels": float}.get(flag, int)


def test_a_port_in_use_is_named():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port {port}: another program listens there on 127\.0\.0\.1.*--port {port + 1}"):
            serve.check_port("127.0.0.1", port)
    serve.check_port("127.0.0.1", free_port())


def test_without_the_extra(monkeypatch):
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else known(name))
    with pytest.raises(
        InputError, match=r"gradio, which is not installed; expected the extra demo: pip install 'ltnet_pl\[demo\]'"
    ):
        serve.demo()


def test_the_command_starts_without_gradio():
    """The help, and the sentence about the missing extra, must come without it."""
    code = "import sys; import ltnet_pl.demo; sys.exit('gradio' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
