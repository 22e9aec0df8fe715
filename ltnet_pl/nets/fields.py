"""Light transfer fields: what the interaction predicts, and how it turns the input into the relit image."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltnet_pl import InputError
from ltnet_pl.geometry import forgotten, number
from ltnet_pl.geometry.bands import by_bands
from ltnet_pl.nets.blocks import zero_head

FieldKind = Literal["direct", "residual", "gain", "affine", "bilateral"]

Window = tuple[float, float, float, float]
"""Top, left, height and width as fractions."""

CHANNELS = {"direct": 3, "residual": 3, "gain": 3, "affine": 6}


class Field(nn.Module):
    r"""Predicts a light transfer field per pixel and applies it to an image.

    * ``direct``: :math:`y = d`: no field at all, the relit image itself; for comparison.
    * ``residual``: :math:`y = x + d`, three channels; the global residual connection of the paper.
    * ``gain``: :math:`y = x \, e^{g}`, three channels; it cannot light what is black.
    * ``affine``: :math:`y = x \, e^{g} + d`, six channels; the gain carries the texture of lit surfaces along, the offset lights
      what was black.

    The edges of shadows are sharp, and the interaction works at a reduced resolution. So the field is decoded at full
    resolution, by two thin layers, from the interaction's features and from what it saw itself: colour, geometry, and both
    lights' cues. It starts at zero, where every kind but ``direct`` returns the image unchanged.

    Args:
        kind: Which field.
        in_channels: Channels of the interaction's features.
        seen_channels: Channels of what the interaction saw.
        fold: Pixels per feature along each side.
        spread: Channels that a feature spreads over each of its pixels.
        hidden: Channels of the hidden layer.
    """

    def __init__(
        self, kind: FieldKind, in_channels: int, seen_channels: int, fold: int = 1, spread: int = 16, hidden: int = 32
    ) -> None:
        super().__init__()
        if kind not in CHANNELS:
            raise InputError(f"field is {kind!r}; expected one of {', '.join(get_args(FieldKind))}")
        self.kind, self.fold = kind, fold
        self.spread = nn.Conv2d(in_channels, spread * fold**2, 1)
        self.merge = nn.Conv2d(spread + seen_channels, hidden, 1)
        self.head = zero_head(hidden, CHANNELS[kind])

    def forward(self, features: Tensor, image: Tensor, seen: Tensor, window: Window | None = None) -> tuple[Tensor, Tensor]:
        """Relight an image by the interaction's features.

        Args:
            features: ``(B, C, h, w)``, of the whole image.
            image: ``(B, 3, H, W)``.
            seen: ``(B, seen_channels, H, W)``.
            window: Which part of what the features cover the image is, at some other resolution: top, left, height, width as
                fractions; None: the image is what the interaction saw, so that ``h = ceil(H / fold)``.

        Returns:
            The relit image, unclamped, and the field.
        """
        height, width = image.shape[-2:]
        if window is None:
            spread = functional.pixel_shuffle(self.spread(features), self.fold)
            spread = spread[..., : forgotten(height), : forgotten(width)]
        else:
            spread = windowed(self._level(features), (height, width), window)
        field = self.head(functional.silu(self.merge(torch.cat([spread, seen], dim=1))))
        if self.kind == "direct":
            return field, field
        if self.kind == "residual":
            return image + field, field
        gain, *offset = field.split(3, dim=1)
        relit = image * torch.exp(bent(gain))
        return (relit + offset[0] if offset else relit), field

    def _level(self, features: Tensor) -> Tensor:
        """What a feature gives to its pixels on average.

        What tells them apart belongs to them alone: between pixels of another resolution it would be a grid.
        """
        weight, bias = self.spread.weight, self.spread.bias
        assert bias is not None
        weight, bias = (x.view(-1, self.fold**2, *x.shape[1:]).mean(dim=1) for x in (weight, bias))
        return functional.conv2d(features, weight, bias)


def windowed(x: Tensor, size: tuple[int, int], window: Window | None) -> Tensor:
    """A window ``(B, C, *size)`` of a tensor ``(B, C, h, w)``, bilinear, at another resolution."""
    down, across = places(size, window, x)
    return sampled(x, across.expand(len(x), 1, -1), down[None, :, None])


def places(size: tuple[int, int], window: Window | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where the rows and the columns of a window of such a size stand in the whole, whose edges are -1 and 1."""
    top, left, height, width = window or (0.0, 0.0, 1.0, 1.0)
    found = []
    for length, begin, extent in ((size[0], top, height), (size[1], left, width)):
        centres = (torch.arange(length, device=like.device, dtype=like.dtype) + 0.5) * (2 * extent / length)
        found.append(centres + (2 * begin - 1))
    return found[0], found[1]


