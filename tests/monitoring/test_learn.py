"""A monitor that has learned from clean windows: quiet where it should be, alarmed where it should be, for good."""

from __future__ import annotations

import json
import random
import threading
from datetime import timedelta

import numpy as np
import pytest
from monitors import COLUMNS, Clock, small_baseline

from lensai_integrations import Baseline, DriftMonitor, Profiler, calibrate
from lensai_integrations.drift.calibration import calibration_of
from lensai_integrations.drift.learning import with_clean_windows
from lensai_integrations.errors import InputError
from lensai_integrations.monitoring import normal as normal_module
from lensai_integrations.monitoring.normal import CONTEXTS, Normal
from lensai_integrations.monitoring.state import HEAD
from lensai_integrations.profiles.profile import to_bytes

ROWS, HOUR, DAY = 60, 3600.0, 86_400.0


@pytest.fixture(autouse=True)
def _the_same_seeds(monkeypatch):
    """Of the profilers that monitors make, which are the operating system's else: verdicts are the same in each run."""
    seeds = random.Random(0)
    monkeypatch.setattr("lensai_integrations.profiling.profiler.secrets.randbits", seeds.getrandbits)


@pytest.fixture(scope="module")
def baseline():
    return calibrate(small_baseline(1000), draws=200)


def scene(rng, spread=0.5, shift=0.0, n=ROWS):
    """Rows around a mean of their own."""
    return rng.normal(size=(n, COLUMNS)) + spread * rng.normal(size=COLUMNS) + shift


def judged(monitor, rng, count, spread=0.5, shift=0.0):
    return [monitor.update(outputs=scene(rng, spread, shift))[0] for _ in range(count)]


def levels(reports):
    return [report.level for report in reports]


def learned_of(monitor):
    calibration = calibration_of(monitor.baseline)
    return None if calibration is None else calibration.learned


# -- from reports and from profiles


@pytest.mark.parametrize("of", ["reports", "profiles", "an iterator"])
def test_what_clean_windows_vary_more_is_no_drift_any_more(baseline, of):
    rng, monitor = np.random.default_rng(1), DriftMonitor(baseline, ROWS)
    clean = judged(monitor, rng, 40)
    assert levels(clean).count("ok") < 10
    assert monitor.baseline is baseline
    given = {
        "reports": clean,
        "profiles": [report.profile for report in clean],
        "an iterator": (report.profile if report.number % 2 else report for report in clean),
    }[of]
    found = monitor.learn(given)
    assert isinstance(found, Baseline)
    assert found is monitor.baseline
    assert calibration_of(found).learned.windows == 40
    assert learned_of(DriftMonitor(baseline, ROWS)) is None  # what was given is as it was
    after = judged(monitor, rng, 30)
    assert levels(after).count("alarm") <= 2
    assert any("learned from 40 clean windows" in note for note in after[0].report.notes)
    assert levels(judged(monitor, rng, 5, shift=4.0)) == ["alarm"] * 5
    assert monitor.status.failures == {}


def test_what_is_learned_goes_to_other_monitors(baseline):
    rng, monitor = np.random.default_rng(2), DriftMonitor(baseline, ROWS)
    other = DriftMonitor(monitor.learn(judged(monitor, rng, 30)), ROWS)
    assert learned_of(other).windows == 30
    assert levels(judged(other, rng, 20)).count("alarm") <= 1


def test_a_profile_alone_is_calibrated_by_learning():
    profile = small_baseline(400).reference
    rng, monitor = np.random.default_rng(3), DriftMonitor(profile, ROWS)
    assert calibration_of(monitor.learn(judged(monitor, rng, 8))).learned.windows == 8
    assert judged(monitor, rng, 1)[0].report.correction == "max-t"


def test_learning_anew_forgets_what_was_learned(baseline):
    rng, monitor = np.random.default_rng(4), DriftMonitor(baseline, ROWS)
    monitor.learn(judged(monitor, rng, 20, spread=2.0))
    assert levels(judged(monitor, rng, 5, spread=0.0, shift=1.0)) == ["ok"] * 5
    monitor.learn(judged(monitor, rng, 20, spread=0.0))
    assert learned_of(monitor).windows == 20
    assert levels(judged(monitor, rng, 5, spread=0.0, shift=1.0)) == ["alarm"] * 5


# -- errors, after which nothing has changed


