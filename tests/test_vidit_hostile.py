"""Hostile and damaged depth files: nothing in a file ever runs, nothing large is allocated, and every fault is an InputError."""

import contextlib
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltnet_pl import InputError
from ltnet_pl.vidit import read_depth

DEPTH = (np.arange(12, dtype=np.float32).reshape(3, 4) + 1) / 16


def vidit_dict(depth=DEPTH):
    return {"ref_center_dis": np.float64(512.5), "normalized_depth": depth}


def text(value):
    """A short string in protocol 4."""
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data


def call(module, name, *arguments):
    """A protocol 4 pickle that calls `module.name` with strings, through a global looked up by dotted path."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93(" + b"".join(map(text, arguments)) + b"tR."


class Attack:
    """Pickles to a call that creates a marker file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (exec, (f"open({str(self.marker)!r}, 'w').close()",))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda attack: attack,
        lambda attack: {"normalized_depth": attack},
        lambda attack: {"normalized_depth": DEPTH, "ref_center_dis": attack},
        lambda attack: {"normalized_depth": np.array([attack, None], dtype=object)},
        lambda attack: {"normalized_depth": np.array([{"deep": [np.array(attack, dtype=object)]}], dtype=object)},
        lambda attack: {attack: DEPTH},
    ],
    ids=["bare", "value", "beside", "object_array", "nested", "key"],
)
@pytest.mark.parametrize("kind", ["npy", "raw"])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_code_in_a_pickle_does_not_run(tmp_path, wrap, kind, protocol):
    marker = tmp_path / "it_ran"
    path = tmp_path / "Image000.npy"
    data = pickle.dumps(wrap(Attack(marker)), protocol=protocol)
    if kind == "npy":
        np.save(path, {"normalized_depth": None}, allow_pickle=True)
        whole = path.read_bytes()
        data = whole[: whole.index(b"\n") + 1] + data  # the header of an object array, our pickle behind it
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"Image000\.npy: the pickle asks for '(builtins|__builtin__)\.exec'.*without being run"):
        read_depth(path)
    assert not marker.exists()
    pickle.loads(data[data.index(b"\n") + 1 :] if kind == "npy" else data)  # the attack itself is sound
    assert marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("os", "system"),
        ("posix", "system"),
        ("numpy", "f2py.os.system"),
        ("numpy", "ndarray.tofile"),
        ("numpy", "dtype.__new__"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("numpy.core.multiarray.os", "system"),
        ("numpy._core.multiarray", "fromfile"),
        ("_codecs", "encode.__self__"),
        ("_codecs", "decode"),
        ("_codecs", "register"),
        ("ltnet_pl.vidit.depth", "_Record"),
        ("numpy.testing._private.utils", "runstring"),
        ("", ""),
    ],
)
def test_forbidden_global_is_named(tmp_path, module, name):
    path = tmp_path / "Image000.npy"
    path.write_bytes(call(module, name, "touch it_ran"))
    with pytest.raises(InputError) as caught:
        read_depth(path)
    assert f"Image000.npy: the pickle asks for '{module}.{name}'" in str(caught.value)


def test_forbidden_global_of_old_opcodes(tmp_path):
    path = tmp_path / "Image000.npy"
    path.write_bytes(b"(S'touch it_ran'\nios\nsystem\n.")  # INST
    with pytest.raises(InputError, match=r"asks for 'os\.system'"):
        read_depth(path)


def test_a_hostile_name_cannot_write_to_the_terminal(tmp_path):
    path = tmp_path / "Image000.npy"
    path.write_bytes(call("os\x1b[2J", "system", "x"))
    with pytest.raises(InputError) as caught:
        read_depth(path)
    assert "\x1b" not in str(caught.value)


