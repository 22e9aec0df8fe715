"""Augmentation that knows what it does to the light.

Everything random happens to a `Sample`, frames as they come from disk, and is drawn from one numpy generator, so that a sample
is a function of that generator's seed alone. Pixels are moved and degraded by albumentations, which only this module imports.
What each step does to the light:

* a **mirror** flips the whole sample and mirrors the azimuths; gravity and the rig forbid all other flips and rotations;
* a **crop** moves the principal point; its window travels with the sample, and so does the whole frame's depth;
* the **exposure** is one factor in linear light for input and target alike, the same for all channels, so that the colour
  temperature stays what the label says; the guide has its own;
* **noise** and **JPEG** fall on the input alone: the target stays clean;
* **depth** is made worse in the ways in which estimated depth is worse, at whole-frame size, so that crop and frame agree.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

# without it, importing albumentations asks the package index for a newer version
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ltnet_pl import InputError
from ltnet_pl.geometry import resampled, size_within
from ltnet_pl.light import linear_to_srgb, mirror_azimuth, srgb_to_linear

Image = NDArray[np.uint8]
Depth = NDArray[np.float32]
Window = tuple[float, float, float, float]

WHOLE: Window = (0.0, 0.0, 1.0, 1.0)
"""The window of a frame that is not cropped: top, left, height, width as fractions of the frame."""


@dataclass
class AugmentSettings:
    """How often and how strongly training samples are changed; probabilities are per sample, 0 switches a change off.

    Args:
        mirror: Probability of flipping the whole sample, light included.
        jitter: Probability of another exposure, common to input and target; the guide draws its own.
        jitter_stops: Largest change of exposure in stops, either way.
        noise: Probability of sensor noise on the input.
        noise_std: Largest standard deviation of that noise, as a fraction of full scale.
        jpeg: Probability of JPEG compression of the input.
        jpeg_quality: Lowest JPEG quality, 1 to 95; the highest is 95.
        depth: Probability of degrading a depth map; for a guide's depth drawn anew.
        depth_scale: Largest factor by which a degraded depth is scaled, either way; 1 keeps the scale.
        depth_noise: Largest standard deviation of the noise on a degraded depth, as a fraction of the depth itself.
        depth_blur: Largest Gaussian blur of a degraded depth, its standard deviation as a fraction of the frame's height.
        depth_holes: Largest number of holes (depth 0) in a degraded depth, each up to an eighth of the frame wide and high.

    Raises:
        InputError: If a value is outside its range.
    """

    mirror: float = 0.5
    jitter: float = 0.5
    jitter_stops: float = 0.3
    noise: float = 0.2
    noise_std: float = 0.02
    jpeg: float = 0.2
    jpeg_quality: int = 60
    depth: float = 0.2
    depth_scale: float = 2.0
    depth_noise: float = 0.01
    depth_blur: float = 0.01
    depth_holes: int = 3

    def __post_init__(self) -> None:
        for name in ("mirror", "jitter", "noise", "jpeg", "depth"):
            _expect(name, getattr(self, name), 0, 1, "a probability")
        _expect("jitter_stops", self.jitter_stops, 0, 4, "stops")
        _expect("noise_std", self.noise_std, 0, 1, "a fraction of full scale")
        _expect("jpeg_quality", self.jpeg_quality, 1, 95, "a JPEG quality")
        _expect("depth_scale", self.depth_scale, 1, 1000, "a factor")
        _expect("depth_noise", self.depth_noise, 0, 1, "a fraction of the depth")
        _expect("depth_blur", self.depth_blur, 0, 0.25, "a fraction of the frame's height")
        _expect("depth_holes", self.depth_holes, 0, 100, "a number of holes")

    @classmethod
    def off(cls) -> AugmentSettings:
        """Settings under which nothing is changed; crops are still drawn."""
        return cls(mirror=0, jitter=0, noise=0, jpeg=0, depth=0)


def _expect(name: str, value: float, low: float, high: float, what: str) -> None:
    """Refuse a setting outside its range; NaN is outside of every range."""
    if not low <= value <= high:
        raise InputError(f"--data.augment.{name} is {value}; expected {what} within {low:g} to {high:g}")


@dataclass(frozen=True)
class Sample:
    """One relighting task as it comes from disk, before it becomes tensors.

    Args:
        name: Name of the task.
        input: Frame to relight, ``(H, W, 3)`` uint8, display-encoded.
        depth: Its depth, ``(H, W)`` float32, 0 = background.
        input_light: Azimuth in degrees and kelvin, possibly elevation and ambient; NaN where unknown.
        target_light: The wanted light, likewise.
        target: Ground truth, same shape as the input; None where there is none.
        guide: Frame whose light is wanted, of any size; None where there is none.
        guide_depth: Depth of the guide; None: none, which becomes zeros.
        crop: Window that the input shows: top, left, height, width as fractions of the frame.
        guide_crop: Window that the guide shows.
        frame_depth: Depth of the input's whole frame at low resolution, ``(h, w)`` float32; None until `frame_depth` made it.
    """

    name: str
    input: Image
    depth: Depth
    input_light: tuple[float, ...]
    target_light: tuple[float, ...]
    target: Image | None = None
    guide: Image | None = None
    guide_depth: Depth | None = None
    crop: Window = WHOLE
    guide_crop: Window = WHOLE
    frame_depth: Depth | None = None


_PIXELS = {"target": "image", "guide": "image", "depth": "mask", "guide_depth": "mask", "frame_depth": "mask"}
# sizes may differ between input and guide; the data modules check those that must agree
_FLIP = A.Compose([A.HorizontalFlip(p=1.0)], additional_targets=_PIXELS, is_check_shapes=False)


def mirror(sample: Sample) -> Sample:
    """The whole sample flipped left to right: images, depths, crop windows, and the azimuths of both lights.

    Example:
        >>> image, depth = np.zeros((4, 6, 3), np.uint8), np.ones((4, 6), np.float32)
        >>> mirror(Sample("a", image, depth, (90.0, 4500.0), (0.0, 6500.0))).input_light
        (270.0, 4500.0)
    """
    arrays = {key: getattr(sample, key) for key in _PIXELS if getattr(sample, key) is not None}
    flipped = _FLIP(image=sample.input, **arrays)
    return replace(
        sample,
        input=flipped["image"],
        **{key: flipped[key] for key in arrays},
        input_light=_mirror_light(sample.input_light),
        target_light=_mirror_light(sample.target_light),
        crop=_mirror_window(sample.crop),
        guide_crop=_mirror_window(sample.guide_crop),
    )


def _mirror_light(light: tuple[float, ...]) -> tuple[float, ...]:
    return (mirror_azimuth(light[0]), *light[1:])


def _mirror_window(window: Window) -> Window:
    top, left, height, width = window
    return (top, 1.0 - left - width, height, width)


def resized_depth(depth: Depth, size: tuple[int, int]) -> Depth:
    """Depth ``(H, W)`` at another ``(height, width)``, as `ltnet_pl.geometry.resampled`, contiguous.

    Example:
        >>> resized_depth(np.array([[2.0, 2.0, 4.0, 4.0]], dtype=np.float32), (1, 2))
        array([[2., 4.]], dtype=float32)
    """
    return np.ascontiguousarray(resampled(torch.tensor(depth)[None, None], size)[0, 0].numpy())


def with_frame_depth(sample: Sample, longer_side: int) -> Sample:
    """The sample with `frame_depth` taken from its depth, which must still be that of the whole frame; never enlarged."""
    return replace(sample, frame_depth=resized_depth(sample.depth, size_within(sample.depth.shape, longer_side)))


class Exposure(A.ImageOnlyTransform):  # type: ignore[misc] # albumentations ships no types
    """Multiplies linear light by one factor, the same for all channels and for all images of the call.

    Args:
        stops: Largest change in stops (powers of two), either way; drawn evenly.
        p: Probability.
    """

    def __init__(self, stops: float, p: float) -> None:
        super().__init__(p=p)
        self.stops = stops

    def get_params(self) -> dict[str, Any]:
        """Draw the factor, as a table over the 256 values of a channel."""
        return {"table": exposure_table(self.py_random.uniform(-self.stops, self.stops))}

    def apply(self, img: Image, table: Image, **params: Any) -> Image:
        """Look every value up."""
        return np.asarray(cv2.LUT(img, table), dtype=np.uint8)


def exposure_table(stops: float) -> Image:
    """Where each of the 256 display values goes when linear light is multiplied by ``2 ** stops``; brightest values clip.

    Example:
        >>> exposure_table(0.0)[[0, 100, 255]]
        array([  0, 100, 255], dtype=uint8)
    """
    encoded = linear_to_srgb(srgb_to_linear(np.arange(256) / 255) * 2.0**stops)
    table: Image = np.round(255 * np.minimum(encoded, 1.0)).astype(np.uint8)
    return table


class Augment:
    """All random changes of a training sample, in the order in which a camera would make them.

    Args:
        settings: How often and how strongly.
        crop: Side of the square window in pixels; input, target and depth share one, the guide has its own. None: whole frames.
        frame_size: Longer side of the whole frame's low-resolution depth, in pixels.
    """

    def __init__(self, settings: AugmentSettings, crop: int | None, frame_size: int) -> None:
        self.settings, self.frame_size = settings, frame_size
        s = settings
        self._crop = None
        if crop is not None:
            # the frames are at least as large as the window (checked at setup), so nothing is ever padded
            window = A.RandomCrop(crop, crop)
            self._crop = A.Compose([window], additional_targets=_PIXELS, is_check_shapes=False, save_applied_params=True)
        self._expose = A.Compose([Exposure(s.jitter_stops, p=s.jitter)], additional_targets={"target": "image"})
        self._degrade = A.Compose(
            [
                A.GaussNoise(std_range=(0.0, s.noise_std), p=s.noise),
                A.ImageCompression(quality_range=(s.jpeg_quality, 95), p=s.jpeg),
            ]
        )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A changed sample with `frame_depth`; the same generator state gives the same sample."""
        s = self.settings
        if rng.random() < s.mirror:
            sample = mirror(sample)
        if rng.random() < s.depth:
            sample = replace(sample, depth=degrade_depth(sample.depth, s, rng))
        if sample.guide_depth is not None and rng.random() < s.depth:
            sample = replace(sample, guide_depth=degrade_depth(sample.guide_depth, s, rng))
        # before the crop: an occluder may stand outside of it
        sample = with_frame_depth(sample, self.frame_size)
        return self._photometric(self._window(sample, rng), rng)

    def _window(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """One window for input, target and depth, another for the guide and its depth."""
        if self._crop is None:
            return sample
        cut, crop = _cut(self._crop, sample, {"image": "input", "target": "target", "depth": "depth"}, rng)
        sample = replace(sample, **cut, crop=crop)
        if sample.guide is not None:
            cut, crop = _cut(self._crop, sample, {"image": "guide", "guide_depth": "guide_depth"}, rng)
            sample = replace(sample, **cut, guide_crop=crop)
        return sample

    def _photometric(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Exposure of input and target together and of the guide alone, then noise and JPEG on the input."""
        images = {"image": sample.input} | ({} if sample.target is None else {"target": sample.target})
        _reseed(self._expose, rng)
        exposed = self._expose(**images)
        _reseed(self._degrade, rng)
        sample = replace(sample, input=self._degrade(image=exposed["image"])["image"], target=exposed.get("target"))
        if sample.guide is not None:
            _reseed(self._expose, rng)
            sample = replace(sample, guide=self._expose(image=sample.guide)["image"])
        return sample


def _cut(compose: A.Compose, sample: Sample, keys: dict[str, str], rng: np.random.Generator) -> tuple[dict[str, Any], Window]:
    """What a random crop leaves of some of a sample's frames, by field name, and its window."""
    frames = {key: getattr(sample, name) for key, name in keys.items() if getattr(sample, name) is not None}
    _reseed(compose, rng)
    out = compose(**frames)
    (_, params), *_ = out["applied_transforms"]
    left, top, right, bottom = params["crop_coords"]
    height, width = frames["image"].shape[:2]
    window = (top / height, left / width, (bottom - top) / height, (right - left) / width)
    return {keys[key]: out[key] for key in frames}, window


def _reseed(compose: A.Compose, rng: np.random.Generator) -> None:
    """Give every transform a seed of its own from the sample's generator.

    ``Compose.set_random_seed`` gives all of them the same one, and noise would come exactly when JPEG comes.
    """
    for transform, seed in zip(compose.transforms, rng.integers(2**32, size=len(compose.transforms)), strict=True):
        transform.set_random_seed(int(seed))


def degrade_depth(depth: Depth, settings: AugmentSettings, rng: np.random.Generator) -> Depth:
    """Depth as an estimator would give it: of another scale, blurred over silhouettes, noisy, with holes; always finite.

    The background (0) stays where it is and never bleeds into the scene: the blur averages scene pixels alone.

    Args:
        depth: Whole frame, ``(H, W)`` float32.
        settings: Strengths; each is drawn between nothing and its setting.
        rng: Where all randomness comes from.

    Returns:
        A new array of the same shape, larger than 0 in the scene outside of holes.
    """
    height, width = depth.shape
    valid = depth > 0
    out = depth * np.float32(settings.depth_scale ** rng.uniform(-1, 1))
    sigma = height * settings.depth_blur * rng.random()
    if sigma > 0.3:  # below it, the kernel is one pixel
        weight = _blur(valid.astype(np.float32), sigma)
        out = np.where(valid, _blur(out, sigma) / np.maximum(weight, 1e-6), np.float32(0))
    noise = rng.standard_normal(depth.shape, dtype=np.float32) * np.float32(settings.depth_noise * rng.random())
    out = out * np.maximum(1 + noise, np.float32(0.1))  # a large setting may not turn the scene inside out
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    for _ in range(rng.integers(settings.depth_holes + 1)):
        y, x = rng.random(2) * (height, width)
        ry, rx = rng.uniform(0.01, 1 / 16, 2) * (height, width)
        out[((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2 < 1] = 0
    return out if out.any() else depth  # holes may have taken all of a nearly empty depth


def _blur(image: Depth, sigma: float) -> Depth:
    """Gaussian blur of one channel, cut off at three standard deviations, with replicated borders."""
    # not albumentations' own: it draws its kernel at random and is made for values up to 1
    side = 2 * math.ceil(3 * sigma) + 1
    return np.asarray(cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REPLICATE), dtype=np.float32)
