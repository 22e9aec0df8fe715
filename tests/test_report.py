"""The report's table: what it reads, what it sets in which form, and what it refuses."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folders import NO_WEIGHTS, pairs, write_log, write_row, write_three

from ltnet_pl import InputError
from ltnet_pl.report import read_rows, report, table
from ltnet_pl.report.runs import Row
from ltnet_pl.report.tables import MISSING


@pytest.fixture
def three(tmp_path):
    """Three runs: a network that reads lights, one that does not, and a copy of the input with nothing trained."""
    return write_three(tmp_path)


GOLDEN = f"""\
| row | PSNR | SSIM | LPIPS (SqueezeNet) | MPS (SqueezeNet) | PSNR 90° | parameters |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| ltnet | 19.69 | **0.7123** | {MISSING} | {MISSING} | **21.17** | 412,345 |
| unet | 18.20 | **0.7123** | 0.2000 | 0.7562 | 18.20 | 1,234,567 |
| copy \\| input | **∞** | 0.4000 | {MISSING} | {MISSING} | 10.50 | 0 |

| row | Guide direction accuracy | Guide angular error (°) | Guide median mired error |
| --- | ---: | ---: | ---: |
| ltnet | 0.667 | 63.4 | 5.0 |

LPIPS, MPS: absent for copy | input; {NO_WEIGHTS}
"""


def test_table_equals_the_golden_markdown(three):
    assert table(read_rows(three)) == GOLDEN


def test_lower_is_better_for_distances_and_errors(tmp_path):
    for name, distance, error in (("a", 0.3, 20.0), ("b", 0.1, 40.0)):
        metrics = {"psnr": 20.0, "lpips_squeeze": distance, "guide_angular_error": error, "guide_direction_accuracy": distance}
        write_row(tmp_path / name, name, metrics, pairs(20))
    text = table(read_rows([tmp_path / "a", tmp_path / "b"]))
    assert "| a | **20.00** | 0.3000 |" in text
    assert "| b | **20.00** | **0.1000** |" in text
    assert "| a | **20.0** | **0.300** |" in text


def test_an_unknown_metric_is_shown_and_never_called_best(tmp_path):
    for name in "ab":
        write_row(tmp_path / name, name, {"psnr": 20.0, "sharpness": 1.0}, [{"name": "p", "psnr": 1, "sharpness": 1}])
    assert "| a | **20.00** | 1.0000 |" in table(read_rows([tmp_path / "a", tmp_path / "b"]))


def test_a_single_row_has_no_best(tmp_path):
    write_row(tmp_path, "a", {"psnr": 20.0}, pairs(20))
    assert "**" not in table(read_rows([tmp_path]))


@given(st.lists(st.one_of(st.none(), st.floats(0, 60), st.just(math.inf)), min_size=2, max_size=6))
def test_the_bold_values_are_the_largest_printed(values):
    summary = {"labels": {}, "absent": {}, "parameters": 0}
    rows = [Row(f"r{i}", Path(f"{i}/test/r"), summary | {"metrics": {"psnr": value}}, []) for i, value in enumerate(values)]
    cells = [line.split(" | ")[1] for line in table(rows).splitlines()[2 : 2 + len(rows)]]
    known = [value for value in values if value is not None]
    best = "∞" if math.inf in known else f"{max(known):.2f}" if known else None
    for value, cell in zip(values, cells, strict=True):
        text = MISSING if value is None else "∞" if value == math.inf else f"{value:.2f}"
        assert cell == (f"**{text}**" if text == best and len(known) > 1 else text)


def test_different_pairs_are_warned_about(three, capsys, tmp_path):
    write_row(tmp_path / "other", "other", {"psnr": 20.0}, [{"name": "p0", "psnr": 20}, {"name": "q", "psnr": 20}])
    rows = read_rows([three[0], tmp_path / "other"])
    expected = (
        "the rows were tested on different pairs, so their numbers do not compare: ltnet on 4; other on 2; common to all: 1."
    )
    assert f"Warning: {expected}" in table(rows)
    report([three[0], str(tmp_path / "other")], str(tmp_path / "r.html"))
    assert f"Warning: {expected}" in capsys.readouterr().out
    assert expected in (tmp_path / "r.html").read_text()
    assert "Warning" not in table(read_rows(three))


def test_a_warning_names_the_rows_that_differ_and_counts_those_that_agree():
    summary = {"metrics": {}, "labels": {}, "absent": {}, "parameters": 0}
    rows = [Row(f"r{i}", Path(f"{i}/test/r"), summary, [{"name": "q" if i == 2 else "p"}]) for i in range(5)]
    assert "do not compare: 4 rows on 1; r2 on 1; common to all: 0." in table(rows)


# ---- which rows


def test_a_run_with_several_rows_gives_them_all_and_each_once(tmp_path):
    for name in ("b", "a"):
        write_row(tmp_path, name, {"psnr": 20.0}, pairs(20))
    single = tmp_path / "test" / "b"
    assert [row.name for row in read_rows([tmp_path])] == ["a", "b"]
    assert [row.name for row in read_rows([single])] == ["b"]
    assert [row.name for row in read_rows([single, tmp_path])] == ["b", "a"]
    assert read_rows([single])[0].run == tmp_path.resolve()


def test_the_record_of_a_run_is_no_row(three):
    """`fit` leaves a summary.json too, beside the run's configuration."""
    before = table(read_rows(three))
    for run in three:
        (Path(run) / "config.yaml").write_text("seed_everything: 0\n")
        (Path(run) / "summary.json").write_text(json.dumps({"status": "finished", "row": "LTNet"}))
    assert table(read_rows(three)) == before


