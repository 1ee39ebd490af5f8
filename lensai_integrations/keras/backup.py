"""Profiles of complete epochs beside the backup of `keras.callbacks.BackupAndRestore`, so that a resumed fit has them.

An epoch that was cut short is trained again from its start, and profiled again from its start: no row counts twice.
The file lies in the backup's own folder, which Keras removes when a fit is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lensai_integrations.errors import FormatError
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.storage.npz import pack, unpack
from lensai_integrations.training.fit import StateCache, profiles_of

#: Which profiles a file holds: of the latest epoch, and of the best.
LATEST, BEST = "latest", "best"
_MOST_BYTES = 1 << 30


class Backup:
    """Keeps profiles in the folder of a fit's `BackupAndRestore`; without one, it does nothing.

    Args:
        siblings: The callbacks of a fit.
        name: Tells several of our callbacks apart.
    """

    def __init__(self, siblings: Sequence[Any], name: str) -> None:
        found = next((each for each in siblings if isinstance(each, keras.callbacks.BackupAndRestore)), None)
        folder = None if found is None or "://" in str(found.backup_dir) else Path(found.backup_dir)
        self._metadata = None if folder is None else folder / "training_metadata.json"
        self._path = None if folder is None else folder / f"lensai-{name.replace('/', '-')}.npz"
        self._cache = {LATEST: StateCache(), BEST: StateCache()}

    def save(self, profiles: Mapping[str, Mapping[str, Profile]], *, create: bool = True) -> None:
        """Write the profiles, by `"latest"` and `"best"` and by source, in one step.

        Args:
            profiles: The profiles.
            create: Whether to make the folder; if not, and there is none, nothing is written.

        Raises:
            OSError: If that fails.
        """
        if self._path is None or not (create or self._path.parent.is_dir()):
            return
        arrays = {
            f"{which}:{source}": np.frombuffer(blob, np.uint8)
            for which, by_source in profiles.items()
            for source, blob in self._cache[which].state(by_source).items()
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_bytes(pack(arrays))
        partial.replace(self._path)

    def load(self) -> dict[str, dict[str, Profile]]:
        """The profiles of the fit that is resumed; empty if none is.

        Raises:
            FormatError: If the file is damaged.
            OSError: If it cannot be read.
        """
        loaded: dict[str, dict[str, Profile]] = {LATEST: {}, BEST: {}}
        if self._path is None or self._metadata is None or not (self._path.is_file() and self._metadata.is_file()):
            return loaded
        if self._path.stat().st_size > _MOST_BYTES:
            raise FormatError(f"{self._path} has {self._path.stat().st_size} bytes, more than the {_MOST_BYTES} read")
        for name, array in unpack(self._path.read_bytes()).items():
            which, _, source = name.partition(":")
            if which not in loaded:
                raise FormatError(f"{self._path} has {name!r}, which is no profile of ours")
            loaded[which] |= profiles_of({source: array.tobytes()})
        return loaded
