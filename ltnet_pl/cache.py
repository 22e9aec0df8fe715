"""The cache command: decode and resize a set once, into arrays that training maps from disk."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ltnet_pl import InputError
from ltnet_pl.data.cached import BLOCKS, FORMAT, HEADER, MANIFEST, SETTINGS, Block, Source, build_command, unchanged
from ltnet_pl.data.frames import Frames, fitted_size
from ltnet_pl.files import atomic_write
from ltnet_pl.processes import cores, in_processes, pause
from ltnet_pl.vidit import every_view, image_size

SMALLEST_FLOAT16 = 2.0**-14
"""Depth closer than this share of the farthest would become background in 16 bits."""


class Plan(NamedTuple):
    """An array file to be made: of which files, and of which image each of them must have the size."""

    kind: Literal["image", "depth"]
    array: str
    names: tuple[str, ...]
    partner: str


def cache(
    data: str,
    out: str,
    size: int | None = None,
    depth: Literal["float32", "float16"] = "float32",
    workers: int | None = None,
    verify: bool = False,
) -> None:
    """Decode and resize every image and depth of a set once; training maps the frames from disk by --data.cache OUT.

    An interrupted build is resumed by the same command, and a set that was changed or moved is brought up to date by it: only
    files whose bytes changed are read into frames again.

    Args:
        data: Folder of the set, in any of VIDIT's layouts.
        out: Folder of the cache; new, empty, or a cache of the same settings.
        size: Resize all frames so that the shorter side has this many pixels, as --data.size does; by default the files' size.
        depth: How depth is kept: float32 as it is, or float16, whose scale is 1 at the farthest point, half the bytes, and
            a relative error of 0.0005, which roughens normals.
        workers: Number of processes; by default one for each available core.
        verify: Also read every array that is there and compare its checksum; what is damaged is made anew.

    Raises:
        InputError: If an argument is out of range, a file of the set is broken, the folder holds something else, or the disk is
            too small.
    """
    for flag, value, least in (("size", size, 8), ("workers", workers, 1)):
        if value is not None and value < least:
            raise InputError(f"--{flag} {value}: expected {least} or more; raise it")
    source, folder, console = Path(data).resolve(), Path(out), Console()
    plans = plan(source)
    _prepare(folder, {"format": FORMAT, "size": size, "depth": depth})
    kept = {item.array: block for item in plans if (block := _kept(folder, source, item, verify)) is not None}
    missing = [item for item in plans if item.array not in kept]
    if kept:
        console.print(f"{len(kept)} of {len(plans)} arrays are up to date")
    _expect_space(folder, source, missing, size, depth)
    begin = time.perf_counter()
    died = f"a process died, most likely out of memory; expected it to live; try fewer --workers; {_again(source, folder, size)}"
    try:
        calls = [(folder, source, item, size, depth) for item in missing]
        in_processes(_build, calls, workers or cores(), "caching", "arrays", console, died, apart=False)
    except KeyboardInterrupt:
        console.print(f"stopped; every array in {folder} is whole; {_again(source, folder, size)}")
        raise SystemExit(130) from None
    blocks = [kept.get(item.array) or _read_block(folder, item.array) for item in plans]
    _remove_others(folder, {item.array for item in plans})
    content = {"format": FORMAT, "source": str(source), "size": size, "depth": depth}
    _write_json(folder / MANIFEST, content | {"blocks": [asdict(block) for block in blocks if block is not None]})
    frames, nbytes = sum(len(item.names) for item in plans), sum(block.nbytes for block in blocks if block is not None)
    seconds = time.perf_counter() - begin
    console.print(f"{frames} frames in {len(plans)} arrays, {nbytes / 1e6:.1f} MB, in {seconds:.1f} s")
    console.print(f"train with --data.cache {folder}" + ("" if size is None else f" --data.size {size}"))


def plan(source: Path) -> list[Plan]:
    """The array files of a set: one for the images of each scene in each of its folders, one for each depth."""
    images: dict[str, list[str]] = {}
    depths: dict[str, str] = {}
    for view in every_view(source):
        name = view.image.relative_to(source)
        images.setdefault((name.parent / view.scene).as_posix(), []).append(name.as_posix())
        if view.depth is not None:
            depths.setdefault(view.depth.relative_to(source).as_posix(), name.as_posix())
    plans = [Plan("image", f"{BLOCKS}/{scene}.images.npy", tuple(names), names[0]) for scene, names in images.items()]
    return plans + [Plan("depth", f"{BLOCKS}/{name}", (name,), image) for name, image in depths.items()]


def _prepare(folder: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or see that it holds a cache of the same settings; from now on it is unfinished."""
    path = folder / SETTINGS
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a cache needs a folder: name another")
    if path.is_file():
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"{path}: is broken; remove {folder} and run the same command again") from error
        if found != settings:
            named = ", ".join(f"{key} {found.get(key)}" for key in settings if found.get(key) != settings[key])
            raise InputError(
                f"{folder} holds a cache of {named}; expected "
                + ", ".join(f"{key} {settings[key]}" for key in settings if found.get(key) != settings[key])
                + ": give the same, or name another folder"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no cache; expected a new or empty folder: name another")
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(path, settings)
    (folder / MANIFEST).unlink(missing_ok=True)


def _kept(folder: Path, source: Path, item: Plan, verify: bool) -> Block | None:
    """The block that is there already, with today's times of its files; None where it must be made."""
    block = _read_block(folder, item.array)
    array = folder / item.array
    if block is None or tuple(file.name for file in block.files) != item.names:
        return None
    if not array.is_file() or array.stat().st_size != block.nbytes:
        return None
    if verify and _digest(array.read_bytes()[HEADER:]) != block.checksum:
        return None
    if all(unchanged(source, file) for file in block.files):
        return block
    # copied or touched files have other times, and the same bytes
    found = tuple(_source(source, name) for name in item.names)
    if [file.hash for file in found] != [file.hash for file in block.files]:
        return None
    block = replace(block, files=found)
    _write_json(_beside(array), asdict(block))
    return block


def _expect_space(folder: Path, source: Path, missing: Iterable[Plan], size: int | None, depth: str) -> None:
    """Refuse a disk that is too small, before anything is written to it."""
    needed = 0
    for item in missing:
        height, width = fitted_size(image_size(source / item.partner), size)
        needed += height * width * (3 * len(item.names) if item.kind == "image" else np.dtype(depth).itemsize)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: the cache needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; expected room for all of it: "
            "free some space, name a folder on another disk, or give a smaller --size"
        )


