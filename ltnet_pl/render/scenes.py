"""What a scene is, and what its families share: places that keep clear of each other, vessels, crates.

A scene lives in the gravity frame: x to the image's right, y up, z towards the viewer. The camera looks along the plane x = 0 at
a point near the origin, so that mirroring every mesh at x = 0 mirrors the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ltnet_pl.light import Camera
from ltnet_pl.render import shapes, textures
from ltnet_pl.render.shapes import Mesh
from ltnet_pl.render.textures import Material

Array = NDArray[np.float64]
Rng = np.random.Generator

WORLD = 70.0
"""Side of the square of ground, in scene units; beyond it is sky."""


@dataclass
class Scene:
    """Everything that the tracer needs to know.

    Args:
        family: Name of the family.
        camera: Field of view and pitch.
        aim: Height of the point on the axis x = z = 0 that the camera looks at.
        distance: From camera to that point, in scene units.
        parts: Meshes by their material.
        window: A mesh that may shine by itself, or None.
        emission: Linear radiance of the window, ``(3,)``, where a white surface that the light hits squarely near P has 1.
        yaw: Degrees by which everything added is turned about the y axis through the origin.
    """

    family: str
    camera: Camera
    distance: float
    aim: float = 0.0
    parts: list[tuple[Material, Mesh]] = field(default_factory=list)
    window: Mesh | None = None
    emission: Array = field(default_factory=lambda: np.zeros(3))
    yaw: float = 0.0

    def add(self, material: Material, *meshes: Mesh) -> None:
        """Put meshes of one material into the scene, turned by its yaw."""
        self.parts.append((material, shapes.join(meshes).turned(yaw=self.yaw)))

    def light_up(self, rng: Rng, mesh: Mesh) -> None:
        """Make a mesh the scene's one lit window, in a warm or cool colour of its own."""
        self.window = mesh.turned(yaw=self.yaw)
        hue = (0.06, 0.13) if rng.random() < 0.8 else (0.5, 0.6)
        self.emission = textures.colour(rng, hue, (0.2, 0.7), (1.0, 1.0)) * rng.uniform(0.5, 2.0)

    def eye(self) -> Array:
        """Position of the camera ``(3,)``."""
        backward: Array = self.camera.rotation()[2]
        return np.array([0.0, self.aim, 0.0]) + self.distance * backward

    def mirrored(self) -> Scene:
        """The scene in a mirror at x = 0, seen by the same camera: its picture is the mirror picture."""
        parts = [(material, mesh.mirrored()) for material, mesh in self.parts]
        window = None if self.window is None else self.window.mirrored()
        return Scene(self.family, self.camera, self.distance, self.aim, parts, window, self.emission, -self.yaw)


def spots(rng: Rng, radii: Array, half_width: float, near: float, far: float) -> list[tuple[float, float, float]]:
    """Places ``(x, z, radius)`` that keep clear of each other; what finds none in 30 tries is left out."""
    taken: list[tuple[float, float, float]] = []
    for radius in np.sort(radii)[::-1]:
        for _ in range(30):
            x, z = rng.uniform(-half_width, half_width), rng.uniform(far, near)
            if all(math.hypot(x - a, z - b) > radius + r for a, b, r in taken):
                taken.append((x, z, float(radius)))
                break
    return taken


def sizes(rng: Rng, count: int, smallest: float, largest: float) -> Array:
    """Sizes spread evenly in their logarithm: many small, few large."""
    return np.exp(rng.uniform(math.log(smallest), math.log(largest), count))


def vase(rng: Rng, height: float) -> Mesh:
    """A turned vessel with a random, smooth outline."""
    s = np.linspace(0, 1, 18)
    waves = sum(rng.normal(0, 0.16 / k) * np.sin(math.pi * k * s + rng.uniform(0, 6)) for k in (1, 2, 3))
    radius = height * np.clip(rng.uniform(0.25, 0.4) + waves, 0.08, 0.6)
    return shapes.lathe(
        [(0.0, 0.0), *zip(radius.tolist(), (s * height + 1e-3).tolist(), strict=True), (0.0, height * 0.98)], 32, smooth=True
    )


def crate(rng: Rng, size: float) -> Mesh:
    """A box of about that size on y = 0, turned by chance."""
    return shapes.box(size, size * rng.uniform(0.6, 1.2), size * rng.uniform(0.7, 1.3)).turned(rng.uniform(0, 90))
