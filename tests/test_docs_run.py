"""README and docs/: every command runs in a test, or `READ_ALONE` says why not.

A command runs as its page has it, with the flags of `FEW` after its own, which make it small.
"""

from __future__ import annotations

import importlib.util
import re
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pages
import pytest
import scenes
import yaml
from demo_page import free_port
from fits import environment
from PIL import Image
from read_alone import READ_ALONE

from ltnet_pl.light import Light

PAGES = pages.BY_NAME
TINY = [
    *("--trainer.accelerator=cpu", "--trainer.max_steps=2", "--data.samples_per_epoch=4", "--data.batch_size=2"),
    *("--data.num_workers=0", "--data.pairs_per_scene=2", "--data.val_scenes=2", "--data.test_scenes=2"),
]
LTNET = ["--model.net.init_args.widths=[8, 12]", "--model.net.init_args.light_width=8", "--model.net.init_args.steps=8"]
FEW = {
    "render": ["--scenes=6", "--size=32", "--samples=4"],
    "fit": [*TINY, *LTNET],
    "cache": ["--size=24"],
    "fit-rig": ["--scenes=3", "--size=24"],
    "test": ["--trainer.accelerator=cpu"],
    "predict": ["--trainer.accelerator=cpu"],
}

WEIGHTS = pages.ROOT / "ltnet_pl" / "relight" / "ltnet.safetensors"
needs_weights = pytest.mark.skipif(not WEIGHTS.is_file(), reason="ltnet_pl/relight/ltnet.safetensors, the weights, is absent")
needs_render = pytest.mark.skipif(importlib.util.find_spec("mitsuba") is None, reason="needs the extra render")
needs_notebooks = pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="needs the extra notebooks")

pytestmark = pytest.mark.filterwarnings("ignore:.*class_path.*discard")

# ---- which commands run

RUN = {("docs/vidit.md", command) for command in ("cache", "fit-rig", "fit", "test", "report")}  # in `test_docs_vidit`
"""Commands that tests run, as pairs of page and name; `runs` adds to it."""


def runs(page, *names):
    """Says of a test that it runs those commands of a page which are not read alone."""
    RUN.update((page, name) for name in names)
    return lambda test: test


def said(step):
    """A command of ours as `READ_ALONE` has it."""
    return " ".join(step.words).removeprefix("python -m ltnet_pl ")


def alone(page, step):
    """Whether a command is read and not run."""
    return any(f"{said(step)} ".startswith(f"{begin} ") for begin in READ_ALONE.get(page, {}))


def to_run(page, *names):
    """The commands of these names on a page that run, in its order, each once."""
    found = {}
    for step in pages.commands(PAGES[page]):
        if pages.ours(step.words)[0] in names and not alone(page, step):
            found.setdefault(said(step), step)
    assert found, f"{page} has no command {names} to run"
    return list(found.values())


def commands():
    """Every command of ours, with its page."""
    return [(page, step) for page, path in PAGES.items() for step in pages.commands(path)]


def is_run(page, step):
    return (page, pages.ours(step.words)[0]) in RUN and not alone(page, step)


def test_every_command_runs_or_has_its_reason():
    """On its page, or word for word on another one."""
    ran = {said(step) for page, step in commands() if is_run(page, step)}
    assert len(ran) > 50
    assert [f"{page}: {said(step)}" for page, step in commands() if said(step) not in ran and not alone(page, step)] == []


def test_no_reason_is_without_its_command():
    for page, begins in READ_ALONE.items():
        for begin in begins:
            assert any(f"{said(step)} ".startswith(f"{begin} ") for step in pages.commands(PAGES[page])), f"{page}: {begin}"
    for page, name in RUN:
        assert to_run(page, name)


# ---- the runs


