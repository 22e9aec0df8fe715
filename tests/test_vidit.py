"""Names, images, scene files and sample data of VIDIT; layouts, depth and pair lists have files of their own."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.files import atomic_write
from ltnet_pl.light import DIRECTIONS, TEMPERATURES, Camera, Light, Rig
from ltnet_pl.vidit import (
    find_one_to_one,
    find_pairs,
    image_size,
    parse_name,
    read_depth,
    read_image,
    read_scene,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
N_LIGHT, E_LIGHT = Light(0, 6500), Light(90, 4500)


def save(path, mode="RGBA", pixels=PIXELS, **options):
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def sixteen_bit(path):
    """An RGB PNG of 16 bits per channel, which Pillow cannot write: an 8-bit one with twice the width's bytes."""
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in PIXELS)
    header = struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


# --- names


@given(
    scene=st.integers(0, 10**6).map(lambda n: f"Image{n:03d}"),
    kelvin=st.sampled_from(TEMPERATURES),
    direction=st.sampled_from(DIRECTIONS),
    folder=st.sampled_from([".", "train", "/data/Image000_2500_N.png"]),
)
def test_names_round_trip(scene, kelvin, direction, folder):
    assert parse_name(Path(folder) / f"{scene}.png") == (scene, None)
    found, light = parse_name(Path(folder) / f"{scene}_{kelvin}_{direction}.png")
    assert (found, light.name) == (scene, f"{kelvin}_{direction}")
    assert light == Light(45 * DIRECTIONS.index(direction), kelvin)


def test_pair_name():
    assert parse_name(Path("Pair017.png")) == ("Pair017", None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Image000_4500_X.png", r"unknown light direction 'X'; expected one of N, NE, E, SE, S, SW, W, NW"),
        ("Image000_4500_e.png", r"unknown light direction 'e'"),
        ("Image000_4500_E (1).png", r"unknown light direction 'E \(1\)'"),
        ("Image000_5000_E.png", r"unknown light temperature '5000' in '5000_E'; expected one of 2500, 3500, 4500, 5500, 6500"),
        ("Image000_.png", r"unknown light temperature ''"),
        ("Image000-4500-E.png", r"no VIDIT name; expected Image000_4500_E, Image000 or Pair000"),
        ("image000.png", "no VIDIT name"),
        ("Image٣.png", "no VIDIT name"),
    ],
)
def test_wrong_names_name_the_file(name, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_name(Path("root") / name)
    assert str(Path("root") / name) in str(caught.value)


# --- images


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_png_is_read_exactly_and_alpha_dropped(tmp_path, mode):
    path = save(tmp_path / "Image000.png", mode)
    image = read_image(path, (5, 7))
    np.testing.assert_array_equal(image, PIXELS)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous
    assert image_size(path) == (5, 7)


def test_alpha_is_dropped_not_blended(tmp_path):
    pixels = np.dstack([PIXELS, np.zeros((5, 7), np.uint8)])
    Image.fromarray(pixels).save(tmp_path / "Image000.png")
    np.testing.assert_array_equal(read_image(tmp_path / "Image000.png"), PIXELS)


def test_jpeg_named_so_is_read_and_turned(tmp_path):
    smooth = np.add.outer(np.arange(16), np.arange(24)).astype(np.uint8)
    smooth = np.dstack([smooth * 4, smooth * 2, smooth])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    plain, turned = tmp_path / "a.jpg", tmp_path / "b.JPEG"
    save(plain, "RGB", smooth, quality=95, subsampling=0)
    save(turned, "RGB", smooth, quality=95, subsampling=0, exif=exif)
    assert np.abs(read_image(plain).astype(int) - smooth).max() <= 6
    np.testing.assert_array_equal(read_image(turned), np.rot90(read_image(plain), -1))
    assert image_size(plain) == (16, 24)
    assert image_size(turned) == (24, 16)


@pytest.mark.parametrize("read", [read_image, image_size])
@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.png", lambda path: save(path, "L"), "is a grey image; expected 8-bit RGB or RGBA: convert"),
        ("a.png", lambda path: save(path, "LA"), "is a grey with alpha image"),
        ("a.png", lambda path: save(path, "P"), "is a palette image"),
        ("a.png", lambda path: save(path, "I;16", PIXELS[..., 0].astype(np.uint16)), "is a grey image"),
        ("a.png", sixteen_bit, "has 16 bits per channel; expected 8: save it as an 8-bit"),
        ("a.png", lambda path: save(path, "RGB", format="JPEG"), r"is a JPEG by content, but named \.png.*fetch the original"),
        ("a.jpg", lambda path: save(path, "RGB", format="PNG"), r"is a PNG by content, but named \.jpg; rename it to a\.png"),
        ("a.jpg", lambda path: save(path, "L"), "is a JPEG of mode L; expected RGB"),
        ("a.jpg", lambda path: path.write_bytes(b"\xff\xd8\xff\xe0junk"), "truncated or damaged"),
        ("a.png", lambda path: save(path, "RGB", format="BMP"), "neither PNG nor JPEG"),
        ("a.png", lambda path: path.write_bytes(b""), "the file is empty"),
        ("a.png", lambda path: path.mkdir(), "cannot be read"),
        ("a.png", lambda path: None, "no such file"),
        ("a.png", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(18)), "no PNG header"),
        (
            "a.png",
            lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\1\0\0\x08\x02\0\0\0"),
            "claims 65536 x 65536 pixels",
        ),
    ],
)
def test_bad_images(tmp_path, read, name, make, message):
    make(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_wrong_size_of_image(tmp_path, read):
    path = save(tmp_path / "Image000.png")
    with pytest.raises(InputError, match=r"Image000\.png: is 5 x 7 \(height x width\), expected 7 x 5 as its partner.*resize"):
        read(path, (7, 5))


def test_every_truncation_is_refused_or_lost_no_pixel(tmp_path):
    whole = save(tmp_path / "whole.png").read_bytes()
    path = tmp_path / "cut.png"
    refused = 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            image = read_image(path)
        except InputError:
            refused += 1
        else:
            np.testing.assert_array_equal(image, PIXELS)
    assert refused >= len(whole) - 20  # what may miss: checksums and the empty last chunk


# --- rendered scenes


def write_scene(root, content):
    path = root / "scenes" / "Image000" / "scene.json"
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize("base", [".", "train"])
def test_camera_and_rig(tmp_path, base):
    camera, rig = {"fov": 48, "pitch": 20.5}, {"radius": 0.8, "height": 1}
    write_scene(tmp_path / base, {"family": "terrain", "camera": camera, "rig": rig, "seed": 1})
    assert read_scene(tmp_path, "Image000") == (Camera(48, 20.5), Rig(0.8, 1))
    assert read_scene(tmp_path, "Image001") == (None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", r"camera\.fov is None, not a number"),
        ({"camera": {"fov": 48}}, r"camera\.pitch is None, not a number"),
        ({"camera": {"fov": "48", "pitch": 20}}, r"camera\.fov is 48, not a number"),
        ({"camera": {"fov": True, "pitch": 20}}, r"camera\.fov is True, not a number"),
        ({"camera": {"fov": 480, "pitch": 20}, "rig": {"radius": 1, "height": 1}}, "a camera needs 0 < fov <= 170"),
        ({"camera": {"fov": 48, "pitch": float("nan")}, "rig": {"radius": 1, "height": 1}}, "a camera needs"),
        ({"camera": {"fov": 48, "pitch": 20}, "rig": {"radius": 0, "height": 1}}, "a rig needs 0 < radius"),
        ("[" * 100_000, "expected camera"),
    ],
)
def test_broken_scene_file(tmp_path, content, message):
    write_scene(tmp_path, content)
    with pytest.raises(InputError, match=rf"scene\.json: .*{message}"):
        read_scene(tmp_path, "Image000")


