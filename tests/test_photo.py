"""Photographs in and out: what is kept to the bit, and what is refused by name."""

import struct
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from ltnet_pl import InputError
from ltnet_pl.photo import Photo, read_photo, write_orbit, write_photo

RNG = np.random.default_rng(0)
SIZE = (64, 80)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def smooth(kind=np.uint8):
    """A picture that survives a JPEG: slow ramps of colour."""
    v, u = np.meshgrid(*(np.linspace(0, 1, n) for n in SIZE), indexing="ij")
    full = np.iinfo(kind).max
    return (np.stack([u, v, 1 - u], axis=2) * full).round().astype(kind)


def noise(kind, *shape):
    return RNG.integers(0, np.iinfo(kind).max + 1, shape, dtype=kind)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("profile", [None, PROFILE])
def test_a_png_comes_back_to_the_bit(tmp_path, kind, clear, profile):
    photo = Photo(noise(kind, *SIZE, 3), noise(kind, *SIZE) if clear else None, profile)
    write_photo(tmp_path / "a.png", photo)
    found = read_photo(tmp_path / "a.png")
    assert found.pixels.dtype == kind
    assert np.array_equal(found.pixels, photo.pixels)
    assert (found.alpha is None) if not clear else np.array_equal(found.alpha, photo.alpha)
    assert found.profile == profile
    with Image.open(tmp_path / "a.png") as image:  # what others read
        assert image.info.get("icc_profile") == profile
        image.load()


def test_16_bits_are_those_that_another_writer_wrote(tmp_path):
    pixels = noise(np.uint16, *SIZE, 3)
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    assert np.array_equal(read_photo(tmp_path / "a.png").pixels, pixels)
    grey = noise(np.uint16, *SIZE)
    cv2.imwrite(str(tmp_path / "g.png"), grey)
    assert np.array_equal(read_photo(tmp_path / "g.png").pixels, np.repeat(grey[..., None], 3, 2))


def test_a_jpeg_is_near_and_keeps_its_profile(tmp_path):
    write_photo(tmp_path / "a.jpg", Photo(smooth(), None, PROFILE))
    found = read_photo(tmp_path / "a.jpg")
    assert np.abs(found.pixels.astype(int) - smooth()).max() <= 4
    assert found.profile == PROFILE
    write_photo(tmp_path / "b.jpg", Photo(smooth(np.uint16)))
    assert np.abs(read_photo(tmp_path / "b.jpg").pixels.astype(int) - smooth()).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("name", "mode"), [("a.jpg", "RGB"), ("a.png", "RGBA")])
def test_every_orientation_is_upright_and_only_once(tmp_path, orientation, name, mode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    whole = np.dstack([smooth(), smooth()[..., 0]])[..., : len(mode)]
    Image.fromarray(whole).save(tmp_path / name, exif=exif)
    with Image.open(tmp_path / name) as image:
        expected = np.array(ImageOps.exif_transpose(image))
    found = read_photo(tmp_path / name)
    assert np.array_equal(found.pixels, expected[..., :3])
    if mode == "RGBA":
        assert np.array_equal(found.alpha, expected[..., 3])
    write_photo(tmp_path / f"out_{name}", found, overwrite=True)
    again = read_photo(tmp_path / f"out_{name}")
    assert again.pixels.shape == expected[..., :3].shape
    assert np.abs(again.pixels.astype(int) - found.pixels).max() <= 6


def test_a_deep_png_is_turned_too(tmp_path):
    pixels = noise(np.uint16, *SIZE, 3)
    write_photo(tmp_path / "a.png", Photo(pixels))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:33] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[33:])
    assert np.array_equal(read_photo(tmp_path / "a.png").pixels, np.rot90(pixels, 3))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA"])
def test_grey_and_palettes_become_colour(tmp_path, mode):
    image = Image.fromarray(smooth()).convert("L").convert(mode)
    image.save(tmp_path / "a.png")
    found = read_photo(tmp_path / "a.png")
    assert np.array_equal(found.pixels, np.array(image.convert("RGB")))
    assert (found.alpha is not None) == (mode == "LA")


def test_a_palette_with_a_clear_colour_keeps_it(tmp_path):
    image = Image.fromarray(smooth()).convert("P")
    image.info["transparency"] = 3
    image.save(tmp_path / "a.png", transparency=3)
    found = read_photo(tmp_path / "a.png")
    assert np.array_equal(found.alpha == 0, np.array(image) == 3)


