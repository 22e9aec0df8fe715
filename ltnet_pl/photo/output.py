"""Where results go: nothing is replaced unasked, and a wrong place is named before any work is done for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ltnet_pl import InputError
from ltnet_pl.files import atomic_write


def check_output(path: Path, suffixes: Sequence[str], overwrite: bool = False) -> None:
    """Refuse a file that could not be written, for instance before a result is computed for it.

    Args:
        path: The file that is to be written.
        suffixes: What its name may end in, in lower case; upper case is taken for the same.
        overwrite: Whether a file that is there may be replaced.

    Raises:
        InputError: If the suffix is another one, the file exists and may not be replaced, it is a folder, or its folder is
            missing or may not be written.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise InputError(
            f"{path}: ends in {path.suffix or 'no suffix'}; expected {', '.join(suffixes)}: the suffix says what is written, so "
            "give the file one of them"
        )
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; expected the name of a file to write: add one")
        if path.exists() and not overwrite:
            raise InputError(f"{path}: exists already; expected a new file: give another name, or --overwrite to replace it")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            why = "may not be written" if path.parent.is_dir() else "does not exist"
            raise InputError(f"{path}: its folder {path.parent} {why}; expected one that may be: create it or name another")
    except OSError as error:  # for instance a name that is too long
        raise _unwritable(path, error) from error


def store(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, over one that is there.

    Args:
        path: The file, as it passed `check_output`.
        data: Its content.

    Raises:
        InputError: If it cannot be written.
    """
    try:
        with atomic_write(Path(path)) as file:
            file.write(data)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be written ({error.strerror}); expected a place with room that may be written: name another"
    )
