"""The folder of uploads and results: what was not used for longest goes, so that it keeps within a size."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SPARE = 1 / 8
"""Share of the folder's size that is free once it was tidied, so that it is not tidied for every preview."""


class Files:
    """A folder that others write into as well, kept within a size; threads may share it.

    Gradio puts uploads there, and every picture that the page shows; what is about to be shown is announced by `expect`. Uploads
    are not: they may exceed the size until the next `tidy`.

    Args:
        folder: The folder; it need not be there yet.
        disk_mb: Its size in MiB.
    """

    def __init__(self, folder: Path, disk_mb: float) -> None:
        self.folder, self.size = folder, int(disk_mb * 2**20)
        self._room = 0  # bytes that may come until it is tidied
        self._lock = threading.Lock()

    def new(self, stem: str, what: str, suffix: str) -> Path:
        """A path of its own for a result, whose last part is what a visitor saves it as."""
        folder = self.folder / f"result_{secrets.token_hex(12)}"
        folder.mkdir(parents=True)
        return folder / f"{stem[:60]}_{what[:60]}{suffix}"

    def used(self, path: Path) -> bool:
        """Whether a file is still there; if so, one of this folder counts as used just now."""
        with self._lock:
            if path.is_file() and path.resolve().is_relative_to(self.folder):
                os.utime(path)
            return path.is_file()

    def expect(self, size: int) -> None:
        """Make room for what is about to be written.

        Args:
            size: Its bytes, or more.
        """
        with self._lock:
            if self._room < size:
                self._tidy()
            self._room -= size

    def tidy(self) -> None:
        """Remove the files that were not used for longest, until the rest leaves room; the newest stays, however large."""
        with self._lock:
            self._tidy()

    def _tidy(self) -> None:
        files = sorted(self._found())
        total = sum(size for _, size, _ in files)
        for used, size, path in files[:-1]:
            if total <= self.size * (1 - SPARE):
                break
            # whoever else removes files, or writes one anew meanwhile, is no error
            with suppress(OSError):
                if path.stat().st_mtime_ns == used:
                    path.unlink()
                    total -= size
                    path.parent.rmdir()  # which Gradio makes for each file; refused where another is in it
        self._room = self.size - total

    def _found(self) -> Iterator[tuple[int, int, Path]]:
        """When each file was used last (in nanoseconds), its bytes, and the file."""
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    known = path.stat()
                    yield known.st_mtime_ns, known.st_size, path
