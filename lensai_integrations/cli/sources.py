"""What the commands share: exit codes, and where profiles come from."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final
from unicodedata import category

import click

from lensai_integrations.profiles.profile import Baseline, Profile, load
from lensai_integrations.storage.folders import MANIFEST

NO_DRIFT, DRIFT, ERROR = 0, 1, 2

_URI: Final = re.compile(r"(runs|models):/")
_ARCHIVES: Final = (".tar.gz", ".tgz", ".tar")

tracking_uri_option = click.option("--tracking-uri", help="MLflow tracking URI; by default MLflow's own setting.")


def load_source(source: str, tracking_uri: str | None = None) -> Profile | Baseline:
    """What a SOURCE holds: of MLflow, a folder that was saved, a device's folder, or an upload.

    Raises:
        InputError: If there is nothing of these.
        FormatError: If it is damaged.
        TrackingError: If MLflow's server cannot be reached.
    """
    if _URI.match(source):
        from lensai_integrations.mlflow import load_baseline

        return load_baseline(source, tracking_uri=tracking_uri)
    if _is_of_devices(Path(source)):
        from lensai_integrations.edge import read_stats

        return read_stats(source)
    return load(source)


def _is_of_devices(path: Path) -> bool:
    """Whether it is an archive, or a folder with sketches and no manifest."""
    if path.is_file():
        return path.name.endswith(_ARCHIVES)
    return path.is_dir() and not (path / MANIFEST).exists() and next(path.rglob("*.bin"), None) is not None


def profile_of(loaded: Profile | Baseline) -> Profile:
    """A profile, or the reference of a baseline."""
    return loaded.reference if isinstance(loaded, Baseline) else loaded


def width() -> int:
    """Columns to print on."""
    return min(shutil.get_terminal_size((100, 24)).columns, 120)


def printable(text: str) -> str:
    """A text without what would control the terminal: names come out of files that anybody may have written.

    Example:
        >>> printable("ok\\n\\x1b[2J")
        'ok\\n\\\\x1b[2J'
    """
    return "".join(
        c.encode("unicode_escape").decode() if category(c).startswith("C") and c not in "\n\t" else c for c in text
    )
