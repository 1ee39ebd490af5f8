"""The baseline's way through a checkpoint: as plain bytes under this callback's state, profile by profile.

At the end of a fit the best checkpoint is asked for the baseline that belongs to its weights. Its file may hold
gigabytes of weights and objects of any class, so only the pickled skeleton is read: tensors stay where they are, and
nothing but containers, numbers, text and bytes is made of it; all else becomes an empty stand-in.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lensai_integrations.archive import from_bytes, to_bytes
from lensai_integrations.errors import FormatError
from lensai_integrations.profile import Profile

#: Where a sharded checkpoint keeps what is not sharded.
_SHARDED = "meta.pt"


class StateCache:
    """Encodes profiles for checkpoints, each only once.

    Example:
        >>> cache = StateCache()
        >>> list(cache.state({"validation": Profile(), "training": None}))
        ['validation']
    """

    def __init__(self) -> None:
        self._encoded: dict[str, tuple[Profile, bytes]] = {}

    def state(self, profiles: Mapping[str, Profile | None]) -> dict[str, bytes]:
        """The profiles that there are, as bytes, by name."""
        return {name: self._bytes(name, profile) for name, profile in profiles.items() if profile is not None}

    def _bytes(self, name: str, profile: Profile) -> bytes:
        known = self._encoded.get(name)
        if known is None or known[0] is not profile:
            known = self._encoded[name] = (profile, to_bytes(profile))
        return known[1]


def profiles_of(state: Mapping[str, Any]) -> dict[str, Profile]:
    """The profiles in a callback's state, by name.

    Raises:
        FormatError: If it is damaged or of another format.
        DefinitionError: If a definition id means something else here than where it was written.
    """
    return {str(name): _profile(name, blob) for name, blob in state.items()}


def _profile(name: str, blob: Any) -> Profile:
    if not isinstance(blob, bytes):
        raise FormatError(
            f"the callback's state has a {type(blob).__name__} under {name!r}: it is not of this callback"
        )
    profile = from_bytes(blob)
    if not isinstance(profile, Profile):
        raise FormatError(f"the callback's state has a whole baseline under {name!r}, not a profile")
    return profile


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
