"""The convolutional backbone that LTNet's interaction and the U-Net baseline share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltnet_pl import InputError
from ltnet_pl.geometry import is_open

InteractionKind = Literal["concat", "film", "attention"]


class Film(nn.Module):
    """Scales and shifts normalised features by a code, channel by channel.

    Args:
        channels: Channels of the features.
        code_channels: Length of the code.

    Reference:
        Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI 2018.
    """

    def __init__(self, channels: int, code_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(code_channels, 2 * channels)
        # a neutral start: scale 1, shift 0, whatever the code
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Features ``(B, C, H, W)`` and code ``(B, code_channels)`` to features of the same shape."""
        scale, shift = self.linear(code)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = x * (1 + scale) + shift
        return out


class LightAttention(nn.Module):
    """Each pixel attends to a few tokens made of the code, and adds what it finds there.

    Args:
        channels: Channels of the features.
        code_channels: Length of the code.
        tokens: How many tokens.
        keys: Length of a key.
    """

    def __init__(self, channels: int, code_channels: int, tokens: int = 8, keys: int = 16) -> None:
        super().__init__()
        self.keys = keys
        self.query = nn.Conv2d(channels, keys, 1)
        self.key = nn.Linear(code_channels, tokens * keys)
        self.value = nn.Linear(code_channels, tokens * channels)
        # a neutral start: nothing is added
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Features ``(B, C, H, W)`` and code ``(B, code_channels)`` to features of the same shape."""
        key = self.key(code).view(len(x), -1, self.keys)
        value = self.value(code).view(len(x), key.shape[1], -1)
        weights = torch.softmax(key @ self.query(x).flatten(2) / self.keys**0.5, dim=1)
        out: Tensor = x + (value.mT @ weights).view_as(x)
        return out


class Block(nn.Module):
    """Two 3x3 convolutions with group normalisation around a residual connection, steered by a code where there is one.

    Args:
        channels: Channels in and out.
        code_channels: Length of the code that steers the normalised features; 0 for none.
        interaction: How it steers them: ``film`` or ``attention``.
    """

    def __init__(self, channels: int, code_channels: int = 0, interaction: InteractionKind = "film") -> None:
        super().__init__()
        groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(groups, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        steer = LightAttention if interaction == "attention" else Film
        self.modulation = steer(channels, code_channels) if code_channels else None

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Features ``(B, C, H, W)`` and code ``(B, code_channels)`` to features of the same shape."""
        y = self.norm(self.first(x))
        if self.modulation is not None:
            y = self.modulation(y, code)
        out: Tensor = x + self.second(functional.silu(y))
        return out


class Backbone(nn.Module):
    """U-Net of residual blocks; any image size, skips are added.

    Args:
        in_channels: Channels of the input.
        widths: Channels per level, the first at the finest resolution, each further one at half of the one before.
        code_channels: Length of the code that steers the bottom and the decoder; 0 for none.
        interaction: How the code does so; with ``concat`` it joins the input as constant planes instead.
        fold: Side of the square of pixels that is folded into channels before the first convolution: the finest level stands at
            1 / fold of the input's resolution, and nothing is lost or averaged.

    Raises:
        InputError: If there are no widths, one is below 1, or another value is none of those.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        code_channels: int = 0,
        interaction: InteractionKind = "film",
        fold: int = 1,
    ) -> None:
        super().__init__()
        if not widths or any(w < 1 for w in widths):
            raise InputError(
                f"--model.net.init_args.widths is {list(widths)}; expected one or more positive numbers of channels, e.g. "
                "[24, 48, 96, 128]"
            )
        if interaction not in get_args(InteractionKind):
            raise InputError(
                f"--model.net.init_args.interaction is {interaction!r}; expected one of {', '.join(get_args(InteractionKind))}"
            )
        if fold < 1:
            raise InputError(f"--model.net.init_args.fold is {fold}; expected 1 or more")
        self.fold, self.planes = fold, interaction == "concat"
        steer = 0 if self.planes else code_channels
        # folded pixels are neighbours already: a pointwise stem sees as much, for a ninth of the work
        size = 1 if fold > 1 else 3
        planes = code_channels if self.planes else 0
        self.stem = nn.Conv2d(in_channels * fold**2 + planes, widths[0], size, padding=size // 2)
        pairs = list(pairwise(widths))
        self.encoder = nn.ModuleList(Block(fine) for fine, _ in pairs)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairs)
        self.bottom = Block(widths[-1], steer, interaction)
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in reversed(pairs))
        self.decoder = nn.ModuleList(Block(fine, steer, interaction) for fine, _ in reversed(pairs))

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """``(B, in_channels, H, W)`` to features ``(B, widths[0], ceil(H / fold), ceil(W / fold))``."""
        x = self._folded(x, code)
        skips = []
        for block, down in zip(self.encoder, self.down, strict=True):
            x = block(x)
            skips.append(x)
            x = down(functional.silu(x))
        x = self.bottom(x, code)
        for block, up in zip(self.decoder, self.up, strict=True):
            skip = skips.pop()
            x = functional.interpolate(up(x), size=skip.shape[-2:], mode="bilinear", align_corners=False) + skip
            x = block(x, code)
        return functional.silu(x)

    def _folded(self, x: Tensor, code: Tensor | None) -> Tensor:
        """The stem's features ``(B, widths[0], ceil(H / fold), ceil(W / fold))``."""
        height, width = x.shape[-2:]
        planes = code[:, :, None, None] if self.planes and code is not None else None
        if self.fold > 1 and is_open(height, width):
            # the same as one convolution in steps of the fold, which drops what is padded too much
            x = functional.pad(x, (0, self.fold - 1, 0, self.fold - 1), mode="replicate")
            seen = x.shape[1]
            folded = self.stem.weight[:, : seen * self.fold**2].reshape(-1, seen, self.fold, self.fold)
            x = functional.conv2d(x, folded, self.stem.bias, stride=self.fold)
            return x if planes is None else x + functional.conv2d(planes, self.stem.weight[:, seen * self.fold**2 :])
        short = (0, -width % self.fold, 0, -height % self.fold)
        x = functional.pad(x, short, mode="replicate") if self.fold > 1 and any(short) else x
        x = functional.pixel_unshuffle(x, self.fold) if self.fold > 1 else x
        if planes is not None:
            x = torch.cat([x, planes.expand(-1, -1, *x.shape[-2:])], dim=1)
        out: Tensor = self.stem(x)
        return out


def zero_head(in_channels: int, out_channels: int, size: int = 3) -> nn.Conv2d:
    """A convolution that starts as the zero function, so that a residual network starts as a copy of its input."""
    head = nn.Conv2d(in_channels, out_channels, size, padding=size // 2)
    nn.init.zeros_(head.weight)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    return head
