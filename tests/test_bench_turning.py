"""The light that turns: known answers of its numbers, the renderer's pictures against the set's own, and mistakes by name."""

import importlib.util
import json
import shutil
from pathlib import Path

import bench_runs
import numpy as np
import pytest
import torch
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.bench import bench, trained, turning
from ltnet_pl.bench.turning import Scores, flicker, neighbours, relight, summary
from ltnet_pl.light import SETTINGS, Light, Rig

needs_mitsuba = pytest.mark.skipif(importlib.util.find_spec("mitsuba") is None, reason="needs the extra 'render' (Mitsuba 3)")
EVERYWHERE = np.ones(24, bool)


# ---- numbers of the turning light


def test_flicker_of_known_sequences():
    constant = np.full((24, 2, 2), 0.3)
    assert flicker(constant, EVERYWHERE) == 0
    spike = np.zeros((24, 2, 2))
    spike[5] = 1
    # 1 on both sides of the spike, 2 at it
    assert flicker(spike, EVERYWHERE) == pytest.approx(4 / 24)
    wave = np.cos(np.radians(np.arange(0, 360, 15)))
    assert flicker(wave, EVERYWHERE) == pytest.approx(2 * (1 - np.cos(np.radians(15))) * np.abs(wave).mean())
    free = EVERYWHERE.copy()
    free[5] = False
    assert flicker(spike, free) == 0, "what touches a light that is not free does not count"


def made(psnr, flickers=1.0, truth=2.0):
    psnr = np.asarray(psnr, float)
    return Scores(psnr, np.full(psnr.shape[:2], flickers), np.full(len(psnr), truth))


def test_a_loss_between_the_trained_directions_is_told():
    psnr = np.where(turning.TRAINED, 20.0, 18.0) + np.zeros((5, 2, 24))
    psnr[:, 0, 12] = psnr[:, 1, 0] = np.nan
    found = summary(made(psnr))
    assert (found["trained"], found["between"]) == (20, 18)
    assert found["loss"] == [2, 2, 2]
    assert found["neighbour_loss"] == [2, 2, 2]
    assert found["by_azimuth"]["180"] == 20
    assert found["by_azimuth"]["195"] == 18
    assert found["flicker_ratio"] == 0.5


def test_small_changes_of_light_do_not_hide_a_loss():
    azimuths = np.arange(0, 360, 15.0)
    distance = np.abs((azimuths + 180) % 360 - 180)
    psnr = np.tile(30 - distance / 10, (3, 1, 1))
    psnr[..., 0] = np.nan
    found = summary(made(psnr))
    assert found["loss"][0] < -1, "in-between directions are nearer to the input in the mean"
    assert found["neighbour_loss"] == pytest.approx([0, 0, 0])
    psnr[..., ~turning.TRAINED] -= 0.7
    assert summary(made(psnr))["neighbour_loss"] == pytest.approx([0.7] * 3)


def test_nothing_is_said_of_what_was_not_scored():
    found = summary(made(np.full((2, 1, 24), np.nan)))
    assert found["trained"] is found["loss"] is found["by_azimuth"]["0"] is None
    assert np.isnan(neighbours(np.full(24, np.nan))).all()


def test_networks_get_the_turning_light_by_label_and_no_guide(batch):
    asked = []

    class Recorder(torch.nn.Module):
        def forward(self, batch):
            asked.append(batch)
            return {"relit": batch["input"] + 0.5}

    sample = {key: value[:1] for key, value in batch.items()}
    truth = torch.rand(24, 3, 37, 50)
    relit = relight(trained.Method("x", Path("x"), Recorder(), reads=False), sample, truth, 12)
    torch.testing.assert_close(relit, ((truth[12] + 0.5).clamp(max=1) * 255).round().div(255).expand(24, -1, -1, -1))
    lights = torch.cat([part["target_light"] for part in asked])
    assert lights.tolist() == [[15.0 * k, 4500.0] for k in range(24)]
    for part in asked:
        assert not {"guide", "guide_depth", "guide_crop", "target"} & part.keys()
        assert part["input_light"].tolist() == [[180.0, 4500.0]] * len(part["target_light"])
        assert len(part["name"]) == len(part["depth"]) == len(part["rig"]) == len(part["input"])


