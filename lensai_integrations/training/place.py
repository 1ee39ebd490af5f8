"""Which folder the baseline of a fit has, so that no fit takes another's.

Folds and trials are fits of one program, often in one working directory, in whatever threads and processes: each has a
folder of its own. It is named after the run that tracks the fit, if one does. Where several fits have one name by that,
the first has it and the others have numbers. What an earlier program left is replaced.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Final

from lensai_integrations.mlflow.address import DEFAULT_PATH
from lensai_integrations.problems import suppressed
from lensai_integrations.storage.folders import MANIFEST, turn, write_files
from lensai_integrations.training.options import Options

FOLDER: Final = "lensai_baseline"
_BESIDE: Final = " (beside that of an earlier fit, in {}; pass directory= for a folder that the latest fit replaces)"
_INSTEAD: Final = " (in place of that of an earlier fit; pass another directory= for each to keep both)"
_INSTEAD_OF_OLD: Final = " (in place of an earlier program's)"


class BaselineFolder:
    """The folder of a fit's baseline. It is taken when it is first written to, and stays the same.

    Args:
        root: The folder that it goes into, unless the options name one.
        options: What the user asked for.
        run: What the run is called that tracks the fit; nothing if none does.

    Attributes:
        first: Where it is to be, if no other fit of the program is there.
        folder: Where it is; None before there is a baseline in it.
        note: What is to be said of other baselines there or beside it.
    """

    def __init__(self, root: str | Path, options: Options, run: str = "") -> None:
        given = options.directory
        first = Path(given) if given is not None else Path(root) / folder_name(options, run)
        self.first = first
        with suppressed(OSError):  # the working directory may be gone; saving says so
            self.first = first.absolute()
        self.folder: Path | None = None
        self.note = ""
        self._is_given, self._since = given is not None, options.since
        self._taken: Path | None = None

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write a baseline's files there.

        Raises:
            InputError: If there is a file in its place.
            OSError: If it cannot be written.
        """
        if self._taken is None:
            self._taken = self._given() if self._is_given else self._free()
        write_files(self._taken, files)
        self.folder = self._taken

    def _given(self) -> Path:
        manifest = self.first / MANIFEST
        if manifest.exists():
            self.note = _INSTEAD if _is_recent(manifest, self._since) else _INSTEAD_OF_OLD
        return self.first

    def _free(self) -> Path:
        """A folder that no other fit of this program takes from here on."""
        self.first.parent.mkdir(parents=True, exist_ok=True)
        with turn(self.first.parent):
            names = chain([self.first.name], (f"{self.first.name}-{number}" for number in count(2)))
            folder = next(each for each in map(self.first.with_name, names) if self._take(each))
        if folder != self.first:
            self.note = _BESIDE.format(self.first)
        elif (folder / MANIFEST).exists():
            self.note = _INSTEAD_OF_OLD
        return folder

    def _take(self, folder: Path) -> bool:
        """Take a folder, unless another fit of this program has, in whatever process: it has changed it since."""
        with suppress(FileExistsError):
            folder.mkdir()
            return True
        if not folder.is_dir():
            return True  # saving says what is wrong with it
        if _is_recent(folder, self._since):
            return False
        os.utime(folder)
        return True


def _is_recent(path: Path, since: float) -> bool:
    """Whether it was changed since then. Disks may round times down to seconds, and so do we."""
    return path.stat().st_mtime >= int(since)


def folder_name(options: Options, run: str) -> str:
    """The name of a fit's folder: two callbacks have two artifact paths, two runs their names, and so two folders."""
    path = "" if options.artifact_path == DEFAULT_PATH else options.artifact_path
    return "-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", part) for part in (FOLDER, path, run) if part)
