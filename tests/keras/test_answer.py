"""What a model answers, and what feeds it: the answer is what the model returns, or it is said why that is none.

What the compiled loss says of each head.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from lensai_integrations import Profiler
from lensai_integrations.keras import BaselineCallback, DriftCallback
from lensai_integrations.keras.answer import heads_in, held_against_nothing, losses_of
from lensai_integrations.keras.taps import attach
from lensai_integrations.problems import Problems

layers = keras.layers
CLASSES, SIDE = 4, 16
CE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def cnn(given, filters=8):
    return layers.GlobalAveragePooling2D(name="pool")(layers.Conv2D(filters, 3, strides=2, name="conv")(given))


def image():
    return keras.Input((SIDE, SIDE, 3), name="image")


class CosineHead(layers.Layer):
    """As in ArcFace: no Dense."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], CLASSES))

    def call(self, z):
        return 16 * ops.matmul(ops.normalize(z, axis=-1), ops.normalize(self.w, axis=0))


class HeadFirst(keras.Model):
    """The head is the first attribute."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.head, self.fc = layers.Dense(CLASSES, name="head"), layers.Dense(6, activation="relu", name="fc")
        self.pool = layers.GlobalAveragePooling2D(name="pool")

    def call(self, x):
        return self.head(self.fc(self.pool(x)))


class Parts(HeadFirst):
    """A head that is made of several layers and an operation between them."""

    def call(self, x):
        return ops.softmax(super().call(x))


class TwoAnswers(HeadFirst):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.other = layers.Dense(2, name="other")

    def call(self, x):
        features = self.fc(self.pool(x))
        return {"kind": self.head(features), "box": self.other(features)}


def arcface():
    given = image()
    return keras.Model(given, CosineHead(name="arc")(layers.Dense(6, activation="relu", name="embedding")(cnn(given))))


def all_convolutional():
    body = [image(), layers.Conv2D(6, 3, name="features"), layers.Conv2D(CLASSES, 1, name="classes")]
    return keras.Sequential([*body, layers.GlobalAveragePooling2D(name="mean"), layers.Softmax(name="softmax")])


def gated():
    """The gate of squeeze and excitation has Dense layers, and is defined last."""
    given = image()
    maps = layers.Conv2D(4, 3, name="conv")(given)
    head = layers.Dense(CLASSES, name="head")
    gate = layers.Dense(4, "sigmoid", name="gate")(layers.Dense(2, name="squeeze")(layers.GlobalMaxPooling2D()(maps)))
    gated = layers.Multiply()([maps, layers.Reshape((1, 1, 4))(gate)])
    return keras.Model(given, head(layers.GlobalAveragePooling2D(name="pool")(gated)))


def around_a_whole_model():
    given = image()
    return keras.Model(given, HeadFirst(name="net")(layers.Rescaling(2.0)(given)))


def built(make):
    model = make(name="subclassed")
    model(np.zeros((1, SIDE, SIDE, 3), np.float32))
    return model


#: A model, the layer that makes its answer, and the one whose input is the embedding.
SINGLE = {
    "arcface": (arcface, "arc", "arc"),
    "head first": (lambda: built(HeadFirst), "head", "head"),
    "operation last": (lambda: built(Parts), "subclassed", "head"),
    "all convolutional": (all_convolutional, "softmax", "classes"),
    "gate defined last": (gated, "head", "head"),
    "whole model inside": (around_a_whole_model, "net/head", "net/head"),
}


def read(model, x, **options):
    """What a step would hand out, as numpy arrays; the layers' infos, and what was said."""
    problems, given = Problems(quiet=True), {"layers": "auto", **options}
    taps = attach(model, BaselineCallback(**given)._options, problems)
    with taps.listening() as caught:
        model(ops.convert_to_tensor(x))
    return (
        {key: ops.convert_to_numpy(rows) for key, rows in caught.items()},
        {each.key: each.info for each in taps.layers},
        problems.messages,
    )


def into(model, path, x):
    """What goes into a layer, by a model of its own."""
    *outer, name = path.split("/")
    for part in outer:
        model = model.get_layer(part)
    given = []
    layer = next(each for each in model.layers if each.name == name)
    original = layer.call
    layer.__dict__["call"] = lambda rows: (given.append(ops.convert_to_numpy(rows)), original(rows))[1]
    try:
        model(ops.convert_to_tensor(x * 2 if outer else x))
    finally:
        del layer.__dict__["call"]
    return given[0]


@pytest.mark.parametrize("case", SINGLE)
def test_the_answer_is_what_the_model_returns_and_the_embedding_what_feeds_it(case, images):
    make, maker, source = SINGLE[case]
    model, (x, _) = make(), images(5)
    for _ in range(2):  # the second time, what was found is known
        caught, infos, said = read(model, x)

        assert said == []
        assert set(caught) == {"outputs", f"embeddings/{source}.input"}
        np.testing.assert_allclose(caught["outputs"], ops.convert_to_numpy(model(x)), rtol=1e-5, atol=1e-6)
        rows = into(model, source, x)
        rows = rows.mean(axis=(1, 2)) if rows.ndim == 4 else rows
        np.testing.assert_allclose(caught[f"embeddings/{source}.input"], rows, rtol=1e-5, atol=1e-6)
        assert infos["outputs"]["layer"] == maker
        assert all(info["auto"] for info in infos.values())
    assert not any("call" in layer.__dict__ for layer in [model, *model._flatten_layers()])


def test_what_is_said_of_an_answer():
    assert read(all_convolutional(), np.zeros((1, SIDE, SIDE, 3)))[1] == {
        "outputs": {
            "layer": "softmax", "linear": False, "auto": True, "columns": 4, "activation": "softmax",
            "found": "what the model returns, made by 'softmax'",
        },
        "embeddings/classes.input": {
            "layer": "classes.input", "reduce": "mean", "axes": 4, "auto": True,
            "found": "what goes into 'classes', which the answer comes from",
        },
    }  # fmt: skip


