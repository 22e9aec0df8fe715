"""Scenes of furniture and things: interior and objects."""

from __future__ import annotations

import numpy as np

from ltnet_pl.light import Camera
from ltnet_pl.render import shapes, textures
from ltnet_pl.render.scenes import WORLD, Rng, Scene, crate, sizes, spots, vase
from ltnet_pl.render.shapes import Mesh


def _legged(width: float, height: float, depth: float, board: float, leg: float) -> Mesh:
    """A table or seat: a board on four legs."""
    legs = [
        shapes.box(leg, height, leg).moved(sx * (width - leg) / 2, 0, sz * (depth - leg) / 2) for sx in (-1, 1) for sz in (-1, 1)
    ]
    return shapes.join([shapes.box(width, board, depth).moved(y=height - board), *legs])


def _furniture(rng: Rng, scene: Scene, x: float, z: float, kind: int) -> None:
    """One piece of furniture about a place, with what stands on it."""
    material = (textures.wood if rng.random() < 0.6 else textures.thing)(rng)
    turn = float(rng.choice([0, 90, 180, 270])) + rng.uniform(-12, 12)
    if kind == 0:
        w, h, d = rng.uniform(1.4, 2.6), rng.uniform(0.7, 1.0), rng.uniform(0.8, 1.3)
        scene.add(material, _legged(w, h, d, 0.08, 0.1).turned(turn).moved(x, 0, z))
        for _ in range(int(rng.integers(1, 4))):
            mesh = [
                vase(rng, rng.uniform(0.3, 0.6)),
                shapes.sphere(rng.uniform(0.12, 0.25)),
                crate(rng, rng.uniform(0.2, 0.4)),
            ][rng.integers(3)]
            place = shapes.rotation_y(turn) @ np.array([rng.uniform(-0.35, 0.35) * w, 0, rng.uniform(-0.3, 0.3) * d])
            scene.add(textures.thing(rng), mesh.moved(x + place[0], h, z + place[2]))
    elif kind == 1:
        seat = shapes.join([_legged(0.6, 0.55, 0.6, 0.07, 0.07), shapes.box(0.6, 0.7, 0.07).moved(y=0.55, z=-0.27)])
        scene.add(material, seat.turned(rng.uniform(0, 360)).moved(x, 0, z))
    elif kind == 2:
        w, h, shelves = rng.uniform(1.0, 1.8), rng.uniform(1.2, 2.4), int(rng.integers(2, 5))
        boards = [shapes.box(w, 0.06, 0.5).moved(y=h * i / shelves) for i in range(shelves)] + [
            shapes.box(w, 0.06, 0.5).moved(y=h)
        ]
        sides = [shapes.box(0.06, h, 0.5).moved(x=s * w / 2) for s in (-1, 1)]
        scene.add(material, shapes.join([*boards, *sides, shapes.box(w, h, 0.04).moved(z=-0.25)]).turned(turn).moved(x, 0, z))
    elif kind == 3:
        w, d, h = rng.uniform(1.6, 2.4), rng.uniform(0.9, 1.8), rng.uniform(0.4, 0.6)
        arms = [shapes.box(0.22, h + 0.25, d).moved(x=s * w / 2) for s in (-1, 1)]
        scene.add(
            textures.thing(rng),
            shapes.join([shapes.box(w, h, d), shapes.box(w, h + 0.5, 0.25).moved(z=-d / 2), *arms]).turned(turn).moved(x, 0, z),
        )
    else:
        scene.add(material, crate(rng, rng.uniform(0.5, 1.2)).moved(x, 0, z))


