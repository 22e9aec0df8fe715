"""The report: what it reads, the table it sets, the page it writes, and what it refuses."""

import base64
import csv
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.report import figures, read_rows, report, table
from ltnet_pl.report.runs import LIGHT_COLUMNS, Row
from ltnet_pl.report.tables import MISSING

LABELS = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips_squeeze": "LPIPS (SqueezeNet)",
    "mps_squeeze": "MPS (SqueezeNet)",
    **{f"psnr_{change}": f"PSNR {change}°" for change in (0, 45, 90, 135, 180)},
    "input_direction_accuracy": "Input direction accuracy",
    "input_angular_error": "Input angular error (°)",
    "input_mired_error": "Input median mired error",
    "guide_direction_accuracy": "Guide direction accuracy",
    "guide_angular_error": "Guide angular error (°)",
    "guide_mired_error": "Guide median mired error",
}
NO_WEIGHTS = "no LPIPS trunk weights were found: name a file with --metrics.lpips_weights"
SIDE = 8


def panel(shade):
    """A panel of six grey tiles as PNG."""
    pixels = np.repeat(np.linspace(0, shade, 6), SIDE)[None, :, None] * np.ones((SIDE, 1, 3))
    content = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(content, format="PNG")
    return content.getvalue()


def write_row(run, row, metrics, images, *, absent=None, panels=True, **summary):
    """Write ``test/<row>`` of a run folder.

    ``images``: one dict per pair, whose missing columns are left empty.
    """
    folder = Path(run) / "test" / row
    (folder / "panels").mkdir(parents=True)
    content = {
        "row": row,
        "net": "LTNet",
        "light": "guide",
        "checkpoint": "checkpoints/best.ckpt",
        "pairs": len(images),
        "seed": 7,
    }
    content |= {"parameters": 412_345, "metrics": metrics, "labels": {key: LABELS.get(key, key) for key in metrics}}
    (folder / "summary.json").write_text(json.dumps(content | {"absent": absent or {}} | summary))
    header = ["name", *(key for key in metrics if "_" not in key), *LIGHT_COLUMNS]
    with (folder / "per_image.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, header, restval="")
        writer.writeheader()
        writer.writerows(images)
    for i, image in enumerate(images if panels else []):
        (folder / "panels" / f"{image['name']}.png").write_bytes(panel(40 + 10 * i))
    return folder


def write_log(run, version, lines):
    """Write one log of a training; lines are dicts, ragged as Lightning's are."""
    folder = Path(run) / "logs" / f"version_{version}"
    folder.mkdir(parents=True)
    header = ["epoch", "step", "train/loss", "val/psnr"]
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, header, restval="")
        writer.writeheader()
        writer.writerows(lines)


def pairs(*values):
    """Pairs p0, p1, ... with these PSNR."""
    return [{"name": f"p{i}", "psnr": value} for i, value in enumerate(values)]


@pytest.fixture
def three(tmp_path):
    """Three runs: a network that reads lights, one that does not, and a copy of the input with nothing trained."""
    images = pairs(24.0, 18.5, 21.0, 15.25)
    lights = {"input_azimuth": 0, "input_temperature": 6500, "target_azimuth": 90, "target_temperature": 4500}
    # p0: all right; p1: both directions wrong; p2: guide's temperature wrong, nothing read off the input; p3: truth unknown
    images[0] |= lights | {"input_azimuth_pred": 350, "guide_azimuth_pred": 100, "guide_temperature_pred": 4600}
    images[0] |= {"input_temperature_pred": 6600}
    images[1] |= lights | {"input_azimuth_pred": 45, "guide_azimuth_pred": 270, "guide_temperature_pred": 4400}
    images[1] |= {"input_temperature_pred": 6400}
    images[2] |= lights | {"guide_azimuth_pred": 89.9, "guide_temperature_pred": 2500}
    images[3] |= {"input_azimuth_pred": 10, "input_temperature_pred": 5000}
    readings = {"guide_direction_accuracy": 2 / 3, "guide_angular_error": 63.3667, "guide_mired_error": 5.05}
    write_row(tmp_path / "ltnet", "ltnet", {"psnr": 19.6875, "ssim": 0.71234, "psnr_90": 21.16667, **readings}, images)
    unet = {"psnr": 18.204, "ssim": 0.71231, "lpips_squeeze": 0.2, "mps_squeeze": 0.756155, "psnr_90": 18.204}
    write_row(tmp_path / "unet", "unet", unet, pairs(19, 18, 18.5, 17.316), net="UNet", parameters=1_234_567, light=None)
    copy = {"psnr": math.inf, "ssim": 0.4, "psnr_90": 10.5}
    write_row(
        *(tmp_path / "copy", "copy | input", copy, pairs(math.inf, 11, 10, 9)),
        **{"net": "CopyInput", "parameters": 0, "light": None, "seed": None, "checkpoint": None},
        absent={"lpips": NO_WEIGHTS, "mps": NO_WEIGHTS},
    )
    write_log(tmp_path / "ltnet", 0, [{"epoch": 0, "step": 49, "train/loss": 0.4}, {"epoch": 0, "step": 99, "val/psnr": 15.5}])
    write_log(tmp_path / "unet", 0, [{"epoch": 0, "step": 49, "train/loss": 0.5}, {"epoch": 0, "step": 99, "val/psnr": 14.5}])
    (tmp_path / "ltnet" / "config.yaml").write_text("model:\n  loss: {charbonnier: 1.0}\ntrainer: {max_steps: 1000}\n")
    return [str(tmp_path / name) for name in ("ltnet", "unet", "copy")]


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
        "the rows were tested on different pairs, so their numbers do not compare: ltnet on 4, other on 2; "
        "1 pairs are common to all."
    )
    assert f"Warning: {expected}" in table(rows)
    report([three[0], str(tmp_path / "other")], str(tmp_path / "r.html"))
    assert f"Warning: {expected}" in capsys.readouterr().out
    assert expected in (tmp_path / "r.html").read_text()
    assert "Warning" not in table(read_rows(three))