def two_heads(structure):
    given = image()
    maps = layers.Conv2D(4, 3, name="conv")(given)
    main = layers.Dense(CLASSES, name="main")(layers.GlobalAveragePooling2D(name="mean")(maps))
    aux = layers.Dense(CLASSES, name="aux")(layers.GlobalMaxPooling2D(name="max")(maps))
    return keras.Model(given, structure(main, aux))


@pytest.mark.parametrize(
    ("structure", "names"),
    [
        (lambda main, aux: [main, aux], ["main", "aux"]),
        (lambda main, aux: {"z": main, "a": aux}, ["a", "z"]),
        (lambda main, aux: (main, aux), ["main", "aux"]),
    ],
)
def test_every_head_is_its_own_group_and_has_its_embedding(structure, names, images):
    model, (x, _) = two_heads(structure), images(3)
    caught, infos, said = read(model, x)

    assert said == []
    assert [key for key in infos if key.startswith("outputs")] == [f"outputs/{name}" for name in names]
    assert {key for key in caught if key.startswith("emb")} == {"embeddings/main.input", "embeddings/aux.input"}
    for name, head in heads_in(model(x), ["main", "aux"]).items():
        np.testing.assert_allclose(caught[f"outputs/{name}"], ops.convert_to_numpy(head), rtol=1e-5)


def test_the_only_one_in_a_list_of_outputs_is_the_answer(images, fit, counts):
    given = image()
    features = layers.Dense(6, activation="relu", name="embedding")(cnn(given))
    model = keras.Model([given], [layers.Dense(CLASSES, name="fc")(features)])
    model.compile("sgd", CE)
    callback = BaselineCallback(clean_windows=0)
    fit(model, callback, epochs=1)
    found = {each.stream: each.max for each in callback.baseline_.reference.summaries()}
    answers = ops.convert_to_numpy(ops.softmax(model.predict(images(24, 1)[0], verbose=0))).max(0)

    assert counts(callback.baseline_.reference) == dict.fromkeys(
        ("inputs", "outputs", "embeddings/fc.input", "labels"), 24
    )
    assert callback.baseline_.warnings == []
    np.testing.assert_allclose([found[f"outputs/softmax/{place}"] for place in range(CLASSES)], answers, atol=1e-6)


def test_heads_fed_by_the_same_have_one_embedding(images):
    caught, infos, said = read(built(TwoAnswers), images(3)[0])

    assert said == []
    assert set(caught) == {"outputs/box", "outputs/kind", "embeddings/other.input"}
    assert (
        infos["embeddings/other.input"]["found"] == "what goes into 'other', which the answer 'box', 'kind' comes from"
    )


def autoencoder():
    given = image()
    code = layers.Dense(8, name="code")(cnn(given))
    maps = layers.Reshape((8, 8, 1))(layers.Dense(64, name="expand")(code))
    return keras.Model(given, layers.Conv2D(3, 3, padding="same", name="picture")(layers.UpSampling2D(2)(maps)))


def segmenting():
    given = image()
    return keras.Model(given, layers.Conv2D(5, 1, name="classes")(layers.Conv2D(6, 3, padding="same")(given)))


def test_a_picture_like_the_one_that_went_in_is_no_answer(images):
    model = autoencoder()
    caught, infos, said = read(model, images(3)[0])

    assert (caught, infos) == ({}, {})
    (message,) = said
    assert "as an autoencoder does" in message
    assert "'code' (8)" in message
    assert set(read(model, images(3)[0], layers=["code"], outputs=None)[0]) == {"embeddings/code"}
    assert read(model, images(3)[0], layers=["code"], outputs=None)[2] == []


def test_a_map_is_said_not_to_be_read_and_its_features_are(images):
    caught, _, said = read(segmenting(), images(3)[0])

    assert set(caught) == {"embeddings/classes.input"}
    (message,) = said
    assert "the model answers 16 x 16 x 5 for each image, a map or a sequence, which is not read yet" in message


class Split(keras.Model):
    """Its answer is made of two tensors."""

    def __init__(self):
        super().__init__()
        self.one, self.two = layers.Dense(CLASSES, name="one"), layers.Dense(CLASSES, name="two")

    def call(self, x):
        flat = ops.mean(x, axis=(1, 2))
        return self.one(flat) * self.two(flat)


def test_an_answer_that_is_made_of_several_tensors_is_read_and_its_embedding_asked_for(images):
    model, (x, _) = Split(), images(3)
    model(x)
    caught, _, said = read(model, x)

    np.testing.assert_allclose(caught["outputs"], ops.convert_to_numpy(model(x)), rtol=1e-5, atol=1e-6)
    assert set(caught) == {"outputs"}
    assert "layers='auto' cannot tell what feeds the model's answer" in said[0]
    assert "'one' (4), 'two' (4)" in said[0]
    assert read(model, x, layers=["one.input"])[2] == []


def member(given, number):
    return layers.Dense(CLASSES, "softmax", name=f"head{number}")(cnn_of(given, number))


def cnn_of(given, number):
    return layers.GlobalAveragePooling2D()(layers.Conv2D(3 + number, 3, strides=2)(given))


def averaged_models():
    given = image()
    members = []
    for number in range(2):
        own = image()
        members.append(keras.Model(own, member(own, number), name=f"member{number}")(given))
    return keras.Model(given, layers.Average(name="mean")(members))


def averaged_operations():
    given = image()
    heads = [layers.Dense(CLASSES, name=f"head{number}")(cnn_of(given, number)) for number in range(2)]
    return keras.Model(given, (heads[0] + heads[1]) / 2)


