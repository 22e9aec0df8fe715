"""Caches are rebuilt where they must be and only there, and refused where they do not fit."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import scenes
from caches import module, times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ltnet_pl import InputError
from ltnet_pl.cache import cache, gaps
from ltnet_pl.cli import main
from ltnet_pl.data.cached import FrameCache
from ltnet_pl.files import locked
from ltnet_pl.vidit import read_depth, read_image

# --- what has not arrived ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [False, True])
def test_what_a_scene_lacks_is_named(tmp_path, capsys, split):
    root = scenes.write_any_to_any(tmp_path / "set", 3, temperatures=(4500,), truth=False, split=split)
    images, depths = (root / "input", root / "depth") if split else (root, root)
    assert main(["cache", str(root), str(tmp_path / "cache"), "--workers=1"]) == 0
    assert "most of its scenes have" not in capsys.readouterr().out
    (images / "Image001_4500_E.png").unlink()
    (depths / "Image002.npy").unlink()
    assert main(["cache", str(root), str(tmp_path / "cache"), "--workers=1"]) == 0
    names = ["input/Image001_4500_E.png", "depth/Image002.npy"] if split else ["Image001_4500_E.png", "Image002.npy"]
    said = f"{root} has no {', '.join(sorted(names))}, which most of its scenes have; look whether all has arrived"
    assert said in capsys.readouterr().out


def test_a_target_that_is_missing_is_named(tmp_path):
    root = scenes.write_one_to_one(tmp_path / "set", 3)
    assert gaps(root) == []
    (root / "target" / "Image001.png").unlink()
    assert gaps(root) == ["target/Image001.png"]


def test_sets_without_depth_or_of_other_lights_lack_nothing(tmp_path):
    root = scenes.write_any_to_any(tmp_path / "set", 3, temperatures=(4500,), truth=False)
    for path in (*root.glob("*.npy"), root / "Image000_4500_E.png", root / "Image001_4500_E.png"):
        path.unlink()
    # one scene alone has that light
    assert gaps(root) == []


# --- rebuilding -------------------------------------------------------------------------------------------------------------


def test_a_second_build_makes_nothing(own_cache, capsys):
    root, folder = own_cache
    before = times(folder)
    cache(str(root), str(folder), workers=1)
    assert times(folder) == before
    assert "4 of 4 arrays are up to date" in capsys.readouterr().out


def test_an_interrupted_build_goes_on(own_cache):
    """Without its manifest a cache is unfinished; what was whole is kept, what was half-written is not."""
    root, folder = own_cache
    whole = (folder / "manifest.json").read_text()
    (folder / "manifest.json").unlink()
    (folder / "blocks" / "Image001.images.npy.json").unlink()
    (folder / "blocks" / ".Image001.npy.99.partial").write_bytes(b"half")
    with pytest.raises(InputError, match="is not finished"):
        FrameCache(folder, None, [root])
    before = times(folder)
    cache(str(root), str(folder), workers=1)
    after = times(folder)
    assert {name for name in after if after[name] != before[name]} == {"Image001.images.npy"}
    assert (folder / "manifest.json").read_text() == whole
    assert not list((folder / "blocks").glob(".*"))


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1), name=st.sampled_from(["Image000.images.npy", "Image001.npy", "Image000.npy.json"]))
def test_what_was_cut_short_is_made_anew(vidit_root, built_cache, tmp_path, share, name):
    folder = shutil.copytree(built_cache, tmp_path / "cut", dirs_exist_ok=True)
    want = (built_cache / "blocks" / name).read_bytes()
    # without its last byte, a line break, a JSON file would still be whole
    (folder / "blocks" / name).write_bytes(want[: int(share * (len(want) - 2))])
    cache(str(vidit_root), str(folder), workers=1)
    assert (folder / "blocks" / name).read_bytes() == want
    assert (folder / "manifest.json").read_bytes() == (built_cache / "manifest.json").read_bytes()


def test_changed_new_and_removed_files(own_cache):
    root, folder = own_cache
    image, gone = root / "Image000_4500_E.png", root / "Image001_2500_N.png"
    shutil.copyfile(root / "Image000_6500_E.png", image)
    with pytest.raises(InputError, match=r"stale: .*Image000_4500_E.png was changed"):
        FrameCache(folder, None, [root])
    gone.unlink()
    before = times(folder)
    cache(str(root), str(folder), workers=1)
    held = FrameCache(folder, None, [root])
    assert np.array_equal(held.get(image).array, read_image(root / "Image000_6500_E.png"))
    assert held.get(gone) is None
    after = times(folder)
    assert {name for name in after if after[name] != before[name]} == {"Image000.images.npy", "Image001.images.npy"}
    shutil.copyfile(image, gone)
    with pytest.raises(InputError, match=r"stale: it lacks .*Image001_2500_N.png"):
        FrameCache(folder, None, [root])
    for path in root.glob("Image001*"):
        path.unlink()
    cache(str(root), str(folder), workers=1)
    assert {path.name for path in (folder / "blocks").glob("*.npy")} == {"Image000.images.npy", "Image000.npy"}


def test_a_touched_or_moved_set_is_taken_over_without_decoding(own_cache, tmp_path):
    root, folder = own_cache
    os.utime(root / "Image000_4500_E.png", ns=(1, 1))
    moved = root.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="was made of"):
        FrameCache(folder, None, [moved])
    before = times(folder)
    cache(str(moved), str(folder), workers=1)
    assert times(folder) == before
    assert FrameCache(folder, None, [moved]).get(moved / "Image000_4500_E.png") is not None


def test_verify_finds_a_flipped_bit(own_cache):
    root, folder = own_cache
    array = folder / "blocks" / "Image000.images.npy"
    data = bytearray(array.read_bytes())
    whole = bytes(data)
    data[1000] ^= 1
    array.write_bytes(data)
    cache(str(root), str(folder), workers=1)
    assert array.read_bytes() != whole
    cache(str(root), str(folder), workers=1, verify=True)
    assert array.read_bytes() == whole


def test_another_set_whose_files_look_the_same_is_not_taken_for_this_one(own_cache, tmp_path):
    """Names, sizes and times agree, as after an archive that stores no times; the set that the cache was made of is gone."""
    root, folder = own_cache
    other = shutil.copytree(root, tmp_path / "other")
    depth = bytearray((other / "Image000.npy").read_bytes())
    depth[-100] ^= 1
    (other / "Image000.npy").write_bytes(depth)
    for path in (*root.iterdir(), *other.iterdir()):
        os.utime(path, ns=(10**18, 10**18))
    cache(str(root), str(folder), workers=1)
    with pytest.raises(InputError, match=r"holds a cache of .*set; expected one of .*other.*: name another folder"):
        cache(str(other), str(folder), workers=1)
    assert FrameCache(folder, None, [root])
    shutil.rmtree(root)
    before = times(folder)
    cache(str(other), str(folder), workers=1)
    after = times(folder)
    assert {name for name in after if after[name] != before[name]} == {"Image000.npy"}
    assert np.array_equal(FrameCache(folder, None, [other]).get(other / "Image000.npy").array, read_depth(other / "Image000.npy"))


def test_verify_finds_a_changed_file_of_the_same_size_and_time(own_cache):
    root, folder = own_cache
    path = root / "Image000.npy"
    stat = path.stat()
    depth = bytearray(path.read_bytes())
    depth[-100] ^= 1
    path.write_bytes(depth)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    cache(str(root), str(folder), workers=1, verify=True)
    assert np.array_equal(FrameCache(folder, None, [root]).get(path).array, read_depth(path))


def test_the_printed_command_brings_a_stale_cache_up_to_date(own_cache, tmp_path):
    """Settings and a blank in the folder's name included."""
    root, _ = own_cache
    folder = tmp_path / "my cache"
    cache(str(root), str(folder), size=24, depth="float16", workers=1)
    os.utime(root / "Image000.npy", ns=(1, 1))
    with pytest.raises(InputError) as error:
        FrameCache(folder, 24, [root])
    command = shlex.split(str(error.value).partition("reads only what changed: ")[2])
    assert main(command[3:]) == 0
    assert FrameCache(folder, 24, [root])


