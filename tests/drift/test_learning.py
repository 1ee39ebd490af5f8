"""What clean windows tell of how much they vary: known inflations are found, and verdicts hold the rate again."""

from __future__ import annotations

import json
import math
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from dependent import autoregressive, in_time, layer_of, scene
from scipy.stats import norm

from lensai_integrations import Baseline, Profile, Profiler, calibrate, compare
from lensai_integrations.drift import learning
from lensai_integrations.drift.calibration import calibration_of, from_state, to_state
from lensai_integrations.drift.dependence import INDEPENDENT, learned
from lensai_integrations.drift.features import RANKS
from lensai_integrations.drift.learning import taught, with_clean_windows
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.profiles.profile import from_bytes, load, to_bytes

GOLDEN = Path(__file__).parents[1] / "golden"
POOL, COLUMNS, ROWS = "embeddings/pool", 4, 100


@pytest.fixture(scope="module")
def baseline():
    rows = np.random.default_rng(1).normal(size=(2000, COLUMNS))
    return calibrate(layer_of(rows, 1, source="validation"), draws=200)


def windows(count, spread, seed, like, rows=ROWS, shift=0.0):
    rng = np.random.default_rng(seed)
    return [layer_of(scene(rng, rows, COLUMNS, spread, shift), 1000 * seed + at, like=like) for at in range(count)]


@pytest.fixture(scope="module")
def varying(baseline):
    """It learned from windows around means of their own, whose rows count as 1 / 10 of independent ones."""
    return with_clean_windows(baseline, windows(40, 0.3, 2, baseline))


def of_kind(calibrated, kind):
    return next(part.inflation for part in calibration_of(calibrated).parts if part.block.kind == kind)


def without_tails(monkeypatch):
    """What allows for tails is left out, and no window is."""
    factors_are(monkeypatch, 1.0)


def factors_are(monkeypatch, factor):
    """The factor that every window asks for is this."""
    monkeypatch.setattr(learning._Learner, "_factors", lambda *given: dict.fromkeys(given[3], factor))


def drifts(calibrated, clean):
    """How many of clean windows are drift."""
    return [compare(calibrated, window).drift for window in clean].count(True)


# -- how much they vary


@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_a_known_inflation_is_found(baseline, spread, monkeypatch):
    """Windows around means of their own, of variance t^2: means vary 1 + m t^2 times as much as those of m rows.

    Also where windows are put together, for the mean of k of them varies by t^2 / k. Of the shares of a normal
    distribution below x, whose slope there is phi(x), it is 1 + m t^2 phi(x)^2 / (p (1 - p)) as long as t is small.
    """
    without_tails(monkeypatch)
    found = with_clean_windows(baseline, windows(120, spread, 3, baseline))
    about = calibration_of(found).learned
    assert (about.windows, about.rows) == (120, (100.0, 200.0, 400.0, 800.0))
    components, shares = of_kind(found, "bounded_components"), of_kind(found, "distributions")
    expected = 1 + ROWS * spread**2
    assert components.shape == (4, COLUMNS)
    assert shares.shape == (4, COLUMNS)
    assert components[0].mean() == pytest.approx(expected, rel=0.25)
    assert components[2].mean() == pytest.approx(expected, rel=0.4)  # of 30 windows
    ranks = np.array(RANKS)
    slopes = norm.pdf(norm.ppf(ranks)) ** 2 / (ranks * (1 - ranks))
    least, most = (1 + ROWS * spread**2 * slope for slope in (slopes.min(), slopes.max()))
    assert least <= shares[0].mean() <= 1.1 * most


