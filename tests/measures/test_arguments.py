"""Arguments: their documentation is put together once, and what they may be is checked once."""

from __future__ import annotations

import inspect
from importlib import import_module

import numpy as np
import pytest

from lensai_integrations.errors import InputError
from lensai_integrations.measures.arguments import arguments_in, check_numbers, check_seconds, documented

SOURCE = {"size": "How large it is.", "colour": "What it looks like."}


def painted(size, *, colour="red", shape="round", **others):
    """Paint.

    Some more of it:

    * a list

    Args:
        colour: Or `"a-very-long-word"` that is not cut where lines end, and some more words behind it, so that there
            are two lines.
        shape: Of it.
        others: Not used.

    Returns:
        Args: a word that is no section here.
    """


def test_a_docstring_has_each_argument_once_in_the_order_of_the_signature():
    documentation = documented(SOURCE)(painted).__doc__

    assert documentation.startswith("Paint.\n\nSome more of it:\n\n* a list\n\nArgs:\n    size: How large it is.\n")
    assert documentation.endswith("\n\nReturns:\n    Args: a word that is no section here.")
    assert list(arguments_in(documentation)) == ["size", "colour", "shape", "others"]
    assert arguments_in(documentation)["colour"].startswith('What it looks like. Or `"a-very-long-word"` that')
    assert max(map(len, documentation.splitlines())) <= 116


def test_only_what_is_named_is_taken_over():
    def square(size, colour):
        """A square.

        Args:
            colour: Its own.
        """

    assert arguments_in(documented(SOURCE, only=["size"])(square).__doc__) == SOURCE | {"colour": "Its own."}


def test_without_docstrings_nothing_is_done():
    def stripped(size):
        pass

    assert documented(SOURCE)(stripped).__doc__ is None
    assert documented(stripped)(stripped).__doc__ is None
    assert arguments_in("No arguments.") == {}


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), True, "60", None, 1j])
def test_no_seconds(value):
    with pytest.raises(InputError, match=r"deadline=.* must be a positive number of seconds"):
        check_seconds("deadline", value)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2), np.int64(3)])
def test_seconds(value):
    check_seconds("deadline", value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 7}, "k=7 should be a whole number from 8 to 65535"),
        ({"k": 8, "rows": 2.0}, "rows=2.0 should be a whole number from 0 to 16777216"),
        ({"seed": True}, "seed=True"),
        ({"limit": 0}, r"limit=0 should be a whole number from 1$"),
    ],
)
def test_no_whole_numbers(given, message):
    with pytest.raises(InputError, match=message):
        check_numbers(**given)


@pytest.mark.parametrize(
    "name",
    [
        "Profiler",
        "profile_dataset",
        "DriftMonitor",
        "mlflow.monitored",
        "profiling.image_files.profile_files",
        "profiling.delivered_images.Collector",
        "torch.profiled",
        "torch.watch",
        "transforms.ProfileImages",
    ],
)
def test_all_arguments_are_documented_once_in_their_order(name):
    room, _, called = f"lensai_integrations.{name}".rpartition(".")
    what = getattr(import_module(room), called)

    assert list(arguments_in(inspect.getdoc(what))) == list(inspect.signature(what).parameters)
    assert inspect.getdoc(what).count("\nArgs:\n") == 1