# ---- which rows


def test_a_run_with_several_rows_gives_them_all_and_each_once(tmp_path):
    for name in ("b", "a"):
        write_row(tmp_path, name, {"psnr": 20.0}, pairs(20))
    single = tmp_path / "test" / "b"
    assert [row.name for row in read_rows([tmp_path])] == ["a", "b"]
    assert [row.name for row in read_rows([single])] == ["b"]
    assert [row.name for row in read_rows([single, tmp_path])] == ["b", "a"]
    assert read_rows([single])[0].run == tmp_path.resolve()


def test_equal_names_are_told_apart(tmp_path):
    for folder in ("x/seed0", "x/seed1", "y/seed1"):
        write_row(tmp_path / folder, "ltnet", {"psnr": 20.0}, pairs(20))
    two = [row.name for row in read_rows([tmp_path / "x" / "seed0", tmp_path / "x" / "seed1"])]
    assert two == ["ltnet (seed0)", "ltnet (seed1)"]
    names = [row.name for row in read_rows([tmp_path / folder for folder in ("x/seed0", "x/seed1", "y/seed1")])]
    assert names[0] == "ltnet (seed0)"
    assert len(set(names)) == 3
    assert str(tmp_path / "y" / "seed1") in names[2]


# ---- curves


def test_curves_of_resumed_parts_are_joined_by_step(tmp_path):
    first = [{"epoch": i // 2, "step": 10 * i, "train/loss": 1.0} for i in range(6)] + [{"epoch": 2, "step": 50, "val/psnr": 1}]
    second = [{"epoch": i // 2, "step": 10 * i, "train/loss": 2.0} for i in range(4, 8)] + [
        {"epoch": 3, "step": 70, "val/psnr": 3}
    ]
    write_log(tmp_path, 2, first)
    write_log(tmp_path, 10, second)
    curves = figures.training_curves(tmp_path)
    assert curves["train/loss"].x.tolist() == [0, 10, 20, 30, 40, 50, 60, 70]
    assert curves["train/loss"].y.tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    # the validation at step 50 was lost with the first part's end
    assert curves["val/psnr"].x.tolist() == [3]
    assert curves["val/psnr"].y.tolist() == [3]


def test_a_log_without_these_quantities_and_a_run_without_logs_have_no_curves(tmp_path):
    write_log(tmp_path, 0, [{"epoch": 0, "step": 0}])
    assert figures.training_curves(tmp_path) == {}
    assert figures.training_curves(tmp_path / "nothing") == {}


def test_an_infinite_psnr_is_left_out_of_the_curve(tmp_path):
    write_log(tmp_path, 0, [{"epoch": 0, "step": 0, "val/psnr": "inf"}, {"epoch": 1, "step": 9, "val/psnr": 20}])
    assert figures.training_curves(tmp_path)["val/psnr"].y.tolist() == [20]


def test_long_curves_are_averaged_over_equal_stretches():
    curve = figures.Curve(np.arange(2.0 * figures.POINTS), np.tile([1.0, 3.0], figures.POINTS))
    x, y = figures.thin(curve)
    assert len(x) == figures.POINTS
    assert y.tolist() == [2.0] * figures.POINTS
    assert x[:2].tolist() == [0.5, 2.5]
    assert figures.thin(figures.Curve(x, y)).x is x


def test_curves_are_drawn_once_for_each_quantity_and_alike_each_time():
    one = {"train/loss": figures.Curve(np.arange(9.0), np.arange(1.0, 10.0))}
    drawn = figures.draw_curves({"a": one, "b": one | {"val/psnr": figures.Curve(np.array([0.0]), np.array([20.0]))}})
    assert [re.findall(r">(Training loss|Validation PSNR \(dB\))<", svg) for svg in drawn] == [
        ["Training loss"],
        ["Validation PSNR (dB)"],
    ]
    assert figures.COLOURS[0] in drawn[0]
    assert figures.COLOURS[0] not in drawn[1]
    assert figures.COLOURS[1] in drawn[1]
    assert "currentColor" in drawn[0]
    assert drawn == figures.draw_curves({"a": one, "b": one | {"val/psnr": figures.Curve(np.array([0.0]), np.array([20.0]))}})
    assert figures.draw_curves({}) == []


def test_no_two_of_24_runs_share_a_line():
    assert len({figures.line_of(i) for i in range(24)}) == 24


# ---- cases


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, {"best": [0]}),
        (4, {"best": [0, 1, 2], "worst": [3]}),
        (7, {"best": [0, 1, 2], "median": [3], "worst": [4, 5, 6]}),
        (11, {"best": [0, 1, 2], "median": [4, 5, 6], "worst": [8, 9, 10]}),
        (20, {"best": [0, 1, 2], "median": [8, 9, 10], "worst": [17, 18, 19]}),
    ],
)
def test_contact_sheets_show_best_median_and_worst_once(tmp_path, count, expected):
    write_row(tmp_path, "a", {"psnr": 20.0}, pairs(*range(40, 40 - count, -1)))
    sheet = figures.contact_sheet(read_rows([tmp_path])[0])
    assert {title: [int(case.name[1:]) for case in cases] for title, cases in sheet.items()} == expected


