"""Sheets of test scenes: what goes in, what each method makes of it, what should come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from ltnet_pl import InputError
from ltnet_pl.bench.sheets import Line, Tile, nearness, pixels_of, sheet, side_of, write_within
from ltnet_pl.bench.trained import Method, load_methods, pairs_of, provenance
from ltnet_pl.data.loader import together
from ltnet_pl.light import Light, angular_distance, direction_of
from ltnet_pl.metrics import psnr
from ltnet_pl.report.tables import markdown, psnr_text
from ltnet_pl.vidit import Pair

CHANGES = (180.0, 135.0, 90.0)
"""Changes of azimuth in degrees that the scenes of a sheet show in turns."""


def looks(
    runs: list[str],
    data: str = "data/benchmark",
    out: str = "runs/benchmark/looks",
    scenes: int = 10,
    light: Literal["label", "guide"] = "label",
    test_scenes: int = 20,
) -> None:
    """Write sheets of test scenes: input, depth, guide, each method's result with its PSNR, and target.

    One pair of each scene is shown, from the stored test list and the same at every call: the light turns by 180, 135 or 90
    degrees. ``sheet.jpg`` shows all of them, ``<pair>.png`` each alone; every file stays below 300 KiB.

    Args:
        runs: Run folders or checkpoints, in the order of columns; NAME=PATH names a column.
        data: Folder of a rendered set.
        out: Folder of the sheets.
        scenes: Number of test scenes to show, drawn evenly from the families.
        light: Where networks whose light stream was trained take the lights from: label or guide.
        test_scenes: Number of test scenes, the last of the set.

    Raises:
        InputError: If a run has no checkpoint, the set was not rendered, or has fewer test scenes than are to be shown.
    """
    flags = {name: value for name, value in locals().items() if name != "runs"}
    from ltnet_pl.render.turning import read_record

    if not 1 <= scenes <= test_scenes:
        raise InputError(f"--scenes {scenes}; expected 1 to {test_scenes}, the number of --test_scenes: change one of them")
    dataset = pairs_of(data, test_scenes)
    methods = load_methods(runs, light)
    names = sorted({pair.input.scene for pair in dataset.pairs})
    families = {name: read_record(Path(data), name)["family"] for name in names}
    head = ["input", "depth, near bright", "guide", *(method.name for method in methods), "target"]
    lines, scores = [], {}
    for place, scene in enumerate(spread(families, scenes)):
        index = choose(dataset.pairs, scene, place)
        pair = dataset.pairs[index]
        batch: Any = together([dataset[index]])
        results = [method.relit(batch)[0] for method in methods]
        lines.append(_line(pair, families[scene], batch, results))
        scores[pair.name] = [_psnr(image, batch) for image in (batch["input"][0], *results)]
        _write(Path(out) / f"{pair.name}.png", head, lines[-1:])
    _write(Path(out) / "sheet.jpg", head, lines)
    origin = provenance(looks, runs, flags)
    print(table(methods, scores, light))
    print(f"`{origin['command']}`; {origin['machine']}; {origin['date']}\n")
    print(f"wrote sheet.jpg and {len(lines)} single sheets to {out}")


def spread(families: Mapping[str, str], count: int) -> list[str]:
    """Scenes drawn evenly from the families, which take turns in the order of their names.

    Args:
        families: Family by scene.
        count: Scenes wanted, at most as many as there are.

    Example:
        >>> spread({"Image0": "a", "Image1": "a", "Image2": "b", "Image3": "a"}, 3)
        ['Image0', 'Image1', 'Image2']
    """
    order = sorted(set(families.values()))
    groups = {family: [scene for scene in sorted(families) if families[scene] == family] for family in order}
    # the n-th scenes of all families come before the n+1-st of any
    ranked = sorted((groups[family].index(scene), family, scene) for scene, family in families.items())
    return sorted(scene for _, _, scene in ranked[:count])


def choose(pairs: Sequence[Pair], scene: str, place: int) -> int:
    """Which pair of a scene to show: one whose azimuth changes by, or nearest to, the change whose turn it is.

    Args:
        pairs: The list, lights known.
        scene: The scene.
        place: The scene's place on the sheet, from 0.

    Returns:
        Index of the pair in the list.
    """
    wanted = CHANGES[place % len(CHANGES)]
    misses = {
        i: abs(angular_distance(pair.input.light.azimuth, pair.target_light.azimuth) - wanted)
        for i, pair in enumerate(pairs)
        if pair.input.scene == scene and pair.input.light is not None and pair.target_light is not None
    }
    nearest = [i for i, miss in misses.items() if miss == min(misses.values())]
    # not always the first, which starts from the warmest light
    return nearest[place % len(nearest)]


def _line(pair: Pair, family: str, batch: Mapping[str, Any], results: Sequence[Tensor]) -> Line:
    """The line of one pair."""
    assert pair.input.light is not None  # `choose` takes known lights
    assert pair.target_light is not None  # likewise
    assert pair.guide is not None  # any-to-any pairs have one
    present, wanted = _named(pair.input.light), _named(pair.target_light)
    tiles = [
        Tile(pixels_of(batch["input"][0]), _psnr_text(batch["input"][0], batch)),
        Tile(pixels_of(nearness(batch["depth"][0]))),
        Tile(pixels_of(batch["guide"][0]), pair.guide.scene),
        *(Tile(pixels_of(image), _psnr_text(image, batch)) for image in results),
        Tile(pixels_of(batch["target"][0]), wanted),
    ]
    return Line(f"{pair.input.scene}, {family}: from {present} to {wanted}", tiles)


def _named(light: Light) -> str:
    return f"{light.temperature:.0f} K {direction_of(light.azimuth)}"


def _psnr(image: Tensor, batch: Mapping[str, Any]) -> float:
    """PSNR of one image ``(3, H, W)`` against the batch's only target."""
    with torch.inference_mode():
        return float(psnr(image[None], batch["target"])[0])


def _psnr_text(image: Tensor, batch: Mapping[str, Any]) -> str:
    return f"{psnr_text(_psnr(image, batch))} dB"


def _write(path: Path, head: Sequence[str], lines: Sequence[Line]) -> None:
    def draw(side: int) -> Image.Image:
        return sheet(head, lines, side)

    write_within(path, draw, side_of(lines[0].tiles[0].pixels))


def table(methods: Sequence[Method], scores: Mapping[str, Sequence[float]], light: str) -> str:
    """PSNR of every pair that is shown, as Markdown.

    Args:
        methods: The columns after the input's.
        scores: PSNR in dB of the input and of every result, by pair.
        light: Where the lights came from.
    """
    body = [[name, *map(psnr_text, values)] for name, values in scores.items()]
    title = f"PSNR (dB) of the pairs shown, {light} light"
    return f"{title}\n\n{markdown(['pair', 'input', *(method.name for method in methods)], body)}"
