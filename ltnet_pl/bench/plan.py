"""What is to be done: every row and seed of a tier with its configuration, hashes and folders."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ltnet_pl import InputError
from ltnet_pl.bench.configs import Config, build_net, config_hash, digest_of, resolve
from ltnet_pl.bench.hashes import data_hash
from ltnet_pl.bench.renders import Renders
from ltnet_pl.bench.results import Result
from ltnet_pl.bench.rows import REFERENCE, Book, Row
from ltnet_pl.bench.scoring import Lists, Readings, has_light_stream, lists_of, read_readings
from ltnet_pl.bench.training import checkpoint, trained

SITTINGS = 4
"""Epochs of a run: so often it is validated and saved."""


@dataclass(frozen=True)
class Job:
    """One row from one seed.

    Args:
        row: The row.
        seed: The seed.
        tier: The tier, with what was changed of it.
        flags: Flags of `fit`, without run folder and checkpoint.
        config: The resolved configuration.
        config_hash: Its hash.
        lists: What is scored on; None where the data is not at hand.
        data_hash: Hash of the data; None where it is not at hand.
        run: Its run folder.
        trains: Whether there is anything to train.
        borrows: Whether it needs the readings of the reference's light stream, since it trains none of its own.
    """

    row: Row
    seed: int
    tier: str
    flags: tuple[str, ...]
    config: Config
    config_hash: str
    lists: Lists | None
    data_hash: str | None
    run: Path
    trains: bool
    borrows: bool

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.row.name}, seed {self.seed}"

    def trained(self, code: str) -> bool:
        """Whether nothing is left to train with this code."""
        assert self.data_hash is not None
        return not self.trains or trained(self.run, self.config_hash, self.data_hash, code)

    def readings(self) -> Readings | None:
        """What its light stream read on the test pairs when it was scored; None where that is not kept, or of another time."""
        assert self.data_hash is not None
        return read_readings(self.run, self.config_hash, self.data_hash)

    @property
    def checkpoint(self) -> Path:
        """Its final weights."""
        return checkpoint(self.run)


class Planner:
    """Makes the jobs of a tier.

    Args:
        book: Rows and tiers.
        tier: The tier.
        data: Folder of the set.
        runs: Folder of all run folders.
        steps: Steps in place of the tier's.
        size: Size of the frames in pixels in place of the tier's.
    """

    def __init__(self, book: Book, tier: str, data: Path, runs: Path, steps: int | None = None, size: int | None = None) -> None:
        self.book, self.tier, self.data, self.runs, self.steps, self.size = book, tier, data, runs, steps, size
        changes = [f"{value}{unit}" for value, unit in ((steps, "steps"), (size, "px")) if value is not None]
        # apart, so that a trial never replaces a result of the tier itself
        self.label = "-".join([tier, *changes])
        self._lists: dict[str, tuple[Lists, str]] = {}

    def job(self, row: Row, seed: int) -> Job:
        """The job of a row and seed.

        Raises:
            InputError: If its configuration is wrong.
        """
        flags = [f"--config={file}" for file in self.book.configs(row, self.tier)]
        flags += [f"--seed_everything={seed}", f"--data.root={self.data}"]
        if self.size is not None:
            flags.append(f"--data.size={self.size}")
        config = resolve(flags, row.name)
        if self.steps is not None:
            samples = math.ceil(self.steps / SITTINGS) * config["data"]["init_args"]["batch_size"]
            flags += [f"--trainer.max_steps={self.steps}", f"--data.samples_per_epoch={samples}"]
            config = resolve(flags, row.name)
        net = build_net(config)
        lists, data = self._data(config)
        guided = config["data"]["class_path"].endswith("AnyToAnyDataModule")
        return Job(
            row=row,
            seed=seed,
            tier=self.label,
            flags=tuple(flags),
            config=config,
            config_hash=config_hash(config),
            lists=lists,
            data_hash=data,
            run=self.runs / self.label / f"{row.name}-seed{seed}",
            # buffers count: a network may be fitted in closed form
            trains=bool(net.state_dict()),
            borrows=guided and not (has_light_stream(net) and reads(config)),
        )

    def jobs(self, rows: Sequence[Row], seeds: Sequence[int]) -> list[Job]:
        """All jobs, in the order of the rows, seed by seed, so that tables fill early."""
        return [self.job(row, seed) for seed in seeds for row in rows]

    def _data(self, config: Config) -> tuple[Lists | None, str | None]:
        """Pair lists and data hash; they are the same for all rows that ask for the same."""
        if not self.data.exists():
            return None, None
        # the seed and the training's augmentation change nothing of what is scored
        training = ("seed", "augment", "samples_per_epoch", "guide_depth_dropout")
        shared = {key: value for key, value in config["data"]["init_args"].items() if key not in training}
        key = digest_of([config["data"]["class_path"], shared])
        if key not in self._lists:
            lists = lists_of(config)
            self._lists[key] = (lists, data_hash(self.data, lists.pairs()))
        return self._lists[key]


def reads(config: Config) -> bool:
    """Whether a light stream is trained: by the light loss, or by relighting after its own readings."""
    model = config["model"]
    label_dropout = model["net"].get("init_args", {}).get("label_dropout")
    return bool(model["loss"]["light"] or model["loss"]["relit_light"] or label_dropout != 0)


def why_stale(
    job: Job, result: Result, reference: Job | None, reference_code: str | None = None, renders: Renders | None = None
) -> str | None:
    """Why a result does not stand for its job any more; None where it does.

    Args:
        job: The job.
        result: What was found on disk.
        reference: The job whose light stream the job's network borrows.
        reference_code: Hash of the code of that job's result; None where it has none, or its code shall not matter.
        renders: What is known of other renders of the data.
    """
    if result.config != job.config_hash:
        return "its configuration has changed"
    alike = renders is not None and job.data_hash is not None and renders.same(result.data, job.data_hash)
    if job.data_hash is not None and result.data != job.data_hash and not alike:
        return "the data has changed"
    if job.borrows and reference is not None and result.stream != reference.config_hash:
        return f"the configuration of {REFERENCE}, whose light stream read its guides, has changed"
    # results of before that was noted: read by the light stream of their own time
    if job.borrows and reference_code is not None and (result.stream_code or result.code) != reference_code:
        return f"the code that trained {REFERENCE}, whose light stream read its guides, has changed"
    return None


def what_is_new(result: Result, absent: Collection[str]) -> str | None:
    """What a result lacks and new scores would have; None where there is nothing.

    Args:
        result: What was found on disk.
        absent: The metrics that still cannot be computed.
    """
    found = [key.upper() for key in result.absent if key not in absent]
    return f"{' and '.join(found)} could not be computed when it was scored, and now can" if found else None


def parse_numbers(flag: str, text: str) -> list[int]:
    """Whole numbers separated by commas, each once.

    Raises:
        InputError: If it is something else.
    """
    parts = [part.strip() for part in text.split(",")]
    # isdigit alone takes signs that int does not, such as a raised 2
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise InputError(f"{flag} {text}: expected whole numbers separated by commas, such as 0,1,2; correct it")
    return list(dict.fromkeys(map(int, parts)))


def parse_rows(rows: str | None, add: str | None) -> list[str] | None:
    """Names of rows separated by commas, each once, and of those that are added; None where none is named, for all.

    Args:
        rows: The flag ``--rows``.
        add: The flag ``--add``, ``NAME=FILE.yaml`` separated by commas.
    """
    if rows is None:
        return None
    added = [part.partition("=")[0] for part in (add or "").split(",") if part]
    return list(dict.fromkeys([*(name.strip() for name in rows.split(",")), *added]))
