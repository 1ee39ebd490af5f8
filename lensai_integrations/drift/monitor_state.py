"""The state of a monitor on disk: killed at any point, it is there as it was after the last batch that was finished.

A folder holds profiles, in files that are named by the sha256 of what is in them and never changed, and one `head.json`
that says which of them count, together with all counters, levels, and what still has to be told. A change is: write
the new profiles, replace the head in one step, remove the profiles that it does not name. A crash before the
replacement changes nothing, one after it leaves files that the next change removes.

A folder may be damaged, or come from a stranger. Names are checked, sizes bounded, digests compared, nothing is
unpickled; what cannot be read is set aside under another name, and the monitor begins anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from lensai_integrations.errors import FormatError, InputError, InUseError
from lensai_integrations.problems import suppressed
from lensai_integrations.profiles.profile import Profile, from_bytes, to_bytes
from lensai_integrations.storage.checked_json import from_json, to_json
from lensai_integrations.storage.folders import lock, replace_file, write_file

HEAD: Final = "head.json"
FORMAT: Final = "lensai-monitor"
VERSION: Final = 1
#: Largest sizes in bytes that are read.
MAX_HEAD_BYTES: Final = 16 * 2**20
MAX_PROFILE_BYTES: Final = 512 * 2**20

_PROFILE = re.compile(r"[0-9a-f]{64}\.npz")
_OURS = re.compile(r"[0-9a-f]{64}\.npz|\.?head\.json\.[0-9a-f.]+\.partial")


class MonitorFolder:
    """A monitor's folder.

    Args:
        folder: Made if absent. One monitor at a time: it is locked until `release` or the end of the process.

    Raises:
        InputError: If it is a file.
        InUseError: If it is in use by another monitor.
        OSError: If it cannot be made.

    Example:
        >>> import tempfile
        >>> store = MonitorFolder(tempfile.mkdtemp())
        >>> store.commit({"rows": 3}, files=[])
        >>> store.head()["rows"]
        3
        >>> store.release()
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock: int | None = None
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"state={str(folder)!r} is a file: pass a folder")
        try:
            self.acquire()
        except BlockingIOError as error:
            raise InUseError(
                f"state={str(folder)!r} is in use by another monitor: pass a folder of its own for each process"
            ) from error

    def acquire(self) -> None:
        """Lock the folder, if it is not.

        Raises:
            OSError: If that is not possible.
        """
        if self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                lock(file)
            except OSError:
                os.close(file)
                raise
            self._lock = file

    def release(self) -> None:
        """Let another monitor have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def head(self) -> dict[str, Any] | None:
        """What was committed last; None in a new folder.

        Raises:
            FormatError: If it is too large, no JSON, or not of this format and version.
            OSError: If it cannot be read.
        """
        path = self.folder / HEAD
        if not path.exists():
            return None
        if not path.is_file() or path.stat().st_size > MAX_HEAD_BYTES:
            raise FormatError(f"{path} is no file of at most {MAX_HEAD_BYTES} bytes")
        head = from_json(path.read_bytes(), str(path))
        if not isinstance(head, dict) or head.get("format") != FORMAT or head.get("version") != VERSION:
            raise FormatError(f"{path} is not the state of a monitor of this release (format {FORMAT!r}, {VERSION})")
        return head

    def set_aside(self) -> Path:
        """Rename the head, so that the monitor can begin anew and a person can look at it."""
        aside = self.folder / f"{HEAD}.damaged-{secrets.token_hex(4)}"
        os.replace(self.folder / HEAD, aside)  # noqa: PTH105 - see storage.py
        return aside

    def put(self, profile: Profile) -> str:
        """Write a profile; it counts once a head names the file that is returned."""
        content = to_bytes(profile)
        name = f"{hashlib.sha256(content).hexdigest()}.npz"
        write_file(self.folder / name, content)
        return name

    def get(self, name: Any) -> Profile:
        """Read a profile.

        Raises:
            FormatError: If the name is none that `put` gives, or the file is missing, too large or changed.
        """
        if not isinstance(name, str) or not _PROFILE.fullmatch(name):
            raise FormatError(f"{HEAD} names a profile {name!r}, which is no name of one")
        path = self.folder / name
        if not path.is_file() or path.stat().st_size > MAX_PROFILE_BYTES:
            raise FormatError(f"{path} is missing, or has more than {MAX_PROFILE_BYTES} bytes")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != name.removesuffix(".npz"):
            raise FormatError(f"{path} is not what was written: truncated or changed")
        profile = from_bytes(content)
        if not isinstance(profile, Profile):
            raise FormatError(f"{path} holds a {type(profile).__name__}, not a profile")
        return profile

    def commit(self, head: Mapping[str, Any], files: Collection[str]) -> None:
        """Replace the head in one step, then remove the profiles that are not among `files`.

        Raises:
            OSError: If the disk is full or the folder is gone; what was committed before still holds.
        """
        self.acquire()
        content = to_json({"format": FORMAT, "version": VERSION, **head}, "the state")
        replace_file(self.folder / HEAD, content)
        for path in list(self.folder.iterdir()):
            if _OURS.fullmatch(path.name) and path.name not in files:
                with suppressed(OSError):
                    os.unlink(path)  # noqa: PTH108 - see storage.py
