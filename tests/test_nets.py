"""Networks: the batch contract, sizes, independence of samples, gradients, and that every switch does something."""

import numpy as np
import pytest
import scenes
import torch

from ltnet_pl import InputError
from ltnet_pl.light import Camera, Light, Rig, encode, light_tensor
from ltnet_pl.nets import ColorAffine, CopyInput, LTNet, UNet
from ltnet_pl.nets.fields import Field
from ltnet_pl.nets.streams import LightStream, own_camera

SMALL = {"widths": (8, 12, 16), "steps": 12, "light_width": 8}
NETS = {
    "residual": lambda: LTNet(**SMALL, field="residual"),
    "affine": lambda: LTNet(**SMALL, field="affine"),
    "label": lambda: LTNet(**SMALL, light="label"),
    "plain": lambda: LTNet(**SMALL, cues="none"),
    "no depth": lambda: LTNet(**SMALL, cues="none", use_depth=False),
    "unet": lambda: UNet(widths=(8, 12, 16)),
    "direct": lambda: UNet(widths=(8, 12, 16), output="direct"),
    "copy": CopyInput,
    "affine colours": ColorAffine,
}


def awake(net):
    """A network whose zero-initialised layers are random, so that everything upstream shows in the output."""
    generator = torch.Generator().manual_seed(3)
    for parameter in net.parameters():
        if parameter.abs().sum() == 0:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    return net.eval()


def part(batch, rows):
    return {key: value[rows] if torch.is_tensor(value) else [value[i] for i in rows] for key, value in batch.items()}


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


@pytest.mark.parametrize("name", ["residual", "affine"])
def test_starts_as_a_copy(name, batch):
    """The global residual connection: before training, every field kind returns the input."""
    torch.testing.assert_close(NETS[name]().eval()(batch)["relit"], batch["input"])


