"""Where the files of each release of VIDIT lie: names, folders, and what to say when a folder is something else.

Three layouts are known. Each may lie in the root itself or in its sub-folder ``train``, and depth (``ImageNNN.npy``) lies beside
the images, in a folder ``depth`` beside theirs, or in the root; without any (AIM 2020) ``View.depth`` is None.

* ``settings`` (any-to-any training, and what `render` writes): ``ImageNNN_KKKK_D.png``, flat or in ``input/`` or ``images/``.
* ``one_to_one`` (track 1): ``input/ImageNNN.png`` and ``target/ImageNNN.png``, or flat ``ImageNNN.png`` with the ground truth
elsewhere.
* ``pairs`` (track 2 validation and test): ``input/PairNNN.png`` and ``guide/PairNNN.png``, perhaps ``target/PairNNN.png``.

Folders are listed once and no file is opened, so 12,000 images take a fraction of a second.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ltnet_pl import InputError
from ltnet_pl.light import SETTINGS, Light

NAME_PATTERN = re.compile(r"((?:Image|Pair)\d+)(?:_(.*))?", re.ASCII)
"""Stem of a VIDIT file: the scene, then perhaps the light."""

ONE_TO_ONE_INPUT = "6500_N"
"""Light of every one-to-one input."""

ONE_TO_ONE_TARGET = "4500_E"
"""Light of every one-to-one target."""

MIRROR_SUFFIX = "_mirror"
"""End of the name of a pair of which every pixel is to be flipped left to right."""

Layout = Literal["settings", "one_to_one", "pairs"]

_OTHERS = ("guide", "target", "track1_validation_gt", "track2_validation_gt")
"""Folders beside ``input`` that hold further images of a set."""

_LIGHTS = {light.name: light for light in SETTINGS}
_CLAIMED = re.compile(r"(?:Image|Pair)\d", re.ASCII)  # what starts so claims to be VIDIT's, and has to be right
_EXPECTED = (
    "Image000_4500_E.png with Image000.npy (any-to-any), input/Image000.png with target/Image000.png (one-to-one), or "
    "input/Pair000.png with guide/Pair000.png (any-to-any validation and test)"
)
_FIT = {
    "settings": "an any-to-any training set (images such as {example}): use AnyToAnyDataModule, or OneToOneDataModule, which "
    f"picks its two lights {ONE_TO_ONE_INPUT} and {ONE_TO_ONE_TARGET}",
    "one_to_one": "a one-to-one set (track 1, images such as {example} without a light in the name): use OneToOneDataModule",
    "pairs": "any-to-any pairs for validation or test (track 2, images such as {example} with a guide folder): use them as the "
    "val_root or test_root of AnyToAnyDataModule",
}


@dataclass(frozen=True)
class View:
    """One image of one scene under one light.

    Args:
        scene: The scene, ``"Image014"``.
        image: Image file.
        depth: Depth file of the scene; None where there is none.
        light: The light; None where it is unknown.
    """

    scene: str
    image: Path
    depth: Path | None
    light: Light | None


@dataclass(frozen=True)
class Pair:
    """One relighting task.

    Args:
        name: Unique within its list, and fit for a file name.
        input: The image to relight.
        target: Ground truth; None where it is private or there is none.
        guide: Image whose light is wanted; None where the light is known instead.
        wanted: The light that all targets of such a set have; None where there is no such light.
    """

    name: str
    input: View
    target: View | None = None
    guide: View | None = None
    wanted: Light | None = None

    @property
    def target_light(self) -> Light | None:
        """The wanted light: the target's, else the guide's, else the set's own; None where nobody knows it.

        Of a mirrored pair it is the light as stored, before the flip.
        """
        for view in (self.target, self.guide):
            if view is not None and view.light is not None:
                return view.light
        return self.wanted

    @property
    def mirrored(self) -> bool:
        """Whether the whole pair (images, depths, lights) is to be flipped left to right when it is loaded."""
        return self.name.endswith(MIRROR_SUFFIX)


def parse_name(path: Path) -> tuple[str, Light | None]:
    """Scene and light that a VIDIT file name tells.

    Args:
        path: A file, ``Image000_2500_N.png``, ``Image000.png`` or ``Pair000.png``; its folder and suffix are not looked at.

    Returns:
        The scene, and the light or None where the name has none.

    Raises:
        InputError: If the name is not VIDIT's, or its temperature or direction is none of VIDIT's.

    Example:
        >>> scene, light = parse_name(Path("Image014_4500_E.png"))
        >>> scene, light.name
        ('Image014', '4500_E')
    """
    stem = path.stem
    match = NAME_PATTERN.fullmatch(stem)
    if match is None:
        raise InputError(f"{path}: {stem!r} is no VIDIT name; expected Image000_4500_E, Image000 or Pair000: rename or remove it")
    scene, name = match.groups()
    if name is None:
        return scene, None
    light = _LIGHTS.get(name)
    if light is None:
        try:
            light = Light.from_name(name)
        except ValueError as error:
            raise InputError(f"{path}: {error}; rename or remove the file") from error
    return scene, light


@dataclass(frozen=True)
class _Folder:
    """The listing of one folder: VIDIT's images and depths by name, and the sub-folders."""

    path: Path
    images: list[Path] = field(default_factory=list)
    depths: dict[str, Path] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    entries: list[str] = field(default_factory=list)

    def sub(self, name: str) -> _Folder | None:
        return _list(self.path / name) if name in self.folders else None


