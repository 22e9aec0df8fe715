"""Sheets: which scenes and pairs they show, the pictures' sizes and words, and every mistake by name."""

import shutil
from pathlib import Path

import bench_runs
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from ltnet_pl import InputError
from ltnet_pl.bench import bench, sheets, trained
from ltnet_pl.bench.looks import choose, looks, spread
from ltnet_pl.bench.sheets import Line, Tile, sheet, write_within
from ltnet_pl.bench.turning import turning
from ltnet_pl.cli import main
from ltnet_pl.light import Light, angular_distance
from ltnet_pl.relight.relighter import PRETRAINED
from ltnet_pl.vidit import Pair, View


@pytest.fixture(scope="module")
def runs(vidit_root, tmp_path_factory):
    """Run folders as `fit` leaves them: a U-Net that learned nothing, and so copies its input, twice; and a tiny LTNet."""
    root = tmp_path_factory.mktemp("runs")
    copy = bench_runs.fit_copy(vidit_root, root / "copy-seed0")
    shutil.copytree(copy, root / "unet-seed3")
    return {
        "copy-seed0": copy,
        "unet-seed3": str(root / "unet-seed3"),
        "ltnet-seed0": bench_runs.fit(vidit_root, root / "ltnet-seed0"),
    }


@pytest.fixture
def written(monkeypatch):
    """Every text that a sheet shows."""
    return bench_runs.record_texts(monkeypatch)


# ---- which scenes, which pairs


def test_scenes_are_drawn_evenly_from_the_families():
    families = {f"Image{i:03d}": "abcd"[i % 4] for i in range(20)}
    chosen = spread(families, 10)
    assert chosen == sorted(set(chosen))
    assert sorted(families[scene] for scene in chosen) == sorted("aaabbbccdd")
    assert spread(families, 20) == sorted(families)


def test_pairs_turn_far_and_not_always_from_the_same_light():
    def pair(scene, start, target):
        views = [View(scene, Path("x"), None, Light.from_name(name)) for name in (start, target)]
        return Pair(f"{scene}_{start}_to_{target}", *views)

    pairs = [pair("b", "2500_N", "4500_S")]
    pairs += [pair("a", "4500_N", f"{k}_{d}") for d in ("N", "E", "SE", "S") for k in (2500, 5500)]
    change = [angular_distance(pairs[i].input.light.azimuth, pairs[i].target_light.azimuth) for i in range(len(pairs))]
    shown = [choose(pairs, "a", place) for place in range(6)]
    assert [change[i] for i in shown] == [180, 135, 90, 180, 135, 90]
    assert {pairs[i].input.scene for i in shown} == {"a"}
    assert len(set(shown)) == 6
    assert choose(pairs, "b", 1) == 0, "where no pair changes so much, the nearest change is shown"


# ---- sheets


