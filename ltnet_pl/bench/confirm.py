"""`bench quality --confirm`: whether a result of earlier code is one of today's, without training it anew.

Code that only moved, or gained what a row does not use, trains the very same weights; a hash cannot see that. So the first steps
of a run are trained again, up to the first that its own log holds, and every number that was logged there is compared, bit for
bit. Then the run's final weights are scored again, and the scores are compared. A row that trains nothing is scored, no more.

What it proves: today's code starts from the same weights, sees the same first batches, takes the same first steps, and turns the
final weights into the same scores. What it does not: that later steps are the same. A change that acts later alone (the order of
samples in a later epoch, the end of the schedule, a limit that only trained weights reach), or that no logged number shows (the
average of the weights), goes unnoticed; whoever made such a change must train anew.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from ltnet_pl import InputError
from ltnet_pl.bench.configs import config_hash, read_config
from ltnet_pl.bench.plan import Job, why_stale
from ltnet_pl.bench.results import Result
from ltnet_pl.bench.rows import REFERENCE
from ltnet_pl.bench.scorer import Scorer
from ltnet_pl.bench.training import Mark, Trainer, read_mark, terminable, write_mark
from ltnet_pl.files import locked

LAST_DIGIT = 1.5e-4
"""Scores are kept with four digits after the point, and may differ by one in the last: more threads add in another order."""


class Logged(NamedTuple):
    """The first numbers of training that a run's log holds.

    Args:
        step: Their step, counted from 0.
        numbers: The numbers by name, as they are written.
    """

    step: int
    numbers: dict[str, str]


class Confirmer:
    """Looks which results of earlier code are today's too, and marks them so.

    First steps are trained in child processes, ``side`` at a time; this process scores.

    Args:
        plan: The jobs; those whose result is of today's code are passed over.
        scorer: Scores them, and knows where results are.
        side: Trainings side by side.
    """

    def __init__(self, plan: Sequence[Job], scorer: Scorer, side: int) -> None:
        self.scorer, self.side = scorer, side
        self.results: dict[str, Result] = {}
        self.pending: list[Job] = []
        self.failures: list[str] = []
        self.done = 0
        self._marks: dict[str, Mark | None] = {}
        self._trainers: list[Trainer] = []
        for job in plan:
            result = scorer.found(job)
            # which code read the guides does not matter here: they are read anew
            if result is not None and why_stale(job, result, scorer.references[job.seed]) is None and result.code != scorer.code:
                self.pending.append(job)
                self.results[job.name] = result
        print(f"{len(plan)} runs, {len(self.pending)} to confirm, {side} at a time", flush=True)

    def run(self) -> list[str]:
        """Do it all; returns what failed."""
        pool, tried = ThreadPoolExecutor(self.side), list[Future[str | None]]()
        with terminable():
            try:
                for job in self.pending:
                    tried.append(self._begin(job, pool))
                # in their order, so that what borrows a light stream follows the reference
                for job, future in zip(self.pending, tried, strict=True):
                    self._settle(job, future)
            except KeyboardInterrupt:
                print("stopped; the same command goes on with what is not confirmed", flush=True)
                raise SystemExit(130) from None
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                for trainer in self._trainers:
                    trainer.stop()
                pool.shutdown(wait=True)
        return self.failures

    def _begin(self, job: Job, pool: ThreadPoolExecutor) -> Future[str | None]:
        """Begin to train the first steps, where that is possible and needed; the future says what speaks against the result."""
        mark = self._marks[job.name] = read_mark(job.run) if job.trains else None
        why = self._obstacle(job, mark) if job.trains else None
        if why is None and mark is not None and mark.code != self.scorer.code:
            trainer = Trainer(mark.threads, self.scorer.code)
            self._trainers.append(trainer)
            return pool.submit(self._compare, job, trainer)
        settled: Future[str | None] = Future()
        settled.set_result(why)
        return settled

    def _obstacle(self, job: Job, mark: Mark | None) -> str | None:
        """Why a run cannot be compared; None where it can."""
        result = self.results[job.name]
        if mark is None:
            return f"there is no run of the benchmark in {job.run}; bring the folder back"
        if not mark.finished or (mark.config, mark.data) != (job.config_hash, job.data_hash):
            return f"{job.run} holds a run that is not finished, or of another configuration or data; --redo trains it anew"
        if not job.checkpoint.is_file():
            return f"{job.checkpoint} is missing; bring it back"
        if mark.code == self.scorer.code:
            return None
        if mark.code != result.code:
            return f"{job.run} holds a run of code {mark.code}, and the result is of code {result.code}; --redo trains it anew"
        if (job.config["trainer"]["max_steps"] or -1) < 1:
            return "its length is not given in steps, and no first steps can be compared; --redo trains it anew"
        if result.machine != self.scorer.machine:
            return (
                f"it was trained on {result.machine}, and here is {self.scorer.machine}, which may round otherwise; confirm it "
                "on such a machine"
            )
        if first_logged(job.run) is None:
            return f"{job.run / 'logs'} holds no metrics.csv with numbers of training; --redo trains it anew"
        return None

    def _compare(self, job: Job, trainer: Trainer) -> str | None:
        """Train the first steps by today's code; returns what differs."""
        before = first_logged(job.run)
        assert before is not None
        now = self._train(job, trainer, before.step + 1)
        then, here = self.results[job.name].versions.get("torch"), torch.__version__
        also = "" if then == here else f" (torch {then} then, {here} now)"
        if now is None or now.step != before.step:
            return f"today's code logs nothing at step {before.step}{also}; --redo trains it anew"
        for name in sorted(before.numbers.keys() | now.numbers.keys()):
            old, new = before.numbers.get(name, "absent"), now.numbers.get(name, "absent")
            if old != new:
                return f"{name} at step {before.step} was {old}, and is {new} by today's code{also}; --redo trains it anew"
        return None

    def _train(self, job: Job, trainer: Trainer, steps: int) -> Logged | None:
        flags = [*job.flags, f"--trainer.max_steps={steps}", f"--trainer.log_every_n_steps={steps}"]
        schedule = (job.config["model"].get("scheduler") or {}).get("init_args") or {}
        if "T_max" in schedule:
            # it follows the number of steps, and the first ones must be those of the whole schedule
            flags.append(f"--model.scheduler.init_args.T_max={schedule['T_max']}")
        with TemporaryDirectory(prefix=f".confirm-{job.run.name}-", dir=job.run.parent) as folder:
            run = Path(folder)
            trainer.attempt(run, flags)
            config = read_config(run / "config.yaml")
            config["trainer"]["max_steps"] = job.config["trainer"]["max_steps"]
            if config_hash(config) != job.config_hash:
                raise InputError(
                    "its configuration changes with --trainer.max_steps beyond the length and the schedule's T_max; expected the "
                    "same but for these: --redo trains it anew"
                )
            return first_logged(run)

    def _settle(self, job: Job, future: Future[str | None]) -> None:
        """Score a job that nothing speaks against, write its result, and say what came out."""
        try:
            said = future.result() or self._score(job)
        except Exception as error:  # a network of the user's may fail in any way, and the other rows go on
            self.failures.append(job.name)
            said = f"{'' if isinstance(error, InputError) else f'{type(error).__name__}: '}{error}"
        self.done += 1
        end = "is a result of today's code" if said is None else f"stays as it is: {said}"
        print(f"[{self.done}/{len(self.pending)}] {job.name}: {end}", flush=True)

    def _score(self, job: Job) -> str | None:
        """Score the final weights; write run and result as today's, or say what differs."""
        # held all the while, so that nothing is scored that another process trains
        with locked(job.run, "trains it") if job.trains else nullcontext():
            return self._score_held(job)

    def _score_held(self, job: Job) -> str | None:
        old, code = self.results[job.name], self.scorer.code
        mark = read_mark(job.run) if job.trains else None
        if mark != self._marks[job.name]:
            return f"{job.run} was trained meanwhile; run the command again"
        compared = mark is not None and mark.code != code
        new, readings = self.scorer.score(job)
        # what today's code trained, or what trains nothing, need not reach what earlier code did
        said = differs(old, new, job.borrows, lost_only=not compared)
        if said is None:
            if mark is not None and compared:
                write_mark(job.run, replace(mark, code=code))
                new = replace(new, machine=old.machine)
            self.scorer.keep(job, new, readings)
            if job.row.name == REFERENCE:
                self.scorer.rename_stream(job, old.code)
        return said


