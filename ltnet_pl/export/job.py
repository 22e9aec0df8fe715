"""The command `export`: a trained network to one file."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from ltnet_pl import InputError, __version__
from ltnet_pl.experiment import read_checkpoint
from ltnet_pl.export.check import Difference, compare, refuse
from ltnet_pl.export.operators import simplify, translations
from ltnet_pl.export.plain import KINDS, LARGEST, SMALLEST, TRAINED, LightKind, Plain, example
from ltnet_pl.files import atomic_write
from ltnet_pl.light import BLACK_BODIES
from ltnet_pl.weights import WEIGHTS, checkpoint_of, load, save_weights, spec_of

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch.export import ExportedProgram

FileKind = Literal["onnx", "torch", "safetensors"]

OPSETS = (18, 23)
"""Versions of ONNX's operators that can be asked for."""

OPSET = 20
"""The one that is used unless another is asked for."""

ABOUT = "ltnet_pl.json"
"""What a .pt2 file calls that which it says of itself: the same as an ONNX file's metadata."""

TRACED = (200, 136)
"""Height and width of the image that is traced; any other would give the same graph."""


def export(
    run: str,
    out: str,
    to: FileKind = "onnx",
    light: LightKind = "direct",
    opset: int = OPSET,
    half: bool = False,
    verify: bool = True,
    overwrite: bool = False,
) -> None:
    """Write a trained network as one file that runs elsewhere, or as weights that can run no code.

    ONNX and torch.export files take an image of any size; they are compared with the network at several sizes before they are
    written. Tracing takes some minutes.

    Args:
        run: Run folder (its best checkpoint, else its last), a checkpoint, or a safetensors file, as the package holds one.
        out: File to write.
        to: onnx; torch: a .pt2 file of torch.export; safetensors: weights, class and settings.
        light: How a file is told the wanted light: direct (azimuth and kelvin) or guide (an image).
        opset: Version of ONNX's operators, 18 to 23.
        half: Store safetensors in 16 bits; they are read as 32.
        verify: Compare the file with the network, and refuse to write one that differs.
        overwrite: Replace OUT where it exists.

    Raises:
        InputError: If a flag, the run or the place to write to is wrong, or the file differs from the network.
    """
    path = Path(out)
    _check_flags(path, to, light, opset, half, overwrite)
    if light not in KINDS:
        raise InputError(f"--light is {light!r}; expected one of {', '.join(get_args(LightKind))}: correct it")
    if to == "safetensors" and Path(run).suffix == WEIGHTS:
        raise InputError(f"{run}: is a safetensors file already; expected a run or a checkpoint with --to safetensors: copy it")
    net = load(run)
    if to == "safetensors":
        checkpoint = checkpoint_of(run)
        save_weights(path, net, spec_of(checkpoint, read_checkpoint(checkpoint)), half)
        _say(path)
        return
    plain = KINDS[light](net)
    begun = time.monotonic()
    print(f"tracing {type(net).__name__} for sides of {SMALLEST} to {LARGEST} pixels; this takes some minutes", flush=True)
    with quiet():
        program = trace(plain, light)
        print(f"traced in {time.monotonic() - begun:.0f} s", flush=True)
        if to == "onnx":
            content = onnx_file(plain, program, light, opset, verify, out)
        else:
            content = torch_file(plain, program, light, verify, out)
    with atomic_write(path) as file:
        file.write(content)
    _say(path)


def trace(plain: Plain, light: LightKind) -> ExportedProgram:
    """A wrapped network as torch.export's program, open in height and width (of the guide too)."""
    sides = {
        name: torch.export.Dim(name, min=SMALLEST, max=LARGEST) for name in ("height", "width", "guide_height", "guide_width")
    }
    image, guide = ({2: sides[f"{which}height"], 3: sides[f"{which}width"]} for which in ("", "guide_"))
    shapes = {"image": image, "depth": image, "guide": guide, "guide_depth": guide, "light": None, "present": None}
    with torch.no_grad():
        return torch.export.export(
            plain,
            example(light, TRACED),
            dynamic_shapes={name: shapes[name] for name in plain.names},
            strict=False,
            # what holds for all sizes but cannot be proven (an odd side halved and doubled is as long) is checked at run time
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def onnx_file(plain: Plain, program: ExportedProgram, light: LightKind, opset: int, verify: bool, out: str) -> bytes:
    """An ONNX file of a traced network.

    Raises:
        InputError: If it differs from the network.
    """
    import onnx

    model = onnx_model(program, plain.names, opset)
    # an input with a value is one that may be left out
    if not plain.net.told:
        unknown = onnx.numpy_helper.from_array(torch.full((1, 2), torch.nan).numpy(), "present")
        model.graph.initializer.append(unknown)
    about = _about(plain, light) | {"opset": str(opset)}
    print(f"ONNX with operators of version {opset}; {len(model.graph.node)} of them", flush=True)
    if verify:
        found = compare(plain, runner(model.SerializeToString(), plain.names), _maker(plain, light))
        refuse(out, found)
        about |= _measured(found)
    onnx.helper.set_model_props(model, about)
    content: bytes = model.SerializeToString()
    return content


def torch_file(plain: Plain, program: ExportedProgram, light: LightKind, verify: bool, out: str) -> bytes:
    """A file of torch.export of a traced network, with `ABOUT` beside it.

    Raises:
        InputError: If it differs from the network.
    """
    about = _about(plain, light)
    if verify:
        module = program.module()
        found = compare(plain, lambda inputs: module(*inputs), _maker(plain, light))
        refuse(out, found)
        about |= _measured(found)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(about, indent=1)})
    return buffer.getvalue()


