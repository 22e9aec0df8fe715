"""Metrics: against scikit-image and by hand, means over images, and what is absent."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ltnet_pl import InputError
from ltnet_pl.light import encode
from ltnet_pl.lpips import ENVIRONMENT, LPIPS, TRUNKS
from ltnet_pl.metrics import MetricSettings, build_metrics, mps, psnr, quantize, ssim


@pytest.fixture(autouse=True)
def _nothing_at_hand(monkeypatch, tmp_path):
    """No LPIPS weights but those that a test names."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.fixture
def metrics():
    return build_metrics(MetricSettings())


@pytest.fixture
def with_trunk(tmp_path):
    """Metrics with random SqueezeNet weights."""
    torch.save(TRUNKS["squeeze"].build().state_dict(), tmp_path / "squeeze.pth")
    return build_metrics(MetricSettings(lpips_weights=str(tmp_path / "squeeze.pth")))


def lights(*rows):
    return torch.tensor(rows, dtype=torch.float32)


UNKNOWN = (math.nan, math.nan)


def images(count, size=(16, 18)):
    return torch.rand(2, count, 3, *size).unbind()


def reference_ssim(a, b):
    return structural_similarity(
        a.double().permute(1, 2, 0).numpy(),
        b.double().permute(1, 2, 0).numpy(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=2,
    )


class TestQuantize:
    def test_levels(self):
        x = torch.tensor([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 100.4 / 255, 1.0, 1.7])
        torch.testing.assert_close(quantize(x) * 255, torch.tensor([0.0, 0, 0, 1, 100, 255, 255]))

    @given(st.integers(0, 255))
    def test_eight_bit_values_stay(self, level):
        """What was read from a file is what is scored, and rounding twice changes nothing."""
        x = torch.tensor(level / 255)
        assert round(quantize(x).item() * 255) == level
        assert quantize(quantize(x)) == quantize(x)

    def test_half_precision_is_not_rounded_to_its_own_grid(self):
        """bfloat16 has no 200/255; the result is float32."""
        torch.testing.assert_close(quantize(torch.tensor([0.78]).bfloat16()), torch.tensor([199 / 255]))


class TestPsnr:
    def test_by_hand(self):
        """An error of 0.1 everywhere is 20 dB, of 0.01 is 40; each image has its own."""
        x = torch.zeros(2, 3, 5, 7)
        error = torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
        assert psnr(x + error, x).tolist() == pytest.approx([20, 40], rel=1e-6)

    def test_identical_images_are_infinite(self):
        x = torch.rand(2, 3, 5, 7)
        assert psnr(x, x).tolist() == [math.inf, math.inf]

    @pytest.mark.parametrize("size", [(37, 31), (11, 64), (1, 1)])
    def test_scikit_image(self, size):
        a, b = images(3, size)
        wanted = [
            peak_signal_noise_ratio(x.double().numpy(), y.double().numpy(), data_range=1.0) for x, y in zip(b, a, strict=True)
        ]
        assert psnr(a, b).tolist() == pytest.approx(wanted, rel=1e-6)

    def test_shapes_must_agree(self):
        with pytest.raises(ValueError, match=r"\(B, C, H, W\) images of one shape, got \(1, 3, 4, 4\) and \(3, 4, 4\)"):
            psnr(torch.zeros(1, 3, 4, 4), torch.zeros(3, 4, 4))


class TestSsim:
    @pytest.mark.parametrize("size", [(37, 31), (11, 11), (12, 40), (64, 96)])
    def test_scikit_image(self, size):
        a, b = images(2, size)
        b = (a + b) / 2
        wanted = [reference_ssim(x, y) for x, y in zip(a, b, strict=True)]
        assert ssim(a, b).tolist() == pytest.approx(wanted, abs=1e-7)

    @pytest.mark.parametrize("level", [0.0, 0.02, 0.999])
    def test_scikit_image_in_flat_regions(self, level):
        """Where single precision would lose the variances: nearly constant images, dark and bright."""
        a, b = (quantize(level + 0.004 * x) for x in images(2))
        wanted = [reference_ssim(x, y) for x, y in zip(a, b, strict=True)]
        assert ssim(a, b).tolist() == pytest.approx(wanted, abs=1e-7)

    def test_constants_by_hand(self):
        a, b = torch.full((1, 3, 16, 16), 0.2), torch.full((1, 3, 16, 16), 0.6)
        assert ssim(a, b).item() == pytest.approx((2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4), abs=1e-6)

    def test_identical(self):
        x = torch.rand(2, 3, 16, 16)
        assert ssim(x, x).tolist() == [1, 1]

    def test_too_small(self):
        """scikit-image refuses these too."""
        with pytest.raises(InputError, match="SSIM: images of 10 x 16 pixels; expected at least 11 each way; use larger images"):
            ssim(*images(1, (10, 16)))
        with pytest.raises(ValueError, match="win_size exceeds image extent"):
            reference_ssim(*(x[0] for x in images(1, (10, 16))))


def test_mps():
    assert mps(torch.tensor([1.0, 0.7087]), torch.tensor([0.0, 0.1737])).tolist() == pytest.approx([1.0, 0.7675])


class TestMeans:
    def test_over_images_not_over_pixels_and_batches(self, metrics):
        """Three errors of 0.2 and one of 1/255: 13.98 dB and 48.13 dB are averaged, not the errors. Batches are uneven."""
        x = torch.zeros(1, 3, 16, 16)
        three = lights(*[UNKNOWN] * 3)
        first = metrics.update(torch.cat([x + 0.2] * 3), torch.cat([x] * 3), three, three)
        second = metrics.update(x + 1 / 255, x, lights(UNKNOWN), lights(UNKNOWN))
        one, two = -20 * math.log10(0.2), 20 * math.log10(255)
        assert first["psnr"].tolist() == pytest.approx([one] * 3, rel=1e-6)
        assert second["psnr"].tolist() == pytest.approx([two], rel=1e-6)
        assert metrics.compute()["psnr"].item() == pytest.approx((3 * one + two) / 4, rel=1e-6)

    def test_images_are_rounded_first(self, metrics):
        """Unclamped and off the 8-bit grid: scored as the file would be."""
        target = torch.full((1, 3, 16, 16), 100 / 255)
        found = metrics.update(target + 0.3 / 255, target, lights(UNKNOWN), lights(UNKNOWN))
        assert found["psnr"].item() == math.inf
        white = torch.ones(1, 3, 16, 16)
        assert metrics.update(white * 1.8, white, lights(UNKNOWN), lights(UNKNOWN))["psnr"].item() == math.inf

    def test_one_identical_image_makes_the_mean_infinite(self, metrics):
        """Nothing is left out silently: lists of identity pairs need another metric."""
        a, b = images(2)
        b[0] = a[0]
        metrics.update(a, b, lights(UNKNOWN, UNKNOWN), lights(UNKNOWN, UNKNOWN))
        assert metrics.compute()["psnr"].item() == math.inf

    def test_against_scikit_image(self, metrics):
        a, b = images(5, (23, 19))
        for part in (slice(0, 3), slice(3, 5)):
            n = len(a[part])
            metrics.update(a[part], b[part], lights(*[UNKNOWN] * n), lights(*[UNKNOWN] * n))
        found = metrics.compute()
        pairs = [(quantize(x), quantize(y)) for x, y in zip(a, b, strict=True)]
        assert found["ssim"].item() == pytest.approx(np.mean([reference_ssim(x, y) for x, y in pairs]), abs=1e-7)
        wanted = np.mean([peak_signal_noise_ratio(y.double().numpy(), x.double().numpy(), data_range=1.0) for x, y in pairs])
        assert found["psnr"].item() == pytest.approx(wanted, rel=1e-6)

    @given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    def test_batches_do_not_matter(self, sizes):
        a, b = images(sum(sizes), (11, 12))
        azimuths = torch.arange(sum(sizes)) * 45.0
        light = torch.stack([azimuths, torch.full_like(azimuths, 4000)], dim=1)
        wanted = lights((0, 4000)).expand(len(light), 2)
        code = encode(light + torch.tensor([10.0, 300.0]))
        whole, parts = (build_metrics(MetricSettings()) for _ in range(2))
        whole.update(a, b, light, wanted, code)
        for rows in torch.arange(sum(sizes)).split(sizes):
            parts.update(a[rows], b[rows], light[rows], wanted[rows], code[rows])
        found, expected = parts.compute(), whole.compute()
        assert list(found) == list(expected)
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-6)