def _build(folder: Path, source: Path, item: Plan, size: int | None, depth: str) -> None:
    """Decode the files of one block, write its array, then what it was made of."""
    frames = Frames(size, cache_mb=0)
    arrays, files = list[NDArray[Any]](), list[Source]()
    for name in item.names:
        pause()
        files.append(_source(source, name))
        if item.kind == "image":
            arrays.append(frames.image(source / name, partner=source / item.partner))
        else:
            arrays.append(_kept_depth(frames.depth(source / name, source / item.partner), depth))
        if not unchanged(source, files[-1]):
            raise InputError(f"{source / name}: was changed while it was read; wait until the set is whole, then run again")
    stacked = np.stack(arrays)
    path = folder / item.array
    path.parent.mkdir(parents=True, exist_ok=True)
    _beside(path).unlink(missing_ok=True)
    with atomic_write(path) as file:
        file.write(_header(stacked))
        file.write(stacked.data)
    original = image_size(source / item.partner)
    block = Block(item.array, stacked.shape, stacked.dtype.name, original, _digest(stacked.data), tuple(files))
    _write_json(_beside(path), asdict(block))


def _kept_depth(depth: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Depth as it is kept; 16 bits hold its share of the farthest, since its scale means nothing."""
    if dtype == "float32":
        return depth
    share = np.where(depth > 0, np.maximum(depth / depth.max(), np.float32(SMALLEST_FLOAT16)), np.float32(0))
    return share.astype(np.float16)


def _header(array: NDArray[Any]) -> bytes:
    """Numpy's header of an array file, so that `numpy.load` reads it too, of `HEADER` bytes."""
    text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    header = b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.encode().ljust(HEADER - 11) + b"\n"
    assert len(header) == HEADER  # four numbers of a shape leave room
    return header


def _source(root: Path, name: str) -> Source:
    path = root / name
    stat = path.stat()
    return Source(name, stat.st_size, stat.st_mtime_ns, _digest(path.read_bytes()))


def _read_block(folder: Path, array: str) -> Block | None:
    try:
        return Block.from_json(json.loads(_beside(folder / array).read_text()))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None  # absent or damaged: the array is made anew


def _remove_others(folder: Path, arrays: set[str]) -> None:
    """Remove what belongs to files that are gone from the set, and what a killed build left half-written."""
    wanted = {folder / array for array in arrays}
    for path in sorted((folder / BLOCKS).rglob("*"), reverse=True):
        if path.is_dir():
            if not os.listdir(path):
                path.rmdir()
        elif path not in wanted and path.with_suffix("") not in wanted:
            path.unlink()


def _beside(array: Path) -> Path:
    return array.with_name(f"{array.name}.json")


def _digest(data: bytes | memoryview) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(content) + "\n").encode())


def _again(source: Path, folder: Path, size: int | None) -> str:
    return f"go on with it by {build_command(source, folder, size)}"
