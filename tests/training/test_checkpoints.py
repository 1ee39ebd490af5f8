from __future__ import annotations

import numpy as np
import pytest

from lensai_integrations import Baseline, Profile, Profiler
from lensai_integrations.errors import FormatError
from lensai_integrations.profiles.profile import to_bytes
from lensai_integrations.training.fit import StateCache, profiles_of


@pytest.fixture(scope="module")
def profile():
    profiler = Profiler(source="validation")
    profiler.update(inputs=np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8))
    return profiler.profile()


def test_profiles_come_back_from_a_state(profile):
    state = StateCache().state({"validation": profile, "training": None})
    back = profiles_of(state)

    assert list(back) == ["validation"]
    assert to_bytes(back["validation"]) == to_bytes(profile)


def test_a_profile_is_encoded_once(profile, monkeypatch):
    cache = StateCache()
    first = cache.state({"validation": profile})
    monkeypatch.setattr("lensai_integrations.training.fit.to_bytes", lambda _: pytest.fail("again"))

    assert cache.state({"validation": profile})["validation"] is first["validation"]


def test_a_new_profile_is_encoded_anew(profile):
    cache = StateCache()
    first = cache.state({"validation": profile})["validation"]
    second = cache.state({"validation": Profile()})["validation"]

    assert first != second


@pytest.mark.parametrize("state", [{"validation": "text"}, {"validation": b"junk"}, {"validation": None}])
def test_a_damaged_state_is_refused(state):
    with pytest.raises(FormatError):
        profiles_of(state)


def test_a_whole_baseline_in_a_state_is_refused(profile):
    with pytest.raises(FormatError, match="a whole baseline"):
        profiles_of({"validation": to_bytes(Baseline(profile))})
