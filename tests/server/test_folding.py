"""How much an hour may hold, whatever names are sent."""

from __future__ import annotations

import pytest
from receiving import WHEN, device, form, sketch_of

from lensai_integrations.edge.uploads import pack_sketches, unpack_sketches
from lensai_integrations.server import hours, queries
from lensai_integrations.server.hours import UnmergedHour, fitting, folded
from lensai_integrations.sketches import wire


def batch(*contents, known=None):
    payloads = {
        n: pack_sketches({f"custom/{name}.bin": sketch_of([1.0]) for name in each}) for n, each in enumerate(contents)
    }
    sketches = None if known is None else pack_sketches({f"custom/{name}.bin": sketch_of([1.0]) for name in known})
    return UnmergedHour("a", 0, 1, sketches, payloads)


def names(given):
    return ["".join(path[7] for path in unpack_sketches(payload)) for payload in given.payloads.values()]


def test_a_batch_that_fits_stays_as_it_is():
    given = batch("ab", "bc", known="a")
    assert fitting(given) == (given, [])


def test_further_streams_are_left_out_and_known_ones_are_not(monkeypatch):
    monkeypatch.setattr(hours, "MOST_STREAMS", 3)
    found, fewer = fitting(batch("bc", "abcd", "de", "c", known="ab"))
    assert (names(found), fewer) == (["bc", "abc", "", "c"], [1, 2])
    whole, damaged = folded(found)
    assert (list(whole), damaged) == ([f"custom/{name}.bin" for name in "abc"], [])


def test_further_bytes_are_left_out(monkeypatch):
    monkeypatch.setattr(hours, "MOST_BYTES", 2 * hours._grown(sketch_of([1.0])))
    found, fewer = fitting(batch("a", "bc", known="a"))
    assert (names(found), fewer) == (["a", "b"], [1])
    large = {"custom/x.bin": sketch_of([1.0], k=65_000), "custom/y.bin": sketch_of([1.0])}
    found, fewer = fitting(UnmergedHour("a", 0, 0, None, {7: pack_sketches(large)}))
    assert (list(unpack_sketches(found.payloads[7])), fewer) == (["custom/y.bin"], [7])


def test_what_is_damaged_is_left_to_whoever_merges():
    assert fitting(UnmergedHour("a", 0, 0, None, {1: b"damaged"}))[1] == []


@pytest.mark.parametrize("k", [8, 200, 4096, 65_535])
def test_a_sketch_does_not_grow_beyond_what_was_counted(k):
    assert 4 * wire.total_capacity(k, 60) + 4 * 60 + 28 <= hours._grown(sketch_of([1.0], k=k))


def test_an_hour_without_room_says_so_and_goes_on(service, monkeypatch, caplog):
    monkeypatch.setattr(hours, "MOST_STREAMS", 4)
    for n in range(2):
        own = {f"custom/{n}{each}.bin": sketch_of([1.0]) for each in range(3)}
        assert service.post("/upload/", **form(timestamp=WHEN + n, content={**device(n), **own})).status_code == 201
        service.work()
    store = service.service.store
    (hour,) = queries.list_hours(store, "door-3", most=9)
    assert (hour.uploads, hour.rows, hour.drift) == (2, 100, True)
    assert "streams of an upload were left out" in queries.find_sensor(store, "door-3").problems[0]
    assert "no room for more streams" in caplog.text
