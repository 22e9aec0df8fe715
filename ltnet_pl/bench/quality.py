"""`bench quality`: every row trained under one budget, scored on the same pairs, in as many sittings as it takes."""

from __future__ import annotations

import datetime
import json
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ltnet_pl import InputError, __version__
from ltnet_pl.bench.configs import build_net, digest_of, load_net
from ltnet_pl.bench.hashes import code_hash, cores, machine
from ltnet_pl.bench.plan import Job, Planner, parse_numbers, why_stale
from ltnet_pl.bench.results import Result, read_result, write_result
from ltnet_pl.bench.rows import REFERENCE, Book, Row, read_book
from ltnet_pl.bench.scoring import Readings, score, write_readings
from ltnet_pl.bench.speed import cost, read_speed
from ltnet_pl.bench.tables import report
from ltnet_pl.bench.training import Trainer, read_mark
from ltnet_pl.metrics import MetricSettings, build_metrics

SET: dict[str, Any] = {"scenes": 128, "size": 128, "seed": 21, "variant": "scalar_rgb"}
"""How the benchmark's set is rendered; the variant that starts everywhere."""

COUNTED_SIZE = 1024
"""Side in pixels of the image that multiply-adds are counted for."""


def quality(
    tier: str = "screen",
    rows: str | None = None,
    seeds: str | None = None,
    add: str | None = None,
    jobs: int = 1,
    threads: int | None = None,
    steps: int | None = None,
    size: int | None = None,
    table: bool = False,
    redo: bool = False,
    data: str = "data/benchmark",
    runs: str = "runs/benchmark",
    results: str = "experiments/benchmark/results",
    experiments: str = "experiments",
    metrics: MetricSettings = MetricSettings(),
) -> None:
    """Train every row of a tier under the same budget, score it on the same pairs, and print the tables.

    The set is rendered where it is missing. Each finished run leaves a small JSON; a row whose JSON has the hashes of its
    configuration and data is skipped, and a run that was stopped goes on from its last checkpoint, so the same command continues
    the benchmark. The final weights are scored, not those that did best in validation: a budget is a budget. Identity is the mean
    of each image's PSNR cut at 60 dB, since a perfect image has no finite one.

    Args:
        tier: One of the tiers in benchmark/rows.yaml.
        rows: Names of rows, separated by commas; by default all of the tier.
        seeds: Seeds, separated by commas; by default those of the tier.
        add: Further rows, NAME=FILE.yaml, separated by commas; several files of one row are joined by +.
        jobs: Runs that are trained side by side. On two cores, two runs of one thread each get more done than one of two.
        threads: Threads of each run; by default the cores divided by jobs.
        steps: Steps of each run in place of the tier's; kept apart from the tier's own results.
        size: Shorter side of the frames in pixels in place of the tier's; kept apart too.
        table: Only print the tables.
        redo: Train and score the rows anew, whatever there is.
        data: Folder of the set.
        runs: Folder of the run folders.
        results: Folder of the JSON files.
        experiments: Folder of the config files.
        metrics: Settings of the metrics.

    Raises:
        InputError: If an argument is wrong, or, once all others are done, if a run failed.
    """
    for flag, value, least in (("jobs", jobs, 1), ("threads", threads, 1), ("steps", steps, 1), ("size", size, 11)):
        if value is not None and value < least:
            raise InputError(f"--{flag} {value}: expected {least} or more; give another")
    book = read_book(Path(experiments), add)
    names = None if rows is None else [*rows.split(","), *(part.partition("=")[0] for part in (add or "").split(",") if part)]
    chosen = book.choose(tier, names)
    numbers = parse_numbers("--seeds", seeds) if seeds is not None else list(book.seeds[tier])
    if not table:
        ensure_set(Path(data))
    planner = Planner(book, tier, Path(data), Path(runs), steps, size)
    failures, tried, folder = list[str](), 0, Path(results)
    plan = planner.jobs(chosen, numbers)
    references = {job.seed: job for job in plan if job.row.name == REFERENCE}
    references |= {seed: planner.job(book.rows[REFERENCE], seed) for seed in numbers if seed not in references}
    if not table:
        with _threads(threads or max(1, cores() // jobs)) as count:
            bench = _Bench(plan, references, folder, metrics, redo, jobs, count)
            failures, tried = bench.run(), len(bench.pending)
    given = {"tier": tier, "rows": rows, "seeds": seeds, "add": add, "steps": steps, "size": size}
    said = [f"--{key} {value}" for key, value in given.items() if value is not None]
    print(_tables(" ".join(["python -m ltnet_pl bench quality", *said, "--table"]), book, chosen, plan, references, folder))
    if failures:
        raise InputError(
            f"{len(failures)} of {tried} runs failed, see above: {'; '.join(failures)}; run the same command again to go on"
        )


def ensure_set(root: Path) -> None:
    """Render the benchmark's set where it is missing, or where a render of it was stopped."""
    scenes = sorted(root.glob("scenes/*/scene.json"))
    if root.exists() and any(root.iterdir()):
        first = json.loads(scenes[0].read_text(encoding="utf-8")) if scenes else {}
        if first.get("seed") != SET["seed"] or first.get("size") != SET["size"] or len(scenes) >= SET["scenes"]:
            return
    from ltnet_pl.render import render  # here, since it needs an extra

    render(str(root), **SET)


@contextmanager
def _threads(count: int) -> Iterator[int]:
    """Torch's threads of this process, set back at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)


class _Bench:
    """Trains and scores what has no valid result.

    Training runs in child processes, `side` at a time; this process scores each run as it is done.
    """

    def __init__(
        self,
        plan: Sequence[Job],
        references: dict[int, Job],
        results: Path,
        metrics: MetricSettings,
        redo: bool,
        side: int,
        threads: int,
    ) -> None:
        self.references, self.results, self.redo, self.side = references, results, redo, side
        self.code = code_hash()
        self.trainer = Trainer(threads, self.code)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.metrics = build_metrics(metrics).to(self.device)
        self.costs: dict[str, dict[str, int]] = {}
        self.failures: list[str] = []
        self.pending = [job for job in plan if redo or not self._valid(job)]
        for seed, reference in references.items():
            borrowed = any(job.borrows for job in self.pending if job.seed == seed)
            if borrowed and reference not in self.pending and reference.readings() is None:
                print(f"{reference.name}: is trained too, since its light stream reads the guides of the others")
                self.pending.insert(0, reference)
        self.done = 0
        print(f"{len(plan)} runs, {len(self.pending)} to do, {side} at a time with {threads} threads each", flush=True)

    def _valid(self, job: Job) -> bool:
        result = read_result(self.results, job.tier, job.row.name, job.seed)
        return result is not None and why_stale(job, result, self.references.get(job.seed)) is None

    def run(self) -> list[str]:
        """Do it all; returns what failed."""
        pool = ThreadPoolExecutor(self.side)
        with _terminable():
            try:
                to_train = [job for job in self.pending if job.trains and (self.redo or not job.trained(self.code))]
                futures = {pool.submit(self._train, job): job for job in to_train}
                # a borrower waits for its reference where that is not trained yet
                busy = {job.seed for job in to_train if job.row.name == REFERENCE}
                waiting = [job for job in self.pending if job.borrows and job.seed in busy and job not in to_train]
                for job in self.pending:
                    if job not in to_train and job not in waiting:
                        self._score(job)
                for future in as_completed(futures):
                    job = futures[future]
                    if job.row.name == REFERENCE:
                        busy.discard(job.seed)
                    if self._went_well(future, job):
                        if job.borrows and job.seed in busy:
                            waiting.append(job)
                        else:
                            self._score(job)
                    for waiter in [w for w in waiting if w.seed not in busy]:
                        waiting.remove(waiter)
                        self._score(waiter)
            except KeyboardInterrupt:
                print("stopped; the same command goes on from the last checkpoints", flush=True)
                raise SystemExit(130) from None
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                self.trainer.stop()
                pool.shutdown(wait=True)
        return self.failures

    def _train(self, job: Job) -> None:
        assert job.data_hash is not None
        self.trainer.fit(job.run, job.flags, job.config_hash, job.data_hash, fresh=self.redo)

    def _went_well(self, future: Future[None], job: Job) -> bool:
        error = future.exception()
        if error is None:
            return True
        if not isinstance(error, InputError):
            raise error
        self._failed(job, str(error))
        return False

    def _failed(self, job: Job, why: str) -> None:
        self.done += 1
        self.failures.append(job.name)
        print(f"[{self.done}/{len(self.pending)}] {job.name}: {why}", flush=True)

    def _score(self, job: Job) -> None:
        try:
            result = self._result(job)
        except Exception as error:  # a network of the user's may fail in any way, and the other rows go on
            self._failed(job, f"scoring failed: {type(error).__name__}: {error}")
            return
        path = write_result(self.results, result)
        self.done += 1
        guide = "" if result.guide is None else f", guide light {result.guide['psnr']:.2f} dB"
        print(
            f"[{self.done}/{len(self.pending)}] {job.name}: label light {result.label['psnr']:.2f} dB{guide}, "
            f"{result.seconds / 60:.1f} min of training; {path}",
            flush=True,
        )

    def _result(self, job: Job) -> Result:
        assert job.lists is not None
        assert job.data_hash is not None
        mark = read_mark(job.run) if job.trains else None
        net = load_net(job.checkpoint) if job.trains else build_net(job.config)
        key = digest_of(job.config["model"]["net"])
        if key not in self.costs:
            self.costs[key] = cost(net, COUNTED_SIZE)
        parameters = sum(p.numel() for p in net.parameters())
        stream = self._stream(job) if job.borrows else None
        scores, readings = score(net.to(self.device), job.lists, self.metrics, stream)
        if job.row.name == REFERENCE and readings is not None:
            write_readings(job.run, readings, job.config_hash, job.data_hash)
        return Result(
            row=job.row.name,
            tier=job.tier,
            seed=job.seed,
            config=job.config_hash,
            data=job.data_hash,
            code=self.code,
            stream=self.references[job.seed].config_hash if job.borrows else None,
            versions={"torch": torch.__version__, "ltnet_pl": __version__},
            machine=machine(self.device.type == "cuda"),
            date=datetime.date.today().isoformat(),
            seconds=0.0 if mark is None else round(mark.seconds, 1),
            threads=0 if mark is None else mark.threads,
            parameters=parameters,
            operations=self.costs[key],
            absent=self.metrics.absent,
            **scores,
        )

    def _stream(self, job: Job) -> Readings:
        """The frozen light stream's readings of the test pairs, the same for all rows of a seed."""
        reference = self.references[job.seed]
        if job.data_hash != reference.data_hash:
            raise InputError(f"its test pairs are not those of {REFERENCE}, whose light stream reads its guides")
        readings = reference.readings()
        if readings is None:
            raise InputError(f"{reference.name}, whose light stream reads its guides, could not be trained or scored")
        return readings


@contextmanager
def _terminable() -> Iterator[None]:
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


def _tables(command: str, book: Book, rows: Sequence[Row], plan: Sequence[Job], references: dict[int, Job], folder: Path) -> str:
    """The tables of what is there, with a note on each result that is not of today's configuration, data or code."""
    found: dict[str, list[Result]] = {}
    notes, other_code, code = [], [], code_hash()
    for job in plan:
        result = read_result(folder, job.tier, job.row.name, job.seed)
        if result is None:
            notes.append(f"{job.name}: no result yet.")
            continue
        why = why_stale(job, result, references.get(job.seed))
        if why is not None:
            notes.append(f"{job.name}: left out; {why} since it was trained: run the command without --table.")
            continue
        found.setdefault(job.row.name, []).append(result)
        if result.code != code:
            other_code.append(job.name)
    if other_code:
        notes.append(f"trained with other code than is here now (--redo trains anew): {'; '.join(other_code)}.")
    timing, milliseconds = _times(folder)
    against = {row.name: book.against(row, found) for row in rows}
    return report(command, rows, found, against, notes, milliseconds, timing)


def _times(folder: Path) -> tuple[str, dict[str, float]]:
    """On what `bench speed` timed one image of 1024 pixels, the CPU rather than a GPU, and milliseconds by row."""
    kept = {kind: record for kind, record in read_speed(folder / "speed.json").items() if kind.endswith(f", {COUNTED_SIZE} px")}
    kind = min(kept, key=lambda kind: (not kind.startswith("cpu, float32, eager"), kind), default=None)
    if kind is None:
        return "", {}
    return kind, {name: value["ms"] for name, value in kept[kind]["rows"].items()}
