"""Callbacks: run folder, reproducible epochs, averaged weights, graceful stops, panels, W&B, what `test` and `predict` leave."""

from ltnet_pl.callbacks.panels import Panels
from ltnet_pl.callbacks.record import RunRecord
from ltnet_pl.callbacks.results import PredictResults, TestResults, check_devices
from ltnet_pl.callbacks.run import EMA, Checkpoint, EpochSeed, RunConfig
from ltnet_pl.callbacks.stop import GracefulStop, Stopped
from ltnet_pl.callbacks.wandb_log import WandbLog

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
    "WandbLog",
    "check_devices",
)