def test_independent_windows_teach_nothing(baseline):
    found = with_clean_windows(baseline, windows(40, 0.0, 4, baseline))
    assert calibration_of(found).learned.rows == (100.0, 200.0, 400.0)
    for part in calibration_of(found).parts:
        assert part.inflation.shape[0] == 3
        assert (part.inflation >= 1).all()
        assert part.inflation[0].mean() < 1.4
    for window in [*windows(5, 0.0, 5, baseline), *windows(5, 0.0, 6, baseline, shift=0.3)]:
        before, after = compare(baseline, window), compare(found, window)
        assert after.drift == before.drift
        assert after.effective_rows > 70
        for one, other in zip(before.groups[0].streams, after.groups[0].streams, strict=False):
            assert other.stream != one.stream or other.p_value == pytest.approx(one.p_value, rel=2, abs=0.1)
    assert drifts(found, windows(5, 0.0, 7, baseline, shift=0.5)) == 5


def test_a_stream_that_varies_more_is_told_from_those_that_do_not(baseline):
    rng, clean = np.random.default_rng(8), []
    for at in range(60):
        rows = rng.normal(size=(ROWS, COLUMNS))
        rows[:, 2] += 0.5 * rng.normal()
        clean.append(layer_of(rows, 5000 + at, like=baseline))
    found = of_kind(with_clean_windows(baseline, clean), "distributions")[0]
    assert found[2] > 2.5 * np.delete(found, 2).max()


def test_series_in_windows_are_learned_as_what_they_are(baseline):
    """(1 + r) / (1 - r) of a series that goes on from window to window, and all the same of windows put together."""
    rng = np.random.default_rng(9)
    series = autoregressive(rng, 60 * ROWS, COLUMNS, 0.6)
    clean = [layer_of(part, 6000 + at, like=baseline) for at, part in enumerate(np.split(series, 60))]
    found = of_kind(with_clean_windows(baseline, clean), "bounded_components")
    assert 2.5 < found[0].mean() < 8
    assert 2 < found[1].mean() < 8


# -- verdicts


def test_clean_windows_of_the_same_kind_stay_quiet_and_a_real_shift_is_found(baseline, varying):
    clean = windows(60, 0.3, 10, baseline)
    assert drifts(baseline, clean) > 40
    assert drifts(varying, clean) <= 2
    assert drifts(varying, windows(10, 0.3, 11, baseline, shift=2.0)) == 10
    report = compare(varying, clean[0])
    assert 3 < report.effective_rows < 40
    said = f"100 rows count as {report.effective_rows:,.0f} independent ones: learned from 40 clean windows"
    assert said in report.notes
    assert said in str(report)


@pytest.mark.parametrize("count", [2, 6])
def test_windows_that_were_put_together_stay_drifts(baseline, varying, count):
    clean = windows(15 * count, 0.3, 12, baseline)
    merged = []
    for start in range(0, len(clean), count):
        whole = clean[start]
        for window in clean[start + 1 : start + count]:
            whole = whole.merge(window)
        merged.append(whole)
    assert drifts(varying, merged) <= 2
    assert drifts(baseline, merged) > 7


def test_windows_that_are_smaller_stay_drifts(baseline, varying):
    assert drifts(varying, windows(30, 0.3, 13, baseline, rows=10)) <= 1


def test_tails_are_allowed_for(baseline, monkeypatch):
    """Means of their own may have heavier tails than the mean of their squares says: no window that taught is drift."""
    rng = np.random.default_rng(14)
    around = 0.15 * rng.laplace(size=(40, COLUMNS))
    clean = [
        layer_of(rng.normal(size=(ROWS, COLUMNS)) + mean, 7000 + at, like=baseline) for at, mean in enumerate(around)
    ]
    found = with_clean_windows(baseline, clean)
    assert not calibration_of(found).notes
    assert drifts(found, clean) == 0
    assert drifts(found, windows(5, 0.05, 15, baseline, shift=4.0)) == 5
    of_tails = of_kind(found, "distributions")
    without_tails(monkeypatch)
    factors = of_tails / of_kind(with_clean_windows(baseline, clean), "distributions")
    assert 1.1 < factors[0].mean() <= 4.001


