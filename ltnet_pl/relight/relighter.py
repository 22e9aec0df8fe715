"""Relights images of any size by a trained network."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltnet_pl import InputError
from ltnet_pl.geometry import resampled, size_within
from ltnet_pl.light import Light, body_gain, clamp_temperature, decode, light_tensor, nearest_trained, to_display, to_linear
from ltnet_pl.nets import LTNet
from ltnet_pl.nets.fields import Window
from ltnet_pl.nets.scene import Reading, Scene, View
from ltnet_pl.weights import load

Image = NDArray[np.uint8] | NDArray[np.uint16]
Depth = NDArray[np.float32]

PRETRAINED = Path(__file__).parent / "ltnet.safetensors"
"""The weights in the package."""

WORKING_SIZE = 256
"""Longer side in pixels that the interaction works at, twice that of the pictures that the weights in the package saw."""

FRAME_SIZE = 256
"""Longer side in pixels of the depth that shadows are looked up in."""

STRIP = 128 * 1024
"""Pixels that the field is decoded for at a time: few enough that what a step leaves is still near when the next one needs it."""

HALO = 4
"""Rows beyond a strip that it must know: normals look two pixels around, the field's last layer one."""

KEPT = 4 * 1024 * 1024
"""Pixels up to which the geometry of the whole image is kept from one light to the next."""

SMALLEST = 16
"""Pixels that each side of an image must have."""

_DARK = 0.02  # display values: an image whose brightest hundredth is below shows no light


class Relighter:
    """Relights images by a trained LTNet: any size, 8 or 16 bits, one light after another.

    The network's interaction sees a reduced image; the light transfer field is decoded at the image's own resolution, where
    the cues of both lights are sharp, strip by strip, so that memory is bounded by the image itself and a strip.

    Args:
        net: The network.
        device: Where to compute, e.g. ``cpu`` or ``cuda``.
        working_size: Longer side in pixels that the interaction works at.

    Example:
        >>> relighter = Relighter.pretrained()
        >>> image = np.full((64, 96, 3), 128, np.uint8)
        >>> prepared = relighter.prepare(image, depth=np.ones((64, 96), np.float32))
        >>> prepared.relight(Light(azimuth=90, temperature=3500)).shape
        (64, 96, 3)
    """

    def __init__(self, net: LTNet, device: str = "cpu", working_size: int = WORKING_SIZE) -> None:
        if working_size < 16:
            raise InputError(f"working_size is {working_size}; expected 16 or more: raise it")
        try:
            self.device = torch.device(device)
            self.net = net.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"--device {device}: {error}; expected one that torch can use here, e.g. cpu") from error
        # what is told is believed, and the rest is read
        self.net.light = "label"
        self.working_size = working_size

    @classmethod
    def pretrained(cls, device: str = "cpu") -> Relighter:
        """With the weights in the package; nothing is downloaded. What they were trained on is in ``docs/model_card.md``."""
        return cls.from_run(PRETRAINED, device)

    @classmethod
    def from_run(cls, path: str | Path, device: str = "cpu") -> Relighter:
        """With the weights of a run folder, a checkpoint, or a safetensors file of ``export``.

        Raises:
            InputError: If there are none, or they are of another network than LTNet.
        """
        net = load(path)
        if not isinstance(net, LTNet):
            raise InputError(f"{path}: holds a {type(net).__name__}; expected an LTNet: relight by `predict` instead")
        return cls(net, device)

    @torch.inference_mode()
    def prepare(self, image: Image, depth: Depth | None = None, present: Light | None = None) -> Prepared:
        """Read an image, so that one light after another can be asked for.

        Args:
            image: ``(H, W, 3)``, uint8 or uint16, display-encoded.
            depth: ``(h, w)`` float32 of the same shape or, within a pixel, of the same aspect: planar, larger is farther, 0 is
                background, any scale; None: unknown, and nothing of the geometry is known then.
            present: The light that is there; None: read off the image.

        Raises:
            InputError: If shape or type is none of those, depth is negative or not finite, or the image is too dark to read.
        """
        _check_image(image, "image")
        if present is None:
            _check_light(image, "image")
        height, width = image.shape[:2]
        small = self._tensor(_reduced(image, self.working_size))
        whole = torch.zeros(1, 1, height, width) if depth is None else _checked_depth(depth, (height, width))
        whole = whole.to(self.device)
        batch = self._unknown() | {
            "input": small,
            "depth": resampled(whole, (small.shape[-2], small.shape[-1])),
            "frame_depth": resampled(whole, size_within(whole.shape[-2:], FRAME_SIZE)),
            "input_light": self._unknown()["target_light"] if present is None else self._lights(clamp_temperature(present)),
        }
        scene = self.net.prepare(batch)
        return Prepared(self, image, whole, scene, _as_read(scene.present.code) if present is None else present)

    @torch.inference_mode()
    def read(self, guide: Image, depth: Depth | None = None) -> Light:
        """The light of an image, as the light stream reads it: azimuth and temperature.

        Raises:
            InputError: As `prepare`.
        """
        return _as_read(self._of_guide(guide, depth).code)

    def _of_guide(self, guide: Image, depth: Depth | None) -> Reading:
        _check_image(guide, "guide")
        _check_light(guide, "guide")
        small = self._tensor(_reduced(guide, self.working_size))
        size = (small.shape[-2], small.shape[-1])
        # a depth of zeros is how a guide without depth reaches the network in training too
        near = torch.zeros(1, 1, *size) if depth is None else resampled(_checked_depth(depth, guide.shape[:2]), size)
        near = near.to(self.device)
        whole = {"guide_crop": self._unknown()["crop"], "guide": small, "guide_depth": near}
        return self.net.wanted(self._unknown() | whole | {"input": small, "depth": near})

    def _unknown(self) -> dict[str, Tensor]:
        """The parts of a batch of one that no photograph tells."""
        nan = torch.full((1, 2), math.nan, device=self.device)
        crop = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=self.device)
        return {"crop": crop, "camera": nan, "rig": nan, "target_light": nan}

    def _lights(self, light: Light) -> Tensor:
        return light_tensor([light]).to(self.device)

    def _tensor(self, image: Image) -> Tensor:
        """An image as ``(1, 3, H, W)`` in [0, 1]."""
        full = float(np.iinfo(image.dtype).max)
        # torch has no arithmetic on 16 bits without a sign, and wants what may be written to
        plain = image.dtype == np.uint8 and image.flags.writeable
        values = np.ascontiguousarray(image) if plain else image.astype(np.uint8 if image.dtype == np.uint8 else np.int32)
        whole = torch.from_numpy(values).to(self.device)
        return (whole.permute(2, 0, 1)[None].float() / full).contiguous()


