"""Sizes that are left open while a network is exported: one exported file then serves images of any size.

While torch traces a network for export, the lengths of an image are `torch.SymInt`, and no branch of Python may depend on them.
What follows from such a length (a size that something is reduced to, a stride) is computed by tensors instead, which become part
of the exported graph. Everywhere else lengths are plain numbers and nothing here is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor


def is_open(*lengths: int) -> bool:
    """Whether one of these lengths is left open by an export."""
    return any(isinstance(length, torch.SymInt) for length in lengths)


def number(length: int | float) -> Tensor:
    """A length as a float64 tensor without axes: as exact as Python's own numbers."""
    return torch.scalar_tensor(length, dtype=torch.float64)


def length(value: Tensor, least: int, most: int | None = None) -> int:
    """A whole number out of a tensor without axes, as an open length between the bounds that the caller knows it to be within."""
    found = cast(int, value.to(torch.int64).item())
    check: Callable[[bool], None] = torch._check
    check(found >= least)
    if most is not None:
        check(found <= most)
    return found


def longest(*lengths: int) -> Tensor:
    """The longest of open lengths."""
    return torch.stack([number(length) for length in lengths]).amax(dim=0)


def forgotten(side: int) -> int:
    """An open length as one that nothing is known of; a plain number as it is.

    What is cut to an odd length is known to be cut, and what is cut to an even one is known not to be: a trace would take either
    for a rule.
    """
    return length(number(side), 1) if is_open(side) else side


def open_size_within(size: tuple[int, int], longer: int, least: int) -> tuple[int, int]:
    """`size_within` of an open size; no side may be below the least."""
    scale = (longer / longest(*size)).clamp(max=1)
    height, width = (length((number(side) * scale).round().clamp(min=least), least, longer) for side in size)
    return height, width
