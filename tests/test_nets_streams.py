"""The streams: what the light stream reads, and the camera's pitch off known and off traced surfaces."""

import numpy as np
import pytest
import scenes
import torch

from ltnet_pl.geometry import normals_from_depth
from ltnet_pl.light import Light
from ltnet_pl.nets.streams import LightStream, PitchEstimate, own_camera


def test_light_stream_reads_without_depth(batch):
    stream = LightStream(latent=4, width=8).eval()
    camera, rig = torch.tensor([[50.0, 35.0]] * 3), torch.tensor([[0.9, 0.9]] * 3)
    code, latent = stream(batch["guide"], torch.zeros_like(batch["guide_depth"]), camera, rig, batch["guide_crop"])
    assert code.shape == (3, 3)
    assert latent.shape == (3, 4)
    assert code.isfinite().all()


def test_correlation_points_at_the_light():
    """On analytic scenes with their true camera the best-matching of 16 directions is the true one, or a neighbour."""
    stream, hits = LightStream(), []
    for index in range(4):
        for name in ("6500_E", "6500_SW", "6500_W", "6500_SE"):
            best = float(stream.correlations(*analytic(index, name)).argmax()) * 22.5
            hits.append(abs((best - Light.from_name(name).azimuth + 180) % 360 - 180) <= 22.5)
    assert np.mean(hits) >= 0.9


def analytic(index, name, size=(64, 80)):
    """Image, depth, camera and rig tensors of an analytic scene under one light."""
    frame = scenes.trace(scenes.scene(5, index), size)
    camera, rig = frame.scene.camera, frame.scene.rig
    picture = torch.from_numpy(scenes.picture(frame, Light.from_name(name))).permute(2, 0, 1)[None].float() / 255
    depth = torch.from_numpy(scenes.stored_depth(frame))[None, None]
    return picture, depth, torch.tensor([[camera.fov, camera.pitch]]), torch.tensor([[rig.radius, rig.height]])


@pytest.mark.parametrize("pitch", [15.0, 32.0, 55.0])
def test_pitch_is_read_off_ground_and_walls(pitch):
    """A floor and a wall that meet, seen under a known pitch; without depth the assumed pitch stays."""
    up = np.array([0.0, np.cos(np.radians(pitch)), np.sin(np.radians(pitch))])
    back = np.array([0.0, -np.sin(np.radians(pitch)), np.cos(np.radians(pitch))])
    normals = torch.from_numpy(np.where(np.arange(40)[None, :, None] < 15, back[:, None, None], up[:, None, None])).float()
    estimate, assumed = PitchEstimate(), torch.tensor([44.0])
    found = estimate(normals.expand(3, 40, 60)[None], assumed)
    assert abs(found.item() - pitch) < estimate.step / 2
    assert estimate(torch.zeros(1, 3, 40, 60), assumed) == assumed


def test_pitch_is_read_off_analytic_scenes():
    """Terrain and things on it, each seen by a camera of its own: nearer to the truth than any one assumed pitch."""
    estimate, errors, pitches = PitchEstimate(), [], []
    for index in range(8):
        _, depth, camera, _ = analytic(index, "6500_E")
        found = estimate(normals_from_depth(depth, camera), camera[:, 1] * 0 + 90)
        errors.append((found - camera[:, 1]).abs().item())
        pitches.append(camera[0, 1].item())
    assert np.mean(errors) < 0.6 * np.mean(np.abs(np.array(pitches) - np.median(pitches)))


def test_own_camera_of_a_crop():
    """The whole frame is its own camera; the lower half looks further down, the right half to the right."""
    camera = torch.tensor([[60.0, 30.0]])
    same, yaw = own_camera(camera, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), 1.5)
    torch.testing.assert_close(same, camera)
    assert yaw.item() == 0
    lower, _ = own_camera(camera, torch.tensor([[0.5, 0.0, 0.5, 1.0]]), 3.0)
    half = np.degrees(np.arctan(np.tan(np.radians(30)) / 2))
    torch.testing.assert_close(lower, torch.tensor([[2 * half, 30.0 + half]], dtype=torch.float32))
    _, right = own_camera(camera, torch.tensor([[0.0, 0.5, 1.0, 0.5]]), 0.75)
    torch.testing.assert_close(right, torch.atan(torch.tan(torch.tensor([np.pi / 6])) * 1.5 / 2).float())
