"""A rendered set on disk: layout, same bytes, resuming, stopping, and every mistake by name."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from ltnet_pl import InputError
from ltnet_pl.light import DIRECTIONS, SETTINGS, Light, Rig, black_body
from ltnet_pl.render import job, picture, render, writer

pytest.importorskip("mitsuba", reason="needs the extra 'render' (Mitsuba 3)")
pytestmark = pytest.mark.render

S, W = (DIRECTIONS.index(name) for name in "SW")


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- the set on disk


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Two scenes of two families, as the command makes them."""
    out = tmp_path_factory.mktemp("rendered") / "set"
    render(str(out), scenes=2, size=24, seed=4, samples=4, workers=2, variant="scalar_rgb", families=["objects", "interior"])
    return out


def render_again(out, **changes):
    arguments = {
        "scenes": 2,
        "size": 24,
        "seed": 4,
        "samples": 4,
        "workers": 1,
        "variant": "scalar_rgb",
        "families": ["objects", "interior"],
    }
    render(str(out), **{**arguments, **changes})


def test_layout(rendered):
    names = {path.name for path in rendered.iterdir()}
    images = {f"Image{i:03d}_{light.name}.png" for i in range(2) for light in SETTINGS}
    assert names == images | {"Image000.npy", "Image001.npy", "scenes"}
    for i, family in enumerate(["objects", "interior"]):
        folder = rendered / "scenes" / f"Image{i:03d}"
        assert {p.name for p in folder.iterdir()} == {"normals.npy", "albedo.npy", "visibility.npy", "scene.json"}
        record = json.loads((folder / "scene.json").read_text())
        assert record["family"] == family
        assert record["rig"] == {"radius": 0.9, "height": 0.9}
        assert (record["seed"], record["size"], record["variant"]) == (4, 24, "scalar_rgb")
        assert 40 <= record["camera"]["fov"] <= 60
        assert record["exposure"] > 0
        assert {"ltnet_pl", "mitsuba"} <= record["versions"].keys()
        depth = np.load(rendered / f"Image{i:03d}.npy", allow_pickle=True).item()
        assert depth.keys() == {"normalized_depth", "ref_center_dis"}
        assert isinstance(depth["ref_center_dis"], float)
        d = depth["normalized_depth"]
        assert (d.dtype, d.shape, d.max()) == (np.float32, (24, 24), 1.0)
        normals, albedo, visibility = (np.load(folder / f"{name}.npy") for name in ("normals", "albedo", "visibility"))
        assert (normals.dtype, normals.shape) == (np.float16, (24, 24, 3))
        assert (albedo.dtype, albedo.shape) == (np.float16, (24, 24, 3))
        assert (visibility.dtype, visibility.shape) == (np.bool_, (8, 24, 24))
        np.testing.assert_allclose(np.linalg.norm(normals.astype(float), axis=-1), d > 0, atol=2e-3)


def test_images_are_rgba_exposed_and_differ_by_direction_and_temperature(rendered):
    def load(index, name):
        image = np.array(PillowImage.open(rendered / f"Image{index:03d}_{name}.png"))
        assert image.shape == (24, 24, 4)
        assert (image[..., 3] == 255).all()
        return image[..., :3].astype(float)

    for index in range(2):
        north, south, warm = (load(index, name) for name in ("6500_N", "6500_S", "2500_S"))
        assert np.abs(north - south).mean() > 5
        assert warm[..., 0].mean() > 1.5 * warm[..., 2].mean()
        assert 0.7 < south[..., 0].mean() / south[..., 2].mean() < 2.5
        assert 20 < np.mean([load(index, light.name).mean() for light in SETTINGS]) < 200


def test_same_bytes_in_another_process(rendered, tmp_path):
    versions = json.loads((rendered / "scenes/Image001/scene.json").read_text())["versions"]
    job._scene(tmp_path, 1, "interior", writer.Settings(4, 24, 4, "scalar_rgb", Rig(), versions))
    writer.clear_partial(tmp_path)
    again = files(tmp_path)
    assert len(again) == 45
    first = files(rendered)
    assert [name for name, data in again.items() if first[name] != data] == []


