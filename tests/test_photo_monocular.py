"""Depth from the photograph alone, with a tiny network of the true kind that the test saves on disk itself."""

import json
import shutil
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ltnet_pl import InputError
from ltnet_pl.photo import DEPTH_MODEL, FARTHEST, DepthEstimator, estimate_depth

transformers = pytest.importorskip("transformers")
PIXELS = np.random.default_rng(5).integers(0, 256, (70, 90, 3), dtype=np.uint8)


def tiny(folder, **settings):
    """A Depth Anything model of a few thousand random weights."""
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    backbone = transformers.Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=56,
        out_indices=[1, 2],
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
        **settings,
    )
    torch.manual_seed(1)
    network = transformers.DepthAnythingForDepthEstimation(config)
    torch.nn.init.constant_(network.head.conv3.bias, 0.05)  # or it might see nothing
    network.save_pretrained(folder)
    DPTImageProcessorPil(size={"height": 56, "width": 56}, ensure_multiple_of=14, keep_aspect_ratio=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def copied(model, tmp_path):
    """A model that the test may damage."""
    return shutil.copytree(model, tmp_path / "model")


def seeing(estimator, disparity):
    """The estimator with a network that sees what it is told."""
    given = torch.as_tensor(np.asarray(disparity, np.float32))[None]
    estimator._network = lambda pixel_values: SimpleNamespace(predicted_depth=given)
    return estimator


def test_depth_has_the_photos_size_and_its_range(model):
    depth = estimate_depth(PIXELS, str(model))
    assert depth.shape == (70, 90)
    assert depth.dtype == np.float32
    assert depth.min() >= 1
    assert depth.max() <= FARTHEST
    assert np.ptp(depth) > 0
    assert depth.flags.writeable
    assert depth.flags.c_contiguous
    assert np.array_equal(depth, estimate_depth(PIXELS, str(model)))


def test_it_is_what_the_network_says(model):
    """The same by hand: Depth Anything's own steps, and the formula of the docstring."""
    from PIL import Image

    network = transformers.DepthAnythingForDepthEstimation.from_pretrained(model).eval()
    # 70 x 90 at 56 rows is 56 x 72, and sides are multiples of 14
    shown = np.asarray(Image.fromarray(PIXELS).resize((70, 56), Image.Resampling.BICUBIC), np.float32) / 255
    with torch.inference_mode():
        seen = network(pixel_values=torch.from_numpy((shown - 0.5) / 0.5).permute(2, 0, 1)[None]).predicted_depth[0]
    part = (seen / seen.max()).numpy()
    expected = 1 / (part + (1 - part) / 20)
    depth = estimate_depth(PIXELS, str(model))
    assert seen.shape == (56, 70)
    # both at the middle of the picture, where pixel centres meet, and the whole by its quantiles
    steps = np.linspace(0.05, 0.95, 10)
    assert np.quantile(depth, steps) == pytest.approx(np.quantile(expected, steps), rel=0.02)
    rows, columns = np.arange(70) * 56 // 70, np.arange(90) * 70 // 90
    assert np.median(np.abs(depth / expected[rows[:, None], columns] - 1)) < 0.02


def test_planes_stay_planes_and_the_nearest_is_1(model):
    """Inverse depth that is linear in the pixel's place is a plane, whatever its shift."""
    v, u = np.mgrid[0:56, 0:70].astype(np.float32) + 0.5
    plane = 3 + 0.05 * v + 0.02 * u
    depth = seeing(DepthEstimator(str(model)), plane)(PIXELS[:56, :70])
    assert depth.min() == 1
    part = plane / plane.max()
    assert depth == pytest.approx(1 / (part + (1 - part) / 20), rel=1e-6)
    assert np.abs(np.diff(1 / depth, n=2, axis=0)).max() < 1e-6
    assert np.abs(np.diff(1 / depth, n=2, axis=1)).max() < 1e-6
    assert (np.diff(depth, axis=0) < 0).all()  # more inverse depth is nearer


def test_what_is_infinitely_far_is_no_background(model):
    disparity = np.zeros((56, 70))
    disparity[30:] = 8
    depth = seeing(DepthEstimator(str(model)), disparity)(PIXELS)
    assert depth[:30] == pytest.approx(FARTHEST)
    assert depth[45:] == pytest.approx(1)


@pytest.mark.parametrize("disparity", [np.zeros((56, 70)), np.full((56, 70), -1), np.full((56, 70), np.nan)])
def test_a_network_that_sees_nothing_is_named(model, disparity):
    with pytest.raises(InputError, match=r"--depth_model .*finds no depth in the photograph .*name another model, or give"):
        seeing(DepthEstimator(str(model)), disparity)(PIXELS)


def test_sixteen_bits_are_seen_as_eight(model):
    deep = PIXELS.astype(np.uint16) * 257
    assert np.array_equal(estimate_depth(deep, str(model)), estimate_depth(PIXELS, str(model)))


@pytest.mark.parametrize("size", [(64, 256), (256, 64)])
def test_long_pictures(model, size):
    estimator = DepthEstimator(str(model))
    assert estimator(np.resize(PIXELS, (*size, 3))).shape == size
    longer = tuple(side + (side == 256) for side in size)
    with pytest.raises(InputError, match=rf"is {longer[0]} x {longer[1]} .* 4 : 1; expected a shorter one: cut it, or give"):
        estimator(np.resize(PIXELS, (*longer, 3)))


def test_without_transformers_the_extra_is_named(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"transformers is not installed; .*pip install 'ltnet_pl\[photo\]', or give the depth"):
        estimate_depth(PIXELS, str(model))


def test_without_network_the_folder_is_named_at_once():
    start = time.monotonic()
    with pytest.raises(InputError) as raised:
        estimate_depth(PIXELS)
    assert time.monotonic() - start < 10
    message = str(raised.value)
    for part in (DEPTH_MODEL, "not on this machine and cannot be fetched", "--depth_model FOLDER", "or give the depth's file"):
        assert part in message


def test_a_model_that_was_fetched_before_needs_no_network(model, tmp_path, monkeypatch):
    from huggingface_hub import constants

    kept = tmp_path / "models--someone--tiny"
    shutil.copytree(model, kept / "snapshots" / "abc")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert np.array_equal(estimate_depth(PIXELS, "someone/tiny"), estimate_depth(PIXELS, str(model)))
    (kept / "snapshots" / "abc" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="--depth_model someone/tiny: its weights are not on this machine and cannot be fetched"):
        estimate_depth(PIXELS, "someone/tiny")


@pytest.mark.parametrize("name", ["/no/such/folder", "./folder", "folder", "a/b/c", "~/folder"])
def test_a_folder_that_is_not_there_is_named(name):
    with pytest.raises(
        InputError, match=rf"--depth_model {name}: no such folder; expected one that holds config\.json.*correct it"
    ):
        DepthEstimator(name)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(
        InputError, match=rf"--depth_model {copied}: the folder lacks {name}; .*copy all of a model's files there"
    ):
        DepthEstimator(str(copied))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_damaged_file_is_named(copied, name):
    whole = (copied / name).read_bytes()
    (copied / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"--depth_model {copied}: cannot be loaded from .*fetch its files again"):
        DepthEstimator(str(copied))


def test_weights_that_are_not_there_are_not_made_up(copied):
    from safetensors.torch import load_file, save_file

    weights = load_file(copied / "model.safetensors")
    del weights["head.conv3.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of its network's weights \(first: head\.conv3\.weight\); .*fetch its files"):
        DepthEstimator(str(copied))


def test_models_of_another_convention_are_refused(copied, tmp_path):
    metric = tiny(tmp_path / "metric", depth_estimation_type="metric", max_depth=20)
    with pytest.raises(InputError, match=r"is of type depth_anything, metric; expected depth_anything, relative.*name another"):
        DepthEstimator(str(metric))
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config["backbone_config"] | {"model_type": "dinov2"}))
    with pytest.raises(InputError, match=r"cannot be loaded from .*expected a whole model of the type Depth Anything"):
        DepthEstimator(str(copied))


@pytest.mark.parametrize("device", ["gpu", "cuda:77"])
def test_a_device_that_is_not_there_is_named(model, device):
    with pytest.raises(InputError, match=rf"--device {device}: is not to be had .*expected for instance cpu or cuda"):
        DepthEstimator(str(model), device)
