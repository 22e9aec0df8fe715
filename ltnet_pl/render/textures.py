"""Procedural textures and materials: small, seamless pictures of reflectance in linear light, made with numpy."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rng = np.random.Generator

PIXELS = 256
"""Width and height of every texture, in texels."""

DARKEST, BRIGHTEST = 0.02, 0.85
"""Reflectances are clipped to this range: coal to fresh snow."""


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Args:
        kind: ``"diffuse"``, ``"plastic"`` (rough dielectric coating over a diffuse base) or ``"conductor"`` (rough metal).
        texture: Reflectance in linear light, ``(PIXELS, PIXELS, 3)`` within [DARKEST, BRIGHTEST]; of the base, or of the metal.
        span: Length of scene that one repeat of the texture covers.
        roughness: Beckmann-like roughness of coating or metal, within (0, 1]; without meaning for ``"diffuse"``.
    """

    kind: Literal["diffuse", "plastic", "conductor"]
    texture: Array
    span: float
    roughness: float = 0.3


def colour(rng: Rng, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> Array:
    """A random linear colour ``(3,)`` from ranges of hue (turns), saturation and value (each 0 to 1)."""
    hsv = [rng.uniform(*bounds) for bounds in (hue, saturation, value)]
    return np.array(colorsys.hsv_to_rgb(hsv[0] % 1.0, hsv[1], hsv[2]))


def fbm(rng: Rng, slope: float = 2.0, lowest: float = 1.0) -> Array:
    """Seamless fractal noise: white noise with its spectrum shaped to ``frequency ** -slope / 2``.

    Args:
        rng: Source of randomness.
        slope: Fall of the power spectrum; 1 is gritty, 2 cloudy, 3 soft.
        lowest: Lowest frequency kept, in cycles per repeat.

    Returns:
        ``(PIXELS, PIXELS)``, mean 0, standard deviation 1.
    """
    fy, fx = np.meshgrid(*(np.fft.fftfreq(PIXELS, 1 / PIXELS),) * 2, indexing="ij")
    frequency = np.hypot(fx, fy)
    gain = np.where(frequency >= lowest, np.maximum(frequency, 1e-9) ** (-slope / 2 - 0.5), 0.0)
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((PIXELS, PIXELS))) * gain).real
    standard: Array = (noise - noise.mean()) / noise.std()
    return standard


def _grid() -> tuple[Array, Array]:
    """Coordinates ``(v, u)`` of texel centres in [0, 1)."""
    line = (np.arange(PIXELS) + 0.5) / PIXELS
    v, u = np.meshgrid(line, line, indexing="ij")
    return v, u


def _blend(a: Array, b: Array, weight: Array) -> Array:
    """Texture ``(PIXELS, PIXELS, 3)`` that is colour a where weight is 0, b where it is 1; a and b may be textures."""
    return a + (b - a) * weight[..., None]


def _grain(rng: Rng, texture: Array, amount: float, slope: float = 1.0) -> Array:
    """The texture with its brightness varied by fractal noise; ``amount`` is the relative standard deviation."""
    return texture * np.exp(amount * fbm(rng, slope))[..., None]