@runs("docs/reference/commands.md", "--version")
def test_the_version_is_told():
    assert re.search(r"\d+\.\d+", pages.run(*to_run("docs/reference/commands.md", "--version")))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with our configurations, in which commands run."""
    for part in ("experiments", "sweeps"):
        (tmp_path / part).symlink_to(pages.ROOT / part)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@needs_render
@needs_notebooks
@pytest.mark.slow
@runs("docs/tutorials/data_to_table.md", "render", "fit", "test", "report")
def test_from_data_to_a_table_runs(place):
    """From the first command to the last line of Python; few scenes, few steps."""
    page = PAGES["docs/tutorials/data_to_table.md"]
    told = [pages.run(step, FEW) for step in pages.steps(page) if step.words[:1] != ["pip"]]
    table, compared = told[-2:]
    assert "| visibility |" in table
    assert "| none |" in table
    assert r"\begin{tabular}" in table
    assert "±" in table  # two seeds
    assert re.match(r"psnr: cues visibility - cues none = .*95 % interval", compared)
    assert (place / "runs" / "tutorial" / "report.html").is_file()
    tested = place / "runs" / "tutorial" / "with_cues" / "test"
    assert {path.name for path in tested.iterdir()} == {"LTNet-guide-light", "LTNet-label-light"}


@pytest.mark.slow
@runs("docs/howto/own_data.md", "fit", "test", "report", "cache", "fit-rig")
def test_training_on_own_data_runs(place):
    """On a set of analytic scenes in place of a rendered one."""
    for name in ("train", "low"):
        scenes.write_any_to_any(place / "data" / name, scenes=6, size=(32, 40))
    few = FEW | {"fit": [*FEW["fit"], "--data.size=24"], "test": ["--data.val_scenes=2", "--data.test_scenes=2"]}
    for step in pages.steps(PAGES["docs/howto/own_data.md"]):
        if step.words[:4] != ["python", "-m", "ltnet_pl", "render"]:
            pages.run(step, few)
    assert (place / "runs" / "mine" / "test").is_dir()
    assert "radius" in (place / "runs" / "rig" / "config.yaml").read_text()
    assert (place / "runs" / "low" / "test").is_dir()


@pytest.mark.slow
@runs("docs/howto/own_network.md", "fit", "predict")
def test_training_an_own_network_runs(place, vidit_root):
    """The page's network by the page's configuration, and `predict` with what was trained."""
    (place / "data").mkdir()
    (place / "data" / "train").symlink_to(vidit_root)
    few = {"fit": [*TINY, "--data.size=24", f"--data.pairs={place / 'pairs'}"], "predict": ["--trainer.accelerator=cpu"]}
    write_photo(place / "photos" / "one.png")
    with pages.own_network(place):
        for step in to_run("docs/howto/own_network.md", "fit", "predict"):
            pages.run(step, few)
    assert list((place / "runs" / "base" / "predict").rglob("*.png"))


def write_photo(path, size=(72, 96)):
    """A picture of an analytic scene with its depth beside it; the depth."""
    path.parent.mkdir(exist_ok=True)
    frame = scenes.trace(scenes.scene(), size)
    Image.fromarray(scenes.picture(frame, Light(azimuth=180, temperature=5500))).save(path)
    depth = scenes.stored_depth(frame)
    np.save(path.with_suffix(".npy"), depth)
    return depth


@pytest.fixture
def photos(place):
    """What the pages on photographs expect their reader to have, and a trained run of one's own."""
    depth = write_photo(place / "photo.jpg")
    for name in ("second.png", "sunset.png", "photos/one.png"):
        write_photo(place / name)
    near = np.divide(1, depth, out=np.zeros_like(depth), where=depth > 0)
    Image.fromarray(np.round(65535 * near / near.max()).astype(np.uint16)).save(place / "disparity.png")
    exr = pytest.importorskip("OpenEXR", reason="needs the extra photo")
    (place / "measured").mkdir()
    with exr.File({"type": exr.scanlineimage}, {"Z": depth.astype(np.float32)}) as file:
        file.write(str(place / "measured" / "photo.exr"))
    return place


def trained(place, run):
    """A run of one's own on a set of analytic scenes, as the pages presuppose it."""
    scenes.write_any_to_any(place / "data" / "train", scenes=6, size=(32, 40))
    words = ["fit", "--config", "experiments/base.yaml", "--data.root", "data/train", "--trainer.default_root_dir", run]
    pages.run(pages.Step(["python", "-m", "ltnet_pl", *words, "--data.size=32"], ""), FEW)


PHOTOS = {
    "README.md": ("relight", "--help"),
    "docs/index.md": ("relight",),
    "docs/tutorials/photo_to_picture.md": ("relight", "predict", "report"),
}
for page, names in PHOTOS.items():
    runs(page, *names)


@needs_weights
@pytest.mark.slow
@pytest.mark.parametrize("name", PHOTOS)
def test_photographs_are_relit_as_the_pages_say(name, photos):
    """With the Python between the commands."""
    if "predict" in PHOTOS[name]:
        trained(photos, "runs/mine")
    ran = 0
    for step in pages.steps(PAGES[name]):
        mine = pages.ours(step.words) if step.words else None
        wanted = mine is not None and mine[0] in PHOTOS[name] and not alone(name, step)
        if step.code or step.words[0] == "mkdir" or wanted:
            pages.run(step, FEW)
            ran += 1
    assert ran >= {"README.md": 4, "docs/index.md": 1}.get(name, 14)
    assert (photos / "photo_E_3500K.jpg").is_file()


