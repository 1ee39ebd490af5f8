"""The server as an ASGI application: its parts put together, and what every request goes through before its route.

A page of somebody else may have its own name lead here (DNS rebinding), so browsers are answered under known names only
(`Hosts`). An address needs no such check, for a page that a browser has from an address comes from whoever has it. Nor
does a request with a token as Bearer, which no page has: devices and programs may use any name.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lensai_integrations.errors import InputError
from lensai_integrations.mlflow.monitoring import SensorRuns
from lensai_integrations.profiles.archive import RELEASE
from lensai_integrations.profiles.profile import Baseline, to_bytes
from lensai_integrations.server import api, intake, web
from lensai_integrations.server.api import OPEN, describe
from lensai_integrations.server.ledger import Inbox
from lensai_integrations.server.metrics import ServerMetrics
from lensai_integrations.server.reporting import Reporter
from lensai_integrations.server.service import Service
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.settling import Listener, ReportedHour, Settler
from lensai_integrations.server.shares import Allowances, Turns
from lensai_integrations.server.store import Store
from lensai_integrations.server.tokens import Tokens
from lensai_integrations.server.web import HEADERS, answer_of, answer_problems, path_of
from lensai_integrations.storage.npz import unpack

_LOG = logging.getLogger(__name__)

_ABOUT: Final = """Takes what LensAI devices upload, merges it by sensor and hour, and holds each hour
against a baseline.

Devices need a token for uploads, `Authorization: Bearer <token>`; programs and people one for reading, as Bearer or as
the password of HTTP Basic."""


def create_app(
    baseline: Baseline,
    store: Store,
    settings: Settings | None = None,
    tokens: Tokens | None = None,
    *,
    name: str = "baseline",
    on_judged: Listener | None = None,
    runs: SensorRuns | None = None,
    hosts: Iterable[str] = (),
    root_path: str = "",
) -> FastAPI:
    """The application; its worker runs while its lifespan does.

    Args:
        baseline: What hours are held against; made with `convention="lensai-edge"`, or with both.
        store: Where everything is kept; left open.
        settings: Limits and intervals.
        tokens: Who may upload and read; None: everyone.
        name: What the baseline is called on pages.
        on_judged: Told of every hour that was judged, in the worker's thread.
        runs: Where reports are logged in MLflow.
        hosts: Names of the server besides `localhost` and the machine's own; see `Hosts`.
        root_path: Path below which a proxy has it, e.g. `"/lensai"`.

    Raises:
        InputError: If the baseline has no measures of devices, or a name or path is none.
        StoreError: If the store cannot be used.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from lensai_integrations import Baseline, Profiler
        >>> profiler = Profiler(convention="lensai-edge")
        >>> profiler.update(inputs=np.zeros((4, 8, 8, 3), np.uint8))
        >>> store = Store(tempfile.mkdtemp())
        >>> create_app(Baseline(profiler.profile()), store).title
        'LensAI receiver'
        >>> store.close()
    """
    settings = settings or Settings()
    check_baseline(baseline)
    allowed, below = Hosts(hosts), checked_root_path(root_path)
    if store.judged_against(_digest(baseline, settings)):
        _LOG.warning("the store was judged against another baseline, or otherwise: every hour in it is judged anew")
    metrics = ServerMetrics(store)
    reporter = Reporter(store, baseline, settings, metrics, runs) if runs is not None else None
    settler = Settler(store, baseline, settings, metrics, _listener(reporter, on_judged))
    allowances = Allowances(settings)
    inbox, turns = Inbox(store, settings.sensors, allowances), Turns(settings)
    app = FastAPI(
        title="LensAI receiver",
        version=RELEASE,
        description=_ABOUT,
        lifespan=_lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = Service(
        baseline, name, store, settings, tokens, metrics, settler, inbox, turns, allowances, reporter
    )
    for routes in (intake, api, web):
        app.include_router(routes.router)
    describe(app, tokens=tokens is not None)
    app.add_middleware(KnownHosts, hosts=allowed, tokens=tokens is not None)
    app.add_middleware(HeadRequests)
    app.add_middleware(AnswerHeaders)
    app.add_middleware(Below, path=below)  # the last one added is the first to be asked
    answer_problems(app)
    return app


def _listener(reporter: Reporter | None, on_judged: Listener | None) -> Listener | None:
    """One that tells both; the reporter first, which never fails."""
    if reporter is None:
        return on_judged

    def tell(judged: ReportedHour) -> None:
        reporter.judged(judged)
        if on_judged is not None:
            on_judged(judged)

    return tell


def _digest(baseline: Baseline, settings: Settings) -> str:
    """Of what verdicts follow from, whichever versions of other packages wrote it."""
    arrays = unpack(to_bytes(baseline))
    manifest = json.loads(arrays.pop("manifest").tobytes())
    parts = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in sorted(arrays.items())}
    about = {**manifest, "versions": {}, "parts": parts, "false_alarm_rate": settings.false_alarm_rate}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def check_baseline(baseline: Baseline) -> None:
    """Refuse a baseline that no device can be held against.

    Args:
        baseline: The baseline.

    Raises:
        InputError: If it has no measures of devices.
    """
    ids = {id for group in baseline.reference.groups.values() for id in group.definitions.values()}
    if not any(id.startswith("lensai-edge/") for id in ids):
        raise InputError(
            "the baseline has no measures that devices have: make it with convention='lensai-edge', or with both,"
            " convention=('lensai', 'lensai-edge')"
        )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    workers = [worker for worker in (service.settler, service.reporter) if worker is not None]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()


_ROOT_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
#: First names of the server's own paths: below a root path of such a name they could be taken for it.
_OWN: Final = ("sensors", "upload", "healthz", "metrics", "openapi.json")


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
    relative = f"{names[-2]}/" if path.endswith("/") else f"../{names[-1]}"
    return f"{relative}?{query}" if query else relative


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
