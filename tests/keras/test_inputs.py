"""Every kind of data that `fit` takes: the rows of each are counted exactly, and are the ones the model was fed."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

from lensai_integrations import ImageInputs
from lensai_integrations.keras import BaselineCallback

layers = keras.layers
CLASSES, SIDE, BATCH = 4, 16, 16


def small():
    """The smallest model that has an embedding and outputs."""
    return keras.Sequential(
        [layers.GlobalAveragePooling2D(name="pool"), layers.Dense(CLASSES, name="fc")], name="small"
    )


def pixel_counts(pictures):
    """Of images in [0, 1]: how often each of 256 values occurs, by channel."""
    bins = np.floor(np.asarray(pictures, np.float32) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return [np.bincount(bins[..., channel].ravel(), minlength=256) for channel in range(3)]


def label_counts(labels):
    values, numbers = np.unique(labels, return_counts=True)
    return {str(value): int(n) for value, n in zip(values, numbers, strict=True)}


def holds(profile, pictures, labels):
    """That a profile is of exactly these images and labels."""
    np.testing.assert_array_equal(profile.groups["inputs"].pixels.counts, pixel_counts(pictures))
    assert dict(profile.groups["labels"].categories[""].top(9)) == label_counts(labels)
    assert {group.n for group in profile.groups.values()} == {len(labels)}


def batches_of(pictures, labels):
    return [(pictures[start : start + BATCH], labels[start : start + BATCH]) for start in range(0, len(labels), BATCH)]


def arrays(pictures, labels):
    return {"x": pictures, "y": labels, "batch_size": BATCH}, (pictures, labels)


def tf_data(pictures, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((pictures, labels)).batch(BATCH).prefetch(2)
    return {"x": data}, data


def py_dataset(pictures, labels):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return len(batches_of(pictures, labels))

        def __getitem__(self, index):
            return batches_of(pictures, labels)[index]

    return {"x": Batches()}, Batches()


def generator(pictures, labels):
    def forever():
        while True:
            yield from batches_of(pictures, labels)

    steps = len(batches_of(pictures, labels))
    return {"x": forever(), "steps_per_epoch": steps, "validation_steps": 2}, forever()


def torch_loader(pictures, labels):
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.from_numpy(pictures), torch.from_numpy(labels))
    return {"x": DataLoader(data, batch_size=BATCH)}, DataLoader(data, batch_size=BATCH)


@pytest.mark.parametrize("kind", [arrays, tf_data, py_dataset, generator, torch_loader])
def test_every_kind_of_data_is_profiled_as_the_model_is_fed(kind, compile_model, images):
    train, val = images(40), images(20, 1)
    fit, (_, held_out) = kind(*train)[0], kind(*val)
    callback = BaselineCallback(["pool"])
    compile_model(small()).fit(
        **fit, validation_data=held_out, epochs=2, shuffle=False, callbacks=[callback], verbose=0
    )

    holds(callback.baseline_.reference, *val)
    holds(callback.baseline_.training, *train)
    assert callback.baseline_.warnings == []
    assert callback.baseline_.info["epoch"] == 1


def test_weights_of_samples_and_of_classes_change_nothing_of_what_is_counted(images, alike):
    (pictures, labels), val = images(40), images(20, 1)
    weights = np.linspace(0, 1, 40, dtype=np.float32)
    for more, held_out in (
        ({"sample_weight": weights}, (*val, np.ones(20, np.float32))),
        ({"class_weight": {0: 1.0, 1: 2.0, 2: 0.5, 3: 0.0}}, val),
    ):
        callback = BaselineCallback(["pool"])
        alike(small, callback, pictures, labels, validation_data=held_out, shuffle=False, **more)

        holds(callback.baseline_.training, pictures, labels)
        holds(callback.baseline_.reference, *val)
        assert callback.baseline_.warnings == []


def two_inputs():
    image, size = keras.Input((SIDE, SIDE, 3), name="image"), keras.Input((2,), name="size")
    both = layers.Concatenate()([layers.GlobalAveragePooling2D(name="pool")(image), size])
    answer = layers.Dense(CLASSES, name="fc")(both)
    return keras.Model({"image": image, "size": size}, answer), keras.Model([size, image], answer)


@pytest.mark.parametrize("key", ["image", 1])
def test_the_images_are_found_among_several_inputs(key, compile_model, images):
    def given(pictures):
        sizes = np.zeros((len(pictures), 2), np.float32)
        return {"image": pictures, "size": sizes} if key == "image" else [sizes, pictures]

    train, val = images(40), images(20, 1)
    model, callback = two_inputs()[key == 1], BaselineCallback(["pool"], inputs=ImageInputs(key=key))
    held_out = (given(val[0]), val[1])
    compile_model(model).fit(given(train[0]), train[1], validation_data=held_out, callbacks=[callback], verbose=0)

    holds(callback.baseline_.training, *train)
    holds(callback.baseline_.reference, *val)
    assert callback.baseline_.warnings == []


def test_images_that_are_not_where_they_should_be_are_a_problem_and_training_goes_on(compile_model, images, counts):
    callback = BaselineCallback(["pool"], inputs=ImageInputs(key="photo"))
    history = compile_model(small()).fit(*images(20), validation_split=0.2, callbacks=[callback], verbose=0)

    assert len(history.history["loss"]) == 1
    assert counts(callback.baseline_.reference) == {"outputs": 4, "embeddings/pool": 4, "labels": 4}
    assert any("key='photo' was not found" in warning for warning in callback.baseline_.warnings)


def test_one_hot_labels_are_classes(compile_model, images):
    (pictures, labels), (held_out, of_those) = images(40), images(20, 1)
    callback = BaselineCallback(["pool"])
    model = compile_model(small(), loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    one_hot = np.eye(CLASSES, dtype=np.float32)
    model.fit(pictures, one_hot[labels], validation_data=(held_out, one_hot[of_those]), callbacks=[callback], verbose=0)

    holds(callback.baseline_.training, pictures, labels)
    holds(callback.baseline_.reference, held_out, of_those)


def test_the_labels_are_found_among_several_targets(compile_model, images):
    given = keras.Input((SIDE, SIDE, 3))
    pooled = layers.GlobalAveragePooling2D(name="pool")(given)
    answers = {"box": layers.Dense(4, name="box")(pooled), "kind": layers.Dense(CLASSES, name="kind")(pooled)}
    loss = {"box": "mse", "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    (pictures, labels), (held_out, of_those) = images(40), images(20, 1)
    y, y_too = ({"box": np.zeros((len(of), 4), np.float32), "kind": of} for of in (labels, of_those))
    callback = BaselineCallback(["pool"], target="kind", outputs="kind")
    model = compile_model(keras.Model(given, answers), loss=loss, metrics={})
    model.fit(pictures, y, validation_data=(held_out, y_too), callbacks=[callback], verbose=0)
    baseline = callback.baseline_

    holds(baseline.training, pictures, labels)
    holds(baseline.reference, held_out, of_those)
    assert baseline.reference.groups["labels"].info["read_from"] == "kind"
    assert baseline.reference.groups["outputs"].info["layer"] == "kind"


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_images_of_0_to_255_are_told_from_those_of_0_to_1(dtype, compile_model, images):
    (pictures, labels), (held_out, of_those) = images(40), images(20, 1)
    whole = [np.floor(part * 255 + np.float32(0.5)).astype(dtype) for part in (pictures, held_out)]
    model = keras.Sequential([layers.Rescaling(1 / 255), *small().layers])
    callback = BaselineCallback(["pool"])
    compile_model(model).fit(
        whole[0], labels, validation_data=(whole[1], of_those), batch_size=16, callbacks=[callback], verbose=0
    )

    holds(callback.baseline_.training, pictures, labels)
    holds(callback.baseline_.reference, held_out, of_those)
    assert callback.baseline_.warnings == []


def test_there_need_be_no_labels(images, counts, compile_model):
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Conv2D(3, 1, name="same")])
    callback = BaselineCallback(["same"], task="values", outputs=None, target=None)
    pictures = images(20)[0]
    compile_model(model, loss="mse", metrics=[]).fit(
        pictures, pictures, validation_split=0.2, callbacks=[callback], verbose=0
    )

    assert counts(callback.baseline_.reference) == {"inputs": 4, "embeddings/same": 4}
    assert callback.baseline_.warnings == []


def test_two_scales_are_said_and_can_be_meant(images):
    x, y = images(32)
    model = small()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def warnings_of(validation, **arguments):
        callback = BaselineCallback(layers=None, clean_windows=0, **arguments)
        model.fit(x, y, validation_data=(validation, y), verbose=0, callbacks=[callback])
        return [warning for warning in callback.baseline_.warnings if "are read as" in warning]

    (warning,) = warnings_of(x * 255)
    assert "those of training are read as NHWC float32 x 255, those of validation as NHWC float32 in 0-255" in warning
    assert warnings_of(x) == []
    meant = {"training": ImageInputs(scale=255), "validation": ImageInputs(scale=1)}
    assert warnings_of(x * 255, inputs=meant) == []
    again = BaselineCallback.from_config(BaselineCallback(inputs=meant, target=(1, "a")).get_config())
    assert again._options.inputs == meant
    assert again._options.target == (1, "a")


class Birds(keras.utils.PyDataset):
    """A data set that names the classes of both labels."""

    def __init__(self, x, y, names):
        super().__init__()
        self.x, self.y, self.classes = x, y, names

    def __len__(self):
        return 2

    def __getitem__(self, index):
        half = slice(16 * index, 16 * index + 16)
        return self.x[half], {head: labels[half] for head, labels in self.y.items()}


def test_names_of_the_classes_of_several_heads():
    x = np.random.default_rng(0).random((32, 8, 8, 3)).astype(np.float32)
    names = {"bird": ["wren", "crow", "kite"], "colour": ["red", "blue"]}
    data = Birds(x, {head: np.arange(32) % len(each) for head, each in names.items()}, names)
    inputs = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    answers = {head: keras.layers.Dense(len(each), name=head)(pooled) for head, each in names.items()}
    model = keras.Model(inputs, answers)
    model.compile("sgd", {head: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for head in names})
    callback = BaselineCallback(clean_windows=0)
    model.fit(data, validation_data=data, verbose=0, callbacks=[callback])
    groups = callback.baseline_.reference.groups
    for head, each in names.items():
        assert [groups[f"{kind}/{head}"].info["class_names"] for kind in ("outputs", "labels")] == [each, each]