class TestLight:
    def _compute(self, metrics, present, wanted, **codes):
        a, b = images(len(present))
        metrics.update(a, b, present, wanted, **codes)
        return metrics.compute()

    def test_psnr_by_change_of_azimuth(self, metrics):
        """Changes of 0, 45 (over north), 170 (nearest 180), and unknown, which only counts in the whole."""
        target = torch.zeros(5, 3, 16, 16)
        error = torch.tensor([5.0, 10, 20, 40, 80]).view(5, 1, 1, 1) / 255
        present = lights((90, 4500), (22.5, 4500), (350, 2500), (math.nan, 4500), (0, 6500))
        wanted = lights((90, 6500), (337.5, 4500), (180, 2500), (90, 4500), (180, math.nan))
        metrics.update(target + error, target, present, wanted)
        found = {key: value.item() for key, value in metrics.compute().items()}
        one, two, three, four, five = (-20 * math.log10(e / 255) for e in (5, 10, 20, 40, 80))
        assert list(found) == ["psnr", "ssim", "psnr_0", "psnr_45", "psnr_180"]
        assert found["psnr"] == pytest.approx((one + two + three + four + five) / 5, rel=1e-6)
        assert found["psnr_0"] == pytest.approx(one, rel=1e-6)
        assert found["psnr_45"] == pytest.approx(two, rel=1e-6)
        assert found["psnr_180"] == pytest.approx((three + five) / 2, rel=1e-6)

    def test_readings_of_input_and_guide(self, metrics):
        """Readings 20 degrees off (same compass point), 30 off over north (another one), 0 off; 10, 30 and 80 mired off."""
        present = lights((90, 4000), (330, 5000), (180, 2500))
        read = lights((110, 1e6 / 260), (0, 1e6 / 230), (180, 1e6 / 320))
        wanted = lights((0, 4000), (0, 4000), (0, 4000))
        code = encode(read)
        code[:, :2] *= 3  # the direction is not of unit length
        found = self._compute(metrics, present, wanted, input_code=code, guide_code=encode(wanted))
        assert found["input_direction_accuracy"].item() == pytest.approx(2 / 3)
        assert found["input_angular_error"].item() == pytest.approx(50 / 3, abs=1e-3)
        assert found["input_mired_error"].item() == pytest.approx(30, abs=1e-2)
        assert found["guide_direction_accuracy"].item() == 1
        assert found["guide_angular_error"].item() == pytest.approx(0, abs=1e-4)
        assert found["guide_mired_error"].item() == pytest.approx(0, abs=1e-3)

    def test_mired_errors_have_a_median(self, metrics):
        """Of 10, 20, 30 and 400 mired: 25, the mean of the middle two."""
        truth = lights(*[(0, 1e6 / 200)] * 4)
        read = lights((0, 1e6 / 210), (0, 1e6 / 220), (0, 1e6 / 230), (0, 1e6 / 600))
        found = self._compute(metrics, truth, truth, input_code=encode(read))
        assert found["input_mired_error"].item() == pytest.approx(25, abs=1e-2)

    def test_unknown_truths_do_not_count(self, metrics):
        """Azimuth known for one, temperature for the other: each metric is over one image."""
        truth = lights((90, math.nan), (math.nan, 4000))
        read = encode(lights((135, 5000), (0, 1e6 / 300)))
        found = self._compute(metrics, truth, lights(UNKNOWN, UNKNOWN), input_code=read, guide_code=read)
        assert {key: round(value.item(), 3) for key, value in found.items() if key.startswith("input")} == {
            "input_direction_accuracy": 0,
            "input_angular_error": 45,
            "input_mired_error": 50,
        }
        assert not [key for key in found if key.startswith(("guide", "psnr_"))]  # nothing known: left out, never NaN

    @given(st.floats(0, 360, exclude_max=True), st.floats(0, 360, exclude_max=True))
    def test_angular_error_by_complex_numbers(self, truth, read):
        metrics = build_metrics(MetricSettings())
        a, b = images(1, (11, 11))
        metrics.update(a, b, lights((truth, 4000)), lights((0, 4000)), encode(lights((read, 4000))))
        turn = complex(math.cos(math.radians(read - truth)), math.sin(math.radians(read - truth)))
        wanted = abs(math.degrees(math.atan2(turn.imag, turn.real)))
        assert metrics.compute()["input_angular_error"].item() == pytest.approx(wanted, abs=1e-3)


