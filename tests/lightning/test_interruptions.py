"""A time limit of the user's that fires in a hook ends the fit, as it does in a step."""

from __future__ import annotations

import signal

import pytest
import torch
from time_limits import TimeUpError

from lensai_integrations import Baseline, DriftMonitor, Profiler, measure
from lensai_integrations.lightning import BaselineCallback, DriftCallback
from lensai_integrations.lightning.fit import LightningFit
from lensai_integrations.torch.layers import SampledWeights
from lensai_integrations.torch.recording import LoaderPass
from lensai_integrations.torch.taps import Taps
from lensai_integrations.training.delivered import RawImages

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="there is no such signal")


@pytest.fixture
def train(trainer, lit, loaders):
    """`train(callback)`: a fit of one epoch."""
    return lambda callback, **options: trainer(callback, **options).fit(lit(), loaders(16), loaders(16))


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Profiler, "update"),
        (Profiler, "profile"),
        (LoaderPass, "start"),
        (LoaderPass, "open"),
        (LoaderPass, "close"),
        (LightningFit, "complete"),
        (LightningFit, "record"),
        (SampledWeights, "__init__"),
        (LightningFit, "state"),
        (RawImages, "join"),
        (Taps, "remove"),
    ],
)
def test_wherever_in_a_hook_it_fires(train, at_call, owner, name):
    at_call(owner, name)
    callback = BaselineCallback(layers=["avgpool"], clean_windows=0)
    with pytest.raises(TimeUpError):
        train(callback, enable_checkpointing=True)


@measure("until-the-alarm", unit="1")
def until_the_alarm(images):
    for function in AT_IMAGES:
        function()
    return images.mean((1, 2, 3))


AT_IMAGES = []


def test_in_a_users_measure_of_the_second_epoch_the_first_ones_baseline_is_saved(
    trainer, lit, loaders, alarm, tmp_path
):
    model, callback = lit(), BaselineCallback(layers=["avgpool"], measures=[until_the_alarm], clean_windows=0)
    calls = []

    def up():
        calls.append(1)
        if len(calls) == 6:  # a batch of training and two of validation an epoch
            alarm()

    AT_IMAGES.append(up)
    running = trainer(callback, max_epochs=3)
    try:
        with pytest.raises(TimeUpError):
            running.fit(model, loaders(8), loaders(16))
    finally:
        AT_IMAGES.clear()
    assert running.current_epoch == 1
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert Baseline.load(callback.directory_).n == callback.baseline_.n == 16
    assert callback.baseline_.info["epoch"] == 0


@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeUpError])
def test_in_the_calibration_the_callback_has_what_was_saved(train, calibration_ends_in, kind):
    calibration_ends_in(kind)
    callback = BaselineCallback(layers=["avgpool"])
    with pytest.raises((SystemExit, TimeUpError)):  # Lightning makes an exit of Ctrl-C
        train(callback)
    assert callback.baseline_.calibration is None
    assert Baseline.load(callback.directory_).n == callback.baseline_.n


def test_in_a_monitor(trainer, lit, loaders, at_call):
    callback = BaselineCallback(layers=["avgpool"], clean_windows=0)
    model = lit()
    trainer(callback).fit(model, loaders(8), loaders(64, 32))
    at_call(DriftMonitor, "update")
    with pytest.raises(TimeUpError):
        trainer(DriftCallback(callback.baseline_, window=50)).test(model, loaders(64, 32), verbose=False)


def test_in_a_watched_module(net, alarm):
    from lensai_integrations.torch import watch

    model = net().eval()
    profiler = Profiler(source="validation", seed=1)
    with torch.no_grad():
        profiler.update(inputs=(given := torch.rand(50, 3, 16, 16)), outputs=model(given))
    monitor = DriftMonitor(Baseline(profiler.profile()), window=50)
    update = monitor.update

    def interrupted(**batch):
        alarm()
        return update(**batch)

    monitor.update = interrupted
    with pytest.raises(TimeUpError), watch(monitor, model), torch.no_grad():
        model(given)
    assert monitor.status.failures == {}
    monitor.close()
