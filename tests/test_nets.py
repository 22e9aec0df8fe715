"""Networks: the batch contract, sizes, independence of samples, gradients, and that every switch does something."""

import pytest
import torch
from nets_small import SMALL, awake, part

from ltnet_pl import InputError
from ltnet_pl.light import Camera, Rig
from ltnet_pl.nets import ColorAffine, CopyInput, LTNet, UNet
from ltnet_pl.nets.blocks import Backbone
from ltnet_pl.nets.fields import BilateralField, Field
from ltnet_pl.nets.tint import Tint

NETS = {
    "residual": lambda: LTNet(**SMALL, field="residual"),
    "affine": lambda: LTNet(**SMALL, field="affine"),
    "gain": lambda: LTNet(**SMALL, field="gain"),
    "direct field": lambda: LTNet(**SMALL, field="direct"),
    "bilateral": lambda: LTNet(**SMALL, field="bilateral"),
    "unfolded": lambda: LTNet(**SMALL, fold=1),
    "folded by 3": lambda: LTNet(**SMALL, fold=3),
    "attention": lambda: LTNet(**SMALL, interaction="attention"),
    "concat": lambda: LTNet(**SMALL, interaction="concat"),
    "two streams": lambda: LTNet(**SMALL, streams=2, latent=4),
    "label": lambda: LTNet(**SMALL, light="label"),
    "plain": lambda: LTNet(**SMALL, cues="none"),
    "no depth": lambda: LTNet(**SMALL, cues="none", use_depth=False),
    "unet": lambda: UNet(widths=(8, 12, 16)),
    "direct": lambda: UNet(widths=(8, 12, 16), output="direct"),
    "copy": CopyInput,
    "affine colours": ColorAffine,
}


def resized(batch, size):
    """The batch at another size, windows unchanged."""
    out = dict(batch)
    for key in ("input", "target", "guide", "depth", "guide_depth"):
        out[key] = torch.nn.functional.interpolate(batch[key], size=size, mode="nearest-exact")
    return out


@pytest.mark.parametrize("make", NETS.values(), ids=NETS.keys())
@pytest.mark.parametrize("size", [(37, 50), (33, 21), (16, 64)])
def test_any_size(make, size, batch):
    out = awake(make())(resized(batch, size))
    assert out["relit"].shape == (3, 3, *size)
    assert out["relit"].isfinite().all()