def test_too_few_windows_are_refused_and_nothing_has_changed(baseline, tmp_path):
    rng, monitor = np.random.default_rng(5), DriftMonitor(baseline, ROWS, state=tmp_path)
    clean = judged(monitor, rng, 8)
    monitor.learn(clean)
    before, head = monitor.baseline, (tmp_path / HEAD).read_bytes()
    with pytest.raises(InputError, match="7 windows: pass 8 at the least"):
        monitor.learn(clean[:7])
    with pytest.raises(InputError, match="0 windows: pass 8 at the least"):
        monitor.learn([])
    assert monitor.baseline is before
    assert (tmp_path / HEAD).read_bytes() == head
    monitor.learn(clean)  # as it was advised


@pytest.mark.parametrize("wrong", ["report", 3, None])
def test_what_is_no_window_is_named_by_its_place(baseline, wrong):
    monitor = DriftMonitor(baseline, ROWS)
    clean = judged(monitor, np.random.default_rng(6), 8)
    with pytest.raises(InputError, match=rf"windows\[3\] is a {type(wrong).__name__}: pass the reports"):
        monitor.learn([*clean[:3], wrong, *clean[3:]])
    assert monitor.baseline is baseline


def test_windows_of_something_else_are_refused(baseline):
    profiler = Profiler(seed=1)
    profiler.update(embeddings={"pool": np.random.default_rng(7).normal(size=(50, 2))})
    monitor = DriftMonitor(baseline, ROWS)
    clean = judged(monitor, np.random.default_rng(7), 8)
    with pytest.raises(InputError, match=r"windows\[8\] has no rows of what the baseline has, outputs"):
        monitor.learn([*clean, profiler.profile()])
    assert monitor.baseline is baseline


def test_a_baseline_that_keeps_no_rows_cannot_learn():
    monitor = DriftMonitor(small_baseline(400, rows=1).reference, ROWS)
    clean = judged(monitor, np.random.default_rng(8), 8)
    with pytest.raises(InputError, match="too few to calibrate"):
        monitor.learn(clean)
    assert learned_of(monitor) is None


def test_against_training_is_refused():
    both = Baseline(small_baseline().reference, small_baseline(seed=1001).reference)
    monitor = DriftMonitor(both, ROWS, against="training")
    clean = judged(monitor, np.random.default_rng(9), 8)
    with pytest.raises(InputError, match=r"against='reference'.* without against='training'"):
        monitor.learn(clean)
    assert monitor.baseline is both
    assert calibration_of(DriftMonitor(both, ROWS).learn(clean)).learned.windows == 8  # as it was advised


def test_a_context_against_training_is_refused():
    both = Baseline(small_baseline().reference, small_baseline(seed=1001).reference)
    with pytest.raises(InputError, match=r"context='hour' is of baselines against='reference': leave .* away"):
        DriftMonitor(both, ROWS, against="training", context="hour")
    assert DriftMonitor(both, ROWS, context="hour").status.failures == {}


# -- which reports


def test_of_windows_that_overlap_those_teach_that_share_no_row(baseline):
    rng, monitor = np.random.default_rng(30), DriftMonitor(baseline, 60, stride=20)
    reports = [report for _ in range(30) for report in monitor.update(outputs=rng.normal(size=(20, COLUMNS)))]
    assert len(reports) == 28
    monitor.learn(reports)
    assert learned_of(monitor).windows == 10
    with pytest.raises(InputError, match="7 windows: pass 8 at the least"):
        monitor.learn(reports[:21])
    monitor.learn(reports[:22])
    monitor.learn([report.profile for report in reports])  # profiles are what they are
    assert learned_of(monitor).windows == 28


def test_sliding_windows_of_independent_rows_teach_nothing(baseline):
    rng, monitor = np.random.default_rng(31), DriftMonitor(baseline, 100, stride=5)
    reports = [report for _ in range(24) for report in monitor.update(outputs=rng.normal(size=(100, COLUMNS)))]
    assert len(reports) > 400
    monitor.learn(reports)
    assert learned_of(monitor).windows == 24
    for part in calibration_of(monitor.baseline).parts:
        assert part.inflation[0].mean() < 1.5
    report = monitor.update(outputs=rng.normal(size=(5, COLUMNS)))[0]
    assert report.report.effective_rows > 65


def test_windows_with_rows_of_the_baseline_teach_nothing(baseline):
    rng, monitor = np.random.default_rng(32), DriftMonitor(baseline, 60, stride=20, warm_start=True)
    reports = [report for _ in range(27) for report in monitor.update(outputs=rng.normal(size=(20, COLUMNS)))]
    assert [report.warm_rows for report in reports[:4]] == [40, 20, 0, 0]
    monitor.learn(reports)
    assert learned_of(monitor).windows == 9  # the third, the sixth, ...
    with pytest.raises(InputError, match="7 windows: pass 8 at the least"):
        monitor.learn(reports[:23])


