"""Real pixels: known answers of each part on a small made-up sample folder, what users may get wrong, and the real samples."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from real_samples import LIGHTS, SIDE, Cheat, dome, method, save

from ltnet_pl.bench import bench
from ltnet_pl.bench.photostereo import (
    as_batch,
    lambert,
    light_towards,
    photostereo,
    psnr_within,
    read_directions,
    read_object,
)
from ltnet_pl.bench.real_frames import POWERS, load, polynomial, readings, transfer
from ltnet_pl.cli import main
from ltnet_pl.geometry import light_position
from ltnet_pl.light import encode
from ltnet_pl.nets import LTNet, UNet
from ltnet_pl.report.tables import MISSING

TERMS = (
    "r g b rr gg bb rg gb rb r3 g3 b3 rg2 gb2 rb2 gr2 bg2 br2 rgb r4 g4 b4 r3g r3b g3r g3b b3r b3g r2g2 g2b2 r2b2 r2gb g2rb b2rg"
)
"""The order of the terms in the words of those who published the matrices."""


def cells(table):
    """Lines of a Markdown table as lists of cells, by the first one."""
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.strip().splitlines()]
    return {line[0]: line[1:] for line in lines if not line[0].startswith("---")}


# ---- what the light stream reads


def test_what_is_read_is_compared_with_what_is_known(made_up):
    """The cheat reads names right; where a layout tells the light instead, N is right for inputs, and 5000 K is 5500 in mired."""
    found = readings(method(Cheat()), made_up, 32)
    table = cells(found.tables[0])
    assert table["eight directions, 512 px, no depth"] == ["16", "16 of 16", "16 of 16", "0.0", MISSING, MISSING]
    assert table["five temperatures, 512 px, no depth"] == ["10", MISSING, MISSING, MISSING, "10 of 10", "0.0"]
    # two guides read right, two inputs read N at 5000 K where 6500 K is true: 200 - 153.8 mired, and half of it in the median
    assert table["original files, 1024 px, no depth"] == ["4", "4 of 4", "4 of 4", "0.0", "2 of 4", "23.1"]
    # the target's E is read as N; 5000 K lies nearer to 5500 than to 4500 in mired: both temperatures are wrong
    assert table["matched one-to-one set, with depth"] == ["2", "1 of 2", "1 of 2", "45.0", "0 of 2", "34.2"]
    directions, temperatures = (cells(t) for t in found.tables[1:])
    assert directions["E"] == ["1", "0", "4", "0", "0", "0", "0", "0"]
    assert directions["SW"] == ["0", "0", "0", "0", "0", "2", "0", "0"]
    assert temperatures["6500 K"] == ["0", "0", "0", "3", "2"]
    assert found.notes == [
        "matched any-to-any set, with depth: guide and target of Pair000 have one light; the readings differ by 0° and 0 mired."
    ]
    assert found.panels["set4"][1][0].tiles[1].caption == "E 4500 K, read N 0° 5000 K"
    assert [len(lines) for _, lines in found.panels.values()] == [4, 3, 1, 1]


def test_images_are_reduced_never_enlarged(made_up):
    path = made_up / "vidit/frames_512/A_directions/A_E.png"
    assert load([(path, None)], 24)["input"].shape == (1, 3, 24, 24)
    batch = load([(path, None)], 64)
    assert batch["input"].shape == (1, 3, SIDE, SIDE)
    assert batch["depth"].abs().max() == 0
    assert batch["input_light"][0, 0] == 90
    assert batch["target_light"].isnan().all()


# ---- temperature alone


def test_the_polynomial_has_the_published_terms_in_their_order():
    """Red 2, green 3, blue 5: each product says which powers it has, and all 34 differ."""
    value = {"r": 2, "g": 3, "b": 5}
    known = []
    for term in TERMS.split():
        product, letters = 1, list(term)
        for letter, power in zip(letters, [*letters[1:], ""], strict=True):
            product *= value.get(letter, 1) ** (int(power) if power.isdigit() else 1)
        known.append(product)
    assert len(set(known)) == len(POWERS) == 34
    image = torch.tensor([2.0, 3.0, 5.0]).view(1, 3, 1, 1).expand(1, 3, 2, 3)
    terms = polynomial(image)
    assert terms.shape == (1, 34, 2, 3)
    assert terms[0, :, 1, 2].tolist() == known
    assert known[9:12] == [8, 27, 125]
    assert known[12] == 18  # r g g
    assert known[33] == 150  # b b r g


def test_matrices_and_copies_are_scored_against_the_real_frame(made_up):
    found = transfer(method(Cheat()), made_up, 32)
    table = cells(found.tables[0])
    assert len(table) == 1 + 20 + 2 + 1
    assert table["temperatures"] == ["untouched", "published matrix", "cheat"]
    for name, (untouched, matrix, cheat) in list(table.items())[1:]:
        assert untouched == cheat, "without a ground truth the cheat copies"
        if name != "2500 K to 6500 K" and not name.startswith(("scene", "all")):
            assert matrix == untouched, "a matrix that changes nothing"
    frames = [
        load([(made_up / f"vidit/frames_512/{s}_illuminants/{s}_{t}.png", None)], 32)["input"] for s in "AB" for t in (2500, 6500)
    ]
    error = [
        ((a * torch.tensor([0.5, 1, 1]).view(3, 1, 1) * 255).round() / 255 - b).square().mean()
        for a, b in (frames[:2], frames[2:])
    ]
    expected = np.mean([-10 * math.log10(e) for e in error])
    assert float(table["2500 K to 6500 K"][1]) == pytest.approx(expected, abs=0.02)
    assert float(table["all"][0]) == pytest.approx(np.mean([float(v[0]) for v in list(table.values())[1:21]]), abs=0.01)
    assert "what the light stream reads off the input" in found.notes[0]
    head, lines = found.panels["A"]
    assert head == ["untouched", "published matrix", "cheat", "real"]
    assert [line.title for line in lines][:2] == ["2500 K to 6500 K", "3500 K to 6500 K"]


def test_both_lights_stand_where_the_stream_reads_them(made_up):
    net = Cheat()
    net.read_light = lambda image, *_: (encode(torch.tensor([[135.0, 3000.0]]).expand(len(image), 2)), None)
    transfer(method(net), made_up, 32)
    torch.testing.assert_close(net.seen["input_light"], torch.tensor([[135.0, 6500.0]]))
    torch.testing.assert_close(net.seen["target_light"], torch.tensor([[135.0, 5500.0]]))


# ---- photographs


@pytest.mark.parametrize(
    ("direction", "azimuth", "elevation"),
    [
        ((1, 0, 0), 90, 0),  # from the right: E
        ((-1, 0, 0), 270, 0),
        ((0, 0, 1), 180, 0),  # from the viewer: S, behind the camera
        ((0, 0, -1), 0, 0),
        ((0, 1, 0), 0, 90),  # from straight above
        ((0, 0.6, 0.8), 180, 36.869898),
        ((0.5, math.sqrt(0.5), 0.5), 135, 45),
        ((0.6, -0.6, math.sqrt(0.28)), 131.4096, -36.869898),
    ],
)
def test_directions_become_lights(direction, azimuth, elevation):
    light = light_towards(direction)
    assert light.azimuth == pytest.approx(azimuth, abs=1e-4)
    assert light.elevation == pytest.approx(elevation, abs=1e-4)


def test_lights_stand_in_their_directions_for_the_geometry(made_up):
    """The light tensor, the far rig and the level camera together give back the vectors of the file."""
    photographs = read_object(made_up / "photostereo_uw12/gray", LIGHTS, 256)
    batch = as_batch(photographs, 0, [1, 2, 3])
    at = torch.tensor([[0.0, 0.0, -7.0]]).expand(3, 3)
    towards = light_position(batch["target_light"], at, batch["camera"], batch["rig"]) - at
    torch.testing.assert_close(towards / 70, torch.from_numpy(LIGHTS[1:]).float(), atol=1e-5, rtol=1e-5)


def test_photographs_are_cut_encoded_and_given_depth(made_up):
    photographs = read_object(made_up / "photostereo_uw12/gray", LIGHTS, 256)
    _, _, inside = dome()
    # 27 pixels across the dome and five to each side
    assert photographs.images.shape == (4, 3, 37, 37)
    assert photographs.mask.sum() == inside.sum()
    assert ((photographs.depth > 0) == photographs.mask).all()
    # the top of the dome is nearer than its foot by their difference in height: 18 and sqrt(18^2 - r^2) pixels
    top = photographs.depth[0, 18, 18]
    foot = photographs.depth[0, 18, 18 + 13]
    assert (foot - top).item() == pytest.approx(18 - math.sqrt(18**2 - 13**2), abs=0.01)
    # 0.9 in linear light, display-encoded
    assert photographs.images[0, 0, 18, 18].item() == pytest.approx(1.055 * 0.9 ** (1 / 2.4) - 0.055, abs=0.005)
    small = read_object(made_up / "photostereo_uw12/gray", LIGHTS, 32)
    assert small.images.shape == (4, 3, 32, 32)
    # half the pixels, half the height: the shape stays
    ratio = (
        small.depth[small.depth > 0].sub(small.depth.max()).min()
        / photographs.depth[photographs.depth > 0].sub(photographs.depth.max()).min()
    )
    assert ratio.item() == pytest.approx(32 / 37, rel=0.1)


def test_lambert_relights_what_is_matt(made_up):
    """The dome is Lambert's own: the ratio of computed irradiances relights it but for the bounce that it adds."""
    photographs = read_object(made_up / "photostereo_uw12/gray", LIGHTS, 256)
    batch = as_batch(photographs, 0, [1, 2, 3])
    by_law, copied = (psnr_within(photographs.mask, x, batch["target"]) for x in (lambert(batch), batch["input"]))
    assert by_law.min() > 33
    assert (by_law - copied).min() > 12
    ratio = lambert(as_batch(photographs, 1, [1]))
    torch.testing.assert_close(ratio, photographs.images[1:2], atol=1 / 255, rtol=0)


