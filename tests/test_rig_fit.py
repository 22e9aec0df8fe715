"""Rig and cameras from how the light moves: the arithmetic first, then known rigs, then the command and its mistakes."""

import math
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
import scenes
import torch
import yaml
from scipy.optimize import nnls

from ltnet_pl.cli import main
from ltnet_pl.light import DIRECTIONS, Camera, Light, Rig, light_tensor, srgb_to_linear
from ltnet_pl.rig_fit import Fit, SceneFit, explain, fit, observe
from ltnet_pl.rig_fit.job import configuration, doubts
from ltnet_pl.rig_fit.search import _eliminated, _explained, _jackknife, _Model, _move, residuals
from ltnet_pl.vidit import find_settings

RIG = Rig(1.3, 0.7)
TURNED = dict(zip(DIRECTIONS, DIRECTIONS[2:] + DIRECTIONS[:2], strict=True))


def write(root, count=3, rig=RIG, size=(64, 64), kelvins=(6500,), directions=DIRECTIONS, named=None):
    """Analytic scenes that stand on one rig; ``named`` gives directions a wrong name."""
    for i in range(count):
        scene = replace(scenes.scene(0, i), rig=rig)
        frame = scenes.trace(scene, size)
        scenes.write_depth(root / f"{scene.name}.npy", scenes.stored_depth(frame))
        for kelvin in kelvins:
            for direction in directions:
                image = scenes.picture(frame, Light.from_name(f"{kelvin}_{direction}"))
                scenes.write_image(root / f"{scene.name}_{kelvin}_{(named or {}).get(direction, direction)}.png", image)
    return root


def observed(root, size=32):
    return [observe(views.values(), size) for views in find_settings(root).values()]