def test_resumes_where_it_stopped_and_extends(rendered, tmp_path, capsys):
    out = tmp_path / "set"
    shutil.copytree(rendered, out)
    (out / "scenes/Image001/scene.json").unlink()
    (out / "Image001_4500_E.png").write_bytes(b"half")
    (out / ".partial").mkdir()
    (out / ".partial/Image001_4500_N.png").write_bytes(b"half")
    untouched = (out / "Image000_2500_N.png").stat().st_mtime_ns
    render_again(out)
    assert files(out) == files(rendered)
    assert (out / "Image000_2500_N.png").stat().st_mtime_ns == untouched
    printed = capsys.readouterr().out
    assert "1 of 2 scenes are complete already" in printed
    assert "images per second with scalar_rgb" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 32}, "--size 24, but this render has 32"),
        ({"seed": 5}, "--seed 4, but this render has 5"),
        ({"samples": 9}, "--samples 4, but this render has 9"),
        ({"rig": Rig(0.5, 1.0)}, "--rig {'radius': 0.9, 'height': 0.9}, but"),
        ({"families": ["interior", "objects"]}, "--families objects, but this render has interior"),
    ],
)
def test_refuses_to_mix_settings(rendered, changes, message):
    before = files(rendered)
    with pytest.raises(InputError) as error:
        render_again(rendered, **changes)
    assert message in str(error.value)
    assert files(rendered) == before


def test_refuses_another_variant_or_version(rendered):
    record = json.loads((rendered / "scenes/Image000/scene.json").read_text())
    common = (4, 24, 4)
    with pytest.raises(InputError, match="--variant scalar_rgb, but this render has llvm_ad_rgb"):
        writer.prepare(rendered, writer.Settings(*common, "llvm_ad_rgb", Rig(), record["versions"]), ["objects", "interior"])
    with pytest.raises(InputError, match="holds scenes rendered with versions"):
        writer.prepare(rendered, writer.Settings(*common, "scalar_rgb", Rig(), {"mitsuba": "0"}), ["objects", "interior"])


# ---- mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenes": 0}, "--scenes 0: expected a whole number from 1"),
        ({"size": 8}, "--size 8: expected a whole number from 16 to 1024"),
        ({"size": 5000}, "--size 5000: expected a whole number from 16 to 1024"),
        ({"seed": -1}, "--seed -1: expected a whole number from 0"),
        ({"samples": 0}, "--samples 0: expected"),
        ({"workers": 0}, "--workers 0: expected"),
        ({"variant": "cuda_spectral"}, "--variant cuda_spectral: expected llvm_ad_rgb or scalar_rgb"),
        ({"families": ["forest"]}, "--families forest: unknown; expected some of terrain, courtyard, interior, objects"),
        ({"families": []}, "--families is empty"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path, changes, message):
    with pytest.raises(InputError) as error:
        render_again(tmp_path / "set", **changes)
    assert message in str(error.value)
    assert not (tmp_path / "set").exists()


def test_missing_mitsuba_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(job.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'ltnet_pl\[render\]'"):
        render_again(tmp_path / "set")


def test_variant_that_does_not_start_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "starts", lambda variant: False)
    with pytest.raises(InputError, match="--variant llvm_ad_rgb does not start on this machine"):
        render_again(tmp_path / "set", variant="llvm_ad_rgb")
    with pytest.raises(InputError, match="no variant starts"):
        render_again(tmp_path / "set", variant=None)


def test_falls_back_to_scalar_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(job, "starts", lambda variant: variant == "scalar_rgb")
    assert job.choose_variant(None, job.Console()) == "scalar_rgb"
    printed = " ".join(capsys.readouterr().out.split())
    assert "llvm_ad_rgb does not start on this machine" in printed
    assert "Mitsuba variant scalar_rgb" in printed


def test_out_that_is_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"file is a file; expected a folder"):
        render_again(path)
    assert path.read_text() == "mine"


