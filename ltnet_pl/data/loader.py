"""Batches: how samples are stacked, sent from the processes that read them, and given to who trains."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate, get_worker_info

from ltnet_pl import InputError
from ltnet_pl.data.datasets import Batch
from ltnet_pl.data.sampler import EpochSampler

_SMALL = 4096
"""Bytes up to which a stacked tensor is sent within the message; what is larger is shared."""


class Collate:
    """Stacks samples into a batch; names become a list. An error in place of the samples is passed on, for `Loader` to raise.

    In a worker, images and depths are stacked into shared memory that is used again: to have the system clear new pages for
    each batch takes several times as long as to fill them. A worker is told to read a batch once the one that lies
    ``prefetch_factor`` before it has arrived at `Loader`, which copies it before it takes another: one slot more suffices. Where
    memory is pinned for a GPU, the thread that pins it copies, and no later.

    Attributes:
        slots: How many batches of a worker may be on their way or being copied; set by `Loader`.
    """

    slots = 3

    def __init__(self) -> None:
        self._slots: list[dict[str, Tensor]] = []
        self._next = 0

    def __call__(self, samples: Sequence[Batch | InputError]) -> Batch | InputError:
        """The batch."""
        error = next((sample for sample in samples if isinstance(sample, InputError)), None)
        if error is not None:
            return error
        read = [sample for sample in samples if not isinstance(sample, InputError)]
        if get_worker_info() is None:
            batch: Batch = default_collate(read)
            return batch
        if not self._slots:
            self._slots = [{} for _ in range(self.slots)]
        slot = self._slots[self._next]
        self._next = (self._next + 1) % self.slots
        return {key: self._stacked(slot, key, [sample[key] for sample in read]) for key in read[0]}

    def _stacked(self, slot: dict[str, Tensor], key: str, values: list[Any]) -> Any:
        """The values of one key: in the slot where they are large, as an array where they are small, as a list of no tensors."""
        first = values[0]
        if not isinstance(first, Tensor):
            return values
        if first.nbytes * len(values) <= _SMALL:
            return torch.stack(values).numpy()
        found = slot.get(key)
        if found is None or found.shape[1:] != first.shape or found.dtype != first.dtype or len(found) < len(values):
            found = slot[key] = torch.empty((len(values), *first.shape), dtype=first.dtype)
            found.share_memory_()  # type: ignore[no-untyped-call]  # torch gives it no types
        return torch.stack(values, out=found[: len(values)])


def outlive_stops(worker: int) -> None:
    """Makes a worker outlive the signals that stop a run: who sends them to all of its processes means the main one.

    That one goes on reading until it has written its checkpoint, and then ends its workers itself.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # macOS does not tell who sent a signal: there the worker ends, and the run with it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    """End this process on a SIGTERM of its parent's, and no other's."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def floats(batch: Batch) -> Batch:
    """The batch with its images as float32 in [0, 1], on the device that they are on."""
    images = {key: value for key, value in batch.items() if isinstance(value, Tensor) and value.dtype == torch.uint8}
    return batch | {key: value.to(torch.float32).div_(255) for key, value in images.items()}


def together(samples: Sequence[Batch]) -> Batch:
    """Samples as a batch that a network takes, without a loader."""
    batch: Batch = default_collate(list(samples))
    return floats(batch)


def _shared(value: Tensor) -> bool:
    """Whether a tensor lies in memory that another process may write to."""
    return bool(value.is_shared())  # type: ignore[no-untyped-call]  # torch gives it no types


class Loader(DataLoader[Batch]):
    """A DataLoader that raises a user's mistake in the main process, as itself, wherever the file was read.

    It keeps count of the batches that it gave, so that training goes on within an epoch where it was stopped.

    Attributes:
        raw: Whether images are given as the 8-bit numbers that the workers sent, for `floats` on a GPU; else as floats.
    """

    raw = False
    _given = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override] # nothing asks for the base iterator's own class
        """Batches."""
        slots = 1 + (self.prefetch_factor or 0)
        if isinstance(self.collate_fn, Collate):
            self.collate_fn.slots = slots
        # as long as a slot's memory is held it stays mapped, and is not mapped anew for the next batch in it
        mapped: dict[tuple[int, str], torch.UntypedStorage] = {}
        places = max(1, self.num_workers) * slots
        self._given = self.sampler.taken // (self.batch_size or 1) if isinstance(self.sampler, EpochSampler) else 0
        for batch in super().__iter__():
            if isinstance(batch, InputError):
                raise batch
            place, self._given = self._given % places, self._given + 1
            yield self._own(batch, mapped, place)

    def _own(self, batch: Batch, mapped: dict[tuple[int, str], torch.UntypedStorage], place: int) -> Batch:
        """A batch in memory of its own, with small arrays as tensors again: its worker writes to the shared one anew."""
        out = {key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for key, value in batch.items()}
        shared = {key: value for key, value in out.items() if isinstance(value, Tensor) and _shared(value)}
        mapped |= {(place, key): value.untyped_storage() for key, value in shared.items()}
        made = {} if self.raw else floats(out)
        kept = {key: value for key, value in shared.items() if self.raw or value.dtype != torch.uint8}
        return out | made | {key: value.clone() for key, value in kept.items()}

    def state_dict(self) -> dict[str, int]:
        """How many batches of which epoch were given, of how many."""
        return {"epoch": getattr(self.sampler, "epoch", 0), "given": self._given, "of": len(self)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on in the middle of the epoch, if that is where a checkpoint was written.

        Raises:
            InputError: If the epoch has another number of batches by now.
        """
        if not 0 < state["given"] < state["of"] or not isinstance(self.sampler, EpochSampler):
            return
        if state["of"] != len(self):
            raise InputError(
                f"the checkpoint stands at batch {state['given']} of an epoch of {state['of']}, which has {len(self)} now; "
                "expected as many: leave --data.batch_size, --data.samples_per_epoch and the number of devices as they were "
                "until the end of the epoch"
            )
        self.sampler.resumed = (state["epoch"], state["given"] * (self.batch_size or 1))
