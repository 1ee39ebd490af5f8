"""Pixel counts against numpy.bincount, their sketches against DataSketches."""

from __future__ import annotations

from copy import copy

import datasketches
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.sketches import counts as module
from lensai_integrations.sketches.counts import PixelCounts, count_by_sorting, count_bytes


def bincount(values):
    return np.stack([np.bincount(values[:, c].ravel(), minlength=256) for c in range(values.shape[1])])


def pixels(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def counted(values):
    result = PixelCounts(values.shape[1])
    result.update(values)
    return result


LAYOUTS = {
    "contiguous": lambda x: x,
    "NHWC viewed as NCHW": lambda x: np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, 3, 1, 2),
    "RGBA without A": lambda x: np.concatenate([x, x[:, :1]], axis=1)[:, :3],
    "every other column": lambda x: np.repeat(x, 2, axis=3)[..., ::2],
    "flipped": lambda x: x[:, :, ::-1, ::-1],
    "read only": lambda x: np.broadcast_to(x[:1], x.shape),
}


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (9, 3, 224, 224), (2, 3, 1, 1), (3, 3, 211, 331)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equal_to_bincount_in_any_layout(layout, shape):
    values = LAYOUTS[layout](pixels(shape))
    np.testing.assert_array_equal(counted(values).counts, bincount(values))


@given(
    n=st.integers(0, 4),
    channels=st.integers(1, 4),
    rest=st.lists(st.integers(0, 9), max_size=3),
    seed=st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_equal_to_bincount_for_any_shape_after_the_channels(n, channels, rest, seed):
    values = pixels((n, channels, *rest), seed)
    sketch = counted(values)
    np.testing.assert_array_equal(sketch.counts, bincount(values))
    assert sketch.n == n


@pytest.mark.parametrize("size", [module._PAIRS_FROM - 1, module._PAIRS_FROM, module._PAIRS_FROM + 1])
def test_equal_on_both_sides_of_where_pairs_begin_and_with_an_odd_byte(size):
    values = pixels((1, 1, size))
    np.testing.assert_array_equal(count_bytes(values), bincount(values))


def test_images_larger_than_a_chunk_are_counted_whole(monkeypatch):
    monkeypatch.setattr(module, "_HOST_CHUNK", 1001)
    monkeypatch.setattr(module, "_PAIRS_FROM", 100)
    monkeypatch.setattr(module, "_DEVICE_CHUNK", 1001)
    values = pixels((5, 2, 37, 53))
    np.testing.assert_array_equal(count_bytes(values), bincount(values))
    np.testing.assert_array_equal(count_by_sorting(torch.from_numpy(values)).numpy(), bincount(values))


@pytest.mark.parametrize("shape", [(3, 3, 8, 9), (1, 3, 8, 9), (4, 1, 5, 5), (2, 3)])
@pytest.mark.parametrize("nhwc", [False, True])
def test_tensors_are_counted_by_the_generic_path_with_deterministic_algorithms(shape, nhwc):
    tensor = torch.from_numpy(pixels(shape))
    if nhwc and tensor.ndim == 4:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    torch.use_deterministic_algorithms(True)
    try:
        counts = count_by_sorting(tensor)
    finally:
        torch.use_deterministic_algorithms(False)
    assert counts.dtype == torch.int64
    np.testing.assert_array_equal(counts.numpy(), bincount(tensor.numpy()))


def test_a_sketch_fed_with_tensors_and_arrays_by_turns_adds_them_all():
    batches = [pixels((2, 3, 6, 6), seed) for seed in range(3)]
    sketch = counted(batches[0])
    sketch._update(torch.from_numpy(batches[1]))
    sketch._update(batches[2])
    assert isinstance(sketch._counts, torch.Tensor)
    on_host = sketch.to_host()
    assert isinstance(on_host._counts, np.ndarray)
    assert on_host.n == sketch.n == 6
    np.testing.assert_array_equal(on_host.counts, bincount(np.concatenate(batches)))
    assert on_host.to_host() is on_host


def test_training_and_inference_mode_may_alternate():
    sketch, values = PixelCounts(3), pixels((60, 3, 4, 4))
    for step in range(60):
        with torch.inference_mode(step % 2 == 0):
            sketch._update(torch.from_numpy(values[step : step + 1]))
    np.testing.assert_array_equal(sketch.counts, bincount(values))


def test_counting_on_an_accelerator_never_waits(accelerator, monkeypatch):
    monkeypatch.setattr(module, "_DEVICE_CHUNK", 500)
    sketch = counted(pixels((2, 3, 6, 6)))
    for _ in range(3):
        sketch.update(accelerator((5, 3, 8, 8), torch.uint8))
    assert (sketch.n, sketch._counts.device.type, sketch._counts.shape) == (17, "cuda", (3, 256))


def test_images_that_were_counted_on_an_accelerator_are_not_waited_for(accelerator):
    sketch = counted(pixels((2, 3, 6, 6)))
    for n in (4, accelerator((), torch.int64), accelerator((), torch.int32), 3):
        sketch.add(accelerator((3, 256), torch.int64), n)
    assert (sketch._n.device.type, tuple(sketch._n.shape)) == ("cuda", ())
    with pytest.raises(AssertionError, match="from the accelerator"):
        _ = sketch.n


def test_bytes_after_images_that_were_counted_elsewhere(monkeypatch):
    """Their number is a scalar there, which a copy has too, and which inference mode may have made."""
    monkeypatch.setattr(module, "is_host", lambda array: False)
    sketch = PixelCounts(3)
    with torch.inference_mode():
        sketch.add(torch.zeros((3, 256), dtype=torch.int64), torch.tensor(4))
    before = copy(sketch)
    sketch.update(pixels((2, 3, 6, 6)))
    assert (before.n, sketch.n) == (4, 6)


@pytest.mark.parametrize("make", [int, np.int64, np.array, torch.tensor])
def test_how_many_images_were_counted_is_a_number_in_the_end(make):
    sketch = counted(pixels((2, 3, 6, 6)))
    sketch.update((np.zeros((3, 256), np.int32), make(4)))
    assert type(sketch.n) is int
    assert sketch.n == sketch.to_host().n == 6
    assert PixelCounts.from_state(sketch.state()).n == 6


def test_a_torch_batch_in_host_memory_is_counted_where_it_is():
    values = pixels((2, 3, 8, 8))
    sketch = PixelCounts(3)
    sketch.update(torch.from_numpy(values))
    assert isinstance(sketch._counts, np.ndarray)
    np.testing.assert_array_equal(sketch.counts, bincount(values))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_any_split_into_updates_and_merges_counts_the_same(sizes, seed):
    values = pixels((sum(sizes), 2, 3, 3), seed)
    merged, start = PixelCounts(2), 0
    for size in sizes:
        part = counted(values[start : start + size])
        before = part.counts.copy()
        merged.merge(part)
        np.testing.assert_array_equal(part.counts, before)
        start += size
    assert merged.n == sum(sizes)
    np.testing.assert_array_equal(merged.counts, bincount(values))


def test_other_channels_are_not_merged():
    a = counted(pixels((1, 1, 4, 4)))
    with pytest.raises(InputError, match="1 and of 2 channels"):
        a.merge(PixelCounts(2))


def test_quantiles_are_numpys_inverted_cdf():
    values = pixels((3, 2, 17, 5))
    ranks = np.linspace(0, 1, 41)
    expected = np.stack([np.quantile(values[:, c], ranks, method="inverted_cdf") for c in range(2)])
    result = counted(values).quantiles(ranks)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)


