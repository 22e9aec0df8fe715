"""Caches: the same pixels as from files, rebuilt where they must be and only there, and refused where they do not fit."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from contract import equal, first
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ltnet_pl import InputError
from ltnet_pl.cache import cache, plan
from ltnet_pl.cli import main
from ltnet_pl.data import AnyToAnyDataModule
from ltnet_pl.data.cached import FrameCache, wanted_files
from ltnet_pl.data.frames import Frames
from ltnet_pl.vidit import find_settings, read_depth, read_image


@pytest.fixture(scope="module")
def built(vidit_root, tmp_path_factory):
    """A cache of the shared set at the files' size. Read only."""
    folder = tmp_path_factory.mktemp("caches") / "cache"
    cache(str(vidit_root), str(folder), workers=1)
    return folder


@pytest.fixture
def own(vidit_copy, tmp_path):
    """A set of two scenes, and a cache of it, which a test may change."""
    for path in vidit_copy.glob("Image00[2-9]*"):
        path.unlink()
    cache(str(vidit_copy), str(tmp_path / "cache"), workers=1)
    return vidit_copy, tmp_path / "cache"


def _times(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "blocks").glob("*.npy")}


def _module(root, folder, tmp_path, **kwargs):
    given = {"batch_size": 3, "crop": 32, "val_scenes": 2, "pairs_per_scene": 2, "pairs": str(tmp_path / "pairs")}
    data = AnyToAnyDataModule(root=str(root), cache=None if folder is None else str(folder), **given | kwargs)
    data.setup("fit")
    return data


# --- the same pixels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 24])
def test_cached_frames_are_the_decoded_ones(vidit_root, built, tmp_path, size):
    folder = built
    if size is not None:
        folder = tmp_path / "small"
        cache(str(vidit_root), str(folder), size=size, workers=1)
    held = FrameCache(folder, size, [vidit_root])
    decoded = Frames(size, 0)
    for views in find_settings(vidit_root).values():
        for view in views.values():
            mapped = held.get(view.image)
            assert np.array_equal(mapped.array, decoded.image(view.image))
            assert mapped.original == (40, 56)
            assert not mapped.array.flags.writeable
            depth = held.get(view.depth).array
            assert depth.dtype == np.float32
            assert np.array_equal(depth, decoded.depth(view.depth, view.image))
    assert held.get(vidit_root / "Image999.npy") is None


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_from_files(vidit_root, built, tmp_path, workers):
    plain, mapped = (_module(vidit_root, folder, tmp_path, num_workers=workers) for folder in (None, built))
    for loader in ("train_dataloader", "val_dataloader"):
        assert equal(first(getattr(mapped, loader)()), first(getattr(plain, loader)()))


def test_numpy_reads_the_arrays(vidit_root, built):
    images = np.load(built / "blocks" / "Image000.images.npy", mmap_mode="r")
    paths = sorted(vidit_root.glob("Image000_*.png"))
    assert images.shape == (len(paths), 40, 56, 3)
    assert np.array_equal(images[3], read_image(paths[3]))
    assert np.array_equal(np.load(built / "blocks" / "Image000.npy")[0], read_depth(vidit_root / "Image000.npy"))


def test_every_layout_has_a_plan(vidit_root, tmp_path):
    """Track 1 and the challenge's pairs, and their ground truth in a folder of its own."""
    image, depth = vidit_root / "Image000_4500_E.png", vidit_root / "Image000.npy"
    for name in ("one/input/Image000", "one/target/Image000", "two/input/Pair000", "two/guide/Pair000", "truth/Pair000"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, path)
        if "input" in name or "guide" in name:
            shutil.copy(depth, path.with_suffix(".npy"))
    wanted = {
        "one": ["input/Image000.images.npy", "target/Image000.images.npy", "input/Image000.npy"],
        "two": ["guide/Pair000.images.npy", "input/Pair000.images.npy", "guide/Pair000.npy", "input/Pair000.npy"],
        "truth": ["Pair000.images.npy"],
    }
    for name, arrays in wanted.items():
        assert [item.array for item in plan(tmp_path / name)] == [f"blocks/{array}" for array in arrays]
        cache(str(tmp_path / name), str(tmp_path / "caches" / name), workers=1)
        held = FrameCache(tmp_path / "caches" / name, None, [tmp_path / name])
        for path in wanted_files(tmp_path / name):
            assert np.array_equal(held.get(path).array, read_image(path) if path.suffix == ".png" else read_depth(path))


