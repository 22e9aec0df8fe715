"""Analytic scenes in VIDIT's layouts: spheres on a plane, ray traced in closed form, so that every answer is known exactly.

A scene is a textured plane with spheres on it, seen by the package's pinhole camera and lit by its rig. Depth, normals, albedo,
visibility and shading come from formulas, not from sampling. A mirrored scene, seen under the mirrored light, is the mirrored
picture to the last bit, and a temperature is a pure tint.

By hand::

    python tests/scenes.py OUT --scenes 6 --height 96 --width 128
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltnet_pl.light import DIRECTIONS, Camera, Light, Rig, black_body

Array = NDArray[np.float64]

DISTANCE = 4.0  # from the camera to the point of the plane in the middle of the frame, in scene units
EXPOSURE = 0.8
AMBIENT = 0.04  # share of light from everywhere, so that shadows keep a trace of texture
SKY = 0.02  # linear grey of the background, tinted like everything else


@dataclass(frozen=True)
class Scene:
    """Spheres on a plane; all randomness is in `scene(seed, index)`, none in rendering.

    Args:
        camera: What sees the scene.
        rig: Where the lights stand.
        centres: Sphere centres in the gravity frame, (S, 3), camera at the origin.
        radii: (S,).
        colours: Linear albedo of the spheres, (S, 3).
        waves: Wave vectors and phases of the plane's texture, (K, 3).
        mirrored: The left-right mirror image of the scene.
    """

    camera: Camera
    rig: Rig
    centres: Array
    radii: Array
    colours: Array
    waves: Array
    mirrored: bool = False
    name: str = ""
    seed: int = 0

    def mirror(self) -> Scene:
        """The scene reflected left to right."""
        return replace(self, centres=self.centres * np.array([-1.0, 1.0, 1.0]), mirrored=not self.mirrored)


@dataclass(frozen=True)
class Frame:
    """What the camera sees, before any light: all (H, W) or (H, W, 3), camera frame where it matters.

    `depth` is planar z in scene units (0 = sky), `points` and `normals` are in the gravity frame, `camera_normals` in the camera
    frame, `centre` is P of the rig in the gravity frame.
    """

    scene: Scene
    depth: Array
    points: Array
    normals: Array
    camera_normals: Array
    albedo: Array
    owner: NDArray[np.intp] = field(repr=False)
    centre: Array = field(repr=False)


def scene(seed: int = 0, index: int = 0, spheres: int = 4) -> Scene:
    """The scene of that seed and index: always the same."""
    rng = np.random.default_rng([seed, index])
    camera = Camera(fov=float(rng.uniform(40, 60)), pitch=float(rng.uniform(20, 50)))
    rig = Rig(radius=float(rng.uniform(0.7, 1.1)), height=float(rng.uniform(0.6, 1.1)))
    pitch = np.radians(camera.pitch)
    ground = -DISTANCE * np.sin(pitch)
    radii = rng.uniform(0.25, 0.6, spheres)
    centres = np.stack(
        [
            rng.uniform(-1.4, 1.4, spheres),
            ground + radii * rng.uniform(0.5, 1.3, spheres),  # sunk into the plane or floating a little above it
            -DISTANCE * np.cos(pitch) + rng.uniform(-1.2, 1.0, spheres),
        ],
        axis=1,
    )
    return Scene(
        camera,
        rig,
        centres,
        radii,
        colours=rng.uniform(0.25, 0.9, (spheres, 3)),
        waves=np.stack([rng.uniform(-4, 4, 6), rng.uniform(-4, 4, 6), rng.uniform(0, 6.3, 6)], axis=1),
        name=f"Image{index:03d}",
        seed=seed,
    )


def _dot(a: Array, b: Array) -> Array:
    """Scalar products over the last axis in a fixed order, so that a mirrored scene gives the same bits."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _sphere_hits(origin: Array, direction: Array, centre: Array, radius: float) -> tuple[Array, Array]:
    """Near and far ray parameters of a sphere; both NaN-free, near = inf where the ray misses."""
    a = _dot(direction, direction)
    offset = origin - centre
    b = _dot(offset, direction)
    discriminant = b * b - a * (_dot(offset, offset) - radius * radius)
    root = np.sqrt(np.clip(discriminant, 0, None))
    hit = discriminant > 0
    return np.where(hit, (-b - root) / a, np.inf), np.where(hit, (-b + root) / a, np.inf)


