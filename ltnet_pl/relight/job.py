"""The command ``relight``: photographs to pictures under another light."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ltnet_pl import InputError
from ltnet_pl.geometry import size_within
from ltnet_pl.light import DIRECTIONS, Light, azimuth_of, direction_of
from ltnet_pl.photo import (
    DEPTH_MODEL,
    SUFFIXES,
    DepthEstimator,
    Photo,
    check_frames,
    check_kept,
    check_orbit,
    check_output,
    eight_bit,
    read_depth,
    read_photo,
    write_orbit,
    write_photo,
)
from ltnet_pl.relight.relighter import SMALLEST, Depth, Image, Prepared, Relighter

Direction = Literal["N", "NE", "E", "SE", "S", "SW", "W", "NW"]


@dataclass(frozen=True)
class Wanted:
    """What a user asks for; None: as it is in the photograph.

    Args:
        azimuth: Compass bearing in degrees.
        temperature: In kelvin.
        elevation: In degrees.
        ambient: Share of light from everywhere.
    """

    azimuth: float | None
    temperature: float | None
    elevation: float | None
    ambient: float

    def light(self, present: Light) -> Light:
        """The wanted light for a photograph under a present one."""
        azimuth = present.azimuth if self.azimuth is None else self.azimuth
        temperature = present.temperature if self.temperature is None else self.temperature
        return Light(azimuth, temperature, self.elevation, self.ambient)


def relight(
    photos: list[str],
    direction: Direction | None = None,
    azimuth: float | None = None,
    temperature: float | None = None,
    elevation: float | None = None,
    ambient: float = 0.0,
    guide: str | None = None,
    guide_depth: str | None = None,
    inverse_guide_depth: bool = False,
    depth: str | None = None,
    inverse_depth: bool = False,
    depth_model: str = DEPTH_MODEL,
    present: str | None = None,
    strength: float = 1.0,
    size: int | None = None,
    orbit: int | None = None,
    format: Literal["webp", "mp4", "gif"] = "webp",
    out: str | None = None,
    overwrite: bool = False,
    weights: str | None = None,
    device: str = "cpu",
) -> None:
    """Relight photographs by direction and colour temperature, or by the light of a guide image.

    What is not asked for stays as it is: ``--temperature 3500`` alone leaves the light where it stands. The result keeps the
    photograph's size, bits, transparency and colour profile, and lies beside it unless ``--out`` says otherwise.
    An animation has 8 bits; WebP keeps transparency and profile.

    Args:
        photos: Photographs, PNG or JPEG, 64 to 8192 pixels along each side.
        direction: Where the wanted light stands: N behind the scene, E on the picture's right, S behind the camera.
        azimuth: The same as a compass bearing in degrees, in place of --direction.
        temperature: Wanted colour temperature in kelvin, 1000 to 20000.
        elevation: Wanted angle above the horizon in degrees; by default the one that the network was trained with.
        ambient: Share of light from everywhere, 0 to 1.
        guide: Image whose light is wanted, in place of a direction and a temperature.
        guide_depth: Depth of the guide, a file as for --depth, or ``estimate``.
        inverse_guide_depth: The guide's file holds inverse depth: larger is nearer.
        depth: Depth of the photograph: a file (.npy, .png of 16 bits, .exr; larger is farther, 0 is background), a folder with
            one per photograph, ``estimate`` (by a monocular model, extra ``photo``), or ``none``. By default ``<stem>.npy`` or
            ``<stem>_depth.png``, ``.exr`` beside the photograph.
        inverse_depth: The file holds inverse depth: larger is nearer.
        depth_model: Model for ``estimate``: an id of the hub, or a folder.
        present: The light that is there, as in VIDIT's names, e.g. 4500_E; by default it is read off the photograph.
        strength: Share of the change that is made, 0 to 1.
        size: Longer side of the result in pixels; by default the photograph's own.
        orbit: Number of pictures of an animation in which the light circles the scene once.
        format: Format of the animation.
        out: File of the result, or folder of several; by default beside the photograph.
        overwrite: Replace a result that is there.
        weights: Run folder, checkpoint or safetensors file; by default the weights in the package.
        device: Where to compute, e.g. cuda.

    Raises:
        InputError: If a file cannot be read or written, or flags contradict each other.
    """
    wanted = _asked(direction, azimuth, temperature, elevation, ambient, guide, guide_depth, inverse_guide_depth, orbit)
    if not 0.0 <= strength <= 1.0:
        raise InputError(f"--strength {strength:g}: expected 0 (no change) to 1 (all of it); correct it")
    if orbit is not None and depth == "none":
        raise InputError(
            f"--orbit {orbit} with --depth none: without depth no light moves; give --depth FILE or --depth estimate"
        )
    if size is not None and size < 64:
        raise InputError(f"--size {size}: expected 64 pixels or more; raise it")
    known = None if present is None else _present(present)
    several = len(photos) > 1
    files = [Path(photo) for photo in photos]
    # a change of colour alone needs no depth
    moves = ambient > 0 or any(x is not None for x in (wanted.azimuth, elevation, guide, orbit))
    targets = [_target(file, out, several, _mark(wanted, guide), orbit, format) for file in files]
    if len(set(targets)) < len(targets):
        raise InputError("two PHOTOs would have one result; rename one of them, or relight them one by one with --out FILE")
    for target in targets:
        if orbit is not None:
            check_orbit(target, overwrite)
        else:
            check_output(target, SUFFIXES, overwrite)
    with warnings.catch_warnings():
        # a line for the user, not for the programmer
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _noting()
        relighter = Relighter.pretrained(device) if weights is None else Relighter.from_run(weights, device)
        # loaded once for all photographs
        model = DepthEstimator(depth_model, device) if "estimate" in (depth, guide_depth) else None
        by = None if guide is None else _guide(Path(guide), guide_depth, inverse_guide_depth, model)
        for file, target in zip(files, targets, strict=True):
            begin = time.perf_counter()
            photo = read_photo(file)
            sized = _sized(photo, size)
            if orbit is not None:
                check_frames(target, sized.size, orbit)
            else:
                check_kept(target, sized)
            found = _depth(file, photo, depth, inverse_depth, several, model, moves)
            photo = sized
            prepared = relighter.prepare(photo.pixels, found, known)
            there = prepared.present
            print(f"{file}: light {'read' if known is None else 'given'} as {_said(there)}")
            if orbit is not None:
                alpha = None if photo.alpha is None else eight_bit(photo.alpha)
                frames = _turning(prepared, wanted.light(there), orbit, strength)
                write_orbit(target, frames, overwrite=overwrite, alpha=alpha, profile=photo.profile)
            else:
                if by is None:
                    relit = prepared.relight(wanted.light(there), strength)
                else:
                    relit = prepared.relight_by(by[0], by[1], strength)
                write_photo(target, replace(photo, pixels=relit), overwrite=overwrite)
            height, width = photo.pixels.shape[:2]
            print(f"{target}: {width} x {height} px, {time.perf_counter() - begin:.1f} s")


def _noting() -> Callable[..., None]:
    """What prints a warning as a note, the same words once: an animation repeats itself with every frame."""
    said = set[str]()

    def note(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in said:
            said.add(str(message))
            print(f"note: {message}")

    return note


def _asked(
    direction: Direction | None,
    azimuth: float | None,
    temperature: float | None,
    elevation: float | None,
    ambient: float,
    guide: str | None,
    guide_depth: str | None,
    inverse_guide_depth: bool,
    orbit: int | None,
) -> Wanted:
    """The wanted light of the flags."""
    if direction is not None and azimuth is not None:
        raise InputError(f"--direction {direction} and --azimuth {azimuth:g} both say where the light stands; give one of them")
    said = direction or azimuth is not None or temperature is not None or elevation is not None or ambient
    if guide is not None and (said or orbit is not None):
        raise InputError(
            f"--guide {guide} is given together with a light (--direction, --azimuth, --temperature, --elevation, --ambient or "
            "--orbit); expected one or the other: leave the light out, it is read off the guide"
        )
    if guide is None and (guide_depth is not None or inverse_guide_depth):
        flag = "--inverse_guide_depth" if guide_depth is None else f"--guide_depth {guide_depth}"
        raise InputError(f"{flag} is given without --guide; give both")
    if guide is None and orbit is None and not said:
        raise InputError(
            "no wanted light; expected --direction (e.g. E) or --azimuth (degrees), --temperature (kelvin), --guide (an image), "
            "or --orbit (a number of pictures)"
        )
    if orbit is not None and not 2 <= orbit <= 360:
        raise InputError(f"--orbit {orbit}: expected 2 to 360 pictures; correct it")
    bearing = azimuth_of(direction) if direction is not None else azimuth
    wanted = Wanted(bearing, temperature, elevation, ambient)
    try:
        wanted.light(Light(0, 5000))
    except InputError as error:
        raise InputError(f"--azimuth, --temperature, --elevation, --ambient: {error}; correct the flag") from error
    return wanted


def _present(name: str) -> Light:
    try:
        return Light.from_name(name)
    except ValueError as error:
        raise InputError(f"--present {name}: {error}; expected a temperature and a direction, e.g. 4500_E") from error


def _mark(wanted: Wanted, guide: str | None) -> str:
    """What a result's name says of its light."""
    if guide is not None:
        return f"_by_{Path(guide).stem}"
    parts = []
    if wanted.azimuth is not None:
        turned = wanted.azimuth % 360
        parts.append(DIRECTIONS[int(turned) // 45] if turned % 45 == 0 else f"{turned:g}deg")
    if wanted.temperature is not None:
        parts.append(f"{wanted.temperature:g}K")
    return "_" + "_".join(parts or ["relit"])


def _target(photo: Path, out: str | None, several: bool, mark: str, orbit: int | None, format: str) -> Path:
    """Where a photograph's result goes."""
    suffix = photo.suffix.lower() if orbit is None else f".{format}"
    if orbit is None and suffix not in SUFFIXES:
        suffix = ".png"  # the photograph is known by its content, whatever its name
    name = f"{photo.stem}{mark if orbit is None else '_orbit'}{suffix}"
    if out is None:
        return photo.with_name(name)
    path = Path(out)
    if os.path.isdir(path):  # of a name that is too long, pathlib raises
        return path / name
    if several:
        raise InputError(f"--out {out}: is no folder, and there are several PHOTOs; expected a folder: create it first")
    if path.suffix == "":
        raise InputError(f"--out {out}: is neither a folder nor a file name with an ending; create it, or add {suffix}")
    if orbit is not None and path.suffix.lower() != suffix:
        raise InputError(
            f"--out {out}: the animation has --format {format}; expected a name that ends in {suffix}, or another format"
        )
    return path


def _depth(
    file: Path, photo: Photo, given: str | None, inverse: bool, several: bool, model: DepthEstimator | None, moves: bool
) -> Depth | None:
    """The depth of a photograph, of its whole frame."""
    if given == "none":
        if moves:
            print(f"note: {file}: without depth only the colour of the light changes; give --depth FILE or --depth estimate")
        return None
    if given == "estimate" and model is not None:
        return model(photo.pixels)
    if given is not None and os.path.isfile(given):
        if several:
            raise InputError(f"--depth {given}: is one file for several PHOTOs; expected a folder with one each, or estimate")
        path = Path(given)
    else:
        folder = file.parent if given is None else Path(given)
        if not os.path.isdir(folder):
            raise InputError(f"--depth {given}: is no file and no folder; expected one of them, `estimate`, or `none`")
        names = [f"{file.stem}.npy", f"{file.stem}_depth.png", f"{file.stem}_depth.exr"]
        there = [folder / name for name in names if os.path.isfile(folder / name)]
        if not there:
            if given is None and not moves:
                return None  # the colour of a light can be changed without
            raise InputError(
                f"{file}: has no depth in {folder} ({', '.join(names)}); expected one, since shadows are computed from it: give "
                "--depth FILE, --depth estimate (a monocular model, `pip install 'ltnet_pl[photo]'`), or --depth none"
            )
        path = there[0]
    return read_depth(path, photo.size, inverse)


def _guide(path: Path, given: str | None, inverse: bool, model: DepthEstimator | None) -> tuple[Image, Depth | None]:
    """A guide's pixels and its depth, if it has one."""
    photo = read_photo(path)
    beside = path.with_suffix(".npy")
    file = None if given == "estimate" else Path(given) if given is not None else beside if beside.is_file() else None
    if file is not None:
        return photo.pixels, read_depth(file, photo.size, inverse, "--inverse_guide_depth")
    if inverse:
        raise InputError(
            f"--inverse_guide_depth: {path} has no depth file; expected one: give --guide_depth FILE, or leave it out"
        )
    return photo.pixels, None if given is None or model is None else model(photo.pixels)


def _sized(photo: Photo, size: int | None) -> Photo:
    """A photograph whose longer side has at most so many pixels."""
    height, width = photo.pixels.shape[:2]
    if size is None or max(height, width) <= size:
        return photo
    new = size_within((height, width), size)
    if min(new) < SMALLEST:
        raise InputError(
            f"{photo.path}: is {height} x {width} (height x width), which --size {size} makes {new[0]} x {new[1]}; expected "
            f"sides of {SMALLEST} or more: raise --size to {math.ceil(SMALLEST * max(height, width) / min(height, width))}"
        )

    def reduced(x: Image) -> Any:
        return cv2.resize(x, new[::-1], interpolation=cv2.INTER_AREA)

    alpha = None if photo.alpha is None else reduced(photo.alpha)
    return replace(photo, pixels=reduced(photo.pixels), alpha=alpha)


def _turning(prepared: Prepared, start: Light, count: int, strength: float) -> Iterator[NDArray[np.uint8]]:
    """Pictures of a light that circles the scene once."""
    for k in range(count):
        relit = prepared.relight(replace(start, azimuth=start.azimuth + 360 * k / count), strength)
        yield eight_bit(relit)


def _said(light: Light) -> str:
    return f"{light.temperature:.0f} K from {light.azimuth:.0f} degrees ({direction_of(light.azimuth)})"