def test_several_sets_have_a_cache_each(vidit_root, built, own, tmp_path):
    """A list of folders serves several roots; a set without a cache is read from its files."""
    root, folder = own
    kwargs = {"val_scenes": 0, "val_root": str(root), "batch_size": 3, "crop": 32, "pairs": str(tmp_path / "pairs")}
    plain = AnyToAnyDataModule(root=str(vidit_root), **kwargs)
    both = AnyToAnyDataModule(root=str(vidit_root), cache=[str(built), str(folder)], **kwargs)
    one = AnyToAnyDataModule(root=str(vidit_root), cache=str(folder), **kwargs)
    for data in (plain, both, one):
        data.setup("fit")
    assert len(both.frames.caches) == 2
    for loader in ("train_dataloader", "val_dataloader"):
        want = first(getattr(plain, loader)())
        assert equal(first(getattr(both, loader)()), want)
        assert equal(first(getattr(one, loader)()), want)


def test_half_precision_keeps_depth_but_for_its_scale(vidit_root, tmp_path):
    cache(str(vidit_root), str(tmp_path / "half"), depth="float16", workers=1)
    held = FrameCache(tmp_path / "half", None, [vidit_root])
    for path in vidit_root.glob("*.npy"):
        depth, half = read_depth(path), held.get(path).array
        assert half.dtype == np.float32
        assert np.array_equal(half > 0, depth > 0)
        assert np.abs(half * depth.max() - depth).max() <= depth.max() * 2.0**-11


# --- rebuilding -------------------------------------------------------------------------------------------------------------


def test_a_second_build_makes_nothing(own, capsys):
    root, folder = own
    before = _times(folder)
    cache(str(root), str(folder), workers=1)
    assert _times(folder) == before
    assert "4 of 4 arrays are up to date" in capsys.readouterr().out


def test_an_interrupted_build_goes_on(own):
    """Without its manifest a cache is unfinished; what was whole is kept, what was half-written is not."""
    root, folder = own
    whole = (folder / "manifest.json").read_text()
    (folder / "manifest.json").unlink()
    (folder / "blocks" / "Image001.images.npy.json").unlink()
    (folder / "blocks" / ".Image001.npy.99.partial").write_bytes(b"half")
    with pytest.raises(InputError, match="is not finished"):
        FrameCache(folder, None, [root])
    before = _times(folder)
    cache(str(root), str(folder), workers=1)
    after = _times(folder)
    assert {name for name in after if after[name] != before[name]} == {"Image001.images.npy"}
    assert (folder / "manifest.json").read_text() == whole
    assert not list((folder / "blocks").glob(".*"))


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1), name=st.sampled_from(["Image000.images.npy", "Image001.npy", "Image000.npy.json"]))
def test_what_was_cut_short_is_made_anew(vidit_root, built, tmp_path, share, name):
    folder = shutil.copytree(built, tmp_path / "cut", dirs_exist_ok=True)
    want = (built / "blocks" / name).read_bytes()
    # without its last byte, a line break, a JSON file would still be whole
    (folder / "blocks" / name).write_bytes(want[: int(share * (len(want) - 2))])
    cache(str(vidit_root), str(folder), workers=1)
    assert (folder / "blocks" / name).read_bytes() == want
    assert (folder / "manifest.json").read_bytes() == (built / "manifest.json").read_bytes()


def test_changed_new_and_removed_files(own):
    root, folder = own
    image, gone = root / "Image000_4500_E.png", root / "Image001_2500_N.png"
    shutil.copyfile(root / "Image000_6500_E.png", image)
    with pytest.raises(InputError, match=r"stale: .*Image000_4500_E.png was changed"):
        FrameCache(folder, None, [root])
    gone.unlink()
    before = _times(folder)
    cache(str(root), str(folder), workers=1)
    held = FrameCache(folder, None, [root])
    assert np.array_equal(held.get(image).array, read_image(root / "Image000_6500_E.png"))
    assert held.get(gone) is None
    after = _times(folder)
    assert {name for name in after if after[name] != before[name]} == {"Image000.images.npy", "Image001.images.npy"}
    shutil.copyfile(image, gone)
    with pytest.raises(InputError, match=r"stale: it lacks .*Image001_2500_N.png"):
        FrameCache(folder, None, [root])
    for path in root.glob("Image001*"):
        path.unlink()
    cache(str(root), str(folder), workers=1)
    assert {path.name for path in (folder / "blocks").glob("*.npy")} == {"Image000.images.npy", "Image000.npy"}


def test_a_touched_or_moved_set_is_taken_over_without_decoding(own, tmp_path):
    root, folder = own
    os.utime(root / "Image000_4500_E.png", ns=(1, 1))
    moved = root.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="was made of"):
        FrameCache(folder, None, [moved])
    before = _times(folder)
    cache(str(moved), str(folder), workers=1)
    assert _times(folder) == before
    assert FrameCache(folder, None, [moved]).get(moved / "Image000_4500_E.png") is not None


