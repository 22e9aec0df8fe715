"""Sweeps and trials that are stopped and killed, from outside and by each other, and what is left of them."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from sweeping import alive, calls, journal, run, start, wait_for, write


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_trial_that_is_ended_from_outside_goes_on_but_not_forever(tmp_path, capsys, number):
    """It cannot be told from a system without memory, which would end it always."""
    parameters = {"a": {"values": [1, 2]}, "killed": {"value": 2}, "number": {"value": int(number)}}
    file, out = write(tmp_path / "x.yaml", parameters), tmp_path / "out"
    assert run(file, out) == 2
    printed = capsys.readouterr().out
    assert [len(calls(out, trial)) for trial in range(2)] == [1, 3]
    assert [journal(out)[trial]["status"] for trial in range(2)] == ["finished", "failed"]
    assert f"trial 1 was ended by {number.name} from outside; it goes on" in printed
    assert "3 times from outside" in printed
    assert run(file, out, "--retry") == 2
    assert len(calls(out, 1)) == 6


def test_other_ends_are_failures_at_once(tmp_path):
    parameters = {"a": {"values": [1]}, "killed": {"value": 1}, "number": {"value": int(signal.SIGABRT)}}
    file, out = write(tmp_path / "x.yaml", parameters), tmp_path / "out"
    assert run(file, out) == 2
    assert len(calls(out, 0)) == 1
    assert journal(out)[0]["code"] == -signal.SIGABRT


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="a trial follows its parent's death by Linux's prctl")


@LINUX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_sweep_leaves_no_trial_and_goes_on(tmp_path, number):
    hold, out = tmp_path / "hold", tmp_path / "out"
    hold.write_text("")
    file = write(tmp_path / "x.yaml", {"a": {"values": [1, 2, 3, 4]}, "hold": {"value": str(hold)}, "free": {"value": 1}})
    process = start(file, out)
    wait_for(lambda: (out / "trials" / "0002" / "calls.jsonl").exists())
    assert journal(out)[0]["status"] == "finished"
    pids = [calls(out, trial)[0]["pid"] for trial in (1, 2)]
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 130), printed
    wait_for(lambda: not any(map(alive, pids)))
    hold.unlink()
    assert run(file, out) == 0
    assert {trial["status"] for trial in journal(out).values()} == {"finished"}
    # what had ended is not run again, what was cut short is
    assert [len(calls(out, trial)) for trial in range(4)] == [1, 2, 2, 1]


@LINUX
def test_what_ends_while_a_sweep_is_stopped_is_noted(tmp_path):
    """Trial 0 ends between the last look and the signal, trial 1 is ended by somebody who ends all, as systemd does."""
    hold, out = tmp_path / "hold", tmp_path / "out"
    hold.write_text("")
    file = write(tmp_path / "x.yaml", {"a": {"values": [1, 2]}, "hold": {"value": str(hold)}, "free": {"value": 1}})
    process = start(file, out, "--every=5")
    wait_for(lambda: len(list(out.glob("trials/*/calls.jsonl"))) == 2)
    first, second = (calls(out, trial)[0]["pid"] for trial in (0, 1))
    wait_for(lambda: not alive(first))
    assert journal(out)[0]["status"] == "running"
    os.kill(second, signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert [journal(out)[trial]["status"] for trial in (0, 1)] == ["finished", "running"]
    assert (journal(out)[1]["code"], journal(out)[1]["interrupts"], journal(out)[1]["tail"]) == (143, 0, None)
    hold.unlink()
    before = journal(out)[1]["seconds"]
    assert before >= 1
    assert run(file, out) == 0
    assert [len(calls(out, trial)) for trial in (0, 1)] == [1, 2]
    # of all sittings
    assert journal(out)[1]["seconds"] > before


@LINUX
def test_a_program_of_others_that_leaves_with_0_when_it_is_stopped_is_not_finished(tmp_path):
    hold, out = tmp_path / "hold", tmp_path / "out"
    hold.write_text("")
    file = write(tmp_path / "x.yaml", {"a": {"values": [1]}, "hold": {"value": str(hold)}, "leave": {"value": 0}})
    process = start(file, out)
    wait_for(lambda: (out / "trials" / "0000" / "calls.jsonl").exists())
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert journal(out)[0]["status"] == "running"


@LINUX
def test_trials_of_a_killed_sweep_keep_its_folder_until_they_end(tmp_path, capsys):
    hold, out = tmp_path / "hold", tmp_path / "out"
    hold.write_text("")
    parameters = {"a": {"values": [1]}, "hold": {"value": str(hold)}, "deaf": {"value": 1}, "ranks": {"value": 1}}
    file = write(tmp_path / "x.yaml", parameters)
    process = start(file, out)
    wait_for(lambda: (out / "trials" / "0000" / "rank").exists())
    process.kill()
    process.communicate()
    pid, rank = calls(out, 0)[0]["pid"], int((out / "trials" / "0000" / "rank").read_text())
    assert run(file, out) == 2
    error = capsys.readouterr().err
    assert "another process runs this sweep, or one was killed and its trials have not ended yet" in error
    assert f"process {pid} of trial 0" in error
    # the lock went with the first process; a rank that it left is seen all the same
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))
    assert run(file, out) == 2
    assert f"have not ended yet: process {rank} of trial 0; wait" in capsys.readouterr().err
    os.kill(rank, signal.SIGKILL)
    wait_for(lambda: not alive(rank))
    hold.unlink()
    assert run(file, out) == 0


def test_ranks_end_with_the_first_process_of_a_trial(tmp_path):
    file, out = write(tmp_path / "x.yaml", {"a": {"values": [1, 2]}, "ranks": {"value": 1}}), tmp_path / "out"
    assert run(file, out) == 0
    wait_for(lambda: not alive(int((out / "trials" / "0000" / "rank").read_text())))


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path):
    file, out = write(tmp_path / "x.yaml", {"a": {"values": [1, 2]}}), tmp_path / "out"
    assert run(file, out) == 0
    whole = (out / "journal.jsonl").read_text()
    (out / "journal.jsonl").write_text(whole[:-20])
    assert run(file, out) == 0
    assert {number: trial["status"] for number, trial in journal(out).items()} == {0: "finished", 1: "finished"}
