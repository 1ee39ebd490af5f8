"""Stores over both databases, and a baseline to hold devices against."""

from __future__ import annotations

import numpy as np
import postgresql
import pytest
from receiving import client_of, emptied

from lensai_integrations import Baseline, Profiler
from lensai_integrations.server.store import Store


@pytest.fixture(scope="session")
def baseline() -> Baseline:
    """Of images like nothing a device has seen."""
    profiler = Profiler(convention="lensai-edge", source="validation", seed=0)
    rng = np.random.default_rng(0)
    profiler.update(inputs=rng.integers(0, 256, (64, 8, 8, 3), dtype=np.uint8))
    return Baseline(profiler.profile())


@pytest.fixture(scope="session")
def postgresql_server():
    with postgresql.running() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def place(request, tmp_path):
    """Where a store may be: an empty folder, an empty database."""
    if request.param == "sqlite":
        return str(tmp_path / "store")
    server = request.getfixturevalue("postgresql_server")
    emptied(server.url)
    return server.url


@pytest.fixture
def store(place):
    opened = Store(place)
    yield opened
    opened.close()


@pytest.fixture
def sqlite(tmp_path):
    opened = Store(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def service(baseline, sqlite):
    """A client without a worker: tests call `client.work()`."""
    return client_of(baseline, sqlite)
