from __future__ import annotations

from types import SimpleNamespace

import pytest

from lensai_integrations.errors import InputError
from lensai_integrations.lightning.base import has_validation, is_fitting, one_loader


def trainer(enabled=True, batches=(3,), **more):
    return SimpleNamespace(enable_validation=enabled, num_val_batches=list(batches), **more)


def test_one_of_whatever_the_trainer_has():
    alone = object()
    assert one_loader(alone, 0) is alone
    assert one_loader([1, 2], 1) == 2
    assert one_loader({"a": 1, "b": 2}, 1) == 2
    assert one_loader(None, 0) is None


@pytest.mark.parametrize(
    ("found", "index", "expected"),
    [
        (trainer(), 0, True),
        (trainer(enabled=False), 0, False),
        (trainer(batches=[]), 0, True),  # loaded later
        (trainer(batches=[0]), 0, False),
        (trainer(batches=[0, 3]), 1, True),
        (trainer(batches=[3, 0]), 1, False),
        (trainer(batches=[float("inf")]), 0, True),
        (trainer(enabled=False, batches=[]), 3, False),
    ],
)
def test_whether_anything_is_held_out(found, index, expected):
    assert has_validation(found, index) is expected


def test_a_loader_that_is_not_there():
    with pytest.raises(InputError, match="dataloader_idx=1, but there are 1 validation loaders"):
        has_validation(trainer(), 1)


def test_only_validation_within_a_fit_counts():
    state = SimpleNamespace
    assert is_fitting(trainer(state=state(fn="fit"), sanity_checking=False))
    assert not is_fitting(trainer(state=state(fn="fit"), sanity_checking=True))
    assert not is_fitting(trainer(state=state(fn="validate"), sanity_checking=False))
