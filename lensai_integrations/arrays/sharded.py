"""What a process has of a torch array that several processes hold together, a `DTensor`.

Layers of a model that is split over processes answer these: rows that each process has a share of, rows that all have
alike, or rows each process has some columns of. To put the last together is a message between all of them in the midst
of a training, where one that fails or profiles another batch would leave the others waiting for ever: so they are
refused, by name of the axis, and what to do is said.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from lensai_integrations.errors import InputError

_WHOLE: Final = (
    "hand over what has whole rows in each process: the layer behind it that puts them together, or let this one do so,"
    " with output_layouts=Replicate() or Shard(0) in parallelize_module"
)


def is_shared(array: Any) -> bool:
    """Whether several processes hold an array together; never waits or computes.

    Example:
        >>> is_shared([1, 2])
        False
    """
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(array, tensors.DTensor)


def own_rows(array: Any) -> Any:
    """The rows of an array that this process has: of a `DTensor` its share, of any other all.

    Of a tensor that is still on its way from other processes, the one that will have arrived: the device waits for it
    and the host does not.

    Raises:
        InputError: If this process has no whole rows.

    Example:
        >>> own_rows([1, 2])
        [1, 2]
    """
    if is_shared(array):
        for axis, (placement, size) in enumerate(zip(array.placements, array.device_mesh.shape, strict=True)):
            _check_whole(placement, size, array.ndim, _mesh_axis(array.device_mesh, axis))
        array = array.to_local()
    return array.wait() if type(array).__name__ == "AsyncCollectiveTensor" else array


def _mesh_axis(mesh: Any, axis: int) -> str:
    return f", the mesh axis {mesh.mesh_dim_names[axis]!r}" if mesh.mesh_dim_names else ""


def _check_whole(placement: Any, size: int, axes: int, of: str) -> None:
    """Refuse what has no whole rows in a process."""
    if placement.is_partial():
        raise InputError(f"it is a sum that {size} processes{of} have parts of ({placement}): {_WHOLE}")
    if size > 1 and placement.is_shard() and placement.dim % max(axes, 1):
        raise InputError(f"its axis {placement.dim} is split over {size} processes{of} ({placement}): {_WHOLE}")
