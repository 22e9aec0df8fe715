"""Renders of one set: another kind of processor rounds otherwise, so that files are other bytes and the pictures the same."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ltnet_pl import InputError
from ltnet_pl.bench.scoring import Lists, scene_means
from ltnet_pl.files import atomic_write
from ltnet_pl.metrics import psnr, quantize

SAME = 0.01
"""dB by which copying the input may differ on a test scene between two renders of the same pictures.

Rounding moves it by some 0.0001 dB; another seed, size or renderer by whole dB.
"""


class Renders:
    """What is known of the renders that the results of a tier are of, in ``renders.json`` beside them.

    Of each render, by the hash of the data: the PSNR of copying the input, for every test scene.

    Args:
        folder: Folder of the tier's results.

    Raises:
        InputError: If the file is broken.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "renders.json"
        self._known: dict[str, list[float]] = {}
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            self._known = {str(data): [float(value) for value in values] for data, values in found.items()}
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{self.path}: {error}; expected what bench wrote: delete it to have it made anew") from error

    def add(self, data: str, lists: Lists) -> None:
        """Look at a render, unless it is known.

        Args:
            data: Its hash.
            lists: The pairs that are scored on it.
        """
        if data in self._known:
            return
        copied = [psnr(quantize(batch["input"]), quantize(batch["target"])) for batch in lists.test.test_dataloader()]
        self._known[data] = [round(value, 4) for value in scene_means(torch.cat(copied).double(), lists.test)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(values)}" for key, values in self._known.items())
        with atomic_write(self.path) as file:
            file.write(f"{{\n{lines}\n}}\n".encode())

    def apart(self, one: str, other: str) -> float | None:
        """By how many dB two renders differ on the scene where they differ most; None where one is not known."""
        if one == other:
            return 0.0
        if one not in self._known or other not in self._known or len(self._known[one]) != len(self._known[other]):
            return None
        return max(abs(a - b) for a, b in zip(self._known[one], self._known[other], strict=True))

    def same(self, one: str, other: str) -> bool:
        """Whether two hashes are of the same pictures, as far as is known."""
        apart = self.apart(one, other)
        return apart is not None and apart <= SAME
