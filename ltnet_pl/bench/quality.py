"""`bench quality`: every row trained under one budget, scored on the same pairs, in as many sittings as it takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from ltnet_pl import InputError
from ltnet_pl.bench.confirm import Confirmer
from ltnet_pl.bench.hashes import code_hash
from ltnet_pl.bench.plan import Job, Planner, parse_numbers, parse_rows, what_is_new, why_stale
from ltnet_pl.bench.renders import Renders
from ltnet_pl.bench.results import Result, read_result
from ltnet_pl.bench.rows import REFERENCE, Book, Row, read_book
from ltnet_pl.bench.scorer import COUNTED_SIZE, Scorer
from ltnet_pl.bench.speed import read_speed
from ltnet_pl.bench.tables import report
from ltnet_pl.bench.threads import torch_threads
from ltnet_pl.bench.training import Trainer, terminable
from ltnet_pl.metrics import MetricSettings
from ltnet_pl.processes import cores

SET: dict[str, Any] = {"scenes": 128, "size": 128, "seed": 21, "variant": "scalar_rgb"}
"""How the benchmark's set is rendered; the variant that starts everywhere."""


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
    confirm: bool = False,
    data: str = "data/benchmark",
    runs: str = "runs/benchmark",
    results: str = "experiments/benchmark/results",
    experiments: str = "experiments",
    metrics: MetricSettings = MetricSettings(),
) -> None:
    """Train every row of a tier under the same budget, score it on the same pairs, and print the tables.

    The set is rendered where it is missing. Each finished run leaves a small JSON; a row whose JSON has the hashes of its
    configuration and data, or those of another render of the same pictures, is skipped, and a run that was stopped goes on from
    its last checkpoint, so the same command continues the benchmark. The final weights are scored, not those that did best in
    validation: a budget is a budget. Identity is the mean of each image's PSNR cut at 60 dB, since a perfect image has no finite
    one.

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
        redo: Train and score anew what has a result of other code; the same command goes on where it was stopped.
        confirm: Only look whether results of earlier code are those of today's too, and mark them so: by training the first steps
            again and comparing them bit for bit, and by scoring the final weights again.
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
    if confirm and (redo or table):
        raise InputError(f"--confirm with --{'redo' if redo else 'table'}: expected one of them alone; leave one out")
    book = read_book(Path(experiments), add)
    chosen = book.choose(tier, parse_rows(rows, add))
    numbers = parse_numbers("--seeds", seeds) if seeds is not None else list(book.seeds[tier])
    if not table:
        ensure_set(Path(data))
    planner = Planner(book, tier, Path(data), Path(runs), steps, size)
    failures, tried, folder = list[str](), 0, Path(results)
    plan = planner.jobs(chosen, numbers)
    references = {job.seed: job for job in plan if job.row.name == REFERENCE}
    references |= {seed: planner.job(book.rows[REFERENCE], seed) for seed in numbers if seed not in references}
    renders = Renders(folder / planner.label)
    if not table:
        for job in plan:
            if job.data_hash is not None and job.lists is not None:
                renders.add(job.data_hash, Path(data), job.lists)
        with torch_threads(threads or max(1, cores() // jobs)) as count:
            scorer = Scorer(references, folder, metrics)
            work = Confirmer(plan, scorer, jobs) if confirm else _Bench(plan, scorer, renders, redo, jobs, count)
            failures, tried = work.run(), len(work.pending)
    given = {"tier": tier, "rows": rows, "seeds": seeds, "add": add, "steps": steps, "size": size}
    said = [f"--{key} {value}" for key, value in given.items() if value is not None]
    command = " ".join(["python -m ltnet_pl bench quality", *said, "--table"])
    print(_tables(command, book, chosen, plan, references, folder, renders))
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


class _Bench:
    """Trains and scores what has no valid result.

    Training runs in child processes, `side` at a time; this process scores each run as it is done.
    """

    def __init__(self, plan: Sequence[Job], scorer: Scorer, renders: Renders, redo: bool, side: int, threads: int) -> None:
        self.scorer, self.renders, self.redo, self.side = scorer, renders, redo, side
        self.trainer = Trainer(threads, scorer.code)
        self.failures: list[str] = []
        self.pending: list[Job] = []
        # the reference of a seed comes before those that borrow from it
        for job in plan:
            if self._lacks_weights(job):
                print(
                    f"{job.name}: is left out; its loss needs the weights of an LPIPS trunk: name them by --metrics.lpips_weights"
                )
            elif not self._valid(job):
                self.pending.append(job)
        for seed, reference in scorer.references.items():
            borrowed = any(job.borrows for job in self.pending if job.seed == seed)
            if borrowed and reference not in self.pending and reference.readings() is None:
                print(f"{reference.name}: is trained too, since its light stream reads the guides of the others")
                self.pending.insert(0, reference)
        self.done = 0
        print(f"{len(plan)} runs, {len(self.pending)} to do, {side} at a time with {threads} threads each", flush=True)

    def _valid(self, job: Job) -> bool:
        """Whether a job's result stands; where only its scores do not, and its weights are of other code or gone, it must."""
        result, reference = self.scorer.found(job), self.scorer.references[job.seed]
        if result is None or why_stale(job, result, reference, renders=self.renders) is not None:
            return False
        known = self.scorer.found(reference)
        code = self.scorer.code if reference in self.pending else None if known is None else known.code
        why = why_stale(job, result, reference, code, self.renders) or what_is_new(result, self.scorer.metrics.absent)
        if self.redo:
            return why is None and result.code == self.scorer.code
        if why is not None and not job.trained(self.scorer.code):
            # a result of today's code has nothing to confirm: its weights are gone
            others = result.code != self.scorer.code
            # what was trained on another render cannot be confirmed on this one
            can = others and result.data == job.data_hash
            remedy = "--confirm looks whether the weights are the same by today's code" if can else f"bring {job.run} back"
            print(
                f"{job.name}: {why}, but there are no weights here that today's code trained, so that it is not scored anew: "
                f"{remedy}, --redo trains anew"
            )
            return True
        return why is None

    def _lacks_weights(self, job: Job) -> bool:
        """Whether a job needs an LPIPS trunk to train that is not at hand, and has no result."""
        needs = bool(job.config["model"]["loss"].get("perceptual")) and "lpips" in self.scorer.metrics.absent
        return needs and job.trains and self.scorer.found(job) is None

    def run(self) -> list[str]:
        """Do it all; returns what failed."""
        pool = ThreadPoolExecutor(self.side)
        with terminable():
            try:
                to_train = [job for job in self.pending if job.trains and not job.trained(self.scorer.code)]
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
        self.trainer.fit(job.run, job.flags, job.config_hash, job.data_hash)

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
            result, readings = self.scorer.score(job)
            path = self.scorer.keep(job, result, readings)
        except Exception as error:  # a network of the user's may fail in any way, and the other rows go on
            self._failed(job, f"scoring failed: {type(error).__name__}: {error}")
            return
        self.done += 1
        guide = "" if result.guide is None else f", guide light {result.guide['psnr']:.2f} dB"
        print(
            f"[{self.done}/{len(self.pending)}] {job.name}: label light {result.label['psnr']:.2f} dB{guide}, "
            f"{result.seconds / 60:.1f} min of training; {path}",
            flush=True,
        )


