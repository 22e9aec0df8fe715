"""ONNX forms of what torch's exporter cannot translate by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def simplify(model: Any) -> None:
    """Fold what is constant in a graph of ONNX, and drop what is unused or twice there, in place.

    Not the exporter's own optimiser: its rules take a constant below 1e-8 for 0 and leave such an addition out, and then what it
    kept from being divided by 0 is NaN.
    """
    from onnx_ir.passes import common
    from onnxscript import optimizer

    common.InlinePass()(model)
    optimizer.fold_constants(model)
    for clean in (common.RemoveUnusedNodesPass, common.DeduplicateInitializersPass, common.CommonSubexpressionEliminationPass):
        clean()(model)
    common.RemoveUnusedNodesPass()(model)
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # where in our code it comes from: more than all weights of a small network


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Function of torch to function of ONNX, for `torch.onnx.export`."""
    from onnxscript import opset18  # here, since only the extra `export` brings it

    op: Any = opset18

    def sub_scalar(self: Any, other: Any, alpha: float = 1.0) -> Any:
        """A number that follows from an open size is a tensor, which torch's own translation does not expect."""
        return op.Sub(self, op.Mul(op.CastLike(other, self), op.CastLike(alpha, self)))

    def sort_stable(self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        """ONNX gives equal values in the order that they had."""
        length = op.Reshape(op.Gather(op.Shape(self), op.Constant(value_int=dim), axis=0), op.Constant(value_ints=[1]))
        return op.TopK(self, length, axis=dim, largest=int(descending), sorted=1)

    def cummax(self: Any, dim: int) -> Any:
        """The largest of all up to each; ONNX has sums alone. For short last axes, as it looks at all pairs of places."""
        # no network of ours asks for another axis; a graph that did would be wrong without a word
        if dim not in (-1, len(self.shape) - 1):
            # what torch's exporter expects of an operator that a translation does not have
            raise NotImplementedError(f"cummax is translated along the last axis alone, got {dim}")
        length = op.Gather(op.Shape(self), op.Constant(value_int=-1), axis=0)
        place = op.Range(op.Constant(value_int=0), length, op.Constant(value_int=1))
        first, second = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
        past = op.LessOrEqual(op.Unsqueeze(place, first), op.Unsqueeze(place, second))
        least = op.ReduceMin(self, keepdims=0)
        last = op.Constant(value_ints=[-1])
        seen = op.Where(past, op.Unsqueeze(self, op.Constant(value_ints=[-2])), least)
        return op.ReduceMax(seen, last, keepdims=0), op.ArgMax(seen, axis=-1, keepdims=0, select_last_index=1)

    aten = torch.ops.aten
    return {aten.sub.Scalar: sub_scalar, aten.sort.stable: sort_stable, aten.cummax.default: cummax}
