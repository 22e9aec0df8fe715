"""Scenes under the sky: terrain and courtyard."""

from __future__ import annotations

import itertools
import math

import numpy as np

from ltnet_pl.light import Camera
from ltnet_pl.render import shapes, textures
from ltnet_pl.render.scenes import WORLD, Rng, Scene, crate, sizes, spots, vase
from ltnet_pl.render.shapes import Mesh


def _tree(rng: Rng, height: float) -> Mesh:
    """A bare tree: a tapering trunk with a few branches."""
    trunk = shapes.cylinder(0.07 * height, height, 0.02 * height, 10)
    limbs = [trunk.turned(roll=rng.uniform(-6, 6))]
    for _ in range(int(rng.integers(3, 8))):
        length = height * rng.uniform(0.25, 0.5)
        limb = shapes.cylinder(0.03 * height, length, 0.008 * height, 8).turned(rng.uniform(0, 360), 0.0, rng.uniform(30, 65))
        limbs.append(limb.moved(y=height * rng.uniform(0.4, 0.85)))
    return shapes.join(limbs)


def _hut(rng: Rng) -> tuple[Mesh, Mesh, Mesh]:
    """A hut on y = 0: walls, roof, and a window in its front."""
    w, h, d, rise = rng.uniform(2.0, 3.2), rng.uniform(1.3, 2.0), rng.uniform(1.8, 2.6), rng.uniform(0.6, 1.2)
    gables = [[[-w / 2, h, z], [w / 2, h, z], [0, h + rise, z], [0, h + rise, z]] for z in (d / 2, -d / 2)]
    gables[1] = [gables[1][1], gables[1][0], gables[1][2], gables[1][3]]
    walls = shapes.join([shapes.box(w, h + 0.4, d).moved(y=-0.4), shapes.polygons(np.array(gables))])
    slope, length = math.degrees(math.atan2(rise, w / 2)), math.hypot(rise, w / 2) + 0.3
    roof = [shapes.box(length, 0.1, d + 0.4).moved(x=s * length / 2).turned(roll=-s * slope).moved(y=h + rise) for s in (-1, 1)]
    pane = shapes.box(0.5, 0.5, 0.06).moved(x=rng.choice([-1, 1]) * w / 4, y=0.45 * h, z=d / 2)
    return walls, shapes.join(roof), pane


