"""LPIPS, the learned perceptual distance: three small trunks, their weights' files, and the distance.

The trunks (AlexNet, VGG16, SqueezeNet 1.1) are written here with torchvision's parameter names, so that its published files load
without torchvision. The linear weights on top (version 0.1) ship with torchmetrics. Trunk weights are never downloaded: they come
from a path, from the environment variable ``LTNET_LPIPS_WEIGHTS``, or from torch's hub cache. Numbers of different trunks are not
comparable, so every result carries its trunk's label.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ltnet_pl import InputError

ENVIRONMENT = "LTNET_LPIPS_WEIGHTS"
"""Environment variable that names a file of trunk weights."""

_SHIFT = (-0.030, -0.088, -0.188)  # of images in [-1, 1]; both lines are part of LPIPS, not ImageNet's usual ones
_SCALE = (0.458, 0.448, 0.450)
_NORM_EPS = 1e-8  # below every live feature's squared length; keeps the gradient finite where all features of a pixel are 0


class Fire(nn.Module):
    """SqueezeNet's block: squeeze by 1x1, expand by 1x1 and 3x3 side by side.

    Args:
        inputs: Channels that come in.
        squeeze: Channels between.
        expand: Channels of each of the two expansions; twice as many come out.
    """

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, inputs, h, w)`` to ``(B, 2 * expand, h, w)``, not negative."""
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], dim=1)


def _alexnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for stage, (depth, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]):
        if stage:
            layers.append(nn.MaxPool2d(2, 2))
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
    return nn.Sequential(*layers)


def _squeezenet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    )


@dataclass(frozen=True)
class Trunk:
    """One of the networks whose features LPIPS compares.

    Args:
        name: Short name, as in metric keys and in torchmetrics' files.
        label: Name for people.
        build: Makes the feature layers, numbered as torchvision's ``features``, with random weights.
        taps: Layers after which the features are compared.
        min_side: Smallest height and width in pixels that passes all layers.
        hub_file: Name of torchvision's file in torch's hub cache.
    """

    name: str
    label: str
    build: Callable[[], nn.Sequential]
    taps: tuple[int, ...]
    min_side: int
    hub_file: str

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names (``"0.weight"``, ...) and shapes of the feature layers' parameters."""
        with torch.device("meta"):
            return {key: tuple(value.shape) for key, value in self.build().state_dict().items()}


TRUNKS = {
    trunk.name: trunk
    for trunk in (
        Trunk("alex", "AlexNet", _alexnet, (1, 4, 7, 9, 11), 31, "alexnet-owt-7be5be79.pth"),
        Trunk("vgg", "VGG16", _vgg16, (3, 8, 15, 22, 29), 16, "vgg16-397923af.pth"),
        Trunk("squeeze", "SqueezeNet", _squeezenet, (1, 4, 7, 9, 10, 11, 12), 17, "squeezenet1_1-b8a52dc0.pth"),
    )
}
"""The three trunks by name, in the order in which the hub cache is searched (AlexNet is the field's convention)."""


@dataclass(frozen=True)
class Absent:
    """No trunk weights are at hand.

    Args:
        reason: One line that says why and how to provide them.
    """

    reason: str


def find_weights(path: str | Path | None = None, flag: str = "--metrics.lpips_weights") -> Path | Absent:
    """Where the trunk's weights are: the path given, else the environment variable, else torch's hub cache.

    Nothing is read yet and nothing is ever downloaded.

    Args:
        path: File that the user named, or None.
        flag: The flag by which they named it, for messages.

    Returns:
        The file, or why there is none.

    Raises:
        InputError: If the flag or the environment variable names something that is not a file.
    """
    named = [(flag, path), (f"environment variable {ENVIRONMENT}", os.environ.get(ENVIRONMENT))]
    for source, value in named:
        if value:
            file = Path(value).expanduser()
            if not file.is_file():
                found = "is a folder" if file.is_dir() else "does not exist"
                raise InputError(
                    f"{source}: {file} {found}; expected a file of AlexNet, VGG16 or SqueezeNet 1.1 weights "
                    "(torchvision's state dict, whole or features only); correct the path or leave it out"
                )
            return file
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    for trunk in TRUNKS.values():
        if (cache / trunk.hub_file).is_file():
            return cache / trunk.hub_file
    files = ", ".join(trunk.hub_file for trunk in TRUNKS.values())
    return Absent(
        f"no LPIPS trunk weights were found: name a file with {flag} or {ENVIRONMENT}, "
        f"or put one of {files} into the folder checkpoints of torch's hub cache"
    )


