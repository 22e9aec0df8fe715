"""What README and docs/ ask their readers to type: the commands in blocks and in running text, and Python, checked or run.

A command is checked by the parser that would read it: flags, types, configuration files. Files that only its reader has (a run's
configuration, what `fit-rig` writes, a network of one's own) are stood in for.
"""

from __future__ import annotations

import ast
import configparser
import importlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import yaml
from fits import environment

from ltnet_pl import InputError
from ltnet_pl.cli import COMMANDS, flags, main

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BY_NAME = {page.relative_to(ROOT).as_posix(): page for page in PAGES}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:python|torchrun|srun|make|pip|wandb)\s[^`]+)`")
RIG = {"model": {"net": {"init_args": {"rig": {"radius": 1.0, "height": 0.5}, "camera": {"fov": 45.0, "pitch": 20.0}}}}}
SHELL = ("if", "exit", "export", "mkdir", "cd")
OTHERS = {
    # programs that are not ours, with what they may be asked for
    "wandb": ("sweep", "agent", "sync", "login"),
    "jupyter": ("lab",),
}


class Step(NamedTuple):
    """A command, as words, or a block of Python, as text."""

    words: list[str]
    code: str


def blocks(page, *languages):
    """The texts of a page's blocks in one of these languages."""
    return [text for language, text in FENCE.findall(page.read_text()) if language in languages]


def steps(page):
    """What a reader types, from top to bottom."""
    found = []
    for language, text in FENCE.findall(page.read_text()):
        if language == "bash":
            lines = text.replace("\\\n", " ").splitlines()
            found += [Step(words, "") for line in lines if (words := shlex.split(line, comments=True))]
        elif language == "python":
            found.append(Step([], text))
    return found


def inline(page):
    """The commands of a page's running text; one that is broken over lines is one."""
    return [Step(shlex.split(text), "") for text in INLINE.findall(FENCE.sub("", page.read_text()))]


def commands(page):
    """Every command of ours on a page, in blocks, then in running text."""
    return [step for step in [*steps(page), *inline(page)] if ours(step.words) is not None]


def ours(words):
    """The words after ``python -m ltnet_pl``, whoever starts it; None where it is no command of ours."""
    for i in range(1, len(words) - 1):
        if words[i - 1 : i + 1] == ["python", "-m"] or (words[0] == "torchrun" and words[i] == "-m"):
            return words[i + 2 :] if words[i + 1] == "ltnet_pl" else None
    return None


def check_command(words):
    """Let the parsers read a command, in a folder prepared by `stand_in`; what is wrong with it is raised."""
    for word in words:
        if re.match(r"(experiments|sweeps|notebooks|tests|requirements)/", word):
            assert (ROOT / word).exists(), f"{word} is not in the repository"
    mine = ours(words)
    if mine is not None:
        if words[0] == "torchrun":
            from torch.distributed.run import get_args_parser

            get_args_parser().parse_args([*words[1 : words.index("-m") + 2], *mine])
        check_ours(mine)
        return
    program, *rest = words
    if program == "pip":
        check_pip(rest)
    elif program == "python" and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1]), f"there is no module {rest[1]}"
    elif program == "python" and rest[0] == "-c":
        check_code(rest[1])
    elif program == "python":
        assert (ROOT / rest[0]).is_file(), f"{rest[0]} is not in the repository"
    elif program == "make":
        targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
        assert set(rest) <= set(targets), f"make has no target {rest}"
    elif program in OTHERS:
        assert rest[0] in OTHERS[program], f"{program} {rest[0]} is not known here"
    else:
        assert program in SHELL or re.match(r"\w+=", program), f"{program} is not known here; can a reader run it?"


def check_ours(words):
    """The same for a command of ours."""
    command, *given = words
    if command in ("--help", "--version"):
        return
    assert command in COMMANDS, f"{command} is no command"
    where, _, function = COMMANDS[command].where.partition(":")
    call = getattr(importlib.import_module(where), function)
    try:
        if where == "ltnet_pl.experiment":
            from ltnet_pl.experiment import _Parsed

            call(command, [word for word in given if word != "--print_config"], _Parsed)
        elif command == "bench":
            part, *given = given
            flags(f"bench {part}", call(part), given)
        else:
            found = flags(command, call, given)
            if command == "sweep":
                from ltnet_pl.sweep.plan import read_sweep

                read_sweep(Path(found["file"]))
    except SystemExit as end:
        raise AssertionError(f"{shlex.join(words)}: refused by its parser (status {end.code}), see above") from end
    except InputError as error:
        raise AssertionError(f"{shlex.join(words)}: {error}") from error


def check_pip(words):
    """Extras that are named exist."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    assert words[0] == "install"
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        missing = set(extras.split(",")) - set(config["options.extras_require"])
        assert not missing, f"setup.cfg has no extra {missing}"


def check_code(code):
    """It compiles, and what it imports of ours is there."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ltnet_pl":
            for alias in node.names:
                try:
                    found = hasattr(importlib.import_module(node.module), alias.name)
                except ModuleNotFoundError:
                    found = False
                if not found:
                    importlib.import_module(f"{node.module}.{alias.name}")


def stand_in(folder, page):
    """Give a folder what a page's commands name: our files, and those that a reader has made by then, but for `write_network`."""
    for part in ("experiments", "sweeps"):
        (folder / part).symlink_to(ROOT / part)
    (folder / "rig.yaml").write_text(yaml.safe_dump(RIG))
    for step in commands(page):
        if "fit-rig" in step.words and "--out" in step.words:
            (folder / step.words[step.words.index("--out") + 1]).write_text(yaml.safe_dump(RIG))
        for config in step.words:
            if re.fullmatch(r"runs/\w+(/\w+)*/config\.yaml", config):
                (folder / config).parent.mkdir(parents=True, exist_ok=True)
                (folder / config).write_text((ROOT / "experiments" / "base.yaml").read_text())


def write_network(folder):
    """The network of docs/howto/own_network.md, and its configuration."""
    page = DOCS / "howto" / "own_network.md"
    (folder / "my_package.py").write_text(blocks(page, "python")[0])
    (folder / "mine.yaml").write_text(blocks(page, "yaml")[0])


@contextmanager
def own_network(folder):
    """`write_network`, whose module Python finds within the block."""
    write_network(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("my_package", None)  # other tests want one that is not there


def run(step, few=None):
    """Do a step in the folder in which we are, in this process.

    Args:
        step: The step.
        few: Flags to append to a command of ours, by its name: what makes it small.

    Returns:
        What it printed.
    """
    said = io.StringIO()
    with redirect_stdout(said):
        if step.code:
            exec(step.code, {"__name__": "__main__"})
        elif (mine := ours(step.words)) is not None:
            try:
                status = main([*mine, *(few or {}).get(mine[0], [])])
            except SystemExit as end:  # what only prints
                status = end.code or 0
            assert status == 0, f"{shlex.join(step.words)} ended with {status}, see above"
        else:
            assert step.words[0] == "mkdir", f"{step.words} is not run by tests"
            subprocess.run(step.words, check=True)
    return said.getvalue()


def run_apart(step, folder, few=None):
    """The same for a command of ours that starts further processes, in a process of its own in a folder."""
    mine = ours(step.words)
    call = [sys.executable, "-m", "ltnet_pl", *mine, *(few or {}).get(mine[0], [])]
    own = environment(PYTHONPATH=os.pathsep.join([str(ROOT), str(Path(__file__).parent)]))
    done = subprocess.run(call, check=False, capture_output=True, text=True, timeout=500, cwd=folder, env=own)
    assert done.returncode == 0, f"{shlex.join(call)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
