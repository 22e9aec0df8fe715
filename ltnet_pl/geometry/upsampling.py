"""What was computed for some points of a surface, spread over all of them without crossing an edge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ltnet_pl.geometry.open_sizes import is_open

Window = tuple[float, float, float, float]
"""Top, left, height and width as fractions."""

_NEAR = 0.25  # how far off a pixel's plane a neighbour may stand to count in full, in units of the neighbours' spacing
_BACKGROUND = 1e-12  # weight of a neighbour without a surface: none, but where there are only such, the weights must have a sum
_ANY = 1e-4  # weight of a neighbour on another surface: it matters only where no other is left


class Lattice(NamedTuple):
    """Where the pixels of a surface stand among the fewer points of the same surface seen at a lower resolution.

    Args:
        weights: Of the four points around each pixel, ``(B, 4, H, W)``; they sum to 1.
        rows: Which rows of points these are, ``(2, H)``.
        columns: Which columns, ``(2, W)``.
    """

    weights: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, points: Tensor, normals: Tensor, sparse: Tensor, texel: Tensor, window: Window | None = None) -> Lattice:
        """Bilinear weights, times how near a point stands to the plane of the pixel.

        Args:
            points: ``(B, 3, H, W)``; z = 0 for background.
            normals: ``(B, 3, H, W)``.
            sparse: The points at the lower resolution, ``(B, 3, h, w)``.
            texel: Side of one of their pixels per unit of depth, ``(B,)``.
            window: What the pixels show of what the points show: top, left, height, width as fractions; None for all.
        """
        top, left, height, width = window or (0.0, 0.0, 1.0, 1.0)
        rows, down = _between(points.shape[-2], sparse.shape[-2], top, height, points)
        columns, right = _between(points.shape[-1], sparse.shape[-1], left, width, points)
        spacing = (_NEAR * texel)[:, None, None] * -points[:, 2]
        shares = [vertical[:, None] * horizontal for horizontal in (1 - right, right) for vertical in (1 - down, down)]
        found = []
        for there, share in zip(_neighbours(sparse, rows, columns), shares, strict=True):
            off = ((there - points) * normals).sum(dim=1)
            near = 1 / (1 + (off / spacing.clamp(min=1e-12)).square().square())
            found.append(share * ((near + _ANY) * (there[:, 2] < 0) + _BACKGROUND))
        weights = torch.stack(found, dim=1)
        return cls(weights / weights.sum(dim=1, keepdim=True), rows, columns)

    def spread(self, values: Tensor) -> Tensor:
        """Values ``(B, 1, h, w)`` at the points to all pixels ``(B, 1, H, W)``."""
        neighbours = torch.cat(list(_neighbours(values, self.rows, self.columns)), dim=1)
        return (neighbours * self.weights).sum(dim=1, keepdim=True)


def _between(length: int, points: int, begin: float, extent: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """The two points around each pixel of a line, ``(2, length)``, and how far it is from the first to the second."""
    centres = (torch.arange(length, device=like.device, dtype=like.dtype) + 0.5) * (extent / length) + begin
    place = (centres * points - 0.5).clamp(0, points - 1)
    first = place.floor().clamp(max=points - 2).clamp(min=0)
    second = (first + 1).clamp(max=points - 1)
    return torch.stack([first, second]).long(), place - first


def _neighbours(values: Tensor, rows: Tensor, columns: Tensor) -> Iterator[Tensor]:
    """The four of the values ``(B, C, h, w)`` around each pixel, the upper and the lower of the left column first."""
    # Rows are copied whole, single numbers are picked slowly: so columns first, but where a strip needs few of the rows. And not
    # by brackets, for which an export transposes all of it twice.
    count, height = rows.shape[-1], values.shape[-2]
    few = not is_open(count, height) and count < height
    for column in columns:
        picked = values if few else values.index_select(-1, column)
        for row in rows:
            there = picked.index_select(-2, row)
            yield there.index_select(-1, column) if few else there
