"""The batch contract of docs/design.md as a check, and helpers for batches and tensors."""

from __future__ import annotations

import scenes
import torch

from ltnet_pl.light import Light


def first(loader):
    return next(iter(loader))


def equal(a, b):
    keys_match = a.keys() == b.keys() and a["name"] == b["name"]
    return keys_match and all(torch.equal(a[k].nan_to_num(-1), b[k].nan_to_num(-1)) for k in a if k != "name")


def check_contract(batch, height, width, frame, guide, target=True):
    """Every key of the contract: shape, type, range; returns the number of samples."""
    n = len(batch["name"])
    expected = {
        "input": (n, 3, height, width),
        "depth": (n, 1, height, width),
        "frame_depth": (n, 1, *frame),
        "input_light": (n, 2),
        "target_light": (n, 2),
        "crop": (n, 4),
        "camera": (n, 2),
        "rig": (n, 2),
    }
    if "chance" in batch:
        expected["chance"] = (n, 2)
        assert 0 <= batch["chance"].min() < batch["chance"].max() < 1
    if target:
        expected["target"] = (n, 3, height, width)
    if guide:
        expected |= {"guide": (n, 3, height, width), "guide_depth": (n, 1, height, width), "guide_crop": (n, 4)}
    assert {key: tuple(value.shape) for key, value in batch.items() if key != "name"} == expected
    assert all(isinstance(name, str) for name in batch["name"])
    assert {value.dtype for key, value in batch.items() if key != "name"} == {torch.float32}
    for key in {"input", "target", "guide"} & batch.keys():
        assert 0 <= batch[key].min() < batch[key].max() <= 1
    for key in {"depth", "guide_depth", "frame_depth"} & batch.keys():
        assert batch[key].isfinite().all()
        assert batch[key].min() >= 0
    for key in {"crop", "guide_crop"} & batch.keys():
        top, left, window_height, window_width = batch[key].unbind(1)
        assert (batch[key] >= 0).all()
        assert (top + window_height).max() <= 1 + 1e-6
        assert (left + window_width).max() <= 1 + 1e-6
    return n


def analytic(index, name, size=(64, 80)):
    """Image, depth, camera and rig tensors of an analytic scene under one light."""
    frame = scenes.trace(scenes.scene(5, index), size)
    camera, rig = frame.scene.camera, frame.scene.rig
    picture = torch.from_numpy(scenes.picture(frame, Light.from_name(name))).permute(2, 0, 1)[None].float() / 255
    depth = torch.from_numpy(scenes.stored_depth(frame))[None, None]
    return picture, depth, torch.tensor([[camera.fov, camera.pitch]]), torch.tensor([[rig.radius, rig.height]])
