"""The metrics of relighting: per image, on 8-bit-rounded images, averaged over images.

PSNR and SSIM are plain functions of image batches; `build_metrics` gives the one collection that the tasks update. SSIM is
scikit-image's Gaussian form. LPIPS and MPS exist only where trunk weights are at hand (see `ltnet_pl.lpips`), and their keys say
which trunk: ``lpips_squeeze`` is another number than ``lpips_alex``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from ltnet_pl import InputError
from ltnet_pl.light import angular_distance, decode, mired
from ltnet_pl.lpips import LPIPS, Absent, find_weights

AZIMUTH_BINS = (0, 45, 90, 135, 180)
"""Changes of azimuth, in degrees, by which PSNR is split."""

SSIM_WINDOW = 11
"""Side of SSIM's Gaussian window in pixels: 3.5 standard deviations of 1.5 each way, rounded."""

_LIGHT_TITLES = {
    "direction_accuracy": "direction accuracy",
    "angular_error": "angular error (°)",
    "mired_error": "median mired error",
}


def quantize(images: Tensor) -> Tensor:
    """Images as an 8-bit file would keep them: clamped to [0, 1] and rounded to multiples of 1/255.

    Args:
        images: Images of any shape, display-encoded, unclamped.

    Returns:
        The same shape, at least float32.

    Example:
        >>> quantize(torch.tensor([-0.2, 0.5, 7.0])).mul(255).tolist()
        [0.0, 128.0, 255.0]
    """
    images = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
    return (images.clamp(0, 1) * 255).round() / 255


def psnr(pred: Tensor, target: Tensor) -> Tensor:
    r"""Peak signal-to-noise ratio of each image, :math:`-10 \log_{10} \operatorname{MSE}`, in dB.

    Args:
        pred: Relit images, ``(B, C, H, W)`` in [0, 1].
        target: Ground truth, same shape and range.

    Returns:
        Values ``(B,)``, float32; infinite for identical images, and then so is every mean that they enter: a list of pairs for
        which copying the input is right needs a metric of its own.

    Raises:
        ValueError: If the shapes differ.
    """
    a, b = _pair(pred, target)
    error = (a - b).square().mean(dim=(1, 2, 3))
    return (-10 * error.log10()).float().to(pred.device)


def ssim(pred: Tensor, target: Tensor) -> Tensor:
    r"""Structural similarity of each image, the mean over windows and channels.

    .. math:: \frac{(2 \mu_x \mu_y + c_1)(2 \sigma_{xy} + c_2)}{(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)}

    with a Gaussian window of standard deviation 1.5 and 11 taps, population covariances, :math:`c_1 = 0.01^2`, :math:`c_2 =
    0.03^2`, over windows that lie wholly in the image: scikit-image's ``structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1)``.

    Args:
        pred: Relit images, ``(B, C, H, W)`` in [0, 1].
        target: Ground truth, same shape and range.

    Returns:
        Values ``(B,)``, float32, at most 1; computed in float64, since variances in float32 lose digits in flat regions.

    Raises:
        ValueError: If the shapes differ.
        InputError: If the images are smaller than the window.

    Reference:
        Wang et al., "Image quality assessment", IEEE TIP 2004, eq. 13.
    """
    a, b = _pair(pred, target)
    if min(a.shape[2:]) < SSIM_WINDOW:
        raise InputError(
            f"SSIM: images of {a.shape[2]} x {a.shape[3]} pixels; expected at least {SSIM_WINDOW} each way; use larger images"
        )
    taps = torch.arange(SSIM_WINDOW, dtype=a.dtype, device=a.device) - SSIM_WINDOW // 2
    window = torch.exp(-taps.square() / (2 * 1.5**2))
    window = window / window.sum()

    def blur(x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)[:, None]
        flat = F.conv2d(F.conv2d(flat, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))
        return flat.view(*x.shape[:2], *flat.shape[2:])

    mean_a, mean_b = blur(a), blur(b)
    variances = blur(a * a) - mean_a.square() + blur(b * b) - mean_b.square()
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_a.square() + mean_b.square() + c1) * (variances + c2))
    return similarity.mean(dim=(1, 2, 3)).float().to(pred.device)


