"""`bench data`: what it prints, what it refuses, and what a large set costs a worker in memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from fits import environment

from ltnet_pl.bench import data as bench_data
from ltnet_pl.cache import cache
from ltnet_pl.cli import main
from ltnet_pl.data.cached import HEADER
from ltnet_pl.report.tables import MISSING


def test_rates_and_memory_are_printed(vidit_root, capsys, monkeypatch):
    rates, memory = iter([10.0, 120.0, 90.0, 5.0, 20.0, 15.0]), iter([60.4, 30.0, None, 80.0])
    monkeypatch.setattr(bench_data, "_rate", lambda *_: next(rates))
    monkeypatch.setattr(bench_data, "_memory_apart", lambda *_: next(memory))
    monkeypatch.setattr(bench_data, "_bare_rate", lambda *_: 200.0)
    assert main(["bench", "data", str(vidit_root), "--crop=32", "--workers=1", "--repeats=1"]) == 0
    out = capsys.readouterr().out
    assert f"`python -m ltnet_pl bench data {vidit_root} --crop 32 --workers 1 --repeats 1`" in out
    assert "frames of 40x56, windows of 32" in out
    assert "| off | 1 | 10.0 | 120.0 | 12.0 | 60% | 90.0 |" in out
    assert "| on | 1 | 5.0 | 20.0 | 4.0 | 10% | 15.0 |" in out
    assert "| files, augmentation off | 60 |" in out
    assert "| cache, augmentation off | 30 |" in out
    assert f"| files, augmentation on | {MISSING} |" in out
    assert "| cache, augmentation on | 80 |" in out


@pytest.mark.slow
def test_files_and_cache_are_read_by_workers(vidit_root, built_cache, capsys):
    flags = ["--crop=32", "--workers=1", "--repeats=1", "--samples=8", f"--cache={built_cache}"]
    assert main(["bench", "data", str(vidit_root), *flags]) == 0
    rows = re.findall(
        r"^\| (off|on) \| 1 \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (\d+)% \| ([\d.]+) \|$", capsys.readouterr().out, re.MULTILINE
    )
    assert [row[0] for row in rows] == ["off", "on"]
    for _, files, mapped, ratio, *_ in rows:
        assert float(ratio) == pytest.approx(float(mapped) / float(files), abs=0.1)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--crop=4"], "--crop 4: expected 8 or more"),
        (["--workers=0"], "--workers 0: expected 1 or more"),
        (["--workers=x"], "--workers x: expected whole numbers"),
        (["--crop=64"], "--data.crop 64 is larger than the frames"),
    ],
)
def test_refused(vidit_root, capsys, flags, said):
    assert main(["bench", "data", str(vidit_root), *flags]) == 2
    assert said in capsys.readouterr().err


def enlarge(root, folder, scenes, side):
    """Make a set and its cache look like one of many scenes of larger frames: sparse arrays, and hard links to one file."""
    (folder / "manifest.json").rename(folder / "old.json")
    manifest = json.loads((folder / "old.json").read_text())
    first = [block for block in manifest["blocks"] if "Image000" in block["array"]]
    blocks, seconds = [], {}
    for index in range(scenes):
        for block in first:
            text = json.dumps(block).replace("Image000", f"Image{index:03d}")
            copy = json.loads(text) | {"original": [side, side]}
            copy["shape"] = [copy["shape"][0], side, side, *copy["shape"][3:]]
            for file in copy["files"]:
                path = root / file["name"]
                if not path.exists():
                    source = root / re.sub(r"Image\d+", "Image000", file["name"])
                    path.hardlink_to(source)
                found = path.stat()
                file |= {"size": found.st_size, "mtime": found.st_mtime_ns}
                seconds[file["name"]] = found.st_mtime_ns
            size = HEADER + int(np.prod(copy["shape"])) * np.dtype(copy["dtype"]).itemsize
            array = folder / copy["array"]
            head = (folder / block["array"]).read_bytes()[:HEADER]
            with array.open("wb") as file:
                file.write(head)
                file.truncate(size)
            if copy["dtype"] == "float32":  # a depth of nothing but background is refused
                with array.open("r+b") as file:
                    file.seek(HEADER)
                    file.write(np.ones(side * side, dtype=np.float32).tobytes())
            blocks.append(copy)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"blocks": blocks}))
    return len(seconds)


@pytest.mark.slow
def test_twelve_thousand_images_cost_a_worker_little_memory(vidit_copy, tmp_path):
    """300 scenes of 40 lights at 512 pixels: below 50 MB of its own above a worker of an empty set."""
    for path in vidit_copy.glob("Image00[1-9]*"):
        path.unlink()
    for kelvin in (3500, 5500):
        for path in sorted(vidit_copy.glob("Image000_2500_*.png")):
            (vidit_copy / path.name.replace("2500", str(kelvin))).hardlink_to(path)
    folder = tmp_path / "cache"
    cache(str(vidit_copy), str(folder), workers=1)
    assert enlarge(vidit_copy, folder, 300, 512) == 300 * 41
    # in a process of its own: workers share the memory of the one that starts them, and copy what they touch of it
    code = "\n".join(
        [
            "from pathlib import Path; from caches import module; from ltnet_pl.bench import data as bench",
            f"root, folder, place = map(Path, {[str(vidit_copy), str(folder), str(tmp_path)]})",
            "data = module(root, folder, place, crop=256, val_scenes=0, batch_size=8, samples_per_epoch=100_000)",
            "print(bench.memory_above_empty(data.datasets['train'], 2, 8))",
        ]
    )
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, check=True, capture_output=True, text=True, timeout=300, env=environment())
    assert 0 < float(done.stdout) < 50
