"""Metrics in two processes, which must agree with one."""

from __future__ import annotations

import socket
import warnings

import pytest
import torch

from ltnet_pl.light import encode
from ltnet_pl.metrics import MetricSettings, build_metrics


def _batch(i):
    """Batch i of the distributed test: i + 1 images, so the processes hold unequal numbers."""
    generator = torch.Generator().manual_seed(i)
    a, b = torch.rand(2, i + 1, 3, 12, 12, generator=generator)
    light = torch.stack([90.0 * torch.arange(i + 1), torch.full((i + 1,), 4000.0)], dim=1)
    wanted = torch.tensor([[0.0, 4000.0]]).expand(i + 1, 2)
    # only odd batches have a reading, so that one process knows a metric that the other does not
    return a, b, light, wanted, (encode(light + 7.0) if i % 2 else None)


def _work(rank, port, folder):
    """One of two processes; what it computes goes to a file."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    rounds = {"uneven": [[0, 2], [1, 3]], "one_empty": [[1], []]}
    for name, batches in rounds.items():
        metrics = build_metrics(MetricSettings())
        for i in batches[rank]:
            metrics.update(*_batch(i))
        with warnings.catch_warnings():
            if not batches[rank]:  # torchmetrics says so where a process has seen nothing
                warnings.filterwarnings("ignore", message=".*before the ``update`` method")
            torch.save(metrics.compute(), f"{folder}/{name}_{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes(tmp_path):
    """Both know what one process over all images computes: unequal numbers of images, and a process without any."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_work, (port, str(tmp_path)), nprocs=2)
    for name, batches in (("uneven", [0, 2, 1, 3]), ("one_empty", [1])):
        alone = build_metrics(MetricSettings())
        for i in batches:
            alone.update(*_batch(i))
        wanted = alone.compute()
        assert "input_mired_error" in wanted
        for rank in range(2):
            found = torch.load(tmp_path / f"{name}_{rank}.pt", weights_only=True)
            assert list(found) == list(wanted)
            for key, value in wanted.items():
                torch.testing.assert_close(found[key], value, msg=f"{name} {rank} {key}")