def test_cdf_is_the_share_at_or_below_each_point():
    values = pixels((3, 2, 17, 5))
    sketch = counted(values)
    points = np.array([-np.inf, -1, 0, 0.5, 100, 254.99, 255, 300, np.inf])
    expected = np.stack([[np.mean(values[:, c] <= point) for point in points] for c in range(2)])
    result = sketch.cdf(points)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, expected, rtol=1e-15)
    np.testing.assert_allclose(sketch.cdf(np.stack([points, points])), expected, rtol=1e-15)
    assert np.isnan(sketch.cdf([np.nan])).all()


def test_extremes():
    values = np.clip(pixels((3, 2, 17, 5)), 3, 250).astype(np.uint8)
    sketch = counted(values)
    assert sketch.min.tolist() == [3.0, 3.0]
    assert sketch.max.tolist() == [250.0, 250.0]


def test_nothing_counted_answers_nan():
    empty = PixelCounts(2)
    empty.update(np.zeros((0, 2, 4, 4), np.uint8))
    for answer in (empty.quantiles([0, 0.5]), empty.cdf([0, 1]), empty.min, empty.max):
        assert np.isnan(answer).all()
        assert len(answer) == 2
    assert all(datasketches.kll_floats_sketch.deserialize(blob).is_empty() for blob in empty.to_bytes())


