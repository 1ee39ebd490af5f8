"""One dispatch where the library offers that, the function as it is everywhere else."""

from __future__ import annotations

import numpy as np
import pytest
from libraries import IMMUTABLE, LIBRARIES, as_if_elsewhere, maker, traced

from lensai_integrations.arrays import namespaces
from lensai_integrations.arrays.namespaces import Compiled, is_immutable, is_symbolic, namespace, to_host


class Summed:
    """Counts how often it is called, and remembers whether with values."""

    def __init__(self):
        self.symbolic = []

    def __call__(self, array):
        self.symbolic.append(is_symbolic(array))
        return {"sum": namespace(array).sum(array, axis=0), "two": (array, array * 2)}


@pytest.mark.parametrize("library", IMMUTABLE)
def test_elsewhere_it_is_traced_once_for_each_shape(library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    function = Summed()
    together, make = Compiled(function), maker(library)
    for n in (3, 4, 3, 4):
        found = together(make(np.ones((n, 2), np.float32)))
        assert to_host(found["sum"]).tolist() == [n, n]
        assert to_host(found["two"][1]).shape == (n, 2)
    assert function.symbolic == [True, True]


@pytest.mark.parametrize("library", LIBRARIES)
def test_in_host_memory_it_is_called_as_it_is(library):
    function = Summed()
    array = maker(library)(np.ones((3, 2), np.float32))
    assert to_host(Compiled(function)(array)["sum"]).tolist() == [3, 3]
    assert function.symbolic == [False]


@pytest.mark.parametrize("library", IMMUTABLE)
def test_inside_what_is_traced_it_is_a_part_of_that(library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    function = Summed()
    found = traced(library, Compiled(function), maker(library)(np.ones((3, 2), np.float32)))
    assert to_host(found["sum"]).tolist() == [3, 3]
    assert function.symbolic == [True]


@pytest.mark.filterwarnings("error")
def test_tensorflow_traces_a_few_shapes_and_runs_the_others_step_by_step(monkeypatch, caplog):
    as_if_elsewhere(monkeypatch)
    monkeypatch.setattr(namespaces, "_MOST_SHAPES", 8)
    function, make = Summed(), maker("tensorflow")
    together = Compiled(function)
    for n in range(1, 12):
        found = together(make(np.ones((n, 2), np.float32)))
        assert is_immutable(found["sum"])
        assert to_host(found["sum"]).tolist() == [n, n]
    assert function.symbolic == [True] * 8 + [False] * 3
    assert "retracing" not in caplog.text


@pytest.mark.parametrize("library", IMMUTABLE)
def test_a_function_that_reads_a_value_is_refused(library, monkeypatch):
    """What is traced cannot wait: this is how everything that is compiled is known not to."""
    as_if_elsewhere(monkeypatch)
    with pytest.raises(Exception, match=r"(?i)tracer|symbolic|not allowed|numpy|eager"):
        Compiled(to_host)(maker(library)(np.ones(3, np.float32)))
