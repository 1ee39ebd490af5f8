"""`lensai serve` killed in the middle of uploads: what was acknowledged is there, and nothing is there twice.

The device side and the checks are those of `benchmarks/receiver/`, which does the same with thousands of uploads.
"""

from __future__ import annotations

import time

import pytest

CLIENTS, SENSORS, UPLOADS = 4, 5, 100


@pytest.fixture(scope="module")
def parts():
    pytest.importorskip("psutil")
    from benchmarks.receiver import clients, devices, load, server

    return {"receive": load, "clients": clients, "devices": devices, "server": server}


@pytest.fixture(scope="module")
def uploads(parts):
    """An upload a minute of each sensor for 20 minutes, across the change of an hour."""
    devices = parts["devices"]
    start = int(time.time()) // 3600 * 3600 - 7200 - 600
    return devices.uploads_of([devices.made_up(seed) for seed in range(7)], UPLOADS, SENSORS, start)


def test_what_is_expected_is_counted_by_sensor_and_hour(parts, uploads):
    found = parts["devices"].expected(uploads)
    assert len(found) == 2 * SENSORS
    assert sum(number for number, _ in found.values()) == UPLOADS
    seen = sum(values["imgstats/noise.bin"] for _, values in found.values())
    assert seen == sum(upload.archive.values["imgstats/noise.bin"] for upload in uploads)
    assert len(uploads[0].archive.values) == 14


@pytest.mark.slow
def test_killed_in_the_middle_nothing_is_lost_and_nothing_is_there_twice(parts, uploads, baseline, tmp_path):
    store = str(tmp_path / "store")
    with parts["server"].running(str(baseline.save(tmp_path / "baseline")), store) as server:
        found = parts["receive"].crash(server, uploads, CLIENTS, kills=1, limit=60)
        server.settled(60, judged=False)
    assert found["before_kill"][0] >= UPLOADS // 2
    assert found["acknowledged"] == UPLOADS
    assert found["lost"] == 0
    checked = parts["receive"].check(store, uploads)
    assert checked["uploads"] == UPLOADS
    assert checked["hours"] == 2 * SENSORS
    assert {checked[name] for name in ("missing", "twice", "unknown", "hours_wrong")} == {0}


def test_a_store_that_is_not_what_was_sent_is_told(parts, uploads, store_of_one):
    checked = parts["receive"].check(store_of_one, uploads[:2])
    assert (checked["uploads"], checked["missing"], checked["unknown"], checked["hours_wrong"]) == (1, 2, 1, 3)


@pytest.fixture
def store_of_one(tmp_path):
    """One upload of somebody else, merged."""
    from lensai_integrations.edge.uploads import pack_sketches
    from lensai_integrations.server import hours
    from lensai_integrations.server.ledger import Received, add_uploads
    from lensai_integrations.server.store import Store

    opened = Store(tmp_path / "one")
    payload = pack_sketches({"imgstats/noise.bin": bytes.fromhex("02 02 0f 04 c8 00 08 00 00 00 c0 3f")})
    add_uploads(opened, [Received("window-1", 1719393854, "", 1, 0.0, (), payload)], 10)
    hours.put(opened, hours.take(opened, "window-1", 1719392400, 10), payload, 1, 0.0)
    opened.close()
    return str(tmp_path / "one")