def stacked():
    given = image()
    heads = [layers.Dense(CLASSES, name=f"head{number}")(cnn_of(given, number)) for number in range(2)]
    return keras.Model(given, ops.mean(ops.stack(heads), axis=0))


class Members(keras.Model):
    def __init__(self):
        super().__init__()
        self.pool, self.mean = layers.GlobalAveragePooling2D(), layers.Average(name="mean")
        self.bodies = [layers.Dense(3 + number, name=f"body{number}") for number in range(2)]
        self.heads = [layers.Dense(CLASSES, name=f"head{number}") for number in range(2)]

    def call(self, x):
        rows = self.pool(x)
        return self.mean([head(body(rows)) for body, head in zip(self.bodies, self.heads, strict=True)])


@pytest.mark.parametrize(
    ("make", "within", "activation"),
    [
        (averaged_models, ("member0/", "member1/"), "softmax"),
        (averaged_operations, ("", ""), None),
        (stacked, ("", ""), None),
        (Members, ("", ""), None),
    ],
)
def test_what_goes_into_each_head_of_an_ensemble_is_an_embedding(make, within, activation, images):
    model, (x, _) = make(), images(3)
    model(x)
    for _ in range(2):
        caught, infos, said = read(model, x)
        embeddings = [f"embeddings/{outer}head{number}.input" for number, outer in enumerate(within)]

        assert said == []
        assert set(caught) == {"outputs", *embeddings}
        assert [caught[name].shape[1] for name in embeddings] == [3, 4]
        assert infos["outputs"].get("activation") == activation
        np.testing.assert_allclose(caught["outputs"], ops.convert_to_numpy(model(x)), rtol=1e-5)
    if make is averaged_models:  # a mean that is named has the same embeddings
        assert set(read(model, x, outputs="mean")[0]) == {"outputs", *embeddings}
    if make is not Members:
        heads = [layer for layer in model._flatten_layers() if layer.name.startswith("head")]
        rows = [ops.convert_to_numpy(head(caught[name])) for head, name in zip(heads, embeddings, strict=True)]
        np.testing.assert_allclose(np.mean(rows, axis=0), caught["outputs"], rtol=1e-4, atol=1e-6)


def test_features_that_are_added_to_are_no_heads_of_an_ensemble(images):
    given = image()
    tokens = layers.Reshape((SIDE, SIDE * 3))(given)
    block = layers.Add()([tokens, layers.Dense(SIDE * 3, name="block")(tokens)])
    caught, _, said = read(keras.Model(given, layers.GlobalAveragePooling1D()(block)), images(3)[0])

    assert set(caught) == {"outputs"}
    assert "layers='auto' cannot tell what feeds the model's answer" in said[0]


def test_an_answer_without_weights_is_read_and_its_embedding_asked_for(images):
    model, (x, _) = keras.Sequential([image(), layers.GlobalMaxPooling2D(), layers.Rescaling(4.0)]), images(3)
    caught, _, said = read(model, x)

    np.testing.assert_allclose(caught["outputs"], x.max(axis=(1, 2)) * 4)
    assert set(caught) == {"outputs"}
    assert "layers='auto' cannot tell what feeds the model's answer" in said[0]


def test_frames_of_time_distributed_are_rows_in_the_order_of_the_images(images):
    frame = keras.Sequential(
        [image(), layers.GlobalAveragePooling2D(name="pool"), layers.Dense(CLASSES, name="head")], name="frame"
    )
    given = keras.Input((3, SIDE, SIDE, 3))
    model, x = keras.Model(given, layers.TimeDistributed(frame, name="frames")(given)), images(12)[0]
    caught, infos, said = read(model, x.reshape(4, 3, SIDE, SIDE, 3))

    assert said == []
    np.testing.assert_allclose(caught["outputs"], ops.convert_to_numpy(frame(x)), rtol=1e-5, atol=1e-6)
    (embedding,) = [key for key in caught if key != "outputs"]
    assert embedding == "embeddings/frames/frame/head.input"
    np.testing.assert_allclose(caught[embedding], x.mean(axis=(1, 2)), rtol=1e-5)
    assert infos["outputs"]["layer"] == "frames/frame/head"


def test_of_an_output_that_is_named_what_feeds_that_is_the_embedding(images):
    caught, infos, _ = read(two_heads(lambda main, aux: {"main": main, "aux": aux}), images(3)[0], outputs="main")

    assert set(caught) == {"outputs", "embeddings/main.input"}
    assert "auto" not in infos["outputs"]


class Gan(keras.Model):
    """As in Keras's guides: a step of its own, and no `call`."""

    def __init__(self):
        super().__init__()
        self.discriminator = keras.Sequential([image(), layers.Flatten(), layers.Dense(1)], name="discriminator")
        self.generator = keras.Sequential([keras.Input((2,)), layers.Dense(12, name="noise")], name="generator")
        self.built = True

    def train_step(self, *arguments):
        x = keras.tree.flatten(arguments[-1])[0]
        if keras.backend.backend() == "jax":  # parts are called with their variables there, which takes many lines
            return {"loss": ops.mean(x)}, arguments[0]
        self.generator(ops.ones((2, 2)))
        return {"loss": ops.mean(self.discriminator(x))}


def test_of_a_step_that_never_calls_the_model_nothing_is_taken_for_its_answer(images):
    model = Gan()
    model.compile()
    callback = BaselineCallback(clean_windows=0)
    model.fit(images(8)[0], batch_size=4, verbose=0, callbacks=[callback])

    assert list(callback.baseline_.reference.groups) == ["inputs"]
    (message,) = [each for each in callback.baseline_.warnings if each.startswith("outputs")]
    assert "a step of Gan calls layers and never the model itself" in message
    assert "'discriminator' (1)" in message
    assert "Pass outputs=None and layers=[" in message
    if keras.backend.backend() != "jax":
        followed = BaselineCallback(["discriminator"], outputs=None, clean_windows=0)
        model.fit(images(8)[0], batch_size=4, verbose=0, callbacks=[followed])
        assert set(followed.baseline_.reference.groups) == {"inputs", "embeddings/discriminator"}
        assert not [each for each in followed.baseline_.warnings if each.startswith(("outputs", "layers"))]