def test_a_case_carries_its_panel_unchanged(tmp_path):
    folder = write_row(tmp_path, "a", {"psnr": 20.0}, pairs(20, math.inf, ""))
    best = figures.contact_sheet(read_rows([tmp_path])[0])["best"]
    assert [(case.name, case.psnr) for case in best] == [("p1", math.inf), ("p0", 20.0)]  # p2 has no ground truth
    assert base64.b64decode(best[0].image.removeprefix("data:image/png;base64,")) == (folder / "panels" / "p1.png").read_bytes()
    assert best[0].size == (6 * SIDE, SIDE)


def test_a_missing_panel_is_said(tmp_path):
    write_row(tmp_path, "a", {"psnr": 20.0}, pairs(20), panels=False)
    report([str(tmp_path)], str(tmp_path / "r.html"))
    assert "the panel file panels/p0.png is missing" in (tmp_path / "r.html").read_text()


# ---- light readings


def test_confusions_count_the_nearest_class(three):
    found = {confusion.title: confusion for confusion in figures.confusions(read_rows(three)[0])}
    assert list(found) == [
        "Direction of the guide",
        "Direction of the input",
        "Temperature of the guide",
        "Temperature of the input",
    ]
    guide = found["Direction of the guide"]
    expected = np.zeros((8, 8), dtype=int)
    expected[2, 2], expected[2, 6] = 2, 1  # E read as E twice (100 and 89.9 degrees), as W once
    assert (guide.counts == expected).all()
    assert (guide.correct, guide.total) == (2, 3)
    assert guide.shares[2].tolist() == pytest.approx([0, 0, 2 / 3, 0, 0, 0, 1 / 3, 0])
    assert guide.shares[0].tolist() == [0] * 8
    assert (found["Direction of the input"].correct, found["Direction of the input"].total) == (1, 2)  # 350 is N, 45 is NE
    temperature = found["Temperature of the guide"]
    assert temperature.names == ("2500 K", "3500 K", "4500 K", "5500 K", "6500 K")
    assert temperature.counts[2].tolist() == [1, 0, 2, 0, 0]
    assert (found["Temperature of the input"].correct, found["Temperature of the input"].total) == (2, 2)


@pytest.mark.parametrize(("kelvin", "index"), [(1000, 0), (2916, 0), (2917, 1), (5958, 3), (5959, 4), (20000, 4)])
def test_the_nearest_temperature_is_taken_in_mired(tmp_path, kelvin, index):
    # between 2500 and 3500 K the middle is 1e6 / ((400 + 285.714) / 2) = 2916.67 K; between 5500 and 6500 K it is 5958.3 K
    image = {"name": "p", "psnr": 1, "input_temperature": 4500, "input_temperature_pred": kelvin}
    write_row(tmp_path, "a", {"psnr": 1.0}, [image])
    (confusion,) = figures.confusions(read_rows([tmp_path])[0])
    assert np.argwhere(confusion.counts).tolist() == [[2, index]]


