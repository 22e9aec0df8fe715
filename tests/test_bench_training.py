"""Training runs of the benchmark: what a folder may go on from, and what is refused."""

import time

import pytest

from ltnet_pl.bench import training
from ltnet_pl.bench.training import Mark, Trainer
from ltnet_pl.files import locked


@pytest.fixture
def run(tmp_path):
    """A run folder of the benchmark with a checkpoint and a mark."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    training.write_mark(folder, Mark("config", "data", "code", 60.0, 2, time.time() - 30, False))
    return folder


def attempt(run, monkeypatch, config="config", data="data"):
    """Try to train; returns what the child found in the folder, and the mark at the end."""
    seen, counts = [], []

    def child(trainer, folder, flags, lock, threads):
        counts.append(threads)
        seen.extend(path.name for path in folder.glob("checkpoints/*"))
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").write_bytes(b"trained")
        (folder / "config.yaml").write_text("{}")
        return 0

    monkeypatch.setattr(Trainer, "_child", child)
    monkeypatch.setattr(training, "code_hash", lambda: "code")
    monkeypatch.setattr(training, "config_hash", lambda _: config)
    Trainer(1, "code").fit(run, [], config, data)
    mark = training.read_mark(run)
    assert counts == [mark.threads]
    return seen, mark


def test_a_stopped_run_goes_on_and_its_time_adds_up(run, monkeypatch):
    seen, mark = attempt(run, monkeypatch)
    assert seen == ["last.ckpt"]
    assert mark.finished
    # as it began: another number of threads adds in another order
    assert mark.threads == 2
    # what was lost after the last checkpoint does not count
    assert 89 < mark.seconds < 95
    assert training.trained(run, "config", "data", "code")
    assert not training.trained(run, "config", "data", "other")


@pytest.mark.parametrize("change", [{"config": "other"}, {"data": "other"}])
def test_another_run_starts_afresh(run, monkeypatch, change):
    seen, mark = attempt(run, monkeypatch, **change)
    assert seen == []
    assert mark.seconds < 5
    assert mark.threads == 1


def test_a_folder_of_others_is_left_alone(run, monkeypatch):
    (run / training.MARK).unlink()
    with pytest.raises(Exception, match="which bench did not write"):
        attempt(run, monkeypatch)
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == b"weights"


def test_code_that_changes_meanwhile_is_refused(run, monkeypatch):
    monkeypatch.setattr(training, "code_hash", lambda: "edited")
    with pytest.raises(Exception, match="code was changed since this command began"):
        Trainer(1, "code").fit(run, [], "config", "data")


def test_a_run_that_another_process_trains_is_refused(run, monkeypatch):
    monkeypatch.setattr(training, "code_hash", lambda: "code")
    with locked(run, "holds it"), pytest.raises(Exception, match="another process trains it"):
        Trainer(1, "code").fit(run, [], "config", "data")


def test_a_configuration_that_is_not_the_one_asked_for_is_noticed(run, monkeypatch):
    monkeypatch.setattr(
        Trainer, "_child", lambda trainer, folder, flags, lock, threads: (folder / "config.yaml").write_text("{}") * 0
    )
    monkeypatch.setattr(training, "code_hash", lambda: "code")
    monkeypatch.setattr(training, "config_hash", lambda _: "another")
    with pytest.raises(Exception, match="trained with a configuration of hash another; expected config: leave"):
        Trainer(1, "code").fit(run, [], "config", "data")
