"""Scores a network: label light, guide light, identity, and the readings of its light stream, all on stored pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ltnet_pl import InputError
from ltnet_pl.bench.configs import Config, build_data
from ltnet_pl.data import AnyToAnyDataModule
from ltnet_pl.data.base import RelightDataModule
from ltnet_pl.data.datasets import PairDataset
from ltnet_pl.files import atomic_write
from ltnet_pl.light import TEMPERATURES, angular_distance, decode, mired
from ltnet_pl.metrics import RelightMetrics, psnr, quantize
from ltnet_pl.vidit import Pair

TEST_PAIRS = 20
"""Pairs per test scene."""

IDENTITY_PAIRS = 4
"""Pairs per test scene that ask for the light that is there."""

CAP = 60.0
"""PSNR in dB at which that of an identity pair is cut: a perfect one would be infinite, and so would the mean."""

READINGS = "readings.json"

Batch = dict[str, Any]


class Lists(NamedTuple):
    """The data that is scored on, set up."""

    test: RelightDataModule
    identity: RelightDataModule | None

    def pairs(self) -> list[list[Pair]]:
        """The pair lists."""
        return [_pairs(data) for data in self if data is not None]

    @property
    def guided(self) -> bool:
        """Whether the test pairs have guides."""
        return self.pairs()[0][0].guide is not None


class Readings(NamedTuple):
    """What a light stream read on the test pairs.

    Args:
        input: Light tensor ``(N, 2)`` of the inputs, in their order.
        guide: The same of the guides.
        code: Hash of the code that trained the light stream; None where it is not known.
    """

    input: Tensor
    guide: Tensor
    code: str | None = None


def write_readings(run: Path, readings: Readings, config: str, data: str) -> None:
    """Keep readings in a run folder, with the hashes of what they depend on.

    Networks without a light stream are then scored by them at any time, whatever becomes of the code.
    """
    lights = {"input": readings.input.tolist(), "guide": readings.guide.tolist()}
    content = {"config": config, "data": data, "code": readings.code} | lights
    with atomic_write(run / READINGS) as file:
        file.write(json.dumps(content).encode())


def read_readings(run: Path, config: str, data: str) -> Readings | None:
    """The readings of a run folder; None where there are none of this configuration and data."""
    try:
        content = json.loads((run / READINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{run / READINGS}: {error}; expected what bench wrote: delete it") from error
    if (content["config"], content["data"]) != (config, data):
        return None
    # files of before the code was kept do not say it
    return Readings(torch.tensor(content["input"]), torch.tensor(content["guide"]), content.get("code"))


def lists_of(config: Config) -> Lists:
    """The test pairs and the identity pairs of a configuration's data."""
    data = config["data"]
    if data["class_path"].rpartition(".")[2] != AnyToAnyDataModule.__name__:
        return Lists(_ready(build_data(config, test_split="test", num_workers=0)), None)
    common = {"num_workers": 0, "pairs_seed": 0}
    test = build_data(config, test_split="test", pairs_per_scene=TEST_PAIRS, **common)
    identity = build_data(config, test_split="identity", pairs_per_scene=IDENTITY_PAIRS, **common)
    return Lists(_ready(test), _ready(identity))


def _ready(data: Any) -> RelightDataModule:
    assert isinstance(data, RelightDataModule)
    data.setup("test")
    return data


def _pairs(data: RelightDataModule) -> list[Pair]:
    dataset = data.datasets[data.test_split]
    assert isinstance(dataset, PairDataset)  # a list, not training samples
    return dataset.pairs


def has_light_stream(net: nn.Module | type) -> bool:
    """Whether a network reads lights itself: it then has ``read_light``, and ``light`` chooses ``guide`` or ``label``."""
    return hasattr(net, "read_light")


def ask(net: Any, light: str) -> None:
    """Have a network with a light stream take lights from the ``guide``, or from the ``label`` wherever it is known."""
    if has_light_stream(net):
        net.light = light


@torch.inference_mode()
def score(
    net: nn.Module, lists: Lists, metrics: RelightMetrics, stream: Readings | None
) -> tuple[dict[str, Any], Readings | None]:
    """All scores of a network.

    Args:
        net: The network, on the device that scores.
        lists: What to score on.
        metrics: The metrics; used from empty.
        stream: Readings of the frozen light stream, by which a network that trains none of its own relights from guides; None
            for one that does.

    Returns:
        ``label``, ``guide``, ``identity``, ``readings`` (metrics by name), ``per_scene`` (means by scene for label and guide),
        and the readings of the network's own light stream, None where it has none or there are no guides. ``guide`` is absent
        where there are no guides, ``identity`` where there is no such list.
    """
    net.eval()
    own = has_light_stream(net) and stream is None
    label, scenes, _ = _relight(net, lists.test, metrics, "label", None)
    scores: dict[str, Any] = {"label": label, "per_scene": {"label": scenes}}
    readings = None
    if lists.guided and (own or stream is not None):
        guide, scenes, readings = _relight(net, lists.test, metrics, "guide" if own else "label", stream)
        scores["guide"] = guide
        scores["per_scene"]["guide"] = scenes
        if readings is not None:
            scores["readings"] = judged(readings, lists.test)
    if lists.identity is not None:
        scores["identity"] = _identity(net, lists.identity)
    return scores, readings


