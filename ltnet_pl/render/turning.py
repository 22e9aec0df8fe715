"""A finished scene of a rendered set under lights at any azimuths, in the very exposure of the set."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from ltnet_pl import InputError
from ltnet_pl.files import atomic_write
from ltnet_pl.light import SETTINGS, Light, Rig
from ltnet_pl.render import job, picture
from ltnet_pl.render.families import FAMILIES
from ltnet_pl.render.writer import Settings

SAME = 0.5
"""Mean difference, in 8-bit levels, up to which two pictures are the same scene; another scene differs by tens."""


@dataclass(frozen=True)
class Turn:
    """One scene under a light that turns around it.

    Args:
        images: Display-encoded pictures ``(K, H, W, 3)`` uint8, one for each azimuth.
        free: Whether the light stands free there, ``(K,)`` bool: as far from everything as the set's own eight must be. One
            that does not may stand within a wall, and its picture says nothing.
    """

    images: NDArray[np.uint8]
    free: NDArray[np.bool_]


def read_record(root: Path, scene: str) -> dict[str, Any]:
    """The record of a rendered scene: the content of its ``scene.json``.

    Args:
        root: Folder of the set.
        scene: The scene, ``"Image007"``.

    Raises:
        InputError: If there is none, as in sets that `render` did not write, or it tells no family.
    """
    path = _path(root, scene)
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected the record of a rendered scene: give a set that "
            "`python -m ltnet_pl render` wrote"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected the record of a rendered scene: render the scene again") from error
    if not isinstance(record, dict) or not isinstance(record.get("family"), str):
        raise InputError(f"{path}: tells no family; expected the record of a rendered scene: render the scene again")
    return record


def _path(root: Path, scene: str) -> Path:
    return root / "scenes" / scene / "scene.json"


def _settings(root: Path, scene: str, record: dict[str, Any]) -> tuple[Settings, float]:
    """What a scene shares with its set, and its exposure."""
    try:
        rig = Rig(float(record["rig"]["radius"]), float(record["rig"]["height"]))
        whole = {key: int(record[key]) for key in ("seed", "size", "samples")}
        settings = Settings(**whole, variant=str(record["variant"]), rig=rig, versions=dict(record["versions"]))
        return settings, float(record["exposure"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{_path(root, scene)}: {error!r}; expected the record of a rendered scene: render the scene again"
        ) from error


def turn(root: Path, scene: str, azimuths: Sequence[int], temperature: int) -> Turn:
    """A scene of a set under lights at some azimuths: from ``turning/<scene>.npz`` of the set, traced and kept there if new.

    The scene is built again from the set's seed. Pictures under the set's own lights are held against the set's files, so that
    other versions of the packages, which may build another scene, cannot pass unnoticed.

    Args:
        root: Folder of the set.
        scene: The scene, ``"Image007"``.
        azimuths: Degrees.
        temperature: Colour temperature of all lights in kelvin.

    Raises:
        InputError: If the scene has no record, Mitsuba or its variant is missing, what is built is not the set's scene, or the
            file cannot be written.
    """
    record = read_record(root, scene)
    path = root / "turning" / f"{scene}.npz"
    key = json.dumps([record, temperature, list(azimuths)])
    found = _cached(path, key)
    if found is None:
        found = _trace(root, scene, record, [Light(azimuth, temperature) for azimuth in azimuths])
        content = io.BytesIO()
        np.savez_compressed(content, images=found.images, free=found.free, key=np.array(key))
        try:
            path.parent.mkdir(exist_ok=True)
            with atomic_write(path) as file:
                file.write(content.getvalue())
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); expected a folder with free space that can be written to: make "
                "room, then run the same command again"
            ) from error
    return found


def _cached(path: Path, key: str) -> Turn | None:
    """What was traced before, None where there is nothing or something else."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return Turn(stored["images"], stored["free"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        # a file that cannot be read is made anew
        return None


def _trace(root: Path, scene: str, record: dict[str, Any], lights: Sequence[Light]) -> Turn:
    """Build the scene, trace it under every light, and compare where the set has pictures."""
    settings, exposure = _settings(root, scene, record)
    family, index = record["family"], int(scene.removeprefix("Image"))
    job.require_mitsuba("turning")
    if family not in FAMILIES:
        raise InputError(
            f"scene {scene} of {root} is of the family {family!r}; expected one of {', '.join(FAMILIES)}: give a "
            "set that this version of ltnet_pl rendered"
        )
    if settings.variant != "scalar_rgb" and not job.starts(settings.variant):
        raise InputError(
            f"{root} was rendered with Mitsuba's variant {settings.variant}, which does not start on this machine; expected "
            "the same, for the same noise: run this where the set was rendered, or render the set anew here"
        )
    tracer, _ = picture.find(family, settings.seed, index, settings.size, settings.variant, settings.rig)
    # as in `render`, so that the set's own directions come out the same, noise included
    sampler = picture.sampler_of(settings.seed, index)
    window = tracer.shine(settings.samples, sampler)
    images, free = [], []
    for light in lights:
        position = tracer.position(light)
        lit = tracer.radiance(position, np.ones(3), settings.samples, sampler)
        images.append(picture.display(exposure * picture.combine(lit, window, light.temperature)))
        free.append(picture.stands_free(tracer, position))
        if light in SETTINGS:
            _compare(root / f"{scene}_{light.name}.png", images[-1], settings)
    return Turn(np.stack(images), np.array(free))


def _compare(path: Path, image: NDArray[np.uint8], settings: Settings) -> None:
    """Refuse a picture that is not the set's."""
    try:
        with PillowImage.open(path) as file:
            stored = np.asarray(file.convert("RGB"), dtype=np.float64)
    except (OSError, SyntaxError) as error:  # Pillow raises either for broken data
        raise InputError(f"{path}: {error}; expected a picture of the set: render the scene again") from error
    apart = np.inf if stored.shape != image.shape else float(np.abs(stored - image).mean())
    if apart > SAME:
        versions = ", ".join(f"{name} {version}" for name, version in settings.versions.items())
        raise InputError(
            f"{path}: differs from what is rendered now by {apart:.1f} levels of 255 in the mean; expected the same scene, and "
            f"the set was rendered with {versions}: install these, or render the set anew"
        )
