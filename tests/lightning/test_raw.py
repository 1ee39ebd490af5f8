"""`ProfileImages` in the data of a Trainer: delivered images stand beside what the model was fed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision.transforms import v2

from lensai_integrations import compare, measure
from lensai_integrations.lightning import BaselineCallback
from lensai_integrations.profiling.sampling import SHARE
from lensai_integrations.report import baseline_html
from lensai_integrations.transforms import ProfileImages


class Pictures(Dataset):
    def __init__(self, transform, n):
        self.transform, self.n = transform, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        image = torch.randint(
            0, 256, (3, 20 + i % 5, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(i)
        )
        return self.transform(image), i % 4


def resized(profiled):
    return v2.Compose([profiled, v2.Resize((16, 16)), v2.ToDtype(torch.float32, scale=True)])


def loader(profiled, n, workers=0, **how):
    context = {"multiprocessing_context": "fork"} if workers else {}
    data = Pictures(resized(profiled), n)
    return DataLoader(data, batch_size=8, num_workers=workers, **context, **how)


def test_images_within_a_budget_are_held_against_the_rows_by_how_many_were_seen(lit, trainer):
    profiled = [ProfileImages(), ProfileImages()]
    for each in profiled:
        ledger = each.collector._ledger
        ledger._sampling = replace(ledger._sampling, whole=8, fewest=4)
        (ledger.folder / SHARE).write_text("1")
    callback = BaselineCallback()
    trainer(callback, max_epochs=2, num_sanity_val_steps=0).fit(lit(), loader(profiled[0], 40), loader(profiled[1], 32))
    baseline = callback.baseline_
    assert baseline.warnings == []
    for profile, n in ((baseline.training, 40), (baseline.reference, 32)):
        group = profile.groups["raw"]
        assert (group.seen, profile.groups["inputs"].n) == (n, n)
        assert 4 <= group.n < n
        assert group.info["sampled"] == {"seen": n, "measured": group.n, "share": 0.5, "budget": 0.05}
    assert "of 32 images were measured (a share of 1/2, budget 0.05)" in baseline_html(baseline)


@pytest.mark.parametrize("workers", [0, 2])
def test_delivered_images_stand_beside_the_inputs(lit, trainer, workers):
    training, validation = ProfileImages(), ProfileImages(metadata={"rows": lambda image: image.shape[1]})
    callback = BaselineCallback()
    how = {"persistent_workers": True} if workers else {}
    trainer(callback, max_epochs=3, num_sanity_val_steps=0).fit(
        lit(), loader(training, 40, workers, **how), loader(validation, 20, workers, **how)
    )
    baseline = callback.baseline_

    assert baseline.warnings == []
    for profile, n in ((baseline.reference, 20), (baseline.training, 40)):
        assert (profile.groups["raw"].n, profile.groups["inputs"].n, profile.n) == (n, n, n)
    table = baseline.reference.to_pandas().set_index("stream")
    assert table.loc[["raw/height", "inputs/height"], "max"].tolist() == [24, 16]
    assert table.loc["metadata/rows/value", "max"] == 24
    page = baseline_html(baseline)
    assert ">Raw<" in page
    assert ">Inputs<" in page


def test_the_sanity_check_is_left_out_and_the_window_of_a_pipeline_compares(lit, trainer, tmp_path):
    validation, callback = ProfileImages(), BaselineCallback(directory=tmp_path / "baseline")
    trainer(callback, max_epochs=2, num_sanity_val_steps=2).fit(
        lit(), loader(ProfileImages(), 40), loader(validation, 40)
    )
    assert callback.baseline_.reference.groups["raw"].n == 40

    production = ProfileImages()
    pictures = Pictures(lambda image: production(image // 4), 40)
    for i in range(len(pictures)):
        pictures[i]
    report = compare(type(callback.baseline_).load(tmp_path / "baseline"), production.profile())
    assert report.drift
    assert "raw/brightness" in {moved.stream for moved in report.moved}


def test_images_that_were_prefetched_and_never_used_are_stated(lit, trainer):
    callback = BaselineCallback()
    trainer(callback, limit_train_batches=2, num_sanity_val_steps=0).fit(
        lit(), loader(ProfileImages(), 80, 1), loader(ProfileImages(), 16)
    )
    raw, inputs = (callback.baseline_.training.groups[name].n for name in ("raw", "inputs"))
    assert inputs == callback.baseline_.training.n == 16
    stated = f"raw has {raw - inputs} images more than the 16 of training: loader workers had prefetched"
    assert raw >= inputs
    assert (stated in " ".join(callback.baseline_.warnings)) == (raw > inputs)


def test_one_transform_for_both_splits_is_a_clear_problem(lit, trainer):
    callback, profiled = BaselineCallback(), ProfileImages()
    parts = random_split(Pictures(resized(profiled), 40), [24, 16])
    trainer(callback).fit(lit(), *(DataLoader(part, batch_size=8) for part in parts))

    assert "raw" not in callback.baseline_.reference.groups
    assert "serves the data of both training and validation" in " ".join(callback.baseline_.warnings)


class Sited(Pictures):
    """The same as dicts, with the site that an image is from."""

    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return {"image": image, "label": label, "site": "north" if i % 3 else "south"}


def by_height(**more):
    return ProfileImages(metadata={"tall": lambda image: int(image.shape[1] > 22)}, segment_by="tall", **more)


@pytest.mark.parametrize("workers", [0, 2])
def test_segments_of_delivered_images_are_those_of_a_baseline_that_has_none(lit, trainer, workers):
    callback = BaselineCallback()
    trainer(callback, max_epochs=2, num_sanity_val_steps=0).fit(
        lit(), loader(ProfileImages(), 16), loader(by_height(), 40, workers)
    )
    reference = callback.baseline_.reference
    assert callback.baseline_.warnings == []
    assert reference.info["segment_by"] == "tall"
    assert {name: each.groups["raw"].n for name, each in reference.segments.items()} == {"0": 24, "1": 16}
    assert "brightness of 0, median" in baseline_html(callback.baseline_)

    production = by_height()
    pictures = Pictures(lambda image: production(image // (1 if image.shape[1] > 22 else 4)), 200)
    for i in range(len(pictures)):
        pictures[i]
    report = compare(callback.baseline_, production.profile())
    assert {each.name: each.drift for each in report.segments if each.groups} == {"0": True}


@pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`")
def test_a_callback_by_the_same_thing_has_them_together(lit, trainer):
    callback = BaselineCallback(segment_by="site")
    profiled = ProfileImages(
        metadata={"site": lambda image: "south" if image[0, 0, 0] > 127 else "west"}, segment_by="site"
    )
    validation = DataLoader(Sited(resized(profiled), 30), batch_size=8)
    trainer(callback, num_sanity_val_steps=0).fit(
        lit(), DataLoader(Sited(resized(ProfileImages()), 16), batch_size=8), validation
    )
    segments = callback.baseline_.reference.segments
    assert (segments["north"].groups["inputs"].n, segments["south"].groups["inputs"].n) == (20, 10)
    assert segments["south"].groups["raw"].n + segments["west"].groups["raw"].n == 30
    assert "raw" not in segments["north"].groups
    assert callback.baseline_.warnings == []


def test_a_callback_by_something_else_keeps_its_own_and_says_so(lit, trainer):
    callback = BaselineCallback(segment_by="label")
    trainer(callback, num_sanity_val_steps=0).fit(lit(), loader(ProfileImages(), 16), loader(by_height(), 20))
    reference = callback.baseline_.reference
    assert reference.info["segment_by"] == "label"
    assert reference.groups["raw"].n == 20
    assert not any("raw" in segment.groups for segment in reference.segments.values())
    assert (
        "the segments of raw were left out: they are by 'tall' and the others by 'label'"
        in callback.baseline_.warnings[0]
    )


def test_several_transforms_of_one_name_get_groups_of_their_own(lit, trainer):
    callback = BaselineCallback()
    twice = v2.Compose([ProfileImages(), v2.Resize((16, 16)), ProfileImages(), v2.ToDtype(torch.float32, scale=True)])
    validation = DataLoader(Pictures(twice, 16), batch_size=8)
    trainer(callback, num_sanity_val_steps=0).fit(lit(), loader(ProfileImages(), 16), validation)
    table = callback.baseline_.reference.to_pandas().set_index("stream")
    assert table.loc[["raw/height", "raw-2/height"], "max"].tolist() == [24, 16]


class Kept(Pictures):
    """A data set that keeps its pipeline under another name, or in a function."""

    def __init__(self, profiled, n, place):
        super().__init__(None, n)
        pipeline = resized(profiled)
        self.transform = (lambda image: pipeline(image)) if place == "a function" else None  # noqa: PLW0108
        if place == "an attribute":
            self.preprocess = pipeline

    def __getitem__(self, i):
        self.transform = self.transform or self.preprocess
        return super().__getitem__(i)


@pytest.mark.parametrize("place", ["an attribute", "a function"])
def test_it_is_found_wherever_the_data_set_keeps_it(lit, trainer, place):
    profiled, callback = [ProfileImages(), ProfileImages()], BaselineCallback()
    loaders = [DataLoader(Kept(each, n, place), batch_size=8) for each, n in zip(profiled, (24, 16), strict=True)]
    trainer(callback, max_epochs=2).fit(lit(), *loaders)
    baseline = callback.baseline_
    assert (baseline.training.groups["raw"].n, baseline.reference.groups["raw"].n) == (24, 16)
    assert baseline.warnings == []


HIDDEN = {}


class Outside(Pictures):
    """A data set whose pipeline no object of its own knows."""

    def __init__(self, name, n):
        super().__init__(lambda image: pipelines()[name](image), n)  # noqa: PLW0108  looked up when it is called


def pipelines():
    return globals()["HIDDEN"]


def test_images_that_belong_to_no_training_are_said_and_the_advice_helps(lit, trainer, caplog):
    before = ProfileImages("before")
    before(torch.zeros(3, 8, 8, dtype=torch.uint8))  # of no fit
    training, validation = ProfileImages("mine"), ProfileImages("theirs")
    HIDDEN.update(mine=resized(training), theirs=resized(validation))
    for advice in (False, True):
        data = [Outside("mine", 24), Outside("theirs", 16)]
        if advice:
            data[0].held, data[1].held = training, validation
        training.reset()
        validation.reset()
        callback = BaselineCallback()
        trainer(callback, max_epochs=1, num_sanity_val_steps=0).fit(lit(), *(DataLoader(d, batch_size=8) for d in data))
        baseline = callback.baseline_
        said = [warning for warning in baseline.warnings if "was found in none of its data sets" in warning]
        if advice:
            assert (baseline.training.groups["mine"].n, baseline.reference.groups["theirs"].n) == (24, 16)
            assert said == []
            continue
        assert [each.split(":")[0] for each in said] == ["delivered images of mine", "delivered images of theirs"]
        assert "ProfileImages('mine') has seen 24 images of this fit" in said[0]
        assert "raw" not in baseline.reference.groups
        assert (training.profile().n, validation.profile().n) == (24, 16)


@pytest.mark.parametrize("left_out", ["training", "a second validation loader", "validation"])
def test_data_that_are_not_profiled_are_no_strays(lit, trainer, left_out):
    callback = BaselineCallback(
        training=None if left_out == "training" else "inputs",
        reference="training" if left_out == "validation" else "validation",
    )
    validation = [loader(ProfileImages(), 16)]
    if left_out == "a second validation loader":
        validation.append(loader(ProfileImages("second"), 8))
    trainer(callback, max_epochs=1).fit(lit(), loader(ProfileImages(), 24), validation)
    assert callback.baseline_.warnings == []
    assert callback.baseline_.reference.groups["raw"].n == (24 if left_out == "validation" else 16)


@measure("fails_on_wide")
def fails_on_wide(images):
    if images.shape[1] > 22:
        raise ValueError("too high")
    return images.mean((1, 2, 3))


@pytest.mark.parametrize("workers", [0, 2])
def test_measures_that_fail_are_in_the_warnings_of_the_baseline(lit, trainer, workers, caplog):
    profiled = [ProfileImages(measures=[fails_on_wide], metadata={"site": lambda image: {}["site"]}) for _ in range(2)]
    how = {"persistent_workers": True} if workers else {}
    loaders = [loader(each, n, workers, **how) for each, n in zip(profiled, (40, 20), strict=True)]
    callback = BaselineCallback()
    trainer(callback, max_epochs=2, num_sanity_val_steps=0).fit(lit(), *loaders)
    baseline = callback.baseline_
    for profile, n in ((baseline.training, 40), (baseline.reference, 20)):
        failed = 2 * n // 5
        assert profile.warnings == [
            f"raw/fails_on_wide could not be measured in {failed} of {n} rows: ValueError: too high",
            f"metadata/site is missing in {n} of {n} rows, where its function failed: KeyError('site')",
        ]
        assert profile.groups["raw"].apart["fails_on_wide"].invalid == failed
    logged = [each.getMessage() for each in caplog.records if "too high" in each.getMessage()]
    assert len([each for each in logged if not each.startswith("about the baseline")]) == 2  # one of each pipeline
