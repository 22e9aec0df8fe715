"""Photographs in and out: what they carry stays, and what is wrong with a file is named."""

import dataclasses
import re
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from ltnet_pl import InputError
from ltnet_pl.photo import Photo, check_output, eight_bit, read_photo, write_photo

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RNG = np.random.default_rng(3)
SMALL = RNG.integers(0, 256, (64, 70, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (66, 71, 3), dtype=np.uint16)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(array, colour, extra=b"", bits=16):
    """A PNG written by hand: what Pillow and OpenCV write is not all that there is."""
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def smooth(height=72, width=96):
    """Slow changes, which JPEG keeps to a level or two."""
    v, u = np.mgrid[0:height, 0:width]
    return (np.stack([u / width, v / height, 1 - u / width], axis=2) * 255).astype(np.uint8)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def profile(space, size=256):
    """The start of an ICC profile that describes a colour space; enough for whoever does not use it."""
    return b"\0" * 16 + space + b"\0" * (size - 20)


def ink_profile():
    """A CMYK profile with known colours: Lab lightness 100 (1 - black), a = 60 magenta, b = 60 yellow."""
    grid = bytearray()
    for corner in np.ndindex(2, 2, 2, 2):
        _, magenta, yellow, black = corner
        grid += bytes([255 * (1 - black), 128 + 60 * magenta, 128 + 60 * yellow])
    ramp = bytes(range(256))
    one = [int(i == j) << 16 for i in range(3) for j in range(3)]
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *one) + ramp * 4 + bytes(grid) + ramp * 3
    table += bytes(-len(table) % 4)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = struct.pack(">I", 2) + b"A2B0" + struct.pack(">II", 156, len(table)) + b"wtpt"
    tags += struct.pack(">II", 156 + len(table), len(white))
    body = tags + table + white
    head = struct.pack(">I", 128 + len(body)) + b"none\x02\x10\0\0prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + body


def test_an_eight_bit_png_comes_through(tmp_path):
    photo = read_photo(saved(tmp_path / "a.png", Image.fromarray(SMALL)))
    assert photo.pixels.dtype == np.uint8
    assert np.array_equal(photo.pixels, SMALL)
    assert (photo.alpha, photo.profile, photo.size, photo.path) == (None, None, (64, 70), tmp_path / "a.png")


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("bits", [8, 16])
def test_every_kind_of_png_is_read_to_the_bit(tmp_path, colour, channels, bits):
    array = RNG.integers(0, 2**bits, (65, 67, channels)).astype(np.uint16 if bits == 16 else np.uint8)
    path = tmp_path / "a.png"
    # the gamma of a PNG must not change values
    path.write_bytes(png(array, colour, chunk(b"gAMA", struct.pack(">I", 100000)), bits))
    photo = read_photo(path)
    assert photo.pixels.dtype == array.dtype
    assert np.array_equal(photo.pixels, array[..., :3] if channels > 2 else np.repeat(array[..., :1], 3, axis=2))
    if channels in (2, 4):
        assert np.array_equal(photo.alpha, array[..., -1])
    else:
        assert photo.alpha is None


@pytest.mark.parametrize("colour", [0, 2])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_colour_that_stands_for_transparent_becomes_alpha(tmp_path, colour, bits):
    array = RNG.integers(0, 2**bits, (65, 67, 3 if colour else 1)).astype(np.uint16)
    clear = array[20, 30]
    path = tmp_path / "a.png"
    path.write_bytes(png(array, colour, chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear.tolist())), bits))
    photo = read_photo(path)
    assert np.array_equal(photo.alpha == 0, (array == clear).all(axis=2))
    assert set(np.unique(photo.alpha)) == {0, 2**bits - 1}


