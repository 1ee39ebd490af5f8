"""Tiny models and generated images, on whatever backend Keras has in this process.

Keras has one backend per process. The whole of this folder runs on TensorFlow in the main session, and on each other
backend in a session of its own (`test_backends.py`).
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import pytest

keras = pytest.importorskip("keras")

CLASSES = 4
SIDE = 16


HERE = Path(__file__).parent
#: Keras's and TensorFlow's own use of what numpy and others have deprecated since.
KERAS_OWN = (r"ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",)


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            for pattern in KERAS_OWN:
                item.add_marker(pytest.mark.filterwarnings(pattern))


def pytest_runtest_setup(item):
    only = [name for marker in item.iter_markers("backend") for name in marker.args]
    if only and keras.backend.backend() not in only:
        pytest.skip(f"is about the Keras backends {', '.join(only)}; this session has {keras.backend.backend()}")


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory):
    """XLA compiles a program once in a session: most tests train the same model."""
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture(autouse=True)
def _same_seeds(tmp_path, monkeypatch):
    """Every test starts from the same seeds, with a folder of its own to write to."""
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session(free_memory=False)


def pictures(n, seed=0, side=SIDE):
    """n images [n, side, side, 3], float32 in [0, 1], and n labels."""
    rng = np.random.default_rng(seed)
    return rng.random((n, side, side, 3), dtype=np.float32), rng.integers(0, CLASSES, n)


def network(**compile_arguments):
    """Convolution, batch norm, dropout, two dense layers: 16 x 16 x 3 in, 4 classes out. Always the same weights."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Conv2D(8, 3, strides=2, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Dropout(0.3, name="dropout"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(6, activation="relu", name="embedding"),
            layers.Dense(CLASSES, name="fc"),
        ]
    )
    return compiled(model, **compile_arguments)


def compiled(model, **arguments):
    """The model, compiled for `pictures`. With Adam's variables TensorFlow traces half as long again."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    given = {"loss": loss, "metrics": ["accuracy"], **arguments}
    model.compile(**{"optimizer": keras.optimizers.SGD(0.01, momentum=0.9), **given})
    return model


def values_of(model):
    """All variables of a model: weights, batch norm's averages, dropout's seeds, the optimizer's state."""
    optimizer = model.optimizer.variables if model.optimizer is not None else []
    return [np.array(keras.ops.convert_to_numpy(v)) for v in [*model.variables, *optimizer]]


@pytest.fixture
def images():
    """`images(n, seed)`: pictures and labels."""
    return pictures


@pytest.fixture
def model():
    """`model(**compile_arguments)`: a compiled network."""
    return network


@pytest.fixture
def compile_model():
    """`compile_model(model, **arguments)`: compiled for `images`."""
    return compiled


@pytest.fixture
def variables():
    """`variables(model)`: all its variables as numpy arrays."""
    return values_of


@pytest.fixture
def said(caplog):
    """The messages this package logs."""
    caplog.set_level(logging.INFO, logger="lensai_integrations")
    return caplog


@pytest.fixture
def counts():
    """`counts(profile)`: rows by group; invalid ones would show as tuples."""
    return lambda profile: {name: (g.n if not g.invalid else (g.n, g.invalid)) for name, g in profile.groups.items()}


@pytest.fixture
def alike(images, variables):
    """`alike(make, callback, ...)`: trains with and without it; variables and history are the same, bit for bit."""

    def trained(make, callbacks, data, arguments, compile_arguments):
        keras.utils.set_random_seed(1)
        trains = compiled(make(), **compile_arguments)
        given = {"batch_size": 16, "verbose": 0, "validation_data": images(50, 1), **arguments}
        history = trains.fit(*(data or images(70)), callbacks=callbacks, **given)
        return trains, variables(trains), history.history

    def alike(make, callback, *data, compile_arguments=None, **arguments):
        _, expected, history = trained(make, [], data, arguments, compile_arguments or {})
        model, found, history_too = trained(make, [callback], data, arguments, compile_arguments or {})
        assert len(found) == len(expected)
        for value, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(value, other)
        assert history_too == history
        return model

    return alike


@pytest.fixture
def warned(said):
    """`warned(word)`: the warnings of this package that have it, without the list of all at the end."""

    def having(word=""):
        records = [r for r in said.records if r.name.startswith("lensai") and r.levelno >= logging.WARNING]
        messages = [record.getMessage() for record in records]
        return [each for each in messages if word in each and not each.startswith("about the baseline: ")]

    return having


@pytest.fixture
def fit(images):
    """`fit(model, *callbacks, **arguments)`: 40 rows in steps of 16, 24 held out, two epochs; returns the history."""

    def run(trains, *callbacks, **arguments):
        given = {"validation_data": images(24, 1), "batch_size": 16, "epochs": 2, "verbose": 0, **arguments}
        data = given.pop("data", None) or images(40)
        return trains.fit(*data, callbacks=list(callbacks), **given).history

    return run


#: Programs that tests start in processes of their own.
collect_ignore = ["distributed_script.py"]
