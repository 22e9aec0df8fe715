"""Rows, results and tables of the benchmark."""

import dataclasses
import json
from pathlib import Path

import bench_tiny
import pytest
import yaml

from ltnet_pl import InputError
from ltnet_pl.bench.configs import _NEUTRAL, config_hash, resolve
from ltnet_pl.bench.plan import Job, what_is_new, why_stale
from ltnet_pl.bench.renders import Renders
from ltnet_pl.bench.results import Result, read_result, write_result
from ltnet_pl.bench.rows import REFERENCE, Row, read_book
from ltnet_pl.bench.tables import columns, differences_table, report, table
from ltnet_pl.report.tables import markdown

EXPERIMENTS = bench_tiny.EXPERIMENTS
BOOK = read_book(EXPERIMENTS)


# ---- results and tables


def made(row, seed=0, psnr=20.0, guide=None, scenes=(0.0, 0.0), **given):
    """A result with numbers of one's choice; ``scenes``: what each test scene adds to the PSNR."""
    values = {
        "row": row,
        "tier": "tiny",
        "seed": seed,
        "config": "c",
        "data": "d",
        "code": "k",
        "stream": None,
        "versions": {"torch": "2"},
        "machine": "2 cores, X",
        "date": "2026-02-03",
        "seconds": 90.0,
        "threads": 1,
        "parameters": 1_234_567,
        "operations": {"network": 30_000_000_000, "guide_size": 256},
        "label": {"psnr": psnr, "ssim": 0.5, "lpips_squeeze": 0.25, "mps_squeeze": 0.625, "psnr_0": 30.0, "psnr_180": 12.0},
        "guide": None if guide is None else {"psnr": guide},
        "per_scene": {"label": {"psnr": [psnr + s for s in scenes], "ssim": [0.5, 0.5], "lpips_squeeze": [0.2, 0.3]}},
    }
    return Result(**(values | given))


def test_results_survive_the_disk(tmp_path):
    result = made("a", guide=19.0, identity={"psnr": 40.0, "capped": 0, "pairs": 4}, absent={"lpips": "why"})
    path = write_result(tmp_path, result)
    assert path == tmp_path / "tiny" / "a-seed0.json"
    assert read_result(tmp_path, "tiny", "a", 0) == result
    assert read_result(tmp_path, "tiny", "b", 0) is None
    assert len(path.read_text().splitlines()) < 40
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputError, match="delete it to have it made anew"):
        read_result(tmp_path, "tiny", "a", 0)


def test_table_of_known_numbers():
    results = {
        "LTNet": [made("LTNet", 0, 21.0, 20.5, readings={"direction": 0.95}), made("LTNet", 1, 22.0, 21.5)],
        "copy": [made("copy", psnr=10.123, threads=0, parameters=0, operations={"network": 0})],
    }
    results["LTNet"] = [
        dataclasses.replace(r, operations={"network": 30 * 10**9, "cues": 4 * 10**9, "guide_size": 256}) for r in results["LTNet"]
    ]
    everything = [r for of in results.values() for r in of]
    shown = columns(everything, {"LTNet": 812.4}, "cpu")
    lines = table(results, shown).splitlines()
    assert [line.split(" | ") for line in lines] == [
        [
            *(
                "| row",
                "seeds",
                "PSNR",
                "0°",
                "180°",
                "SSIM",
                "LPIPS (SqueezeNet)",
                "MPS (SqueezeNet)",
                "guide PSNR",
                "guide costs (dB)",
            ),
            *("parameters (M)", "multiply-adds (G)", "of them cues (G)", "ms (cpu)", "training (min) |"),
        ],
        ["| ---", *["---:"] * 13, "---: |"],
        [
            *("| LTNet", "2", "**21.50 ± 0.71**", "**30.00**", "**12.00**", "**0.5000 ± 0.0000**", "**0.2500 ± 0.0000**"),
            *("**0.6250 ± 0.0000**", "21.00 ± 0.71", "0.50", "1.235", "34.0", "4.0", "812", "1.5 |"),
        ],
        [
            *("| copy", "1", "10.12", "**30.00**", "**12.00**", "**0.5000**", "**0.2500**", "**0.6250**", "–", "–"),  # noqa: RUF001
            *("0.000", "0.0", "–", "–", "– |"),  # noqa: RUF001
        ],
    ]


