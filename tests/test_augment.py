"""Augmentation: known answers first, then what must hold for every draw."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scenes
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltnet_pl import InputError
from ltnet_pl.augment import (
    WHOLE,
    Augment,
    AugmentSettings,
    Sample,
    degrade_depth,
    exposure_table,
    mirror,
    resized_depth,
    with_frame_depth,
)
from ltnet_pl.geometry import resampled
from ltnet_pl.light import Light

OFF = AugmentSettings.off()


def rendered(scene, present, wanted, size=(37, 50), guide_size=(41, 45)):
    """A sample of an analytic scene, its guide the same scene at another size."""
    frame, other = scenes.trace(scene, size), scenes.trace(scene, guide_size)
    lights = [Light.from_name(name) for name in (present, wanted)]
    return Sample(
        "a",
        scenes.picture(frame, lights[0]),
        scenes.stored_depth(frame),
        lights[0].row()[:2],
        lights[1].row()[:2],
        target=scenes.picture(frame, lights[1]),
        guide=scenes.picture(other, lights[1]),
        guide_depth=scenes.stored_depth(other),
    )


@pytest.fixture(scope="module")
def sample():
    return rendered(scenes.scene(1, 0), "6500_N", "4500_E")


def coordinates(height=40, width=56):
    """A sample in which every pixel of every frame says where it stood: red is the row, green the column."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)
    depth = (1 + rows + 1000 * columns).astype(np.float32)
    return Sample("a", image, depth, (90.0, 4500.0), (0.0, 6500.0), image.copy(), image.copy(), depth.copy())


def same(a, b):
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Sample))


# --- mirror -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("present", "wanted"), [("6500_N", "4500_E"), ("2500_SW", "6500_NE"), ("4500_S", "3500_NW")])
@pytest.mark.parametrize("index", range(3))
def test_mirrored_sample_is_the_mirrored_scene_under_mirrored_lights(index, present, wanted):
    scene = scenes.scene(5, index)
    names = [Light.from_name(name).mirror().name for name in (present, wanted)]
    assert same(mirror(rendered(scene, present, wanted)), rendered(scene.mirror(), *names))


def test_a_naive_flip_shows_the_wrong_light(sample):
    """The test above can fail: without mirroring the light, the pictures differ grossly."""
    wrong = rendered(scenes.scene(1, 0).mirror(), "6500_N", "4500_E")
    assert np.abs(sample.target[:, ::-1].astype(int) - wrong.target).max() > 100


def test_mirror_moves_windows_and_keeps_unknown_lights():
    image, depth = np.zeros((4, 8, 3), np.uint8), np.ones((4, 8), np.float32)
    before = Sample(
        "a", image, depth, (45.0, np.nan), (np.nan, 2500.0), crop=(0.25, 0.125, 0.5, 0.25), guide_crop=(0.0, 0.5, 1.0, 0.5)
    )
    after = mirror(before)
    assert after.crop == (0.25, 0.625, 0.5, 0.25)
    assert after.guide_crop == (0.0, 0.0, 1.0, 0.5)
    np.testing.assert_equal((after.input_light, after.target_light), ((315.0, np.nan), (np.nan, 2500.0)))


def test_mirror_keeps_elevation_and_ambient():
    image, depth = np.zeros((4, 8, 3), np.uint8), np.ones((4, 8), np.float32)
    assert mirror(Sample("a", image, depth, (0.0, 4500.0), (90.0, 4500.0, 30.0, 0.2))).target_light == (270.0, 4500.0, 30.0, 0.2)


def test_mirror_twice_is_the_sample_itself(sample):
    with_frame = with_frame_depth(sample, 20)
    assert same(mirror(mirror(with_frame)), with_frame)


# --- crop -------------------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32), flip=st.booleans())
def test_every_pixel_stands_where_its_window_says(seed, flip):
    start = coordinates()
    settings = AugmentSettings(mirror=float(flip), jitter=0, noise=0, jpeg=0, depth=0)
    out = Augment(settings, crop=17, frame_size=56)(start, np.random.default_rng(seed))
    height, width = start.depth.shape
    for image, depth, window in ((out.input, out.depth, out.crop), (out.guide, out.guide_depth, out.guide_crop)):
        top, left = round(window[0] * height), round(window[1] * width)
        assert window == (top / height, left / width, 17 / height, 17 / width)
        rows, columns = np.mgrid[top : top + 17, left : left + 17]
        columns = width - 1 - columns if flip else columns
        assert np.array_equal(image[..., 0], rows)
        assert np.array_equal(image[..., 1], columns)
        assert np.array_equal(depth, 1 + rows + 1000 * columns)
    assert np.array_equal(out.target, out.input)
    assert out.target_light[0] == 0
    assert out.input_light[0] == (270 if flip else 90)
    # the frame's depth is that of the whole frame, flipped with it
    assert np.array_equal(out.frame_depth, start.depth[:, ::-1] if flip else start.depth)


