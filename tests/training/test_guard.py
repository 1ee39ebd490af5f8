"""Hooks that fail become problems; wrong arguments pass."""

from __future__ import annotations

import pytest

from lensai_integrations.errors import InputError
from lensai_integrations.problems import Problems, guarded


class Fit:
    def __init__(self):
        self.problems = Problems(quiet=True)


class Callback:
    def __init__(self, fit):
        self._fit = fit

    @guarded("starting", InputError)
    def on_start(self, error):
        raise error


def test_what_a_hook_raises_is_a_problem():
    callback = Callback(Fit())
    callback.on_start(ValueError("injected"))
    assert callback._fit.problems.messages == ["starting: ValueError('injected')"]


def test_wrong_arguments_and_interruptions_pass():
    for error in (InputError("layers"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            Callback(Fit()).on_start(error)


def test_without_a_fit_nothing_is_done():
    Callback(None).on_start(ValueError("injected"))
