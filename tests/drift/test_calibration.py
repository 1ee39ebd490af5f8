"""What is calibrated, on which rows, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
from calibrations import CLASSES, WIDTH, batch, calibrated_baseline, window

from lensai_integrations import Baseline, Profile, Profiler, calibrate
from lensai_integrations.drift import calibration as module
from lensai_integrations.drift.calibration import calibrated, calibration_of, finite_rows, measured
from lensai_integrations.drift.features import rank_spread
from lensai_integrations.errors import FormatError, InputError


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return calibrated_baseline(0, draws=100)


def profile_of(**rows):
    profiler = Profiler(seed=1)
    profiler.update(**rows)
    return profiler.profile()


def test_every_group_has_its_blocks_and_labels_none(baseline):
    calibration = calibration_of(baseline)
    kinds = {(part.group, part.block.kind) for part in calibration.parts}
    rows = {"distributions", "kernel", "bounded_components"}
    assert kinds == {(group, kind) for group in ("outputs", "embeddings/pool") for kind in rows} | {
        ("outputs", "class_shares")
    }
    assert (calibration.sizes, calibration.rows, calibration.draws) == ((5, 10, 25, 50, 100, 200), 600, 100)
    assert all(part.null.largest.shape[::2] == (6, 100) for part in calibration.parts)
    assert calibration.notes == ()
    assert calibration.confidences["outputs"].accuracy > 0.8


def test_what_learned_of_rows_is_not_judged_by_them(baseline):
    for part in calibration_of(baseline).parts:
        assert part.n == (480 if part.block.learned else 600), part.block.kind


def test_the_same_seed_gives_the_same_and_the_baseline_is_left_alone(rng):
    given = window(rng, 150)
    one, two, other = (calibrate(given, draws=100, seed=seed).calibration for seed in (3, 3, 4))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["0/null/largest"], other["0/null/largest"])
    before = Baseline(given, info={"epoch": 2})
    assert calibrate(before, draws=100).info == {"epoch": 2}
    assert before.calibration is None


def test_nobodys_random_numbers_are_used(rng):
    given = window(rng, 120)
    state = np.random.get_state()  # noqa: NPY002
    calibrate(given, draws=100)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(state, after, strict=True))


def test_progress_counts_up_to_all(rng):
    told = []
    calibrate(window(rng, 120), draws=100, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1][0] == told[-1][1] == {total for _, total in told}.pop()


def test_few_rows_say_so(rng):
    assert any("200 rows only" in note for note in calibrated(window(rng, 200), draws=100).notes)


@pytest.mark.parametrize("n", [1, 99])
def test_too_few_rows_are_refused(rng, n):
    with pytest.raises(InputError, match=f"{n} complete rows are too few"):
        calibrate(window(rng, n), draws=100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"draws": 99}, "draws=99"),
        ({"draws": 10**6}, "draws=1000000"),
        ({"draws": 100.0}, "draws=100.0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": None}, "seed=None"),
        ({"baseline": 3}, "baseline is a int"),
        ({"baseline": Profile()}, "0 complete rows"),
    ],
)
def test_arguments_out_of_range(rng, arguments, message):
    with pytest.raises(InputError, match=message):
        calibrate(**{"baseline": Profile(), **arguments})


def test_rows_that_are_no_measurements_are_left_out(rng):
    made = batch(rng, 300)
    made["outputs"][:20], made["embeddings"]["pool"][20:30, 3] = np.nan, np.inf
    made["embeddings"]["pool"][30:33, 0] = 1e30
    rows, notes = finite_rows(profile_of(**made))
    assert {len(each) for each in rows.values()} == {267}
    assert set(rows) == {"outputs", "outputs/top_class", "embeddings/pool"}
    assert (rows["outputs/top_class"] >= 0).all()
    assert notes == []


def test_a_group_of_mostly_nan_does_not_cost_the_others(rng):
    made = batch(rng, 300)
    made["embeddings"]["pool"][:200] = np.nan
    calibration = calibrated(profile_of(**made), draws=100)
    assert {part.group for part in calibration.parts} == {"outputs"}
    assert any("embeddings/pool" in note for note in calibration.notes)


def test_of_very_many_rows_some_are_taken(rng, monkeypatch):
    monkeypatch.setattr(module, "_MOST_ROWS", 150)
    given = window(rng, 400)
    rows, _ = finite_rows(given)
    np.testing.assert_array_equal(rows["outputs"], given.rows.data["outputs"][:150])


def test_classes_that_are_none():
    assert measured("outputs/top_class", np.array([[2.0], [-1], [np.nan]])).tolist() == [True, False, False]
    assert measured("inputs", np.array([[2.0, -1], [-1, np.inf]])).tolist() == [True, False]


@pytest.mark.parametrize("rows", [np.full((200, 3), 0.1), np.arange(200.0)[:, None] > 99, np.full((200, 1), 1e15)])
def test_layers_that_hardly_vary(rng, rows):
    calibration = calibration_of(calibrate(profile_of(embeddings={"a": rows.astype(np.float32)}), draws=100))
    assert all(np.isfinite(part.null.largest).all() for part in calibration.parts)


def test_a_larger_baseline_is_known_by_its_sketches(rng):
    given = window(rng, 3000, rows=200)
    for part in calibrated(given, draws=100).parts:
        group = given.groups[part.group]
        known = part.block.known(group)
        if known is None:
            assert part.n == 160
        elif part.block.learned:  # all rows but those it learned of
            first = finite_rows(given)[0][part.rows][:40]
            together = (40 * part.block.mean(first) + part.n * part.mean.astype(float)) / 3000
            np.testing.assert_allclose(together, known[0], rtol=1e-3, atol=1e-3)
            assert part.n == 2960
        elif part.block.kind == "distributions":
            assert part.n == int(1 / (1 / 3000 + 4 * rank_spread(group) ** 2)) < 3000
        else:
            assert part.n == 3000


def test_a_bank_that_keeps_every_row_has_no_error(rng):
    assert rank_spread(window(rng, 50).groups["outputs"]) == 0
    assert 0 < rank_spread(window(rng, 5000).groups["outputs"]) < 0.01


def test_a_calibration_is_read_once_and_only_its_own_baseline_has_it(baseline, rng):
    assert calibration_of(baseline) is calibration_of(baseline)
    assert calibration_of(baseline.reference) is None
    assert calibration_of(Baseline(baseline.reference)) is None
    other = profile_of(embeddings={"pool": rng.normal(size=(50, WIDTH + 1))}, outputs=rng.normal(size=(50, CLASSES)))
    with pytest.raises(FormatError, match="run `lensai calibrate`"):
        calibration_of(Baseline(other, calibration=dict(baseline.calibration)))
