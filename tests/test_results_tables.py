"""Tables and differences of runs, with answers that are known."""

import math

import pytest
from run_folders import write_row, write_run

from ltnet_pl import InputError
from ltnet_pl.results import collect, compare, table
from ltnet_pl.results.comparing import scene_of
from ltnet_pl.results.tables import direction

pd = pytest.importorskip("pandas")

FIELD = "model.net.init_args.field"


def frame_of(*runs, **columns):
    """A frame of finished runs, given as (field, seed, PSNR)."""
    fields, seeds, values = zip(*runs, strict=True)
    names = [f"{field}-{seed}-{i}" for i, (field, seed, _) in enumerate(runs)]
    given = {"run": names, "status": "finished", "seed": list(seeds), FIELD: list(fields), "test/psnr": list(values)}
    return pd.DataFrame(given | columns)


@pytest.fixture
def frame():
    """Affine has mean 21 and deviation sqrt(2); gain has mean 20 and deviation 1."""
    runs = [("affine", 0, 20.0), ("affine", 1, 22.0), ("gain", 0, 19.0), ("gain", 1, 20.0), ("gain", 2, 21.0)]
    return frame_of(*runs, **{"best/val/loss": [0.5, 0.3, 0.1, 0.2, 0.3], "parameters": 1234})


def test_means_deviations_and_the_best(frame):
    shown = table(frame, FIELD, ["test/psnr", "best/val/loss", "parameters"])
    assert shown.markdown() == (
        "| field | test/psnr | best/val/loss | parameters | seeds |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| affine | **21.00 ± 1.41** | 0.4000 ± 0.1414 | 1,234 ± 0 | 2 |\n"
        "| gain | 20.00 ± 1.00 | **0.2000 ± 0.1000** | 1,234 ± 0 | 3 |\n"
    )
    assert str(shown) == shown.markdown()
    numbers = shown.numbers.set_index(FIELD)
    assert numbers.loc["affine", ["test/psnr", "test/psnr std", "test/psnr n"]].tolist() == pytest.approx([21, math.sqrt(2), 2])


def test_titles_may_be_given(frame):
    shown = table(frame, {FIELD: "kind of field"}, {"test/psnr": "PSNR (dB)"})
    assert shown.head == ("kind of field", "PSNR (dB)", "seeds")


def test_rows_of_several_columns_in_the_order_of_the_frame():
    frame = frame_of(("gain", 0, 1.0), ("affine", 0, 2.0), ("gain", 0, 3.0), **{"a.widths": ["w", None, "v"]})
    shown = table(frame, [FIELD, "a.widths"], "test/psnr")
    assert [[cell.text for cell in line] for line in shown.body] == [
        ["gain", "w", "1.00", "1"],
        ["affine", "–", "2.00", "1"],  # noqa: RUF001 - what the tables print
        ["gain", "v", "3.00", "1"],
    ]


def test_equal_as_printed_is_equally_good():
    shown = table(frame_of(("a", 0, 20.001), ("b", 0, 20.002), ("c", 0, 19.0)), FIELD, "test/psnr")
    assert [line[1].best for line in shown.body] == [True, True, False]


def test_one_row_alone_is_not_the_best():
    assert not table(frame_of(("a", 0, 20.0)), FIELD, "test/psnr").body[0][1].best


def test_values_that_are_missing_are_counted():
    shown = table(frame_of(("a", 0, 20.0), ("a", 1, math.nan), ("b", 0, math.nan)), FIELD, "test/psnr")
    assert [line[1].text for line in shown.body] == ["20.00 (1)", "–"]  # noqa: RUF001 - what the tables print
    assert any("in brackets" in note for note in shown.notes)


def test_infinite_psnr_has_no_deviation():
    assert table(frame_of(("a", 0, math.inf), ("a", 1, 20.0)), FIELD, "test/psnr").body[0][1].text == "∞"


def test_runs_that_are_not_finished_are_named(frame):
    frame["status"] = ["stopped", *["finished"] * 4]
    shown = table(frame, FIELD, "test/psnr")
    assert shown.notes == ("Not finished, but counted: affine-0-0 (stopped).",)
    assert shown.markdown().endswith("\n\n* Not finished, but counted: affine-0-0 (stopped).\n")
    assert "<p>Not finished, but counted: affine-0-0 (stopped).</p>" in shown.html()
    assert shown.latex().endswith("% Not finished, but counted: affine-0-0 (stopped).\n")