@dataclass(frozen=True)
class _Found:
    """A recognised set: its kind, the folder that holds it (itself or as ``input``, ``guide``), the views of its input images."""

    kind: Layout
    base: _Folder
    views: list[View]


def _list(path: Path) -> _Folder:
    """List one folder, without touching its files."""
    try:
        with os.scandir(path) as entries:
            found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
            listing = _Folder(path, entries=[entry.name for entry in found])
            for entry in found:
                stem, suffix = os.path.splitext(entry.name)
                if suffix.lower() == ".png":
                    if _CLAIMED.match(stem):
                        listing.images.append(path / entry.name)
                elif suffix.lower() == ".npy":
                    listing.depths[stem] = path / entry.name
                elif entry.is_dir():
                    listing.folders.add(entry.name)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such folder; expected the root of a VIDIT set: check the path") from error
    except NotADirectoryError as error:
        raise InputError(f"{path}: is a file; expected the folder that holds a VIDIT set: give its folder") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be listed ({error.strerror}); expected a readable folder") from error
    return listing


def _views(images: _Folder, *depth_folders: _Folder | None) -> list[View]:
    """Views of all images of a folder; of several depths of one scene the last folder's counts, the images' own folder most."""
    depths: dict[str, Path] = {}
    for folder in (*depth_folders, images):
        depths |= folder.depths if folder is not None else {}
    views = []
    for path in images.images:
        scene, light = parse_name(path)
        views.append(View(scene, path, depths.get(scene), light))
    return views


def _recognise(root: Path) -> _Found:
    """The set in a folder, or in its sub-folder ``train``."""
    top = _list(root)
    for base in (top, top.sub("train")):
        found = _recognise_base(base) if base is not None else None
        if found is not None:
            return found
    entries = (
        f"found {', '.join(top.entries[:5])}{', ...' if len(top.entries) > 5 else ''}" if top.entries else "the folder is empty"
    )
    raise InputError(f"{root}: no VIDIT images; {entries}; expected {_EXPECTED}: check the path or fetch the data again")


def _recognise_base(base: _Folder) -> _Found | None:
    depth = base.sub("depth")
    for images in (base, base.sub("input"), base.sub("images")):
        if images is None or not images.images:
            continue
        views = _views(images, base, depth)
        lights = {view.light.name for view in views if view.light is not None}
        if images is not base and "guide" in base.folders:
            return _Found("pairs", base, views)
        if lights and not (lights == {ONE_TO_ONE_INPUT} and "target" in base.folders):
            return _Found("settings", base, views)
        if views[0].scene.startswith("Pair"):
            raise InputError(
                f"{images.path}: holds {views[0].image.name}, but no folder guide lies beside input; expected "
                "input/Pair000.png with guide/Pair000.png: give the folder of both; ground truth alone is a target root"
            )
        return _Found("one_to_one", base, views)
    return None


def detect_layout(root: Path) -> Layout:
    """Which layout a folder has: ``"settings"``, ``"one_to_one"`` or ``"pairs"``.

    Raises:
        InputError: If the folder is missing, a file, empty, or none of the three.
    """
    return _recognise(Path(root)).kind


def every_view(root: Path) -> list[View]:
    """All images of a set, guides and ground truth included, whatever its layout; also a bare folder of ground truth.

    Args:
        root: Folder in any of the layouts.

    Returns:
        Views sorted by path; depth as the layout's own function finds it, of guides and ground truth only beside them.

    Raises:
        InputError: If the folder is missing, a file, or holds no VIDIT images.
    """
    top = _list(root)
    for base in (top, top.sub("train")):
        if base is None:
            continue
        depth = base.sub("depth")
        inputs = [folder for folder in (base, base.sub("input"), base.sub("images")) if folder is not None]
        others = [folder for name in _OTHERS if (folder := base.sub(name)) is not None]
        views = [view for folder in inputs for view in _views(folder, base, depth)]
        views += [view for folder in others for view in _views(folder)]
        if views:
            return sorted(views, key=lambda view: view.image)
    return _recognise(root).views  # which says what it found instead


def _require(root: Path, kind: Layout) -> _Found:
    found = _recognise(Path(root))
    if found.kind != kind:
        example = found.views[0].image.relative_to(root)
        raise InputError(f"{root}: looks like {_FIT[found.kind].format(example=example)}")
    return found


