"""The renderer: known answers of a plane, a wall and a ball first, then properties, then files, processes and mistakes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ltnet_pl.light import DIRECTIONS, Camera, Rig, black_body
from ltnet_pl.render import picture, shapes, textures
from ltnet_pl.render.families import FAMILIES
from ltnet_pl.render.scenes import Scene

pytest.importorskip("mitsuba", reason="needs the extra 'render' (Mitsuba 3)")
pytestmark = pytest.mark.render

from ltnet_pl.render.tracer import Tracer  # noqa: E402 - after the check for Mitsuba

GREY = textures.Material("diffuse", np.full((1, 1, 3), 0.5), 1.0)
N, E, S, W = (DIRECTIONS.index(name) for name in "NESW")


def plane(pitch=40.0, fov=50.0, distance=5.0):
    """A grey ground alone."""
    return Scene("plane", Camera(fov, pitch), distance, parts=[(GREY, shapes.box(60, 1, 60).moved(y=-1))])


def rays(scene, size):
    """Directions ``(size, size, 3)`` in the gravity frame of pixel centres' rays, scaled to planar depth 1."""
    focal = size / 2 / math.tan(math.radians(scene.camera.fov) / 2)
    v, u = np.meshgrid(*(np.arange(size) + 0.5,) * 2, indexing="ij")
    camera = np.stack([(u - size / 2) / focal, -(v - size / 2) / focal, -np.ones_like(u)], axis=-1)
    return camera @ scene.camera.rotation()


# ---- known answers


def test_depth_of_a_wall_across_the_view_is_its_distance_at_every_pixel():
    wall = Scene("wall", Camera(60, 0), 5.0, parts=[(GREY, shapes.box(60, 60, 1).moved(y=-30, z=-0.5))])
    truth = Tracer(wall, 17).truth()
    np.testing.assert_allclose(truth.depth, 5.0, rtol=1e-5)
    np.testing.assert_allclose(truth.normals, np.broadcast_to([0, 0, 1], (17, 17, 3)), atol=1e-6)


@pytest.mark.parametrize("pitch", [15.0, 38.0, 90.0])
def test_depth_and_normals_of_the_ground_follow_from_the_pinhole_camera(pitch):
    scene = plane(pitch)
    tracer = Tracer(scene, 16)
    truth = tracer.truth()
    fall = -rays(scene, 16)[..., 1]
    with np.errstate(divide="ignore"):
        depth = np.where(fall > 0, scene.eye()[1] / fall, np.inf)
    near = depth < 20
    assert near.mean() > 0.5
    np.testing.assert_allclose(truth.depth[near], depth[near], rtol=1e-4)
    np.testing.assert_allclose(
        truth.normals[near], np.broadcast_to(scene.camera.rotation()[:, 1], truth.normals[near].shape), atol=1e-5
    )
    np.testing.assert_allclose(truth.albedo[near], 0.5, atol=1e-6)


def test_sky_is_zero_everywhere():
    truth = Tracer(plane(pitch=16, fov=60), 24).truth()
    sky = truth.depth == 0
    assert 0 < sky.mean() < 0.5
    assert sky[0].all()
    assert not truth.normals[sky].any()
    assert not truth.albedo[sky].any()
    assert not truth.visibility[:, sky].any()


def test_lights_stand_on_the_rig():
    tracer = Tracer(plane(distance=4.0), 8, rig=Rig(0.5, 0.75))
    np.testing.assert_allclose(tracer.centre, [0, 0, 0], atol=1e-5)
    for position, azimuth in zip(tracer.lights, range(0, 360, 45), strict=True):
        a = math.radians(azimuth)
        np.testing.assert_allclose(position, [2 * math.sin(a), 3.0, -2 * math.cos(a)], atol=1e-4)


def test_radiance_of_a_lambertian_plane_is_albedo_cosine_and_inverse_square():
    scene, size = plane(), 33
    tracer = Tracer(scene, size)
    image = tracer.radiance(tracer.lights[E], np.array([1.0, 2.0, 4.0]), 64, 0)
    direction = rays(scene, size)
    points = scene.eye() + direction * (scene.eye()[1] / -direction[..., 1:2])
    to_light = tracer.lights[E] - points
    squared = (to_light**2).sum(-1)
    expected = 0.5 * to_light[..., 1] / np.sqrt(squared) / squared * np.sum(tracer.lights[E] ** 2)
    np.testing.assert_allclose(image[..., 0], expected, rtol=0.02)
    np.testing.assert_allclose(image / image[..., :1], np.broadcast_to([1.0, 2.0, 4.0], image.shape), rtol=1e-5)


