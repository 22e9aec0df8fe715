"""The streams: what the light stream reads, and what it takes a crop for."""

import numpy as np
import torch
from contract import analytic

from ltnet_pl.light import DIRECTIONS, MIRED_HALF_RANGE, Light, encode, planckian, to_display, to_linear
from ltnet_pl.nets.streams import ColourReading, LightStream, own_camera
from ltnet_pl.nets.tint import Tint

KELVINS = (torch.tensor([6500.0]), torch.tensor([3500.0]))


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
    torch.testing.assert_close(right, 0.25 * torch.atan(torch.tan(torch.tensor([np.pi / 6])) * 1.5 / 2).float())


def test_a_crop_reads_the_bearing_of_its_frame():
    """Left and right parts of traced scenes, matched as frames of their own, under all eight directions.

    What is read stands off by a share of the angle to the part's centre, which depends on the direction: the share that is taken
    must be its mean, and bring the readings nearer to the truth.
    """
    stream, angles, offs = LightStream(), [], []
    for index in range(10):
        for name in DIRECTIONS:
            picture, depth, camera, rig = analytic(index, f"6500_{name}")
            width = picture.shape[-1] * 2 // 3
            for left in (0, picture.shape[-1] - width):
                part = slice(left, left + width)
                crop = torch.tensor([[0.0, left / picture.shape[-1], 1.0, width / picture.shape[-1]]])
                own, yaw = own_camera(camera, crop, width / picture.shape[-2])
                scores = stream.correlations(picture[..., part], depth[..., part], own, rig)[0]
                best = int(scores.argmax())
                before, peak, after = (float(scores[(best + k) % 16]) for k in (-1, 0, 1))
                read = (best + 0.5 * (before - after) / (before - 2 * peak + after)) * 22.5
                off = (Light.from_name(f"6500_{name}").azimuth - read + 180) % 360 - 180
                if abs(off) < 45:  # another reading is wrong for another reason
                    angles.append(torch.rad2deg(yaw).item())
                    offs.append(off)
    angle, off = np.array(angles), np.array(offs)
    assert len(off) > 100
    share = (angle * off).sum() / (angle**2).sum()
    assert 0.5 < share < 1.5, share
    assert np.abs(off - angle).mean() < np.abs(off).mean()


def test_readings_are_not_rounded_by_autocast(batch):
    """What tells two directions apart are some hundredths, times a hundred: bfloat16 would round them to halves."""
    stream = LightStream(latent=0, width=8).eval()
    camera, rig = torch.tensor([[50.0, 35.0]] * 3), torch.tensor([[0.9, 0.9]] * 3)
    # no opinion, so that the correlations alone are read
    for parameter in stream.head[-1].parameters():
        parameter.data.zero_()
    given = (batch["guide"], batch["guide_depth"], camera, rig, batch["guide_crop"])
    whole, _ = stream(*given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, _ = stream(*given)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half[:, :2], whole[:, :2], rtol=0, atol=1e-6)


def test_the_colour_reading_sees_colours_alone():
    """Neither the places of the pixels nor the exposure matter; another colour temperature does."""
    reading = ColourReading().eval()
    image = 0.2 + 0.5 * torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    shuffled = image.flatten(2)[..., torch.randperm(256)].view_as(image)
    darker = to_display(0.5 * to_linear(image))
    with torch.no_grad():
        for head in (reading.whole[-1], reading.whole[1]):
            head.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(1))
        read = reading(image)
        torch.testing.assert_close(reading(shuffled), read, rtol=0, atol=1e-5)
        assert (reading(darker) - read).abs() < 0.05 * (reading(Tint()(image, *KELVINS)) - read).abs()


def test_the_colour_reading_learns_temperatures():
    """Grey pixels and coloured ones under five temperatures: read to a few mired after 150 steps, on others."""
    torch.manual_seed(0)
    reading, kelvins = ColourReading(), torch.tensor([2500.0, 3500.0, 4500.0, 5500.0, 6500.0])
    optimizer = torch.optim.AdamW(reading.parameters(), lr=2e-3)

    def scenes_under(count):
        albedo = torch.where(torch.rand(count, 1, 16, 16) < 0.7, torch.rand(count, 1, 16, 16), torch.rand(count, 3, 16, 16))
        kelvin = kelvins[torch.randint(5, (count,))]
        return to_display(albedo * planckian(kelvin)[:, :, None, None] * 0.4).clamp(0, 1), encode(kelvin[:, None].repeat(1, 2))[
            :, 2:
        ]

    for _ in range(150):
        image, truth = scenes_under(32)
        optimizer.zero_grad()
        (reading(image) - truth).abs().mean().backward()
        optimizer.step()
    image, truth = scenes_under(100)
    error = (reading(image) - truth).abs().median() * MIRED_HALF_RANGE
    assert error < 5, f"median error {error:.1f} mired"