def test_equal_names_are_told_apart(tmp_path):
    for folder in ("x/seed0", "x/seed1", "y/seed1"):
        write_row(tmp_path / folder, "ltnet", {"psnr": 20.0}, pairs(20))
    two = [row.name for row in read_rows([tmp_path / "x" / "seed0", tmp_path / "x" / "seed1"])]
    assert two == ["ltnet (seed0)", "ltnet (seed1)"]
    names = [row.name for row in read_rows([tmp_path / folder for folder in ("x/seed0", "x/seed1", "y/seed1")])]
    assert names[0] == "ltnet (seed0)"
    assert len(set(names)) == 3
    assert str(tmp_path / "y" / "seed1") in names[2]


# ---- mistakes


def _broken_run(tmp_path, **changes):
    """A run whose files can be spoilt afterwards."""
    return write_row(tmp_path, "a", {"psnr": 20.0}, pairs(20, 10), **changes)


def _refused(*runs, **arguments):
    with pytest.raises(InputError) as caught:
        report([str(run) for run in runs], **arguments)
    return str(caught.value)


def test_no_run_is_refused():
    assert _refused().startswith("no run was given; expected at least one run folder: python -m ltnet_pl report RUN")


def test_a_missing_run_is_refused(tmp_path):
    assert f"run folder {tmp_path / 'x'} does not exist; expected a folder that `fit` or `test` wrote" in _refused(tmp_path / "x")


def test_an_untested_run_is_refused(tmp_path):
    message = _refused(tmp_path)
    assert (
        f"{tmp_path} holds no test results (no test/*/summary.json); run `python -m ltnet_pl test --config {tmp_path}" in message
    )
    assert message.endswith("first")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"row": "a", ', "is broken (Expecting property name"),
        ("\xff\xfe", "is broken ("),
        ("[1, 2]", "is broken: found nothing for 'row', expected a value of type str"),
        ("{}", "is broken: found nothing for 'row', expected a value of type str"),
        ('{"row": "a", "net": 3}', "is broken: found 3 for 'net', expected a value of type str"),
    ],
)
def test_a_broken_summary_is_refused(tmp_path, text, reason):
    path = _broken_run(tmp_path) / "summary.json"
    path.write_bytes(text.encode("latin-1"))
    message = _refused(tmp_path)
    assert message.startswith(f"{path} {reason}")
    assert message.endswith("run `python -m ltnet_pl test` again")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metrics": {"psnr": "high"}}, "found 'high' for the metric 'psnr', expected a number"),
        ({"labels": {"psnr": 1}}, "found 1 for 'psnr' of 'labels', expected text"),
        ({"absent": {"lpips": None}}, "found None for 'lpips' of 'absent', expected text"),
        ({"parameters": None}, "found None for 'parameters', expected a value of type int"),
    ],
)
def test_a_summary_of_the_wrong_kind_is_refused(tmp_path, changes, reason):
    path = _broken_run(tmp_path) / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert reason in _refused(tmp_path)


