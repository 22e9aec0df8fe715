"""The four families of random scenes, by name."""

from __future__ import annotations

from collections.abc import Callable

from ltnet_pl.render.indoor import interior, objects
from ltnet_pl.render.outdoor import courtyard, terrain
from ltnet_pl.render.scenes import Rng, Scene

FAMILIES: dict[str, Callable[[Rng], Scene]] = {f.__name__: f for f in (terrain, courtyard, interior, objects)}
"""Every family by name, in the order in which scene numbers cycle through them."""