def interior(rng: Rng) -> Scene:
    """A corner of a room, open above like a stage set, with furniture of blocks."""
    camera = Camera(rng.uniform(40, 60), rng.uniform(18, 50))
    scene = Scene("interior", camera, rng.uniform(6, 9), rng.uniform(0, 0.6))
    # the corner is turned so that its flank is seen from inside
    side = float(rng.choice([-1, 1]))
    scene.yaw = side * rng.uniform(-10, 55)
    scene.add(textures.floor(rng), shapes.box(WORLD, 1, WORLD).moved(y=-1))
    paint = textures.wall(rng)
    back, flank, height = -rng.uniform(2.2, 4.0), rng.uniform(2.8, 4.5), rng.uniform(1.8, 3.0)
    scene.add(
        paint,
        shapes.box(flank * 2 + 4, height, 0.3).moved(-side * 2, 0, back - 0.15),
        shapes.box(0.3, height, 9).moved(side * flank, 0, back + 4.35),
    )
    if rng.random() < 0.5:
        skirting = [
            shapes.box(flank * 2 + 4, 0.18, 0.08).moved(-side * 2, 0, back + 0.04),
            shapes.box(0.08, 0.18, 8.8).moved(side * (flank - 0.19), 0, back + 4.4),
        ]
        scene.add(textures.wood(rng), *skirting)
    for i in range(int(rng.integers(0, 4))):
        frame = shapes.box(rng.uniform(0.5, 1.0), rng.uniform(0.4, 0.8), 0.08).moved(
            (i - 1.2) * 1.5, height * rng.uniform(0.45, 0.6), back + 0.04
        )
        if scene.window is None and rng.random() < 0.3:
            scene.light_up(rng, frame)
        else:
            scene.add(textures.thing(rng), frame)
    if rng.random() < 0.5:
        rug = shapes.box(rng.uniform(1.8, 3.2), 0.03, rng.uniform(1.2, 2.2)).turned(rng.uniform(-20, 20))
        scene.add(textures.thing(rng), rug.moved(rng.uniform(-1, 1), 0, rng.uniform(-1, 0.5)))
    for x, z, _ in spots(rng, rng.uniform(0.55, 0.95, int(rng.integers(4, 9))), flank - 1.0, 1.8, back + 0.8):
        _furniture(rng, scene, x, z, int(rng.integers(5)))
    return scene


def _object(rng: Rng, r: float) -> Mesh:
    """One thing of radius about r that stands on y = 0."""
    kind = int(rng.integers(8))
    if kind == 0:
        return shapes.sphere(r)
    if kind == 1:
        return crate(rng, 1.4 * r)
    if kind == 2:
        return shapes.cylinder(r * rng.uniform(0.4, 0.8), r * rng.uniform(0.8, 2.5))
    if kind == 3:
        return shapes.cylinder(r * 0.8, r * rng.uniform(1.2, 2.4), 0.0)
    if kind == 4:
        lying = shapes.torus(0.7 * r, 0.28 * r)
        return lying if rng.random() < 0.6 else lying.turned(pitch=90).moved(y=0.98 * r).turned(rng.uniform(0, 180))
    if kind == 5:
        return vase(rng, r * rng.uniform(1.4, 2.6))
    if kind == 6:
        return shapes.rock(rng, 0.8 * r, 0).moved(y=0.7 * r)
    return shapes.rock(rng, 0.8 * r, 14).moved(y=0.5 * r)


def objects(rng: Rng) -> Scene:
    """Things on a table or floor, some stacked, with a wall behind them in some scenes."""
    camera = Camera(rng.uniform(40, 60), rng.uniform(18, 60))
    scene = Scene("objects", camera, rng.uniform(4.5, 8), rng.uniform(0.1, 0.7), yaw=rng.uniform(-60, 60))
    scene.add(textures.floor(rng), shapes.box(WORLD, 1, WORLD).moved(y=-1))
    if rng.random() < 0.35:
        width, depth = rng.uniform(3, 6), rng.uniform(2.5, 4)
        scene.add(textures.wood(rng), shapes.box(width, 0.12, depth))
    if rng.random() < 0.35:
        scene.add(textures.wall(rng), shapes.box(rng.uniform(4, 14), rng.uniform(0.8, 2.0), 0.3).moved(z=-rng.uniform(2.2, 3.4)))
    if rng.random() < 0.25:
        # slats throw a fence's shadow over everything
        slats = [shapes.box(0.16, rng.uniform(0.9, 1.5), 0.08).moved(x) for x in np.arange(-2.4, 2.5, rng.uniform(0.3, 0.5))]
        scene.add(textures.wood(rng), shapes.join(slats).moved(z=rng.uniform(-2.4, -1.2)))
    for x, z, r in spots(rng, sizes(rng, int(rng.integers(5, 18)), 0.18, 0.85), 2.8, 1.6, -3.0):
        scene.add(textures.thing(rng), _object(rng, r).moved(x, 0.12, z))
        if r > 0.5 and rng.random() < 0.15:
            scene.add(
                textures.thing(rng),
                crate(rng, 0.8 * r).moved(x, 0.12, z),
                shapes.sphere(0.3 * r).moved(x + 0.1, 0.1 + 0.9 * r, z),
            )
    if rng.random() < 0.15:
        lamp = shapes.box(0.3, 0.3, 0.3).moved(rng.uniform(-1.5, 1.5), 0.12, rng.uniform(-2, 0.5))
        scene.light_up(rng, lamp)
    return scene
