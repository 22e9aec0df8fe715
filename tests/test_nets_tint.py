"""The tint: a ratio of black bodies at the start, and what a camera adds once it has learned it."""

import numpy as np
import torch
from nets_small import awake

from ltnet_pl.light import black_body, srgb_to_linear, to_display, to_linear
from ltnet_pl.nets.tint import Tint


def test_a_tint_is_the_ratio_of_black_bodies():
    """In linear light; there and back is the identity where nothing clips, and the same temperature changes no bit."""
    tint, image = Tint().requires_grad_(False), torch.rand(1, 3, 4, 5) * 0.6
    warm, cold = torch.tensor([2500.0]), torch.tensor([6500.0])
    ratio = srgb_to_linear(tint(image, cold, warm).numpy()) / srgb_to_linear(image.numpy())
    expected = black_body(2500.0) / black_body(6500.0)
    np.testing.assert_allclose(ratio, np.broadcast_to(expected[None, :, None, None], ratio.shape), rtol=1e-3)
    torch.testing.assert_close(tint(tint(image, cold, warm), warm, cold), image, atol=1e-5, rtol=1e-4)
    assert torch.equal(tint(image, warm, warm), image)


def test_a_clipped_highlight_stays_white():
    """A factor per channel would turn white into the ratio's colour; what does not clip gets just that."""
    tint = Tint().requires_grad_(False)
    image = torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [1.0, 0.3, 0.1]]).T[None, :, None]
    white, grey, warm = tint(image, torch.tensor([6500.0]), torch.tensor([2500.0]))[0, :, 0].T
    assert white.max() == white.min() > 1
    assert grey[0] > 1.3 * grey[1] > 2 * grey[2]
    assert warm[0] > warm[1] > warm[2]


def test_whatever_is_learned_there_and_back_is_the_identity():
    tint, image = awake(Tint()).requires_grad_(False), torch.rand(2, 3, 4, 5) * 0.5
    warm, cold = torch.tensor([2500.0, 3500.0]), torch.tensor([6500.0, 2700.0])
    there = tint(image, cold, warm)
    assert (there - Tint()(image, cold, warm)).abs().max() > 1e-3
    torch.testing.assert_close(tint(there, warm, cold), image, atol=1e-5, rtol=1e-4)
    assert torch.equal(tint(image, warm, warm), image)


def test_a_camera_s_own_white_is_learned():
    """Pictures of a camera whose colours change less than black bodies do: the tint is off at the start, and right in the end."""
    torch.manual_seed(0)
    tint = Tint()
    optimizer = torch.optim.Adam(tint.parameters(), lr=1e-2)

    def pictures(count):
        kelvins = torch.randint(2500, 6501, (2, count)).float()
        ratio = np.stack([(black_body(float(b)) / black_body(float(a))) ** 0.6 for a, b in kelvins.T])
        image = torch.rand(count, 3, 4, 4) * 0.5
        wanted = to_display(to_linear(image) * torch.from_numpy(ratio).float()[:, :, None, None])
        return image, kelvins, wanted

    image, kelvins, wanted = pictures(64)
    before = (tint(image, *kelvins) - wanted).abs().mean().item()
    for _ in range(200):
        image, kelvins, wanted = pictures(16)
        optimizer.zero_grad()
        (tint(image, *kelvins) - wanted).abs().mean().backward()
        optimizer.step()
    image, kelvins, wanted = pictures(64)
    assert (tint(image, *kelvins) - wanted).abs().mean().item() < 0.15 * before