def test_every_metric_of_images_shows_its_spread():
    label = [{"psnr": 20.0 + s, "ssim": 0.5 + 0.01 * s, "lpips_squeeze": 0.2 - 0.02 * s, "mps_squeeze": 0.6} for s in (0, 1, 2)]
    results = {"a": [made("a", s, label=label[s], guide=18.0 + 2 * s) for s in (0, 1, 2)]}
    results["a"][2].label.pop("lpips_squeeze")  # no weights were at hand
    head, _, line = table(results, columns(results["a"], {}, "")).splitlines()
    found = dict(zip(head.split(" | "), line.split(" | "), strict=True))
    assert found["seeds"] == "3"
    assert found["PSNR"] == "21.00 ± 1.00"
    assert found["SSIM"] == "0.5100 ± 0.0100"
    assert found["LPIPS (SqueezeNet)"] == "0.1900 ± 0.0141"
    assert found["MPS (SqueezeNet)"] == "0.6000 ± 0.0000"
    assert found["guide PSNR"] == "20.00 ± 2.00"
    assert "±" not in found["guide costs (dB)"] + found["parameters (M)"]
    # one seed each is said nowhere
    assert "seeds" not in [column.title for column in columns([made("a"), made("b")], {}, "")]


def test_results_of_other_code_are_not_compared():
    results = {
        "LTNet": [made("LTNet", 0, 20.0), made("LTNet", 1, 22.0)],
        "older": [made("older", s, 25.0 + s, code="before") for s in (0, 1)],
        "half": [made("half", 0, 19.0), made("half", 1, 10.0, code="before")],
        "elsewhere": [made("elsewhere", 0, 20.0, data="other", code="before")],
    }
    text, notes = differences_table(results, {name: None if name == "LTNet" else "LTNet" for name in results})
    lines = text.splitlines()
    assert lines[2] == "| older - LTNet | 0, 1 | – | – | – | other code |"  # noqa: RUF001
    assert lines[3].startswith("| half - LTNet | 0 | -1.00 [-1.00, -1.00] | ")
    assert lines[3].endswith(" | claimed |")
    assert [note.partition(":")[0] for note in notes] == ["elsewhere"]


def test_differences_of_known_numbers():
    results = {
        "LTNet": [made("LTNet", 0, 20.0), made("LTNet", 1, 22.0)],
        "better": [made("better", 0, 21.0), made("better", 1, 23.0)],
        "equal": [made("equal", 0, 20.0, scenes=(0.5, -0.5))],
        "elsewhere": [made("elsewhere", 0, 20.0, data="other")],
        "later": [made("later", 7, 20.0)],
    }
    text, notes = differences_table(results, {name: None if name == "LTNet" else "LTNet" for name in results})
    lines = text.splitlines()
    assert lines[0] == "| rows | seeds | PSNR (dB) | SSIM | LPIPS | PSNR |"
    zero = "+0.0000 [+0.0000, +0.0000]"
    assert lines[2] == f"| better - LTNet | 0, 1 | +1.00 [+1.00, +1.00] | {zero} | {zero} | claimed |"
    assert lines[3] == f"| equal - LTNet | 0 | +0.00 [-0.50, +0.50] | {zero} | {zero} | not distinguishable |"
    assert len(lines) == 4
    assert [note.partition(":")[0] for note in notes] == ["elsewhere", "later"]


