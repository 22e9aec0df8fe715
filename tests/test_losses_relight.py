"""RelightLoss: the weighted sum, what a part of weight 0 or without its keys does, checkpoints, and every mistake in weights."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import asdict, fields

import pytest
import torch

from ltnet_pl import InputError
from ltnet_pl.light import encode
from ltnet_pl.losses import (
    LossWeights,
    RelightLoss,
    charbonnier_loss,
    gradient_loss,
    lab_loss,
    light_loss,
    residual_cosine_loss,
    residual_loss,
    ssim_loss,
)
from ltnet_pl.lpips import ENVIRONMENT, TRUNKS


def close(value, wanted, **tolerance):
    assert value.item() == pytest.approx(wanted, **tolerance)


ALL = {field.name: 0.1 * (i + 1) for i, field in enumerate(fields(LossWeights))}


@pytest.fixture
def trunk(tmp_path):
    """Random SqueezeNet weights: enough to see that the part runs."""
    torch.save(TRUNKS["squeeze"].build().state_dict(), tmp_path / "squeeze.pth")
    return str(tmp_path / "squeeze.pth")


@pytest.fixture
def out(batch):
    """What a network and the task return for the batch, when everything is asked for."""
    shape = batch["input"].shape
    images = {key: (1.2 * torch.rand(shape) - 0.1).requires_grad_() for key in ("relit", "cycle", "identity", "field")}
    codes = {key: torch.randn(shape[0], 3).requires_grad_() for key in ("input_code", "guide_code", "relit_code")}
    return images | codes


def only(**weights):
    return LossWeights(**({"charbonnier": 0.0} | weights))


class TestRelightLoss:
    def test_every_part_and_their_weighted_sum(self, out, batch, trunk):
        parts = RelightLoss(LossWeights(**ALL), trunk)(out, batch)
        assert list(parts) == [*ALL, "loss"]
        assert all(value.shape == () and value.isfinite() and value.dtype == torch.float32 for value in parts.values())
        assert all(value > 0 for value in parts.values())
        wanted = sum(weight * parts[name].item() for name, weight in ALL.items())
        close(parts["loss"], wanted, rel=1e-5)
        parts["loss"].backward()
        for key, value in out.items():
            assert value.grad.abs().max() > 0, key

    @pytest.mark.parametrize("name", [name for name in ALL if name != "perceptual"])
    def test_each_part_alone(self, name, out, batch):
        parts = RelightLoss(only(**{name: 2.0}))(out, batch)
        assert list(parts) == [name, "loss"]
        close(parts["loss"], 2 * parts[name].item(), rel=1e-6)

    def test_parts_are_the_functions(self, out, batch):
        weights = LossWeights(**ALL | {"perceptual": 0.0})
        parts = RelightLoss(weights)(out, batch)
        pred, target, image = out["relit"], batch["target"], batch["input"]
        truths = encode(batch["input_light"]), encode(batch["target_light"])
        wanted = {
            "charbonnier": charbonnier_loss(pred, target),
            "residual": residual_loss(pred, target, image),
            "residual_cosine": residual_cosine_loss(pred, target, image),
            "ssim": ssim_loss(pred, target),
            "lab": lab_loss(pred, target),
            "gradient": gradient_loss(pred, target),
            "cycle": charbonnier_loss(out["cycle"], image),
            "identity": charbonnier_loss(out["identity"], image),
            "light": (light_loss(out["input_code"], truths[0]) + light_loss(out["guide_code"], truths[1])) / 2,
            "relit_light": light_loss(out["relit_code"], truths[1]),
        }
        for name, value in wanted.items():
            torch.testing.assert_close(parts[name], value, msg=name)

    def test_light_without_a_guide(self, out, batch):
        del out["guide_code"]
        parts = RelightLoss(only(light=1.0))(out, batch)
        torch.testing.assert_close(parts["light"], light_loss(out["input_code"], encode(batch["input_light"])))

    def test_lights_unknown(self, out, batch):
        """A batch without a single known light costs nothing and still gives a gradient of 0."""
        batch["input_light"] = batch["target_light"] = torch.full((3, 2), math.nan)
        loss = RelightLoss(only(light=1.0, relit_light=1.0))(out, batch)["loss"]
        loss.backward()
        assert loss.item() == 0
        assert out["input_code"].grad.abs().max() == 0

    def test_smoothness_knows_the_scene(self, out, batch):
        """A field that steps where the scene does is cheaper than the same field mirrored."""
        edges = batch["target"] - batch["input"]
        loss = RelightLoss(only(smoothness=1.0))
        aligned = loss({"field": edges}, batch)["loss"]
        mirrored = loss({"field": edges.flip(-1)}, batch)["loss"]
        assert aligned < 0.9 * mirrored

    @pytest.mark.parametrize("key", ["input", "target", "depth"])
    def test_smoothness_allows_edges_of_each(self, key, out, batch):
        """One step, in the input, the target or the depth of an otherwise flat scene, makes the field's step there cheaper."""
        batch |= {"input": 0 * batch["input"] + 0.5, "target": 0 * batch["target"] + 0.5, "depth": 0 * batch["depth"] + 2}
        step = (torch.arange(batch["input"].shape[3]) >= 20) * 0.4
        field = (0 * batch["input"] + step).requires_grad_()
        loss = RelightLoss(only(smoothness=1.0))
        flat = loss({"field": field}, batch)["loss"]
        batch[key] = batch[key] + step
        stepped = loss({"field": field}, batch)["loss"]
        assert stepped < 0.5 * flat
        slopes = [torch.autograd.grad(value, field)[0].abs().sum() for value in (flat, stepped)]
        assert slopes[1] < 0.5 * slopes[0]

    def test_default_needs_a_relit_image_only(self, out, batch):
        parts = RelightLoss(LossWeights())({"relit": out["relit"]}, {"target": batch["target"]})
        assert list(parts) == ["charbonnier", "loss"]

    def test_a_part_of_weight_zero_is_neither_built_nor_computed(self, out, batch, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("a part of weight 0 was computed")

        monkeypatch.setattr("ltnet_pl.losses.relight.find_weights", refuse)
        monkeypatch.setattr("ltnet_pl.losses.relight.normals_from_depth", refuse)
        monkeypatch.setattr("ltnet_pl.losses.relight.encode", refuse)
        RelightLoss(LossWeights(ssim=1.0))(out, batch)

    def test_what_the_task_must_add(self):
        plain = RelightLoss(LossWeights())
        assert (plain.needs_cycle, plain.needs_identity, plain.needs_relit_code) == (False, False, False)
        assert RelightLoss(LossWeights(cycle=0.1)).needs_cycle
        assert RelightLoss(LossWeights(identity=0.1)).needs_identity
        assert RelightLoss(LossWeights(relit_light=0.1)).needs_relit_code

    def test_nothing_enters_a_checkpoint_and_copies_work(self, trunk, out, batch):
        loss = RelightLoss(only(perceptual=1.0), trunk)
        assert loss.state_dict() == {}
        assert not list(loss.parameters())
        wanted = loss(out, batch)["loss"]
        for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
            torch.testing.assert_close(twin(out, batch)["loss"], wanted)

    def test_half_precision_output(self, out, batch, trunk):
        """bf16 training: the parts are float32 and those of the same numbers in float32."""
        loss = RelightLoss(LossWeights(**ALL), trunk)
        half = {key: value.detach().bfloat16() for key, value in out.items()}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss(half, batch)
        wanted = loss({key: value.float() for key, value in half.items()}, batch)
        for name, value in found.items():
            torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-7, msg=name)


