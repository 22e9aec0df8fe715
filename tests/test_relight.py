"""`Relighter`: one picture whole and in strips, one light after another, and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets_small import awake
from scenes import picture, scene, stored_depth, trace

from ltnet_pl import InputError
from ltnet_pl.light import Light, angular_distance, light_tensor, planckian, to_linear
from ltnet_pl.nets import LTNet
from ltnet_pl.relight import Relighter
from ltnet_pl.relight import relighter as module
from ltnet_pl.relight.relighter import HALO, strips

SOUTH, EAST = Light(azimuth=180, temperature=5500), Light(azimuth=90, temperature=3000)


def psnr(a, b):
    full = np.iinfo(a.dtype).max
    return 10 * np.log10(full**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-12))


def network(field="affine", **changes):
    """An LTNet whose field does something: its head starts at zero."""
    torch.manual_seed(0)
    net = LTNet(widths=(8, 16), field=field, light_width=4, **changes)
    return awake(net).eval()


@pytest.fixture(scope="module")
def photo():
    """An image under the south light and its depth, 150 x 200."""
    frame = trace(scene(), (150, 200))
    return picture(frame, SOUTH), stored_depth(frame)


@pytest.fixture(params=["affine", "bilateral", "residual"])
def relighter(request):
    return Relighter(network(request.param), working_size=96)


def in_strips(monkeypatch, pixels):
    monkeypatch.setattr(module, "STRIP", pixels)


@pytest.mark.parametrize("pixels", [1, 4000, 10_000])
def test_strips_have_no_seam(relighter, photo, monkeypatch, pixels):
    image, depth = np.repeat(np.repeat(photo[0], 2, 0), 2, 1), np.repeat(np.repeat(photo[1], 2, 0), 2, 1)
    whole = relighter.prepare(image, depth).relight(EAST)
    assert psnr(whole, image) < 35  # something happens
    in_strips(monkeypatch, pixels)
    assert len(list(strips(*image.shape[:2]))) > 5
    parts = relighter.prepare(image, depth).relight(EAST)
    # 45 dB is what the eye cannot tell; all that is left here is the rounding of a float
    assert psnr(parts, whole) > 60
    assert np.abs(parts.astype(int) - whole).max() <= 1


@given(height=st.integers(16, 3000), width=st.integers(16, 3000), pixels=st.integers(1, 400_000))
@settings(deadline=None)
def test_strips_cover_every_row_once_and_know_their_neighbours(height, width, pixels):
    found = list(strips(height, width, pixels))
    assert [row for strip in found for row in range(strip.first, strip.last)] == list(range(height))
    for strip in found:
        assert strip.top == max(0, strip.first - HALO)
        assert strip.bottom == min(height, strip.last + HALO)
        assert (strip.last - strip.first) * width <= max(pixels, 2 * HALO * width)
        top, _, share, _ = strip.window(height)
        assert round(top * height) == strip.top
        assert round((top + share) * height) == strip.bottom


def test_an_image_within_the_working_size_is_what_the_network_makes_of_it(photo):
    image, depth = photo
    net = network()
    relit = Relighter(net, working_size=200).prepare(image, depth, present=SOUTH).relight(EAST)
    whole = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    unknown = torch.full((1, 2), torch.nan)
    batch = {
        "input": whole,
        "depth": torch.from_numpy(depth)[None, None],
        "frame_depth": torch.from_numpy(depth)[None, None],
        "input_light": light_tensor([SOUTH]),
        "target_light": light_tensor([EAST]),
        "crop": torch.tensor([[0.0, 0.0, 1.0, 1.0]]),
        "camera": unknown,
        "rig": unknown,
    }
    with torch.inference_mode():
        expected = (net(batch)["relit"][0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(relit, expected)


def test_a_second_light_does_not_depend_on_the_first(relighter, photo):
    prepared = relighter.prepare(*photo)
    prepared.relight(Light(300, 6000))
    again = prepared.relight(EAST)
    assert np.array_equal(again, relighter.prepare(*photo).relight(EAST))
    assert not np.array_equal(again, prepared.relight(Light(270, 3000)))


def test_the_light_that_is_there_changes_nothing(relighter, photo):
    prepared = relighter.prepare(*photo, present=SOUTH)
    assert prepared.present == SOUTH
    assert np.array_equal(prepared.relight(SOUTH), photo[0])


def test_what_is_read_is_said_and_used(relighter, photo):
    prepared = relighter.prepare(*photo)
    assert angular_distance(prepared.present.azimuth, 180.0) <= 45
    read = relighter.read(*photo)
    assert read.azimuth == pytest.approx(prepared.present.azimuth, abs=0.01)
    assert read.temperature == pytest.approx(prepared.present.temperature, rel=1e-3)
    by_guide, by_light = prepared.relight_by(*photo), prepared.relight(read)
    assert np.abs(by_guide.astype(int) - by_light).max() <= 1


def test_16_bits_keep_what_8_bits_round_away(photo):
    relighter = Relighter(network(), working_size=96)
    fine = photo[0].astype(np.uint16) * 257
    wide = relighter.prepare(fine, photo[1], present=SOUTH).relight(EAST)
    narrow = relighter.prepare(*photo, present=SOUTH).relight(EAST)
    assert wide.dtype == np.uint16
    assert np.abs(np.round(wide / 257) - narrow).max() <= 1
    assert len(np.unique(wide)) > 4 * 256


def test_strength_goes_from_nothing_to_all(photo):
    prepared = Relighter(network(), working_size=96).prepare(*photo)
    none, half, full = (prepared.relight(EAST, strength).astype(int) for strength in (0, 0.5, 1))
    assert np.array_equal(none, photo[0])
    # clipped values of the whole change are not on the way to it
    inside = (full > 0) & (full < 255)
    assert np.abs(half - (none + full) / 2)[inside].max() <= 1
    with pytest.raises(InputError, match=r"--strength 1.5: expected 0 \(no change\) to 1"):
        prepared.relight(EAST, 1.5)


@pytest.mark.parametrize(("kelvin", "end"), [(12000.0, 6500.0), (1500.0, 2500.0)])
def test_beyond_the_trained_range_black_bodies_do_the_rest(photo, kelvin, end):
    prepared = Relighter(network(), working_size=96).prepare(*photo, present=SOUTH)
    inner = prepared.relight(Light(90, end))
    with pytest.warns(UserWarning, match=rf"{kelvin:g} K is outside the trained range .* brings {end:g} K"):
        outer = prepared.relight(Light(90, kelvin))
    colours = planckian(torch.tensor([kelvin, end]))
    ratio = (colours[0] / colours[1]).numpy()
    linear = [to_linear(torch.from_numpy(x / 255.0)).numpy() for x in (inner, outer)]
    # where neither is clipped or dark, so that rounding weighs little
    for channel in range(3):
        a, b = (x[..., channel] for x in linear)
        clear = (a > 0.2) & (b > 0.05) & (b < 0.95)
        if clear.sum() > 20:
            assert np.median(b[clear] / a[clear]) == pytest.approx(ratio[channel], rel=0.03)


def test_elevation_and_ambient_reach_the_cues(photo):
    prepared = Relighter(network(), working_size=96).prepare(*photo, present=SOUTH)
    plain = prepared.relight(Light(90, 4000))
    assert not np.array_equal(plain, prepared.relight(Light(90, 4000, elevation=15)))
    assert not np.array_equal(plain, prepared.relight(Light(90, 4000, ambient=0.5)))


def test_depth_of_another_size_and_none(photo):
    image, depth = photo
    relighter = Relighter(network(), working_size=96)
    whole = relighter.prepare(image, depth, present=SOUTH).relight(EAST)
    small = relighter.prepare(image, depth[::2, ::2], present=SOUTH).relight(EAST)
    flat = relighter.prepare(image, None, present=SOUTH).relight(EAST)
    assert flat.shape == image.shape
    assert psnr(small, whole) > psnr(flat, whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, d: (i[..., 0], d), r"image has shape \(150, 200\).*expected \(H, W, 3\) of uint8 or uint16"),
        (lambda i, d: (i / 255.0, d), r"image has shape .* and type float64"),
        (lambda i, d: (i[:1, :1], None), r"image has 1 x 1 pixels; expected 16 or more"),
        (lambda i, d: (i // 100, d), r"image is black \(its brightest hundredth reaches 0.. % of white\)"),
        (lambda i, d: (i, d[:, :100]), r"depth has 150 x 100 pixels and the image 150 x 200 .*expected the same aspect"),
        (lambda i, d: (i, -d), r"expected \(h, w\) of finite numbers"),
        (lambda i, d: (i, np.where(d > np.median(d), np.nan, d)), r"expected \(h, w\) of finite numbers"),
        (lambda i, d: (i, d[None]), r"depth has shape \(1, 150, 200\)"),
    ],
)
def test_bad_input_is_named(photo, change, message):
    image, depth = change(*photo)
    with pytest.raises(InputError, match=message):
        Relighter(network(), working_size=96).prepare(image, depth)


def test_a_black_guide_has_no_light_to_read(photo):
    prepared = Relighter(network(), working_size=96).prepare(*photo)
    with pytest.raises(InputError, match=r"guide is black .*expected one with a light to read"):
        prepared.relight_by(np.zeros((64, 64, 3), np.uint8))


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"--device quantum: .*expected one that torch can use here, e.g. cpu"):
        Relighter(network(), device="quantum")
    with pytest.raises(InputError, match="working_size is 3; expected 16 or more"):
        Relighter(network(), working_size=3)


def test_memory_of_a_strip_is_bounded(photo, monkeypatch):
    """The largest tensor that a pass over a large image makes, but for the image and its depth themselves."""
    image, depth = (np.repeat(np.repeat(x, 6, 0), 6, 1) for x in photo)
    in_strips(monkeypatch, 40_000)
    monkeypatch.setattr(module, "KEPT", 0)
    prepared = Relighter(network(), working_size=96).prepare(image, depth)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    with Watch():
        prepared.relight(EAST)
    assert largest <= 64 * (40_000 + 2 * HALO * 1200)
    assert not prepared._views


@pytest.mark.parametrize(("raw", "kelvin"), [(-1.2, 6500), (1.2, 2500)])
def test_a_reading_stays_within_what_was_trained_on(photo, raw, kelvin, monkeypatch):
    """Asking for the light that was read changes nothing, however far out the reading was."""
    net = network()
    code = torch.tensor([[0.0, 1.0, raw]])
    monkeypatch.setattr(net.light_stream, "forward", lambda *_: (code, torch.zeros(1, net.latent)))
    relighter = Relighter(net, working_size=96)
    prepared = relighter.prepare(*photo)
    assert prepared.present == Light(0.0, kelvin)
    assert relighter.read(photo[0]) == prepared.present
    assert np.array_equal(prepared.relight(prepared.present), photo[0])