def _batches(net: nn.Module, data: RelightDataModule) -> Iterator[Batch]:
    device = next((tensor.device for tensor in (*net.parameters(), *net.buffers())), torch.device("cpu"))
    for batch in data.test_dataloader():
        yield {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}


def _relight(
    net: nn.Module, data: RelightDataModule, metrics: RelightMetrics, light: str, stream: Readings | None
) -> tuple[dict[str, float], dict[str, list[float]], Readings | None]:
    """Means over images, means by scene, and what was read."""
    ask(net, light)
    metrics.reset()
    values: list[dict[str, Tensor]] = []
    codes: list[tuple[Tensor, Tensor]] = []
    at = 0
    for batch in _batches(net, data):
        asked = batch
        if stream is not None:
            span = slice(at, at + len(batch["name"]))
            read = {"input_light": stream.input[span], "target_light": stream.guide[span]}
            asked = batch | {key: value.to(batch["input"].device) for key, value in read.items()}
        out = net(asked)
        values.append(metrics.update(out["relit"].float(), batch["target"], batch["input_light"], batch["target_light"]))
        if light == "guide":
            codes.append((decode(out["input_code"].float()).cpu(), decode(out["guide_code"].float()).cpu()))
        at += len(batch["name"])
    means = {key: _short(value) for key, value in metrics.compute().items()}
    metrics.reset()
    scenes = {
        key: [_short(mean) for mean in scene_means(torch.cat([value[key].cpu().double() for value in values]), data)]
        for key in values[0]
    }
    inputs, guides = zip(*codes, strict=True) if codes else ((), ())
    readings = Readings(torch.cat(inputs), torch.cat(guides)) if codes else None
    return means, scenes, readings


def scene_means(values: Tensor, data: RelightDataModule) -> list[float]:
    """Means of values ``(N,)`` of the test pairs over the pairs of each scene, by the names of the scenes."""
    by_scene: dict[str, list[int]] = {}
    for i, pair in enumerate(_pairs(data)):
        by_scene.setdefault(pair.input.scene, []).append(i)
    return [values[by_scene[scene]].mean().item() for scene in sorted(by_scene)]


def _identity(net: nn.Module, data: RelightDataModule) -> dict[str, float]:
    """Asked, by label, for the light that is there: PSNR of the output against the input, each image's cut at `CAP`."""
    ask(net, "label")
    found = [psnr(quantize(net(batch)["relit"].float()), quantize(batch["input"])).cpu() for batch in _batches(net, data)]
    values = torch.cat(found).double()
    return {"psnr": _short(values.clamp(max=CAP).mean()), "capped": int((values >= CAP).sum()), "pairs": len(values)}


def judged(readings: Readings, data: RelightDataModule) -> dict[str, float]:
    """How well lights were read, over inputs and guides alike.

    Args:
        readings: What was read.
        data: The pairs that it was read on.

    Returns:
        ``direction``: share whose nearest of the eight directions is right; ``within_45``: share off by at most one of them;
        ``temperature``: share whose nearest of the five temperatures, in mired, is right; ``mired``: median error.
    """
    truth = torch.cat([_lights(data, "input"), _lights(data, "target")])
    read = torch.cat([readings.input, readings.guide]).cpu()
    steps = angular_distance((read[:, 0] / 45).round() * 45, (truth[:, 0] / 45).round() * 45)
    kinds = mired(torch.tensor([float(t) for t in TEMPERATURES]))
    nearest = [(mired(light[:, 1:]) - kinds).abs().argmin(dim=1) for light in (read, truth)]
    return {
        "direction": _short((steps < 1).double().mean()),
        "within_45": _short((steps < 46).double().mean()),
        "temperature": _short((nearest[0] == nearest[1]).double().mean()),
        "mired": _short((mired(read[:, 1]) - mired(truth[:, 1])).abs().double().quantile(0.5)),
        "count": len(read),
    }


def _lights(data: RelightDataModule, which: str) -> Tensor:
    """True lights ``(N, 2)`` of inputs or of targets."""
    lights = [pair.input.light if which == "input" else pair.target_light for pair in _pairs(data)]
    return torch.tensor([light.row()[:2] for light in lights if light is not None], dtype=torch.float32)


def _short(value: Tensor | float) -> float:
    """Four digits after the point: more would be noise in files that are kept."""
    return round(float(value), 4)
