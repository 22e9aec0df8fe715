"""A row's configuration as `fit` resolves it: read without training, hashed, turned into objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from torch import nn

from ltnet_pl import InputError
from ltnet_pl.experiment import configuration, read_checkpoint  # torch then knows the classes that checkpoints hold
from ltnet_pl.weights import build, spec_of

Config = dict[str, Any]

FRAME_SIZE = 96
"""Longer side in pixels of the whole frame's low-resolution depth, as the data modules have it by default."""

_TRAINER = (
    *("max_steps", "max_epochs", "precision", "gradient_clip_val", "gradient_clip_algorithm"),
    *("accumulate_grad_batches", "overfit_batches", "limit_train_batches"),
)
"""Settings of the trainer that can change what is learned."""

_NEUTRAL = {
    *("Panels", "TestResults", "PredictResults", "RunRecord", "Checkpoint", "GracefulStop", "LearningRateMonitor"),
    *("RichModelSummary", "ModelSummary", "RichProgressBar", "TQDMProgressBar", "DeviceStatsMonitor", "Timer"),
}
"""Callbacks that only watch or write."""

_PLACES = {"root", "cache", "pairs", "val_root", "val_target_root", "test_root", "test_target_root"}
_HOW = {"num_workers", "cache_mb", "test_split", "pairs_per_scene", "pairs_seed"}
"""Settings of the data that change neither a training sample nor, since the benchmark sets them itself, a score."""


def resolve(flags: Sequence[str], row: str) -> Config:
    """The configuration that `fit` would run with, defaults and interpolations filled in: what its ``config.yaml`` would hold.

    Args:
        flags: Flags of `fit`.
        row: The row, for messages.

    Raises:
        InputError: If the flags or files are wrong; the parser has then printed why.
    """
    try:
        return configuration(flags)
    except SystemExit as stop:
        raise InputError(f"row {row}: its configuration is refused, see above; correct its files") from stop


def read_config(path: Path) -> Config:
    """The ``config.yaml`` of a run."""
    config: Config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def config_hash(config: Mapping[str, Any]) -> str:
    """Hash of what a configuration teaches and how: network, loss, optimiser, schedule, data settings, length, seed.

    Paths, loggers, progress bars and the like do not enter, nor settings that are null.

    Args:
        config: What `resolve` or `read_config` gave.
    """
    trainer = {key: config["trainer"].get(key) for key in _TRAINER}
    callbacks = config["trainer"].get("callbacks") or []
    trainer["callbacks"] = [part for part in callbacks if part["class_path"].rpartition(".")[2] not in _NEUTRAL]
    data = {key: value for key, value in config["data"].get("init_args", {}).items() if key not in _PLACES | _HOW}
    model = {key: value for key, value in config["model"].items() if key not in ("row", "metrics")}
    kept = {
        "seed": config["seed_everything"],
        "trainer": trainer,
        "model": model,
        "data": {"class_path": config["data"]["class_path"], **data},
    }
    return digest_of(_known(kept))


def digest_of(content: Any) -> str:
    """Hash of plain data, 16 hexadecimal digits, free of the order of keys."""
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()


def _known(value: Any) -> Any:
    """The same without nulls: a library that gains a setting, unset, changes nothing."""
    if isinstance(value, Mapping):
        return {key: _known(part) for key, part in value.items() if part is not None}
    return [_known(part) for part in value] if isinstance(value, list) else value


def build_net(config: Config) -> nn.Module:
    """The network of a configuration with the weights that its seed gives."""
    torch.manual_seed(config["seed_everything"])
    return build(nn.Module, config["model"]["net"])


def build_data(config: Config, **changes: Any) -> pl.LightningDataModule:
    """The data module of a configuration, some of its settings changed."""
    spec = config["data"]
    return build(pl.LightningDataModule, {**spec, "init_args": {**spec.get("init_args", {}), **changes}})


def trained_config(checkpoint: Path) -> Config:
    """Of the configuration that a checkpoint was trained with, what it keeps: its network, and what taught its light stream.

    Raises:
        InputError: If it does not keep that.
    """
    content = read_checkpoint(checkpoint)
    kept = content.get("ltnet_pl", {}).get("loss")
    if not isinstance(kept, dict):
        raise InputError(
            f"{checkpoint}: does not say which loss trained it; expected a checkpoint that fit wrote: choose another"
        )
    # a part that the version that wrote it did not have taught nothing
    loss = {key: kept.get(key, 0.0) for key in ("light", "relit_light")}
    return {"model": {"net": spec_of(checkpoint, content), "loss": loss}}
