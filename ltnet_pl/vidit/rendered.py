"""What `render` writes beside the images and VIDIT keeps to itself: the true camera and rig."""

from __future__ import annotations

import json
from pathlib import Path

from ltnet_pl import InputError
from ltnet_pl.light import Camera, Rig


def read_scene(root: Path, scene: str) -> tuple[Camera | None, Rig | None]:
    """The true camera and rig of a rendered scene, from ``scenes/<scene>/scene.json``.

    Args:
        root: Root of the set (its sub-folder ``train`` is looked at too).
        scene: The scene, ``"Image014"``.

    Returns:
        Camera and rig, or None for both where the file is absent, as in VIDIT itself.

    Raises:
        InputError: If the file is there but broken.
    """
    for base in (Path(root), Path(root) / "train"):
        path = base / "scenes" / scene / "scene.json"
        try:
            text = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); expected a readable file") from error
        try:
            content = json.loads(text)
            camera = Camera(*(_number(content, "camera", key) for key in ("fov", "pitch")))
            return camera, Rig(*(_number(content, "rig", key) for key in ("radius", "height")))
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}: {error}; expected camera (fov, pitch) and rig (radius, height): render the scene again"
            ) from error
    return None, None


def _number(content: object, part: str, key: str) -> float:
    """``content[part][key]`` as a finite or infinite number, else ValueError."""
    inner = content.get(part) if isinstance(content, dict) else None
    value = inner.get(key) if isinstance(inner, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{part}.{key} is {str(value)[:40]}, not a number")
    return float(value)