def test_input_and_guide_have_windows_of_their_own():
    augment = Augment(OFF, crop=17, frame_size=56)
    windows = [(s.crop[:2], s.guide_crop[:2]) for s in (augment(coordinates(), np.random.default_rng(i)) for i in range(20))]
    assert sum(a != b for a, b in windows) >= 18
    assert len({a for a, _ in windows}) >= 18


def test_crop_windows_reach_every_corner():
    augment = Augment(OFF, crop=38, frame_size=8)  # of 40 rows: tops 0, 1, 2
    tops = [round(augment(coordinates(), np.random.default_rng(i)).crop[0] * 40) for i in range(100)]
    assert set(tops) == {0, 1, 2}


def test_a_crop_of_the_whole_frame_and_no_crop(sample):
    square = coordinates(32, 32)
    assert same(Augment(OFF, 32, 16)(square, np.random.default_rng(0)), Augment(OFF, None, 16)(square, np.random.default_rng(1)))
    assert Augment(OFF, None, 16)(sample, np.random.default_rng(0)).crop == WHOLE


# --- exposure ---------------------------------------------------------------------------------------------------------------


def test_exposure_table_known_values():
    # half of full linear light is display value 188 (187.5 by the sRGB curve): one stop more is white
    up = exposure_table(1.0)
    assert (up[188], up[187], up[255], up[0]) == (255, 254, 255, 0)
    assert exposure_table(-1.0)[255] == 188
    # in the linear part of the curve a stop doubles the display value
    assert (up[1], up[4]) == (2, 8)
    assert np.array_equal(exposure_table(0.0), np.arange(256))


@given(seed=st.integers(0, 2**32))
def test_exposure_keeps_input_and_target_consistent(seed):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    start = Sample("a", image, np.ones((16, 16), np.float32), (0.0, 4500.0), (0.0, 4500.0), target=image[::-1], guide=image)
    settings = AugmentSettings(mirror=0, jitter=1, jitter_stops=0.5, noise=0, jpeg=0, depth=0)
    out = Augment(settings, None, 16)(start, np.random.default_rng(seed))
    # one table for input and target, and the same for all channels, so that no hue moves
    assert np.array_equal(out.input[::-1], out.target)
    assert np.array_equal(out.input[..., 0], out.input[..., 1])
    assert np.array_equal(out.input[..., 0], out.input[..., 2])
    low, high = exposure_table(-0.5), exposure_table(0.5)
    assert (out.input[..., 0].ravel() >= low).all()
    assert (out.input[..., 0].ravel() <= high).all()


def test_exposure_moves_pictures_and_gives_the_guide_its_own(sample):
    augment = Augment(AugmentSettings(mirror=0, jitter=1, noise=0, jpeg=0, depth=0), None, 16)
    outs = [augment(sample, np.random.default_rng(i)) for i in range(8)]
    assert len({out.input.mean() for out in outs}) == 8
    # the guide shows the target's light; one factor for both would keep their order
    ratios = [out.guide.mean() / out.target.mean() for out in outs]
    assert np.ptp(ratios) > 0.05


# --- noise and JPEG ---------------------------------------------------------------------------------------------------------


def test_noise_and_jpeg_fall_on_the_input_alone(sample):
    augment = Augment(AugmentSettings(mirror=0, jitter=0, noise=1, noise_std=0.05, jpeg=1, depth=0), None, 16)
    out = augment(sample, np.random.default_rng(0))
    assert not np.array_equal(out.input, sample.input)
    assert same(dataclasses.replace(out, input=sample.input, frame_depth=None), sample)
    assert np.abs(out.input.astype(float) - sample.input).mean() < 20


def test_noise_has_the_stated_strength():
    grey = Sample("a", np.full((64, 64, 3), 128, np.uint8), np.ones((64, 64), np.float32), (0.0, 4500.0), (0.0, 4500.0))
    augment = Augment(AugmentSettings(mirror=0, jitter=0, noise=1, noise_std=0.04, jpeg=0, depth=0), None, 16)
    stds = [augment(grey, np.random.default_rng(i)).input.std() / 255 for i in range(40)]
    assert max(stds) <= 0.042
    # evenly drawn between nothing and the setting
    assert np.mean(stds) == pytest.approx(0.02, abs=0.005)


