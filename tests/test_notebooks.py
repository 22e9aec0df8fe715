"""The notebooks: stripped in git, and run from top to bottom on a set and a sweep that are made on the spot."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from fits import flags
from PIL import Image

from ltnet_pl.cli import main

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_what_it_showed(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in code)
    assert {cell["execution_count"] for cell in code} == {None}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_its_parameters_and_explains_its_cells(path):
    first, *others = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert first["cell_type"] == "code"
    assert "os.environ.get" in "".join(first["source"])
    assert "".join(others[0]["source"]).startswith("# ")
    kinds = [cell["cell_type"] for cell in others]
    assert kinds.count("markdown") >= 5


@pytest.fixture(scope="module")
def sweep(vidit_root, tmp_path_factory):
    """Two fields of two seeds and another loss, trained for a few steps and tested, and a copy of the input, tested alone."""
    folder = tmp_path_factory.mktemp("sweep")
    runs = {
        f"{field}-{seed}": [f"--model.net.init_args.field={field}", f"--seed_everything={seed}"]
        for field, seed in (("affine", 0), ("affine", 1), ("gain", 0), ("gain", 1))
    }
    runs["ssim-0"] = ["--model.loss.ssim=0.5"]
    for name, more in runs.items():
        assert main(flags(vidit_root, folder / name, *more)) == 0
        assert main(["test", "--config", str(folder / name / "config.yaml"), "--ckpt_path", "best"]) == 0
    baseline = FOLDER.parent / "experiments" / "baselines" / "copy_input.yaml"
    # a later flag wins, and the file names a folder of its own
    copy = ["--config", str(baseline), f"--trainer.default_root_dir={folder / 'copy'}"]
    assert main(["test", *flags(vidit_root, folder / "copy", *copy)[1:]]) == 0
    return folder


def run(name, monkeypatch, **environment):
    """A notebook's text output and its pictures, each as the standard deviation of its pixels."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    for library in ("pandas", "pyarrow", "ipykernel"):
        pytest.importorskip(library)
    for key, value in environment.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    # a kernel draws into the notebook unless told otherwise
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    resources = {"metadata": {"path": str(FOLDER)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    texts, pictures = [], []
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        assert output.get("name") != "stderr", output["text"]
        data = output.get("data", {})
        texts += [output.get("text", ""), data.get("text/html", ""), data.get("text/markdown", "")]
        if "image/png" in data:
            pictures.append(float(np.std(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("L"))))
    return "\n".join(texts), pictures


@pytest.mark.slow
def test_ablation_tables(sweep, monkeypatch):
    text, pictures = run("ablation_tables", monkeypatch, LTNET_RUNS=sweep)
    assert "6 runs, 5 of them with a record of their training; compared by test/psnr" in text
    for part in ("### Architecture", "### Loss", "### Recipe", ">field</th>", ">ssim</th>", "\\begin{tabular}{lrrrr}", " ± "):
        assert part in text
    assert "field gain - field affine = " in text
    assert "over 2 scenes, 8 images; 2 seeds each" in text
    assert "ssim 0.5 - ssim 0.1 = " in text
    # parallel coordinates, curves, pictures
    assert len(pictures) == 3
    assert min(pictures) > 5


@pytest.mark.slow
def test_data_tour(vidit_root, monkeypatch):
    text, pictures = run("data_tour", monkeypatch, LTNET_DATA=vidit_root)
    assert "6 scenes; Image000 has 24 lights: 3 temperatures" in text
    assert "as the set tells" in text
    # lights, colours, depth, cues, three samples, five augmentations, counts
    assert len(pictures) == 13
    assert min(pictures) > 5


@pytest.mark.slow
def test_light_stream(sweep, monkeypatch):
    text, pictures = run("light_stream", monkeypatch, LTNET_RUN=sweep / "affine-0")
    assert "LTNet (guide light): 8 pairs" in text
    assert "angular error" in text
    assert len(pictures) == 5
    assert min(pictures) > 5


@pytest.mark.slow
def test_a_notebook_says_what_is_missing(sweep, monkeypatch, tmp_path):
    with pytest.raises(Exception, match="copy has no tested row that read lights"):
        run("light_stream", monkeypatch, LTNET_RUN=sweep / "copy")
    with pytest.raises(Exception, match=r"holds no runs; expected folders with summary\.json"):
        run("ablation_tables", monkeypatch, LTNET_RUNS=tmp_path)
