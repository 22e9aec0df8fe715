"""Weights out of runs and safetensors files."""

import json

import pytest
import torch
from nets_small import SMALL, awake
from safetensors.torch import load_file, save_file

from ltnet_pl import InputError
from ltnet_pl.nets import LTNet, UNet
from ltnet_pl.weights import checkpoint_of, load_run, load_weights, save_weights

SPEC = {"class_path": "ltnet_pl.nets.LTNet", "init_args": {**SMALL, "widths": list(SMALL["widths"]), "field": "bilateral"}}


@pytest.fixture
def net():
    return awake(LTNet(**SPEC["init_args"]))


@pytest.mark.parametrize("half", [False, True])
def test_weights_come_back(net, tmp_path, half):
    path = tmp_path / "w.safetensors"
    save_weights(path, net, SPEC, half=half)
    found = load_weights(path)
    assert type(found) is LTNet
    assert not found.training
    assert found.field.cues is True
    for key, value in net.state_dict().items():
        expected = value.half().float() if half else value
        assert torch.equal(found.state_dict()[key], expected), key
    assert path.stat().st_size < (2.2 if half else 4.2) * sum(p.numel() for p in net.state_dict().values()) + 20_000


def test_settings_that_are_objects_are_built(tmp_path):
    spec = {"class_path": "ltnet_pl.nets.LTNet", "init_args": {"widths": [8], "camera": {"fov": 40.0, "pitch": 20.0}}}
    from ltnet_pl.light import Camera

    save_weights(tmp_path / "w.safetensors", LTNet(widths=[8], camera=Camera(40.0, 20.0)), spec)
    assert load_weights(tmp_path / "w.safetensors").camera == Camera(40.0, 20.0)


def test_a_class_from_elsewhere_is_neither_written_nor_imported(net, tmp_path):
    evil = {"class_path": "os.system", "init_args": {"command": f"touch {tmp_path}/ran"}}
    with pytest.raises(InputError, match=r"holds a network of class os.system; expected one of ltnet_pl.nets"):
        save_weights(tmp_path / "w.safetensors", net, evil)
    save_file(net.state_dict(), tmp_path / "w.safetensors", {"ltnet_pl": json.dumps(evil)})
    with pytest.raises(InputError, match=r"w.safetensors: holds a network of class os.system"):
        load_weights(tmp_path / "w.safetensors")
    assert not (tmp_path / "ran").exists()


def test_files_that_do_not_fit_are_named(net, tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match=r"w.safetensors: is not there; expected what .*export RUN OUT --to safetensors"):
        load_weights(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"w.safetensors: is broken or no safetensors file"):
        load_weights(path)
    save_weights(path, net, SPEC)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"is broken or no safetensors file"):
        load_weights(path)
    path.write_bytes(whole)
    state = load_file(path)
    save_file(state, path)
    with pytest.raises(InputError, match=r"does not say which network it holds"):
        load_weights(path)
    spec = {**SPEC, "init_args": {**SPEC["init_args"], "widths": [8, 12, 20]}}
    save_file(state, path, {"ltnet_pl": json.dumps(spec)})
    with pytest.raises(InputError, match=r"w.safetensors: \d+ of \d+ tensors do not fit its network"):
        load_weights(path)
    save_file(state, path, {"ltnet_pl": json.dumps({**SPEC, "init_args": {"widths": []}})})
    with pytest.raises(InputError, match=r"its network ltnet_pl.nets.LTNet cannot be built here"):
        load_weights(path)


def test_a_run_gives_its_best_and_else_its_last(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match=r"run: there is no .*best.ckpt and no .*last.ckpt; expected a run's folder"):
        load_run(tmp_path / "run")
    (folder / "last.ckpt").touch()
    assert checkpoint_of(tmp_path / "run") == folder / "last.ckpt"
    (folder / "best.ckpt").touch()
    assert checkpoint_of(tmp_path / "run") == folder / "best.ckpt"
    assert checkpoint_of(folder / "last.ckpt") == folder / "last.ckpt"


def test_the_network_of_a_checkpoint(tmp_path):
    net = UNet(widths=[8, 12])
    spec = {"class_path": "ltnet_pl.nets.UNet", "init_args": {"widths": [8, 12]}}
    content = {
        "state_dict": {f"net.{key}": value for key, value in net.state_dict().items()},
        "hyper_parameters": {"net": spec},
        "ltnet_pl": {"net": "UNet"},
        "pytorch-lightning_version": "2.6.6",
    }
    torch.save(content, tmp_path / "last.ckpt")
    found = load_run(tmp_path / "last.ckpt")
    assert type(found) is UNet
    for key, value in net.state_dict().items():
        assert torch.equal(found.state_dict()[key], value)
