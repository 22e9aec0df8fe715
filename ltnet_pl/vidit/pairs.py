"""Which image is relit to which light: chosen once from a seed, stored as CSV that a person can read.

All choices rank by a hash of seed and names, never by a random generator, so a list is the same on every machine, Python, and
numpy.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from ltnet_pl import InputError
from ltnet_pl.files import atomic_write
from ltnet_pl.light import Light, angular_distance
from ltnet_pl.vidit.files import load_bytes
from ltnet_pl.vidit.layouts import MIRROR_SUFFIX, ONE_TO_ONE_INPUT, ONE_TO_ONE_TARGET, Pair, View

Settings = Mapping[str, Mapping[str, View]]
"""Scene to name of the light to view, as `find_settings` returns it."""

COLUMNS = ("name", "input_scene", "input_light", "target_light", "guide_scene")
"""Header of a stored pair list."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # outputs are named after pairs: no separators, nothing hidden


def one_to_one_from_settings(settings: Settings, mirrored: bool = False) -> list[Pair]:
    """One-to-one pairs out of an any-to-any set: 6500 K from N in, 4500 K from E out.

    Args:
        settings: What `find_settings` returned.
        mirrored: Add the legal extra pairs: a scene lit from W, flipped left to right, is lit from E, and N stays N. Each is the
            pair 6500_N -> 4500_W of the files, its name ends in ``_mirror`` (``Pair.mirrored``), and whoever loads it flips every
            pixel, depth and light of it. Its views carry the lights of the files, before the flip.

    Returns:
        One pair per scene in the order of scenes, named after it; then the mirrored ones.

    Raises:
        InputError: If there is no scene, or one lacks an image under a light that is needed.
    """
    if not settings:
        raise InputError("no scenes to make pairs of; expected at least one scene")

    def pair(scene: str, target: str, suffix: str) -> Pair:
        views = settings[scene]
        for light in (ONE_TO_ONE_INPUT, target):
            if light not in views:
                raise InputError(
                    f"{_folder_of(views)}: scene {scene} has no image {scene}_{light}.png, which one-to-one needs; add it"
                )
        return Pair(scene + suffix, views[ONE_TO_ONE_INPUT], views[target])

    pairs = [pair(scene, ONE_TO_ONE_TARGET, "") for scene in sorted(settings)]
    if mirrored:
        source = Light.from_name(ONE_TO_ONE_TARGET).mirror().name
        pairs += [pair(scene, source, MIRROR_SUFFIX) for scene in sorted(settings)]
    return pairs


def any_to_any_pairs(settings: Settings, per_scene: int = 20, seed: int = 0, same_scene_guide: bool = False) -> list[Pair]:
    """A fixed list of any-to-any pairs, spread evenly over the changes of azimuth.

    The input's light is never the target's. The changes 0, 45, 90, 135 and 180 degrees (0: the temperature alone changes) take
    turns, so their numbers differ by at most one, unless the set has too few lights for some. The list depends on seed, scene
    names and lights alone.

    Args:
        settings: What `find_settings` returned, one split of it.
        per_scene: Pairs per scene; where the scene's lights allow fewer, all of them.
        seed: Another seed, another list.
        same_scene_guide: Take the target itself as guide (for debugging), not another scene of `settings` under exactly its
            light.

    Returns:
        Pairs in the order of scenes, named ``Image000_2500_N_to_4500_E``.

    Raises:
        InputError: If `per_scene` is not positive, or a scene allows no pair at all.
    """
    return _choose(settings, per_scene, seed, same_scene_guide, identity=False)


def identity_pairs(settings: Settings, per_scene: int = 4, seed: int = 0, same_scene_guide: bool = False) -> list[Pair]:
    """A fixed list of pairs that ask for the light that the input has already: the right answer is the input.

    Args:
        settings: What `find_settings` returned, one split of it.
        per_scene: Pairs per scene, spread evenly over directions; where the scene has fewer lights, all of them.
        seed: Another seed, another list.
        same_scene_guide: Take the input itself as guide (for debugging), not another scene of `settings` under exactly its light.

    Returns:
        Pairs in the order of scenes, named ``Image000_2500_N_to_2500_N``; target is the input.

    Raises:
        InputError: If `per_scene` is not positive, or a scene allows no pair at all.
    """
    return _choose(settings, per_scene, seed, same_scene_guide, identity=True)


