"""Caches: the same pixels as from files, and the same training."""

from __future__ import annotations

import shutil
from hashlib import blake2b

import numpy as np
import pytest
import torch
from caches import module
from contract import equal, first

from ltnet_pl import InputError
from ltnet_pl.augment import resized_depth
from ltnet_pl.cache import cache, plan
from ltnet_pl.cli import main
from ltnet_pl.data import AnyToAnyDataModule
from ltnet_pl.data.cached import FORMAT, FrameCache, wanted_files
from ltnet_pl.data.frames import Frames, resize_image
from ltnet_pl.vidit import find_settings, read_depth, read_image


def _decode_nothing(monkeypatch, root):
    """From now on a file of the set that is decoded ends the test; worker processes are forked, and do the same."""

    def refuse(path):
        assert root not in path.parents, f"{path} is decoded"
        return (read_image if path.suffix == ".png" else read_depth)(path)

    for name in ("read_image", "read_depth"):
        monkeypatch.setattr(f"ltnet_pl.data.frames.{name}", refuse)


# --- the same pixels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 24])
def test_cached_frames_are_the_decoded_ones(vidit_root, built_cache, tmp_path, size):
    folder = built_cache
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
def test_batches_are_those_from_files(vidit_root, built_cache, tmp_path, monkeypatch, workers):
    plain, mapped = (module(vidit_root, folder, tmp_path, num_workers=workers) for folder in (None, built_cache))
    want = {loader: first(getattr(plain, loader)()) for loader in ("train_dataloader", "val_dataloader")}
    _decode_nothing(monkeypatch, vidit_root)
    with pytest.raises(AssertionError, match=r"\.png is decoded"):
        first(module(vidit_root, None, tmp_path).train_dataloader())
    for loader, batch in want.items():
        assert equal(first(getattr(mapped, loader)()), batch)


def test_numpy_reads_the_arrays(vidit_root, built_cache):
    images = np.load(built_cache / "blocks" / "Image000.images.npy", mmap_mode="r")
    paths = sorted(vidit_root.glob("Image000_*.png"))
    assert images.shape == (len(paths), 40, 56, 3)
    assert np.array_equal(images[3], read_image(paths[3]))
    assert np.array_equal(np.load(built_cache / "blocks" / "Image000.npy")[0], read_depth(vidit_root / "Image000.npy"))


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


def test_several_sets_have_a_cache_each(vidit_root, built_cache, own_cache, tmp_path, monkeypatch):
    """A list of folders serves several roots; a set without a cache is read from its files."""
    root, folder = own_cache
    kwargs = {"val_scenes": 0, "val_root": str(root), "batch_size": 3, "crop": 32, "pairs": str(tmp_path / "pairs")}
    plain = AnyToAnyDataModule(root=str(vidit_root), **kwargs)
    both = AnyToAnyDataModule(root=str(vidit_root), cache=[str(built_cache), str(folder)], **kwargs)
    one = AnyToAnyDataModule(root=str(vidit_root), cache=str(folder), **kwargs)
    for data in (plain, both, one):
        data.setup("fit")
    assert len(both.frames.caches) == 2
    want = {loader: first(getattr(plain, loader)()) for loader in ("train_dataloader", "val_dataloader")}
    for cached, data in ((root, one), (root, both), (vidit_root, both)):
        _decode_nothing(monkeypatch, cached)
        for loader, batch in want.items():
            assert equal(first(getattr(data, loader)()), batch)


def test_half_precision_keeps_depth_but_for_its_scale(vidit_root, tmp_path):
    cache(str(vidit_root), str(tmp_path / "half"), depth="float16", workers=1)
    held = FrameCache(tmp_path / "half", None, [vidit_root])
    for path in vidit_root.glob("*.npy"):
        depth, half = read_depth(path), held.get(path).array
        assert half.dtype == np.float32
        assert np.array_equal(half > 0, depth > 0)
        clear = depth >= depth.max() * 2.0**-14
        assert np.abs(half[clear] * depth.max() / depth[clear] - 1).max() <= 2.0**-11


def test_a_change_of_how_frames_are_made_needs_another_format():
    """Where one of these fails, raise FORMAT: caches of other code must not pass for today's."""
    rng = np.random.default_rng(0)
    image, depth = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8), rng.random((40, 56), dtype=np.float32)
    assert FORMAT == 2
    assert blake2b(resize_image(image, (24, 34)).tobytes(), digest_size=8).hexdigest() == "a18ae0e7fbd609d0"
    assert blake2b(resized_depth(depth, (24, 34)).round(3).tobytes(), digest_size=8).hexdigest() == "c6c280d4bd9b7ad0"


@pytest.mark.slow
def test_fit_from_a_cache_gives_the_same_weights(vidit_root, built_cache, tmp_path):
    states = []
    given = {"root": vidit_root, "pairs": tmp_path / "pairs", "val_scenes": 2, "test_scenes": 2, "crop": 32, "size": "null"}
    for name, flags in (("files", []), ("cache", [f"--data.cache={built_cache}"])):
        run = tmp_path / name
        configs = ["--config", "experiments/base.yaml", "--config", "experiments/debug.yaml"]
        data = [f"--data.{key}={value}" for key, value in given.items()]
        assert main(["fit", *configs, *data, f"--trainer.default_root_dir={run}", *flags]) == 0
        states.append(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_cache_without_a_set_asks_for_the_set(built_cache):
    data = AnyToAnyDataModule(cache=str(built_cache))
    with pytest.raises(InputError, match="root is not given"):
        data.setup("fit")
