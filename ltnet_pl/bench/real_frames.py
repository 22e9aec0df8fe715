"""Real VIDIT frames: what the light stream reads off them, and a change of colour temperature against the real one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltnet_pl import InputError
from ltnet_pl.bench.configs import FRAME_SIZE
from ltnet_pl.bench.sheets import Line, Tile, pixels_of
from ltnet_pl.bench.trained import Method
from ltnet_pl.data.datasets import Batch, light_row
from ltnet_pl.data.frames import Frames
from ltnet_pl.data.loader import together
from ltnet_pl.data.predict import PredictDataset, light_in_name
from ltnet_pl.light import TEMPERATURES, angular_distance, decode, direction_of, mired
from ltnet_pl.metrics import psnr, quantize
from ltnet_pl.report.figures import Confusion, confusions
from ltnet_pl.report.runs import Row
from ltnet_pl.report.tables import MISSING, markdown, psnr_text
from ltnet_pl.vidit import find_one_to_one, find_pairs, image_size
from ltnet_pl.vidit.files import load_bytes

FRAMES = "vidit/frames_512"
MATRICES = "vidit/colour_temperature_matrices"


@dataclass
class Findings:
    """What one part of the benchmark found.

    Args:
        tables: Markdown tables.
        notes: What a reader must know beside them.
        panels: Pictures by name: heads of columns, and lines.
    """

    tables: list[str]
    notes: list[str] = field(default_factory=list)
    panels: dict[str, tuple[list[str], list[Line]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """A real image, its depth where there is one, and its light ``(azimuth, kelvin)`` with NaN for what nobody knows."""

    image: Path
    depth: Path | None
    light: tuple[float, ...]


def within(data: Path, name: str) -> Path:
    """A folder of the sample data.

    Raises:
        InputError: If it is missing.
    """
    folder = data / name
    if not folder.is_dir():
        raise InputError(f"DATA {data}: has no folder {name}; expected the sample data as its README describes it: complete it")
    return folder


def images_in(folder: Path) -> list[Path]:
    """The PNG files of a folder, sorted.

    Raises:
        InputError: If there is none.
    """
    found = sorted(folder.glob("*.png"))
    if not found:
        raise InputError(f"{folder}: holds no image; expected PNG files: complete the sample data")
    return found


def load(images: Sequence[tuple[Path, Path | None]], size: int) -> Batch:
    """Images of one size as a batch of whole frames; depth zeros where there is none, wanted light unknown.

    Args:
        images: Files and their depths.
        size: Longer side in pixels to which larger images are reduced.

    Raises:
        InputError: If a file is broken, or sizes differ.
    """
    sizes = {image_size(path): path for path, _ in images}
    if len(sizes) > 1:
        raise InputError(
            f"{', '.join(f'{path}: {h} x {w}' for (h, w), path in sizes.items())} (height x width); expected one size: "
            "fetch the sample data again"
        )
    ((height, width),) = sizes
    scale = min(1.0, size / max(height, width))
    dataset = PredictDataset(images, [], None, Frames(round(min(height, width) * scale), cache_mb=0), FRAME_SIZE)
    batch: Any = together([dataset[i] for i in range(len(dataset))])
    return dict(batch)


def light_sets(data: Path) -> dict[str, list[Known]]:
    """The images whose light is read, by the name of their set.

    Raises:
        InputError: If a folder is missing, or empty.
    """
    one_to_one = find_one_to_one(within(data, "vidit/native_layout/track1"))
    views = [view for pair in one_to_one for view in (pair.input, pair.target) if view is not None]
    validation = find_one_to_one(within(data, "vidit/full_1024/track1_val_input"))

    def named(*folders: str) -> list[Known]:
        return [Known(path, None, light_in_name(path.stem)) for name in folders for path in images_in(within(data, name))]

    return {
        "eight directions, 512 px, no depth": named(f"{FRAMES}/A_directions", f"{FRAMES}/B_directions"),
        "five temperatures, 512 px, no depth": named(f"{FRAMES}/A_illuminants", f"{FRAMES}/B_illuminants"),
        "original files, 1024 px, no depth": [
            *named("vidit/full_1024/train_guides"),
            *(Known(pair.input.image, None, light_row(pair.input.light)) for pair in validation),
        ],
        "matched one-to-one set, with depth": [Known(view.image, view.depth, light_row(view.light)) for view in views],
    }


def readings(method: Method, data: Path, size: int) -> Findings:
    """What the light stream reads off real frames, against what is known of their lights.

    Args:
        method: The network.
        data: Folder of the sample data.
        size: Longer side in pixels to which larger images are reduced.
    """
    if not method.reads:
        return Findings([], [f"{method.name} has no light stream that was trained, so nothing is read off real frames."])
    sets = light_sets(data)
    images: list[dict[str, str]] = []
    body, panels = [], {}
    for at, (name, known) in enumerate(sets.items(), start=1):
        batches = [load([(one.image, one.depth)], size) for one in known]
        read = torch.cat([_read(method, batch) for batch in batches])
        truth = torch.tensor([one.light for one in known])
        rows = [_columns(*both) for both in zip(truth.tolist(), read.tolist(), strict=True)]
        images += rows
        body.append([name, str(len(known)), *_judged(truth, read, _confusions(method, rows))])
        tiles = [
            Tile(pixels_of(batch["input"][0]), _caption(one, light))
            for one, light, batch in zip(known, read.tolist(), batches, strict=True)
        ]
        panels[f"set{at}"] = ([name], [Line("", tiles[i : i + 4]) for i in range(0, len(tiles), 4)])
    head = ["images", "number", "direction right", "within 45°", "mean angle off (°)", "temperature right", "median mired off"]
    tables = [markdown(head, body)]
    for found in _confusions(method, images):
        counts = [[name, *map(str, line)] for name, line in zip(found.names, found.counts.tolist(), strict=True)]
        tables.append(markdown([f"{found.title}: true, then read as", *found.names], counts))
    return Findings(tables, [_agreement(method, data, size)], panels)


def _read(method: Method, batch: Batch) -> Tensor:
    """Azimuth and kelvin ``(B, 2)`` that are read off the inputs of a batch."""
    with torch.inference_mode():
        return decode(method.net.read_light(batch["input"], batch["depth"], batch["crop"], batch)[0].float())


def _columns(truth: Sequence[float], read: Sequence[float]) -> dict[str, str]:
    """True and read light of an image as the columns of ``per_image.csv``, unknown ones empty."""
    cells = {"guide_azimuth_pred": "", "guide_temperature_pred": "", "target_azimuth": "", "target_temperature": ""}
    for name, light in (("input_{}", truth), ("input_{}_pred", read)):
        for what, value in zip(("azimuth", "temperature"), light, strict=True):
            cells[name.format(what)] = "" if math.isnan(value) else str(value)
    return cells


def _confusions(method: Method, images: list[dict[str, str]]) -> list[Confusion]:
    return confusions(Row(method.name, method.checkpoint, summary={}, images=images))


def _judged(truth: Tensor, read: Tensor, found: Sequence[Confusion]) -> list[str]:
    """The cells of a set: shares of right classes, and errors; a dash for what nobody knows."""
    directions, temperatures = (next((c for c in found if c.title.startswith(w)), None) for w in ("Direction", "Temperature"))
    angles = angular_distance(read[:, 0], truth[:, 0])
    mireds = (mired(read[:, 1]) - mired(truth[:, 1])).abs()
    angles, mireds = angles[~angles.isnan()], mireds[~mireds.isnan()]
    return [
        f"{directions.correct} of {directions.total}" if directions else MISSING,
        f"{_near(directions.counts)} of {directions.total}" if directions else MISSING,
        f"{angles.mean():.1f}" if len(angles) else MISSING,
        f"{temperatures.correct} of {temperatures.total}" if temperatures else MISSING,
        f"{mireds.double().quantile(0.5):.1f}" if len(mireds) else MISSING,
    ]


def _near(counts: NDArray[np.int64]) -> int:
    """How many directions were read as the right one or one of its two neighbours on the compass."""
    return int(sum(np.trace(np.roll(counts, turn, axis=1)) for turn in (-1, 0, 1)))


def _agreement(method: Method, data: Path, size: int) -> str:
    """A sentence on the any-to-any set, of whose lights only this is known: guide and target have the same."""
    parts = []
    for pair in find_pairs(within(data, "vidit/native_layout/track2")):
        if pair.guide is None or pair.target is None:
            continue
        one, other = (_read(method, load([(view.image, view.depth)], size))[0] for view in (pair.guide, pair.target))
        off, turned = (mired(one[1]) - mired(other[1])).abs().item(), angular_distance(one[0], other[0]).item()
        parts.append(f"guide and target of {pair.name} have one light; the readings differ by {turned:.0f}° and {off:.0f} mired")
    return f"matched any-to-any set, with depth: {'; '.join(parts) or 'no pair has both guide and target'}."


def _caption(known: Known, read: Sequence[float]) -> str:
    """What is known of an image's light, and what was read."""
    azimuth, kelvin = known.light
    true = [*([] if math.isnan(azimuth) else [direction_of(azimuth)]), *([] if math.isnan(kelvin) else [f"{kelvin:.0f} K"])]
    return f"{' '.join(true)}, read {direction_of(read[0])} {read[0]:.0f}° {read[1]:.0f} K"


