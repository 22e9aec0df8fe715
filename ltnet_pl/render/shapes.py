"""Triangle meshes: boxes, turned profiles, rocks, height fields, walls with arches. Lengths are in scene units, y is up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Mesh:
    """Triangles with a normal and a texture coordinate at every vertex.

    Args:
        points: Positions ``(V, 3)``.
        normals: Unit shading normals ``(V, 3)``, on the outer side.
        uvs: Texture coordinates ``(V, 2)`` in scene units.
        faces: Vertex numbers ``(F, 3)``, counter-clockwise seen from outside.
    """

    points: Array
    normals: Array
    uvs: Array
    faces: NDArray[np.int64]

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mesh:
        """The mesh at another place."""
        return Mesh(self.points + np.array([x, y, z]), self.normals, self.uvs, self.faces)

    def turned(self, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Mesh:
        """The mesh turned about its origin: by roll about z, then pitch about x, then yaw about y, each in degrees."""
        turn = rotation_y(yaw) @ _rotation(pitch, 1, 2) @ _rotation(roll, 0, 1)
        return Mesh(self.points @ turn.T, self.normals @ turn.T, self.uvs, self.faces)

    def mirrored(self) -> Mesh:
        """The mesh seen in a mirror at x = 0, textures included."""
        flip = np.array([-1.0, 1.0, 1.0])
        return Mesh(self.points * flip, self.normals * flip, self.uvs, self.faces[:, ::-1])


def _rotation(angle: float, i: int, j: int) -> Array:
    matrix = np.eye(3)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def rotation_y(yaw: float) -> Array:
    """Matrix ``(3, 3)`` that turns z towards x by an angle in degrees."""
    return _rotation(yaw, 2, 0)


def join(meshes: Iterable[Mesh]) -> Mesh:
    """One mesh of many; at least one is needed."""
    parts = list(meshes)
    starts = np.cumsum([0, *(len(m.points) for m in parts)])
    return Mesh(
        np.concatenate([m.points for m in parts]),
        np.concatenate([m.normals for m in parts]),
        np.concatenate([m.uvs for m in parts]),
        np.concatenate([m.faces + start for m, start in zip(parts, starts, strict=False)]),
    )


def _project(points: Array, normals: Array) -> Array:
    """Texture coordinates by projection along the axis that each normal is nearest to, walls upright."""
    axis = np.abs(normals).argmax(axis=-1)[..., None]
    x, y, z = points[..., :1], points[..., 1:2], points[..., 2:]
    u = np.where(axis == 0, z, x)
    v = np.where(axis == 1, z, y)
    return np.concatenate([u, v], axis=-1)


def polygons(corners: Array) -> Mesh:
    """Flat quadrilaterals, each with its own normal.

    Args:
        corners: ``(N, 4, 3)``, counter-clockwise seen from outside. A triangle repeats its last corner.
    """
    # the diagonals' cross product is a quadrilateral's normal even where two corners coincide
    normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.repeat(normals[:, None], 4, axis=1)
    uvs = _project(corners, normals)
    first = 4 * np.arange(len(corners))[:, None]
    faces = np.concatenate([first + np.array([0, 1, 2]), first + np.array([0, 2, 3])])
    return Mesh(corners.reshape(-1, 3), normals.reshape(-1, 3), uvs.reshape(-1, 2), faces)


def box(width: float, height: float, depth: float) -> Mesh:
    """A box that stands on y = 0, centred in x and z."""
    x, z = width / 2, depth / 2
    c = np.array([[sx * x, sy * height, sz * z] for sx in (-1, 1) for sy in (0, 1) for sz in (-1, 1)])
    sides = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    return polygons(c[np.array(sides)])


def lathe(profile: Sequence[tuple[float, float]], segments: int = 32, smooth: bool = False) -> Mesh:
    """A profile turned about the y axis.

    Args:
        profile: Points ``(radius, y)`` from bottom to top on the outer side.
        segments: Number of steps around.
        smooth: Whether the normals run on over the profile's corners (a vase) or break there (a column).

    Raises:
        ValueError: If a point is repeated.
    """
    p = np.array(profile)
    steps = np.diff(p, axis=0)
    length = np.hypot(*steps.T)
    if not length.all():
        i = int(length.argmin()) + 1
        raise ValueError(f"profile point {i} is repeated: {profile[i]}")
    flat = np.stack([steps[:, 1], -steps[:, 0]], axis=1) / length[:, None]
    joint = np.concatenate([flat[:1], flat[:-1] + flat[1:], flat[-1:]])
    joint /= np.linalg.norm(joint, axis=1, keepdims=True)
    along = np.concatenate([[0.0], np.cumsum(length)])
    angle = np.linspace(0, 2 * math.pi, segments + 1)
    around = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    girth = 2 * math.pi * max(float(p[:, 0].max()), 1e-6)
    parts = []
    for i in range(len(steps)):
        ends = p[i : i + 2]
        directions = joint[i : i + 2] if smooth else np.stack([flat[i], flat[i]])
        points = np.stack([_ring(around, r, y) for r, y in ends])
        normals = np.stack([_ring(around, r, y) for r, y in directions])
        uvs = np.stack([np.stack([angle / (2 * math.pi) * girth, np.full_like(angle, s)], axis=1) for s in along[i : i + 2]])
        parts.append(_strip(points, normals, uvs))
    return join(parts)


def _ring(around: Array, radius: float, y: float) -> Array:
    return np.stack([around[:, 0] * radius, np.full(len(around), y), around[:, 1] * radius], axis=1)


def _strip(points: Array, normals: Array, uvs: Array) -> Mesh:
    """A grid of vertices ``(rows, columns, ...)`` as a mesh; rows run upwards, columns to the right seen from outside."""
    rows, columns = points.shape[:2]
    number = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    corners = points.reshape(-1, 3)[faces]
    # poles have triangles of no area, which a tracer has no use for
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return Mesh(points.reshape(-1, 3), normals.reshape(-1, 3), uvs.reshape(-1, 2), faces[area > 1e-12])


def sphere(radius: float) -> Mesh:
    """A ball that rests on y = 0."""
    angle = np.linspace(-math.pi / 2, math.pi / 2, 25)
    profile = [(max(0.0, radius * math.cos(a)), radius * (1 + math.sin(a))) for a in angle]
    return lathe(profile, 40, smooth=True)


def torus(radius: float, tube: float) -> Mesh:
    """A ring that lies on y = 0."""
    angle = np.linspace(-math.pi, math.pi, 25)
    return lathe([(radius + tube * math.cos(a), tube * (1 + math.sin(a))) for a in angle], 40, smooth=True)


def cylinder(radius: float, height: float, top: float | None = None, segments: int = 32) -> Mesh:
    """A closed cylinder on y = 0, or a cone frustum of upper radius ``top`` (0 for a cone)."""
    top = radius if top is None else top
    lid = [(0.0, height)] if top > 0 else []
    return lathe([(0.0, 0.0), (radius, 0.0), (top, height), *lid], segments)


def _icosphere(subdivisions: int) -> tuple[Array, NDArray[np.int64]]:
    g = (1 + math.sqrt(5)) / 2
    # the three golden rectangles of an icosahedron, and its twenty faces
    signs = [(-1.0, 1.0), (1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)]
    points = [(a, b * g, 0.0) for a, b in signs] + [(0.0, a, b * g) for a, b in signs] + [(b * g, 0.0, a) for a, b in signs]
    corners = "0 11 5 0 5 1 0 1 7 0 7 10 0 10 11 1 5 9 5 11 4 11 10 2 10 7 6 7 1 8"
    corners += " 3 9 4 3 4 2 3 2 6 3 6 8 3 8 9 4 9 5 2 4 11 6 2 10 8 6 7 9 8 1"
    vertices, faces = np.array(points), np.array(corners.split(), dtype=np.int64).reshape(-1, 3)
    for _ in range(subdivisions):
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        unique, inverse = np.unique(edges, axis=0, return_inverse=True)
        a, b, c = (inverse.reshape(3, -1) + len(vertices)).astype(np.int64)
        vertices = np.concatenate([vertices, vertices[unique].sum(axis=1) / 2])
        x, y, z = faces.T
        faces = np.concatenate([np.stack(f, axis=1) for f in ((x, a, c), (y, b, a), (z, c, b), (a, b, c))])
    return vertices / np.linalg.norm(vertices, axis=1, keepdims=True), faces


def rock(rng: Rng, size: float, cuts: int = 7) -> Mesh:
    """A boulder about y = 0: a ball, dented by waves and cut by planes, with edges sharp or worn by chance.

    Args:
        rng: Source of randomness.
        size: Mean radius.
        cuts: Number of planes; 0 leaves a smooth blob.
    """
    points, faces = _icosphere(3)
    for frequency in (1.5, 3.0, 6.0):
        waves, phases = rng.normal(0, frequency, (4, 3)), rng.uniform(0, 2 * math.pi, 4)
        points = points * (1 + 0.14 / frequency * np.cos(points @ waves.T + phases).sum(axis=1, keepdims=True))
    for _ in range(cuts):
        normal = rng.normal(size=3)
        normal /= np.linalg.norm(normal)
        excess = np.maximum(points @ normal - rng.uniform(0.55, 0.85), 0.0)
        points = points - 0.9 * excess[:, None] * normal
    points = points * rng.uniform(0.7, 1.3, 3) * size
    return _projected(points, faces)


def _projected(points: Array, faces: NDArray[np.int64]) -> Mesh:
    """A closed surface with smooth normals and a texture projected along the axes, without stretched seams."""
    corners = points[faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    smooth = np.zeros_like(points)
    for k in range(3):
        np.add.at(smooth, faces[:, k], flat)
    smooth /= np.linalg.norm(smooth, axis=1, keepdims=True)
    uvs = _project(corners, np.repeat(flat[:, None], 3, axis=1))
    return Mesh(
        corners.reshape(-1, 3), smooth[faces].reshape(-1, 3), uvs.reshape(-1, 2), np.arange(3 * len(faces)).reshape(-1, 3)
    )


def terrain(heights: Array, extent: float) -> Mesh:
    """A height field.

    Args:
        heights: ``(N, N)``: y at a square grid, rows along z, columns along x.
        extent: Side of the square, centred at the origin.
    """
    n = len(heights)
    line = np.linspace(-extent / 2, extent / 2, n)
    z, x = np.meshgrid(line, line, indexing="ij")
    dz, dx = np.gradient(heights, extent / (n - 1))
    normals = np.stack([-dx, np.ones_like(dx), -dz], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    points = np.stack([x, heights, z], axis=-1)
    # seen from above, x runs right and -z up
    return _strip(points[::-1], normals[::-1], np.stack([x, z], axis=-1)[::-1])


def arcade(openings: int, bay: float, gap: float, spring: float, height: float, thickness: float) -> Mesh:
    """A wall on y = 0 along x, centred, with round-headed openings.

    Args:
        openings: Number of bays, one opening each.
        bay: Length of a bay.
        gap: Width of an opening, less than ``bay``.
        spring: Height at which the arches begin.
        height: Height of the wall, above ``spring + gap / 2``.
        thickness: Thickness in z.
    """
    radius, half, z = gap / 2, bay * openings / 2, thickness / 2
    angle = np.linspace(math.pi, 0, 17)
    quads: list[Array] = []

    def both_faces(outline: Array) -> None:
        """The flat polygon ``(4, 2)`` on the wall's front and back."""
        quads.append(np.column_stack([outline, np.full(4, z)]))
        quads.append(np.column_stack([outline[::-1], np.full(4, -z)]))

    def through(a: Array, b: Array) -> None:
        """The face between front and back along a segment of the outline, with the stone on the left going from a to b."""
        quads.append(np.array([[*a, z], [*a, -z], [*b, -z], [*b, z]]))

    for i in range(openings):
        centre = -half + bay * (i + 0.5)
        left, right = centre - radius, centre + radius
        for x0, x1 in ((centre - bay / 2, left), (right, centre + bay / 2)):
            both_faces(np.array([[x0, 0], [x1, 0], [x1, height], [x0, height]]))
        curve = np.stack([centre + radius * np.cos(angle), spring + radius * np.sin(angle)], axis=1)
        for a, b in itertools.pairwise(curve):
            both_faces(np.array([a, b, [b[0], height], [a[0], height]]))
            through(a, b)
        through(np.array([left, 0.0]), curve[0])
        through(curve[-1], np.array([right, 0.0]))
    through(np.array([half, height]), np.array([-half, height]))
    through(np.array([-half, height]), np.array([-half, 0.0]))
    through(np.array([half, 0.0]), np.array([half, height]))
    return polygons(np.stack(quads))
