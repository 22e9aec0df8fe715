"""What runs a network while it is timed: torch as it is, torch's compiler, or onnxruntime."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from ltnet_pl import InputError
from ltnet_pl.export import check_installed, onnx_model, quiet, runner, trace
from ltnet_pl.export.job import OPSET
from ltnet_pl.export.plain import KINDS, LARGEST, SMALLEST
from ltnet_pl.nets import LTNet

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Engine = Literal["eager", "compiled", "onnx"]

Batch = dict[str, Any]


def check_engine(name: str, device: str, bf16: bool, sides: Sequence[int]) -> None:
    """Refuse what is no engine, or cannot run here.

    Raises:
        InputError: If it is unknown, not installed, or asked for on another device, in another precision or size than it has.
    """
    if name not in get_args(Engine):
        raise InputError(f"--engines {name}: expected some of {', '.join(get_args(Engine))}, separated by commas: correct it")
    if name != "onnx":
        return
    if device != "cpu" or bf16:
        other = f"--device {device}" if device != "cpu" else "--bf16 true"
        raise InputError(f"{other} with --engines onnx, which is timed on the CPU in float32; leave out one of them")
    for side in sides:
        if not SMALLEST <= side <= LARGEST:
            raise InputError(f"--sizes {side} with --engines onnx: LTNet's file takes {SMALLEST} to {LARGEST}; give another")
    check_installed("--engines onnx")


def runtime(engine: str) -> str:
    """Version of torch, and of onnxruntime where that runs."""
    said = f"torch {torch.__version__}"
    return f"{said}, onnxruntime {version('onnxruntime')}" if engine == "onnx" else said


@contextmanager
def room_for(nets: int) -> Iterator[None]:
    """Torch's compiler with room for so many networks, of one class maybe: beyond its own limit of 8 it would run eager code."""
    # here, since it takes a second to load
    from torch._dynamo import config

    with config.patch(recompile_limit=max(8, 2 * nets), fail_on_recompile_limit_hit=True):
        yield
    torch.compiler.reset()


class Graphs:
    """ONNX files of networks, each traced once: LTNet's serves all sizes, that of another network one.

    Args:
        nets: The networks by name, on the CPU.
    """

    def __init__(self, nets: dict[str, nn.Module]) -> None:
        self.nets = nets
        self._files: dict[tuple[str, tuple[int, ...] | None], bytes] = {}

    def run(self, name: str, batch: Batch, threads: int) -> Callable[[], object]:
        """What has onnxruntime relight the batch's image, with both lights known.

        Args:
            name: Which network.
            batch: One sample.
            threads: Threads of onnxruntime.
        """
        net = self.nets[name]
        inputs = {"image": batch["input"], "depth": batch["depth"]}
        open_sizes = isinstance(net, LTNet)
        if open_sizes:
            inputs |= {"light": batch["target_light"], "present": batch["input_light"]}
        key = name, None if open_sizes else tuple(batch["input"].shape)
        if key not in self._files:
            begun = time.monotonic()
            with quiet(), torch.no_grad():
                program = _open(net) if open_sizes else _static(net, batch)
                self._files[key] = onnx_model(program, list(inputs), OPSET).SerializeToString()
            print(f"{name}: traced for onnxruntime in {time.monotonic() - begun:.0f} s", flush=True)
        session = runner(self._files[key], list(inputs), threads)
        return lambda: session(tuple(inputs.values()))


class _OfImage(nn.Module):
    """A network as a function of image and depth; whatever else the batch holds stays as it is."""

    def __init__(self, net: nn.Module, batch: Batch) -> None:
        super().__init__()
        self.net, self.batch = net, batch

    def forward(self, image: Tensor, depth: Tensor) -> Tensor:
        relit: Tensor = self.net(self.batch | {"input": image, "depth": depth})["relit"]
        return relit


def _open(net: nn.Module) -> ExportedProgram:
    """An LTNet, traced as `export` does it."""
    return trace(KINDS["direct"](net), "direct")


def _static(net: nn.Module, batch: Batch) -> ExportedProgram:
    """Any network, traced for images of the batch's size alone."""
    return torch.export.export(_OfImage(net, batch).eval(), (batch["input"], batch["depth"]), strict=False)


def torch_run(net: nn.Module, batch: Batch, compiled: bool, bf16: bool) -> Callable[[], object]:
    """What has torch relight the batch's image.

    Args:
        net: The network, on the batch's device.
        batch: One sample.
        compiled: By torch's compiler, which works the first time that it is called.
        bf16: Use autocast to bfloat16.
    """
    call: Callable[[Batch], object] = torch.compile(net, dynamic=False) if compiled else net

    def run() -> object:
        with torch.autocast(batch["input"].device.type, torch.bfloat16, enabled=bf16):
            return call(batch)

    return run
