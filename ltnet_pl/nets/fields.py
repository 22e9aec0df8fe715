"""Light transfer fields: what the interaction predicts per pixel, and how it turns the input into the relit image."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ltnet_pl import InputError
from ltnet_pl.nets.blocks import zero_head

FieldKind = Literal["residual", "affine"]


class Field(nn.Module):
    r"""Predicts a light transfer field from features and applies it to the input.

    * ``residual``: :math:`y = x + d`, three channels; the global residual connection of the paper.
    * ``affine``: :math:`y = x \, e^{g} + d`, six channels; the gain carries the texture of lit surfaces along, the offset lights
      what was black.

    The field starts at zero, where every kind returns the input unchanged.

    Args:
        kind: Which field.
        in_channels: Channels of the features it is predicted from.
    """

    def __init__(self, kind: FieldKind, in_channels: int) -> None:
        super().__init__()
        if kind not in get_args(FieldKind):
            raise InputError(f"field is {kind!r}; expected one of {', '.join(get_args(FieldKind))}")
        self.kind = kind
        self.head = zero_head(in_channels, 3 if kind == "residual" else 6)

    def forward(self, features: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(B, C, H, W)`` and input ``(B, 3, H, W)`` to the relit image, unclamped, and the field."""
        field = self.head(features)
        if self.kind == "residual":
            return image + field, field
        gain, offset = field.chunk(2, dim=1)
        # beyond e^4 the gain would only amplify noise (and overflow in half precision); inside +-2 the bend is slight
        return image * torch.exp(4 * torch.tanh(gain / 4)) + offset, field
