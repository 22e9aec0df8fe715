"""Writes run folders as `fit` and `test` leave them, small and with numbers of one's choice."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

from ltnet_pl.files import LIGHT_COLUMNS

LABELS = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips_squeeze": "LPIPS (SqueezeNet)",
    "mps_squeeze": "MPS (SqueezeNet)",
    **{f"psnr_{change}": f"PSNR {change}°" for change in (0, 45, 90, 135, 180)},
    "input_direction_accuracy": "Input direction accuracy",
    "input_angular_error": "Input angular error (°)",
    "input_mired_error": "Input median mired error",
    "guide_direction_accuracy": "Guide direction accuracy",
    "guide_angular_error": "Guide angular error (°)",
    "guide_mired_error": "Guide median mired error",
}
NO_WEIGHTS = "no LPIPS trunk weights were found: name a file with --metrics.lpips_weights"
SIDE = 8


def panel(shade):
    """A panel of six grey tiles as PNG."""
    pixels = np.repeat(np.linspace(0, shade, 6), SIDE)[None, :, None] * np.ones((SIDE, 1, 3))
    content = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(content, format="PNG")
    return content.getvalue()


def write_row(run, row, metrics, images, *, folder=None, absent=None, panels=True, **summary):
    """Write ``test/<folder>`` of a run folder, named after the row unless another name is given.

    ``images``: one dict per pair, whose missing columns are left empty.
    """
    folder = Path(run) / "test" / (folder or row)
    (folder / "panels").mkdir(parents=True)
    content = {
        "row": row,
        "net": "LTNet",
        "light": "guide",
        "checkpoint": "checkpoints/best.ckpt",
        "pairs": len(images),
        "seed": 7,
    }
    content |= {"parameters": 412_345, "metrics": metrics, "labels": {key: LABELS.get(key, key) for key in metrics}}
    (folder / "summary.json").write_text(json.dumps(content | {"absent": absent or {}} | summary))
    header = ["name", *(key for key in metrics if "_" not in key), *LIGHT_COLUMNS]
    with (folder / "per_image.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, header, restval="")
        writer.writeheader()
        writer.writerows(images)
    for i, image in enumerate(images if panels else []):
        (folder / "panels" / f"{image['name']}.png").write_bytes(panel(40 + 10 * i))
    return folder


def write_log(run, version, lines):
    """Write one log of a training; lines are dicts, ragged as Lightning's are."""
    folder = Path(run) / "logs" / f"version_{version}"
    folder.mkdir(parents=True)
    header = list(dict.fromkeys(["epoch", "step", "train/loss", "val/psnr", *(key for line in lines for key in line)]))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, header, restval="")
        writer.writeheader()
        writer.writerows(lines)


def pairs(*values):
    """Pairs p0, p1, ... with these PSNR."""
    return [{"name": f"p{i}", "psnr": value} for i, value in enumerate(values)]


def write_three(folder):
    """Three runs: a network that reads lights, one that does not, and a copy of the input with nothing trained."""
    images = pairs(24.0, 18.5, 21.0, 15.25)
    lights = {"input_azimuth": 0, "input_temperature": 6500, "target_azimuth": 90, "target_temperature": 4500}
    # p0: all right; p1: both directions wrong; p2: guide's temperature wrong, nothing read off the input; p3: truth unknown
    images[0] |= lights | {"input_azimuth_pred": 350, "guide_azimuth_pred": 100, "guide_temperature_pred": 4600}
    images[0] |= {"input_temperature_pred": 6600}
    images[1] |= lights | {"input_azimuth_pred": 45, "guide_azimuth_pred": 270, "guide_temperature_pred": 4400}
    images[1] |= {"input_temperature_pred": 6400}
    images[2] |= lights | {"guide_azimuth_pred": 89.9, "guide_temperature_pred": 2500}
    images[3] |= {"input_azimuth_pred": 10, "input_temperature_pred": 5000}
    readings = {"guide_direction_accuracy": 2 / 3, "guide_angular_error": 63.3667, "guide_mired_error": 5.05}
    write_row(folder / "ltnet", "ltnet", {"psnr": 19.6875, "ssim": 0.71234, "psnr_90": 21.16667, **readings}, images)
    unet = {"psnr": 18.204, "ssim": 0.71231, "lpips_squeeze": 0.2, "mps_squeeze": 0.756155, "psnr_90": 18.204}
    write_row(folder / "unet", "unet", unet, pairs(19, 18, 18.5, 17.316), net="UNet", parameters=1_234_567, light=None)
    copy = {"psnr": math.inf, "ssim": 0.4, "psnr_90": 10.5}
    write_row(
        *(folder / "copy", "copy | input", copy, pairs(math.inf, 11, 10, 9)),
        **{"net": "CopyInput", "parameters": 0, "light": None, "seed": None, "checkpoint": None},
        absent={"lpips": NO_WEIGHTS, "mps": NO_WEIGHTS},
    )
    write_log(folder / "ltnet", 0, [{"epoch": 0, "step": 49, "train/loss": 0.4}, {"epoch": 0, "step": 99, "val/psnr": 15.5}])
    write_log(folder / "unet", 0, [{"epoch": 0, "step": 49, "train/loss": 0.5}, {"epoch": 0, "step": 99, "val/psnr": 14.5}])
    (folder / "ltnet" / "config.yaml").write_text("model:\n  loss: {charbonnier: 1.0}\ntrainer: {max_steps: 1000}\n")
    return [str(folder / name) for name in ("ltnet", "unet", "copy")]


CALLBACKS = """  callbacks:
  - {class_path: ltnet_pl.callbacks.EMA, init_args: {decay: 0.995}}
  - class_path: ltnet_pl.callbacks.Panels
"""


def write_run(folder, field="affine", seed=0, psnr=20.0, *, devices=1, status="finished", name="LTNet (guide light)", tested=()):
    """A run folder as `fit` leaves it, and `test` where there are images to test."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        f"seed_everything: {seed}\ntrainer:\n  default_root_dir: {folder}\n  devices: {devices}\n{CALLBACKS}"
        f"model:\n  net:\n    class_path: ltnet_pl.nets.LTNet\n    init_args: {{field: {field}, widths: [8, 12]}}\n  row: null\n"
        f"data: {{class_path: ltnet_pl.data.AnyToAnyDataModule, init_args: {{seed: {seed}, pairs: {folder}/pairs}}}}\n"
    )
    last = {"train/loss": 0.3, "val/psnr": psnr - 1, "val/loss": None}
    summary = {"status": status, "row": name, "net": "LTNet", "seed": seed, "parameters": 1000, "steps": 12, "seconds": 3.5}
    summary |= {"monitor": "val/psnr", "mode": "max", "best": {"val/psnr": psnr, "val/loss": 0.25}, "last": last}
    (folder / "summary.json").write_text(json.dumps(summary))
    lines = [{"step": 4, "epoch": 0, "seconds": 1.0, "train/loss": 0.5}]
    lines += [{"step": 8, "epoch": 1, "seconds": 2.0, "val/psnr": psnr, "val/loss": None}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9, "tr')
    if tested:
        mean = sum(tested) / len(tested)
        write_row(folder, name, {"psnr": mean}, pairs(*tested), folder="own", seed=seed, panels=False)
    return folder
