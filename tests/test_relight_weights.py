"""The weights in the package: what they do to scenes whose truth is known, and that were in no training."""

import re
import shutil
import subprocess

import numpy as np
import pages
import pytest
from PIL import Image
from scenes import picture, scene, stored_depth, trace

from ltnet_pl.cli import main
from ltnet_pl.light import Light, angular_distance
from ltnet_pl.relight import Relighter
from ltnet_pl.relight.relighter import PRETRAINED
from ltnet_pl.vidit import read_depth

PAIRS = (("5500_S", "3500_E"), ("4500_W", "4500_N"), ("3500_NE", "6500_SW"))


@pytest.fixture(scope="module")
def relighter():
    return Relighter.pretrained()


def psnr(one, two):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - two) ** 2))


def test_the_file_is_small():
    assert PRETRAINED.stat().st_size <= 12e6


@pytest.mark.parametrize("number", range(3))
def test_a_scene_comes_near_its_truth(relighter, number):
    """Spheres on a plane: far nearer than the untouched picture, whether lights are said, read, or read off a guide."""
    frame, other = trace(scene(0, number), (96, 128)), trace(scene(0, number + 3), (96, 128))
    depth = stored_depth(frame)
    for present, wanted in (map(Light.from_name, pair) for pair in PAIRS):
        before, truth = picture(frame, present), picture(frame, wanted)
        prepared = relighter.prepare(before, depth)
        assert angular_distance(prepared.present.azimuth, present.azimuth) <= 22.5
        said = relighter.prepare(before, depth, present).relight(wanted)
        read = prepared.relight(wanted)
        guided = prepared.relight_by(picture(other, wanted), stored_depth(other))
        for relit in (said, read, guided):
            assert psnr(relit, truth) > psnr(before, truth) + 5


def test_the_light_that_is_there_changes_nothing(relighter):
    frame = trace(scene(0, 1), (96, 128))
    before = picture(frame, Light.from_name("5500_S"))
    prepared = relighter.prepare(before, stored_depth(frame))
    assert np.array_equal(prepared.relight(prepared.present), before)


@pytest.mark.slow
@pytest.mark.render
def test_a_rendered_scene_comes_near_its_truth(relighter, tmp_path):
    pytest.importorskip("mitsuba", reason="needs the extra 'render' (Mitsuba 3)")
    assert main(["render", str(tmp_path), "--scenes", "1", "--size", "96", "--seed", "5"]) == 0
    depth = read_depth(tmp_path / "Image000.npy")
    gains = []
    for present, wanted in PAIRS:
        before, truth = (np.asarray(Image.open(tmp_path / f"Image000_{name}.png").convert("RGB")) for name in (present, wanted))
        relit = relighter.prepare(before, depth).relight(Light.from_name(wanted))
        gains.append(psnr(relit, truth) - psnr(before, truth))
    assert min(gains) > 6


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_one_command_makes_them_as_the_model_card_says():
    """By what make would do, were nothing done yet."""
    command = ["make", "--dry-run", "--always-make", "-C", str(pages.ROOT), "weights"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    done = re.findall(r"python -m ltnet_pl (.*)", said)
    written = [" ".join(ours) for step in pages.steps(pages.DOCS / "model_card.md") if (ours := pages.ours(step.words))]
    assert len(done) == 3
    assert done == written[:3]
