"""The server as an ASGI application."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Final

from fastapi import FastAPI

from lensai_integrations.errors import InputError
from lensai_integrations.mlflow.monitoring import SensorRuns
from lensai_integrations.profiles.profile import Baseline, to_bytes
from lensai_integrations.server import api, intake, web
from lensai_integrations.server.describing import describe
from lensai_integrations.server.hosts import Hosts
from lensai_integrations.server.inbox import Inbox
from lensai_integrations.server.metrics import ServerMetrics
from lensai_integrations.server.middleware import AnswerHeaders, Below, HeadRequests, KnownHosts, checked_root_path
from lensai_integrations.server.problems import answer_problems
from lensai_integrations.server.reporting import Reporter
from lensai_integrations.server.service import Service
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.settling import Listener, ReportedHour, Settler
from lensai_integrations.server.shares import Allowances
from lensai_integrations.server.store import Store
from lensai_integrations.server.tokens import Tokens
from lensai_integrations.server.turns import Turns
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
        hosts: Names of the server besides `localhost` and the machine's own; see `hosts.Hosts`.
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
    known, below = Hosts(hosts), checked_root_path(root_path)
    if store.judged_against(_digest(baseline, settings)):
        _LOG.warning("the store was judged against another baseline, or otherwise: every hour in it is judged anew")
    metrics = ServerMetrics(store)
    reporter = Reporter(store, baseline, settings, metrics, runs) if runs is not None else None
    settler = Settler(store, baseline, settings, metrics, _listener(reporter, on_judged))
    allowances = Allowances(settings)
    inbox, turns = Inbox(store, settings.sensors, allowances), Turns(settings)
    app = FastAPI(
        title="LensAI receiver",
        version=version("lensai-integrations"),
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
    app.add_middleware(KnownHosts, hosts=known, tokens=tokens is not None)
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
