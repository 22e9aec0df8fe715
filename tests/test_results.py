"""Runs as a frame: what is collected, what varies, how it is stored, and what is refused."""

import json
import math
from types import SimpleNamespace

import pytest
from run_folders import pairs, write_row, write_run

from ltnet_pl import InputError
from ltnet_pl.results import collect, curves, load, save, varying

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


@pytest.fixture
def sweep(tmp_path):
    """Two fields of two seeds each."""
    write_run(tmp_path / "sweep" / "b" / "affine-1", seed=1, psnr=22.0, tested=(22.0, 23.0))
    write_run(tmp_path / "sweep" / "b" / "affine-0", psnr=20.0, tested=(20.0, 21.0))
    write_run(tmp_path / "sweep" / "gain-0", "gain", psnr=18.0, tested=(18.0, 20.0))
    write_run(tmp_path / "sweep" / "gain-1", "gain", seed=1, psnr=19.0, status="stopped")
    return tmp_path / "sweep"


def test_a_row_for_each_run_with_its_configuration_and_its_numbers(sweep):
    frame = collect(sweep)
    assert list(frame["run"]) == ["b/affine-0", "b/affine-1", "gain-0", "gain-1"]
    first = frame.iloc[0]
    about = {"status": "finished", "row": "LTNet (guide light)", "net": "LTNet", "seed": 0, "steps": 12, "parameters": 1000}
    config = {"model.net.class_path": "ltnet_pl.nets.LTNet", "model.net.init_args.field": "affine", "trainer.devices": 1}
    config |= {"model.net.init_args.widths": "[8, 12]", "trainer.callbacks.EMA.decay": 0.995, "trainer.callbacks.Panels": True}
    numbers = {"best/val/psnr": 20.0, "last/val/psnr": 19.0, "last/train/loss": 0.3, "test/psnr": 20.5, "seconds": 3.5}
    assert {key: first[key] for key in about | config | numbers} == about | config | numbers
    assert first["folder"] == str(sweep / "b" / "affine-0")
    assert first["tested"] == first["row"]
    # null in the files
    assert math.isnan(first["last/val/loss"])
    assert frame["model.row"].isna().all()
    # not tested
    assert math.isnan(frame.iloc[3]["test/psnr"])
    assert frame.iloc[3]["status"] == "stopped"


def test_a_single_run_is_named_after_its_folder(sweep):
    assert list(collect(sweep / "gain-0")["run"]) == ["gain-0"]


def test_values_of_several_kinds_become_text(tmp_path):
    write_run(tmp_path / "a", devices=2)
    write_run(tmp_path / "b", devices="auto")
    assert list(collect(tmp_path)["trainer.devices"]) == ["2", "auto"]


def test_other_tested_rows_keep_their_names(sweep):
    write_row(sweep / "gain-0", "LTNet (label light)", {"psnr": 25.0}, pairs(25.0), folder="LTNet-label-light")
    write_row(sweep / "gain-1", "a", {"psnr": 1.0}, pairs(1.0))
    write_row(sweep / "gain-1", "b", {"psnr": 2.0}, pairs(2.0))
    frame = collect(sweep).set_index("run")
    assert frame.loc["gain-0", ["test/psnr", "test/LTNet-label-light/psnr"]].tolist() == [19.0, 25.0]
    # neither is the run's own
    assert frame.loc["gain-1", ["test/a/psnr", "test/b/psnr"]].tolist() == [1.0, 2.0]
    assert math.isnan(frame.loc["gain-1", "test/psnr"])


def test_a_network_without_training_is_a_run_too(sweep):
    write_row(sweep / "copy", "CopyInput", {"psnr": 15.0}, pairs(15.0), net="CopyInput", seed=None, parameters=0)
    frame = collect(sweep)
    copy = frame.set_index("run").loc["copy"]
    assert copy[["status", "row", "net", "parameters", "test/psnr"]].tolist() == ["tested", "CopyInput", "CopyInput", 0, 15.0]
    assert frame["seed"].isna().sum() == 1
    assert str(frame["seed"].dtype) == "Int64"


def test_only_what_varies_is_kept_and_not_what_repeats_seed_or_folder(sweep):
    frame = collect(sweep)
    kept = varying(frame)
    assert [key for key in kept if "." in key] == ["model.net.init_args.field"]
    assert {"run", "seed", "best/val/psnr", "test/psnr"} <= set(kept)
    assert "seed_everything" in frame


def test_curves_are_long(sweep):
    frame = curves(sweep)
    assert list(frame.columns) == ["run", "step", "key", "value"]
    of = frame[frame["run"] == "b/affine-1"]
    assert of[["step", "key"]].to_numpy().tolist() == [[4, "train/loss"], [8, "val/psnr"], [8, "val/loss"]]
    assert of["value"].tolist()[:2] == [0.5, 22.0]
    assert math.isnan(of["value"].tolist()[2])


def test_a_frame_survives_the_disk(sweep, tmp_path):
    write_run(sweep / "other", devices="auto", tested=(math.inf, 1.0))
    write_row(sweep / "copy", "CopyInput", {"psnr": 15.0}, pairs(15.0), seed=None)
    for i, frame in enumerate((collect(sweep), curves(sweep))):
        save(frame, tmp_path / f"{i}.parquet")
        pd.testing.assert_frame_equal(load(tmp_path / f"{i}.parquet"), frame)