def test_noise_and_jpeg_come_independently():
    """One seed for both, which is what `Compose.set_random_seed` sets, would make each come exactly with the other."""
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    start = Sample("a", image, np.ones((16, 16), np.float32), (0.0, 4500.0), (0.0, 4500.0))
    jpeg_only = AugmentSettings(mirror=0, jitter=0, noise=0, jpeg=1, jpeg_quality=95, depth=0)
    compressed = Augment(jpeg_only, None, 16)(start, np.random.default_rng(0)).input
    augment = Augment(AugmentSettings(mirror=0, jitter=0, noise=0.5, jpeg=0.5, jpeg_quality=95, depth=0), None, 16)
    outs = [augment(start, np.random.default_rng(i)).input for i in range(200)]
    # a quarter each of 200; the standard deviation of the count is 6
    assert abs(sum(np.array_equal(out, image) for out in outs) - 50) < 25
    assert abs(sum(np.array_equal(out, compressed) for out in outs) - 50) < 25


# --- depth ------------------------------------------------------------------------------------------------------------------


def depth_only(**kwargs):
    zero = {"mirror": 0, "jitter": 0, "noise": 0, "jpeg": 0, "depth": 1}
    return AugmentSettings(**{**zero, "depth_scale": 1, "depth_noise": 0, "depth_blur": 0, "depth_holes": 0, **kwargs})


def test_resized_depth_is_the_geometry_s(sample):
    small = resized_depth(sample.depth, (9, 11))
    assert small.flags.c_contiguous
    assert small.dtype == np.float32
    assert np.array_equal(small, resampled(torch.tensor(sample.depth)[None, None], (9, 11))[0, 0].numpy())
    sample.depth.setflags(write=False)
    assert np.array_equal(resized_depth(sample.depth, sample.depth.shape), sample.depth), "cached frames are read-only"


def test_frame_depth_is_never_enlarged(sample):
    assert with_frame_depth(sample, 500).frame_depth.shape == (37, 50)
    assert with_frame_depth(sample, 25).frame_depth.shape == (18, 25)


def test_scale_alone_is_one_factor_for_depth_and_frame(sample):
    augment = Augment(depth_only(depth_scale=3.0), crop=20, frame_size=50)
    for i in range(10):
        out = augment(sample, np.random.default_rng(i))
        top, left = round(out.crop[0] * 37), round(out.crop[1] * 50)
        before = sample.depth[top : top + 20, left : left + 20]
        factors = (out.depth / before)[before > 0]
        assert np.ptp(factors) < 1e-6 * factors[0]
        assert 1 / 3 <= factors[0] <= 3
        np.testing.assert_allclose(out.frame_depth, sample.depth * factors[0], rtol=1e-6)


@given(seed=st.integers(0, 2**32))
def test_frame_depth_agrees_with_the_degraded_depth(seed):
    frame = scenes.trace(scenes.scene(2, seed % 5), (37, 50))
    image = scenes.picture(frame, Light(0.0, 4500.0))
    start = Sample("a", image, scenes.stored_depth(frame), (0.0, 4500.0), (0.0, 4500.0))
    augment = Augment(depth_only(depth_scale=2, depth_noise=0.05, depth_blur=0.03, depth_holes=3), crop=20, frame_size=50)
    out = augment(start, np.random.default_rng(seed))
    top, left = round(out.crop[0] * 37), round(out.crop[1] * 50)
    assert np.array_equal(out.depth, out.frame_depth[top : top + 20, left : left + 20])
    assert np.isfinite(out.frame_depth).all()
    assert (out.frame_depth >= 0).all()
    assert out.frame_depth.any()


def test_blur_mixes_surfaces_but_never_the_background():
    depth = np.zeros((40, 40), np.float32)
    depth[:, :20] = 1.0  # a flat wall beside the sky: blurred, it must stay exactly what it is
    out = degrade_depth(depth, depth_only(depth_blur=0.2), np.random.default_rng(3))
    np.testing.assert_allclose(out, depth, atol=1e-5)
    depth[:, 20:] = 2.0  # a step between two surfaces is smoothed
    out = degrade_depth(depth, depth_only(depth_blur=0.2), np.random.default_rng(3))
    assert 1.2 < out[20, 19] < 1.5 < out[20, 20] < 1.8
    np.testing.assert_allclose(out.mean(), 1.5, atol=0.01)


def test_blur_matches_an_independent_gaussian():
    from scipy.ndimage import gaussian_filter

    from ltnet_pl.augment import _blur

    image = np.random.default_rng(0).random((30, 41), dtype=np.float32)
    np.testing.assert_allclose(_blur(image, 2.0), gaussian_filter(image, 2.0, mode="nearest", truncate=3.0), atol=1e-5)


