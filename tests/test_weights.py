"""Networks out of runs and checkpoints, and into safetensors and back, without running what a file says."""

import json

import pytest
import torch
from nets_small import SMALL, awake, checkpoint
from safetensors import safe_open
from safetensors.torch import save_file

from ltnet_pl import InputError
from ltnet_pl.nets import LTNet
from ltnet_pl.weights import load_run, load_weights, save_weights

SPEC = {"class_path": "ltnet_pl.nets.LTNet", "init_args": {**{k: list(v) if k == "widths" else v for k, v in SMALL.items()}}}


@pytest.fixture
def net():
    return awake(LTNet(**SMALL))


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_run_gives_its_best_checkpoint_or_else_its_last(net, tmp_path):
    last = checkpoint(LTNet(**SMALL), SMALL, tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert not same(load_run(tmp_path / "run"), net)
    checkpoint(net, SMALL, tmp_path / "run" / "checkpoints" / "best.ckpt")
    loaded = load_run(tmp_path / "run")
    assert same(loaded, net)
    assert not loaded.training
    assert not same(load_run(last), net)


def test_missing_run_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: there is no .*nowhere; expected a run's folder, or a checkpoint"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"there is no .*best\.ckpt and no .*last\.ckpt"):
        load_run(tmp_path)


def test_weights_come_back_to_the_bit(net, tmp_path):
    path = tmp_path / "net.safetensors"
    save_weights(path, net, SPEC)
    loaded = load_weights(path)
    assert same(loaded, net)
    assert isinstance(loaded, LTNet)
    assert not loaded.training
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]


def test_half_takes_half_and_comes_back_in_32_bits(net, tmp_path):
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_weights(whole, net, SPEC)
    save_weights(half, net, SPEC, half=True)
    with safe_open(half, framework="pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118 # no mapping
    assert half.stat().st_size < 0.7 * whole.stat().st_size  # the names of the tensors weigh the same
    for key, value in load_weights(half).state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, net.state_dict()[key].half().float())


@pytest.mark.parametrize(
    "name", ["os.system", "torch.nn.Linear", "ltnet_pl.nets.ltnet.nn.Sequential", "ltnet_pl.netsx.LTNet", None]
)
def test_foreign_classes_are_refused(name, net, tmp_path):
    spec = {"class_path": name, "init_args": {}}
    with pytest.raises(InputError, match=r"expected one of ltnet_pl\.nets: it runs no other code"):
        save_weights(tmp_path / "a.safetensors", net, spec)
    save_file(net.state_dict(), tmp_path / "b.safetensors", {"ltnet_pl": json.dumps(spec)})
    with pytest.raises(InputError, match=r"expected one of ltnet_pl\.nets: it runs no other code"):
        load_weights(tmp_path / "b.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_classes_among_the_settings_are_refused(net, tmp_path):
    spec = {**SPEC, "init_args": {"camera": {"class_path": "subprocess.Popen", "init_args": {"args": "true"}}}}
    save_file(net.state_dict(), tmp_path / "b.safetensors", {"ltnet_pl": json.dumps(spec)})
    with pytest.raises(InputError, match="the settings of its network name a class"):
        load_weights(tmp_path / "b.safetensors")


def test_broken_missing_and_unsaid(net, tmp_path):
    with pytest.raises(InputError, match=r"none\.safetensors: is not there"):
        load_weights(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"broken\.safetensors: is broken or no safetensors file"):
        load_weights(tmp_path / "broken.safetensors")
    save_file(net.state_dict(), tmp_path / "unsaid.safetensors")
    with pytest.raises(InputError, match="does not say which network it holds"):
        load_weights(tmp_path / "unsaid.safetensors")
    save_weights(tmp_path / "other.safetensors", LTNet(**{**SMALL, "widths": (4, 8)}), SPEC)
    with pytest.raises(InputError, match="tensors do not fit its network"):
        load_weights(tmp_path / "other.safetensors")