def test_two_builds_of_one_cache_at_a_time_are_refused(own_cache):
    root, folder = own_cache
    with locked(folder, "holds it"), pytest.raises(InputError, match=r"cache: another process builds this cache; wait"):
        cache(str(root), str(folder), workers=1)


def test_a_cache_that_is_rebuilt_under_a_reader_is_noticed(own_cache):
    root, folder = own_cache
    held = FrameCache(folder, None, [root])
    (root / "Image000_2500_N.png").unlink()
    cache(str(root), str(folder), workers=1)
    with pytest.raises(InputError, match=r"was rebuilt or damaged while it was read.*--ckpt_path last"):
        held.get(root / "Image000_4500_E.png")


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
        (
            lambda folder: _spoil(folder / "manifest.json", lambda c: c.update(format=99)),
            "cache holds a cache of format 99; expected 2",
        ),
        (lambda folder: _spoil(folder / "manifest.json", lambda c: c["blocks"][0].update(dtype="O")), "is broken"),
        (lambda folder: os.truncate(folder / "blocks" / "Image000.npy", 300), f"cut short; expected {128 + 40 * 56 * 4} bytes"),
        (lambda folder: (folder / "blocks" / "Image001.npy").unlink(), "is missing or cut short"),
    ],
)
def test_a_cache_that_does_not_serve(own_cache, tmp_path, spoil, said):
    root, folder = own_cache
    spoil(folder)
    with pytest.raises(InputError) as error:
        module(root, folder, tmp_path, val_scenes=0)
    assert said in str(error.value)


