"""The frame of runs: its columns, how it is stored, and what of it varies."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltnet_pl import InputError
from ltnet_pl.files import atomic_write

if TYPE_CHECKING:
    import pandas as pd

ABOUT = ("run", "folder", "status", "row", "tested", "net", "seed", "steps", "seconds", "parameters")
"""What a frame says of a run before its configuration."""

NUMBERS = ("best/", "last/", "test/")
"""How columns of numbers begin; all others but `ABOUT` are the configuration."""


def needed(library: str) -> Any:
    """A library of the extra ``notebooks``, imported when it is first needed.

    Raises:
        InputError: If it is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise InputError(
            f"ltnet_pl.results needs {library}, which is not installed; install the extra: pip install 'ltnet_pl[notebooks]', "
            "or in a clone pip install -e '.[notebooks]'"
        ) from error


def frame_of(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Records as a frame: one type per column, `ABOUT` first, then the configuration, then the numbers.

    Args:
        records: One per run; values are text, numbers, truth values or None.

    Returns:
        A column of truth values, whole numbers, numbers or text for each key. Where the values of a key are of several kinds,
        such as 2 and "auto", all become text, as on the command line.
    """
    keys = dict.fromkeys(key for record in records for key in record)
    config = [key for key in keys if not is_number(key) and key not in ABOUT]
    ordered = [*ABOUT, *config, *(key for start in NUMBERS for key in keys if key.startswith(start))]
    frame: pd.DataFrame = needed("pandas").DataFrame(
        {key: _column([record.get(key) for record in records], key) for key in ordered}
    )
    return frame


def _column(values: list[Any], key: str) -> Any:
    pd = needed("pandas")
    known = [value for value in values if value is not None]
    if is_number(key):
        return pd.Series([math.nan if value is None else float(value) for value in values], dtype="float64")
    if known and all(isinstance(value, bool) for value in known):
        return pd.Series(values, dtype="bool" if len(known) == len(values) else "boolean")
    if known and all(isinstance(value, int) and not isinstance(value, bool) for value in known):
        return pd.Series(values, dtype="int64" if len(known) == len(values) else "Int64")
    if known and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        return pd.Series([math.nan if value is None else float(value) for value in values], dtype="float64")
    return pd.Series([None if value is None else said(value) for value in values], dtype="str" if known else "object")


def said(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_number(key: Hashable) -> bool:
    """Whether a column holds numbers that a run or its test found."""
    return isinstance(key, str) and key.startswith(NUMBERS)


def is_config(key: Hashable) -> bool:
    """Whether a column is part of the configuration."""
    return not is_number(key) and key not in ABOUT


def varying(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame without the configuration that is the same in every run, or that only repeats something else.

    Left out are also columns that only follow the seed (``seed_everything``), and folders that are named after the run.

    Args:
        frame: What `collect` returned, or some rows of it.
    """
    seeds, roots = frame.get("seed"), frame.get("trainer.default_root_dir")

    def told(key: Hashable) -> bool:
        column = frame[key]
        if len(column.drop_duplicates()) < 2:
            return False
        if seeds is not None and seeds.notna().all() and column.notna().all() and list(column) == list(seeds):
            return False
        return roots is None or not all(str(value).startswith(str(root)) for value, root in zip(column, roots, strict=True))

    return frame[[key for key in frame.columns if not is_config(key) or told(key)]]


def expect_columns(frame: pd.DataFrame, keys: Iterable[str], flag: str) -> None:
    """Refuse columns that a frame lacks, or that are empty in every row.

    Raises:
        InputError: With the column, and the columns of that kind that there are.
    """
    for key in keys:
        if key in frame and (frame[key].notna().any() or not is_number(key)):
            continue
        there = [str(name) for name in frame.columns if is_number(name) == is_number(key) and frame[name].notna().any()]
        close = difflib.get_close_matches(key, there, n=3, cutoff=0.5)
        # the whole configuration has some hundred columns
        shown = there if is_number(key) or len(there) <= 40 else [str(name) for name in varying(frame).columns if name in there]
        what = "no run logs" if is_number(key) or "/" in key else "no run has"
        raise InputError(
            f"{flag} {key!r}: {what} {key}; there are {', '.join(shown) or 'none'}"
            + (f"; did you mean {' or '.join(close)}?" if close else ": choose one of these")
        )


def save(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a frame as a parquet file, which appears under its name only once it is whole.

    Args:
        frame: What `collect` or `curves` returned.
        path: The file; its folder must exist.

    Raises:
        InputError: If the folder is missing, or the extra ``notebooks`` is.
    """
    needed("pyarrow")
    with atomic_write(Path(path)) as file:
        frame.to_parquet(file, index=False)


def load(path: str | Path) -> pd.DataFrame:
    """Read what `save` wrote, with the same columns of the same types.

    Args:
        path: The file.

    Raises:
        InputError: If the file is missing or no parquet file, or the extra ``notebooks`` is missing.
    """
    library, arrow = needed("pandas"), needed("pyarrow")
    try:
        frame: pd.DataFrame = library.read_parquet(Path(path))
    except FileNotFoundError as error:
        raise InputError(
            f"{path} does not exist; expected a parquet file that results.save wrote: collect and save it"
        ) from error
    except (arrow.ArrowException, OSError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected a parquet file that results.save wrote: save it again"
        ) from error
    return frame
