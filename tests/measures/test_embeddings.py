"""Reductions against torch and numpy in float64; the projection against its promises: fixed, linear, near-isometric."""

from __future__ import annotations

import copy
import hashlib
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import nothing_waits
from scipy.spatial.distance import pdist

from lensai_integrations.arrays import namespaces
from lensai_integrations.arrays.namespaces import to_host
from lensai_integrations.errors import InputError
from lensai_integrations.measures.definitions import DEFINITIONS
from lensai_integrations.measures.embeddings import (
    REDUCTIONS,
    RandomProjection,
    check_reduce,
    embedding_definition,
    reduce_embedding,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def first_two(output):
    return output[:, :2]


# ---- reduce_embedding


@pytest.mark.parametrize("shape", [(6, 8, 5, 4), (6, 8, 3, 5, 4), (6, 8, 1, 1)])
def test_maps_reduce_over_space(shape):
    maps = normal(*shape)
    axes = tuple(range(2, len(shape)))
    np.testing.assert_allclose(reduce_embedding(maps), maps.astype(np.float64).mean(axis=axes), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(reduce_embedding(maps, "max"), maps.max(axis=axes))
    np.testing.assert_array_equal(reduce_embedding(maps, "flatten"), maps.reshape(6, -1))


@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize("shape", [(6, 8, 5, 4), (6, 8, 3, 5, 4)])
def test_channels_last_gives_the_same_channels(shape, reduce):
    maps = normal(*shape)
    moved = np.ascontiguousarray(np.moveaxis(maps, 1, -1))
    last = reduce_embedding(moved, reduce, channels_last=True)
    np.testing.assert_allclose(last, reduce_embedding(maps, reduce), rtol=1e-5, atol=1e-6)


def test_torch_average_pooling_is_the_reference():
    maps = torch.from_numpy(normal(4, 16, 7, 7))
    expected = torch.nn.functional.adaptive_avg_pool2d(maps, 1).flatten(1)
    np.testing.assert_allclose(reduce_embedding(maps), expected.numpy(), rtol=1e-5, atol=1e-6)
    expected = torch.nn.functional.adaptive_max_pool2d(maps, 1).flatten(1)
    np.testing.assert_array_equal(reduce_embedding(maps, "max"), expected.numpy())


@pytest.mark.parametrize("channels_last", [False, True])
def test_tokens_reduce_over_the_middle_axis(channels_last):
    tokens = normal(5, 17, 12)
    expected = {"mean": tokens.astype(np.float64).mean(axis=1), "max": tokens.max(axis=1), "cls": tokens[:, 0]}
    for reduce, rows in expected.items():
        reduced = reduce_embedding(tokens, reduce, channels_last=channels_last)
        np.testing.assert_allclose(reduced, rows, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_vectors_are_taken_as_they_are(reduce):
    vectors = normal(5, 12)
    np.testing.assert_array_equal(reduce_embedding(vectors, reduce), vectors)
    np.testing.assert_array_equal(reduce_embedding(vectors[:, 0], reduce), vectors[:, :1])


SHAPES = [(4,), (4, 6), (4, 5, 6), (4, 1, 6), (4, 5, 3, 3), (4, 5, 1, 1), (4, 5, 2, 3, 3)]
FITTING = [(shape, reduce) for shape in SHAPES for reduce in REDUCTIONS if reduce != "cls" or len(shape) <= 3]


@pytest.mark.parametrize(("shape", "reduce"), [*FITTING, ((4, 6), first_two)])
@pytest.mark.parametrize("library", ["numpy", "torch", "generic"])
def test_what_is_kept_is_a_copy(shape, reduce, library, monkeypatch):
    """A ReLU in place, right after, must not reach the rows that were handed over."""
    if library == "generic":
        monkeypatch.setattr("lensai_integrations.measures.embeddings.local", lambda array: array)
    output = normal(*shape) if library == "numpy" else torch.from_numpy(normal(*shape))
    rows = reduce_embedding(output, reduce)
    before = to_host(rows).copy()
    np.maximum(output, 0, out=output) if library == "numpy" else torch.relu_(output)
    np.testing.assert_array_equal(to_host(rows), before)
    assert (before < 0).any() or reduce == "max"


@pytest.mark.parametrize("reduce", ["mean", "max", "flatten"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.uint8])
def test_the_generic_path_gives_what_numpy_gives(reduce, dtype, monkeypatch):
    """Accelerators run the formulas on tensors; torch's own in host memory prove that path without one."""
    maps = (torch.from_numpy(normal(3, 8, 5, 5)) * 20).abs().to(dtype)
    host = reduce_embedding(maps, reduce)
    monkeypatch.setattr("lensai_integrations.measures.embeddings.local", lambda array: array)
    rows = reduce_embedding(maps, reduce)
    assert isinstance(rows, torch.Tensor)
    assert rows.dtype == torch.float32
    assert host.dtype == np.float32
    np.testing.assert_allclose(rows.numpy(), host, rtol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("shape", "reduce"), [*FITTING, ((4, 6), first_two)])
def test_nothing_is_read(shape, reduce, channels_last):
    """Meta tensors have no values: they stand in for an accelerator's."""
    with nothing_waits():
        rows = reduce_embedding(torch.empty(shape, device="meta"), reduce, channels_last=channels_last)
    assert rows.device.type == "meta"
    assert rows.dtype == torch.float32
    assert len(rows.shape) == 2


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_half_precision_is_added_up_in_float32(library):
    """In float16, 4096 times 32 overflows, and 2048 + 1 is 2048."""
    maps = np.full((2, 3, 64, 64), 32, dtype=np.float16)
    maps[:, 1] = 1
    output = maps if library == "numpy" else torch.from_numpy(maps)
    assert reduce_embedding(output).tolist() == [[32.0, 1.0, 32.0]] * 2


def test_bfloat16_tokens():
    tokens = torch.from_numpy(normal(2, 200, 4)).bfloat16()
    expected = tokens.double().mean(dim=1).numpy()
    np.testing.assert_allclose(reduce_embedding(tokens), expected, rtol=1e-4, atol=1e-6)


def test_tensors_with_gradients_and_other_memory_layouts():
    maps = torch.from_numpy(normal(3, 8, 5, 4)).contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = maps.detach().mean(dim=(2, 3)).numpy()
    np.testing.assert_allclose(reduce_embedding(maps), expected, rtol=1e-5, atol=1e-6)
    flat = reduce_embedding(maps, "flatten")
    np.testing.assert_array_equal(flat, maps.detach().flatten(1).numpy())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(-100, 100), st.floats(-10, 10))
def test_the_mean_is_linear(seed, scale, offset):
    maps = normal(3, 4, 5, 5, seed=seed).astype(np.float64)
    expected = reduce_embedding(maps) * scale + offset
    np.testing.assert_allclose(reduce_embedding(maps * scale + offset), expected, rtol=1e-4, atol=1e-4)


def test_non_finite_values_stay_in_their_row():
    maps = normal(4, 2, 3, 3)
    maps[1, 0, 0, 0], maps[2, 1, 0, 0], maps[2, 1, 0, 1] = np.nan, np.inf, -np.inf
    for reduce in ("mean", "flatten"):
        finite = np.isfinite(reduce_embedding(maps, reduce)).all(axis=1)
        assert finite.tolist() == [True, False, False, True]
    assert not np.isfinite(reduce_embedding(np.full((1, 2, 2), 1e300))).any()


def test_an_own_function_gets_a_detached_tensor_and_is_copied():
    seen = []

    def corners(output):
        seen.append(output)
        return output[:, :, 0, 0]

    maps = torch.from_numpy(normal(3, 4, 2, 2)).requires_grad_()
    rows = reduce_embedding(maps, corners)
    assert isinstance(seen[0], torch.Tensor)
    assert not seen[0].requires_grad
    np.testing.assert_array_equal(rows, maps.detach()[:, :, 0, 0].numpy())


def test_an_own_function_may_take_what_is_no_array():
    output = (normal(3, 7, 4), "attention")
    np.testing.assert_array_equal(reduce_embedding(output, lambda both: both[0][:, 1]), output[0][:, 1])


@pytest.mark.parametrize("wrong", [lambda x: x, lambda x: x[:2, :, 0, 0], lambda x: x[:, :0, 0, 0], lambda x: 1.0])
def test_an_own_function_must_answer_a_vector_per_row(wrong):
    with pytest.raises(InputError, match=r"reduce=.*lambda.* must return \[n, D\].*got shape"):
        reduce_embedding(normal(3, 4, 2, 2), wrong)


def test_an_own_functions_errors_are_its_own():
    with pytest.raises(ZeroDivisionError):
        reduce_embedding(normal(3, 4), lambda x: 1 / 0)


@pytest.mark.parametrize("reduce", ["average", "", None, 3])
def test_unknown_reductions_are_refused(reduce):
    for call in (lambda: check_reduce(reduce), lambda: reduce_embedding(normal(2, 3), reduce)):
        with pytest.raises(InputError, match="'mean', 'max', 'cls', 'flatten' or a function"):
            call()


@pytest.mark.parametrize("shape", [(), (3, 0), (3, 4, 0, 2)])
def test_outputs_without_rows_or_components_are_refused(shape):
    with pytest.raises(InputError, match=r"must be \[n, \.\.\.\]"):
        reduce_embedding(np.zeros(shape))


def test_cls_is_for_tokens_only():
    with pytest.raises(InputError, match=r"tokens \[n, T, D\], got shape \(2, 3, 4, 4\); pass 'mean'"):
        reduce_embedding(normal(2, 3, 4, 4), "cls")


@pytest.mark.parametrize("reduce", ["mean", "max", "flatten"])
def test_an_empty_batch(reduce):
    assert reduce_embedding(np.zeros((0, 4, 3, 3)), reduce).shape == (0, 36 if reduce == "flatten" else 4)


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3, 4, 5])
def test_every_reduction_has_its_own_declared_definition(axes, projected):
    ids = [embedding_definition(axes, reduce, projected=projected) for reduce in (*REDUCTIONS, first_two)]
    assert set(ids) <= set(DEFINITIONS)
    assert len(set(ids)) == (2 if axes <= 2 else 5)
    assert all(("projected" in id) == projected for id in ids)