def test_palettes_become_colours(tmp_path):
    image = Image.fromarray(SMALL // 128 * 255).quantize(8, dither=Image.Dither.NONE)
    photo = read_photo(saved(tmp_path / "a.png", image))
    assert np.array_equal(photo.pixels, SMALL // 128 * 255)
    assert photo.alpha is None
    clear = read_photo(saved(tmp_path / "b.png", image, transparency=2))
    assert np.array_equal(clear.alpha == 0, np.asarray(image) == 2)


def test_black_and_white_is_read(tmp_path):
    bits = SMALL[..., 0] > 127
    photo = read_photo(saved(tmp_path / "a.png", Image.fromarray(bits)))
    assert np.array_equal(photo.pixels[..., 1], bits * 255)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_once(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(smooth()), exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    photo = read_photo(path)
    assert photo.size == ((96, 72) if orientation > 4 else (72, 96))
    assert np.array_equal(photo.pixels, expected)
    write_photo(tmp_path / "b.png", photo)
    assert np.array_equal(read_photo(tmp_path / "b.png").pixels, expected)
    write_photo(tmp_path / "b.jpg", photo)
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert image.size == expected.shape[1::-1]


def test_sixteen_bits_are_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    array = RNG.integers(0, 65536, (65, 67, 4), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png(array, 6, chunk(b"eXIf", exif.tobytes()[6:])))
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(photo.pixels, np.rot90(array[..., :3], -1))  # value 6: turn a quarter clockwise
    assert np.array_equal(photo.alpha, np.rot90(array[..., 3], -1))


def test_exif_that_cannot_be_read_is_said(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(smooth()), exif=b"Exif\0\0no TIFF at all")
    with pytest.warns(UserWarning, match=r"a\.jpg: its EXIF cannot be read .* taken to be upright as stored"):
        assert read_photo(path).size == (72, 96)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("icc", [None, SRGB])
def test_png_keeps_everything_to_the_bit(tmp_path, deep, alpha, icc):
    pixels = DEEP if deep else SMALL
    photo = Photo(pixels, pixels[..., 0].copy() if alpha else None, icc, Path("before.png"))
    path = tmp_path / "a.PNG"
    write_photo(path, photo)
    again = read_photo(path)
    assert again.pixels.dtype == pixels.dtype
    assert np.array_equal(again.pixels, photo.pixels)
    assert np.array_equal(again.alpha, photo.alpha) if alpha else again.alpha is None
    assert again.profile == icc
    with Image.open(path) as image:  # another reader takes the file for whole
        image.load()
        assert image.info.get("icc_profile") == icc


def test_jpeg_keeps_profile_and_colours(tmp_path):
    photo = Photo(smooth(), None, SRGB, Path("before.png"))
    write_photo(tmp_path / "a.jpg", photo)
    again = read_photo(tmp_path / "a.jpg")
    assert again.profile == SRGB
    assert np.abs(again.pixels.astype(int) - photo.pixels).max() <= 4


def test_sixteen_bits_are_rounded_for_jpeg(tmp_path):
    shallow = smooth()
    deep = shallow.astype(np.uint16) * 257
    write_photo(tmp_path / "a.jpg", Photo(deep, np.full(deep.shape[:2], 65535, np.uint16), None, Path("a.png")))
    write_photo(tmp_path / "b.jpeg", Photo(shallow, None, None, Path("a.png")))
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpeg").read_bytes()


@given(st.integers(0, 65535))
def test_rounding_to_eight_bits_is_to_the_nearest(value):
    assert abs(int(eight_bit(np.array([value], np.uint16))[0]) * 257 - value) <= 128


def test_profiles_of_other_colours_are_dropped(tmp_path):
    grey = saved(tmp_path / "a.png", Image.fromarray(SMALL[..., 0]), icc_profile=profile(b"GRAY"))
    assert read_photo(grey).profile is None
    colour = saved(tmp_path / "b.jpg", Image.fromarray(SMALL), icc_profile=profile(b"RGB ", 90_000))  # in two segments
    assert read_photo(colour).profile == profile(b"RGB ", 90_000)


def test_inks_without_profile(tmp_path):
    inks = np.zeros((64, 64, 4), np.uint8)
    inks[:32, :, 0] = 255  # cyan above
    inks[32:, :, 3] = 51  # a fifth of black below
    photo = read_photo(saved(tmp_path / "a.jpg", Image.fromarray(inks, "CMYK"), quality=100))
    assert photo.profile is None
    assert np.abs(photo.pixels[10, 10].astype(int) - (0, 255, 255)).max() <= 2
    assert np.abs(photo.pixels[50, 10].astype(int) - 204).max() <= 2


def test_inks_with_profile(tmp_path):
    inks = np.zeros((64, 64, 4), np.uint8)
    inks[:32, :, 1:3] = 255  # Lab 100 (1 - black), 60, 60; below: white
    inks[:32, :, 3] = 128
    photo = read_photo(saved(tmp_path / "a.jpg", Image.fromarray(inks, "CMYK"), quality=100, icc_profile=ink_profile()))
    assert photo.profile is None
    assert np.abs(photo.pixels[50, 10].astype(int) - 255).max() <= 3
    # Lab (49.8, 60, 60) under D50 in sRGB, as scikit-image has it; without the profile it would be (127, 0, 0)
    assert np.abs(photo.pixels[10, 10].astype(int) - (221, 56, 0)).max() <= 12
    with pytest.raises(InputError, match=r"b\.jpg: its colours are CMYK and their profile cannot be used .* convert it to sRGB"):
        read_photo(saved(tmp_path / "b.jpg", Image.fromarray(inks, "CMYK"), icc_profile=profile(b"CMYK")))


def test_the_first_of_several_pictures_in_a_jpeg_is_the_photograph(tmp_path):
    path = saved(
        tmp_path / "a.jpg", Image.fromarray(smooth()), format="MPO", save_all=True, append_images=[Image.fromarray(SMALL)]
    )
    assert read_photo(path).size == (72, 96)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty; fetch or write it again"),
        (b"hello world", r"is neither PNG nor JPEG \(starts with b'hello wo'\); expected a photograph as one: convert it"),
        (png(np.zeros((1, 1, 3)), 2), r"is 1 x 1 \(height x width\); expected sides of 64 to 8192 pixels: resize it"),
        (png(np.zeros((63, 200, 3)), 2), "is 63 x 200"),
        (png(np.zeros((1, 8193, 1)), 0, bits=8), "is 1 x 8193"),
        (png(DEEP, 2)[:9000], "truncated or damaged .*fetch or write it again"),
        (png(DEEP, 2)[:20], "truncated or damaged"),
        (png(DEEP[:-3], 2).replace(struct.pack(">II", 71, 63), struct.pack(">II", 71, 66)), "truncated or damaged"),
    ],
    ids=["empty", "text", "one_pixel", "low", "wide", "cut", "header_cut", "too_few_rows"],
)
def test_what_is_no_photograph_is_refused(tmp_path, content, message):
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"photo\.png: .*{message}"):
        read_photo(path)


