"""Work on many files in processes of their own, with progress, which Ctrl-C ends at once and nothing outlives."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ltnet_pl import InputError

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG

_stop: Event | None = None


class Stopped(Exception):
    """The main process asked its workers to stop."""


def die_with_parent() -> None:
    """Have the system send this process SIGTERM when its parent dies, where it can (Linux); for ``preexec_fn``."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)


def tail(log: str, lines: int = 15) -> str:
    """The end of a log."""
    return "\n".join(log.splitlines()[-lines:])


def quoted(text: str) -> str:
    """Another process's lines, as messages show them."""
    return "\n".join(f"  | {line}" for line in text.splitlines())


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def in_processes(
    function: Callable[..., None],
    calls: Sequence[tuple[Any, ...]],
    workers: int,
    doing: str,
    unit: str,
    console: Console,
    died: str,
    apart: bool = True,
) -> None:
    """Call a function once for each tuple of arguments, in processes that are started afresh.

    Args:
        function: Importable by name; it may call `pause` where it can stop.
        calls: Its arguments.
        workers: Number of processes.
        doing: What is done, for the progress bar.
        unit: What is counted there.
        console: Where progress is shown.
        died: The message where a process dies.
        apart: Whether even a single worker is a process of its own, for what may take its process down; else it is this one.

    Raises:
        InputError: If a process dies; and what the function raises, once the others have stopped.
    """
    if not calls:
        return
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    if min(workers, len(calls)) == 1 and not apart:
        with Progress(*columns, console=console) as progress:
            for arguments in progress.track(calls, description=doing):
                function(*arguments)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with (
        Progress(*columns, console=console) as progress,
        ProcessPoolExecutor(min(workers, len(calls)), mp_context=context, initializer=_begin, initargs=(stop,)) as pool,
    ):
        task = progress.add_task(doing, total=len(calls))
        try:
            futures = [pool.submit(function, *arguments) for arguments in calls]
            for future in as_completed(futures):
                future.result()
                progress.advance(task)
        except BrokenProcessPool as error:
            raise InputError(died) from error
        finally:
            # after the last call this changes nothing; after an error or Ctrl-C the workers end within one call
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def pause() -> None:
    """Raise `Stopped` in a worker that is asked to stop; elsewhere nothing."""
    if _stop is not None and _stop.is_set():
        raise Stopped


def _begin(stop: Event) -> None:
    """Prepare a worker: the main process alone answers Ctrl-C, and no worker outlives it."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
