from __future__ import annotations

import pytest
import torch

from lensai_integrations import Baseline, Profiler
from lensai_integrations.errors import InputError
from lensai_integrations.lightning import BaselineCallback
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.names import OTHER_SEGMENT
from lensai_integrations.torch.ranks import Load, Merged


def test_both_profiles_are_kept_by_label_and_travel(lit, trainer, loaders, images, tmp_path):
    callback = BaselineCallback(segment_by="label", max_segments=3, directory=tmp_path / "b", training="all")
    held_out = images(30, seed=1)
    runs = trainer(callback, max_epochs=2)
    runs.fit(lit(), loaders(images(20)), loaders(held_out))

    baseline = Baseline.load(tmp_path / "b")
    labels = held_out.tensors[1].tolist()
    for profile, n in ((baseline.reference, 30), (baseline.training, 20)):
        assert sum(segment.n for segment in profile.segments.values()) == profile.n == n
        assert list(profile.segments)[-1] == OTHER_SEGMENT
        assert len(profile.segments) == 4
        assert set(profile.segments["1"].groups) == {"inputs", "outputs", "embeddings/model.fc.input", "labels"}
    found = {name: segment.n for name, segment in baseline.reference.segments.items() if name != OTHER_SEGMENT}
    assert found == {name: labels.count(int(name)) for name in dict.fromkeys(map(str, labels)) if name in found}
    assert set(callback.state_dict()) == {"training", "validation"}
    again = BaselineCallback(segment_by="label", max_segments=3)
    again.setup(runs, None, "fit")
    again.load_state_dict(callback.state_dict())
    assert again._fit.profiles["validation"].segments.keys() == baseline.reference.segments.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"segment_by": 3}, "segment_by=3"),
        ({"segment_by": "label", "target": None}, "needs labels"),
        ({"segment_by": "label", "max_segments": 0}, "max_segments=0"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        BaselineCallback(**arguments)


class Sites(torch.utils.data.Dataset):
    """Images with the name of a site and an hour."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return {"image": self.images[i], "label": self.labels[i], "site": "north" if i % 3 else "south", "hour": i % 2}


@pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`")
@pytest.mark.parametrize(("key", "expected"), [("site", {"north": 20, "south": 10}), ("hour", {"0": 15, "1": 15})])
def test_segments_by_what_a_batch_has_under_a_key(lit, trainer, loaders, images, key, expected):
    callback = BaselineCallback(segment_by=key)
    data = [Sites(*images(n).tensors) for n in (16, 30)]
    trainer(callback).fit(lit(), *(loaders(each) for each in data))
    found = {name: segment.n for name, segment in callback.baseline_.reference.segments.items() if segment.n}
    assert found == expected
    assert callback.baseline_.warnings == []


def test_a_key_that_batches_lack_costs_the_segments_only(lit, trainer, loaders, images):
    callback = BaselineCallback(segment_by="site")
    trainer(callback).fit(lit(), loaders(images(16)), loaders(images(30)))
    assert callback.baseline_.reference.groups["inputs"].n == 30
    assert "segment_by='site' is not in the batch, which is a list" in " ".join(callback.baseline_.warnings)


def test_ranks_merge_segment_by_segment():
    load = Load()
    for rank, labels in enumerate((["a", "b", "b"], ["b", "c", "c", "c"])):
        profiler = Profiler(segment_by="label", max_segments=2, seed=[0, rank])
        profiler.update(labels=labels)
        load.add(Load.from_bytes(Load([Merged.of(profiler.profile(), rank)]).to_bytes()))

    whole = load.whole(range(2), Problems(quiet=True))
    assert {name: segment.n for name, segment in whole.segments.items()} == {"b": 3, "c": 3, OTHER_SEGMENT: 1}
    assert (whole.n, whole.info["ranks"], whole.info["max_segments"]) == (7, 2, 2)
