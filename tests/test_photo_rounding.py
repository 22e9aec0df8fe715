"""Depth that was rounded: known answers on a plane with a box, and what holds for any depth."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ltnet_pl.photo import rounding
from ltnet_pl.photo.rounding import step_of, unrounded


def plane_with_a_box(height=192, width=256):
    """Depth of a floor that recedes, of a tilted box on it, and of sky above."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) / height
    depth = 1 / (0.2 + 0.8 * rows + 0.1 * columns)
    box = (rows > 0.4) & (rows < 0.7) & (columns > 0.5) & (columns < 0.8)
    depth = np.where(box, 1 / (1.0 + 0.3 * columns), depth)
    return np.where(rows < 0.1, 0, depth), box


def slopes(depth):
    return np.stack(np.gradient(depth))


@pytest.mark.parametrize("bits", [8, 10])
def test_slopes_of_a_rounded_scene_come_back(bits):
    depth, box = plane_with_a_box()
    step = depth.max() / (2**bits - 1)
    rounded = (np.round(depth / step) * step).astype(np.float32)
    assert step_of(rounded) == pytest.approx(step, rel=1e-3)
    smooth = unrounded(rounded, step)
    # inside the box, away from its edges
    inside = np.zeros_like(box)
    inside[90:122, 140:190] = True
    off, before = (np.abs(slopes(d) - slopes(depth))[:, inside].mean() for d in (smooth, rounded))
    assert off < before / 5
    # and no edge has moved or melted
    assert np.array_equal(smooth > 0, depth > 0)
    assert np.abs(smooth - depth).max() <= step * 1.001


@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=24), elements=st.integers(0, 60)))
def test_what_is_smoothed_rounds_to_what_it_was(values):
    depth = values.astype(np.float32)
    step = step_of(depth)
    if step is None:
        assert len(np.unique(depth[depth > 0])) < 16 or np.ptp(depth[depth > 0]) < 16
        return
    smooth = unrounded(depth, step)
    assert np.abs(smooth - depth).max() <= step / 2 * 1.0001
    assert np.array_equal(smooth > 0, depth > 0)


def test_only_what_was_rounded_has_a_step():
    generator = np.random.default_rng(0)
    values = generator.uniform(1, 2, (40, 50)).astype(np.float32)
    assert step_of(values) is None
    assert step_of(np.full((20, 20), 3.0, np.float32)) is None
    assert step_of(np.zeros((20, 20), np.float32)) is None
    rows, columns = np.mgrid[0:80, 0:100]
    levels = np.round(128 + 60 * np.sin(rows / 20) + 60 * np.cos(columns / 25))
    assert step_of((levels / 255).astype(np.float32)) == pytest.approx(1 / 255, rel=1e-3)
    assert step_of((257 * levels).astype(np.float32)) == 257
    # 16 bits are fine enough
    assert step_of(generator.integers(0, 65536, (400, 500)).astype(np.float32)) is None


def test_things_that_stand_apart_are_not_rounded():
    """A card before a wall, and the rows of an exact plane, are evenly spaced as well."""
    for near, far in ((1000.0, 2000.0), (1.5, 5.5)):
        depth = np.full((40, 50), far, np.float32)
        depth[10:30, 20:40] = near
        assert step_of(depth) is None
    rows = np.broadcast_to(np.linspace(0.5, 1, 40, dtype=np.float32)[:, None], (40, 50))
    assert step_of(np.ascontiguousarray(rows)) is None


def test_a_plane_stays_a_plane():
    depth = (np.arange(64, dtype=np.float32)[:, None] + 2 * np.arange(80, dtype=np.float32)) + 1
    smooth = unrounded(depth, 1.0)
    np.testing.assert_allclose(smooth[12:-12, 12:-12], depth[12:-12, 12:-12], atol=1e-3)


def test_bands_leave_no_trace(monkeypatch):
    """A depth of many bands is what it is as one."""
    depth, _ = plane_with_a_box(300, 400)
    depth[140:150, ::7] = 0
    rounded = np.round(depth * 51).astype(np.float32)
    found = []
    for rows in (8, 64, 1000):
        monkeypatch.setattr(rounding, "_ROWS", rows)
        for step in (1.0, 1 / 51):
            assert step_of((rounded * step).astype(np.float32)) == pytest.approx(step, rel=1e-6)
        found.append(unrounded(rounded, 1.0))
    assert np.abs(found[2] - rounded).max() > 0.4
    for one in found[:2]:
        np.testing.assert_allclose(one, found[2], rtol=0, atol=1e-4)


@pytest.mark.parametrize("step", [1.0, 1 / 255])
def test_memory_is_the_result_and_a_few_bands(step):
    rows, columns = np.mgrid[0:4096, 0:256].astype(np.float32)
    depth = ((1 + np.round(rows / 32 + columns / 16)) * step).astype(np.float32)
    tracemalloc.start()
    try:
        found = step_of(depth)
        smooth = unrounded(depth, found)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == pytest.approx(step, rel=1e-3)
    assert smooth.nbytes < peak < 2 * depth.nbytes


def test_what_is_not_rounded_is_given_up_early():
    """Depths of measuring devices: no list of all their values is made."""
    depth = np.random.default_rng(0).uniform(1, 2, (4096, 256)).astype(np.float32)
    tracemalloc.start()
    try:
        assert step_of(depth) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < depth.nbytes / 2
