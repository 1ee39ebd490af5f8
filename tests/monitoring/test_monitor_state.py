"""The state on disk: gone on with where it is sound, set aside where it is not; a full disk stops nothing."""

from __future__ import annotations

import json
import os
import signal
from datetime import timedelta

import pytest
from monitors import Clock, by_mean, numbers, small_baseline

from lensai_integrations import DriftMonitor
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.monitoring import state
from lensai_integrations.monitoring.state import HEAD, MonitorFolder

BASELINE = small_baseline()


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    by_mean(monkeypatch)


def feed(folder, shifts, seed=0, **settings):
    """Batches of 3 rows into windows of 4, by a monitor of its own."""
    heard = []
    settings = {"recover": 2, "sinks": [lambda event: heard.append(event.kind)], **settings}
    monitor = DriftMonitor(settings.pop("baseline", BASELINE), 4, state=folder, **settings)
    found = []
    for number, shift in enumerate(shifts):
        found += monitor.update(outputs=numbers(3, shift=shift, seed=seed + number))
    monitor.close()
    return monitor.status, found, heard


@pytest.mark.parametrize(
    ("settings", "cut"), [({}, 1), ({}, 4), ({"stride": 2}, 3), ({"stride": 1, "warm_start": True}, 2)]
)
def test_a_restart_changes_nothing(tmp_path, settings, cut):
    shifts = [0, 9, 9, 9, 0, 0, 0, 2]
    whole, windows, told = feed(tmp_path / "whole", shifts, **settings)
    first = feed(tmp_path / "cut", shifts[:cut], **settings)
    second = feed(tmp_path / "cut", shifts[cut:], seed=cut, **settings)
    both = first[1] + second[1]
    assert [(w.number, w.level, w.rows, w.warm_rows) for w in both] == [
        (w.number, w.level, w.rows, w.warm_rows) for w in windows
    ]
    assert first[2] + second[2] == told
    again = second[0]
    assert (again.rows, again.windows, again.alarms) == (whole.rows, whole.windows, whole.alarms)
    assert (again.restarts, again.restored_from, again.failures) == (1, "Completed", {})


def test_windows_by_time_go_on_after_a_restart(tmp_path):
    clock = Clock(3600.0 * 1000)
    monitor = DriftMonitor(BASELINE, timedelta(hours=1), state=tmp_path, clock=clock)
    monitor.update(outputs=numbers(5))
    monitor.close()
    clock.now += 1800
    monitor = DriftMonitor(BASELINE, timedelta(hours=1), state=tmp_path, clock=clock)
    monitor.update(outputs=numbers(6))
    clock.now += 1800
    (window,) = monitor.update(outputs=numbers(1))
    assert (window.rows, window.profile.groups["outputs"].n, window.opened) == (11, 11, 3.6e6)
    monitor.close()


def head_with(**changes):
    def change(folder):
        head = json.loads((folder / HEAD).read_text())
        for key, value in changes.items():
            head[key] = value(head[key]) if callable(value) else value
        (folder / HEAD).write_text(json.dumps(head))

    return change


