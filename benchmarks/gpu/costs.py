"""What one operation costs a GPU, told from its name and its shapes; and how long that may take.

An operation is one launch that reads its arguments and writes its answers once (what is broadcast counts once), and
views and allocations are none. A sort has the passes that torch's choice of algorithm has for that shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor


@dataclass(frozen=True)
class Copy:
    """What went from the host to the device, or back (`to_device` False)."""

    to_device: bool
    bytes: int
    pinned: bool
    non_blocking: bool


@dataclass(frozen=True)
class Operation:
    """One operation that the dispatcher saw, or one Triton kernel.

    Attributes:
        batch: In which batch, from 0.
        phase: `"open"`, `"forward"` or `"close"`.
        name: As torch calls it.
        file: Of the package, that asked for it, such as `sketches/bank.py`.
        line: Of that file.
        shapes: Of what it was given and of what it answered, for lists.
        launches: Kernels.
        bytes: Read and written in device memory.
        keys: Sorted.
        copy: If it goes between host and device.
        waits: Whether it reads a value back.
    """

    batch: int
    phase: str
    name: str
    file: str
    line: int
    shapes: str
    launches: int
    bytes: int
    keys: int = 0
    copy: Copy | None = None
    waits: bool = False


@dataclass(frozen=True)
class Assumption:
    """How fast a device is taken to be: seconds a launch at least, bytes a second, keys sorted a second."""

    launch: float
    bandwidth: float
    sorting: float

    def seconds(self, operation: Operation) -> float:
        """What an operation takes."""
        moved, sorted_ = operation.bytes / self.bandwidth, operation.keys / self.sorting
        return max(operation.launches * self.launch, moved, sorted_)


#: An H200 moves 4.8 TB/s; what of it, of its launches and of its sorts small operations get is not known.
ASSUMPTIONS: Final = {
    "low": Assumption(1.3e-6, 4.3e12, 100e9),
    "middle": Assumption(2e-6, 3.65e12, 30e9),
    "high": Assumption(3e-6, 3e12, 10e9),
}


def bytes_of(tensor: Tensor) -> int:
    """Distinct bytes of a tensor: an axis that is broadcast counts once."""
    sizes = (1 if stride == 0 else size for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return math.prod(sizes) * tensor.element_size()


#: Operations that fill what they make, whatever they are given.
FILLED: Final = {"new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"}


def cost(name: str, args: Any, kwargs: Any, arguments: list[Tensor], answers: list[Tensor]) -> tuple[int, int, int]:
    """Launches, bytes and keys sorted of an operation that is no view."""
    if name in ("sort", "argsort"):
        return sort_cost(args[0], kwargs.get("dim", next((each for each in reversed(args) if type(each) is int), -1)))
    written = bytes_of(answers[0]) if answers else 0
    on_device = [tensor for tensor in arguments if tensor.device.type == "cuda"]
    moved = sum(map(bytes_of, on_device)) + (written if answers and answers[0].device.type == "cuda" else 0)
    if name in ("copy_", "fill_", "zero_"):  # the target is written and not read
        moved = sum(map(bytes_of, on_device))
    elif name in FILLED:  # only the shape and the device of what is given count
        moved = written
    elif name in ("index", "index_select", "gather"):  # what is picked is read, not what it is picked from
        moved = 2 * written + sum(map(bytes_of, on_device[1:]))
    elif name == "index_put_":
        moved = 3 * bytes_of(on_device[-1])
    elif name == "searchsorted":  # a lookup reads a line of 32 bytes at each of some 22 levels
        moved = math.prod(answers[0].shape) * 32 * 22
    return 1, moved, 0


def sort_cost(values: Tensor, dim: int) -> tuple[int, int, int]:
    """Launches, bytes and keys of `torch.sort` on CUDA, by the algorithm that it takes for the shape.

    Up to 4,096 in a row: a block sorts a row, once over. One row, or very long ones: cub's radix sort row by row, a
    pass per byte. Fewer than 128 rows: two such sorts of everything. Else a segmented sort.
    """
    length, total, size = values.shape[dim], math.prod(values.shape), values.element_size()
    rows, passes = total // max(1, length), size
    each_pass = 2 * (size + 8)  # a key and its 8-byte index, read and written
    if length <= 4096:
        return 3, total * (8 + 2 * size + each_pass), total
    if rows == 1 or length >= 1_000_000:
        return rows * (3 + passes) + 1, length * 8 + total * (size + passes * each_pass), total
    if rows < 128:
        return 2 * 4 + passes + 3, total * (8 + size + passes * each_pass + 32 + 2 * size), 2 * total
    return 4 + passes, total * (8 + passes * each_pass), total