def test_out_with_foreign_images(tmp_path):
    (tmp_path / "Image000_2500_N.png").write_bytes(b"real data")
    with pytest.raises(InputError, match=r"holds Image000_2500_N.png, which no render wrote"):
        render_again(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["Image000_2500_N.png"]


def test_record_that_is_no_json(tmp_path):
    (tmp_path / "scenes/Image000").mkdir(parents=True)
    (tmp_path / "scenes/Image000/scene.json").write_text("{")
    with pytest.raises(InputError, match=r"scene.json cannot be read"):
        render_again(tmp_path)


def test_rig_that_leaves_no_light_free(monkeypatch):
    monkeypatch.setattr(picture, "ATTEMPTS", 1)
    with pytest.raises(InputError, match=r"--rig 0.9, -0.5: none of 1 random scenes of the family 'objects'"):
        picture.find("objects", 0, 0, 16, "scalar_rgb", Rig(0.9, -0.5))


@pytest.mark.parametrize("where", ["write", "replace"])
def test_full_disk_leaves_no_half_written_file(tmp_path, monkeypatch, request, where):
    def refuse(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where == "write":
        request.getfixturevalue("full_disk")
    else:
        monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(
        InputError, match=r"cannot write .*Image000_4500_E\.png: No space left on device.*the same command resumes"
    ):
        writer.save(tmp_path, "Image000_4500_E.png", b"0123456789")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_write_failure_in_a_worker_stops_the_render(tmp_path):
    code = (
        "import resource, sys\n"
        "from ltnet_pl import InputError\n"
        "from ltnet_pl.render import render\n"
        "if __name__ == '__main__':\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "    try:\n"
        f"        render({str(tmp_path / 'set')!r}, 4, size=48, samples=1, workers=2, variant='scalar_rgb')\n"
        "    except InputError as error:\n"
        "        print(error)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=True, env=_environment()
    )
    assert "cannot write" in done.stdout
    assert "File too large" in done.stdout
    assert not (tmp_path / "set/.partial").exists()
    assert list((tmp_path / "set").rglob("scene.json")) == []


def _running(group):
    """Numbers of the group's processes that run; one that has ended may wait for whoever started this machine to collect it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, member = path.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
        if int(member) == group and state != "Z":
            found.append(path.parent.name)
    return found


def _environment():
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}


@pytest.mark.slow
def test_ctrl_c_leaves_whole_files_and_resumes(tmp_path):
    out = tmp_path / "set"
    script = tmp_path / "script.py"
    script.write_text(
        "from ltnet_pl.render import render\n"
        "if __name__ == '__main__':\n"
        f"    render({str(out)!r}, 40, size=32, samples=4, workers=2, variant='scalar_rgb')\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=_environment(),
    )
    deadline = time.monotonic() + 90
    while not list(out.glob("scenes/*/scene.json")):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # a terminal sends the signal to the whole group of processes
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "the same command resumes" in " ".join(printed.split())
    assert "Traceback" not in printed
    assert not (out / ".partial").exists()
    complete = {path.parent.name for path in out.glob("scenes/*/scene.json")}
    assert 0 < len(complete) < 40
    for path in out.glob("*.png"):
        PillowImage.open(path).load()
    for name in complete:
        assert len(list(out.glob(f"{name}_*.png"))) == 40
    deadline = time.monotonic() + 20
    while _running(process.pid):
        assert time.monotonic() < deadline, "a worker outlived the render"
        time.sleep(0.1)


@pytest.mark.slow
def test_llvm_gives_the_same_picture(tmp_path):
    if not job.starts("llvm_ad_rgb"):
        pytest.skip("Mitsuba's llvm_ad_rgb does not start here: it needs the LLVM library, version 17 or later")
    images = {}
    for variant in job.VARIANTS:
        tracer, _ = picture.find("objects", 0, 0, 32, variant, Rig())
        images[variant] = tracer.radiance(tracer.lights[S], np.ones(3), 64, 0)
    a, b = images.values()
    assert np.sqrt(np.mean((a - b) ** 2)) < 0.05 * a.mean()


def test_light_names_agree_with_the_images(rendered):
    # the picture under one light equals what its name promises: tint, direction and exposure recomputed from the record
    record = json.loads((rendered / "scenes/Image000/scene.json").read_text())
    tracer, _ = picture.find("objects", 4, 0, 24, "scalar_rgb", Rig())
    light = Light.from_name("3500_W")
    sampler = int(np.random.SeedSequence([4, 0]).generate_state(1)[0])
    linear = tracer.radiance(tracer.lights[W], black_body(3500), 4, sampler) + tracer.shine(4, sampler)
    expected = picture.display(record["exposure"] * linear).astype(int)
    saved = np.array(PillowImage.open(rendered / f"Image000_{light.name}.png"))[..., :3].astype(int)
    assert np.abs(expected - saved).max() <= 1