def test_verify_finds_a_flipped_bit(own):
    root, folder = own
    array = folder / "blocks" / "Image000.images.npy"
    data = bytearray(array.read_bytes())
    whole = bytes(data)
    data[1000] ^= 1
    array.write_bytes(data)
    cache(str(root), str(folder), workers=1)
    assert array.read_bytes() != whole
    cache(str(root), str(folder), workers=1, verify=True)
    assert array.read_bytes() == whole


# --- refused ----------------------------------------------------------------------------------------------------------------


def _spoil(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "is no cache (no such folder)"),
        (lambda folder: (folder / "settings.json").unlink() or (folder / "manifest.json").unlink(), "is no cache (no manifest"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "is broken"),
        (lambda folder: _spoil(folder / "manifest.json", lambda c: c.update(format=99)), "is of format 99; expected 1"),
        (lambda folder: _spoil(folder / "manifest.json", lambda c: c["blocks"][0].update(dtype="O")), "is broken"),
        (lambda folder: os.truncate(folder / "blocks" / "Image000.npy", 300), f"cut short; expected {128 + 40 * 56 * 4} bytes"),
        (lambda folder: (folder / "blocks" / "Image001.npy").unlink(), "is missing or cut short"),
    ],
)
def test_a_cache_that_does_not_serve(own, tmp_path, spoil, said):
    root, folder = own
    spoil(folder)
    with pytest.raises(InputError) as error:
        _module(root, folder, tmp_path, val_scenes=0)
    assert said in str(error.value)


def test_a_cache_of_another_size_or_set(vidit_root, built, own, tmp_path):
    with pytest.raises(InputError, match=r"holds frames of the files' own size, but --data.size asks for 24 px.*size null"):
        _module(vidit_root, built, tmp_path, size=24, crop=16)
    with pytest.raises(InputError, match=r"was made of .*set, but this run reads .*vidit0"):
        _module(vidit_root, own[1], tmp_path)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--size", "4"], "--size 4: expected 8 or more"),
        (["--workers", "0"], "--workers 0: expected 1 or more"),
        (["--size", "24"], "holds a cache of size None; expected size 24"),
        (["--depth", "float16"], "holds a cache of depth float32; expected depth float16"),
    ],
)
def test_command_refuses(vidit_root, built, capsys, flags, said):
    before = (built / "manifest.json").read_bytes()
    assert main(["cache", str(vidit_root), str(built), *flags]) == 2
    assert said in capsys.readouterr().err
    assert (built / "manifest.json").read_bytes() == before


def test_command_refuses_folders(vidit_root, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("x")
    for data, out, said in (
        (vidit_root, tmp_path / "file", "is a file"),
        (vidit_root, tmp_path / "full", "is not empty and holds no cache"),
        (tmp_path / "nowhere", tmp_path / "out", "no such folder"),
        (tmp_path / "full", tmp_path / "out", "no VIDIT images"),
    ):
        assert main(["cache", str(data), str(out)]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "full" / "notes.txt").exists()


def test_a_disk_that_is_too_small_is_refused_before_anything_is_built(vidit_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    assert main(["cache", str(vidit_root), str(tmp_path / "cache")]) == 2
    assert "GB are free" in capsys.readouterr().err
    assert not (tmp_path / "cache" / "blocks").exists()


def test_a_broken_image_is_named_and_the_rest_is_kept(own, capsys):
    root, folder = own
    path = root / "Image001_4500_E.png"
    path.write_bytes(path.read_bytes()[:200])
    assert main(["cache", str(root), str(folder), "--workers", "1"]) == 2
    assert "Image001_4500_E.png: the image is truncated" in capsys.readouterr().err
    assert not (folder / "manifest.json").exists()
    assert (folder / "blocks" / "Image000.images.npy").exists()


@pytest.mark.slow
def test_fit_from_a_cache_gives_the_same_weights(vidit_root, built, tmp_path):
    states = []
    given = {"root": vidit_root, "pairs": tmp_path / "pairs", "val_scenes": 2, "test_scenes": 2, "crop": 32, "size": "null"}
    for name, flags in (("files", []), ("cache", [f"--data.cache={built}"])):
        run = tmp_path / name
        configs = ["--config", "experiments/base.yaml", "--config", "experiments/debug.yaml"]
        data = [f"--data.{key}={value}" for key, value in given.items()]
        assert main(["fit", *configs, *data, f"--trainer.default_root_dir={run}", *flags]) == 0
        states.append(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_cache_without_a_set_asks_for_the_set(built):
    data = AnyToAnyDataModule(cache=str(built))
    with pytest.raises(InputError, match="root is not given"):
        data.setup("fit")