def test_psnr_looks_within_the_mask_alone():
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[1:3, 2:5] = True
    target = torch.rand(2, 3, 4, 6)
    pred = target + torch.where(mask, 0.1, 0.7)
    torch.testing.assert_close(psnr_within(mask, pred, target), torch.tensor([20.0, 20.0]), atol=1e-3, rtol=0)


def test_photographs_are_scored_pair_by_pair(made_up):
    net = Cheat()
    found = photostereo(method(net), made_up, 256)
    table = cells(found.tables[0])
    assert list(table) == ["object", "gray", "buddha", "rock", "all"]
    assert table["object"] == ["pairs", "copying the input", "Lambert", "cheat", "better than copying"]
    assert table["gray"] == table["rock"]
    assert table["gray"][0] == "12"
    assert table["gray"][3:] == ["∞", "12 of 12"]
    assert table["all"][0] == "36"
    assert float(table["gray"][2]) > float(table["gray"][1]) + 10
    assert net.camera_from == "true"
    torch.testing.assert_close(net.seen["camera"], torch.tensor([[1.0, 0.0]] * 3))
    torch.testing.assert_close(net.seen["rig"], torch.tensor([[10.0, 0.0]] * 3))
    head, lines = found.panels["rock"]
    assert head == ["copying the input", "Lambert", "cheat", "photograph"]
    # the two lights farthest from each other, both ways, come first
    assert {line.title for line in lines[:2]} == {"light 01 to light 03", "light 03 to light 01"}


