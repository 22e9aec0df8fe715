"""Baselines: what they refuse, and that the closed-form one finds known answers."""

import pytest
import torch
from test_nets import awake, part

from ltnet_pl import InputError
from ltnet_pl.light import Light, encode, light_tensor
from ltnet_pl.nets import ColorAffine, UNet


def test_baselines_refuse(batch):
    with pytest.raises(InputError, match="output is 'both'"):
        UNet(output="both")
    with pytest.raises(InputError, match=r"--model\.net\.init_args\.widths is \[8, -4\]; expected one or more positive"):
        UNet(widths=[8, -4])
    with pytest.raises(InputError, match="expected a positive number of images"):
        ColorAffine(prior_images=0)
    unknown = {**batch, "input_light": torch.full((3, 2), torch.nan)}
    for net in (UNet(widths=(8, 12)), ColorAffine()):
        with pytest.raises(InputError, match="needs labelled lights"):
            net(unknown)
    with pytest.raises(InputError, match="has seen no training pair"):
        ColorAffine().solve()


def test_color_affine_recovers_a_known_transform(batch):
    """Targets made by one affine map: after many images the prior is forgotten and the map is found."""
    net = ColorAffine(prior_images=1e-6)
    matrix = torch.tensor([[0.5, 0.1, 0.0], [0.0, 0.6, 0.2], [0.1, 0.0, 0.9], [0.05, -0.02, 0.01]])
    image = torch.rand(3, 3, 20, 20)
    target = torch.einsum("bchw,cd->bdhw", torch.cat([image, torch.ones(3, 1, 20, 20)], dim=1), matrix)
    pairs = {**batch, "input": image, "target": target}
    net.observe(pairs)
    net.solve()
    torch.testing.assert_close(net(pairs)["relit"], target, atol=1e-4, rtol=1e-4)


def test_color_affine_falls_back_for_unseen_pairs(batch):
    """A pair never seen takes the transform of the pairs with its temperatures; unseen temperatures stay near a copy."""
    net = ColorAffine()
    first = part(batch, [0])
    for _ in range(200):
        net.observe({**first, "target": first["input"] * 0.5})
    net.solve()
    elsewhere = {**first, "input_light": light_tensor([Light(180.0, 6500.0)]), "target_light": light_tensor([Light(0.0, 4500.0)])}
    torch.testing.assert_close(net(elsewhere)["relit"], first["input"] * 0.5, atol=0.02, rtol=0.05)
    other = {**first, "input_light": light_tensor([Light(180.0, 2500.0)]), "target_light": light_tensor([Light(0.0, 2500.0)])}
    torch.testing.assert_close(net(other)["relit"], first["input"])


def test_unet_sees_the_labels(batch):
    net = awake(UNet(widths=(8, 12, 16)))
    turned = {**batch, "target_light": light_tensor([Light(200.0, 3000.0)] * 3)}
    assert (net(turned)["relit"] - net(batch)["relit"]).abs().max() > 1e-5
    assert encode(turned["target_light"]).shape == (3, 3)
