"""CUDA graphs, which no machine of ours can run: stand-ins that reuse their memory, and that call no layer.

A graph's answers lie in memory that its next replay overwrites. The compiler's backend here does that on the CPU.
"""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from lensai_integrations import DriftMonitor, Profiler
from lensai_integrations.problems import Problems
from lensai_integrations.profiling.batch_reading import BatchReader
from lensai_integrations.torch import taps as module_of_taps
from lensai_integrations.torch import watching
from lensai_integrations.torch.graphs import graphed_around
from lensai_integrations.torch.layers import find_layer
from lensai_integrations.torch.recording import LoaderPass
from lensai_integrations.torch.taps import PARTS, Calls, Tap, Taps


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


@pytest.fixture
def taps(model):
    """Hooks on an embedding and on the outputs of `model`."""
    made = Taps(
        [Tap("embeddings/0", find_layer(model, "0"), "mean"), Tap("outputs", find_layer(model, "2"))],
        Problems(),
        model,
    )
    yield made
    made.remove()


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def replayed(graph, _):
    """Compiles as CUDA graphs do: what comes out is always the same memory."""
    memory = []

    def run(*given):
        made = graph(*given)
        if not memory:
            memory.extend(torch.empty_like(tensor) for tensor in made)
        for tensor, kept in zip(made, memory, strict=True):
            kept.copy_(tensor)
        return list(memory)

    return run


@pytest.mark.slow
@torch.no_grad()
def test_rows_of_a_compiled_model_are_not_those_of_the_next_replay(model, taps, monkeypatch):
    monkeypatch.setattr(module_of_taps, "may_be_overwritten", lambda values: True)
    compiled, batches = torch.compile(model, backend=replayed), torch.randn(4, 5, 4)
    expected = [(model[0](batch), model(batch)) for batch in batches]
    rows = []
    for batch in batches:
        taps.open()
        compiled(batch)
        rows.append(taps.close())

    for caught, (embedding, output) in zip(rows, expected, strict=True):
        np.testing.assert_allclose(caught["embeddings/0"], embedding, rtol=1e-5)
        np.testing.assert_allclose(caught["outputs"], output, rtol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_a_batch_in_parts_is_put_together_of_copies(model, taps, monkeypatch):
    monkeypatch.setattr(module_of_taps, "may_be_overwritten", lambda values: True)
    compiled, batch = torch.compile(model, backend=replayed), torch.randn(10, 4)
    taps.delimit([compiled])
    for key in ("embeddings/0", "outputs"):
        taps.follow(key, Calls(PARTS, (0, 1), 2), training=False)
    for _ in range(2):
        taps.open()
        for part in batch.chunk(2):
            compiled(part)
        rows = taps.close()
        np.testing.assert_allclose(rows["embeddings/0"], model[0](batch), rtol=1e-5)
        np.testing.assert_allclose(rows["outputs"], model(batch), rtol=1e-5)


def test_what_lies_in_host_memory_is_not_copied_again():
    assert not module_of_taps.may_be_overwritten(torch.zeros(2))
    assert module_of_taps.may_be_overwritten(torch.zeros(2, device="meta"))


def make_graphed_callables(module):
    """What torch's function of this name does to a module: in its place answers what calls no layer."""

    def make_graphed_forward():
        def new_fwd(given):
            return torch.zeros(len(given), 6)

        return new_fwd

    module.forward = make_graphed_forward()
    return module


def test_torch_puts_functions_of_this_name_in_the_place_of_forward():
    source = inspect.getsource(torch.cuda.graphs.make_graphed_callables)

    assert "func.forward = make_graphed_forward(" in source
    assert make_graphed_callables(nn.Sequential()).forward.__qualname__.endswith(
        "make_graphed_forward.<locals>.new_fwd"
    )


def run(model, taps, batches=2):
    """The profile of a validation pass."""
    problems = Problems(quiet=True)
    prepare = lambda loader: (BatchReader(None, None, problems, None, source="validation"), Profiler(seed=0))  # noqa: E731
    recording = LoaderPass("validation", prepare, taps, problems)
    recording.start(None)
    for _ in range(batches):
        recording.open((torch.randn(5, 4), torch.zeros(5, dtype=torch.long)))
        model(torch.randn(5, 4))
        recording.close()
    return recording.finish()


@torch.no_grad()
def test_layers_in_a_replayed_module_are_named_with_what_replays_them(model):
    model = nn.Sequential(make_graphed_callables(nn.Sequential(model)), nn.Linear(6, 2))
    taps = Taps([Tap("embeddings/0.0.0", find_layer(model, "0.0.0"), "mean")], Problems(quiet=True), model)
    [warning] = run(model, taps).warnings

    assert graphed_around(model, model[0][0]) == "0"
    assert graphed_around(model, model[1]) is None
    assert warning.startswith(
        "layer '0.0.0' answered nothing in 2 batches of validation: '0' around it is replayed as a"
    )
    assert "which calls none of its layers" in warning
    taps.remove()


@torch.no_grad()
def test_the_replayed_module_itself_is_read_and_its_answers_are_copied(model):
    model = nn.Sequential(make_graphed_callables(nn.Sequential(model)), nn.Linear(6, 2))
    taps = Taps([Tap("embeddings/0", find_layer(model, "0"), "mean")], Problems(), model)

    assert graphed_around(model, model[0]) is None
    assert run(model, taps).groups["embeddings/0"].n == 10
    taps.remove()


@torch.no_grad()
def test_nothing_is_read_while_a_graph_is_captured_and_that_is_said(model, taps, monkeypatch):
    monkeypatch.setattr(module_of_taps, "is_captured", lambda: True)
    warnings = run(model, taps).warnings

    assert len(warnings) == 2
    assert all("it was called while a CUDA graph was captured" in warning for warning in warnings)


@torch.no_grad()
def test_a_monitor_is_told_nothing_while_a_graph_is_captured(model, monkeypatch):
    profiler = Profiler(seed=0)
    profiler.update(outputs=torch.randn(100, 3))
    monitor = DriftMonitor(profiler.profile(), window=50)
    with monitor, monitor.watch(model, inputs=False):
        monkeypatch.setattr(watching, "is_captured", lambda: True)
        model(torch.randn(5, 4))
        monkeypatch.setattr(watching, "is_captured", lambda: False)
        model(torch.randn(5, 4))

        assert monitor.status.rows == 5
        assert "while a CUDA graph was captured" in monitor.status.causes["watch"]


def test_of_layers_that_nobody_graphed_the_other_reasons_are_told(model):
    taps = Taps([Tap("embeddings/0", find_layer(model, "0"), "mean")], Problems(quiet=True), model)
    [warning] = run(lambda _: None, taps).warnings

    assert "it is not part of the forward pass" in warning
    assert "a CUDA graph is replayed in its place, which calls no layer" in warning
    taps.remove()
