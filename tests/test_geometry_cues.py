"""Cast shadows against closed forms, the properties of the cues, and both against the renderer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scenes
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_geometry import CAMERA, EIGHT, RIG, degrees, eight, plane, rays, sphere_scene
from torch.nn.functional import max_pool2d

from ltnet_pl.geometry import (
    Geometry,
    anchor,
    arriving,
    cues,
    irradiance,
    light_position,
    normals_from_depth,
    shadows,
    unproject,
    visibility,
)
from ltnet_pl.light import DIRECTIONS, Light, light_tensor

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


def test_an_edge_does_not_shade_the_faces_it_joins():
    """The faces of a ridge towards the viewer, lit so that the light only grazes one of them across the edge."""
    # a rare case, searched for: it fails where surfaces are continued past the edge
    towards = ([-0.69, -0.37, 0.62], [0.2, 0.7, 0.69])
    depth = torch.maximum(*(plane((48, 64), np.array(n) / np.linalg.norm(n)) for n in towards))
    points, normals = unproject(depth, CAMERA), normals_from_depth(depth, CAMERA)
    light = torch.tensor([[1.109, -0.155, -1.915]])
    lit = irradiance(points, normals, light, anchor(depth, CAMERA)) > 1e-3
    assert lit.sum() > 100
    assert visibility(points, normals, depth, light, CAMERA)[lit].min() > 0.5


def test_the_width_of_a_thing_is_known_where_both_its_ends_are_seen():
    w = torch.tensor([[1.0, 1, 2, 2, 2, 1, 1, 3, 3]])
    linked = torch.tensor([[True, False, True, True, False, True, False, True, False]])
    inf = torch.inf
    # the ground runs out of the frame, or behind the thing; the thing on the right is cut by the frame, where nothing lies beyond
    assert shadows._width(w, linked).tolist() == [[inf, inf, 3, 3, 3, inf, inf, inf, inf]]


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


def test_ambient_light_comes_from_everywhere():
    """All of it ambient: every visible point gets 1, in shadow too, and background 0; half of it: half of each."""
    depth, camera, rig, _ = sphere_scene(0, (32, 40))
    valid = (depth > 0).float()

    def light(ambient):
        lights = torch.tensor([[*EIGHT[2, :2].tolist(), torch.nan, ambient]])
        return arriving(cues(depth, depth, None, lights, camera, rig), lights)

    direct = cues(depth, depth, None, EIGHT[2:3], camera, rig)
    assert ((direct[:, 1] < 0.5) & (direct[:, 0] > 0)).any(), "the scene has a cast shadow"
    torch.testing.assert_close(light(1.0), valid)
    torch.testing.assert_close(light(0.5), 0.5 * arriving(direct, EIGHT[2:3]) + 0.5 * valid)


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
