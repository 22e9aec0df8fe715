"""Depth files: every form in use is read exactly, and each fault has its message. Hostile files: test_vidit_hostile.py."""

import pickle
import pickletools
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ltnet_pl import InputError
from ltnet_pl.vidit import convert_depth, read_depth, write_depth

DEPTH = (np.arange(12, dtype=np.float32).reshape(3, 4) + 1) / 16  # exact in float16 too


def vidit_dict(depth=DEPTH):
    return {"ref_center_dis": np.float64(512.5), "normalized_depth": depth}


def save_dict(path, content):
    np.save(path, content, allow_pickle=True)
    return path


# --- what is accepted


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1)])
@pytest.mark.parametrize("kind", ["plain", "dict", "raw"])
def test_every_form_gives_the_same_array(tmp_path, dtype, order, shape, kind):
    stored = np.array(DEPTH.reshape(shape), dtype=dtype, order=order)
    path = tmp_path / "Image000.npy"
    if kind == "plain":
        np.save(path, stored)
    elif kind == "dict":
        save_dict(path, vidit_dict(stored))
    else:
        path.write_bytes(pickle.dumps(vidit_dict(stored)))
    depth = read_depth(path, (3, 4))
    assert depth.dtype == np.float32
    assert depth.flags.c_contiguous
    assert depth.flags.writeable
    np.testing.assert_array_equal(depth, DEPTH)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_bare_pickles_of_every_protocol(tmp_path, protocol, order):
    path = tmp_path / "Image000.npy"
    path.write_bytes(pickle.dumps(vidit_dict(np.array(DEPTH, order=order)), protocol=protocol))
    np.testing.assert_array_equal(read_depth(path), DEPTH)


@pytest.mark.parametrize("protocol", [2, 3])
def test_module_names_of_numpy_1(tmp_path, protocol):
    path = tmp_path / "Image000.npy"
    data = pickle.dumps(vidit_dict(), protocol=protocol)
    old = data.replace(b"cnumpy._core.", b"cnumpy.core.")
    assert old != data
    path.write_bytes(old)
    np.testing.assert_array_equal(read_depth(path), DEPTH)


def test_pickle_of_python_2(tmp_path):
    # protocol 2 as Python 2 wrote it: names and array bytes are byte strings (U: SHORT_BINSTRING, q: memo)
    def string(value):
        return b"U" + bytes([len(value)]) + value

    width = b"J\xff\xff\xff\xff"  # -1
    dtype = b"cnumpy\ndtype\n(" + string(b"f4") + b"K\x00K\x01tR(K\x03" + string(b"<") + b"NNN" + width + width + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + string(b"b") + b"tR"
    state = b"(K\x01(K\x03K\x04t" + dtype + b"\x89" + string(DEPTH.tobytes()) + b"tb"
    path = tmp_path / "Image000.npy"
    path.write_bytes(b"\x80\x02}" + string(b"normalized_depth") + array + state + b"s.")
    np.testing.assert_array_equal(read_depth(path), DEPTH)


@given(depth=hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.floats(0, 100, width=32)))
def test_write_then_read_is_exact(tmp_path_factory, depth):
    path = tmp_path_factory.mktemp("depth") / "Image000.npy"
    depth.flat[0] = 1
    write_depth(path, depth)
    np.testing.assert_array_equal(read_depth(path), depth)
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), depth)


# --- what is wrong with a harmless file


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (
            np.where(DEPTH == 0.4375, np.nan, DEPTH),
            r"NaN or infinite at 1 pixels \(first: row 1, column 2\).*set those pixels to 0",
        ),
        (np.where(DEPTH > 0.5, np.inf, DEPTH), r"NaN or infinite at 4 pixels \(first: row 2, column 0\)"),
        (np.where(DEPTH > 0.5, 1e300, DEPTH.astype(np.float64)), "NaN or infinite at 4 pixels"),
        (np.zeros((3, 4), np.float32), "depth is 0 everywhere"),
        (DEPTH - 0.25, r"reaches down to -0\.1875.*set negative pixels to 0"),
        (DEPTH[None], r"shape \(1, 3, 4\); expected \(height, width\)"),
        (DEPTH.ravel(), r"shape \(12,\); expected \(height, width\)"),
        (np.zeros((0, 4), np.float32), r"shape \(0, 4\); expected \(height, width\)"),
        ((DEPTH * 255).astype(np.uint8), "of type 'u1'; expected float16, float32 or float64"),
        (DEPTH.astype(np.complex64), "of type 'c8'; expected float16"),
        (np.array([["far"]]), "of type 'U3'; expected float16"),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "dict"])