def test_a_monitor_goes_on_while_it_learns(baseline, monkeypatch):
    """What takes long is done without the lock: other threads hand in rows, and wait for nothing."""
    rng, monitor = np.random.default_rng(33), DriftMonitor(baseline, ROWS)
    clean, found, plain = judged(monitor, rng, 8), [], normal_module.with_clean_windows

    def slow(*given, **options):
        thread = threading.Thread(target=lambda: found.extend(judged(monitor, rng, 2)))
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
        return plain(*given, **options)

    monkeypatch.setattr(normal_module, "with_clean_windows", slow)
    monitor.learn(clean)
    assert [report.number for report in found] == [9, 10]
    assert learned_of(monitor).windows == 8
    assert monitor.status.windows == 10


# -- on disk


def test_a_closed_monitor_that_learns_lets_go_of_its_folder_again(baseline, tmp_path):
    rng, monitor = np.random.default_rng(34), DriftMonitor(baseline, ROWS, state=tmp_path)
    clean = judged(monitor, rng, 8)
    monitor.close()
    monitor.learn(clean)
    again = DriftMonitor(baseline, ROWS, state=tmp_path)
    assert learned_of(again).windows == 8
    assert again.status.windows == 8
    again.close()


def test_a_restart_keeps_it(baseline, tmp_path):
    rng, monitor = np.random.default_rng(10), DriftMonitor(baseline, ROWS, state=tmp_path)
    clean = judged(monitor, rng, 40)
    found = monitor.learn(clean)
    monitor.close()
    again = DriftMonitor(baseline, ROWS, state=tmp_path)
    assert again.status.restarts == 1
    assert again.status.failures == {}
    assert to_bytes(again.baseline) == to_bytes(found)
    assert levels(judged(again, rng, 30)).count("alarm") <= 2
    again.close()
    third = DriftMonitor(baseline, ROWS, state=tmp_path)  # also if nothing was learned in between
    assert learned_of(third).windows == 40
    third.close()


def test_it_is_kept_as_soon_as_it_is_learned(baseline, tmp_path):
    """A monitor that is killed has no time to be closed: what is on disk then is read, not what it would have said."""
    rng, monitor = np.random.default_rng(11), DriftMonitor(baseline, ROWS, state=tmp_path / "a")
    monitor.learn(judged(monitor, rng, 8))
    (tmp_path / "b").mkdir()
    for path in (tmp_path / "a").iterdir():
        (tmp_path / "b" / path.name).write_bytes(path.read_bytes())
    assert learned_of(DriftMonitor(baseline, ROWS, state=tmp_path / "b")).windows == 8


def test_what_was_learned_before_is_gone_from_disk(baseline, tmp_path):
    rng, monitor = np.random.default_rng(12), DriftMonitor(baseline, ROWS, state=tmp_path)
    for _ in range(2):
        monitor.learn(judged(monitor, rng, 8))
    (kept,) = json.loads((tmp_path / HEAD).read_text())["normal"].values()
    assert [path.name for path in tmp_path.glob("*.npz")] == [kept]
    judged(monitor, rng, 3)
    assert (tmp_path / kept).exists()


def test_a_baseline_that_has_learned_itself_wins_over_the_state(baseline, tmp_path, caplog):
    rng, monitor = np.random.default_rng(13), DriftMonitor(baseline, ROWS, state=tmp_path)
    monitor.learn(judged(monitor, rng, 8))
    clean = [report.profile for report in judged(monitor, rng, 12)]
    monitor.close()
    taught = with_clean_windows(baseline, clean)
    again = DriftMonitor(taught, ROWS, state=tmp_path)
    assert again.status.restarts == 1
    assert again.baseline is taught
    again.close()
    assert any("taught otherwise than the state on disk" in record.message for record in caplog.records)


@pytest.mark.parametrize("layout", [2 * ROWS, timedelta(hours=1)], ids=str)
def test_windows_that_are_laid_out_otherwise_keep_what_was_learned(baseline, tmp_path, layout):
    rng, monitor = np.random.default_rng(14), DriftMonitor(baseline, ROWS, state=tmp_path)
    monitor.learn(judged(monitor, rng, 8))
    monitor.close()
    again = DriftMonitor(baseline, layout, state=tmp_path)
    assert learned_of(again).windows == 8
    again.close()


