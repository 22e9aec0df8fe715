"""Trains rows: each in a process of its own, resumable, its output in a log."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from ltnet_pl import InputError
from ltnet_pl.bench.configs import config_hash, read_config
from ltnet_pl.bench.hashes import code_hash
from ltnet_pl.files import atomic_write, locked
from ltnet_pl.processes import quoted, tail

MARK = "bench.json"


@dataclass
class Mark:
    """What a run folder of the benchmark says of itself.

    Args:
        config: Hash of its configuration.
        data: Hash of its data.
        code: Hash of the code that trained it.
        seconds: Wall time of training, over all sittings, without what was lost between checkpoints.
        threads: Threads of the training process.
        begun: When the last sitting began, in seconds of the epoch.
        finished: Whether it is trained to the end.
    """

    config: str
    data: str
    code: str
    seconds: float
    threads: int
    begun: float
    finished: bool

    def of(self, config: str, data: str, code: str) -> bool:
        """Whether the run can be gone on with, or scored: it has this configuration, data and code."""
        return (self.config, self.data, self.code) == (config, data, code)


def read_mark(run: Path) -> Mark | None:
    """The mark of a run folder; None where it has none."""
    try:
        return Mark(**json.loads((run / MARK).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise InputError(f"{run / MARK}: {error}; expected what bench wrote: delete the folder {run}") from error


def write_mark(run: Path, mark: Mark) -> None:
    """Write the mark of a run folder, whole or not at all."""
    with atomic_write(run / MARK) as file:
        file.write((json.dumps(asdict(mark), indent=1) + "\n").encode())


def trained(run: Path, config: str, data: str, code: str) -> bool:
    """Whether a run is trained to its end, by this configuration, data and code."""
    mark = read_mark(run)
    return mark is not None and mark.finished and mark.of(config, data, code) and checkpoint(run).is_file()


def checkpoint(run: Path) -> Path:
    """The final weights of a run: a budget is a budget, so no validation chooses among earlier ones."""
    return run / "checkpoints" / "last.ckpt"


class Trainer:
    """Runs `fit` in child processes, and ends them all where it is told to.

    Args:
        threads: Threads of each child.
        code: Hash of the code that this process runs by; a child that would run by other code is not started.
    """

    def __init__(self, threads: int, code: str) -> None:
        self.threads, self.code = threads, code
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def fit(self, run: Path, flags: Sequence[str], config: str, data: str) -> None:
        """Train one run to its end, from its last checkpoint where it has one.

        A run folder of another configuration, data or code is emptied first.

        Args:
            run: Its folder.
            flags: Flags of `fit`, without run folder and checkpoint.
            config: Hash of the configuration that these flags resolve to.
            data: Hash of the data.

        Raises:
            InputError: If another process trains it, the folder is none of the benchmark's, or training fails; with the end of
                its log.
        """
        self._check_code()
        run.mkdir(parents=True, exist_ok=True)
        with locked(run, "trains it") as lock:
            mark = self._prepare(run, Mark(config, data, self.code, 0.0, self.threads, time.time(), False))
            self._train(run, flags, lock, mark.threads)
            found = config_hash(read_config(run / "config.yaml"))
            if found != config:
                raise InputError(
                    f"{run}: was trained with a configuration of hash {found}; expected {config}: leave its config files as they "
                    "are while it trains, and run the command again"
                )
            mark.seconds += time.time() - mark.begun
            mark.finished = True
            write_mark(run, mark)

    def attempt(self, run: Path, flags: Sequence[str]) -> None:
        """Run `fit` once, in a folder that holds nothing yet and gets no mark.

        Args:
            run: The folder.
            flags: Flags of `fit`, without run folder and checkpoint.

        Raises:
            InputError: If training fails; with the end of its log.
        """
        self._check_code()
        with locked(run, "trains it") as lock:
            self._train(run, flags, lock, self.threads)

    def _check_code(self) -> None:
        if code_hash() != self.code:
            raise InputError("the package's code was changed since this command began; run it again, on code that stays")

    def _train(self, run: Path, flags: Sequence[str], lock: IO[bytes], threads: int) -> None:
        code = self._child(run, flags, lock, threads)
        if code != 0:
            log = run / "fit.log"
            end = quoted(tail(log.read_text(encoding="utf-8", errors="replace")))
            raise InputError(f"training failed with exit status {code}; the end of {log}:\n{end}")

    def _prepare(self, run: Path, wanted: Mark) -> Mark:
        """The run's mark for this sitting, the folder emptied where what it holds cannot be gone on with."""
        before = read_mark(run)
        if before is None:
            others = [path.name for path in run.iterdir() if path.name not in ("lock", "fit.log")]
            if others:
                raise InputError(f"{run}: holds {others[0]}, which bench did not write; move it, or name another --runs")
        elif before.of(wanted.config, wanted.data, wanted.code):
            if checkpoint(run).is_file():
                # another number of threads adds in another order
                wanted.threads = before.threads
                wanted.seconds = before.seconds + max(checkpoint(run).stat().st_mtime - before.begun, 0.0)
        else:
            print(f"{run}: holds a run of another configuration, data or code; it starts afresh", flush=True)
            for path in run.iterdir():
                if path.name != "lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_mark(run, wanted)
        return wanted

    def _child(self, run: Path, flags: Sequence[str], lock: IO[bytes], threads: int) -> int:
        command = [sys.executable, "-m", "ltnet_pl", "fit", *flags, f"--trainer.default_root_dir={run}", "--ckpt_path=last"]
        count = str(threads)
        variables = {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count}
        with open(run / "fit.log", "ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            with self._lock:
                if self._stopped:
                    raise InputError("stopped")
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **variables},
                    # Ctrl-C is answered here, and passed on by `stop`
                    start_new_session=True,
                    # where this process is killed, the child keeps the folder locked until it ends
                    pass_fds=(lock.fileno(),),
                )
                self._children.add(child)
            try:
                return child.wait()
            finally:
                with self._lock:
                    self._children.discard(child)

    def stop(self) -> None:
        """End all children, and start no more."""
        with self._lock:
            self._stopped = True
            children = list(self._children)
        for child in children:
            child.terminate()
        deadline = time.monotonic() + 10
        for child in children:
            try:
                child.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                child.kill()


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does, children included."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, interrupt) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