def test_bad_depth(tmp_path, depth, message, kind):
    path = save_dict(tmp_path / "Image007.npy", depth if kind == "plain" else vidit_dict(depth))
    with pytest.raises(InputError, match=message) as caught:
        read_depth(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"depth": DEPTH, "scale": 1.0}, r"key 'normalized_depth' is missing \(keys found: 'depth', 'scale'\)"),
        ({}, r"keys found: none"),
        ({"normalized_depth": 3.0}, "holds a float where an array belongs"),
        ({"normalized_depth": np.float32(3)}, "pickled array is damaged"),
        ({"normalized_depth": [[1.0, 2.0]]}, "holds a list where an array belongs"),
        ({"normalized_depth": DEPTH.astype(object)}, "objects where numbers belong"),
        (np.array([{}, {}], dtype=object), "an array of 2 objects; expected one dict"),
        (np.array("text", dtype=object), "holds a str where an array belongs"),
    ],
)
def test_bad_dict(tmp_path, content, message):
    with pytest.raises(InputError, match=rf"Image007\.npy: .*{message}"):
        read_depth(save_dict(tmp_path / "Image007.npy", content))


def test_wrong_size_names_both(tmp_path):
    path = save_dict(tmp_path / "Image007.npy", vidit_dict())
    with pytest.raises(InputError, match=r"Image007\.npy: is 3 x 4 \(height x width\), expected 4 x 3 as its image.*resize"):
        read_depth(path, (4, 3))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "no such file"),
        (b"", "the file is empty"),
        (b"PK\x03\x04 an npz archive", r"no \.npy array and no sound pickle"),
        (b"hello", "no sound pickle"),
        (b"\x93NUMPY\x09\x00\x00\x00", "header is truncated, damaged"),
    ],
)
def test_what_is_no_depth_at_all(tmp_path, data, message):
    path = tmp_path / "Image007.npy"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=rf"Image007\.npy: .*{message}"):
        read_depth(path)


def test_folder_named_as_depth(tmp_path):
    (tmp_path / "Image007.npy").mkdir()
    with pytest.raises(InputError, match=r"Image007\.npy: cannot be read"):
        read_depth(tmp_path / "Image007.npy")


# --- writing and converting


def test_write_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "Image000.npy"
    write_depth(path, DEPTH)

    def full_disk(file, array, allow_pickle):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_depth(path, DEPTH * 2)
    assert [p.name for p in tmp_path.iterdir()] == ["Image000.npy"]
    np.testing.assert_array_equal(read_depth(path), DEPTH)


@pytest.mark.parametrize(
    ("depth", "message"),
    [(np.ones((2, 2), int), "of type int64 was to be written"), (np.zeros((2, 2)), "0 everywhere"), (-DEPTH, "reaches down to")],
)
def test_write_holds_to_the_rules(tmp_path, depth, message):
    with pytest.raises(InputError, match=message):
        write_depth(tmp_path / "Image000.npy", depth)
    assert not list(tmp_path.iterdir())


def test_write_needs_its_folder(tmp_path):
    with pytest.raises(InputError, match=r"its folder .* does not exist"):
        write_depth(tmp_path / "none" / "Image000.npy", DEPTH)


def test_convert_turns_pickles_into_plain_arrays_once(tmp_path):
    (tmp_path / "input").mkdir()
    (tmp_path / "scenes" / "Image000").mkdir(parents=True)
    save_dict(tmp_path / "Image001.npy", vidit_dict(DEPTH.astype(np.float64)))
    save_dict(tmp_path / "input" / "Pair000.npy", vidit_dict(DEPTH * 2))
    np.save(tmp_path / "Image000.npy", DEPTH)
    np.save(tmp_path / "scenes" / "Image000" / "normals.npy", np.zeros((3, 4, 3), np.float16))
    untouched = {p: p.read_bytes() for p in (tmp_path / "Image000.npy", tmp_path / "scenes" / "Image000" / "normals.npy")}
    assert convert_depth(tmp_path) == [tmp_path / "Image001.npy", tmp_path / "input" / "Pair000.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "Image001.npy", allow_pickle=False), DEPTH)
    np.testing.assert_array_equal(np.load(tmp_path / "input" / "Pair000.npy", allow_pickle=False), DEPTH * 2)
    assert {p: p.read_bytes() for p in untouched} == untouched
    assert convert_depth(tmp_path) == []


def test_convert_needs_depth(tmp_path):
    with pytest.raises(InputError, match=r"holds no depth; expected files such as Image000.npy"):
        convert_depth(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        convert_depth(tmp_path / "none")


def test_pickle_of_a_real_file_stays_far_below_the_limit_of_operations():
    counts = [sum(1 for _ in pickletools.genops(pickle.dumps(vidit_dict(), protocol=p))) for p in range(6)]
    assert max(counts) < 200, f"{counts} operations under Python {sys.version}"
