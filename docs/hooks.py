"""Hooks of the documentation's build: pages that are made of the package itself, so that they cannot say anything else."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

ROOMS = (
    *("relight", "photo", "light", "geometry", "nets", "losses", "metrics", "data", "tasks", "results"),
    *("render", "rig_fit", "cache", "report"),
)
"""Modules that programs outside the package may use, in the order in which the page shows them."""

SAME_FLAGS = ("validate", "test", "predict")
"""Commands whose flags are those of `fit`."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put what the package says of itself where a page asks for it by a line ``<!-- insert: name -->``."""
    for name, made in INSERTS.items():
        line = f"<!-- insert: {name} -->"
        if line in markdown:
            markdown = markdown.replace(line, made())
    return markdown


def api() -> str:
    """Where mkdocstrings shows the public modules."""
    here = [room for room in ROOMS if (ROOT / "ltnet_pl" / room).is_dir() or (ROOT / "ltnet_pl" / f"{room}.py").is_file()]
    return "\n\n".join(f"::: ltnet_pl.{room}" for room in here)


def changelog() -> str:
    """CHANGELOG.md, whose heading the page has already."""
    return (ROOT / "CHANGELOG.md").read_text().partition("\n")[2]


@functools.cache
def commands() -> str:
    """Every command with what its own ``--help`` prints."""
    from ltnet_pl.bench import BENCHES
    from ltnet_pl.cli import COMMANDS

    parts = [
        "\n".join(["| command | |", "| --- | --- |", *(f"| [{key}](#{key}) | {of.summary} |" for key, of in COMMANDS.items())])
    ]
    for name, command in COMMANDS.items():
        parts += [f"## {name}", command.summary]
        if name in SAME_FLAGS:
            parts.append("Its flags are those of [fit](#fit), but for what belongs to training alone.")
        else:
            text = printed(name, "--help")
            # a screen of flags without a word of explanation, all of which come again below
            parts.append(f"```text\n{text.partition(chr(10) * 2)[2] if name == 'fit' else text}\n```")
        if name == "bench":
            for part, summary in BENCHES.items():
                parts += [f"### bench {part}", summary, f"```text\n{printed(name, part, '--help')}\n```"]
    return "\n\n".join(parts)


def printed(*args: str) -> str:
    """What a command line prints, in lines that fit a page."""
    from ltnet_pl.cli import main

    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "84"
    text = io.StringIO()
    try:
        with redirect_stdout(text):
            main(args)
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"python -m ltnet_pl {' '.join(args)} ended with {end.code}") from end
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return text.getvalue().rstrip()


INSERTS: dict[str, Callable[[], str]] = {"api": api, "changelog": changelog, "commands": commands}