def test_report_has_groups_questions_and_notes(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("# Does it help?\n")
    # the reference is shown in each table, wherever it stands
    rows = [Row("a", "cues", (file,), ()), Row("b", "cues", (file,), ()), Row("LTNet", "methods", (), ())]
    results = {"LTNet": [made("LTNet")], "a": [made("a", psnr=19.0)]}
    text = report("python -m x", rows, results, {"LTNet": None, "a": "LTNet", "b": "LTNet"}, ["b: no result yet."], {}, "")
    assert text.count("`python -m x` (2 cores, X; 2026-02-03)") == 4  # all, two groups, differences
    cues, methods = text.partition("## Cues")[2].partition("## Differences")[0].split("## Methods")
    assert "| a |" not in methods
    assert "| LTNet |" in cues
    assert "* a: Does it help?" in cues
    assert "| b |" not in text
    assert "* b: no result yet." in text
    assert report("x", rows, {}, {}, ["why."], {}, "") == "no results to show\n* why.\n"


def test_a_bar_in_a_name_ends_no_cell():
    assert markdown(["row"], [["a|b"]]).splitlines()[2] == r"| a\|b |"


# ---- rows


def test_rows_ask_questions_and_there_are_few_to_claim():
    assert all(row.question.endswith(("?", ".")) for row in BOOK.rows.values())
    claimed = {row.name: row for row in BOOK.choose("claim", None)}
    assert 1 < len(claimed) <= 8
    assert {"LTNet", "UNet", "Challenge2021-residual", "field_bilateral", "true_camera"} <= set(claimed)
    assert BOOK.seeds["claim"] == (0, 1, 2)
    assert set(BOOK.seeds) <= {path.stem for path in (EXPERIMENTS / "benchmark").glob("*.yaml")}


def test_rows_are_held_against_what_differs_in_one_thing():
    screened = {row.name: row for row in BOOK.choose("screen", None)}
    against = {name: BOOK.against(row, set(screened)) for name, row in screened.items()}
    # what is trained by labels alone against what is too; the paper's claim step by step
    steps = {"field_direct": "field_residual", "residual_doubled": "field_residual", "residual_relative": "residual_doubled"}
    assert {name: against[name] for name in steps} == steps
    assert against["UNet-direct"] == "UNet"
    labels = EXPERIMENTS / "benchmark" / "labels.yaml"
    by_labels = {name for name, row in screened.items() if labels in row.configs} - {"LTNet-labels", *steps}
    assert {"field_bilateral", "true_camera", "no_cues", "field_residual"} <= by_labels
    assert {against[name] for name in by_labels} == {"LTNet-labels"}
    # where the named one has no result
    assert BOOK.against(screened["field_direct"], {"LTNet-labels", "field_direct"}) == "LTNet-labels"


def test_a_question_is_the_last_file_that_asks(tmp_path):
    for name, first in (("a", "# Both lights are given."), ("b", "# Does it help?"), ("c", "# Why it is so.")):
        (tmp_path / f"{name}.yaml").write_text(f"{first}\nx: 1\n")
    a, b, c = (tmp_path / f"{name}.yaml" for name in "abc")
    asked = {files: Row("r", "g", files, ()).question for files in ((a,), (a, b), (b, c), ())}
    assert list(asked.values()) == ["Both lights are given.", "Does it help?", "Does it help?", "The default."]


def test_a_row_is_held_against_the_one_it_adds_to():
    a, b = Path("a.yaml"), Path("b.yaml")
    rows = {
        name: Row(name, "g", files, ()) for name, files in (("LTNet", ()), ("LTNet-labels", (a,)), ("x", (a, b)), ("y", (b,)))
    }
    book = dataclasses.replace(BOOK, rows=rows)
    found = {name: book.against(row, set(rows)) for name, row in rows.items()}
    assert found == {"LTNet": None, "LTNet-labels": "LTNet", "x": "LTNet-labels", "y": "LTNet"}
    assert book.against(rows["x"], {"LTNet", "x"}) == "LTNet"
    # where the reference is not in the tier
    assert book.against(rows["y"], {"LTNet-labels", "y"}) == "LTNet-labels"
    assert book.against(rows["LTNet-labels"], {"LTNet-labels", "y"}) is None


def test_the_shared_file_keeps_the_callbacks_that_shape_weights():
    """It replaces the list of base.yaml, which must not be lost by that."""
    base, shared = (
        yaml.safe_load((EXPERIMENTS / name).read_text())["trainer"]["callbacks"]
        for name in ("base.yaml", "benchmark/benchmark.yaml")
    )
    shaping = [part for part in base if part["class_path"].rpartition(".")[2] not in _NEUTRAL]
    assert [part for part in shared if part["class_path"].rpartition(".")[2] not in _NEUTRAL] == shaping


@pytest.mark.slow
def test_all_rows_differ_and_can_be_trained():
    for tier in BOOK.seeds:
        hashes = {}
        for row in BOOK.choose(tier, None):
            config = resolve([f"--config={file}" for file in BOOK.configs(row, tier)], row.name)
            hashes.setdefault(config_hash(config), []).append(row.name)
            data = config["data"]["init_args"]
            assert (data["val_scenes"], data["test_scenes"], data["num_workers"]) == (12, 20, 0)
        assert [names for names in hashes.values() if len(names) > 1] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("rows: {}\n", "expected the keys tiers and rows"),
        ("tiers: {a: {seeds: []}}\nrows: {}\n", r"tier a is .*; expected \{seeds: \[0, ...\]\}"),
        ("tiers: {a: {seeds: [0]}}\nrows: {x: {group: g}}\n", "row x is .*; expected the keys configs, group, tiers"),
        (
            "tiers: {a: {seeds: [0]}}\nrows: {x: {group: g, configs: [], tiers: [a], against: y}}\n",
            "row x is held against 'y'; expected the name of another row",
        ),
        ("tiers: {a: {seeds: [0]}}\nrows: {x: {group: g, configs: [], tiers: [b]}}\n", "row x names the tier 'b'"),
        ("tiers: {a: {seeds: [0]}}\nrows: {x: {group: g, configs: [gone.yaml], tiers: [a]}}\n", "gone.yaml does not exist"),
        ("tiers: {a: {seeds: [0]}}\nrows: {}\n", f"has no row {REFERENCE}"),
        ("rows: [\n", "expected YAML"),
    ],
)
def test_a_wrong_file_of_rows_is_refused(tmp_path, content, message):
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark" / "rows.yaml").write_text(content)
    with pytest.raises(InputError, match=message):
        read_book(tmp_path)


