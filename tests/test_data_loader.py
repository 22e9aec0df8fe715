"""Batches out of worker processes: the same as without them, and never overwritten by the batches that come after."""

import os
from itertools import islice

import pytest
import torch
from torch.utils.data import Dataset

from ltnet_pl import InputError
from ltnet_pl.data.loader import Collate, Loader

SIDE = 48


class Numbered(Dataset):
    """Sample i holds i everywhere: large and small tensors, and its name."""

    def __init__(self, length, broken=None):
        self.length, self.broken = length, broken

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        if i == self.broken:
            return InputError(f"sample {i} is broken")
        image = torch.full((3, SIDE, SIDE), i, dtype=torch.uint8)
        return {"name": f"s{i}", "input": image, "depth": torch.full((1, SIDE, SIDE), i + 0.25), "light": torch.tensor([i, 1.0])}


def loader(workers, length=46, raw=False, broken=None, persistent=False):
    made = Loader(
        Numbered(length, broken), batch_size=4, num_workers=workers, collate_fn=Collate(), persistent_workers=persistent
    )
    made.raw = raw
    return made


def check(batches, first=0, raw=False):
    """Whether batches hold the numbers from the first on, in order."""
    at = first
    for batch in batches:
        numbers = range(at, at + len(batch["name"]))
        at += len(batch["name"])
        assert batch["name"] == [f"s{i}" for i in numbers]
        expected = torch.tensor([float(i) for i in numbers])
        image = batch["input"].float() if raw else batch["input"] * 255
        assert batch["input"].dtype == (torch.uint8 if raw else torch.float32)
        torch.testing.assert_close(image, expected[:, None, None, None].expand(-1, 3, SIDE, SIDE))
        assert torch.equal(batch["depth"], expected[:, None, None, None].expand(-1, 1, SIDE, SIDE) + 0.25)
        assert torch.equal(batch["light"][:, 0], expected)
    return at


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_that_are_held_stay_as_they_were(workers, raw):
    """All of an epoch is held until its end, while the workers write the last batches; the last one is shorter."""
    assert check(list(loader(workers, raw=raw)), raw=raw) == 46


@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_one_after_the_other_and_one_that_is_left_early(persistent):
    """Workers that stay go on in the middle of their slots."""
    made = loader(2, persistent=persistent)
    held = [list(islice(made, 5)), list(made), list(islice(made, 1)), list(made)]
    assert [check(batches) for batches in held] == [20, 46, 4, 46]


def test_what_a_user_changes_in_a_batch_changes_no_other():
    """Batches have memory of their own, whatever their worker writes to."""
    made, seen = loader(1, raw=True), []
    for batch in made:
        seen.append(batch["input"].clone())
        batch["input"].zero_()
        batch["depth"].zero_()
    assert torch.equal(torch.cat(seen)[:, 0, 0, 0], torch.arange(46, dtype=torch.uint8))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_place_of_a_sample_is_raised_as_itself(workers):
    batches = iter(loader(workers, broken=21))
    check(list(islice(batches, 5)))
    with pytest.raises(InputError, match="sample 21 is broken"):
        next(batches)


class Growing(Numbered):
    """Larger images with larger numbers."""

    def __getitem__(self, i):
        side = SIDE + i // 4
        return {"name": f"s{i}", "input": torch.full((3, side, side), i, dtype=torch.uint8)}


def test_sizes_that_change_from_batch_to_batch():
    """Memory is made anew where a batch does not fit, and what it replaces is let go."""
    made, before = Loader(Growing(120), batch_size=4, num_workers=1, collate_fn=Collate()), len(os.listdir("/dev/fd"))
    for number, batch in enumerate(made):
        # one for each slot, and those of the queues between the processes
        assert len(os.listdir("/dev/fd")) < before + 10
        assert batch["input"].shape == (4, 3, SIDE + number, SIDE + number)
        torch.testing.assert_close(batch["input"][:, 0, 0, 0] * 255, torch.arange(4.0) + 4 * number)