def test_no_factor_is_larger_than_four(baseline, monkeypatch):
    """Where a fifth of the windows is far out they are no exceptions, and some of them stay drift."""
    rng = np.random.default_rng(35)
    clean = [
        layer_of(scene(rng, ROWS, COLUMNS, 3.0 if at % 5 == 0 else 0.0), 7100 + at, like=baseline) for at in range(15)
    ]
    found = with_clean_windows(baseline, clean)
    assert not calibration_of(found).notes
    with monkeypatch.context() as patch:
        without_tails(patch)
        factors = of_kind(found, "distributions") / of_kind(with_clean_windows(baseline, clean), "distributions")
    assert factors.max() < 4.001
    factors_are(monkeypatch, math.inf)
    factors = of_kind(with_clean_windows(baseline, clean), "distributions") / of_kind(found, "distributions")
    assert factors.min() >= 0.999


# -- windows that are hardly clean


def test_one_contaminated_window_of_forty_does_not_blind():
    """A window of 50 rows that moved by one standard deviation is found after it as before; the note names it."""
    rng = np.random.default_rng(36)
    made = calibrate(layer_of(rng.normal(size=(2000, 3)), 1, source="validation"), draws=200)
    clean = [layer_of(rng.normal(size=(50, 3)), 100 + at, like=made) for at in range(40)]
    moved = [layer_of(rng.normal(size=(50, 3)) + 1, 200 + at, like=made) for at in range(6)]
    found = with_clean_windows(made, [*clean[:17], moved[0], *clean[18:]])
    said = "of the clean windows, 17 (from 0) are unlike the others and taught nothing"
    assert calibration_of(found).notes == (said,)
    assert drifts(found, moved) == 6
    assert drifts(found, clean) <= 1
    assert said in compare(found, moved[1]).notes
    assert said in calibration_of(from_bytes(to_bytes(found))).notes
    for block, alone in zip(
        calibration_of(found).parts, calibration_of(with_clean_windows(made, clean)).parts, strict=True
    ):
        assert block.inflation[0].mean() < 1.5 * alone.inflation[0].mean()
    again = with_clean_windows(found, [moved[0], *clean[1:]])  # what was said before is forgotten
    assert calibration_of(again).notes == (said.replace("17", "0"),)


def test_what_was_said_of_windows_before_is_forgotten(baseline):
    clean = windows(12, 0.0, 44, baseline)
    (moved,) = windows(1, 0.0, 45, baseline, shift=2.0)
    found = with_clean_windows(baseline, [*clean[:11], moved])
    assert calibration_of(found).notes
    assert not calibration_of(with_clean_windows(found, clean)).notes


def test_up_to_a_tenth_of_the_windows_is_left_out(baseline):
    rng, clean, far = np.random.default_rng(37), windows(40, 0.05, 38, baseline), [3, 8, 20, 39]
    for at in far:
        clean[at] = layer_of(scene(rng, ROWS, COLUMNS, 1.0) + 2, 7200 + at, like=baseline)
    found = with_clean_windows(baseline, clean)
    assert calibration_of(found).learned.windows == 40
    assert calibration_of(found).notes == (
        "of the clean windows, 3, 8, 20, 39 (from 0) are unlike the others and taught nothing",
    )
    assert drifts(found, [clean[at] for at in far]) == 4
    assert drifts(found, [window for at, window in enumerate(clean) if at not in far]) <= 1
    few = with_clean_windows(baseline, clean[:9])  # of nine none is a tenth: what they show is how much they vary
    assert calibration_of(few).notes == ()
    assert of_kind(few, "distributions")[0].mean() > 5 * of_kind(found, "distributions")[0].mean()