@pytest.mark.parametrize("k", [8, 100, 200, 800])
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 1, 2), (1, 3, 13, 17), (9, 3, 224, 224)])
def test_datasketches_reads_the_sketch_within_its_own_bound(shape, k):
    values = np.random.default_rng(k).normal(120, 40, shape).clip(0, 255).astype(np.uint8)
    sketch = counted(values)
    for channel, blob in enumerate(sketch.to_bytes(k)):
        theirs = datasketches.kll_floats_sketch.deserialize(blob)
        flat = np.sort(values[:, channel].ravel())
        assert (theirs.k, theirs.n) == (k, flat.size)
        assert (theirs.get_min_value(), theirs.get_max_value()) == (flat[0], flat[-1])
        points = np.unique(flat).astype(float)
        ranks = np.array([theirs.get_rank(point, True) for point in points])
        exact = np.searchsorted(flat, points, side="right") / flat.size
        assert np.abs(ranks - exact).max() <= theirs.normalized_rank_error(False) / 2


def test_counts_of_ten_million_million_pixels_still_make_a_sketch():
    state = PixelCounts(1).state()
    state["counts"][0] = np.random.default_rng(0).integers(1, 10**11, 256)
    state["n"] = np.array(10**9)
    sketch = PixelCounts.from_state(state)
    theirs = datasketches.kll_floats_sketch.deserialize(sketch.to_bytes()[0])
    assert theirs.n == sketch.counts.sum()
    exact = sketch.cdf([64, 128, 192])[0]
    np.testing.assert_allclose([theirs.get_rank(x, True) for x in (64, 128, 192)], exact, atol=0.0133)


def test_datasketches_merges_the_sketch():
    a, b = (counted(pixels((2, 1, 50, 50), seed)).to_bytes()[0] for seed in (0, 1))
    merged = datasketches.kll_floats_sketch.deserialize(a)
    merged.merge(datasketches.kll_floats_sketch.deserialize(b))
    assert merged.n == 10_000
    assert merged.get_quantile(0.5, True) == pytest.approx(127.5, abs=6)


def test_the_same_counts_make_the_same_bytes():
    values = pixels((2, 3, 50, 50))
    parts = PixelCounts(3)
    for image in values:
        parts.update(image[None])
    assert parts.to_bytes() == counted(values).to_bytes()


def damaged(**changes):
    return counted(pixels((2, 2, 3, 3))).state() | changes


@pytest.mark.parametrize(
    "state",
    [
        {},
        damaged(counts=np.zeros((2, 255), np.int64)),
        damaged(counts=np.zeros((0, 256), np.int64)),
        damaged(counts=np.zeros((2, 256))),
        damaged(counts=np.full((2, 256), -1)),
        damaged(counts=np.full((2, 256), 2**62)),
        damaged(counts=np.stack([np.arange(256), np.zeros(256, int)])),
        damaged(n=np.array(0)),
        damaged(n=np.array(-1)),
        damaged(n=np.array([2])),
    ],
    ids=lambda state: ",".join(f"{k}{v.shape}" for k, v in state.items()),
)
def test_hostile_states_raise_our_error(state):
    with pytest.raises(FormatError):
        PixelCounts.from_state(state)


@pytest.mark.parametrize("channels", [0, -1, 1.0, "3", None])
def test_channels_is_a_positive_whole_number(channels):
    with pytest.raises(InputError, match="channels is the number"):
        PixelCounts(channels)


def test_wrong_batches_are_refused_before_anything_is_counted():
    sketch = PixelCounts(3)
    with pytest.raises(InputError, match="uint8, not float32"):
        sketch.update(np.zeros((1, 3, 2, 2), np.float32))
    with pytest.raises(InputError, match=r"uint8, not torch\.int8"):
        sketch._update(torch.zeros((1, 3, 2, 2), dtype=torch.int8))
    for shape in ((1, 4, 2, 2), (3,), (2, 2, 3)):
        with pytest.raises(InputError, match="channels second"):
            sketch.update(np.zeros(shape, np.uint8))
    assert (sketch.n, sketch.counts.sum()) == (0, 0)


@pytest.mark.parametrize("ranks", [[-0.1], [1.1], [np.nan]])
def test_ranks_outside_zero_and_one_are_refused(ranks):
    for sketch in (PixelCounts(1), counted(pixels((1, 1, 2, 2)))):
        with pytest.raises(InputError, match="ranks"):
            sketch.quantiles(ranks)


def test_points_of_another_shape_and_k_out_of_range_are_refused():
    sketch = counted(pixels((1, 2, 2, 2)))
    with pytest.raises(InputError, match="points"):
        sketch.cdf(np.zeros((3, 4)))
    for k in (7, 65536):
        with pytest.raises(InputError, match="k should be 8 to 65535"):
            sketch.to_bytes(k)
