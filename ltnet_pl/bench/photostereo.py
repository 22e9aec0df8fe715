"""Photographs of objects under known light directions, relit from each to each other; their height stands in for depth.

The camera of the photographs is orthographic. A pinhole with a very narrow view, far away, stands in for it: with the depth ``z =
c - height`` and ``c`` the distance at which a pixel is as wide as a pixel of height is high.
"""

from __future__ import annotations

import math
import statistics
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ltnet_pl import InputError
from ltnet_pl.bench.configs import FRAME_SIZE
from ltnet_pl.bench.real_frames import Findings, within
from ltnet_pl.bench.sheets import Line, Tile, pixels_of
from ltnet_pl.bench.trained import Method
from ltnet_pl.data.datasets import Batch
from ltnet_pl.data.frames import resize_image
from ltnet_pl.geometry import Geometry, resampled, size_within
from ltnet_pl.light import Camera, Light, Rig, light_tensor, linear_to_srgb, srgb_to_linear
from ltnet_pl.metrics import psnr, quantize
from ltnet_pl.report.tables import markdown, psnr_text
from ltnet_pl.vidit import read_image
from ltnet_pl.vidit.files import load_bytes

PHOTOGRAPHS = "photostereo_uw12"
OBJECTS = ("gray", "buddha", "rock")

CAMERA = Camera(fov=1.0, pitch=0.0)
"""So narrow that depth moves nothing sideways by more than a pixel or so."""

RIG = Rig(radius=10.0, height=0.0)
"""So far that one direction holds for the whole object; each light says its own elevation."""

TEMPERATURE = 5000.0
"""What is said of all lights in kelvin: theirs is unknown and one."""

BOUNCED = 0.05
"""Light that reaches what faces away, in units of what faces the light; it keeps Lambert's ratio finite."""

MARGIN = 5
"""Pixels of the photograph kept around the object."""

SHOWN = 4
"""Pairs of each object on its panel: those whose directions differ most."""


@dataclass(frozen=True)
class Photographs:
    """An object under its lights.

    Args:
        images: ``(N, 3, H, W)``, display-encoded, 8-bit-rounded.
        mask: The object, ``(H, W)`` bool.
        depth: ``(1, H, W)``, 0 for background.
        lights: ``(N, 4)``: azimuth, kelvin, elevation, ambient.
        directions: Unit vectors towards the lights, ``(N, 3)``: x right, y up, z towards the viewer.
    """

    images: Tensor
    mask: Tensor
    depth: Tensor
    lights: Tensor
    directions: NDArray[np.float64]


def light_towards(direction: Sequence[float]) -> Light:
    """The light that stands in a direction, seen by a camera that looks level.

    Args:
        direction: Unit vector from the object to the light: x right, y up, z towards the viewer.

    Returns:
        Its azimuth and elevation in degrees. Straight above every azimuth is right; it is 0 there.

    Example:
        >>> light_towards((1.0, 0.0, 0.0)).azimuth
        90.0
    """
    x, y, z = (float(value) for value in direction)
    level = math.hypot(x, z)
    azimuth = math.degrees(math.atan2(x, -z)) if level else 0.0
    return Light(azimuth, TEMPERATURE, elevation=math.degrees(math.atan2(y, level)))


def read_directions(path: Path) -> NDArray[np.float64]:
    """Unit vectors ``(N, 3)`` of a file whose first line is their number.

    Raises:
        InputError: If the file is missing, or holds something else.
    """
    try:
        count, *numbers = (float(word) for word in path.read_text(encoding="ascii").split())
        directions = np.array(numbers).reshape(int(count), 3)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected the number of lights, then their unit vectors: complete the sample data"
        ) from error
    # the lengths of the published vectors are 1 to six digits
    if not np.allclose(np.linalg.norm(directions, axis=1), 1.0, atol=1e-3):
        raise InputError(f"{path}: holds vectors of another length than 1; expected unit vectors: fetch it again")
    return directions


def read_object(folder: Path, directions: NDArray[np.float64], size: int) -> Photographs:
    """The photographs of an object, cut to it, with the depth that its height gives.

    The files hold linear light: Lambert's law fits their numbers as they stand better than decoded ones. What networks take is
    display-encoded, so they are encoded.

    Args:
        folder: The object's folder.
        directions: Unit vectors towards the lights, ``(N, 3)``, in the order of the photographs.
        size: Longer side in pixels to which a larger cut is reduced.

    Raises:
        InputError: If a file is missing or broken, or sizes differ.
    """
    mask, height = _geometry(folder / "derived_geometry.npz")
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    window = tuple(slice(max(0, place[0] - MARGIN), place[-1] + 1 + MARGIN) for place in (rows, columns))
    whole = (mask.shape[0], mask.shape[1])
    photographs = [read_image(folder / f"light{i:02d}.png", whole)[window] for i in range(len(directions))]
    cut = mask[window].shape
    scale = min(1.0, size / max(cut))
    fitted = (max(1, round(cut[0] * scale)), max(1, round(cut[1] * scale)))
    linear = np.stack([resize_image(image, fitted) for image in photographs]) / 255
    images = quantize(torch.from_numpy(linear_to_srgb(linear)).float().permute(0, 3, 1, 2).contiguous())

    def reduced(values: NDArray[np.float32]) -> Tensor:
        pixels = torch.from_numpy(values[window].copy())[None, None]
        return functional.interpolate(pixels, size=fitted, mode="bilinear", antialias=True)[0]

    # within the object the height is smooth, so its mean is a height too; the background is kept out of it
    share = reduced(mask.astype(np.float32))
    small = share > 0.5
    reduced_height = reduced(np.where(mask, height, 0.0).astype(np.float32)) / share.clamp(min=0.5)
    distance = fitted[0] / 2 / math.tan(math.radians(CAMERA.fov) / 2)
    depth = torch.where(small, distance - reduced_height * scale, 0.0)
    lights = light_tensor([light_towards(direction.tolist()) for direction in directions])
    return Photographs(images, small[0], depth, lights, directions)


