"""A trial at work: its process, which holds the sweep's lock, and the end of all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ltnet_pl import InputError
from ltnet_pl.files import locked
from ltnet_pl.processes import die_with_parent
from ltnet_pl.sweep.journal import Trial, standing

PATIENCE = 30.0
"""Seconds in which a trial that is to stop may write its checkpoint."""

EXIT = 1.0
"""Seconds for which a process that the system is clearing away may hold a lock, where it is seen no more."""

INTERRUPTS = {int(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)}
"""Signals that come from outside: what they end has not failed by itself, as far as one can see."""


@dataclass
class Sitting:
    """One process of a trial, from its start to its end.

    Args:
        trial: The trial.
        process: Its first process, which leads a group of its own.
        slot: The devices that it has.
        begun: When it began, by the monotonic clock.
        before: Seconds of earlier sittings.
        testing: Whether it tests the trial, which is finished.
        deadline: When it is killed, where early termination has asked it to stop.
    """

    trial: Trial
    process: subprocess.Popen[bytes]
    slot: str
    begun: float
    before: float = 0.0
    testing: bool = False
    deadline: float | None = None

    @property
    def hopeless(self) -> bool:
        """Whether early termination has asked it to stop."""
        return self.deadline is not None

    @property
    def seconds(self) -> float:
        """What the trial has taken in all its sittings."""
        return self.before + time.monotonic() - self.begun

    def give_up(self) -> None:
        """Ask it to stop, since it has no hope."""
        self.deadline = time.monotonic() + PATIENCE
        self.process.terminate()

    def kill(self) -> None:
        """End whatever is left of it: a first process may go before the ranks that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def begin(
    line: Sequence[str], trial: Trial, place: Path, slot: str, log: str, variables: Mapping[str, str], lock: IO[bytes]
) -> Sitting:
    """Start a process of a trial.

    Args:
        line: What it runs.
        trial: The trial.
        place: Its run folder, which is there.
        slot: Its devices, as CUDA_VISIBLE_DEVICES takes them.
        log: Name of the file in the run folder that its output is added to.
        variables: What its environment has beside or in place of this process's.
        lock: The sweep's lock.

    Raises:
        InputError: If the program cannot be started.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": slot, "WANDB_DIR": str(place.resolve()), **variables}
    for name in ("WANDB_SWEEP_ID", "LOCAL_RANK", "MASTER_PORT"):
        environment.pop(name, None)
    with open(place / log, "ab") as file:
        file.write(f"$ {' '.join(line)}\n".encode())
        file.flush()
        try:
            process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                # Ctrl-C is answered by the sweep; and a trial must not go on unseen where that is killed
                start_new_session=True,
                preexec_fn=die_with_parent,
                # until then it keeps the folder locked: it may write its checkpoint yet
                pass_fds=(lock.fileno(),),
            )
        except OSError as error:
            raise InputError(
                f"{line[0]}: cannot be started: {error.strerror}; expected the program of the sweep's command: correct it"
            ) from error
    return Sitting(trial, process, slot, time.monotonic())


def interrupted(code: int) -> bool:
    """Whether an exit status is that of a process that was ended from outside, also as a shell says it.

    Example:
        >>> interrupted(-9), interrupted(143), interrupted(1), interrupted(-11)
        (True, True, False, False)
    """
    return (-code if code < 0 else code - 128) in INTERRUPTS


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[IO[bytes]]:
    """The lock of a sweep's folder, which is there, where neither another sweep nor what one left behind works in it.

    Raises:
        InputError: If something does; processes of trials are named where the system tells (Linux).
    """
    deadline = time.monotonic() + EXIT
    with contextlib.ExitStack() as stack:
        while True:
            try:
                lock = stack.enter_context(locked(folder, "runs this sweep"))
                break
            except InputError as error:
                busy = _busy(folder)
                if busy is not None or time.monotonic() > deadline:
                    raise busy or error from error
                time.sleep(0.05)
        if busy := _busy(folder):
            raise busy
        yield lock


def _busy(folder: Path) -> InputError | None:
    """What to say of trials at work in a folder; None where none is seen."""
    found = at_work(folder)
    if not found:
        return None
    names = ", ".join(f"process {process} of trial {number}" for process, number in found.items())
    return InputError(
        f"{folder}: another process runs this sweep, or one was killed and its trials have not ended yet: {names}; wait for "
        "it or stop it, then run the same command again"
    )


def at_work(folder: Path) -> dict[int, int]:
    """Processes at work on a sweep's trials, ranks included, and the number of the trial of each; none where no system tells.

    Args:
        folder: The sweep's folder.
    """
    sessions = {trial.process: trial for trial in standing(folder / "journal.jsonl").values() if trial.process is not None}
    found = dict[int, int]()
    if not sessions or sys.platform != "linux":
        return found
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        # it may be gone by now, or be another user's
        with contextlib.suppress(OSError):
            state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            trial = sessions.get(int(session))
            if trial is None or state == "Z":
                continue
            # the number may have been given to another process since
            place = (folder / "trials" / trial.name).resolve()
            if f"WANDB_DIR={place}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = trial.number
    return found


def plain(code: int) -> str:
    """An exit status in words.

    Example:
        >>> plain(-9), plain(137), plain(1)
        ('SIGKILL', 'SIGKILL', 'exit status 1')
    """
    number = -code if code < 0 else code - 128
    return signal.Signals(number).name if number in {int(known) for known in signal.Signals} else f"exit status {code}"


def tidy(sittings: Sequence[Sitting]) -> None:
    """Have processes write their checkpoints and end; kill what does not within the patience."""
    for sitting in sittings:
        sitting.process.terminate()
    deadline = time.monotonic() + PATIENCE
    for sitting in sittings:
        with contextlib.suppress(subprocess.TimeoutExpired):
            sitting.process.wait(max(deadline - time.monotonic(), 0.1))
        sitting.kill()
        sitting.process.wait()
