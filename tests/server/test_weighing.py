"""The evidence of a sensor: that it is what a plain computation says, when it is found again, and who is told of it."""

from __future__ import annotations

import json
import math
import threading

import numpy as np
import pytest
from datasketches import kll_floats_sketch
from hypothesis import given
from hypothesis import strategies as st
from receiving import WHEN, client_of, form
from sqlalchemy import select, update

from lensai_integrations import Baseline, Profiler, calibrate, compare
from lensai_integrations.drift.result import p_value_of_report
from lensai_integrations.edge.reading import profile_of_files
from lensai_integrations.edge.uploads import pack_sketches
from lensai_integrations.server import hours, queries, settling, weighing
from lensai_integrations.server.records import DAY, HOUR, HourDrift, hour_of
from lensai_integrations.server.store import EVIDENCE, HOURS, Store, StoreError
from lensai_integrations.server.weighing import (
    SPANS,
    HourRows,
    Parts,
    WeighedSpan,
    due_spans,
    evidence_of,
    fleet_of,
    last_hours,
    weigh,
)

FIRST = hour_of(WHEN)
NAMES = ("brightness", "noise", "sharpness")


@pytest.fixture(scope="module")
def plain() -> Baseline:
    """Like what `contents` makes of a clean device: of files, so not calibrated."""
    rng = np.random.default_rng(0)
    files = {f"imgstats/{name}.bin": sketched(rng.normal(100, 5, 2000)) for name in NAMES}
    return Baseline(profile_of_files(files, "reference", 0))


def sketched(values):
    """So large that it keeps all values, and merging has no chance in it."""
    sketch = kll_floats_sketch(4000)
    sketch.update(values.astype(np.float32))
    return sketch.serialize()


def contents(seed, n=60, shift=0.0):
    rng = np.random.default_rng(seed)
    return {f"imgstats/{name}.bin": sketched(rng.normal(100 + shift, 5, n)) for name in NAMES}


def put(store, hour, sketches, sensor="door", rows=60, updated=None):
    """An hour as if its uploads had been merged."""
    about = {"version": 1, "uploads": 1, "rows": rows, "updated": hour + 100.0 if updated is None else updated}
    with store.writing() as db:
        db.execute(HOURS.insert().values(sensor=sensor, hour=hour, sketches=pack_sketches(sketches), **about))


def judged(store, baseline, hour, now, sensor="door"):
    """The hour is judged, and its sensor weighed, as the worker does it."""
    with store.reading() as db:
        row = db.execute(select(HOURS).where(HOURS.c.sensor == sensor, HOURS.c.hour == hour)).one()
    due = hours.Due(sensor, hour, row.version, row.uploads, row.rows, bytes(row.sketches))
    verdict, report, _ = settling.judge_hour(baseline, due, now, 0.01)
    weigh(store, baseline, verdict, report, now)
    hours.put_verdict(store, verdict, row.version, None)


def row_of(store, sensor="door"):
    with store.reading() as db:
        return db.execute(select(EVIDENCE).where(EVIDENCE.c.sensor == sensor)).first()


def e_value(p):
    """All bets kappa p^(kappa - 1), averaged over kappa, by numbers: the definition, not the formula."""
    kappa = (np.arange(200_000) + 0.5) / 200_000
    return float(np.mean(kappa * p ** (kappa - 1)))


def plain_e(baseline, *many):
    """Of several hours as one window: their files merged by DataSketches itself, one after the other."""
    whole = {}
    for files in many:
        for path, content in files.items():
            sketch = kll_floats_sketch.deserialize(content)
            whole.setdefault(path, kll_floats_sketch(4000)).merge(sketch)
    window = profile_of_files({path: sketch.serialize() for path, sketch in whole.items()}, "door", 0)
    return e_value(p_value_of_report(compare(baseline, window)))


