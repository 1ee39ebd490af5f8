"""A fit ends with a baseline that decides by clean windows, and is otherwise as it was."""

from __future__ import annotations

import torch

from lensai_integrations import Baseline, Profiler, compare
from lensai_integrations.lightning import BaselineCallback


def fitted(trainer, lit, loaders, images, **options):
    torch.manual_seed(0)
    model, callback = lit(), BaselineCallback(**options)
    running = trainer(callback, max_epochs=1)
    running.fit(model, loaders(images(16)), loaders(images(112, seed=1)))
    return callback, model, torch.get_rng_state()


def test_the_saved_baseline_is_calibrated_and_training_is_the_same(trainer, lit, loaders, images, tmp_path):
    plain, model, state = fitted(trainer, lit, loaders, images, clean_windows=0, directory=tmp_path / "plain")
    assert plain.baseline_.calibration is None
    _, same, after = fitted(trainer, lit, loaders, images, clean_windows=100, directory=tmp_path / "calibrated")
    assert torch.equal(state, after)
    for one, two in zip(model.state_dict().values(), same.state_dict().values(), strict=True):
        assert torch.equal(one, two)

    loaded = Baseline.load(tmp_path / "calibrated")
    assert loaded.calibration is not None
    window = Profiler(like=loaded, seed=3)
    window.update(inputs=torch.stack([images(112, seed=1)[i][0] for i in range(50)]))
    report = compare(loaded, window.profile())
    assert (report.correction, report.clean_windows) == ("max-t", 100)
    assert not report.drift
    assert compare(Baseline.load(tmp_path / "plain"), window.profile()).correction == "holm"