@dataclass
class Prepared:
    """An image that is ready for one light after another; `Relighter.prepare` makes it.

    Args:
        relighter: What made it.
        image: ``(H, W, 3)``, uint8 or uint16.
        depth: ``(1, 1, H, W)``, zeros where unknown.
        scene: What the network keeps of it.
        present: The light that is there, as given or read.
    """

    relighter: Relighter
    image: Image
    depth: Tensor
    scene: Scene
    present: Light
    _views: dict[int, View] = field(default_factory=dict, repr=False)

    @torch.inference_mode()
    def relight(self, light: Light, strength: float = 1.0) -> Image:
        """The image under another light.

        Args:
            light: The wanted light. Outside 2500-6500 K, which is what networks are trained on, the network brings the nearer
                end, and the ratio of the two black bodies' colours does the rest, with a warning.
            strength: Share of the change that is made, 0 (none) to 1 (all).

        Returns:
            ``(H, W, 3)`` of the image's type.

        Raises:
            InputError: If the strength is outside its range.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            known = clamp_temperature(light)
        rest = None
        if caught:
            warnings.warn(
                f"colour temperature {light.temperature:g} K is outside the trained range 2500-6500 K; the network brings "
                f"{known.temperature:g} K, and the ratio of black bodies the rest",
                stacklevel=2,
            )
            ends = (torch.tensor([light.temperature], dtype=torch.float64) for light in (light, known))
            rest = body_gain(*ends)[0].float().to(self.relighter.device)[:, None, None]
        batch = self.relighter._unknown() | {"input": self.scene.view.image, "target_light": self.relighter._lights(known)}
        return self._relit(self.relighter.net.wanted(batch), strength, rest)

    @torch.inference_mode()
    def relight_by(self, guide: Image, guide_depth: Depth | None = None, strength: float = 1.0) -> Image:
        """The image under the light of another image.

        Args:
            guide: ``(h, w, 3)``, uint8 or uint16, of any size.
            guide_depth: Its depth; None: unknown, which makes the reading of the direction worse.
            strength: Share of the change that is made, 0 to 1.

        Raises:
            InputError: As `Relighter.prepare`.
        """
        return self._relit(self.relighter._of_guide(guide, guide_depth), strength, None)

    def _relit(self, wanted: Reading, strength: float, rest: Tensor | None) -> Image:
        if not 0.0 <= strength <= 1.0:
            raise InputError(f"--strength {strength:g}: expected 0 (no change) to 1 (all of it); correct it")
        net, scene, tensor = self.relighter.net, self.scene, self.relighter._tensor
        shadow = net.shadow(scene, wanted)
        coarse = net.look(scene, wanted, scene.view, shadow)
        features = net.interact(scene, wanted, *coarse)
        full = np.iinfo(self.image.dtype).max
        result = np.empty_like(self.image)
        for strip in strips(self.image.shape[0], self.image.shape[1]):
            here = self.image[strip.top : strip.bottom]
            if here.shape[:2] == scene.view.image.shape[-2:]:
                seen, window = coarse, None
            else:
                seen, window = net.look(scene, wanted, self._view(strip), shadow), strip.window(self.image.shape[0])
            relit = net.decode(scene, wanted, features, *seen, window)[0][0]
            if rest is not None:
                relit = to_display(to_linear(relit.clamp(0, 1)) * rest)
            if strength < 1:
                relit = torch.lerp(tensor(here)[0], relit, strength)
            kept = relit.clamp(0, 1)[:, strip.first - strip.top : strip.last - strip.top]
            whole = (kept * float(full)).round().permute(1, 2, 0).to(torch.int32).cpu().numpy()
            result[strip.first : strip.last] = whole.astype(result.dtype)
        return result

    def _view(self, strip: Strip) -> View:
        """What no wanted light changes of a strip, kept where the image is small."""
        view = self._views.get(strip.first)
        if view is None:
            image = self.relighter._tensor(self.image[strip.top : strip.bottom])
            depth = self.depth[..., strip.top : strip.bottom, :]
            window = strip.window(self.image.shape[0])
            view = self.relighter.net.view(self.scene, image, depth, window)
            if self.image.shape[0] * self.image.shape[1] <= KEPT:
                self._views[strip.first] = view
        return view


@dataclass(frozen=True)
class Strip:
    """Rows that are decoded together: ``first`` to ``last`` are kept of ``top`` to ``bottom``."""

    first: int
    last: int
    top: int
    bottom: int

    def window(self, height: int) -> Window:
        """Its place in an image of so many rows: top, left, height, width as fractions."""
        return (self.top / height, 0.0, (self.bottom - self.top) / height, 1.0)


def strips(height: int, width: int, pixels: int | None = None) -> Iterator[Strip]:
    """Strips that cover an image, each with what its edges must know of the neighbours'.

    Args:
        height: Rows of the image.
        width: Columns.
        pixels: Pixels of a strip, about; None: `STRIP`.
    """
    # a strip of fewer rows would mostly be halo
    rows = max(2 * HALO, (STRIP if pixels is None else pixels) // width)
    for first in range(0, height, rows):
        last = min(first + rows, height)
        yield Strip(first, last, max(0, first - HALO), min(height, last + HALO))


def _as_read(code: Tensor) -> Light:
    """The light of a code that was read; rounding does not take it out of the trained range."""
    azimuth, kelvin = decode(code)[0].tolist()
    return Light(azimuth, nearest_trained(kelvin))


def _reduced(image: Image, side: int) -> Image:
    height, width = size_within(image.shape[:2], side, least=8)
    if (height, width) == image.shape[:2]:
        return image
    reduced: Any = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return reduced  # type: ignore[no-any-return] # the image's own type, which cv2's stubs do not say


def _check_image(image: Image, name: str) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{name} has shape {image.shape} and type {image.dtype}; expected (H, W, 3) of uint8 or uint16")
    if min(image.shape[:2]) < SMALLEST:
        raise InputError(f"{name} has {image.shape[0]} x {image.shape[1]} pixels; expected {SMALLEST} or more along each side")


def _check_light(image: Image, name: str) -> None:
    """Refuse an image that no light can be read off."""
    small = _reduced(image, 256)
    brightest = float(np.percentile(small.max(axis=2), 99)) / np.iinfo(image.dtype).max
    if brightest < _DARK:
        raise InputError(
            f"{name} is black (its brightest hundredth reaches {100 * brightest:.1f} % of white); expected one with a light to "
            "read: give another, or say the light itself"
        )


def _checked_depth(depth: Depth, size: tuple[int, ...]) -> Tensor:
    """A depth ``(1, 1, H, W)`` at an image's size."""
    if depth.ndim != 2 or not np.isfinite(depth).all() or depth.min() < 0:
        raise InputError(f"depth has shape {depth.shape}; expected (h, w) of finite numbers, 0 (background) or more")
    height, width = size
    off = abs(depth.shape[0] * width - depth.shape[1] * height)
    if off > max(height, width, *depth.shape):
        raise InputError(
            f"depth has {depth.shape[0]} x {depth.shape[1]} pixels and the image {height} x {width} (height x width); expected "
            "the same aspect: give the depth of the whole image"
        )
    whole = torch.from_numpy(np.array(depth, dtype=np.float32))[None, None]
    return resampled(whole, (height, width))