_TERMS = (
    "r g b rr gg bb rg gb rb rrr ggg bbb rgg gbb rbb grr bgg brr rgb "
    "rrrr gggg bbbb rrrg rrrb gggr gggb bbbr bbbg rrgg ggbb rrbb rrgb ggrb bbrg"
)
POWERS = tuple((term.count("r"), term.count("g"), term.count("b")) for term in _TERMS.split())
"""Powers of red, green and blue in each of the 34 terms of the published matrices, in their order."""


def polynomial(image: Tensor) -> Tensor:
    """The 34 terms that a colour matrix is applied to: ``(B, 3, H, W)`` in [0, 1] to ``(B, 34, H, W)``."""
    red, green, blue = image.unbind(dim=1)
    return torch.stack([red**r * green**g * blue**b for r, g, b in POWERS], dim=1)


def read_matrix(folder: Path, source: int, target: int) -> Tensor:
    """The published matrix ``(3, 34)``, float32, from one of the five temperatures (by number, 2500 K first) to another.

    Raises:
        InputError: If the file is missing, broken, or of another shape.
    """
    path = folder / f"weight_{source}_{target}.npy"
    try:
        matrix = np.load(BytesIO(load_bytes(path)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a matrix of 3 x 34: complete the sample data") from error
    if matrix.shape != (3, len(POWERS)) or matrix.dtype.kind != "f":
        raise InputError(f"{path}: holds {matrix.dtype} of shape {matrix.shape}; expected real numbers, 3 x 34: fetch it again")
    return torch.from_numpy(matrix.astype(np.float32))


def transfer(method: Method, data: Path, size: int) -> Findings:
    """Frames at one colour temperature brought to another, against the real ones: untouched, by matrix, by the network.

    Args:
        method: The network; it takes the lights from labels.
        data: Folder of the sample data.
        size: Longer side in pixels to which larger images are reduced.
    """
    folder, heads = within(data, MATRICES), ["untouched", "published matrix", method.name]
    scores: dict[str, dict[tuple[int, int], list[float]]] = {}
    panels = {}
    for scene in ("A", "B"):
        batch = load([(path, None) for path in _illuminants(data, scene)], size)
        frames = batch["input"]
        azimuths = _read(method, batch)[:, 0] if method.reads else torch.zeros(len(frames))
        scores[scene], lines = {}, []
        for source, target in permutations(range(len(TEMPERATURES)), 2):
            own = {key: value[source : source + 1] for key, value in batch.items()}
            for key, kelvin in (("input_light", TEMPERATURES[source]), ("target_light", TEMPERATURES[target])):
                own[key] = torch.tensor([[azimuths[source], float(kelvin)]])
            matrix = read_matrix(folder, source, target)
            by_matrix = quantize(torch.einsum("dk,bkhw->bdhw", matrix, polynomial(own["input"])))
            results = [own["input"], by_matrix, method.relit(own)]
            real = frames[target : target + 1]
            scores[scene][source, target] = [psnr(result, real).item() for result in results]
            if abs(target - source) == max(source, len(TEMPERATURES) - 1 - source):
                texts = [f"{psnr_text(value)} dB" for value in scores[scene][source, target]]
                tiles = [Tile(pixels_of(image[0]), text) for image, text in zip(results, texts, strict=True)]
                lines.append(Line(_step(source, target), [*tiles, Tile(pixels_of(real[0]), "")]))
        panels[scene] = ([*heads, "real"], lines)
    note = (
        "Temperature alone: real frames without depth (zeros), labels for the temperatures; the azimuth, which nobody knows, is "
        + ("what the light stream reads off the input" if method.reads else "N")
        + ", for both lights. PSNR (dB) against the real frame."
    )
    return Findings([markdown(["temperatures", *heads], _transfer_body(scores))], [note], panels)


def _transfer_body(scores: Mapping[str, Mapping[tuple[int, int], Sequence[float]]]) -> list[list[str]]:
    """Lines of the table: each pair over the scenes, each scene over the pairs, and all."""
    groups: dict[str, list[Sequence[float]]] = {}
    for scene, pairs in scores.items():
        for (source, target), values in pairs.items():
            for group in (_step(source, target), f"scene {scene}, all pairs", "all"):
                groups.setdefault(group, []).append(values)
    order = sorted(groups, key=lambda group: (group == "all", group.startswith("scene")))
    return [[group, *(psnr_text(statistics.fmean(column)) for column in zip(*groups[group], strict=True))] for group in order]


def _step(source: int, target: int) -> str:
    return f"{TEMPERATURES[source]} K to {TEMPERATURES[target]} K"


def _illuminants(data: Path, scene: str) -> list[Path]:
    """The five frames of a scene, 2500 K first.

    Raises:
        InputError: If one is missing.
    """
    folder = within(data, f"{FRAMES}/{scene}_illuminants")
    paths = [folder / f"{scene}_{kelvin}.png" for kelvin in TEMPERATURES]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file; expected one frame for each temperature: complete the sample data")
    return paths
