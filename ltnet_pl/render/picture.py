"""From radiance to one scene's pictures: search of a usable scene, eight traced directions, tints, exposure, the sRGB curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ltnet_pl import InputError
from ltnet_pl.light import TEMPERATURES, Light, Rig, black_body, linear_to_srgb
from ltnet_pl.render.families import FAMILIES
from ltnet_pl.render.scenes import Scene
from ltnet_pl.render.tracer import Tracer, Truth

Array = NDArray[np.float64]
Image = NDArray[np.float32]

ATTEMPTS = 60
"""Random scenes tried before a family and rig are given up as incompatible."""


@dataclass(frozen=True)
class Pictures:
    """What one scene gives.

    Args:
        scene: The scene.
        centre_distance: Distance from the camera to P, in scene units.
        truth: Ground truth at pixel centres.
        lit: Linear radiance in neutral light, ``(8, H, W, 3)``, in the order of ``DIRECTIONS``.
        window: Linear radiance under the lit window alone, ``(H, W, 3)``.
        exposure: Factor from radiance to the linear image.
    """

    scene: Scene
    centre_distance: float
    truth: Truth
    lit: Image
    window: Image
    exposure: float

    def image(self, light: Light) -> NDArray[np.uint8]:
        """The display-encoded picture under one of VIDIT's 40 lights, ``(H, W, 3)``."""
        number = round(light.azimuth / 45.0)
        return display(self.exposure * combine(self.lit[number], self.window, light.temperature))


def combine(lit: Image, window: Image, temperature: float) -> Image:
    """Linear radiance under a light of some temperature: ``tint * lit + window``, all ``(H, W, 3)``.

    Light adds up, and each channel of a path is proportional to the same channel of its light, so a tint after tracing equals a
    tinted light.
    """
    return np.asarray(black_body(temperature).astype(np.float32) * lit + window)


def display(linear: Image) -> NDArray[np.uint8]:
    """Linear values to 8-bit sRGB (IEC 61966-2-1), clipped to [0, 1] first."""
    return np.rint(255.0 * linear_to_srgb(np.clip(linear, 0.0, 1.0))).astype(np.uint8)


def exposure_of(lit: Image, window: Image, level: float) -> float:
    """One exposure for all 40 pictures of a scene: it puts the 96th percentile of their channels' maxima at a level.

    Args:
        lit: ``(8, H, W, 3)`` neutral radiance.
        window: ``(H, W, 3)`` radiance of the window.
        level: Linear value wanted.

    Returns:
        A positive factor.

    Raises:
        ValueError: If the light reaches nothing that the camera sees.
    """
    brightest = np.stack([combine(image, window, t).max(axis=-1) for t in TEMPERATURES for image in lit])
    percentile = float(np.percentile(brightest, 96.0))
    if not percentile > 0:
        raise ValueError("the scene is black under every light")
    return level / percentile


def usable(tracer: Tracer) -> bool:
    """Whether a scene makes good data: centre not sky, nothing crowds the camera, lights stand free and reach what is seen."""
    if tracer.centre is None or tracer.lights is None:
        return False
    distance = float(np.linalg.norm(tracer.centre - tracer.scene.eye()))
    if not 0.6 * tracer.scene.distance < distance < 1.6 * tracer.scene.distance:
        return False
    if not all(stands_free(tracer, light) for light in tracer.lights):
        return False
    truth = tracer.truth(step=max(1, tracer.size // 24))
    seen = truth.depth > 0
    if seen.mean() < 0.65 or truth.depth[seen].min() < 0.25 * distance:
        return False
    reached = truth.visibility[:, seen].mean(axis=1)
    return bool(reached.min() > 0.12 and reached.mean() > 0.4 and reached.min() < 0.97)


def stands_free(tracer: Tracer, position: Array) -> bool:
    """Whether a light ``(3,)`` stands clear of everything: one that does not may stand within a wall."""
    assert tracer.centre is not None  # a scene without a centre has no lights
    reach = 0.12 * float(np.linalg.norm(tracer.centre - tracer.scene.eye()))
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    return all(tracer.free(position, axis, reach) for axis in axes)


def sampler_of(seed: int, index: int) -> int:
    """Seed of a scene's sampler: another for each scene, so that noise has no pattern that a network could learn."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


def find(family: str, seed: int, index: int, size: int, variant: str, rig: Rig, mirror: bool = False) -> tuple[Tracer, float]:
    """The first usable scene of a family in the sequence that seed and index define, and its exposure level.

    Args:
        family: One of ``FAMILIES``.
        seed: The set's seed.
        index: The scene's number.
        size: Width and height in pixels.
        variant: Mitsuba's variant.
        rig: Where the lights stand.
        mirror: Whether to build the mirror image of the scene instead.

    Raises:
        InputError: If none of ``ATTEMPTS`` scenes is usable: the rig does not suit the family.
    """
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([seed, index, attempt])
        scene = FAMILIES[family](rng)
        # judged unmirrored, so that a scene and its mirror image are chosen alike
        tracer = Tracer(scene, size, variant, rig)
        if usable(tracer):
            level = float(rng.uniform(0.6, 1.0))
            return (Tracer(scene.mirrored(), size, variant, rig) if mirror else tracer), level
    raise InputError(
        f"--rig {rig.radius:g}, {rig.height:g}: none of {ATTEMPTS} random scenes of the family {family!r} leaves its lights "
        "free and reaching what the camera sees; expected a rig near the default, 0.9 and 0.9; choose another "
        "--rig or --families"
    )


def trace(tracer: Tracer, level: float, samples: int, seed: int, pause: Callable[[], None] = lambda: None) -> Pictures:
    """All that one scene gives.

    Args:
        tracer: A usable scene.
        level: Exposure level, see ``exposure_of``.
        samples: Paths per pixel.
        seed: Of the sampler; the same for each light, so that the lights share their footprint on edges and textures.
        pause: Called between renders; may raise to stop the work.

    Raises:
        ValueError: If the centre of the frame is sky.
    """
    if tracer.lights is None or tracer.centre is None:
        raise ValueError("the centre of the frame is sky: there is no point for the rig")
    lit = []
    for position in tracer.lights:
        pause()
        lit.append(tracer.radiance(position, np.ones(3), samples, seed))
    pause()
    window = tracer.shine(samples, seed)
    pause()
    stack = np.stack(lit)
    distance = float(np.linalg.norm(tracer.centre - tracer.scene.eye()))
    return Pictures(tracer.scene, distance, tracer.truth(), stack, window, exposure_of(stack, window, level))
