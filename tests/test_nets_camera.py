"""The camera that is read off depth and image: closed-form rooms first, then traced scenes."""

import math

import numpy as np
import pytest
import torch
from contract import analytic
from hypothesis import given
from hypothesis import strategies as st

from ltnet_pl.geometry import Geometry, normals_from_depth, resampled
from ltnet_pl.light import Camera, Light, light_tensor
from ltnet_pl.nets import camera
from ltnet_pl.nets.camera import CameraEstimate, correlate, reduce

ASSUMED = torch.tensor([[50.0, 35.0]])


def room(fov, pitch, size=(96, 128)):
    """Depth (1, 1, H, W) of a floor 2 below the camera and of three walls, under a camera of that field of view and pitch."""
    height, width = size
    up = np.tan(np.radians(fov) / 2)
    y = (1 - 2 * (np.arange(height) + 0.5) / height)[:, None] * up
    x = ((2 * (np.arange(width) + 0.5) / width) - 1)[None] * up * width / height
    c, s = np.cos(np.radians(pitch)), np.sin(np.radians(pitch))
    down, forth = s - y * c, c + y * s  # of the ray (x, y, -1) in the gravity frame, downwards and away from the viewer
    # the nearest of the planes that a ray runs towards, as the largest reciprocal
    reciprocal = [np.broadcast_to(towards / distance, size) for towards, distance in ((down, 2), (forth, 6), (x, 3), (-x, 3))]
    return torch.from_numpy(1 / np.maximum.reduce(reciprocal)).float()[None, None]


@given(fov=st.floats(42, 58), pitch=st.floats(14, 32))
def test_field_of_view_and_pitch_of_a_room(fov, pitch):
    """Floor and walls, where both are in view, tell both to less than a step of the grid."""
    estimate = CameraEstimate()
    found = estimate.camera(estimate.of_depth(room(fov, pitch), None, ASSUMED))[0]
    assert abs(found[0] - fov) < 3, found
    assert abs(found[1] - pitch) < 2, found


def test_scale_and_resolution_of_the_depth_do_not_matter():
    estimate, depth = CameraEstimate(), room(44.0, 28.0)
    of = [estimate.of_depth(d, None, ASSUMED) for d in (depth, 7 * depth, resampled(depth, (61, 81)))]
    torch.testing.assert_close(of[1], of[0], rtol=0, atol=1e-3)
    assert (estimate.camera(of[2]) - estimate.camera(of[0])).abs().max() < 0.5


def test_a_crop_is_seen_by_the_camera_of_its_frame():
    estimate, depth = CameraEstimate(), room(55.0, 28.0)
    crop = torch.tensor([[0.25, 0.125, 0.75, 0.75]])
    found = estimate.camera(estimate.of_depth(depth[..., 24:, 16:112], crop, ASSUMED))
    assert (found - torch.tensor([[55.0, 28.0]])).abs().max() < 1.5


@pytest.mark.parametrize("fov", [44.0, 56.0])
def test_a_floor_alone_tells_how_pitch_and_field_of_view_go_together(fov):
    """One plane cannot tell both: the prior takes the field of view, and the floor still comes out level under what is found."""
    estimate, depth = CameraEstimate(), room(fov, 58.0)
    found = estimate.camera(estimate.of_depth(depth, None, ASSUMED))
    normal = normals_from_depth(depth, found)[0, :, 90, 64].numpy()
    up = Camera(fov=float(found[0, 0]), pitch=float(found[0, 1])).rotation() @ np.array([0.0, 1.0, 0.0])
    assert np.degrees(np.arccos(normal @ up)) < 5


@pytest.mark.parametrize("assumed", [(50.0, 35.0), (44.0, 50.0)])
def test_where_nothing_is_seen_the_assumed_camera_stays(assumed):
    estimate = CameraEstimate()
    found = estimate.camera(estimate.of_depth(torch.zeros(1, 1, 40, 60), None, torch.tensor([assumed])))
    assert (found - torch.tensor([assumed])).abs().max() < 2.5, "but for the ends of the grid"


def test_the_image_tells_what_a_depth_without_walls_does_not():
    """Ground with spheres, each under a camera of its own: the light in the image brings the estimate nearer to the truth."""
    estimate, before, after = CameraEstimate(), [], []
    for index in range(6):
        picture, depth, camera, rig = analytic(index, "5500_SE")
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        batch = {"input": picture, "depth": depth, "frame_depth": depth, "crop": whole}
        scores = estimate.of_depth(depth, None, ASSUMED)
        seen = estimate.of_image(batch, light_tensor([Light.from_name("5500_SE")]), rig)
        for errors, found in ((before, scores), (after, scores + seen)):
            errors.append((estimate.camera(found) - camera).abs().mean().item())
    assert np.mean(after) < 0.8 * np.mean(before), (before, after)


def said_of_noise(estimate, depth):
    """What an image of noise says of the camera, with that depth."""
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    batch = {"input": torch.rand(1, 3, *depth.shape[-2:]), "depth": depth, "frame_depth": depth, "crop": whole}
    return estimate.of_image(batch, light_tensor([Light.from_name("5500_SE")]), torch.tensor([[0.9, 0.9]]))


@pytest.mark.parametrize(
    ("correlation", "worth"),
    [
        (0.0, 0.0),
        (-0.7, 0.0),
        (0.6, -18 * math.log(1 - 0.36)),
        (0.8, -18 * math.log(1 - 0.64)),
        (1.0, -18 * math.log(1 - 0.999**2)),
    ],
)
def test_what_a_correlation_is_worth(correlation, worth, monkeypatch):
    """The log-likelihood of 36 pixels with independent errors; a picture that is lit the wrong way round says nothing."""
    estimate, depth = CameraEstimate(), room(50.0, 30.0)
    guesses = len(estimate.coarse)
    monkeypatch.setattr(camera, "correlate", lambda *_: torch.full((1, guesses), correlation))
    found = said_of_noise(estimate, depth)
    torch.testing.assert_close(found, torch.full_like(found, worth), rtol=1e-4, atol=0)


def test_without_depth_the_image_says_nothing():
    estimate, depth = CameraEstimate(), torch.zeros(1, 1, 40, 60)
    assert (said_of_noise(estimate, depth) == 0).all()


def test_a_picture_correlates_with_its_own_light():
    """Computed under the true camera, the right light matches far better than the opposite one; no depth, no opinion."""
    picture, depth, camera, rig = analytic(0, "6500_E")
    image, depth = reduce(picture, depth, 48)
    lights = light_tensor([Light.from_name("6500_E"), Light.from_name("6500_W")])
    geometry = Geometry.of(depth, depth, None, camera).repeated(2)
    right, wrong = correlate(image, geometry, lights, rig.expand(2, 2), 12)[0]
    assert right > 0.5
    assert right > wrong + 0.3
    nothing = Geometry.of(depth * 0, depth * 0, None, camera).repeated(2)
    assert (correlate(image, nothing, lights, rig.expand(2, 2), 12) == 0).all()


def test_a_camera_is_not_rounded_by_autocast():
    """bfloat16 has eight bits, a quarter of a degree at 50."""
    estimate = CameraEstimate()
    scores = estimate.of_depth(room(47.0, 27.0), None, ASSUMED)
    whole = estimate.camera(scores)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(estimate.camera(scores), whole)
