"""The journal of a sweep: what was begun and how it ended, one line each, so that a sweep goes on after any kill."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ltnet_pl import InputError
from ltnet_pl.sweep.plan import Parameters, Sweep

ENDS = ("finished", "stopped", "failed")
"""How a trial may end; stopped is by early termination."""


@dataclass
class Trial:
    """One trial.

    Args:
        number: Which one, from 0.
        parameters: Its flags.
        status: queued, running, finished, stopped or failed.
        code: Exit status, where it ended.
        value: The best value of the sweep's metric, where it has one.
        finite: Whether the metric was ever finite, where it was logged.
        step: Steps that it did.
        seconds: What it took, over all its sittings.
        tail: The end of its log, where it or its test failed.
        tested: How its test ended, finished or failed; None where it has had none.
        process: Its first process, while it or its test runs.
        interrupts: How often it was ended from outside while the sweep went on.
    """

    number: int
    parameters: Parameters
    status: str = "queued"
    code: int | None = None
    value: float | None = None
    step: int | None = None
    seconds: float | None = None
    tail: str | None = None
    finite: bool = True
    tested: str | None = None
    process: int | None = None
    interrupts: int = 0

    @property
    def ended(self) -> bool:
        """Whether it needs no more work."""
        return self.status in ENDS

    @property
    def name(self) -> str:
        """Of its run folder."""
        return f"{self.number:04d}"


class Journal:
    """Reads and extends the journal of a sweep.

    Args:
        folder: The sweep's folder; made where it is missing.
        sweep: Its YAML.
        seed: Seed of its draws.

    Raises:
        InputError: If the folder's journal is of another sweep or seed, or broken.
    """

    def __init__(self, folder: Path, sweep: Sweep, seed: int) -> None:
        self.folder, self.path = folder, folder / "journal.jsonl"
        self.trials: dict[int, Trial] = {}
        head = {"sweep": sweep.hash, "seed": seed, "file": sweep.path.name, "begun": time.time()}
        lines = self._lines()
        if not lines:
            if folder.is_dir() and any(folder.glob("trials/*")):
                raise InputError(f"{folder} holds trials without a journal; expected both or none: name another --out")
            (folder / "trials").mkdir(parents=True, exist_ok=True)
            self._append(head)
        found = lines[0] if lines else head
        # with the time of its beginning, or the same sweep in two folders would share its W&B runs
        self.identity = blake2b(json.dumps(found, sort_keys=True).encode(), digest_size=5).hexdigest()
        if found.get("sweep") != head["sweep"]:
            raise InputError(
                f"{folder} holds the journal of another sweep ({found.get('file')}, {found.get('sweep')}); expected that of "
                f"{sweep.path} ({head['sweep']}): name another --out, or put the YAML back as it was"
            )
        if found.get("seed") != seed:
            raise InputError(f"--seed {seed}: {folder} was begun with --seed {found.get('seed')}; expected the same: give it")
        for line in lines[1:]:
            trial = Trial(**line)
            self.trials[trial.number] = trial

    def run_id(self, trial: Trial) -> str:
        """The id of a trial's W&B run, the same in each of its sittings."""
        return f"{self.identity}-{trial.name}"

    def _lines(self) -> list[dict[str, Any]]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        lines = []
        whole, _, rest = text.rpartition("\n")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                lines.append(json.loads(line))
            except ValueError as error:
                raise InputError(
                    f"{self.path}: line {number} is broken; expected JSON: remove it, or name another --out"
                ) from error
        if rest:
            # cut short by a kill: its trial is taken as it was before
            os.truncate(self.path, len(text.encode()) - len(rest.encode()))
        return lines

    def _append(self, line: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def note(self, trial: Trial) -> None:
        """Write down how a trial stands now."""
        self.trials[trial.number] = trial
        self._append(asdict(trial))

    def forgive(self, tests: bool) -> None:
        """Put failed trials back among those that are to run, and failed tests too where there are to be tests."""
        for trial in self.ordered:
            if trial.status == "failed":
                self.note(replace(trial, status="queued", code=None, tail=None, interrupts=0))
            elif tests and trial.tested == "failed":
                self.note(replace(trial, tested=None, tail=None, interrupts=0))

    @property
    def ordered(self) -> list[Trial]:
        """All trials so far, by number."""
        return sorted(self.trials.values(), key=lambda trial: trial.number)

    def place(self, trial: Trial) -> Path:
        """The run folder of a trial."""
        return self.folder / "trials" / trial.name


def standing(path: Path) -> dict[int, Trial]:
    """How the trials of a journal stand, by number, while another process may write it; none where there is no journal.

    Args:
        path: The journal, which is left as it is.
    """
    trials = dict[int, Trial]()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            # cut short, or of another version
            with contextlib.suppress(ValueError, TypeError):
                trial = Trial(**json.loads(line))
                trials[trial.number] = trial
    return trials
