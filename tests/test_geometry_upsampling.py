"""Visibility that is looked up for some points and spread over all: exact cases first, then against marching from all."""

import pytest
import scenes
import torch

from ltnet_pl.geometry import Geometry, lighting, normals_from_depth, resampled, unproject
from ltnet_pl.geometry.upsampling import Lattice, picked
from ltnet_pl.light import Light, light_tensor

CAMERA = torch.tensor([[50.0, 35.0]])
LIGHTS = light_tensor([Light.from_name("6500_SE")])


def lattice_of(depth, stride):
    texel = 2 * torch.tan(torch.deg2rad(CAMERA[:, 0]) / 2) / depth.shape[-2]
    return Lattice.of(unproject(depth, CAMERA), normals_from_depth(depth, CAMERA), stride, texel)


@pytest.mark.parametrize(("size", "stride"), [((24, 32), 2), ((25, 31), 3), ((40, 17), 4), ((9, 9), 9)])
def test_on_one_surface_it_is_bilinear(size, stride):
    """What is linear in the pixel's place comes out as it was, but beyond the outermost points, where it stays constant."""
    v, u = torch.meshgrid(*(torch.arange(n).float() for n in size), indexing="ij")
    ramp = (0.3 + 0.01 * v - 0.02 * u)[None, None]
    spread = lattice_of(torch.full((1, 1, *size), 2.0), stride).spread(picked(ramp, stride))
    last = [stride // 2 + (n - 1 - stride // 2) // stride * stride for n in size]
    inner = (..., slice(stride // 2, last[0] + 1), slice(stride // 2, last[1] + 1))
    torch.testing.assert_close(spread[inner], ramp[inner])
    assert spread.min() >= ramp.min()
    assert spread.max() <= ramp.max()


def test_nothing_leaks_across_an_edge():
    """A near board in front of a far wall, one lit and the other not, with its edges between the points."""
    board = torch.zeros(1, 1, 48, 48, dtype=torch.bool)
    board[..., 13:31, 18:38] = True
    depth = torch.where(board, 2.0, 3.0)
    spread = lattice_of(depth, 4).spread(picked(board.float(), 4))
    assert (spread - board.float()).abs().max() < 0.01


def test_a_thing_that_no_point_stands_on_takes_what_is_around_it():
    depth = torch.full((1, 1, 16, 16), 3.0)
    depth[..., 4, 5] = 2.0
    assert (lattice_of(depth, 4).spread(torch.full((1, 1, 4, 4), 0.7)) - 0.7).abs().max() < 1e-6


@pytest.mark.parametrize("index", range(3))
def test_little_differs_from_marching_from_every_point(index, monkeypatch):
    """Ground with spheres: half the points along each side give nearly the same shadows, nearer than plain interpolation does."""
    frame = scenes.trace(scenes.scene(5, index), (192, 256))
    depth = torch.from_numpy(scenes.stored_depth(frame))[None, None]
    camera = torch.tensor([[frame.scene.camera.fov, frame.scene.camera.pitch]])
    rig = torch.tensor([[frame.scene.rig.radius, frame.scene.rig.height]])
    small = resampled(depth, (96, 128))
    whole = Geometry.of(depth, small, None, camera)
    every = whole.visibility(LIGHTS, rig, 16)
    monkeypatch.setattr(lighting, "MARCHED_SIDE", 128)
    some = Geometry.of(depth, small, None, camera).visibility(LIGHTS, rig, 16)
    plain = torch.nn.functional.interpolate(picked(every, 2), size=every.shape[-2:], mode="bilinear")
    lit = whole.shading(LIGHTS, rig).clamp(max=1)
    off, plain_off = (((x - every).abs() * lit).mean() for x in (some, plain))
    assert 0 < off < 0.003
    assert off < 0.8 * plain_off


def test_background_sees_the_light_whatever_is_beside_it(monkeypatch):
    """Sky beside ground in shadow: its visibility is 1 also where it is spread, and what is unknown stays unknown."""
    depth = scenes.stored_depth(scenes.trace(scenes.scene(5, 1), (96, 128)))
    depth[:11] = 0
    depth = torch.from_numpy(depth)[None, None]
    rig = torch.tensor([[0.9, 0.3]])
    monkeypatch.setattr(lighting, "MARCHED_SIDE", 32)
    monkeypatch.setattr(lighting, "march", lambda points, *_: torch.zeros_like(points[:, :1]))
    geometry = Geometry.of(depth, depth, None, CAMERA)
    seen = geometry.visibility(LIGHTS, rig)
    assert (seen[depth == 0] == 1).all()
    assert (seen[depth > 0] == 0).all()
    monkeypatch.setattr(lighting, "march", lambda points, *_: torch.full_like(points[:, :1], torch.nan))
    assert geometry.visibility(LIGHTS, rig).isnan().all()
