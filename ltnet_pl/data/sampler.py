"""Which training sample comes when: it depends on seed and epoch, not on workers, processes or where a run was resumed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import DistributedSampler


class EpochSampler(DistributedSampler[int]):
    """Yields the numbers ``epoch * length`` to ``(epoch + 1) * length - 1`` in an order shuffled by seed and epoch.

    The dataset makes a sample from its number alone, so no epoch repeats another and a resumed run sees what the uninterrupted
    one would have seen. Lightning calls `set_epoch` before every epoch. Several processes share the epoch without overlap; what
    does not divide evenly is left out, so that all take the same number of steps.

    Being a `DistributedSampler` it is not wrapped by Lightning in one more, which would hide `set_epoch`.

    Args:
        length: Samples per epoch over all processes.
        seed: Seed of the order.
        rank: Which process this is.
        world_size: How many processes there are.

    Attributes:
        resumed: An epoch and how many of its samples, of this process, were taken before: they are passed over in that epoch.

    Example:
        >>> sampler = EpochSampler(length=4, seed=0)
        >>> sampler.set_epoch(2)
        >>> sorted(sampler)
        [8, 9, 10, 11]
    """

    def __init__(self, length: int, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(
            range(length),  # type: ignore[arg-type]  # the base class asks its Dataset only for a length
            num_replicas=world_size,
            rank=rank,
            seed=seed,
            drop_last=True,
        )
        self.length = length
        self.num_samples = length // world_size
        self.resumed = (-1, 0)

    def __iter__(self) -> Iterator[int]:
        """The numbers of this process in this epoch."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        mine = order[self.rank :: self.num_replicas][: self.num_samples]
        return iter((self.epoch * self.length + mine[self.taken :]).tolist())

    @property
    def taken(self) -> int:
        """How many samples of this epoch were taken before the run was resumed."""
        epoch, taken = self.resumed
        return taken if epoch == self.epoch else 0


class Share(DistributedSampler[int]):
    """Yields every so many-th number of a list, in order: one process's share of what is validated.

    All processes get equally many, since they work in step. What is missing at the end is made up for by numbers beyond the list,
    ``length + i`` for i, which `PairDataset` gives as samples that are only padding.

    Args:
        length: Length of the list.
        rank: Which process this is.
        world_size: How many processes there are.

    Example:
        >>> list(Share(3, rank=0, world_size=2)), list(Share(3, rank=1, world_size=2))
        ([0, 2], [1, 3])
    """

    def __init__(self, length: int, rank: int, world_size: int) -> None:
        super().__init__(range(length), num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]  # it asks for a length
        self.length = length

    def __iter__(self) -> Iterator[int]:
        """The numbers of this process."""
        return iter(range(self.rank, self.num_samples * self.num_replicas, self.num_replicas))
