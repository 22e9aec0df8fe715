"""The cache command: decode and resize a set once, into arrays that training maps from disk."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ltnet_pl import InputError
from ltnet_pl.data.cached import (
    BLOCKS,
    FORMAT,
    HEADER,
    MANIFEST,
    SETTINGS,
    Block,
    Source,
    build_command,
    other_format,
    unchanged,
)
from ltnet_pl.data.frames import Frames, fitted_size
from ltnet_pl.files import atomic_write, locked
from ltnet_pl.processes import cores, in_processes, pause
from ltnet_pl.vidit import every_view, image_size

SMALLEST_FLOAT16 = 2.0**-14
"""Share of the farthest below which 16 bits lose precision; what is closer is kept at it."""


NAMED = 20
"""Files that are named where a set lacks some."""


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
    files whose bytes changed are read into frames again. What most scenes have and some lack is named at the end.

    Args:
        data: Folder of the set, in any of VIDIT's layouts.
        out: Folder of the cache; new, empty, or a cache of the same settings.
        size: Resize all frames so that the shorter side has this many pixels, as --data.size does; by default the files' size.
        depth: How depth is kept: float32 as it is, or float16, half the bytes, whose scale is 1 at the farthest point. Its
            relative error of 0.0005 roughens normals; what is closer than 1/16384 of the farthest is put there.
        workers: Number of processes; by default one for each available core.
        verify: Also read every array and every file of the set and compare their checksums, whatever their times say; what is
            damaged or was changed is made anew.

    Raises:
        InputError: If an argument is out of range, a file of the set is broken, the folder holds something else or is being
            written by another process, or the disk is too small.
    """
    for flag, value, least in (("size", size, 8), ("workers", workers, 1)):
        if value is not None and value < least:
            raise InputError(f"--{flag} {value}: expected {least} or more; raise it")
    source, folder, console = Path(data).resolve(), Path(out), Console()
    plans = plan(source)
    settings = {"format": FORMAT, "size": size, "depth": depth, "source": str(source)}
    _prepare(folder, settings)
    with locked(folder, "builds this cache"):
        # what times say of files elsewhere says nothing of these
        moved = _begin(folder, settings)
        _update(source, folder, plans, settings, workers or cores(), verify or moved, console)
    if lacking := gaps(source):
        more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
        what = f"{source} has no {', '.join(lacking[:NAMED])}{more}, which most of its scenes have; look whether all has arrived"
        console.print(what, soft_wrap=True, highlight=False)
    console.print(f"train with --data.cache {folder}" + ("" if size is None else f" --data.size {size}"), soft_wrap=True)


def _update(
    source: Path, folder: Path, plans: list[Plan], settings: dict[str, Any], workers: int, verify: bool, console: Console
) -> None:
    """Make what is missing or stale, remove what belongs to nothing, and write the manifest."""
    size, depth = settings["size"], settings["depth"]
    again = f"go on with it by {build_command(source, folder, size, depth)}"
    kept = {item.array: block for item in plans if (block := _kept(folder, source, item, verify)) is not None}
    missing = [item for item in plans if item.array not in kept]
    if kept:
        console.print(f"{len(kept)} of {len(plans)} arrays are up to date")
    _expect_space(folder, source, missing, size, depth)
    if missing:
        (folder / MANIFEST).unlink(missing_ok=True)
    begin = time.perf_counter()
    died = f"a process died, most likely out of memory; expected it to live; try fewer --workers; {again}"
    try:
        calls = [(folder, source, item, size, depth) for item in missing]
        in_processes(_build, calls, workers, "caching", "arrays", console, died, apart=False)
    except KeyboardInterrupt:
        console.print(f"stopped; every array in {folder} is whole; {again}", soft_wrap=True)
        raise SystemExit(130) from None
    blocks = list[Block]()
    for item in plans:
        block = kept.get(item.array) or _read_block(folder, item.array)
        if block is None:
            raise InputError(f"{folder / item.array}: vanished while the cache was built; expected it to stay: {again}")
        blocks.append(block)
    _write_json(folder / SETTINGS, settings)
    _write_json(folder / MANIFEST, settings | {"blocks": [asdict(block) for block in blocks]})
    _remove_others(folder, {item.array for item in plans})
    frames, nbytes = sum(len(item.names) for item in plans), sum(block.nbytes for block in blocks)
    seconds = time.perf_counter() - begin
    console.print(f"{frames} frames in {len(plans)} arrays, {nbytes / 1e6:.1f} MB, in {seconds:.1f} s")


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


def gaps(source: Path) -> list[str]:
    """Files that a set lacks, by what most of its scenes have: images by folder and light, depth by folder; as paths below it.

    Args:
        source: Folder of the set, in any of VIDIT's layouts.
    """
    scenes: dict[str, dict[Path, Path]] = {}
    for view in every_view(source):
        held = scenes.setdefault(view.scene, {})
        for path in (view.image, view.depth):
            if path is not None:
                # as it would be called in a scene without a name
                name = path.relative_to(source)
                held[name.with_name(name.name.removeprefix(view.scene))] = name
    counts = Counter(part for held in scenes.values() for part in held)
    usual = [part for part, count in counts.items() if 2 * count > len(scenes)]
    lacking = [part.with_name(f"{scene}{part.name}") for scene, held in scenes.items() for part in usual if part not in held]
    return sorted(part.as_posix() for part in lacking)


def _prepare(folder: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or see that it may become, or is, a cache of these settings.

    Raises:
        InputError: If it is none, of other settings, or of another set that is still there.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a cache needs a folder: name another")
    found = _read_settings(folder)
    if found is None:
        if folder.exists() and any(path.name != "lock" for path in folder.iterdir()):
            raise InputError(f"{folder} is not empty and holds no cache; expected a new or empty folder: name another")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make the folder {folder}: {error.strerror}; expected a place that can be written to: name another"
            ) from error
        return
    if found.get("format") != FORMAT:
        raise other_format(folder, found.get("format"))
    for key, plain in (("size", None), ("depth", "float32")):
        had, want = found.get(key), settings[key]
        if had != want:
            remedy = f"leave --{key} out" if had == plain else f"give --{key} {had}"
            said = f"without --{key}" if had == plain else f"with --{key} {had}"
            raise InputError(
                f"--{key} {want}: {folder} holds a cache that was made {said}; expected the same: {remedy}, or name another "
                "folder"
            )
    other = Path(str(found.get("source")))
    if str(other) != settings["source"] and other.exists():
        raise InputError(
            f"{folder} holds a cache of {other}; expected one of {settings['source']}, or of a set that was moved: name another "
            "folder, or remove this one"
        )


def _begin(folder: Path, settings: dict[str, Any]) -> bool:
    """Note the settings of a new cache; True where it was made of another folder, which it names until all is compared."""
    found = _read_settings(folder)
    if found is None:
        _write_json(folder / SETTINGS, settings)
    elif found != settings:
        (folder / MANIFEST).unlink(missing_ok=True)
        return True
    return False


def _read_settings(folder: Path) -> dict[str, Any] | None:
    path = folder / SETTINGS
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path}: is broken; expected settings of a cache: remove {folder} and run the same command again")
    return found


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
    if not verify and all(unchanged(source, file) for file in block.files):
        return block
    # copied or touched files have other times, and the same bytes
    found = tuple(_source(source, name) for name in item.names)
    if [file.hash for file in found] != [file.hash for file in block.files]:
        return None
    if found != block.files:
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
