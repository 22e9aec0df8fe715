"""The demo's folder of uploads, previews and results keeps within its size, whoever writes into it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from demo_page import SIMPLE, small_relighter
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.demo.files import Files
from ltnet_pl.demo.lights import Wanted
from ltnet_pl.demo.serve import quiet
from ltnet_pl.demo.studio import Studio
from ltnet_pl.light import Light

E = Wanted(Light(90, 4500))


@pytest.fixture(scope="module")
def relighter():
    return small_relighter()


def saved(path, height=90, width=128, seed=0):
    """A picture of 35 KB."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(60, 250, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def written(path, size, used):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(bytes(size))
    os.utime(path, (used, used))
    return path


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_what_was_not_used_for_longest_goes_with_its_folder(tmp_path):
    files = Files(tmp_path, 8e-3)  # 8388 bytes, of which 7340 may be there once it is tidied
    paths = [written(tmp_path / f"{number}" / "a.png", 2000, 1000 - number) for number in range(5)]
    assert files.used(paths[4])
    files.tidy()
    assert [path.exists() for path in paths] == [True, True, False, False, True]
    assert [path.parent.exists() for path in paths] == [True, True, False, False, True]
    assert not files.used(paths[2])


def test_the_newest_stays_however_large(tmp_path):
    paths = [written(tmp_path / f"{number}.png", 5000, 1000 + number) for number in range(2)]
    Files(tmp_path, 1e-3).tidy()
    assert [path.exists() for path in paths] == [False, True]


def test_room_is_made_before_it_is_needed(tmp_path):
    files = Files(tmp_path, 8e-3)
    largest = 0
    for number in range(50):
        files.expect(700)
        written(tmp_path / f"{number}" / "a.webp", 700, 1000 + number)
        largest = max(largest, size_of(tmp_path))
    assert 8388 * 0.8 < largest <= 8388


def test_files_that_vanish_or_are_written_anew_meanwhile_are_no_error(tmp_path, monkeypatch):
    files = Files(tmp_path, 1e-3)
    paths = [written(tmp_path / f"{number}.png", 2000, 1000 + number) for number in range(3)]
    walk, stat = os.walk, Path.stat

    def gone_since(folder):
        for place, folders, names in walk(folder):
            yield place, folders, [*names, "gone.png"]

    def vanishing(path, **how):
        """The first file goes between the look at it and its removal."""
        known = stat(path, **how)
        if path == paths[0]:
            path.unlink()
        return known

    def rewritten():
        found = list(known())
        written(paths[1], 2000, 5000)
        return found

    known = files._found
    monkeypatch.setattr("os.walk", gone_since)
    monkeypatch.setattr(files, "_found", rewritten)
    monkeypatch.setattr(Path, "stat", vanishing)
    files.tidy()
    monkeypatch.undo()
    assert [path.exists() for path in paths] == [False, True, True]


def test_many_tidy_at_once(tmp_path):
    failed, ready = [], threading.Barrier(8)
    for number in range(300):
        written(tmp_path / f"{number}" / "a.png", 100, 1000 + number)

    def tidied():
        ready.wait()
        try:
            Files(tmp_path, 1e-3).tidy()  # each with a lock of its own, as if there were none
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=tidied) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert size_of(tmp_path) <= 1e-3 * 2**20
    assert (tmp_path / "299" / "a.png").exists()


def test_old_files_go_and_used_ones_stay(relighter, tmp_path):
    studio = Studio(relighter, SIMPLE, tmp_path, preview=64, kept=1, disk_mb=0.12)
    paths = [saved(tmp_path / f"{index}.png", seed=index) for index in range(4)]
    for age, path in enumerate(reversed(paths)):
        os.utime(path, (1e9 - age, 1e9 - age))
    picture = studio.open(paths[0])  # the oldest, used just now
    assert [path.exists() for path in paths] == [True, False, True, True]
    paths[0].unlink()
    studio.open(paths[3])
    with pytest.raises(InputError, match=r"^0\.png: is no longer here"):
        studio.preview(picture, E)


def test_an_upload_that_is_refused_makes_room_too(relighter, tmp_path):
    studio = Studio(relighter, SIMPLE, tmp_path, preview=64, disk_mb=0.05)
    for call in (studio.open, studio.light_of):
        old = written(tmp_path / "old" / "a.png", 60_000, 1000)
        (tmp_path / "notes.png").write_text("no picture")
        with pytest.raises(InputError, match="is not an image"):
            call(tmp_path / "notes.png")
        assert not old.exists()


def test_moving_the_lamp_for_long_fills_no_disk(relighter, tmp_path, monkeypatch):
    """By Gradio's own part that shows the pair: it writes each, and removes none."""
    quiet()
    gradio = pytest.importorskip("gradio", reason="the extra demo (gradio) is not installed")
    folder = tmp_path / "files"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    slider = gradio.ImageSlider()
    studio = Studio(relighter, SIMPLE, folder, preview=64, disk_mb=0.06)
    picture = studio.open(saved(folder / "garden.png"))
    pairs, largest = set(), 0
    for number in range(120):
        shown = slider.postprocess(studio.preview(picture, Wanted(Light(0, 2600 + 30 * number))))
        pairs.update((image.path, Path(image.path).stat().st_size) for image in shown.root)  # the newest can be fetched
        largest = max(largest, size_of(folder))
    assert sum(size for _, size in pairs) > 2 * 0.06 * 2**20
    assert largest <= 0.06 * 2**20
    assert sum(1 for path in folder.iterdir() if path.is_dir()) <= len(list(folder.rglob("*.webp")))
    assert studio.full(picture, E).is_file()  # the photograph is still there: it was looked at all the time
