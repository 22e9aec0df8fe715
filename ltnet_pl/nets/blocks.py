"""The convolutional backbone that LTNet's interaction and the U-Net baseline share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from ltnet_pl import InputError


class Block(nn.Module):
    """Two 3x3 convolutions with group normalisation around a residual connection, modulated by a code where there is one.

    Args:
        channels: Channels in and out.
        code_channels: Length of the code that scales and shifts the normalised features (FiLM); 0 for none.

    Reference:
        Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI 2018.
    """

    def __init__(self, channels: int, code_channels: int = 0) -> None:
        super().__init__()
        groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(groups, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(code_channels, 2 * channels) if code_channels else None
        if self.modulation is not None:
            # a neutral start: scale 1, shift 0, whatever the code
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Features ``(B, C, H, W)`` and code ``(B, code_channels)`` to features of the same shape."""
        y = self.norm(self.first(x))
        if self.modulation is not None:
            scale, shift = self.modulation(code)[:, :, None, None].chunk(2, dim=1)
            y = y * (1 + scale) + shift
        out: Tensor = x + self.second(functional.silu(y))
        return out


class Backbone(nn.Module):
    """U-Net of residual blocks; any image size, skips are added.

    Args:
        in_channels: Channels of the input.
        widths: Channels per level, the first at full resolution, each further one at half of the one before.
        code_channels: Length of the code that modulates the bottom and the decoder; 0 for none.

    Raises:
        InputError: If there are no widths, or one is below 1.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], code_channels: int = 0) -> None:
        super().__init__()
        if not widths or any(w < 1 for w in widths):
            raise InputError(
                f"--model.net.init_args.widths is {list(widths)}; expected one or more positive numbers of channels, e.g. "
                "[24, 48, 96, 128]"
            )
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        pairs = list(pairwise(widths))
        self.encoder = nn.ModuleList(Block(fine) for fine, _ in pairs)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairs)
        self.bottom = Block(widths[-1], code_channels)
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in reversed(pairs))
        self.decoder = nn.ModuleList(Block(fine, code_channels) for fine, _ in reversed(pairs))

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """``(B, in_channels, H, W)`` to features ``(B, widths[0], H, W)``."""
        x = self.stem(x)
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


def zero_head(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution that starts as the zero function, so that a residual network starts as a copy of its input."""
    head = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.zeros_(head.weight)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    return head