# ---- a rendered scene, rendered on


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Three tiny scenes of one family."""
    from ltnet_pl.render import render

    out = tmp_path_factory.mktemp("rendered") / "set"
    render(str(out), scenes=3, size=16, seed=4, samples=4, workers=1, variant="scalar_rgb", families=["objects"])
    return out


@needs_mitsuba
@pytest.mark.render
def test_the_sets_own_directions_come_out_the_same(rendered, tmp_path, monkeypatch):
    from ltnet_pl.render import picture
    from ltnet_pl.render.turning import turn

    root = shutil.copytree(rendered, tmp_path / "set")
    found = turn(root, "Image001", range(0, 360, 15), 4500)
    assert found.images.shape == (24, 16, 16, 3)
    assert found.images.dtype == np.uint8
    for light in SETTINGS[16:24]:
        stored = np.asarray(Image.open(root / f"Image001_{light.name}.png"))[..., :3]
        np.testing.assert_array_equal(found.images[int(light.azimuth) // 15], stored, err_msg=light.name)
    steps = np.abs(np.diff(found.images.astype(float), axis=0)).mean(axis=(1, 2, 3))
    assert steps.min() > 0.3, "every step changes the picture"
    far = np.abs(found.images.astype(float) - np.roll(found.images, 12, axis=0)).mean()
    assert steps.max() < far, "and by less than half a turn does"
    assert found.free[::3].all()

    def fail(*_, **__):
        raise AssertionError("traced again")

    monkeypatch.setattr(picture, "find", fail)
    again = turn(root, "Image001", range(0, 360, 15), 4500)
    np.testing.assert_array_equal(again.images, found.images)
    np.testing.assert_array_equal(again.free, found.free)
    for other in ((range(0, 360, 30), 4500), (range(0, 360, 15), 2500)):
        with pytest.raises(AssertionError, match="traced again"):
            turn(root, "Image001", *other)
    (root / "turning" / "Image001.npz").write_bytes(b"PK broken")
    with pytest.raises(AssertionError, match="traced again"):
        turn(root, "Image001", range(0, 360, 15), 4500)


@needs_mitsuba
@pytest.mark.render
def test_another_scene_than_the_sets_is_refused(rendered, tmp_path):
    from ltnet_pl.render.turning import turn

    root = shutil.copytree(rendered, tmp_path / "set")
    path = root / "scenes" / "Image001" / "scene.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "seed": 5}))
    with pytest.raises(InputError, match=r"Image001_4500_N.png: differs from what is rendered now by \d+.\d levels.*mitsuba"):
        turn(root, "Image001", [0], 4500)
    path.write_text(json.dumps({**record, "family": "analytic"}))
    with pytest.raises(InputError, match="of the family 'analytic'; expected one of terrain"):
        turn(root, "Image001", [0], 4500)
    path.write_text(json.dumps({**record, "rig": None}))
    with pytest.raises(InputError, match=r"scene.json: TypeError.*: render the scene again"):
        turn(root, "Image001", [0], 4500)
    with pytest.raises(InputError, match=r"scene.json: cannot be read"):
        turn(root, "Image009", [0], 4500)
    assert not (root / "turning").exists()


@needs_mitsuba
@pytest.mark.render
def test_a_light_within_something_is_not_free():
    from ltnet_pl.render import picture

    tracer, _ = picture.find("objects", 4, 1, 16, "scalar_rgb", Rig())
    for azimuth, position in zip(range(0, 360, 45), tracer.lights, strict=True):
        np.testing.assert_array_equal(tracer.position(Light(azimuth, 4500)), position)
        assert picture.stands_free(tracer, position)
    assert not picture.stands_free(tracer, tracer.centre + np.array([0, 0.01, 0]))


@needs_mitsuba
@pytest.mark.render
def test_turning(rendered, vidit_root, tmp_path, capsys, monkeypatch):
    written = bench_runs.record_texts(monkeypatch)
    copy = bench_runs.fit_copy(vidit_root, tmp_path / "copy-seed0")
    capsys.readouterr()
    root, results = shutil.copytree(rendered, tmp_path / "set"), tmp_path / "results" / "turning.json"
    given = {"data": str(root), "out": str(tmp_path / "out"), "results": str(results), "scenes": 2, "test_scenes": 2}
    bench("turning")([copy, f"unet={copy}"], **given, error=True, inputs=[90, 0])
    content = json.loads(results.read_text())
    assert content["scenes"] == ["Image001", "Image002"]
    assert content["input_azimuths"] == [90, 0]
    row = content["rows"]["copy"]
    assert row["flicker"] == row["flicker_ratio"] == 0
    assert row["flicker_truth"] > 0
    assert content["rows"]["unet"]["by_azimuth"] == row["by_azimuth"]
    # at 90 degrees only the input from 0 is scored, against the set's own files
    errors = []
    for scene in content["scenes"]:
        images = [np.asarray(Image.open(root / f"{scene}_4500_{d}.png"))[..., :3] / 255 for d in "NE"]
        errors.append(-10 * np.log10(np.mean((images[0] - images[1]) ** 2)))
    assert row["by_azimuth"]["90"] == pytest.approx(np.mean(errors), abs=1e-4)
    said = capsys.readouterr().out
    assert f"| 90° E | {np.mean(errors):.2f} | {np.mean(errors):.2f} |" in said
    assert "--inputs '[90, 0]'" in said
    assert f"| copy | {row['trained']:.2f} | {row['between']:.2f} |" in said
    strip = tmp_path / "out" / "strip.jpg"
    assert strip.stat().st_size < 300 * 1024
    with Image.open(strip) as picture:
        # two blocks of twelve tiles of 96 pixels, in each the truth and two rows with their errors
        assert picture.width == 12 * 98 + 2
        assert picture.height == 2 * (3 * (18 + 96 + 15) + 2 * (18 + 96 + 2)) + 2
    assert {"90° E, input", "105°", "345°", "Image001: rendered", "copy: absolute error, times four", "∞ dB"} <= set(written)
    for wrong in ([15], [], [0, 0]):
        with pytest.raises(InputError, match="expected azimuths that the set has, each once"):
            bench("turning")([copy], **given, inputs=wrong)
    with pytest.raises(InputError, match="--strip Image000: is not scored; expected one of Image001, Image002"):
        bench("turning")([copy], **given, strip="Image000")
