"""What was computed for some points of a surface, spread over all of them without crossing an edge."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_NEAR = 0.25  # how far off a pixel's plane a neighbour may stand to count in full, in units of the neighbours' spacing
_BACKGROUND = 1e-12  # weight of a neighbour without a surface: none, but where there are only such, the weights must have a sum
_ANY = 1e-4  # weight of a neighbour on another surface: it matters only where no other is left


class Lattice(NamedTuple):
    """Every ``stride``-th pixel along each side, the first in the middle of the first stride.

    Args:
        stride: Pixels from one to the next.
        weights: Of the four lattice pixels around each pixel, ``(B, 4, H, W)``; they sum to 1.
        rows: Which rows of the lattice these are, ``(2, H)``.
        columns: Which columns, ``(2, W)``.
    """

    stride: int
    weights: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, points: Tensor, normals: Tensor, stride: int, texel: Tensor) -> Lattice:
        """The lattice of a surface: bilinear weights, times how near a neighbour stands to the plane of the pixel.

        Args:
            points: ``(B, 3, H, W)``; z = 0 for background.
            normals: ``(B, 3, H, W)``.
            stride: 2 or more.
            texel: Side of a pixel per unit of depth, ``(B,)``.
        """
        (rows, down), (columns, right) = (_between(length, stride, points) for length in points.shape[-2:])
        sparse = picked(points, stride)
        spacing = (stride * _NEAR * texel)[:, None, None] * -points[:, 2]
        found = []
        for row, vertical in zip(rows, (1 - down, down), strict=True):
            for column, horizontal in zip(columns, (1 - right, right), strict=True):
                there = sparse[..., row, :][..., column]
                off = ((there - points) * normals).sum(dim=1)
                near = 1 / (1 + (off / spacing.clamp(min=1e-12)).square().square())
                found.append(vertical[:, None] * horizontal * ((near + _ANY) * (there[:, 2] < 0) + _BACKGROUND))
        weights = torch.stack(found, dim=1)
        return cls(stride, weights / weights.sum(dim=1, keepdim=True), rows, columns)

    def spread(self, values: Tensor) -> Tensor:
        """Values ``(B, 1, h, w)`` at the lattice's pixels to all pixels ``(B, 1, H, W)``."""
        neighbours = [values[..., row, :][..., column] for row in self.rows for column in self.columns]
        return (torch.cat(neighbours, dim=1) * self.weights).sum(dim=1, keepdim=True)


def picked(x: Tensor, stride: int) -> Tensor:
    """The lattice's pixels of a tensor ``(..., H, W)``."""
    return x[..., stride // 2 :: stride, stride // 2 :: stride].contiguous()


def _between(length: int, stride: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The two lattice places around each pixel of a line, ``(2, length)``, and how far it is from the first to the second."""
    count = (length - stride // 2 + stride - 1) // stride
    place = (torch.arange(length, device=like.device, dtype=like.dtype) - stride // 2) / stride
    place = place.clamp(0, count - 1)
    first = place.floor().clamp(max=max(0, count - 2))
    second = (first + 1).clamp(max=count - 1)
    return torch.stack([first, second]).long(), place - first