def test_a_cache_of_another_size_or_set(vidit_root, built_cache, own_cache, tmp_path):
    with pytest.raises(InputError, match=r"holds frames of the files' own size, but --data.size asks for 24 px.*size null"):
        module(vidit_root, built_cache, tmp_path, size=24, crop=16)
    with pytest.raises(InputError, match=r"was made of .*set, but this run reads .*vidit0"):
        module(vidit_root, own_cache[1], tmp_path)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--size", "4"], "--size 4: expected 8 or more"),
        (["--workers", "0"], "--workers 0: expected 1 or more"),
        (["--size", "24"], "holds a cache that was made without --size; expected the same: leave --size out, or name another"),
        (["--depth", "float16"], "holds a cache that was made without --depth; expected the same: leave --depth out"),
    ],
)
def test_command_refuses(vidit_root, built_cache, capsys, flags, said):
    before = (built_cache / "manifest.json").read_bytes()
    assert main(["cache", str(vidit_root), str(built_cache), *flags]) == 2
    assert said in capsys.readouterr().err
    assert (built_cache / "manifest.json").read_bytes() == before


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
    assert main(["cache", str(vidit_root), str(tmp_path / "file" / "out")]) == 2
    assert "cannot make the folder" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "settings.json").write_text("[]")
    assert main(["cache", str(vidit_root), str(tmp_path / "out")]) == 2
    assert "settings.json: is broken" in capsys.readouterr().err
    assert (tmp_path / "full" / "notes.txt").exists()


def test_a_disk_that_is_too_small_is_refused_before_anything_is_built(vidit_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    assert main(["cache", str(vidit_root), str(tmp_path / "cache")]) == 2
    assert "GB are free" in capsys.readouterr().err
    assert not (tmp_path / "cache" / "blocks").exists()


def test_a_broken_image_is_named_and_the_rest_is_kept(own_cache, capsys):
    root, folder = own_cache
    path = root / "Image001_4500_E.png"
    path.write_bytes(path.read_bytes()[:200])
    assert main(["cache", str(root), str(folder), "--workers", "1"]) == 2
    assert "Image001_4500_E.png: the image is truncated" in capsys.readouterr().err
    assert not (folder / "manifest.json").exists()
    assert (folder / "blocks" / "Image000.images.npy").exists()
