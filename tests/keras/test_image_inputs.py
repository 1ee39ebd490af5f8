"""Models with several image inputs: each is a group of its own, by the model's names, and rows belong together."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from lensai_integrations import ImageInputs
from lensai_integrations.keras import BaselineCallback, DriftCallback

layers = keras.layers
CLASSES, SIDE = 4, 12


def named(name, channels=3):
    return keras.Input((SIDE, SIDE, channels), name=name)


def siamese(one=None, two=None, as_dict=False):
    """One encoder for both inputs."""
    one, two = one if one is not None else named("left"), two if two is not None else named("right")
    encoder = keras.Sequential([layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()], name="encoder")
    answer = layers.Dense(CLASSES, name="fc")(layers.Concatenate()([encoder(one), encoder(two)]))
    return keras.Model({"left": one, "right": two} if as_dict else [one, two], answer)


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential([layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()])
        self.fc = layers.Dense(CLASSES)

    def call(self, pair):
        parts = pair.values() if isinstance(pair, dict) else pair
        return self.fc(keras.ops.concatenate([self.encoder(each) for each in parts], axis=1))


def pictures(n, seed, dark=1.0):
    rng = np.random.default_rng(seed)
    left, right = rng.random((2, n, SIDE, SIDE, 3), dtype=np.float32)
    return left, right * np.float32(dark), np.arange(n) % CLASSES


def counts_of(array):
    bins = np.floor(array * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return [np.bincount(bins[..., channel].ravel(), minlength=256) for channel in range(array.shape[-1])]


def holds(profile, **arrays):
    """That the groups of images are these, and each of exactly these images."""
    assert [name for name in profile.groups if name.startswith("inputs")] == [f"inputs/{name}" for name in arrays]
    for name, array in arrays.items():
        np.testing.assert_array_equal(profile.groups[f"inputs/{name}"].pixels.counts, counts_of(array))


def fitted(model, shape, callback, n=40, **arguments):
    left, right, labels = pictures(n, 0)
    of_val = pictures(20, 1)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    validation = (shape(*of_val[:2]), of_val[2])
    model.fit(shape(left, right), labels, validation_data=validation, batch_size=16, shuffle=False,
              callbacks=[callback], verbose=0, **arguments)  # fmt: skip
    return callback.baseline_


UNNAMED = lambda: siamese(keras.Input((SIDE, SIDE, 3)), keras.Input((SIDE, SIDE, 3)))  # noqa: E731


@pytest.mark.parametrize(
    ("model", "shape", "names"),
    [
        (lambda: siamese(as_dict=True), lambda l, r: {"left": l, "right": r}, ("left", "right")),  # noqa: E741
        (siamese, lambda l, r: [l, r], ("left", "right")),  # noqa: E741
        (siamese, lambda l, r: (l, r), ("left", "right")),  # noqa: E741
        (UNNAMED, lambda l, r: (l, r), ("0", "1")),  # noqa: E741
        (Subclass, lambda l, r: (l, r), ("0", "1")),  # noqa: E741
        (Subclass, lambda l, r: {"image": l, "other": r}, ("image", "other")),  # noqa: E741
    ],
)
def test_every_image_input_is_a_group(model, shape, names):
    baseline = fitted(model(), shape, BaselineCallback(clean_windows=0))
    train, val = pictures(40, 0)[:2], pictures(20, 1)[:2]
    holds(baseline.training, **dict(zip(names, train, strict=True)))
    holds(baseline.reference, **dict(zip(names, val, strict=True)))
    assert {group.n for group in baseline.reference.groups.values()} == {20}
    assert list(baseline.reference.rows.widths)[:2] == [f"inputs/{name}" for name in names]
    assert not any("inputs" in warning or "images" in warning for warning in baseline.warnings)


def test_colour_and_grey_beside_numbers():
    colour, thermal, size = named("colour"), named("thermal", 1), keras.Input((2,), name="size")
    parts = [layers.GlobalAveragePooling2D()(each) for each in (colour, thermal)]
    model = keras.Model([size, colour, thermal], layers.Dense(CLASSES)(layers.Concatenate()([*parts, size])))
    shape = lambda l, r: [np.zeros((len(l), 2), np.float32), l, r[..., :1]]  # noqa: E731, E741
    baseline = fitted(model, shape, BaselineCallback(clean_windows=0))
    left, right, _ = pictures(20, 1)
    holds(baseline.reference, colour=left, thermal=right[..., :1])


def test_training_is_the_same_to_the_bit():
    weights = []
    for callbacks in ([], [BaselineCallback(clean_windows=0)]):
        keras.utils.set_random_seed(0)
        model = siamese()
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        left, right, labels = pictures(40, 0)
        model.fit([left, right], labels, validation_split=0.5, callbacks=callbacks, verbose=0)
        weights.append(model.get_weights())
    assert all(np.array_equal(one, two) for one, two in zip(*weights, strict=True))


def test_names_and_keys_of_ones_own():
    asked = {"near": ImageInputs(key=0), "far": ImageInputs(key=1, scale=255)}
    callback = BaselineCallback(inputs=asked, clean_windows=0)
    left, right, _ = pictures(20, 1)
    holds(fitted(siamese(), lambda l, r: (l, r), callback).reference, near=left, far=right)  # noqa: E741
    alone = BaselineCallback(inputs=ImageInputs(key=1), clean_windows=0)
    reference = fitted(siamese(), lambda l, r: (l, r), alone).reference  # noqa: E741
    np.testing.assert_array_equal(reference.groups["inputs"].pixels.counts, counts_of(right))


def test_keys_may_be_what_the_model_calls_its_inputs():
    left, right, _ = pictures(20, 1)
    asked = {"near": ImageInputs(key="right"), "far": ImageInputs(key="left")}
    baseline = fitted(siamese(), lambda l, r: (l, r), BaselineCallback(inputs=asked, clean_windows=0))  # noqa: E741
    holds(baseline.reference, near=right, far=left)
    alone = BaselineCallback(inputs=ImageInputs(key="right"), clean_windows=0)
    baseline = fitted(siamese(), lambda l, r: (l, r), alone)  # noqa: E741
    np.testing.assert_array_equal(baseline.reference.groups["inputs"].pixels.counts, counts_of(right))
    assert baseline.warnings == []


def test_one_that_is_missing_is_named_and_the_other_is_read():
    asked = {"left": ImageInputs(), "rear": ImageInputs()}
    baseline = fitted(siamese(), lambda l, r: (l, r), BaselineCallback(inputs=asked, clean_windows=0))  # noqa: E741
    holds(baseline.reference, left=pictures(20, 1)[0])
    told = [warning for warning in baseline.warnings if warning.startswith("inputs/rear")]
    assert told[0].startswith("inputs/rear: the image input 'rear' is not in the batch, which has ['left', 'right']")


def test_many_are_the_first_and_that_is_said_and_the_advice_reads_all():
    shape = lambda l, r: (l, r, l, r, l)  # noqa: E731, E741
    baseline = fitted(Subclass(), shape, BaselineCallback(clean_windows=0))
    (told,) = [warning for warning in baseline.warnings if "arrays of images" in warning]
    assert "5 arrays of images are in the batch, at 0, 1, 2, 3, 4: only the first is read" in told
    np.testing.assert_array_equal(baseline.reference.groups["inputs"].pixels.counts, counts_of(pictures(20, 1)[0]))
    advice = eval(told.rpartition("inputs=")[2])
    baseline = fitted(Subclass(), shape, BaselineCallback(inputs=advice, clean_windows=0))
    left, right, _ = pictures(20, 1)
    holds(baseline.reference, **{"0": left, "1": right, "2": left, "3": right, "4": left})


@pytest.mark.parametrize(
    "asked",
    [
        {"left": ImageInputs(scale=255), "right": ImageInputs(key=(0, "b"), mean=(0.5,), std=(0.5,))},
        {"training": {"0": ImageInputs(), "1": ImageInputs(scale=1)}, "validation": ImageInputs(key=1), "test": None},
    ],
)
def test_the_configuration_says_it_and_is_json(asked):
    config = json.loads(json.dumps(BaselineCallback(inputs=asked).get_config()))
    again = BaselineCallback.from_config(config)
    assert again._options.inputs == asked
    assert again.get_config() == BaselineCallback(inputs=asked).get_config()


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("known")
    model, callback = siamese(), BaselineCallback(outputs=None, layers=None, clean_windows=200, directory=folder)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    (left, right, labels), val = pictures(32, 0), pictures(200, 1)
    model.fit([left, right], labels, validation_data=([*val[:2]], val[2]), callbacks=[callback], verbose=0)
    return callback.baseline_


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (siamese, lambda l, r: [l, r]),  # noqa: E741
        (lambda: siamese(as_dict=True), lambda l, r: {"right": r, "left": l}),  # noqa: E741
        (UNNAMED, lambda l, r: [l, r]),  # noqa: E741
    ],
)
def test_in_production_only_the_camera_that_went_dark_drifts(known, model, shape, caplog):
    model = model()
    callback = DriftCallback(known, window=64)
    for dark, level in ((1.0, "ok"), (0.5, "alarm")):
        left, right, _ = pictures(64, 5, dark)
        model.predict(shape(left, right), callbacks=[callback], verbose=0)
        assert [report.level for report in callback.reports_] == [level]
    groups = callback.reports_[0].to_dict()["groups"]
    images = {name: group["drift"] for name, group in groups.items() if name.startswith("inputs")}
    assert images == {"inputs/left": False, "inputs/right": True}
    in_order = [message for message in caplog.messages if "are read as 'left' and 'right', in this order" in message]
    assert bool(in_order) == (model.inputs[0].name != "left")


def test_the_advice_for_production_with_other_names_reads_the_cameras(known, caplog):
    left, right, _ = pictures(64, 5)
    model = UNNAMED()
    model.predict([left, right], callbacks=[DriftCallback(known, window=64)], verbose=0)
    (told,) = [message for message in caplog.messages if "in this order" in message]
    caplog.clear()
    callback = DriftCallback(known, window=64, inputs=eval(told.rpartition("inputs=")[2]))
    model.predict([left, right], callbacks=[callback], verbose=0)
    assert [message for message in caplog.messages if "image" in message] == []
    assert {"inputs/left", "inputs/right"} <= callback.reports_[0].to_dict()["groups"].keys()


def test_a_check_has_a_row_for_each():
    left, right, labels = pictures(16, 0, dark=0.0)
    model = siamese()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    check = BaselineCallback().check(model, ([left, right], labels))
    rows = {row.group: (row.shape, row.read) for row in check.rows if row.group.startswith("inputs")}
    assert rows == dict.fromkeys(["inputs/left", "inputs/right"], ((16, SIDE, SIDE, 3), "NHWC float32 x 255, 12x12"))
    assert any(warning.startswith("inputs/right: the mean brightness is 0") for warning in check.warnings)
    assert not any(warning.startswith("inputs/left") for warning in check.warnings)
