"""Run by test_distributed.py, on two logical CPUs: trains with and without the callback; what came of it is JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np

from lensai_integrations.keras import BaselineCallback

TRAIN, VAL, BATCH = 70, 50, 16  # the last batches have six rows and two


def pictures(n, seed):
    rng = np.random.default_rng(seed)
    return rng.random((n, 16, 16, 3), dtype=np.float32), rng.integers(0, 4, n)


def network(**settings):
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dropout(0.3),
            layers.Dense(4, name="fc"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"], **settings)
    return model


def trained(callbacks, **settings):
    model = network(**settings)
    history = model.fit(
        *pictures(TRAIN, 0), validation_data=pictures(VAL, 1), batch_size=BATCH, callbacks=callbacks, verbose=0
    )
    values = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(value)) for value in values], history.history


def found(train, **settings):
    """What a profiled fit leaves, and whether it trained as without the callback."""
    callback = BaselineCallback(["pool"], training="all", directory=f"baseline{len(settings)}")
    (plain, history), (profiled, history_too) = train([], **settings), train([callback], **settings)
    baseline = callback.baseline_
    pixels = baseline.reference.groups["inputs"].pixels.counts
    held_out = np.floor(pictures(VAL, 1)[0] * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return {
        "same": history == history_too and all(map(np.array_equal, plain, profiled)),
        "reference": {name: group.n for name, group in baseline.reference.groups.items()},
        "training": {name: group.n for name, group in baseline.training.groups.items()},
        "rows": baseline.reference.rows.n,
        "pixels": all(
            np.array_equal(pixels[c], np.bincount(held_out[..., c].ravel(), minlength=256)) for c in range(3)
        ),
        "warnings": baseline.warnings,
    }


def mirrored():
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    def train(callbacks, **settings):
        with strategy.scope():
            return trained(callbacks, **settings)

    assert strategy.num_replicas_in_sync == 2
    return [found(train)]  # with several steps per execution, Keras itself fails under this strategy


def data_parallel():
    import jax

    assert len(jax.devices()) == 2
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=keras.distribution.list_devices()))
    return [found(trained)]


if __name__ == "__main__":
    results = mirrored() if keras.backend.backend() == "tensorflow" else data_parallel()
    Path(sys.argv[1]).write_text(json.dumps(results))