@pytest.mark.parametrize("name", ["residual", "affine", "plain", "no depth", "unet", "direct"])
def test_gradients_reach_every_parameter(name, batch):
    net = awake(NETS[name]())
    out = net(batch)
    loss = (out["relit"] - batch["target"]).square().sum() + sum(out[k].square().sum() for k in out if k.endswith("code"))
    loss.backward()
    dead = [key for key, p in net.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert not dead


def test_fields_are_their_formulas():
    """Residual adds, affine scales by e^g (nearly, for small g) and adds."""
    image, features = torch.rand(2, 3, 5, 6), torch.zeros(2, 4, 5, 6)
    residual, affine = Field("residual", 4), Field("affine", 4)
    residual.head.bias.data = torch.tensor([0.1, -0.2, 0.3])
    relit, field = residual(features, image)
    torch.testing.assert_close(relit, image + torch.tensor([0.1, -0.2, 0.3])[:, None, None])
    assert field.shape == (2, 3, 5, 6)
    affine.head.bias.data = torch.tensor([0.2, 0.0, -0.3, 0.0, 0.05, 0.0])
    relit, field = affine(features, image)
    expected = image * torch.tensor([0.2, 0.0, -0.3]).exp()[:, None, None] + torch.tensor([0.0, 0.05, 0.0])[:, None, None]
    torch.testing.assert_close(relit, expected, rtol=2e-3, atol=1e-4)
    assert field.shape == (2, 6, 5, 6)


def test_a_black_pixel_can_be_lit():
    affine = Field("affine", 4)
    affine.head.bias.data = torch.tensor([0.0, 0.0, 0.0, 0.4, 0.4, 0.4])
    relit, _ = affine(torch.zeros(1, 4, 2, 2), torch.zeros(1, 3, 2, 2))
    torch.testing.assert_close(relit, torch.full((1, 3, 2, 2), 0.4))


SWITCHES = {
    "field": ({"field": "residual"}, {"field": "affine"}),
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


def test_label_dropout_decides_what_training_reads(batch):
    """With every label dropped the lights are read, so labels do not matter; with none dropped the guide does not.

    The third guide has no depth: its label is taken all the same.
    """
    other_labels = {**batch, "target_light": light_tensor([Light(200.0, 3000.0)] * 3)}
    other_guide = {**batch, "guide": 1 - batch["guide"]}

    def relit(dropout, using):
        return awake(LTNet(**SMALL, label_dropout=dropout)).train()(using)["relit"]

    for dropout, same, different in ((1.0, other_labels, other_guide), (0.0, other_guide, other_labels)):
        torch.manual_seed(0)
        base = relit(dropout, batch)
        torch.manual_seed(0)
        torch.testing.assert_close(relit(dropout, same)[:2], base[:2])
        torch.manual_seed(0)
        assert (relit(dropout, different) - base)[:2].abs().amax(dim=(1, 2, 3)).min() > 1e-5
    torch.manual_seed(0)
    turned = relit(1.0, other_labels)
    torch.manual_seed(0)
    assert (turned - relit(1.0, batch))[2].abs().max() > 1e-5


def test_labels_steer_and_unknown_labels_fall_back_to_the_reading(batch):
    net = awake(LTNet(**SMALL, light="label"))
    base = net(batch)["relit"]
    turned = {**batch, "target_light": light_tensor([Light(200.0, 3000.0)] * 3)}
    assert (net(turned)["relit"] - base).abs().amax(dim=(1, 2, 3)).min() > 1e-5
    unknown = {**batch, "target_light": torch.full((3, 2), torch.nan), "input_light": torch.full((3, 2), torch.nan)}
    net.light = "label"
    by_label = net(unknown)["relit"]
    net.light = "guide"
    torch.testing.assert_close(by_label, net(batch)["relit"])


def test_elevation_and_ambient_reach_the_cues(batch):
    net = awake(LTNet(**SMALL, light="label"))
    lights = [Light(90.0, 4500.0), Light(90.0, 4500.0, elevation=80.0), Light(90.0, 4500.0, ambient=0.9)]
    results = [net({**part(batch, [0]), "target_light": light_tensor([light])})["relit"] for light in lights]
    assert (results[0] - results[1]).abs().max() > 1e-5
    assert (results[0] - results[2]).abs().max() > 1e-5


def test_no_guide_needs_a_given_light(batch):
    net = awake(LTNet(**SMALL))
    bare = {key: value for key, value in batch.items() if not key.startswith("guide")}
    out = net(bare)
    assert "guide_code" not in out
    assert out["relit"].isfinite().all()
    with pytest.raises(InputError, match="the wanted light is unknown"):
        net({**bare, "target_light": torch.full((3, 2), torch.nan)})


def test_depth_scale_does_not_matter(batch):
    net = awake(LTNet(**SMALL, light="label"))
    # a power of two scales floats exactly, so that the results must be as near as floats get
    scaled = {**batch, "depth": batch["depth"] * 32.0, "frame_depth": batch["frame_depth"] * 32.0}
    torch.testing.assert_close(net(scaled)["relit"], net(batch)["relit"])


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


def test_pitch_is_found_from_a_wrong_start():
    """Started 12 degrees off, the estimate comes nearer to the true pitch on average, and stays put without depth."""
    stream, whole = LightStream(), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    before, after = [], []
    for index in range(6):
        for name, off in (("6500_E", 12.0), ("6500_SW", -12.0), ("6500_NW", 12.0)):
            image, depth, camera, rig = analytic(index, name)
            start = camera + torch.tensor([0.0, off])
            found = stream.pitch(image, depth, start, rig, whole)
            before.append(12.0)
            after.append((found - camera[:, 1]).abs().item())
            assert (found - start[:, 1]).abs() <= stream.pitch_span
            torch.testing.assert_close(stream.pitch(image, torch.zeros_like(depth), start, rig, whole), start[:, 1])
    assert np.mean(after) < 0.7 * np.mean(before)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"field": "gian"}, "field is 'gian'; expected one of residual, affine"),
        ({"cues": "shadow"}, "cues is 'shadow'; expected one of none, shading, visibility"),
        ({"light": "lamp"}, "light is 'lamp'; expected one of guide, label"),
        ({"use_depth": False}, "cues are computed from depth: set cues to none"),
        ({"camera_from": "exif"}, "camera_from is 'exif'; expected one of assumed, estimated, true"),
        ({"label_dropout": 1.5}, "label_dropout is 1.5; expected a share"),
        ({"latent": -1}, r"--model\.net\.init_args\.latent is -1; expected 0 or more"),
        ({"light_width": 0}, r"--model\.net\.init_args\.light_width is 0; expected 1 or more"),
        ({"steps": 0}, r"--model\.net\.init_args\.steps is 0; expected 1 or more"),
        ({"steps": 0, "cues": "none"}, r"--model\.net\.init_args\.steps is 0"),
        ({"widths": ()}, r"--model\.net\.init_args\.widths is \[\]; expected one or more positive numbers of channels"),
        ({"widths": (8, 0)}, r"--model\.net\.init_args\.widths is \[8, 0\]; expected one or more positive"),
    ],
)
def test_ltnet_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        LTNet(**arguments)


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
