"""What a checkpoint of Lightning says of itself: its steps, what a callback put into it, a digest of its weights.

A file may hold gigabytes of weights and objects of any class, so only the pickled skeleton is read, and of each weight
the few elements that `Weights` looks at: nothing but containers, numbers, text and bytes is made of the pickle; all
else becomes an empty stand-in.
"""

from __future__ import annotations

import math
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import FormatError
from lensai_integrations.problems import pass_on
from lensai_integrations.training.weights import Weights, sampled

#: Where a sharded checkpoint keeps what is not sharded.
_SHARDED = "meta.pt"
#: Of the storages in a checkpoint, dtype and bytes of an element.
_KINDS: Final = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
}
#: The fixed part of a file's own header in a zip file: 26 bytes on come the lengths of what is between it and the file.
_HEADER, _LENGTHS = 30, slice(26, 30)
#: Elements of the largest tensor that is believed.
_MOST: Final = 2**48


class CheckpointFile:
    """What a checkpoint file or folder says of itself. No foreign code is run.

    Args:
        path: Of the file, or of a sharded checkpoint's folder.

    Attributes:
        path: The same.
        step: The optimizer steps that were made; None if it does not say.
        epoch: Counted from 0; None if it does not say.

    Raises:
        FormatError: If it is no checkpoint.
        OSError: If it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        skeleton = _skeleton(self.path / _SHARDED if self.path.is_dir() else self.path)
        self._content: dict[Any, Any] = skeleton if isinstance(skeleton, dict) else {}
        self.step, self.epoch = (_whole(self._content.get(key)) for key in ("global_step", "epoch"))

    def state(self, state_key: str) -> dict[str, Any]:
        """The state of one callback.

        Raises:
            FormatError: If there is none under this key.
        """
        callbacks = self._content.get("callbacks")
        state = callbacks.get(state_key) if isinstance(callbacks, dict) else None
        if not isinstance(state, dict):
            raise FormatError(
                f"checkpoint {self.path} has no baseline: it was saved without one or with save_weights_only=True"
            )
        return state

    def weights(self, names: Sequence[str]) -> Weights | None:
        """The digest of the tensors of these names.

        Returns:
            None if it cannot be told: not all are there, or not as plain tensors.
        """
        stored = self._content.get("state_dict")
        stored_tensors = [stored.get(name) for name in names] if isinstance(stored, dict) else []
        tensors = [tensor for tensor in stored_tensors if isinstance(tensor, _Tensor)]
        if not tensors or len(tensors) < len(stored_tensors):
            return None
        try:
            with self.path.open("rb") as file, zipfile.ZipFile(file) as archive:
                return Weights.of(_samples(file, archive, tensors))
        except (OSError, zipfile.BadZipFile, KeyError, ValueError, OverflowError, struct.error) as error:
            pass_on(error)
            return None  # damaged, of a machine of the other byte order, or gone


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _skeleton(path: Path) -> Any:
    with path.open("rb") as checkpoint:
        try:
            with zipfile.ZipFile(checkpoint) as archive:
                entry = next(member for member in archive.infolist() if member.filename.endswith("/data.pkl"))
                if entry.compress_type != zipfile.ZIP_STORED:  # torch compresses nothing, and a bomb would
                    raise FormatError("its data.pkl is compressed")
                with archive.open(entry) as file:
                    return _Skeleton(file).load()
        except Exception as error:  # a damaged pickle may raise anything
            pass_on(error)
            raise FormatError(f"{path} cannot be read as a torch checkpoint: {error!r}") from error


def _samples(
    file: BinaryIO, archive: zipfile.ZipFile, tensors: Sequence[_Tensor]
) -> Iterator[tuple[str, tuple[int, ...], NDArray[np.uint8]]]:
    """Of each tensor dtype, shape, and the bytes of the elements that are looked at."""
    folder = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder").decode() != sys.byteorder:
        raise ValueError("bytes are in the other order")
    for tensor in tensors:
        dtype, item = _KINDS[tensor.storage.kind]
        entry = archive.getinfo(f"{folder}data/{tensor.storage.key}")
        places = tensor.places()
        if entry.compress_type != zipfile.ZIP_STORED or (places.size and places.max() >= entry.file_size // item):
            raise ValueError("the storage is not as large as the tensor")
        start = _start(file, entry)
        runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
        parts = [_read_file(file, start + int(run[0]) * item, run.size * item) for run in runs if run.size]
        yield dtype, tensor.size, np.frombuffer(b"".join(parts), np.uint8)


def _start(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Where an entry's own bytes begin."""
    name, extra = struct.unpack("<HH", _read_file(file, entry.header_offset, _HEADER)[_LENGTHS])
    return int(entry.header_offset + _HEADER + name + extra)


def _read_file(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    read = file.read(size)
    if len(read) < size:
        raise ValueError("the file ends within a tensor")
    return read


@dataclass(frozen=True)
class _Storage:
    kind: str
    key: str


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies in a checkpoint: in which storage, and how it is laid out there."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def places(self) -> NDArray[np.int64]:
        """Of the elements that are looked at, where they are in the storage.

        Raises:
            ValueError: If they are nowhere.
        """
        numel = math.prod(self.size)
        if max(numel, self.offset, *self.stride, 0) > _MOST:
            raise ValueError("a tensor is larger than any file")
        looked_at = sampled(numel)
        elements = np.unravel_index(looked_at, self.size) if self.size else ()
        places = np.full(looked_at.size, self.offset, np.int64)
        for index, step in zip(elements, self.stride, strict=True):
            places += index * step
        if places.size and places.min() < 0:
            raise ValueError("a tensor lies before its storage")
        return places


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    """How torch's pickles spell a tensor."""
    whole = (offset, *size, *stride) if isinstance(size, tuple) and isinstance(stride, tuple) else (None,)
    if not (isinstance(storage, _Storage) and all(_whole(number) is not None and number >= 0 for number in whole)):
        return _StandIn()
    return _Tensor(storage, offset, size, stride)


def _parameter(data: Any, *_: Any) -> Any:
    """How torch's pickles spell a parameter."""
    return data


class _StandIn:
    """Takes whatever a pickle does to an object, and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _StandIn:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> _StandIn:
        return self

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """Accept an item."""

    def extend(self, _: Any) -> None:
        """Accept items."""


def _bytes_of(text: str, _: str) -> bytes:
    """How torch's pickles spell bytes."""
    return text.encode("latin1")


_SAFE = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _bytes_of,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): name for name in _KINDS},
}


class _Skeleton(pickle.Unpickler):
    """Reads a pickle without importing anything."""

    def find_class(self, module: str, name: str) -> Any:
        return _SAFE.get((module, name), _StandIn)

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) >= 3 and pid[0] == "storage" and isinstance(pid[1], str):
            return _Storage(pid[1], str(pid[2]))
        return None