def find_settings(root: Path) -> dict[str, dict[str, View]]:
    """The images of an any-to-any training set.

    Args:
        root: Folder in the ``settings`` layout.

    Returns:
        Scene to name of the light (``"4500_E"``) to view, both sorted. Depth is None where a scene has none.

    Raises:
        InputError: If the folder is missing, a file, empty or of another layout, or an image's name tells no valid light.
    """
    settings: dict[str, dict[str, View]] = {}
    for view in _require(root, "settings").views:
        if view.light is None:
            raise InputError(
                f"{view.image}: names no light, as its neighbours do; expected {view.scene}_4500_E.png: rename or remove it"
            )
        known = settings.setdefault(view.scene, {}).setdefault(view.light.name, view)
        if known is not view:
            raise InputError(f"{view.image}: shows the same scene and light as {known.image}; remove one of them")
    return {scene: dict(sorted(views.items())) for scene, views in sorted(settings.items())}


def find_one_to_one(root: Path, target_root: Path | None = None) -> list[Pair]:
    """The pairs of a one-to-one set: light 6500 K from N in, 4500 K from E out.

    Args:
        root: Folder in the ``one_to_one`` layout.
        target_root: Flat folder of the ground truth. Without it: ``target``, then ``track1_validation_gt`` inside the root, then
            such a folder beside a root that has "val" in its name (so that a test set never gets validation's), then none.

    Returns:
        Pairs by scene, sorted; target None where there is no ground truth.

    Raises:
        InputError: If the folder is missing, a file, empty or of another layout, an image lacks its ground truth, or a name tells
            another light.
    """
    found = _require(root, "one_to_one")
    inputs = _by_scene(found.views, ONE_TO_ONE_INPUT)
    targets = _targets(found, Path(root), target_root, "track1_validation_gt", inputs, ONE_TO_ONE_TARGET)
    # a test set without ground truth asks for the same light
    return [Pair(scene, view, targets.get(scene), wanted=_LIGHTS[ONE_TO_ONE_TARGET]) for scene, view in inputs.items()]


def find_pairs(root: Path, target_root: Path | None = None) -> list[Pair]:
    """The pairs of an any-to-any validation or test set.

    Args:
        root: Folder in the ``pairs`` layout.
        target_root: Flat folder of the ground truth. Without it: ``target``, then ``track2_validation_gt`` inside the root, then
            such a folder beside a root that has "val" in its name (so that a test set never gets validation's), then none.

    Returns:
        Pairs by name, sorted; lights None unless the file names tell them; target None where there is no ground truth. The guide
        is an unknown other scene, called ``Pair000_guide``.

    Raises:
        InputError: If the folder is missing, a file, empty or of another layout, or an input lacks its guide or ground truth.
    """
    found = _require(root, "pairs")
    inputs = _by_scene(found.views)
    guide_folder = _list(found.base.path / "guide")
    guides = _by_scene(_views(guide_folder))
    _require_partners(inputs, guides, guide_folder.path, "guide")
    targets = _targets(found, Path(root), target_root, "track2_validation_gt", inputs)
    return [
        Pair(name, view, targets.get(name), View(f"{name}_guide", guides[name].image, guides[name].depth, guides[name].light))
        for name, view in inputs.items()
    ]


def _by_scene(views: list[View], light_name: str | None = None) -> dict[str, View]:
    """Views by scene, sorted; with a light given, each view has it, and a name that tells another is an error."""
    result: dict[str, View] = {}
    for view in views:
        if light_name is not None:
            if view.light is not None and view.light.name != light_name:
                raise InputError(
                    f"{view.image}: names the light {view.light.name}; expected {light_name} in a one-to-one set: remove it"
                )
            view = View(view.scene, view.image, view.depth, _LIGHTS[light_name])
        known = result.setdefault(view.scene, view)
        if known is not view:
            raise InputError(
                f"{view.image}: is a second image of {view.scene} beside {known.image.name}; expected one: remove the other"
            )
    return dict(sorted(result.items()))


def _targets(
    found: _Found, root: Path, target_root: Path | None, beside: str, inputs: dict[str, View], light_name: str | None = None
) -> dict[str, View]:
    """Ground truth by scene, for every input or for none."""
    if target_root is not None:
        folder: _Folder | None = _list(Path(target_root))
    else:
        folder = found.base.sub("target") or found.base.sub(beside)
        neighbour = root.resolve().parent / beside
        if folder is None and "val" in root.resolve().name.lower() and neighbour.is_dir():
            folder = _list(neighbour)
    if folder is None:
        return {}
    views = [
        View(view.scene, view.image, inputs[view.scene].depth, view.light) for view in _views(folder) if view.scene in inputs
    ]
    targets = _by_scene(views, light_name)
    _require_partners(inputs, targets, folder.path, "ground truth")
    return targets


def _require_partners(inputs: dict[str, View], partners: dict[str, View], folder: Path, what: str) -> None:
    missing = [view for scene, view in inputs.items() if scene not in partners]
    if missing:
        raise InputError(
            f"{missing[0].image}: has no {what}; expected {folder / missing[0].image.name} ({len(missing)} of {len(inputs)} are "
            f"missing): fetch them, or give the folder of the {what} that belongs to these images"
        )