def _trace(scene: Scene, rays: Array) -> tuple[Array, NDArray[np.intp]]:
    """Distance along camera rays (planar z 1 each) and what they hit: -2 sky, -1 plane, else the sphere."""
    ground = -DISTANCE * np.sin(np.radians(scene.camera.pitch))
    down = rays[..., 1] < -1e-6
    reach = np.where(down, ground / np.where(down, rays[..., 1], -1.0), np.inf)
    reach = np.where(reach > 8 * DISTANCE, np.inf, reach)  # the plane ends somewhere, so that there is a sky
    owner = np.where(np.isfinite(reach), -1, -2)
    origin = np.zeros(3)
    for k, (centre, radius) in enumerate(zip(scene.centres, scene.radii, strict=True)):
        near, _ = _sphere_hits(origin, rays, centre, float(radius))
        closer = (near > 0) & (near < reach)
        reach, owner = np.where(closer, near, reach), np.where(closer, k, owner)
    return reach, owner


def _gravity(scene: Scene, camera_vectors: Array) -> Array:
    """Camera frame to gravity frame, written out so that x is never mixed with y and z."""
    r = scene.camera.rotation()
    x, y, z = camera_vectors[..., 0], camera_vectors[..., 1], camera_vectors[..., 2]
    return np.stack([x, r[1, 1] * y + r[2, 1] * z, r[1, 2] * y + r[2, 2] * z], axis=-1)


def trace(scene: Scene, size: tuple[int, int]) -> Frame:
    """Everything of a scene that does not depend on the light, for a frame of (height, width) pixels."""
    height, width = size
    focal = height / 2 / np.tan(np.radians(scene.camera.fov) / 2)
    u, v = (np.arange(width) + 0.5 - width / 2) / focal, (np.arange(height) + 0.5 - height / 2) / focal
    rays = np.stack([np.broadcast_to(u, size), np.broadcast_to(-v[:, None], size), np.full(size, -1.0)], axis=-1)
    rays = _gravity(scene, rays)
    reach, owner = _trace(scene, rays)
    sky = owner == -2
    points = rays * np.where(sky, 0.0, reach)[..., None]
    ground = np.array([0.0, 1.0, 0.0])
    normals = np.where(sky[..., None], 0.0, np.broadcast_to(ground, points.shape))
    x = points[..., 0] * (-1.0 if scene.mirrored else 1.0)
    waves = sum(np.sin(kx * x + kz * points[..., 2] + phase) for kx, kz, phase in scene.waves)
    tone = 0.45 + 0.3 * np.tanh(np.asarray(waves))
    checks = 0.1 * ((np.floor(2 * x) + np.floor(2 * points[..., 2])) % 2)
    albedo = np.stack([tone + checks, tone, 0.9 * tone - checks + 0.1], axis=-1)
    for k, (centre, radius) in enumerate(zip(scene.centres, scene.radii, strict=True)):
        mine = (owner == k)[..., None]
        normals = np.where(mine, (points - centre) / radius, normals)
        albedo = np.where(mine, scene.colours[k], albedo)
    middle, _ = _trace(scene, _gravity(scene, np.array([[0.0, 0.0, -1.0]])))
    if not np.isfinite(middle[0]):
        raise ValueError(f"{scene.name}: the middle of the frame is sky; these scenes always have ground there")
    r = scene.camera.rotation()
    camera_normals = np.stack(
        [
            normals[..., 0],
            r[1, 1] * normals[..., 1] + r[1, 2] * normals[..., 2],
            r[2, 1] * normals[..., 1] + r[2, 2] * normals[..., 2],
        ],
        axis=-1,
    )
    centre = _gravity(scene, np.array([0.0, 0.0, -1.0])) * middle[0]
    return Frame(
        scene, np.where(sky, 0.0, reach), points, normals, camera_normals, np.where(sky[..., None], SKY, albedo), owner, centre
    )


def light_position(frame: Frame, light: Light) -> Array:
    """Where the rig puts a light, gravity frame, scene units."""
    # rounding removes the 1e-16 by which sin(360 - a) misses -sin(a): a mirrored light is then exactly mirrored
    return frame.centre + np.linalg.norm(frame.centre) * np.round(frame.scene.rig.offset(light), 12)