def test_the_inflation_between_sizes_and_beyond(baseline, varying):
    calibration = calibration_of(varying)
    part = next(part for part in calibration.parts if part.block.kind == "bounded_components")
    key = part.rows, part.block.kind

    def at(m):
        return learned(calibration, varying.reference, m).blocks[key]

    np.testing.assert_allclose(at(100), part.inflation[0], rtol=1e-6)
    np.testing.assert_allclose(at(200), part.inflation[1], rtol=1e-6)
    np.testing.assert_allclose(at(1), part.inflation[0], rtol=1e-6)
    between = round(math.sqrt(100 * 200))
    np.testing.assert_allclose(at(between), np.sqrt(part.inflation[0] * part.inflation[1]), rtol=0.01)
    np.testing.assert_allclose(at(4000), 1 + 10 * (part.inflation[2] - 1), rtol=1e-5)
    assert learned(calibration_of(baseline), baseline.reference, 100) is INDEPENDENT


def labelled(rng, n, shares, seed, like=None):
    """Independent rows whose labels have shares of their own."""
    profiler = Profiler(seed=seed, like=like)
    labels = rng.choice(len(shares), n, p=shares)
    profiler.update(embeddings={"pool": rng.normal(size=(n, COLUMNS))}, labels=labels)
    return profiler.profile()


def test_labels_that_are_judged_by_formulas_are_learned_too(monkeypatch):
    """Each window has its own mix of two classes: its share varies by t^2, 1 + m t^2 / (p (1 - p)) times as much."""
    rng = np.random.default_rng(16)
    made = calibrate(labelled(rng, 3000, [0.5, 0.5], 1), draws=200)

    def mixed(spread=0.1, around=0.5):
        share = float(np.clip(around + spread * rng.normal(), 0.01, 0.99))
        return labelled(rng, ROWS, [share, 1 - share], int(rng.integers(2**31)), made)

    taught_by = [mixed() for _ in range(60)]
    found = with_clean_windows(made, taught_by)
    with monkeypatch.context() as patch:
        without_tails(patch)
        about = calibration_of(with_clean_windows(made, taught_by)).learned.streams
    (name,) = about
    assert name == "labels"
    assert about[name][0] == pytest.approx(1 + ROWS * 0.1**2 / 0.25, rel=0.4)
    clean = [mixed() for _ in range(40)]
    assert drifts(found, clean) <= 2
    assert drifts(made, clean) >= 8
    assert compare(found, mixed(around=0.97)).drift


# -- a baseline that is made of the windows


@pytest.mark.parametrize("count", [8, 12])
def test_windows_that_the_baseline_is_made_of_tell_how_much_one_varies(count, monkeypatch):
    """Around the mean of all k of them a window is off by (1 - 1/k) of what it is off, for the baseline has a part."""
    without_tails(monkeypatch)
    found = []
    for seed in range(6):
        rng = np.random.default_rng([38, seed])
        clean = [layer_of(scene(rng, ROWS, 8, 0.4), 9000 + at) for at in range(count)]
        made = with_clean_windows(calibrate(reduce(Profile.merge, clean), draws=100), clean, inside=True)
        assert calibration_of(made).learned.inside
        found.append(of_kind(made, "bounded_components")[0].mean())
    assert np.mean(found) == pytest.approx(1 + ROWS * 0.4**2, rel=0.3)


def test_contexts_of_few_windows_are_quiet_and_see():
    """The rate is 1%. Of 480 windows each, 3.5, 2.7 and 1.0% were drift by 8, 10 and 14 windows."""
    counts = {"clean": [], "moved": []}
    for seed, count in enumerate((8, 8, 11, 11, 14)):
        rng = np.random.default_rng([39, seed])
        clean = [layer_of(scene(rng, ROWS, 3, 0.5), 9100 + at) for at in range(count)]
        made = with_clean_windows(calibrate(reduce(Profile.merge, clean), draws=500), clean, inside=True)
        for name, shift, looked_at in (("clean", 0.0, 20), ("moved", 2.5, 4)):
            counts[name] += [
                compare(made, in_time(layer_of(scene(rng, ROWS, 3, 0.5, shift), 9200 + at, like=made))).drift
                for at in range(looked_at)
            ]
    assert np.mean(counts["clean"]) <= 0.06
    assert np.mean(counts["moved"]) >= 0.9