def test_light_from_the_east_is_brighter_on_the_right_and_from_the_north_above():
    tracer = Tracer(plane(), 16)
    east, north = (tracer.radiance(tracer.lights[i], np.ones(3), 4, 0)[..., 0] for i in (E, N))
    assert east[:, 8:].mean() > 1.2 * east[:, :8].mean()
    assert north[:8].mean() > 1.2 * north[8:].mean()


def test_visibility_is_the_free_segment_to_the_light_past_a_ball():
    scene, radius = plane(), 0.8
    # the ball stands beside the centre ray, so that P stays on the ground
    centre = np.array([1.2, radius, -0.6])
    scene.parts.append((GREY, shapes.sphere(radius).moved(centre[0], 0, centre[2])))
    tracer = Tracer(scene, 48)
    truth = tracer.truth()
    direction = rays(scene, 48)
    ground = np.isclose(truth.depth, scene.eye()[1] / -direction[..., 1], rtol=1e-4)
    points = scene.eye() + direction * truth.depth[..., None]
    shadows = 0
    for i, light in enumerate(tracer.lights):
        way = light - points
        t = np.clip(((centre - points) * way).sum(-1) / (way**2).sum(-1), 0, 1)
        miss = np.linalg.norm(points + t[..., None] * way - centre, axis=-1)
        certain = ground & (np.abs(miss - radius) > 0.02)
        np.testing.assert_array_equal(truth.visibility[i][certain], miss[certain] > radius)
        shadows += (ground & certain & (miss < radius)).sum()
    assert shadows > 100
    # the far side of the ball, from each light, is dark: the ball shades itself
    assert not truth.visibility[:, ~ground].all()


def test_display_is_the_srgb_curve():
    # 0.5 in linear light is 188 in sRGB; 0.0031308 is where the curve changes its form
    linear = np.array([-1.0, 0.0, 0.0031308, 0.5, 1.0, 7.0], dtype=np.float32)
    np.testing.assert_array_equal(picture.display(linear), [0, 0, 10, 188, 255, 255])


def test_exposure_puts_the_96th_percentile_at_the_level():
    lit = np.broadcast_to(np.arange(1, 101, dtype=np.float32).reshape(1, 10, 10, 1), (8, 10, 10, 3))
    window = np.zeros((10, 10, 3), np.float32)
    # a tint scales all three equal channels, so the percentile is one over tints and values
    values = np.concatenate([np.arange(1, 101) * black_body(t).max() for t in (2500, 3500, 4500, 5500, 6500)])
    assert picture.exposure_of(lit, window, 0.8) == pytest.approx(0.8 / np.percentile(values, 96), rel=1e-5)
    with pytest.raises(ValueError, match="black under every light"):
        picture.exposure_of(np.zeros_like(lit), window, 0.8)


# ---- the light is linear, the mirror is a mirror


def scene_with_window():
    for i in range(100):
        scene = FAMILIES["interior"](np.random.default_rng(i))
        if scene.window is not None and Tracer(scene, 8).centre is not None:
            return scene
    raise AssertionError("no interior with a window among a hundred")


def test_tinting_equals_rendering_with_a_tinted_light():
    tracer = Tracer(scene_with_window(), 24)
    neutral = tracer.radiance(tracer.lights[2], np.ones(3), 9, 5)
    window = tracer.shine(9, 5)
    assert window.max() > 0
    for temperature in (2500, 4500, 6500):
        direct = tracer.radiance(tracer.lights[2], black_body(temperature), 9, 5)
        tinted = picture.combine(neutral, window, temperature) - window
        assert direct.max() > 0
        np.testing.assert_allclose(tinted, direct, rtol=1e-5, atol=1e-6 * window.max())
        np.testing.assert_allclose(picture.combine(neutral, 0 * window, temperature), direct, rtol=1e-5, atol=0)


def test_scene_without_window_shines_nothing():
    assert not Tracer(plane(), 8).shine(4, 0).any()


