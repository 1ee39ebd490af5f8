"""Arrays of different libraries meet in one place: views where possible, errors that say what to pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lensai_integrations.arrays import is_host, local, namespace, to_host
from lensai_integrations.errors import InputError


def test_a_host_tensor_is_viewed_not_copied() -> None:
    tensor = torch.zeros(3)
    view = local(tensor)
    tensor[0] = 7.0
    assert isinstance(view, np.ndarray)
    assert view[0] == 7.0


def test_a_tensor_that_wants_gradients_is_detached() -> None:
    tensor = torch.ones(2, requires_grad=True)
    np.testing.assert_array_equal(local(tensor * 2), [2.0, 2.0])


def test_bfloat16_is_widened() -> None:
    result = local(torch.tensor([1.5, -2.0], dtype=torch.bfloat16))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, [1.5, -2.0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int32, torch.uint8, torch.bool])
def test_other_dtypes_are_kept(dtype: torch.dtype) -> None:
    tensor = torch.tensor([0, 1]).to(dtype)
    np.testing.assert_array_equal(local(tensor), tensor.tolist())


def test_a_negated_view_is_resolved() -> None:
    tensor = torch.tensor([1 + 2j]).conj().imag  # a lazily negated view
    assert tensor.is_neg()
    np.testing.assert_array_equal(local(tensor), [-2.0])


def test_a_tensor_elsewhere_stays_where_it_is() -> None:
    tensor = torch.zeros(2, device="meta", requires_grad=True)
    assert not is_host(tensor)
    assert local(tensor).device.type == "meta"
    assert not local(tensor).requires_grad


@pytest.mark.parametrize("value", [object(), "text", [None], {"a": 1}])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="expected an array of numbers, got"):
        local(value)


def test_lists_become_arrays() -> None:
    assert to_host([1, 2]).tolist() == [1, 2]


def test_both_libraries_get_a_namespace() -> None:
    assert namespace(np.zeros(1)).__name__ == "array_api_compat.numpy"
    assert namespace(torch.zeros(1)).__name__ == "array_api_compat.torch"
