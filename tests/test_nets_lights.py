"""Where LTNet takes its lights from, and when two lights are one."""

import pytest
import torch
from nets_small import SMALL, awake, part

from ltnet_pl import InputError
from ltnet_pl.light import Light, Rig, encode, light_tensor
from ltnet_pl.nets import LTNet


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


def test_who_is_always_told_reads_nothing(batch):
    """With labels alone the light stream rests, and an unknown label has nobody to read it; a share of dropped ones wakes it."""
    net = awake(LTNet(**SMALL, light="label", label_dropout=0.0))
    for mode in (True, False):
        assert not {"input_code", "guide_code"} & net.train(mode)(batch).keys()
    for key, which in (("input_light", "present"), ("target_light", "wanted")):
        unknown = batch[key].clone()
        unknown[1, 1] = torch.nan
        with pytest.raises(
            InputError, match=rf"the {which} light of an image is unknown, and this network was trained with labels"
        ):
            net({**batch, key: unknown})
    told = LTNet(**SMALL, light="label", label_dropout=0.5).eval()
    told.load_state_dict(net.state_dict())
    assert {"input_code", "guide_code"} <= told(batch).keys()
    torch.testing.assert_close(told(batch)["relit"], net(batch)["relit"])


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


def test_elevation_alone_is_a_change_of_light(batch):
    """From the same azimuth and of the same temperature as the input's light, but higher: the field does not fade."""
    net, one = awake(LTNet(**SMALL, light="label")), part(batch, [0])
    azimuth, kelvin = one["input_light"][0].tolist()
    same = net({**one, "target_light": one["input_light"]})["relit"]
    higher = net({**one, "target_light": light_tensor([Light(azimuth, kelvin, elevation=85.0)])})["relit"]
    assert (higher - same).abs().mean() > 1e-2
    four = torch.tensor([[azimuth, kelvin, torch.nan, 0.0]])
    torch.testing.assert_close(net({**one, "target_light": four})["relit"], same)


@pytest.mark.parametrize("spoken", [{"elevation": 45.0}, {"elevation": 45.5}, {"ambient": 0.005}])
def test_a_light_that_is_hardly_lifted_changes_hardly_anything(batch, spoken):
    """The rig's own elevation is the light that is there, and there is no step beside it."""
    net, one = awake(LTNet(**SMALL, light="label", rig=Rig(0.9, 0.9))), part(batch, [0])
    azimuth, kelvin = one["input_light"][0].tolist()

    def lit(**kwargs: float) -> torch.Tensor:
        return net({**one, "target_light": light_tensor([Light(azimuth, kelvin, **kwargs)])})["relit"]

    far = {key: 85.0 if key == "elevation" else 0.9 for key in spoken}
    change, whole = ((lit(**kwargs) - lit()).abs().mean() for kwargs in (spoken, far))
    assert whole > 1e-2
    assert change < 0.01 * whole
    if spoken == {"elevation": 45.0}:
        assert change < 1e-6


def test_without_depth_nothing_is_moved_or_lifted(batch):
    net, one = awake(LTNet(**SMALL, light="label")), part(batch, [0])
    flat = {**one, **{key: torch.zeros_like(one[key]) for key in ("depth", "frame_depth")}}
    azimuth, kelvin = one["input_light"][0].tolist()
    same = net({**flat, "target_light": one["input_light"]})["relit"]
    for other in (
        Light((azimuth + 90) % 360, kelvin),
        Light(azimuth, kelvin, elevation=85.0),
        Light(azimuth, kelvin, ambient=0.9),
    ):
        torch.testing.assert_close(net({**flat, "target_light": light_tensor([other])})["relit"], same)
    warmer = net({**flat, "target_light": light_tensor([Light(azimuth, 0.7 * kelvin)])})["relit"]
    assert (warmer - same).abs().mean() > 1e-2
    # a network that never saw depth moves the light without
    blind = awake(LTNet(**SMALL, light="label", use_depth=False, cues="none"))
    moved, still = (
        blind({**flat, "target_light": light_tensor([Light(x, kelvin)])})["relit"] for x in ((azimuth + 90) % 360, azimuth)
    )
    assert (moved - still).abs().mean() > 1e-4


def test_a_change_of_temperature_alone_is_the_tint_s(batch):
    """One light's colour scales all that it lights: from the same place nothing is left to the field, without the tint all is."""
    wanted = batch["input_light"] * torch.tensor([1.0, 0.7])
    told = {**batch, "target_light": wanted}
    kelvins = batch["input_light"][:, 1], wanted[:, 1]
    net = awake(LTNet(**SMALL, light="label"))
    torch.testing.assert_close(net(told)["relit"], net.tint(batch["input"], *kelvins))
    untinted = awake(LTNet(**SMALL, light="label", tint=False))(told)["relit"]
    assert (untinted - batch["input"]).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_readings_that_nearly_agree_are_taken_for_one_light(batch):
    """Twelve degrees apart: lights that are given so are two lights, and lights that are read so are one, since readings err."""
    near = torch.tensor([12.0, 0.0])
    net, one = awake(LTNet(**SMALL, light="label", tint=False)), part(batch, [0])
    given = net({**one, "target_light": one["input_light"] + near})["relit"]
    assert (given - one["input"]).abs().mean() > 1e-3
    net.light, net.light_stream = "guide", Reads(one["input_light"], one["input_light"] + near)
    read = net(one)["relit"]
    assert (read - one["input"]).abs().mean() < 0.25 * (given - one["input"]).abs().mean()


class Reads(torch.nn.Module):
    """A light stream that reads what it is told to, in turn."""

    def __init__(self, *lights):
        super().__init__()
        self.codes = [encode(light) for light in lights]

    def forward(self, image, *rest):
        return self.codes.pop(0), torch.zeros(len(image), 0)


def test_no_guide_needs_a_given_light(batch):
    net = awake(LTNet(**SMALL))
    bare = {key: value for key, value in batch.items() if not key.startswith("guide")}
    out = net(bare)
    assert "guide_code" not in out
    assert out["relit"].isfinite().all()
    with pytest.raises(InputError, match="the wanted light is unknown"):
        net({**bare, "target_light": torch.full((3, 2), torch.nan)})


def test_who_reads_nothing_has_no_light_stream_to_train(batch):
    """Every parameter that asks for a gradient gets one, or training on several devices stops; the weights keep their names."""
    net = awake(LTNet(**SMALL, light="label", label_dropout=0.0)).train()
    net(batch)["relit"].square().mean().backward()
    assert not [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert net.state_dict().keys() == LTNet(**SMALL).state_dict().keys()
    assert all(p.requires_grad for p in LTNet(**SMALL, light="label", label_dropout=0.1).parameters())


def test_the_relit_image_gets_a_gradient_from_its_temperature(batch):
    """The loss ``relit_light`` must be able to change colours, not only where light falls."""
    net, image = awake(LTNet(**SMALL)), batch["input"].clone().requires_grad_()
    net.read_light(image, batch["depth"], batch["crop"], batch)[0][:, 2].sum().backward()
    assert image.grad.abs().sum() > 0
