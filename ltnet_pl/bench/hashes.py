"""What a result depends on, as hashes: data, code; and the machine that it came from."""

from __future__ import annotations

import ast
import platform
from collections.abc import Iterable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from threading import Lock

import torch

from ltnet_pl.processes import cores
from ltnet_pl.vidit import Pair, find_settings

ROOMS = (
    "nets",
    "geometry",
    "losses",
    "data",
    "vidit",
    "callbacks",
    "augment",
    "tasks",
    "light",
    "metrics",
    "lpips",
    "bench/scoring",
)
"""Rooms whose code makes the numbers."""


_PARSING = Lock()
"""Python 3.11 may fail where two threads parse at once."""


@cache
def files_hash(root: Path) -> str:
    """Hash of a set's images, depths, and scene files (camera and rig), names and bytes, 16 hexadecimal digits.

    Read once per process: some 150 MB take a fraction of a second.

    Raises:
        InputError: If the folder is no any-to-any set.
    """
    paths = set()
    for scene, views in find_settings(root).items():
        paths |= {path for view in views.values() for path in (view.image, view.depth) if path is not None}
        paths |= {path for path in (root / "scenes" / scene / "scene.json",) if path.exists()}
    digest = blake2b(digest_size=8)
    for path in sorted(paths):
        digest.update(f"{path.relative_to(root).as_posix()}:{path.stat().st_size}:".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def data_hash(root: Path, lists: Iterable[list[Pair]]) -> str:
    """Hash of a set and of the pair lists that are scored.

    Args:
        root: Folder of the set.
        lists: Pair lists, in an order that is always the same.
    """
    digest = blake2b(files_hash(root).encode(), digest_size=8)
    for pairs in lists:
        for pair in pairs:
            digest.update(f"{pair.name}<{'' if pair.guide is None else pair.guide.scene}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()


def code_hash() -> str:
    """Hash of the code that makes the numbers as it lies on disk now, free of comments, docstrings and layout."""
    package = Path(__file__).resolve().parent.parent
    digest = blake2b(digest_size=8)
    for room in ROOMS:
        files = sorted((package / room).glob("*.py")) if (package / room).is_dir() else [package / f"{room}.py"]
        for file in files:
            digest.update(f"{file.relative_to(package).as_posix()}\n{bare(file.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()


def bare(source: str) -> str:
    r"""Python source without comments, docstrings and layout.

    Example:
        >>> bare('def f():  # why\n    "What."\n    return (1)')
        'def f():\n    return 1'
    """
    with _PARSING:
        tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # a bare constant does nothing, wherever it stands: docstrings of attributes follow their assignment
            kept = [part for part in body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]  # ast.AST has no body, but getattr found one
    return ast.unparse(tree)


def machine(gpu: bool = False) -> str:
    """Kind of this machine, without its name: ``2 cores, AMD EPYC 7B13``, and its GPU where one is used."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    parts = [f"{cores()} core{'s' if cores() > 1 else ''}", model]
    return ", ".join([*parts, *([torch.cuda.get_device_name()] if gpu else [])])