def test_what_was_learned_before_is_forgotten(baseline, varying):
    clean = windows(12, 0.0, 17, baseline)
    afresh, again = with_clean_windows(baseline, clean), with_clean_windows(varying, clean)
    assert afresh.calibration.keys() == again.calibration.keys()
    for name, array in afresh.calibration.items():
        np.testing.assert_array_equal(array, again.calibration[name])


def test_calibrate_and_teaching_are_one(baseline):
    """`calibrate(..., clean_windows=)` is calibrating, and then `with_clean_windows`; what was given is as it was."""
    clean, before = windows(10, 0.3, 18, baseline), dict(baseline.calibration)
    told = []
    at_once = calibrate(
        Baseline(baseline.reference), clean_windows=clean, draws=200, progress=lambda *at: told.append(at)
    )
    later = with_clean_windows(baseline, clean)
    assert told[-1][0] == told[-1][1]
    assert at_once.calibration.keys() == later.calibration.keys()
    for name, array in at_once.calibration.items():
        np.testing.assert_array_equal(array, later.calibration[name])
    assert baseline.calibration.keys() == before.keys()
    assert calibration_of(baseline).learned is None


def test_a_baseline_that_is_not_calibrated_is_calibrated(baseline):
    found = with_clean_windows(baseline.reference, windows(8, 0.3, 19, baseline))
    assert isinstance(found, Baseline)
    assert calibration_of(found).learned.windows == 8
    assert calibration_of(found).learned.rows == (100.0,)


def test_windows_without_a_group_teach_of_the_others():
    rng = np.random.default_rng(20)

    def of(n, seed, *layers, like=None):
        profiler = Profiler(seed=seed, like=like)
        profiler.update(embeddings={name: rng.normal(size=(n, 3)) + rng.normal(size=3) / 2 for name in layers})
        return profiler.profile()

    made = calibrate(of(500, 1, "a", "b"), draws=100)
    found = calibration_of(with_clean_windows(made, [of(60, 2 + at, "a", like=made) for at in range(10)]))
    means = {part.group: part.inflation.mean() for part in found.parts if part.block.kind == "distributions"}
    assert means["embeddings/a"] > 3 * means["embeddings/b"]
    assert means["embeddings/b"] < 1.5


@pytest.mark.parametrize(
    "rows",
    [[10] * 16 + [400], [300, *[5] * 16], [1, 500] * 8, [7, 3, 900, 20, 11, 60, 5, 333, 2]],
    ids=["large last", "large first", "in turn", "any"],
)
def test_windows_may_be_of_any_sizes(baseline, rows):
    """Also of such that the mean of those put together, from which an odd last one is left out, is no larger."""
    rng = np.random.default_rng(21)
    clean = [layer_of(rng.normal(size=(n, COLUMNS)), 8000 + at, like=baseline) for at, n in enumerate(rows)]
    found = with_clean_windows(baseline, clean)
    assert not compare(found, clean[0]).drift
    sizes = calibration_of(found).learned.rows
    assert list(sizes) == sorted(set(sizes))
    loaded = from_bytes(to_bytes(found))
    assert compare(loaded, clean[-1]).to_dict() == compare(found, clean[-1]).to_dict()


def test_a_length_whose_windows_lost_their_rows_takes_what_shorter_ones_told(baseline):
    """Row samples of other columns are not merged, and what is in no sketch is not known of both together then."""
    rng, clean = np.random.default_rng(40), []
    for at in range(16):
        profiler = Profiler(seed=at, like=baseline)
        more = {"other": rng.normal(size=(ROWS, 2))} if at % 2 else {}
        profiler.update(embeddings={"pool": scene(rng, ROWS, COLUMNS, 0.3)} | more)
        clean.append(profiler.profile())
    assert clean[0].merge(clean[1]).rows is None
    found = with_clean_windows(baseline, clean)
    assert calibration_of(found).learned.rows == (100, 200)
    first, second = of_kind(found, "bounded_components")
    np.testing.assert_array_equal(second, first)
    first, second = of_kind(found, "distributions")
    assert (first != second).any()


