"""Any light in, any light out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ltnet_pl import InputError
from ltnet_pl.data.base import RelightDataModule, Split
from ltnet_pl.data.datasets import AnyToAny, Draw, Settings
from ltnet_pl.vidit import (
    Pair,
    View,
    any_to_any_pairs,
    detect_layout,
    find_pairs,
    find_settings,
    identity_pairs,
    read_pairs,
    split_scenes,
    write_pairs,
)


class AnyToAnyDataModule(RelightDataModule):
    """Any light in, any light out: VIDIT's any-to-any training set (track 2), or one that `render` wrote.

    Training draws for each sample two different lights of one scene and, as guide, another training scene under the wanted
    light. Validation and test run on pair lists that are chosen once from their seed, stored as CSV, and only read from then on;
    input and wanted light differ in all of them, and the identity list is the one where they are equal. A separate validation or
    test folder may also hold the challenge's pairs (``input/Pair000.png`` with ``guide/Pair000.png``), whose lights are unknown.

    Without `samples_per_epoch` an epoch has `pairs_per_scene` samples for each training scene.

    Args:
        pairs: Folder of the stored pair lists; null: the folder pairs in `root`.
        pairs_per_scene: Pairs per scene in the validation and test lists.
        pairs_seed: Seed of these lists; apart from `seed`, so that runs of several seeds are scored on the same pairs.
        same_scene_guide: Take the target itself as guide, for debugging.
        guide_depth_dropout: Probability that a training guide comes without depth, as real guides do.
        kwargs: See the base class.
    """

    def __init__(
        self,
        pairs: str | None = None,
        pairs_per_scene: int = 20,
        pairs_seed: int = 0,
        same_scene_guide: bool = False,
        guide_depth_dropout: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if pairs_per_scene < 1:
            raise InputError(f"--data.pairs_per_scene is {pairs_per_scene}; expected 1 or more: raise it")
        if not 0 <= guide_depth_dropout <= 1:
            raise InputError(
                f"--data.guide_depth_dropout is {guide_depth_dropout}; expected a probability within 0 to 1: correct it"
            )
        self.pairs, self.pairs_per_scene, self.same_scene_guide = pairs, pairs_per_scene, same_scene_guide
        self.guide_depth_dropout, self.pairs_seed = guide_depth_dropout, pairs_seed
        self._splits: dict[str, Settings] | None = None

    def training_pairs(self) -> tuple[Draw, int, list[View]]:
        """Random pairs of the training scenes."""
        settings = self._split("train")
        draw = AnyToAny(settings, self.same_scene_guide)
        return draw, self.pairs_per_scene * len(settings), [view for views in settings.values() for view in views.values()]

    def listed_pairs(self, split: Split) -> list[Pair]:
        """The stored list of a split, written now if it is missing; a challenge folder's own pairs.

        Raises:
            InputError: If the list is broken, belongs to other scenes, or cannot be written.
        """
        folder, targets = self.folders["test" if split == "identity" else split]
        if folder is None:
            if self.root is None:
                return []
            return self._stored(split, self._split("test" if split == "identity" else split), Path(self.root))
        if detect_layout(Path(folder)) == "pairs":
            if split == "identity":
                raise InputError(
                    f"--data.test_split identity needs images of known lights, but {folder} holds challenge pairs: use test"
                )
            return find_pairs(Path(folder), None if targets is None else Path(targets))
        return self._stored(split, find_settings(Path(folder)), Path(folder))

    def _split(self, split: Literal["train", "val", "test"]) -> Settings:
        """The scenes of `root` that belong to a split."""
        if self._splits is None:
            settings = find_settings(self.required_root())
            names = split_scenes(list(settings), self.val_scenes, self.test_scenes)
            parts = zip(("train", "val", "test"), names, strict=True)
            self._splits = {part: {scene: settings[scene] for scene in scenes} for part, scenes in parts}
        return self._splits[split]

    def _stored(self, split: Split, settings: Settings, root: Path) -> list[Pair]:
        """Read the list of a split from its CSV, after writing it where it is missing."""
        if not settings:
            return []
        folder = root / "pairs" if self.pairs is None else Path(self.pairs)
        same = "-same_scene" if self.same_scene_guide else ""
        scenes = f"{min(settings)}_to_{max(settings)}"
        path = folder / f"any_to_any-{split}-{scenes}-{self.pairs_per_scene}_each-seed{self.pairs_seed}{same}.csv"
        if len(settings) == 1 and not self.same_scene_guide:
            raise InputError(
                f"{root}: {split} has the one scene {next(iter(settings))}, and a guide comes from another scene of the same "
                "split; expected two scenes or more: change --data.val_scenes or --data.test_scenes"
            )
        if not path.exists():
            choose = identity_pairs if split == "identity" else any_to_any_pairs
            pairs = choose(settings, self.pairs_per_scene, self.pairs_seed, self.same_scene_guide)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_pairs(path, pairs)
            except OSError as error:
                raise InputError(
                    f"{path}: the pair list cannot be written ({error.strerror}); expected a folder that can be written: give "
                    "one as --data.pairs"
                ) from error
        pairs = read_pairs(path, settings)
        missing = sorted(set(settings) - {pair.input.scene for pair in pairs})
        if missing:
            raise InputError(
                f"{path}: has no pair of {', '.join(missing[:5])}; expected pairs of all {len(settings)} scenes of {split}, so "
                "the list was made for others: delete it to have it made anew, or give another folder as --data.pairs"
            )
        return pairs