# ---- what is stale


def test_why_a_result_is_stale():
    row = BOOK.rows["CopyInput"]
    job = Job(row, 0, "tiny", (), {}, "c", None, "d", Path("run"), trains=False, borrows=True)
    reference = dataclasses.replace(job, row=BOOK.rows[REFERENCE], config_hash="r", borrows=False)
    good = made("CopyInput", stream="r")
    assert why_stale(job, good, reference) is None
    assert "configuration has changed" in why_stale(job, dataclasses.replace(good, config="x"), reference)
    assert "data has changed" in why_stale(job, dataclasses.replace(good, data="x"), reference)
    assert "whose light stream" in why_stale(job, dataclasses.replace(good, stream="x"), reference)
    # other code is told in the table, but does not cost a training
    assert why_stale(job, dataclasses.replace(good, code="x"), reference) is None
    # but not where it is that of the light stream that read the guides
    read = dataclasses.replace(good, stream_code="k")
    assert why_stale(job, read, reference, "k") is None
    assert "the code that trained LTNet, whose light stream read its guides" in why_stale(job, read, reference, "x")
    assert why_stale(job, read, reference, None) is None
    # results of before it was noted were read by a light stream of their own code
    assert why_stale(job, good, reference, good.code) is None
    assert "the code that trained LTNet" in why_stale(job, good, reference, "x")
    assert why_stale(dataclasses.replace(job, borrows=False), read, reference, "x") is None


def test_scores_that_can_be_had_now_are_new():
    result = made("a", absent={"lpips": "no weights", "mps": "no weights"})
    assert what_is_new(result, {"lpips": "no weights", "mps": "no weights"}) is None
    assert what_is_new(result, {}).startswith("LPIPS and MPS could not be computed when it was scored")
    assert what_is_new(made("a"), {}) is None


def test_rows_of_two_renders_are_compared_where_the_pictures_are_the_same(tmp_path):
    results = {
        "LTNet": [made("LTNet")],
        "mine": [made("mine", psnr=19.0, data="other")],
    }
    against = {"LTNet": None, "mine": "LTNet"}
    for far, compared in ((1e-4, True), (0.02, False)):
        (tmp_path / "renders.json").write_text(
            json.dumps({"d": {"copied": [14.0, 15.0]}, "other": {"copied": [14.0, 15.0 + far]}})
        )
        text, notes = differences_table(results, against, Renders(tmp_path))
        assert ("-1.00 [-1.00, -1.00]" in text) == compared
        assert bool(notes) != compared