def terrain(rng: Rng) -> Scene:
    """Rolling ground with rocks, and by chance trees, logs, a fence, a ruin's arch or a hut."""
    camera = Camera(rng.uniform(40, 60), rng.uniform(15, 50))
    scene = Scene("terrain", camera, rng.uniform(8, 13))
    heights = textures.fbm(rng, rng.uniform(3.2, 4.2), 2.0) * rng.uniform(0.5, 2.0) + textures.fbm(rng, 2.2, 12.0) * rng.uniform(
        0.03, 0.12
    )
    line = np.linspace(-WORLD / 2, WORLD / 2, len(heights))
    z, x = np.meshgrid(line, line, indexing="ij")
    # the ground rises towards the horizon in some scenes, and is calm around the origin, where the camera looks
    reach = np.hypot(x, z)
    heights = heights * (0.5 + 0.5 * np.clip(reach / 12, 0, 1)) + rng.uniform(0, 0.25) * np.maximum(reach - 14, 0) * (
        rng.random() < 0.5
    )
    heights -= heights[len(line) // 2, len(line) // 2]
    scene.add(textures.ground(rng), shapes.terrain(heights, WORLD))

    def ground(px: float, pz: float) -> float:
        row, column = (int(np.clip(round((p / WORLD + 0.5) * (len(line) - 1)), 0, len(line) - 1)) for p in (pz, px))
        return float(heights[row, column])

    places = spots(rng, sizes(rng, int(rng.integers(8, 34)), 0.15, 1.9), 9, 4, -14)
    stones = [textures.stone(rng) for _ in range(2)]
    for material in stones:
        chosen = [s for s in places if rng.random() < 0.55] or places[:1]
        rocks = [shapes.rock(rng, r, int(rng.integers(4, 12))).moved(px, ground(px, pz) + 0.2 * r, pz) for px, pz, r in chosen]
        scene.add(material, *rocks)
        places = [s for s in places if s not in chosen] or places[:1]
    timber = textures.wood(rng)
    if rng.random() < 0.5:
        trees = [(rng.uniform(-7, 7), rng.uniform(-10, 1)) for _ in range(int(rng.integers(1, 5)))]
        scene.add(timber, *(_tree(rng, rng.uniform(2, 5)).moved(px, ground(px, pz) - 0.2, pz) for px, pz in trees))
    if rng.random() < 0.4:
        angle, start = rng.uniform(-40, 40), np.array([rng.uniform(-6, -3), rng.uniform(-4, 1)])
        step = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        posts = [start + 1.1 * i * step for i in range(int(rng.integers(5, 10)))]
        scene.add(
            timber,
            *(shapes.box(0.14, 1.4, 0.14).turned(roll=rng.uniform(-6, 6)).moved(a, ground(a, b) - 0.2, b) for a, b in posts),
        )
        for (a, b), (c, d) in itertools.pairwise(posts):
            for level in (0.45, 0.9):
                rise = ground(c, d) - ground(a, b)
                rail = shapes.box(1.2, 0.1, 0.06).turned(-angle, 0, math.degrees(math.atan2(rise, 1.1)))
                scene.add(timber, rail.moved((a + c) / 2, (ground(a, b) + ground(c, d)) / 2 + level, (b + d) / 2))
    if rng.random() < 0.4:
        logs = [(rng.uniform(-4, 4), rng.uniform(-4, 2)) for _ in range(int(rng.integers(1, 6)))]
        lying = [shapes.cylinder(rng.uniform(0.12, 0.3), rng.uniform(1.5, 3.5)).turned(rng.uniform(0, 360), 90) for _ in logs]
        scene.add(timber, *(m.moved(px, ground(px, pz) + 0.25, pz) for m, (px, pz) in zip(lying, logs, strict=True)))
    px, pz = rng.uniform(-4, 4), rng.uniform(-6, -2)
    if rng.random() < 0.35:
        walls, roof, pane = (
            m.turned(rng_yaw).moved(px, ground(px, pz), pz) for rng_yaw in [rng.uniform(-50, 50)] for m in _hut(rng)
        )
        scene.add(textures.wall(rng), walls)
        scene.add(textures.wood(rng), roof)
        scene.light_up(rng, pane)
    elif rng.random() < 0.4:
        ruin = shapes.arcade(int(rng.integers(1, 4)), 2.4, 1.5, 1.3, 2.6, 0.5).turned(rng.uniform(-50, 50))
        scene.add(textures.wall(rng), ruin.moved(px, ground(px, pz) - 0.4, pz))
    return scene


def _column(rng: Rng, height: float, radius: float) -> Mesh:
    """A column with base and capital, tapering a little."""
    base, top, slim = 0.12 * height, 0.88 * height, rng.uniform(0.75, 1.0)
    shaft = [
        (1.35, base * 0.5),
        (1.15, base * 0.55),
        (1.15, base),
        (1.0, base),
        (slim, top),
        (1.1, top + 0.01),
        (1.3, 0.95 * height),
    ]
    turned = shapes.lathe([(0.0, base * 0.5), *((radius * r, y) for r, y in shaft)], 24)
    plates = [
        shapes.box(radius * 3, base * 0.5, radius * 3),
        shapes.box(radius * 2.9, 0.05 * height, radius * 2.9).moved(y=0.95 * height),
    ]
    return shapes.join([turned, *plates])


def _stairs(steps: int, width: float, rise: float, run: float) -> Mesh:
    """A flight that climbs towards -z."""
    return shapes.join(shapes.box(width, rise * (i + 1), run).moved(z=-run * i) for i in range(steps))


def courtyard(rng: Rng) -> Scene:
    """A paved yard with walls, arches, columns and stairs."""
    camera = Camera(rng.uniform(40, 60), rng.uniform(15, 50))
    scene = Scene("courtyard", camera, rng.uniform(8, 13), rng.uniform(0, 0.8), yaw=rng.uniform(-40, 40))
    scene.add(textures.floor(rng), shapes.box(WORLD, 1, WORLD).moved(y=-1))
    masonry, trim = textures.wall(rng), textures.stone(rng)
    back, height = -rng.uniform(3.5, 7), rng.uniform(2.4, 4.2)
    if rng.random() < 0.65:
        gap = rng.uniform(1.2, 2.0)
        spring = rng.uniform(0.35, 0.55) * height
        scene.add(
            masonry,
            shapes.arcade(int(rng.integers(4, 9)), gap * rng.uniform(1.25, 1.7), gap, spring, height + 0.3 * gap, 0.6).moved(
                z=back
            ),
        )
        if rng.random() < 0.6:
            scene.add(masonry, shapes.box(22, height + 0.4 * gap, 0.4).moved(z=back - rng.uniform(1.5, 3)))
    else:
        scene.add(masonry, shapes.box(rng.uniform(7, 20), height, 0.5).moved(z=back))
        panes = [
            shapes.box(0.9, 1.0, 0.1).moved(x, 0.45 * height, back + 0.25)
            for x in np.arange(-6, 6.1, rng.uniform(2, 3))
            if abs(x) < 3.4
        ]
        lit = int(rng.integers(len(panes)))
        if rng.random() < 0.7:
            scene.light_up(rng, panes.pop(lit))
        if panes:
            scene.add(
                textures.Material("plastic", textures.make(rng, ("plain",), np.full(3, 0.03), np.zeros(3)), 2.0, 0.3), *panes
            )
    scene.add(trim, shapes.box(22, 0.25, 0.9).moved(y=height + 0.6, z=back)) if rng.random() < 0.3 else None
    for side in (-1, 1):
        if rng.random() < 0.5:
            x, low = side * rng.uniform(4.5, 8), rng.uniform(0.8, 3.2)
            scene.add(masonry, shapes.box(0.5, low, rng.uniform(5, 12)).moved(x, 0, back + rng.uniform(3, 6)))
            scene.add(trim, shapes.box(0.7, 0.15, 12).moved(x, low, back + 5)) if rng.random() < 0.4 else None
    if rng.random() < 0.6:
        tall, radius, count = rng.uniform(1.6, 3.4), rng.uniform(0.14, 0.3), int(rng.integers(2, 6))
        spacing, z, x0 = rng.uniform(1.4, 2.4), rng.uniform(back + 1.2, 1.0), rng.uniform(-3.5, -0.5)
        column = _column(rng, tall, radius)
        scene.add(trim, *(column.moved(x0 + i * spacing, 0, z) for i in range(count)))
        if rng.random() < 0.5:
            scene.add(trim, shapes.box(spacing * count, 0.3, radius * 3).moved(x0 + (count - 1) * spacing / 2, tall, z))
    if rng.random() < 0.55:
        flight = _stairs(int(rng.integers(3, 8)), rng.uniform(1.5, 4), rng.uniform(0.15, 0.25), rng.uniform(0.3, 0.45))
        scene.add(
            trim, flight.turned(rng.choice([0.0, 90.0, -90.0])).moved(rng.uniform(-3.5, 3.5), 0, rng.uniform(back + 1, 0.5))
        )
    if rng.random() < 0.4:
        rim = [(0.75, 0.0), (0.8, 0.7), (0.6, 0.7), (0.6, 0.2), (0.0, 0.2)]
        scene.add(
            textures.stone(rng),
            shapes.lathe([(r * 1.2, y) for r, y in rim], 40).moved(rng.uniform(-2.5, 2.5), 0, rng.uniform(-2.5, 1.5)),
        )
    for x, z, r in spots(rng, sizes(rng, int(rng.integers(3, 10)), 0.25, 0.7), 5, 3, back + 1):
        mesh = [crate, vase, shapes.rock][int(rng.integers(3))](rng, r)
        scene.add([textures.wood, textures.thing, textures.stone][int(rng.integers(3))](rng), mesh.moved(x, 0, z))
    return scene
