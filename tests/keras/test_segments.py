"""Segments of a fit: one profile per class, of what was measured anyway."""

from __future__ import annotations

from lensai_integrations import Baseline
from lensai_integrations.keras import BaselineCallback
from lensai_integrations.profiles.names import OTHER_SEGMENT


def test_both_profiles_are_kept_by_label(model, fit, images, tmp_path):
    callback = BaselineCallback(segment_by="label", max_segments=3, directory=tmp_path / "b")
    fit(model(), callback, epochs=1)

    baseline = Baseline.load(tmp_path / "b")
    labels = images(24, 1)[1].tolist()
    for profile, n in ((baseline.reference, 24), (baseline.training, 40)):
        assert sum(segment.n for segment in profile.segments.values()) == profile.n == n
    found = {name: segment.n for name, segment in baseline.reference.segments.items() if name != OTHER_SEGMENT}
    assert len(found) == 3
    assert found == {name: labels.count(int(name)) for name in found}
    assert BaselineCallback.from_config(callback.get_config()).get_config()["segment_by"] == "label"
