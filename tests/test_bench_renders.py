"""Results of several renders of the same pictures stand side by side; those of other pictures do not."""
# ruff: noqa: F811 - fixtures are imported

import json
import shutil

import numpy as np
import pytest
import scenes
from bench_tiny import bench, data, foreign  # noqa: F401 - fixtures go by name
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.bench.renders import Renders
from ltnet_pl.vidit import read_depth


def rendered_anew(data, folder, change):
    """The set with every image through a function, in other bytes."""
    shutil.copytree(data, folder)
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            pixels = np.array(image)
        Image.fromarray(change(pixels)).save(path, compress_level=0)
    return folder


def test_a_result_stands_for_other_bytes_of_the_same_pictures(bench, data, tmp_path, capsys):
    bench.one_to_one()
    assert bench("--rows=CopyInput") == 0
    path = bench.results / "tiny" / "CopyInput-seed0.json"
    first = path.read_bytes()
    bench.data = rendered_anew(data, tmp_path / "again", lambda pixels: pixels)
    capsys.readouterr()
    assert bench("--rows=CopyInput") == 0
    assert "1 runs, 0 to do" in capsys.readouterr().out
    assert path.read_bytes() == first
    known = json.loads((bench.results / "tiny" / "renders.json").read_text())
    assert len(known) == 2
    assert json.loads(first)["data"] in known
    look = next(iter(known.values()))
    assert (len(look["copied"]), len(look["scenes"])) == (2, 6)


def other_pictures(folder):
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            pixels = np.array(image)
        Image.fromarray(pixels // 2).save(path)


def other_depth(folder):
    for path in folder.glob("Image*.npy"):
        scenes.write_depth(path, 1.5 * read_depth(path))


def other_training_scenes(folder):
    for path in folder.glob("Image000_*.png"):
        with Image.open(path) as image:
            pixels = np.array(image)
        Image.fromarray(255 - pixels).save(path)


def fewer_training_scenes(folder):
    for path in (*folder.glob("Image000*"),):
        path.unlink()


@pytest.mark.parametrize("change", [other_pictures, other_depth, other_training_scenes, fewer_training_scenes])
def test_a_result_does_not_stand_for_another_set(change, bench, data, tmp_path, capsys):
    bench.one_to_one()
    assert bench("--rows=CopyInput") == 0
    bench.data = rendered_anew(data, tmp_path / "other", lambda pixels: pixels)
    change(bench.data)
    capsys.readouterr()
    assert bench("--rows=CopyInput") == 0
    assert "1 runs, 1 to do" in capsys.readouterr().out


def test_what_is_not_known_is_not_the_same(tmp_path):
    renders = Renders(tmp_path)
    assert renders.same("a", "a")
    assert renders.apart("a", "b") is None
    assert not renders.same("a", "b")
    (tmp_path / "renders.json").write_text('{"a": {"copied": [14.0]}, "b": {"copied": [14.0, 14.0]}}')
    assert not Renders(tmp_path).same("a", "b")
    (tmp_path / "renders.json").write_text('["a"]')
    with pytest.raises(InputError, match=r"renders\.json.*delete it"):
        Renders(tmp_path)
