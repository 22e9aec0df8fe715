"""Datasets: pairs and drawn training samples, each turned into the tensors of the batch contract."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ltnet_pl import InputError
from ltnet_pl.augment import Augment, Sample, mirror, with_frame_depth
from ltnet_pl.data.frames import Frames
from ltnet_pl.light import Camera, Light, Rig
from ltnet_pl.vidit import Pair, View

Batch = dict[str, Any]
Settings = Mapping[str, Mapping[str, View]]
Truth = Mapping[str, tuple[Camera | None, Rig | None]]
"""Camera and rig of scenes by name, None where unknown; a scene may be absent."""

Draw = Callable[[int, np.random.Generator], Pair]
"""Gives the pair of a training sample from its number and its own random generator."""

UNKNOWN = (math.nan, math.nan)


def light_row(light: Light | None) -> tuple[float, ...]:
    """Azimuth in degrees and kelvin; NaN for an unknown light."""
    return UNKNOWN if light is None else light.row()[:2]


def load(pair: Pair, frames: Frames) -> Sample:
    """The frames of a pair, flipped where the pair is a mirrored one; `frame_depth` is not made yet.

    Raises:
        InputError: If a file is missing or broken, or the sizes of input, depth, target and guide do not go together.
    """
    source, target, guide = pair.input, pair.target, pair.guide
    if source.depth is None:
        raise no_depth(source)
    sample = Sample(
        name=pair.name,
        input=frames.image(source.image),
        depth=frames.depth(source.depth, source.image),
        input_light=light_row(source.light),
        target_light=light_row(pair.target_light),
        target=None if target is None else frames.image(target.image, partner=source.image),
        guide=None if guide is None else frames.image(guide.image),
        guide_depth=None if guide is None or guide.depth is None else frames.depth(guide.depth, guide.image),
    )
    if guide is not None and sample.guide is not None and sample.guide.shape != sample.input.shape:
        (height, width), (rows, columns) = sample.guide.shape[:2], sample.input.shape[:2]
        raise InputError(
            f"{guide.image}: is {height} x {width} (height x width{' after --data.size' if frames.size else ''}), but the input "
            f"{source.image} is {rows} x {columns}; expected one size for both, which one network reads: resize the odd one"
        )
    return mirror(sample) if pair.mirrored else sample


def no_depth(view: View) -> InputError:
    """The error for an input without depth."""
    return InputError(
        f"{view.image}: scene {view.scene} has no depth; expected {view.image.with_name(view.scene + '.npy')} (or the same name "
        "in a folder depth): fetch it, or remove the scene"
    )


def to_tensors(sample: Sample, camera: Camera | None = None, rig: Rig | None = None) -> Batch:
    """A sample as tensors: one element of a batch, without the batch axis; images are 8-bit until `loader.floats` is asked.

    Args:
        sample: With `frame_depth` made.
        camera: The true camera where it is known.
        rig: The true rig where it is known.
    """
    assert sample.frame_depth is not None  # every dataset makes it
    out: Batch = {
        "name": sample.name,
        "input": _image(sample.input),
        "depth": _depth(sample.depth),
        "frame_depth": _depth(sample.frame_depth),
        "input_light": torch.tensor(sample.input_light, dtype=torch.float32),
        "target_light": torch.tensor(sample.target_light, dtype=torch.float32),
        "crop": torch.tensor(sample.crop, dtype=torch.float32),
        "camera": torch.tensor(UNKNOWN if camera is None else (camera.fov, camera.pitch), dtype=torch.float32),
        "rig": torch.tensor(UNKNOWN if rig is None else (rig.radius, rig.height), dtype=torch.float32),
    }
    if sample.target is not None:
        out["target"] = _image(sample.target)
    if sample.guide is not None:
        depth = sample.guide_depth
        out["guide"] = _image(sample.guide)
        out["guide_depth"] = torch.zeros(1, *sample.guide.shape[:2]) if depth is None else _depth(depth)
        out["guide_crop"] = torch.tensor(sample.guide_crop, dtype=torch.float32)
    return out


def _image(image: NDArray[np.uint8]) -> Tensor:
    """``(H, W, 3)`` to ``(3, H, W)``, both uint8: a quarter of the bytes between processes, and to a GPU."""
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))  # a copy: frames are shared, not to be written to


def _depth(depth: NDArray[np.float32]) -> Tensor:
    """``(H, W)`` to ``(1, H, W)`` float32, a copy."""
    return torch.from_numpy(np.array(depth, dtype=np.float32, order="C"))[None]


class SampleDataset(Dataset[Batch]):
    """What all datasets share: errors of the user's files travel as items, not as tracebacks out of a worker."""

    def __getitems__(self, indices: Sequence[int]) -> list[Batch | InputError]:
        """Several samples for one batch, or the first user's mistake among them in their place."""
        try:
            return [self[i] for i in indices]
        except InputError as error:
            return [error]


