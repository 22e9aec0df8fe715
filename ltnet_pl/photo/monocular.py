"""Depth from the photograph alone, by a network of the Depth Anything family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.geometry import resampled
from ltnet_pl.photo.pictures import Pixels, eight_bit

DEPTH_MODEL = "depth-anything/Depth-Anything-V2-Small-hf"
"""The network that is used unasked, by its name on the Hugging Face Hub; its weights are under the Apache licence."""

FARTHEST = 20.0
"""Depth of what is infinitely far to the network, where the nearest point of the picture has depth 1."""

_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
_MAX_ELONGATION = 4.0  # beyond, the network's own resizing makes pictures of no height, or of very many pixels
_TIMEOUT = 5.0  # seconds in which the hub must answer


class DepthEstimator:
    """A loaded network that sees depth in photographs.

    Only weights in the safe form are loaded, and no code that comes with a model is run. A folder is read without any network;
    so is a model of the hub that was fetched before.

    Args:
        model: Name of a model on the Hugging Face Hub, or a folder that holds one; of type Depth Anything.
        device: Device of torch that computes.

    Raises:
        InputError: If transformers is not installed, the model is neither a folder nor to be had, is incomplete, damaged or of
            another type, or the device is not there.
    """

    def __init__(self, model: str = DEPTH_MODEL, device: str = "cpu") -> None:
        try:
            import transformers
        except ImportError as error:
            raise InputError(
                "depth was to be estimated from the photograph (no depth was given), but transformers is not installed; expected "
                "the extra photo: pip install 'ltnet_pl[photo]', or give the depth's file"
            ) from error
        self.model, self.device = model, _device(device)
        folder = _folder(model)
        auto: Any = transformers  # half of its functions have types
        try:
            # as PIL resizes: the other way needs torchvision
            self._processor = auto.AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
            network, report = auto.AutoModelForDepthEstimation.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        # the library has no errors of its own: what a damaged file raises depends on where it is damaged
        except Exception as error:
            raise InputError(
                f"--depth_model {model}: cannot be loaded from {folder} ({_short(error)}); expected a whole model of the type "
                "Depth Anything: fetch its files again"
            ) from error
        kind = getattr(network.config, "model_type", None)
        said = getattr(network.config, "depth_estimation_type", None)
        if kind != "depth_anything" or said != "relative":
            raise InputError(
                f"--depth_model {model}: is of type {kind}, {said}; expected depth_anything, relative, whose convention of depth "
                f"is known: name another, for instance {DEPTH_MODEL}"
            )
        if report["missing_keys"]:  # the library would go on with random ones
            raise InputError(
                f"--depth_model {model}: lacks {len(report['missing_keys'])} of its network's weights (first: "
                f"{min(report['missing_keys'])}); expected all of them in {_FILES[-1]}: fetch its files again"
            )
        self._network = network.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Depth of a photograph.

        The network sees it at its own resolution, about 518 pixels on the shorter side, and its depth is brought to the photo's.
        What it gives is inverse depth up to scale and shift. With d its value over the largest one in the picture, depth is
        ``1 / (d + (1 - d) / 20)``: from 1 at the nearest point to 20 for what is infinitely far. A shift of inverse depth leaves
        planes plane. Nothing is 0: a network claims no background.

        Args:
            pixels: ``(H, W, 3)`` uint8 or uint16, display-encoded, upright.

        Returns:
            ``(H, W)`` float32 within [1, 20], planar depth up to scale; larger is farther.

        Raises:
            InputError: If the picture is longer than 4 times its shorter side, or the network finds no depth in it.
        """
        height, width = pixels.shape[:2]
        if max(height, width) > _MAX_ELONGATION * min(height, width):
            raise InputError(
                f"the photograph is {height} x {width} (height x width), and no depth can be estimated beyond "
                f"{_MAX_ELONGATION:g} : 1; expected a shorter one: cut it, or give the depth's file"
            )
        shown = self._processor(images=Image.fromarray(eight_bit(pixels)), return_tensors="pt")
        seen = self._network(pixel_values=shown["pixel_values"].to(self.device)).predicted_depth.float().cpu()
        nearest = seen.max()
        if not (torch.isfinite(seen).all() and nearest > 0):
            raise InputError(
                f"--depth_model {self.model}: finds no depth in the photograph (values from {seen.min():g} to {nearest:g}); "
                "expected one positive value at least: name another model, or give the depth's file"
            )
        part = seen.clamp(min=0) / nearest
        depth = 1 / (part + (1 - part) / FARTHEST)
        # a slope may lead the outermost pixels beyond what was seen
        whole = resampled(depth[:, None], (height, width)).clamp(1, FARTHEST)
        return np.ascontiguousarray(whole[0, 0].numpy(), dtype=np.float32)


def estimate_depth(pixels: Pixels, model: str = DEPTH_MODEL, device: str = "cpu") -> NDArray[np.float32]:
    """Depth of one photograph; `DepthEstimator` does it for several without loading its network anew.

    Args:
        pixels: ``(H, W, 3)`` uint8 or uint16, display-encoded, upright.
        model: Name of a model on the Hugging Face Hub, or a folder that holds one; of type Depth Anything.
        device: Device of torch that computes.

    Returns:
        ``(H, W)`` float32 within [1, 20], planar depth up to scale; larger is farther, nothing is background.

    Raises:
        InputError: As `DepthEstimator` and its call.
    """
    return DepthEstimator(model, device)(pixels)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise InputError(f"--device {name}: is not to be had ({_short(error)}); expected for instance cpu or cuda") from error
    return device


def _folder(model: str) -> Path:
    """The folder that holds a model's files, fetched where need be."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"--depth_model {model}: the folder lacks {', '.join(missing)}; expected {', '.join(_FILES)}: copy all of a "
                "model's files there"
            )
        return folder
    if folder.is_absolute() or model.count("/") != 1 or model.startswith((".", "~")):
        raise InputError(
            f"--depth_model {model}: no such folder; expected one that holds {', '.join(_FILES)}, or a name on the Hugging Face "
            f"Hub such as {DEPTH_MODEL}: correct it"
        )
    return _fetched(model)


def _fetched(model: str) -> Path:
    """The folder of a model of the hub: as it was fetched before, without asking the hub, else fetched now."""
    from huggingface_hub import get_session, hf_hub_download, hf_hub_url, try_to_load_from_cache

    try:
        kept = [try_to_load_from_cache(model, name) for name in _FILES]
        paths = [path for path in kept if isinstance(path, str)]
        if len(paths) < len(_FILES):
            # asked once before: the download itself tries again and again for half a minute
            get_session().head(hf_hub_url(model, _FILES[0]), timeout=_TIMEOUT)
            paths = [hf_hub_download(model, name, etag_timeout=_TIMEOUT) for name in _FILES]
    # names that the hub does not know, a missing network, a full disk: each library below has errors of its own
    except Exception as error:
        raise InputError(
            f"--depth_model {model}: its weights are not on this machine and cannot be fetched ({_short(error)}); expected a "
            "network that reaches huggingface.co: fetch them where there is one, and give their folder as --depth_model FOLDER, "
            "or give the depth's file"
        ) from error
    return Path(paths[-1]).parent


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
