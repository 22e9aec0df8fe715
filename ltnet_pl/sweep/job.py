"""The sweep command: trials on slots of devices, written down as they begin and end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ltnet_pl import InputError
from ltnet_pl.files import METRICS, read_lines
from ltnet_pl.processes import quoted, tail
from ltnet_pl.sweep.checks import check_trials
from ltnet_pl.sweep.journal import Journal, Trial
from ltnet_pl.sweep.plan import Sweep, expand, flags_of, read_sweep, test_line
from ltnet_pl.sweep.search import Search, values_of
from ltnet_pl.sweep.sitting import Sitting, alone, begin, interrupted, plain, tidy
from ltnet_pl.sweep.slots import parse_slots
from ltnet_pl.sweep.tables import progress, ranking, score, words

LOG, TEST_LOG = "trial.log", "test.log"
"""What a trial says, and what its test says, in its run folder."""

TRIES = 3
"""Sittings after which a trial that is ended from outside again and again, as by a system without memory, has failed."""


def sweep(
    file: str,
    out: str | None = None,
    slots: str | None = None,
    count: int | None = None,
    seed: int = 0,
    every: float = 2.0,
    retry: bool = False,
    test: bool = False,
) -> None:
    """Run the trials of a sweep on this machine; the YAML is the one that `wandb sweep` takes, and no server is needed.

    Each trial is a run folder below OUT/trials. The same command goes on after any kill: what ended is not run again, what was
    interrupted goes on from its last checkpoint. W&B, where a configuration logs to it, is offline, grouped by the sweep.

    Args:
        file: The sweep's YAML.
        out: Folder of the sweep; by default runs/sweeps/ and the file's name.
        slots: Devices of each trial at a time, slots separated by semicolons: "0,1;2,3" runs two trials of two GPUs each;
            "cpu;cpu" two without. By default one slot for each GPU, or one without. Numbers count the GPUs that
            CUDA_VISIBLE_DEVICES lists, where it is set.
        count: Largest number of trials, also below what the YAML says.
        seed: Seed of random draws.
        every: Seconds between looks at the trials.
        retry: Try failed trials again, from their last checkpoints.
        test: Also test the best checkpoint of each finished trial, in its slot; of earlier ones too, where that was not done.

    Raises:
        InputError: If the YAML, a slot or the folder does not serve, a key is no flag of ours, trials ask for more devices than a
            slot has, none logs the metric, what is to be tested is not ours, or, once all others are done, a trial failed.
    """
    if count is not None and count < 1:
        raise InputError(f"--count {count}: expected 1 or more; give another")
    plan, console = read_sweep(Path(file)), Console()
    search = Search(plan, count, seed)
    if test and not plan.ours:
        raise InputError(f"--test: the command of {plan.path} does not run -m ltnet_pl fit; expected that: leave --test out")
    places = parse_slots(slots)
    folder = Path(out) if out is not None else Path("runs/sweeps") / plan.path.stem
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder} is no folder; expected one for the sweep: name another --out") from error
    with alone(folder) as lock:
        journal = Journal(folder, plan, seed)
        shutil.copyfile(plan.path, folder / "sweep.yaml")
        if retry:
            journal.forgive(test)
        _Job(plan, search, journal, places, every, test, console, lock).run()


class _Job:
    """Runs the trials of one sweep."""

    def __init__(
        self,
        plan: Sweep,
        search: Search,
        journal: Journal,
        slots: Sequence[str],
        every: float,
        test: bool,
        console: Console,
        lock: IO[bytes],
    ) -> None:
        self.plan, self.search, self.journal, self.every, self.console = plan, search, journal, every, console
        self.free, self.running, self.lock = list(reversed(slots)), list[Sitting](), lock
        self.test, self._stop = test, False

    def run(self) -> None:
        """Do all that is left."""
        done = sum(trial.ended for trial in self.journal.trials.values())
        if done:
            self.console.print(f"{done} of {self.search.total} trials have ended already")
        first = self.journal.trials.get(0)
        if self._next() is not None:
            check_trials(self.plan, first.parameters if first else self.search.parameters(0, [], []), self.free)
        with self._signals(), Live(console=self.console, auto_refresh=False, transient=True) as live:
            try:
                while not self._stop:
                    while self.free and not self._stop and (trial := self._next()) is not None:
                        self._begin(trial)
                    if not self.running:
                        break
                    if self.console.is_terminal:
                        live.update(self._progress(), refresh=True)
                    time.sleep(self.every)
                    # before a look: who stops this process may have stopped the trials too, which has no fault of theirs in it
                    if not self._stop:
                        self._look()
            finally:
                self._end_sittings()
        if self._stop:
            self.console.print(f"stopped; the same command goes on, its journal is {self.journal.path}", soft_wrap=True)
            raise SystemExit(130)
        self._close()

    def _next(self) -> Trial | None:
        """The next trial to run: one that was interrupted, one to be tested, or a new one."""
        at_work = {sitting.trial.number for sitting in self.running}
        known = self.journal.ordered
        for trial in known:
            untested = self.test and trial.status == "finished" and trial.tested is None
            if (untested or not trial.ended) and trial.number not in at_work:
                return trial
        # not the count of those known: lines may have been taken out of the journal
        number = next((number for number in range(self.search.total) if number not in self.journal.trials), None)
        if number is None:
            return None
        return Trial(number, self.search.parameters(number, known, [self.journal.place(trial) for trial in known]))

    def _begin(self, trial: Trial) -> None:
        """Start a trial, or the test of one that is finished."""
        place, slot, testing = self.journal.place(trial), self.free.pop(), trial.status == "finished"
        place.mkdir(parents=True, exist_ok=True)
        line = expand(self.plan, trial.parameters)
        if testing:
            line = test_line(line, place)
        elif flags_of(line) is not None:
            line += [f"--trainer.default_root_dir={place}", "--ckpt_path=last"]
        variables = {
            "WANDB_MODE": os.environ.get("WANDB_MODE", "offline"),
            "WANDB_RUN_GROUP": self.journal.folder.name,
            # all sittings are one run of W&B
            "WANDB_RUN_ID": self.journal.run_id(trial),
            "WANDB_RESUME": "allow",
        }
        sitting = begin(line, trial, place, slot, TEST_LOG if testing else LOG, variables, self.lock)
        sitting.testing = testing
        if not testing:
            # of a sitting that a kill ended, what was logged tells
            logged = [line["seconds"] for line in read_lines(place / METRICS) if isinstance(line.get("seconds"), int | float)]
            sitting.before = max([trial.seconds or 0.0, *logged])
            trial.status = "running"
        self.running.append(sitting)
        trial.process = sitting.process.pid
        self.journal.note(trial)
        doing = "is tested" if testing else "begins"
        self._say(f"trial {trial.number} {doing}{f' on {slot}' if slot else ''}: {words(trial)}")

    def _look(self) -> None:
        """See which trials ended, and stop those without hope."""
        ended = list[Trial]()
        for sitting in list(self.running):
            code = sitting.process.poll()
            if code is not None:
                self.running.remove(sitting)
                self._ended(sitting, code)
                self.free.append(sitting.slot)
                ended.append(sitting.trial)
            elif sitting.deadline is not None and time.monotonic() > sitting.deadline:
                sitting.kill()
        for trial in ended:
            self._expect_metric(trial)
        known = self.journal.ordered
        places = [self.journal.place(trial) for trial in known]
        for number in self.search.hopeless(known, places) if self.running else ():
            for sitting in self.running:
                if sitting.trial.number == number and not sitting.hopeless:
                    sitting.give_up()

    def _ended(self, sitting: Sitting, code: int, stopping: bool = False) -> None:
        """Write down how a trial ended, or that it is to go on.

        Args:
            sitting: Its process.
            code: What that left with.
            stopping: Whether the sweep stops, and the trials with it.
        """
        sitting.kill()
        trial, place = sitting.trial, self.journal.place(sitting.trial)
        trial.process = None
        outcome = self._outcome(sitting, code, stopping)
        if sitting.testing:
            trial.tested = None if outcome == "running" else outcome
        else:
            self._take(sitting, code)
            trial.status = outcome
        what = f"the test of trial {trial.number}" if sitting.testing else f"trial {trial.number}"
        value = f", {self.plan.metric} {value}" if not sitting.testing and (value := score(trial)) else ""
        if outcome != "running":
            self._say(f"{what} {outcome} after {sitting.seconds:.0f} s{value}")
        elif not stopping:
            left = TRIES - trial.interrupts
            self._say(f"{what} was ended by {plain(code)} from outside; it goes on, at most {left} times more")
        if outcome == "failed":
            trial.tail = tail((place / (TEST_LOG if sitting.testing else LOG)).read_text(encoding="utf-8", errors="replace"))
            why = f", {TRIES} times from outside" if trial.interrupts >= TRIES else ""
            self._say(f"{what} ended with {plain(code)}{why}; the end of its log:\n{quoted(trial.tail)}")
        elif outcome == "finished":
            # its test has its own
            trial.interrupts = 0
        self.journal.note(trial)

    def _outcome(self, sitting: Sitting, code: int, stopping: bool) -> str:
        """How a sitting ended: finished, stopped, failed, or running where the trial is to go on."""
        # it may have ended by itself just then; what is not ours may leave with 0 when it is asked to stop
        if sitting.hopeless and (interrupted(code) or (code == 0 and not self.plan.ours)):
            return "stopped"
        if code == 0:
            return "finished"
        if stopping:
            return "running"
        outside = interrupted(code)
        sitting.trial.interrupts += outside
        return "running" if outside and sitting.trial.interrupts < TRIES else "failed"

    def _take(self, sitting: Sitting, code: int) -> None:
        """Note what a trial has logged."""
        trial, metric = sitting.trial, self.plan.metric
        place = self.journal.place(trial)
        lines = read_lines(place / METRICS)
        trial.code, trial.seconds = code, round(sitting.seconds, 1)
        trial.step = max((line["step"] for line in lines), default=None)
        if metric is not None:
            trial.value = self.plan.best(values_of(place, metric))
            trial.finite = trial.value is not None or not any(metric in line for line in lines)

    def _expect_metric(self, trial: Trial) -> None:
        """Refuse to go on where a finished trial of ours lacks what the sweep goes by."""
        metric = self.plan.metric
        if metric is not None and trial.status == "finished" and trial.value is None and trial.finite and self.plan.ours:
            lines = read_lines(self.journal.place(trial) / METRICS)
            names = sorted({key for line in lines for key in line if "/" in key})
            raise InputError(
                f"{self.plan.path}: metric.name is {metric}, which trial {trial.number} did not log; expected one of "
                f"{', '.join(names) or 'none, since nothing was logged'}: correct it, and name another --out"
            )

    def _end_sittings(self) -> None:
        """End every trial at work, and note which of them had ended by themselves."""
        over = {sitting.trial.number: code for sitting in self.running if (code := sitting.process.poll()) is not None}
        tidy(self.running)
        for sitting in self.running:
            code = over.get(sitting.trial.number, sitting.process.returncode)
            # what is not ours may leave with 0 when it is asked to stop
            if code == 0 and sitting.trial.number not in over and not self.plan.ours:
                code = -signal.SIGTERM
            self._ended(sitting, code, stopping=True)
        self.running = []

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the sweep between two looks."""

        def note(*_: object) -> None:
            self._stop = True

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _progress(self) -> Table:
        at_work = {sitting.trial.number: sitting.seconds for sitting in self.running}
        return progress(self.plan, self.journal, self.search.total, at_work)

    def _close(self) -> None:
        """The table, best first, and what failed."""
        trials = self.journal.ordered
        self._say(ranking(self.plan, self.journal))
        self._say(f"runs and journal are in {self.journal.folder}")
        for what, failed in (
            ("trials", [str(trial.number) for trial in trials if trial.status == "failed"]),
            ("tests", [str(trial.number) for trial in trials if trial.tested == "failed"]),
        ):
            if failed:
                raise InputError(
                    f"{len(failed)} of {len(trials)} {what} failed: {', '.join(failed)}; the ends of their logs stand in "
                    f"{self.journal.path}: to try them again, give --retry"
                )