def _geometry(path: Path) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Mask and height in pixels of a photograph, both ``(H, W)``."""
    try:
        with np.load(BytesIO(load_bytes(path)), allow_pickle=False) as file:
            mask, height = file["mask"].astype(bool), file["height_px"].astype(np.float32)
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected arrays mask and height_px: complete the sample data"
        ) from error
    if mask.ndim != 2 or mask.shape != height.shape or not mask.any() or not np.isfinite(height[mask]).all():
        raise InputError(
            f"{path}: mask is {mask.shape} with {int(mask.sum())} pixels set, height_px is {height.shape}; expected an object in "
            "the mask, and a finite height for it: fetch the file again"
        )
    return mask, height


def as_batch(photographs: Photographs, source: int, targets: Sequence[int]) -> Batch:
    """One photograph to be relit to several lights, as a batch that tells camera and rig.

    Args:
        photographs: The object.
        source: Which light is there.
        targets: Which lights are wanted.
    """
    count = len(targets)
    depth = photographs.depth[None]
    return {
        "name": [f"{source}_{target}" for target in targets],
        "input": photographs.images[source].expand(count, -1, -1, -1),
        "target": photographs.images[list(targets)],
        "depth": depth.expand(count, -1, -1, -1),
        "frame_depth": resampled(depth, size_within(depth.shape[-2:], FRAME_SIZE)).expand(count, -1, -1, -1),
        "input_light": photographs.lights[source].expand(count, -1),
        "target_light": photographs.lights[list(targets)],
        "crop": torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(count, -1),
        "camera": CAMERA.tensor(depth, count),
        "rig": RIG.tensor(depth, count),
    }


def lambert(batch: Batch) -> Tensor:
    """The inputs of a batch times the ratio of what the wanted and the present light give a matt surface, without shadows.

    Args:
        batch: As `as_batch` makes it.

    Returns:
        ``(B, 3, H, W)``, display-encoded, 8-bit-rounded.
    """
    geometry = Geometry.of(batch["depth"], batch["frame_depth"], batch["crop"], batch["camera"])
    present, wanted = (geometry.shading(batch[key], batch["rig"]) for key in ("input_light", "target_light"))
    ratio = ((wanted + BOUNCED) / (present + BOUNCED)).double().numpy()
    return quantize(torch.from_numpy(linear_to_srgb(srgb_to_linear(batch["input"].numpy()) * ratio)).float())


def photostereo(method: Method, data: Path, size: int) -> Findings:
    """Photographs relit from each light to each other: by copying, by Lambert's law, by the network.

    Args:
        method: The network; one that can is told camera and rig.
        data: Folder of the sample data.
        size: Longer side in pixels to which larger photographs are reduced.
    """
    directions = read_directions(within(data, PHOTOGRAPHS) / "lights.txt")
    if hasattr(method.net, "camera_from"):
        method.net.camera_from = "true"
    heads = ["copying the input", "Lambert", method.name]
    body, panels, everything = [], {}, []
    for name in OBJECTS:
        photographs = read_object(within(data, f"{PHOTOGRAPHS}/{name}"), directions, size)
        shown = _farthest(directions)
        scores, lines = [], {}
        for source in range(len(directions)):
            targets = [i for i in range(len(directions)) if i != source]
            batch = as_batch(photographs, source, targets)
            results = [batch["input"], lambert(batch), method.relit(batch)]
            found = torch.stack([psnr_within(photographs.mask, result, batch["target"]) for result in results], dim=1).tolist()
            scores += found
            for at, target in enumerate(targets):
                if (source, target) in shown:
                    pictures = [*(result[at] for result in results), batch["target"][at]]
                    texts = [*(f"{psnr_text(value)} dB" for value in found[at]), ""]
                    tiles = [Tile(pixels_of(p * photographs.mask), text) for p, text in zip(pictures, texts, strict=True)]
                    lines[source, target] = Line(f"light {source:02d} to light {target:02d}", tiles)
        panels[name] = ([*heads, "photograph"], [lines[pair] for pair in shown])
        body.append(_line(name, scores))
        everything += scores
    body.append(_line("all", everything))
    note = (
        "Photographs: every ordered pair of lights, directions from the data, depth from the height that was derived from all "
        f"photographs, an orthographic camera (a pinhole of {CAMERA.fov:g}° stands in), linear light display-encoded. "
        "PSNR (dB) within the object; Lambert is the ratio of computed irradiances, without shadows."
    )
    return Findings([markdown(["object", "pairs", *heads, "better than copying"], body)], [note], panels)


def psnr_within(mask: Tensor, pred: Tensor, target: Tensor) -> Tensor:
    """PSNR of each image ``(B,)`` over the pixels of a mask ``(H, W)``."""
    return psnr(pred[:, :, mask][:, :, None], target[:, :, mask][:, :, None])


def _line(name: str, scores: Sequence[Sequence[float]]) -> list[str]:
    """A line of the table: means over pairs, and how often the network beats copying."""
    better = sum(own > copied for copied, _, own in scores)
    means = [psnr_text(statistics.fmean(column)) for column in zip(*scores, strict=True)]
    return [name, str(len(scores)), *means, f"{better} of {len(scores)}"]


def _farthest(directions: NDArray[np.float64]) -> list[tuple[int, int]]:
    """The ordered pairs of lights whose directions differ most."""
    pairs = permutations(range(len(directions)), 2)
    return sorted(pairs, key=lambda pair: float(directions[pair[0]] @ directions[pair[1]]))[:SHOWN]
