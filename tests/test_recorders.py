"""A recorder measures without keeping anything, and takes what was measured."""

from __future__ import annotations

import numpy as np
import pytest
from libraries import IMMUTABLE, as_if_elsewhere, maker
from profiles import batch

from lensai_integrations import ImageInputs
from lensai_integrations.recorders import RECORDERS, Settings

ONE = batch(np.random.default_rng(0), 20)
BATCHES = {"inputs": ONE["inputs"], "outputs": ONE["outputs"], "labels": ONE["labels"].astype(np.int32)}
BATCHES["embeddings/avgpool"] = ONE["embeddings"]["avgpool"]
GROUP = pytest.mark.parametrize("name", BATCHES)


def recorder_of(name, batch):
    settings = Settings(inputs=ImageInputs(), convention="lensai", task="auto", k=200, max_dim=16, seed=[1], like=None)
    return RECORDERS[name.split("/")[0]](name, batch, settings)


@GROUP
def test_measuring_keeps_nothing(name):
    recorder = recorder_of(name, BATCHES[name])
    measured = recorder.measure(BATCHES[name])
    assert recorder.group.n == 0
    recorder.take(measured)
    recorder.take(measured)
    assert recorder.group.n == 40


@GROUP
def test_an_update_is_both(name):
    recorder = recorder_of(name, BATCHES[name])
    measured = recorder.update(BATCHES[name])
    assert recorder.group.n == 20
    assert {len(rows) for rows in measured.rows.values()} == {20}
    assert name in measured.rows


@GROUP
@pytest.mark.parametrize("library", IMMUTABLE)
def test_an_update_leaves_what_is_in_flight_to_the_caller(name, library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    array = maker(library)(BATCHES[name])
    recorder = recorder_of(name, array)
    measured = recorder.update(array)
    assert measured.in_flight
    assert recorder.group.n == 0
    recorder.take(measured.landed())
    assert recorder.group.n == 20


def test_a_width_that_a_profile_has_is_taken_over():
    from lensai_integrations import Profiler

    wide = np.random.default_rng(0).normal(size=(20, 100)).astype(np.float32)
    for max_dim in (16, 4096):
        first = Profiler(max_dim=max_dim)
        first.update(embeddings={"wide": wide})
        window = Profiler(like=first.profile(), max_dim=32)
        window.update(embeddings={"wide": wide})
        found, expected = (each.profile().groups["embeddings/wide"] for each in (window, first))
        assert found.streams == expected.streams
        assert found.definitions == expected.definitions