class TestLpips:
    def test_keys_in_table_order(self, with_trunk):
        a, b = images(9, (32, 40))
        present = lights(*[(45.0 * i, 4000.0) for i in range(9)])
        wanted = lights(*[(0.0, 4000.0)] * 9)
        values = with_trunk.update(a, b, present, wanted, encode(present), encode(wanted))
        assert list(values) == ["psnr", "ssim", "lpips_squeeze", "mps_squeeze"]
        assert all(value.shape == (9,) for value in values.values())
        found = with_trunk.compute()
        assert list(found) == list(with_trunk.labels)
        assert list(with_trunk.labels.items())[:6] == [
            ("psnr", "PSNR"),
            ("ssim", "SSIM"),
            ("lpips_squeeze", "LPIPS (SqueezeNet)"),
            ("mps_squeeze", "MPS (SqueezeNet)"),
            ("psnr_0", "PSNR 0°"),
            ("psnr_45", "PSNR 45°"),
        ]
        assert with_trunk.absent == {}
        torch.testing.assert_close(values["lpips_squeeze"], with_trunk.lpips(quantize(a), quantize(b)))
        torch.testing.assert_close(values["mps_squeeze"], (values["ssim"] + 1 - values["lpips_squeeze"]) / 2)
        for key, value in values.items():
            torch.testing.assert_close(found[key], value.double().mean().float())

    def test_recorded_anchor(self, samples):
        folder = samples / "lpips_squeeze"
        names = ("ex_p0.png", "ex_p1.png", "ex_ref.png")
        p0, p1, target = (
            torch.from_numpy(np.array(Image.open(folder / "examples" / name).convert("RGB"))).permute(2, 0, 1).float() / 255
            for name in names
        )
        metrics = build_metrics(MetricSettings(lpips_weights=str(folder / "squeezenet1_1_features.pth")))
        metrics.update(torch.stack([p0, p1]), torch.stack([target] * 2), lights(UNKNOWN, UNKNOWN), lights(UNKNOWN, UNKNOWN))
        found = metrics.compute()
        assert found["lpips_squeeze"].item() == pytest.approx((0.711048 + 0.147902) / 2, abs=1e-5)
        similarity = np.mean([reference_ssim(p, target) for p in (p0, p1)])
        assert found["mps_squeeze"].item() == pytest.approx((similarity + 1 - (0.711048 + 0.147902) / 2) / 2, abs=1e-5)

    def test_absent_without_weights(self, metrics):
        a, b = images(1)
        values = metrics.update(a, b, lights(UNKNOWN), lights(UNKNOWN))
        assert list(values) == list(metrics.compute()) == ["psnr", "ssim"]
        assert list(metrics.absent) == ["lpips", "mps"]
        assert "no LPIPS trunk weights were found: name a file with --metrics.lpips_weights" in metrics.absent["lpips"]
        assert not [key for key in metrics.labels if "lpips" in key or "mps" in key]

    def test_a_wrong_file_is_an_error_not_an_absence(self, tmp_path):
        with pytest.raises(InputError, match=r"--metrics.lpips_weights: .* does not exist"):
            build_metrics(MetricSettings(lpips_weights=str(tmp_path / "none.pth")))
        (tmp_path / "text.pth").write_text("hello")
        with pytest.raises(InputError, match="cannot be read as weights"):
            build_metrics(MetricSettings(lpips_weights=str(tmp_path / "text.pth")))

    def test_a_checkpoint_holds_nothing_of_it(self, with_trunk):
        owner = torch.nn.Module()
        owner.metrics = with_trunk
        a, b = images(2, (32, 32))
        with_trunk.update(a, b, lights(UNKNOWN, UNKNOWN), lights(UNKNOWN, UNKNOWN))
        assert owner.state_dict() == {}
        assert not list(owner.parameters())
        owner.load_state_dict({}, strict=True)


