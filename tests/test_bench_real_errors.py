"""Real pixels: what users may get wrong is named, file or flag, with what was expected."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import scenes
from real_samples import LIGHTS, SIDE, Cheat, method

from ltnet_pl import InputError
from ltnet_pl.bench.photostereo import photostereo, read_directions, read_object
from ltnet_pl.bench.real import real
from ltnet_pl.bench.real_frames import read_matrix, readings, transfer


def test_wrong_flags_are_named(made_up, tmp_path):
    with pytest.raises(InputError, match=r"--size 8; expected 32 or more"):
        real("x", str(made_up), size=8)
    with pytest.raises(InputError, match=r"DATA nowhere: is no folder; expected the sample data, with the .*: correct the path"):
        real("x", "nowhere")
    with pytest.raises(
        InputError,
        match=r"there is no .*; expected a finished run's folder, a checkpoint, or a .safetensors",
    ):
        real(str(tmp_path / "no.ckpt"), str(made_up))


@pytest.mark.parametrize(
    ("part", "missing"),
    [
        (readings, "vidit/frames_512/B_directions"),
        (readings, "vidit/native_layout/track1"),
        (readings, "vidit/native_layout/track2"),
        (readings, "vidit/full_1024/train_guides"),
        (transfer, "vidit/colour_temperature_matrices"),
        (transfer, "vidit/frames_512/A_illuminants"),
        (photostereo, "photostereo_uw12"),
        (photostereo, "photostereo_uw12/rock"),
    ],
)
def test_missing_folders_are_named(part, missing, copied):
    shutil.rmtree(copied / missing)
    with pytest.raises(InputError, match=rf"DATA .*: has no folder {missing}; expected the sample data as its README describes"):
        part(method(Cheat()), copied, 32)


def test_missing_and_broken_files_are_named(copied):
    frames = copied / "vidit/frames_512"
    (frames / "B_illuminants/B_4500.png").unlink()
    with pytest.raises(InputError, match=r"B_4500\.png: no such file; expected one frame for each temperature"):
        transfer(method(Cheat()), copied, 32)
    for path in (frames / "A_directions").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"A_directions: holds no image; expected PNG files"):
        readings(method(Cheat()), copied, 32)
    odd = frames / "A_illuminants/A_5500.png"
    scenes.write_image(odd, np.full((SIDE, SIDE - 2, 3), 90, np.uint8))
    with pytest.raises(InputError, match=r"A_5500\.png: 40 x 38 \(height x width\); expected one size: fetch the"):
        transfer(method(Cheat()), copied, 32)


def test_bad_matrices_are_named(tmp_path):
    with pytest.raises(InputError, match=r"weight_0_1\.npy: cannot be read .*; expected a matrix of 3 x 34"):
        read_matrix(tmp_path, 0, 1)
    np.save(tmp_path / "weight_0_1.npy", np.zeros((3, 33), np.float32))
    with pytest.raises(InputError, match=r"weight_0_1\.npy: holds float32 of shape \(3, 33\); expected real numbers, 3 x 34"):
        read_matrix(tmp_path, 0, 1)
    np.save(tmp_path / "weight_0_1.npy", np.array([SimpleNamespace()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"weight_0_1\.npy: cannot be read"):  # what would run a file's own code
        read_matrix(tmp_path, 0, 1)


@pytest.mark.parametrize("text", ["", "2\n0 0 1\n", "1\n0 0 one\n", "nan\n0 0 1\n"])
def test_bad_lists_of_lights_are_named(text, tmp_path):
    path = tmp_path / "lights.txt"
    path.write_text(text)
    with pytest.raises(
        InputError, match=r"lights\.txt: cannot be read .*; expected the number of lights, then their unit vectors"
    ):
        read_directions(path)


def test_lights_must_be_unit_vectors(tmp_path):
    path = tmp_path / "lights.txt"
    path.write_text("1\n0 0 2\n")
    with pytest.raises(InputError, match="holds vectors of another length than 1; expected unit vectors"):
        read_directions(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mask": np.ones((40, 48), bool)}, r"cannot be read .*; expected arrays mask and height_px"),
        ({"mask": np.zeros((4, 5)), "height_px": np.zeros((4, 5))}, r"mask is \(4, 5\) with 0 pixels set.*; expected an object"),
        (
            {"mask": np.ones((4, 5)), "height_px": np.zeros((5, 4))},
            r"mask is \(4, 5\) .*, height_px is \(5, 4\); expected an object in",
        ),
        (
            {"mask": np.ones((4, 5)), "height_px": np.full((4, 5), np.nan)},
            "mask .*; expected an object in the mask, and a finite height",
        ),
    ],
)
def test_bad_geometry_is_named(arrays, message, copied):
    folder = copied / "photostereo_uw12/gray"
    np.savez(folder / "derived_geometry.npz", **arrays)
    with pytest.raises(InputError, match=rf"derived_geometry\.npz: {message}"):
        read_object(folder, LIGHTS, 32)


def test_a_file_that_is_no_archive_is_named(copied):
    folder = copied / "photostereo_uw12/gray"
    for content in (b"PK\x03\x04 but nothing more", b"nothing"):
        (folder / "derived_geometry.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"derived_geometry\.npz: cannot be read"):
            read_object(folder, LIGHTS, 32)
