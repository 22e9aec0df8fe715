"""The demo's studio with the package's own readers: what cameras and depth maps bring, as a visitor meets it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import scenes
from demo_page import durations, small_relighter
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.demo.inputs import readers
from ltnet_pl.demo.lights import Wanted
from ltnet_pl.demo.studio import Picture, Studio
from ltnet_pl.light import Light

W = Wanted(Light(270, 3000))
SIZE = (96, 128)
FRAME = scenes.trace(scenes.scene(), SIZE)
PIXELS = scenes.picture(FRAME, Light(azimuth=180, temperature=5500))
DEPTH = scenes.stored_depth(FRAME)


@pytest.fixture(scope="module")
def relighter():
    return small_relighter()


@pytest.fixture
def studio(relighter, tmp_path):
    return Studio(relighter, readers(), tmp_path, preview=64)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "garden.png"
    Image.fromarray(PIXELS).save(path)
    return path


def near_as_png(path):
    """The scene's depth, larger is nearer, in 16 bits."""
    near = np.divide(1, DEPTH, out=np.zeros_like(DEPTH), where=DEPTH > 0)
    Image.fromarray(np.round(65535 * near / near.max()).astype(np.uint16)).save(path)
    return path


def difference(one, two):
    return np.abs(one.astype(int) - two).mean()


def test_depth_that_is_larger_where_nearer_means_the_same(studio, photo, tmp_path):
    np.save(tmp_path / "far.npy", DEPTH)
    far = studio.with_depth(Picture(photo), tmp_path / "far.npy")
    near = studio.with_depth(Picture(photo), near_as_png(tmp_path / "near.png"), nearer=True)
    wrong = studio.with_depth(Picture(photo), near_as_png(tmp_path / "near.png"))
    right, same, other = (studio.preview(picture, W)[1] for picture in (far, near, wrong))
    assert difference(right, same) < 0.1 * difference(right, other)
    assert difference(right, other) > 1
    assert difference(studio.ready(far).depth, studio.ready(near).depth) < 2
    assert studio.ready(far).notes == studio.ready(near).notes == ()


def test_depth_that_looks_inverted_is_said_by_what_the_page_has(studio, photo, tmp_path):
    wrong = studio.with_depth(Picture(photo), near_as_png(tmp_path / "near.png"))
    (note,) = studio.ready(wrong).notes
    assert note == (
        "near.png: the depth looks inverted, its ground runs away from the horizon: "
        'tick "In this file, larger numbers are nearer"'
    )
    np.save(tmp_path / "far.npy", DEPTH)
    (note,) = studio.ready(studio.with_depth(Picture(photo), tmp_path / "far.npy", nearer=True)).notes
    assert note.startswith("far.npy: the depth looks inverted")
    assert note.endswith(': do not tick "In this file, larger numbers are nearer"')


def test_depth_of_eight_bits_is_said(studio, photo, tmp_path):
    Image.fromarray(np.round(255 * DEPTH / DEPTH.max()).astype(np.uint8)).save(tmp_path / "depth.png")
    (note,) = studio.ready(studio.with_depth(Picture(photo), tmp_path / "depth.png")).notes
    assert note.startswith("depth.png: has 8 bits, so at most 255 depths")


def test_a_picture_of_a_depth_is_refused(studio, photo, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "depth.png")
    with pytest.raises(InputError, match=r"^depth\.png: is a PNG of mode RGB .*; expected grey of 16 bits"):
        studio.with_depth(Picture(photo), tmp_path / "depth.png")


def test_a_phone_that_lay_on_its_side(studio, photo, tmp_path):
    """The orientation is in EXIF; preview, depth and result stand upright."""
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # what is stored is to be turned by 90 degrees, clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(PIXELS))).save(turned, exif=exif)
    np.save(tmp_path / "far.npy", DEPTH)
    upright, same = (studio.with_depth(Picture(path), tmp_path / "far.npy") for path in (photo, turned))
    for one, two in zip(studio.preview(upright, W), studio.preview(same, W), strict=True):
        np.testing.assert_array_equal(one, two)
    with Image.open(studio.full(upright, W)) as one, Image.open(studio.full(same, W)) as two:
        assert two.size == (128, 96)
        assert two.getexif().get(0x0112, 1) == 1
        np.testing.assert_array_equal(np.array(one), np.array(two))