def mps(ssim: Tensor, lpips: Tensor) -> Tensor:
    """Mean perceptual score, (SSIM + 1 - LPIPS) / 2, the challenge's ranking, element by element.

    Example:
        >>> mps(torch.tensor([0.5]), torch.tensor([0.25])).item()
        0.625
    """
    return (ssim + 1 - lpips) / 2


def _pair(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both image batches in float64, on the CPU where their device has none (Apple's)."""
    if pred.shape != target.shape or pred.ndim != 4:
        raise ValueError(f"metrics compare (B, C, H, W) images of one shape, got {tuple(pred.shape)} and {tuple(target.shape)}")
    if pred.device.type == "mps":
        pred, target = pred.cpu(), target.cpu()
    return pred.double(), target.double()


@dataclass(frozen=True)
class MetricSettings:
    """Settings of the metrics.

    Args:
        lpips_weights: File of AlexNet, VGG16 or SqueezeNet 1.1 weights (torchvision's state dict, whole or features only) for
            LPIPS and MPS, and for the perceptual loss; null: environment variable LTNET_LPIPS_WEIGHTS, then torch's hub cache.
    """

    lpips_weights: str | None = None


def build_metrics(settings: MetricSettings) -> RelightMetrics:
    """The metrics for one stage; `RelightMetrics.clone` gives those of another.

    Raises:
        InputError: If a file of LPIPS weights is named but missing or wrong. Where none is named or found, LPIPS and MPS are
            absent instead.
    """
    found = find_weights(settings.lpips_weights)
    return RelightMetrics(found if isinstance(found, Absent) else LPIPS(found))


class _Rows(Metric):
    """A table of per-image values, one row per image, complete over all processes; NaN marks what is unknown for an image."""

    full_state_update = False
    flat: list[Tensor] | Tensor

    def __init__(self, width: int) -> None:
        # the task decides when values are needed; a cached table would only keep memory
        super().__init__(compute_with_cache=False)
        self.width = width
        # flat, since torchmetrics stands in for a process without images with an empty vector
        self.add_state("flat", default=[], dist_reduce_fx="cat")

    def update(self, rows: Tensor) -> None:
        """Append rows ``(B, width)``."""
        assert isinstance(self.flat, list)
        self.flat.append(rows.flatten())

    def compute(self) -> Tensor:
        """All rows, ``(N, width)``."""
        if isinstance(self.flat, list) and not self.flat:
            return torch.zeros(0, self.width)
        rows: Tensor = dim_zero_cat(self.flat)
        return rows.view(-1, self.width)


class RelightMetrics(nn.Module):
    """All metrics of relit images and of the light stream's readings.

    Each `update` computes the values of its images once, keeps them in one torchmetrics state (so means and medians are over
    images, whatever the batch sizes, and complete under DDP with a single gather) and returns them.

    Args:
        lpips: The perceptual distance, or why there is none.

    Attributes:
        labels: Title of each key that `compute` may return, in the order of tables.
        absent: Metrics that cannot be computed (``"lpips"``, ``"mps"``), each with the reason; empty if all can.
    """

    def __init__(self, lpips: LPIPS | Absent) -> None:
        super().__init__()
        self.lpips = lpips if isinstance(lpips, LPIPS) else None
        self.absent = {"lpips": lpips.reason, "mps": lpips.reason} if isinstance(lpips, Absent) else {}
        titles = {"psnr": "PSNR", "ssim": "SSIM"}
        if self.lpips is not None:
            titles |= {f"{key}_{self.lpips.trunk}": f"{key.upper()} ({self.lpips.label})" for key in ("lpips", "mps")}
        images = tuple(titles)
        titles |= {f"psnr_{change}": f"PSNR {change}°" for change in AZIMUTH_BINS}
        readings = [f"{source}_{kind}" for source in ("input", "guide") for kind in _LIGHT_TITLES]
        for key in readings:
            source, _, kind = key.partition("_")
            titles[key] = f"{source.capitalize()} {_LIGHT_TITLES[kind]}"
        self.labels: dict[str, str] = titles
        self._columns = (*images, "change", *readings)
        self._rows = _Rows(len(self._columns))

    def clone(self) -> RelightMetrics:
        """A copy with states of its own; the trunk of LPIPS is shared."""
        return copy.deepcopy(self)

    def reset(self) -> None:
        """Forget all images."""
        self._rows.reset()

    @torch.no_grad()
    def per_image(self, pred: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Image metrics of a batch, without keeping them.

        Args:
            pred: Relit images, ``(B, 3, H, W)``, unclamped.
            target: Ground truth, same shape.

        Returns:
            ``psnr``, ``ssim`` and, with a trunk, ``lpips_<trunk>``, ``mps_<trunk>``, each ``(B,)``, of the 8-bit-rounded images.

        Raises:
            InputError: If ``pred`` is not finite: rounding would turn that into an ordinary number.
        """
        if not bool(pred.isfinite().all()):
            raise InputError(
                "metrics: the relit image holds NaN or infinity; expected finite pixels; the network's weights or its input are "
                "broken: look at the last loss, or go back to an earlier checkpoint"
            )
        pred, target = quantize(pred), quantize(target)
        values = {"psnr": psnr(pred, target), "ssim": ssim(pred, target)}
        if self.lpips is not None:
            distance = self.lpips(pred, target)
            values |= {f"lpips_{self.lpips.trunk}": distance, f"mps_{self.lpips.trunk}": mps(values["ssim"], distance)}
        return values

    @torch.no_grad()
    def update(
        self,
        pred: Tensor,
        target: Tensor,
        input_light: Tensor,
        target_light: Tensor,
        input_code: Tensor | None = None,
        guide_code: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Add a batch.

        Args:
            pred: Relit images, ``(B, 3, H, W)``, unclamped; clamped and rounded here.
            target: Ground truth, same shape.
            input_light: Light tensor of the input, ``(B, 2 or more)``; NaN where unknown.
            target_light: Light tensor wanted.
            input_code: The light stream's reading of the input, ``(B, 3)``, compared with ``input_light``.
            guide_code: Its reading of the guide, compared with ``target_light``.

        Returns:
            Image metrics of the batch, see `per_image`.

        Raises:
            InputError: If ``pred`` is not finite or smaller than a metric's window.
        """
        values = self.per_image(pred, target)
        unknown = torch.full_like(values["psnr"], torch.nan)
        columns = dict.fromkeys(self._columns, unknown) | values
        columns["change"] = angular_distance(input_light[:, 0], target_light[:, 0])
        for source, code, light in (("input", input_code, input_light), ("guide", guide_code, target_light)):
            if code is not None:
                columns |= {f"{source}_{kind}": value for kind, value in _reading(code, light).items()}
        self._rows.update(torch.stack([columns[key].to(unknown) for key in self._columns], dim=1))
        return values

    def compute(self) -> dict[str, Tensor]:
        """Metrics over all images of all processes.

        Returns:
            Scalars in the order of ``labels``: means, but the median for mired errors. A key without data (no reading of the
            light, no pair of that change of azimuth, or lights unknown) is left out.
        """
        rows = self._rows.compute()
        # sums of float32 over many images lose digits
        table = dict(zip(self._columns, rows.cpu().double().unbind(dim=1), strict=True))
        bins = (table["change"] / 45).round() * 45
        table |= {f"psnr_{change}": table["psnr"][bins == change] for change in AZIMUTH_BINS}
        result = {}
        for key in self.labels:
            known = table[key][~table[key].isnan()]
            if len(known):
                value = known.quantile(0.5) if key.endswith("mired_error") else known.mean()
                result[key] = value.float().to(rows.device)
        return result


def _reading(code: Tensor, light: Tensor) -> dict[str, Tensor]:
    """Errors of the light stream's codes ``(B, 3)`` against a light tensor; NaN where the truth is unknown."""
    read = decode(code.float())
    azimuth, truth = read[:, 0], light[:, 0].float()
    same = (azimuth / 45).round() % 8 == (truth / 45).round() % 8
    return {
        "direction_accuracy": torch.where(truth.isnan(), truth, same.float()),
        "angular_error": angular_distance(azimuth, truth),
        "mired_error": (mired(read[:, 1]) - mired(light[:, 1].float())).abs(),
    }
