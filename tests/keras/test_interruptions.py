"""A time limit of the user's that fires in a hook ends the fit, as it does in a step; so does Ctrl-C."""

from __future__ import annotations

import signal

import keras
import pytest
from time_limits import TimeUpError

from lensai_integrations import Baseline, DriftMonitor, Profiler
from lensai_integrations.keras import BaselineCallback, DriftCallback, callback, functions
from lensai_integrations.keras.batches import KerasBatches
from lensai_integrations.keras.fit import KerasFit
from lensai_integrations.keras.weights import ModelWeights

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="there is no such signal")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Profiler, "update"),
        (Profiler, "profile"),
        (KerasBatches, "take"),
        (KerasFit, "record"),
        (KerasFit, "_seen"),
        (KerasFit, "end"),
        (functions, "why_not"),
        (functions, "steps"),
        (callback, "look_around"),
        (callback, "deliver"),
        (ModelWeights, "of"),
    ],
)
def test_wherever_in_a_hook_it_fires(model, fit, at_call, owner, name):
    at_call(owner, name)
    monitor, trains = BaselineCallback(layers=["embedding"], clean_windows=0), model(run_eagerly=True)
    with pytest.raises(TimeUpError):
        fit(trains, monitor, epochs=1)
    monitor.detach()
    assert not isinstance(trains.train_function, functions.GuardedFunction)
    assert not isinstance(trains.test_function, functions.GuardedFunction)


def test_while_a_step_is_traced(model, fit, at_call):
    """The step fails then, and ours gives up for the model's own: but not after an interruption."""
    at_call(functions.Taps, "listening")
    with pytest.raises(TimeUpError):
        fit(model(), BaselineCallback(layers=["embedding"], clean_windows=0), epochs=1)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeUpError])
def test_in_the_calibration_the_callback_has_what_was_saved(model, fit, calibration_ends_in, kind):
    calibration_ends_in(kind)
    monitor = BaselineCallback(layers=["embedding"])
    with pytest.raises(kind):
        fit(model(run_eagerly=True), monitor, epochs=1)
    assert monitor.baseline_.calibration is None
    assert Baseline.load(monitor.directory_).n == monitor.baseline_.n == 24


def test_in_a_monitor(model, fit, images, at_call):
    monitor, trains = BaselineCallback(layers=["embedding"], clean_windows=0), model(run_eagerly=True)
    fit(trains, monitor, epochs=1)
    at_call(DriftMonitor, "update")
    with pytest.raises(TimeUpError):
        trains.predict(images(24, 1)[0], verbose=0, callbacks=[DriftCallback(monitor.baseline_, window=10)])


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only torch has gradients that are off for a while")
def test_what_fires_where_gradients_are_put_off_leaves_them_on(monkeypatch):
    from lensai_integrations.keras import fit

    def fires():
        raise TimeUpError

    torch = pytest.importorskip("torch")
    monkeypatch.setattr(fit, "one_blas_thread", fires)
    with pytest.raises(TimeUpError), fit.aside():
        pass
    assert torch.is_grad_enabled()
