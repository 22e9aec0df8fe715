"""The fit-rig command: checks, reading, what is said about the fit, the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ltnet_pl import InputError
from ltnet_pl.files import atomic_write
from ltnet_pl.rig_fit.observation import observe
from ltnet_pl.rig_fit.search import Fit, fit
from ltnet_pl.vidit import detect_layout, find_settings

POOR, ROUGH = 0.6, 0.8
"""Shares of the change of light below which a fit is not to be trusted, and is to be trusted roughly.

Rendered sets of known rig reach 0.82 to 0.90, nearly all of their scenes 0.7. With another scene's depth it is 0.4, with turned
or permuted directions 0, with a shift of the depth 0.7. Ray lengths taken for planar depth are hardly seen by it: 0.83 instead of
0.87, and a rig that is a fifth to a third too large.
"""

FEW = 4
"""Scenes below which the standard errors say little."""

SMALLEST, LARGEST = 16, 256
"""Bounds of ``size`` in pixels."""


def fit_rig(folder: str, scenes: int = 12, size: int = 48, out: str | None = None) -> None:
    """Find the rig of a set, and the camera of each scene, from how the light moves over scenes seen under several directions.

    For VIDIT, which keeps both to itself: LTNet computes shading and shadows for the rig that its configuration states. Depth
    must be planar. On rendered sets of known rig, 8 to 12 scenes gave it within 7 %, 4 scenes within 11 %, the height rather too
    low (light that bounces between surfaces is not computed), and half of the cameras within 1 to 2 degrees.

    Args:
        folder: Set in VIDIT's any-to-any training layout: each scene under three or more directions (better all eight) of one
            colour temperature, with depth.
        scenes: Scenes to use at most, from 1, spread evenly over the set.
        size: Working resolution in pixels, 16 to 256: finer takes longer and reads cameras a little better.
        out: New YAML file for the result, a further --config for fit.

    Raises:
        InputError: If an argument is out of range, the folder holds no such set, or a scene cannot be used.
    """
    if scenes < 1:
        raise InputError(f"--scenes {scenes}: expected a whole number from 1; give another")
    if not SMALLEST <= size <= LARGEST:
        raise InputError(f"--size {size}: expected a whole number from {SMALLEST} to {LARGEST}; give another")
    file = None if out is None else Path(out)
    if file is not None:
        _check_new(file)
    root = Path(folder)
    layout = detect_layout(root)
    if layout != "settings":
        raise InputError(
            f"{root}: holds {'one image' if layout == 'one_to_one' else 'pairs of images'} for each scene; expected each scene "
            "under several lights (Image000_6500_E.png, Image000_6500_N.png, ...): give an any-to-any training set"
        )
    views = find_settings(root)
    names = list(views)
    chosen = sorted(set(np.linspace(0, len(names) - 1, min(scenes, len(names))).round().astype(int).tolist()))
    console = Console()
    with console.status("reading") as status:
        observations = []
        for index in chosen:
            status.update(f"reading {names[index]}")
            observations.append(observe(views[names[index]].values(), size))
        found = fit(observations, lambda passes, error: status.update(f"fitting: pass {passes}, error {error:.4f}"))
    console.print(_table(found))
    console.print(_rig(found), highlight=False)
    warnings = doubts(found)
    for warning in warnings:
        console.print(f"[bold red]warning:[/] {warning}")
    console.print(
        "\nState this in the configuration of LTNet; its camera is the median, which an estimated camera starts from:\n"
    )
    text = configuration(found)
    console.print(text, highlight=False, markup=False)
    if file is not None:
        _check_new(file)
        notes = [f"# Where do the lights of {root.resolve().name!a} stand? Found by fit-rig from {len(found.scenes)} scenes."]
        with atomic_write(file) as stream:
            stream.write("\n".join([*notes, *(f"# Warning: {warning}" for warning in warnings), text, ""]).encode())
        # a path that is broken into lines cannot be copied
        said = f"\nwritten: {file}; use it as: fit --config experiments/base.yaml --config {file}"
        console.print(said, highlight=False, markup=False, soft_wrap=True)


def doubts(found: Fit) -> list[str]:
    """What speaks against trusting a fit."""
    said = []
    poor = [scene.name for scene in found.scenes if scene.explained < POOR]
    if found.explained < POOR:
        said.append(
            f"the fit explains only {found.explained:.0%} of the change of light: do not use this rig. Check that larger depth "
            "is farther, that pictures and depth belong together, and that the names tell the true directions."
        )
    elif found.explained < ROUGH:
        said.append(
            f"the fit explains {found.explained:.0%} of the change of light, where rendered sets of known rig reach {ROUGH:.0%} "
            "and more: take this rig as rough. Is depth planar, with 0 at the camera?"
        )
    if poor and found.explained >= POOR:
        said.append(
            f"less than {POOR:.0%} of the change of light is explained in {', '.join(poor)}: look at them, or leave them out."
        )
    if not found.settled:
        said.append("the search did not come to rest within its bounds: the values are not final.")
    if len(found.scenes) < FEW:
        said.append(
            f"{len(found.scenes)} scene{'s' * (len(found.scenes) > 1)} only: expected {FEW} or more for a rig to rely on."
        )
    return said


def configuration(found: Fit) -> str:
    """The lines of a configuration that state a rig and the camera to assume."""
    rig, camera = found.rig, found.camera
    return "\n".join(
        [
            "model:",
            "  net:",
            "    init_args:",
            f"      rig: {{radius: {rig.radius:.3f}, height: {rig.height:.3f}}}",
            f"      camera: {{fov: {camera.fov:.1f}, pitch: {camera.pitch:.1f}}}",
        ]
    )


def _table(found: Fit) -> Table:
    """What was found, scene by scene and for the set."""
    table = Table(title="What the light says", title_justify="left", title_style="bold")
    for column in ("scene", "field of view", "pitch", "light explained"):
        table.add_column(column, justify="left" if column == "scene" else "right")
    for name, camera, explained in found.scenes:
        style = "red" if explained < POOR else None
        table.add_row(name, f"{camera.fov:.1f}°", f"{camera.pitch:.1f}°", f"{explained:.1%}", style=style)
    (fov, pitch), middle = found.spread, found.camera
    table.add_section()
    table.add_row(
        "median ± spread", f"{middle.fov:.1f} ± {fov:.1f}°", f"{middle.pitch:.1f} ± {pitch:.1f}°", f"{found.explained:.1%}"
    )
    return table


def _rig(found: Fit) -> str:
    """The rig in words."""
    errors = ("unknown", "unknown") if found.error is None else tuple(f"{error:.3f}" for error in found.error)
    return (
        f"rig: radius {found.rig.radius:.3f} ± {errors[0]}, height {found.rig.height:.3f} ± {errors[1]}, in units of the "
        "distance to the point that the camera looks at. ± is the standard error from scene to scene; what is common to all "
        "scenes, such as light that bounces, is not in it."
    )


def _check_new(file: Path) -> None:
    """Refuse an output that exists or has no folder."""
    if file.exists() or file.is_symlink():
        raise InputError(f"--out {file} exists; expected a new file: name another, or remove it first")
    if not file.parent.is_dir():
        raise InputError(f"--out {file}: its folder {file.parent} does not exist; create it first")