def onnx_model(program: ExportedProgram, names: Sequence[str], opset: int) -> ModelProto:
    """A traced network, which returns one image, in the form of ONNX."""
    made = torch.onnx.export(
        program,
        (),
        dynamo=True,
        opset_version=opset,
        custom_translation_table=translations(),
        input_names=list(names),
        output_names=["relit"],
        optimize=False,
        verbose=False,
    )
    assert made is not None  # it is None for the old exporter alone
    simplify(made.model)
    model: ModelProto = made.model_proto
    return model


def runner(content: bytes, names: Sequence[str], threads: int = 0) -> Callable[[tuple[Tensor, ...]], Tensor]:
    """What runs an ONNX file with onnxruntime on the CPU.

    Args:
        content: The file's bytes.
        names: Its inputs, in the order in which they will be given.
        threads: Threads; 0 for one on each core.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # it warns of an input that may be left out
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(inputs: tuple[Tensor, ...]) -> Tensor:
        (relit,) = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
        return torch.from_numpy(relit)

    return run


def _maker(plain: Plain, light: LightKind) -> Callable[..., tuple[Tensor, ...]]:
    """Makes inputs that are compared; a network that was told all lights can read none."""
    return partial(example, light, known=plain.net.told)


def _about(plain: Plain, light: LightKind) -> dict[str, str]:
    """What a file says of itself."""
    about = {
        "ltnet_pl": __version__,
        "net": type(plain.net).__name__,
        "light": light,
        "inputs": ", ".join(plain.names),
        "sides": f"{SMALLEST}-{LARGEST} pixels",
    }
    if light == "direct":
        about["temperatures"] = (
            f"{TRAINED[0]:g}-{TRAINED[1]:g} K by the network, {BLACK_BODIES[0]:g}-{BLACK_BODIES[1]:g} K by black bodies"
        )
    return about


def _measured(found: list[Difference]) -> dict[str, str]:
    """How far the file is from the network."""
    return {
        "checked_sizes": ", ".join(f"{height}x{width}" for height, width in (one.size for one in found)),
        "largest_difference": f"{max(one.most for one in found):.2e}",
        "mean_difference": f"{max(one.mean for one in found):.2e}",
    }


def _check_flags(path: Path, to: str, light: str, opset: int, half: bool, overwrite: bool) -> None:
    """Refuse what cannot be done before minutes are spent on it."""
    if to not in get_args(FileKind):
        raise InputError(f"--to is {to!r}; expected one of {', '.join(get_args(FileKind))}: correct it")
    if half and to != "safetensors":
        raise InputError(f"--half is for --to safetensors, and --to is {to}; expected one without the other: leave --half out")
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise InputError(f"--opset is {opset}; expected {OPSETS[0]} to {OPSETS[1]}: correct it")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected the name of a file to write: name one in it")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; expected a new name: choose another, or give --overwrite true")
    if not path.parent.is_dir():
        raise InputError(f"{path}: its folder {path.parent} does not exist; create it first")
    if to == "onnx":
        check_installed("--to onnx")


def check_installed(flag: str) -> None:
    """Refuse what needs the extra `export` where that is not installed.

    Args:
        flag: What asks for it, for the message.

    Raises:
        InputError: If a package is missing.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise InputError(f"{flag} needs {name}, which is not installed: pip install 'ltnet_pl[export]'")


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporters say that concerns nobody here."""
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registry.level
    registry.setLevel(logging.ERROR)  # that torchvision's operators are missing
    try:
        with warnings.catch_warnings():
            # torch 2.13 about itself
            warnings.filterwarnings("ignore", ".isinstance.treespec, LeafSpec.. is deprecated", FutureWarning)
            yield
    finally:
        registry.setLevel(level)


def _say(path: Path) -> None:
    """Where the file is, and how large."""
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
