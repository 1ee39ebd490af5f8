"""Of which images of the batch the rows of a tensor are, followed from operation to operation.

A step may call its model with the batch in parts, with some of its images, or with all of them in another order; whose
answer is whose is then not a matter of counting. Views are followed exactly; what picks rows by values is, too, but
those are others in the next batch, which is noted. Where the rows come to lie along another axis, as in attention, they
are lost; every other operation is taken to work on each row for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from lensai_integrations.problems import pass_on


class Rows(NamedTuple):
    """Of which images the rows of a tensor are.

    Attributes:
        places: The place of an image in the batch for each row; none: of nothing in the batch; None: lost.
        picked: Whether values have picked them, so that they are others in another batch.
    """

    places: tuple[int, ...] | None = ()
    picked: bool = False


OTHER_ROWS: Final = Rows()

_VIEWS: Final = {
    "chunk", "split", "tensor_split", "split_with_sizes", "unbind", "narrow", "select", "permute", "transpose",
    "movedim", "swapaxes", "unsqueeze", "squeeze", "t",
}  # fmt: skip
_JOINS: Final = {"cat", "concat", "concatenate", "stack"}
_GROUPS: Final = {"reshape", "view", "flatten", "unflatten"}
#: What moves rows, by where its dims are among the arguments.
_MOVES: Final = {"flip": 1, "roll": 2, "index_select": 1, "sort": 1}
_SCATTERS: Final = {"repeat", "tile", "repeat_interleave", "masked_select", "take"}


def rows_made(
    func: Callable[..., Any],
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    made: Sequence[Tensor],
    given: Sequence[tuple[Tensor, Rows]],
) -> list[Rows]:
    """The rows of what an operation has made.

    Args:
        func: The operation.
        name: Its name.
        args: What it was given.
        kwargs: By name.
        made: The tensors it made.
        given: The tensors among its arguments, with their rows.

    Example:
        >>> images = torch.zeros(4, 3, 8, 8)
        >>> made = rows_made(torch.chunk, "chunk", (images, 2), {}, images.chunk(2), [(images, Rows((0, 1, 2, 3)))])
        >>> [each.places for each in made]
        [(0, 1), (2, 3)]
    """
    given = [(tensor, rows) for tensor, rows in given if rows != OTHER_ROWS]
    if not given:
        return [OTHER_ROWS] * len(made)
    tensor, rows = given[0]
    dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    found: list[Rows] | None = None
    if args and tensor is args[0]:
        found = _of_one(func, name, args, kwargs, made, rows)
    elif name in _JOINS and dim == 0:
        found = [_joined([_one(each) if name == "stack" else each for _, each in given])]
    return [_together(each, given) for each in made] if found is None else found


def _of_one(
    func: Callable[..., Any],
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    made: Sequence[Tensor],
    rows: Rows,
) -> list[Rows] | None:
    """The rows of what an operation that moves those of one tensor has made; None if it does not move them."""
    if name in _VIEWS or (name == "__getitem__" and _is_view(args[1])):
        return _followed(func, args, kwargs, rows, len(made))
    if name == "__getitem__":
        return [_indexed(rows, args[1])] * len(made)
    if name in _MOVES or name in _SCATTERS:
        return [_moved(name, args, kwargs, rows)] * len(made)
    return [_grouped(rows, each) for each in made] if name in _GROUPS else None


def _is_view(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or type(part) in (int, slice) for part in parts)


def _followed(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], rows: Rows, count: int
) -> list[Rows]:
    """What an operation that gives views makes of the numbers of the rows."""
    tensor, lost = args[0], [Rows(None, rows.picked)] * count
    if rows.places is None or len(rows.places) != tensor.shape[0]:
        return lost
    with torch._C.DisableTorchFunction(), torch.no_grad():
        numbers = torch.tensor(rows.places, device="cpu").reshape(-1, *[1] * (tensor.ndim - 1)).expand(tensor.shape)
        result = func(numbers, *args[1:], **kwargs)
        views = [result] if isinstance(result, Tensor) else list(result)
        found = [Rows(_along_first(view), rows.picked) for view in views]
    return found if len(found) == count else lost


def _along_first(numbers: Tensor) -> tuple[int, ...] | None:
    """The numbers along the first axis; None if they differ along another."""
    if numbers.ndim == 0 or not numbers.numel():
        return None
    beside = zip(numbers.stride()[1:], numbers.shape[1:], strict=True)
    if any(step != 0 and size > 1 for step, size in beside) and numbers.min() != numbers.max():
        return None
    while numbers.ndim > 1:
        numbers = numbers[:, 0]
    return tuple(numbers.tolist())


def _indexed(rows: Rows, index: Any) -> Rows:
    """Rows that values, or a list, have picked."""
    first = index[0] if isinstance(index, tuple) and index else index
    if first is Ellipsis or (type(first) is slice and first == slice(None)):
        return rows
    return _picked(rows, lambda numbers: numbers[first.cpu() if isinstance(first, Tensor) else first])


def _moved(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], rows: Rows) -> Rows:
    """Rows that were moved, if it was not what is in each."""
    if name in _SCATTERS:
        return Rows(None, True)
    place = _MOVES[name]
    dims = kwargs.get("dims", kwargs.get("dim", args[place:] if name == "flip" else args[place : place + 1]))
    flat = list(_numbers_in(dims))
    if flat and all(dim % args[0].ndim != 0 for dim in flat):
        return rows
    if name == "index_select":
        index = kwargs.get("index", args[2] if len(args) > 2 else None)
        return _picked(rows, lambda numbers: numbers[index.cpu()])
    return _picked(rows, lambda numbers: numbers.flip(0)) if name == "flip" else Rows(None, True)


def _numbers_in(dims: Any) -> Iterator[int]:
    if isinstance(dims, int):
        yield dims
    for each in dims if isinstance(dims, list | tuple) else ():
        yield from _numbers_in(each)


def _picked(rows: Rows, pick: Callable[[Tensor], Tensor]) -> Rows:
    if rows.places is not None:
        try:
            with torch._C.DisableTorchFunction(), torch.no_grad():
                numbers = pick(torch.tensor(rows.places, device="cpu"))
            return Rows(tuple(numbers.tolist()) if numbers.ndim == 1 else None, True)
        except Exception as error:  # noqa: BLE001  the rows are lost, and no more
            pass_on(error)
    return Rows(None, True)


def _grouped(rows: Rows, made: Tensor) -> Rows:
    """Rows that were taken apart, into as many for each image, or put together again."""
    if rows.places is None or made.ndim == 0 or not made.shape[0]:
        return Rows(None, rows.picked)
    places, n, m = rows.places, len(rows.places), made.shape[0]
    if m % n == 0:
        return Rows(tuple(place for place in places for _ in range(m // n)), rows.picked)
    if n % m == 0 and all(len(set(places[i : i + n // m])) == 1 for i in range(0, n, n // m)):
        return Rows(places[:: n // m], rows.picked)
    return Rows(None, rows.picked)


def _one(rows: Rows) -> Rows:
    """Of one image alone, whose rows are its own: as a row of several images."""
    places = rows.places
    return Rows(places[:1] if places and len(set(places)) == 1 else None, rows.picked)


def _joined(parts: Sequence[Rows]) -> Rows:
    picked = any(each.picked for each in parts)
    together: list[int] = []
    for each in parts:
        if each.places is None:
            return Rows(None, picked)
        together += each.places
    return Rows(tuple(together), picked)


def _together(made: Tensor, given: Sequence[tuple[Tensor, Rows]]) -> Rows:
    """Of an operation on each row for itself; what others were mixed into is still of its own images."""
    fitting = {rows for tensor, rows in given if tensor.ndim and made.ndim and tensor.shape[0] == made.shape[0]}
    own = {rows for rows in fitting if not rows.picked} or fitting
    return own.pop() if len(own) == 1 else Rows(None, any(rows.picked for _, rows in given))
