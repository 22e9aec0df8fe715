"""Work on large maps a few rows at a time, so that what it needs in between stays in the cache of a CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BAND = 2**16
"""Pixels that are worked on at a time, of all samples together."""


def by_bands(work: Callable[[slice], tuple[Tensor, ...]], like: Tensor) -> tuple[Tensor, ...]:
    """What a function gives for all rows of a map, found a band of rows at a time where that is faster.

    It is so on a CPU, where nothing is differentiated: a map that does not fit in the cache costs five times as much per
    operation, most of it for pages that the system hands out anew. A compiler fuses the operations instead, and unrolled bands
    would be in its way.

    Args:
        work: Makes of a slice of the rows maps ``(B, C, rows, W)`` of these rows alone.
        like: A map ``(B, C, H, W)`` that the work is done on.

    Returns:
        The maps of all rows, ``(B, C, H, W)``.
    """
    batch, _, height, width = like.shape
    if like.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return work(slice(None))
    rows = max(1, BAND // (batch * width))
    if rows >= height:
        return work(slice(None))
    found: list[Tensor] = []
    for start in range(0, height, rows):
        band = slice(start, min(start + rows, height))
        parts = work(band)
        found = found or [part.new_empty(*part.shape[:2], height, part.shape[3]) for part in parts]
        for whole, part in zip(found, parts, strict=True):
            whole[:, :, band] = part
    return tuple(found)