class TestStages:
    def test_clones_have_states_of_their_own_and_share_the_trunk(self, with_trunk):
        a, b = images(2, (32, 32))
        unknown = lights(UNKNOWN, UNKNOWN)
        with_trunk.update(a, b, unknown, unknown)
        wanted = with_trunk.compute()["psnr"]
        other = with_trunk.clone()
        other.reset()
        other.update(a, a + 1 / 255, unknown, unknown)
        assert with_trunk.compute()["psnr"] == wanted
        assert other.compute()["psnr"] != wanted
        assert isinstance(other.lpips, LPIPS)
        assert other.lpips._frozen is with_trunk.lpips._frozen

    def test_reset_forgets(self, metrics):
        a, b = images(2)
        unknown = lights(UNKNOWN, UNKNOWN)
        metrics.update(a, b, unknown, unknown)
        metrics.reset()
        metrics.update(b, b, unknown, unknown)
        assert metrics.compute()["ssim"].item() == 1

    def test_nothing_seen(self, metrics):
        with pytest.warns(UserWarning, match="before the ``update`` method"):
            assert metrics.compute() == {}

    def test_values_do_not_hold_the_graph(self, metrics):
        a, b = images(1)
        values = metrics.update(a.requires_grad_(), b, lights(UNKNOWN), lights(UNKNOWN))
        assert not any(value.requires_grad for value in values.values())

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_broken_image_is_an_error(self, metrics, value):
        """Rounding would make an ordinary number of it, and the mean would look fine."""
        a, b = images(1)
        a[0, 0, 3, 3] = value
        with pytest.raises(InputError, match="the relit image holds NaN or infinity; expected finite pixels"):
            metrics.update(a, b, lights(UNKNOWN), lights(UNKNOWN))