def noise(side, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_tiles_stand_where_they_should_unchanged():
    tiles = [noise(64, seed) for seed in range(3)]
    picture = np.asarray(sheet(["a", "b", "c"], [Line("title", [Tile(t, "caption") for t in tiles])], 64))
    top = sheets.TITLE + 6 + sheets.TITLE + 5
    assert picture.shape == (top + 64 + sheets.CAPTION + 4 + 2, 3 * 66 + 2, 3)
    for column, tile in enumerate(tiles):
        x = 2 + 66 * column
        np.testing.assert_array_equal(picture[top : top + 64, x : x + 64], tile)
        # ink above, between and below the tile, and only there
        for rows in (slice(0, 19), slice(top + 64, None)):
            assert picture[rows, x : x + 64].min() < 128
    assert picture[19:top, 2:66].min() < 128
    assert (picture[top : top + 64, 66:68] == 255).all()


def test_tiles_are_averaged_when_smaller_and_copied_when_larger():
    tile = noise(64)
    small = np.asarray(sheet([], [Line("", [Tile(tile)])], 32))
    assert small.shape == (32 + 2 + 2, 32 + 4, 3)
    mean = tile.reshape(32, 2, 32, 2, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(small[:32, 2:34], mean, atol=1)
    large = np.asarray(sheet([], [Line("", [Tile(tile)])], 128))
    np.testing.assert_array_equal(large[:128, 2:130], tile.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("text", ["short", "a name that is longer than its tile", "x" * 200])
def test_text_stays_within_its_width(text):
    picture = Image.new("RGB", (300, 30), "white")
    sheets._write(ImageDraw.Draw(picture), text, (100, 5), 96, sheets.TITLE, centred=True)
    ink = np.flatnonzero((np.asarray(picture) < 200).any(axis=(0, 2)))
    assert len(ink) > 10
    assert ink[0] >= 99
    assert ink[-1] <= 196


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_files_stay_below_their_limit(tmp_path, suffix):
    path = tmp_path / "made" / f"x.{suffix}"
    lines = [Line("", [Tile(noise(128, seed)) for seed in range(4)])]
    for limit in (10**6, 60_000 if suffix == "png" else 20_000):
        write_within(path, lambda side: sheet([], lines, side), 128, limit)
        assert path.stat().st_size <= limit
        with Image.open(path) as picture:
            assert (picture.width == 4 * 130 + 2) == (limit == 10**6)
    with pytest.raises(InputError, match="exceeds 900 bytes with the smallest tiles"):
        write_within(path, lambda side: sheet([], lines, side), 128, 900)
    assert path.stat().st_size > 900, "what was there stays"


def test_near_is_bright_and_background_black():
    depth = torch.tensor([[[2.0, 4.0, 0.0]]])
    assert sheets.nearness(depth).tolist() == [[[1.0, 0.5, 0.0]]]
    assert sheets.nearness(torch.zeros(1, 2, 2)).tolist() == torch.zeros(1, 2, 2).tolist()


# ---- runs


def test_rows_are_named_after_their_runs_or_as_asked(runs):
    def names(*given, **more):
        return [method.name for method in trained.load_methods(given, **more)]

    copy, unet, ltnet = runs.values()
    assert names(copy, f"{ltnet}/checkpoints/last.ckpt", f"my net={unet}") == ["copy", "ltnet", "my net"]
    assert names(copy, ltnet, unet, light="guide") == ["copy (label)", "ltnet", "unet (label)"]
    with pytest.raises(InputError, match="two rows are called copy-seed0"):
        names(copy, copy)


def test_seeds_of_one_row_keep_their_names_apart(runs, tmp_path):
    folders = [shutil.copytree(runs["copy-seed0"], tmp_path / f"copy-seed{seed}") for seed in (0, 1)]
    assert [method.name for method in trained.load_methods([*map(str, folders)])] == ["copy-seed0", "copy-seed1"]


def test_light_is_asked_of_networks_that_read_it(runs):
    for light in ("label", "guide"):
        (method,) = trained.load_methods([runs["ltnet-seed0"]], light)
        assert method.net.light == light
        assert not method.net.training


def kept(run, path, edit):
    """The checkpoint of a run, changed, as one of its own."""
    content = torch.load(Path(run) / "checkpoints" / "last.ckpt", weights_only=True)
    edit(content)
    torch.save(content, path)
    return str(path)


@pytest.mark.parametrize(
    ("loss", "dropout", "reads"),
    [
        ({"light": 0.0, "relit_light": 0.0}, 0.0, False),
        ({"light": 0.0}, 0.0, False),  # of a version that did not have the other
        ({"light": 0.5, "relit_light": 0.0}, 0.0, True),
        ({"light": 0.0, "relit_light": 0.1}, 0.0, True),
        ({"light": 0.0, "relit_light": 0.0}, 0.5, True),
    ],
)
def test_a_light_stream_that_nothing_trained_reads_no_guides(loss, dropout, reads, runs, tmp_path):
    def edit(content):
        content["ltnet_pl"]["loss"] = loss
        content["hyper_parameters"]["net"]["init_args"]["label_dropout"] = dropout

    file = kept(runs["ltnet-seed0"], tmp_path / "told.ckpt", edit)
    (method,) = trained.load_methods([file], "guide")
    assert (method.name, method.net.light, method.reads) == (
        ("told", "guide", True) if reads else ("told (label)", "label", False)
    )
    (method,) = trained.load_methods([file], "label")
    assert (method.name, method.net.light) == ("told", "label")


def test_checkpoints_of_other_versions_say_what_is_wrong(runs, tmp_path):
    """The file, what of it is unknown or missing, and what to do."""
    remedy = "train anew with this version, or install the version that wrote it"

    def refused(match, edit):
        with pytest.raises(InputError, match=rf"other\.ckpt: {match}"):
            trained.load_methods([kept(runs["ltnet-seed0"], tmp_path / "other.ckpt", edit)])

    def older(content):
        state = content["state_dict"]
        for i, key in enumerate(sorted(key for key in state if key.startswith("net.light_stream.head."))):
            state[f"net.old{i}"] = state.pop(key)
        state["net.backbone.stem.bias"] = torch.zeros(3)

    refused(
        r"holds the weights of LTNet, which do not fit that network as it is here: keys 4 missing \(light_stream.head.0.bias, "
        r"light_stream.head.0.weight, light_stream.head.2.bias, ...\), 4 unexpected \(old0, old1, old2, ...\), 1 of another "
        r"shape \(backbone.stem.bias\); " + remedy,
        older,
    )
    net = "its network ltnet_pl.nets.LTNet cannot be built here: "
    refused(
        rf"{net}.*'gone' is not accepted; expected .*{remedy}", lambda c: c["hyper_parameters"]["net"]["init_args"].update(gone=1)
    )
    refused(rf"{net}.*Got value: gian; .*{remedy}", lambda c: c["hyper_parameters"]["net"]["init_args"].update(field="gian"))
    refused(rf"{net}.*streams is 3; .*{remedy}", lambda c: c["hyper_parameters"]["net"]["init_args"].update(streams=3))
    refused(
        rf"its network my_package.Mine cannot be built here: .*No module named 'my_package'; .*importable from here: {remedy}",
        lambda c: c["hyper_parameters"].update(net={"class_path": "my_package.Mine"}),
    )
    refused(rf"holds an object of ltnet_pl.light.Light, which is unknown here; .*{remedy}", lambda c: c.update(x=Light(0, 4500)))
    refused("does not say which loss trained it; .*: choose another", lambda c: c.pop("ltnet_pl"))
    refused("does not say which network it holds; .*: choose another", lambda c: c.pop("hyper_parameters"))
    refused("holds no state_dict; .*: choose another", lambda c: c.pop("state_dict"))


def test_a_network_that_fails_fails_as_it_is(runs, monkeypatch):
    """Only what is wrong with the file is the user's."""

    def broken(self, *_, **__):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("ltnet_pl.nets.LTNet.load_state_dict", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        trained.load_methods([runs["ltnet-seed0"]])


@pytest.mark.parametrize("what", ["looks", "turning", "real"])
def test_the_commands_refuse_other_versions_in_one_line(what, runs, vidit_copy, made_up, tmp_path, capsys):
    file = kept(runs["ltnet-seed0"], tmp_path / "other.ckpt", lambda c: c["state_dict"].pop("net.mix.0.bias"))
    flags = [str(made_up)] if what == "real" else [f"--data={vidit_copy}", "--scenes=1", "--test_scenes=2"]
    flags += {"looks": [f"--out={tmp_path}"], "turning": [f"--out={tmp_path}", f"--results={tmp_path / 'x.json'}"]}.get(what, [])
    assert main(["bench", what, file, *flags]) == 2
    error = capsys.readouterr().err
    assert f"error: {file}: holds the weights of LTNet" in error
    assert "keys 1 missing (mix.0.bias); train anew" in error


def test_runs_without_a_checkpoint_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"RUNS .*: there is no .*last.ckpt; expected a finished run's folder"):
        trained.load_methods([str(tmp_path)])
    (tmp_path / "x.ckpt").write_text("nothing")
    with pytest.raises(InputError, match=r"x.ckpt: is broken or no checkpoint"):
        trained.load_methods([str(tmp_path / "x.ckpt")])
    with pytest.raises(InputError, match="--light sun: unknown; expected one of label, guide"):
        trained.load_methods([], "sun")


# ---- looks


def test_looks(runs, vidit_copy, tmp_path, capsys, written):
    out = tmp_path / "looks"
    given = [runs["copy-seed0"], f"ours={runs['ltnet-seed0']}"]
    bench("looks")(given, data=str(vidit_copy), out=str(out), scenes=3, test_scenes=4)
    singles = sorted(out.glob("Image*.png"))
    assert len(singles) == 3
    assert {path.name for path in out.iterdir()} == {"sheet.jpg", *(path.name for path in singles)}
    assert all(path.stat().st_size < 300 * 1024 for path in out.iterdir())
    # 40 x 56 pixels are enlarged to 69 x 96; six columns: input, depth, guide, two results, target
    with Image.open(singles[0]) as single, Image.open(out / "sheet.jpg") as all_of_them:
        assert single.width == all_of_them.width == 6 * 98 + 2
        assert all_of_them.height > 3 * 69 > single.height
        pixels = np.asarray(single).astype(int)
    top = sheets.TITLE + 6 + sheets.TITLE + 5
    tiles = [pixels[top : top + 69, 2 + 98 * k : 98 + 98 * k] for k in range(6)]
    np.testing.assert_array_equal(tiles[0], tiles[3], err_msg="a copy is the input")
    assert np.abs(tiles[0] - tiles[5]).mean() > 3
    assert {"input", "depth, near bright", "guide", "copy", "ours", "target"} <= set(written)
    # the values under the tiles and in the table are those of the files
    start, _, target = singles[0].stem.partition("_to_")
    scene = start.split("_")[0]
    images = [np.asarray(Image.open(vidit_copy / f"{name}.png"))[..., :3] / 255 for name in (start, f"{scene}_{target}")]
    value = f"{-10 * np.log10(np.mean((images[0] - images[1]) ** 2)):.2f}"
    assert written.count(f"{value} dB") >= 2
    said = capsys.readouterr().out
    assert f"| {singles[0].stem} | {value} | {value} |" in said
    assert "python -m ltnet_pl bench looks" in said
    assert "--scenes 3 --test_scenes 4" in said


def test_looks_are_the_same_again(runs, vidit_copy, tmp_path):
    for out in ("a", "b"):
        looks([runs["unet-seed3"]], data=str(vidit_copy), out=str(tmp_path / out), scenes=2, test_scenes=2, light="guide")
    files = [{path.name: path.read_bytes() for path in (tmp_path / out).iterdir()} for out in ("a", "b")]
    assert files[0] == files[1]
    assert len(files[0]) == 3


@pytest.mark.parametrize("call", [looks, turning])
def test_sets_that_were_not_rendered_are_refused(call, runs, vidit_copy, tmp_path):
    given = {"data": str(vidit_copy), "out": str(tmp_path / "out"), "test_scenes": 2}
    with pytest.raises(InputError, match="--scenes 3; expected 1 to 2, the number of --test_scenes"):
        call([runs["copy-seed0"]], scenes=3, **given)
    with pytest.raises(InputError, match=r"there is no .*last.ckpt"):
        call([str(tmp_path)], scenes=2, **given)
    shutil.rmtree(vidit_copy / "scenes")
    with pytest.raises(
        InputError, match=r"--data .*: has no folder scenes; expected a set that `python -m ltnet_pl render` wrote"
    ):
        call([runs["copy-seed0"]], scenes=2, **given)
    assert not (tmp_path / "out").exists()


def test_weights_in_a_file_of_their_own_are_a_row_too(tmp_path):
    (method,) = trained.load_methods([f"shipped={PRETRAINED}"], "guide")
    assert (method.name, method.reads, method.net.light) == ("shipped", True, "guide")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"broken\.safetensors.*expected what .*export RUN OUT --to safetensors"):
        trained.load_methods([str(broken)])
