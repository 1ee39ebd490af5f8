"""The suite for measures: it passes what is right, in every library, and names what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from checks.measure import check_measure
from libraries import LIBRARIES

from lensai_integrations import measure


def _seen(name, function, **told):
    function.__doc__ = "What a test looks at."
    return measure(f"checked-{name}", **told)(function)


def test_a_measure_of_one_stream_and_one_of_several():
    check_measure(_seen("darkest", lambda images: images.min((1, 2, 3)), range=(0, 255)), libraries=("numpy", "jax"))
    check_measure(_seen("halves", lambda images: images.reshape(len(images), 2, -1).mean(-1)), libraries=LIBRARIES[:2])
    check_measure(_seen("grey", lambda images: images[:, 0, 0, 0]), channels=1)


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("range", lambda images: images.max((1, 2, 3)), "above its range to 1"),
        ("finite", lambda images: 1 / images.std((1, 2, 3)), "is not finite"),
        ("batch", lambda images: images.mean((1, 2, 3)) / (images.max() + 1), "depends on the other images"),
        ("shape", lambda images: images[..., 0], "shape .8, 12, 9."),
        ("rows", lambda images: images[:1, 0, 0, 0], "1 rows of 8 images"),
        ("written", lambda images: np.divide(images, 256, out=images)[:, 0, 0, 0], "changed the images"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_is_wrong_is_named(name, function, message):
    with pytest.raises(AssertionError, match=message):
        check_measure(_seen(name, function, range=(0, 1)), libraries=())


def test_a_measure_that_only_numpy_can_is_named():
    with pytest.raises((AssertionError, TypeError, AttributeError)):
        check_measure(
            _seen("numpy-only", lambda images: np.ptp(np.asarray(images, object), (1, 2, 3))), libraries=["torch"]
        )


def test_a_measure_that_says_nothing_is_named():
    with pytest.raises(AssertionError, match="says nothing about an image"):
        check_measure(measure("checked-mute")(lambda images: images[:, 0, 0, 0]))
