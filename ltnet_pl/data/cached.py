"""Frames that were decoded and resized once, mapped from disk: what `python -m ltnet_pl cache` wrote.

A cache is a folder: ``settings.json`` (format, size, kind of depth, the set's folder), ``blocks/`` with one array file for the
images of a scene and one for each depth, each beside a JSON file that says from which files it was made, and ``manifest.json``,
written last, which is all of these together. An array is mapped anew for each access and let go with it: its pages belong to the
file cache of the system, which all processes share and which gives way when memory is short, so a worker holds no frame of its
own.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ltnet_pl import InputError
from ltnet_pl.vidit import every_view

FORMAT = 2
"""Version of the layout, and of how frames are decoded and resized; a cache of another one is refused."""

MANIFEST, SETTINGS, BLOCKS = "manifest.json", "settings.json", "blocks"

HEADER = 128
"""Bytes before the numbers of an array file: numpy's own header, padded to this."""


class Frame(NamedTuple):
    """A decoded file as it is served, and the height and width that it has on disk."""

    array: NDArray[Any]
    original: tuple[int, int]


@dataclass(frozen=True)
class Source:
    """A file that went into a cache.

    Args:
        name: Path within the set, with slashes.
        size: Bytes.
        mtime: When it was changed last, in ns.
        hash: Of its bytes, 32 hexadecimal digits.
    """

    name: str
    size: int
    mtime: int
    hash: str


@dataclass(frozen=True)
class Block:
    """One array file.

    Args:
        array: Its path within the cache.
        shape: ``(n, H, W, 3)`` or ``(n, H, W)``.
        dtype: ``uint8``, ``float32`` or ``float16``.
        original: Height and width of the files, all of one size.
        checksum: Of the numbers, 32 hexadecimal digits.
        files: What its n frames were made of, in their order.
    """

    array: str
    shape: tuple[int, ...]
    dtype: str
    original: tuple[int, int]
    checksum: str
    files: tuple[Source, ...]

    @property
    def nbytes(self) -> int:
        """Length of the array file."""
        return HEADER + math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Block:
        """What was written; KeyError, TypeError or ValueError where it is no block."""
        files = tuple(Source(**file) for file in content["files"])
        shape, original = tuple(int(n) for n in content["shape"]), tuple(int(n) for n in content["original"])
        dtype = str(content["dtype"])
        if len(original) != 2 or len(files) != shape[0] or min(shape) < 1:
            raise ValueError("no block")
        if dtype not in ("uint8", "float32", "float16"):
            raise ValueError("no block")
        return cls(str(content["array"]), shape, dtype, (original[0], original[1]), str(content["checksum"]), files)