def test_definitions_of_unknown_reductions_are_refused():
    with pytest.raises(InputError, match="reduce='average'"):
        embedding_definition(4, "average")


# ---- RandomProjection


def matrix_of(projection):
    return projection.project(np.eye(projection.dim_in, dtype=np.float32))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**40))
def test_every_component_has_a_sign_in_each_block(a, b, seed):
    dim_in, dim_out = max(a, b), min(a, b)
    matrix = matrix_of(RandomProjection(dim_in, dim_out, seed))
    count = min(4, dim_out)
    assert matrix.shape == (dim_in, dim_out)
    np.testing.assert_allclose(np.abs(matrix[matrix != 0]), 1 / np.sqrt(count), rtol=1e-6)
    at = 0
    for width in [dim_out // count + (block < dim_out % count) for block in range(count)]:
        used = matrix[:, at : at + width] != 0
        assert (used.sum(axis=1) == 1).all()
        assert np.ptp(used.sum(axis=0)) <= 1
        at += width


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(-3, 3))
def test_the_projection_is_linear_and_row_by_row(seed, factor):
    projection = RandomProjection(50, 9, seed)
    x, y = normal(4, 50, seed=seed), normal(4, 50, seed=seed + 1)
    expected = projection.project(x) + factor * projection.project(y)
    np.testing.assert_allclose(projection.project(x + np.float32(factor) * y), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(projection.project(x)[1:2], projection.project(x[1:2]))


def test_it_equals_its_own_dense_matrix():
    projection = RandomProjection(1000, 37, seed=5)
    rows = normal(20, 1000)
    expected = rows.astype(np.float64) @ matrix_of(projection).astype(np.float64)
    np.testing.assert_allclose(projection.project(rows), expected, rtol=1e-4, atol=1e-4)


def test_distances_are_kept():
    """The largest of 780 relative errors of squared distances, which have a standard deviation of sqrt(2 / 2048)."""
    rows = normal(40, 25088)
    squared, projected = pdist(rows) ** 2, pdist(RandomProjection(25088).project(rows)) ** 2
    error = projected / squared - 1
    deviation = np.sqrt(2 / 2048)
    assert np.abs(error).max() < 5 * deviation
    assert 0.5 * deviation < error.std() < 1.2 * deviation


@pytest.mark.parametrize("nonzero", [1, 2, 10, 2000])
def test_squared_lengths_are_right_on_average_over_seeds(nonzero):
    """Sparse vectors are the hard case of sparse projections; one component alone keeps its length exactly."""
    dim_in, dim_out, seeds = 2000, 64, 300
    row = np.zeros((1, dim_in), dtype=np.float32)
    row[0, :nonzero] = 1
    ratios = [np.square(RandomProjection(dim_in, dim_out, seed).project(row)).sum() / nonzero for seed in range(seeds)]
    deviation = np.sqrt(2 / dim_out)
    assert abs(np.mean(ratios) - 1) < 4 * deviation / np.sqrt(seeds)
    assert np.std(ratios) < 1.2 * deviation
    if nonzero == 1:
        np.testing.assert_allclose(ratios, 1, rtol=1e-6)


def test_a_shift_of_the_mean_survives():
    shift = np.zeros(5000, dtype=np.float32)
    shift[::7] = 0.5
    projection = RandomProjection(5000, 512)
    rows = normal(400, 5000)
    moved = projection.project(rows + shift).mean(axis=0) - projection.project(rows).mean(axis=0)
    assert np.linalg.norm(moved) == pytest.approx(np.linalg.norm(shift), rel=0.2)


def test_the_same_arguments_give_the_same_map_for_ever():
    """Held to the bytes: profiles of different machines and releases are compared through it."""
    matrix = matrix_of(RandomProjection(100, 10, seed=3))
    assert hashlib.sha256(np.sign(matrix).astype(np.int8).tobytes()).hexdigest() == (
        "dafe9a97252f6fd3973a668904be9210c37f129d9cd7f0bfaf9924dc7a1cbdbb"
    )
    np.testing.assert_array_equal(matrix_of(RandomProjection(100, 10, seed=3)), matrix)


@pytest.mark.parametrize("other", [(100, 10, 4), (100, 11, 3), (101, 10, 3)])
def test_other_arguments_give_another_map(other):
    rows = np.ones((1, 101), dtype=np.float32)
    one, two = RandomProjection(100, 10, 3), RandomProjection(*other)
    assert not np.array_equal(one.project(rows[:, :100])[:, :10], two.project(rows[:, : two.dim_in])[:, :10])


def test_torch_gives_what_numpy_gives():
    projection = RandomProjection(300, 41)
    rows = normal(17, 300)
    np.testing.assert_array_equal(projection.project(torch.from_numpy(rows)), projection.project(rows))


def test_the_generic_path_projects_as_numpy_does(monkeypatch):
    projection = RandomProjection(300, 41)
    rows = normal(17, 300)
    expected = projection.project(rows)
    monkeypatch.setattr("lensai_integrations.measures.embeddings.local", lambda array: array)
    for tensor in (torch.from_numpy(rows), torch.from_numpy(rows).double()):
        projected = projection.project(tensor)
        assert isinstance(projected, torch.Tensor)
        assert projected.dtype == torch.float32
        np.testing.assert_allclose(projected.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_its_signs_are_sent_without_waiting_and_once_in_a_process(accelerator, monkeypatch):
    sent = []
    monkeypatch.setattr(namespaces, "send", lambda array, like: sent.append(array) or accelerator(array.shape))
    for _ in range(2):
        RandomProjection(310, 42, seed=7)._beside(accelerator((5, 310)))
    assert len(sent) == 8


def test_an_accelerator_is_not_waited_for(accelerator):
    projected = RandomProjection(300, 41).project(accelerator((17, 300), torch.bfloat16))
    assert (projected.device.type, tuple(projected.shape), projected.dtype) == ("cuda", (17, 41), torch.float32)


def test_it_runs_where_torch_is_held_to_deterministic_algorithms(monkeypatch):
    monkeypatch.setattr("lensai_integrations.measures.embeddings.local", lambda array: array)
    torch.use_deterministic_algorithms(True)
    try:
        RandomProjection(300, 41).project(torch.zeros(3, 300))
    finally:
        torch.use_deterministic_algorithms(False)


def test_nothing_is_read_by_a_projection_once_its_signs_are_on_the_device():
    projection, rows = RandomProjection(300, 41), torch.empty(3, 300, device="meta")
    projection.project(rows)
    with nothing_waits():
        projected = projection.project(rows)
    assert projected.device.type == "meta"
    assert projected.shape == (3, 41)


def test_large_batches_are_projected_piece_by_piece(monkeypatch):
    projection = RandomProjection(300, 41)
    rows = normal(17, 300)
    whole = projection.project(rows)
    monkeypatch.setattr("lensai_integrations.measures.embeddings._CHUNK", 1000)
    np.testing.assert_array_equal(projection.project(rows), whole)


def test_non_finite_rows_stay_non_finite_and_alone():
    rows = normal(5, 300)
    clean = RandomProjection(300, 41).project(rows)
    rows[1, 7], rows[3, 299] = np.nan, np.inf
    projected = RandomProjection(300, 41).project(rows)
    assert np.isfinite(projected).all(axis=1).tolist() == [True, False, True, False, True]
    np.testing.assert_array_equal(projected[::2], clean[::2])


def test_an_empty_batch_projects_to_an_empty_batch():
    assert RandomProjection(300, 41).project(np.zeros((0, 300), np.float32)).shape == (0, 41)


def test_it_copies_and_pickles_by_its_arguments():
    projection = RandomProjection(300, 41, seed=2)
    projection.project(torch.empty(1, 300, device="meta"))  # leaves something placed on a device behind
    rows = normal(3, 300)
    for twin in (copy.deepcopy(projection), pickle.loads(pickle.dumps(projection))):
        assert twin.info == projection.info == {"dim_in": 300, "dim_out": 41, "seed": 2}
        np.testing.assert_array_equal(twin.project(rows), projection.project(rows))
    assert len(pickle.dumps(projection)) < 200


def test_global_random_states_are_left_alone():
    state = torch.get_rng_state()
    legacy = np.random.mtrand._rand.get_state()[1].copy()
    RandomProjection(300, 41).project(normal(3, 300))
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.mtrand._rand.get_state()[1], legacy)


@pytest.mark.parametrize(("dim_in", "dim_out"), [(10, 11), (10, 0), (0, 0), (10, -1)])
def test_sizes_that_make_no_projection_are_refused(dim_in, dim_out):
    with pytest.raises(InputError, match=f"dim_out={dim_out} must be between 1 and dim_in={dim_in}"):
        RandomProjection(dim_in, dim_out)


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match="seed=-1"):
        RandomProjection(10, 5, seed=-1)


@pytest.mark.parametrize("shape", [(3, 299), (300,), (3, 300, 1)])
def test_rows_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"rows must be \[n, 300\] for RandomProjection\(300, 41, seed=0\), got shape"):
        RandomProjection(300, 41).project(np.zeros(shape, np.float32))
