"""Which rows a sketch can take, found where they lie, at the price of two launches on an accelerator."""

from __future__ import annotations

import math

from lensai_integrations.arrays.namespaces import Array, namespace


def finite_rows(rows: Array) -> Array:
    """Which rows have only finite values, bool `[n]`; nothing is waited for.

    The largest magnitude of a row says so, NaN included: one reading of the rows, where testing each value for
    itself takes four, and their sum may overflow.

    Args:
        rows: A torch tensor of floating-point numbers, `[n, D]`.

    Example:
        >>> import torch
        >>> finite_rows(torch.tensor([[1.0, 2.0], [3.0, float("nan")], [float("-inf"), 0.0]])).tolist()
        [True, False, False]
    """
    return namespace(rows).linalg.vector_norm(rows, ord=math.inf, axis=1) < math.inf