# ---- the command


def test_the_command_prints_tables_and_writes_panels(made_up, tmp_path, capsys):
    run = save(tmp_path / "runs/tiny-seed0/checkpoints/last.ckpt", LTNet, widths=[8, 12], steps=4, light_width=8)
    assert main(["bench", "real", run, str(made_up), "--output", str(tmp_path / "out"), "--size", "32"]) == 0
    printed = capsys.readouterr().out
    for head in ("| images |", "| Direction of the input: true, then read as |", "| temperatures |", "| object |"):
        assert head in printed
    command = f"python -m ltnet_pl bench real {run} {made_up} --output {tmp_path / 'out'} --size 32"
    # every table says which command prints it, and of whose weights it tells
    assert printed.count(f"`{command}`; checkpoint last.ckpt of tiny;") == 5
    panels = sorted(path.name for path in (tmp_path / "out").iterdir())
    objects = [f"photostereo_{name}.png" for name in ("buddha", "gray", "rock")]
    assert panels == [*objects, *(f"readings_set{i}.png" for i in (1, 2, 3, 4)), "temperatures_A.png", "temperatures_B.png"]
    for name in panels:
        with Image.open(tmp_path / "out" / name) as image:
            assert image.format == "PNG"


def test_a_network_without_a_light_stream_relights_all_the_same(made_up, tmp_path, capsys):
    run = save(tmp_path / "unet/checkpoints/last.ckpt", UNet, widths=[8, 12])
    bench("real")(run, str(made_up), size=32)
    printed = capsys.readouterr().out
    assert "unet has no light stream that was trained, so nothing is read off real frames." in printed
    assert "is N, for both lights" in printed
    assert "| images |" not in printed
    # an untrained U-Net copies its input
    for head, copied in (("| temperatures |", 0), ("| object |", 1)):
        values = cells(printed[printed.index(head) :].split("\n\n")[0])["all"]
        assert values[2 + copied] == values[copied]