def test_html_is_escaped_and_bold(frame):
    frame[FIELD] = frame[FIELD].replace("affine", "a<b>&_c")
    shown = table(frame, {FIELD: "a & b"}, "test/psnr")
    text = shown.html()
    assert "a&lt;b&gt;&amp;_c" in text
    assert "a &amp; b" in text
    assert "<b>" not in text
    assert text.count("font-weight: bold") == 1
    name = text[text.index("#T_") + 1 : text.index("_row0_col1")]
    assert f'id="{name}_row0_col1" class="data row0 col1" >21.00 ± 1.41</td>' in text
    assert shown._repr_html_() == text == table(frame, {FIELD: "a & b"}, "test/psnr").html()
    assert name not in table(frame.iloc[:2], {FIELD: "a & b"}, "test/psnr").html()


def test_latex_is_escaped_and_bold(frame):
    frame[FIELD] = frame[FIELD].replace("affine", "50% a_b")
    text = table(frame, {FIELD: "field_kind"}, {"test/psnr": "PSNR 90°"}).latex()
    assert text == (
        "\\begin{tabular}{lrr}\n\\toprule\n"
        "field\\_kind & PSNR 90$^\\circ$ & seeds \\\\\n\\midrule\n"
        "50\\% a\\_b & \\bfseries 21.00 $\\pm$ 1.41 & 2 \\\\\n"
        "gain & 20.00 $\\pm$ 1.00 & 3 \\\\\n\\bottomrule\n\\end{tabular}\n"
    )


@pytest.mark.parametrize(
    ("key", "better"),
    [
        ("test/psnr", max),
        ("test/psnr_90", max),
        ("best/val/ssim", max),
        ("test/mps_alex", max),
        ("test/LTNet-label-light/psnr", max),
        ("test/guide_direction_accuracy", max),
        ("test/lpips_squeeze", min),
        ("best/val/loss", min),
        ("last/train/loss", min),
        ("last/train/ssim", min),
        ("test/input_mired_error", min),
        ("parameters", None),
        ("last/val/unheard_of", None),
    ],
)
def test_which_direction_is_better(key, better):
    assert direction(key) is better


# ---- bad inputs


def test_a_metric_that_no_run_logs_is_named(frame):
    with pytest.raises(
        InputError, match=r"columns 'test/psrn': no run logs test/psrn; there are test/psnr, best/val/loss.*did you mean"
    ):
        table(frame, FIELD, "test/psrn")
    frame["test/ssim"] = math.nan
    with pytest.raises(InputError, match="no run logs test/ssim"):
        table(frame, FIELD, "test/ssim")


def test_a_missing_column_is_named(frame):
    with pytest.raises(InputError, match=rf"rows 'model\.net\.feld'.*did you mean {FIELD}"):
        table(frame, "model.net.feld", "test/psnr")
    with pytest.raises(InputError, match="columns 'run' holds 'affine-0-0', not numbers"):
        table(frame, FIELD, "run")
    with pytest.raises(InputError, match="rows is empty"):
        table(frame, [], "test/psnr")
    with pytest.raises(InputError, match="two columns have the title 'x'"):
        table(frame, {FIELD: "x"}, {"test/psnr": "x"})
    with pytest.raises(InputError, match="has no runs"):
        table(frame[frame["seed"] > 5], FIELD, "test/psnr")


def test_rows_that_mix_different_runs_are_refused(frame):
    frame["model.net.init_args.fold"] = [1, 1, 2, 2, 2]
    with pytest.raises(
        InputError, match=r"affine-0-0 and gain-0-2 are both of seed 0.*differ in model\.net\.init_args\.field, model"
    ):
        table(frame.assign(net="LTNet"), "net", "test/psnr")
    shown = table(frame.assign(net="LTNet"), "net", "test/psnr", by=None)
    assert shown.head[-1] == "runs"
    assert [cell.text for cell in shown.body[0]] == ["LTNet", "20.40 ± 1.14", "5"]


# ---- differences


def images(*scenes):
    """Two images for each scene, 1 dB to either side of its value."""
    return [
        {"name": f"Image{i:03d}_{light}", "psnr": value + side}
        for i, value in enumerate(scenes)
        for light, side in (("2500_N_to_6500_NE", -1), ("4500_SW_to_2500_S", 1))
    ]


