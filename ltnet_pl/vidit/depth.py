"""Depth in and out, without ever running what a file asks for.

VIDIT's depth is a pickled dict, and unpickling runs any code that the file names. Here a pickle can only be *written down*: each
name that a numpy array needs stands for a recorder, every other name is refused, and the array is put together from the record
under our own checks. Not even numpy's own constructors run, since a forged state makes them read memory that is not theirs.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from io import BytesIO
from pathlib import Path
from typing import Any, Never

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ltnet_pl import InputError
from ltnet_pl.files import atomic_write
from ltnet_pl.vidit.files import load_bytes
from ltnet_pl.vidit.layouts import NAME_PATTERN

KEY = "normalized_depth"
"""Key of the depth in VIDIT's pickled dict; the other one, ``ref_center_dis``, is a number that nobody documents."""

_NPY = b"\x93NUMPY"
_REMEDY = "fetch the file again, or write it anew as a plain float32 array with ltnet_pl.vidit.write_depth"
# the entries of an .npy header; a side of a shape has ten digits at most, and Python 2 wrote an L behind it
_DESCR = rb"'descr': *'([^']{2,8})'"
_ORDER = rb"'fortran_order': *(True|False)"
_SHAPE = rb"'shape': *\(((?:\d{1,10}L?(?:, *|(?=\))))*)\)"
_FLOATS = ("f2", "f4", "f8")
_MAX_SIDE = 2**31
_MAX_STEPS = 1000  # a depth file of VIDIT takes about 70 pickle operations

# every name that pickles of numpy arrays and scalars use, under numpy 1 and numpy 2, protocols 0 to 5
_ALLOWED = {
    (module, name): name
    for name, modules in {
        "_reconstruct": ("numpy.core.multiarray", "numpy._core.multiarray"),
        "scalar": ("numpy.core.multiarray", "numpy._core.multiarray"),
        "_frombuffer": ("numpy.core.numeric", "numpy._core.numeric"),
        "ndarray": ("numpy",),
        "dtype": ("numpy",),
        "encode": ("_codecs",),
    }.items()
    for module in modules
}


class _Record:
    """A call that a pickle asks for: written down, never made."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...] | None = None) -> None:
        self.name, self.args = name, args
        self.state: Any = None

    def __call__(self, *args: Any) -> _Record:
        return _Record(self.name, args)

    # without it, the pickle could set attributes of its choice
    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Unpickler whose whole world is `_ALLOWED`; names are compared whole, so no dotted path leads out of it."""

    def __init__(self, file: BytesIO, path: Path) -> None:
        super().__init__(file, encoding="latin1")  # latin1: strings of Python 2 keep their bytes
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise InputError(
                f"{self._path}: the pickle asks for {f'{module}.{name}'!a}, which no depth needs; it may be an attack "
                f"and was refused without being run. Expected a numpy array under {KEY!r}; delete the file and fetch it again"
            )
        return _Record(_ALLOWED[module, name])

    def persistent_load(self, pid: Any) -> Never:
        raise pickle.UnpicklingError("it refers to objects outside of the file")