def test_a_bomb_is_refused_by_its_header(tmp_path):
    # 60,000 x 60,000 pixels would take 10 gigabytes; the rows themselves are missing, so nothing can have been decoded
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(InputError, match=r"bomb\.png: is 60000 x 60000 .*8192 pixels: resize it"):
        read_photo(tmp_path / "bomb.png")
    data = bytearray(saved(tmp_path / "a.jpg", Image.fromarray(SMALL)).read_bytes())
    place = data.index(struct.pack(">HH", 64, 70))
    data[place : place + 4] = struct.pack(">HH", 65000, 65000)
    (tmp_path / "bomb.jpg").write_bytes(data)
    with pytest.raises(InputError, match=r"bomb\.jpg: is 65000 x 65000 .*8192 pixels: resize it"):
        read_photo(tmp_path / "bomb.jpg")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png: no such file; check the path"):
        read_photo(tmp_path / "gone.png")
    with pytest.raises(InputError, match=rf"{tmp_path}: cannot be read \(Is a directory\)"):
        read_photo(tmp_path)
    frames = [Image.fromarray(SMALL), Image.fromarray(255 - SMALL)]
    path = saved(tmp_path / "moves.png", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"moves\.png: is an animation of 2 frames; .* save one frame as a PNG"):
        read_photo(path)
    path = saved(tmp_path / "a.webp", frames[0])
    with pytest.raises(InputError, match=r"a\.webp: is neither PNG nor JPEG .*convert it"):
        read_photo(path)