# ---- bad inputs


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no runs; expected folders with summary\.json"):
        collect(tmp_path)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text("a: 1\n")
    with pytest.raises(InputError, match="holds no runs but 1 that wrote no record yet"):
        collect(tmp_path)
    with pytest.raises(InputError, match="is no folder; expected a folder of runs"):
        collect(tmp_path / "missing")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("summary.json", '{"status": "fin', r"summary\.json is broken"),
        ("summary.json", "[]", r"summary\.json is broken: found \[\]"),
        ("summary.json", '{"status": 3}', r"found 3 for 'status'"),
        ("config.yaml", "a: [1, 2", r"config\.yaml is broken"),
        ("config.yaml", "text", r"config\.yaml holds 'text'"),
        ("test/own/per_image.csv", "name\n", r"per_image\.csv has no column"),
    ],
)
def test_a_broken_file_is_named(sweep, name, text, said):
    (sweep / "gain-0" / name).write_text(text)
    with pytest.raises(InputError, match=rf"gain-0.*{said}"):
        collect(sweep)


@pytest.mark.parametrize(("key", "value"), [("best", {"val/psnr": "high"}), ("last", {"val/psnr": True}), ("best", None)])
def test_a_summary_without_numbers_is_refused(sweep, key, value):
    path = sweep / "gain-0" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(InputError, match=rf"summary\.json is broken: found .* for '{'best' if value is None else 'val/psnr'}'"):
        collect(sweep)


def test_runs_that_logged_nothing_have_no_curves(sweep):
    for path in sweep.rglob("metrics.jsonl"):
        path.unlink()
    with pytest.raises(InputError, match=r"logged a number; expected metrics\.jsonl"):
        curves(sweep)


def test_a_file_that_is_no_frame_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_text("text")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"its folder .* does not exist"):
        save(pd.DataFrame({"a": [1]}), tmp_path / "missing" / "a.parquet")


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_a_missing_extra_is_named(sweep, tmp_path, monkeypatch, library):
    frame = collect(sweep)
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(InputError, match=rf"needs {library}, which is not installed.*ltnet_pl\[notebooks\]"):
        collect(sweep) if library == "pandas" else save(frame, tmp_path / "a.parquet")


# ---- a sweep on a server


@pytest.fixture
def server(monkeypatch):
    """Stands for ``wandb.Api``: the sweep me/relight/abcd1234 of two runs; returns the runs."""
    import wandb

    def run(name, id, seed, history):
        config = {"seed_everything": seed, "model": {"net": {"class_path": "ltnet_pl.nets.LTNet", "init_args": {"fold": 2}}}}
        # a sweep notes its flags beside the tree
        config["model.net.fold"] = 2
        summary = {
            "trainer/global_step": 11,
            "_runtime": 30.5,
            # where the highest value is kept too
            "val/psnr": {"max": 19.0, "last": 18.0},
            "val/loss": 0.3,
            "train/loss": "NaN",
            "test/psnr": 17.5,
            "_step": 3,
        }
        return SimpleNamespace(
            name=name, id=id, state="crashed", config=config, summary=summary, scan_history=lambda: iter(history)
        )

    history = [
        {"trainer/global_step": 3, "train/loss": 0.5, "val/psnr": None},
        {"trainer/global_step": 3, "val/psnr": 19.0, "val/loss": 0.2},
        {"trainer/global_step": 11, "val/psnr": 18.0, "val/loss": "NaN"},
        {"_runtime": 30.0},
    ]
    runs = [run("calm-sky", "b", 1, history), run("calm-sky", "a", 0, [])]

    class Api:
        def sweep(self, path):
            if path != "me/relight/abcd1234":
                raise wandb.errors.CommError(f"no sweep {path}")
            return SimpleNamespace(runs=runs)

    monkeypatch.setattr(wandb, "Api", Api)
    return runs


@pytest.mark.parametrize("source", ["me/relight/abcd1234", "wandb:me/relight/abcd1234"])
def test_a_sweep_on_a_server_is_a_frame_too(server, source):
    frame = collect(source)
    assert list(frame["run"]) == ["calm-sky (a)", "calm-sky (b)"]
    second = frame.iloc[1]
    expected = {"status": "failed", "row": "LTNet", "net": "LTNet", "seed": 1, "steps": 12, "seconds": 30.5}
    expected |= {"model.net.init_args.fold": 2, "best/val/psnr": 19.0, "best/val/loss": 0.2, "last/val/psnr": 18.0}
    expected |= {"test/psnr": 17.5, "last/val/loss": 0.3}
    assert {key: second[key] for key in expected} == expected
    assert frame["folder"].isna().all()
    assert "model.net.fold" not in frame
    assert math.isnan(frame.iloc[0]["best/val/psnr"])
    long = curves(source)
    assert long[["step", "key"]].to_numpy().tolist() == [
        [4, "train/loss"],
        [4, "val/psnr"],
        [4, "val/loss"],
        [12, "val/psnr"],
        [12, "val/loss"],
    ]


def test_a_sweep_that_is_not_there_is_refused(server):
    with pytest.raises(InputError, match=r"me/relight/other cannot be read \(no sweep me/relight/other\)"):
        collect("wandb:me/relight/other")
    with pytest.raises(InputError, match="names no sweep; expected wandb:ENTITY/PROJECT/SWEEP"):
        collect("wandb:relight")
    server.clear()
    with pytest.raises(InputError, match="has no runs"):
        collect("me/relight/abcd1234")
