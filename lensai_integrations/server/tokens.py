"""Who may upload and who may read: bearer tokens from a file.

A token is looked up by its digest under a key of this process, so that the time an answer takes says nothing about
which token was nearly right; and however many there are, finding one takes no longer.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lensai_integrations.edge.sending import SENSOR
from lensai_integrations.errors import InputError
from lensai_integrations.server.lasting import Lasting

_LOG = logging.getLogger(__name__)
#: Shorter tokens can be guessed.
SHORTEST: Final = 16
_LONGEST = 4096
#: Seconds for which a token file is taken to be as it was.
_LOOK: Final = 1.0
_COMMENT: Final = re.compile(r"(?:^|\s)#")


@dataclass(frozen=True)
class Grant:
    """What a token allows.

    Attributes:
        sensor: The only sensor whose uploads it is for; empty: any sensor's, and reading.
        token: What tells it from other tokens; empty where there are none.
    """

    sensor: str = ""
    token: str = field(default="", compare=False, repr=False)

    def uploads(self, sensor: str) -> bool:
        """Whether that sensor's uploads are allowed."""
        return self.sensor in ("", sensor)

    @property
    def reads(self) -> bool:
        """Whether pages and answers may be read."""
        return not self.sensor


class Tokens:
    """The tokens that are known.

    Args:
        lines: `"<token>"` (any sensor, and reading) or `"<token> <sensor>"` (uploads of that sensor only); passed over
            are empty lines, and what follows a `#` at the beginning of a line or after a space.
        key: Of the digests; by default one of its own.

    Raises:
        InputError: If a line is neither, a token stands twice, or there is no token at all.

    Example:
        >>> tokens = Tokens(["0123456789abcdef", "fedcba9876543210 door-3"])
        >>> tokens.grant("Bearer fedcba9876543210")
        Grant(sensor='door-3')
        >>> tokens.grant("Bearer wrong") is None
        True
    """

    def __init__(self, lines: Iterable[str], key: bytes = b"") -> None:
        self._key = key or secrets.token_bytes(32)
        self._grants: dict[bytes, Grant] = {}
        for number, line in enumerate(lines, 1):
            if words := _COMMENT.split(line, maxsplit=1)[0].split():
                self._add(number, *self._read(number, words))
        if not self._grants:
            raise InputError("the token file has no token: write one per line, e.g. what `openssl rand -hex 32` prints")

    def _read(self, number: int, words: list[str]) -> tuple[bytes, Grant]:
        token, *sensor = words
        if len(sensor) > 1 or not token.isascii() or not SHORTEST <= len(token) <= _LONGEST:
            raise InputError(
                f"line {number} of the token file is not '<token>' or '<token> <sensor>', the token of {SHORTEST}"
                " ASCII characters or more"
            )
        if sensor and not SENSOR.fullmatch(sensor[0]):
            raise InputError(f"line {number} of the token file: {sensor[0]!r} is not the name of a sensor")
        digest = self._digest(token)
        return digest, Grant("".join(sensor), digest.hex())

    def _add(self, number: int, digest: bytes, grant: Grant) -> None:
        if digest in self._grants:
            raise InputError(f"line {number} of the token file has the token of an earlier line: give each its own")
        self._grants[digest] = grant

    def _digest(self, token: str) -> bytes:
        return hmac.digest(self._key, token.encode(errors="replace"), "sha256")

    def grant(self, authorization: str) -> Grant | None:
        """What the `Authorization` header of a request allows; None if nothing.

        Args:
            authorization: `Bearer <token>`, or `Basic` with the token as password, as browsers send it.
        """
        return self._grants.get(self._digest(_token_of(authorization[: 2 * _LONGEST])))


def read_tokens(path: Path) -> Tokens:
    """Tokens from a file as it is now; a warning says if others may read it.

    Raises:
        InputError: If it cannot be read, or a line is not what `Tokens` takes.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "tokens")
        >>> _ = path.write_text("# all\\n0123456789abcdef\\n")
        >>> path.chmod(0o600)
        >>> read_tokens(path).grant("Bearer 0123456789abcdef").reads
        True
    """
    return Tokens(_lines(path))


def _lines(path: Path) -> list[str]:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # a pipe would be waited for, by every request
            raise InputError(
                f"the token file {str(path)!r} is no regular file: pass one, it is read again when it changes"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the token file {str(path)!r} cannot be read: {error}") from error
    if mode & 0o077:
        _LOG.warning("others may read the token file %s: run `chmod 600 %s`", path, path)
    return text.splitlines()


def _token_of(authorization: str) -> str:
    scheme, _, credentials = authorization.partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "bearer":
        return credentials
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


class TokenFile(Tokens):
    """The tokens of a file as it is now: it is looked at again when a request comes, once a second at most.

    A file that cannot be read, or has a wrong line, changes nothing: the tokens from before stay, which is logged.

    Args:
        path: The file.
        clock: Seconds that only grow.

    Raises:
        InputError: If it cannot be read, or a line is not what `Tokens` takes.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._stamp = _stamp(path)
        super().__init__(_lines(path))
        self._path, self._clock, self._told = path, clock, Lasting(_LOG)
        self._looked, self._looking = clock(), threading.Lock()

    def grant(self, authorization: str) -> Grant | None:
        """What the `Authorization` header of a request allows; None if nothing."""
        if self._clock() - self._looked >= _LOOK and self._looking.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._looking.release()
        return super().grant(authorization)

    def load(self) -> None:
        """Read the file again.

        Raises:
            InputError: If it cannot be read, or a line is not what `Tokens` takes; the tokens from before then stay.
        """
        stamp = _stamp(self._path)  # before it is read: what is written meanwhile is read the next time
        self._grants = Tokens(_lines(self._path), self._key)._grants
        self._stamp = stamp

    def _look(self) -> None:
        self._looked = self._clock()
        if _stamp(self._path) == self._stamp:
            return
        try:
            self.load()
        except InputError as error:
            self._told.warning("the tokens from before stay: %s", error)
            return
        _LOG.info("the token file %s was read again", self._path)


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with a file's content; empty if there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev
