"""Lights, the rig they stand on, the camera that sees them, the colour of a black body, and the sRGB curve.

Conventions (used by every other module):

* **Azimuth** is a compass bearing in degrees, clockwise: N = 0 stands behind the scene, E = 90 on the image's right, S = 180
  behind the camera.
* **Temperature** is in kelvin; networks see it in mired (``1e6 / kelvin``), which is nearly uniform to the eye.
* The **gravity frame** has x to the image's right, y up, z horizontally towards the viewer. The **camera frame** has x right, y
  up in the image, z towards the viewer (so a visible point has negative z, and its normal faces the viewer: their product is
  negative). Pitching the camera down by ``p`` turns one into the other about their common x axis.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ltnet_pl import InputError

DIRECTIONS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
"""VIDIT's eight light directions, at the multiples of 45 degrees."""

TEMPERATURES = (2500, 3500, 4500, 5500, 6500)
"""VIDIT's five colour temperatures in kelvin."""

BLACK_BODIES = (1000.0, 20000.0)
"""Kelvin between which the colour of a black body is known."""

MIRED_CENTRE = (1e6 / 2500 + 1e6 / 6500) / 2
MIRED_HALF_RANGE = (1e6 / 2500 - 1e6 / 6500) / 2


def azimuth_of(direction: str) -> float:
    """Azimuth in degrees of one of VIDIT's eight direction names.

    Raises:
        ValueError: If the name is not one of the eight.

    Example:
        >>> azimuth_of("SW")
        225.0
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"unknown light direction {direction!r}; expected one of {', '.join(DIRECTIONS)}")
    return 45.0 * DIRECTIONS.index(direction)


def direction_of(azimuth: float) -> str:
    """Name of the compass point nearest to an azimuth in degrees.

    Example:
        >>> direction_of(350.0)
        'N'
    """
    return DIRECTIONS[round(azimuth / 45.0) % 8]


@overload
def angular_distance(a: float, b: float) -> float: ...
@overload
def angular_distance(a: Tensor, b: Tensor) -> Tensor: ...
def angular_distance(a: float | Tensor, b: float | Tensor) -> float | Tensor:
    """Circular distance of two azimuths, in degrees within [0, 180].

    Example:
        >>> angular_distance(350.0, 20.0)
        30.0
    """
    turned: float | Tensor = (a - b + 180.0) % 360.0 - 180.0
    return abs(turned) if isinstance(turned, float) else turned.abs()


@overload
def mirror_azimuth(azimuth: float) -> float: ...
@overload
def mirror_azimuth(azimuth: Tensor) -> Tensor: ...
def mirror_azimuth(azimuth: float | Tensor) -> float | Tensor:
    """Azimuth of a light after the image is flipped left to right: E becomes W, N stays N."""
    return (360.0 - azimuth) % 360.0


@overload
def mired(kelvin: float) -> float: ...
@overload
def mired(kelvin: Tensor) -> Tensor: ...
def mired(kelvin: float | Tensor) -> float | Tensor:
    """Reciprocal megakelvin, ``1e6 / kelvin``; its own inverse."""
    return 1e6 / kelvin


@dataclass(frozen=True)
class Light:
    """One light: where it stands and what colour it has.

    Args:
        azimuth: Compass bearing in degrees; stored within [0, 360).
        temperature: Colour temperature in kelvin, 1000 to 20000.
        elevation: Angle above the horizon in degrees, seen from the point that the camera looks at, within (-90, 90];
            None means the rig's.
        ambient: Share of the light that arrives equally from everywhere, 0 (none) to 1 (no direction at all).

    Raises:
        InputError: If a value is outside its range or not finite.
    """

    azimuth: float
    temperature: float
    elevation: float | None = None
    ambient: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.azimuth):
            raise InputError(f"azimuth must be a finite number of degrees, got {self.azimuth}")
        # twice: of a tiny negative angle the first gives 360
        object.__setattr__(self, "azimuth", float(self.azimuth) % 360.0 % 360.0)
        low, high = BLACK_BODIES
        if not low <= self.temperature <= high:
            raise InputError(f"temperature must lie within {low:g}-{high:g} kelvin, got {self.temperature}")
        if self.elevation is not None and not -90.0 < self.elevation <= 90.0:
            raise InputError(f"elevation must lie within (-90, 90] degrees, got {self.elevation}")
        if not 0.0 <= self.ambient <= 1.0:
            raise InputError(f"ambient must lie within 0-1, got {self.ambient}")

    @classmethod
    def from_name(cls, name: str) -> Light:
        """The light of one of VIDIT's 40 settings, written as in its file names: ``"4500_E"``.

        Raises:
            ValueError: If the temperature or the direction is not VIDIT's.
        """
        kelvin, _, direction = name.partition("_")
        if kelvin not in {str(t) for t in TEMPERATURES}:
            expected = ", ".join(map(str, TEMPERATURES))
            raise ValueError(f"unknown light temperature {kelvin!r} in {name!r}; expected one of {expected}")
        return cls(azimuth_of(direction), float(kelvin))

    @property
    def name(self) -> str:
        """VIDIT's name of the light, ``"4500_E"``.

        Raises:
            ValueError: If the light is not one of VIDIT's 40 settings.
        """
        if self.azimuth % 45.0 or self.temperature not in TEMPERATURES or self.elevation is not None or self.ambient:
            raise ValueError(f"{self} is not one of VIDIT's 40 settings and has no name")
        return f"{self.temperature:.0f}_{direction_of(self.azimuth)}"

    def mirror(self) -> Light:
        """The same light after a left-right flip of the image."""
        return replace(self, azimuth=mirror_azimuth(self.azimuth))

    def row(self) -> tuple[float, float, float, float]:
        """``(azimuth, temperature, elevation, ambient)``, the columns of a light tensor; elevation NaN means the rig's."""
        return (self.azimuth, self.temperature, math.nan if self.elevation is None else self.elevation, self.ambient)


