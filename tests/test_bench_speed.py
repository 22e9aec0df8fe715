"""`bench speed` as a command: which rows it times, and what it keeps."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import bench_tiny
import nets_small
import pytest
import torch
from nets_small import awake
from torch import nn

from ltnet_pl.bench import engines, quality, speed
from ltnet_pl.cli import main
from ltnet_pl.nets import LTNet, UNet

SMALL = ("--sizes=32", "--repeats=1")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command on a tiny benchmark, every row timed at once: as many ms as its name has letters."""
    experiments = bench_tiny.write_experiments(tmp_path / "experiments")
    fake = lambda runs, *_: {key: {"ms": float(len(key[0])), "mib": 1} for key in runs}  # noqa: E731
    monkeypatch.setattr(speed, "timed", fake)
    return lambda *more: main(["bench", "speed", f"--results={tmp_path}", f"--experiments={experiments}", *SMALL, *more])


def kept(folder):
    return json.loads((folder / "speed.json").read_text())


def test_rows_are_timed_and_kept(tmp_path, capsys):
    experiments = bench_tiny.write_experiments(tmp_path / "experiments")
    common = [f"--results={tmp_path}", f"--experiments={experiments}", *SMALL, "--threads=1"]
    assert main(["bench", "speed", *common, "--rows=CopyInput"]) == 0
    out = capsys.readouterr().out
    flags = "--sizes 32 --rows CopyInput --threads 1 --repeats 1"
    said = f"`python -m ltnet_pl bench speed {flags}` ("
    assert said in out
    assert "32 px, 1 thread:" in out
    assert "| row | engine | ms | ratio to LTNet, eager | peak memory (MiB) |" in out
    record = kept(tmp_path)["cpu, float32, eager, 32 px, 1 thread"]
    assert set(record["rows"]) == {"LTNet", "CopyInput"}
    assert record["rows"]["CopyInput"]["ms"] < record["rows"]["LTNet"]["ms"]
    assert record["threads"] == 1


def test_each_kind_stands_by_itself(run, tmp_path):
    for more in (["--threads=1,2"], ["--threads=1", "--bf16"]):
        assert run("--rows=CopyInput", *more) == 0
    kinds = ["cpu, float32, eager, 32 px, 1 thread", "cpu, float32, eager, 32 px, 2 threads", "cpu, bf16, eager, 32 px, 1 thread"]
    assert list(kept(tmp_path)) == kinds


def test_mistakes_are_said(run, capsys):
    assert run("--rows=gone") == 2
    capsys.readouterr()
    for flags, said in (
        (["--sizes=32,8"], "--sizes 8: expected 16 or more"),
        (["--sizes=large"], "--sizes large: expected whole numbers"),
        (["--threads=0"], "--threads 0: expected 1 or more"),
        (["--engines=eager,steam"], "--engines steam: expected some of eager, compiled, onnx"),
        (["--engines=onnx", "--bf16"], "--bf16 true with --engines onnx, which is timed on the CPU in float32"),
        (["--engines=onnx", "--sizes=16"], "--sizes 16 with --engines onnx: LTNet's file takes 32 to 4096"),
    ):
        assert run(*flags) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("other", [None, {"machine": "9 cores, Y"}, {"torch": "1.0"}, {"code": "x"}])
def test_rows_of_another_machine_or_torch_are_not_kept_beside(run, tmp_path, capsys, other):
    assert run("--rows=CopyInput", "--threads=1") == 0
    ((kind, record),) = kept(tmp_path).items()
    (tmp_path / "speed.json").write_text(json.dumps({kind: record | (other or {})}))
    capsys.readouterr()
    assert run("--rows=LTNet", "--threads=1") == 0
    assert set(kept(tmp_path)[kind]["rows"]) == ({"LTNet", "CopyInput"} if other is None else {"LTNet"})
    assert kept(tmp_path)[kind]["torch"] == f"torch {torch.__version__}"
    assert ("is replaced" in capsys.readouterr().out) == (other is not None)


