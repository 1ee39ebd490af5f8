"""What every request and answer goes through before and after its route."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lensai_integrations.errors import InputError
from lensai_integrations.server.describing import OPEN
from lensai_integrations.server.hosts import Hosts
from lensai_integrations.server.problems import HEADERS, answer_of, path_of

_ROOT_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
#: First names of the server's own paths: below a root path of such a name they could be taken for it.
_OWN: Final = ("sensors", "upload", "healthz", "metrics", "openapi.json")


class AnswerHeaders:
    """Sets the headers that every answer has, and redirects to where the client has come from, by whatever name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if "location" in headers:
                    headers["location"] = _relative(headers["location"])
            await send(message)

        await self._app(scope, receive, answered if scope["type"] == "http" else send)


def _relative(address: str) -> str:
    """What Starlette redirects to, the same path without its last slash or with one, seen from the path asked for.

    Example:
        >>> _relative("http://any.example/lensai/sensors?limit=3"), _relative("http://any.example/lensai/door/")
        ('../sensors?limit=3', 'door/')
    """
    path, query = urlsplit(address).path, urlsplit(address).query
    names = path.split("/")
    place = f"{names[-2]}/" if path.endswith("/") else f"../{names[-1]}"
    return f"{place}?{query}" if query else place


class HeadRequests:
    """HEAD is answered as GET is, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET"}, receive, without_body)


class KnownHosts:
    """Answers 421 for a host that is not this server's; whether it is well it tells under any.

    Args:
        app: The application.
        hosts: The server's.
        tokens: Whether it asks for tokens.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, tokens: bool) -> None:
        self._app, self._hosts, self._tokens = app, hosts, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and path_of(scope) != OPEN and not self._known(Headers(scope=scope)):
            detail = "this server is not known by that name: start it with --allow-host and the name"
            await answer_of(Request(scope, receive), 421, detail)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _known(self, headers: Headers) -> bool:
        if self._tokens and headers.get("authorization", "").lower().startswith("bearer "):
            return True  # no page of somebody else has a token, and without a valid one it learns nothing
        hosts = headers.getlist("host")
        return all(host in self._hosts for host in hosts) and len(hosts) < 2  # a browser always sends one


class Below:
    """The server seems to be at `/`, and is reached below a path of a proxy, which may take it off or leave it.

    Args:
        app: The application.
        path: Begins with a slash; empty for none.
    """

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app, self._path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and self._path:
            path = scope["path"]
            if path != self._path and not path.startswith(f"{self._path}/"):
                path = self._path + path
            scope.update(root_path=self._path, path=path)
        await self._app(scope, receive, send)


def checked_root_path(path: str) -> str:
    """A path of a proxy without its last slash.

    Raises:
        InputError: If it is none.

    Example:
        >>> checked_root_path("/tools/lensai/")
        '/tools/lensai'
    """
    short = path.rstrip("/")
    if not _ROOT_PATH.fullmatch(short) or (short.split("/")[1:2] and short.split("/")[1] in _OWN):
        raise InputError(
            f"root_path={path!r} should be a path of letters, digits and -._~ that begins with a slash and with none of"
            f" the server's own names ({', '.join(_OWN)}), e.g. '/lensai'"
        )
    return short
