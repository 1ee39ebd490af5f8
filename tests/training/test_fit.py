from __future__ import annotations

import numpy as np
import pytest

from lensai_integrations import Baseline, Profile, Profiler
from lensai_integrations.errors import FormatError
from lensai_integrations.lightning import BaselineCallback
from lensai_integrations.profiles.profile import to_bytes
from lensai_integrations.training.fit import Fit, StateCache, profiles_of


@pytest.fixture
def make():
    """`make(rank, gather, ...)`: a Fit with a callback's options."""
    one = lambda profile, _: profile  # noqa: E731
    return lambda rank=0, gather=one, **arguments: Fit(BaselineCallback(**arguments)._options, rank=rank, gather=gather)


def profile(source="validation", n=4, **info):
    profiler = Profiler(source=source)
    profiler.update(labels=np.arange(n))
    result = profiler.profile()
    result.info |= info
    return result


class Pass:
    """Stands for a recording whose pass is over."""

    def __init__(self, result):
        self.result = result

    def finish(self, **info):
        if isinstance(self.result, Exception):
            raise self.result
        self.result.info |= info
        return self.result


def test_the_latest_whole_pass_counts(make):
    state = make()
    for epoch in range(3):
        state.recordings["training"] = Pass(profile("training"))
        state.complete("training", epoch=epoch)

    assert state.profiles["training"].info["epoch"] == 2


def test_a_part_of_a_pass_counts_only_at_first(make):
    state = make()
    state.recordings["training"] = Pass(profile("training"))
    state.complete("training", whole=False, epoch=0)
    assert "a part of a training epoch" in state.profiles["training"].warnings[0]
    state.recordings["training"] = Pass(profile("training"))
    state.complete("training", epoch=1)
    state.recordings["training"] = Pass(profile("training"))
    state.complete("training", whole=False, epoch=2)

    assert state.profiles["training"].info["epoch"] == 1
    assert state.profiles["training"].warnings == []


def test_what_is_not_recorded_is_not_completed(make):
    state = make()
    state.complete("training")

    assert state.profiles == {}


def test_a_pass_that_failed_takes_part_in_the_collective_with_nothing(make):
    given = []
    state = make(rank=1, gather=lambda profile, _: given.append(profile))
    state.recordings["validation"] = Pass(RuntimeError("x"))
    state.complete("validation")

    assert given == [None]
    assert state.profiles == {}


def test_the_reference_is_the_validation_profile(make):
    state = make()
    training, reference = profile("training"), profile()
    baseline = state.baseline({"training": training, "validation": reference})

    assert baseline.reference is reference
    assert baseline.training is training


def test_with_only_a_training_profile_it_is_the_reference_and_that_is_said(make):
    state = make()
    training = profile("training")
    baseline = state.baseline({"training": training})

    assert baseline.reference is training
    assert baseline.training is None
    assert "the reference is the training data" in state.problems.messages[0]


@pytest.mark.parametrize("reference", ["validation", "training", "test"])
def test_nothing_makes_no_baseline(make, reference):
    assert make(reference=reference).baseline({}) is None


def test_the_test_profile_is_waited_for(make):
    state = make(reference="test")

    assert state.baseline({"training": profile("training")}) is None
    assert state.baseline({"test": profile("test")}).reference.source == "test"
    assert state.problems.messages == []


def test_state_goes_round_on_the_first_rank(make):
    state, other = make(), make()
    state.profiles = {"validation": profile(epoch=3), "training": profile("training")}
    other.load(state.state())

    assert list(other.profiles) == ["validation", "training"]
    assert other.profiles["validation"].info["epoch"] == 3


def test_what_is_added_to_a_profile_later_is_in_the_next_checkpoint(make):
    state, other = make(), make()
    state.profiles = {"validation": profile(about={"file": "first"})}
    first = state.state()
    state.profiles["validation"].info["about"]["file"] = "best"
    second = state.state()
    other.load(second)

    assert other.profiles["validation"].info["about"] == {"file": "best"}
    assert state.state()["validation"] is second["validation"] is not first["validation"]


def test_other_ranks_keep_nothing_of_a_checkpoint(make):
    first, second = make(), make(rank=1)
    first.profiles = {"validation": profile()}
    second.load(first.state())

    assert second.profiles == {}
    assert second.state() == {}


def test_ranks_draw_different_rows(make):
    seeds = set()
    for rank in range(3):
        for source in ("validation", "training"):
            _, profiler = make(rank=rank).prepare(source)(None)
            seeds.add(profiler._settings.seed_of("rows"))

    assert len(seeds) == 6


# -- profiles in checkpoints


@pytest.fixture(scope="module")
def of_images():
    profiler = Profiler(source="validation")
    profiler.update(inputs=np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8))
    return profiler.profile()


def test_profiles_come_back_from_a_state(of_images):
    state = StateCache().state({"validation": of_images, "training": None})
    back = profiles_of(state)

    assert list(back) == ["validation"]
    assert to_bytes(back["validation"]) == to_bytes(of_images)


def test_a_profile_is_encoded_once(of_images, monkeypatch):
    cache = StateCache()
    first = cache.state({"validation": of_images})
    monkeypatch.setattr("lensai_integrations.training.fit.to_bytes", lambda _: pytest.fail("again"))

    assert cache.state({"validation": of_images})["validation"] is first["validation"]


def test_a_new_profile_is_encoded_anew(of_images):
    cache = StateCache()
    first = cache.state({"validation": of_images})["validation"]
    second = cache.state({"validation": Profile()})["validation"]

    assert first != second


@pytest.mark.parametrize("state", [{"validation": "text"}, {"validation": b"junk"}, {"validation": None}])
def test_a_damaged_state_is_refused(state):
    with pytest.raises(FormatError):
        profiles_of(state)


def test_a_whole_baseline_in_a_state_is_refused(of_images):
    with pytest.raises(FormatError, match="a whole baseline"):
        profiles_of({"validation": to_bytes(Baseline(of_images))})
