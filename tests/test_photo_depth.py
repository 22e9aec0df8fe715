"""Depth of photographs: every form of file gives one convention, and what breaks it is named."""

import sys
import warnings
from io import BytesIO

import numpy as np
import pytest
import scenes
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ltnet_pl import InputError, vidit
from ltnet_pl.light import Camera
from ltnet_pl.photo import looks_inverted, read_depth
from ltnet_pl.photo.depth import _one_shape

RNG = np.random.default_rng(8)
WALL = RNG.uniform(1, 2, (24, 32)).astype(np.float32)
WALL[:4, :5] = 0  # some background


def write_exr(path, channels, header=None):
    openexr = pytest.importorskip("OpenEXR")
    head = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage} | (header or {})
    openexr.File(head, channels).write(str(path))
    return path


def write_png(path, values):
    Image.fromarray(values).save(path)
    return path


def reciprocal(depth):
    return np.divide(1, depth, out=np.zeros_like(depth), where=depth > 0)


def ground(height=60, width=80, horizon=0.4, far=12.0):
    """A level floor below a wall at its far end, under a level camera: depth is exact, up to scale."""
    below = np.maximum((np.arange(height) + 0.5) / height - horizon, 1e-6)
    return np.broadcast_to(np.minimum(1 / below, far)[:, None], (height, width)).astype(np.float32)


@pytest.mark.parametrize("kind", ["plain", "pickled"])
def test_npy_of_both_kinds(tmp_path, kind):
    path = tmp_path / "depth.npy"
    scenes.write_depth(path, WALL, plain=kind == "plain")
    depth = read_depth(path, (24, 32))
    assert depth.dtype == np.float32
    assert np.array_equal(depth, WALL)
    assert np.array_equal(depth, vidit.read_depth(path))


@given(st.integers(0, 2**32 - 1))
def test_sixteen_bit_pngs_keep_each_value(tmp_path_factory, seed):
    values = np.random.default_rng(seed).integers(0, 65536, (16, 17), dtype=np.uint16)
    path = write_png(tmp_path_factory.mktemp("png") / "depth.png", values)
    assert np.array_equal(read_depth(path, (16, 17)), values)


def test_eight_bits_are_read_with_a_word(tmp_path):
    values = RNG.integers(1, 256, (24, 32), dtype=np.uint8)
    path = write_png(tmp_path / "depth.png", values)
    with pytest.warns(UserWarning, match=r"depth\.png: has 8 bits.*write 16 bits, \.npy or \.exr"):
        assert np.abs(read_depth(path, (24, 32)) - values).max() <= 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("names", ["Z", "R", "YRGB", "ZY", "ZRGBA"])
def test_exr_channels(tmp_path, names, dtype):
    values = WALL.astype(dtype)
    channels = dict.fromkeys(names, np.ones_like(values)) | {names[0]: values}
    depth = read_depth(write_exr(tmp_path / "depth.exr", channels), (24, 32))
    assert depth.dtype == np.float32
    assert np.array_equal(depth, values)


def test_exr_with_several_channels_is_named(tmp_path):
    for names in ("RGB", "UV"):
        path = write_exr(tmp_path / f"{names}.exr", dict.fromkeys(names, WALL))
        listed = ", ".join(sorted(names))
        with pytest.raises(InputError, match=rf"{names}\.exr: has the channels {listed}; expected one Z.*write the depth alone"):
            read_depth(path, (24, 32))


def test_exr_of_several_parts(tmp_path):
    openexr = pytest.importorskip("OpenEXR")
    path = tmp_path / "depth.exr"
    parts = [openexr.Part({"name": "colour"}, dict.fromkeys("RGB", WALL)), openexr.Part({"name": "depth"}, {"Z": WALL})]
    openexr.File(parts).write(str(path))
    assert np.array_equal(read_depth(path, (24, 32)), WALL)
    openexr.File([openexr.Part({"name": name}, {"Z": WALL}) for name in "ab"]).write(str(path))
    with pytest.raises(InputError, match=r"depth\.exr: has the channels Z, Z; expected one Z"):
        read_depth(path, (24, 32))