def _choose(settings: Settings, per_scene: int, seed: int, same_scene_guide: bool, identity: bool) -> list[Pair]:
    if per_scene < 1:
        raise InputError(f"{per_scene} pairs per scene were asked for; expected 1 or more")
    if not settings:
        raise InputError("no scenes to make pairs of; expected at least one scene")
    task = "identity" if identity else "any_to_any"
    scenes_under: dict[str, list[str]] = {}
    for scene in sorted(settings):
        for light in settings[scene]:
            scenes_under.setdefault(light, []).append(scene)
    groups_of: dict[tuple[str, ...], dict[float, list[tuple[str, str]]]] = {}
    pairs = []
    for index, scene in enumerate(sorted(settings)):
        views = settings[scene]
        guided = {light for light in views if same_scene_guide or len(scenes_under[light]) > 1}
        lights = tuple(sorted(views))
        if lights not in groups_of:
            groups_of[lights] = _groups(lights, identity)
        groups = {key: [change for change in changes if change[1] in guided] for key, changes in groups_of[lights].items()}
        for start, target in _in_turns(groups, per_scene, index * per_scene, f"{task}/{seed}/{scene}"):
            name = f"{scene}_{start}_to_{target}"
            guide = scene
            if not same_scene_guide:
                others = scenes_under[target]
                place = _hash(f"guide/{task}/{seed}/{name}") % (len(others) - 1)
                guide = others[place + (place >= others.index(scene))]  # the scene itself is stepped over
            pairs.append(Pair(name, views[start], views[target], settings[guide][target]))
        if not pairs or pairs[-1].input.scene != scene:
            raise InputError(
                f"{_folder_of(views)}: scene {scene} allows no pair: it has {len(views)} images, {len(guided)} of them under a "
                "light that another scene of the same split has too (the guide); expected two lights or more, and two scenes or "
                "more per split: add images, or move scenes between the splits"
            )
    return pairs


def _groups(lights: Sequence[str], identity: bool) -> dict[float, list[tuple[str, str]]]:
    """All changes of light that a list may hold, by change of azimuth; for identity by azimuth, since nothing changes."""
    azimuths = {light: Light.from_name(light).azimuth for light in lights}
    groups: dict[float, list[tuple[str, str]]] = {}
    for start in lights:
        for target in (start,) if identity else lights:
            if identity:
                groups.setdefault(azimuths[start], []).append((start, start))
            elif start != target:
                groups.setdefault(angular_distance(azimuths[start], azimuths[target]), []).append((start, target))
    return groups


def _in_turns(groups: Mapping[float, list[tuple[str, str]]], count: int, offset: int, key: str) -> list[tuple[str, str]]:
    """Take from the groups in turns until `count` are taken or nothing is left.

    The first turn is moved on by `offset`, so that over many scenes the remainders even out too.
    """
    ranked = [sorted(groups[k], key=lambda change: _hash(f"{key}/{change[0]}/{change[1]}"), reverse=True) for k in sorted(groups)]
    ranked = [changes for changes in ranked if changes]
    if ranked:
        offset %= len(ranked)
        ranked = ranked[offset:] + ranked[:offset]
    taken: list[tuple[str, str]] = []
    while len(taken) < count and any(ranked):
        for changes in ranked:
            if changes and len(taken) < count:
                taken.append(changes.pop())
    return sorted(taken)


