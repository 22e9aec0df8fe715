"""Mitsuba 3 at work: radiance under one light, and the geometry's ground truth at pixel centres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltnet_pl.light import DIRECTIONS, Light, Rig, azimuth_of
from ltnet_pl.render.scenes import Scene
from ltnet_pl.render.textures import Material

Array = NDArray[np.float64]
Image = NDArray[np.float32]

MAX_DEPTH = 4
"""Path length in segments from the camera: direct light and two bounces."""

DEFAULT_RIG = Rig()

GLASS = Material("plastic", np.full((1, 1, 3), 0.03), 1.0, 0.3)
"""What a window is made of where it does not shine."""


@dataclass(frozen=True)
class Truth:
    """Ground truth, each a point sample at the centres of pixels; zero (or False) where there is sky.

    Args:
        depth: ``(H, W)`` float32, planar z in scene units.
        normals: ``(H, W, 3)`` float32, unit shading normals in the camera frame, on the viewer's side.
        albedo: ``(H, W, 3)`` float32, linear reflectance: of the diffuse base, or of a metal.
        visibility: ``(8, H, W)`` bool: whether the segment to the light is free, in the order of ``DIRECTIONS``.
    """

    depth: Image
    normals: Image
    albedo: Image
    visibility: NDArray[np.bool_]


def use(variant: str) -> Any:
    """Mitsuba with a variant switched on, one thread, and quiet.

    Raises:
        ImportError: If Mitsuba or the variant cannot be loaded.
    """
    import drjit
    import mitsuba

    mitsuba.set_variant(variant)
    drjit.set_thread_count(1)
    mitsuba.set_log_level(mitsuba.LogLevel.Error)
    return mitsuba


class Tracer:
    """One scene under Mitsuba.

    Args:
        scene: The scene.
        size: Width and height of the picture in pixels.
        variant: Mitsuba's variant for radiance. Ground truth always comes from ``scalar_rgb``: the same in every variant.
        rig: Where the lights stand.
    """

    def __init__(self, scene: Scene, size: int, variant: str = "scalar_rgb", rig: Rig = DEFAULT_RIG) -> None:
        self.scene, self.size, self.variant, self.rig = scene, size, variant, rig
        mi = use("scalar_rgb")
        self._colours: dict[str, Any] = {}
        self._geometry = self._load(mi, {}, self._colours)
        self._lit: Any = None
        hit = self._geometry.ray_intersect(self._ray(mi, 0.5 * size, 0.5 * size)[0])
        self.centre = np.array(hit.p, dtype=np.float64) if hit.is_valid() else None
        """The point P that the centre ray hits, ``(3,)`` in the gravity frame; None where that is sky."""
        self.lights = None
        """Positions of the eight lights, ``(8, 3)``, in the order of ``DIRECTIONS``; None where P is."""
        if self.centre is not None:
            self.lights = np.stack([self.position(Light(azimuth_of(name), 6500)) for name in DIRECTIONS])

    def position(self, light: Light) -> Array:
        """Where a light stands, ``(3,)`` in the gravity frame.

        Raises:
            ValueError: If the centre of the frame is sky, so that there is no rig.
        """
        if self.centre is None:
            raise ValueError("the centre of the frame is sky: there is no point for the rig")
        position: Array = self.centre + float(np.linalg.norm(self.centre - self.scene.eye())) * self.rig.offset(light)
        return position

    def _load(self, mi: Any, emitters: dict[str, Any], colours: dict[str, Any] | None = None, shine: bool = False) -> Any:
        scene = self.scene
        target = [0.0, scene.aim, 0.0]
        film = {"type": "hdrfilm", "width": self.size, "height": self.size, "pixel_format": "rgb", "component_format": "float32"}
        sensor = {
            "type": "perspective",
            "fov": scene.camera.fov,
            "fov_axis": "y",
            "to_world": mi.ScalarTransform4f().look_at(scene.eye().tolist(), target, [0, 1, 0]),
            "film": {**film, "rfilter": {"type": "box"}},
            "sampler": {"type": "multijitter"},
        }
        content: dict[str, Any] = {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": MAX_DEPTH},
            "sensor": sensor,
            **emitters,
        }
        parts = [*scene.parts, *([(GLASS, scene.window)] if scene.window is not None else [])]
        loaded: dict[int, tuple[Any, Any]] = {}
        for number, (material, mesh) in enumerate(parts):
            name = f"part{number}"
            if id(material) not in loaded:
                loaded[id(material)] = _material(mi, material)
            colour, bsdf = loaded[id(material)]
            if colours is not None:
                colours[name] = colour
            properties = mi.Properties()
            properties["bsdf"] = bsdf
            if shine and mesh is scene.window:
                properties["emitter"] = mi.load_dict(
                    {"type": "area", "radiance": {"type": "rgb", "value": scene.emission.tolist()}}
                )
            shape = mi.Mesh(
                name, len(mesh.points), len(mesh.faces), has_vertex_normals=True, has_vertex_texcoords=True, props=properties
            )
            values = mi.traverse(shape)
            values["vertex_positions"] = mesh.points.astype(np.float32).ravel()
            values["vertex_normals"] = mesh.normals.astype(np.float32).ravel()
            values["vertex_texcoords"] = (mesh.uvs / material.span).astype(np.float32).ravel()
            values["faces"] = mesh.faces.astype(np.uint32).ravel()
            values.update()
            content[name] = shape
        return mi.load_dict(content)

    def _ray(self, mi: Any, u: float, v: float) -> tuple[Any, float]:
        """Camera ray through image point (u, v) in pixels, and its cosine with the optical axis."""
        focal = self.size / 2 / math.tan(math.radians(self.scene.camera.fov) / 2)
        direction = np.array([(u - self.size / 2) / focal, -(v - self.size / 2) / focal, -1.0])
        direction /= np.linalg.norm(direction)
        world = self.scene.camera.rotation().T @ direction
        return mi.Ray3f(self.scene.eye().tolist(), world.tolist()), float(-direction[2])

    def radiance(self, position: Array, colour: Array, samples: int, seed: int) -> Image:
        """Picture under one point light, window dark.

        Args:
            position: Where the light stands, ``(3,)`` in the gravity frame.
            colour: Linear colour ``(3,)``. At the distance from P to the light, a white surface facing it has this radiance.
            samples: Paths per pixel.
            seed: Of the sampler.

        Returns:
            Linear radiance ``(H, W, 3)``.
        """
        mi = use(self.variant)
        if self._lit is None:
            self._lit = self._load(
                mi, {"light": {"type": "point", "position": [0, 0, 0], "intensity": {"type": "rgb", "value": [1, 1, 1]}}}
            )
        origin = self.centre if self.centre is not None else np.zeros(3)
        intensity = math.pi * float(np.sum((position - origin) ** 2)) * colour
        values = mi.traverse(self._lit)
        values["light.position"] = position.tolist()
        values["light.intensity.value"] = intensity.tolist()
        values.update()
        return np.array(mi.render(self._lit, spp=samples, seed=seed), dtype=np.float32)

    def shine(self, samples: int, seed: int) -> Image:
        """Picture under the scene's lit window alone: linear radiance ``(H, W, 3)``, zero where the scene has none."""
        if self.scene.window is None:
            return np.zeros((self.size, self.size, 3), dtype=np.float32)
        mi = use(self.variant)
        return np.array(mi.render(self._load(mi, {}, shine=True), spp=samples, seed=seed), dtype=np.float32)

    def truth(self, step: int = 1) -> Truth:
        """Ground truth at the centres of every ``step``-th pixel of every ``step``-th row.

        Raises:
            ValueError: If the centre of the frame is sky, so that there is no rig.
        """
        if self.lights is None:
            raise ValueError("the centre of the frame is sky: there is no point for the rig")
        mi = use("scalar_rgb")
        lines = range(step // 2, self.size, step)
        n = len(lines)
        depth, normals, albedo = np.zeros((n, n), np.float32), np.zeros((n, n, 3), np.float32), np.zeros((n, n, 3), np.float32)
        visibility = np.zeros((8, n, n), np.bool_)
        positions = self.lights.tolist()
        for i, row in enumerate(lines):
            for j, column in enumerate(lines):
                ray, cosine = self._ray(mi, column + 0.5, row + 0.5)
                hit = self._geometry.ray_intersect(ray)
                if not hit.is_valid():
                    continue
                depth[i, j] = hit.t * cosine
                normals[i, j] = _facing(np.array(hit.sh_frame.n), np.array(hit.n), np.array(ray.d))
                albedo[i, j] = np.array(self._colours[hit.shape.id()].eval(hit))
                visibility[:, i, j] = [not self._geometry.ray_test(hit.spawn_ray_to(p)) for p in positions]
        return Truth(depth, (normals @ self.scene.camera.rotation().T).astype(np.float32), albedo, visibility)

    def free(self, position: Array, direction: Array, reach: float) -> bool:
        """Whether nothing stands within ``reach`` of a position, in one direction."""
        mi = use("scalar_rgb")
        hit = self._geometry.ray_intersect(mi.Ray3f(position.tolist(), direction.tolist()))
        return not (hit.is_valid() and hit.t < reach)


def _facing(shading: Array, flat: Array, ray: Array) -> Array:
    """The shading normal on the viewer's side; the flat normal where interpolation bent that away from the viewer."""
    side = -1.0 if flat @ ray > 0 else 1.0
    normal = side * (shading if side * (shading @ ray) < 0 else flat)
    return normal / np.linalg.norm(normal)


def _material(mi: Any, material: Material) -> tuple[Any, Any]:
    """Mitsuba's texture and two-sided surface of a material."""
    bitmap = mi.Bitmap(material.texture.astype(np.float32))
    colour = mi.load_dict({"type": "bitmap", "bitmap": bitmap, "raw": True, "filter_type": "bilinear", "wrap_mode": "repeat"})
    surface: dict[str, Any]
    if material.kind == "diffuse":
        surface = {"type": "diffuse", "reflectance": colour}
    elif material.kind == "plastic":
        surface = {"type": "roughplastic", "diffuse_reflectance": colour, "alpha": material.roughness, "distribution": "ggx"}
    else:
        # no material data: a perfect mirror times the texture, so that the texture is the reflectance
        surface = {
            "type": "roughconductor",
            "material": "none",
            "specular_reflectance": colour,
            "alpha": material.roughness,
            "distribution": "ggx",
        }
    return colour, mi.load_dict({"type": "twosided", "surface": surface})