def test_scene_file_that_is_a_folder(tmp_path):
    (tmp_path / "scenes" / "Image000" / "scene.json").mkdir(parents=True)
    with pytest.raises(InputError, match=r"scene\.json: cannot be read"):
        read_scene(tmp_path, "Image000")


def test_atomic_write_is_whole_or_absent(tmp_path):
    def interrupted():
        with atomic_write(tmp_path / "a.csv") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())
    with atomic_write(tmp_path / "a.csv") as file:
        file.write(b"whole")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.csv", b"whole")]


# --- sample data


def test_native_layouts_of_the_challenge(samples):
    root = samples / "vidit" / "native_layout"
    (pair,) = find_one_to_one(root / "track1")
    assert (pair.name, pair.input.light, pair.target_light) == ("Image901", N_LIGHT, E_LIGHT)
    (triple,) = find_pairs(root / "track2")
    assert triple.name == "Pair900"
    for view, size in [
        (pair.input, (198, 198)),
        (pair.target, (198, 198)),
        (triple.input, (242, 242)),
        (triple.guide, (242, 242)),
    ]:
        assert read_image(view.image, size).shape == (*size, 3)
        assert 0 < read_depth(view.depth, size).max() <= 1


def test_original_files(samples):
    paths = sorted((samples / "vidit" / "full_1024").rglob("*.png"))
    assert len(paths) >= 4
    for path in paths:
        assert image_size(path) == (1024, 1024)
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            np.testing.assert_array_equal(read_image(path), np.asarray(image)[..., :3])
        scene, light = parse_name(path)
        assert scene.startswith("Image")
        assert light in (None, E_LIGHT)
