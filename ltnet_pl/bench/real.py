"""What a trained network does on real pixels that it never saw: VIDIT's own frames, and photographs under known lights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ltnet_pl import InputError
from ltnet_pl.bench.photostereo import photostereo
from ltnet_pl.bench.real_frames import readings, transfer
from ltnet_pl.bench.sheets import Line, sheet, write_within
from ltnet_pl.bench.trained import load_methods, provenance

SMALLEST = 32
"""Least size in pixels at which anything is read or relit."""

PANEL_BYTES = 8 * 2**20
"""Largest panel: they are for looking at, and no part of the project."""


def real(checkpoint: str, data: str, output: str | None = None, size: int = 256) -> None:
    """Score a trained network on real pixels that it was never trained on; prints Markdown tables.

    Three parts. What the light stream reads off VIDIT's frames whose light is known; how well a change of colour temperature
    alone meets the real frame, without depth; and photographs of three objects relit from one known light direction to
    another, with their height as depth. A network whose light stream was not trained, or that has none, does the last two.

    Args:
        checkpoint: Run folder, whose ``checkpoints/last.ckpt`` is taken, or a checkpoint or safetensors file; NAME=PATH
            names it.
        data: Folder of the sample data, with the folders vidit and photostereo_uw12.
        output: Folder for panels to look at (PNG); none are written without it.
        size: Longer side in pixels to which larger pictures are reduced.

    Raises:
        InputError: If there is no checkpoint, or the folder lacks something or holds something else.
    """
    flags = {"output": output, "size": size}
    if size < SMALLEST:
        raise InputError(f"--size {size}; expected {SMALLEST} or more: raise it")
    folder = Path(data)
    if not folder.is_dir():
        raise InputError(
            f"DATA {data}: is no folder; expected the sample data, with the folders vidit and photostereo_uw12: correct the path"
        )
    (method,) = load_methods([checkpoint])
    origin = provenance(real, [checkpoint, data], flags)
    source = f"`{origin['command']}`; checkpoint {method.checkpoint.name} of {method.name}; {origin['machine']}; {origin['date']}"
    parts = {"readings": readings, "temperatures": transfer, "photostereo": photostereo}
    for name, part in parts.items():
        found = part(method, folder, size)
        for table in found.tables:
            print(f"{table}\n{source}\n")
        for note in found.notes:
            print(f"* {note}")
        print()
        for panel, (head, lines) in found.panels.items() if output is not None else ():
            _write(Path(str(output)) / f"{name}_{panel}.png", head, lines, size)


def _write(path: Path, head: Sequence[str], lines: Sequence[Line], side: int) -> None:
    """One panel."""
    write_within(path, lambda smaller: sheet(head, lines, smaller), min(side, 256), PANEL_BYTES)
    print(f"wrote {path}")
