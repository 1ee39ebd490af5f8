"""Rows go to the window of their own time: late, early, in any order, across a restart; and past data is replayed."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitors import Clock, by_mean, numbers, small_baseline

from lensai_integrations import DriftMonitor
from lensai_integrations.errors import InputError
from lensai_integrations.monitoring.times import seconds_of

BASELINE = small_baseline()
HOUR, DAY = 3600.0, 86_400.0
START = 20_000 * DAY  # midnight, UTC
NOW = START + 100 * DAY


@pytest.fixture(autouse=True)
def judged_by_mean(monkeypatch):
    by_mean(monkeypatch)


def hourly(**settings):
    return DriftMonitor(BASELINE, timedelta(hours=1), clock=Clock(NOW), **settings)


def rows_in(reports):
    """By hour since `START`, the rows of each window."""
    return [((report.opened - START) // HOUR, report.rows) for report in reports]


@pytest.mark.parametrize(
    "given",
    [
        START,
        int(START),
        [START, START],
        np.full(2, START),
        datetime.fromtimestamp(START, UTC),
        datetime.fromtimestamp(START, timezone(timedelta(hours=5))),
        [datetime.fromtimestamp(START, UTC)] * 2,
        np.datetime64(int(START), "s"),
        np.array([int(START * 1000)] * 2, "datetime64[ms]"),
        [np.datetime64(int(START), "s")] * 2,
        np.array([datetime.fromtimestamp(START, UTC)] * 2, object),
    ],
    ids=repr,
)
def test_times_in_every_form(given):
    assert seconds_of(given, 2).tolist() == [START, START]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (datetime(2026, 1, 1), "without a time zone"),
        ([datetime(2026, 1, 1)] * 2, "without a time zone"),
        ([1.0, 2.0, 3.0], r"shape \(3,\), and there are 2 rows"),
        (np.zeros((2, 1)), r"shape \(2, 1\)"),
        ([1.0, float("nan")], "1 of the timestamps"),
        (-1.0, "before 1970"),
        (np.datetime64("NaT"), "missing"),
        ("2026-01-01", "pass seconds since 1970"),
        (["noon", "one"], "pass seconds since 1970"),
        ([None, 1.0], "pass seconds since 1970"),
        ([True, False], "pass seconds since 1970"),
    ],
)
def test_what_is_no_time_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        seconds_of(given, 2)


def test_rows_go_to_the_window_of_their_time():
    monitor = hourly()
    assert monitor.update(outputs=numbers(5), timestamp=START + 10) == []
    assert monitor.update(outputs=numbers(5), timestamp=START + 20 + np.arange(5)) == []
    (first,) = monitor.update(outputs=numbers(3), timestamp=START + HOUR)  # the clock is days later
    assert (first.rows, first.opened, first.closed) == (10, START + 10, START + 24)
    (second,) = monitor.close()
    assert (second.rows, second.opened) == (3, START + HOUR)


def test_a_batch_across_windows_is_cut_by_time():
    given, times = numbers(6).astype(np.float32), START + HOUR * np.array([1.5, 0.5, 0.6, 1.1, 2.5, 0.7])
    reports = hourly().update(outputs=given, timestamp=times)
    assert rows_in(reports) == [(0, 3), (1, 2)]
    for report, index in zip(reports, [[1, 2, 5], [0, 3]], strict=True):
        assert np.array_equal(np.sort(report.profile.rows.data["outputs"], 0), np.sort(given[index], 0))


def test_late_rows_are_counted_and_said_once(caplog):
    monitor = hourly()
    with caplog.at_level(logging.WARNING):
        monitor.update(outputs=numbers(2), timestamp=START)
        monitor.update(outputs=numbers(2), timestamp=START + HOUR)
        for _ in range(3):
            assert monitor.update(outputs=numbers(3), timestamp=[START, START + 1, START + HOUR + 1]) == []
    status = monitor.status
    assert (status.late, status.rows, status.failures, status.level) == (6, 7, {}, "ok")
    assert caplog.text.count("status.late") == 1
    assert "replay" in caplog.text
    assert [report.rows for report in monitor.flush()] == [5]


def test_with_a_grace_late_rows_are_in_their_window():
    monitor = hourly(late=timedelta(minutes=30))
    given = [(0.2, 1), (1.1, 2), (0.9, 3), (1.4, 4), (0.1, 5), (1.6, 6), (0.3, 7), (2.2, 8), (1.9, 9), (2.6, 10)]
    reports = [r for hour, n in given for r in monitor.update(outputs=numbers(n), timestamp=START + HOUR * hour)]
    assert rows_in(reports) == [(0, 1 + 3 + 5), (1, 2 + 4 + 6 + 9)]
    assert monitor.status.late == 7
    assert rows_in(monitor.flush()) == [(2, 18)]


def test_late_rows_of_windows_that_overlap_are_in_those_not_judged_yet():
    monitor = DriftMonitor(BASELINE, timedelta(hours=4), every=timedelta(hours=1), clock=Clock(NOW))
    given = [(0, 1), (1, 2), (3, 4), (1, 8), (2, 16), (0, 32), (4, 64), (0, 128), (3, 256), (5, 512), (9, 1024)]
    reports = [r for hour, n in given for r in monitor.update(outputs=numbers(n), timestamp=START + HOUR * hour)]
    # windows that end with the hours 0 to 8; hour 0 is in none to come once that of hour 3 was judged, with hour 4
    expected = [1, 3, 3, 1 + 2 + 4 + 8 + 16 + 32, 2 + 8 + 16 + 4 + 64 + 256, 16 + 4 + 256 + 64 + 512]
    expected += [4 + 256 + 64 + 512, 64 + 512, 512]
    assert [report.rows for report in reports] == expected
    assert [report.profile.groups["outputs"].n for report in reports] == expected
    assert monitor.status.late == 128


@settings(deadline=None, max_examples=60)
@given(
    window=st.integers(1, 4),
    stride=st.integers(1, 4),
    late=st.integers(0, 5),
    given_hours=st.lists(st.integers(0, 12), min_size=1, max_size=15),
)
def test_windows_hold_what_was_not_late_for_them(window, stride, late, given_hours):
    """Held against a list: a window has exactly the rows of its hours that had come when it was judged."""
    stride = min(stride, window)
    how = {"every": timedelta(hours=stride), "late": timedelta(hours=late), "clock": Clock(NOW)}
    monitor = DriftMonitor(BASELINE, timedelta(hours=window), **how)
    came, expected, reports, latest = [], {}, [], 0
    for number, hour in enumerate(given_hours):
        reports += monitor.update(outputs=numbers(number + 1), timestamp=HOUR * hour)
        came.append((hour, number + 1))
        latest = max(latest, hour)
        for end in range(stride, latest - late + 1, stride):
            expected.setdefault(end, sum(n for hour, n in came if end - window <= hour < end))
    found = [(r.rows, r.profile.groups["outputs"].n) for r in reports]
    assert found == [(n, n) for _, n in sorted(expected.items()) if n]


def test_rows_far_ahead_of_the_clock_are_refused_and_close_nothing(caplog):
    monitor = hourly()
    monitor.update(outputs=numbers(4), timestamp=NOW)
    assert monitor.update(outputs=numbers(4), timestamp=[NOW, NOW + 3 * DAY, NOW * 1000, NOW]) == []
    assert (monitor.status.early, monitor.status.rows) == (2, 6)
    assert monitor.status.failures == {"timestamp": 1}
    assert "2 rows have a timestamp" in caplog.text
    assert "milliseconds" in caplog.text
    assert monitor.update(outputs=numbers(4), timestamp=NOW + 3 * DAY) == []
    assert monitor.level == "unknown"  # nothing of the last update could be used


def test_rows_a_little_ahead_of_the_clock_close_no_window_that_is_not_over():
    clock = Clock(START + 600)
    monitor = DriftMonitor(BASELINE, timedelta(hours=1), clock=clock)
    monitor.update(outputs=numbers(1), timestamp=START)
    assert monitor.update(outputs=numbers(2), timestamp=START + 20 * HOUR) == []  # a camera whose clock is wrong
    assert monitor.update(outputs=numbers(4), timestamp=START + 500) == []
    clock.now = START + HOUR
    (first,) = monitor.update(outputs=numbers(8), timestamp=START + HOUR)
    assert (first.rows, monitor.status.late) == (5, 0)
    clock.now = START + 21 * HOUR
    assert rows_in(monitor.close()) == [(1, 8), (20, 2)]


def test_a_flush_of_a_row_ahead_of_its_time_makes_no_others_late():
    clock = Clock(START + 600)
    monitor = DriftMonitor(BASELINE, timedelta(hours=1), clock=clock)
    monitor.update(outputs=numbers(2), timestamp=START + 20 * HOUR)
    assert rows_in(monitor.flush()) == [(20, 2)]
    for hour in (0, 1):
        clock.now = START + hour * HOUR + 700
        monitor.update(outputs=numbers(5), timestamp=clock.now)
    assert monitor.status.late == 0
    assert rows_in(monitor.flush()) == [(1, 5)]


def test_by_rows_times_say_when_a_window_was():
    monitor = DriftMonitor(BASELINE, 4, clock=Clock(NOW))
    times = START + np.array([5.0, 3, 9, 4, 8, 2, 7, 6])
    first, second = monitor.update(outputs=numbers(8), timestamp=times)
    assert [(r.opened - START, r.closed - START) for r in (first, second)] == [(3, 9), (2, 8)]
    (third,) = monitor.update(outputs=numbers(4), timestamp=NOW + 9 * DAY)
    assert (third.opened, monitor.status.early) == (NOW, 4)


def test_a_wrong_timestamp_loses_the_batch_and_says_so(caplog):
    monitor = hourly()
    assert monitor.update(outputs=numbers(4), timestamp=datetime(2026, 1, 1)) == []
    assert (monitor.status.rows, monitor.status.failures, monitor.level) == (0, {"timestamp": 1}, "unknown")
    assert "without a time zone" in caplog.text


def test_a_restart_keeps_all_open_windows(tmp_path):
    reports = []
    for hour, n in [(0.5, 1), (1.5, 2), (0.6, 4), (2.5, 8), (1.7, 16), (0.1, 32)]:
        monitor = hourly(late=timedelta(hours=2), state=tmp_path)
        reports += monitor.update(outputs=numbers(n), timestamp=START + HOUR * hour)
        monitor._memory.release()  # as a killed process leaves it
    assert reports == []
    head = json.loads((tmp_path / "head.json").read_text())
    assert [head["open"]["rows"], *(pane["rows"] for pane in head["opened"])] == [37, 18, 8]
    monitor = hourly(late=timedelta(hours=2), state=tmp_path)
    assert rows_in(monitor.update(outputs=numbers(64), timestamp=START + HOUR * 4.1)) == [(0, 37), (1, 18)]
    monitor.update(outputs=numbers(64), timestamp=START)
    monitor._memory.release()
    assert hourly(state=tmp_path).status.late == 64


def test_a_state_of_an_earlier_release_goes_on(tmp_path):
    monitor = hourly(state=tmp_path)
    monitor.update(outputs=numbers(3), timestamp=START + 1)
    monitor._memory.release()
    head = json.loads((tmp_path / "head.json").read_text())
    for key in ("opened", "first", "late", "early"):
        del head[key]
    (tmp_path / "head.json").write_text(json.dumps(head))
    monitor = hourly(state=tmp_path)
    assert monitor.update(outputs=numbers(3), timestamp=START + 2) == []
    assert rows_in(monitor.update(outputs=numbers(3), timestamp=START + HOUR)) == [(0, 6)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 10, "late": timedelta(1)}, "is for windows by time"),
        ({"window": timedelta(1), "late": 5}, "late=5"),
        ({"window": timedelta(1), "late": timedelta(-1)}, "not negative"),
    ],
)
def test_a_wrong_grace_raises(arguments, message):
    with pytest.raises(InputError, match=message):
        DriftMonitor(BASELINE, **arguments)


def days(order, n=7):
    return [
        {"timestamp": START + DAY * day + HOUR, "outputs": numbers(n, shift=9.0 * (day == 2), seed=day)}
        for day in order
    ]


@pytest.mark.parametrize("order", [range(6), range(5, -1, -1), [3, 0, 5, 2, 4, 1]], ids=["old", "new", "any"])
def test_days_in_any_order_are_replayed_in_their_own(order):
    told = []
    monitor = DriftMonitor(BASELINE, timedelta(days=1), clock=Clock(NOW), sinks=[told.append])
    reports = monitor.replay(iter(days(order)))
    assert [(r.number, r.opened, r.rows, r.level) for r in reports] == [
        (day + 1, START + DAY * day + HOUR, 7, "alarm" if day == 2 else "ok") for day in range(6)
    ]
    assert [(event.kind, event.time) for event in told] == [
        ("alarm", START + 2 * DAY + HOUR),
        ("recovery", START + 5 * DAY + HOUR),
    ]
    assert monitor.status.rows == 42
    assert monitor.replay(days([1])) == []  # it was judged: once is enough
    assert monitor.status.late == 7
    assert [r.rows for r in monitor.replay(days([7]))] == [7]


def test_a_replay_by_rows_takes_batches_as_they_come(caplog):
    monitor = DriftMonitor(BASELINE, 10, clock=Clock(NOW))
    reports = monitor.replay(days([1, 0, 2]))
    assert [r.rows for r in reports] == [10, 10, 1]
    assert [(r.opened - START) // DAY for r in reports] == [0, 0, 2]
    assert "another order" in caplog.text
    assert [r.rows for r in monitor.replay({"outputs": numbers(9, seed=i)} for i in range(2))] == [10, 8]


def table():
    """Times and numbers of three days, shuffled; the last two are off."""
    rng = np.random.default_rng(0)
    times = START + 60 * np.arange(0, 3 * 24 * 60, 9)
    rng.shuffle(times)
    outputs = rng.normal(size=(len(times), 3)) + np.where(times >= START + DAY, 9.0, 0.0)[:, None]
    return times, outputs


@pytest.mark.parametrize("library", ["pandas", "pyarrow", "polars"])
@pytest.mark.parametrize("columns", ["a vector", "many", "named"])
def test_tables_are_replayed(library, columns):
    framework = pytest.importorskip(library)
    times, outputs = table()
    when = (times * 1000).astype("datetime64[ms]")
    if columns == "a vector":
        data, names = {"timestamp": when, "outputs": list(outputs)}, {}
    elif columns == "many":
        data, names = {"timestamp": times, **{f"outputs/{i}": outputs[:, i] for i in range(3)}}, {}
    else:
        data = {"at": when, **{f"p{i}": outputs[:, i] for i in range(3)}, "site": ["x"] * len(times)}
        names = {"timestamp": "at", "outputs": ["p0", "p1", "p2"]}
    made = framework.Table.from_pydict(data) if library == "pyarrow" else framework.DataFrame(data)
    monitor = DriftMonitor(BASELINE, timedelta(days=1), clock=Clock(NOW))
    reports = monitor.replay(made, **names)
    assert [(r.opened, r.rows, r.level) for r in reports] == [
        (START, 160, "ok"),
        (START + DAY, 160, "alarm"),
        (START + 2 * DAY, 160, "alarm"),
    ]
    assert monitor.status.failures == {}
    for day, report in enumerate(reports):
        inside = outputs[(times // DAY - START // DAY) == day].astype(np.float32)
        assert np.array_equal(np.sort(report.profile.rows.data["outputs"], 0), np.sort(inside, 0))


def test_a_table_with_time_zones_and_rows_for_windows_by_rows():
    pandas = pytest.importorskip("pandas")
    times, outputs = table()
    frame = pandas.DataFrame({"outputs": list(outputs)})
    frame["timestamp"] = pandas.to_datetime(times, unit="s", utc=True).tz_convert("Asia/Tokyo")
    reports = DriftMonitor(BASELINE, 200, clock=Clock(NOW)).replay(frame)
    assert [r.rows for r in reports] == [200, 200, 80]
    assert [r.opened for r in reports] == np.sort(times)[[0, 200, 400]].tolist()
    unordered = DriftMonitor(BASELINE, 200, clock=Clock(NOW)).replay(frame[["outputs"]])
    assert [(r.rows, r.opened) for r in unordered] == [(200, NOW), (200, NOW), (80, NOW)]


@pytest.mark.parametrize(
    ("past", "names", "message"),
    [
        (3, {}, "past is a int"),
        ({"outputs": [1]}, {}, "past is a dict"),
        (np.zeros(3), {}, "past is a ndarray"),
        ([{"outputs": numbers(3)}], {}, "batch 0 has no timestamp"),
        ([[1, 2]], {}, "batch 0 is a list"),
        ([{"timestamp": 1.0, "logits": 3}], {}, "batch 0 has logits"),
        ([], {"outputs": "x"}, "names of columns are for a table"),
    ],
)
def test_what_cannot_be_replayed_raises(past, names, message):
    with pytest.raises(InputError, match=message):
        hourly().replay(past, **names)


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        ({"outputs": [1.0]}, {}, "no column timestamp among outputs"),
        ({"timestamp": [1.0]}, {}, "none of inputs, outputs"),
        ({"timestamp": [1.0], "outputs": [1.0]}, {"labels": "truth"}, "no column 'truth': it has timestamp, outputs"),
        ({"timestamp": [None], "outputs": [1.0]}, {}, "timestamp"),
    ],
)
def test_a_table_without_what_is_needed_raises(columns, names, message):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(InputError, match=message):
        hourly().replay(pandas.DataFrame(columns), **names)


def test_a_replay_that_is_cut_short_leaves_nothing_behind():
    monitor = hourly()
    with pytest.raises(InputError, match="batch 3"):
        monitor.replay([*days([0, 1, 2]), {"outputs": numbers(3)}])
    assert (monitor.status.rows, monitor.status.windows) == (0, 0)
    assert [r.rows for r in monitor.replay(days([0, 1]))] == [7, 7]


def test_a_batch_that_cannot_be_read_is_counted_and_the_others_judged():
    monitor = hourly()
    given = [*days([0, 1]), {"timestamp": START, "outputs": "nonsense"}, {"timestamp": "noon", "outputs": numbers(2)}]
    assert [r.rows for r in monitor.replay(given)] == [7, 7]
    assert set(monitor.status.failures) == {"outputs", "timestamp"}


def test_lists_of_texts_and_tensors_are_cut_by_time():
    torch = pytest.importorskip("torch")
    from lensai_integrations import Profiler

    rng, profiler = np.random.default_rng(0), Profiler(source="validation")
    profiler.update(outputs=rng.normal(size=(200, 3)), labels=["cat", "dog"] * 100)
    monitor = DriftMonitor(profiler.profile(), timedelta(hours=1), clock=Clock(NOW))
    times = START + HOUR * np.array([0, 1, 0, 2, 1, 0])
    rows = torch.arange(18.0).reshape(6, 3)
    reports = monitor.update(outputs=rows, labels=list("abcdef"), timestamp=times) + monitor.flush()
    assert rows_in(reports) == [(0, 3), (1, 2), (2, 1)]
    assert [r.profile.groups["labels"].n for r in reports] == [3, 2, 1]
