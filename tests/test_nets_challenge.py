"""The challenge entry's recipe: its published size, what it sees, and what every network must keep to."""

import pytest
import torch
from test_nets import awake, part, resized
from torch.utils.flop_counter import FlopCounterMode

from ltnet_pl import InputError
from ltnet_pl.light import Camera, Light, light_tensor
from ltnet_pl.nets import Challenge2021

FORMS = {"any-to-any": True, "one-to-one": False}


@pytest.fixture(scope="module", params=FORMS.values(), ids=FORMS.keys())
def net(request):
    torch.manual_seed(0)
    return awake(Challenge2021(lights=request.param))


@pytest.mark.parametrize("size", [(37, 50), (33, 21), (16, 64), (5, 3)])
def test_any_size(net, size, batch):
    out = net(resized(batch, size))
    assert out.keys() == {"relit"}
    assert out["relit"].shape == (3, 3, *size)
    assert out["relit"].isfinite().all()


def test_samples_do_not_mix(net, batch):
    torch.testing.assert_close(net(batch)["relit"][1:2], net(part(batch, [1]))["relit"], atol=2e-5, rtol=1e-4)


def test_gradients_reach_every_parameter(net, batch):
    net.zero_grad()
    (net(batch)["relit"] - batch["target"]).square().sum().backward()
    dead = [key for key, p in net.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert not dead


@pytest.mark.parametrize("lights", FORMS.values(), ids=FORMS.keys())
def test_starts_as_a_copy(lights, batch):
    torch.testing.assert_close(Challenge2021(lights=lights)(batch)["relit"], batch["input"])


def test_size_is_the_published_one():
    """1.07 M parameters and 84.5 G multiply-adds at 1024x1024, both of the one-to-one form; counted without computing."""
    net = Challenge2021(lights=False)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(1.07e6, rel=0.05)
    shapes = {"input": (3, 1024, 1024), "depth": (1, 1024, 1024), "frame_depth": (1, 96, 96), "crop": (4,)}
    with FlopCounterMode(display=False) as counter:
        net.to("meta")({key: torch.empty(1, *shape, device="meta") for key, shape in shapes.items()})
    assert counter.get_total_flops() / 2 == pytest.approx(84.5e9, rel=0.10)
    more = sum(p.numel() for p in Challenge2021().parameters()) - sum(p.numel() for p in net.parameters())
    assert more == 6 * 16 * 9  # six more channels into the first 3x3 convolution of 16


def test_lights_steer(batch):
    net = awake(Challenge2021())
    base = net(batch)["relit"]
    for key in ("input_light", "target_light"):
        turned = net({**batch, key: light_tensor([Light(200.0, 3000.0)] * 3)})["relit"]
        assert (turned - base).abs().amax(dim=(1, 2, 3)).min() > 1e-5
    assert net.light == "label"


def test_the_one_to_one_form_needs_no_lights(batch):
    net = awake(Challenge2021(lights=False))
    unknown = torch.full((3, 2), torch.nan)
    torch.testing.assert_close(net({**batch, "input_light": unknown, "target_light": unknown})["relit"], net(batch)["relit"])
    assert net.light is None


@pytest.mark.parametrize("key", ["input_light", "target_light"])
def test_unknown_lights_are_refused(key, batch):
    with pytest.raises(InputError, match="Challenge2021 needs labelled lights, but the batch's input or target light is unknown"):
        Challenge2021()({**batch, key: torch.full((3, 2), torch.nan)})


def test_geometry_is_relative_depth_inverted_depth_and_normals(batch):
    """Depth relative to the frame's farthest point, wherever the crop lies; background is 0 in every channel."""
    depth = batch["depth"].clone()
    depth[:, :, :5] = 0
    frame = batch["frame_depth"].clone()
    frame[0, 0, 0, 0] = 2 * depth[0].max()  # farther than anything in the crop
    seen = Challenge2021()._geometry({**batch, "depth": depth, "frame_depth": frame})
    valid = depth > 0
    farthest = torch.maximum(depth.amax(dim=(1, 2, 3), keepdim=True), frame.amax(dim=(1, 2, 3), keepdim=True))
    assert seen[0, 0].max() == 0.5
    torch.testing.assert_close(seen[:, :1] * farthest, depth)
    torch.testing.assert_close((seen[:, :1] + seen[:, 1:2])[valid], torch.ones(int(valid.sum())))
    torch.testing.assert_close(seen[:, 2:].norm(dim=1, keepdim=True), valid.float())
    assert seen[:, :, :5].abs().max() == 0


def test_neither_scale_nor_absence_of_depth_breaks_it(net, batch):
    scaled = {**batch, "depth": batch["depth"] * 1e3, "frame_depth": batch["frame_depth"] * 1e3}
    torch.testing.assert_close(net(scaled)["relit"], net(batch)["relit"], atol=1e-4, rtol=1e-3)
    absent = {**batch, "depth": torch.zeros_like(batch["depth"]), "frame_depth": torch.zeros_like(batch["frame_depth"])}
    assert net(absent)["relit"].isfinite().all()


def test_the_assumed_camera_matters(batch):
    relit = [awake(Challenge2021(lights=False, camera=camera)) for camera in (Camera(40, 20), Camera(60, 20))]
    relit[1].load_state_dict(relit[0].state_dict())
    assert (relit[0](batch)["relit"] - relit[1](batch)["relit"]).abs().max() > 1e-5