# -- errors


@pytest.mark.parametrize("count", [1, 7])
def test_too_few_windows_are_refused_and_eight_will_do(baseline, count):
    clean = windows(8, 0.0, 22, baseline)
    with pytest.raises(InputError, match=f"clean_windows has {count} windows: pass 8 at the least, better 30"):
        calibrate(baseline, clean_windows=clean[:count], draws=100)
    with pytest.raises(InputError, match="clean_windows has"):
        with_clean_windows(baseline, clean[:count])
    assert calibration_of(with_clean_windows(baseline, clean)).learned.windows == 8  # as it was advised


def test_no_clean_windows_are_as_none_given(baseline):
    assert calibration_of(calibrate(baseline, clean_windows=[], draws=100)).learned is None
    with pytest.raises(InputError, match="clean_windows has 0 windows"):
        with_clean_windows(baseline, [])


def test_what_is_no_profile_is_named_by_its_place(baseline):
    clean = windows(8, 0.0, 23, baseline)
    with pytest.raises(InputError, match=r"clean_windows\[5\] is a ndarray: pass Profiles"):
        with_clean_windows(baseline, [*clean[:5], np.zeros(3), *clean[5:]])
    with pytest.raises(InputError, match=r"clean_windows\[0\] is a Baseline: pass Profiles"):
        with_clean_windows(baseline, [baseline, *clean])


@pytest.mark.parametrize("of", ["generator", "tuple", "dict"])
def test_windows_may_come_in_any_iterable(baseline, of):
    clean = windows(8, 0.3, 41, baseline)
    given = {"generator": (window for window in clean), "tuple": tuple(clean), "dict": dict(enumerate(clean)).values()}
    found = calibrate(baseline, clean_windows=given[of], draws=100)
    assert same(found.calibration, calibrate(baseline, clean_windows=clean, draws=100).calibration)


def test_one_profile_is_no_list_of_them(baseline):
    (window,) = windows(1, 0.0, 42, baseline)
    for what, name in ((window, "Profile"), (baseline, "Baseline")):
        for call in (lambda: calibrate(baseline, clean_windows=what), lambda: with_clean_windows(baseline, what)):  # noqa: B023
            with pytest.raises(InputError, match=f"clean_windows is a {name}: pass a list of Profiles"):
                call()


def test_what_is_wrong_is_said_before_any_work(baseline):
    clean, told = windows(7, 0.0, 43, baseline), []

    def progress(*at):
        told.append(at)

    for arguments in (
        {"clean_windows": clean},
        {"clean_windows": [*clean, 3]},
        {"clean_windows": clean[0]},
        {"draws": 1},
        {"seed": -1},
    ):
        with pytest.raises(InputError):
            calibrate(baseline, progress=progress, **arguments)
    with pytest.raises(InputError, match="baseline is a str: pass a Baseline or a Profile"):
        calibrate("baseline", clean_windows=clean, progress=progress)
    assert not told


def test_a_window_of_something_else_is_named_and_profiling_like_the_baseline_helps(baseline):
    clean, rng = windows(8, 0.0, 24, baseline), np.random.default_rng(24)
    empty = Profiler(like=baseline).profile()
    other = Profiler(seed=1)
    other.update(embeddings={"head": rng.normal(size=(50, COLUMNS))})
    wider = Profiler(seed=2)
    wider.update(embeddings={"pool": rng.normal(size=(50, COLUMNS + 1))})
    for window in (empty, other.profile(), wider.profile()):
        with pytest.raises(
            InputError, match=rf"clean_windows\[8\] has no rows of what the baseline has, {POOL}: leave"
        ):
            with_clean_windows(baseline, [*clean, window])
    assert calibration_of(with_clean_windows(baseline, clean)).learned.windows == 8  # left out
    like = Profiler(like=baseline, seed=3)
    like.update(embeddings={"pool": rng.normal(size=(50, COLUMNS))})
    assert calibration_of(with_clean_windows(baseline, [*clean, like.profile()])).learned.windows == 9