def irradiance(frame: Frame, light: Light) -> Array:
    """``max(0, n.l) (|L - P| / r)^2`` without cast shadows, (H, W); 0 for sky."""
    position = light_position(frame, light)
    towards = position - frame.points
    squared = _dot(towards, towards)
    reach = _dot(position - frame.centre, position - frame.centre)
    return np.clip(_dot(frame.normals, towards), 0, None) / np.sqrt(squared) * reach / squared


def visibility(frame: Frame, light: Light) -> NDArray[np.bool_]:
    """Where the light is seen: it stands before the surface and no sphere is between, (H, W); False for sky."""
    position = light_position(frame, light)
    towards = position - frame.points
    seen = _dot(frame.normals, towards) > 0
    for k, (centre, radius) in enumerate(zip(frame.scene.centres, frame.scene.radii, strict=True)):
        near, far = _sphere_hits(frame.points, towards, centre, float(radius))
        # a surface point's own sphere hides the light only where the light is behind the surface, which `seen` says
        seen &= ~((frame.owner != k) & (far > 0) & (near < 1))
    return np.asarray(seen, dtype=np.bool_)


def shade(frame: Frame, light: Light, shadows: bool = True) -> Array:
    """The picture in linear light, before clipping, (H, W, 3)."""
    direct = irradiance(frame, light)
    if shadows:
        direct = direct * visibility(frame, light)
    sky = frame.depth == 0
    strength = np.where(sky, 1.0, EXPOSURE * (AMBIENT + (1 - AMBIENT) * direct))
    return frame.albedo * strength[..., None] * black_body(light.temperature)


def encode(linear: Array) -> NDArray[np.uint8]:
    """Linear light to 8-bit sRGB."""
    x = np.clip(linear, 0, 1)
    return np.round(255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.uint8)


def picture(frame: Frame, light: Light, shadows: bool = True) -> NDArray[np.uint8]:
    """The picture as it stands in a file, (H, W, 3) uint8."""
    return encode(shade(frame, light, shadows))


def stored_depth(frame: Frame) -> NDArray[np.float32]:
    """Depth as VIDIT stores it: planar z divided by its maximum, 0 = sky, (H, W) float32."""
    return (frame.depth / frame.depth.max()).astype(np.float32)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """RGBA PNG with alpha 255, as VIDIT's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    alpha = np.full((*image.shape[:2], 1), 255, np.uint8)
    Image.fromarray(np.concatenate([image, alpha], axis=2)).save(path, compress_level=1)


def write_depth(path: Path, depth: NDArray[np.float32], plain: bool = False) -> None:
    """Depth as VIDIT's pickled dict, or as a plain array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, depth if plain else np.array({"ref_center_dis": DISTANCE, "normalized_depth": depth}), allow_pickle=not plain)


def write_truth(folder: Path, frame: Frame, size: tuple[int, int]) -> None:
    """Normals, albedo, visibility and scene.json, as the renderer writes them beside a set."""
    folder.mkdir(parents=True, exist_ok=True)
    s = frame.scene
    np.save(folder / "normals.npy", frame.camera_normals.astype(np.float16))
    np.save(folder / "albedo.npy", frame.albedo.astype(np.float16))
    seen = [visibility(frame, Light.from_name(f"6500_{d}")) for d in DIRECTIONS]
    np.save(folder / "visibility.npy", np.stack(seen))
    record = {
        "family": "analytic",
        "camera": {"fov": s.camera.fov, "pitch": s.camera.pitch},
        "rig": {"radius": s.rig.radius, "height": s.rig.height},
        "seed": s.seed,
        "size": list(size),
        "variant": "analytic",
        "exposure": EXPOSURE,
        "versions": {},
    }
    (folder / "scene.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def write_any_to_any(
    root: Path,
    scenes: int = 6,
    size: tuple[int, int] = (40, 56),
    temperatures: tuple[int, ...] = (2500, 4500, 6500),
    seed: int = 0,
    plain_depth: bool = False,
    truth: bool = True,
    mirrored: bool = False,
    split: bool = False,
) -> Path:
    """The any-to-any training layout: ``ImageNNN_KKKK_D.png`` and ``ImageNNN.npy``, with ``scenes/ImageNNN/`` beside them.

    Args:
        root: Folder to write; made when missing.
        scenes: Number of scenes.
        size: (height, width) in pixels.
        temperatures: Kelvin; each in all eight directions.
        seed: Which scenes.
        plain_depth: Depth as plain arrays instead of pickled dicts.
        truth: Write ``scenes/`` too.
        mirrored: The mirror images of the same scenes.
        split: Images in ``input/`` and depths in ``depth/`` instead of flat.
    """
    images, depths = (root / "input", root / "depth") if split else (root, root)
    for i in range(scenes):
        s = scene(seed, i)
        frame = trace(s.mirror() if mirrored else s, size)
        write_depth(depths / f"{s.name}.npy", stored_depth(frame), plain_depth)
        for direction in DIRECTIONS:
            linear = shade(frame, Light.from_name(f"6500_{direction}")) / black_body(6500.0)
            for kelvin in temperatures:  # a temperature is a tint: shade once per direction
                write_image(images / f"{s.name}_{kelvin}_{direction}.png", encode(linear * black_body(float(kelvin))))
        if truth:
            write_truth(root / "scenes" / s.name, frame, size)
    return root