class PairDataset(SampleDataset):
    """A fixed list of pairs, whole frames, nothing random.

    Args:
        pairs: The list.
        frames: Where frames come from.
        frame_size: Longer side of ``frame_depth`` in pixels.
        truth: Camera and rig by scene.

    Attributes:
        padded: Whether processes share the list: a sample then says by ``padding`` whether its number lies beyond the list.
    """

    def __init__(self, pairs: Sequence[Pair], frames: Frames, frame_size: int, truth: Truth) -> None:
        self.pairs, self.frames, self.frame_size, self.truth = list(pairs), frames, frame_size, truth
        self.padded = False

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> Batch:
        """One pair as tensors."""
        pair = self.pairs[index % len(self.pairs) if self.padded else index]
        sample = with_frame_depth(load(pair, self.frames), self.frame_size)
        batch = to_tensors(sample, *self.truth.get(pair.input.scene, (None, None)))
        return batch | ({"padding": torch.tensor(index >= len(self.pairs))} if self.padded else {})


class TrainingDataset(SampleDataset):
    """Training samples, each a pure function of the seed and its number.

    Args:
        draw: Gives the pair of a sample from its number and the sample's own random generator.
        length: Samples per epoch; numbers go on beyond it, one epoch after the other.
        frames: Where frames come from.
        augment: Random changes, crop included.
        truth: Camera and rig by scene.
        seed: Seed of all random choices.
        guide_depth_dropout: Probability that a guide comes without depth.
    """

    def __init__(
        self,
        draw: Draw,
        length: int,
        frames: Frames,
        augment: Augment,
        truth: Truth,
        seed: int,
        guide_depth_dropout: float = 0.0,
    ) -> None:
        self.draw, self.length, self.frames, self.augment, self.truth = draw, length, frames, augment, truth
        self.seed, self.guide_depth_dropout = seed, guide_depth_dropout

    def __len__(self) -> int:
        """Samples per epoch."""
        return self.length

    def __getitem__(self, number: int) -> Batch:
        """The sample of a number, as tensors."""
        rng = np.random.default_rng([self.seed, number])
        pair = self.draw(number, rng)
        sample = load(pair, self.frames)
        if sample.guide is not None and rng.random() < self.guide_depth_dropout:
            sample = replace(sample, guide_depth=None)
        batch = to_tensors(self.augment(sample, rng), *self.truth.get(pair.input.scene, (None, None)))
        # the sample's own, so that what a network leaves out at random does not depend on batches, processes or resumes
        return batch | {"chance": torch.from_numpy(rng.random(2, dtype=np.float32))}


class InOrder:
    """Draws the pairs of a list, each once per round, whatever order the sampler gives them.

    Args:
        pairs: The list.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)

    def __call__(self, number: int, rng: np.random.Generator) -> Pair:
        """The pair of a sample."""
        return self.pairs[number % len(self.pairs)]


class AnyToAny:
    """Draws any-to-any pairs: scenes in turn, two different lights at random, the guide another scene under the wanted light.

    Args:
        settings: The training scenes.
        same_scene_guide: Take the target itself as guide, for debugging.

    Raises:
        InputError: If a scene allows no pair.
    """

    def __init__(self, settings: Settings, same_scene_guide: bool) -> None:
        self.settings, self.scenes, self.same_scene_guide = settings, sorted(settings), same_scene_guide
        self.under: dict[str, list[str]] = {}
        for scene in self.scenes:
            for light in sorted(settings[scene]):
                self.under.setdefault(light, []).append(scene)
        for scene in self.scenes:
            views, guided = settings[scene], self._wanted(scene)
            if len(views) < 2 or not guided:
                raise InputError(
                    f"{next(iter(views.values())).image.parent}: training scene {scene} allows no any-to-any pair: it has "
                    f"{len(views)} images, {len(guided)} of them under a light that another training scene has too (the guide); "
                    "expected two lights and two training scenes or more: add images, lower --data.val_scenes or "
                    "--data.test_scenes, or set --data.same_scene_guide true for debugging"
                )

    def _wanted(self, scene: str) -> list[str]:
        """Lights that a scene can be relit to: those for which there is a guide."""
        return sorted(light for light in self.settings[scene] if self.same_scene_guide or len(self.under[light]) > 1)

    def __call__(self, number: int, rng: np.random.Generator) -> Pair:
        """The pair of a sample."""
        scene = self.scenes[number % len(self.scenes)]
        views = self.settings[scene]
        wanted = self._wanted(scene)
        target = wanted[rng.integers(len(wanted))]
        present = sorted(light for light in views if light != target)
        start = present[rng.integers(len(present))]
        guide = scene
        if not self.same_scene_guide:
            others = [other for other in self.under[target] if other != scene]
            guide = others[rng.integers(len(others))]
        return Pair(f"{scene}_{start}_to_{target}", views[start], views[target], self.settings[guide][target])
