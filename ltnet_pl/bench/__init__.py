"""The benchmarks: methods compared under one budget, on one rendered set, by one script."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from ltnet_pl import InputError

BENCHES = {
    "quality": "Train every row under the same budget, score it on the same pairs, print the tables.",
    "speed": "Time every row's network, side by side.",
    "looks": "Show input, guide, results and target of test scenes on sheets.",
    "turning": "Turn the light in small steps, and score directions between the trained ones.",
    "sizes": "Score large pictures by the size that the interaction works at.",
    "photos": "Time the first light of a photograph and further ones, and measure memory, by its size.",
    "real": "Score trained rows on real photographs.",
    "ddp": "Hold several processes against one: the same numbers, and how many more samples per second.",
    "data": "Time how fast training samples are read, from image files and from a cache.",
}
"""What `bench` can do, and what each does."""


def bench(what: str) -> Callable[..., None]:
    """The function of one benchmark, whose signature gives its flags.

    Args:
        what: ``quality``, ``speed``, ``looks``, ``turning``, ``sizes``, ``photos``, ``real``, ``ddp`` or ``data``.

    Raises:
        InputError: If it is none of these.
    """
    if what not in BENCHES:
        raise InputError(f"bench {what}: unknown; expected one of {', '.join(BENCHES)}: python -m ltnet_pl bench --help")
    function: Callable[..., None] = getattr(importlib.import_module(f"ltnet_pl.bench.{what}"), what)
    return function
