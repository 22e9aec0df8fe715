"""What a network costs: multiply-adds, milliseconds, memory; rows timed side by side."""

from __future__ import annotations

import ctypes
import gc
import json
import statistics
import time
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ltnet_pl import InputError
from ltnet_pl.bench.configs import FRAME_SIZE, build_net, resolve
from ltnet_pl.bench.engines import Graphs, check_engine, room_for, runtime, torch_run
from ltnet_pl.bench.hashes import code_hash, machine
from ltnet_pl.bench.plan import parse_numbers, parse_rows
from ltnet_pl.bench.rows import REFERENCE, read_book
from ltnet_pl.bench.scoring import ask
from ltnet_pl.bench.threads import torch_threads
from ltnet_pl.bench.trained import provenance
from ltnet_pl.files import atomic_write
from ltnet_pl.processes import cores
from ltnet_pl.report.tables import MISSING, markdown

GUIDE_SIZE = 256
"""Side in pixels of the guide in all counts and timings."""


def synthetic_batch(size: int, device: str = "cpu", guide_size: int = GUIDE_SIZE) -> dict[str, Any]:
    """One sample of the batch contract at ``size`` x ``size``: a tilted ground with bumps, under two lights.

    Args:
        size: Side of input and depth in pixels.
        device: Where it lies.
        guide_size: Side of the guide in pixels.
    """
    generator = torch.Generator().manual_seed(0)

    def image(side: int) -> Tensor:
        coarse = torch.rand(1, 3, 16, 16, generator=generator)
        return F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)

    def depth(side: int) -> Tensor:
        line = (torch.arange(side) + 0.5) / side
        ground = 1.0 / (1.0 + 1.5 * line[:, None])
        bumps = 0.04 * torch.sin(19 * line[:, None]) * torch.sin(23 * line[None])
        return (ground + bumps)[None, None].clamp(min=0.1)

    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    unknown = torch.full((1, 2), torch.nan)
    batch: dict[str, Any] = {
        "input": image(size),
        "target": image(size),
        "guide": image(guide_size),
        "depth": depth(size),
        "guide_depth": depth(guide_size),
        "frame_depth": depth(FRAME_SIZE),
        "input_light": torch.tensor([[45.0, 5500.0]]),
        "target_light": torch.tensor([[270.0, 3500.0]]),
        "crop": whole,
        "guide_crop": whole,
        "camera": unknown,
        "rig": unknown,
    }
    return {key: value.to(device) for key, value in batch.items()} | {"name": ["synthetic"]}


def cost(net: nn.Module, size: int) -> dict[str, int]:
    """Multiply-adds of one image.

    Torch's FLOP counter / 2: it counts two for a multiply-add, and nothing for element-wise operations and grid sampling. What a
    network computes of geometry without convolutions it states itself, by ``cue_operations(height, width)``.

    Args:
        net: The network, on the CPU; all its parts are counted.
        size: Side of the image in pixels.

    Returns:
        ``network``: counted; ``cues``: stated, where the network does; ``guide_size``: side of the guide in pixels, `GUIDE_SIZE`,
        or ``size`` for a network that takes only guides of its input's size.
    """
    net.eval()
    ask(net, "guide")
    try:
        counted, guide_size = _count(net, synthetic_batch(size)), GUIDE_SIZE
    except RuntimeError:
        # torch refuses to join a small guide to a large input
        counted, guide_size = _count(net, synthetic_batch(size, guide_size=size)), size
    found = {"network": counted, "guide_size": guide_size}
    if hasattr(net, "cue_operations"):
        stated: Any = net.cue_operations
        found["cues"] = int(stated(size, size))
    return found


def _count(net: nn.Module, batch: dict[str, Any]) -> int:
    counter = FlopCounterMode(display=False)
    # inference mode would hide operations from the counter
    with torch.no_grad(), counter:
        net(batch)
    return int(counter.get_total_flops()) // 2