def test_a_row_that_reads_no_light_has_no_confusion(three):
    assert figures.confusions(read_rows(three)[1]) == []


# ---- the page


class _Page(HTMLParser):
    """Collects what a page refers to, and whether its elements are closed in order."""

    VOID = frozenset({"meta", "img", "br", "use", "path", "link"})

    def __init__(self, text):
        super().__init__()
        self.links, self.open, self.images = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [(tag, name, value) for name, value in attrs if name in {"src", "href", "xlink:href", "data", "action"}]
        self.images += [dict(attrs) for _ in [0] if tag == "img"]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_refers_to_nothing_outside(three, tmp_path):
    output = tmp_path / "new" / "r.html"
    report(three, str(output), title="A <b>title</b> & more")
    text = output.read_text()
    parsed = _Page(text)
    assert parsed.open == []
    assert all(value.startswith(("data:image/png;base64,", "#")) for _, _, value in parsed.links), parsed.links
    for forbidden in ("<script", "<link", "@import", "url(http", "url('", "@font-face"):
        assert forbidden not in text
    assert "A &lt;b&gt;title&lt;/b&gt; &amp; more" in text
    assert [path.name for path in output.parent.iterdir()] == ["r.html"]
    assert len(parsed.images) == 12  # four pairs in each of three rows
    assert all(image["alt"] and image["width"] == str(6 * SIDE) for image in parsed.images)


def test_the_page_says_everything_that_the_table_says_and_more(three, tmp_path):
    report(three, str(tmp_path / "r.html"))
    text = (tmp_path / "r.html").read_text()
    for expected in (
        '<td class="best">21.17</td>',
        "412,345",
        NO_WEIGHTS,
        "PSNR: mean over images of each image&#39;s PSNR, in dB, on 8-bit images",
        "LPIPS (SqueezeNet): distance in the features of the trunk in brackets",
        "checkpoints/best.ckpt",
        "Direction of the guide: 2 of 3 right (66.7&nbsp;%)",
        "charbonnier: 1.0",
        "copy | input: the run folder has no config.yaml.",
        "No training log: copy | input.",
        "p0: 24.00 dB",
        "p0: ∞ dB",
    ):
        assert expected in text, expected


def test_the_same_runs_give_the_same_page(three, tmp_path):
    contents = set()
    for name in ("a.html", "b.html"):
        report(three, str(tmp_path / name))
        contents.add((tmp_path / name).read_bytes())
    assert len(contents) == 1


def test_rows_without_ground_truth_make_a_page_too(tmp_path):
    write_row(tmp_path, "a", {}, [{"name": "Pair000", "guide_azimuth_pred": 10}])
    report([str(tmp_path)], str(tmp_path / "r.html"))
    text = (tmp_path / "r.html").read_text()
    assert "the test pairs have no ground truth" in text
    assert "No row reads lights." in text


def test_many_rows_with_long_names_make_a_page(tmp_path):
    runs = []
    for i in range(30):
        runs.append(str(tmp_path / f"run{i}"))
        write_row(runs[-1], f"ablation_with_a_very_long_name_{'x' * 80}_{i}", {"psnr": 20.0 + i}, pairs(20))
        write_log(runs[-1], 0, [{"epoch": 0, "step": 1, "train/loss": 0.1 * i}])  # a loss of 0 has no logarithm
    report(runs, str(tmp_path / "r.html"))
    assert (tmp_path / "r.html").read_text().count("<figcaption>") == 30


def test_report_prints_table_and_path(three, tmp_path, capsys):
    report(three, str(tmp_path / "r.html"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"report: {tmp_path / 'r.html'}"
    (ltnet,) = [line for line in lines if "412,345" in line]
    assert re.findall(r"[^\s│]+", ltnet) == ["ltnet", "19.69", "0.7123", MISSING, MISSING, "21.17", "412,345"]
    assert any(NO_WEIGHTS in line for line in lines)  # not folded where there is no terminal


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


def test_a_full_disk_leaves_the_old_page(tmp_path, monkeypatch):
    _broken_run(tmp_path)
    output = tmp_path / "out" / "r.html"
    output.parent.mkdir()
    output.write_text("old")

    def full(self, text, encoding):
        with self.open("w") as file:
            file.write(text[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        report([str(tmp_path)], str(output))
    assert [(path.name, path.read_text()) for path in output.parent.iterdir()] == [("r.html", "old")]
