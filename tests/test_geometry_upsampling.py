"""Visibility that is looked up for some points and spread over all: exact cases first, then against marching from all."""

import pytest
import scenes
import torch

from ltnet_pl.geometry import Geometry, lighting, normals_from_depth, resampled, unproject
from ltnet_pl.geometry.upsampling import Lattice
from ltnet_pl.light import Light, light_tensor

CAMERA = torch.tensor([[50.0, 35.0]])
LIGHTS = light_tensor([Light.from_name("6500_SE")])


def lattice_of(depth, size, window=None):
    """Of the pixels among points at a lower resolution."""
    sparse = resampled(depth, size)
    whole = depth if window is None else part_of(depth, window)
    crop = None if window is None else torch.tensor([window])
    texel = 2 * torch.tan(torch.deg2rad(CAMERA[:, 0]) / 2) / size[0]
    points, normals = (of(whole, CAMERA, crop) for of in (unproject, normals_from_depth))
    return Lattice.of(points, normals, unproject(sparse, CAMERA), texel, window)


def part_of(x, window):
    """A window of a tensor, whose edges are those of pixels."""
    height, width = x.shape[-2:]
    top, left, rows, columns = (round(share * side) for share, side in zip(window, (height, width) * 2, strict=True))
    return x[..., top : top + rows, left : left + columns]


def centres(size):
    return torch.meshgrid(*((torch.arange(n) + 0.5) / n for n in size), indexing="ij")


@pytest.mark.parametrize(("size", "few"), [((24, 32), (12, 16)), ((25, 31), (8, 10)), ((40, 17), (10, 4)), ((9, 9), (1, 1))])
def test_on_one_surface_it_is_bilinear(size, few):
    """What is linear in the pixel's place comes out as it was, but beyond the outermost points, where it stays constant."""
    v, u = centres(size)
    y, x = centres(few)
    ramp, values = 0.3 + 0.2 * v - 0.5 * u, (0.3 + 0.2 * y - 0.5 * x)[None, None]
    spread = lattice_of(torch.full((1, 1, *size), 2.0), few).spread(values)[0, 0]
    inner = (v >= y.min()) & (v <= y.max()) & (u >= x.min()) & (u <= x.max())
    torch.testing.assert_close(spread[inner], ramp[inner], atol=1e-5, rtol=1e-5)
    assert spread.min() >= values.min() - 1e-6
    assert spread.max() <= values.max() + 1e-6


def test_a_window_is_that_part_of_the_whole():
    size, few, window = (48, 64), (12, 16), (0.25, 0.5, 0.5, 0.25)
    depth = torch.from_numpy(scenes.stored_depth(scenes.trace(scenes.scene(5, 1), size)))[None, None]
    values = torch.rand(1, 1, *few, generator=torch.Generator().manual_seed(0))
    whole = lattice_of(depth, few).spread(values)
    # normals at the window's edges are one-sided
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(
        lattice_of(depth, few, window).spread(values)[inner], part_of(whole, window)[inner], atol=1e-4, rtol=1e-4
    )


def test_nothing_leaks_across_an_edge():
    """A near board in front of a far wall, one lit and the other not, with its edges between the points."""
    board = torch.zeros(1, 1, 48, 48, dtype=torch.bool)
    board[..., 13:31, 18:38] = True
    depth = torch.where(board, 2.0, 3.0)
    lit = (resampled(depth, (12, 12)) < 2.5).float()
    spread = lattice_of(depth, (12, 12)).spread(lit)
    assert (spread - board.float()).abs().max() < 0.01


def test_a_thing_that_no_point_stands_on_takes_what_is_around_it():
    depth = torch.full((1, 1, 16, 16), 3.0)
    depth[..., 4, 5] = 2.0
    assert (lattice_of(depth, (4, 4)).spread(torch.full((1, 1, 4, 4), 0.7)) - 0.7).abs().max() < 1e-6


@pytest.mark.parametrize("index", range(3))
def test_little_differs_from_marching_from_every_point(index, monkeypatch):
    """Ground with spheres: half the points along each side give nearly the same shadows, nearer than plain interpolation does."""
    frame = scenes.trace(scenes.scene(5, index), (192, 256))
    depth = torch.from_numpy(scenes.stored_depth(frame))[None, None]
    camera = torch.tensor([[frame.scene.camera.fov, frame.scene.camera.pitch]])
    rig = torch.tensor([[frame.scene.rig.radius, frame.scene.rig.height]])
    small = resampled(depth, (96, 128))
    whole = Geometry.of(depth, small, None, camera)
    coarse = Geometry.of(resampled(depth, (96, 128)), small, None, camera)
    behind = light_tensor([Light.from_name("6500_N")])  # the longest shadows that are seen
    every, few = ([geometry.visibility(light, rig, 16) for light in (LIGHTS, behind)] for geometry in (whole, coarse))
    monkeypatch.setattr(lighting, "MARCHED_SIDE", 128)
    some = [Geometry.of(depth, small, None, camera).visibility(light, rig, 16) for light in (LIGHTS, behind)]

    def off(found, k):
        lit = whole.shading((LIGHTS, behind)[k], rig).clamp(max=1)
        return ((found - every[k]).abs() * lit).mean()

    assert 0 < off(some[0], 0) < 0.003
    plain = torch.nn.functional.interpolate(few[1], size=every[1].shape[-2:], mode="bilinear")
    assert off(some[1], 1) < 0.85 * off(plain, 1)


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