def test_a_light_stream_that_labels_left_untrained_is_not_asked(made_up, tmp_path, capsys):
    run = save(tmp_path / "told/checkpoints/last.ckpt", LTNet, widths=[8, 12], steps=4, light_width=8, label_dropout=0.0)
    path = tmp_path / "told/checkpoints/last.ckpt"
    content = torch.load(path, weights_only=True)
    content["ltnet_pl"]["loss"]["light"] = 0.0
    torch.save(content, path)
    bench("real")(run, str(made_up), size=32)
    printed = capsys.readouterr().out
    assert "told has no light stream that was trained, so nothing is read off real frames." in printed
    assert "is N, for both lights" in printed
    assert "| images |" not in printed


# ---- the real samples


def test_published_matrices_fit_real_frames(samples):
    """Their README: 2500 to 6500 K goes from 16-27 dB to 33-39 dB on real frames."""
    table = cells(transfer(method(Cheat()), samples, 128).tables[0])
    untouched, matrix, _ = map(float, table["2500 K to 6500 K"])
    assert 16 < untouched < 27
    assert 33 < matrix < 39
    assert all(float(values[1]) > float(values[0]) + 3 for values in list(table.values())[1:])


def test_every_real_frame_is_read(samples):
    table = cells(readings(method(Cheat()), samples, 32).tables[0])
    assert [values[0] for values in list(table.values())[1:]] == ["16", "10", "4", "2"]
    assert table["eight directions, 512 px, no depth"][1] == "16 of 16"
    assert table["five temperatures, 512 px, no depth"][4] == "10 of 10"


def test_lambert_relights_the_real_sphere(samples):
    """Twelve photographs of a matt sphere: from any light the law beats copying by 3 dB and more, on the mean over the others."""
    root = samples / "photostereo_uw12"
    directions = read_directions(root / "lights.txt")
    assert directions.shape == (12, 3)
    photographs = read_object(root / "gray", directions, 96)
    for source in (0, 4, 10):
        batch = as_batch(photographs, source, [i for i in range(12) if i != source])
        by_law, copied = (psnr_within(photographs.mask, x, batch["target"]).mean() for x in (lambert(batch), batch["input"]))
        assert by_law > copied + 3