def write_one_to_one(
    root: Path,
    scenes: int = 2,
    size: tuple[int, int] = (40, 56),
    seed: int = 0,
    split: bool = False,
    flat_target: Path | None = None,
) -> Path:
    """The track-1 layout: ``input/ImageNNN.png`` + ``.npy`` and ``target/ImageNNN.png``; 6500_N in, 4500_E out.

    Args:
        root: Folder to write.
        scenes: Number of scenes.
        size: (height, width) in pixels.
        seed: Which scenes.
        split: Depth in ``depth/`` instead of beside the inputs.
        flat_target: Write the validation form instead: inputs and depth flat in ``root``, targets flat in this folder.
    """
    for i in range(scenes):
        s = scene(seed, i)
        frame = trace(s, size)
        inputs = root if flat_target else root / "input"
        write_image(inputs / f"{s.name}.png", picture(frame, Light.from_name("6500_N")))
        write_depth((root / "depth" if split else inputs) / f"{s.name}.npy", stored_depth(frame))
        write_image((flat_target or root / "target") / f"{s.name}.png", picture(frame, Light.from_name("4500_E")))
    return root


PAIR_LIGHTS = (("6500_N", "4500_E"), ("2500_S", "5500_W"), ("4500_SE", "3500_NW"), ("3500_SW", "6500_NE"))
"""Input light and wanted light of the pairs that `write_pairs_layout` writes, in turn."""


def write_pairs_layout(
    root: Path,
    pairs: int = 3,
    size: tuple[int, int] = (40, 56),
    seed: int = 0,
    target: bool = True,
    flat_target: Path | None = None,
) -> Path:
    """The track-2 validation layout: ``input/PairNNN.png`` + ``.npy``, ``guide/PairNNN.png`` + ``.npy``, ``target/PairNNN.png``.

    Pair i is scene i under the first light of ``PAIR_LIGHTS[i % 4]``, the guide is scene i + 1 under the second.

    Args:
        root: Folder to write.
        pairs: Number of pairs.
        size: (height, width) in pixels.
        seed: Which scenes.
        target: Write ground truth.
        flat_target: Folder for the ground truth, flat, instead of ``target/``.
    """
    for i in range(pairs):
        present, wanted = (Light.from_name(n) for n in PAIR_LIGHTS[i % len(PAIR_LIGHTS)])
        frame, other = trace(scene(seed, i), size), trace(scene(seed, i + 1), size)
        name = f"Pair{i:03d}"
        write_image(root / "input" / f"{name}.png", picture(frame, present))
        write_depth(root / "input" / f"{name}.npy", stored_depth(frame))
        write_image(root / "guide" / f"{name}.png", picture(other, wanted))
        write_depth(root / "guide" / f"{name}.npy", stored_depth(other))
        if target:
            write_image((flat_target or root / "target") / f"{name}.png", picture(frame, wanted))
    return root


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write analytic scenes in VIDIT's any-to-any training layout.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_any_to_any(args.out, args.scenes, (args.height, args.width), seed=args.seed)
    print(f"{args.scenes} scenes in {args.out}")