def test_allowed_names_are_recorded_and_not_called(tmp_path):
    # numpy would make an array of 2**40 elements, or take raw bytes for object pointers; here both are only faults
    path = tmp_path / "Image000.npy"
    huge = b"\x80\x04cnumpy\nndarray\n(\x8a\x06\x00\x00\x00\x00\x00\x01tR."
    path.write_bytes(huge)
    with pytest.raises(InputError, match="pickled array is damaged"):
        read_depth(path)
    forged = pickle.dumps(vidit_dict(), protocol=2).replace(b"f4", b"O8")
    assert forged != pickle.dumps(vidit_dict(), protocol=2)
    path.write_bytes(forged)
    with pytest.raises(InputError, match="depth is of type 'O8'; expected float16, float32 or float64"):
        read_depth(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"K\x03K\x04\x86", b"K\x03N\x86", "depth has no valid shape"),
        (b"K\x03K\x04\x86", b"K\x03", "depth has no valid shape"),
        (b"K\x03K\x04\x86", b"(K\x01t", r"depth has shape \(1,\); expected \(height, width\)"),
        (b"latin1", b"cp1252", "bytes in an unknown encoding"),
        (b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", "no type"),
        (b"cnumpy._core.multiarray\n_reconstruct", b"cnumpy._core.multiarray\nscalar", "scalar where an array belongs"),
        (b"normalized_depthq\x01", b"normalized_depthq\x01NQ", "refers to objects outside of the file"),
    ],
)
def test_forged_records_are_refused(tmp_path, old, new, message):
    whole = pickle.dumps({"normalized_depth": DEPTH}, protocol=2)
    assert old in whole
    path = tmp_path / "Image000.npy"
    path.write_bytes(whole.replace(old, new))
    with pytest.raises(InputError, match=rf"Image000\.npy: .*{message}"):
        read_depth(path)


def test_forged_memory_order_is_refused(tmp_path):
    whole = pickle.dumps({"normalized_depth": DEPTH}, protocol=5)
    assert b"\x8c\x01C" in whole
    path = tmp_path / "Image000.npy"
    path.write_bytes(whole.replace(b"\x8c\x01C", b"\x8c\x01K"))
    with pytest.raises(InputError, match="unknown memory order"):
        read_depth(path)


@pytest.mark.parametrize("opcode", [b"\x96", b"\x8e", b"\x8d"], ids=["BYTEARRAY8", "BINBYTES8", "BINUNICODE8"])
def test_forged_length_allocates_nothing(tmp_path, opcode):
    path = tmp_path / "Image000.npy"
    path.write_bytes(b"\x80\x05" + opcode + struct.pack("<Q", 2**36) + b"x.")
    assert_small_and_refused(path, "no sound pickle")


def test_forged_memo_index_allocates_nothing(tmp_path):
    path = tmp_path / "Image000.npy"
    path.write_bytes(b"\x80\x04Nr" + struct.pack("<I", 2**31) + b".")
    assert_small_and_refused(path, "more than 1000 operations")


def test_too_many_operations_are_refused(tmp_path):
    path = tmp_path / "Image000.npy"
    path.write_bytes(b"\x80\x04N" + b"\x85" * 100_000 + b".")  # a tuple in a tuple in a tuple ...
    assert_small_and_refused(path, "more than 1000 operations")


@pytest.mark.parametrize("shape", ["(99999999, 99999999)", "(1" + "0" * 5000 + ", 2)", "(-1, 4)", "(3.0, 4)", "(True, 4)"])
def test_forged_shape_allocates_nothing(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    path = tmp_path / "Image000.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + DEPTH.tobytes())
    assert_small_and_refused(path, "depth is truncated|not that of a plain array")


@pytest.mark.parametrize("body", ["(" * 9000, "[" * 9000 + "]" * 9000, "__import__('os').system('x')", "{}", "1" * 9000, ""])
def test_forged_header_is_refused(tmp_path, body):
    path = tmp_path / "Image000.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body.encode() + DEPTH.tobytes())
    assert_small_and_refused(path, "header is truncated, damaged")


def assert_small_and_refused(path, message):
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message):
            read_depth(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def make_corpus():
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 4L), }\n"  # the L: as Python 2 wrote it
    plain = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + DEPTH.tobytes()
    return [plain] + [pickle.dumps(vidit_dict(), protocol=p) for p in range(6)]


@given(data=st.data())
def test_damaged_bytes_give_an_array_or_an_input_error(tmp_path_factory, data):
    whole = bytearray(data.draw(st.sampled_from(make_corpus())))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("depth") / "Image000.npy"
    path.write_bytes(whole)
    with contextlib.suppress(InputError):  # the one error that is allowed
        depth = read_depth(path)
        assert depth.dtype == np.float32
        assert np.isfinite(depth).all()


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "Image000.npy"
    for whole in make_corpus():
        path.write_bytes(whole)
        np.testing.assert_array_equal(read_depth(path), DEPTH)
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(InputError, match=r"Image000\.npy"):
                read_depth(path)