def load_trunk(path: str | Path) -> tuple[Trunk, nn.Sequential]:
    """Read a file of trunk weights; which trunk it is follows from the shapes in it.

    Args:
        path: torchvision's state dict: the whole classifier, or its features with keys ``"features.0.weight"`` or ``"0.weight"``.

    Returns:
        The trunk and its feature layers with those weights, in evaluation mode, float32, frozen.

    Raises:
        InputError: If the file cannot be read, holds other things than one of the three trunks, or values that are not finite.
    """
    state = _read(Path(path))
    features = {key.removeprefix("features."): value for key, value in state.items() if not key.startswith("classifier.")}
    found = {key: tuple(value.shape) for key, value in features.items()}
    for trunk in TRUNKS.values():
        if trunk.shapes() == found:
            broken = [key for key, value in features.items() if not bool(value.isfinite().all())]
            if broken:
                raise InputError(
                    f"{path}: weight {broken[0]} holds NaN or infinity; expected finite numbers; fetch the file again"
                )
            layers = trunk.build()
            layers.load_state_dict(features)
            return trunk, layers.float().eval().requires_grad_(False)
    raise InputError(
        f"{path}: not the weights of a trunk that LPIPS knows: {_difference(found)}; expected torchvision's AlexNet, VGG16 or "
        "SqueezeNet 1.1, whole or features only; name such a file"
    )


def _difference(found: Mapping[str, tuple[int, ...]]) -> str:
    """What a wrong file holds, said against the trunk that it resembles most."""
    if any(key.startswith("lin") for key in found):
        return "it holds LPIPS's linear weights, which are already at hand; the trunk's are missing"
    nearest = max(TRUNKS.values(), key=lambda trunk: len(trunk.shapes().items() & found.items()))
    wanted = nearest.shapes()
    if not wanted.items() & found.items():
        return f"it holds {len(found)} tensors, of which none fits, e.g. {', '.join(list(found)[:3]) or 'nothing'}"
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            have, want = found.get(key, "missing"), wanted.get(key, "nothing")
            return f"it resembles {nearest.label}, but {key} is {have} where {want} belongs"
    raise AssertionError("a file that equals a trunk is no wrong file")


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict's file, without running code from it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: cannot be read as weights ({first}); expected a file that torch.save wrote of a state dict; fetch it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise InputError(
            f"{path}: holds {type(state).__name__}, not a plain dictionary of tensors; expected torchvision's state dict of "
            "AlexNet, VGG16 or SqueezeNet 1.1; name such a file"
        )
    return state


def linear_weights(trunk: Trunk) -> list[Tensor]:
    """LPIPS's weights (version 0.1) on a trunk's features, as torchmetrics ships them.

    Returns:
        One tensor ``(1, C, 1, 1)`` per tap, not negative.

    Raises:
        InputError: If the installed torchmetrics lacks the file.
    """
    spec = importlib.util.find_spec("torchmetrics")
    folder = Path(spec.origin).parent if spec and spec.origin else Path("torchmetrics")
    path = folder / "functional" / "image" / "lpips_models" / f"{trunk.name}.pth"
    if not path.is_file():
        raise InputError(f"{path} is missing; expected the LPIPS weights that torchmetrics ships; install torchmetrics again")
    state = _read(path)
    return [state[f"lin{i}.model.1.weight"].float() for i in range(len(trunk.taps))]


