"""Results on disk: what `test` and `predict` leave in the run folder."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from torch import Tensor

from ltnet_pl import InputError
from ltnet_pl.callbacks.files import run_seed, write_bytes, write_png
from ltnet_pl.callbacks.panels import panel
from ltnet_pl.files import LIGHT_COLUMNS


class TestResults(pl.Callback):
    """Writes what `test` finds to ``test/<row>/`` of the run folder.

    Per-image metrics (``per_image.csv``), a summary (``summary.json``), the relit images, panels, and, for image names of the
    challenge layouts, ``submission.zip`` in the challenge's naming.
    """

    # pytest would take a class of this name for tests
    __test__ = False

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse what would give wrong numbers.

        Raises:
            InputError: If the test runs on more than one device.
        """
        if stage == "test":
            check_devices(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start afresh: what tells of all images must not outlive them where this test is killed."""
        self._rows = []
        remove(self.folder(trainer, pl_module), "summary.json", "per_image.csv", "submission.zip")

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write images and panels of a batch, keep its numbers."""
        folder = self.folder(trainer, pl_module)
        columns = light_columns(batch, outputs)
        for i, name in enumerate(batch["name"]):
            per_image = {key: float(outputs[key][i]) for key in outputs if key != "relit" and not key.endswith("_pred")}
            self._rows.append({"name": name, **per_image, **{key: values[i] for key, values in columns.items()}})
            write_png(folder / "images" / f"{name}.png", pixels_of(outputs["relit"][i]))
            write_png(folder / "panels" / f"{name}.png", panel(batch, outputs["relit"], i))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the table and the summary."""
        folder = self.folder(trainer, pl_module)
        write_bytes(folder / "per_image.csv", table_of(self._rows).encode())
        names = [row["name"] for row in self._rows]
        for kind in ("images", "panels"):
            for stale in {path.stem: path for path in (folder / kind).glob("*.png")}.keys() - set(names):
                (folder / kind / f"{stale}.png").unlink()
        if all(re.fullmatch(r"(Image|Pair)\d+", name) for name in names):
            write_bytes(folder / "submission.zip", submission(folder / "images", names))
        # read by name: this room knows no task
        task: Any = pl_module
        values = {key: float(value) for key, value in task.test_values.items()}
        labels = {key: task.test_metrics.labels[key] for key in values}
        row = self.row(trainer, pl_module)
        write_summary(folder, row, trainer, pl_module, len(names), metrics=values, labels=labels, absent=task.test_metrics.absent)
        print(f"wrote {len(names)} relit images, per_image.csv and summary.json to {folder}")
        for reason in sorted(set(task.test_metrics.absent.values())):
            print(reason)

    @staticmethod
    def row(trainer: pl.Trainer, task: Any) -> str:
        """Name of the row: the task's; unless that was chosen, with the list or the folder that was tested, if not the usual."""
        data: Any = getattr(trainer, "datamodule", None)
        split, (root, _) = getattr(data, "test_split", "test"), getattr(data, "folders", {}).get("test", (None, None))
        parts = [part for part in (None if split == "test" else split, root and Path(root).name) if part]
        return str(task.row_name) if getattr(task, "row", None) or not parts else f"{task.row_name}, {', '.join(parts)}"

    def folder(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Path:
        """Where the results of this row go."""
        return Path(trainer.default_root_dir) / "test" / slug(self.row(trainer, pl_module))


class PredictResults(pl.Callback):
    """Writes what `predict` returns to ``predict/`` of the run folder: relit images, and the light stream's readings.

    The readings stand in ``per_image.csv`` beside the lights that the file names tell; with ``summary.json``, `report` takes the
    folder for a row.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse more than one device: each would write its share over the others'."""
        if stage == "predict":
            check_devices(trainer)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start afresh, as `TestResults` does."""
        self._rows = []
        remove(Path(trainer.default_root_dir) / "predict", "summary.json", "per_image.csv")

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the images of a batch."""
        columns = light_columns(batch, outputs)
        for i, name in enumerate(batch["name"]):
            self._rows.append({"name": name, **{key: values[i] for key, values in columns.items()}})
            write_png(Path(trainer.default_root_dir) / "predict" / f"{name}.png", pixels_of(outputs["relit"][i]))

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the readings."""
        folder = Path(trainer.default_root_dir) / "predict"
        write_bytes(folder / "per_image.csv", table_of(self._rows).encode())
        task: Any = pl_module
        write_summary(folder, task.row_name, trainer, pl_module, len(self._rows), metrics={}, labels={}, absent={})
        print(f"wrote {len(self._rows)} relit images, per_image.csv and summary.json to {folder}")


def check_devices(trainer: pl.Trainer) -> None:
    """Refuse more than one process.

    Raises:
        InputError: If there are more.
    """
    if trainer.world_size > 1:
        raise InputError(
            f"--trainer.devices gives {trainer.world_size} processes; results come from one device, since a distributed sampler "
            "repeats images: use --trainer.devices 1"
        )


def remove(folder: Path, *names: str) -> None:
    """Delete files of a folder, as far as they are there."""
    for name in names:
        (folder / name).unlink(missing_ok=True)


def write_summary(folder: Path, row: str, trainer: pl.Trainer, task: Any, pairs: int, **scores: dict[str, Any]) -> None:
    """Write ``summary.json``: which network with which weights gave the results of a folder, and its scores."""
    summary = {
        "row": row,
        "net": type(task.net).__name__,
        "light": getattr(task.net, "light", None),
        "checkpoint": relative(trainer.ckpt_path),
        "pairs": pairs,
        "seed": run_seed(),
        "parameters": sum(p.numel() for p in task.net.parameters()),
        **scores,
    }
    write_bytes(folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())


def light_columns(batch: dict[str, Any], outputs: dict[str, Tensor]) -> dict[str, list[float]]:
    """True and read lights of a batch, a list of one number per sample for each column that there is; NaN where unknown."""
    columns = {}
    for which in ("input", "target"):
        lights = batch[f"{which}_light"].cpu()
        columns[f"{which}_azimuth"], columns[f"{which}_temperature"] = lights[:, 0].tolist(), lights[:, 1].tolist()
    return columns | {key: value.cpu().tolist() for key, value in outputs.items() if key.endswith("_pred")}


def table_of(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV: name, metrics, then the light columns; NaN and what is missing are left empty."""
    metrics = [key for key in (rows[0] if rows else {}) if key != "name" and key not in LIGHT_COLUMNS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["name", *metrics, *LIGHT_COLUMNS]
    writer.writerow(header)
    for row in rows:
        writer.writerow([number(row.get(key, math.nan)) for key in header])
    return text.getvalue()


def number(value: str | float) -> str:
    """A CSV cell: six significant digits, empty for NaN."""
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


def pixels_of(image: Tensor) -> NDArray[np.uint8]:
    """Image ``(3, H, W)`` in [0, 1] as 8-bit pixels ``(H, W, 3)``."""
    pixels: NDArray[np.uint8] = (image.detach().float().cpu().permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return pixels


def submission(images: Path, names: list[str]) -> bytes:
    """The relit images as one zip in the challenge's naming, the files at its top level."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in sorted(names):
            archive.write(images / f"{name}.png", f"{name}.png")
    return content.getvalue()


def slug(name: str) -> str:
    """A row's name as a folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "row"


def relative(path: str | Path | None) -> str | None:
    """A checkpoint's path as seen from here, so that results name no folder outside; its name alone where it lies elsewhere."""
    if path is None:
        return None
    absolute = Path(path).resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else absolute.name
