"""Files of a rendered set: VIDIT's track-2 training layout plus ground truth, written atomically and never mixed."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from ltnet_pl import InputError
from ltnet_pl.files import atomic_write
from ltnet_pl.light import SETTINGS, Rig
from ltnet_pl.render.picture import Pictures

PARTIAL = ".partial"
"""Folder inside the set for files not yet whole; it exists only while a render runs."""

RESUME = "the same command resumes where it stopped"


@dataclass(frozen=True)
class Settings:
    """What all scenes of a set share.

    Args:
        seed: Seed of the set.
        size: Width and height in pixels.
        samples: Paths per pixel.
        variant: Mitsuba's variant.
        rig: Where the lights stand.
        versions: Version of each package that the bytes depend on, by name.
    """

    seed: int
    size: int
    samples: int
    variant: str
    rig: Rig
    versions: dict[str, str]


def scene_name(index: int) -> str:
    """VIDIT's name of a scene: ``"Image007"``."""
    return f"Image{index:03d}"


def save(out: Path, relative: str, data: bytes) -> None:
    """Write a file of the set whole or not at all.

    Args:
        out: The set's folder.
        relative: Path inside it.
        data: Content.

    Raises:
        InputError: If the file cannot be written (no space, no permission); the temporary file is gone then.
    """
    final, temporary = out / relative, out / PARTIAL / relative.replace("/", ".")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(final, temporary) as file:
            file.write(data)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"cannot write {final}: {reason}; expected a writable folder with free space; make room, then {RESUME}"
        ) from error


def _npy(value: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value)
    return buffer.getvalue()


def _png(rgb: np.typing.NDArray[np.uint8]) -> bytes:
    alpha = np.full((*rgb.shape[:2], 1), 255, dtype=np.uint8)
    buffer = io.BytesIO()
    PillowImage.fromarray(np.concatenate([rgb, alpha], axis=-1)).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def write_scene(out: Path, index: int, pictures: Pictures, settings: Settings) -> None:
    """Write everything of one scene, ``scene.json`` last: where that exists, the scene is complete.

    Raises:
        InputError: If a file cannot be written.
    """
    name, truth = scene_name(index), pictures.truth
    folder = f"scenes/{name}"
    # the folder comes first: an image without its folder under scenes/ is none of ours
    save(out, f"{folder}/normals.npy", _npy(truth.normals.astype(np.float16)))
    save(out, f"{folder}/albedo.npy", _npy(truth.albedo.astype(np.float16)))
    save(out, f"{folder}/visibility.npy", _npy(truth.visibility))
    farthest = truth.depth.max()
    depth = {"normalized_depth": truth.depth / farthest, "ref_center_dis": float(pictures.centre_distance / farthest)}
    save(out, f"{name}.npy", _npy(depth))
    for light in SETTINGS:
        save(out, f"{name}_{light.name}.png", _png(pictures.image(light)))
    record = {
        "family": pictures.scene.family,
        "camera": asdict(pictures.scene.camera),
        "exposure": pictures.exposure,
        "window": pictures.scene.window is not None,
        **asdict(settings),
    }
    save(out, f"{folder}/scene.json", (json.dumps(record, indent=2) + "\n").encode())


def prepare(out: Path, settings: Settings, families: list[str]) -> set[int]:
    """Make the folder ready, and say which scenes it holds complete.

    Leftovers of scenes that were interrupted are removed.

    Args:
        out: The set's folder; made where it is missing.
        settings: Of this render.
        families: Scene i is of family ``families[i % len(families)]``.

    Raises:
        InputError: If ``out`` is a file, or holds images that are not ours or scenes of other settings.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"OUT {out} is a file; expected a folder or a name that is free; name another")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder OUT {out}: {error.strerror}; expected a place that can be written to; name another"
        ) from error
    clear_partial(out)
    ours = {path.name: path for path in sorted((out / "scenes").glob("Image*")) if re.fullmatch(r"Image\d{3,}", path.name)}
    for path in sorted(out.iterdir()):
        if path.suffix.lower() in {".png", ".npy", ".jpg", ".jpeg"} and re.split(r"[_.]", path.name)[0] not in ours:
            raise InputError(
                f"OUT {out} holds {path.name}, which no render wrote; expected an empty folder or a set to resume; "
                "name another folder"
            )
    complete = set()
    for name, folder in ours.items():
        index = int(name.removeprefix("Image"))
        if (folder / "scene.json").exists():
            _compare(folder / "scene.json", settings, families[index % len(families)])
            complete.add(index)
        else:
            shutil.rmtree(folder)
            for path in [*out.glob(f"{name}_*.png"), *out.glob(f"{name}.npy")]:
                path.unlink()
    return complete


def _compare(path: Path, settings: Settings, family: str) -> None:
    """Refuse a finished scene that another render made."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; expected the record of a rendered scene; remove its folder") from error
    wanted = {"family": family, **asdict(settings)}
    for key, value in wanted.items():
        found = record.get(key) if isinstance(record, dict) else None
        if found != value:
            flag = {"family": "--families", "versions": "versions"}.get(key, f"--{key}")
            raise InputError(
                f"{path}: the folder holds scenes rendered with {flag} {found}, but this render has {value}; expected one "
                "setting in one folder; name another folder, or give the setting of the scenes there"
            )


def clear_partial(out: Path) -> None:
    """Remove what was not yet whole."""
    shutil.rmtree(out / PARTIAL, ignore_errors=True)