def test_exr_that_cannot_be_used(tmp_path, monkeypatch):
    path = write_exr(tmp_path / "whole.exr", {"Z": WALL})
    data = path.read_bytes()
    for cut in (6, 40, len(data) - 300):
        (tmp_path / "cut.exr").write_bytes(data[:cut])
        with pytest.raises(InputError, match=r"cut\.exr: .*truncated or damaged.*fetch or write it again"):
            read_depth(tmp_path / "cut.exr", (24, 32))
    window = (np.array([0, 0], np.int32), np.array([99, 99], np.int32))
    part = write_exr(tmp_path / "part.exr", {"Z": WALL}, {"displayWindow": window})
    with pytest.raises(InputError, match=r"part\.exr: its pixels do not fill its frame.*crop or pad it"):
        read_depth(part, (24, 32))
    numbers = write_exr(tmp_path / "ids.exr", {"Z": np.ones((24, 32), np.uint32)})
    with pytest.raises(InputError, match=r"ids\.exr: channel Z holds no float.*expected HALF or FLOAT"):
        read_depth(numbers, (24, 32))
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(InputError, match=r"whole\.exr: \.exr needs OpenEXR.*pip install 'ltnet_pl\[photo\]'"):
        read_depth(path, (24, 32))


@given(st.floats(1e-3, 1e3))
def test_inverse_depth_is_the_reciprocal_and_0_stays(tmp_path_factory, scale):
    path = tmp_path_factory.mktemp("inverse") / "disparity.npy"
    np.save(path, WALL * np.float32(scale))
    depth = read_depth(path, (24, 32), inverse=True)
    assert np.array_equal(depth == 0, WALL == 0)
    assert np.allclose((depth * WALL)[WALL > 0], 1 / scale, rtol=1e-6)


def test_inverse_depth_of_a_png(tmp_path):
    path = write_png(tmp_path / "disparity.png", (ground(far=9) ** -1 * 50000).astype(np.uint16))
    depth = read_depth(path, (60, 80), inverse=True)
    assert depth == pytest.approx(ground(far=9) / 50000, rel=1e-3)


def test_an_inverse_depth_without_reciprocal_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.where(WALL > 0, 1e-44, 0).astype(np.float32))
    with pytest.raises(InputError, match=r"a\.npy: the inverse depth goes down to 9\.8\d+e-45.*set such pixels to 0"):
        read_depth(tmp_path / "a.npy", (24, 32), inverse=True)


@pytest.mark.parametrize("suffix", ["npy", "exr"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "depth is NaN or infinite at 1 pixels .*set those pixels to 0"),
        (np.inf, "depth is NaN or infinite at 1 pixels .*set those pixels to 0"),
        (-0.5, "depth reaches down to -0.5; .*set negative pixels to 0"),
    ],
)
@pytest.mark.parametrize("inverse", [False, True])
def test_values_that_are_no_depth(tmp_path, suffix, value, message, inverse):
    depth = WALL.copy()
    depth[5, 6] = value
    path = tmp_path / f"depth.{suffix}"
    if suffix == "npy":
        np.save(path, depth)
    else:
        write_exr(path, {"Z": depth})
    with pytest.raises(InputError, match=rf"depth\.{suffix}: {message}"):
        read_depth(path, (24, 32), inverse)


def encoded(values, kind="PNG"):
    buffer = BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (
            b"12 13 14",
            r"is no depth by its content \(starts with b'12 13 14'\); expected \.npy, a 16-bit grey PNG, or \.exr: convert",
        ),
        (encoded(np.ones((24, 32, 3), np.uint8)), "PNG of mode RGB with 8 bits .*expected grey of 16 bits: save the values"),
        (encoded(np.ones((24, 32, 3), np.uint8), "JPEG"), "is no depth by its content"),
        (encoded(np.ones((24, 32), bool)), "PNG of mode 1 with 1 bits"),
        (encoded(np.zeros((24, 32), np.uint16)), "depth is 0 everywhere"),
        (encoded(np.ones((8, 12), np.uint16)), r"the depth is 8 x 12 .*sides of 16 to 8192 pixels: resize it"),
        (encoded(RNG.integers(0, 9999, (24, 32), dtype=np.uint16))[:900], "truncated or damaged"),
        (encoded(np.ones((24, 32), np.uint16))[:20], "truncated or damaged"),
    ],
    ids=["empty", "text", "colour", "jpeg", "bits", "zeros", "small", "cut", "header_cut"],
)
def test_files_that_are_no_depth(tmp_path, content, message):
    path = tmp_path / "depth.tiff"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"depth\.tiff: .*{message}"):
        read_depth(path, (24, 32))