def first_logged(run: Path) -> Logged | None:
    """The first step with numbers of training (``train/*``) in a run's logs; None where there is none.

    Args:
        run: The run folder. A run that was resumed has several logs, of which the first counts.
    """
    for file in sorted(run.glob("logs/version_*/metrics.csv"), key=lambda file: int(file.parent.name.partition("_")[2])):
        with open(file, newline="", encoding="utf-8") as lines:
            for line in csv.DictReader(lines):
                numbers = {key: value for key, value in line.items() if key.startswith("train/") and value}
                if numbers:
                    return Logged(int(line["step"]), numbers)
    return None


def differs(before: Result, now: Result, borrows: bool, lost_only: bool = False) -> str | None:
    """In what the scores of the same weights differ; None where they are the same.

    Args:
        before: The result of earlier code.
        now: That of today's code; it may have more scores.
        borrows: Whether its guides are read by the light stream of another network, which may be another now.
        lost_only: Only look whether every score is there still.
    """
    old, new = _scores(before, borrows), _scores(now, borrows)
    for name, value in old.items():
        if name not in new:
            return f"{name} was scored, and cannot be now; name the weights that it takes by --metrics.lpips_weights"
        if not lost_only and abs(new[name] - value) > LAST_DIGIT:
            return f"{name} was {value}, and is {new[name]} when today's code scores the same weights; --redo trains it anew"
    return None


def _scores(result: Result, borrows: bool) -> dict[str, float]:
    """All scores by name."""
    scores: dict[str, float] = {}
    for part in ("label", "identity", "readings", *(() if borrows else ("guide",))):
        scores |= {f"{part} {key}": value for key, value in (getattr(result, part) or {}).items()}
        for key, values in result.per_scene.get(part, {}).items():
            scores |= {f"{part} {key} of test scene {i}": value for i, value in enumerate(values)}
    return scores