def test_cmyk_becomes_near_what_it_was(tmp_path):
    Image.fromarray(smooth()).convert("CMYK").save(tmp_path / "a.jpg", quality=98, subsampling=0)
    found = read_photo(tmp_path / "a.jpg")
    assert found.profile is None
    assert np.abs(found.pixels.astype(int) - smooth()).max() <= 12


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def claims(width, height):
    """A PNG that says it has such a size, and has hardly anything."""
    parts = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), chunk(b"IDAT", zlib.compress(b"\0\0\0\0"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def encoded(kind, **options):
    buffer = BytesIO()
    Image.fromarray(smooth()).save(buffer, kind, **options)
    return buffer.getvalue()


def animated():
    frames = [Image.fromarray(np.roll(smooth(), k, 0)) for k in range(3)]
    buffer = BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"", "the file is empty; fetch or write it again"),
        ("a.png", b"hello, this is no picture", "is no PNG and no JPEG; expected one of them: convert it"),
        ("a.png", encoded("GIF"), "is no PNG and no JPEG"),
        ("a.png", encoded("PNG")[:-150], "is truncated or damaged"),
        ("a.jpg", encoded("JPEG")[:400], "is truncated or damaged"),
        ("a.png", claims(1, 1), r"is 1 x 1 pixels .*expected 64 to 8192 along each side: enlarge it"),
        ("a.png", claims(9000, 100), r"is 9000 x 100 pixels .*: reduce it"),
        ("a.png", claims(60000, 60000), ".*expected at most 8192 pixels along each side: reduce it"),
        ("a.png", animated(), r"is animated \(3 frames\); expected a single picture"),
    ],
)
def test_what_is_no_photograph_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: {message}"):
        read_photo(tmp_path / name)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"missing\.png"):
        read_photo(tmp_path / "missing.png")
    with pytest.raises(InputError, match=str(tmp_path)):
        read_photo(tmp_path)


def test_nothing_is_overwritten_or_half_written(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"a\.png: is there already; give --overwrite true"):
        write_photo(path, Photo(smooth()))
    assert path.read_bytes() == b"mine"
    write_photo(path, Photo(smooth()), overwrite=True)
    assert np.array_equal(read_photo(path).pixels, smooth())
    for name, photo, message in (
        ("b.jpg", Photo(smooth(), smooth()[..., 0]), "a JPEG has no transparency"),
        ("b.tiff", Photo(smooth()), r"ends in .tiff; expected .png, .jpg or .jpeg"),
        ("b", Photo(smooth()), "ends in nothing"),
        ("no/b.png", Photo(smooth()), "its folder .*no does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            write_photo(tmp_path / name, photo)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", ["o.webp", "o.gif"])
def test_an_animation_has_all_frames_and_begins_anew(tmp_path, name):
    frames = [np.roll(smooth(), 9 * k, 1) for k in range(5)]
    write_orbit(tmp_path / name, iter(frames), fps=10)
    with Image.open(tmp_path / name) as film:
        assert (film.n_frames, film.info["loop"]) == (5, 0)
        for k, frame in enumerate(frames):
            film.seek(k)
            film.load()
            assert film.info["duration"] == 100
            assert np.abs(np.asarray(film.convert("RGB")).astype(int) - frame).mean() < 8


def test_a_film_has_all_frames_and_even_sides(tmp_path):
    av = pytest.importorskip("av", reason="the extra photo is not installed")
    frames = [np.roll(smooth(), 9 * k, 1)[:63, :79] for k in range(5)]
    write_orbit(tmp_path / "o.mp4", frames, fps=10)
    with av.open(str(tmp_path / "o.mp4")) as film:
        found = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(found) == 5
    for a, b in zip(found, frames, strict=True):
        assert a.shape == (62, 78, 3)
        assert np.abs(a.astype(int) - b[:62, :78]).mean() < 6


def test_a_film_that_cannot_be_is_refused(tmp_path):
    for name, frames, message in (
        ("o.avi", [smooth()], r"ends in .avi; expected .webp, .gif, .mp4"),
        ("o.webp", [], "there are no frames"),
        ("o.mp4", [], "there are no frames"),
    ):
        with pytest.raises(InputError, match=message):
            write_orbit(tmp_path / name, frames)
    assert not list(tmp_path.iterdir())
    (tmp_path / "o.gif").write_bytes(b"mine")
    with pytest.raises(InputError, match="is there already"):
        write_orbit(tmp_path / "o.gif", [smooth()])
