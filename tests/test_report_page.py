"""The report's page: what is drawn on it, that it is whole, and that it needs nothing else."""

import base64
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from run_folders import NO_WEIGHTS, SIDE, pairs, write_log, write_row, write_three

from ltnet_pl.report import figures, read_rows, report
from ltnet_pl.report.tables import MISSING


@pytest.fixture
def three(tmp_path):
    """Three runs: a network that reads lights, one that does not, and a copy of the input with nothing trained."""
    return write_three(tmp_path)


# ---- curves


def test_curves_of_resumed_parts_are_joined_by_step(tmp_path):
    first = [{"epoch": i // 2, "step": 10 * i, "train/loss": 1.0} for i in range(6)] + [{"epoch": 2, "step": 50, "val/psnr": 1}]
    second = [{"epoch": i // 2, "step": 10 * i, "train/loss": 2.0} for i in range(4, 8)] + [
        {"epoch": 3, "step": 70, "val/psnr": 3}
    ]
    write_log(tmp_path, 2, first)
    write_log(tmp_path, 10, second)
    # what `test` and `validate` logged afterwards is no part of the training
    write_log(tmp_path, 11, [{"epoch": 0, "step": 0, "test/psnr": 5}])
    write_log(tmp_path, 12, [{"epoch": 0, "step": 0, "val/psnr": 5}])
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
    write_log(tmp_path, 0, [{"epoch": 0, "step": 4, "val/psnr": "inf"}, {"epoch": 1, "step": 9, "val/psnr": 20}])
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
