"""LPIPS: recorded values, the trunks against torchvision's published ones, where weights come from, and every wrong file."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.lpips import ENVIRONMENT, LPIPS, TRUNKS, Absent, find_weights, linear_weights, load_trunk

# torchvision's published parameter counts of the whole networks, less their classifiers, layer by layer
FEATURE_PARAMETERS = {
    "alex": 61_100_840 - (9216 * 4096 + 4096) - (4096 * 4096 + 4096) - (4096 * 1000 + 1000),
    "vgg": 138_357_544 - (25088 * 4096 + 4096) - (4096 * 4096 + 4096) - (4096 * 1000 + 1000),
    "squeeze": 1_235_496 - (512 * 1000 + 1000),
}

# a few of torchvision's names, with shapes
PUBLISHED = {
    "alex": {"0.weight": (64, 3, 11, 11), "3.weight": (192, 64, 5, 5), "6.bias": (384,), "10.weight": (256, 256, 3, 3)},
    "vgg": {"0.weight": (64, 3, 3, 3), "7.weight": (128, 128, 3, 3), "17.weight": (512, 256, 3, 3), "28.bias": (512,)},
    "squeeze": {"0.weight": (64, 3, 3, 3), "3.squeeze.weight": (16, 64, 1, 1), "12.expand3x3.weight": (256, 64, 3, 3)},
}


@pytest.fixture(autouse=True)
def _nothing_at_hand(monkeypatch, tmp_path):
    """No weights but those that a test puts somewhere."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def _state(trunk, prefix=""):
    torch.manual_seed(7)
    return {prefix + key: value for key, value in TRUNKS[trunk].build().state_dict().items()}


@pytest.fixture
def random_weights(tmp_path):
    """Writes random weights of a trunk and returns the file."""

    def write(trunk, prefix="", name="weights.pth", **more):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(_state(trunk, prefix) | more, path)
        return path

    return write


