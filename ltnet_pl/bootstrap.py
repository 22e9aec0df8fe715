"""Whether a difference between two rows is more than the choice of test scenes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 10_000


class Difference(NamedTuple):
    """A mean difference, and the 95 % interval of its bootstrap over scenes."""

    mean: float
    low: float
    high: float

    @property
    def claimed(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def difference(row: Sequence[Sequence[float]], reference: Sequence[Sequence[float]], draws: int = DRAWS) -> Difference:
    """Difference of two rows, paired by scene.

    Seeds are averaged first. Scenes, not images, are resampled, since the images of a scene resemble each other.

    Args:
        row: One list per seed of one value per scene.
        reference: The same of the other row, of the same scenes.
        draws: Number of resamples; their generator has a fixed seed.

    Returns:
        Mean of ``row - reference``, and the 2.5th and 97.5th percentile of its resampled means.

    Raises:
        ValueError: If the numbers of scenes differ.

    Example:
        >>> difference([[2.0, 2.0]], [[1.0, 1.0]]).claimed
        True
    """
    a, b = (np.asarray(values, dtype=np.float64).mean(axis=0) for values in (row, reference))
    if a.shape != b.shape:
        raise ValueError(f"rows of {a.shape[0]} and {b.shape[0]} scenes cannot be paired")
    change = a - b
    chosen = np.random.default_rng(0).integers(len(change), size=(draws, len(change)))
    low, high = np.quantile(change[chosen].mean(axis=1), [0.025, 0.975])
    return Difference(float(change.mean()), float(low), float(high))
