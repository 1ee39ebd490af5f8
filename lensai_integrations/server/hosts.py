"""Under which names the server answers: a page of somebody else may have its own name lead here (DNS rebinding).

An address needs no such check, for a page that a browser has from an address comes from whoever has it. Nor does a
request with a token as Bearer, which no page has: devices and programs may use any name, those without a token and
browsers only one that is known.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Final

from lensai_integrations.errors import InputError

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]*)?")
_NAME: Final = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\*")


class Hosts:
    """Names of a server.

    Args:
        names: `"lensai.example.org"`, `"*.example.org"` for every name below it, `"*"` for every name there is.
            Added are `localhost`, names below it, and the machine's own name.

    Raises:
        InputError: If one is no such name.

    Example:
        >>> hosts = Hosts(["lensai.example.org"])
        >>> [host in hosts for host in ("lensai.example.org:8080", "[::1]:8080", "evil.example.org")]
        [True, True, False]
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._exact, self._below = {"localhost", socket.gethostname().lower()}, {".localhost"}
        for name in names:
            if not _NAME.fullmatch(name):
                raise InputError(
                    f"allow_host={name!r} is no name: pass one as 'lensai.example.org', without scheme and port,"
                    " '*.example.org' for all below it, or '*' for all there are"
                )
            if name == "*":
                self._below.add("")
            elif name.startswith("*."):
                self._below.add(name[1:].lower())
            else:
                self._exact.add(name.lower())

    def __contains__(self, header: str) -> bool:
        """Whether a `Host` header names this server."""
        parsed = _HOST.fullmatch(header)
        if parsed is None:
            return False
        name = parsed[1].lower().removesuffix(".")
        return name in self._exact or name.endswith(tuple(self._below)) or _is_address(name.strip("[]"))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
