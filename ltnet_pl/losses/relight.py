"""The weighted sum of a relighting network's losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from ltnet_pl import InputError
from ltnet_pl.geometry import normals_from_depth
from ltnet_pl.light import Camera, encode
from ltnet_pl.losses.parts import (
    charbonnier_loss,
    gradient_loss,
    lab_loss,
    laplacian_loss,
    light_loss,
    residual_cosine_loss,
    residual_loss,
    smoothness_loss,
    ssim_loss,
)
from ltnet_pl.lpips import LPIPS, Absent, find_weights

Out = dict[str, Tensor]
Batch = dict[str, Any]


@dataclass(frozen=True)
class LossWeights:
    """Weight of each part of the loss. A part of weight 0 is neither built nor computed.

    Args:
        charbonnier: Smooth absolute difference of relit image and target.
        residual: Relative error of the change of light.
        residual_cosine: 1 - cosine between predicted and wanted change; 0.1 beside a residual of 1 is a good start.
        ssim: Structural dissimilarity, (1 - SSIM) / 2.
        laplacian: Difference of Laplacian pyramids.
        lab: Colour difference in CIELAB, in hundreds of delta E.
        perceptual: LPIPS; needs trunk weights (--metrics.lpips_weights).
        gradient: Difference of image edges.
        smoothness: Smoothness of the light transfer field away from edges of scene and light.
        cycle: Relit back to the input's light, the result should be the input; one more pass through the network.
        identity: Asked for its own light, the input should stay; one more pass through the network.
        light: The light stream should read the known lights of input and guide; about 0.1 for a network that has one.
        relit_light: The light stream should read the wanted light off the relit image; one more pass through the stream.

    Raises:
        InputError: If a weight is negative or not finite.
    """

    charbonnier: float = 1.0
    residual: float = 0.0
    residual_cosine: float = 0.0
    ssim: float = 0.0
    laplacian: float = 0.0
    lab: float = 0.0
    perceptual: float = 0.0
    gradient: float = 0.0
    smoothness: float = 0.0
    cycle: float = 0.0
    identity: float = 0.0
    light: float = 0.0  # a network needs to return a relit image only, unless asked for more
    relit_light: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(
                    f"loss weight {field.name} (--model.loss.{field.name}) is {value}; expected a finite number of at least 0; "
                    "0 switches the part off"
                )


class RelightLoss(nn.Module):
    """The weighted sum of a relighting network's losses.

    Args:
        weights: Weight of each part.
        lpips_weights: File of LPIPS trunk weights; None: the environment variable ``LTNET_LPIPS_WEIGHTS``, then torch's hub
            cache. Read only where the perceptual weight is not 0; it never enters a checkpoint.

    Attributes:
        weights: As given.

    Raises:
        InputError: If all weights are 0, or the perceptual one is not and there are no trunk weights.
    """

    def __init__(self, weights: LossWeights, lpips_weights: str | None = None) -> None:
        super().__init__()
        self.weights = weights
        if not any(getattr(weights, field.name) for field in fields(weights)):
            raise InputError(
                "all loss weights (--model.loss.*) are 0; expected at least one above 0, e.g. --model.loss.charbonnier 1"
            )
        self._lpips: LPIPS | None = None
        if weights.perceptual:
            found = find_weights(lpips_weights)
            if isinstance(found, Absent):
                raise InputError(f"--model.loss.perceptual is {weights.perceptual}, but {found.reason}; or set it to 0")
            self._lpips = LPIPS(found)

    @property
    def needs_cycle(self) -> bool:
        """Whether ``out["cycle"]`` is wanted: the relit image, relit back to the input's light."""
        return self.weights.cycle > 0

    @property
    def needs_identity(self) -> bool:
        """Whether ``out["identity"]`` is wanted: the input, asked for its own light."""
        return self.weights.identity > 0

    @property
    def needs_relit_code(self) -> bool:
        """Whether ``out["relit_code"]`` is wanted: what the light stream reads off the relit image."""
        return self.weights.relit_light > 0

    def forward(self, out: Out, batch: Batch) -> dict[str, Tensor]:
        """Every part of weight above 0, unweighted, by name, and ``loss``, their weighted sum.

        Args:
            out: What the network returned (``relit``; ``field`` for smoothness; ``input_code`` and, with a guide, ``guide_code``
                for light) and what the task added (``cycle``, `needs_cycle`; ``identity``, `needs_identity`; ``relit_code``,
                `needs_relit_code`).
            batch: The batch with ``input``, ``target``, ``depth``, ``crop``, ``input_light``, ``target_light``, as far as the
                parts need them.

        Returns:
            Scalars; ``loss`` is last.

        Raises:
            InputError: If a part lacks something of ``out`` or ``batch``.
        """
        parts: dict[str, Tensor] = {}
        for name, part in _PARTS.items():
            weight = getattr(self.weights, name)
            if weight:
                for source, keys, have in (("network's output", part.out, out), ("batch", part.batch, batch)):
                    for key in keys:
                        if key not in have:
                            raise InputError(
                                f"loss weight {name} (--model.loss.{name}) is {weight}, but the {source} has no {key!r}, only "
                                f"{', '.join(have)}; set the weight to 0, or use a network and data that provide it"
                            )
                parts[name] = part.compute(self, out, batch)
        loss = torch.stack([getattr(self.weights, name) * value for name, value in parts.items()]).sum()
        return {**parts, "loss": loss}

    def _perceptual(self, out: Out, batch: Batch) -> Tensor:
        """Mean LPIPS; the trunk was loaded since the weight is not 0."""
        assert self._lpips is not None
        distance: Tensor = self._lpips(out["relit"], batch["target"])
        return distance.mean()

    def _smoothness(self, out: Out, batch: Batch) -> Tensor:
        """Smoothness under an assumed camera: the true one is not the loss's to know, and normals hardly turn with it."""
        depth = batch["depth"]
        normals = normals_from_depth(depth, Camera().tensor(depth, len(depth)), batch["crop"])
        return smoothness_loss(out["field"], depth, normals, torch.stack([batch["input"], batch["target"]], dim=1))

    def _light(self, out: Out, batch: Batch) -> Tensor:
        """Mean over the readings that there are: of the input and, where the light came from a guide, of the guide."""
        losses = [light_loss(out["input_code"], encode(batch["input_light"]))]
        if "guide_code" in out:
            losses.append(light_loss(out["guide_code"], encode(batch["target_light"])))
        return torch.stack(losses).mean()

    def _relit_light(self, out: Out, batch: Batch) -> Tensor:
        """The relit image should show the wanted light."""
        return light_loss(out["relit_code"], encode(batch["target_light"]))


