"""Depth in files and out of a monocular model."""

import numpy as np
import pytest
import scenes
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ltnet_pl import InputError
from ltnet_pl.photo import estimate_depth, looks_inverted, read_depth
from ltnet_pl.photo.monocular import FARTHEST, from_inverse
from ltnet_pl.vidit import write_depth

GROUND = scenes.stored_depth(scenes.trace(scenes.scene(), (48, 64)))


def exr(path, channels):
    openexr = pytest.importorskip("OpenEXR", reason="the extra photo is not installed")
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    with openexr.File(header, channels) as file:
        file.write(str(path))


def test_an_array_is_read(tmp_path):
    write_depth(tmp_path / "d.npy", GROUND)
    assert np.array_equal(read_depth(tmp_path / "d.npy", (480, 640)), GROUND)


def test_a_picture_of_16_bits_is_read(tmp_path):
    deep = (GROUND / GROUND.max() * 65535).round().astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "d.png")
    assert np.array_equal(read_depth(tmp_path / "d.png"), deep.astype(np.float32))


@pytest.mark.parametrize("names", [("Z",), ("depth",), ("R", "G", "B", "Z")])
def test_what_renderers_write_is_read(tmp_path, names):
    far = GROUND.copy()
    far[:5] = np.inf
    exr(tmp_path / "d.exr", {name: far if name in ("Z", "depth") else np.ones_like(far) for name in names})
    found = read_depth(tmp_path / "d.exr")
    assert (found[:5] == 0).all()
    assert np.array_equal(found[5:], GROUND[5:])


def test_inverse_depth_is_turned(tmp_path):
    inverse = np.divide(3, GROUND, out=np.zeros_like(GROUND), where=GROUND > 0)
    write_depth(tmp_path / "d.npy", inverse)
    found = read_depth(tmp_path / "d.npy", inverse=True)
    assert np.array_equal(found == 0, GROUND == 0)
    np.testing.assert_allclose(found * 3, GROUND, rtol=1e-5)


@pytest.mark.parametrize("size", [(480, 640), (479, 640), (97, 129), (48, 64)])
def test_a_size_that_rounds_to_the_same_aspect_is_taken(tmp_path, size):
    write_depth(tmp_path / "d.npy", GROUND)
    assert read_depth(tmp_path / "d.npy", size).shape == (48, 64)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.npy", None, "d.npy"),
        ("d.tiff", b"", r"ends in .tiff; expected a depth in .npy, .png, .exr"),
        ("d.png", b"no picture", "is no PNG, or damaged"),
        ("d.png", b"", "the file is empty"),
        ("d.exr", b"no picture", "is no OpenEXR file, or damaged"),
        ("d.exr", None, "d.exr"),
    ],
)
def test_files_that_are_none_are_named(tmp_path, name, content, message):
    if name.endswith("exr"):
        pytest.importorskip("OpenEXR", reason="the extra photo is not installed")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_depth(tmp_path / name)


def test_values_that_are_no_depth_are_named(tmp_path):
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(tmp_path / "zero.png")
    with pytest.raises(InputError, match=r"zero.png: has no value above 0"):
        read_depth(tmp_path / "zero.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(tmp_path / "colour.png")
    with pytest.raises(InputError, match=r"colour.png: is a picture in colour; expected a grey one"):
        read_depth(tmp_path / "colour.png")
    for value, message in ((np.nan, "NaN or infinite"), (-1, "negative")):
        bad = GROUND.copy()
        bad[3, 4] = value
        exr(tmp_path / "bad.exr", {"Z": bad})
        with pytest.raises(InputError, match=rf"bad.exr: has {message} values"):
            read_depth(tmp_path / "bad.exr")
    exr(tmp_path / "two.exr", {"A": GROUND, "B": GROUND})
    with pytest.raises(InputError, match=r"has the channels A, B; expected one called Z"):
        read_depth(tmp_path / "two.exr")


def test_another_aspect_is_refused(tmp_path):
    write_depth(tmp_path / "d.npy", GROUND)
    with pytest.raises(InputError, match=r"is 48 x 64 pixels .*photograph 480 x 480; expected the same aspect"):
        read_depth(tmp_path / "d.npy", (480, 480))


@pytest.mark.parametrize("seed", range(4))
def test_inverse_depth_of_ground_is_seen_and_depth_is_not(seed):
    depth = scenes.stored_depth(scenes.trace(scenes.scene(seed), (48, 64)))
    assert not looks_inverted(depth)
    assert looks_inverted(np.divide(1, depth, out=np.zeros_like(depth), where=depth > 0))


def test_what_is_not_certain_is_not_said():
    rows = np.linspace(0, 1, 48)[:, None]
    wall, leaning = np.ones((48, 64)), 1 + 0.3 * rows + np.zeros((1, 64))
    ceiling = 1 / (0.2 + np.abs(rows - 0.5)) + np.zeros((1, 64))
    for depth in (wall, leaning, ceiling, np.zeros((48, 64)), np.random.default_rng(0).random((48, 64))):
        assert not looks_inverted(depth.astype(np.float32))


@given(factor=st.floats(0.01, 100), shift=st.floats(-50, 50))
def test_factor_and_shift_of_relative_depth_do_not_matter(factor, shift):
    relative = np.random.default_rng(0).random((20, 30)).astype(np.float64)
    found = from_inverse(relative * factor + shift)
    np.testing.assert_allclose(found, from_inverse(relative), rtol=1e-3)
    assert found.min() == pytest.approx(1, rel=1e-5)
    assert found.max() == pytest.approx(FARTHEST, rel=1e-5)
    nearer = relative > np.roll(relative, 1)
    assert (found <= np.roll(found, 1) + 1e-6)[nearer].all()


def test_a_flat_answer_is_a_wall_and_nonsense_is_refused():
    assert np.array_equal(from_inverse(np.full((4, 4), 3.0)), np.ones((4, 4)))
    with pytest.raises(InputError, match="not finite"):
        from_inverse(np.full((4, 4), np.nan))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A Depth Anything of a few thousand random weights, saved as the hub would hold it."""
    transformers = pytest.importorskip("transformers", reason="the extra photo is not installed")
    folder = tmp_path_factory.mktemp("model")
    backbone = transformers.Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    sizes = {"reassemble_hidden_size": 16, "neck_hidden_sizes": [4, 4, 8, 8], "fusion_hidden_size": 8, "head_hidden_size": 4}
    config = transformers.DepthAnythingConfig(backbone_config=backbone, patch_size=14, **sizes)
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    transformers.DPTImageProcessorPil(
        size={"height": 28, "width": 28}, ensure_multiple_of=14, keep_aspect_ratio=True
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_model_in_a_folder_estimates(tiny, kind):
    image = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (66, 90, 3), dtype=kind)
    depth = estimate_depth(image, str(tiny))
    assert depth.shape == (66, 90)
    assert depth.dtype == np.float32
    assert depth.min() >= 1 - 1e-5
    assert depth.max() <= FARTHEST + 1e-4
    assert np.ptp(depth) > 0.1


def test_a_model_that_is_not_to_be_had_is_named(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="the extra photo is not installed")
    image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(InputError, match=rf"--depth_model {tmp_path}: could not be loaded .*or give a depth file"):
        estimate_depth(image, str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"--depth_model nobody/nothing: could not be loaded .*hf download nobody/nothing"):
        estimate_depth(image, "nobody/nothing")
