"""The functions of a model, exchanged and put back; models whose functions cannot be."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from lensai_integrations.keras import BaselineCallback
from lensai_integrations.keras.functions import Exchange, GuardedFunction, why_not
from lensai_integrations.keras.taps import NotProfiledError, replaced
from lensai_integrations.problems import Problems


def own(network, *names):
    """The model, as one of a class that makes functions of its own."""

    def maker(name):
        def make(self, force=False):
            self.__dict__.setdefault("made", []).append(name)
            return getattr(keras.Sequential, name)(self, force=force)

        return make

    network.__class__ = type("Own", (keras.Sequential,), {name: maker(name) for name in names})
    return network


def test_a_model_that_makes_its_own_train_function_is_left_alone(model, fit, variables, warned, counts):
    plain = own(model(), "make_train_function")
    history = fit(plain)
    trains, callback = own(model(), "make_train_function"), BaselineCallback(["embedding"])

    assert fit(trains, callback) == history
    assert trains.made == plain.made
    for expected, value in zip(variables(plain), variables(trains), strict=True):
        np.testing.assert_array_equal(value, expected)
    assert warned() == [
        "train steps: Own makes its own train_function, which cannot be rebuilt: it is left alone and not profiled;"
        " override train_step instead"
    ]
    assert counts(callback.baseline_.reference)["embeddings/embedding"] == 24  # the validation pass is Keras's own
    assert callback.baseline_.training is None


def test_a_model_that_makes_all_its_functions_has_no_baseline(model, fit, warned, tmp_path):
    callback = BaselineCallback()
    fit(own(model(), "make_train_function", "make_test_function"), callback)

    assert callback.baseline_ is None
    assert not (tmp_path / "lensai_baseline").exists()
    assert len(warned()) == 3
    assert warned()[-1].startswith("there is no baseline: no whole validation pass was profiled (train steps: Own")


def test_a_model_that_makes_its_own_test_function_has_the_training_data_as_reference(model, fit, counts):
    callback = BaselineCallback(["embedding"])
    fit(own(model(), "make_test_function"), callback)

    assert counts(callback.baseline_.reference) == {"inputs": 40, "labels": 40}
    assert any("there was no validation pass" in warning for warning in callback.baseline_.warnings)
    assert any("Own makes its own test_function" in warning for warning in callback.baseline_.warnings)


def test_keras_own_makers_can_be_called_again(model):
    assert why_not(model(), "train") == why_not(model(), "test") == why_not(model(), "predict") == ""


def test_an_attribute_is_replaced_for_a_while():
    class Owner:
        def __setattr__(self, name, value):
            raise AssertionError("bookkeeping")

    owner = Owner()
    with replaced(owner, "step", 1):
        with replaced(owner, "step", 2):
            assert owner.step == 2
        assert owner.step == 1
    assert vars(owner) == {}


class Model:
    """As little of a model as an exchange needs."""

    def __init__(self):
        self.train_function = self.plain

    def plain(self, *arguments):
        return ("plain", *arguments)

    @staticmethod
    def make_train_function():
        """As Keras's: see below."""


Model.make_train_function.__module__ = "keras.fake"


@pytest.fixture
def exchanged(monkeypatch):
    """`exchanged(function)`: a model, its problems and an exchange for that function; what it was told."""

    def make(function, owner=None):
        class Steps:
            @staticmethod
            def build(*_):
                return function

        monkeypatch.setattr("lensai_integrations.keras.functions.steps", Steps)
        told, problems, owner = [], Problems(quiet=True), owner or Model()
        exchange = Exchange(owner, "train", None, dict, print, problems, lambda: told.append(1), list)
        exchange.exchange()
        return owner, exchange, problems, told

    return make


def test_the_original_comes_back(exchanged):
    model, exchange, _, _ = exchanged(lambda data: ("ours", data))
    original = exchange._original
    assert (exchange.active, model.train_function(1)) == (True, ("ours", 1))
    ours = model.train_function
    exchange.exchange()
    assert model.train_function is ours
    exchange.restore()
    assert model.train_function == original == model.plain
    exchange.exchange()
    assert model.train_function is ours  # nothing is traced twice


def test_ours_that_somebody_else_calls_later_is_the_models_own(exchanged):
    model, exchange, _, _ = exchanged(lambda data: ("ours", data))
    kept = model.train_function
    exchange.restore()

    assert kept(1) == ("plain", 1)


def test_what_somebody_put_there_meanwhile_stays(exchanged):
    model, exchange, _, _ = exchanged(lambda data: ("ours", data))
    model.train_function = theirs = lambda data: data
    exchange.restore()

    assert model.train_function is theirs


def test_a_new_function_of_the_model_is_exchanged_anew(exchanged):
    model, exchange, _, _ = exchanged(lambda data: ("ours", data))
    exchange.restore()
    model.train_function = compiled_again = lambda data: data
    exchange.exchange()
    assert model.train_function(1) == ("ours", 1)
    exchange.restore()
    assert model.train_function is compiled_again


def test_a_function_that_never_worked_gives_way_with_the_same_arguments(exchanged):
    def ours(data):
        raise NotProfiledError([data]) from ValueError("no trace")

    model, _, problems, told = exchanged(ours)

    assert model.train_function(1) == ("plain", [1])
    assert model.train_function(2) == ("plain", 2)
    assert problems.messages == ["train steps: they run without being profiled: ValueError('no trace')"]
    assert told == []


def test_a_function_that_has_worked_raises_what_it_raises(exchanged):
    def ours(data):
        if data == 2:
            raise NotProfiledError(data)
        return data

    model, _, problems, told = exchanged(ours)
    assert model.train_function(1) == 1
    with pytest.raises(NotProfiledError):
        model.train_function(2)
    assert (problems.messages, told) == ([], [1])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_step_that_raises_is_told(exchanged, error):
    def ours(data):
        raise error

    model, exchange, _, told = exchanged(ours)
    with pytest.raises(error):
        model.train_function(1)
    assert told == [1]
    exchange.restore()
    with pytest.raises(TypeError):
        GuardedFunction(ours, len, exchange)(1)
    assert told == [1]


class OutOfRangeError(Exception):
    """As TensorFlow's."""


@pytest.mark.parametrize("error", [StopIteration, OutOfRangeError])
def test_the_end_of_the_data_is_no_interruption(exchanged, error):
    def ours(data):
        raise error

    model, _, _, told = exchanged(ours)
    with pytest.raises(error):
        model.train_function(1)
    assert told == []


def test_two_exchanges_at_once_are_one_and_a_message(exchanged):
    model, first, _, _ = exchanged(lambda data: ("first", data))
    _, second, problems, _ = exchanged(lambda data: ("second", data), model)

    assert model.train_function(1) == ("first", 1)
    assert (first.active, second.active) == (True, False)
    assert problems.messages == [
        "train steps: another callback of lensai_integrations reads these steps already: use one, with all layers"
    ]


def test_what_fails_in_picking_and_taking_is_a_problem(exchanged):
    def fails(_):
        raise ValueError("injected")

    problems = Problems(quiet=True)
    exchange = Exchange(Model(), "train", None, fails, fails, problems, list, list)

    assert (exchange._pick(1), exchange._sink(1)) == ({}, None)
    assert problems.messages == ["train steps: ValueError('injected')"]
