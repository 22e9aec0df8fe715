"""Reducing an image by the mean over areas, also where its size is left open by an export."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ltnet_pl.geometry import is_open


def reduced(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean over the pixels that each pixel of the result covers in whole or in part, as `functional.interpolate` has it.

    Args:
        image: ``(B, C, H, W)``.
        size: Height and width wanted, no more than those of the image.

    Returns:
        ``(B, C, *size)``.
    """
    if not is_open(*size, *image.shape[-2:]):
        return functional.interpolate(image, size=size, mode="area")
    down, across = (_shares(new, old, image) for new, old in zip(size, image.shape[-2:], strict=True))
    return down @ (image @ across.mT)


def _shares(new: int, old: int, like: Tensor) -> Tensor:
    """What each old pixel of a line gives to each new one, ``(new, old)``."""
    edge = torch.arange(new, device=like.device)
    first, last = edge * old // new, ((edge + 1) * old + new - 1) // new
    place = torch.arange(old, device=like.device)
    covered = (place >= first[:, None]) & (place < last[:, None])
    return covered.to(like.dtype) / (last - first)[:, None].to(like.dtype)
