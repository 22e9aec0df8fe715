"""The sweep command: trials on slots of devices, written down as they begin and end."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ltnet_pl import InputError
from ltnet_pl.experiment import configuration
from ltnet_pl.files import METRICS, locked, read_lines
from ltnet_pl.processes import die_with_parent, quoted, tail
from ltnet_pl.sweep.journal import Journal, Trial
from ltnet_pl.sweep.plan import Parameters, Sweep, expand, flags_of, read_sweep
from ltnet_pl.sweep.search import Search, values_of
from ltnet_pl.sweep.slots import parse_slots
from ltnet_pl.sweep.tables import progress, ranking, words

PATIENCE = 30.0
"""Seconds in which a trial that is to stop may write its checkpoint."""


@dataclass
class _Running:
    """A trial at work: its process, the devices that it has, and when it began."""

    trial: Trial
    process: subprocess.Popen[bytes]
    slot: str
    begun: float
    hopeless: bool = False


def sweep(
    file: str,
    out: str | None = None,
    slots: str | None = None,
    count: int | None = None,
    seed: int = 0,
    every: float = 2.0,
) -> None:
    """Run the trials of a sweep on this machine; the YAML is the one that `wandb sweep` takes, and no server is needed.

    Each trial is a run folder below OUT/trials. The same command goes on after any kill: what ended is not run again, what was
    interrupted goes on from its last checkpoint. W&B, where a configuration logs to it, is offline, grouped by the sweep.

    Args:
        file: The sweep's YAML.
        out: Folder of the sweep; by default runs/sweeps/ and the file's name.
        slots: Devices of each trial at a time, slots separated by semicolons: "0,1;2,3" runs two trials of two GPUs each;
            "cpu;cpu" two without. By default one slot for each GPU, or one without.
        count: Largest number of trials, also below what the YAML says.
        seed: Seed of random draws.
        every: Seconds between looks at the trials.

    Raises:
        InputError: If the YAML, a slot or the folder does not serve, a key is no flag of ours, no trial logs the metric, or, once
            all others are done, a trial failed.
    """
    if count is not None and count < 1:
        raise InputError(f"--count {count}: expected 1 or more; give another")
    plan, console = read_sweep(Path(file)), Console()
    search = Search(plan, count, seed)
    places = parse_slots(slots)
    folder = Path(out) if out is not None else Path("runs/sweeps") / plan.path.stem
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "runs this sweep"):
        journal = Journal(folder, plan, seed)
        shutil.copyfile(plan.path, folder / "sweep.yaml")
        _Job(plan, search, journal, places, every, console).run()


class _Job:
    """Runs the trials of one sweep."""

    def __init__(
        self, plan: Sweep, search: Search, journal: Journal, slots: Sequence[str], every: float, console: Console
    ) -> None:
        self.plan, self.search, self.journal, self.every, self.console = plan, search, journal, every, console
        self.free, self.running = list(reversed(slots)), list[_Running]()
        self._stop = False

    def run(self) -> None:
        """Do all that is left."""
        done = sum(trial.ended for trial in self.journal.trials.values())
        if done:
            self.console.print(f"{done} of {self.search.total} trials have ended already")
        self._check_flags()
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
                    self._look()
            finally:
                self._end_children()
        if self._stop:
            self.console.print(f"stopped; the same command goes on, its journal is {self.journal.path}", soft_wrap=True)
            raise SystemExit(130)
        self._close()

    def _check_flags(self) -> None:
        """Refuse keys that are no flags of ours before anything starts: the first trial's configuration is resolved."""
        trials = self.journal.trials
        parameters = trials[0].parameters if 0 in trials else self.search.parameters(0, [], [])
        whole = self._refused(parameters)
        if whole is None:
            return
        # the one that is refused alone, where there is one
        alone = {key: why for key, value in parameters.items() if (why := self._refused({key: value})) is not None}
        named, why = next(((f"parameters.{key}", why) for key, why in alone.items()), ("what it asks for", whole))
        raise InputError(
            f"{self.plan.path}: {named} is refused by fit: {why}; expected flags that python -m ltnet_pl fit --help names: "
            "correct it"
        )

    def _refused(self, parameters: Parameters) -> str | None:
        """What our own parser has against a command line; None where it has nothing, or is not what runs."""
        flags = flags_of(expand(self.plan, parameters))
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                if flags is not None:
                    configuration(flags)
        except SystemExit:
            lines = " ".join(said.getvalue().rpartition("error:")[2].split())
            return lines[:300] or "it ends at once"
        except InputError as error:
            return str(error)
        return None

    def _next(self) -> Trial | None:
        """The next trial to run: one that was interrupted, or a new one."""
        at_work = {running.trial.number for running in self.running}
        known = self.journal.ordered
        for trial in known:
            if not trial.ended and trial.number not in at_work:
                return trial
        number = len(known)
        if number >= self.search.total:
            return None
        return Trial(number, self.search.parameters(number, known, [self.journal.place(trial) for trial in known]))

    def _begin(self, trial: Trial) -> None:
        place, slot = self.journal.place(trial), self.free.pop()
        place.mkdir(parents=True, exist_ok=True)
        line = expand(self.plan, trial.parameters)
        if flags_of(line) is not None:
            line += [f"--trainer.default_root_dir={place}", "--ckpt_path=last"]
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": slot,
            "WANDB_MODE": os.environ.get("WANDB_MODE", "offline"),
            "WANDB_RUN_GROUP": self.journal.folder.name,
            "WANDB_DIR": str(place.resolve()),
        }
        for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "LOCAL_RANK", "MASTER_PORT"):
            environment.pop(name, None)
        with open(place / "trial.log", "ab") as log:
            log.write(f"$ {' '.join(line)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                # Ctrl-C is answered here; and a trial must not go on unseen where this process is killed
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        trial.status = "running"
        self.journal.note(trial)
        self.running.append(_Running(trial, process, slot, time.monotonic()))
        self._say(f"trial {trial.number} begins{f' on {slot}' if slot else ''}: {words(trial)}")

    def _look(self) -> None:
        """See which trials ended, and stop those without hope."""
        for running in list(self.running):
            code = running.process.poll()
            if code is not None:
                self.running.remove(running)
                self.free.append(running.slot)
                self._ended(running, code)
        known = self.journal.ordered
        places = [self.journal.place(trial) for trial in known]
        for number in self.search.hopeless(known, places) if self.running else ():
            for running in self.running:
                if running.trial.number == number and not running.hopeless:
                    running.hopeless = True
                    running.process.terminate()

    def _ended(self, running: _Running, code: int) -> None:
        trial, place = running.trial, self.journal.place(running.trial)
        lines = read_lines(place / METRICS)
        trial.code, trial.seconds = code, round(time.monotonic() - running.begun, 1)
        trial.step = max((line["step"] for line in lines), default=None)
        if self.plan.metric is not None:
            values = values_of(place, self.plan.metric)
            trial.value = self.plan.best(values)
        if running.hopeless:
            trial.status = "stopped"
        elif code == 0:
            trial.status = "finished"
        else:
            trial.status = "failed"
            log = (place / "trial.log").read_text(encoding="utf-8", errors="replace")
            trial.tail = tail(log)
        self.journal.note(trial)
        value = "" if trial.value is None else f", {self.plan.metric} {trial.value:.5g}"
        self._say(f"trial {trial.number} {trial.status} after {trial.seconds:.0f} s{value}")
        if trial.status == "failed":
            self._say(quoted(trial.tail or ""))
        metric = self.plan.metric
        if (
            metric is not None
            and trial.status == "finished"
            and trial.value is None
            and flags_of(expand(self.plan, {})) is not None
        ):
            names = sorted({key for line in lines for key in line if "/" in key})
            raise InputError(
                f"{self.plan.path}: metric.name is {metric}, which trial {trial.number} did not log; expected one of "
                f"{', '.join(names) or 'none, since nothing was logged'}: correct it, and name another --out"
            )

    def _end_children(self) -> None:
        """Have every trial at work write its checkpoint and end; kill what does not."""
        for running in self.running:
            running.process.terminate()
        deadline = time.monotonic() + PATIENCE
        for running in self.running:
            try:
                running.process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                os.killpg(running.process.pid, signal.SIGKILL)
                running.process.wait()
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
        now = time.monotonic()
        at_work = {running.trial.number: now - running.begun for running in self.running}
        return progress(self.plan, self.journal, self.search.total, at_work)

    def _close(self) -> None:
        """The table, best first, and what failed."""
        trials = self.journal.ordered
        self._say(ranking(self.plan, self.journal))
        self._say(f"runs and journal are in {self.journal.folder}")
        failed = [str(trial.number) for trial in trials if trial.status == "failed"]
        if failed:
            raise InputError(
                f"{len(failed)} of {len(trials)} trials failed: {', '.join(failed)}; the ends of their logs stand in "
                f"{self.journal.path}: to try them again, remove their lines there"
            )
