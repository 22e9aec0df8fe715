"""README and docs/: every command is read by its own parser, and what can run on two cores, without a download, runs.

What is checked and not run: training on GPUs, several machines and SLURM (docs/cluster.md), sweeps of many trials and W&B's
server (docs/howto/sweeps.md), the benchmark, depth from a model that has to be fetched. docs/vidit.md runs in `test_docs_vidit`.
"""

from __future__ import annotations

import importlib.util
import re
import sys

import numpy as np
import pages
import pytest
import scenes
from PIL import Image

from ltnet_pl.light import Light

PAGES = {pages.name(page): page for page in pages.PAGES}
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
}

WEIGHTS = pages.ROOT / "ltnet_pl" / "relight" / "ltnet.safetensors"
needs_weights = pytest.mark.skipif(not WEIGHTS.is_file(), reason="ltnet_pl/relight/ltnet.safetensors, the weights, is absent")
needs_render = pytest.mark.skipif(importlib.util.find_spec("mitsuba") is None, reason="needs the extra render")
needs_notebooks = pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="needs the extra notebooks")

pytestmark = pytest.mark.filterwarnings("ignore:.*class_path.*discard")

# ---- checked


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_block_says_its_language(page):
    """So that none escapes the checks."""
    text = page.read_text()
    opened = [line for line in text.splitlines() if line.startswith("```")]
    assert all(line == "```" for line in opened[1::2])
    assert {line[3:] for line in opened[::2]} <= {"bash", "python", "yaml", "text"}
    assert not [
        block for block in pages.blocks(page, "text", "yaml") if re.search(r"python -m|^pip |^make ", block, re.MULTILINE)
    ]


@pytest.fixture
def own_network(tmp_path, monkeypatch):
    """The network of docs/howto/own_network.md, where Python finds it."""
    pages.write_network(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("my_package", None)  # other tests want one that is not there


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_command_is_understood(page, tmp_path, monkeypatch, own_network):
    pages.stand_in(tmp_path, page)
    monkeypatch.chdir(tmp_path)
    for step in pages.steps(page):
        if step.words:
            pages.check_command(step.words)
        else:
            pages.check_code(step.code)


@pytest.mark.parametrize(("page", "least"), [("results.md", 8), ("real_pictures.md", 2), ("performance.md", 4)])
def test_what_is_inline_is_understood(tmp_path, monkeypatch, page, least):
    """The pages of numbers name the commands of their tables in running text."""
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"`python -m ltnet_pl (bench [^`]+)`", (pages.DOCS / page).read_text())
    assert len(found) >= least
    for command in found:
        pages.check_ours(command.split())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("python -m ltnet_pl render data --scene 3", "refused"),
        ("python -m ltnet_pl render data --scenes many", "refused"),
        ("python -m ltnet_pl bend quality", "no command"),
        ("python -m ltnet_pl bench quality --teer screen", "refused"),
        ("python -m ltnet_pl fit --config experiments/base.yaml --data.rot data", "refused"),
        ("python -m ltnet_pl fit --config experiments/base.yaml --model.net.init_args.field curl", "refused"),
        ("python -m ltnet_pl fit --config experiments/none.yaml", "not in the repository"),
        ("python -m ltnet_pl sweep nothing.yaml", "nothing.yaml"),
        ("torchrun --processes=2 -m ltnet_pl fit --config experiments/base.yaml", None),
        ("pip install -e .[rendering]", "no extra"),
        ("make breakfast", "no target"),
        ("wandb sleep", "not known"),
        ("rm data", "not known"),
    ],
)
def test_the_checks_find_what_is_wrong(command, said, tmp_path, monkeypatch):
    pages.stand_in(tmp_path, PAGES["README.md"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AssertionError, SystemExit), match=said):
        pages.check_command(command.split())


@pytest.mark.parametrize("code", ["from ltnet_pl.light import Lamp", "import ltnet_pl; from ltnet_pl.relit import x", "def f(:"])
def test_the_checks_find_code_that_does_not_fit(code):
    with pytest.raises((ImportError, SyntaxError)):
        pages.check_code(code)


# ---- run


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with our configurations, in which commands run."""
    for part in ("experiments", "sweeps"):
        (tmp_path / part).symlink_to(pages.ROOT / part)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def skipped(step):
    """What this machine may lack: packages to install."""
    return step.words[:1] == ["pip"]


@needs_render
@needs_notebooks
@pytest.mark.slow
def test_from_data_to_a_table_runs(place):
    """From the first command to the last line of Python; few scenes, few steps."""
    said = [pages.run(step, FEW) for step in pages.steps(PAGES["docs/tutorials/data_to_table.md"]) if not skipped(step)]
    table, compared = said[-2:]
    assert "| visibility |" in table
    assert "| none |" in table
    assert r"\begin{tabular}" in table
    assert "±" in table  # two seeds
    assert re.match(r"psnr: cues visibility - cues none = .*95 % interval", compared)
    assert (place / "runs" / "tutorial" / "report.html").is_file()
    tested = place / "runs" / "tutorial" / "with_cues" / "test"
    assert {path.name for path in tested.iterdir()} == {"LTNet-guide-light", "LTNet-label-light"}


@pytest.mark.slow
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
def test_training_an_own_network_runs(place, vidit_root, own_network):
    """The page's network by the page's configuration; the benchmark is left out, and `predict` follows with what was trained."""
    (place / "data").mkdir()
    (place / "data" / "train").symlink_to(vidit_root)
    few = {"fit": [*TINY, "--data.size=24", f"--data.pairs={place / 'pairs'}"], "predict": ["--trainer.accelerator=cpu"]}
    write_photo(place / "photos" / "one.png")
    done = []
    for step in pages.steps(PAGES["docs/howto/own_network.md"]):
        mine = pages.ours(step.words) if step.words else None
        if mine is not None and mine[0] != "bench":
            pages.run(step, few)
            done.append(mine[0])
    assert done == ["fit", "predict"]
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


@needs_weights
@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/index.md", "docs/tutorials/photo_to_picture.md"])
def test_photographs_are_relit_as_the_pages_say(name, photos):
    """But for `--depth estimate`, whose model has to be fetched: those commands are checked alone."""
    found = pages.steps(PAGES[name])
    if name.startswith("docs/tutorials"):
        scenes.write_any_to_any(photos / "data" / "train", scenes=6, size=(32, 40))
        train = ["python", "-m", "ltnet_pl", "fit", "--config", "experiments/base.yaml", "--data.root", "data/train"]
        own = pages.Step([*train, "--trainer.default_root_dir", "runs/mine", "--data.size=32"], "")
        pages.run(own, FEW)
    ran = 0
    for step in found:
        mine = pages.ours(step.words) if step.words else None
        if (mine is not None and mine[0] not in ("relight", "predict", "report")) or skipped(step) or step.words[:1] == ["make"]:
            continue
        if "estimate" in step.words or (name == "README.md" and mine is not None and mine[0] == "report"):
            continue
        pages.run(step, {"predict": ["--trainer.accelerator=cpu"]})
        ran += 1
    assert ran >= {"README.md": 3, "docs/index.md": 1}.get(name, 14)
    assert (photos / "photo_E_3500K.jpg").is_file()