def test_another_baseline_does_not_get_it(baseline, tmp_path):
    rng, monitor = np.random.default_rng(15), DriftMonitor(baseline, ROWS, state=tmp_path)
    monitor.learn(judged(monitor, rng, 8))
    monitor.close()
    other = small_baseline(300, seed=5)
    again = DriftMonitor(other, ROWS, state=tmp_path)
    assert again.baseline is other
    assert again.status.restarts == 0
    again.close()


def test_a_state_of_an_earlier_release_has_learned_nothing(baseline, tmp_path):
    monitor = DriftMonitor(baseline, ROWS, state=tmp_path)
    judged(monitor, np.random.default_rng(16), 3)
    monitor.close()
    head = json.loads((tmp_path / HEAD).read_text())
    del head["normal"]
    (tmp_path / HEAD).write_text(json.dumps(head))
    again = DriftMonitor(baseline, ROWS, state=tmp_path)
    assert (again.status.restarts, again.status.windows, again.baseline) == (1, 3, baseline)
    again.close()


def harmed(head):
    def harm(folder):
        about = json.loads((folder / HEAD).read_text())
        about["normal"] = head(about["normal"])
        (folder / HEAD).write_text(json.dumps(about))

    return harm


def file_of(folder):
    (name,) = json.loads((folder / HEAD).read_text())["normal"].values()
    return folder / name


def of_another_profile(folder):
    """A baseline of other streams, under the name that its bytes have."""
    profiler = Profiler(seed=1)
    profiler.update(embeddings={"pool": np.random.default_rng(0).normal(size=(200, 2))})
    put_in(folder, calibrate(profiler.profile(), draws=100))


def damaged_calibration(folder):
    made = calibrate(small_baseline(1000), draws=100)
    state = dict(made.calibration)
    name = next(name for name in state if name.endswith("/mean"))
    put_in(folder, Baseline(made.reference, calibration=state | {name: state[name] * np.nan}))


def a_profile(folder):
    put_in(folder, small_baseline(1000).reference)


def of_an_hour_that_is_another_profile(folder):
    """What was learned is sound, but that of an hour is of other streams."""
    (name,) = json.loads((folder / HEAD).read_text())["normal"].values()
    of_another_profile(folder)
    harmed(lambda files: {"": name, "05:00": files[""]})(folder)


def put_in(folder, what):
    import hashlib

    content = to_bytes(what)
    name = f"{hashlib.sha256(content).hexdigest()}.npz"
    (folder / name).write_bytes(content)
    harmed(lambda _: {"": name})(folder)


DAMAGE = {
    "null": harmed(lambda _: None),
    "empty list": harmed(lambda _: []),
    "list": harmed(lambda _: [3]),
    "text": harmed(lambda _: "all"),
    "number": harmed(lambda _: 3),
    "outside": harmed(lambda _: {"": "../../etc/passwd"}),
    "no name": harmed(lambda _: {"": ["x"]}),
    "null name": harmed(lambda _: {"": None}),
    "many": harmed(lambda files: {str(at): next(iter(files.values())) for at in range(33)}),
    "gone": lambda folder: file_of(folder).unlink(),
    "folder": lambda folder: (file_of(folder).unlink(), file_of(folder).mkdir()),
    "truncated": lambda folder: file_of(folder).write_bytes(file_of(folder).read_bytes()[:1000]),
    "changed": lambda folder: file_of(folder).write_bytes(file_of(folder).read_bytes()[:-1] + b"x"),
    "of another profile": of_another_profile,
    "damaged calibration": damaged_calibration,
    "a profile": a_profile,
}