class TwoWithDropout(TwoAnswers):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.drop, self.traces = layers.Dropout(0.3), []

    def call(self, x, training=False):
        self.traces.append(1)
        features = self.drop(self.fc(self.pool(x)), training=training)
        return {"kind": self.head(features), "box": self.other(features)}


def fitted(make, callback, images, **compile_arguments):
    """A model after two epochs; its history and variables."""
    keras.utils.set_random_seed(1)
    model, (x, labels), (held_out, of_those) = make(), images(32), images(16, 1)  # whole batches: one shape to compile
    y, y_too = ({"kind": kinds, "box": of[:, 0, :2, 0]} for kinds, of in ((labels, x), (of_those, held_out)))
    model.compile("sgd", {"kind": CE, "box": "mse"}, **compile_arguments)
    arguments = {"validation_data": (held_out, y_too), "batch_size": 16, "epochs": 2, "verbose": 0}
    history = model.fit(x, y, callbacks=[callback] if callback else [], **arguments).history
    return model, history, [ops.convert_to_numpy(value) for value in model.variables]


@pytest.mark.parametrize("jit_compile", [False, True] if keras.backend.backend() != "torch" else [False])
def test_heads_of_a_fit_are_groups_with_their_labels_and_training_is_the_same(jit_compile, images, counts):
    callback = BaselineCallback(training="all", clean_windows=0)
    plain, history, values = fitted(TwoWithDropout, None, images, jit_compile=jit_compile)
    model, history_too, values_too = fitted(TwoWithDropout, callback, images, jit_compile=jit_compile)
    baseline, groups = callback.baseline_, callback.baseline_.reference.groups

    assert history_too == history
    for value, other in zip(values_too, values, strict=True):
        np.testing.assert_array_equal(value, other)
    assert len(model.traces) == len(plain.traces)  # the forward pass runs, or is traced, as often
    assert baseline.warnings == []
    answers = {"outputs/box", "outputs/kind", "embeddings/other.input", "labels/box", "labels/kind"}
    assert counts(baseline.reference) == dict.fromkeys({"inputs", *answers}, 16)
    assert counts(baseline.training) == dict.fromkeys({"inputs", *answers}, 32)
    assert (groups["outputs/kind"].info["kind"], groups["outputs/box"].info["kind"]) == ("logits", "values")
    assert dict(groups["labels/kind"].categories[""].top(9)) == label_counts(images(16, 1)[1])
    held_out = images(16, 1)[0]
    for name, rows in (
        ("outputs/box", ops.convert_to_numpy(model(held_out)["box"])),
        ("labels/box", held_out[:, 0, :2, 0]),
        ("embeddings/other.input", ops.convert_to_numpy(model.fc(held_out.mean(axis=(1, 2))))),
    ):
        np.testing.assert_allclose(groups[name].bank.min, rows.min(axis=0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(groups[name].bank.max, rows.max(axis=0), rtol=1e-4, atol=1e-6)


def label_counts(labels):
    values, numbers = np.unique(labels, return_counts=True)
    return {str(value): int(n) for value, n in zip(values, numbers, strict=True)}


def test_labels_in_a_list_belong_to_the_heads_in_their_order(images):
    model, (x, labels) = two_heads(lambda main, aux: [main, aux]), images(24)
    model.compile("sgd", [CE, CE])
    callback = BaselineCallback(clean_windows=0)
    y = [labels, (labels + 1) % CLASSES]
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[callback])
    groups = callback.baseline_.reference.groups

    assert callback.baseline_.warnings == []
    assert {name for name in groups if name != "inputs"} == {
        "outputs/main", "outputs/aux", "labels/main", "labels/aux", "embeddings/main.input", "embeddings/aux.input"
    }  # fmt: skip
    for name, rows in zip(("labels/main", "labels/aux"), y, strict=True):
        assert dict(groups[name].categories[""].top(9)) == label_counts(rows)
    assert groups["labels/aux"].info["read_from"] == 1


def test_labels_and_loss_of_the_key_that_is_the_whole_answer_are_found_by_it(images):
    given = image()
    features, (x, labels) = cnn(given), images(24)
    model = keras.Model(given, {"logits": layers.Dense(CLASSES, name="main")(features), "features": features})
    model.compile("sgd", {"logits": CE, "features": None})
    callback = BaselineCallback(clean_windows=0)
    y = {"logits": labels, "features": np.zeros((24, 8), np.float32)}
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[callback])
    groups = callback.baseline_.reference.groups

    (said,) = callback.baseline_.warnings
    assert "'features' beside what its name says is the answer" in said
    assert groups["outputs"].info["loss"] == "cross_entropy"
    assert groups["labels"].info["read_from"] == "logits"
    assert dict(groups["labels"].categories[""].top(9)) == label_counts(labels)


def compiled(make, loss):
    model = make()
    model.compile("sgd", loss)
    return model


def with_a_picture():
    """A head that is read, beside one that is none."""
    given = image()
    features = cnn(given)
    picture = layers.Reshape((SIDE, SIDE, 3))(layers.Dense(SIDE * SIDE * 3)(features))
    return keras.Model(given, {"cls": layers.Dense(CLASSES, name="cls")(features), "picture": picture})


def nested_heads():
    return two_heads(lambda main, aux: {"main": {"inner": main}, "aux": aux})