@pytest.mark.parametrize("family", ["courtyard", "objects"])
def test_mirrored_image_under_east_is_the_mirrored_scene_under_west(family):
    size, samples = 32, 64
    tracer, _ = picture.find(family, 5, 0, size, "scalar_rgb", Rig())
    mirrored, _ = picture.find(family, 5, 0, size, "scalar_rgb", Rig(), mirror=True)
    a, b = tracer.truth(), mirrored.truth()
    # rays through edges may fall on either side
    same = np.isclose(a.depth[:, ::-1], b.depth, rtol=1e-3)
    assert same.mean() > 0.99
    assert (a.visibility[E][:, ::-1] == b.visibility[W])[same].mean() > 0.99
    flip = np.array([-1, 1, 1])
    assert np.isclose(a.normals[:, ::-1] * flip, b.normals, atol=1e-2).all(-1)[same].mean() > 0.98
    assert np.isclose(a.albedo[:, ::-1], b.albedo, atol=1e-2).all(-1)[same].mean() > 0.98
    east = tracer.radiance(tracer.lights[E], np.ones(3), samples, 1)[:, ::-1]
    west = mirrored.radiance(mirrored.lights[W], np.ones(3), samples, 2)
    other = mirrored.radiance(mirrored.lights[E], np.ones(3), samples, 2)
    # two renders of the very same picture with other seeds tell how large the noise is
    again = tracer.radiance(tracer.lights[E], np.ones(3), samples, 3)[:, ::-1]
    noise = np.sqrt(np.mean((east - again) ** 2))
    assert np.sqrt(np.mean((east - west) ** 2)) < 1.3 * noise
    assert np.sqrt(np.mean((east - other) ** 2)) > 5 * noise


# ---- properties


@given(st.integers(0, 2**31))
@examples(max_examples=2)
def test_textures_are_reflectances_without_a_seam(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 1, (2, 3))
    for name in textures.TEXTURES:
        texture = textures.make(rng, (name,), a, b)
        assert texture.shape == (textures.PIXELS, textures.PIXELS, 3)
        assert texture.min() >= textures.DARKEST
        assert texture.max() <= textures.BRIGHTEST
        for axis in (0, 1):
            # the step over the border of the picture is no larger than the largest inside it
            inside = np.abs(np.diff(texture, axis=axis)).mean(axis=(1 - axis, 2))
            border = np.abs(np.take(texture, 0, axis) - np.take(texture, -1, axis)).mean()
            assert border <= 1.5 * inside.max() + 0.02, name


@pytest.mark.parametrize(
    ("mesh", "volume"),
    [
        (shapes.box(1, 2, 3), 6.0),
        (shapes.sphere(1.0), 4 / 3 * math.pi),
        (shapes.torus(1.0, 0.3), 2 * math.pi**2 * 0.09),
        (shapes.cylinder(1.0, 2.0), 2 * math.pi),
        (shapes.cylinder(1.0, 3.0, 0.0), math.pi),
        (shapes.arcade(2, 2.0, 1.0, 1.0, 2.0, 0.5), 0.5 * (8 - 2 * (1 + math.pi / 8))),
        (shapes.box(1, 2, 3).turned(20, 30, 40).moved(0, 5, 0).mirrored(), 6.0),
    ],
)
def test_shapes_are_closed_outward_and_of_the_right_volume(mesh, volume):
    a, b, c = (mesh.points[mesh.faces[:, k]] for k in range(3))
    # rounding by flat facets loses a little; what stands on the ground has no bottom face where y is 0
    assert np.sum(a * np.cross(b, c)) / 6 == pytest.approx(volume, rel=0.02)
    outward = np.cross(b - a, c - a)
    assert (np.sum(outward * mesh.normals[mesh.faces[:, 0]], axis=1) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-9)


def test_lathe_refuses_a_repeated_point():
    with pytest.raises(ValueError, match="profile point 2 is repeated"):
        shapes.lathe([(0, 0), (1, 0), (1, 0), (1, 1)])


@pytest.mark.parametrize("family", FAMILIES)
@given(seed=st.integers(0, 2**31))
@examples(max_examples=4)
def test_scenes_are_sound(family, seed):
    scene = FAMILIES[family](np.random.default_rng(seed))
    assert scene.family == family
    assert 40 <= scene.camera.fov <= 60
    assert 15 <= scene.camera.pitch <= 60
    assert len(scene.parts) > 2
    for _, mesh in scene.parts:
        assert np.isfinite(mesh.points).all()
        assert np.isfinite(mesh.uvs).all()
        np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-6)
        assert mesh.faces.min() >= 0
        assert mesh.faces.max() < len(mesh.points)


def test_families_use_every_kind_of_material_and_some_have_windows():
    made = [FAMILIES[name](np.random.default_rng(i)) for name in FAMILIES for i in range(4)]
    assert {material.kind for scene in made for material, _ in scene.parts} == {"diffuse", "plastic", "conductor"}
    assert 0 < sum(scene.window is not None for scene in made) < len(made)
