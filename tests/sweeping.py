"""Sweeps of made-up trials: their YAML, how they are run, and what they leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml
from fits import environment

from ltnet_pl.cli import main

TRIAL = Path(__file__).with_name("trial.py")


def write(path, parameters, **more):
    """The YAML of a sweep of made-up trials."""
    content = {"method": "grid", "metric": {"name": "val/psnr", "goal": "maximize"}, "parameters": parameters}
    content |= {"command": ["${interpreter}", str(TRIAL), "${args}"]} | more
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def run(file, out, *more):
    return main(["sweep", str(file), f"--out={out}", "--slots=cpu;cpu", "--every=0.05", *more])


def journal(out):
    """How each trial stands, by number."""
    lines = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    return {line["number"]: line for line in lines[1:]}


def calls(out, number):
    path = out / "trials" / f"{number:04d}" / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def start(file, out, *more):
    call = [sys.executable, "-m", "ltnet_pl", "sweep", str(file), f"--out={out}", "--slots=cpu;cpu", "--every=0.05", *more]
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())


def wait_for(condition):
    # starting a process takes long where others keep the cores busy
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # a child that nobody waits for stays as a zombie
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
