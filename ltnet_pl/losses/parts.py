r"""One function per part of the loss.

``pred`` is a network's relit image as it comes, unclamped: gradients must also reach pixels outside [0, 1]. Images are
display-encoded. Everything is computed in float32 (float64 for float64 input), also under autocast. In the formulas
:math:`\rho(x) = \sqrt{x^2 + \epsilon^2} - \epsilon` with :math:`\epsilon = 10^{-3}`: the absolute value, smooth at 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec

import torch
import torch.nn.functional as F
from kornia.color import rgb_to_lab
from kornia.filters import spatial_gradient
from kornia.geometry.transform import pyrdown, pyrup
from kornia.losses import ssim_loss as kornia_ssim_loss
from torch import Tensor

from ltnet_pl import InputError

EPS = 1e-3
"""Where the losses turn from quadratic to linear, in units of the image range."""

SSIM_WINDOW = 11
"""Side of SSIM's Gaussian window in pixels (standard deviation 1.5)."""

_CODE_FLOOR = 0.1  # direction vectors shorter than this are not stretched further: bounds the gradient of the angle by 10
_MIRED_BETA = 0.1  # in scaled mired: 12 mired, where the error turns from quadratic to linear
_LEVELS = 5

_P = ParamSpec("_P")


def _precise(loss: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """Let a loss compute in at least float32, whatever autocast says: half precision loses the small differences."""

    def widen(x: object) -> Any:
        return x.float() if isinstance(x, Tensor) and x.dtype in (torch.float16, torch.bfloat16) else x

    @functools.wraps(loss)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> Tensor:
        device = next(x.device.type for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*map(widen, args), **{name: widen(x) for name, x in kwargs.items()})

    return wrapped


def _rho(square: Tensor) -> Tensor:
    """rho(x) of a squared x, without cancellation: exactly 0 at 0, also in float32."""
    return square / ((square + EPS**2).sqrt() + EPS)


@_precise
def charbonnier_loss(pred: Tensor, target: Tensor) -> Tensor:
    r"""Smooth mean absolute difference, :math:`\frac1N \sum \rho(\hat y - y)`.

    Kornia's form has its scale fixed at 1, which on images in [0, 1] is nearly the squared error; hence this one.

    Args:
        pred: Relit images, ``(B, C, H, W)``.
        target: Images wanted, same shape.

    Returns:
        Scalar, 0 for identical images.

    Reference:
        Charbonnier et al., "Two deterministic half-quadratic regularization algorithms for computed imaging", ICIP 1994.

    Example:
        >>> charbonnier_loss(torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)).item()  # sqrt(1 + 1e-6) - 1e-3
        0.9990004897117615
    """
    return _rho((pred - target).square()).mean()


@_precise
def residual_loss(pred: Tensor, target: Tensor, input: Tensor, tau: float = 0.02) -> Tensor:
    r"""Relative error of the change of light.

    .. math:: \frac1B \sum_b \frac{\sum \rho(d - d^*)}{\sum \rho(d^*) + \tau N}, \quad d = \hat y - x, \quad d^* = y - x

    with N pixels times channels. The plain form, without the denominator, would be Charbonnier's loss again, since d - d* =
    pred - target; divided, a small change of light weighs as much as a large one.

    Args:
        pred: Relit images, ``(B, C, H, W)``.
        target: Images wanted, same shape.
        input: Images before relighting, same shape.
        tau: Mean change under which the weight of an image stops growing.

    Returns:
        Scalar: 0 for ``pred`` = ``target``, a little under 1 for ``pred`` = ``input`` where the change is large.
    """
    change = target - input
    error = _rho(((pred - input) - change).square()).flatten(1).sum(dim=1)
    size = _rho(change.square()).flatten(1).sum(dim=1)
    return (error / (size + tau * change[0].numel())).mean()


@_precise
def residual_cosine_loss(pred: Tensor, target: Tensor, input: Tensor) -> Tensor:
    r"""Angle between the change predicted and the change wanted, each a vector of all pixels: mean of 1 - cos(d, d*).

    Images that (nearly) do not change, of a root mean square under :math:`\epsilon`, have no direction of change and are left out
    of the mean; where none is left the loss is 0. Lengths of d are floored at the same value, which bounds the gradient of a
    network that starts as a copy.

    Args:
        pred: Relit images, ``(B, C, H, W)``.
        target: Images wanted, same shape.
        input: Images before relighting, same shape.

    Returns:
        Scalar in [0, 2]; 0 where the changes are parallel, 1 where they have nothing in common.
    """
    wanted, found = (target - input).flatten(1), (pred - input).flatten(1)
    root = math.sqrt(wanted.shape[1])
    wanted, found = wanted / root, found / root
    length: Tensor = torch.linalg.vector_norm(wanted, dim=1)
    changes = length > EPS
    cosine = (wanted * found).sum(dim=1) / (length.clamp(min=EPS) * torch.linalg.vector_norm(found, dim=1).clamp(min=EPS))
    return torch.where(changes, 1 - cosine, 0.0).sum() / changes.sum().clamp(min=1)


@_precise
def ssim_loss(pred: Tensor, target: Tensor) -> Tensor:
    r"""Structural dissimilarity, :math:`\frac12 (1 - \operatorname{SSIM}(\hat y, y))`, kornia's, over whole windows only.

    Args:
        pred: Relit images, ``(B, C, H, W)``.
        target: Images wanted, same shape, in [0, 1].

    Returns:
        Scalar in [0, 1]; 0 for identical images.

    Raises:
        InputError: If an image is smaller than the window, 11 pixels.

    Reference:
        Wang et al., "Image quality assessment", IEEE TIP 2004, eq. 13.
    """
    if min(pred.shape[2:]) < SSIM_WINDOW:
        raise InputError(
            f"loss weight ssim: images of {pred.shape[2]} x {pred.shape[3]} pixels; expected at least {SSIM_WINDOW} each way; "
            "use larger images or crops, or set the weight to 0"
        )
    # eps=0: the constants of SSIM keep the denominator from 0, and kornia's own makes two equal black images differ
    loss: Tensor = kornia_ssim_loss(pred, target, SSIM_WINDOW, max_val=1.0, eps=0.0, padding="valid")
    return loss


@_precise
def laplacian_loss(pred: Tensor, target: Tensor) -> Tensor:
    r"""Difference of Laplacian pyramids, every band alike: :math:`\sum_j \operatorname{mean} \rho(L_j(\hat y - y))`.

    Up to five levels, as long as four pixels remain; the last is what is left of the image. The pyramid is linear, so that of the
    difference is enough. Sides are padded by repetition to the next multiple of 2^(levels - 1): kornia's own builder pads by
    reflection to the next power of two, which would count border pixels up to twice each way.

    Args:
        pred: Relit images, ``(B, C, H, W)``.
        target: Images wanted, same shape.

    Returns:
        Scalar, 0 for identical images.

    Reference:
        Bojanowski et al., "Optimizing the latent space of generative networks", ICML 2018; Burt and Adelson, 1983.
    """
    level = pred - target
    height, width = level.shape[2:]
    levels = max(1, min(_LEVELS, (min(height, width) // 4).bit_length()))
    stride = 2 ** (levels - 1)
    level = F.pad(level, (0, -width % stride, 0, -height % stride), mode="replicate")
    total = level.new_zeros(())
    for _ in range(levels - 1):
        smaller = pyrdown(level)
        total = total + _rho((level - pyrup(smaller)).square()).mean()
        level = smaller
    return total + _rho(level.square()).mean()


@_precise
def lab_loss(pred: Tensor, target: Tensor) -> Tensor:
    r"""Colour difference in CIELAB (D65): mean over pixels of :math:`\rho(\Delta E_{76} / 100)`.

    Nothing is clamped: the sRGB curve and CIELAB go on in a straight line below black (so the gradient is finite there and never
    0) and as powers above white.

    Args:
        pred: Relit images, ``(B, 3, H, W)``, sRGB.
        target: Images wanted, same shape.

    Returns:
        Scalar, 0 for identical images; about 1 for black against white.

    Reference:
        CIE 15:2004, section 8.2.1.
    """
    delta = (rgb_to_lab(pred) - rgb_to_lab(target)) / 100
    return _rho(delta.square().sum(dim=1)).mean()


@_precise
def gradient_loss(pred: Tensor, target: Tensor) -> Tensor:
    r"""Difference of image edges: mean over both directions of :math:`\rho(\nabla \hat y - \nabla y)`, Sobel's, per pixel step.

    Args:
        pred: Relit images, ``(B, C, H, W)``.
        target: Images wanted, same shape.

    Returns:
        Scalar, 0 for images that differ by a constant only.
    """
    return _rho(spatial_gradient(pred - target, mode="sobel", order=1, normalized=True).square()).mean()


@_precise
def smoothness_loss(field: Tensor, depth: Tensor, normals: Tensor, images: Tensor) -> Tensor:
    r"""Smoothness of the light transfer field, except where the scene or its light has an edge.

    .. math:: \frac{1}{|P|} \sum_{(p, q) \in P} w_{pq} \operatorname{mean}_c \rho(f_p - f_q), \quad
        w_{pq} = \exp\left(-10 \left(\overline{|I_p - I_q|} + 1 - n_p \cdot n_q + |\ln z_p - \ln z_q|\right)\right)

    P are the pairs of horizontal and vertical neighbours that both have depth. The edges of a shadow are edges of the input
    (present light) or of the target (wanted light): give both as ``images``, and the larger step of the two counts.

    Args:
        field: Light transfer field, ``(B, C, H, W)``.
        depth: Depth, ``(B, 1, H, W)``, 0 where unknown; its scale does not matter.
        normals: Unit normals, ``(B, 3, H, W)``.
        images: Images whose edges the field may have, ``(B, K, 3, H, W)``.

    Returns:
        Scalar, 0 for a constant field or where no two neighbours have depth.

    Raises:
        ValueError: If the field has not the size of the depth.
    """
    if field.shape[2:] != depth.shape[2:]:
        raise ValueError(f"field and depth must have one size, got {tuple(field.shape[2:])} and {tuple(depth.shape[2:])}")
    valid = depth > 0
    logs = torch.where(valid, depth, 1.0).log()
    total, count = field.new_zeros(()), field.new_zeros(())
    for dim in (-1, -2):
        (here, there), (z, z_there) = _neighbours(valid, dim), _neighbours(logs, dim)
        (n, n_there), (image, image_there) = _neighbours(normals, dim), _neighbours(images, dim)
        f, f_there = _neighbours(field, dim)
        turn = (1 - (n * n_there).sum(dim=1, keepdim=True)).clamp(min=0)
        edge = (image - image_there).abs().mean(dim=2).amax(dim=1, keepdim=True)
        both = here & there
        weight = torch.where(both, torch.exp(-10 * (edge + turn + (z - z_there).abs())), 0.0)
        total = total + (weight * _rho((f - f_there).square()).mean(dim=1, keepdim=True)).sum()
        count = count + both.sum()
    return total / count.clamp(min=1)


def _neighbours(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Every element of a dimension but the last, and the one after it."""
    length = x.shape[dim] - 1
    return x.narrow(dim, 0, length), x.narrow(dim, 1, length)


@_precise
def light_loss(code: Tensor, truth: Tensor) -> Tensor:
    r"""Error of a light code: direction plus colour temperature, each a mean over the lights for which it is known.

    .. math:: \left(1 - \frac{v \cdot u}{\max(|v|, 0.1)}\right) + 0.1 (|v| - 1)^2 \quad \text{and} \quad
        \operatorname{smooth\ L1}_{0.1}(m - m^*)

    with v the code's sine and cosine, u the true ones, m the scaled mired. The small term on the length keeps v away from 0,
    where its angle means nothing; under the floor of 0.1 the gradient stays bounded.

    Args:
        code: Light codes as the light stream gives them, ``(B, 3)``, the direction not of unit length.
        truth: True codes, ``(B, 3)``; NaN where unknown.

    Returns:
        Scalar, 0 for equal codes; exactly 0, with a gradient of 0, where nothing is known.
    """
    known = truth.isfinite()
    direction_known, mired_known = known[:, 0] & known[:, 1], known[:, 2]
    truth = torch.where(known, truth, 0.0)  # before any arithmetic: NaN would survive a mask in the gradient
    length = torch.linalg.vector_norm(code[:, :2], dim=1)
    cosine = (code[:, :2] * truth[:, :2]).sum(dim=1) / length.clamp(min=_CODE_FLOOR)
    direction = torch.where(direction_known, 1 - cosine + 0.1 * (length - 1).square(), 0.0)
    mired = F.smooth_l1_loss(code[:, 2], truth[:, 2], beta=_MIRED_BETA, reduction="none")
    mired = torch.where(mired_known, mired, 0.0)
    return direction.sum() / direction_known.sum().clamp(min=1) + mired.sum() / mired_known.sum().clamp(min=1)