@pytest.mark.parametrize("column", ["name", "psnr", "guide_azimuth_pred"])
def test_a_missing_column_is_refused(tmp_path, column):
    path = _broken_run(tmp_path) / "per_image.csv"
    path.write_text(path.read_text().replace(column, "other", 1))
    message = _refused(tmp_path)
    assert f"{path} has no column {column!r}; expected name, psnr, input_azimuth, " in message


def test_a_cell_that_is_no_number_is_refused_with_its_line(tmp_path):
    path = _broken_run(tmp_path) / "per_image.csv"
    path.write_text(path.read_text().replace("p1,10", "p1,ten"))
    assert f"{path}, line 3: found 'ten' for 'psnr', expected a number; run `python -m ltnet_pl test` again" in _refused(tmp_path)


def test_a_row_longer_than_the_header_is_refused(tmp_path):
    path = _broken_run(tmp_path) / "per_image.csv"
    path.write_text(path.read_text().replace("\np1", ",,1,2\np1"))
    assert f"{path}, line 2" in _refused(tmp_path)


def test_per_image_rows_that_are_missing_are_refused(tmp_path):
    path = _broken_run(tmp_path) / "per_image.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    assert f"{path} has 1 rows, but summary.json beside it says 2 pairs" in _refused(tmp_path)
    path.unlink()
    assert f"{path} is missing; run `python -m ltnet_pl test` again" in _refused(tmp_path)


def test_a_broken_panel_is_refused_and_leaves_no_page(tmp_path):
    path = _broken_run(tmp_path) / "panels" / "p0.png"
    path.write_bytes(path.read_bytes()[:60])
    output = tmp_path / "r.html"
    assert f"{path} is broken" in _refused(tmp_path, output=str(output))
    assert not output.exists()


def test_broken_logs_and_configurations_are_refused(tmp_path):
    _broken_run(tmp_path)
    log = tmp_path / "logs" / "version_0" / "metrics.csv"
    write_log(tmp_path, 0, [{"epoch": 0, "step": 0, "train/loss": "low"}])
    assert f"{log}, line 2: found 'low' for 'train/loss', expected a number; remove the file or train again" in _refused(tmp_path)
    log.write_text("epoch,train/loss\n0,1\n")
    assert f"{log} has no column 'step'" in _refused(tmp_path)
    log.unlink()
    (tmp_path / "config.yaml").write_text("model: [1, 2")
    assert f"{tmp_path / 'config.yaml'} is broken (" in _refused(tmp_path)


def test_an_output_that_cannot_be_a_file_is_refused(tmp_path):
    _broken_run(tmp_path)
    assert f"--output {tmp_path} is a folder" in _refused(tmp_path, output=str(tmp_path))
    (tmp_path / "file").write_text("")
    message = _refused(tmp_path, output=str(tmp_path / "file" / "r.html"))
    assert f"{tmp_path / 'file'} is a file; expected a folder" in message


def test_a_full_disk_leaves_the_old_page(tmp_path, full_disk):
    _broken_run(tmp_path)
    output = tmp_path / "out" / "r.html"
    output.parent.mkdir()
    output.write_text("old")

    with pytest.raises(OSError, match="No space left"):
        report([str(tmp_path)], str(output))
    assert [(path.name, path.read_text()) for path in output.parent.iterdir()] == [("r.html", "old")]
