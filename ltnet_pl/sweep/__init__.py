"""Sweeps without a server: the YAML that `wandb sweep` takes, run on this machine, trial by trial."""

from ltnet_pl.sweep.job import sweep

__all__ = ("sweep",)
