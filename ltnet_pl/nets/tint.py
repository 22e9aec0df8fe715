"""The change of colour temperature, in closed form but for what a camera adds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ltnet_pl.geometry.bands import by_bands
from ltnet_pl.light import encode, planckian, to_display, to_linear

_CLIPS = (0.9, 0.98)  # display values from which on a channel begins to count as clipped, and does so fully


class Tint(nn.Module):
    """An image under a light of another colour temperature, from the same place: in linear light a factor per channel.

    The factor is the ratio of two black bodies' colours times that of what a camera or a tone curve adds to each, a small
    learned function of the mired, nothing at the start. Equal temperatures change nothing, and there and back is where one was,
    whatever is learned.

    What clips was at least that bright, and its colour is unknown: there each channel becomes as bright as the brightest, so that
    white highlights stay white instead of turning blue or orange.

    Args:
        hidden: Channels of the learned function's hidden layer.
    """

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        # only differences count, so a bias would do nothing
        self.first, self.last = nn.Linear(1, hidden), nn.Linear(hidden, 3, bias=False)
        nn.init.zeros_(self.last.weight)

    def colour(self, kelvin: Tensor) -> Tensor:
        """Log of the colour ``(B, 3)`` of lights of some temperatures ``(B,)``."""
        kelvin = kelvin.float().clamp(1500, 12000)
        mired = encode(torch.stack([torch.zeros_like(kelvin), kelvin], dim=1))[:, 2:]
        added: Tensor = self.last(torch.tanh(self.first(mired)))
        return planckian(kelvin).clamp(min=0.02).log() + added

    def forward(self, image: Tensor, present: Tensor, wanted: Tensor) -> Tensor:
        """Tint an image.

        Args:
            image: ``(B, 3, H, W)``, display-encoded.
            present: Its light's temperature in kelvin, ``(B,)``.
            wanted: The wanted one.

        Returns:
            ``(B, 3, H, W)``, display-encoded, bounded by 2; an image asked for the temperature that it has comes out as it is.
        """
        ratio = (self.colour(wanted) - self.colour(present)).exp()
        same = (present == wanted)[:, None, None, None]

        def tinted(rows: slice) -> tuple[Tensor]:
            pixels = image[:, :, rows]
            linear = to_linear(pixels.float()) * ratio[:, :, None, None]
            clipped = ((pixels.float() - _CLIPS[0]) / (_CLIPS[1] - _CLIPS[0])).clamp(0, 1)
            linear = torch.lerp(linear, linear.amax(dim=1, keepdim=True).expand_as(linear), clipped)
            return (torch.where(same, pixels, to_display(linear).clamp(max=2).to(image.dtype)),)

        return by_bands(tinted, image)[0]