class TestMistakes:
    @pytest.mark.parametrize("name", list(ALL))
    @pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
    def test_weight(self, name, value):
        message = rf"loss weight {name} \(--model.loss.{name}\) is {value}; expected a finite number of at least 0; 0 switches"
        with pytest.raises(InputError, match=message):
            LossWeights(**{name: value})

    def test_all_zero(self):
        with pytest.raises(InputError, match=r"all loss weights .* are 0; expected at least one above 0"):
            RelightLoss(only())

    @pytest.mark.parametrize(
        ("name", "key"),
        [
            ("charbonnier", "relit"),
            ("smoothness", "field"),
            ("cycle", "cycle"),
            ("identity", "identity"),
            ("light", "input_code"),
            ("relit_light", "relit_code"),
        ],
    )
    def test_network_output_lacks_a_key(self, name, key, out, batch):
        del out[key]
        with pytest.raises(
            InputError, match=rf"loss weight {name} .* is 0.5, but the network's output has no '{key}', only .*; set"
        ):
            RelightLoss(only(**{name: 0.5}))(out, batch)

    def test_batch_lacks_the_target(self, out, batch):
        del batch["target"]
        with pytest.raises(InputError, match=r"loss weight ssim .* but the batch has no 'target', only input"):
            RelightLoss(only(ssim=1.0))(out, batch)

    def test_perceptual_without_weights(self, monkeypatch, tmp_path):
        monkeypatch.delenv(ENVIRONMENT, raising=False)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        message = "--model.loss.perceptual is 0.5, but no LPIPS trunk weights were found: name a file with .*; or set it to 0"
        with pytest.raises(InputError, match=message):
            RelightLoss(LossWeights(perceptual=0.5))

    def test_weights_are_a_plain_dataclass(self):
        """Checkpoints store them as a dict of numbers."""
        assert LossWeights(**asdict(LossWeights(**ALL))) == LossWeights(**ALL)
