"""One light in, one light out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ltnet_pl import InputError
from ltnet_pl.augment import AugmentSettings
from ltnet_pl.data.base import RelightDataModule, Split
from ltnet_pl.data.datasets import Draw, InOrder
from ltnet_pl.vidit import Pair, View, detect_layout, find_one_to_one, find_settings, one_to_one_from_settings, split_scenes


class OneToOneDataModule(RelightDataModule):
    """One light in, one light out: 6500 K from N becomes 4500 K from E (track 1).

    `root` holds the challenge's files (``input/Image000.png`` with ``target/Image000.png``), or an any-to-any set, of which the
    two lights are taken. Batches have no guide. Training never mirrors at random, since a mirrored E is a W: `mirrored_pairs`
    adds the legal mirror images instead. Without `samples_per_epoch` an epoch shows every training pair once.

    Args:
        augment: Random changes of training samples; mirror must be 0.
        mirrored_pairs: Add each scene's 6500_N and 4500_W, both flipped left to right, as one more training pair; needs an
            any-to-any set.
        kwargs: See the base class.
    """

    def __init__(
        self, augment: AugmentSettings = AugmentSettings(mirror=0.0), mirrored_pairs: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(augment=augment, **kwargs)
        if augment.mirror:
            raise InputError(
                f"--data.augment.mirror is {augment.mirror}; expected 0 for one-to-one, where a mirrored target would be lit "
                "from W in place of E: set it to 0, and --data.mirrored_pairs true for the legal mirror images"
            )
        self.mirrored_pairs = mirrored_pairs

    def training_pairs(self) -> tuple[Draw, int, list[View]]:
        """All training pairs in turn, the mirrored ones among them."""
        pairs = self._pairs("train")
        for pair in pairs:
            if pair.target is None:
                raise InputError(
                    f"{pair.input.image}: has no ground truth to train on; expected target/{pair.input.image.name} in the same "
                    "set: fetch the training set, which has it"
                )
        return InOrder(pairs), len(pairs), [pair.input for pair in pairs]

    def listed_pairs(self, split: Split) -> list[Pair]:
        """The pairs of a split, one per scene."""
        if split == "identity":
            raise InputError("--data.test_split identity is not a list of one-to-one; expected val or test")
        folder, targets = self.folders[split]
        if folder is None:
            return [] if self.root is None else self._pairs(split)
        if detect_layout(Path(folder)) == "one_to_one":
            return find_one_to_one(Path(folder), None if targets is None else Path(targets))
        return one_to_one_from_settings(find_settings(Path(folder)))

    def _pairs(self, split: Literal["train", "val", "test"]) -> list[Pair]:
        """The pairs of `root` that belong to a split."""
        root, mirrored = self.required_root(), self.mirrored_pairs and split == "train"
        if detect_layout(root) == "one_to_one":
            if mirrored:
                raise InputError(
                    f"--data.mirrored_pairs is true, but {root} holds no images lit from W; expected an any-to-any set: give "
                    "one as --data.root, or set the flag to false"
                )
            pairs = find_one_to_one(root)
        else:
            settings = find_settings(root)
            pairs = one_to_one_from_settings(settings, mirrored)
        names = split_scenes([pair.input.scene for pair in pairs], self.val_scenes, self.test_scenes)
        mine = set(names[("train", "val", "test").index(split)])
        return [pair for pair in pairs if pair.input.scene in mine]