def test_a_baseline_of_too_few_rows_is_refused_by_name(baseline):
    few = layer_of(np.random.default_rng(25).normal(size=(50, COLUMNS)), 1)
    with pytest.raises(InputError, match="50 complete rows are too few to calibrate"):
        with_clean_windows(few, windows(8, 0.0, 25, few))


# -- as plain arrays, and back


def same(one, two):
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and np.array_equal(one[name], two[name]) for name in one
    )


def test_what_was_learned_comes_back_to_the_bit(varying, tmp_path):
    assert same(to_state(from_state(varying.calibration)), varying.calibration)
    loaded = Baseline.load(varying.save(tmp_path / "b"))
    assert same(loaded.calibration, varying.calibration)
    assert same(from_bytes(to_bytes(varying)).calibration, varying.calibration)
    assert calibration_of(loaded).learned == calibration_of(varying).learned
    inside = from_state(about_with(varying.calibration, inside=True))
    assert inside.learned.inside
    assert from_state(to_state(inside)).learned == inside.learned
    (window,) = windows(1, 0.3, 26, varying)
    assert compare(loaded, window).to_dict() == compare(varying, window).to_dict()


def test_calibrations_without_it_are_read_as_they_are(baseline):
    about = json.loads(baseline.calibration["about"].tobytes())
    assert "learned" not in about
    assert not [name for name in baseline.calibration if "inflation" in name]
    found = calibration_of(baseline)
    assert found.learned is None
    assert all(part.inflation is None for part in found.parts)
    assert same(to_state(found), baseline.calibration)


def test_a_baseline_of_an_earlier_release_learns():
    earlier = load(GOLDEN / "baseline-2")
    rows = earlier.reference.rows.data
    name = next(name for name in rows if name.startswith("embeddings/") and name in earlier.reference.groups)
    rng, clean = np.random.default_rng(27), []
    for at in range(8):
        profiler = Profiler(like=earlier, seed=at)
        chosen = rng.integers(0, len(rows[name]), 60)
        profiler.update(embeddings={name.removeprefix("embeddings/"): rows[name][chosen]})
        clean.append(profiler.profile())
    found = with_clean_windows(earlier, clean)
    assert calibration_of(found).learned.windows == 8
    assert not compare(found, clean[0]).drift


def about_with(state, **learned):
    about = json.loads(state["about"].tobytes())
    about["learned"] |= learned
    return state | {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}


@pytest.mark.parametrize(
    "said",
    [
        {"rows": []},
        {"rows": [100.0, 200.0]},
        {"rows": [100.0, 200.0, 200.0]},
        {"rows": [100.0, 400.0, 200.0]},
        {"rows": [0.0, 200.0, 400.0]},
        {"rows": [-1.0, 200.0, 400.0]},
        {"rows": [100.0, 200.0, float("inf")]},
        {"rows": [100.0, float("nan"), 400.0]},
        {"rows": [100.0, 200.0, 1e300]},
        {"rows": [float(n) for n in range(1, 100)]},
        {"rows": None},
        {"rows": 3},
        {"rows": ["a", "b", "c"]},
        {"windows": 0},
        {"windows": -8},
        {"windows": float("inf")},
        {"windows": float("nan")},
        {"windows": 10**300},
        {"windows": None},
        {"streams": None},
        {"streams": []},
        {"streams": {"labels": 2.0}},
        {"streams": {"labels": [2.0]}},
        {"streams": {"labels": [2.0, 2.0, 0.5]}},
        {"streams": {"labels": [2.0, 2.0, -2.0]}},
        {"streams": {"labels": [2.0, 2.0, float("nan")]}},
        {"streams": {"labels": [2.0, 2.0, float("inf")]}},
        {"streams": {"labels": [2.0, 2.0, 1e300]}},
        {"streams": {"labels": ["a", "b", "c"]}},
    ],
    ids=str,
)
def test_what_cannot_have_been_learned_is_refused(varying, said):
    with pytest.raises(FormatError):
        from_state(about_with(varying.calibration, **said))