def speed(
    sizes: str = "1024",
    rows: str | None = None,
    add: str | None = None,
    engines: str = "eager",
    threads: str | None = None,
    repeats: int = 5,
    device: Literal["cpu", "cuda"] = "cpu",
    bf16: bool = False,
    results: str = "experiments/benchmark/results",
    experiments: str = "experiments",
) -> None:
    """Time every row's network on one image, side by side.

    Random weights, one synthetic image with its depth, both lights given (a light stream that was trained reads the image all the
    same); for one size and number of threads all rows take turns in all engines, so that a machine that slows down slows all of
    them. The medians are kept in ``speed.json`` of the results and printed as a table. Rows that were timed before are kept
    beside them where kind, machine, version of torch and the package's code are the same, and are replaced where not; a ratio is
    one of rows that were timed together.

    Args:
        sizes: Sides of the image in pixels, separated by commas.
        rows: Names of rows, separated by commas; by default all. LTNet and rows that are added are always timed.
        add: Further rows, NAME=FILE.yaml, separated by commas.
        engines: eager, compiled (by torch, at each size anew), onnx (onnxruntime); several separated by commas.
        threads: Numbers of threads, separated by commas; by default one for each core.
        repeats: Timed turns, after one that is not.
        device: cpu or cuda.
        bf16: Compute in bfloat16 where torch's autocast does.
        results: Folder of the results.
        experiments: Folder of the config files.

    Raises:
        InputError: If a row, an engine or the device is unknown, or a number is none or too small.
    """
    sides, counts = parse_numbers("--sizes", sizes), parse_numbers("--threads", threads or str(cores()))
    for flag, value, least in (("sizes", min(sides), 16), ("threads", min(counts), 1), ("repeats", repeats, 1)):
        if value < least:
            raise InputError(f"--{flag} {value}: expected {least} or more; give another")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU here; leave it out")
    used = list(dict.fromkeys(part.strip() for part in engines.split(",")))
    for name in used:
        check_engine(name, device, bf16, sides)
    book = read_book(Path(experiments), add)
    names = parse_rows(rows, add) or list(book.rows)
    nets = {}
    # any tier, since rows are named
    for row in book.choose(next(iter(book.seeds)), [REFERENCE, *names]):
        flags = [f"--config={file}" for file in book.configs(row, None)]
        nets[row.name] = build_net(resolve(flags, row.name)).to(device).eval()
        ask(nets[row.name], "label")
    graphs = Graphs(nets)
    path = Path(results) / "speed.json"
    said = {"sizes": sizes, "rows": rows, "add": add, "engines": engines, "threads": threads, "repeats": repeats}
    origin = provenance(speed, [], said | {"device": device, "bf16": bf16})
    # before anything is timed: files may change while it runs
    origin |= {"machine": machine(device == "cuda"), "code": code_hash()}
    print(f"`{origin['command']}` ({origin['machine']}; {origin['date']})")
    for size in sides:
        batch = synthetic_batch(size, device)
        for count in counts:
            with torch_threads(count), torch.inference_mode(), room_for(len(nets)) if "compiled" in used else nullcontext():
                runs = {
                    (name, engine): graphs.run(name, batch, count)
                    if engine == "onnx"
                    else torch_run(net, batch, engine == "compiled", bf16)
                    for name, net in nets.items()
                    for engine in used
                }
                found = timed(runs, device, repeats)
            del runs
            where = f"{size} px, {count} thread{'s' if count > 1 else ''}"
            for engine in used:
                part = {name: value for (name, by), value in found.items() if by == engine}
                kind = f"{device}, {'bf16' if bf16 else 'float32'}, {engine}, {where}"
                _keep(path, kind, part, origin | {"torch": runtime(engine)}, count)
            print(f"\n{where}:\n\n{_table(found, used)}", flush=True)


def _keep(path: Path, kind: str, found: dict[str, Any], origin: dict[str, str], threads: int) -> None:
    """Put what was timed beside what the file has of the same kind, machine, torch and code; in its place, if one differs."""
    record: dict[str, Any] = {key: origin[key] for key in ("machine", "date", "torch", "code")}
    record |= {"threads": threads, "rows": found}
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = read_speed(path)
    before_it = kept.get(kind, record)
    if all(before_it.get(key) == record[key] for key in ("machine", "torch", "code")):
        record["rows"] = before_it["rows"] | found
    else:
        print(
            f"{path}: what was timed on {before_it['machine']} with {before_it['torch']} and code "
            f"{before_it.get('code')} is replaced"
        )
    with atomic_write(path) as file:
        file.write((json.dumps(kept | {kind: record}, indent=1) + "\n").encode())


def _table(found: dict[tuple[str, str], dict[str, float]], engines: list[str]) -> str:
    """What was timed together, as a table in Markdown."""
    reference = found[REFERENCE, engines[0]]["ms"]
    head = ["row", "engine", "ms", f"ratio to {REFERENCE}, {engines[0]}", "peak memory (MiB)"]
    body = []
    for (name, engine), value in found.items():
        memory = f"{value['mib']:.0f}" if "mib" in value else MISSING
        body.append([name, engine, f"{value['ms']:.1f}", f"{value['ms'] / reference:.2f}", memory])
    return markdown(head, body)


def read_speed(path: Path) -> dict[str, Any]:
    """What `speed` measured, by kind of run (``cpu, float32, eager, 1024 px, 2 threads``); empty where nothing was.

    Raises:
        InputError: If the file is broken.
    """
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected what bench speed wrote: delete it to have it made anew") from error
    return kept


Key = TypeVar("Key", bound=Hashable)


def timed(runs: dict[Key, Callable[[], object]], device: str, repeats: int) -> dict[Key, dict[str, float]]:
    """Median milliseconds of each run, and the peak of the memory that it works in, in MiB, where that can be measured.

    On a GPU the peak is torch's; on the CPU, under Linux, how far the process grew in the first turn, in which a compiler works
    too.

    Args:
        runs: What to run, by name, on the device.
        device: cpu or cuda.
        repeats: Timed turns.
    """
    found: dict[Key, list[float]] = {name: [] for name in runs}
    peak: dict[Key, float] = {}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            gc.collect()
            if not turn:
                _trim()
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            start = resident(reset=True) if device == "cpu" and not turn else None
            begin = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
                peak[name] = torch.cuda.max_memory_allocated() / 2**20
            elif start is not None:
                peak[name] = ((resident() or start) - start) / 1024
            # the first turn pays for memory, compilation and the choice of kernels
            if turn:
                found[name].append(1000 * (time.perf_counter() - begin))
    return {
        name: {"ms": round(statistics.median(values), 2)} | ({"mib": round(peak[name])} if name in peak else {})
        for name, values in found.items()
    }


def _trim() -> None:
    """Give memory that nothing uses any more back to the system, where the C library can: reused, it would not be counted."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident(reset: bool = False) -> int | None:
    """Peak of this process's memory in KiB since the last reset, Linux's count; None on other systems."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
