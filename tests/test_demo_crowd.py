"""The demo's page with many visitors at once, by the requests that their browsers would send."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from demo_page import ROOT, WARNS, served

from ltnet_pl.demo.studio import Studio

pytest.importorskip("gradio", reason="the extra demo (gradio) is not installed")

pytestmark = [
    pytest.mark.slow,
    *map(pytest.mark.filterwarnings, WARNS),
]


def handler(url):
    """The number of what the page calls when an example is chosen."""
    config = json.loads(urllib.request.urlopen(f"{url}config").read())
    return next(
        each["id"]
        for each in config["dependencies"]
        if each["targets"] and each["targets"][0][1] == "select" and len(each["outputs"]) > 9
    )


def ask(url, wanted, visitor):
    """Get in line for an example, as the page does; HTTP's status, and what is said with it."""
    data = [90, 4500, 45, 0, 100, None, None]
    body = {"data": data, "fn_index": wanted, "session_hash": visitor, "event_data": {"index": 0, "value": ""}}
    request = urllib.request.Request(
        f"{url}gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def told(url, visitor):
    """What a visitor who waits in line is told at last: whether it was done, and the paths of the pictures."""
    with urllib.request.urlopen(f"{url}gradio_api/queue/data?session_hash={visitor}") as stream:
        for line in stream:
            if b"process_completed" in line:
                said = json.loads(line.decode().removeprefix("data: "))
                return said["success"], re.findall(r'"path": "([^"]+)"', json.dumps(said["output"]))
    return None


def memory():
    """MiB that this process holds, the page's server in it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def peak():
    """How many MiB more are held at the highest, within the block; a list of one number, filled at its end."""
    grown, begin, done = [], memory(), threading.Event()
    highest = begin

    def watch():
        nonlocal highest
        while not done.wait(0.005):
            highest = max(highest, memory())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield grown
    finally:
        done.set()
        watching.join()
        grown.append(highest - begin)


def test_twenty_at_once_are_all_answered_in_the_memory_of_few(tmp_path):
    """Twenty visitors ask for an example at once: none is sent away, and their pictures do not stand side by side.

    Measured at 384 pixels: a visitor alone takes 50 to 140 MiB more, twenty one after the other 50 to 250, and twenty side by
    side, with neither the queue's limit nor the studio's lock, 1200.
    """
    with served(tmp_path, max_megapixels=1, preview=384) as url:
        wanted, answers = handler(url), {}
        assert ask(url, wanted, "first")[0] == 200
        assert told(url, "first")[0]

        def visit(visitor):
            answers[visitor] = (ask(url, wanted, visitor)[0], *told(url, visitor))

        visitors = [f"visitor{number}" for number in range(20)]
        threads = [threading.Thread(target=visit, args=(visitor,)) for visitor in visitors]
        with peak() as grown:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=300)
        assert sorted(answers) == sorted(visitors)
        for status, done, paths in answers.values():
            assert (status, done) == (200, True)
            assert len(paths) == 3  # depth, before, after
            assert all(Path(path).is_file() for path in paths)
        assert grown[0] < 400


def test_the_line_is_of_32_and_the_next_is_told(tmp_path, monkeypatch):
    """One is served, 32 wait, and who comes then is sent away with a sentence."""
    go = threading.Event()
    monkeypatch.setattr(Studio, "with_depth", lambda *given: go.wait(120) and pytest.fail("is not asked for"))
    monkeypatch.setattr("ltnet_pl.demo.page.LOG.exception", lambda said: None)
    try:
        with served(tmp_path, preview=96) as url:
            wanted = handler(url)
            assert ask(url, wanted, "served")[0] == 200
            time.sleep(2)  # until it has left the line
            answers = [ask(url, wanted, f"visitor{number}") for number in range(36)]
            assert [status for status, _ in answers] == [200] * 32 + [503] * 4
            assert "requests that wait | 32;" in (ROOT / "docs" / "howto" / "demo.md").read_text()
            assert all("Queue is full" in said for _, said in answers[32:])
            go.set()
    finally:
        go.set()
