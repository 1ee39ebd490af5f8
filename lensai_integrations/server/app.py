"""The server as an ASGI application."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lensai_integrations import __version__
from lensai_integrations.archive import to_bytes
from lensai_integrations.errors import InputError
from lensai_integrations.mlflow.sensors import SensorRuns
from lensai_integrations.profile import Baseline
from lensai_integrations.server import api, intake, web
from lensai_integrations.server.describing import describe
from lensai_integrations.server.inbox import Inbox
from lensai_integrations.server.metrics import Metrics
from lensai_integrations.server.reporting import Reporter
from lensai_integrations.server.service import Service, service_of
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.settling import Judged, Listener, Settler
from lensai_integrations.server.shares import Allowances
from lensai_integrations.server.store import Store, StoreError
from lensai_integrations.server.tokens import Tokens
from lensai_integrations.server.turns import Turns
from lensai_integrations.storage import unpack

_LOG = logging.getLogger(__name__)

_ABOUT: Final = """Takes what LensAI devices upload, merges it by sensor and hour, and holds each hour
against a baseline.

Devices need a token for uploads, `Authorization: Bearer <token>`; programs and people one for reading, as Bearer or as
the password of HTTP Basic."""
#: Seconds for which nothing more is logged of a store that cannot be used.
_QUIET: Final = 10.0
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(
    baseline: Baseline,
    store: Store,
    settings: Settings | None = None,
    tokens: Tokens | None = None,
    *,
    name: str = "baseline",
    on_judged: Listener | None = None,
    runs: SensorRuns | None = None,
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

    Raises:
        InputError: If the baseline has no measures of devices.
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
    if store.judged_against(_digest(baseline, settings)):
        _LOG.warning("the store was judged against another baseline, or otherwise: every hour in it is judged anew")
    metrics = Metrics(store)
    reporter = Reporter(store, baseline, settings, metrics, runs) if runs is not None else None
    settler = Settler(store, baseline, settings, metrics, _listener(reporter, on_judged))
    allowances = Allowances(settings)
    inbox, turns = Inbox(store, settings.sensors, allowances), Turns(settings)
    app = FastAPI(
        title="LensAI receiver",
        version=__version__,
        description=_ABOUT,
        lifespan=_lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = Service(
        baseline, name, store, settings, tokens, metrics, settler, inbox, turns, allowances, reporter
    )
    for part in (intake, api, web):
        app.include_router(part.router)
    describe(app, tokens=tokens is not None)
    app.add_middleware(_Headers)
    app.add_exception_handler(StoreError, _unavailable)
    app.add_exception_handler(RequestValidationError, _wrong)
    app.add_exception_handler(Exception, _failed)
    return app


def _listener(reporter: Reporter | None, on_judged: Listener | None) -> Listener | None:
    """One that tells both; the reporter first, which never fails."""
    if reporter is None:
        return on_judged

    def tell(judged: Judged) -> None:
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


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    service, now = service_of(request), time.monotonic()
    if now - service.warned > _QUIET:
        service.warned = now
        _LOG.warning("answered 503: %s", error)
    return JSONResponse({"detail": "the store cannot be used now: send it again"}, 503, {"Retry-After": "5"})


async def _wrong(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first: Any = error.errors()[0]
    return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}"}, 400)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": f"this is a defect of the server: {type(error).__name__}"}, 500)


class _Headers:
    """Headers that every answer has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, answered if scope["type"] == "http" else send)
