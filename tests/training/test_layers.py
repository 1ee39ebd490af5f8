"""What a baseline says of its layers, and what a callback makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from lensai_integrations import Profiler
from lensai_integrations.errors import InputError
from lensai_integrations.training.layers import KnownLayer, known_layers, known_output


@pytest.fixture
def reference():
    profiler = Profiler()
    profiler.describe("embeddings/pool", layer="model.pool", reduce="max", axes=4)
    profiler.describe("outputs", layer="model.fc", linear=True)
    rng = np.random.default_rng(0)
    profiler.update(outputs=rng.normal(size=(9, 3)), embeddings={"pool": rng.normal(size=(9, 4))})
    return profiler.profile()


def test_layers_are_those_of_the_baseline(reference):
    assert known_layers(reference) == [KnownLayer("pool", "model.pool", "max")]
    assert known_output(reference) == "model.fc"


def test_layers_and_reductions_can_be_named(reference):
    assert known_layers(reference, ["other"], "cls") == [KnownLayer("other", "other", "cls")]
    assert known_layers(reference, reduce={"pool": max})[0].reduce is max


def test_a_reduction_by_a_function_is_asked_for(reference):
    reference.groups["embeddings/pool"].info["reduce"] = "own"
    with pytest.raises(InputError, match=r"pass reduce=\{'pool': own\}"):
        known_layers(reference)