@pytest.fixture(scope="module")
def learned_state(baseline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")
    rng, monitor = np.random.default_rng(17), DriftMonitor(baseline, ROWS, state=folder)
    monitor.learn(judged(monitor, rng, 8, spread=0.0))
    monitor.update(outputs=scene(rng, n=3))
    monitor.close()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_or_hostile_memory_of_it_is_not_taken(baseline, learned_state, tmp_path, caplog, damage):
    """It is forgotten with a warning; what else the monitor remembers stays, and it judges by what it was given."""
    for name, content in learned_state.items():
        (tmp_path / name).write_bytes(content)
    damage(tmp_path)
    monitor = DriftMonitor(baseline, ROWS, state=tmp_path)
    assert monitor.baseline is baseline
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "what the monitor had learned from clean windows cannot be read, and is forgotten" in warning
    assert not list(tmp_path.glob(f"{HEAD}.damaged-*"))
    status = monitor.status
    assert (status.rows, status.windows, status.restarts) == (8 * ROWS + 3, 8, 1)
    (full,) = monitor.update(outputs=np.random.default_rng(0).normal(size=(ROWS - 3, COLUMNS)))
    assert full.number == 9  # with the three rows that were there
    rng = np.random.default_rng(18)
    monitor.update(outputs=scene(rng, spread=0.0))
    monitor.flush()
    assert levels(judged(monitor, rng, 2, spread=0.0, shift=4.0)) == ["alarm", "alarm"]
    assert monitor.status.failures == {}
    monitor.close()
    caplog.clear()
    again = DriftMonitor(baseline, ROWS, state=tmp_path)  # the new state is sound
    assert again.status.restarts == status.restarts + 1
    assert again.baseline is baseline
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    again.close()


def test_an_hour_of_another_profile_is_not_taken(baseline, learned_state, tmp_path, caplog):
    for name, content in learned_state.items():
        (tmp_path / name).write_bytes(content)
    of_an_hour_that_is_another_profile(tmp_path)
    clock = Clock()
    clock.now = np.floor(clock.now / DAY) * DAY + 5.5 * HOUR
    monitor = DriftMonitor(baseline, ROWS, state=tmp_path, context="hour", clock=clock)
    monitor.update(outputs=scene(np.random.default_rng(18), spread=0.0))
    monitor.flush()
    assert monitor.status.failures == {}
    assert "cannot be read, and is forgotten" in caplog.text


def test_a_memory_that_cannot_be_opened_stops_nothing(baseline, learned_state, tmp_path, monkeypatch):
    for name, content in learned_state.items():
        (tmp_path / name).write_bytes(content)
    learned = file_of(tmp_path).name
    plain = type(tmp_path).read_bytes

    def unreadable(path):
        if path.name == learned:
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path)

    monkeypatch.setattr(type(tmp_path), "read_bytes", unreadable)
    monitor = DriftMonitor(baseline, ROWS, state=tmp_path)
    assert levels(judged(monitor, np.random.default_rng(19), 2, spread=0.0, shift=4.0)) == ["alarm", "alarm"]
    monitor.close()


def test_a_full_disk_does_not_keep_a_monitor_from_learning(baseline, tmp_path, monkeypatch):
    rng, monitor = np.random.default_rng(20), DriftMonitor(baseline, ROWS, state=tmp_path)
    clean = judged(monitor, rng, 8)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lensai_integrations.monitoring.state.write_file", full)
        monitor.learn(clean)
        assert learned_of(monitor).windows == 8
        assert "state" in monitor.status.failures
    judged(monitor, rng, 1)
    monitor.close()
    again = DriftMonitor(baseline, ROWS, state=tmp_path)
    assert learned_of(again).windows == 8
    again.close()


# -- hours and days


@pytest.fixture
def fewer_draws(monkeypatch):
    """Baselines of hours that are drawn less often."""
    plain = normal_module.with_clean_windows
    monkeypatch.setattr(
        normal_module,
        "with_clean_windows",
        lambda given, windows, *, inside=False: plain(
            given if isinstance(given, Baseline) else calibrate(given, draws=200), windows, inside=inside
        ),
    )


LIGHT = {1: -2.0, 9: 1.0, 17: 2.0}


def day_of(monitor, clock, rng, *, wrong=None, light=LIGHT):
    """A day of some hours, each with a brightness of its own, at one of them that of another; the windows of it."""
    reports = []
    clock.now = np.floor(clock.now / DAY) * DAY + DAY
    midnight = clock.now
    for hour in light:
        clock.now = midnight + hour * HOUR + 60
        reports += monitor.update(outputs=scene(rng, 0.1, light[(wrong or {}).get(hour, hour)], 100))
    clock.now = midnight + 23 * HOUR
    return reports + monitor.flush()


def of_hours(baseline, **settings):
    clock = Clock()
    return DriftMonitor(baseline, timedelta(hours=1), clock=clock, warn=None, **settings), clock


@pytest.mark.usefixtures("fewer_draws")
def test_a_daily_cycle_is_quiet_once_the_hours_are_known(baseline, tmp_path):
    rng = np.random.default_rng(21)
    monitor, clock = of_hours(baseline, context="hour", state=tmp_path)
    clean = [report for _ in range(10) for report in day_of(monitor, clock, rng)]
    assert levels(clean) == ["alarm"] * 30
    monitor.learn(clean)
    after = [report for _ in range(5) for report in day_of(monitor, clock, rng)]
    assert levels(after).count("alarm") <= 1
    assert {report.report.against for report in after} == {f"10 clean windows of {hour:02}:00 UTC" for hour in LIGHT}
    wrong = day_of(monitor, clock, rng, wrong={1: 17})
    assert levels(wrong) == ["alarm", "ok", "ok"]  # usual light, at an hour that has another
    monitor.close()
    again, clock = of_hours(baseline, context="hour", state=tmp_path)
    clock.now += 40 * DAY
    assert levels(day_of(again, clock, rng, wrong={9: 1})) == ["ok", "alarm", "ok"]
    again.close()
    without, clock = of_hours(baseline, state=tmp_path)
    clock.now += 50 * DAY
    day = day_of(without, clock, rng, wrong={9: 1})  # what has no context knows how much all hours vary, and no more
    assert {report.report.against for report in day} == {"validation"}
    assert levels(day) == ["ok", "ok", "ok"]
    without.close()


