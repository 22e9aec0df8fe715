"""Renders of one set: another kind of processor rounds otherwise, so that files are other bytes and the pictures the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ltnet_pl import InputError
from ltnet_pl.bench.configs import digest_of
from ltnet_pl.bench.scoring import Lists, scene_means
from ltnet_pl.files import atomic_write
from ltnet_pl.metrics import psnr, quantize
from ltnet_pl.vidit import find_settings, read_depth, read_image

SAME = 0.01
"""dB by which copying the input may differ on a test scene between two renders of the same pictures.

Rounding moves it by some 0.0001 dB; another seed, size or renderer by whole dB.
"""

ALIKE = 1e-3
"""Share by which the mean brightness of a scene's first picture, and its mean depth, may differ between such renders."""

Look = dict[str, Any]


class Renders:
    """What is known of the renders that the results of a tier are of, in ``renders.json`` beside them.

    Of each render, by the hash of the data: ``copied``, the PSNR of copying the input for every test scene; ``pairs``, a hash of
    the names of all pairs that are scored; ``scenes``, for every scene of the set the mean brightness of its first picture, its
    mean depth, and a hash of its camera and rig.

    Args:
        folder: Folder of the tier's results.

    Raises:
        InputError: If the file is broken.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "renders.json"
        self._known: dict[str, Look] = {}
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            self._known = {data: look | {"copied": [float(x) for x in look["copied"]]} for data, look in found.items()}
        except FileNotFoundError:
            pass  # nothing is known yet
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise InputError(f"{self.path}: {error!r}; expected what bench wrote: delete it to have it made anew") from error

    def add(self, data: str, root: Path, lists: Lists) -> None:
        """Look at a render, unless it is known.

        Args:
            data: Its hash.
            root: Its folder.
            lists: The pairs that are scored on it.
        """
        if data in self._known:
            return
        copied = [psnr(quantize(batch["input"]), quantize(batch["target"])) for batch in lists.test.test_dataloader()]
        self._known[data] = {
            "copied": [round(value, 4) for value in scene_means(torch.cat(copied).double(), lists.test)],
            "pairs": digest_of([[(pair.name, pair.guide and pair.guide.scene) for pair in pairs] for pairs in lists.pairs()]),
            "scenes": {name: _glance(root, name, views) for name, views in find_settings(root).items()},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(look)}" for key, look in self._known.items())
        with atomic_write(self.path) as file:
            file.write(f"{{\n{lines}\n}}\n".encode())

    def apart(self, one: str, other: str) -> float | None:
        """By how many dB two renders differ on the test scene where they differ most; None where one is not known."""
        if one == other:
            return 0.0
        if one not in self._known or other not in self._known:
            return None
        a, b = (self._known[data]["copied"] for data in (one, other))
        return max(abs(x - y) for x, y in zip(a, b, strict=True)) if len(a) == len(b) else None

    def same(self, one: str, other: str) -> bool:
        """Whether two hashes are of the same pictures, depths, scenes and pairs, as far as both are known."""
        if one == other:
            return True
        apart = self.apart(one, other)
        if apart is None or apart > SAME:
            return False
        a, b = self._known[one], self._known[other]
        # of a render that was lost before it was looked at, copying alone is known
        both = a.keys() & b.keys()
        return ("pairs" not in both or a["pairs"] == b["pairs"]) and ("scenes" not in both or _alike(a["scenes"], b["scenes"]))


def _glance(root: Path, name: str, views: Mapping[str, Any]) -> list[Any]:
    """Mean brightness of a scene's first picture, mean depth, and a hash of camera and rig; None for what it has not."""
    view = views[min(views)]
    image = float(read_image(view.image).mean())
    depth = None if view.depth is None else float(read_depth(view.depth).mean())
    told = root / "scenes" / name / "scene.json"
    said = json.loads(told.read_text(encoding="utf-8")) if told.exists() else {}
    return [round(image, 4), None if depth is None else float(f"{depth:.6g}"), digest_of([said.get("camera"), said.get("rig")])]


def _alike(one: Mapping[str, list[Any]], other: Mapping[str, list[Any]]) -> bool:
    if one.keys() != other.keys():
        return False
    for name, (image, depth, told) in one.items():
        other_image, other_depth, other_told = other[name]
        if told != other_told or (depth is None) != (other_depth is None):
            return False
        for a, b in ((image, other_image), (depth or 0.0, other_depth or 0.0)):
            if abs(a - b) > ALIKE * max(abs(a), abs(b)):
                return False
    return True