def _tables(
    command: str,
    book: Book,
    rows: Sequence[Row],
    plan: Sequence[Job],
    references: dict[int, Job],
    folder: Path,
    renders: Renders,
) -> str:
    """The tables of what is there, with a note on each result that is not of today's configuration, data or code."""
    found: dict[str, list[Result]] = {}
    notes, other_code, unread, code = [], [], list[str](), code_hash()
    for job in plan:
        result = read_result(folder, job.tier, job.row.name, job.seed)
        if result is None:
            notes.append(f"{job.name}: no result yet.")
            continue
        known = read_result(folder, job.tier, REFERENCE, job.seed)
        why = why_stale(job, result, references[job.seed], renders=renders)
        if (
            why is None
            and why_stale(job, result, references[job.seed], None if known is None else known.code, renders) is not None
        ):
            # what it reached by labels stands
            result = result.unguided()
            unread.append(job.name)
        if why is not None:
            notes.append(f"{job.name}: left out; {why} since it was trained: run the command without --table.")
            continue
        found.setdefault(job.row.name, []).append(result)
        if result.code != code:
            other_code.append(job.name)
    if other_code:
        notes.append(
            "trained with other code than is here now (--confirm looks whether it matters, --redo trains anew): "
            f"{'; '.join(other_code)}."
        )
    if unread:
        notes.append(
            f"without their guides, which {REFERENCE}'s light stream of earlier code read (run the command without --table): "
            f"{'; '.join(unread)}."
        )
    mixed = [name for name, results in found.items() if len({result.code for result in results}) > 1]
    if mixed:
        notes.append(f"a mean over several states of the code: {', '.join(mixed)}.")
    of: dict[str, list[str]] = {}
    for result in (result for results in found.values() for result in results):
        of.setdefault(result.data, []).append(f"{result.row}, seed {result.seed}")
    if len(of) > 1:
        notes.append(f"of {len(of)} renders of the data: {' | '.join('; '.join(names) for names in of.values())}.")
        first, *others = of
        apart = [found for found in (renders.apart(first, other) for other in others) if found is not None]
        if len(apart) == len(others):
            notes.append(f"copying the input differs by at most {max(apart):.4f} dB on a test scene between these renders.")
    timing, milliseconds = _times(folder)
    against = {row.name: book.against(row, found) for row in rows}
    return report(command, rows, found, against, notes, milliseconds, timing, renders)


def _times(folder: Path) -> tuple[str, dict[str, float]]:
    """On what `bench speed` timed one image of 1024 pixels, the CPU rather than a GPU, and milliseconds by row.

    Of several numbers of threads the largest counts.
    """
    kept = {kind: record for kind, record in read_speed(folder / "speed.json").items() if f", {COUNTED_SIZE} px" in kind}
    order = {kind: (not kind.startswith("cpu, float32, eager"), -record["threads"], kind) for kind, record in kept.items()}
    kind = min(kept, key=lambda kind: order[kind], default=None)
    if kind is None:
        return "", {}
    return kind, {name: value["ms"] for name, value in kept[kind]["rows"].items()}