@pytest.fixture
def anchors(samples):
    """The sample trunk's distance and the three example images."""

    def image(name):
        pixels = np.array(Image.open(samples / "lpips_squeeze" / "examples" / name).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255

    distance = LPIPS(samples / "lpips_squeeze" / "squeezenet1_1_features.pth")
    return distance, image("ex_ref.png"), image("ex_p0.png"), image("ex_p1.png")


class TestValues:
    def test_recorded_anchors(self, anchors):
        distance, reference, p0, p1 = anchors
        found = distance(torch.cat([reference] * 3), torch.cat([p0, p1, reference]))
        assert found.tolist() == pytest.approx([0.711048, 0.147902, 0.0], abs=1e-5)
        assert (distance.trunk, distance.label) == ("squeeze", "SqueezeNet")

    def test_published_value_of_torchmetrics(self, anchors):
        """The value in torchmetrics' own documentation of its squeeze variant; its images are in [-1, 1]."""
        generator = torch.Generator().manual_seed(42)
        a = torch.rand(2, 3, 100, 100, generator=generator)
        b = torch.rand(2, 3, 100, 100, generator=generator)
        assert anchors[0](a, b).tolist() == pytest.approx([0.1024, 0.0938], abs=5e-5)

    def test_symmetric_and_batch_independent(self, anchors):
        distance, reference, p0, p1 = anchors
        forth, back = distance(reference, p0), distance(p0, reference)
        torch.testing.assert_close(forth, back)
        both = distance(torch.cat([p1, reference]), torch.cat([reference, p0]))
        torch.testing.assert_close(both[1:], forth)

    @pytest.mark.parametrize("trunk", list(TRUNKS))
    def test_definition_with_one_live_channel(self, trunk, random_weights, monkeypatch):
        """Linear weights of 0 except one channel of the first tap: the distance is that channel's, by hand."""
        path = random_weights(trunk)
        spec, layers = load_trunk(path)
        weights = [torch.zeros_like(w) for w in linear_weights(spec)]
        weights[0][0, 5] = 2.0
        monkeypatch.setattr("ltnet_pl.lpips.linear_weights", lambda _: weights)
        a, b = torch.rand(2, 2, 3, 40, 37)
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        features = []
        for x in (a, b):
            x = ((2 * x - 1) - shift[:, None, None]) / scale[:, None, None]
            f = layers[: spec.taps[0] + 1](x)
            features.append(f[:, 5] / f.norm(dim=1))
        wanted = 2 * (features[0] - features[1]).square().mean(dim=(1, 2))
        torch.testing.assert_close(LPIPS(path)(a, b), wanted, rtol=1e-4, atol=1e-7)


class TestTrunks:
    @pytest.mark.parametrize("name", list(TRUNKS))
    def test_names_and_shapes_are_torchvisions(self, name):
        shapes = TRUNKS[name].shapes()
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == FEATURE_PARAMETERS[name]
        assert PUBLISHED[name].items() <= shapes.items()

    @pytest.mark.parametrize("name", list(TRUNKS))
    def test_linear_weights_fit_the_taps(self, name):
        """The channels of the features after each tap are those of the weights that torchmetrics ships; all are rectified."""
        trunk, x, widths = TRUNKS[name], torch.rand(1, 3, 64, 64), []
        for i, layer in enumerate(trunk.build()):
            x = layer(x)
            if i in trunk.taps:
                widths.append(x.shape[1])
                assert x.min() == 0
        weights = linear_weights(trunk)
        assert [w.shape for w in weights] == [(1, width, 1, 1) for width in widths]
        assert all((w >= 0).all() for w in weights)

    @pytest.mark.parametrize("name", list(TRUNKS))
    def test_random_weights_run_at_the_smallest_size(self, name, random_weights):
        distance, side = LPIPS(random_weights(name)), TRUNKS[name].min_side
        a, b = torch.rand(2, 2, 3, side, side + 6)
        found = distance(a, b)
        assert found.shape == (2,)
        assert (found > 0).all()
        assert distance(a, a).tolist() == [0, 0]
        with pytest.raises(InputError, match=rf"{side - 1} x {side} pixels; expected at least {side} each way"):
            distance(*torch.rand(2, 1, 3, side - 1, side))

    @pytest.mark.parametrize("prefix", ["", "features."])
    def test_features_only_and_whole_files(self, prefix, random_weights):
        whole = {"classifier.1.weight": torch.zeros(4, 4), "classifier.1.bias": torch.zeros(4)} if prefix else {}
        trunk, layers = load_trunk(random_weights("squeeze", prefix, **whole))
        assert trunk.name == "squeeze"
        torch.testing.assert_close(dict(layers.state_dict()), _state("squeeze"))
        assert not layers.training
        assert not any(p.requires_grad for p in layers.parameters())


class TestModule:
    def test_nothing_enters_a_checkpoint(self, random_weights):
        owner = torch.nn.Module()
        owner.distance = LPIPS(random_weights("squeeze"))
        assert owner.state_dict() == {}
        assert not list(owner.parameters())
        owner.load_state_dict({}, strict=True)

    def test_copies_share_the_weights_and_survive_pickling(self, random_weights, tmp_path):
        distance = LPIPS(random_weights("squeeze"))
        a, b = torch.rand(2, 1, 3, 32, 32)
        twin = copy.deepcopy(distance)
        assert twin._frozen is distance._frozen
        again = pickle.loads(pickle.dumps(distance))
        torch.testing.assert_close(again(a, b), distance(a, b))

    def test_follows_its_images_precision_and_survives_a_cast_of_its_owner(self, random_weights):
        distance = LPIPS(random_weights("squeeze"))
        a, b = torch.rand(2, 1, 3, 32, 32)
        wanted = distance(a, b)
        distance.to(torch.bfloat16)
        torch.testing.assert_close(distance(a, b), wanted)
        fine = distance(a.double(), b.double())
        assert fine.dtype == torch.float64
        torch.testing.assert_close(fine.float(), wanted, rtol=1e-4, atol=1e-6)

    def test_follows_its_images_device(self, random_weights):
        """The meta device holds no data but tells where tensors would be."""
        distance = LPIPS(random_weights("squeeze"))
        layers, linear = distance._frozen.at(torch.device("meta"), torch.float32)
        assert {p.device.type for p in (*layers.parameters(), *linear)} == {"meta"}
        layers, linear = distance._frozen.at(torch.device("cpu"), torch.float32)
        assert {p.device.type for p in (*layers.parameters(), *linear)} == {"cpu"}

    def test_full_precision_under_autocast(self, random_weights):
        distance = LPIPS(random_weights("squeeze"))
        a, b = torch.rand(2, 1, 3, 32, 32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = distance(a, b)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, distance(a, b), rtol=0, atol=0)

    def test_gradient_after_a_first_use_in_inference_mode(self, random_weights):
        """Lightning validates in inference mode before it trains; what was made there must not be kept for training."""
        distance = LPIPS(random_weights("squeeze"))
        a, b = torch.rand(2, 1, 3, 32, 32)
        with torch.inference_mode():
            distance(a, b)
        a.requires_grad_()
        distance(a, b).sum().backward()
        assert a.grad.abs().max() > 0

    def test_gradient(self, random_weights):
        """Right to float64 accuracy along a random direction, and finite where all features are 0."""
        distance = LPIPS(random_weights("squeeze"))
        a, b, step = torch.rand(3, 1, 3, 20, 20, dtype=torch.float64)
        a.requires_grad_()
        (slope,) = torch.autograd.grad(distance(a, b).sum(), a)
        h = 1e-6
        with torch.no_grad():
            numeric = (distance(a + h * step, b) - distance(a - h * step, b)).sum() / (2 * h)
        torch.testing.assert_close((slope * step).sum(), numeric, rtol=1e-5, atol=1e-9)

    def test_gradient_is_finite_where_all_features_are_zero(self, tmp_path):
        state = {key: -value.abs() for key, value in _state("squeeze").items()}
        torch.save(state, tmp_path / "dead.pth")
        a = torch.ones(1, 3, 32, 32, requires_grad=True)
        LPIPS(tmp_path / "dead.pth")(a, torch.rand(1, 3, 32, 32)).sum().backward()
        assert a.grad.isfinite().all()

    def test_shapes_must_agree(self, random_weights):
        with pytest.raises(ValueError, match=r"\(B, 3, H, W\) images of one shape, got \(1, 3, 32, 32\) and \(1, 3, 32, 31\)"):
            LPIPS(random_weights("squeeze"))(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 31))


