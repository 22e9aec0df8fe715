"""Callbacks: run folder, reproducible epochs, averaged weights, graceful stops, panels, what `test` and `predict` leave."""

from ltnet_pl.callbacks.panels import Panels
from ltnet_pl.callbacks.record import RunRecord
from ltnet_pl.callbacks.results import PredictResults, TestResults, check_devices
from ltnet_pl.callbacks.run import EMA, Checkpoint, EpochSeed, RunConfig
from ltnet_pl.callbacks.stop import GracefulStop, Stopped

__all__ = (
    "EMA",
    "Checkpoint",
    "EpochSeed",
    "GracefulStop",
    "Panels",
    "PredictResults",
    "RunConfig",
    "RunRecord",
    "Stopped",
    "TestResults",
    "check_devices",
)