@pytest.mark.usefixtures("fewer_draws")
def test_learning_again_keeps_the_hours_in_the_state(baseline, tmp_path):
    """A baseline with what was learned is advised to be saved and given to monitors: the hours are not lost by that."""
    rng = np.random.default_rng(22)
    monitor, clock = of_hours(baseline, context="hour", state=tmp_path)
    found = monitor.learn([report for _ in range(8) for report in day_of(monitor, clock, rng)])
    monitor.close()
    loaded = Baseline.load(found.save(tmp_path / "baseline"))
    for given in (found, loaded):
        again, clock = of_hours(given, context="hour", state=tmp_path)
        clock.now += (40 if given is found else 50) * DAY
        day = day_of(again, clock, rng)
        assert {report.report.against for report in day} == {f"8 clean windows of {at:02}:00 UTC" for at in LIGHT}
        assert levels(day) == ["ok", "ok", "ok"]
        assert levels(day_of(again, clock, rng, wrong={1: 17})) == ["alarm", "ok", "ok"]
        again.close()


@pytest.mark.usefixtures("fewer_draws")
def test_a_baseline_that_learned_otherwise_has_none_of_the_hours(baseline, tmp_path, caplog):
    rng = np.random.default_rng(35)
    monitor, clock = of_hours(baseline, context="hour", state=tmp_path)
    clean = [report for _ in range(9) for report in day_of(monitor, clock, rng)]
    monitor.learn(clean)
    monitor.close()
    other = with_clean_windows(baseline, [report.profile for report in clean[:12]])
    again, clock = of_hours(other, context="hour", state=tmp_path)
    clock.now += 40 * DAY
    assert {report.report.against for report in day_of(again, clock, rng)} == {"validation"}
    assert again.baseline is other
    assert again.status.restarts == 1
    again.close()
    assert any("taught otherwise than the state on disk" in record.message for record in caplog.records)


@pytest.mark.usefixtures("fewer_draws")
def test_an_hour_of_too_few_windows_is_held_against_the_whole(baseline):
    rng = np.random.default_rng(23)
    monitor, clock = of_hours(baseline, context="hour")
    clean = [report for _ in range(9) for report in day_of(monitor, clock, rng)]
    without = [report for report in clean if CONTEXTS["hour"](_time(report)) != "17:00"]
    monitor.learn(clean[:3] + without[2:])
    reports = day_of(monitor, clock, rng)
    assert [report.report.against for report in reports] == [
        "9 clean windows of 01:00 UTC",
        "9 clean windows of 09:00 UTC",
        "validation",
    ]


def _time(report):
    from datetime import UTC, datetime

    return datetime.fromtimestamp((report.opened + report.closed) / 2, UTC)


def test_a_window_is_of_the_hour_and_the_day_that_its_middle_is_in():
    made = {name: Normal(small_baseline(), name) for name in ("hour", "weekday", None)}
    begins = 1_700_000_000 - 1_700_000_000 % DAY  # Tuesday, 14 November 2023
    assert made["hour"].key(begins + 5.9 * HOUR, begins + 6.3 * HOUR) == "06:00"
    assert made["hour"].key(begins + 5.5 * HOUR, begins + 6.3 * HOUR) == "05:00"
    assert made["weekday"].key(begins, begins + DAY) == "Tuesday"
    assert made["weekday"].key(begins - DAY, begins) == "Monday"
    assert made["weekday"].key(begins + 5 * DAY, begins + 6 * DAY - 1) == "Sunday"
    assert made[None].key(begins, begins) == ""
    assert {made["hour"].key(begins + hour * HOUR, begins + hour * HOUR) for hour in range(24)} == {
        f"{hour:02}:00" for hour in range(24)
    }