class TestFinding:
    def test_order_is_path_environment_cache(self, random_weights, tmp_path, monkeypatch):
        cached = [
            random_weights("squeeze", name=f"hub/checkpoints/{TRUNKS[trunk].hub_file}") for trunk in ("squeeze", "vgg", "alex")
        ]
        assert find_weights() == cached[2]  # AlexNet first
        cached[2].unlink()
        assert find_weights() == cached[1]
        monkeypatch.setenv(ENVIRONMENT, str(random_weights("squeeze", name="environment.pth")))
        assert find_weights() == tmp_path / "environment.pth"
        assert find_weights(str(random_weights("squeeze", name="path.pth"))) == tmp_path / "path.pth"

    def test_absent_says_how_to_provide(self, monkeypatch):
        monkeypatch.setenv(ENVIRONMENT, "")  # set but empty is not set
        found = find_weights(flag="--some.flag")
        assert isinstance(found, Absent)
        for word in ("--some.flag", ENVIRONMENT, *(trunk.hub_file for trunk in TRUNKS.values()), "hub cache"):
            assert word in found.reason
        assert "\n" not in found.reason

    def test_named_file_must_exist(self, tmp_path, monkeypatch):
        with pytest.raises(
            InputError, match=r"--metrics.lpips_weights: .*none.pth does not exist; expected a file of .*; correct"
        ):
            find_weights(tmp_path / "none.pth")
        monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
        with pytest.raises(InputError, match=rf"environment variable {ENVIRONMENT}: .* is a folder; expected a file"):
            find_weights()


class TestWrongFiles:
    def _refused(self, path, message):
        with pytest.raises(InputError, match=message) as caught:
            load_trunk(path)
        assert str(path) in str(caught.value)

    def test_no_weights_file(self, tmp_path):
        (tmp_path / "text.pth").write_text("hello")
        self._refused(tmp_path / "text.pth", "cannot be read as weights .*; expected a file that torch.save wrote")

    def test_truncated(self, random_weights):
        path = random_weights("squeeze")
        path.write_bytes(path.read_bytes()[:5000])
        self._refused(path, "cannot be read as weights")

    def test_code_is_not_run(self, tmp_path):
        class Harm:
            def __reduce__(self):
                return (open, (str(tmp_path / "harmed"), "w"))

        torch.save({"0.weight": Harm()}, tmp_path / "code.pth")
        self._refused(tmp_path / "code.pth", "cannot be read as weights")
        assert not (tmp_path / "harmed").exists()

    def test_not_a_state_dict(self, tmp_path):
        torch.save([torch.zeros(3)], tmp_path / "list.pth")
        self._refused(tmp_path / "list.pth", "holds list, not a plain dictionary of tensors")

    def test_another_network(self, tmp_path):
        torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(9)}, tmp_path / "resnet.pth")
        self._refused(tmp_path / "resnet.pth", "it holds 2 tensors, of which none fits, e.g. conv1.weight, fc.bias; expected")

    def test_another_shape(self, tmp_path):
        state = _state("alex", "features.") | {"features.3.weight": torch.zeros(192, 64, 3, 3)}
        torch.save(state, tmp_path / "alex.pth")
        self._refused(
            tmp_path / "alex.pth", r"resembles AlexNet, but 3.weight is \(192, 64, 3, 3\) where \(192, 64, 5, 5\) belongs"
        )

    def test_a_part_missing(self, tmp_path):
        state = _state("squeeze")
        del state["9.squeeze.bias"]
        torch.save(state, tmp_path / "part.pth")
        self._refused(tmp_path / "part.pth", r"resembles SqueezeNet, but 9.squeeze.bias is missing where \(48,\) belongs")

    def test_linear_weights_in_place_of_the_trunks(self, tmp_path):
        torch.save({f"lin{i}.model.1.weight": w for i, w in enumerate(linear_weights(TRUNKS["alex"]))}, tmp_path / "lin.pth")
        self._refused(tmp_path / "lin.pth", "it holds LPIPS's linear weights, which are already at hand")

    def test_not_finite(self, random_weights):
        path = random_weights("squeeze", **{"4.squeeze.bias": torch.full((16,), torch.nan)})
        self._refused(path, "4.squeeze.bias holds NaN or infinity; expected finite numbers; fetch the file again")