def _hash(text: str) -> int:
    """A number from a text, the same on every platform and in every process."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def _folder_of(views: Mapping[str, View]) -> Path | str:
    return next((view.image.parent for view in views.values()), "the set")


def split_scenes(scenes: Iterable[str], val: int, test: int) -> tuple[list[str], list[str], list[str]]:
    """Divide scenes (never single images) into training, validation and test.

    Args:
        scenes: Names of scenes in any order.
        val: Number of validation scenes.
        test: Number of test scenes.

    Returns:
        Training, validation and test scenes: of the sorted names the first, the next `val`, and the last `test`.

    Raises:
        InputError: If a number is negative or nothing is left for training.

    Example:
        >>> split_scenes(["Image003", "Image001", "Image002"], val=1, test=1)
        (['Image001'], ['Image002'], ['Image003'])
    """
    ordered = sorted(set(scenes))
    if val < 0 or test < 0:
        raise InputError(f"val_scenes {val} and test_scenes {test}: expected numbers of scenes, 0 or more")
    train = len(ordered) - val - test
    if train < 1:
        raise InputError(
            f"val_scenes {val} and test_scenes {test} leave no scene for training out of {len(ordered)}; expected at most "
            f"{max(len(ordered) - 1, 0)} together: lower them or add scenes"
        )
    return ordered[:train], ordered[train : train + val], ordered[train + val :]


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Store a pair list as CSV with the columns `COLUMNS`, whole or not at all.

    Args:
        path: File to write; its folder must exist.
        pairs: Pairs of an any-to-any set, lights known; at least one. ``guide_scene`` stays empty where a pair has no guide.

    Raises:
        InputError: If the list is empty, a name appears twice or is unfit for a file, a light is unknown or none
            of VIDIT's, or the folder is
            missing.
    """
    if not pairs:
        raise InputError(f"{path}: an empty pair list was to be written; expected at least one pair")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    names: set[str] = set()
    for pair in pairs:
        _check_name(f"{path}", pair.name, names)
        if pair.input.light is None or pair.target_light is None:
            raise InputError(f"{path}: pair {pair.name} has an unknown light; only pairs of known lights can be stored")
        try:
            lights = pair.input.light.name, pair.target_light.name
        except ValueError as error:
            raise InputError(f"{path}: pair {pair.name}: {error}; only pairs of VIDIT's settings can be stored") from error
        writer.writerow((pair.name, pair.input.scene, *lights, pair.guide.scene if pair.guide is not None else ""))
    with atomic_write(Path(path)) as file:
        file.write(text.getvalue().encode())


def read_pairs(path: Path, settings: Settings) -> list[Pair]:
    """A stored pair list, each row held against the set.

    Args:
        path: CSV that `write_pairs` wrote.
        settings: What `find_settings` returned.

    Returns:
        Pairs in the order of the file; guide None where the row names none.

    Raises:
        InputError: With file and line, if the header is another, a row has too many or too few fields, a name appears twice or
            is unfit for a file, or a scene or an image under a light is not in the set.
    """
    path = Path(path)
    try:
        text = load_bytes(path).decode("utf-8-sig")  # spreadsheets put a byte order mark in front
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no UTF-8 text; expected a CSV pair list: delete it to have it made anew") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    pairs: list[Pair] = []
    names: set[str] = set()
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if reader.line_num == 1:
                if tuple(row) != COLUMNS:
                    raise InputError(
                        f"{where}: header is {','.join(row)!r}; expected {','.join(COLUMNS)!r}: correct the first line"
                    )
                continue
            if len(row) != len(COLUMNS):
                raise InputError(
                    f"{where}: {len(row)} fields; expected {len(COLUMNS)} ({', '.join(COLUMNS)}): correct or remove the line"
                )
            name, input_scene, input_light, target_light, guide_scene = row
            _check_name(where, name, names)
            guide = _view(where, settings, guide_scene, target_light) if guide_scene else None
            source = _view(where, settings, input_scene, input_light)
            pairs.append(Pair(name, source, _view(where, settings, input_scene, target_light), guide))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; expected CSV: correct or remove the line") from error
    if not pairs:
        raise InputError(
            f"{path}: holds no pairs; expected at least one line below the header: delete the file to have it made anew"
        )
    return pairs


def _check_name(where: str, name: str, names: set[str]) -> None:
    """Refuse a name that appeared before or could not name a file, else remember it."""
    if not _FILE_NAME.fullmatch(name):
        raise InputError(
            f"{where}: pair name {name!r} cannot name a file; expected letters, digits, '.', '_' and '-': rename the pair"
        )
    if name in names:
        raise InputError(f"{where}: pair name {name!r} appears twice; names must differ: rename or remove one")
    names.add(name)


def _view(where: str, settings: Settings, scene: str, light: str) -> View:
    """One image of the set, or an error that says what is missing."""
    if scene not in settings:
        raise InputError(f"{where}: unknown scene {scene!r}; expected one of the set's {len(settings)}, {_some(settings)}")
    if light not in settings[scene]:
        try:
            Light.from_name(light)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error
        raise InputError(f"{where}: scene {scene} has no image under {light}; it has {_some(settings[scene])}")
    return settings[scene][light]


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:8]) + (", ..." if len(ordered) > 8 else "")