class Contrastive:
    """Answers features; its loss knows no labels."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.square(y_pred - ops.roll(y_pred, 1, axis=0)))


class ContrastiveGraph(Contrastive, keras.Model):
    """Made of a graph."""


class ContrastiveSubclass(Contrastive, HeadFirst):
    """With a `call` of its own."""


def contrastive():
    given = image()
    model = ContrastiveGraph(given, layers.Dense(6, name="projection")(cnn(given)))
    model.compile("sgd")
    return model


def subclassed_contrastive():
    model = built(ContrastiveSubclass)
    model.compile("sgd")
    return model


def regularised():
    """All that it learns by is what a layer adds."""
    given = image()
    features = layers.Dense(6, activity_regularizer="l2", name="embedding")(cnn(given))
    return keras.Model(given, layers.Dense(CLASSES, name="head")(features))


def several():
    return two_heads(lambda main, aux: {"main": main, "aux": aux})


def in_a_list():
    return two_heads(lambda main, aux: [main, aux])


X, Y = np.random.default_rng(0).random((8, SIDE, SIDE, 3), np.float32), np.arange(8) % CLASSES
ZEROS = np.zeros(8)
PLAIN = {"outputs", "labels"}
TWO = {"outputs/main", "outputs/aux", "embeddings/main.input", "embeddings/aux.input"}
#: A compiled model, its `y`, and the groups there are beside the inputs.
FITS = {
    **{
        name: (lambda make=make, loss=loss: compiled(make, loss), Y, {*PLAIN, f"embeddings/{source}.input"})
        for name, (make, _, source) in SINGLE.items()
        for loss in (["sparse_categorical_crossentropy"] if name in ("operation last", "all convolutional") else [CE])
    },
    "heads by key": (lambda: compiled(several, CE), {"main": Y, "aux": Y}, TWO | {"labels/main", "labels/aux"}),
    "heads in a list": (lambda: compiled(in_a_list, [CE, CE]), [Y, Y], TWO | {"labels/main", "labels/aux"}),
    "heads in dicts": (
        lambda: compiled(nested_heads, {"main": {"inner": CE}, "aux": CE}),
        {"main": {"inner": Y}, "aux": Y},
        {"outputs/main.inner", "outputs/aux", "labels/main.inner", "labels/aux"}
        | {"embeddings/main.input", "embeddings/aux.input"},
    ),
    "labels of one head": (lambda: compiled(several, {"main": CE}), {"main": Y}, TWO | {"labels/main"}),
    "a head without a loss": (
        lambda: compiled(several, {"main": CE, "aux": None}), {"main": Y, "aux": ZEROS}, TWO | {"labels/main"},
    ),
    "a loss that is None": (lambda: compiled(in_a_list, [None, CE]), [ZEROS, Y], TWO | {"labels/aux"}),
    "y of the only head with a loss": (lambda: compiled(in_a_list, [CE, None]), Y, TWO | {"labels/main"}),
    "one head that is read": (
        lambda: compiled(with_a_picture, {"cls": CE, "picture": "mse"}), {"cls": Y, "picture": X},
        {*PLAIN, "embeddings/cls.input"},
    ),
    "heads of a subclass": (
        lambda: compiled(lambda: built(TwoAnswers), {"kind": CE, "box": "mse"}), {"kind": Y, "box": X[:, 0, :2, 0]},
        {"outputs/kind", "outputs/box", "labels/kind", "labels/box", "embeddings/other.input"},
    ),
    "a picture": (lambda: compiled(autoencoder, "mse"), X, set()),
    "a map": (lambda: compiled(segmenting, CE), X[..., 0] > 0.5, {"embeddings/classes.input"}),
    "several tensors": (lambda: compiled(lambda: called(Split()), CE), Y, PLAIN),
    "an ensemble": (
        lambda: compiled(averaged_models, "sparse_categorical_crossentropy"), Y,
        {*PLAIN, "embeddings/member0/head0.input", "embeddings/member1/head1.input"},
    ),
    "an ensemble of a subclass": (
        lambda: compiled(lambda: called(Members()), CE), Y,
        {*PLAIN, "embeddings/head0.input", "embeddings/head1.input"},
    ),
    "no loss": (lambda: compiled(regularised, None), ZEROS, {"outputs", "embeddings/head.input"}),
    "features": (contrastive, None, set()),
    "features of a subclass": (subclassed_contrastive, None, set()),
    "features of two views": (contrastive, X[::-1], set()),
}  # fmt: skip


def called(model):
    model(X[:1])
    return model


@pytest.mark.parametrize("case", FITS)
@pytest.mark.filterwarnings("ignore:Gradients do not exist", "ignore:.*does not have a `build..` method")
def test_a_check_and_both_profiles_of_a_fit_name_the_same_groups_and_say_the_same(case):
    make, y, expected = FITS[case]
    model, callback = make(), BaselineCallback(clean_windows=0)
    check = callback.check(model, X if y is None else (X, y))
    model.fit(X, y, validation_data=(X, y), verbose=0, callbacks=[callback])
    baseline = callback.baseline_

    assert {row.group for row in check.rows} == {"inputs", *expected}
    assert not [row for row in check.rows if row.read == "could not be read"]
    assert set(baseline.reference.groups) == {"inputs", *expected}
    assert set(baseline.training.groups) == {"inputs", *(name for name in expected if name.startswith("labels"))}
    assert set(check.warnings) == set(baseline.warnings)


@pytest.mark.parametrize(("name", "y"), [("dict", {"main": Y, "aux": ZEROS}), ("list", [Y, ZEROS])])
def test_what_no_loss_compares_is_not_read_as_labels_unless_it_is_named(name, y):
    make, loss = (several, {"main": CE}) if name == "dict" else (in_a_list, [CE, None])
    place = "aux" if name == "dict" else 1
    model = compiled(make, loss)

    (said,) = [each for each in BaselineCallback().check(model, (X, y)).warnings if each.startswith("labels")]
    assert f"y at {place!r} is not read" in said
    other = "main" if name == "dict" else 0
    assert said.endswith(
        f"Compile the model with a metric for it if these are labels, or pass target={other!r} for the others alone"
    )
    for target, head in ((place, "aux"), (other, "main")):
        followed = BaselineCallback(target=target).check(model, (X, y))
        assert [row.group for row in followed.rows if row.group.startswith("labels")] == [f"labels/{head}"]
        assert not [each for each in followed.warnings if each.startswith("labels without")]
    model.compile("sgd", loss, metrics={"aux": "accuracy"} if name == "dict" else [[], ["accuracy"]])
    measured = BaselineCallback().check(model, (X, y))
    assert {row.group for row in measured.rows} >= {"labels/main", "labels/aux"}


def test_y_of_a_model_without_a_loss_is_not_read_unless_it_is_said_to_be_labels():
    model = compiled(arcface, None)

    (said,) = [each for each in BaselineCallback().check(model, (X, ZEROS)).warnings if "labels without" in each]
    assert "Pass target='y' if these are labels, or target=None" in said
    for target, read_as in (("y", ["labels"]), (None, [])):
        check = BaselineCallback(target=target).check(model, (X, Y))
        assert [row.group for row in check.rows if row.group == "labels"] == read_as
        assert not [each for each in check.warnings if "labels without" in each]
    assert "labels" in [row.group for row in BaselineCallback().check(arcface(), (X, Y)).rows]  # is not compiled yet


def test_one_kind_of_labels_beside_several_answers_is_said_and_what_is_said_works():
    (said,) = BaselineCallback().check(two_answers_of_one_y(), (X, Y)).warnings[:1]

    assert "the model answers 'main' and 'aux' and y has one kind of labels for them all" in said
    followed = BaselineCallback(outputs="main").check(two_answers_of_one_y(), (X, Y))
    assert [row.group for row in followed.rows] == ["inputs", "embeddings/main.input", "outputs", "labels"]
    assert not [each for each in followed.warnings if each.startswith("labels")]


class OneLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return CE(y, keras.tree.flatten(y_pred)[0])


def two_answers_of_one_y():
    plain = in_a_list()
    model = OneLoss(plain.inputs, plain.outputs)
    model.compile("sgd")
    return model


@pytest.mark.parametrize("make", [contrastive, subclassed_contrastive])
def test_what_nothing_compares_with_labels_is_not_called_an_answer_and_what_is_said_works(make):
    model = make()
    (said,) = BaselineCallback().check(model, X).warnings

    assert "which no compiled loss and no y tell to be more than features" in said
    assert "Pass outputs=None and layers=[" in said
    name = "pool"
    assert f"'{name}' (" in said
    callback = BaselineCallback([name], outputs=None, clean_windows=0)
    model.fit(X, validation_data=(X, None), verbose=0, callbacks=[callback])

    assert callback.baseline_.warnings == []
    assert set(callback.baseline_.reference.groups) == {"inputs", f"embeddings/{name}"}
    named = BaselineCallback(outputs="head" if make is subclassed_contrastive else "projection")
    assert "outputs" in [row.group for row in named.check(model, X).rows]


def test_features_are_an_answer_in_a_later_fit_that_has_labels():
    model, callback = contrastive(), BaselineCallback(clean_windows=0)
    for y, expected in ((None, set()), (Y, {*PLAIN, "embeddings/projection.input"})):
        model.fit(X, y, validation_data=(X, y), verbose=0, callbacks=[callback])
        assert set(callback.baseline_.reference.groups) == {"inputs", *expected}


def test_a_model_that_answers_without_labels_in_production_is_read_as_its_baseline(images):
    """Predicting knows no labels, and a baseline tells what is an answer."""
    model, making = contrastive(), BaselineCallback(clean_windows=0)
    model.predict(X, verbose=0, callbacks=[making])
    assert "outputs" in making.baseline_.reference.groups
    callback = DriftCallback(making.baseline_, window=8, alarm=0.5, warn=0.999)
    model.evaluate(X, None, verbose=0, callbacks=[callback])

    assert callback.monitor_.status.failures == {}
    assert "outputs" in {group.name for report in callback.reports_ for group in report.report.groups}


def test_check_says_how_the_answer_was_found(images):
    model, (x, labels) = two_heads(lambda main, aux: {"main": main, "aux": aux}), images(12)
    model.compile("sgd", {"main": CE, "aux": CE})
    check = BaselineCallback().check(model, (x, {"main": labels, "aux": labels}))

    assert check.ok, check.warnings
    reads = {row.group: row.found for row in check.rows}
    assert "what the model returns as 'main', made by 'main'" in reads["outputs/main"]
    assert "what goes into 'aux', which the answer 'aux' comes from" in reads["embeddings/aux.input"]
    for make in (autoencoder, segmenting):
        assert not BaselineCallback().check(make(), x).ok


@pytest.mark.parametrize(
    "make",
    [TwoAnswers, lambda: two_heads(lambda main, aux: {"kind": main, "box": aux}), averaged_models, with_a_picture],
    ids=["subclass", "graph", "ensemble", "one of several heads"],
)
def test_what_auto_found_is_found_again_in_a_model_with_other_names(make, images):
    models = [make(), make()]
    for model in models:
        model(images(1)[0])
    for number, layer in enumerate(models[1]._flatten_layers(include_self=False)):
        layer.name = f"other_{number}"
    models[1].set_weights(models[0].get_weights())
    x, _ = images(200, 1)
    making = BaselineCallback(clean_windows=0)
    models[0].predict(x, verbose=0, callbacks=[making])
    callback = DriftCallback(making.baseline_, window=200, alarm=0.5, warn=0.999)
    models[1].predict(images(200, 2)[0], verbose=0, callbacks=[callback])

    tested = {group.name for report in callback.reports_ for group in report.report.groups}
    assert tested == set(making.baseline_.reference.groups)
    assert callback.monitor_.status.failures == {}


@pytest.mark.backend("tensorflow")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_names_of_the_classes_of_a_folder_of_images_are_kept(images, tmp_path, compile_model):
    x, _ = images(8)
    for number, name in enumerate(["ant", "bee", "cow", "dog"]):
        (tmp_path / "set" / name).mkdir(parents=True)
        for place in (0, 1):
            keras.utils.save_img(tmp_path / "set" / name / f"{place}.png", x[2 * number + place] * 255, scale=False)
    data = keras.utils.image_dataset_from_directory(tmp_path / "set", image_size=(SIDE, SIDE), batch_size=8, verbose=0)
    callback = BaselineCallback(clean_windows=0)
    model = compile_model(all_convolutional(), loss="sparse_categorical_crossentropy")
    train = data.map(lambda x, y: (x / 255, y)).prefetch(1)
    model.fit(train, validation_data=data, shuffle=False, verbose=0, callbacks=[callback])

    for name in ("outputs", "labels"):
        assert callback.baseline_.reference.groups[name].info["class_names"] == ["ant", "bee", "cow", "dog"]


class Auxiliary(HeadFirst):
    """A second head that answers in training only, as Inception has one."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.aux = layers.Dense(CLASSES, name="aux")

    def call(self, x, training=False):
        features = self.fc(self.pool(x))
        return (self.head(features), self.aux(features)) if training else self.head(features)

    def build(self, _):
        self.fc.build((None, 3))
        self.head.build((None, 6))
        self.aux.build((None, 6))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return sum(CE(y, each) for each in keras.tree.flatten(y_pred))