def test_noise_is_relative_to_depth():
    depth = np.ones((64, 64), np.float32)
    depth[32:] = 100.0
    out = degrade_depth(depth, depth_only(depth_noise=0.1), np.random.default_rng(1)) / depth
    assert out[:32].std() == pytest.approx(out[32:].std(), rel=0.1)
    assert 0.005 < out.std() < 0.1


def test_holes_are_zeros_and_few():
    depth = np.ones((64, 64), np.float32)
    shares = [(degrade_depth(depth, depth_only(depth_holes=4), np.random.default_rng(i)) == 0).mean() for i in range(40)]
    assert max(shares) > 0
    assert min(shares) == 0  # also none at all
    assert max(shares) < 4 * np.pi / 4 / 64  # four ellipses of an eighth by an eighth at most


def test_a_depth_that_holes_would_take_whole_stays():
    depth = np.zeros((64, 64), np.float32)
    depth[30, 30] = 1.0
    settings = depth_only(depth_holes=100)
    for i in range(30):
        assert degrade_depth(depth, settings, np.random.default_rng(i)).any()


def test_a_missing_guide_depth_stays_missing(sample):
    out = Augment(AugmentSettings(depth=1), 20, 16)(dataclasses.replace(sample, guide_depth=None), np.random.default_rng(0))
    assert out.guide_depth is None


# --- the whole --------------------------------------------------------------------------------------------------------------

STRONG = AugmentSettings(mirror=0.5, jitter=1, noise=0.7, jpeg=0.7, depth=0.7)


@given(seed=st.integers(0, 2**32), before=st.integers(0, 2**32))
def test_same_generator_same_sample_whatever_came_before(seed, before):
    start = rendered(scenes.scene(1, 0), "6500_N", "4500_E", (24, 30), (24, 30))
    fresh, used = (Augment(STRONG, 16, 16) for _ in range(2))
    used(start, np.random.default_rng(before))
    assert same(fresh(start, np.random.default_rng(seed)), used(start, np.random.default_rng(seed)))


def test_another_generator_another_sample(sample):
    augment = Augment(STRONG, 16, 16)
    assert not same(augment(sample, np.random.default_rng(0)), augment(sample, np.random.default_rng(1)))


def test_augmentation_never_writes_into_the_frames_it_was_given(sample):
    frames = {f.name: getattr(sample, f.name) for f in dataclasses.fields(Sample)}
    locked = dataclasses.replace(sample, **{k: v.copy() for k, v in frames.items() if isinstance(v, np.ndarray)})
    for array in (locked.input, locked.target, locked.depth, locked.guide, locked.guide_depth):
        array.setflags(write=False)
    for i in range(20):  # frames are shared through a cache: writing would raise here
        Augment(STRONG, 16, 16)(locked, np.random.default_rng(i))
        Augment(STRONG, None, 16)(locked, np.random.default_rng(i))
    assert same(locked, sample)


def test_types_stay(sample):
    for crop in (16, None):
        out = Augment(STRONG, crop, 16)(sample, np.random.default_rng(0))
        assert {a.dtype for a in (out.input, out.target, out.guide)} == {np.dtype(np.uint8)}
        assert {a.dtype for a in (out.depth, out.guide_depth, out.frame_depth)} == {np.dtype(np.float32)}


def test_without_target_and_guide(sample):
    out = Augment(STRONG, 16, 16)(
        dataclasses.replace(sample, target=None, guide=None, guide_depth=None), np.random.default_rng(0)
    )
    assert out.target is None
    assert out.guide is None
    assert out.guide_depth is None


def test_off_changes_nothing(sample):
    out = Augment(OFF, None, 50)(sample, np.random.default_rng(0))
    assert same(dataclasses.replace(out, frame_depth=None), sample)
    assert np.array_equal(out.frame_depth, sample.depth)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mirror", 1.5),
        ("jitter", -0.1),
        ("noise", float("nan")),
        ("jpeg", 2),
        ("depth", -1),
        ("jitter_stops", -1),
        ("noise_std", 2),
        ("jpeg_quality", 0),
        ("jpeg_quality", 100),
        ("depth_scale", 0.5),
        ("depth_noise", -0.1),
        ("depth_blur", 1),
        ("depth_holes", -1),
    ],
)
def test_settings_outside_their_range_are_refused_by_name(field, value):
    with pytest.raises(InputError, match=rf"--data\.augment\.{field} is .*; expected .* within"):
        AugmentSettings(**{field: value})
