"""Who imports whom: every module's imports against the table in docs/design.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ltnet_pl"
OPEN = {"__init__"}  # everything may import the package itself, for `InputError` and the version
ENTRY = {"__main__": {"cli"}}  # `python -m ltnet_pl` calls the command line and is no room of its own


def table(text):
    """The rooms of docs/design.md and what each may import: {room: {room, ...}}."""
    section = text.split("## Rooms, and who may import whom")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \|.*\| ([^|]*) \|$", section, flags=re.MULTILINE)
    assert rows, "docs/design.md has no table of rooms"
    # words in brackets are remarks: "(when called)"
    return {room.rstrip("/"): set(re.findall(r"\w+", re.sub(r"\([^)]*\)", "", allowed))) for room, allowed in rows}


TABLE = table((ROOT / "docs" / "design.md").read_text(encoding="utf-8"))


def room_of(path):
    """The room that a file belongs to: its module's name, or that of its folder in the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(source, path):
    """Rooms of the package that a file imports anywhere, also inside functions and for types only."""
    inside = ["ltnet_pl", *path.relative_to(PACKAGE).with_suffix("").parts]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from ltnet_pl import light` is an import of a room, `from ltnet_pl import InputError` is not
            names = [f"{origin}.{alias.name}" for alias in node.names] if origin == "ltnet_pl" else [origin]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            # importlib.import_module("ltnet_pl.x"), and paths of classes that are loaded by name
            value = node.args[0].value
            names = [value] if isinstance(value, str) and re.fullmatch(r"ltnet_pl(\.\w+)+", value) else []
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] != "ltnet_pl":
                continue
            room = parts[1] if len(parts) > 1 else "__init__"
            found.add(room if room in TABLE or (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").exists() else "__init__")
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


def test_the_table_is_read():
    assert TABLE["light"] == set()
    assert TABLE["geometry"] == {"light"}
    assert TABLE["nets"] == {"light", "geometry"}
    assert TABLE["data"] == {"vidit", "augment", "light"}
    for room, allowed in TABLE.items():
        assert allowed <= TABLE.keys(), f"docs/design.md lets {room} import {allowed - TABLE.keys()}, which it does not list"


def test_the_table_has_no_circles():
    left = {room: set(allowed) for room, allowed in TABLE.items()}
    while left:
        free = {room for room, allowed in left.items() if not allowed & left.keys()}
        assert free, f"these rooms import each other in a circle: {sorted(left)}"
        left = {room: allowed for room, allowed in left.items() if room not in free}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_what_its_room_may(path):
    room = room_of(path)
    allowed = {**TABLE, **ENTRY}
    assert room in allowed, f"{path.relative_to(ROOT)} is in no room of the table in docs/design.md"
    foreign = imported_rooms(path.read_text(encoding="utf-8"), path) - allowed[room] - OPEN - {room}
    assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}; the table in docs/design.md does not allow it"


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("import torch", set()),
        ("from ltnet_pl import InputError", {"__init__"}),
        ("import ltnet_pl", {"__init__"}),
        ("import ltnet_pl.light as l", {"light"}),
        ("from ltnet_pl.nets.blocks import Block", {"nets"}),
        ("from ltnet_pl import light, InputError", {"light", "__init__"}),
        ("from .blocks import Block", {"nets"}),
        ("from ..geometry import cues", {"geometry"}),
        ("from .. import losses", {"losses"}),
        ("def f():\n    from ltnet_pl.data import PairDataset", {"data"}),
        ("if TYPE_CHECKING:\n    import ltnet_pl.tasks", {"tasks"}),
        ("importlib.import_module('ltnet_pl.render')", {"render"}),
    ],
)
def test_every_way_to_import_is_seen(source, rooms):
    assert imported_rooms(source, PACKAGE / "nets" / "ltnet.py") == rooms


def test_the_command_line_imports_nothing_heavy_at_the_top():
    """`--help` must come at once: no room and none of the slow libraries before a command is called."""
    path = PACKAGE / "cli.py"
    if not path.exists():
        pytest.skip("ltnet_pl/cli.py is not written yet")
    heavy = {
        "torch",
        "pytorch_lightning",
        "numpy",
        "kornia",
        "torchmetrics",
        "albumentations",
        "mitsuba",
        "wandb",
        "jsonargparse",
    }
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module if node.module.startswith("ltnet_pl.") else node.module.split(".")[0]}
    assert not found & heavy
    assert not {name for name in found if name.startswith("ltnet_pl.")}