@pytest.mark.filterwarnings("default")  # of EXIF that a flipped byte damages
@given(st.sampled_from(["png", "deep", "jpg"]), st.data())
def test_a_damaged_file_is_refused_or_read_but_never_breaks(tmp_path_factory, kind, data):
    if kind == "deep":
        whole = png(DEEP[:64, :64], 2, chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB)))
    else:
        buffer = BytesIO()
        Image.fromarray(smooth()).save(buffer, "PNG" if kind == "png" else "JPEG", icc_profile=SRGB)
        whole = buffer.getvalue()
    damaged = bytearray(whole[: data.draw(st.integers(1, len(whole)))])
    place = data.draw(st.integers(0, len(damaged) - 1))
    damaged[place] ^= data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "photo"
    path.write_bytes(damaged)
    try:
        photo = read_photo(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 - either outcome is right
    else:
        assert photo.pixels.ndim == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.bmp", r"ends in \.bmp; expected \.png, \.jpg, \.jpeg: .*give the file one of them"),
        ("a", "ends in no suffix; expected"),
        ("there.png", r"exists already; expected a new file: give another name, or --overwrite to replace it"),
        ("folder.png", "is a folder; expected the name of a file"),
        ("gone/a.png", r"its folder .*gone does not exist; .*create it"),
        ("x" * 300 + ".png", r"cannot be written \(File name too long\); .*name another"),
    ],
)
def test_a_wrong_place_is_named_and_nothing_is_touched(tmp_path, name, message):
    (tmp_path / "there.png").write_bytes(b"old")
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=rf"{re.escape(name)}: {message}"):
        write_photo(tmp_path / name, Photo(SMALL, None, None, Path("in.png")))
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.png").read_bytes() == b"old"


def test_a_folder_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(InputError, match=rf"a\.png: its folder {tmp_path} may not be written; .*name another"):
        check_output(tmp_path / "a.png", [".png"])


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match=r"a\.png: cannot be written \(No space left on device\)"):
        write_photo(path, Photo(SMALL, None, None, Path("in.png")), overwrite=True)
    assert [item.read_bytes() for item in tmp_path.iterdir()] == [b"old"]


def test_only_a_word_replaces_a_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    write_photo(path, Photo(SMALL, None, None, Path("in.png")), overwrite=True)
    assert np.array_equal(read_photo(path).pixels, SMALL)


def test_transparency_does_not_go_into_a_jpeg(tmp_path):
    photo = Photo(SMALL, SMALL[..., 0], None, Path("in.png"))
    with pytest.raises(
        InputError, match=r"a\.jpg: a JPEG cannot keep the transparency of in\.png; expected \.png: give the result that suffix"
    ):
        write_photo(tmp_path / "a.jpg", photo)
    assert not list(tmp_path.iterdir())
    write_photo(tmp_path / "a.jpg", dataclasses.replace(photo, alpha=np.full((64, 70), 255, np.uint8)))
    assert read_photo(tmp_path / "a.jpg").alpha is None


@pytest.mark.parametrize(
    ("pixels", "alpha", "message"),
    [
        (SMALL.astype(np.float32), None, r"\(64, 70, 3\) float32"),
        (SMALL[..., 0], None, r"\(64, 70\) uint8"),
        (SMALL, SMALL[:9, :, 0], r"got \(9, 70\) uint8"),
        (DEEP, DEEP[..., 0].astype(np.uint8), r"got \(66, 71\) uint8"),
    ],
)
def test_a_photo_of_another_form_cannot_be_made(pixels, alpha, message):
    with pytest.raises(ValueError, match=message):
        Photo(pixels, alpha, None, Path("in.png"))