def cut_head(folder):
    content = (folder / HEAD).read_bytes()
    (folder / HEAD).write_bytes(content[: len(content) // 2])


DAMAGE = {
    "truncated": cut_head,
    "empty": lambda folder: (folder / HEAD).write_bytes(b""),
    "binary": lambda folder: (folder / HEAD).write_bytes(bytes(range(256))),
    "a list": lambda folder: (folder / HEAD).write_text("[1, 2]"),
    "nested": lambda folder: (folder / HEAD).write_text("[" * 100_000),
    "foreign": lambda folder: (folder / HEAD).write_text('{"format": "other"}'),
    "newer": head_with(version=99),
    "rows": head_with(rows=-1),
    "rows text": head_with(rows="many"),
    "no judging": head_with(judging=None),
    "level": head_with(judging=lambda j: j | {"alert": j["alert"] | {"level": "panic"}}),
    "alert": head_with(judging=lambda j: j | {"alert": j["alert"] | {"surprise": 1}}),
    "alert counts": head_with(judging=lambda j: j | {"alert": j["alert"] | {"clean": "1"}}),
    "outbox": head_with(outbox=[{"event": 3}]),
    "another baseline": head_with(baseline="0" * 64),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_or_foreign_state_is_set_aside(tmp_path, caplog, damage):
    feed(tmp_path, [9, 9])
    damage(tmp_path)
    status, found, told = feed(tmp_path, [0, 0])
    assert (status.rows, status.restarts, [w.level for w in found], told) == (6, 0, ["ok"], [])
    assert status.failures == {}
    assert len(list(tmp_path.glob(f"{HEAD}.damaged-*"))) == 1
    assert len([r for r in caplog.records if "is set aside as" in r.getMessage()]) == 1
    assert feed(tmp_path, [0])[0].restarts == 1  # the new state is sound


def pane_with(content):
    def change(folder):
        (path,) = folder.glob("*.npz")  # the open pane: that of the window before is gone
        path.write_bytes(content(path.read_bytes()))

    return change


PANE_DAMAGE = {
    "gone": lambda folder: [path.unlink() for path in folder.glob("*.npz")],
    "truncated": pane_with(lambda content: content[:100]),
    "changed": pane_with(lambda content: content[:-1] + b"x"),
    "outside": head_with(open=lambda o: o | {"file": "../../etc/passwd"}),
    "no name": head_with(open=lambda o: o | {"file": ["x"]}),
    "too full": head_with(open=lambda o: o | {"rows": 400}),
    "time": head_with(open=lambda o: o | {"opened": "noon"}),
    "number": head_with(open=lambda o: o | {"number": -3}),
    "panes": head_with(panes=[3]),
    "no panes": head_with(panes=None),
    "warm": head_with(panes=[{"number": 5, "warm": True}]),
}


@pytest.mark.parametrize("damage", PANE_DAMAGE.values(), ids=PANE_DAMAGE)
def test_rows_that_cannot_be_read_are_left_out_and_levels_kept(tmp_path, caplog, damage):
    feed(tmp_path, [9, 9])  # an alarm, and two rows of the next window
    damage(tmp_path)
    status, found, told = feed(tmp_path, [9, 9])
    assert (status.rows, status.windows, status.restarts) == (12, 2, 1)
    assert [w.rows for w in found] == [4]
    assert told == []  # the alarm is not repeated
    assert status.failures == {}
    assert "the next window begins without them" in caplog.text


def test_other_windows_keep_levels_and_drop_rows(tmp_path, caplog):
    feed(tmp_path, [9, 9])
    _, found, told = feed(tmp_path, [9, 9], stride=2)
    assert ([w.rows for w in found], told) == ([4, 4], [])
    assert "laid out otherwise" in caplog.text


def test_two_monitors_do_not_share_a_folder(tmp_path):
    monitor = DriftMonitor(BASELINE, state=tmp_path)
    with pytest.raises(InputError, match="in use by another monitor"):
        DriftMonitor(BASELINE, state=tmp_path)
    with monitor:
        pass
    with DriftMonitor(BASELINE, state=tmp_path) as other:
        assert other.status.failures == {}


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        DriftMonitor(BASELINE, state=tmp_path / "file")


def test_a_full_disk_stops_nothing_and_is_made_up_for(tmp_path, monkeypatch, caplog):
    heard = []
    monitor = DriftMonitor(BASELINE, 4, state=tmp_path, sinks=[lambda event: heard.append(event.kind)])
    monitor.update(outputs=numbers(3))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(state, "write_file", full)
        (window,) = monitor.update(outputs=numbers(3, shift=99))
        assert (window.level, heard) == ("alarm", ["alarm"])
    assert monitor.status.failures["state"] > 0
    assert "No space left" in caplog.text
    assert len([r for r in caplog.records if "logged once" in r.getMessage()]) == 1
    monitor.update(outputs=numbers(1))
    monitor.close()
    again = DriftMonitor(BASELINE, 4, state=tmp_path)
    assert (again.status.rows, again.status.alarms) == (7, 1)
    again.close()


def test_only_own_files_are_removed(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "other.npz").write_text("mine")
    feed(tmp_path, [0, 0, 0])
    assert {"notes.txt", "other.npz"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is forked")
def test_the_lock_of_a_killed_process_is_free(tmp_path):
    child = os.fork()
    if not child:
        MonitorFolder(tmp_path)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    MonitorFolder(tmp_path).release()


def test_a_profile_of_another_name_is_refused(tmp_path):
    store = MonitorFolder(tmp_path)
    with pytest.raises(FormatError, match="no name of one"):
        store.get("/etc/passwd")
    name = store.put(BASELINE.reference)
    assert store.get(name).n == BASELINE.reference.n
    (tmp_path / ("1" * 64 + ".npz")).write_bytes(b"")
    with pytest.raises(FormatError, match="truncated or changed"):
        store.get("1" * 64 + ".npz")
    store.release()