def test_rows_that_are_added_are_timed(run, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("# Is it fast?\nmodel: {net: {class_path: ltnet_pl.nets.UNet}}\n")
    assert run("--rows=CopyInput,CopyInput", f"--add=mine={mine}") == 0
    ((_, record),) = kept(tmp_path).items()
    assert set(record["rows"]) == {"LTNet", "CopyInput", "mine"}


def test_tables_take_the_cpu_with_most_threads(tmp_path):
    kinds = {
        "cpu, float32, eager, 1024 px, 1 thread": 1,
        "cpu, float32, eager, 1024 px, 2 threads": 2,
        "cpu, float32, eager, 1024 px, 16 threads": 16,
        "cpu, bf16, eager, 1024 px, 32 threads": 32,
        "cuda, float32, eager, 1024 px, 64 threads": 64,
        "cpu, float32, eager, 4096 px, 64 threads": 64,
    }
    records = {kind: {"threads": count, "rows": {"a": {"ms": float(count)}}} for kind, count in kinds.items()}
    (tmp_path / "speed.json").write_text(json.dumps(records))
    assert quality._times(tmp_path) == ("cpu, float32, eager, 1024 px, 16 threads", {"a": 16.0})
    (tmp_path / "speed.json").unlink()
    assert quality._times(tmp_path) == ("", {})


class Plus(nn.Module):
    """Needs no memory but for its result."""

    def forward(self, batch):
        return {"relit": batch["input"] + 1}


class Large(nn.Module):
    """Needs many pieces below the size that malloc maps apart, which it keeps when they are freed."""

    def forward(self, batch):
        pieces = [batch["input"].new_ones(16_000) for _ in range(2000)]
        self.end = pieces[-1]  # what is below it cannot leave by itself
        return {"relit": batch["input"] + pieces[0][0]}


def peaks(side):
    """Peak memory in MiB of a small network, a large one, and the small one again."""
    batch, nets = speed.synthetic_batch(side), {"first": Plus(), "large": Large(), "last": Plus()}
    timed = speed.timed({name: partial(net, batch) for name, net in nets.items()}, "cpu", 1)
    return {name: row["mib"] for name, row in timed.items()}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_does_not_depend_on_who_came_before():
    """Memory that an earlier network gave back to the allocator is counted again where it is used again."""
    # in a process of its own: what other tests left running would count too
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(peaks, 512).result()
    assert found["large"] > 100
    assert abs(found["last"] - 3 * 512 * 512 * 4 / 2**20) <= 1.5


def check_engine(net, run, clamped=False):
    batch = speed.synthetic_batch(80)
    batch["frame_depth"] = batch["depth"]  # as a file has it, which takes no other
    with torch.inference_mode():
        wanted = net(batch)["relit"]
        found = run(batch)
    found = found["relit"] if isinstance(found, dict) else found
    wanted = wanted.clamp(0, 1) if clamped else wanted
    # as `test_export_files` has it: where a ray grazes an edge, a rounding decides whether it is blocked
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)
    assert (found - wanted).abs().mean() < 1e-5
    assert (wanted - batch["input"]).abs().mean() > 0.01


def test_a_foreign_network_by_onnxruntime():
    net = awake(UNet([4, 6]))
    graphs = engines.Graphs({"mine": net})
    check_engine(net, lambda batch: graphs.run("mine", batch, 1)())


@pytest.mark.slow  # tracing takes a minute
def test_ltnet_by_onnxruntime():
    net = awake(LTNet(**nets_small.SMALL, light="label"))
    graphs = engines.Graphs({"mine": net})
    check_engine(net, lambda batch: graphs.run("mine", batch, 1)(), clamped=True)


@pytest.mark.slow  # compiling, too
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch 2.13's compiler uses it
def test_a_compiled_network():
    net = awake(UNet([4, 6]))
    check_engine(net, lambda batch: engines.torch_run(net, batch, compiled=True, bf16=False)())
