"""The command line: a table of commands, and `main`. Nothing heavy is imported before a command is known."""

from __future__ import annotations

import errno
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ltnet_pl import InputError, __version__

FULL_OR_FORBIDDEN = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says that is not a fault of ours."""


class Command(NamedTuple):
    """One line of the table: where the command's function is, and what it does."""

    where: str
    summary: str


COMMANDS = {
    "fit": Command("ltnet_pl.experiment:run", "Train a network."),
    "validate": Command("ltnet_pl.experiment:run", "Score a network on the validation pairs."),
    "test": Command("ltnet_pl.experiment:run", "Score a network on the test pairs; writes metrics, relit images and panels."),
    "predict": Command(
        "ltnet_pl.experiment:run", "Relight a folder of images with a run's network, and keep what its light stream read."
    ),
    "relight": Command("ltnet_pl.relight.job:relight", "Relight photographs, with the weights in the package or your own."),
    "render": Command("ltnet_pl.render:render", "Render a data set of physically based scenes in VIDIT's layout."),
    "cache": Command("ltnet_pl.cache:cache", "Decode and resize a set once, into arrays that training maps from disk."),
    "fit-rig": Command("ltnet_pl.rig_fit:fit_rig", "Find where the lights of a set stand, and its cameras."),
    "export": Command("ltnet_pl.export:export", "Write a trained network as one file: ONNX, torch.export, or weights alone."),
    "sweep": Command("ltnet_pl.sweep:sweep", "Run the trials of a sweep's YAML on this machine, without a server."),
    "report": Command("ltnet_pl.report:report", "Turn tested runs into a table and one HTML page."),
    "demo": Command("ltnet_pl.demo:demo", "Turn a photograph's light by hand, on a page in the browser."),
    "bench": Command("ltnet_pl.bench:bench", "Compare methods: quality, speed, looks, turning, sizes, photos, real, ddp, data."),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: Command and its flags; None: those of the process.

    Returns:
        Exit status: 0, or 2 where the user made a mistake, which is printed without a traceback.
    """
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(overview())
        return 0
    if args[0] == "--version":
        print(__version__)
        return 0
    name, *rest = args
    if name not in COMMANDS:
        print(f"error: unknown command {name!r}; expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    # albumentations asks a server for updates when it is imported
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    module, _, function = COMMANDS[name].where.partition(":")
    call = getattr(importlib.import_module(module), function)
    try:
        if call.__module__ == "ltnet_pl.experiment":
            call(name, rest)
            return 0
        if name == "bench":
            if not rest or rest[0] in ("-h", "--help"):
                parts = importlib.import_module(module).BENCHES
                print(overview("bench WHAT [flags]", COMMANDS[name].summary, parts, "bench WHAT"))
                raise SystemExit(0)  # as the parsers of the others do
            # its parts have flags of their own
            name, call, rest = f"bench {rest[0]}", call(rest[0]), rest[1:]
        call(**flags(name, call, rest))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in FULL_OR_FORBIDDEN:
            raise
        print(f"error: {error}; free some space or name another folder, then run the same command again", file=sys.stderr)
        return 2
    return 0


def flags(name: str, call: Callable[..., None], args: list[str]) -> dict[str, Any]:
    """Arguments of a plain function from its flags; the first parameters, without a default, are given without a flag.

    Args:
        name: The command.
        call: Its function, whose signature and docstring make the flags and their help.
        args: What the user wrote.

    Returns:
        The function's arguments by name.
    """
    import docstring_parser
    from jsonargparse import ArgumentParser

    described = docstring_parser.parse(call.__doc__ or "")
    parser = ArgumentParser(prog=f"python -m ltnet_pl {name}", description=described.short_description, allow_abbrev=False)
    parameters = inspect.signature(call).parameters
    helps = {p.arg_name: p.description for p in described.params}
    skip: set[str | int] = set()
    for parameter in parameters.values():
        if parameter.default is not inspect.Parameter.empty:
            break
        many = str(parameter.annotation).startswith("list")
        parser.add_argument(parameter.name, nargs="+" if many else None, type=str, help=helps.get(parameter.name))
        skip.add(parameter.name)
    parser.add_function_arguments(call, skip=skip, as_group=False)
    # a switch may stand alone: --table is --table true
    switches = {f"--{key}" for key, parameter in parameters.items() if isinstance(parameter.default, bool)}
    following = [*args, "--"][1:]
    said = [f"{a}=true" if a in switches and b.startswith("-") else a for a, b in zip(args, following, strict=True)]
    given = parser.instantiate(parser.parse_args(said))
    return {key: getattr(given, key) for key in parameters}


def overview(
    usage: str = "COMMAND [flags]",
    summary: str = "Depth-guided image relighting.",
    parts: dict[str, str] | None = None,
    whose: str = "COMMAND",
) -> str:
    """What `--help` prints: of the whole, or of a command that has parts with what each does."""
    parts = {name: command.summary for name, command in COMMANDS.items()} if parts is None else parts
    width = max(map(len, parts)) + 2
    return "\n".join(
        [
            f"usage: python -m ltnet_pl {usage}",
            "",
            summary,
            "",
            "commands:",
            *(f"  {name:<{width}}{text}" for name, text in parts.items()),
            "",
            f"`python -m ltnet_pl {whose} --help` lists the flags of a command; `--version` prints the version.",
        ]
    )