def test_sixteen_bits_stay_sixteen(studio, tmp_path):
    deep = tmp_path / "deep.png"
    cv2.imwrite(str(deep), PIXELS[..., ::-1].astype(np.uint16) * 256 + 77)
    np.save(tmp_path / "far.npy", DEPTH)
    picture = studio.with_depth(studio.open(deep), tmp_path / "far.npy")
    assert all(side.dtype == np.uint8 for side in studio.preview(picture, W))
    result = cv2.imread(str(studio.full(picture, W)), cv2.IMREAD_UNCHANGED)
    assert (result.dtype, result.shape) == (np.uint16, (96, 128, 3))
    assert len(np.unique(result)) > 1000
    same = cv2.imread(str(studio.full(picture, Wanted(W.light, strength=0))), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(same, cv2.imread(str(deep), cv2.IMREAD_UNCHANGED))


def test_what_is_transparent_stays_transparent(studio, tmp_path):
    alpha = np.zeros(SIZE, np.uint8)
    alpha[20:70, 30:90] = 200
    Image.fromarray(np.dstack([PIXELS, alpha])).save(tmp_path / "cut.png")
    picture = studio.open(tmp_path / "cut.png")
    assert [side.shape for side in studio.preview(picture, W)] == [(48, 64, 3)] * 2
    with Image.open(studio.full(picture, W)) as result:
        assert result.mode == "RGBA"
        np.testing.assert_array_equal(np.array(result)[..., 3], alpha)


def test_a_turn_of_the_light_repeats(studio, photo, tmp_path):
    np.save(tmp_path / "far.npy", DEPTH)
    deep = studio.with_depth(Picture(photo), tmp_path / "far.npy")
    with Image.open(studio.turn(deep, W.light)) as turn:
        assert (turn.format, turn.size, turn.info["loop"]) == ("WEBP", (64, 48), 0)
        assert sum(durations(turn)) == 2000


def test_a_photograph_of_too_few_pixels(studio, tmp_path):
    Image.new("RGB", (200, 40), "grey").save(tmp_path / "strip.png")
    with pytest.raises(InputError, match=r"^strip\.png: is 40 x 200 .*; expected sides of 64 to 8192 pixels: resize it"):
        studio.open(tmp_path / "strip.png")


@pytest.mark.parametrize(("size", "text"), [((64, 4096), "64 x 4096"), ((2200, 64), "2200 x 64")])
def test_a_strip_is_refused_with_what_to_do(relighter, tmp_path, size, text):
    path = tmp_path / "strip.png"
    Image.fromarray(np.full((*size, 3), 128, np.uint8)).save(path)
    studio = Studio(relighter, readers(), tmp_path)
    message = rf"^strip\.png: is {text} \(height x width\), too narrow .* at most 32 times the shorter: cut a part out of it$"
    for call in (studio.open, studio.light_of):
        with pytest.raises(InputError, match=message):
            call(path)


def test_a_strip_of_32_to_1_is_relit(relighter, tmp_path):
    path = tmp_path / "strip.png"
    Image.fromarray(np.tile(PIXELS[:64], (1, 16, 1))).save(path)
    studio = Studio(relighter, readers(), tmp_path)
    assert studio.preview(studio.open(path), W)[1].shape == (16, 512, 3)


def test_exif_that_cannot_be_read_is_said(studio, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "odd.jpg", exif=b"Exif\0\0no TIFF at all")
    (note,) = studio.ready(studio.open(tmp_path / "odd.jpg")).notes
    assert note.startswith("odd.jpg: its EXIF cannot be read")


def test_what_is_said_twice_is_one_note(studio, tmp_path):
    """Pillow complains each time that it looks."""
    Image.fromarray(PIXELS).save(tmp_path / "odd.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09")
    (note,) = studio.ready(studio.open(tmp_path / "odd.png")).notes
    assert "EXIF" in note
