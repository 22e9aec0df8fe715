"""The render command: checks, processes, progress, stopping."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console

from ltnet_pl import InputError, __version__
from ltnet_pl.light import SETTINGS, Rig
from ltnet_pl.processes import cores, in_processes, pause
from ltnet_pl.render import picture, writer
from ltnet_pl.render.families import FAMILIES
from ltnet_pl.render.tracer import DEFAULT_RIG, Tracer
from ltnet_pl.render.writer import Settings

VARIANTS = ("llvm_ad_rgb", "scalar_rgb")
"""Mitsuba variants that can be asked for, the faster first."""

SMALLEST, LARGEST = 16, 1024
"""Bounds of ``size`` in pixels."""


def render(
    out: str,
    scenes: int = 24,
    size: int = 128,
    seed: int = 0,
    samples: int = 36,
    workers: int | None = None,
    variant: str | None = None,
    rig: Rig = DEFAULT_RIG,
    families: list[str] | None = None,
) -> None:
    """Render random scenes under VIDIT's 40 lights, with depth and further ground truth, in VIDIT's file layout.

    The same seed, variant and versions give the same bytes. A render that was interrupted is resumed by the same command; a
    larger number of scenes extends a set.

    Args:
        out: Folder of the set. It must be new, empty, or hold scenes of the same settings.
        scenes: Number of scenes, each 40 images.
        size: Width and height of the images in pixels, 16 to 1024.
        seed: Seed of everything that is random, from 0.
        samples: Light paths per pixel, from 1; more is less noise in the indirect light.
        workers: Number of processes, one thread each; by default one for each available core.
        variant: Mitsuba's variant, llvm_ad_rgb or scalar_rgb; by default the first of the two that starts on this machine.
            llvm_ad_rgb traces about five times as fast once its kernels are compiled (eight scenes at 128 px, all told: 23 s
            instead of 34 s on two cores) and needs the LLVM library, version 17 or later.
        rig: Where the lights stand: radius and height of their ring around the point that the camera looks at, in units of
            the distance to it.
        families: Families of scenes to cycle through: terrain, courtyard, interior, objects; by default all four.

    Raises:
        InputError: If an argument is out of range, Mitsuba is missing, or the folder holds something else.
    """
    chosen = _check(scenes, size, seed, samples, workers, variant, families)
    console = Console()
    variant = choose_variant(variant, console)
    versions = {"ltnet_pl": __version__, **{name: version(name) for name in ("mitsuba", "numpy", "pillow")}}
    settings = Settings(seed, size, samples, variant, rig, versions)
    folder = Path(out)
    complete = writer.prepare(folder, settings, chosen)
    missing = [i for i in range(scenes) if i not in complete]
    if len(missing) < scenes:
        console.print(f"{scenes - len(missing)} of {scenes} scenes are complete already")
    begin = time.perf_counter()
    try:
        calls = [(folder, i, chosen[i % len(chosen)], settings) for i in missing]
        died = (
            f"a render process died, out of memory or by a fault of --variant {settings.variant}; expected it to live; "
            f"try fewer --workers or another --variant; {writer.RESUME}"
        )
        in_processes(_scene, calls, workers or cores(), "rendering", "scenes", console, died)
    except KeyboardInterrupt:
        console.print(f"stopped; every file in {out} is whole; {writer.RESUME}")
        raise SystemExit(130) from None
    finally:
        writer.clear_partial(folder)
    seconds = time.perf_counter() - begin
    images = len(missing) * len(SETTINGS)
    console.print(f"{images} images in {seconds:.1f} s: {images / seconds:.1f} images per second with {variant}")


def _check(
    scenes: int, size: int, seed: int, samples: int, workers: int | None, variant: str | None, families: list[str] | None
) -> list[str]:
    """Refuse what cannot be rendered; the families to cycle through."""
    bounds = {
        "scenes": (scenes, 1, 100_000),
        "size": (size, SMALLEST, LARGEST),
        "seed": (seed, 0, 2**31 - 1),
        "samples": (samples, 1, 65_536),
    }
    if workers is not None:
        bounds["workers"] = (workers, 1, 1024)
    for flag, (value, least, most) in bounds.items():
        if not least <= value <= most:
            raise InputError(f"--{flag} {value}: expected a whole number from {least} to {most}; give another")
    if variant is not None and variant not in VARIANTS:
        raise InputError(f"--variant {variant}: expected {' or '.join(VARIANTS)}; leave it out for the fastest that starts")
    chosen = list(FAMILIES) if families is None else families
    for family in chosen:
        if family not in FAMILIES:
            raise InputError(f"--families {family}: unknown; expected some of {', '.join(FAMILIES)}; correct the name")
    if not chosen:
        raise InputError(f"--families is empty; expected some of {', '.join(FAMILIES)}; leave it out for all")
    require_mitsuba("render")
    return chosen


def require_mitsuba(command: str) -> None:
    """Refuse a command where Mitsuba is missing."""
    if importlib.util.find_spec("mitsuba") is None:
        raise InputError(
            f"{command} needs Mitsuba 3, which is not installed; expected the extra 'render'; run: pip install 'ltnet_pl[render]'"
        )


def starts(variant: str) -> bool:
    """Whether a variant truly renders here, tried in a process of its own: a broken LLVM aborts instead of raising."""
    trial = multiprocessing.get_context("spawn").Process(target=_try_variant, args=(variant,))
    trial.start()
    trial.join()
    return trial.exitcode == 0


def _try_variant(variant: str) -> None:
    """Render one tiny scene with every kind of material; what a crash prints would only alarm."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    scene = FAMILIES["objects"](np.random.default_rng(0))
    image = Tracer(scene, SMALLEST, variant).radiance(np.array([2.0, 5.0, 2.0]), np.ones(3), 1, 0)
    raise SystemExit(0 if np.isfinite(image).all() and image.max() > 0 else 1)


def choose_variant(variant: str | None, console: Console) -> str:
    """The variant asked for, or the fastest that starts.

    Raises:
        InputError: If the variant asked for does not start.
    """
    if variant is not None:
        # scalar_rgb needs nothing but Mitsuba itself
        if variant != "scalar_rgb" and not starts(variant):
            raise InputError(
                f"--variant {variant} does not start on this machine; expected one that renders; leave --variant out"
            )
        return variant
    for candidate in VARIANTS:
        if starts(candidate):
            console.print(f"Mitsuba variant {candidate}")
            return candidate
        console.print(f"Mitsuba variant {candidate} does not start on this machine (it needs LLVM 17 or later); trying the next")
    raise InputError(
        "Mitsuba is installed, but no variant starts; expected at least scalar_rgb; "
        "run: pip install --force-reinstall 'ltnet_pl[render]'"
    )


def _scene(out: Path, index: int, family: str, settings: Settings) -> None:
    """Render and write one scene."""
    pause()
    tracer, level = picture.find(family, settings.seed, index, settings.size, settings.variant, settings.rig)
    pictures = picture.trace(tracer, level, settings.samples, picture.sampler_of(settings.seed, index), pause)
    writer.write_scene(out, index, pictures, settings)