@pytest.mark.parametrize("value", [[], 3, "much", False, {}, {"windows": 40}], ids=str)
def test_what_is_no_word_of_clean_windows_is_refused(varying, value):
    about = json.loads(varying.calibration["about"].tobytes()) | {"learned": value}
    with pytest.raises(FormatError):
        from_state(varying.calibration | {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)})


@pytest.mark.parametrize(
    "harm",
    [
        lambda array: array[:-1],
        lambda array: array[:, :-1],
        np.ravel,
        lambda array: array.astype(np.float64),
        lambda array: array * 0,
        lambda array: -array,
        lambda array: array * np.float32(np.nan),
        lambda array: array * np.float32(np.inf),
        lambda array: np.full_like(array, 1e30),
        lambda array: array.tolist(),
        lambda array: None,
    ],
    ids=["lengths", "width", "flat", "float64", "zero", "negative", "nan", "inf", "huge", "list", "none"],
)
def test_inflations_that_cannot_be_are_refused(varying, harm):
    name = next(name for name in varying.calibration if name.endswith("/inflation"))
    with pytest.raises(FormatError):
        from_state(varying.calibration | {name: harm(varying.calibration[name])})


def test_inflations_that_lack_or_that_nothing_is_said_of_are_refused(baseline, varying):
    state = dict(varying.calibration)
    name = next(name for name in state if name.endswith("/inflation"))
    with pytest.raises(FormatError, match="inflation"):
        from_state({key: array for key, array in state.items() if key != name})
    with pytest.raises(FormatError, match=r"nothing refers to the arrays .*inflation"):
        from_state(state | {"about": baseline.calibration["about"]})
    with pytest.raises(FormatError):
        from_state(dict(baseline.calibration) | {"about": state["about"]})


def test_teaching_is_of_the_calibration_alone(baseline):
    """The draws, and so the verdicts of what is not inflated, are those that were there before."""
    before = calibration_of(baseline)
    after = taught(before, baseline.reference, windows(8, 0.3, 28, baseline))
    for one, other in zip(before.parts, after.parts, strict=True):
        assert one.null is other.null
        assert one.mean is other.mean
    assert (after.sizes, after.rows, after.draws, after.notes) == (
        before.sizes,
        before.rows,
        before.draws,
        before.notes,
    )
    assert before.learned is None


@pytest.mark.parametrize("rows", [300, 2000])
def test_profiles_alone_are_enough(rows):
    """Sketches whose rows are not kept any more tell as much as rows do, and of a sample it is told what all would."""
    rng = np.random.default_rng(29)
    made = calibrate(layer_of(rng.normal(size=(2000, 3)), 1, source="validation"), draws=200)

    def of(keep, seed):
        own = np.random.default_rng(seed)
        return layer_of(scene(own, rows, 3, 0.3), seed, like=made, rows=keep)

    all_kept, sampled = (with_clean_windows(made, [of(keep, 100 + at) for at in range(15)]) for keep in (2000, 50))
    for kind, tolerance in (("distributions", 0.25), ("kernel", 0.25), ("bounded_components", 0.4)):
        of_all, of_sample = (of_kind(each, kind)[0].mean() for each in (all_kept, sampled))
        assert of_sample == pytest.approx(of_all, rel=tolerance)
    assert drifts(sampled, [of(50, 9000 + at) for at in range(30)]) <= 2