@pytest.fixture
def tested(tmp_path):
    """Two seeds of either field on four scenes: affine is 1 dB better in every scene, but the seeds differ by far more."""
    hard = [10.0, 15.0, 20.0, 25.0]
    for field, ahead in (("affine", 1.0), ("gain", 0.0)):
        for seed, noise in ((0, [3.0, -2.0, 1.0, 0.5]), (1, [-3.0, 2.0, -1.0, -0.5])):
            run = write_run(tmp_path / f"{field}-{seed}", field, seed)
            scored = images(*(a + ahead + b for a, b in zip(hard, noise, strict=True)))
            write_row(run, "LTNet (guide light)", {"psnr": 17.5 + ahead}, scored, folder="own", seed=seed, panels=False)
    copied = images(*(value - i for i, value in enumerate(hard)))
    write_row(tmp_path / "copy", "CopyInput", {"psnr": 16.0}, copied, seed=None, panels=False)
    return tmp_path


def test_a_difference_is_paired_by_scene_and_averages_images_and_seeds(tested):
    found = compare(collect(tested), {FIELD: "affine"}, {FIELD: "gain"})
    assert found.difference == pytest.approx((1.0, 1.0, 1.0))
    assert (found.scenes, found.images, found.seeds) == (4, 8, ((0, 1), (0, 1)))
    assert found.claimed
    interval = "95 % interval of a bootstrap over 4 scenes, 8 images; 2 seeds each"
    assert str(found) == f"psnr: field affine - field gain = +1.00 [+1.00, +1.00] ({interval})"


def test_a_folder_will_do_and_rows_may_be_named(tested):
    found = compare(tested, {FIELD: "gain"}, "CopyInput")
    # scene by scene 0, 1, 2 and 3 dB
    assert found.difference.mean == pytest.approx(1.5)
    assert 0 <= found.difference.low < 1.5 < found.difference.high <= 3
    assert found.seeds == ((0, 1), (None,))
    assert "2 seeds and 1 seed" in str(found)


def test_a_difference_that_is_chance_is_not_claimed(tested):
    frame = collect(tested)
    found = compare(frame[frame["seed"] != 1], {FIELD: "gain", "seed": 0}, {FIELD: "gain", "seed": 0})
    assert not found.claimed
    assert "not distinguishable" in str(found)


@pytest.mark.parametrize(
    ("one", "metric", "said"),
    [
        (
            "LTNet (label light)",
            "psnr",
            r"one 'LTNet \(label light\)': no run was tested as such.*LTNet \(guide light\), CopyInput",
        ),
        ("LTNet (guide light)", "psnr", "affine-0 and gain-0 are both of seed 0"),
        ({FIELD: "bilateral"}, "psnr", "no run has .*field = bilateral; there are affine, gain"),
        ({"model.feld": "x"}, "psnr", "no run has model.feld"),
        ({FIELD: "gain"}, "ssim", r"per_image\.csv has no metric 'ssim'; there are psnr"),
    ],
)
def test_what_cannot_be_compared_is_named(tested, one, metric, said):
    (tested / "copy" / "test" / "CopyInput").rename(tested / "copy" / "test" / "z")
    with pytest.raises(InputError, match=said):
        compare(tested, one, "CopyInput", metric)


def test_rows_of_other_images_do_not_compare(tested):
    write_row(tested / "new", "new", {"psnr": 9.0}, images(9.0, 9.0), seed=0, panels=False)
    with pytest.raises(InputError, match=r"were tested on different images \(8 and 4, 4 in common\)"):
        compare(tested, {FIELD: "gain"}, "new")
    write_row(tested / "same", "same", {"psnr": 9.0}, images(math.inf, 9.0), seed=0, panels=False)
    with pytest.raises(InputError, match="psnr of Image000_2500_N_to_6500_NE is inf"):
        compare(tested, "same", "new")
    frame = collect(tested)
    frame["folder"] = None
    with pytest.raises(InputError, match="the runs lie on a server"):
        compare(frame, "same", "new")


@pytest.mark.parametrize(
    ("name", "scene"),
    [
        ("Image004_2500_N_to_6500_NE", "Image004"),
        ("Image004_6500_SW", "Image004"),
        ("Pair012", "Pair012"),
        ("Image300_mirror", "Image300"),
        ("my_photo_2_4500_E", "my_photo_2"),
    ],
)
def test_the_scene_of_a_name(name, scene):
    assert scene_of(name) == scene
