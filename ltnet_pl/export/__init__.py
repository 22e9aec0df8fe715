"""Export: a trained network as one file that runs elsewhere (ONNX, torch.export), or as weights that can run no code."""

from ltnet_pl.export.job import check_installed, export, onnx_model, quiet, runner, trace
from ltnet_pl.export.plain import Direct, Guided

__all__ = ("Direct", "Guided", "check_installed", "export", "onnx_model", "quiet", "runner", "trace")
