"""Orbits: frames of one turn as a moving picture that plays at the right pace and repeats."""

import sys

import numpy as np
import pytest
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.photo import orbit, write_orbit


def turn(count=6, height=64, width=80):
    """Flat colours that all differ, with a slope: nothing that a codec could merge or smear."""
    slope = np.arange(width)[None, :, None] // 4
    base = np.array([[40 + 25 * k, 200 - 25 * k, 90 + 10 * k] for k in range(count)])
    return [np.broadcast_to(colour + slope, (height, width, 3)).astype(np.uint8) for colour in base]


def played(path):
    """Frames of a GIF or WebP, how long each lasts in milliseconds, and how often it repeats (0: for ever)."""
    with Image.open(path) as image:
        frames, lasting = [], []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")).astype(int))
            lasting.append(image.info["duration"])
        return frames, lasting, image.info["loop"]


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_a_turn_repeats_for_ever_at_its_pace(tmp_path, suffix):
    path = tmp_path / f"orbit{suffix}"
    write_orbit(path, iter(turn()), fps=12)
    frames, lasting, loop = played(path)
    assert loop == 0
    assert sum(lasting) == 500  # six frames at 12 per second, whatever one tick of the format is
    assert max(lasting) - min(lasting) <= (10 if suffix == ".gif" else 1)
    assert len(frames) == 6
    for frame, expected in zip(frames, turn(), strict=True):
        assert np.abs(frame - expected).mean() < 3


@pytest.mark.parametrize("size", [(64, 80), (65, 81)])
def test_a_turn_as_mp4(tmp_path, size):
    av = pytest.importorskip("av")
    path = tmp_path / "orbit.mp4"
    write_orbit(path, turn(6, *size), fps=12)
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width) == (64, 80)  # sides are even: the last row and column of the larger are cut
        assert stream.average_rate == 12
        assert stream.codec_context.colorspace == 1  # BT.709 is said, not left to guess
        assert float(stream.duration * stream.time_base) == pytest.approx(0.5)
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(stream)]
    assert len(frames) == 6
    for frame, expected in zip(frames, turn(6, *size), strict=True):
        assert np.abs(frame - expected[:64, :80]).mean() < 5


def test_one_frame_is_a_still(tmp_path):
    for name in ("a.webp", "a.gif"):
        write_orbit(tmp_path / name, turn(1))
        with Image.open(tmp_path / name) as image:
            assert getattr(image, "n_frames", 1) == 1


def test_nothing_is_replaced_unasked(tmp_path):
    path = tmp_path / "a.gif"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=r"a\.gif: exists already; .*--overwrite to replace it"):
        write_orbit(path, turn())
    assert path.read_bytes() == b"old"
    write_orbit(path, turn(), overwrite=True)
    assert len(played(path)[0]) == 6


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.avi: ends in \.avi; expected \.webp, \.gif, \.mp4"):
        write_orbit(tmp_path / "a.avi", turn())


@pytest.mark.parametrize(
    ("name", "fps", "message"),
    [
        ("a.webp", 0, "--fps is 0; expected 1 to 60 frames per second"),
        ("a.mp4", 61, "--fps is 61; expected 1 to 60"),
        ("a.mp4", float("nan"), "--fps is nan"),
        ("a.gif", 60, r"--fps is 60; expected 1 to 50 frames per second for \.gif: correct it"),
    ],
)
def test_rates_that_no_player_keeps_are_refused(tmp_path, name, fps, message):
    with pytest.raises(InputError, match=message):
        write_orbit(tmp_path / name, turn(), fps)


@pytest.mark.parametrize("suffix", [".webp", ".mp4"])
@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frames"),
        ([turn()[0], turn(1, 66)[0]], r"frame 1 is \(66, 80, 3\), the first \(64, 80, 3\)"),
        ([turn()[0].astype(float)], r"frame 0 is \(64, 80, 3\) float64; expected \(H, W, 3\) uint8"),
        ([turn()[0][:15]], "sides of 16 or more"),
    ],
)
def test_frames_of_another_form_leave_nothing_behind(tmp_path, suffix, frames, message):
    if suffix == ".mp4":
        pytest.importorskip("av")
    with pytest.raises(ValueError, match=message):
        write_orbit(tmp_path / f"a{suffix}", frames)
    assert not list(tmp_path.iterdir())


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"a\.mp4: MP4 needs PyAV.*pip install 'ltnet_pl\[photo\]', or name a \.webp or \.gif"):
        write_orbit(tmp_path / "a.mp4", turn())


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_more_pixels_than_are_held_are_refused_as_they_come(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(orbit, "HELD", 3 * 64 * 80)
    with pytest.raises(InputError, match=r"has 4 frames of 64 x 80 pixels, which are held in memory together; .* --size 69, or"):
        write_orbit(tmp_path / f"a{suffix}", iter(turn()))
    assert not list(tmp_path.iterdir())
    write_orbit(tmp_path / f"a{suffix}", turn(3))


def test_alpha_of_another_form_is_refused(tmp_path):
    for alpha in (np.zeros((64, 79), np.uint8), np.zeros((64, 80), np.uint16)):
        with pytest.raises(ValueError, match=r"alpha is .*; expected \(64, 80\) uint8 like the frames"):
            write_orbit(tmp_path / "a.webp", turn(), alpha=alpha)


def test_every_frame_of_a_webp_has_the_alpha(tmp_path):
    slope = np.broadcast_to(np.linspace(0, 255, 80).astype(np.uint8), (64, 80))
    box = np.zeros((64, 80), np.uint8)
    box[10:50, 20:70] = 255
    for alpha in (slope, box):
        write_orbit(tmp_path / "a.webp", turn(), overwrite=True, alpha=np.ascontiguousarray(alpha))
        with Image.open(tmp_path / "a.webp") as image:
            assert image.n_frames == 6
            for number in range(6):
                image.seek(number)
                assert np.array_equal(np.asarray(image.convert("RGBA"))[..., 3], alpha)


def test_a_profile_that_cannot_be_used_is_left_aside(tmp_path):
    write_orbit(tmp_path / "plain.gif", turn())
    with pytest.warns(UserWarning, match=r"a\.gif: the colour profile cannot be used .*; its colours are taken for sRGB"):
        write_orbit(tmp_path / "a.gif", turn(), profile=b"no profile at all")
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "plain.gif").read_bytes()
