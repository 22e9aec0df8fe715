"""Export: sizes left open, ONNX forms of single functions, flags and refusals. Whole networks: see test_export_files.py."""

import onnxruntime
import pytest
import torch
from nets_small import SMALL, awake, checkpoint
from torch import nn
from torch.nn import functional

from ltnet_pl import InputError
from ltnet_pl.cli import main
from ltnet_pl.export import Direct, Guided, check, job
from ltnet_pl.export.operators import simplify, translations
from ltnet_pl.export.plain import example, scaled
from ltnet_pl.geometry import normals_from_depth, resampled, shadows, size_within, unproject, visibility
from ltnet_pl.light import Light, body_gain, to_display, to_linear
from ltnet_pl.nets import LTNet, UNet
from ltnet_pl.nets.areas import reduced
from ltnet_pl.relight import Relighter
from ltnet_pl.weights import load_run, load_weights

SIZES = ((40, 52), (65, 33), (192, 101), (96, 96), (33, 700))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a small network that nobody trained; read only."""
    folder = tmp_path_factory.mktemp("export") / "run"
    checkpoint(awake(LTNet(**SMALL)), SMALL, folder / "checkpoints" / "best.ckpt")
    return folder


def traced(function):
    """A function of one image as a program that is open in height and width."""

    class Module(nn.Module):
        def forward(self, x):
            return function(x)

    sides = {2: torch.export.Dim("height", min=32, max=4096), 3: torch.export.Dim("width", min=32, max=4096)}
    return torch.export.export(Module(), (torch.rand(1, 2, 200, 136),), dynamic_shapes={"x": sides}, strict=False)


def test_open_sizes_are_those_of_numbers():
    """All reductions, with every rounding that Python does, also where a half is rounded to even."""

    def sizes(x):
        return [x.new_zeros(size_within(x.shape[-2:], longer, least=8)) for longer in (16, 48, 64, 96)]

    program = traced(sizes).module()
    for height in (32, 50, 96, 101, 130, 191, 333, 1023):
        for width in (32, 77, 96, 100, 192, 256, 1024):
            x = torch.zeros(1, 2, height, width)
            assert [y.shape for y in program(x)] == [y.shape for y in sizes(x)], (height, width)


def test_means_over_areas_of_an_open_size():
    def areas(x):
        return reduced(x, size_within(x.shape[-2:], 32))

    program = traced(areas).module()
    for size in SIZES:
        x = torch.rand(1, 2, *size)
        wanted = functional.interpolate(x, size=size_within(size, 32), mode="area")
        torch.testing.assert_close(areas(x), wanted, rtol=0, atol=0)
        torch.testing.assert_close(program(x), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [5, 16, 40])
def test_steps_of_a_march_taken_together(steps, monkeypatch):
    """As an export takes them; the shadows are the same to the bit."""
    _, depth = example("direct", (60, 80))[:2]
    camera, light = torch.tensor([[50.0, 35.0]]), torch.tensor([[1.0, 0.5, -0.6]])
    given = (unproject(depth, camera), normals_from_depth(depth, camera), depth, light, camera)
    one_by_one = visibility(*given, steps=steps)
    monkeypatch.setattr(shadows, "is_open", lambda *lengths: True)
    assert one_by_one.min() < 0.5
    torch.testing.assert_close(visibility(*given, steps=steps), one_by_one, rtol=0, atol=0)


def test_onnx_forms_of_what_the_exporter_lacks(quiet):
    """Among them an addition far below 1e-8, which its optimiser would drop."""

    def all_of_them(x):
        open_number = torch.arange(x.shape[-1]) - (x.shape[-1] - 1) / 2
        order = (x * 5).round().flatten().argsort(stable=True)
        places = ((x > 0.8) * torch.arange(x.shape[-1])).cummax(dim=-1).values
        kept = x * 0 / (x.clamp(max=0) + 1e-10)
        return open_number, order, places, kept

    program = traced(all_of_them)
    made = torch.onnx.export(
        program, (), dynamo=True, opset_version=20, custom_translation_table=translations(), optimize=False, verbose=False
    )
    simplify(made.model)
    session = onnxruntime.InferenceSession(made.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for size in SIZES:
        x = torch.rand(1, 2, *size)
        for found, wanted in zip(session.run(None, {"x": x.numpy()}), all_of_them(x), strict=True):
            torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=0)


@pytest.fixture
def quiet():
    with job.quiet():
        yield


@pytest.mark.parametrize("field", ["affine", "bilateral"])
def test_plain_tensors_make_the_batch_of_predict(field):
    net = awake(LTNet(field=field, **SMALL))
    image, depth, light, present = example("direct", (100, 121))
    batch = {"input": image, "depth": depth, "camera": torch.full((1, 2), torch.nan), "rig": torch.full((1, 2), torch.nan)}
    batch |= {"frame_depth": resampled(depth, (79, 96)), "crop": torch.tensor([[0.0, 0.0, 1.0, 1.0]])}
    batch |= {"input_light": present, "target_light": light}
    with torch.no_grad():
        wanted = net(batch)["relit"].clamp(0, 1)
        torch.testing.assert_close(Direct(net)(image, depth, light, present), wanted, rtol=0, atol=0)
        # a present light that is known changes what a network does that was tested on readings
        assert not torch.equal(Direct(net)(image, depth, light, torch.tensor([[10.0, 6000.0]])), wanted)


@pytest.mark.parametrize("kelvin", [1500.0, 2500.0, 9000.0, 20000.0])
@pytest.mark.filterwarnings("ignore:colour temperature")
def test_beyond_the_trained_range_a_file_does_what_relight_does(kelvin):
    net = awake(LTNet(**SMALL))
    image, depth, _, _ = example("direct", (64, 80))
    pixels = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8)
    present = torch.tensor([[40.0, 5500.0]])
    with torch.no_grad():
        found = Direct(net)(pixels.permute(2, 0, 1)[None] / 255, depth, torch.tensor([[250.0, kelvin]]), present)
    wanted = Relighter(net).prepare(pixels.numpy(), depth[0, 0].numpy(), Light(40, 5500)).relight(Light(250, kelvin))
    assert (found[0].permute(1, 2, 0) * 255 - torch.from_numpy(wanted)).abs().max() <= 1


def test_temperatures_that_no_black_body_has_are_the_nearest():
    net = Direct(awake(LTNet(**SMALL)))
    image, depth, _, present = example("direct", (64, 80))
    with torch.no_grad():
        found = [net(image, depth, torch.tensor([[250.0, kelvin]]), present) for kelvin in (20000.0, 50000.0, 1000.0, 10.0)]
        light = torch.tensor([[250.0, 4000.0]])
        others = [net(image, depth, light, torch.tensor([[40.0, kelvin]])) for kelvin in (6500.0, 9000.0)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(*others)


def test_a_guide_may_lack_depth():
    net = Guided(awake(LTNet(**SMALL)))
    image, depth, guide, guide_depth, present = example("guide", (64, 96))
    with torch.no_grad():
        with_depth, without = (net(image, depth, guide, d, present) for d in (guide_depth, torch.zeros_like(guide_depth)))
    assert with_depth.isfinite().all()
    assert without.isfinite().all()
    assert not torch.equal(with_depth, without)


def test_guides_need_a_light_stream():
    with pytest.raises(InputError, match="--light guide needs a network that reads lights"):
        Guided(LTNet(**SMALL, light="label", label_dropout=0.0))


def test_other_networks_have_weights_alone():
    with pytest.raises(InputError, match="the run holds UNet; expected an LTNet: use --to safetensors"):
        Direct(UNet(widths=(4, 8)))


def differences(wrong):
    """Of a made network from a made file, at all sizes."""
    return check.compare(lambda x: x, lambda inputs: inputs[0] + wrong(inputs[0]), lambda size: (torch.zeros(1, 3, *size),))


def dotted(x, count):
    """A difference of 0.5 in so many pixels, one channel each."""
    out = torch.zeros_like(x)
    out[0, 1].view(-1)[:count] = 0.5
    return out


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: torch.full_like(x, 2e-4),
        lambda x: dotted(x, x[0, 0].numel() // 5000),
        lambda x: torch.full_like(x, float("nan")),
    ],
    ids=["all by a little", "one pixel of 5000 by much", "no number"],
)
def test_a_file_that_differs_is_refused(wrong):
    with pytest.raises(InputError, match=r"is not written, since at .* it differs from the network by"):
        check.refuse("a.onnx", differences(wrong))


def test_a_grazing_ray_refuses_no_file():
    found = differences(lambda x: dotted(x, 1) + 1e-6)
    assert all(one.most > 0.4 for one in found)
    check.refuse("a.onnx", found)


def test_nothing_is_left_of_a_refused_file(run, tmp_path, monkeypatch, capsys):
    def differs(*_):
        check.refuse("out.onnx", [check.Difference((96, 128), 0.3, 0.1, 0.9)])

    monkeypatch.setattr(job, "trace", lambda *_: None)
    monkeypatch.setattr(job, "onnx_file", differs)
    assert main(["export", str(run), str(tmp_path / "out.onnx")]) == 2
    assert "out.onnx: is not written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_weights_alone_are_a_run_too(run, tmp_path, monkeypatch, capsys):
    weights, seen = tmp_path / "net.safetensors", []
    assert main(["export", str(run), str(weights), "--to", "safetensors"]) == 0
    monkeypatch.setattr(job, "trace", lambda plain, light: seen.append(plain.net))
    monkeypatch.setattr(job, "onnx_file", lambda *_: b"a graph")
    monkeypatch.setattr(job, "torch_file", lambda *_: b"a program")
    assert main(["export", str(weights), str(tmp_path / "net.onnx")]) == 0
    assert main(["export", str(weights), str(tmp_path / "net.pt2"), "--to", "torch"]) == 0
    assert [(tmp_path / name).read_bytes() for name in ("net.onnx", "net.pt2")] == [b"a graph", b"a program"]
    state = load_run(run).state_dict()
    for net in seen:
        for key, value in net.state_dict().items():
            assert torch.equal(value, state[key])
    capsys.readouterr()
    assert main(["export", str(weights), str(tmp_path / "again.safetensors"), "--to", "safetensors"]) == 2
    assert "net.safetensors: is a safetensors file already; expected a run or a checkpoint" in capsys.readouterr().err
    assert main(["export", "x" * 300, str(tmp_path / "out.onnx")]) == 2
    assert "there is no" in capsys.readouterr().err


@pytest.mark.parametrize("half", [False, True])
def test_weights_alone(half, run, tmp_path, capsys):
    out = tmp_path / "net.safetensors"
    assert main(["export", str(run), str(out), "--to", "safetensors", *(["--half"] if half else [])]) == 0
    assert "net.safetensors: 0." in capsys.readouterr().out
    image, depth, light, present = example("direct", (64, 80))
    before, after = load_run(run), load_weights(out)
    with torch.no_grad():
        apart = (Direct(before)(image, depth, light, present) - Direct(after)(image, depth, light, present)).abs().max()
    assert 0 < apart < 0.02 if half else apart == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--light", "sun"], "sun"),
        (["--to", "jpeg"], "jpeg"),
        (["--opset", "9"], "--opset is 9; expected 18 to 23"),
        (["--half"], "--half is for --to safetensors, and --to is onnx"),
    ],
)
def test_flags_that_are_refused(flags, message, run, tmp_path, capsys):
    try:
        status = main(["export", str(run), str(tmp_path / "out.onnx"), *flags])
    except SystemExit as stop:  # the parser refuses a kind that it does not know
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_places_that_are_refused(run, tmp_path, capsys):
    def refused(out, *flags, source=run):
        assert main(["export", str(source), str(out), *flags]) == 2
        return capsys.readouterr().err

    there = tmp_path / "there.onnx"
    there.write_bytes(b"mine")
    assert "there.onnx: exists already; expected a new name: choose another, or give --overwrite true" in refused(there)
    assert there.read_bytes() == b"mine"
    assert "is a folder; expected the name of a file to write" in refused(tmp_path)
    assert "does not exist; create it first" in refused(tmp_path / "no" / "out.onnx")
    assert "nowhere: there is no" in refused(tmp_path / "out.onnx", source=tmp_path / "nowhere")


def test_missing_extra_is_named(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(job.importlib.util, "find_spec", lambda name: None)
    assert main(["export", str(run), str(tmp_path / "out.onnx")]) == 2
    assert "--to onnx needs onnx, which is not installed: pip install 'ltnet_pl[export]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kelvin", "most"), [(1000.0, 7e-3), (1500.0, 1e-3), (2000.0, 4.5e-3), (9000.0, 3e-4), (20000.0, 1.5e-3)]
)
def test_scaled_light_is_near_the_curves(kelvin, most):
    """For all values; a gain of 1 changes nothing."""
    image = torch.linspace(0, 1, 4001).expand(1, 3, 1, -1)
    ends = torch.tensor([min(max(kelvin, 2500.0), 6500.0)])
    gain = body_gain(torch.tensor([kelvin]), ends)[:, :, None, None]
    exact = to_display(to_linear(image) * gain).clamp(0, 1)
    assert (scaled(image, gain).clamp(0, 1) - exact).abs().max() < most
    torch.testing.assert_close(scaled(image, torch.ones_like(gain)), image, atol=1e-7, rtol=0)
