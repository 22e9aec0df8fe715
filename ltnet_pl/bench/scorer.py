"""Turns finished runs into results: today's code scores their final weights, and says what the network costs."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ltnet_pl import InputError, __version__
from ltnet_pl.bench.configs import build_net, digest_of
from ltnet_pl.bench.hashes import code_hash, machine
from ltnet_pl.bench.plan import Job
from ltnet_pl.bench.results import Result, read_result, read_results, write_result
from ltnet_pl.bench.rows import REFERENCE
from ltnet_pl.bench.scoring import Readings, score, write_readings
from ltnet_pl.bench.speed import cost
from ltnet_pl.bench.training import read_mark
from ltnet_pl.metrics import MetricSettings, build_metrics
from ltnet_pl.weights import load_net

COUNTED_SIZE = 1024
"""Side in pixels of the image that multiply-adds are counted for."""


class Scorer:
    """Scores runs, and reads and writes results.

    Args:
        references: By seed, the job whose light stream reads the guides of networks that train none.
        folder: Folder of the results.
        metrics: Settings of the metrics.
    """

    def __init__(self, references: Mapping[int, Job], folder: Path, metrics: MetricSettings) -> None:
        self.references, self.folder = references, folder
        self.code = code_hash()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.machine = machine(self.device.type == "cuda")
        self.metrics = build_metrics(metrics).to(self.device)
        self._costs: dict[str, dict[str, int]] = {}

    def score(self, job: Job) -> tuple[Result, Readings | None]:
        """The result of a finished run, and what its own light stream read; nothing is written.

        Raises:
            InputError: If the light stream that the network borrows has read nothing for it.
        """
        assert job.data_hash is not None
        assert job.lists is not None
        mark = read_mark(job.run) if job.trains else None
        net = load_net(job.checkpoint) if job.trains else build_net(job.config)
        key = digest_of(job.config["model"]["net"])
        if key not in self._costs:
            self._costs[key] = cost(net, COUNTED_SIZE)
        parameters = sum(p.numel() for p in net.parameters())
        stream = self._stream(job) if job.borrows else None
        scores, readings = score(net.to(self.device), job.lists, self.metrics, stream)
        result = Result(
            row=job.row.name,
            tier=job.tier,
            seed=job.seed,
            config=job.config_hash,
            data=job.data_hash,
            code=self.code,
            stream=self.references[job.seed].config_hash if job.borrows else None,
            stream_code=None if stream is None else stream.code,
            versions={"torch": torch.__version__, "ltnet_pl": __version__},
            machine=self.machine,
            date=datetime.date.today().isoformat(),
            seconds=0.0 if mark is None else round(mark.seconds, 1),
            threads=0 if mark is None else mark.threads,
            parameters=parameters,
            operations=self._costs[key],
            absent=self.metrics.absent,
            **scores,
        )
        return result, None if readings is None else readings._replace(code=self.code)

    def keep(self, job: Job, result: Result, readings: Readings | None) -> Path:
        """Write a result, and what the reference's light stream read; returns the result's path."""
        if job.row.name == REFERENCE and readings is not None:
            assert job.data_hash is not None
            write_readings(job.run, readings, job.config_hash, job.data_hash)
        return write_result(self.folder, result)

    def found(self, job: Job) -> Result | None:
        """The result on disk; None where there is none."""
        return read_result(self.folder, job.tier, job.row.name, job.seed)

    def rename_stream(self, reference: Job, code: str) -> None:
        """Name today's code in the results whose guides the reference's light stream read by other code, which was the same.

        Args:
            reference: The job, whose result is confirmed.
            code: The hash that its result had.
        """
        for result in read_results(self.folder, reference.tier, reference.seed):
            if result.stream_code == code and result.stream == reference.config_hash:
                write_result(self.folder, replace(result, stream_code=self.code))

    def _stream(self, job: Job) -> Readings:
        """The frozen light stream's readings of the test pairs, the same for all rows of a seed."""
        reference = self.references[job.seed]
        if job.data_hash != reference.data_hash:
            raise InputError(
                f"its test pairs are not those of {REFERENCE}, whose light stream reads its guides; expected the same data: "
                "correct the settings of its data, or train a light stream of its own by a weight of the light loss"
            )
        readings = reference.readings()
        if readings is None:
            raise InputError(
                f"{reference.name}, whose light stream reads its guides, has no readings of the test pairs; expected it trained "
                f"and scored: run the command with --rows {REFERENCE}, and see there what stops it"
            )
        return readings