def test_a_missing_file_a_folder_and_an_attack(tmp_path):
    with pytest.raises(InputError, match=r"gone\.npy: no such file"):
        read_depth(tmp_path / "gone.npy", (24, 32))
    with pytest.raises(InputError, match="cannot be read"):
        read_depth(tmp_path, (24, 32))
    np.save(tmp_path / "attack.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"attack\.npy: the pickle asks for 'builtins\.print'.*refused without being run"):
        read_depth(tmp_path / "attack.npy", (24, 32))


@given(st.integers(64, 3000), st.integers(64, 3000), st.floats(0.26, 3))
def test_a_scaled_and_rounded_depth_has_the_shape_of_its_photo(height, width, scale):
    rows = max(16, round(height * scale))
    assert _one_shape((rows, round(width * rows / height)), (height, width))


@given(st.integers(1000, 3000), st.integers(200, 3000), st.integers(2, 40))  # not so flat that two columns are half a row
def test_a_cut_depth_has_another_shape(height, width, cut):
    assert not _one_shape((height, width - cut), (height, width))


def test_depth_of_another_shape_is_refused_with_both_sizes(tmp_path):
    np.save(tmp_path / "a.npy", WALL)
    assert read_depth(tmp_path / "a.npy", (3000, 4000)).shape == (24, 32)
    with pytest.raises(InputError, match=r"a\.npy: the depth is 24 x 32 and its photograph 300 x 300 .*one shape: cut both"):
        read_depth(tmp_path / "a.npy", (300, 300))
    with pytest.raises(InputError, match=r"and its photograph 320 x 240 .*lies on its side, turn it as the photograph is"):
        read_depth(tmp_path / "a.npy", (320, 240))


@pytest.mark.parametrize("pitch", [20, 35, 50])
@pytest.mark.parametrize("number", range(4))
def test_depth_of_scenes_is_never_taken_for_inverted(pitch, number):
    scene = scenes.scene(1, number)
    frame = scenes.trace(type(scene)(**{**vars(scene), "camera": Camera(50, pitch)}), (64, 64))
    assert not looks_inverted(scenes.stored_depth(frame))


@pytest.mark.parametrize("noise", [0, 0.02])
def test_inverted_ground_is_seen(noise):
    depth = ground() * RNG.uniform(1 - noise, 1 + noise, (60, 80)).astype(np.float32)
    assert looks_inverted(reciprocal(depth))
    assert not looks_inverted(depth)
    depth[:12] = 0  # sky
    assert looks_inverted(reciprocal(depth))


def undecided():
    """Depths that no rule may call inverted, whichever way round they are."""
    rows = np.linspace(0, 1, 60, dtype=np.float32)[:, None]
    columns = np.linspace(0, 1, 80, dtype=np.float32)
    yield "wall", np.full((60, 80), 3, np.float32)
    yield "side wall", np.broadcast_to(1 / (0.2 + columns), (60, 80)).astype(np.float32)
    yield "noise", RNG.uniform(1, 9, (60, 80)).astype(np.float32)
    yield "gentle slope", np.broadcast_to(1 + 0.3 * rows, (60, 80)).astype(np.float32)
    hills = 4 + np.sin(9 * rows + 5 * columns) + RNG.uniform(0, 0.5, (60, 80))
    yield "terrain", hills.astype(np.float32)
    # rows' medians on a straight line, but all else scattered about it
    scattered = np.exp(RNG.permuted(np.tile(np.linspace(-1.2, 1.2, 81), (60, 1)), axis=1))
    yield "scattered", ((1 + 4 * rows) * scattered).astype(np.float32)
    mostly_sky = ground().copy()
    mostly_sky[:40] = 0
    yield "mostly sky", mostly_sky


@pytest.mark.parametrize(("name", "depth"), list(undecided()), ids=lambda value: value if isinstance(value, str) else "")
def test_what_shows_no_ground_is_undecided(name, depth):
    assert not looks_inverted(depth)
    assert not looks_inverted(reciprocal(depth))


def test_a_ceiling_is_not_taken_for_inverted_ground():
    ceiling = np.ascontiguousarray(ground(horizon=0)[::-1])  # nearest above, and as correlated with the row as any ground
    assert ceiling[-12:].mean() > 1.5 * ceiling[:12].mean()
    assert not looks_inverted(ceiling)
    assert not looks_inverted(np.ascontiguousarray(ground(horizon=0.4)[::-1]))  # a far wall below it


def test_the_wrong_convention_is_said_and_the_right_one_is_silent(tmp_path):
    np.save(tmp_path / "depth.npy", ground())
    np.save(tmp_path / "disparity.npy", reciprocal(ground()))
    with pytest.warns(UserWarning, match=r"disparity\.npy: the depth looks inverted.*: give --inverse_depth"):
        read_depth(tmp_path / "disparity.npy", (60, 80))
    with pytest.warns(UserWarning, match=r"depth\.npy: the depth looks inverted.*: leave out --inverse_depth"):
        read_depth(tmp_path / "depth.npy", (60, 80), inverse=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = read_depth(tmp_path / "depth.npy", (60, 80))
        assert read_depth(tmp_path / "disparity.npy", (60, 80), inverse=True) == pytest.approx(right, rel=1e-6)