class FrameCache:
    """Serves the frames of one set from a cache of it.

    Args:
        folder: The cache.
        size: Length of the frames' shorter side that is wanted, in pixels; None: as the files are.
        roots: Folders of the sets that are read; one of them must be the cache's.

    Raises:
        InputError: If the folder is no cache or an unfinished one, or was made of another set, of other files or at another size.
    """

    def __init__(self, folder: Path, size: int | None, roots: Sequence[Path]) -> None:
        self.folder = folder
        manifest = read_manifest(folder)
        source = Path(manifest["source"])
        kept = (manifest["size"], manifest["depth"])
        again = build_command(source, folder, *kept)
        if manifest["size"] != size:
            raise InputError(
                f"--data.cache {folder} holds frames of {_side(manifest['size'])}, but --data.size asks for {_side(size)}; "
                f"expected one size: set --data.size {'null' if manifest['size'] is None else manifest['size']}, or make "
                "another cache: " + build_command(source, Path("OTHER"), size, manifest["depth"])
            )
        mine = [root for root in roots if root.resolve() == source]
        if not mine:
            raise InputError(
                f"--data.cache {folder} was made of {source}, but this run reads {', '.join(map(str, roots))}; expected a "
                f"cache of one of these: {build_command(roots[0], Path('OTHER'), *kept)}; where the set was moved, the same with "
                "the cache's own folder takes what has not changed; a folder of ground truth has to be named by "
                "--data.val_target_root or --data.test_target_root"
            )
        self.root = mine[0]
        self.blocks: list[Block] = manifest["blocks"]
        self._at: dict[str, tuple[int, int]] = {}
        for number, block in enumerate(self.blocks):
            array = folder / block.array
            if not array.is_file() or array.stat().st_size != block.nbytes:
                raise InputError(
                    f"{array}: is missing or cut short; expected {block.nbytes} bytes: make the cache anew by {again}"
                )
            for row, file in enumerate(block.files):
                self._at[str(self.root / file.name)] = (number, row)
        changed = [file for block in self.blocks for file in block.files if not unchanged(self.root, file)]
        if changed:
            raise InputError(
                f"--data.cache {folder} is stale: {self.root / changed[0].name} was changed or removed since ({len(changed)} of "
                f"{len(self._at)} files); bring the cache up to date, which reads only what changed: {again}"
            )
        new = [path for path in wanted_files(self.root) if str(path) not in self._at]
        if new:
            raise InputError(
                f"--data.cache {folder} is stale: it lacks {new[0]} ({len(new)} files); bring it up to date, which reads only "
                f"what is new: {again}"
            )

    def get(self, path: Path) -> Frame | None:
        """A frame, mapped; None for a file that the cache does not hold. Not to be written to."""
        place = self._at.get(str(path))
        if place is None:
            return None
        number, row = place
        block = self.blocks[number]
        dtype, shape = np.dtype(block.dtype), block.shape[1:]
        count = math.prod(shape)
        begin = HEADER + row * count * dtype.itemsize
        page = begin - begin % mmap.ALLOCATIONGRANULARITY
        with open(self.folder / block.array, "rb") as file:
            if os.fstat(file.fileno()).st_size != block.nbytes:
                raise InputError(
                    f"{self.folder / block.array}: was rebuilt or damaged while it was read; expected {block.nbytes} bytes: "
                    "leave a cache alone while it is trained from, and go on with --ckpt_path last"
                )
            mapped = mmap.mmap(file.fileno(), begin - page + count * dtype.itemsize, access=mmap.ACCESS_READ, offset=page)
        array: NDArray[Any] = np.frombuffer(mapped, dtype, count, begin - page).reshape(shape)
        if dtype == np.float16:
            array = array.astype(np.float32)
            array.setflags(write=False)
        return Frame(array, block.original)

    def original(self, path: Path) -> tuple[int, int] | None:
        """Height and width of a file on disk; None for one that the cache does not hold."""
        place = self._at.get(str(path))
        return None if place is None else self.blocks[place[0]].original


def wanted_files(root: Path) -> list[Path]:
    """Every image and depth of a set that a cache holds, sorted."""
    views = every_view(root)
    return sorted({view.image for view in views} | {view.depth for view in views if view.depth is not None})


def unchanged(root: Path, file: Source) -> bool:
    """Whether a file is as it was, as far as its size and time tell."""
    try:
        found = (root / file.name).stat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (file.size, file.mtime)


def read_manifest(folder: Path) -> dict[str, Any]:
    """A cache's manifest, its blocks read.

    Raises:
        InputError: If there is none, or it is broken or of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        if (folder / SETTINGS).is_file():
            raise InputError(
                f"--data.cache {folder} is not finished; run the cache command that began it again, which goes on with it"
            )
        raise InputError(
            f"--data.cache {folder} is no cache ({f'no {MANIFEST} in it' if folder.exists() else 'no such folder'}); "
            "expected a folder that was made by: python -m ltnet_pl cache DATA FOLDER --size PX"
        )
    try:
        content = json.loads(path.read_text())
        found = content["format"]
        if found == FORMAT:
            blocks = [Block.from_json(block) for block in content["blocks"]]
            size = None if content["size"] is None else int(content["size"])
            return {"source": str(content["source"]), "size": size, "depth": str(content["depth"]), "blocks": blocks}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{path}: is broken ({error!r}); remove it and run the cache command again") from error
    raise other_format(folder, found)


def other_format(folder: Path, found: object) -> InputError:
    """The error for a cache that another version of this package wrote."""
    return InputError(f"{folder} holds a cache of format {found}; expected {FORMAT}: remove the folder and make the cache anew")


def build_command(source: Path, folder: Path, size: int | None, depth: str) -> str:
    """The command that makes a cache, or brings it up to date."""
    flags = [] if size is None else ["--size", str(size)]
    flags += [] if depth == "float32" else ["--depth", depth]
    return shlex.join(["python", "-m", "ltnet_pl", "cache", str(source), str(folder), *flags])


def _side(size: int | None) -> str:
    return "the files' own size" if size is None else f"{size} px"
