"""The light that the page's controls ask for, in numbers, words and colours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from ltnet_pl.light import Light, direction_of, planckian, to_display
from ltnet_pl.relight import Relighter

COOL, WARM, STEP = 6500, 2500, 100
"""Range of the colour's slider in kelvin, which networks are trained on, and its step."""

FROM = {
    "N": "from behind the scene",
    "NE": "from behind the scene, on the right",
    "E": "from the right",
    "SE": "from the front, on the right",
    "S": "from the front, where the camera stands",
    "SW": "from the front, on the left",
    "W": "from the left",
    "NW": "from behind the scene, on the left",
}
"""Where a light comes from, in words, by compass point."""


@dataclass(frozen=True)
class Wanted:
    """The light that is asked for.

    Args:
        light: By direction and colour; ignored where there is a guide.
        guide: File of an image whose light is wanted.
        strength: Share of the change that is made, 0 to 1.
    """

    light: Light
    guide: Path | None = None
    strength: float = 1.0

    @property
    def name(self) -> str:
        """For file names: ``90deg_4500K``."""
        return f"as_{self.guide.stem}" if self.guide else f"{self.light.azimuth:.0f}deg_{self.light.temperature:.0f}K"


def light_from(azimuth: float, temperature: float, elevation: float, ambient: float, *, usual: float) -> Light:
    """The light that the page's controls say.

    Args:
        azimuth: Degrees.
        temperature: Kelvin.
        elevation: Degrees above the horizon.
        ambient: Share that comes from everywhere, in percent.
        usual: Elevation that means where the rig's lights stand.

    Raises:
        InputError: If a value is outside its range.
    """
    return Light(azimuth, temperature, None if elevation == usual else elevation, ambient / 100)


def usual_elevation(relighter: Relighter) -> int:
    """Elevation in whole degrees of the lights that the network assumes."""
    return round(math.degrees(math.atan2(relighter.net.rig.height, relighter.net.rig.radius)))


def said(light: Light) -> str:
    """A light in words.

    Example:
        >>> said(Light(90, 4512))
        'from the right (E), 4500 K'
    """
    point = direction_of(light.azimuth)
    return f"{FROM[point]} ({point}), {round(light.temperature, -2):.0f} K"


def colours() -> dict[int, str]:
    """Colours of the light on the screen, as bright as they go, by temperature in kelvin."""
    kelvin = list(range(WARM, COOL + STEP, STEP))
    linear = planckian(torch.tensor(kelvin, dtype=torch.float64))
    shown = (to_display(linear / linear.amax(dim=1, keepdim=True)) * 255).round().int().tolist()
    return {key: "#{:02x}{:02x}{:02x}".format(*rgb) for key, rgb in zip(kelvin, shown, strict=True)}
