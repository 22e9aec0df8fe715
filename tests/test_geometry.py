"""Points, normals, anchor, light positions and shading against closed forms; `test_geometry_cues` holds the shadows."""

from __future__ import annotations

import numpy as np
import pytest
import scenes
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from ltnet_pl.geometry import (
    Geometry,
    anchor,
    cues,
    irradiance,
    light_position,
    normals_from_depth,
    resampled,
    unproject,
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


def supported(seen):
    """Pixels with two seen neighbours on one side along the last axis: a single one may stand behind a discontinuity."""
    padded = torch.nn.functional.pad(seen, (2, 2))
    n = seen.shape[-1]
    far_left, left, right, far_right = (padded[:, k : k + n] for k in (0, 1, 3, 4))
    return (far_left & left) | (right & far_right)


@example(x=0.75, y=0.5, fov=69.0, size=(17, 40))
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
    told = seen & supported(seen) & supported(seen.T).T
    # float32 depths seen through 1 / depth: the far end of a grazing plane is worst
    assert degrees(found, torch.tensor(normal)[None, :, None, None].expand_as(found))[0][told].max() < 0.1
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


@given(
    x=st.floats(-0.5, 0.5),
    y=st.floats(0.2, 0.9),
    size=st.tuples(st.integers(9, 40), st.integers(9, 40)),
    new=st.tuples(st.integers(4, 60), st.integers(4, 60)),
)
def test_a_resampled_plane_is_the_plane_at_the_other_resolution(x, y, size, new):
    """At any ratio, up or down: what was seen by other pixels of the same frame; the outermost stand a pixel beside, at most."""
    normal = np.array([x, y, 1.0]) / np.linalg.norm([x, y, 1.0])
    aspect = size[1] / size[0]
    new = (new[0], max(1, round(new[0] * aspect)))
    seen = plane(size, normal)
    assert (seen > 0).all()
    across = torch.tan(torch.tensor(np.radians(25.0))) * aspect
    v, u = ((torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 - 1 for n in new)
    slope = -(normal[0] * u * across - normal[1] * v[:, None] * np.tan(np.radians(25.0)) - normal[2])
    torch.testing.assert_close(resampled(seen, new)[0, 0], (2.0 / slope).float(), rtol=2e-5, atol=0)


def test_resampling_mixes_no_surfaces_and_keeps_the_background():
    """Two planes and sky: each new pixel is on one of them; picking alone would roughen the normals."""
    ground, wall = plane((48, 64), (0.0, 0.8, 0.6)), plane((48, 64), (0.6, 0.0, 0.8), 3.0)
    seen = torch.where(torch.arange(64) < 30, ground, wall)
    seen[..., :10, :] = 0
    small = resampled(seen, (36, 48))
    grounds, walls = plane((36, 48), (0.0, 0.8, 0.6)), plane((36, 48), (0.6, 0.0, 0.8), 3.0)
    off = torch.minimum((small / grounds - 1).abs(), (small / walls - 1).abs())
    assert off[small > 0].max() < 0.01, "a mean of both sides would be off by much more"
    assert (off[small > 0] < 1e-5).float().mean() > 0.95
    assert (small == 0).sum() in (7 * 48, 8 * 48), "a quarter fewer rows of sky"
    normals = normals_from_depth(small, CAMERA)[..., 12:, :20]
    assert degrees(normals, torch.tensor([0.0, 0.8, 0.6])[None, :, None, None].expand_as(normals)).max() < 0.1
    rows, columns = (((torch.arange(n) + 0.5) * 4 / 3).long() for n in (36, 48))
    picked = normals_from_depth(seen[..., rows[:, None], columns], CAMERA)[..., 12:, :20]
    assert degrees(picked, torch.tensor([0.0, 0.8, 0.6])[None, :, None, None].expand_as(picked)).max() > 2


@given(seed=st.integers(0, 99), new=st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_whatever_the_depth_resampling_stays_near_a_pixel_and_scales(seed, new):
    """Rough depth with holes: finite, within a fifth of some pixel, in proportion to the depth's scale."""
    depth = torch.from_numpy(np.random.default_rng(seed).random((1, 1, 13, 17), dtype=np.float32) - 0.3).clamp(min=0)
    small = resampled(depth, new)
    assert small.shape == (1, 1, *new)
    ratio = small[small > 0][:, None] / depth[depth > 0]
    assert ((ratio > 0.79) & (ratio < 1.27)).any(dim=1).all()
    torch.testing.assert_close(resampled(depth * 7, new), small * 7)


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
