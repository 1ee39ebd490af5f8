"""Lightning's checkpoints, which carry the baseline as plain bytes under the callback's state.

At the end of a fit the best one is asked for the baseline that belongs to its weights. Its file may hold
gigabytes of weights and objects of any class, so only the pickled skeleton is read: tensors stay where they are, and
nothing but containers, numbers, text and bytes is made of it; all else becomes an empty stand-in.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from lensai_integrations.errors import FormatError

#: Where a sharded checkpoint keeps what is not sharded.
_SHARDED = "meta.pt"


def stored_state(checkpoint: str | Path, state_key: str) -> dict[str, Any]:
    """The state of one callback in a checkpoint file or folder. No tensor is read and no foreign code run.

    Raises:
        FormatError: If the file is no checkpoint, or has no state under this key.
        OSError: If it cannot be read.
    """
    path = Path(checkpoint)
    skeleton = _skeleton(path / _SHARDED if path.is_dir() else path)
    callbacks = skeleton.get("callbacks") if isinstance(skeleton, dict) else None
    state = callbacks.get(state_key) if isinstance(callbacks, dict) else None
    if not isinstance(state, dict):
        raise FormatError(f"checkpoint {path} has no baseline: it was saved without one or with save_weights_only=True")
    return state


def _skeleton(path: Path) -> Any:
    with path.open("rb") as checkpoint:
        try:
            with zipfile.ZipFile(checkpoint) as archive:
                name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
                with archive.open(name) as file:
                    return _Skeleton(file).load()
        except Exception as error:  # a damaged pickle may raise anything
            raise FormatError(f"{path} cannot be read as a torch checkpoint: {error!r}") from error


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


_SAFE = {("collections", "OrderedDict"): OrderedDict, ("_codecs", "encode"): _bytes_of}


class _Skeleton(pickle.Unpickler):
    """Reads a pickle without importing anything."""

    def find_class(self, module: str, name: str) -> Any:
        return _SAFE.get((module, name), _StandIn)

    def persistent_load(self, pid: Any) -> Any:
        return None
