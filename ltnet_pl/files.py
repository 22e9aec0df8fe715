"""Files that appear under their name only once they are whole, and what the writers and readers of results agree on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from ltnet_pl import InputError

CONFIG, METRICS, SUMMARY = "config.yaml", "metrics.jsonl", "summary.json"
"""How a run was configured, what it logged line by line, and how it stands."""

TILES = ("input", "depth", "guide", "relit", "target", "error")
"""What a panel shows, left to right."""

LIGHT_COLUMNS = tuple(
    f"{which}_{what}{suffix}"
    for which, suffix in (("input", ""), ("target", ""), ("input", "_pred"), ("guide", "_pred"))
    for what in ("azimuth", "temperature")
)
"""Columns of ``per_image.csv`` that hold true and read lights, in their order."""


def better(metric: str) -> Literal["max", "min"] | None:
    """Which value of a metric, or of a part of the loss, is the better one; None where that is not known.

    Args:
        metric: Its name, without the stage that it belongs to.

    Example:
        >>> better("psnr_45"), better("guide_direction_accuracy"), better("ssim_loss"), better("steps")
        ('max', 'max', 'min', None)
    """
    if metric.startswith("lpips") or metric.endswith(("error", "loss")):
        return "min"
    return "max" if metric.startswith(("psnr", "ssim", "mps")) or metric.endswith("accuracy") else None


@contextmanager
def locked(folder: Path, busy: str) -> Iterator[IO[bytes]]:
    """A folder's lock, held as long as this process or a child that inherits the file lives.

    Args:
        folder: Gets the file ``lock``.
        busy: What another process that holds it is doing, for the message.

    Raises:
        InputError: If another process holds it.
    """
    import fcntl  # here, since not every system has it

    with open(folder / "lock", "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another process {busy}; wait for it or stop it, then run the same command again"
            ) from error
        yield lock


@contextmanager
def atomic_write(path: Path, partial: Path | None = None) -> Iterator[IO[bytes]]:
    """A binary file that appears under its name only when it was written whole.

    The bytes go to a hidden neighbour first, which replaces `path` at the end and is removed when anything goes wrong.

    Args:
        path: File to write; its folder must exist.
        partial: Where the bytes go first, on the same file system; None: a hidden neighbour.

    Raises:
        InputError: If the folder is missing.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: its folder {path.parent} does not exist; create it first")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial") if partial is None else partial
    try:
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, path)
    except BaseException:  # Ctrl-C too must leave nothing behind
        partial.unlink(missing_ok=True)
        raise


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``; none where there is none. A last line that a kill cut short is left out.

    Args:
        path: The file.
    """
    lines = []
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict) and isinstance(content.get("step"), int):
            lines.append(content)
    return lines