@pytest.mark.parametrize("training", ["inputs", "all"])
def test_the_answer_is_that_of_evaluation_where_training_has_more_heads(images, fit, training, warned):
    keras.utils.set_random_seed(0)
    model, callback = Auxiliary(), BaselineCallback(training=training)
    model.compile("sgd")
    fit(model, callback)

    groups = callback.baseline_.reference.groups
    assert {name for name in groups if name != "inputs"} == {"outputs", "labels", "embeddings/head.input"}
    assert (groups["outputs"].n, groups["outputs"].info["layer"]) == (24, "head")
    probabilities = ops.convert_to_numpy(ops.softmax(model(images(24, 1)[0])))
    np.testing.assert_allclose(groups["outputs"].moments.mean[:CLASSES], probabilities.mean(axis=0), atol=1e-5)
    assert warned() == callback.baseline_.warnings == []
    names = {"outputs", "labels", "embeddings/head.input"} if training == "all" else {"labels"}
    assert set(callback.baseline_.training.groups) == {"inputs", *names}


def test_the_first_epoch_of_a_model_with_more_heads_in_training_is_named_as_the_answer_is(images, fit):
    keras.utils.set_random_seed(0)
    model, callback = Auxiliary(), BaselineCallback(training="all", clean_windows=0)
    model.compile("sgd")
    fit(model, callback, epochs=1)
    baseline = callback.baseline_

    assert baseline.warnings == []
    assert set(baseline.training.groups) == set(baseline.reference.groups)
    assert (baseline.training.groups["outputs"].name, baseline.training.groups["outputs"].n) == ("outputs", 40)
    assert {name.split("/")[0] for name in baseline.training.rows.data} == {"inputs", "outputs", "embeddings", "labels"}
    assert not [name for name in baseline.training.rows.data if name.startswith(("outputs/0", "outputs/1"))]


