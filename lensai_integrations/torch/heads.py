"""What a model returned as heads, each with a row per image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lensai_integrations.errors import InputError
from lensai_integrations.measures.outputs import heads_of


@dataclass
class Heads:
    """The heads of an answer.

    Attributes:
        tensors: By name; of one answer alone the name is "". Copies of vectors, if copies were asked for.
        problem: Why there are none, e.g. that detections are not read.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    problem: str = ""


def heads_in(answer: Any, *, copies: bool = False) -> Heads:
    """The heads of what a module returned.

    Args:
        answer: What it returned.
        copies: Keep copies of those with one vector per row, and nothing of the others.

    Example:
        >>> list(heads_in({"species": torch.zeros(2, 3), "age": torch.zeros(2)}).tensors)
        ['species', 'age']
    """
    try:
        found = {name: array for name, array in heads_of(answer).items() if isinstance(array, Tensor)}
    except InputError as error:
        return Heads(problem=str(error))
    if copies:
        with torch.no_grad():
            found = {name: array.detach().clone() for name, array in found.items() if is_vector(tuple(array.shape))}
    return Heads(found)


def is_vector(shape: tuple[int, ...]) -> bool:
    """Whether a shape is one vector, or one number, per row.

    Example:
        >>> is_vector((8, 10)), is_vector((8, 10, 1, 1)), is_vector((8, 21, 32, 32))
        (True, True, False)
    """
    return bool(shape) and math.prod(shape[1:]) == max(shape[1:], default=1)