def test_it_is_what_a_plain_computation_says(store, plain):
    """Thirty hours of a weak drift, one after the other."""
    many = [contents(seed, shift=0.8) for seed in range(30)]
    for place, files in enumerate(many):
        hour = FIRST + place * HOUR
        put(store, hour, files)
        judged(store, plain, hour, hour + 200.0)
    parts = Parts.read(row_of(store).parts)
    assert sorted(parts.hours) == [FIRST + place * HOUR for place in range(6, 30)]
    singles = [plain_e(plain, files) for files in many[6:]]
    assert [math.exp(parts.hours[FIRST + place * HOUR]) for place in range(6, 30)] == pytest.approx(singles, rel=1e-3)
    ends = {length: (parts.spans[length].until - FIRST) // HOUR for length in SPANS}
    spans = [plain_e(plain, *many[max(end - length, 0) : end]) for length, end in ends.items()]
    assert ends[6] == 30
    assert ends[24] > 24
    assert ends[168] > 24
    assert [math.exp(parts.spans[length].log_e) for length in SPANS] == pytest.approx(spans, rel=1e-3)
    expected = (np.mean(singles) + sum(math.exp(parts.spans[length].log_e) for length in SPANS)) / 4
    assert math.exp(row_of(store).log_e) == pytest.approx(expected, rel=1e-3)
    assert max(spans) > 100 * max(singles)  # which is why they are merged
    row = row_of(store)
    assert (row.hours, row.weighed) == (
        max(ends, key=lambda length: parts.spans[length].log_e),
        FIRST + 29 * HOUR + 200,
    )
    assert row.until == parts.spans[row.hours].until
    assert set(json.loads(row.moved)) <= {f"inputs/lensai-edge/{name}" for name in NAMES}


@given(
    st.lists(st.floats(0.5, 1e6), max_size=24),
    st.lists(st.floats(0.5, 1e6), max_size=3),
)
def test_the_mean_of_four_of_which_those_that_are_missing_are_nothing(of_hours, of_spans):
    expected = ((np.mean(of_hours) if of_hours else 0.0) + sum(of_spans)) / 4
    if expected:
        found = evidence_of([math.log(e) for e in of_hours], [math.log(e) for e in of_spans])
        assert math.exp(found) == pytest.approx(expected)


def test_where_nothing_moves_it_is_one_or_less_on_average():
    """Of p-values that are uniform, and the same in all parts: the most that they may depend on each other."""
    p = (np.arange(100_000) + 0.5) / 100_000
    e = np.exp([evidence_of([each], [each] * 3) for each in weighing.log_e_value(np.log(p))])
    assert e.mean() == pytest.approx(1.0, abs=0.1)
    assert e.mean() <= 1


def test_a_thousand_need_twenty_thousand_for_one():
    others = [-0.5] * 999
    assert fleet_of([math.log(19_900), *others]).count(True) == 0
    assert fleet_of([math.log(20_100), *others]) == [True] + [False] * 999
    assert fleet_of([]) == []


def rows(*places, updated=0.0, each=60):
    return [HourRows(place * HOUR, each, updated) for place in places]


@pytest.mark.parametrize(
    ("new", "due"),
    [(0, []), (1, [6]), (3, [6]), (4, [6, 24]), (6, [6, 24]), (27, [6, 24]), (28, [6, 24, 168]), (168, [6, 24, 168])],
)
def test_a_span_is_weighed_again_when_a_sixth_of_it_is_new(new, due):
    """In a sensor that sends as much every hour: each hour, every four, every 28."""
    weighed = dict.fromkeys(SPANS, WeighedSpan(0, 1000.0, 0.0))
    known = [*rows(*range(168 - new)), *rows(*range(168 - new, 168), updated=1000.5)]
    assert due_spans(known, weighed, 2000.0) == due


def test_an_hour_that_grows_does_not_have_a_week_merged_every_minute():
    weighed = dict.fromkeys(SPANS, WeighedSpan(0, 1000.0, 0.0))
    growing = [*rows(*range(167)), HourRows(167 * HOUR, 59, 1001.0)]
    assert due_spans(growing, weighed, 2000.0) == []


def test_a_clock_that_was_set_back_keeps_no_span_from_being_weighed():
    ahead = dict.fromkeys(SPANS, WeighedSpan(0, 9e9, 0.0))
    assert due_spans(rows(*range(168)), ahead, 2000.0) == list(SPANS)


def test_spans_end_with_the_newest_hour():
    assert [each.hour // HOUR for each in last_hours(rows(0, 4, 5, 9), 6)] == [4, 5, 9]


def test_a_late_hour_counts_if_it_is_within_a_week(store, plain):
    put(store, FIRST, contents(0))
    judged(store, plain, FIRST, FIRST + 200.0)
    before = Parts.read(row_of(store).parts)
    for ago, counts in ((DAY - HOUR, True), (2 * DAY, False), (8 * DAY, False)):
        put(store, FIRST - ago, contents(1, shift=50.0), updated=FIRST + 300.0)
        judged(store, plain, FIRST - ago, FIRST + 400.0)
        parts = Parts.read(row_of(store).parts)
        assert (FIRST - ago in parts.hours) is counts
        assert set(before.hours) <= set(parts.hours)
    assert parts.spans[168].log_e > 30  # the hours of a day and of two days ago are in it
    assert parts.spans[6].log_e < 5
    assert row_of(store).hours in (1, 24, 168)


def test_an_hour_alone_is_compared_once(store, plain, monkeypatch):
    """Spans of the same hours are the same window."""
    compared = []
    monkeypatch.setattr(weighing, "compare", lambda *args: compared.append(args) or compare(*args))
    put(store, FIRST, contents(0))
    judged(store, plain, FIRST, FIRST + 200.0)
    parts = Parts.read(row_of(store).parts)
    assert compared == []
    assert {span.log_e for span in parts.spans.values()} == {parts.hours[FIRST]}
    put(store, FIRST + HOUR, contents(1))
    judged(store, plain, FIRST + HOUR, FIRST + HOUR + 200.0)
    assert len(compared) == 1


def test_what_cannot_be_compared_is_no_evidence(store, plain):
    put(store, FIRST, {"custom/own.bin": contents(0)["imgstats/noise.bin"]})
    judged(store, plain, FIRST, FIRST + 200.0)
    assert row_of(store).log_e is None
    put(store, FIRST + HOUR, contents(0, shift=9.0))
    judged(store, plain, FIRST + HOUR, FIRST + HOUR + 200.0)
    assert row_of(store).log_e > 30
    with store.writing() as db:
        db.execute(update(HOURS).where(HOURS.c.hour == FIRST).values(sketches=b"damaged", updated=FIRST + HOUR + 250.0))
        db.execute(update(HOURS).values(version=2))
    judged(store, plain, FIRST + HOUR, FIRST + HOUR + 300.0)
    parts = Parts.read(row_of(store).parts)
    assert [parts.spans[length].log_e for length in SPANS] == [None, None, None]
    assert row_of(store).log_e == pytest.approx(parts.hours[FIRST + HOUR] - math.log(4))
    assert (row_of(store).hours, row_of(store).until) == (1, FIRST + 2 * HOUR)


def test_an_hour_that_is_no_verdict_any_more_is_taken_away(store, plain):
    put(store, FIRST, contents(0))
    judged(store, plain, FIRST, FIRST + 200.0)
    weigh(store, plain, HourDrift("door", FIRST, 1, 60), None, FIRST + 300.0)
    assert Parts.read(row_of(store).parts).hours == {}


def test_hours_are_merged_as_far_as_there_is_room(store, plain, monkeypatch):
    """Names of streams are chosen by whoever sends them."""
    monkeypatch.setattr(hours, "MOST_STREAMS", 4)
    for place in range(3):
        own = {f"custom/own-{place}-{number}.bin": contents(0)["imgstats/noise.bin"] for number in range(3)}
        put(store, FIRST + place * HOUR, {**contents(place), **own})
    merged = weighing._sketches(store, "door", [FIRST + place * HOUR for place in range(3)])
    found = [list(each) for each in merged]
    assert [len(each) for each in found] == [4, 3, 3]


def test_of_two_servers_none_takes_away_what_the_other_found(place, plain):
    stores = [Store(place) for _ in range(2)]
    for number in range(8):
        put(stores[0], FIRST + number * HOUR, contents(number))
    failed = []

    def work(which):
        try:
            for number in range(which, 8, 2):
                judged(stores[which], plain, FIRST + number * HOUR, FIRST + 9 * HOUR)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failed
    assert len(Parts.read(row_of(stores[0]).parts).hours) == 8
    [store.close() for store in stores]


# -- in the worker, the pages, the API and the metrics


@pytest.fixture
def fleet(plain, sqlite):
    """Twelve devices, one of which moved."""
    client = client_of(plain, sqlite)
    for number in range(12):
        files = contents(number, shift=6.0 if number == 7 else 0.0)
        assert client.post("/upload/", **form(f"cam-{number}", WHEN, content=files)).status_code == 201
    client.work()
    return client


def test_one_of_twelve_is_reported_everywhere(fleet):
    assert "1 of 12 sensors drift" in fleet.get("/").text
    answers = {each["name"]: each["evidence"] for each in fleet.get("/sensors").json()["sensors"]}
    assert [name for name, each in answers.items() if each["reported"]] == ["cam-7"]
    assert answers["cam-7"]["log_e"] > 20
    assert answers["cam-7"]["hours"] == 1
    assert answers["cam-7"]["until"] == FIRST + HOUR
    assert set(answers["cam-7"]["moved"]) == {f"inputs/lensai-edge/{name}" for name in NAMES}
    page = fleet.get("/sensors/cam-7", headers={"accept": "text/html"}).text
    assert "reported among 12 sensors" in page
    assert "too little to be reported among 12 sensors" in fleet.get("/sensors/cam-1").text
    told = fleet.service.metrics.registry
    assert told.get_sample_value("lensai_sensors_reported") == 1
    assert told.get_sample_value("lensai_sensor_reported", {"sensor": "cam-7"}) == 1
    assert told.get_sample_value("lensai_sensor_reported", {"sensor": "cam-1"}) == 0
    assert told.get_sample_value("lensai_sensor_log_e", {"sensor": "cam-7"}) == answers["cam-7"]["log_e"]


def test_evidence_is_looked_up_and_never_found_by_whoever_looks(fleet, monkeypatch):
    monkeypatch.setattr(weighing, "weigh", None)
    monkeypatch.setattr(weighing, "compare", None)
    for address in ("/", "/sensors", "/sensors/cam-7", "/metrics"):
        assert fleet.get(address).status_code == 200


def test_whatever_goes_wrong_with_weighing_there_is_a_verdict(plain, sqlite, monkeypatch):
    client = client_of(plain, sqlite)
    assert client.post("/upload/", **form(content=contents(0))).status_code == 201

    def fail(*_):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(settling, "weigh", fail)
    client.work()
    (found,) = queries.list_hours(sqlite, "door-3", most=9)
    assert found.drift is False
    assert client.service.metrics.registry.get_sample_value("lensai_failures_total", {"topic": "judge"}) == 1
    assert queries.weighed_sensors(sqlite, now=1.8e9) == {}


def test_an_hour_whose_evidence_the_store_refuses_is_judged_again(plain, sqlite, monkeypatch):
    client = client_of(plain, sqlite)
    assert client.post("/upload/", **form(content=contents(0))).status_code == 201
    real = settling.weigh

    def refuse(*_):
        raise StoreError("on purpose")

    monkeypatch.setattr(settling, "weigh", refuse)
    with pytest.raises(StoreError, match="on purpose"):
        client.work()
    monkeypatch.setattr(settling, "weigh", real)
    client.work()
    assert len(queries.weighed_sensors(sqlite, now=1.8e9)) == 1


def test_evidence_goes_with_its_sensor(fleet, sqlite):
    settling.forget(sqlite, 4e9, DAY)
    with sqlite.writing() as db:
        db.execute(update(HOURS).values(updated=WHEN))
        db.execute(update(queries.SENSORS).where(queries.SENSORS.c.name != "cam-7").values(received=WHEN))
        db.execute(update(queries.SENSORS).where(queries.SENSORS.c.name == "cam-7").values(last=WHEN + 9 * DAY))
        db.execute(update(HOURS).where(HOURS.c.sensor == "cam-7").values(hour=FIRST + 9 * DAY, updated=WHEN + 9 * DAY))
    settling.forget(sqlite, WHEN + 9 * DAY, DAY)
    with sqlite.reading() as db:
        assert db.scalars(select(EVIDENCE.c.sensor)).all() == ["cam-7"]


def test_with_a_calibrated_baseline_too(sqlite):
    rng = np.random.default_rng(1)
    profiler = Profiler(convention="lensai-edge", source="validation", seed=0)
    profiler.update(inputs=rng.integers(0, 256, (300, 8, 8, 3), dtype=np.uint8))
    window = {f"imgstats/{name}.bin": sketched(rng.normal(400, 5, 60)) for name in NAMES}
    put(sqlite, FIRST, window)
    judged(sqlite, calibrate(profiler.profile()), FIRST, FIRST + 200.0)
    assert row_of(sqlite).log_e > 20
