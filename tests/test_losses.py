"""Each loss alone: values derived by hand, gradients in float64, identity = 0, half precision."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltnet_pl import InputError
from ltnet_pl.light import encode
from ltnet_pl.losses import (
    charbonnier_loss,
    gradient_loss,
    lab_loss,
    laplacian_loss,
    light_loss,
    residual_cosine_loss,
    residual_loss,
    smoothness_loss,
    ssim_loss,
)

EPS = 1e-3
PAIRWISE = [charbonnier_loss, ssim_loss, laplacian_loss, lab_loss, gradient_loss]
RESIDUALS = [residual_loss, residual_cosine_loss]


def rho(x):
    return math.sqrt(x * x + EPS * EPS) - EPS


def full(value, *shape):
    return torch.full(shape or (1, 3, 16, 16), value, dtype=torch.float64)


def close(value, wanted, **tolerance):
    assert value.item() == pytest.approx(wanted, **tolerance)


class TestIdentity:
    @pytest.mark.parametrize("loss", PAIRWISE, ids=lambda f: f.__name__)
    @pytest.mark.parametrize("level", ["random", "black", "white", "out of range"])
    def test_pairwise_is_exactly_zero_with_finite_gradient(self, loss, level):
        x = torch.rand(2, 3, 19, 23)
        x = {"random": x, "black": x * 0, "white": x * 0 + 1, "out of range": 6 * x - 3}[level]
        pred = x.clone().requires_grad_()
        value = loss(pred, x)
        value.backward()
        assert abs(value.item()) <= (1e-7 if loss is ssim_loss else 0)  # kornia's SSIM rounds in float32
        assert pred.grad.isfinite().all()

    @pytest.mark.parametrize("loss", RESIDUALS, ids=lambda f: f.__name__)
    def test_residuals(self, loss):
        x, target = torch.rand(2, 2, 3, 9, 7)
        assert loss(target, target, x).item() == pytest.approx(0, abs=2e-7)

    def test_light(self):
        truth = encode(torch.tensor([[0.0, 2500.0], [100.0, 6500.0], [225.0, 4000.0]]))
        assert light_loss(truth, truth).item() == pytest.approx(0, abs=2e-7)


class TestGradients:
    """Against finite differences in float64."""

    @pytest.mark.parametrize("loss", PAIRWISE, ids=lambda f: f.__name__)
    def test_pairwise(self, loss):
        side = 12 if loss is ssim_loss else 9
        a, b = 1.4 * torch.rand(2, 1, 3, side, 11 if loss is ssim_loss else 8, dtype=torch.float64) - 0.2
        assert torch.autograd.gradcheck(lambda x: loss(x, b), a.requires_grad_())

    @pytest.mark.parametrize("loss", RESIDUALS, ids=lambda f: f.__name__)
    def test_residuals(self, loss):
        a, b, x = torch.rand(3, 2, 3, 4, 5, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda y: loss(y, b, x), a.requires_grad_())

    def test_smoothness(self):
        field = torch.rand(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
        depth = torch.rand(1, 1, 5, 4, dtype=torch.float64)
        depth[0, 0, 2, 1] = 0
        normals = torch.nn.functional.normalize(torch.rand(1, 3, 5, 4, dtype=torch.float64), dim=1)
        images = torch.rand(1, 2, 3, 5, 4, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda f: smoothness_loss(f, depth, normals, images), field)

    def test_light(self):
        code = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
        truth = encode(torch.tensor([[10.0, 3000.0], [90.0, math.nan], [math.nan, 5000.0]] * 2, dtype=torch.float64))
        assert torch.autograd.gradcheck(lambda x: light_loss(x, truth), code)


class TestValues:
    def test_charbonnier(self):
        close(charbonnier_loss(full(0.7), full(0.3)), rho(0.4), rel=1e-12)
        close(charbonnier_loss(full(0.0003), full(0.0)), math.sqrt(0.09e-6 + 1e-6) - 1e-3, rel=1e-9)

    def test_residual(self):
        """A wanted change of 0.2, half of it found: rho(0.1) / (rho(0.2) + 0.02). The mean is over images, not pooled."""
        x, target, pred = full(0.3), full(0.5), full(0.4)
        one = rho(0.1) / (rho(0.2) + 0.02)
        close(residual_loss(pred, target, x), one, rel=1e-9)
        small = rho(0.01) / (rho(0.02) + 0.02)
        both = [torch.cat(pair) for pair in ((pred, full(0.31)), (target, full(0.32)), (x, full(0.3)))]
        close(residual_loss(*both), (one + small) / 2, rel=1e-9)

    def test_residual_weighs_a_small_change_up(self):
        """An error of half the change costs nearly alike for a change of 0.4 and of 0.1; charbonnier tells four times as much."""
        x = full(0.2)
        relative = [residual_loss(x + c / 2, x + c, x).item() for c in (0.4, 0.1)]
        plain = [charbonnier_loss(x + c / 2, x + c).item() for c in (0.4, 0.1)]
        assert relative[0] / relative[1] < 1.2
        assert plain[0] / plain[1] > 4

    @given(st.integers(0, 2**31), st.floats(0.01, 1))
    def test_plain_residual_loss_equals_charbonnier(self, seed, scale):
        """The same loss on the residuals is the same loss, value and gradient; only the denominator makes a difference."""
        generator = torch.Generator().manual_seed(seed)
        x, target, pred = scale * torch.rand(3, 2, 3, 6, 5, generator=generator, dtype=torch.float64)
        pred.requires_grad_()
        direct = charbonnier_loss(pred, target)
        residual = charbonnier_loss(pred - x, target - x)
        torch.testing.assert_close(residual, direct, rtol=1e-9, atol=1e-15)
        slopes = [torch.autograd.grad(value, pred)[0] for value in (direct, residual)]
        torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-12)
        assert not math.isclose(residual_loss(pred, target, x).item(), direct.item(), rel_tol=1e-3)

    def test_residual_cosine(self):
        """Parallel, perpendicular, opposite; an image without change is left out, also of the count."""
        x, change = full(0.5, 1, 1, 1, 2), torch.tensor([0.3, 0.0], dtype=torch.float64).view(1, 1, 1, 2)
        other = change.flip(-1)
        close(residual_cosine_loss(x + 0.1 * change, x + change, x), 0, abs=1e-9)
        close(residual_cosine_loss(x + other, x + change, x), 1, rel=1e-9)
        close(residual_cosine_loss(x - change, x + change, x), 2, rel=1e-9)
        diagonal = residual_cosine_loss(x + change + other, x + change, x)
        close(diagonal, 1 - math.sqrt(0.5), rel=1e-9)
        pred, target, twice = torch.cat([x + other, x + other]), torch.cat([x + change, x]), torch.cat([x, x])
        close(residual_cosine_loss(pred, target, twice), 1, rel=1e-9)

    def test_residual_cosine_of_a_copy_has_a_bounded_gradient(self):
        x, target = torch.rand(2, 2, 3, 8, 8)
        pred = x.clone().requires_grad_()
        value = residual_cosine_loss(pred, target, x)
        value.backward()
        close(value, 1, rel=1e-6)
        assert pred.grad.isfinite().all()
        assert pred.grad.abs().max() > 0
        assert pred.grad.norm() < 1 / EPS
        same = residual_cosine_loss(pred, x, x)
        assert same.item() == 0
        assert torch.autograd.grad(same, pred)[0].abs().max() == 0

    def test_ssim(self):
        """Constant images: the variances vanish, and (2 a b + c1) / (a^2 + b^2 + c1) is left."""
        a, b, c1 = 0.2, 0.6, 1e-4
        wanted = (1 - (2 * a * b + c1) / (a * a + b * b + c1)) / 2
        close(ssim_loss(full(a), full(b)), wanted, rel=1e-6)

    def test_ssim_sees_whole_windows_only(self):
        """A border as wide as half a window weighs less than under padding; an 11x11 image is one window."""
        a = torch.rand(1, 3, 11, 11, dtype=torch.float64)
        b = torch.rand(1, 3, 11, 11, dtype=torch.float64)
        taps = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / 4.5)
        window = torch.outer(taps, taps) / taps.sum() ** 2

        def mean(x):
            return (x * window).sum(dim=(-1, -2))

        ma, mb = mean(a), mean(b)
        va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
        similarity = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
        close(ssim_loss(a, b), ((1 - similarity) / 2).mean().item(), rel=1e-6)

    def test_ssim_needs_a_window(self):
        message = "loss weight ssim: images of 10 x 32 pixels; expected at least 11 each way; use larger images or crops, or set"
        with pytest.raises(InputError, match=message):
            ssim_loss(*torch.rand(2, 1, 3, 10, 32))

    @pytest.mark.parametrize("size", [(32, 32), (37, 31), (3, 5), (64, 96)])
    def test_laplacian_of_a_constant_is_in_the_last_level(self, size):
        """Blurs and enlargements keep a constant, so all bands but the last are empty."""
        close(laplacian_loss(full(0.9, 1, 3, *size), full(0.4, 1, 3, *size)), rho(0.5), rel=1e-9)

    def test_laplacian_of_a_checkerboard_is_in_the_first_level(self):
        """The blur (1 4 6 4 1) / 16 has no answer to the finest checkerboard: 1 - 4 + 6 - 4 + 1 = 0."""
        rows, columns = torch.meshgrid(torch.arange(32), torch.arange(64), indexing="ij")
        board = 0.1 * (-1.0) ** (rows + columns).double()
        close(laplacian_loss(0.5 + board.expand(1, 3, 32, 64), full(0.5, 1, 3, 32, 64)), rho(0.1), rel=1e-9)

    def test_laplacian_adds_its_bands(self):
        """Both of the above at once lie in different bands, so they cost their sum; under charbonnier they do not."""
        rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
        board = (0.1 * (-1.0) ** (rows + columns).double()).expand(1, 3, 64, 64)
        flat = full(0.0, 1, 3, 64, 64)
        close(laplacian_loss(flat + 0.2 + board, flat), rho(0.1) + rho(0.2), rel=1e-9)
        close(charbonnier_loss(flat + 0.2 + board, flat), (rho(0.1) + rho(0.3)) / 2, rel=1e-9)

    def test_lab(self):
        """Black to white is delta E 100; middle grey 0.5 is L* = 53.39 (CIE: 116 * 0.21404^(1/3) - 16)."""
        close(lab_loss(full(1.0), full(0.0)), rho(1.0), rel=2e-4)
        linear = ((0.5 + 0.055) / 1.055) ** 2.4
        close(lab_loss(full(0.5), full(0.0)), rho((116 * linear ** (1 / 3) - 16) / 100), rel=2e-4)

    def test_lab_of_red(self):
        """Red against black: L*a*b* of sRGB red is (53.24, 80.09, 67.20) in every table."""
        red = full(0.0)
        red[:, 0] = 1
        close(lab_loss(red, full(0.0)), rho(math.hypot(53.24, 80.09, 67.20) / 100), rel=2e-4)

    @pytest.mark.parametrize("value", [-3.0, -0.5, -1e-6, 0.0, 1e-6, 0.04045, 1.0, 1.5, 8.0])
    def test_lab_goes_on_outside_the_range(self, value):
        """The gradient towards a grey target points the right way everywhere and is neither 0 nor huge."""
        pred = torch.full((1, 3, 1, 1), value, requires_grad=True)
        target = torch.full((1, 3, 1, 1), 0.4)
        lab_loss(pred, target).backward()
        slope = pred.grad.sum().item()
        assert math.copysign(1, slope) == (1 if value > 0.4 else -1)
        assert 0.3 < abs(slope) < 3

    def test_gradient_of_a_ramp(self):
        """A slope of 0.02 per column: inside it is found as it is, at the repeated border half; nothing along the columns."""
        ramp = (0.02 * torch.arange(10, dtype=torch.float64)).expand(1, 3, 7, 10)
        close(gradient_loss(ramp, full(0.0, 1, 3, 7, 10)), (8 * rho(0.02) + 2 * rho(0.01)) / 10 / 2, rel=1e-9)
        close(gradient_loss(full(0.9), full(0.1)), 0, abs=1e-12)


class TestSmoothness:
    """A field with one step of 0.5 between the second and third of four columns; three rows: 9 + 8 pairs, 3 across the step."""

    field = torch.tensor([0.0, 0.0, 0.5, 0.5], dtype=torch.float64).expand(1, 2, 3, 4)

    def scene(self):
        normals = torch.zeros(1, 3, 3, 4, dtype=torch.float64)
        normals[:, 2] = 1
        return full(2.0, 1, 1, 3, 4), normals, full(0.5, 1, 2, 3, 3, 4)

    def test_step_in_a_flat_scene(self):
        close(smoothness_loss(self.field, *self.scene()), 3 * rho(0.5) / 17, rel=1e-9)

    def test_edge_of_depth(self):
        depth, normals, images = self.scene()
        depth[..., 2:] *= 1.5
        wanted = 3 * rho(0.5) * 1.5**-10 / 17
        close(smoothness_loss(self.field, depth, normals, images), wanted, rel=1e-9)
        close(smoothness_loss(self.field, 7 * depth, normals, images), wanted, rel=1e-9)

    def test_edge_of_normals(self):
        depth, normals, images = self.scene()
        normals[..., 2:] = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64).view(1, 3, 1, 1)
        close(smoothness_loss(self.field, depth, normals, images), 3 * rho(0.5) * math.exp(-2) / 17, rel=1e-9)

    @pytest.mark.parametrize("which", [0, 1])
    def test_edge_of_either_image(self, which):
        """An edge of the input (present shadow) or of the target (wanted shadow); 0.3 in one of three channels is 0.1."""
        depth, normals, images = self.scene()
        images[:, which, 1, :, 2:] += 0.3
        close(smoothness_loss(self.field, depth, normals, images), 3 * rho(0.5) * math.exp(-1) / 17, rel=1e-9)

    def test_pairs_without_depth_do_not_count(self):
        """Without the first row: 6 + 4 pairs are left, 2 across the step; without any depth, nothing."""
        depth, normals, images = self.scene()
        depth[:, :, 0] = 0
        close(smoothness_loss(self.field, depth, normals, images), 2 * rho(0.5) / 10, rel=1e-9)
        field = self.field.clone().requires_grad_()
        nothing = smoothness_loss(field, 0 * depth, normals, images)
        assert nothing.item() == 0
        assert torch.autograd.grad(nothing, field)[0].abs().max() == 0

    def test_constant_field(self):
        close(smoothness_loss(full(0.3, 1, 2, 3, 4), *self.scene()), 0, abs=1e-15)

    def test_sizes_must_agree(self):
        with pytest.raises(ValueError, match=r"field and depth must have one size, got \(3, 5\) and \(3, 4\)"):
            smoothness_loss(full(0.0, 1, 2, 3, 5), *self.scene())


class TestLight:
    def truth(self, azimuth=90.0, kelvin=4000.0):
        return encode(torch.tensor([[azimuth, kelvin]], dtype=torch.float64))

    @given(st.floats(0, 360), st.floats(0, 360))
    def test_direction_is_one_minus_cosine(self, azimuth, other):
        wanted = 1 - math.cos(math.radians(azimuth - other))
        close(light_loss(self.truth(azimuth), self.truth(other)), wanted, abs=1e-9)

    def test_length_of_the_direction(self):
        """Half as long: 0.1 * 0.25 more. A twentieth: under the floor of 0.1, so half the cosine is lost too."""
        truth, code = self.truth(), self.truth()
        code[:, :2] *= 0.5
        close(light_loss(code, truth), 0.025, rel=1e-6)
        code[:, :2] *= 0.1
        close(light_loss(code, truth), 0.5 + 0.1 * 0.95**2, rel=1e-6)

    def test_gradient_of_a_vanishing_direction_is_bounded(self):
        """A head that starts at 0 learns its direction at a slope of 10, not of infinity."""
        code = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
        light_loss(code, self.truth()).backward()
        assert code.grad[0, :2].tolist() == pytest.approx([-10, 0], abs=1e-6)

    def test_mired_is_smooth_l1(self):
        truth = self.truth()
        for offset, wanted in ((0.3, 0.25), (-0.04, 0.04**2 / 0.2)):
            code = truth + torch.tensor([[0, 0, offset]])
            close(light_loss(code, truth), wanted, rel=1e-6)

    def test_unknown_truths_are_masked_one_by_one(self):
        """Of three lights one has no azimuth, one no temperature: each mean is over the two that are known."""
        lights = torch.tensor([[90.0, 4000.0], [math.nan, 4000.0], [90.0, math.nan]], dtype=torch.float64)
        code = encode(torch.tensor([[180.0, 4000.0]] * 3, dtype=torch.float64))
        code[1, 2] += 0.3
        code = code.requires_grad_()
        value = light_loss(code, encode(lights))
        close(value, (1 + 1) / 2 + 0.25 / 2, rel=1e-6)
        (slope,) = torch.autograd.grad(value, code)
        assert slope.isfinite().all()
        assert slope[1, :2].abs().max() == 0
        assert slope[2, 2] == 0
        assert slope[0, :2].abs().max() > 0

    def test_nothing_known(self):
        code = torch.randn(2, 3, requires_grad=True)
        value = light_loss(code, torch.full((2, 3), math.nan))
        assert value.item() == 0
        assert torch.autograd.grad(value, code)[0].abs().max() == 0


class TestPrecision:
    @pytest.mark.parametrize("loss", PAIRWISE, ids=lambda f: f.__name__)
    def test_half_precision_is_computed_in_float32(self, loss):
        a, b = torch.rand(2, 1, 3, 24, 24).bfloat16()
        wanted = loss(a.float(), b.float())
        assert wanted.dtype == torch.float32
        torch.testing.assert_close(loss(a, b), wanted, rtol=0, atol=0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(loss(a.float(), b), wanted, rtol=0, atol=0)
