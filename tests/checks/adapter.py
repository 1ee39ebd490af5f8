"""What every adapter has to hold, whatever its framework trains: a suite that is ready for a new one.

Its tests derive from `Adapter`, or from `CallbackAdapter` if it logs baselines, and say how the framework trains:

    class TestMine(CallbackAdapter):
        declared = ((BaselineCallback, Options, {"since"}),)

        @pytest.fixture
        def train(self): ...

Fixtures of a subclass:

* `train(beside, **how)`: train afresh, from the same seeds, with what is `beside` the model, or None; gives all that
  the training decides (weights, optimizer, losses, states of generators), as a list of arrays, and what was left on
  the model, which should be nothing;
* `make(**arguments)`: what is put beside a model;
* `asked`: pairs of these arguments and of `how`, one for each way of training that is to be the same.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import MISSING, fields
from inspect import Parameter

import numpy as np
import pytest

from lensai_integrations import Baseline, Profiler
from lensai_integrations.measures.arguments import arguments_in
from lensai_integrations.training import finish
from lensai_integrations.training.recording import Recording


def fails(*_, **__):
    raise RuntimeError("injected")


def assert_same(values, expected):
    """The same arrays, bit for bit."""
    assert len(values) == len(expected)
    for value, other in zip(map(np.asarray, values), map(np.asarray, expected), strict=True):
        assert (value.dtype, value.shape) == (other.dtype, other.shape)
        assert value.tobytes() == other.tobytes()


class Adapter:
    """Training is what it is without; nothing that fails inside ends it; arguments are those of the options."""

    #: What users call, the options that it is asked for, and those of their fields that it has no use for.
    declared = ()
    #: How often a failure is said, at the most: of training and of validation.
    most_said = 2

    @staticmethod
    def profile_of(beside):
        """The reference profile that was made, or None."""
        baseline = beside.baseline_
        return None if baseline is None else baseline.reference

    @staticmethod
    def warnings_of(beside):
        """What is said to be missing of what was made."""
        return [] if beside.baseline_ is None else beside.baseline_.warnings

    def test_training_is_bit_identical(self, train, make, asked):
        arguments, how = asked
        beside = make(**arguments)
        expected, _ = train(None, **how)
        values, left = train(beside, **how)

        assert_same(values, expected)
        assert not left
        assert self.profile_of(beside).n

    def test_the_comparison_would_notice(self, train):
        values, _ = train(None)

        assert len(values) > 1
        with pytest.raises(AssertionError):
            assert_same([*values[:-1], np.asarray(values[-1]) + 1], values)

    @pytest.mark.parametrize(
        ("owner", "name"),
        [
            (Profiler, "update"),
            (Profiler, "profile"),
            (Recording, "start"),
            (Recording, "take"),
            (Recording, "record"),
            (Recording, "finish"),
        ],
    )
    def test_a_failing_part_is_no_end(self, train, make, monkeypatch, caplog, owner, name):
        expected, _ = train(None)
        caplog.clear()
        monkeypatch.setattr(owner, name, fails)
        beside = make()
        values, left = train(beside)

        assert_same(values, expected)
        assert not left
        profile = self.profile_of(beside)
        assert profile is None or not profile.n or "injected" in " ".join(self.warnings_of(beside))
        records = [r for r in caplog.records if r.name.startswith("lensai") and r.levelno >= logging.WARNING]
        beginnings = ("about the baseline", "there is no baseline")
        said = [m for r in records if "injected" in (m := r.getMessage()) and not m.startswith(beginnings)]
        assert 1 <= len(said) <= self.most_said
        assert len(records) < 10

    def test_defaults_are_those_of_the_options_and_all_are_documented_once(self):
        assert self.declared
        for called, options, unused in self.declared:
            assert_declared(called, options, unused)


class CallbackAdapter(Adapter):
    """An adapter whose training ends with a baseline that is saved and logged."""

    def test_one_baseline_is_saved_and_handed_over_to_be_logged(self, train, make, monkeypatch):
        logged, upload = [], finish.upload

        def noted(files, folder, *arguments):
            logged.append(folder)
            return upload(files, folder, *arguments)

        monkeypatch.setattr(finish, "upload", noted)
        beside = make()
        train(beside)

        assert logged == [beside.directory_]
        assert [path.parent for path in beside.directory_.parent.rglob("manifest.json")] == [beside.directory_]
        assert Baseline.load(beside.directory_).n == beside.baseline_.n > 0


def assert_declared(called, options, unused):
    """A signature has the defaults of the options, spelled out for editors, and its documentation, put in once."""
    parameters = inspect.signature(called).parameters
    own = {field.name: field for field in fields(options) if field.init}
    assert own.keys() - parameters.keys() == set(unused)
    for name in own.keys() & parameters.keys():
        parameter, field = parameters[name], own[name]
        assert parameter.annotation is not Parameter.empty, name
        if parameter.kind is not Parameter.VAR_KEYWORD:
            default = field.default if field.default is not MISSING else field.default_factory()
            assert parameter.default == default, name
            assert type(parameter.default) is type(default), name
    documentation, texts, told = (
        inspect.getdoc(called),
        arguments_in(inspect.getdoc(called)),
        arguments_in(options.__doc__),
    )
    assert list(texts) == list(parameters)  # each once, in their order
    source = " ".join(inspect.getsource(called).split())
    for name in own.keys() & parameters.keys():
        assert texts[name].startswith(told[name])
        assert documentation.count(f"\n    {name}: ") == 1
        assert told[name] not in source, f"the documentation of {name} is written again"
