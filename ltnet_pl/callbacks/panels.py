"""Panels: what the network sees, returns and should have returned, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from ltnet_pl import InputError
from ltnet_pl.callbacks.files import write_png
from ltnet_pl.files import TILES


class Panels(pl.Callback):
    """Writes panels of the first validation images as PNG under ``panels/`` of the run folder, and to W&B where it is the logger.

    Args:
        images: How many images.
        every: Epochs from one set of panels to the next.
    """

    def __init__(self, images: int = 4, every: int = 1) -> None:
        for name, value, least in (("images", images, 0), ("every", every, 1)):
            if value < least:
                raise InputError(f"{name} of the callback Panels is {value}; expected {least} or more: raise it")
        self.images, self.every = images, every
        self._rows: list[NDArray[np.uint8]] = []

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start a new set."""
        self._rows = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep rows until there are enough."""
        if (
            trainer.state.fn != "fit"
            or trainer.sanity_checking
            or not trainer.is_global_zero
            or trainer.current_epoch % self.every
        ):
            return
        for i in range(min(len(batch["name"]), self.images - len(self._rows))):
            self._rows.append(panel(batch, outputs["relit"], i))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rows as one picture."""
        if not self._rows or getattr(trainer, "fast_dev_run", False):
            return
        picture = np.concatenate(self._rows)
        folder = Path(trainer.default_root_dir) / "panels"
        write_png(folder / f"epoch_{trainer.current_epoch:04d}.png", picture)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("val/panels", [picture], caption=[" | ".join(TILES)])


def panel(batch: dict[str, Any], relit: Tensor, index: int, side: int = 256) -> NDArray[np.uint8]:
    """One row of tiles for sample ``index``: input, depth, guide, relit, target, error; grey where the batch has none.

    Depth is shown brighter where nearer, black for background; the error is the mean absolute difference of colours, times four.

    Args:
        batch: The batch.
        relit: Relit images ``(B, 3, H, W)``.
        index: Which sample.
        side: Longest side of a tile in pixels; larger images are reduced.

    Returns:
        Array ``(h, 6 w + gaps, 3)``.
    """
    shape = relit.shape[-2:]

    def image(key: str) -> Tensor:
        shown: Tensor = batch[key][index] if key in batch else torch.full((3, *shape), 0.5)
        return shown.detach().float().cpu().clamp(0, 1)

    result = relit[index].detach().float().cpu().clamp(0, 1)
    depth = image_of_depth(batch["depth"][index, 0].detach().float().cpu())
    tiles = [image("input"), depth, image("guide"), result, image("target")]
    error = (result - image("target")).abs().mean(dim=0, keepdim=True) * 4
    tiles.append(error.clamp(0, 1).expand(3, -1, -1) if "target" in batch else image("error"))
    height, width = shape
    scale = min(1.0, side / max(shape))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    gap = np.full((size[1], 2, 3), 255, dtype=np.uint8)
    columns = []
    for tile in tiles:
        pixels = (tile.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        columns += [np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX)), gap]
    return np.concatenate([*columns[:-1]], axis=1)


def image_of_depth(depth: Tensor) -> Tensor:
    """Depth ``(H, W)`` as a grey image ``(3, H, W)``: near is bright, far is dark, background is black."""
    valid = depth > 0
    if not valid.any():
        return torch.zeros(3, *depth.shape)
    low, high = depth[valid].min(), depth[valid].max()
    shade = 1 - 0.85 * (depth - low) / (high - low).clamp(min=1e-12)
    return torch.where(valid, shade, 0.0).expand(3, -1, -1)