@needs_render
@pytest.mark.slow
@runs("docs/howto/own_data.md", "render")
def test_rendering_runs(place):
    for step in to_run("docs/howto/own_data.md", "render"):
        pages.run(step, FEW)
    assert len(list((place / "data" / "train").glob("*.npy"))) == 6


@needs_render
@pytest.mark.slow
@runs("docs/model_card.md", "render", "fit", "test", "export")
def test_the_weights_are_made_as_their_card_says(place):
    for step in to_run("docs/model_card.md", "render", "fit", "test", "export"):
        pages.run(step, FEW)
    assert list((place / "runs" / "weights" / "test").glob("*/summary.json"))
    assert (place / "runs" / "weights" / "ltnet.safetensors").is_file()


@pytest.mark.slow
@runs("docs/howto/export.md", "export")
def test_storing_weights_runs(place):
    trained(place, "runs/mine")
    for step in to_run("docs/howto/export.md", "export"):
        pages.run(step)
    assert (place / "mine.safetensors").is_file()


@pytest.mark.slow
@runs("docs/howto/sweeps.md", "fit")
def test_experiments_run(place):
    scenes.write_any_to_any(place / "data" / "train", scenes=6, size=(32, 40))
    few = {"fit": [*FEW["fit"], "--data.size=32"]}
    *fits, printing = to_run("docs/howto/sweeps.md", "fit")
    for step in fits:
        pages.run(step, few)
    printed = pages.run(printing)
    config = yaml.safe_load((place / "runs" / "base" / "config.yaml").read_text())
    assert config["model"]["net"]["init_args"]["field"] == "gain"
    assert yaml.safe_load(printed)["model"]["net"]["class_path"].endswith("UNet")


@pytest.mark.slow
@runs("docs/howto/sweeps.md", "sweep")
def test_a_sweep_runs(place):
    """One trial of it, whose command is made small in the file: the trials are processes of their own."""
    scenes.write_any_to_any(place / "data" / "train", scenes=6, size=(32, 40))
    (place / "sweeps").unlink()
    (place / "sweeps").mkdir()
    file = yaml.safe_load((pages.ROOT / "sweeps" / "architecture.yaml").read_text())
    at = file["command"].index("${args}")
    file["command"][at:at] = [*FEW["fit"], "--data.size=32"]
    (place / "sweeps" / "architecture.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
    for step in to_run("docs/howto/sweeps.md", "sweep"):
        pages.run_apart(step, place, {"sweep": ["--count=1"]})
    assert (place / "runs/sweeps/architecture/trials/0000/checkpoints/last.ckpt").is_file()


@pytest.mark.slow
@runs("docs/howto/sweeps.md", "bench")
@runs("docs/results.md", "bench")
def test_the_tables_are_printed_as_the_pages_say(place):
    found = {said(step): step for page in ("docs/howto/sweeps.md", "docs/results.md") for step in to_run(page, "bench")}
    assert {f"bench quality --tier {tier} --table" for tier in ("screen", "claim", "one_to_one")} == set(found)
    for step in found.values():
        assert "| LTNet" in pages.run(step)


@needs_weights
@pytest.mark.slow
@runs("docs/performance.md", "bench")
def test_working_sizes_are_measured(place):
    scenes.write_any_to_any(place / "data" / "large", scenes=4, size=(48, 64))
    for step in to_run("docs/performance.md", "bench"):
        assert "| 32 |" in pages.run(step, {"bench": ["--working=16,32", "--scenes=2", "--pairs=2"]})


@needs_weights
@pytest.mark.slow
@runs("docs/howto/demo.md", "demo")
@pytest.mark.parametrize("step", to_run("docs/howto/demo.md", "demo"), ids=said)
def test_the_demo_starts_serves_and_ends(step, tmp_path):
    """On a free port, where no other machine reaches it; Ctrl-C ends it, and its folder goes."""
    pytest.importorskip("gradio", reason="needs the extra demo")
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    call = [sys.executable, "-m", "ltnet_pl", *pages.ours(step.words), f"--port={port}", "--host=127.0.0.1"]
    own = environment(PYTHONPATH=str(pages.ROOT), TMPDIR=str(tmp_path))
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own, cwd=tmp_path) as process:
        try:
            assert process.stdout.readline() == f"{url} (Ctrl-C ends it)\n", process.stderr.read()
            assert b"Relight a photograph" in urllib.request.urlopen(url, timeout=60).read()
            assert [path.name[:14] for path in tmp_path.iterdir()] == ["ltnet_pl_demo_"]
            process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, complaints) == (0, "")
    assert list(tmp_path.iterdir()) == []
