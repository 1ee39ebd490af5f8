"""One fit by both conventions: the same training, and two baselines that are each what one alone would be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from photographs import patches
from torch.utils.data import TensorDataset

from lensai_integrations import Baseline, Profile, Profiler, compare, edge
from lensai_integrations.errors import InputError
from lensai_integrations.lightning import BaselineCallback, DriftCallback
from lensai_integrations.training.fit import profiles_of

BOTH, EDGE = ("lensai", "lensai-edge"), "inputs/lensai-edge"
PHOTOGRAPHS = patches(260, 16)
LABELS = torch.arange(260) % 4


def photographs(part):
    return TensorDataset(torch.from_numpy(PHOTOGRAPHS[part].transpose(0, 3, 1, 2) / np.float32(255)), LABELS[part])


def fitted(lit, trainer, loaders, convention, tmp_path, **settings):
    """The callback after a fit, and the weights."""
    torch.manual_seed(1)
    model = lit()
    callbacks = []
    if convention is not None:
        folder = tmp_path / "-".join(convention)
        callbacks = [BaselineCallback(convention=convention, directory=folder, clean_windows=100, **settings)]
    train, held_out = photographs(slice(0, 130)), photographs(slice(130, 260))
    trainer(*callbacks, max_epochs=2).fit(model, loaders(train, 32, shuffle=True), loaders(held_out, 32))
    return (callbacks or [None])[0], model.state_dict()


def states(group):
    return {f"{key} {name}": a for key, s in group.sketches.items() for name, a in s.state().items()}


@pytest.mark.slow
def test_one_fit_gives_both_baselines_and_the_same_weights(lit, trainer, loaders, tmp_path):
    found = {each: fitted(lit, trainer, loaders, each, tmp_path) for each in (None, BOTH, *((each,) for each in BOTH))}
    for _, weights in found.values():
        for key, value in weights.items():
            assert torch.equal(value, found[None][1][key]), key
    both = found[BOTH][0].baseline_
    for name, alone in (("inputs", found["lensai",][0]), (EDGE, found["lensai-edge",][0])):
        for source, profile in both.sources().items():
            one, other = states(profile.groups[name]), states(alone.baseline_.sources()[source].groups[name])
            assert one.keys() == other.keys()
            for key, array in one.items():
                np.testing.assert_array_equal(array, other[key], err_msg=f"{source} {name} {key}")
    assert {"inputs", EDGE, "labels", "outputs"} <= both.reference.groups.keys()
    assert list(both.training.groups)[:2] == ["inputs", EDGE]
    assert both.warnings == found["lensai",][0].baseline_.warnings
    assert_devices_and_servers_are_held_against_it(found[BOTH][0].directory_, lit, trainer, loaders, tmp_path)


def assert_devices_and_servers_are_held_against_it(folder, lit, trainer, loaders, tmp_path):
    """What came off the disk: a device's files, and a Trainer that predicts."""
    baseline = Baseline.load(folder)
    html = (folder / "report.html").read_text()
    assert "Inputs, as devices measure them" in html
    assert baseline.calibration is not None
    for share, drift in ((1.0, False), (0.6, True)):
        camera = Profiler(convention="lensai-edge")
        camera.update(inputs=(PHOTOGRAPHS[130:] * share).astype(np.uint8))
        edge.write_stats(camera.profile(), tmp_path / str(share))
        report = compare(baseline, edge.read_stats(tmp_path / str(share)))
        assert [group.name for group in report.groups] == [EDGE]
        assert report.drift == drift
    callback = DriftCallback(baseline, window=65)
    trainer(callback).test(lit(), loaders(photographs(slice(130, 260)), 32), verbose=False)
    assert callback.reports_
    assert all(EDGE not in {group.name for group in each.report.groups} for each in callback.reports_)


@pytest.mark.parametrize(
    ("convention", "shown"), [("lensai-edge", EDGE), (("lensai-edge", "lensai"), "inputs")], ids=str
)
def test_the_check_shows_images_by_any_convention(convention, shown, lit, loaders):
    check = BaselineCallback(convention=convention).check(lit(), loaders(photographs(slice(0, 32)), 32))
    assert [row.group for row in check.rows][:1] == [shown]
    assert check.rows[0].rows == 32
    assert check.rows[0].read.startswith("NCHW float32")


def test_checkpoints_carry_both(lit, trainer, loaders, tmp_path):
    callback = BaselineCallback(convention=BOTH, directory=tmp_path / "own", segment_by="label", clean_windows=0)
    running = trainer(callback)
    running.fit(lit(), loaders(photographs(slice(0, 64)), 32), loaders(photographs(slice(130, 194)), 32))
    running.save_checkpoint(tmp_path / "last.ckpt")
    kept = profiles_of(torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"][callback.state_key])
    for name in ("inputs", EDGE):
        one, other = callback.baseline_.reference.groups[name], kept["validation"].groups[name]
        assert one.info == other.info
        for key, array in states(one).items():
            np.testing.assert_array_equal(array, states(other)[key], err_msg=key)
    segments = kept["validation"].segments
    assert {name: segment.groups[EDGE].n for name, segment in segments.items()} == dict.fromkeys("0123", 16)
    resumed = BaselineCallback(convention=BOTH, directory=tmp_path / "again", segment_by="label", clean_windows=0)
    trainer(resumed, max_epochs=2).fit(
        lit(),
        loaders(photographs(slice(0, 64)), 32),
        loaders(photographs(slice(130, 194)), 32),
        ckpt_path=tmp_path / "last.ckpt",
    )
    assert resumed.baseline_.reference.groups[EDGE].n == 64
    assert set(resumed.baseline_.reference.segments) == set("0123")


def test_ranks_merge_both(lit, trainer, loaders, tmp_path):
    from lensai_integrations.problems import Problems
    from lensai_integrations.torch.ranks import Load, Merged

    load = Load()
    for rank in range(2):
        profiler = Profiler(convention=BOTH, seed=[0, rank])
        profiler.update(inputs=PHOTOGRAPHS[rank::2])
        load.add(Load.from_bytes(Load([Merged.of(profiler.profile(), rank)]).to_bytes()))
    whole = load.whole(range(2), Problems())
    assert isinstance(whole, Profile)
    assert {name: group.n for name, group in whole.groups.items()} == {"inputs": 260, EDGE: 260}


def test_a_convention_that_fails_leaves_training_and_the_other(lit, trainer, loaders, tmp_path, monkeypatch, said):
    from dataclasses import replace

    from lensai_integrations.measures import images

    def fails(planes):
        raise ArithmeticError("out of order")

    monkeypatch.setitem(images.CONVENTIONS, "lensai", replace(images.CONVENTIONS["lensai"], over_pixels=fails))
    callback, _ = fitted(lit, trainer, loaders, BOTH, tmp_path)
    assert set(callback.baseline_.reference.groups) & {"inputs", EDGE} == {EDGE}
    assert any("out of order" in warning for warning in callback.baseline_.warnings)
    assert any("out of order" in message for message in said.messages)


@pytest.mark.parametrize("value", [("lensai", "edge"), (), ("lensai", "lensai")])
def test_wrong_ones_are_refused_at_once(value):
    with pytest.raises(InputError, match="convention="):
        BaselineCallback(convention=value)