def read_depth(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """Depth of one frame, from any of the forms in use.

    Accepted: ``.npy`` with VIDIT's pickled dict, a bare pickle of that dict, ``.npy`` with a plain array of float16, 32 or 64;
    arrays of ``(H, W)`` or ``(H, W, 1)``. Nothing in the file is ever run.

    Args:
        path: The file.
        size: ``(height, width)`` that the depth must have: its image's.

    Returns:
        ``(H, W)`` float32, writable and contiguous; larger is farther, 0 is background.

    Raises:
        InputError: If the file is missing, truncated, asks for anything but an array, lacks the key, has another shape, NaN,
            infinite or negative values, or no value above 0.
    """
    path = Path(path)
    data = load_bytes(path)
    depth = check_depth(path, _plain(path, data) if _is_plain(path, data) else _pickled(path, data))
    if size is not None and depth.shape != tuple(size):
        raise InputError(
            f"{path}: is {depth.shape[0]} x {depth.shape[1]} (height x width), expected {size[0]} x {size[1]} as its image; "
            "depth and image must have one size: resize the depth (nearest neighbour) or fetch it again"
        )
    return depth


def write_depth(path: Path, depth: ArrayLike) -> None:
    """Write depth as a plain float32 ``.npy``, whole or not at all.

    Args:
        path: File to write; its folder must exist.
        depth: ``(H, W)`` or ``(H, W, 1)`` of a float type, held to the same rules as `read_depth`.

    Raises:
        InputError: If the depth breaks a rule or the folder is missing.
    """
    array = np.asarray(depth)
    if array.dtype.str[1:] not in _FLOATS:
        raise InputError(f"{path}: depth of type {array.dtype} was to be written; expected float16, float32 or float64")
    checked = check_depth(Path(path), array)
    with atomic_write(Path(path)) as file:
        np.save(file, checked, allow_pickle=False)


def convert_depth(folder: Path) -> list[Path]:
    """Turn every pickled depth below a folder into a plain float32 ``.npy``, in place, once and for all.

    Each file is replaced whole; what is plain already stays untouched, so a run that was stopped can be repeated. Only files with
    VIDIT's names (``Image000.npy``, ``Pair000.npy``) are looked at. VIDIT's undocumented number ``ref_center_dis`` is not kept.

    Args:
        folder: Root of a set; all folders below it are searched.

    Returns:
        The files that were converted, sorted.

    Raises:
        InputError: If the folder is missing or holds no depth, or a file breaks a rule of `read_depth`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the root of a VIDIT set")
    paths = sorted(path for path in folder.rglob("*.npy") if NAME_PATTERN.fullmatch(path.stem))
    if not paths:
        raise InputError(f"{folder}: holds no depth; expected files such as Image000.npy or Pair000.npy in it or below it")
    converted = []
    for path in paths:
        if not _is_plain(path, load_bytes(path, 16384)):
            write_depth(path, read_depth(path))
            converted.append(path)
    return converted


def _header(path: Path, data: bytes) -> tuple[str, bool, tuple[int, ...], int]:
    """Type (``"<f4"``), Fortran order and shape that the header of an ``.npy`` file tells, and where its data start.

    The header is a Python literal; numpy evaluates it, and fails in many ways where it is forged. Here its entries are matched.
    """
    version = data[6:7]
    prefix = 10 if version == b"\x01" else 12  # the length of the header has two bytes in version 1, four in 2 and 3
    length = int.from_bytes(data[8:prefix], "little")
    header = data[prefix : prefix + length]
    parts = [re.search(pattern, header) for pattern in (_DESCR, _ORDER, _SHAPE)]
    descr, order, shape = (part and part[1].decode("latin1") for part in parts)
    if version not in (b"\x01", b"\x02", b"\x03") or len(header) != length or descr is None or order is None or shape is None:
        raise InputError(
            f"{path}: the .npy header is truncated, damaged, or not that of a plain array ({header[:60]!r}); {_REMEDY}"
        )
    sides = tuple(int(side) for side in re.findall(r"\d+", shape))
    return descr, order == "True", sides, prefix + length


def _is_plain(path: Path, data: bytes) -> bool:
    """Whether a file is an ``.npy`` of numbers, so without any pickle."""
    return data.startswith(_NPY) and _header(path, data)[0] != "|O"


def _plain(path: Path, data: bytes) -> NDArray[Any]:
    descr, fortran, shape, start = _header(path, data)
    return _assemble(path, memoryview(data)[start:], descr[1:], descr[:1], shape, fortran)


def _assemble(path: Path, raw: Any, kind: str, order: str, shape: Any, fortran: bool) -> NDArray[Any]:
    """An array from its bytes, once type, shape and length are found to agree."""
    if kind not in _FLOATS:
        raise InputError(f"{path}: depth is of type {kind[:40]!r}; expected float16, float32 or float64; {_REMEDY}")
    if not (isinstance(shape, tuple) and all(type(n) is int and 0 <= n < _MAX_SIDE for n in shape)):
        raise InputError(f"{path}: depth has no valid shape; expected (height, width); {_REMEDY}")
    dtype = np.dtype((">" if order == ">" else "<") + kind)
    if len(shape) not in (2, 3):
        raise InputError(f"{path}: depth has shape {shape[:8]}; expected (height, width) or (height, width, 1); {_REMEDY}")
    count = int(np.prod(np.array(shape, dtype=object)))  # object: Python's integers do not overflow
    if len(raw) < count * dtype.itemsize:
        raise InputError(f"{path}: the depth is truncated: {len(raw)} bytes where {count * dtype.itemsize} belong; {_REMEDY}")
    return np.frombuffer(raw, dtype, count).reshape(shape, order="F" if fortran else "C")


def _pickled(path: Path, data: bytes) -> NDArray[Any]:
    """The array under `KEY` of a pickled dict, from an object ``.npy`` or a bare pickle."""
    content = _unpickle(path, data, _header(path, data)[-1] if data.startswith(_NPY) else 0)
    if isinstance(content, _Record):  # np.save of a dict: an array of objects with one element
        raw = content.state[-1] if isinstance(content.state, tuple) and content.state else None
        if isinstance(raw, list):
            if len(raw) != 1:
                raise InputError(
                    f"{path}: holds an array of {len(raw)} objects; expected one dict with the key {KEY!r}; {_REMEDY}"
                )
            content = raw[0]
    if isinstance(content, dict):
        if KEY not in content:
            keys = ", ".join(sorted(ascii(key)[:40] for key in content if isinstance(key, str))[:10]) or "none"
            raise InputError(f"{path}: the key {KEY!r} is missing (keys found: {keys}); rename the key, or {_REMEDY}")
        content = content[KEY]
    if not isinstance(content, _Record):
        raise InputError(
            f"{path}: holds a {type(content).__name__} where an array belongs; expected a dict with {KEY!r}; {_REMEDY}"
        )
    try:
        raw, dtype, shape, fortran = _array_record(content)
    except (TypeError, ValueError, AttributeError, IndexError) as error:  # a record that is not what numpy writes
        raise InputError(f"{path}: the pickled array is damaged ({_short(error)}); {_REMEDY}") from error
    return _assemble(path, raw, dtype[0], dtype[1], shape, fortran)


def _unpickle(path: Path, data: bytes, start: int) -> Any:
    """What the pickle from byte `start` on holds, with every numpy object as the record of its construction.

    First the operations are only listed, which checks each length against the bytes that are there: the unpickler itself would
    allocate on a forged length's word.
    """
    listed, loaded = BytesIO(data), BytesIO(data)  # they share the bytes
    listed.seek(start)
    loaded.seek(start)
    try:
        for step, (operation, value, _) in enumerate(pickletools.genops(listed)):
            place = value if operation.name in ("PUT", "LONG_BINPUT") and isinstance(value, int) else 0
            if step >= _MAX_STEPS or not 0 <= place < _MAX_STEPS:
                raise ValueError(f"more than {_MAX_STEPS} operations")
        return _Unpickler(loaded, path).load()
    except InputError:
        raise
    # the documentation of pickle: damaged data may raise any exception
    except Exception as error:
        raise InputError(
            f"{path}: is no .npy array and no sound pickle ({_short(error)}; it starts with {data[:8]!r}); {_REMEDY}"
        ) from error


def _array_record(record: _Record) -> tuple[bytes, tuple[str, str], Any, bool]:
    """Bytes, type and byte order, shape, and Fortran order of a recorded array."""
    if record.name == "_reconstruct" and isinstance(record.state, tuple) and record.args is not None:
        shape, dtype, fortran, raw = record.state[-4:]
    elif record.name == "_frombuffer" and record.args is not None:  # protocol 5
        raw, dtype, shape, order = record.args[:4]
        if order not in ("C", "F"):
            raise ValueError("unknown memory order")
        fortran = order == "F"
    else:
        raise ValueError(f"{record.name} where an array belongs")
    return _raw_bytes(raw), _dtype_record(dtype), shape, bool(fortran)


def _dtype_record(dtype: Any) -> tuple[str, str]:
    """Kind and width (``"f4"``) and byte order of a recorded type."""
    if not (isinstance(dtype, _Record) and dtype.name == "dtype" and dtype.args and isinstance(dtype.args[0], str)):
        raise ValueError("no type")
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    return dtype.args[0], str(order)


def _raw_bytes(raw: Any) -> bytes:
    """The bytes of a recorded array; protocols 0 to 2 write them as latin1 text, Python 2 as a string."""
    if isinstance(raw, _Record) and raw.name == "encode" and raw.args is not None:
        text, codec = raw.args
        if codec != "latin1":
            raise ValueError("bytes in an unknown encoding")
        raw = text
    if isinstance(raw, str):
        return raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray):
        raise ValueError("objects where numbers belong" if isinstance(raw, list) else "no bytes")
    return bytes(raw)


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {ascii(str(error))[1:-1][:100]}"


def check_depth(path: Path, array: NDArray[Any]) -> NDArray[np.float32]:
    """A float32 copy of depth, once its values are found sound: what every reader and writer of depth holds it to.

    Args:
        path: The file that it belongs to, for the message.
        array: ``(H, W)`` or ``(H, W, 1)`` of numbers; larger is farther, 0 is background.

    Returns:
        ``(H, W)`` float32, writable and contiguous.

    Raises:
        InputError: If it has another shape, NaN, infinite or negative values, or no value above 0.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 or not array.size:
        raise InputError(f"{path}: depth has shape {array.shape}; expected (height, width) or (height, width, 1); {_REMEDY}")
    with np.errstate(over="ignore", invalid="ignore"):  # a float64 beyond float32 becomes infinite, and is named below
        depth = np.array(array, dtype=np.float32, order="C")
    low, high = depth.min(), depth.max()  # NaN comes through both
    if not (np.isfinite(low) and np.isfinite(high)):
        wrong = ~np.isfinite(depth)
        row, column = np.argwhere(wrong)[0]
        raise InputError(
            f"{path}: depth is NaN or infinite at {wrong.sum()} pixels (first: row {row}, column {column}); expected finite "
            "values, 0 where nothing was hit: set those pixels to 0"
        )
    if low < 0:
        raise InputError(f"{path}: depth reaches down to {low:g}; expected 0 (background) or more: set negative pixels to 0")
    if high == 0:
        raise InputError(f"{path}: depth is 0 everywhere; expected at least one pixel above 0 (0 is background); {_REMEDY}")
    return depth
