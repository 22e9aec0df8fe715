"""Callbacks: the run folder, reproducible epochs, averaged weights, panels, and what `test` and `predict` leave on disk."""

from ltnet_pl.callbacks.panels import Panels
from ltnet_pl.callbacks.results import PredictResults, TestResults, check_devices
from ltnet_pl.callbacks.run import EMA, Checkpoint, EpochSeed, RunConfig

__all__ = ("EMA", "Checkpoint", "EpochSeed", "Panels", "PredictResults", "RunConfig", "TestResults", "check_devices")