def _step(edge: Array, width: float) -> Array:
    """Smooth step of a signed distance: 0 below ``-width``, 1 above ``width``."""
    t = np.clip(edge / (2 * width) + 0.5, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _cells(rng: Rng, count: int) -> tuple[Array, NDArray[np.int64]]:
    """Seamless Voronoi cells: distance to the nearest border in cell widths, and the number of each texel's cell."""
    sites = (
        np.stack(np.meshgrid(np.arange(count), np.arange(count), indexing="ij"), -1) + rng.uniform(0.1, 0.9, (count, count, 2))
    ) / count
    v, u = _grid()
    nearest, second = np.full((2, PIXELS, PIXELS), np.inf)
    number = np.zeros((PIXELS, PIXELS), dtype=np.int64)
    for row, column in np.ndindex(count, count):
        dv, du = (np.abs(w - s) for w, s in zip((v, u), sites[row, column], strict=True))
        distance = np.hypot(np.minimum(dv, 1 - dv), np.minimum(du, 1 - du))
        number[distance < nearest] = row * count + column
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    return (second - nearest) * count / 2, number


def plain(rng: Rng, a: Array, b: Array) -> Array:
    """Plaster: one colour, faintly uneven."""
    return _grain(rng, _blend(a, a, np.zeros((PIXELS, PIXELS))), rng.uniform(0.03, 0.12), 1.5)


def stains(rng: Rng, a: Array, b: Array) -> Array:
    """Cloudy patches of two colours: soil, moss, rust, damp."""
    weight = _step(fbm(rng, rng.uniform(1.8, 2.6)) + rng.uniform(-0.6, 0.6), rng.uniform(0.3, 1.2))
    return _grain(rng, _blend(a, b, weight), 0.15)


def speckle(rng: Rng, a: Array, b: Array) -> Array:
    """Fine grains of a second colour: granite, gravel, terrazzo."""
    return _blend(
        _grain(rng, _blend(a, a, np.zeros((PIXELS, PIXELS))), 0.08), b, _step(fbm(rng, 0.6, 6.0) - rng.uniform(0.8, 1.4), 0.3)
    )


def checker(rng: Rng, a: Array, b: Array) -> Array:
    """Squares of two colours in turn."""
    v, u = _grid()
    count = 2 * int(rng.integers(1, 4))
    odd = (np.floor(v * count) + np.floor(u * count)) % 2
    return _grain(rng, _blend(a, b, odd), 0.06)


def stripes(rng: Rng, a: Array, b: Array) -> Array:
    """Parallel bands of uneven widths, as in cloth."""
    v, u = _grid()
    count = int(rng.integers(2, 6))
    phase = (u if rng.random() < 0.5 else v) * count
    third = b * rng.uniform(0.3, 0.9)
    bands = _blend(a, b, _step(rng.uniform(0.15, 0.35) - np.abs(phase % 1 - 0.5), 0.02))
    return _grain(rng, _blend(bands, third, _step(0.05 - np.abs(phase % 1 - 0.12), 0.02)), 0.05, 0.5)


def tiles(rng: Rng, a: Array, b: Array) -> Array:
    """Square tiles, each of its own shade, with joints."""
    v, u = _grid()
    count = int(rng.integers(3, 6))
    shade = np.exp(rng.normal(0, 0.15, (count, count)))[(v * count).astype(int), (u * count).astype(int)]
    edge = np.minimum(0.5 - np.abs(u * count % 1 - 0.5), 0.5 - np.abs(v * count % 1 - 0.5))
    return _grain(rng, _blend(b * 0.6, a * shade[..., None], _step(edge - 0.04, 0.015)), 0.1)


def bricks(rng: Rng, a: Array, b: Array) -> Array:
    """Courses of bricks in running bond, each brick of its own shade, with mortar."""
    v, u = _grid()
    courses = 2 * int(rng.integers(3, 6))
    per_course = courses // 2
    row = (v * courses).astype(int)
    shifted = (u * per_course + 0.5 * (row % 2)) % per_course
    shade = np.exp(rng.normal(0, 0.22, (courses, per_course)))[row, shifted.astype(int)]
    edge = np.minimum((0.5 - np.abs(shifted % 1 - 0.5)) * 2, 0.5 - np.abs(v * courses % 1 - 0.5))
    return _grain(rng, _blend(b, a * shade[..., None], _step(edge - 0.07, 0.03)), 0.12)


def planks(rng: Rng, a: Array, b: Array) -> Array:
    """Boards with stretched grain and dark gaps."""
    v, u = _grid()
    count = int(rng.integers(3, 7))
    row = (v * count).astype(int)
    shade = np.exp(rng.normal(0, 0.2, count))[row]
    # each board shows another part of the same grain, fine across a board and long along it; to and fro, so that it has no seam
    along, part = np.divmod(np.abs(2 * u - 1) * PIXELS / 8, 1.0)
    start = along.astype(int) + rng.integers(0, PIXELS, count)[row]
    noise, across = fbm(rng, 1.2), (v * PIXELS * 2).astype(int) % PIXELS
    grain = noise[across, start % PIXELS] * (1 - part) + noise[across, (start + 1) % PIXELS] * part
    wood = _blend(a, b * 0.7, _step(grain, 1.5)) * shade[..., None]
    return _grain(rng, wood * (0.25 + 0.75 * _step(0.5 - np.abs(v * count % 1 - 0.5) - 0.03, 0.02))[..., None], 0.05)


def rings(rng: Rng, a: Array, b: Array) -> Array:
    """Flat-sawn wood: rings of growth cut lengthwise."""
    v, u = _grid()
    wobble = 0.3 * fbm(rng, 3.0) + rng.uniform(0.1, 0.5) * np.cos(2 * np.pi * u)
    phase = int(rng.integers(6, 12)) * v * 1.0 + wobble
    return _grain(rng, _blend(a, b, (0.5 + 0.5 * np.sin(2 * np.pi * phase)) ** 2), 0.1, 0.8)


def marble(rng: Rng, a: Array, b: Array) -> Array:
    """Pale stone with thin, bent veins."""
    vein = np.exp(-4.0 * np.abs(fbm(rng, 2.6))) + 0.5 * np.exp(-8.0 * np.abs(fbm(rng, 2.0)))
    return _blend(_grain(rng, _blend(a, a, vein * 0), 0.04), b * 0.6, np.clip(vein, 0, 1) * 0.7)


def cobbles(rng: Rng, a: Array, b: Array) -> Array:
    """Paving stones of irregular shape, each of its own shade."""
    border, cell = _cells(rng, int(rng.integers(6, 11)))
    shade = np.exp(rng.normal(0, 0.2, int(cell.max()) + 1))[cell]
    return _grain(rng, _blend(b * 0.4, a * shade[..., None], _step(border - 0.09, 0.06)), 0.12)


TEXTURES: dict[str, Callable[[Rng, Array, Array], Array]] = {
    f.__name__: f for f in (plain, stains, speckle, checker, stripes, tiles, bricks, planks, rings, marble, cobbles)
}
"""Every texture by name: a function of a generator and two linear colours."""


def make(rng: Rng, names: tuple[str, ...], a: Array, b: Array) -> Array:
    """One texture, chosen by chance among the named ones, clipped to the allowed range of reflectance."""
    return np.clip(TEXTURES[names[int(rng.integers(len(names)))]](rng, a, b), DARKEST, BRIGHTEST)


def ground(rng: Rng) -> Material:
    """Earth, grass, sand or snow for a terrain."""
    a, b = [
        lambda: (colour(rng, (0.06, 0.12), (0.35, 0.6), (0.15, 0.45)), colour(rng, (0.18, 0.3), (0.4, 0.75), (0.1, 0.35))),
        lambda: (colour(rng, (0.08, 0.12), (0.2, 0.5), (0.4, 0.75)), colour(rng, (0.05, 0.1), (0.3, 0.5), (0.2, 0.4))),
        lambda: (colour(rng, (0.55, 0.65), (0.0, 0.1), (0.6, 0.85)), colour(rng, (0.06, 0.12), (0.2, 0.4), (0.15, 0.3))),
        lambda: (colour(rng, (0.0, 1.0), (0.0, 0.15), (0.15, 0.4)), colour(rng, (0.02, 0.1), (0.2, 0.5), (0.2, 0.4))),
    ][int(rng.choice(4, p=[0.45, 0.25, 0.1, 0.2]))]()
    return Material("diffuse", make(rng, ("stains", "stains", "speckle"), a, b), rng.uniform(6, 14))


def stone(rng: Rng) -> Material:
    """Rock and masonry."""
    a = colour(rng, (0.03, 0.14), (0.03, 0.35), (0.25, 0.65))
    b = colour(rng, (0.05, 0.3), (0.05, 0.4), (0.1, 0.4))
    return Material("diffuse", make(rng, ("stains", "speckle", "plain", "marble"), a, b), rng.uniform(2, 5))


def wall(rng: Rng) -> Material:
    """Brick, plaster, boards or big tiles."""
    red = rng.random() < 0.4
    a = colour(rng, (0.0, 0.06), (0.5, 0.75), (0.3, 0.6)) if red else colour(rng, (0.0, 1.0), (0.03, 0.4), (0.35, 0.8))
    b = colour(rng, (0.05, 0.12), (0.05, 0.2), (0.4, 0.7))
    names = ("bricks",) if red else ("bricks", "plain", "stains", "planks", "stripes", "tiles")
    return Material("diffuse", make(rng, names, a, b), rng.uniform(2.5, 5))


def floor(rng: Rng) -> Material:
    """Boards, tiles, paving, marble or a chequered floor; now and then with a shine."""
    a = colour(rng, (0.02, 0.14), (0.05, 0.6), (0.3, 0.75))
    b = colour(rng, (0.0, 1.0), (0.03, 0.4), (0.12, 0.5))
    texture = make(rng, ("planks", "rings", "tiles", "checker", "cobbles", "marble", "stains"), a, b)
    return Material("plastic" if rng.random() < 0.25 else "diffuse", texture, rng.uniform(2.5, 6), rng.uniform(0.25, 0.5))


def wood(rng: Rng) -> Material:
    """Timber, raw or varnished."""
    a = colour(rng, (0.05, 0.1), (0.4, 0.7), (0.25, 0.65))
    texture = make(rng, ("planks", "rings"), a, a * rng.uniform(0.3, 0.7))
    return Material("plastic" if rng.random() < 0.3 else "diffuse", texture, rng.uniform(1.5, 4), rng.uniform(0.25, 0.45))


def thing(rng: Rng) -> Material:
    """Anything an object may be made of: painted, printed, cloth, ceramic or metal."""
    draw = rng.random()
    a = colour(rng, (0.0, 1.0), (0.2, 0.85), (0.2, 0.8))
    b = colour(rng, (0.0, 1.0), (0.1, 0.7), (0.15, 0.8))
    if draw < 0.2:
        metal = colour(rng, (0.05, 0.14), (0.0, 0.55), (0.55, 0.85))
        return Material(
            "conductor", make(rng, ("plain", "stains"), metal, metal * 0.7), rng.uniform(1, 3), rng.uniform(0.35, 0.55)
        )
    kind: Literal["diffuse", "plastic"] = "plastic" if draw < 0.5 else "diffuse"
    names = ("plain", "plain", "stains", "checker", "stripes", "speckle", "marble", "rings", "tiles")
    return Material(kind, make(rng, names, a, b), rng.uniform(1, 3), rng.uniform(0.25, 0.5))