losses = keras.losses


class Weighted(losses.BinaryCrossentropy):
    """A loss of somebody's own that is one of Keras's."""


class Own(losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(y_true - y_pred)


def said(loss, heads=(("", 3),)):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="fc")])
    model.compile(loss=loss)
    return losses_of(model, dict(heads))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("mse", ("squared", None)),
        ("mae", ("squared", None)),
        (losses.Huber(), ("squared", None)),
        (losses.mean_squared_error, ("squared", None)),
        ("binary_crossentropy", ("binary_cross_entropy", False)),
        (losses.BinaryCrossentropy(from_logits=True), ("binary_cross_entropy_with_logits", True)),
        (losses.BinaryFocalCrossentropy(), ("binary_cross_entropy", False)),
        (Weighted(from_logits=True), ("binary_cross_entropy_with_logits", True)),
        ("sparse_categorical_crossentropy", ("cross_entropy", False)),
        (losses.CategoricalCrossentropy(from_logits=True), ("cross_entropy", True)),
        ("categorical_focal_crossentropy", ("cross_entropy", False)),
        ("crossentropy", ("cross_entropy", False)),
        (losses.Dice(), ("other", None)),
        ({"fc": "mse"}, ("squared", None)),
        (["mse", "mae"], ("squared", None)),
    ],
)
def test_losses_in_all_their_forms(loss, expected):
    told = said(loss)[""]
    assert (told["loss"], told.get("from_logits")) == expected


@pytest.mark.parametrize("loss", [None, Own(), lambda y, p: keras.ops.mean(y - p), ["mse", "bce"]])
def test_what_is_not_known_is_not_said(loss):
    assert said(loss) == {}


def test_every_head_has_its_own_by_name_or_in_order():
    heads = {"box": 4, "kind": 3}
    expected = {"box": {"loss": "squared"}, "kind": {"loss": "cross_entropy", "from_logits": False}}

    assert said({"kind": "categorical_crossentropy", "box": "mse"}, heads) == expected
    assert said(["mse", "categorical_crossentropy"], heads) == expected
    assert said({"kind": "categorical_crossentropy"}, heads) == {"kind": expected["kind"]}
    assert said("mse", heads) == {head: {"loss": "squared"} for head in heads}
    assert said({"q": {"box": "mse"}, "kind": None}, {"q.box": 4, "kind": 3}) == {"q.box": {"loss": "squared"}}


