"""Depth estimated from the photograph alone, by a monocular model of the `transformers` library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ltnet_pl import InputError

DEPTH_MODEL = "depth-anything/Depth-Anything-V2-Small-hf"
"""Apache-2.0, 25 M parameters; fetched from the hub once, then read from its cache."""

FARTHEST = 8.0
"""How many times as far as its nearest point an estimated scene reaches.

The models say inverse depth up to an unknown factor and an unknown shift. The factor cancels; the shift decides how deep the
scene is, and is set so that the farthest hundredth is this many times as far as the nearest."""


def estimate_depth(pixels: NDArray[Any], model: str = DEPTH_MODEL, device: str = "cpu") -> NDArray[np.float32]:
    """Planar depth of a photograph, up to scale: larger is farther. No background is claimed.

    Args:
        pixels: ``(H, W, 3)``, uint8 or uint16.
        model: An id of the hub, or a folder that holds a model of relative depth.
        device: Where to compute.

    Returns:
        ``(H, W)`` float32, from 1 (nearest) to `FARTHEST`.

    Raises:
        InputError: If the extra is missing, or the model is neither here nor to be had.
    """
    try:
        import transformers
    except ImportError as error:
        raise InputError("--depth estimate needs the extra photo; pip install 'ltnet_pl[photo]', or give a depth file") from error
    eight = pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)
    processor, network = _loaded(transformers, model)
    inputs = processor(images=eight, return_tensors="pt").to(device)
    with torch.inference_mode():
        found = network.to(device).eval()(**inputs).predicted_depth
    size = pixels.shape[:2]
    whole = torch.nn.functional.interpolate(found[:, None].float(), size=size, mode="bicubic", align_corners=False)
    return from_inverse(whole[0, 0].cpu().numpy())


def from_inverse(relative: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth from 1 to `FARTHEST` out of relative inverse depth (larger is nearer), whatever its factor and shift.

    Args:
        relative: ``(H, W)``.

    Raises:
        InputError: If it is not finite.
    """
    if not np.isfinite(relative).all():
        raise InputError("the depth model returned numbers that are not finite; expected a model of relative depth: use another")
    low, high = np.percentile(relative, (1, 99))
    # a flat answer is a wall
    share = np.clip((relative - low) / (high - low), 0, 1) if high > low else np.ones_like(relative)
    return np.asarray(1 / (1 / FARTHEST + (1 - 1 / FARTHEST) * share), dtype=np.float32)


def _loaded(transformers: Any, model: str) -> tuple[Any, Any]:
    """A model's image processor and network, from a folder, the hub's cache, or the hub."""
    # in this order a run without a network does not wait for one
    tries = [True] if Path(model).is_dir() or os.environ.get("HF_HUB_OFFLINE") == "1" else [True, False]
    reasons = []
    for local in tries:
        try:
            # the processor that needs no torchvision
            processor = transformers.AutoImageProcessor.from_pretrained(model, local_files_only=local, backend="pil")
            return processor, transformers.AutoModelForDepthEstimation.from_pretrained(model, local_files_only=local)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reasons.append(" ".join(str(error).split())[:200])
    raise InputError(
        f"--depth_model {model}: could not be loaded ({reasons[-1]}); expected a folder with a depth model, or a network that "
        f"reaches the hub: fetch it once with `hf download {model}`, name a folder, or give a depth file"
    )
