"""One training batch in so many: which, how many, what of the others is left alone, and where it is said."""

from __future__ import annotations

import json
import logging

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from lensai_integrations import Baseline, Profiler
from lensai_integrations.errors import InputError
from lensai_integrations.lightning import BaselineCallback
from lensai_integrations.torch import recording as torch_recording
from lensai_integrations.torch.taps import Taps
from lensai_integrations.training.chosen import is_chosen
from lensai_integrations.training.recording import Recording
from lensai_integrations.transforms import ProfileImages

BATCHES, SIZE = 20, 8
DARKEST = 10


def indices(every, epoch=0, batches=BATCHES, seed=0):
    return [index for index in range(batches) if is_chosen(index, every, seed=seed, epoch=epoch)]


class Marked(torch.utils.data.Dataset):
    """Images all of whose pixels tell the number of their batch."""

    def __init__(self, batches=BATCHES):
        self.batches = batches

    def __len__(self):
        return self.batches * SIZE

    def __getitem__(self, index):
        return torch.full((3, 16, 16), DARKEST + index // SIZE, dtype=torch.uint8), index % 4


def numbers(profile):
    """The batches that a profile is of."""
    pixels = profile.groups["inputs"].pixels.counts[0]
    assert set(pixels[pixels > 0]) == {SIZE * 256}
    return [int(value) - DARKEST for value in np.flatnonzero(pixels)]


class OfBytes:
    """A step that takes bytes."""

    def training_step(self, batch, batch_idx):
        return super().training_step((batch[0] / 255, batch[1]), batch_idx)

    validation_step = training_step


@pytest.fixture
def fit(trainer, lit, loaders):
    """`fit(callback, ...)`: of batches that can be told apart."""

    class OfMarked(OfBytes, lit):
        pass

    def run(*callbacks, model=None, fit=(), **options):
        running = trainer(*callbacks, **options)
        running.fit(model or OfMarked(), loaders(Marked()), loaders(Marked(2)), **dict(fit))
        return callbacks[0].baseline_

    run.model = OfMarked
    return run


@pytest.mark.parametrize("every", [2, 3, 4, 8])
def test_the_batches_are_those_of_the_last_epoch_and_the_reference_is_whole(fit, every):
    baseline = fit(BaselineCallback(every=every, clean_windows=0), max_epochs=3)
    expected = indices(every, epoch=2)

    assert numbers(baseline.training) == expected
    assert {group.n for group in baseline.training.groups.values()} == {SIZE * len(expected)}
    assert baseline.training.info["batches"] == {"profiled": len(expected), "of": BATCHES, "every": every}
    assert numbers(baseline.reference) == [0, 1]
    assert "batches" not in baseline.reference.info
    assert baseline.warnings == []


def test_another_seed_takes_others(fit):
    baseline = fit(BaselineCallback(every=4, seed=7, clean_windows=0))

    assert numbers(baseline.training) == indices(4, seed=7) != indices(4)


def test_without_it_nothing_is_said(fit):
    baseline = fit(BaselineCallback(clean_windows=0))

    assert numbers(baseline.training) == [*range(BATCHES)]
    assert "batches" not in baseline.training.info


@pytest.mark.parametrize("options", [{"accumulate_grad_batches": 3}, {"val_check_interval": 5}], ids=str)
def test_the_number_of_the_batch_decides_and_not_of_the_step(fit, options):
    assert numbers(fit(BaselineCallback(every=4, clean_windows=0), **options).training) == indices(4)


@pytest.mark.parametrize("skipped", [10, 11])
def test_a_batch_that_the_model_skips_counts_for_none(fit, skipped):
    """It ends the epoch, be it one of those that are profiled or not."""

    class Skips(fit.model):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == skipped and self.current_epoch == 0 else None

    callback = BaselineCallback(every=4, training="all", clean_windows=0)
    baseline = fit(callback, model=Skips())
    assert numbers(baseline.reference) == [index for index in indices(4) if index < skipped] == [0, 7]
    assert baseline.reference.info["batches"] == {"profiled": 2, "of": 11, "every": 4}

    baseline = fit(BaselineCallback(every=4, training="all", clean_windows=0), model=Skips(), max_epochs=2)
    assert numbers(baseline.training) == indices(4, epoch=1)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`", "ignore:You're resuming from a checkpoint")
def test_resumed_within_an_epoch_it_goes_on_as_it_would_have(fit, tmp_path):
    saves = pl.callbacks.ModelCheckpoint(tmp_path / "saved", every_n_train_steps=6, save_top_k=-1, filename="{step}")
    fit(BaselineCallback(every=4, clean_windows=0), saves, enable_checkpointing=True)
    opened = []

    class Notes(BaselineCallback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            opened.append((batch_idx, self._fit.recordings["training"]._taken is not None))

    path = tmp_path / "saved" / "step=6.ckpt"
    baseline = fit(Notes(every=4, clean_windows=0), fit={"ckpt_path": path, "weights_only": True})

    assert [index for index, taken in opened if taken] == [index for index in indices(4) if index >= 6]
    assert [index for index, _ in opened] == [*range(6, BATCHES)]
    assert baseline.training.info["batches"]["of"] == BATCHES - 6
    assert baseline.training.warnings == ["the profile is of a part of a training epoch"]


def test_of_the_others_nothing_is_read_copied_or_caught(fit, monkeypatch):
    calls = {"take": 0, "record": 0, "update": 0, "copied": 0}
    copied = Taps._copied

    def counting(owner, name):
        original = getattr(owner, name)

        def counted(self, *arguments, **keywords):
            calls[name] += getattr(self, "source", "training") == "training"
            return original(self, *arguments, **keywords)

        monkeypatch.setattr(owner, name, counted)

    def counted_copies(self, tap, answer):
        calls["copied"] += 1
        return copied(self, tap, answer)

    monkeypatch.setattr(Taps, "_copied", counted_copies)
    for owner, name in ((Recording, "take"), (Recording, "record"), (Profiler, "update")):
        counting(owner, name)
    arguments = {"training": "all", "layers": ["avgpool"], "outputs": None, "clean_windows": 0}
    fit(BaselineCallback(every=5, **arguments), num_sanity_val_steps=0, limit_val_batches=1)

    assert calls["take"] == calls["record"] == len(indices(5)) == 4
    assert calls["update"] == 4
    first = 0 not in indices(5)  # the first is listened to, as it is traced
    assert calls["copied"] == 4 + 1 + first


def test_layers_of_training_batches_are_of_the_same_batches(fit, loaders):
    baseline = fit(BaselineCallback(every=4, training="all", layers=["avgpool"], clean_windows=0), max_epochs=2)
    rows = SIZE * len(indices(4, epoch=1))

    assert {name: group.n for name, group in baseline.training.groups.items()} == {
        "inputs": rows, "outputs": rows, "embeddings/avgpool": rows, "labels": rows,
    }  # fmt: skip
    assert baseline.warnings == []


def test_taps_are_closed_after_the_first_batch(fit, monkeypatch):
    opened, states = Taps.open, []

    class Notes(pl.Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            states.append(callback._fit.taps._open)

    callback = BaselineCallback(every=4, training="all", clean_windows=0)
    fit(callback, Notes(), num_sanity_val_steps=0)

    assert [index for index, is_open in enumerate(states) if is_open] == sorted({0, *indices(4)})
    assert Taps.open is opened


# -- what is the reference is whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 8, "reference": "training"}, "every=8 is of a training profile beside the reference"),
        ({"cost": 0.02, "reference": "training"}, "cost=0.02 is of a training profile beside the reference"),
        ({"every": 8, "training": None}, "every=8 is of training batches, of which training=None profiles none"),
        ({"every": 2, "cost": 0.5, "training": None}, "every=2 and cost=0.5 is of training batches"),
        ({"every": 0}, "every=0 should be a whole number from 1"),
        ({"every": True}, "every=True should be a whole number"),
        ({"every": 2.0}, "every=2.0 should be a whole number"),
        ({"cost": 0}, "cost=0 should be a share of training time between 0 and 1, such as 0.02, or None"),
        ({"cost": 1.5}, "cost=1.5 should be a share"),
        ({"cost": float("nan")}, "cost=nan should be a share"),
        ({"cost": True}, "cost=True should be a share"),
        ({"cost": "2%"}, "cost='2%' should be a share"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        BaselineCallback(**arguments)


def test_where_nothing_is_held_out_the_training_data_is_whole(trainer, loaders, fit):
    callback = BaselineCallback(every=4, clean_windows=0)
    trainer(callback).fit(fit.model(), loaders(Marked()))

    assert numbers(callback.baseline_.reference) == [*range(BATCHES)]
    assert any(
        "every=4 is not followed: the training data is the reference" in each for each in callback.baseline_.warnings
    )


def test_training_data_that_turns_out_to_be_the_reference_is_said_to_be_a_part(trainer, loaders, fit):
    callback = BaselineCallback(every=4, clean_windows=0)
    running = trainer(callback, check_val_every_n_epoch=3, num_sanity_val_steps=0)
    running.fit(fit.model(), loaders(Marked()), loaders(Marked(2)))

    assert callback.baseline_.reference.source == "training"
    said = "the reference is of training data, and of 5 of 20 batches, one in 4: no whole validation pass was profiled"
    assert f"training batches: {said}" in callback.baseline_.warnings


def test_an_epoch_of_which_none_was_profiled_leaves_the_profile_before(fit):
    every = next(k for k in range(30, 2000) if indices(k, 0) and not indices(k, 1))
    baseline = fit(BaselineCallback(every=every, clean_windows=0), max_epochs=2)

    assert numbers(baseline.training) == indices(every)
    assert baseline.training.info["epoch"] == 0
    assert [warning for warning in baseline.warnings if "none was profiled" in warning] == [
        f"training batches: of a pass over training data none was profiled (0 of 20 batches, one in {every}), so the"
        " training profile is that of an earlier pass, if there is one: pass a smaller every="
    ]


# -- rows that are not batches'


@pytest.mark.parametrize("batch_size", [SIZE, 7, None])
def test_rows_that_a_sampler_repeats_are_left_out_where_they_are(recorded, batch_size):
    """Of 77 rows two ranks have 39 each, and the last of the second is the first rank's."""
    left_out = {every: recorded(every, batch_size) for every in (1, 2, 3, 4, 5, 8)}

    assert left_out[1] == 1
    last = -(-39 // (batch_size or SIZE)) - 1
    assert left_out == {every: int(is_chosen(last, every)) for every in left_out}


@pytest.fixture
def recorded(fit):
    """`recorded(every, batch_size)`: how many repeated rows were left out of a rank's pass."""

    class Own(torch.utils.data.Sampler):
        def __init__(self, sampler):
            self.sampler = sampler

        def __iter__(self):
            rows = list(self.sampler)
            return iter([rows[i : i + SIZE] for i in range(0, len(rows), SIZE)])

    def run(every, batch_size):
        from lensai_integrations.lightning.fit import LightningFit

        data = torch.utils.data.TensorDataset(torch.zeros(77, 3, 8, 8, dtype=torch.uint8), torch.zeros(77))
        sampler = DistributedSampler(data, 2, 1, shuffle=False)
        how = {"batch_sampler": Own(sampler)} if batch_size is None else {"batch_size": batch_size, "sampler": sampler}
        loader = DataLoader(data, **how)
        kept = LightningFit(BaselineCallback(every=every)._options, 0, 1)
        kept.record("training", everything=False, as_reference=False)
        running = kept.recordings["training"]
        running.start(loader, 0)
        rows = 0
        for index, batch in enumerate(loader):
            running.open(batch, index=index)
            running.close()
            rows += len(batch[0]) * is_chosen(index, every)
        profile = running.finish()
        assert profile.n == rows - profile.info["padding_left_out"]
        return profile.info["padding_left_out"]

    return run


def test_delivered_images_are_all_of_them_and_no_difference_is_found(trainer, loaders, fit):
    class Delivered(Marked):
        def __init__(self):
            super().__init__()
            self.transform = ProfileImages()

        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return self.transform(image), label

    callback = BaselineCallback(every=4, clean_windows=0)
    trainer(callback).fit(fit.model(), loaders(Delivered()), loaders(Marked(2)))
    training = callback.baseline_.training

    assert training.groups["raw"].n == BATCHES * SIZE
    assert training.groups["inputs"].n == SIZE * len(indices(4))
    assert callback.baseline_.warnings == []


# -- a cost


class Clock:
    """A clock that steps and what profiles wind."""

    runs_ahead = False

    def __init__(self):
        self.now = 0.0

    def mark(self):
        return self.now

    def between(self, first, second):
        return second - first


@pytest.fixture
def wound(monkeypatch, fit):
    """`wound(cost, every)`: a fit where a step takes 10, and profiling a batch so much; all of it on one clock."""

    def run(cost, most=0.02, **arguments):
        clock, devices = Clock(), []
        update = Profiler.update

        def updated(self, **given):
            clock.now += cost * (self.source == "training")
            return update(self, **given)

        class Steps(fit.model):
            def training_step(self, batch, batch_idx):
                clock.now += 10
                return super().training_step(batch, batch_idx)

            def validation_step(self, batch, batch_idx):
                clock.now += 10_000
                return super().validation_step(batch, batch_idx)

        def clock_of(device):
            devices.append(device)
            return clock

        monkeypatch.setattr(Profiler, "update", updated)
        monkeypatch.setattr(torch_recording, "clock_of", clock_of)
        baseline = fit(BaselineCallback(cost=most, clean_windows=0, rows=0, **arguments), model=Steps(), max_epochs=12)
        assert devices == [torch.device("cpu")]
        return baseline

    return run


@pytest.mark.parametrize(("cost", "every"), [(0.1, 1), (0.3, 2), (0.7, 4), (3, 16)])
def test_a_cost_chooses_how_many(wound, cost, every):
    batches = wound(cost).training.info["batches"]

    assert batches == {
        "profiled": len(indices(every, epoch=11)), "of": BATCHES, "every": every, "cost": 0.02,
        "share": round(cost / (every * 10 + cost), 4),
    }  # fmt: skip


def test_with_every_it_is_the_least(wound):
    assert wound(0.1, every=4).training.info["batches"]["every"] == 4


def test_a_real_clock_goes_through_a_fit(fit):
    baseline = fit(BaselineCallback(cost=0.5, training="all", clean_windows=0), max_epochs=3)
    batches = baseline.training.info["batches"]

    assert batches["of"] == BATCHES
    assert 0 < batches["share"] < 1
    assert not [warning for warning in baseline.warnings if "cost" in warning]


# -- where it is said


def test_manifest_report_log_and_command_say_it(fit, said, tmp_path):
    callback = BaselineCallback(every=4)
    fit(callback)
    folder = callback.directory_
    text = f"{len(indices(4))} of 20 batches, one in 4"

    manifest = json.loads((folder / "manifest.json").read_text())
    assert '"batches": {"every": 4, "of": 20, "profiled": 5}' in json.dumps(manifest, sort_keys=True)
    assert Baseline.load(folder).training.info["batches"] == {"profiled": 5, "of": 20, "every": 4}
    assert f"of {text}" in (folder / "report.html").read_text()
    assert any(
        record.getMessage().startswith(f"Baseline of 16 validation rows, and of 40 training rows ({text}): saved to")
        for record in said.records
    )
    assert logging.WARNING not in {record.levelno for record in said.records if record.name.startswith("lensai")}


def test_a_dry_run_takes_it_as_it_is(fit):
    check = BaselineCallback(every=4, cost=0.02).check(fit.model(), (torch.rand(8, 3, 16, 16), torch.arange(8) % 4))

    assert {row.rows for row in check.rows} == {8}