@pytest.mark.parametrize("make", NETS.values(), ids=NETS.keys())
def test_samples_do_not_mix(make, batch):
    net = awake(make())
    whole = net(batch)["relit"]
    alone = net(part(batch, [1]))["relit"]
    torch.testing.assert_close(whole[1:2], alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("field", ["residual", "gain", "affine", "bilateral"])
def test_starts_as_a_copy(field, batch):
    """The global residual connection: before training, every field returns the input, in the wanted colour temperature."""
    start = {**SMALL, "field": field, "light": "label"}
    torch.testing.assert_close(LTNet(**start, tint=False).eval()(batch)["relit"], batch["input"])
    kelvins = batch["input_light"][:, 1], batch["target_light"][:, 1]
    assert (kelvins[0] != kelvins[1]).any()
    torch.testing.assert_close(LTNet(**start).eval()(batch)["relit"], Tint()(batch["input"], *kelvins))


@pytest.mark.parametrize("field", ["residual", "gain", "affine", "bilateral"])
def test_the_light_that_is_there_changes_nothing(field, batch):
    """Whatever the weights; and a small change of light makes a small change."""
    net = awake(LTNet(**SMALL, field=field, light="label"))
    same = {**batch, "target_light": batch["input_light"]}
    assert torch.equal(net(same)["relit"], batch["input"])
    near = {**batch, "target_light": batch["input_light"] + torch.tensor([1.0, 0.0])}
    far = {**batch, "target_light": batch["input_light"] + torch.tensor([20.0, 0.0])}
    small, large = ((net(b)["relit"] - batch["input"]).abs().mean() for b in (near, far))
    assert 0 < small < 0.1 * large


@pytest.mark.parametrize(
    "name",
    ["residual", "affine", "gain", "bilateral", "attention", "concat", "two streams", "plain", "no depth", "unet", "direct"],
)
def test_gradients_reach_every_parameter(name, batch):
    net = awake(NETS[name]())
    out = net(batch)
    loss = (out["relit"] - batch["target"]).square().sum() + sum(out[k].square().sum() for k in out if k.endswith("code"))
    loss.backward()
    dead = [key for key, p in net.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert not dead


def test_fields_are_their_formulas():
    """Residual adds, affine scales by e^g (nearly, for small g) and adds."""
    image, features, seen = torch.rand(2, 3, 5, 6), torch.zeros(2, 4, 5, 6), torch.zeros(2, 2, 5, 6)
    residual, affine = Field("residual", 4, 2), Field("affine", 4, 2)
    residual.head.bias.data = torch.tensor([0.1, -0.2, 0.3])
    relit, field = residual(features, image, seen)
    torch.testing.assert_close(relit, image + torch.tensor([0.1, -0.2, 0.3])[:, None, None])
    assert field.shape == (2, 3, 5, 6)
    affine.head.bias.data = torch.tensor([0.2, 0.0, -0.3, 0.0, 0.05, 0.0])
    relit, field = affine(features, image, seen)
    expected = image * torch.tensor([0.2, 0.0, -0.3]).exp()[:, None, None] + torch.tensor([0.0, 0.05, 0.0])[:, None, None]
    torch.testing.assert_close(relit, expected, rtol=2e-3, atol=1e-4)
    assert field.shape == (2, 6, 5, 6)


def test_a_feature_spreads_over_its_pixels():
    """Each feature stands for 2 x 2 pixels, each with channels of its own, and an odd rim is cut off."""
    field = Field("residual", 4, 1, fold=2, spread=1, hidden=1)
    with torch.no_grad():
        field.spread.bias[:] = torch.tensor([4.0, 5.0, 6.0, 7.0]) * 10  # far enough out for SiLU to be the identity
        field.merge.weight[:], field.merge.bias[:] = torch.tensor([1.0, 0.0])[None, :, None, None], 0.0
        field.head.weight[1, 0, 1, 1] = 0.1
    relit, _ = field(torch.zeros(1, 4, 2, 3), torch.zeros(1, 3, 3, 5), torch.rand(1, 1, 3, 5))
    expected = torch.tensor([[4.0, 5, 4, 5, 4], [6, 7, 6, 7, 6], [4, 5, 4, 5, 4]])
    torch.testing.assert_close(relit[0, 1], expected)


def test_folding_loses_nothing():
    """A stem that picks one folded channel gives back the pixels of that place."""
    backbone = Backbone(1, (4,), fold=2)
    image = torch.arange(24.0).view(1, 1, 4, 6)
    backbone.stem.weight.data.zero_()
    backbone.stem.bias.data.zero_()
    backbone.stem.weight.data[0, 3] = 1.0
    seen = []
    backbone.stem.register_forward_hook(lambda module, given, out: seen.append(out[0, 0]))
    backbone(image)
    assert torch.equal(seen[0], image[0, 0, 1::2, 1::2])


def test_a_bilateral_grid_is_sliced_by_its_guide():
    """Offsets that grow along the guide come out where the guide is high, at full resolution; a flat guide sees one bin."""
    field = BilateralField(in_channels=4, guide_channels=1, cues=False, bins=3)
    with torch.no_grad():
        field.head.bias.view(6, 3)[3:] = torch.tensor([-1.0, 0.0, 1.0])
        # the guide becomes a steep function of what it sees: -1 left, +1 right
        field.guide[0].weight.zero_()
        field.guide[0].bias.zero_()
        field.guide[0].weight[0], field.guide[2].weight[:] = 50.0, 0.0
        field.guide[2].weight[0, 0], field.guide[2].bias[:] = 10.0, -5.0
    seen = torch.zeros(1, 1, 6, 8)
    seen[..., 4:] = 1.0
    relit, sliced = field(torch.zeros(1, 4, 2, 2), torch.full((1, 3, 6, 8), 0.25), seen)
    assert sliced.shape == (1, 6, 6, 8)
    torch.testing.assert_close(relit[..., :4], torch.full((1, 3, 6, 4), 0.25 - 1.0))
    torch.testing.assert_close(relit[..., 4:], torch.full((1, 3, 6, 4), 0.25 + 1.0))


def test_a_bilateral_field_can_follow_the_cues():
    """Its result can be the input times the predicted change of light, plus the predicted light."""
    field = BilateralField(in_channels=4, guide_channels=3, cues=True, bins=2)
    image, seen = torch.rand(1, 3, 6, 8), torch.rand(1, 3, 6, 8)
    features = torch.zeros(1, 4, 2, 2)
    assert torch.equal(field(features, image, seen)[0], image), "it starts neutral"
    with torch.no_grad():
        for row, value in ((0, -1.0), (2, 1.0), (3, 0.5)):
            field.head.bias.view(4, 3, 2)[row] = value
    expected = image * seen[:, 2:].exp() + 0.5 * seen[:, 1:2]
    torch.testing.assert_close(field(features, image, seen)[0], expected)


def test_a_black_pixel_can_be_lit():
    affine = Field("affine", 4, 1)
    affine.head.bias.data = torch.tensor([0.0, 0.0, 0.0, 0.4, 0.4, 0.4])
    relit, _ = affine(torch.zeros(1, 4, 2, 2), torch.zeros(1, 3, 2, 2), torch.zeros(1, 1, 2, 2))
    torch.testing.assert_close(relit, torch.full((1, 3, 2, 2), 0.4))


SWITCHES = {
    "field": ({"field": "residual"}, {"field": "affine"}),
    "gain": ({"field": "gain"}, {"field": "affine"}),
    "direct": ({"field": "direct"}, {"field": "residual"}),
    "fold": ({"fold": 1}, {"fold": 2}),
    "interaction": ({"interaction": "film"}, {"interaction": "concat"}),
    "attention": ({"interaction": "film"}, {"interaction": "attention"}),
    "tint": ({"tint": True}, {"tint": False}),
    "streams": ({"streams": 1}, {"streams": 2}),
    "shading cue": ({"cues": "none"}, {"cues": "shading"}),
    "visibility cue": ({"cues": "shading"}, {"cues": "visibility"}),
    "use_depth": ({"cues": "none", "use_depth": True}, {"cues": "none", "use_depth": False}),
    "light": ({"light": "guide"}, {"light": "label"}),
    "latent": ({"latent": 8}, {"latent": 0}),
    "match": ({"match": True}, {"match": False}),
    "steps": ({"steps": 4}, {"steps": 24}),
    "camera": ({"camera": Camera(40, 20)}, {"camera": Camera(60, 60)}),
    "rig": ({"rig": Rig(1.5, 0.3)}, {"rig": Rig(0.4, 1.2)}),
    "estimated camera": ({"camera_from": "assumed"}, {"camera_from": "estimated"}),
    "true camera": ({"camera_from": "assumed"}, {"camera_from": "true"}),
    "widths": ({"widths": (8, 12)}, {"widths": (8, 12, 16)}),
    "light_width": ({"light_width": 8}, {"light_width": 16}),
}


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES.keys())
def test_flipping_a_switch_changes_output_and_gradient(switch, batch):
    """With the same random weights wherever the shapes agree, so that the switch alone makes the difference."""
    outputs, gradients, previous = [], [], None
    for arguments in switch:
        torch.manual_seed(0)
        net = awake(LTNet(**{**SMALL, **arguments}))
        if previous is not None:
            own = net.state_dict()
            common = {k: v for k, v in previous.state_dict().items() if k in own and own[k].shape == v.shape}
            net.load_state_dict(common, strict=False)
        previous = net
        relit = net(batch)["relit"]
        (relit - batch["target"]).square().mean().backward()
        outputs.append(relit.detach())
        gradients.append(net.field.head.weight.grad[:3].clone())
    assert (outputs[0] - outputs[1]).abs().max() > 1e-5
    assert (gradients[0] - gradients[1]).abs().max() > 1e-7


@pytest.mark.parametrize("field", ["affine", "bilateral"])
def test_half_precision_agrees(field, batch):
    """Under autocast to bfloat16 the relit image stays within the rounding of that format: the cues are computed in float32."""
    net = awake(LTNet(**SMALL, field=field, light="label"))
    whole = net(batch)["relit"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net(batch)["relit"].float()
    assert (whole - batch["input"]).abs().mean() > 0.02
    # eight bits of mantissa, and a few layers that add their errors up
    assert (half - whole).square().mean().sqrt() < 0.01


def test_depth_scale_does_not_matter(batch):
    net = awake(LTNet(**SMALL, light="label"))
    # a power of two scales floats exactly, so that the results must be as near as floats get
    scaled = {**batch, "depth": batch["depth"] * 32.0, "frame_depth": batch["frame_depth"] * 32.0}
    torch.testing.assert_close(net(scaled)["relit"], net(batch)["relit"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"field": "gian"}, "field is 'gian'; expected one of direct, residual, gain, affine, bilateral"),
        ({"cues": "shadow"}, "cues is 'shadow'; expected one of none, shading, visibility"),
        ({"light": "lamp"}, "light is 'lamp'; expected one of guide, label"),
        ({"use_depth": False}, "cues are computed from depth: set cues to none"),
        ({"camera_from": "exif"}, "camera_from is 'exif'; expected one of assumed, estimated, true"),
        ({"label_dropout": 1.5}, "label_dropout is 1.5; expected a share"),
        ({"latent": -1}, r"--model\.net\.init_args\.latent is -1; expected 0 or more"),
        ({"light_width": 0}, r"--model\.net\.init_args\.light_width is 0; expected 1 or more"),
        ({"streams": 3}, r"--model\.net\.init_args\.streams is 3; expected 1 or 2"),
        ({"fold": 0}, r"--model\.net\.init_args\.fold is 0; expected 1 or more"),
        ({"interaction": "add"}, r"--model\.net\.init_args\.interaction is 'add'; expected one of concat, film, attention"),
        ({"steps": 0}, r"--model\.net\.init_args\.steps is 0; expected 1 or more"),
        ({"steps": 0, "cues": "none"}, r"--model\.net\.init_args\.steps is 0"),
        ({"widths": ()}, r"--model\.net\.init_args\.widths is \[\]; expected one or more positive numbers of channels"),
        ({"widths": (8, 0)}, r"--model\.net\.init_args\.widths is \[8, 0\]; expected one or more positive"),
    ],
)
def test_ltnet_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        LTNet(**arguments)
