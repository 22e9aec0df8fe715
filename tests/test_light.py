"""Lights, rig, camera, black body, sRGB curve: names and mirrors, published values, every error message."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltnet_pl import InputError
from ltnet_pl.light import (
    DIRECTIONS,
    SETTINGS,
    TEMPERATURES,
    Camera,
    Light,
    Rig,
    angular_distance,
    azimuth_of,
    black_body,
    clamp_temperature,
    decode,
    direction_of,
    encode,
    light_tensor,
    linear_to_srgb,
    mired,
    mirror_azimuth,
    planckian,
    srgb_to_linear,
)

azimuths = st.floats(0, 360, exclude_max=True)
kelvins = st.floats(1000, 20000)

# IEC 61966-2-1, linear sRGB to XYZ: the standard's own matrix, not the inverse of the one under test
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


# Names


def test_every_setting_has_its_name_and_back():
    assert len(SETTINGS) == len(set(SETTINGS)) == 40
    assert {light.name for light in SETTINGS} == {f"{t}_{d}" for t in TEMPERATURES for d in DIRECTIONS}
    assert all(Light.from_name(light.name) == light for light in SETTINGS)


@pytest.mark.parametrize(("name", "azimuth"), [("N", 0), ("NE", 45), ("E", 90), ("SE", 135), ("S", 180), ("W", 270), ("NW", 315)])
def test_directions_are_compass_bearings(name, azimuth):
    assert azimuth_of(name) == azimuth
    assert direction_of(azimuth) == name


@given(azimuth=st.floats(-720, 720))
def test_the_name_of_a_direction_is_the_nearest_of_eight(azimuth):
    assert angular_distance(azimuth_of(direction_of(azimuth)), azimuth) <= 22.5 + 1e-9


def test_azimuths_are_stored_within_one_turn():
    assert Light(-90, 4500).azimuth == 270
    assert Light(725, 4500).azimuth == 5


# Mirror, distance, mired


@given(azimuth=azimuths, kelvin=kelvins, elevation=st.none() | st.floats(-89, 90), ambient=st.floats(0, 1))
def test_mirroring_twice_changes_nothing(azimuth, kelvin, elevation, ambient):
    light = Light(azimuth, kelvin, elevation, ambient)
    twice = light.mirror().mirror()
    assert angular_distance(twice.azimuth, azimuth) < 1e-9
    assert (twice.temperature, twice.elevation, twice.ambient) == (kelvin, elevation, ambient)


def test_a_mirror_swaps_east_and_west_and_keeps_north_and_south():
    swapped = {d: Light(azimuth_of(d), 4500).mirror().name.removeprefix("4500_") for d in DIRECTIONS}
    assert swapped == {"N": "N", "NE": "NW", "E": "W", "SE": "SW", "S": "S", "SW": "SE", "W": "E", "NW": "NE"}
    assert mirror_azimuth(torch.tensor([0.0, 90.0, 350.0])).tolist() == [0.0, 270.0, 10.0]


@given(a=azimuths, b=azimuths, c=azimuths, turn=st.floats(-360, 360))
def test_angular_distance_is_a_distance_on_the_circle(a, b, c, turn):
    distance = angular_distance(a, b)
    assert 0 <= distance <= 180
    assert angular_distance(a, a) == 0
    assert distance == pytest.approx(angular_distance(b, a), abs=1e-9)
    assert distance <= angular_distance(a, c) + angular_distance(c, b) + 1e-9
    assert angular_distance(a + turn, b + turn) == pytest.approx(distance, abs=1e-9)
    cosine = math.cos(math.radians(a - b))
    assert math.cos(math.radians(distance)) == pytest.approx(cosine, abs=1e-9)


def test_angular_distance_by_hand():
    assert angular_distance(350.0, 20.0) == 30.0
    assert angular_distance(0.0, 180.0) == 180.0
    assert angular_distance(torch.tensor([350.0, 90.0]), torch.tensor([20.0, 271.0])).tolist() == [30.0, 179.0]


@given(kelvin=kelvins)
def test_mired_is_its_own_inverse(kelvin):
    assert mired(mired(kelvin)) == pytest.approx(kelvin, rel=1e-12)
    assert mired(5000.0) == 200.0
    assert mired(torch.tensor([4000.0])).item() == pytest.approx(250)


# Tensors and codes


def test_columns_of_a_light_tensor():
    plain = light_tensor([Light(90, 4500), Light(10, 2500)])
    assert plain.dtype == torch.float32
    assert plain.tolist() == [[90, 4500], [10, 2500]]
    full = light_tensor([Light(90, 4500), Light(10, 2500, elevation=30), Light(20, 3500, ambient=0.5)])
    assert full.shape == (3, 4)
    assert full[0, :2].tolist() == [90, 4500]
    assert full[0, 2].isnan()
    assert full[1].tolist() == [10, 2500, 30, 0]
    assert full[2, 3] == 0.5
    assert full[2, 2].isnan()
    assert light_tensor([]).shape == (0, 2)


def test_codes_by_hand():
    code = encode(light_tensor([Light(90, 2500), Light(0, 6500), Light(180, 1e6 / ((400 + 1e6 / 6500) / 2))]))
    expected = [[1, 0, 1], [0, 1, -1], [0, -1, 0]]
    assert torch.allclose(code, torch.tensor(expected, dtype=torch.float32), atol=1e-5)


@given(azimuth=azimuths, kelvin=kelvins, length=st.floats(0.01, 100))
def test_decode_undoes_encode(azimuth, kelvin, length):
    code = encode(torch.tensor([[azimuth, kelvin]], dtype=torch.float64))
    code[:, :2] *= length
    back = decode(code)[0]
    assert angular_distance(back[0].item(), azimuth) < 1e-6
    assert 0 <= back[0] < 360
    assert back[1].item() == pytest.approx(kelvin, rel=1e-9)


def test_unknown_stays_unknown_and_wild_codes_stay_finite():
    assert encode(torch.tensor([[torch.nan, torch.nan]])).isnan().all()
    assert encode(torch.tensor([[0.0, torch.nan]])).isnan().tolist() == [[False, False, True]]
    assert decode(torch.tensor([[0.0, 1.0, -50.0]]))[0, 1].item() == pytest.approx(50000)


# Black body


@pytest.mark.parametrize(
    ("kelvin", "x", "y"),
    [
        (2856.0, 0.44758, 0.40745),  # CIE 015:2018, illuminant A
        # Wyszecki & Stiles, Color Science, 2nd ed. (1982), table 1(3.11): the Planckian locus
        (2500.0, 0.4770, 0.4137),
        (4000.0, 0.3805, 0.3768),
        (5000.0, 0.3451, 0.3516),
        (6500.0, 0.3135, 0.3237),
        (10000.0, 0.2807, 0.2884),
    ],
)
def test_black_body_has_the_published_chromaticity(kelvin, x, y):
    """Within the error that Krystek states, 9e-5 in CIE 1960 u and v, and 3e-5 for the four digits of matrices and tables."""

    def uv(x, y):
        return np.array([4 * x, 6 * y]) / (12 * y - 2 * x + 3)

    xyz = TO_XYZ @ black_body(kelvin)
    assert uv(*(xyz[:2] / xyz.sum())).tolist() == pytest.approx(uv(x, y).tolist(), abs=1.2e-4)
    assert (xyz[:2] / xyz.sum()).tolist() == pytest.approx([x, y], abs=5e-4)


def test_black_body_by_plancks_law():
    """Against the spectrum itself: Planck's law seen by Wyman's fit of the CIE 1931 observer, which is good to 1 % or so."""
    nanometres = np.arange(380.0, 781.0, 1.0)

    def lobe(centre, left, right):
        t = (nanometres - centre) / np.where(nanometres < centre, left, right)
        return np.exp(-0.5 * t**2)

    # Wyman, Sloan, Shirley, "Simple analytic approximations to the CIE XYZ color matching functions", JCGT 2 (2013)
    observer = np.stack(
        [
            1.056 * lobe(599.8, 37.9, 31.0) + 0.362 * lobe(442.0, 16.0, 26.7) - 0.065 * lobe(501.1, 20.4, 26.2),
            0.821 * lobe(568.8, 46.9, 40.5) + 0.286 * lobe(530.9, 16.3, 31.1),
            1.217 * lobe(437.0, 11.8, 36.0) + 0.681 * lobe(459.0, 26.0, 13.8),
        ]
    )
    for kelvin in (2500.0, 3500.0, 4500.0, 6500.0, 12000.0, 20000.0):  # below, all is far red, where that fit is worst
        power = nanometres**-5 / np.expm1(1.438777e7 / (nanometres * kelvin))
        xyz = observer @ power
        expected = np.linalg.inv(TO_XYZ) @ (xyz / xyz[1])
        assert black_body(kelvin).tolist() == pytest.approx(expected.tolist(), rel=0.015)


def test_black_body_has_luminance_1_where_nothing_is_clipped():
    luminance = black_body(np.array([2500.0, 3500.0, 4500.0, 5500.0, 6500.0, 20000.0])) @ TO_XYZ[1]
    assert luminance.tolist() == pytest.approx([1] * 6, abs=2e-3)


def test_hotter_is_bluer():
    rgb = black_body(np.linspace(2000, 20000, 200))
    assert (np.diff(rgb[:, 0] / rgb[:, 2]) < 0).all()
    red, _, blue = black_body(6500.0)
    assert red / blue == pytest.approx(1, abs=0.1)  # near white, not white
    assert red != blue


def test_negatives_are_clipped():
    candle = black_body(1000.0)
    assert candle[2] == 0
    assert (candle[:2] > 0).all()
    assert (black_body(np.linspace(1000, 20000, 500)) >= 0).all()


def test_black_body_keeps_the_shape():
    assert black_body(4500.0).shape == (3,)
    assert black_body([[2500, 3500]]).shape == (1, 2, 3)
    assert black_body([[2500, 3500]])[0, 1].tolist() == black_body(3500).tolist()


# The sRGB curve


@pytest.mark.parametrize(
    ("display", "linear"),
    [
        (0.0, 0.0),
        (1 / 255, 0.00030353),  # the straight part: 1 / (255 * 12.92)
        (0.04045, 0.0031308),  # where the two forms meet
        (118 / 255, 0.18116),  # near a grey card's 18 %
        (0.5, 0.21404),
        (188 / 255, 0.50289),
        (1.0, 1.0),
        (-0.1, -0.1 / 12.92),  # nothing is clipped
    ],
)
def test_the_srgb_curve_by_its_values(display, linear):
    assert srgb_to_linear(display).item() == pytest.approx(linear, rel=3e-5)
    assert linear_to_srgb(linear).item() == pytest.approx(display, rel=3e-5)


@given(values=st.lists(st.floats(-1, 8), min_size=1, max_size=6))
def test_the_srgb_curve_goes_there_and_back(values):
    # the two forms meet to some 1e-8 only
    assert linear_to_srgb(srgb_to_linear(values)) == pytest.approx(np.array(values), abs=1e-7)
    assert srgb_to_linear(linear_to_srgb(values)) == pytest.approx(np.array(values), abs=1e-7)


def test_the_srgb_curve_rises_and_keeps_the_shape():
    steps = np.linspace(-0.5, 2, 5001, dtype=np.float32).reshape(3, 1667)
    for curve in (srgb_to_linear, linear_to_srgb):
        out = curve(steps)
        assert out.shape == steps.shape
        assert out.dtype == np.float64
        assert (np.diff(out.ravel()) > 0).all()


# Rig and camera


def test_the_ring_around_the_point():
    rig = Rig(radius=0.6, height=0.8)
    assert rig.offset(Light(0, 4500)).tolist() == pytest.approx([0, 0.8, -0.6], abs=1e-12)  # N: behind, away from the viewer
    assert rig.offset(Light(90, 4500)).tolist() == pytest.approx([0.6, 0.8, 0], abs=1e-12)  # E: on the right
    assert rig.offset(Light(180, 4500)).tolist() == pytest.approx([0, 0.8, 0.6], abs=1e-12)
    assert rig.offset(Light(270, 4500)).tolist() == pytest.approx([-0.6, 0.8, 0], abs=1e-12)


def test_an_elevation_keeps_the_distance():
    rig = Rig(radius=0.6, height=0.8)
    assert rig.offset(Light(90, 4500, elevation=30)).tolist() == pytest.approx([3**0.5 / 2, 0.5, 0], abs=1e-12)
    assert rig.offset(Light(90, 4500, elevation=90)).tolist() == pytest.approx([0, 1, 0], abs=1e-12)
    assert rig.offset(Light(0, 4500, elevation=-30)).tolist() == pytest.approx([0, -0.5, -(3**0.5) / 2], abs=1e-12)


@given(pitch=st.floats(-89, 90), azimuth=azimuths)
def test_a_camera_rotates_and_a_mirror_goes_through_it(pitch, azimuth):
    rotation = Camera(50, pitch).rotation()
    assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    light, rig = Light(azimuth, 4500), Rig()
    flipped = np.array([-1, 1, 1]) * (rotation @ rig.offset(light))
    assert rotation @ rig.offset(light.mirror()) == pytest.approx(flipped, abs=1e-9)


def test_a_pitched_camera_looks_down():
    # a level camera sees gravity's frame
    assert Camera(50, 0).rotation() == pytest.approx(np.eye(3))
    # at 90 degrees it looks straight down: up comes towards the viewer, and what is behind the scene lies up in the image
    straight = Camera(50, 90).rotation()
    assert (straight @ [0, 1, 0]).tolist() == pytest.approx([0, 0, 1], abs=1e-12)
    assert (straight @ [0, 0, -1]).tolist() == pytest.approx([0, 1, 0], abs=1e-12)
    # at 30 degrees the ground's normal leans towards the viewer by 30 degrees
    assert (Camera(50, 30).rotation() @ [0, 1, 0]).tolist() == pytest.approx([0, 3**0.5 / 2, 0.5], abs=1e-12)


def test_rows_of_camera_and_rig():
    like = torch.zeros(1, dtype=torch.float64)
    for rows, expected in ((Camera(50, 35).tensor(like, 3), [50, 35]), (Rig(0.5, 1.5).tensor(like, 3), [0.5, 1.5])):
        assert rows.dtype == torch.float32
        assert rows.device == like.device
        assert rows.tolist() == [expected] * 3


# Limits and messages


def test_clamping_warns_when_it_moves():
    with pytest.warns(UserWarning, match=r"colour temperature 1800 K is outside the trained range 2500-6500 K; 2500 K is used"):
        assert clamp_temperature(Light(10, 1800, 20, 0.1)) == Light(10, 2500, 20, 0.1)
    with pytest.warns(UserWarning, match="6500 K is used"):
        assert clamp_temperature(Light(10, 9000)).temperature == 6500
    assert clamp_temperature(Light(10, 4321)) == Light(10, 4321)  # no warning: warnings are errors here


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: azimuth_of("NNE"), "unknown light direction 'NNE'; expected one of N, NE, E, SE, S, SW, W, NW"),
        (lambda: Light.from_name("4000_E"), "unknown light temperature '4000' in '4000_E'; expected one of 2500, 3500"),
        (lambda: Light.from_name("4500_Q"), "unknown light direction 'Q'"),
        (lambda: Light.from_name("4500"), "unknown light direction ''"),
        (lambda: Light(math.nan, 4500), "azimuth must be a finite number of degrees, got nan"),
        (lambda: Light(math.inf, 4500), "azimuth must be a finite number of degrees, got inf"),
        (lambda: Light(0, 999), r"temperature must lie within 1000-20000 kelvin, got 999"),
        (lambda: Light(0, 20001), r"temperature must lie within 1000-20000 kelvin, got 20001"),
        (lambda: Light(0, math.nan), r"temperature must lie within 1000-20000 kelvin, got nan"),
        (lambda: Light(0, 4500, -90), r"elevation must lie within \(-90, 90\] degrees, got -90"),
        (lambda: Light(0, 4500, 91), r"elevation must lie within \(-90, 90\] degrees, got 91"),
        (lambda: Light(0, 4500, ambient=-0.1), "ambient must lie within 0-1, got -0.1"),
        (lambda: Light(0, 4500, ambient=1.5), "ambient must lie within 0-1, got 1.5"),
        (lambda: Light(10, 4500).name, "is not one of VIDIT's 40 settings and has no name"),
        (lambda: Light(0, 4000).name, "is not one of VIDIT's 40 settings and has no name"),
        (lambda: Light(0, 4500, elevation=10).name, "is not one of VIDIT's 40 settings and has no name"),
        (lambda: Light(0, 4500, ambient=0.1).name, "is not one of VIDIT's 40 settings and has no name"),
        (lambda: Rig(radius=0), r"a rig needs 0 < radius < 100 and \|height\| < 100, got Rig\(radius=0"),
        (lambda: Rig(height=100), r"a rig needs 0 < radius < 100 and \|height\| < 100"),
        (lambda: Rig(radius=math.nan), "a rig needs"),
        (lambda: Camera(fov=0), r"a camera needs 0 < fov <= 170 and -90 < pitch <= 90 degrees, got Camera\(fov=0"),
        (lambda: Camera(fov=171), "a camera needs 0 < fov <= 170"),
        (lambda: Camera(pitch=-90), "a camera needs 0 < fov <= 170"),
        (lambda: Camera(pitch=math.nan), "a camera needs 0 < fov <= 170"),
        (lambda: black_body(999), "black-body temperatures must lie within 1000-20000 kelvin, got 999"),
        (lambda: black_body([4500.0, math.nan]), "black-body temperatures must lie within 1000-20000 kelvin"),
    ],
)
def test_what_is_out_of_range_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [lambda: Light(0, 999), lambda: Rig(radius=0), lambda: Camera(fov=0)])
def test_a_bad_light_rig_or_camera_is_the_users_to_correct(make):
    """An `InputError`, which the command line prints in one line."""
    with pytest.raises(InputError):
        make()


@pytest.mark.parametrize("azimuth", [-1e-14, 360.0, -360.0, 720.0 - 1e-13])
def test_an_azimuth_is_less_than_360(azimuth):
    """The remainder of a tiny negative angle rounds up to 360 itself."""
    assert 0 <= Light(azimuth, 5000.0).azimuth < 360
    code = torch.tensor([[np.sin(np.radians(azimuth)), np.cos(np.radians(azimuth)), 0.0], [-1e-9, 1.0, 0.0]], dtype=torch.float32)
    assert (decode(code)[:, 0] < 360).all()


def test_a_colour_is_not_rounded_by_autocast():
    kelvin = torch.tensor([2500.0, 4321.0, 6500.0])
    with torch.autocast("cpu", torch.bfloat16):
        inside = planckian(kelvin)
    assert torch.equal(inside, planckian(kelvin))
