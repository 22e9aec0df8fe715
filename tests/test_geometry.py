"""Geometry against closed forms: planes, spheres, a step, a box; then the properties of the cues; then the renderer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scenes
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import max_pool2d

from ltnet_pl.geometry import (
    Geometry,
    anchor,
    cues,
    irradiance,
    light_position,
    normals_from_depth,
    unproject,
    visibility,
)
from ltnet_pl.light import DIRECTIONS, Camera, Light, Rig, light_tensor

CAMERA = torch.tensor([[50.0, 35.0]])
RIG = torch.tensor([[0.9, 0.9]])
EIGHT = light_tensor([Light.from_name(f"4500_{d}") for d in DIRECTIONS])


def rays(size, fov=50.0):
    """(3, H, W) points at depth 1 of a whole frame, in float64: the pinhole written out once more."""
    height, width = size
    focal = height / 2 / np.tan(np.radians(fov) / 2)
    x = (torch.arange(width, dtype=torch.float64) + 0.5 - width / 2) / focal
    y = -(torch.arange(height, dtype=torch.float64) + 0.5 - height / 2) / focal
    return torch.stack([x.expand(size), y[:, None].expand(size), -torch.ones(size, dtype=torch.float64)])


def plane(size, normal, distance=2.0, fov=50.0):
    """Depth (1, 1, H, W) of the plane with a unit normal (camera frame) at a distance from the camera, 0 where it is not seen."""
    slope = -(torch.tensor(normal, dtype=torch.float64)[:, None, None] * rays(size, fov)).sum(dim=0)
    return torch.where(slope > 0.02, distance / slope.clamp(min=0.02), 0.0).float()[None, None]


def degrees(a, b):
    """Angle between two fields of unit vectors (B, 3, H, W), without arccos, which is blind to small angles."""
    return torch.rad2deg(2 * torch.asin(((a.double() - b.double()).square().sum(dim=1).sqrt() / 2).clamp(max=1)))


def sphere_scene(index, size):
    """An analytic scene: depth (1, 1, H, W), camera and rig tensors, and the frame with the answers."""
    frame = scenes.trace(scenes.scene(11, index), size)
    camera, rig = frame.scene.camera, frame.scene.rig
    depth = torch.from_numpy(scenes.stored_depth(frame))[None, None]
    return depth, torch.tensor([[camera.fov, camera.pitch]]), torch.tensor([[rig.radius, rig.height]]), frame


def eight(x):
    return x.expand(8, *x.shape[1:])


# Points and normals


def test_a_pixel_stands_where_the_pinhole_says():
    # fov 90: f = H / 2 = 1; the centre of pixel (row 0, column 2) of a 2 x 4 frame is (0.5, 0.5) right and up of the axis
    points = unproject(torch.full((1, 1, 2, 4), 3.0), torch.tensor([[90.0, 0.0]]))
    assert points.shape == (1, 3, 2, 4)
    assert points[0, :, 0, 2].tolist() == pytest.approx([1.5, 1.5, -3.0], rel=1e-6)
    assert points[0, :, 1, 0].tolist() == pytest.approx([-4.5, -1.5, -3.0], rel=1e-6)


def test_a_crop_moves_the_principal_point():
    depth = torch.rand(1, 1, 20, 30) + 1
    window = torch.tensor([[4 / 20, 6 / 30, 9 / 20, 11 / 30]])
    inside = (..., slice(4, 13), slice(6, 17))
    assert torch.allclose(unproject(depth[inside], CAMERA, window), unproject(depth, CAMERA)[inside], atol=1e-6)


@given(
    x=st.floats(-0.8, 0.8),
    y=st.floats(-0.8, 0.8),
    fov=st.floats(20, 100),
    size=st.sampled_from([(24, 24), (17, 40), (33, 8)]),
)
def test_normals_of_a_plane_are_exact(x, y, fov, size):
    normal = np.array([x, y, 1.0]) / np.linalg.norm([x, y, 1.0])
    depth = plane(size, normal, fov=fov)
    found = normals_from_depth(depth, torch.tensor([[fov, 10.0]]))
    seen = depth[0, 0] > 0
    # float32 depths seen through 1 / depth: the far end of a grazing plane is worst
    assert degrees(found, torch.tensor(normal)[None, :, None, None].expand_as(found))[0][seen].max() < 0.1
    assert (found[0][:, ~seen] == 0).all()


def test_normals_of_a_crop_are_those_of_the_frame():
    depth = plane((40, 60), [0.3, 0.8, np.sqrt(1 - 0.73)])
    window = torch.tensor([[7 / 40, 11 / 60, 20 / 40, 31 / 60]])
    inside = (..., slice(7, 27), slice(11, 42))
    whole, part = normals_from_depth(depth, CAMERA)[inside], normals_from_depth(depth[inside], CAMERA, window)
    assert degrees(whole, part).max() < 0.05


def test_normals_of_spheres_on_a_plane():
    """The error that one-sided differences leave: nothing on the plane, below a degree on spheres but for their rims."""
    on_plane, on_spheres = [], []
    for index in range(4):
        depth, camera, _, frame = sphere_scene(index, (96, 120))
        error = degrees(normals_from_depth(depth, camera), torch.from_numpy(frame.camera_normals).permute(2, 0, 1)[None])[0]
        on_plane.append(error[torch.from_numpy(frame.owner == -1)])
        on_spheres.append(error[torch.from_numpy(frame.owner >= 0)])
    on_plane, on_spheres = torch.cat(on_plane), torch.cat(on_spheres)
    assert on_plane.median() < 0.02
    assert (on_plane > 1).float().mean() < 0.005
    assert on_spheres.median() < 0.4
    assert on_spheres.quantile(0.9) < 3


def test_nothing_is_differentiated_across_a_step():
    depth = torch.full((1, 1, 21, 30), 2.0)
    depth[..., 10:] = 3.0
    depth[..., :5, :] = 0.0  # background above both
    depth[..., 12, 20] = 1.0  # a single pixel
    depth[..., 15:17, :] = 1.5  # two rows
    normals = normals_from_depth(depth, CAMERA)
    assert degrees(normals, torch.tensor([0.0, 0.0, 1.0])[None, :, None, None].expand_as(normals))[depth[:, 0] > 0].max() < 1e-3


def test_a_crease_belongs_to_its_two_sides():
    left = plane((31, 40), [np.sqrt(0.5), 0.0, np.sqrt(0.5)])
    right = plane((31, 40), [-np.sqrt(0.5), 0.0, np.sqrt(0.5)])
    normals = normals_from_depth(torch.minimum(left, right), CAMERA)  # the corner of a room, seen from inside
    side = torch.where(left <= right, 1.0, -1.0)
    truth = torch.cat([side, torch.zeros_like(side), torch.ones_like(side)], dim=1) * 0.5**0.5
    assert degrees(normals, truth).max() < 0.1


# The rig


def test_the_anchor_is_what_the_centre_shows():
    depth = torch.full((1, 1, 5, 7), 9.0)
    depth[..., 2, 3] = 4.0
    assert anchor(depth, CAMERA).tolist() == [[0.0, 0.0, -4.0]]


def test_the_anchor_of_an_even_frame_lies_on_the_plane():
    normal = [0.0, np.sin(np.radians(40)), np.cos(np.radians(40))]
    found = anchor(plane((24, 32), normal), CAMERA)
    assert found[0].tolist() == pytest.approx([0.0, 0.0, -2.0 / normal[2]], rel=1e-5)


def test_the_anchor_at_an_edge_is_one_of_the_two_sides():
    depth = torch.full((1, 1, 4, 4), 10.0)
    depth[..., 2:] = 2.0
    assert anchor(depth, CAMERA)[0, 2].item() == -2.0  # equal groups: the nearer
    depth[..., 1, 2] = 10.0
    assert anchor(depth, CAMERA)[0, 2].item() == -10.0  # the larger group


def test_where_the_centre_is_sky_the_anchor_is_the_median_of_what_is_near_it():
    depth = torch.zeros(1, 1, 21, 21)
    depth[..., 14, 10], depth[..., 10, 5], depth[..., 10, 16], depth[..., 4, 10] = 3.0, 8.0, 5.0, 7.0  # distances 4, 5, 6, 6
    depth[..., :, 0] = 1.0  # 21 pixels at distance 10 and more
    # 1 % of 441 pixels is 4: 3, 8, 5, 7 have the median 6
    assert anchor(depth, CAMERA)[0, 2].item() == -6.0
    assert anchor(torch.zeros(1, 1, 6, 6), CAMERA)[0, 2].item() == -1.0


@pytest.mark.parametrize("light", [Light(0, 4500), Light(77, 4500), Light(225, 4500), Light(90, 4500, elevation=20)])
@pytest.mark.parametrize("camera", [Camera(50, 35), Camera(60, -10), Camera(40, 90)])
def test_lights_stand_where_the_rig_puts_them(light, camera):
    rig = Rig(0.7, 1.1)
    at = torch.tensor([[0.0, 0.0, -3.0]])
    lights = torch.tensor([light.row()])
    found = light_position(lights, at, torch.tensor([[camera.fov, camera.pitch]]), torch.tensor([[rig.radius, rig.height]]))
    expected = np.array([0, 0, -3.0]) + 3.0 * camera.rotation() @ rig.offset(light)
    assert found[0].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_north_stands_behind_the_scene():
    level = torch.tensor([[50.0, 0.0]]).expand(8, 2)
    at = torch.tensor([[0.0, 0.0, -1.0]]).expand(8, 3)
    spots = dict(zip(DIRECTIONS, light_position(EIGHT, at, level, eight(RIG)), strict=True))
    assert spots["N"][2] < -1 < spots["S"][2]
    assert spots["W"][0] < 0 < spots["E"][0]
    assert all(spot[1] > 0 for spot in spots.values())


# Shading


def test_irradiance_by_hand():
    points = torch.tensor([[0.0, 0.0, -2.0], [1.0, 0.0, -2.0], [0.0, 0.0, -2.0], [0.0, 0.0, 0.0]]).T.reshape(1, 3, 1, 4)
    normals = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.0, 0.0, 0.0]]).T.reshape(1, 3, 1, 4)
    found = irradiance(points, normals, torch.tensor([[0.0, 0.0, -1.0]]), torch.tensor([[0.0, 0.0, -2.0]]))
    # at P, facing the light: 1; beside it: cos 45 degrees / 2; turned away: 0; background: 0
    assert found.flatten().tolist() == pytest.approx([1.0, 0.5 * 0.5**0.5, 0.0, 0.0], abs=1e-6)


def test_shading_agrees_with_the_analytic_scenes():
    depth, camera, rig, frame = sphere_scene(0, (96, 120))
    geometry = Geometry.of(eight(depth), eight(depth), None, eight(camera))
    found = geometry.shading(EIGHT, eight(rig))[:, 0].numpy()
    truth = np.stack([scenes.irradiance(frame, Light.from_name(f"4500_{d}")) for d in DIRECTIONS])
    assert np.median(np.abs(found - truth)[:, frame.depth > 0]) < 0.002
    assert (found[:, frame.depth == 0] == 0).all()


def test_ambient_light_comes_from_everywhere():
    depth, camera, rig, _ = sphere_scene(1, (32, 40))
    geometry = Geometry.of(depth, depth, None, camera)
    direct = geometry.shading(light_tensor([Light(30, 4500)]), rig)
    mixed = geometry.shading(torch.tensor([[30.0, 4500.0, torch.nan, 0.25]]), rig)
    assert torch.allclose(mixed, 0.75 * direct + 0.25 * (depth > 0), atol=1e-6)


def test_irradiance_and_light_position_have_right_gradients():
    points, normals = torch.randn(2, 3, 3, 4, dtype=torch.float64), torch.randn(2, 3, 3, 4, dtype=torch.float64)
    at, camera = torch.tensor([[0.0, 0.0, -2.0], [0.0, 0.0, -3.0]]).double(), CAMERA.double().expand(2, 2)
    lights = torch.tensor([[40.0, 4500.0, torch.nan, 0.0], [200.0, 3000.0, 35.0, 0.0]]).double()
    rig = RIG.double().expand(2, 2).clone().requires_grad_()
    azimuth = lights[:, 0].clone().requires_grad_()

    def shade(p, n, azimuth, rig):
        position = light_position(torch.cat([azimuth[:, None], lights[:, 1:]], dim=1), at, camera, rig)
        return irradiance(p, n, position, at)

    assert torch.autograd.gradcheck(shade, (points.requires_grad_(), normals.requires_grad_(), azimuth, rig))


def test_turning_a_light_moves_the_shading():
    depth, camera, rig, _ = sphere_scene(1, (24, 24))
    light = torch.tensor([[30.0, 4500.0]], requires_grad=True)
    both = cues(depth, depth, None, light, camera, rig)
    both.square().sum().backward()
    assert light.grad is not None
    assert light.grad[0, 0].abs() > 0


# Cast shadows


def test_the_shadow_of_a_box_ends_where_it_must():
    """Looking straight down on a box whose top is 0.2 above the ground, a light on the right: its shadow falls to the left."""
    size, ground, top, half = (101, 101), 2.0, 1.8, 0.3
    x, y, _ = rays(size)
    # the sides of a box under the camera are hidden below its top; only what the top covers differs from the ground
    depth = torch.where((x.abs() * top < half) & (y.abs() * top < half), top, ground).float()[None, None]
    camera, light = torch.tensor([[50.0, 90.0]]), torch.tensor([[1.5, 0.0, -1.0]])
    seen = visibility(unproject(depth, camera), normals_from_depth(depth, camera), depth, light, camera)[0, 0]
    # similar triangles: the left edge of the top shades the ground as far as this
    end = 1.5 + (-half - 1.5) * (ground - 1.0) / (top - 1.0)
    row, x = seen[50], (x * ground)[50]
    edge = -half * ground / top  # where the top's left edge is seen
    shaded = (x > end) & (x < edge)
    pixel = (x[1] - x[0]).item()
    assert shaded.sum() >= 8
    assert (row[(x > end + pixel) & (x < edge)] < 0.5).all()
    assert (row[x < end - pixel] > 0.99).all()
    assert (row[x > edge + pixel] > 0.99).all()  # the top, and the ground towards the light
    assert (seen[:20] > 0.99).all()
    assert (seen[-20:] > 0.99).all()


@pytest.mark.parametrize("pitch", [8.0, 20.0, 55.0])
@pytest.mark.parametrize("low", [(64, 64), (23, 31)])
def test_a_plane_does_not_shade_itself(pitch, low):
    """Not even under a light 1 degree above it, nor through a coarse map of another shape."""
    normal = [0.0, np.cos(np.radians(pitch)), np.sin(np.radians(pitch))]
    depth, coarse = (eight(plane(size, normal)) for size in ((64, 64), low))
    camera = torch.tensor([[50.0, pitch]]).expand(8, 2)
    for rig in ([0.9, 0.9], [1.5, 0.026]):
        seen = Geometry.of(depth, coarse, None, camera).visibility(EIGHT, torch.tensor([rig]).expand(8, 2))
        assert seen.min() > 0.999


def shadow_pair(frame, found):
    """Predicted and true cast shadow of an analytic scene, (8, H, W) bool: n.l > 0 and not seen; `found` are the cues."""
    lights = [Light.from_name(f"4500_{d}") for d in DIRECTIONS]
    lit = np.stack([scenes.irradiance(frame, light) > 0 for light in lights])
    true = lit & ~np.stack([scenes.visibility(frame, light) for light in lights])
    return (found[:, 0].numpy() > 0) & (found[:, 1].numpy() < 0.5) & (frame.depth > 0), true & (frame.depth > 0)


def test_shadows_of_spheres():
    """IoU with the exact shadows, and no speckle: hardly a shadow pixel away from the true shadows."""
    ious, astray, lit = [], 0, 0
    for index in range(6):
        depth, camera, rig, frame = sphere_scene(index, (72, 96))
        found = Geometry.of(eight(depth), eight(depth), None, eight(camera)).cues(EIGHT, eight(rig))
        pred, true = shadow_pair(frame, found)
        ious.append((pred & true).sum() / (pred | true).sum())
        near_truth = max_pool2d(torch.from_numpy(true).float(), 5, 1, 2).numpy() > 0
        astray += (pred & ~near_truth).sum()
        lit += (~near_truth).sum()
    assert np.mean(ious) > 0.9
    assert min(ious) > 0.8
    assert astray / lit < 1e-3


def test_more_steps_find_thinner_things():
    depth = torch.full((1, 1, 64, 64), 2.0)
    depth[..., 10:54, 40:43] = 1.9  # a low wall of three pixels, seen from above
    camera, light = torch.tensor([[50.0, 90.0]]), torch.tensor([[3.0, 0.0, -1.2]])
    points, normals = unproject(depth, camera), normals_from_depth(depth, camera)
    shaded = [(visibility(points, normals, depth, light, camera, steps=n) < 0.5).sum().item() for n in (3, 8, 48)]
    assert shaded[0] < shaded[1] < shaded[2]


def test_an_occluder_outside_the_crop_still_shades_it():
    size, window = (64, 64), torch.tensor([[0.25, 0.0, 0.5, 0.375]])
    depth = torch.full((1, 1, *size), 2.0)
    with_post = depth.clone()
    with_post[..., 20:44, 30:36] = 1.7
    light, camera = torch.tensor([[1.0, 0.0, -0.7]]), torch.tensor([[50.0, 90.0]])
    part = depth[..., 16:48, :24]
    points, normals = unproject(part, camera, window), normals_from_depth(part, camera, window)
    assert visibility(points, normals, depth, light, camera, window).min() > 0.999
    assert visibility(points, normals, with_post, light, camera, window).min() < 0.01


def test_background_blocks_nothing_and_is_seen():
    depth = torch.full((1, 1, 32, 32), 2.0)
    depth[..., 10:20, 12:20] = 0.0
    seen = visibility(
        unproject(depth, CAMERA), normals_from_depth(depth, CAMERA), depth, torch.tensor([[2.0, 1.0, -1.0]]), CAMERA
    )
    assert seen.min() == 1
    nothing = cues(torch.zeros_like(depth), torch.zeros_like(depth), None, EIGHT[:1], CAMERA, RIG)
    assert (nothing[:, 0] == 0).all()
    assert (nothing[:, 1] == 1).all()


# Properties of the cues


@given(azimuth=st.floats(0, 359), index=st.integers(0, 5))
def test_a_mirrored_scene_has_mirrored_cues(azimuth, index):
    depth, camera, rig, _ = sphere_scene(index, (30, 41))
    light = Light(azimuth, 4500)
    found = cues(depth, depth, None, light_tensor([light]), camera, rig)
    other = cues(depth.flip(-1), depth.flip(-1), None, light_tensor([light.mirror()]), camera, rig).flip(-1)
    assert torch.allclose(found[:, 0], other[:, 0], atol=1e-3)
    # a sample half way between two pixels may be taken from either: a shadow's edge may move in a few pixels
    assert ((found - other)[:, 1].abs() > 0.05).float().mean() < 0.02


@given(factor=st.floats(1e-3, 1e3), azimuth=st.floats(0, 359), index=st.integers(0, 5))
def test_the_scale_of_depth_does_not_matter(factor, azimuth, index):
    depth, camera, rig, _ = sphere_scene(index, (30, 41))
    light = light_tensor([Light(azimuth, 4500)])
    found = cues(depth, depth, None, light, camera, rig)
    scaled = cues(depth * factor, depth * factor, None, light, camera, rig)
    assert torch.allclose(found[:, 0], scaled[:, 0], atol=2e-3)
    assert ((found - scaled)[:, 1].abs() > 0.05).float().mean() < 0.01


def test_the_cues_of_a_crop_are_the_crop_of_the_cues():
    depth, camera, rig, _ = sphere_scene(3, (60, 75))
    inside = (..., slice(13, 50), slice(20, 71))
    window = torch.tensor([[13 / 60, 20 / 75, 37 / 60, 51 / 75]])
    whole = cues(eight(depth), eight(depth), None, EIGHT, eight(camera), eight(rig))[inside]
    part = cues(eight(depth[inside]), eight(depth), eight(window), EIGHT, eight(camera), eight(rig))
    # the outermost pixels of a crop have a neighbour less to take normals from
    difference = (whole - part)[..., 2:-2, 2:-2].abs()
    assert difference[:, 0].median() < 1e-5
    assert (difference > 1e-2).float().mean() < 1e-3


@pytest.mark.parametrize(
    "what", ["depth", "frame_depth", "crop", "azimuth", "elevation", "ambient", "fov", "pitch", "radius", "height", "steps"]
)
def test_every_argument_matters(what):
    depth, camera, rig, _ = sphere_scene(0, (40, 50))
    given = {
        "depth": depth,
        "frame_depth": depth,
        "crop": torch.tensor([[0.0, 0.0, 1.0, 1.0]]),
        "lights": torch.tensor([[60.0, 4500.0, 30.0, 0.1]]),
        "camera": camera,
        "rig": rig,
        "steps": 32,
    }
    column = {"azimuth": 0, "elevation": 2, "ambient": 3, "fov": 0, "pitch": 1, "radius": 0, "height": 1}.get(what)
    if what == "steps":
        changed = {**given, "steps": 4}
    elif what == "crop":
        changed = {**given, "crop": torch.tensor([[0.1, 0.2, 0.7, 0.7]])}
    elif column is None:
        nearer = depth.clone()
        nearer[..., 25:30, 10:20] *= 0.8
        changed = {**given, what: nearer}
    else:
        key = "lights" if what in ("azimuth", "elevation", "ambient") else "camera" if what in ("fov", "pitch") else "rig"
        moved = given[key].clone()
        moved[:, column] *= 1.3
        changed = {**given, key: moved}
    assert (cues(**given) - cues(**changed)).abs().max() > 0.01


def test_the_temperature_does_not_matter():
    depth, camera, rig, _ = sphere_scene(0, (24, 30))
    warm, cool = (cues(depth, depth, None, light_tensor([Light(60, t)]), camera, rig) for t in (2500, 6500))
    assert torch.equal(warm, cool)


def test_samples_do_not_mix():
    parts = [sphere_scene(i, (24, 30))[:3] for i in range(3)]
    depth, camera, rig = (torch.cat(x) for x in zip(*parts, strict=True))
    together = cues(depth, depth, None, EIGHT[:3], camera, rig)
    alone = torch.cat([cues(d, d, None, EIGHT[i : i + 1], c, r) for i, (d, c, r) in enumerate(parts)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_geometry_gives_what_the_functions_give():
    depth, camera, rig, _ = sphere_scene(4, (30, 44))
    window, part, coarse = torch.tensor([[0.2, 0.25, 0.5, 0.5]]), depth[..., 6:21, 11:33], depth[..., 1::2, 1::2]
    geometry = Geometry.of(part, coarse, window, camera)
    at, light = anchor(coarse, camera), EIGHT[2:3]
    position = light_position(light, at, camera, rig)
    points, normals = unproject(part, camera, window), normals_from_depth(part, camera, window)
    assert torch.equal(geometry.points, points)
    assert torch.equal(geometry.normals, normals)
    assert torch.equal(geometry.anchor, at)
    shading, seen = irradiance(points, normals, position, at), visibility(points, normals, coarse, position, camera, window)
    assert torch.equal(geometry.cues(light, rig), torch.cat([shading, seen], dim=1))
    assert torch.equal(cues(part, coarse, window, light, camera, rig), geometry.cues(light, rig))
    with pytest.raises(dataclasses.FrozenInstanceError):
        geometry.anchor = at


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 1), (2, 2), (13, 37)])
def test_any_size(size):
    depth = torch.rand(2, 1, *size) + 1
    depth[0, :, 0, 0] = 0
    found = cues(depth, depth, None, EIGHT[:2], CAMERA.expand(2, 2), RIG.expand(2, 2))
    assert found.shape == (2, 2, *size)
    assert found.isfinite().all()
    assert (found[:, 0] >= 0).all()
    assert ((found[:, 1] >= 0) & (found[:, 1] <= 1)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_dtype_that_comes_in_goes_out_and_is_not_computed_in(dtype):
    depth, camera, rig, _ = sphere_scene(0, (32, 40))
    depth = depth.to(dtype)
    found = cues(depth, depth, None, EIGHT[:1], camera, rig)
    assert found.dtype == unproject(depth, camera).dtype == normals_from_depth(depth, camera).dtype == dtype
    exact = cues(depth.float(), depth.float(), None, EIGHT[:1], camera, rig)
    # what is left is the rounding of the result: half a unit of 8 bits of mantissa, of values below 4
    assert ((found.float() - exact).abs() > 0.02).float().mean() < 0.001
    before = depth.clone()
    cues(depth, depth, None, EIGHT[:1], camera, rig)
    assert torch.equal(depth, before)


@pytest.mark.parametrize("unknown", ["lights", "camera", "rig"])
def test_nothing_unknown_is_guessed(unknown):
    depth, camera, rig, _ = sphere_scene(0, (16, 20))
    given = {"lights": EIGHT[:1], "camera": camera, "rig": rig}
    column = 1 if unknown == "camera" else 0
    given[unknown] = given[unknown].clone()
    given[unknown][:, column] = torch.nan
    found = cues(depth, depth, None, **given)
    assert found[:, :, depth[0, 0] > 0].isnan().all()


def test_wrong_shapes_are_refused():
    depth = torch.ones(2, 1, 4, 4)
    camera = CAMERA.expand(2, 2)
    with pytest.raises(ValueError, match=r"a depth must have shape \(B, 1, H, W\), got \(2, 4, 4\)"):
        unproject(depth[:, 0], camera)
    with pytest.raises(ValueError, match=r"a depth must have shape \(B, 1, H, W\), got \(2, 1, 0, 4\)"):
        anchor(depth[:, :, :0], camera)
    with pytest.raises(ValueError, match=r"a camera must have shape \(2, 2\) \(field of view, pitch\), got \(1, 2\)"):
        normals_from_depth(depth, CAMERA)
    with pytest.raises(ValueError, match=r"a crop must have shape \(2, 4\) \(top, left, height, width\), got \(4,\)"):
        unproject(depth, camera, torch.ones(4))
    with pytest.raises(ValueError, match="steps must be 1 or more, got 0"):
        cues(depth, depth, None, EIGHT[:2], camera, RIG.expand(2, 2), steps=0)


# Against the renderer


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """One scene of each of the renderer's families, with its own depth, normals and visibility: 64 pixels."""
    pytest.importorskip("mitsuba", reason="Mitsuba (extra `render`) is not installed")
    from ltnet_pl.render import picture, tracer
    from ltnet_pl.render.families import FAMILIES

    found = []
    for index, family in enumerate(FAMILIES):
        traced, _ = picture.find(family, 5, index, 64, "scalar_rgb", tracer.DEFAULT_RIG)
        found.append((traced.scene.camera, tracer.DEFAULT_RIG, traced.truth()))
    return found