@pytest.mark.usefixtures("fewer_draws")
def test_days_of_the_week_are_a_context(baseline):
    rng, clock = np.random.default_rng(24), Clock()
    monitor = DriftMonitor(baseline, 100, context="weekday", warn=None, clock=clock)

    def week():
        reports = []
        for _ in range(7):
            clock.now += DAY
            weekend = CONTEXTS["weekday"](_day(clock)) in ("Saturday", "Sunday")
            reports += monitor.update(outputs=scene(rng, 0.1, 2.0 if weekend else -2.0, 100))
        return reports

    monitor.learn([report for _ in range(8) for report in week()])
    after = week()
    assert levels(after).count("alarm") <= 1
    assert {report.report.against for report in after} == {
        f"8 clean {day}s (UTC)"
        for day in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    }
    clock.now += DAY
    weekend = CONTEXTS["weekday"](_day(clock)) in ("Saturday", "Sunday")
    (wrong,) = monitor.update(outputs=scene(rng, 0.1, -2.0 if weekend else 2.0, 100))
    assert wrong.level == "alarm"


def _day(clock):
    from datetime import UTC, datetime

    return datetime.fromtimestamp(clock.now, UTC)


def test_a_context_goes_by_time_and_a_profile_has_none(baseline):
    monitor = DriftMonitor(baseline, ROWS, context="hour")
    clean = judged(monitor, np.random.default_rng(25), 8)
    with pytest.raises(InputError, match=r"windows\[0\] is a Profile, which has no time, and context='hour' goes by"):
        monitor.learn([report.profile for report in clean])
    assert monitor.baseline is baseline
    assert calibration_of(monitor.learn(clean)).learned.windows == 8  # as it was advised


@pytest.mark.parametrize("wrong", ["minute", "Hour", 3, ""])
def test_a_context_that_is_none_is_refused(baseline, wrong):
    with pytest.raises(InputError, match=r"context=.* is unknown: pass 'hour', 'weekday' or None"):
        DriftMonitor(baseline, ROWS, context=wrong)


def test_what_cannot_be_a_key_is_refused_as_well(baseline):
    with pytest.raises(InputError, match=r"context=\['hour'\] is unknown"):
        DriftMonitor(baseline, ROWS, context=["hour"])


# -- a number of false alarms a month


def test_a_number_of_false_alarms_a_month_holds_after_learning(baseline):
    """Windows put together are held against what those put together have taught; a weak shift that lasts is found."""
    rng, clock = np.random.default_rng(26), Clock()
    monitor = DriftMonitor(baseline, ROWS, alarms="1 per month", clock=clock)

    def hours(count, shift=0.0, spread=0.4):
        reports = []
        for _ in range(count):
            clock.now += HOUR
            reports += monitor.update(outputs=scene(rng, spread, shift))
        return reports

    clean = hours(40)
    assert "alarm" in levels(clean)
    monitor.learn(clean)
    before = monitor.status.alarms
    assert levels(hours(100)).count("alarm") <= 1
    assert monitor.status.alarms <= before + 1
    assert "alarm" in levels(hours(10, shift=4.0))
    assert monitor.status.failures == {}


# -- panes know their order


def pairs(report):
    """How many rows of a window are known to have come directly after another one."""
    return int((np.diff(np.sort(report.profile.rows.numbers)) == 1).sum())


@pytest.mark.parametrize(("rows", "stride"), [(1, 20), (1, 1), (3, 5), (40, 20)])
def test_panes_of_windows_that_slide_know_which_rows_came_one_after_another(baseline, rows, stride):
    """Rows one at a time, panes of one row: a window of 60 has 59 pairs, and a series in it is seen."""
    rng = np.random.default_rng(27)
    monitor = DriftMonitor(small_baseline(1000), 60, stride=stride)
    given = np.repeat(rng.normal(size=(12, COLUMNS)), 10, axis=0)
    reports = [
        report for start in range(0, 120, rows) for report in monitor.update(outputs=given[start : start + rows])
    ]
    assert len(reports) == 1 + 60 // stride
    for report in reports:
        assert pairs(report) == 59
        kept = report.profile.rows.data["outputs"][np.argsort(report.profile.rows.numbers)]
        assert (kept[1:] == kept[:-1]).all(axis=1).sum() >= 53
        assert report.report.effective_rows < 12
        assert any("successive rows resemble each other" in note for note in report.report.notes)


def test_independent_rows_of_sliding_windows_stay_as_they_are():
    monitor, rng = DriftMonitor(small_baseline(1000), 60, stride=1), np.random.default_rng(28)
    reports = [report for _ in range(90) for report in monitor.update(outputs=rng.normal(size=(1, COLUMNS)))]
    assert np.isnan([report.report.effective_rows for report in reports]).all()
    assert {pairs(report) for report in reports} == {59}