@dataclass(frozen=True)
class _Part:
    """What a part needs of the network's output and of the batch, and how it is computed."""

    out: tuple[str, ...]
    batch: tuple[str, ...]
    compute: Callable[[RelightLoss, Out, Batch], Tensor]


def _of_images(loss: Callable[..., Tensor], pred: str, *keys: str) -> _Part:
    """A part that is a function of images alone: one of the network's, then some of the batch."""
    return _Part((pred,), keys, lambda _, out, batch: loss(out[pred], *(batch[key] for key in keys)))


_PARTS = {
    "charbonnier": _of_images(charbonnier_loss, "relit", "target"),
    "residual": _of_images(residual_loss, "relit", "target", "input"),
    "residual_cosine": _of_images(residual_cosine_loss, "relit", "target", "input"),
    "ssim": _of_images(ssim_loss, "relit", "target"),
    "laplacian": _of_images(laplacian_loss, "relit", "target"),
    "lab": _of_images(lab_loss, "relit", "target"),
    "perceptual": _Part(("relit",), ("target",), RelightLoss._perceptual),
    "gradient": _of_images(gradient_loss, "relit", "target"),
    "smoothness": _Part(("field",), ("depth", "crop", "input", "target"), RelightLoss._smoothness),
    "cycle": _of_images(charbonnier_loss, "cycle", "input"),
    "identity": _of_images(charbonnier_loss, "identity", "input"),
    "light": _Part(("input_code",), ("input_light", "target_light"), RelightLoss._light),
    "relit_light": _Part(("relit_code",), ("target_light",), RelightLoss._relit_light),
}