def state(camera, rig):
    """What the search varies, for a camera and a rig."""
    reach, elevation = math.hypot(rig.radius, rig.height), math.degrees(math.atan2(rig.height, rig.radius))
    return torch.tensor([camera.fov, camera.pitch, math.log(reach), elevation])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three scenes on `RIG`; read only."""
    return write(tmp_path_factory.mktemp("rig"))


# ---- the arithmetic


def test_explain_is_least_squares_without_negative_numbers():
    rng = np.random.default_rng(0)
    brightness, weight = rng.uniform(0, 2, (6, 200)), rng.integers(0, 2, (6, 200)).astype(float)
    weight[:3] = 1
    computed = rng.uniform(0, 3, (2, 6, 200))
    found = explain(*(torch.tensor(x) for x in (brightness, computed, weight))).numpy()
    bound = 0
    for guess in range(2):
        for pixel in range(200):
            root_weight = np.sqrt(weight[:, pixel])
            terms = np.stack([computed[guess, :, pixel], np.ones(6)], axis=1)
            (slope, offset), _ = nnls(terms * root_weight[:, None], brightness[:, pixel] * root_weight)
            bound += slope == 0 or offset == 0
            expected = brightness[:, pixel] - slope * computed[guess, :, pixel] - offset
            np.testing.assert_allclose(found[guess, :, pixel], expected, atol=1e-6)
    assert 50 < bound < 350  # both bounds and the inside were met


def test_the_step_is_that_of_the_whole_problem():
    """Cameras eliminated scene by scene give the step that one large system for all of them gives; so does the jackknife."""
    rng = torch.Generator().manual_seed(0)
    models = []
    for _ in range(4):
        root_matrix = torch.randn(4, 6, generator=rng, dtype=torch.float64)
        models.append(_Model(1.0, torch.randn(4, generator=rng, dtype=torch.float64), root_matrix @ root_matrix.T))

    def whole(some):
        matrix, side = torch.zeros(2 * len(some) + 2, 2 * len(some) + 2).double(), torch.zeros(2 * len(some) + 2).double()
        for i, model in enumerate(some):
            at = torch.tensor([2 * i, 2 * i + 1, 2 * len(some), 2 * len(some) + 1])
            matrix[at[:, None], at] += model.curvature
            side[at] -= model.gradient
        return torch.linalg.solve(matrix, side)

    step, expected = _move(models, 0.0), whole(models)
    torch.testing.assert_close(step[:, :2].flatten().double(), expected[:8], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(step[2].double()[2:], expected[8:], rtol=1e-5, atol=1e-6)
    matrices, sides, _, _ = _eliminated(models, 0.0)
    for k in range(4):
        without = torch.linalg.solve(matrices.sum(dim=0) - matrices[k], sides.sum(dim=0) - sides[k])
        torch.testing.assert_close(without, whole([m for i, m in enumerate(models) if i != k])[-2:])


def test_the_standard_error_of_a_mean_is_its_spread_over_the_root_of_the_count():
    """Scenes that each draw the rig to a place of their own: the jackknife of a mean is known in closed form."""
    elevations = [-3.0, 1.0, 2.0, 4.0]
    curvature = torch.eye(4, dtype=torch.float64)
    models = [_Model(1.0, torch.tensor([0, 0, 0, -x], dtype=torch.float64), curvature) for x in elevations]
    small = torch.full((4,), 1e-3)
    radius, height = _jackknife(models, torch.tensor([50.0, 35.0, 0.0, 0.0]), small)
    expected = math.radians(1e-3 * np.std(elevations, ddof=1) / 2)
    assert height == pytest.approx(expected, rel=2e-3)
    assert radius < 1e-3 * height


# ---- what was seen


def test_brightness_is_linear_light_relative_to_its_pixel(root):
    scene = observed(root, size=64)[0]
    frame = scenes.trace(replace(scenes.scene(0, 0), rig=RIG), (64, 64))
    names = [f"6500_{direction}" for direction in sorted(DIRECTIONS)]
    torch.testing.assert_close(scene.lights, light_tensor([Light.from_name(name) for name in names]))
    pictures = np.stack([srgb_to_linear(scenes.picture(frame, Light.from_name(name)) / 255) for name in names])
    luminance = (pictures @ [0.2126, 0.7152, 0.0722])[:, ::2, ::2][:, scene.used.numpy()]
    weight = scene.weight.numpy()
    expected = luminance / np.sqrt((weight * luminance**2).sum(0) / weight.sum(0))
    np.testing.assert_allclose(scene.brightness, expected, rtol=1e-4)
    assert not scene.used[torch.from_numpy(frame.depth[::2, ::2] == 0)].any()
    assert weight.sum(0).min() >= 3


def test_what_may_be_clipped_counts_nothing(root, tmp_path):
    """Half of one picture is overexposed: those values have no weight, the same pixels go on under the other lights."""
    write(tmp_path, count=1)
    frame = scenes.trace(replace(scenes.scene(0, 0), rig=RIG), (64, 64))
    picture = scenes.picture(frame, Light.from_name("6500_E"))
    picture[:, 32:, 0] = 255
    scenes.write_image(tmp_path / "Image000_6500_E.png", picture)
    (scene,) = observed(tmp_path)
    east = int((scene.lights[:, 0] == 90).nonzero())
    right = (torch.arange(16) >= 8).expand(16, 16)[scene.used]
    assert not scene.weight[east, right].any()
    assert scene.weight[east, ~right].mean() > 0.9
    assert scene.weight[:, right].mean() > 0.8


def test_the_temperature_of_most_directions_is_taken_and_the_highest_of_equals(tmp_path):
    write(tmp_path / "a", count=1, size=(32, 32), kelvins=(2500, 5500))
    assert observed(tmp_path / "a")[0].lights[:, 1].unique().tolist() == [5500]
    (tmp_path / "a" / "Image000_5500_E.png").unlink()
    assert observed(tmp_path / "a")[0].lights[:, 1].unique().tolist() == [2500]


# ---- known rigs


def test_light_that_is_computed_is_explained_whole_and_noise_not_at_all(root):
    scene = observed(root)[0]
    truth = state(Camera(47, 30), Rig(1.0, 0.8))
    blank = replace(scene, brightness=torch.zeros_like(scene.brightness), weight=torch.ones_like(scene.weight))
    computed = _computed(blank, truth)
    lit = replace(blank, brightness=0.7 * computed + 0.2)
    assert residuals(lit, truth[None]).abs().max() < 1e-4
    assert _explained(lit, truth) > 0.9999
    noise = replace(blank, brightness=torch.rand(computed.shape))
    assert abs(_explained(noise, truth)) < 0.1


def _computed(scene, at):
    """The light that the search computes for a scene."""
    from ltnet_pl.geometry import cues

    camera, angle = at[None, :2], math.radians(float(at[3]))
    rig = float(at[2].exp()) * torch.tensor([[math.cos(angle), math.sin(angle)]])
    light = [cues(scene.depth, scene.depth, None, row[None], camera, rig, steps=16) for row in scene.lights]
    return torch.stack([x.prod(dim=1)[0, ::2, ::2][scene.used] for x in light])


# the shadows of steep light are short, a pixel or two, and say less: they explain 0.8995 to 0.906, by how a machine rounds
@pytest.mark.parametrize(("rig", "within", "explained"), [(RIG, 0.03, 0.9), (Rig(0.6, 1.1), 0.1, 0.89)])
def test_rig_and_cameras_of_closed_form_scenes_are_recovered(rig, within, explained, tmp_path):
    told = []
    found = fit(observed(write(tmp_path, rig=rig)), lambda passes, error: told.append((passes, error)))
    assert found.rig.radius == pytest.approx(rig.radius, rel=within)
    assert found.rig.height == pytest.approx(rig.height, rel=within)
    for i, scene in enumerate(found.scenes):
        assert scene.name == f"Image{i:03d}"
        assert scene.camera.fov == pytest.approx(scenes.scene(0, i).camera.fov, abs=3)
        assert scene.camera.pitch == pytest.approx(scenes.scene(0, i).camera.pitch, abs=3)
        assert scene.explained > explained
    assert found.settled
    assert max(found.error) < 0.1
    assert [passes for passes, _ in told] == list(range(1, len(told) + 1))
    assert len(doubts(found)) == 1  # few scenes, nothing else


def test_wrong_directions_are_not_explained(tmp_path):
    found = fit(observed(write(tmp_path, count=1, named=TURNED)))
    assert found.explained < 0.3
    assert "do not use this rig" in doubts(found)[0]


def test_doubts():
    scene = SceneFit("Image000", Camera(40, 30), 0.9)
    sound = Fit(Rig(), (0.01, 0.01), [scene] * 4, True)
    assert doubts(sound) == []
    (said,) = doubts(sound._replace(scenes=[scene] * 4 + [scene._replace(name="Image007", explained=0.4)]))
    assert "explained in Image007" in said
    (said,) = doubts(sound._replace(scenes=[scene._replace(explained=0.7)] * 4))
    assert "explains 70% of the change of light" in said
    assert "rough" in said
    (said, _) = doubts(sound._replace(scenes=[scene._replace(explained=0.4)] * 3))
    assert "explains only 40% of the change of light: do not use this rig" in said
    (said,) = doubts(sound._replace(settled=False))
    assert "did not come to rest" in said
    (said,) = doubts(sound._replace(scenes=[scene], error=None))
    assert said.startswith("1 scene only: expected 4 or more")


def test_the_camera_of_a_set_is_its_median():
    cameras = [Camera(40, 30), Camera(44, 70), Camera(60, 20)]
    found = Fit(Rig(1.2344, 0.5), None, [SceneFit("x", camera, 0.9) for camera in cameras], True)
    assert found.camera == Camera(44, 30)
    assert found.spread == pytest.approx((np.std([40, 44, 60]), np.std([30, 70, 20])))
    assert yaml.safe_load(configuration(found)) == {
        "model": {"net": {"init_args": {"rig": {"radius": 1.234, "height": 0.5}, "camera": {"fov": 44.0, "pitch": 30.0}}}}
    }


# ---- the command


@pytest.fixture(scope="module")
def fitted(root, tmp_path_factory):
    """What the command wrote about two scenes of the set, and what it printed."""
    out = tmp_path_factory.mktemp("fitted") / "rig.yaml"
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.setenv("COLUMNS", "160")
        assert main(["fit-rig", str(root), "--scenes", "2", "--size", "32", "--out", str(out)]) == 0
    return out, printed.getvalue()


def test_the_command_prints_scenes_rig_and_what_to_do(fitted):
    out, printed = fitted
    for expected in (
        "Image000",
        "Image002",
        "median ± spread",
        "rig: radius",
        "rig: {radius:",
        "2 scenes only",
        f"--config {out}",
    ):
        assert expected in printed
    assert "Image001" not in printed  # spread evenly: the first and the last


def test_the_written_file_is_a_config_that_gives_the_network_its_rig(fitted, pytestconfig):
    from ltnet_pl.experiment import RelightCLI, run

    out, _ = fitted
    written = yaml.safe_load(out.read_text())["model"]["net"]["init_args"]
    assert written["rig"]["radius"] == pytest.approx(RIG.radius, rel=0.1)
    assert written["rig"]["height"] == pytest.approx(RIG.height, rel=0.1)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RelightCLI, "_run_subcommand", lambda self, subcommand: None)
        base = str(pytestconfig.rootpath / "experiments" / "base.yaml")
        net = run("fit", ["--config", base, "--config", str(out), "--trainer.accelerator=cpu"]).model.net
    assert net.rig == Rig(**written["rig"])
    assert net.camera == Camera(**written["camera"])


def test_an_output_that_exists_is_refused_before_anything_is_read(fitted, capsys):
    out, _ = fitted
    before = out.read_bytes()
    assert main(["fit-rig", "nowhere", "--out", str(out)]) == 2
    assert f"--out {out} exists; expected a new file: name another, or remove it first" in capsys.readouterr().err
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--scenes", "0"], "--scenes 0: expected a whole number from 1"),
        (["--size", "8"], "--size 8: expected a whole number from 16 to 256"),
        (["--size", "512"], "--size 512: expected a whole number from 16 to 256"),
        (["--out", "no/such/folder/rig.yaml"], "its folder no/such/folder does not exist; create it first"),
    ],
)
def test_flags_out_of_range(flags, message, root, capsys):
    assert main(["fit-rig", str(root), *flags]) == 2
    assert message in capsys.readouterr().err


def remove_depth(root):
    (root / "Image000.npy").unlink()


def leave_two_directions(root):
    for path in root.glob("Image000_*.png"):
        if path.stem not in ("Image000_6500_E", "Image000_6500_N"):
            path.unlink()


def blacken(root):
    for path in root.glob("Image000_*.png"):
        scenes.write_image(path, np.zeros((32, 32, 3), np.uint8))


def overexpose(root):
    for path in root.glob("Image000_*.png"):
        scenes.write_image(path, np.full((32, 32, 3), 255, np.uint8))


def still(root):
    for path in root.glob("Image000_*.png"):
        path.write_bytes((root / "Image000_6500_E.png").read_bytes())


def shrink(root):
    scenes.write_image(root / "Image000_6500_N.png", np.full((16, 16, 3), 99, np.uint8))


def empty(root):
    for path in root.iterdir():
        path.unlink()


def one_light(root):
    for path in root.glob("*.png"):
        path.unlink()
    scenes.write_image(root / "Image000.png", np.full((32, 32, 3), 99, np.uint8))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (remove_depth, "Image000 has no depth; expected Image000.npy beside it or in a folder depth: add the depth"),
        (leave_two_directions, "Image000 is seen under 2 directions of 6500 K, its best temperature; expected 3 or more"),
        (blacken, "no pixel of Image000 that has depth is lit, and unclipped in 3 or more of its 8 pictures"),
        (overexpose, "no pixel of Image000 that has depth is lit, and unclipped in 3 or more of its 8 pictures"),
        (still, "the 8 pictures of Image000 are the same whatever the direction in their names; expected light that moves"),
        (shrink, "Image000_6500_N.png: is 16 x 16 (height x width), expected 32 x 32 as its partner"),
        (empty, "no VIDIT images; the folder is empty"),
        (one_light, "holds one image for each scene; expected each scene under several lights"),
    ],
)
def test_sets_that_cannot_be_fitted(harm, message, tmp_path, capsys):
    root = write(tmp_path / "set", count=2, size=(32, 32))
    harm(root)
    out = tmp_path / "rig.yaml"
    assert main(["fit-rig", str(root), "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_pairs_are_refused(tmp_path, capsys):
    scenes.write_pairs_layout(tmp_path, pairs=1, size=(16, 16))
    assert main(["fit-rig", str(tmp_path)]) == 2
    assert "holds pairs of images for each scene; expected each scene under several lights" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.render
def test_the_rig_of_a_rendered_set_is_recovered(tmp_path):
    """Light that bounces between surfaces is not computed: it draws the height down by a few percent."""
    pytest.importorskip("mitsuba", reason="needs the extra 'render' (Mitsuba 3)")
    flags = ["--scenes", "4", "--size", "64", "--samples", "16", "--variant", "scalar_rgb", "--rig.radius", "1.3"]
    assert main(["render", str(tmp_path / "set"), *flags, "--rig.height", "0.7"]) == 0
    assert main(["fit-rig", str(tmp_path / "set"), "--out", str(tmp_path / "rig.yaml")]) == 0
    rig = yaml.safe_load((tmp_path / "rig.yaml").read_text())["model"]["net"]["init_args"]["rig"]
    assert rig["radius"] == pytest.approx(1.3, rel=0.1)
    assert rig["height"] == pytest.approx(0.7, rel=0.1)