class OwnStep(keras.Sequential):
    def train_step(self, *arguments):
        return super().train_step(*arguments)


@pytest.mark.parametrize(
    ("arguments", "idle"),
    [
        ({"loss": {"a": "mse", "b": "mse"}}, []),
        ({"loss": {"a": "mse"}}, ["b"]),
        ({"loss": ["mse", None]}, ["b"]),
        ({"loss": "mse"}, []),
        ({"loss": {"a": "mse"}, "metrics": {"b": ["mae"]}}, []),
        ({"loss": {"a": "mse"}, "weighted_metrics": {"b": "mae"}}, []),
        ({}, ["a", "b"]),
        (None, []),
    ],
)
def test_what_is_held_against_nothing_that_was_compiled(arguments, idle):
    for kind in (keras.Sequential, OwnStep):
        model = kind([keras.Input((4,)), keras.layers.Dense(3, name="fc")])
        if arguments is not None:
            model.compile(**arguments)
        assert held_against_nothing(model, ["a", "b"]) == ([] if kind is OwnStep else idle)


def dense(units, activation):
    layers = [keras.Input((16, 16, 3)), keras.layers.GlobalAveragePooling2D(name="pool")]
    return keras.Sequential([*layers, keras.layers.Dense(units, activation=activation, name="fc")])


RNG = np.random.default_rng(0)
TAGS = np.eye(5, dtype=np.float32)[RNG.integers(0, 5, 16)]  # one tag in every row of the first batch
TAGS[8:] = RNG.random((8, 5)) < 0.5
TWO_CLASSES = RNG.integers(0, 2, (16, 1)).astype(np.float32)
ALIKE = np.eye(5, dtype=np.float32)[:1].repeat(16, 0)


@pytest.mark.parametrize(
    ("units", "activation", "loss", "y", "kind", "read_as"),
    [
        (4, None, "mse", RNG.random((16, 4), np.float32), "values", "values"),
        (5, None, losses.BinaryCrossentropy(from_logits=True), TAGS, "multilabel_logits", "multi_hot"),
        (5, "sigmoid", "binary_crossentropy", TAGS, "multilabel_probabilities", "multi_hot"),
        (1, "sigmoid", "binary_crossentropy", TWO_CLASSES, "probabilities", "classes"),
        (5, "softmax", "categorical_crossentropy", ALIKE, "probabilities", "classes"),
    ],
)  # fmt: skip
def test_the_loss_decides_what_answers_and_labels_are(units, activation, loss, y, kind, read_as, images):
    model, (x, _) = dense(units, activation), images(16)
    model.compile("sgd", loss)
    callback = BaselineCallback(clean_windows=0)
    model.fit(x, y, validation_data=(x, y), batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
    baseline = callback.baseline_

    assert baseline.warnings == []
    assert baseline.reference.groups["outputs"].info["kind"] == kind
    for profile in (baseline.reference, baseline.training):
        assert profile.groups["labels"].info["read_as"] == read_as
        assert profile.groups["labels"].n == 16


def test_an_embedding_of_length_one_is_not_silently_logits_and_what_is_said_of_it_works(images):
    def pulled(y, z):
        return keras.ops.mean(keras.ops.square(z - keras.ops.roll(z, 1, axis=0)))

    x, labels = images(16)
    layers = [keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(8)]
    model = keras.Sequential([*layers, keras.layers.UnitNormalization(name="unit")])
    model.compile("sgd", pulled)

    (said,) = BaselineCallback().check(model, (x, labels)).warnings
    assert "every row has length 1" in said
    followed = BaselineCallback(["unit"], outputs=None).check(model, (x, labels))
    assert followed.ok, followed.warnings
    assert [row.group for row in followed.rows] == ["inputs", "embeddings/unit", "labels"]
    assert BaselineCallback(task="classification").check(model, (x, labels)).ok


@pytest.mark.parametrize("activation", ["sigmoid", None])
@pytest.mark.parametrize("hard", [0, 8])
def test_numbers_between_0_and_1_beside_one_unit_are_shares_of_the_second_class(activation, hard, images):
    """As label smoothing and MixUp make them, from the first batch on or later."""
    model, (x, labels) = dense(1, activation), images(16)
    model.compile("sgd", losses.BinaryCrossentropy(from_logits=activation is None))
    second = labels % 2 == 1
    y = np.where(second, 0.9, 0.1).astype(np.float32)
    y[:hard] = second[:hard]
    callback = BaselineCallback(clean_windows=0)
    assert callback.check(model, (x, y)).ok
    model.fit(x, y, validation_data=(x, y), batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
    baseline, counted = callback.baseline_, {"0": int((~second).sum()), "1": int(second.sum())}

    assert baseline.warnings == []
    for profile in (baseline.reference, baseline.training):
        assert dict(profile.groups["labels"].categories[""].top(9)) == counted
    production = Profiler(like=baseline)
    production.update(labels=y)
    assert dict(production.profile().groups["labels"].categories[""].top(9)) == counted


def test_one_sigmoid_unit_is_two_classes_and_there_is_a_profile_of_each(images):
    model, (x, labels) = dense(1, "sigmoid"), images(24)
    model.compile("sgd", "binary_crossentropy")
    callback = BaselineCallback(clean_windows=0, segment_by="label")
    y = (labels % 2)[:, None].astype(np.float32)
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[callback])

    assert callback.baseline_.warnings == []
    for profile in (callback.baseline_.reference, callback.baseline_.training):
        assert {name: segment.n for name, segment in profile.segments.items()} == {
            "0": int((labels % 2 == 0).sum()),
            "1": int((labels % 2 == 1).sum()),
        }