def bent(gain: Tensor) -> Tensor:
    """A log gain kept within +-4: more would only amplify noise and overflow in half precision; inside +-2 it hardly bends."""
    return 4 * torch.tanh(gain / 4)


class BilateralField(nn.Module):
    r"""A bilateral grid of transforms of colour and computed light at low resolution, sliced at full resolution.

    :math:`y = x + a x + b \, x \rho + c \, e + d`, each channel by itself, with the input x, the change of light :math:`\rho`
    and the wanted light e that the cues predict. The twelve factors are looked up trilinearly in a grid over image plane and
    *guide*, a pointwise function of colour, depth and both lights' cues: the edge of a new shadow is in neither colour nor depth.

    Args:
        in_channels: Channels of the low-resolution features that the grid is predicted from.
        guide_channels: Channels of what the guide is computed from. The last two, where there are cues: e and the log of
            :math:`\rho`.
        cues: Whether there are cues; without them b and c are left out.
        bins: Cells of the grid along the guide.
        hidden: Channels of the guide's hidden layer.

    Reference:
        Gharbi et al., "Deep Bilateral Learning for Real-Time Image Enhancement", SIGGRAPH 2017: grid and slicing.
    """

    def __init__(self, in_channels: int, guide_channels: int, cues: bool, bins: int = 8, hidden: int = 16) -> None:
        super().__init__()
        self.bins, self.cues = bins, cues
        self.factors = 12 if cues else 6
        self.head = zero_head(in_channels, self.factors * bins, 1)
        self.guide = nn.Sequential(nn.Conv2d(guide_channels, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, 1, 1))

    def forward(self, features: Tensor, image: Tensor, seen: Tensor, window: Window | None = None) -> tuple[Tensor, Tensor]:
        """Low-resolution features of the whole, image ``(B, 3, H, W)`` and what the guide sees ``(B, guide_channels, H, W)``.

        The image may be a window of what the features cover: top, left, height, width as fractions.

        Returns:
            The relit image and the sliced field ``(B, 12 or 6, H, W)``: a, d, and with cues b and c, for each channel of colour.
        """
        grid = self.head(features).float()  # in half precision, places between pixels would be too coarse
        grid = grid.view(len(grid), self.factors, self.bins, *grid.shape[-2:]).permute(0, 3, 1, 2, 4).contiguous()
        width = image.shape[-1]
        along, across = places((image.shape[-2], width), window, grid)
        above, below, down = between(grid.shape[1], along)

        def relit_rows(rows: slice) -> tuple[Tensor, Tensor]:
            pixels, known = image[:, :, rows], seen[:, :, rows]
            depth = torch.tanh(self.guide(known)).float()[:, 0]
            # Rows of pixels are regular, so that the grid is interpolated between its own rows first. What is left is a lookup
            # in a plane for each row, twice as cheap as one in a volume, which torch does on one core alone besides.
            first, second = grid.index_select(1, above[rows]), grid.index_select(1, below[rows])
            lines = first + (second - first) * down[rows, None, None, None]  # not lerp, of which an export makes six operations
            field = sampled(lines.flatten(0, 1), across, depth.flatten(0, 1)[:, None])
            field = field.view(len(depth), -1, self.factors, width).transpose(1, 2)
            gain, offset, *cued = torch.split(field, 3, dim=1)
            relit = pixels + gain * pixels + offset
            if self.cues:
                relit = relit + cued[0] * pixels * known[:, -1:].exp() + cued[1] * known[:, -2:-1]
            return relit, field

        relit, field = by_bands(relit_rows, image)
        return relit, field


def between(count: int, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two of ``count`` cells beside places of the same line, from -1 to 1, and how far each is from one to the other."""
    cell = ((place + 1) * (count / 2) - 0.5).clamp(0, count - 1)
    first = cell.floor()
    return first.long(), (first + 1).clamp(max=count - 1).long(), cell - first


def sampled(planes: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Planes ``(N, C, h, w)`` at places whose edges are -1 and 1, bilinear; beyond the outermost centres they stay constant.

    Args:
        planes: The planes.
        across: Where to look from left to right; with ``down``, of a shape that stretches to ``(N, H, W)``.
        down: From top to bottom.
    """
    inside = _inside(across, planes.shape[-1]), _inside(down, planes.shape[-2])
    place = torch.stack(torch.broadcast_tensors(*inside), dim=-1)  # type: ignore[no-untyped-call] # torch gives it no types
    # nothing is outside any more, and zeros there are what onnxruntime is quick at: for "border" it takes three times as long
    return functional.grid_sample(planes, place, mode="bilinear", padding_mode="zeros", align_corners=False)


def _inside(place: Tensor, count: int) -> Tensor:
    """A place no further out than the outermost of so many centres."""
    most = number(1 - 1 / count).to(place)
    return place.clamp(-most, most)