def test_a_restart_loses_one_pair(tmp_path):
    rng = np.random.default_rng(29)
    baseline = small_baseline()
    first = DriftMonitor(baseline, 50, state=tmp_path)
    first.update(outputs=rng.normal(size=(20, COLUMNS)))
    first.close()
    second = DriftMonitor(baseline, 50, state=tmp_path)
    one, two = second.update(outputs=rng.normal(size=(80, COLUMNS)))
    assert pairs(one) == 19 + 29
    assert pairs(two) == 49
    second.close()


# -- rows that came as time went by


def bursts(rng, n, columns=COLUMNS):
    """Frames, ten of each scene, and the label of it; drawn as the rows of `independent` are."""
    labels, rows = independent(rng, n // 10, columns)
    return np.repeat(labels, 10), np.repeat(rows, 10, axis=0) + 0.1 * rng.normal(size=(n, columns))


def independent(rng, n, columns=COLUMNS):
    labels = rng.integers(0, columns, n)
    return labels, rng.normal(size=(n, columns)) + 2 * np.eye(columns)[labels]


@pytest.fixture(scope="module", params=["plain", "calibrated"])
def of_classes(request):
    rng = np.random.default_rng(36)
    profiler, (labels, rows) = Profiler(source="validation", seed=1), independent(rng, 1500)
    profiler.update(outputs=rows, labels=labels)
    profile = profiler.profile()
    return profile if request.param == "plain" else calibrate(profile, draws=200)


def fed(monitor, given):
    labels, rows = given
    (report,) = monitor.update(outputs=rows, labels=labels)
    return report


def test_bursts_with_labels_are_no_drift(of_classes):
    """Labels count as little as what they are of; where rows are not of their time they all count, and alarm."""
    rng, monitor, of_data_set = np.random.default_rng(37), *(DriftMonitor(of_classes, 200, warn=None) for _ in range(2))
    of_data_set.in_time = False
    windows = [bursts(rng, 200) for _ in range(15)]
    reports = [fed(monitor, window) for window in windows]
    assert [report.report.drift for report in reports].count(True) <= 1
    assert all(7 < report.report.effective_rows < 20 for report in reports)
    counted_in_full = [fed(of_data_set, window) for window in windows]
    assert [report.report.drift for report in counted_in_full].count(True) >= 8
    assert {report.profile.info.get("order") for report in reports} == {"in time"}
    assert {report.profile.info.get("order") for report in counted_in_full} == {None}
    assert all("they count in full" in str(report.report) for report in counted_in_full)
    labels, rows = bursts(rng, 200)
    assert fed(monitor, (labels, rows + 5 * np.array([1, 0, 0]))).report.drift


def test_labels_that_clean_windows_had_not_count_as_little_as_what_they_had(of_classes):
    """Labels often come later. Before anything is learned they are no drift either."""
    rng, monitor = np.random.default_rng(40), DriftMonitor(of_classes, 200, warn=None)
    monitor.learn([monitor.update(outputs=bursts(rng, 200)[1])[0] for _ in range(20)])
    reports = [fed(monitor, bursts(rng, 200)) for _ in range(15)]
    assert [report.report.drift for report in reports].count(True) <= 1


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_the_last_fifth_that_moved_is_found(baseline, shift):
    """A step within the window is no resemblance of successive rows that would make them count less."""
    rng, monitor = np.random.default_rng(38), DriftMonitor(baseline, 200, warn=None)
    for _ in range(5):
        rows = rng.normal(size=(200, COLUMNS))
        rows[160:] += shift
        (report,) = monitor.update(outputs=rows)
        assert report.report.drift == bool(shift)
        assert np.isnan(report.report.effective_rows)


@pytest.mark.parametrize("layout", [ROWS, timedelta(hours=1)], ids=str)
def test_windows_and_those_that_are_replayed_are_of_their_time(baseline, layout):
    rng = np.random.default_rng(39)
    monitor = DriftMonitor(baseline, layout)
    past = [{"timestamp": 1e9 + HOUR * at + np.arange(ROWS), "outputs": scene(rng)} for at in range(3)]
    reports = monitor.replay(past)
    assert [report.profile.info["order"] for report in reports] == ["in time"] * 3
    assert monitor.in_time


def test_monitors_of_callbacks_are_of_a_data_set(baseline):
    from lensai_integrations.training.drift import DriftOptions

    monitor = DriftOptions(baseline=baseline).new_monitor()
    assert not monitor.in_time