class _Frozen:
    """Constant tensors and layers, kept once per device and precision and shared by all copies of their owner.

    Not a module on purpose: constants belong neither in checkpoints nor in parameter counts, weight averages or DDP's broadcasts.
    """

    def __init__(self, layers: nn.Sequential, linear: list[Tensor]) -> None:
        self._original = (layers, linear)
        self._placed: dict[tuple[torch.device, torch.dtype], tuple[nn.Sequential, list[Tensor]]] = {}

    def __deepcopy__(self, memo: dict[int, object]) -> _Frozen:
        return self

    def __getstate__(self) -> dict[str, object]:
        return {"_original": self._original, "_placed": {}}  # another process makes its own copies

    def at(self, device: torch.device, dtype: torch.dtype) -> tuple[nn.Sequential, list[Tensor]]:
        """Layers and weights on a device; a new copy, never moved in place, as an earlier graph may still need the old one."""
        key = (device, dtype)
        if key not in self._placed:
            layers, linear = self._original
            # the first call may come from a validation in inference mode, whose tensors no later backward pass could use
            with torch.inference_mode(False), torch.no_grad():
                placed = copy.deepcopy(layers).to(device, dtype), [weight.to(device, dtype) for weight in linear]
            self._placed[key] = placed
        return self._placed[key]


class LPIPS(nn.Module):
    r"""Learned perceptual image patch similarity (version 0.1), per image.

    .. math:: d(x, y) = \sum_l \frac{1}{h_l w_l} \sum_{ij} w_l^\top \left(\hat f_l(x) - \hat f_l(y)\right)_{ij}^2

    with :math:`\hat f_l` a trunk's features after tap l, scaled to unit length at each pixel. The constants follow the images to
    their device; they are no parameters and stay out of every state dict. TF32 convolutions, torch's default on GPUs that have
    them, move the values a little; for numbers to publish set ``torch.backends.cudnn.allow_tf32 = False`` or use the CPU.

    Args:
        weights: File of trunk weights, see `find_weights` and `load_trunk`.

    Attributes:
        trunk: ``"alex"``, ``"vgg"`` or ``"squeeze"``.
        label: The trunk's name for people, e.g. ``"SqueezeNet"``.

    Raises:
        InputError: If the file is not one of the three trunks'.

    Reference:
        Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018.
    """

    def __init__(self, weights: str | Path) -> None:
        super().__init__()
        self._trunk, layers = load_trunk(weights)
        self._frozen = _Frozen(layers, linear_weights(self._trunk))
        self.trunk = self._trunk.name
        self.label = self._trunk.label

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Distance of each pair of images.

        Args:
            pred: Images ``(B, 3, H, W)``, display-encoded, nominally in [0, 1]; gradients flow into both.
            target: Images of the same shape and range.

        Returns:
            Distances ``(B,)``, 0 for identical images; float64 for float64 images, otherwise computed in float32, also under
            autocast.

        Raises:
            ValueError: If the shapes differ or are not ``(B, 3, H, W)``.
            InputError: If the images are smaller than the trunk's layers allow.
        """
        if pred.shape != target.shape or pred.ndim != 4 or pred.shape[1] != 3:
            raise ValueError(
                f"LPIPS compares (B, 3, H, W) images of one shape, got {tuple(pred.shape)} and {tuple(target.shape)}"
            )
        if min(pred.shape[2:]) < self._trunk.min_side:
            raise InputError(
                f"LPIPS ({self.label}): images of {pred.shape[2]} x {pred.shape[3]} pixels; expected at least "
                f"{self._trunk.min_side} each way; use larger images or crops"
            )
        dtype = torch.float64 if torch.float64 in (pred.dtype, target.dtype) else torch.float32
        layers, linear = self._frozen.at(pred.device, dtype)
        with torch.autocast(pred.device.type, enabled=False):
            shift, scale = (pred.new_tensor(values, dtype=dtype).view(1, 3, 1, 1) for values in (_SHIFT, _SCALE))
            x = ((torch.cat([pred.to(dtype), target.to(dtype)]) * 2 - 1) - shift) / scale
            distance = x.new_zeros(len(pred))
            taps = iter(linear)
            for i, layer in enumerate(layers):
                x = layer(x)
                if i in self._trunk.taps:
                    unit = x * (x.square().sum(dim=1, keepdim=True) + _NORM_EPS).rsqrt()
                    first, second = unit.chunk(2)
                    distance = distance + ((first - second).square() * next(taps)).sum(dim=1).mean(dim=(1, 2))
        return distance
