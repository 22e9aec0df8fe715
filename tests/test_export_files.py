"""Whole networks through the command `export`: what a file computes at any size, what it says of itself, and what runs it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from nets_small import SMALL, awake, checkpoint
from PIL import Image

from ltnet_pl.cli import main
from ltnet_pl.export.plain import KINDS, example
from ltnet_pl.nets import LTNet
from ltnet_pl.weights import load_run, load_weights, save_weights

pytestmark = pytest.mark.slow  # tracing takes a minute or more

EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "examples" / "onnx_relight.py"
SIZES = ((33, 32), (90, 151), (96, 96), (257, 300), (520, 300))
CHEAP = {"camera_from": "assumed", "match": False}
"""What shortens the graph by most: without it all is there, and tracing takes three times as long."""


def written(folder, settings, *flags, to="onnx"):
    """The network of some settings, and the file that the command makes of it."""
    settings = {**SMALL, **settings}
    torch.manual_seed(0)
    path, out = folder / "run" / "checkpoints" / "best.ckpt", folder / f"net.{to}"
    checkpoint(awake(LTNet(**settings)), settings, path)
    assert main(["export", str(folder / "run"), str(out), "--to", to, *flags]) == 0
    return load_run(folder / "run"), out


def run_onnx(path, names, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {name: value.numpy() for name, value in zip(names, inputs, strict=True) if value is not None}
    return torch.from_numpy(session.run(None, given)[0])


@pytest.fixture(scope="module")
def direct(tmp_path_factory):
    """A network of field affine and its file for direct light; read only."""
    return written(tmp_path_factory.mktemp("direct"), CHEAP)


def test_a_file_takes_any_size_and_the_present_light_or_none(direct):
    net, path = direct
    plain = KINDS["direct"](net)
    for size in SIZES:
        image, depth, light, present = example("direct", size)
        for given, said in ((None, present), (torch.tensor([[10.0, 6000.0]]),) * 2):
            found = run_onnx(path, plain.names, (image, depth, light, given))
            with torch.no_grad():
                torch.testing.assert_close(found, plain(image, depth, light, said), rtol=0, atol=2e-3)
        for kelvin in (1800.0, 12000.0):
            inputs = (image, depth, torch.tensor([[250.0, kelvin]]), present)
            with torch.no_grad():
                torch.testing.assert_close(run_onnx(path, plain.names, inputs), plain(*inputs), rtol=0, atol=2e-3)
        assert found.min() >= 0
        assert found.max() <= 1


def test_a_file_says_what_it_is(direct, capsys):
    model = onnx.load(direct[1])
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["net"] == "LTNet"
    assert about["light"] == "direct"
    assert about["inputs"] == "image, depth, light, present"
    assert about["sides"] == "32-4096 pixels"
    assert about["temperatures"] == "2500-6500 K by the network, 1000-20000 K by black bodies"
    assert about["opset"] == "20"
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 20
    assert float(about["largest_difference"]) < 1e-2
    assert about["checked_sizes"].startswith("96x128, 128x128")


def test_the_example_runs_without_torch_and_without_us(direct, tmp_path):
    net, path = direct
    image, depth, light, present = example("direct", (90, 151))
    pixels = (image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    np.save(tmp_path / "depth.npy", depth[0, 0].numpy())
    files = [str(tmp_path / name) for name in ("photo.png", "depth.npy", "relit.png")]
    code = (
        "import runpy, sys; sys.modules['torch'] = None; sys.modules['ltnet_pl'] = None; "
        f"sys.argv = sys.argv[1:]; runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(EXAMPLE), str(path), *files, "250", "3800"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "relit.png") as opened:
        relit = np.asarray(opened).astype(float)
    with torch.no_grad():
        wanted = KINDS["direct"](net)(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255, depth, light, present)
    assert np.abs(relit - wanted[0].permute(1, 2, 0).numpy() * 255).max() <= 1


def test_a_guide_of_another_size(tmp_path):
    """The bilateral field too, and the oldest operators."""
    net, path = written(tmp_path, {**CHEAP, "field": "bilateral"}, "--light", "guide", "--opset", "18")
    plain = KINDS["guide"](net)
    for size, guide in (((90, 151), (64, 64)), ((300, 257), (33, 200))):
        inputs = example("guide", size, guide)
        with torch.no_grad():
            torch.testing.assert_close(run_onnx(path, plain.names, inputs), plain(*inputs), rtol=0, atol=2e-3)


def test_everything_at_once(tmp_path, capsys):
    """The light matched, and the camera estimated: the command's own comparison is the test."""
    written(tmp_path, {"fold": 3})
    out = capsys.readouterr().out
    assert "ONNX with operators of version 20" in out
    assert out.count("differs by at most") == 5


def test_torch_export(tmp_path):
    settings = {"light": "label", "label_dropout": 0.0, "camera_from": "assumed", "cues": "shading"}
    net, path = written(tmp_path, settings, to="torch")
    program = torch.export.load(path).module()
    for size in SIZES:
        inputs = example("direct", size, known=True)
        torch.testing.assert_close(program(*inputs), KINDS["direct"](net)(*inputs), rtol=0, atol=1e-5)


def test_torch_export_of_all_parts_of_weights_alone(tmp_path, capsys):
    """All that the default network has, out of a safetensors file, and how it was checked within the file."""
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in SMALL.items()}
    weights, path = tmp_path / "net.safetensors", tmp_path / "net.pt2"
    save_weights(weights, awake(LTNet(**SMALL)), {"class_path": "ltnet_pl.nets.LTNet", "init_args": settings})
    assert main(["export", str(weights), str(path), "--to", "torch"]) == 0
    assert capsys.readouterr().out.count("differs by at most") == 5
    files = {"ltnet_pl.json": ""}
    program = torch.export.load(path, extra_files=files).module()
    about = json.loads(files["ltnet_pl.json"])
    assert about["inputs"] == "image, depth, light, present"
    assert about["temperatures"].startswith("2500-6500 K by the network")
    assert 0 <= float(about["mean_difference"]) <= float(about["largest_difference"]) < 1e-2
    assert about["checked_sizes"] == "96x128, 128x128, 200x137, 256x256, 300x280"
    plain = KINDS["direct"](load_weights(weights))
    for kelvin in (3800.0, 9000.0):
        image, depth, _, present = example("direct", (90, 151))
        inputs = (image, depth, torch.tensor([[250.0, kelvin]]), present)
        torch.testing.assert_close(program(*inputs), plain(*inputs), rtol=0, atol=2e-3)