SETTINGS = tuple(Light(45.0 * i, float(t)) for t in TEMPERATURES for i in range(8))
"""VIDIT's 40 settings: five temperatures by eight directions."""


@dataclass(frozen=True)
class Rig:
    """Where the lights stand: on a ring around the point P that the camera looks at.

    A light of azimuth a stands at ``P + |P| (radius * dir(a) + height * up)``, with ``|P|`` the distance from camera to P.

    Args:
        radius: Radius of the ring, in units of ``|P|``.
        height: Height of the ring above P, in units of ``|P|``.

    Raises:
        InputError: If a value is outside its range or not finite.
    """

    radius: float = 0.9
    height: float = 0.9

    def __post_init__(self) -> None:
        if not (0 < self.radius < 100 and -100 < self.height < 100):
            raise InputError(f"a rig needs 0 < radius < 100 and |height| < 100, got {self}")

    def offset(self, light: Light) -> NDArray[np.float64]:
        """Vector from P to the light in the gravity frame, in units of ``|P|``, shape ``(3,)``."""
        radius, height = self.radius, self.height
        if light.elevation is not None:
            reach, angle = math.hypot(radius, height), math.radians(light.elevation)
            radius, height = reach * math.cos(angle), reach * math.sin(angle)
        bearing = math.radians(light.azimuth)
        return np.array([radius * math.sin(bearing), height, -radius * math.cos(bearing)])

    def tensor(self, like: Tensor, count: int) -> Tensor:
        """Radius and height as a float32 tensor on the device of another, the same row for each sample: ``(count, 2)``."""
        return like.new_tensor([self.radius, self.height], dtype=torch.float32).expand(count, 2)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without roll, its principal point at the centre of the whole frame.

    Args:
        fov: Vertical field of view of the whole frame in degrees, within (0, 170].
        pitch: Angle in degrees by which the camera looks down, within (-90, 90].

    Raises:
        InputError: If a value is outside its range or not finite.
    """

    fov: float = 50.0
    pitch: float = 35.0

    def __post_init__(self) -> None:
        if not (0 < self.fov <= 170 and -90 < self.pitch <= 90):
            raise InputError(f"a camera needs 0 < fov <= 170 and -90 < pitch <= 90 degrees, got {self}")

    def rotation(self) -> NDArray[np.float64]:
        """Matrix ``(3, 3)`` that turns a vector of the gravity frame into the camera frame."""
        c, s = math.cos(math.radians(self.pitch)), math.sin(math.radians(self.pitch))
        return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])

    def tensor(self, like: Tensor, count: int) -> Tensor:
        """Field of view and pitch as a float32 tensor on the device of another, the same row for each sample: ``(count, 2)``."""
        return like.new_tensor([self.fov, self.pitch], dtype=torch.float32).expand(count, 2)


def light_tensor(lights: list[Light]) -> Tensor:
    """Azimuths and temperatures of lights as a float32 tensor, ``(B, 2)`` (degrees, kelvin).

    Where any light has an elevation or ambient part, ``(B, 4)`` with those as further columns (NaN elevation: the rig's).
    """
    rows = torch.tensor([light.row() for light in lights], dtype=torch.float32).reshape(-1, 4)
    plain = bool((rows[:, 2].isnan() & (rows[:, 3] == 0)).all())
    return rows[:, :2] if plain else rows


def encode(lights: Tensor) -> Tensor:
    """Light tensor ``(B, 2 or more)`` to its code ``(B, 3)``: sine and cosine of the azimuth, mired scaled to [-1, 1].

    The range is VIDIT's: -1 is 6500 K, +1 is 2500 K. NaN stays NaN.
    """
    bearing = torch.deg2rad(lights[:, 0])
    scaled = (1e6 / lights[:, 1] - MIRED_CENTRE) / MIRED_HALF_RANGE
    return torch.stack([bearing.sin(), bearing.cos(), scaled], dim=1)


def decode(code: Tensor) -> Tensor:
    """Light code ``(B, 3)`` back to ``(B, 2)`` azimuth in [0, 360) and kelvin; sine and cosine need not be of unit length."""
    azimuth = torch.rad2deg(torch.atan2(code[:, 0], code[:, 1])) % 360.0 % 360.0  # twice: a tiny negative angle gives 360 first
    kelvin = 1e6 / (code[:, 2] * MIRED_HALF_RANGE + MIRED_CENTRE).clamp(min=20.0)
    return torch.stack([azimuth, kelvin], dim=1)


def nearest_trained(kelvin: float) -> float:
    """The nearest colour temperature that networks are trained on, 2500-6500 K."""
    return min(max(kelvin, float(TEMPERATURES[0])), float(TEMPERATURES[-1]))


def clamp_temperature(light: Light) -> Light:
    """The light with its temperature clamped to what networks are trained on, 2500-6500 K, with a warning if it moved."""
    clamped = nearest_trained(light.temperature)
    if clamped != light.temperature:
        warnings.warn(
            f"colour temperature {light.temperature:g} K is outside the trained range 2500-6500 K; {clamped:g} K is used",
            stacklevel=2,
        )
    return replace(light, temperature=clamped)


def planckian(kelvin: Tensor) -> Tensor:
    """Linear sRGB colour of a black body, luminance 1, negatives clipped to 0.

    The chromaticity is Krystek's rational approximation of the Planckian locus in CIE 1960 (u, v), turned into linear sRGB with
    its D65 white. 6500 K is near white, not white: the locus passes beside D65.

    Args:
        kelvin: Temperatures of any shape, meant for 1000 to 20000.

    Returns:
        Tensor of the same shape plus a last axis of 3, in the same dtype; differentiable.

    Reference:
        Krystek, "An algorithm to calculate correlated colour temperature", Color Research and Application 10 (1985): within
        8e-5 in u and 9e-5 in v of the locus from 1000 to 15000 K; at 20000 K it is 0.001 off in x and y. sRGB matrix:
        IEC 61966-2-1.
    """
    t = kelvin
    u = (0.860117757 + 1.54118254e-4 * t + 1.28641212e-7 * t**2) / (1 + 8.42420235e-4 * t + 7.08145163e-7 * t**2)
    v = (0.317398726 + 4.22806245e-5 * t + 4.20481691e-8 * t**2) / (1 - 2.89741816e-5 * t + 1.61456053e-7 * t**2)
    denominator = 2 * u - 8 * v + 4
    x, y = 3 * u / denominator, 2 * v / denominator
    xyz = torch.stack([x / y, torch.ones_like(y), (1 - x - y) / y], dim=-1)
    with torch.autocast(t.device.type, enabled=False):  # a colour needs more digits than bfloat16 has
        return (xyz @ torch.tensor(_XYZ_TO_SRGB, dtype=t.dtype, device=t.device).mT).clamp(min=0)


def body_gain(asked: Tensor, known: Tensor) -> Tensor:
    """What brings linear light under one black body to that under another, ``(B, 3)`` for kelvins ``(B,)``."""
    return planckian(asked) / planckian(known).clamp(min=0.02)


def black_body(kelvin: ArrayLike) -> NDArray[np.float64]:
    """The same for numpy, within the approximation's range (see `planckian`).

    Args:
        kelvin: Temperatures of any shape, 1000 to 20000.

    Returns:
        Array of the same shape plus a last axis of 3.

    Raises:
        ValueError: If a temperature is outside the range.
    """
    t = np.asarray(kelvin, dtype=np.float64)
    if not np.all((t >= BLACK_BODIES[0]) & (t <= BLACK_BODIES[1])):
        raise ValueError(f"black-body temperatures must lie within 1000-20000 kelvin, got {kelvin!r}")
    return np.asarray(planckian(torch.tensor(t)).numpy())


_XYZ_TO_SRGB = ((3.2406, -1.5372, -0.4986), (-0.9689, 1.8758, 0.0415), (0.0557, -0.2040, 1.0570))


def to_linear(display: Tensor) -> Tensor:
    """Display-encoded sRGB values to linear light, element by element; nothing is clipped.

    Below 0 the curve goes on in its straight line, above 1 in its power.

    Args:
        display: Values of any shape, full scale 1.

    Returns:
        Tensor of the same shape; differentiable.

    Reference:
        IEC 61966-2-1.
    """
    # both forms are computed everywhere: the floor keeps negatives out of the power
    return torch.where(display <= 0.04045, display / 12.92, power((display.clamp(min=0.04045) + 0.055) / 1.055, 2.4))


def to_display(linear: Tensor) -> Tensor:
    """Linear light to display-encoded sRGB values, element by element; nothing is clipped.

    The inverse of `to_linear`, to the four digits that the standard gives where its two forms meet.

    Args:
        linear: Values of any shape, full scale 1.

    Returns:
        Tensor of the same shape; differentiable.

    Reference:
        IEC 61966-2-1.
    """
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * power(linear.clamp(min=0.0031308), 1 / 2.4) - 0.055)


def power(x: Tensor, exponent: float) -> Tensor:
    """A power of numbers that are 0 or more, for a positive exponent: faster than torch's own."""
    return (x.log() * exponent).exp()


def srgb_to_linear(display: ArrayLike) -> NDArray[np.float64]:
    """`to_linear` for numpy, in float64.

    Example:
        >>> srgb_to_linear([0.0, 0.5, 1.0]).round(4).tolist()
        [0.0, 0.214, 1.0]
    """
    return np.asarray(to_linear(torch.tensor(np.asarray(display, dtype=np.float64))).numpy())


def linear_to_srgb(linear: ArrayLike) -> NDArray[np.float64]:
    """`to_display` for numpy, in float64.

    Example:
        >>> linear_to_srgb([0.0, 0.5, 1.0]).round(4).tolist()
        [0.0, 0.7354, 1.0]
    """
    return np.asarray(to_display(torch.tensor(np.asarray(linear, dtype=np.float64))).numpy())