@pytest.mark.render
def test_normals_agree_with_the_renderers(rendered):
    medians = []
    for camera, _, truth in rendered:
        depth = torch.from_numpy(truth.depth)[None, None]
        found = normals_from_depth(depth, torch.tensor([[camera.fov, camera.pitch]]))
        error = degrees(found, torch.from_numpy(truth.normals).permute(2, 0, 1)[None])
        medians.append(error[depth[:, 0] > 0].median().item())
    assert np.mean(medians) < 1.5
    assert max(medians) < 5  # terrain: rough in the pixel's own size


@pytest.mark.render
def test_cast_shadows_agree_with_the_renderers(rendered):
    """Intersection over union, true camera and rig, pooled over the eight lights, mean over scenes."""
    ious = []
    for camera, rig, truth in rendered:
        depth, sight = torch.from_numpy(truth.depth)[None, None], torch.tensor([[camera.fov, camera.pitch]]).expand(8, 2)
        rig_row = torch.tensor([[rig.radius, rig.height]]).expand(8, 2)
        geometry = Geometry.of(eight(depth), eight(depth), None, sight)
        found = geometry.cues(EIGHT, rig_row)
        normals = eight(torch.from_numpy(truth.normals).permute(2, 0, 1)[None])
        position = light_position(EIGHT, geometry.anchor, sight, rig_row)
        valid = truth.depth > 0
        true = (irradiance(geometry.points, normals, position, geometry.anchor)[:, 0].numpy() > 0) & ~truth.visibility & valid
        pred = (found[:, 0].numpy() > 0) & (found[:, 1].numpy() < 0.5) & valid
        if true.any():
            ious.append((true & pred).sum() / (true | pred).sum())
    assert len(ious) == 4
    assert np.mean(ious) >= 0.6
