"""The parts of a running server, and what every request goes through: a token, and room on the disk."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, HTTPException, Request

from lensai_integrations.profile import Baseline
from lensai_integrations.server.inbox import Inbox
from lensai_integrations.server.kept import KeptPage
from lensai_integrations.server.lasting import Lasting
from lensai_integrations.server.metrics import Metrics
from lensai_integrations.server.reporting import Reporter
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.settling import Settler
from lensai_integrations.server.store import Store
from lensai_integrations.server.tokens import Grant, Tokens
from lensai_integrations.server.turns import Turns

_LOG = logging.getLogger(__name__)
#: How a browser is asked for a token, too.
_CHALLENGE = 'Basic realm="LensAI, token as password", charset="UTF-8", Bearer realm="LensAI"'
#: Seconds for which what the disk said is believed.
_DISK_SECONDS = 1.0


@dataclass
class Service:
    """What requests are answered with.

    Attributes:
        baseline: What hours are held against.
        name: What the baseline was called when the server was started.
        store: Where everything is.
        settings: Limits.
        tokens: Who may; None if everyone may.
        metrics: Counters.
        settler: The worker.
        inbox: Where uploads are left.
        turns: Of uploads.
        reporter: The worker that logs to MLflow; None where nothing is.
        index: The page of all sensors.
        differing: Sensors that have sent something else for a timestamp again, which is logged once.
        told: What is logged for as long as it lasts.
    """

    baseline: Baseline
    name: str
    store: Store
    settings: Settings
    tokens: Tokens | None
    metrics: Metrics
    settler: Settler
    inbox: Inbox
    turns: Turns
    reporter: Reporter | None = None
    index: KeptPage = field(default_factory=KeptPage)
    differing: set[str] = field(default_factory=set)
    told: Lasting = field(default_factory=lambda: Lasting(_LOG))
    _disk: tuple[float, bool] = field(default=(0.0, True), repr=False)

    def grant(self, request: Request) -> Grant | None:
        """What the token of a request allows; None without a valid one."""
        if self.tokens is None:
            return Grant()
        return self.tokens.grant(request.headers.get("authorization", ""))

    def check_disk(self) -> None:
        """Refuse to store anything where the disk is nearly full.

        Raises:
            HTTPException: 503 if it is.
        """
        now = time.monotonic()
        if now - self._disk[0] > _DISK_SECONDS or not self._disk[1]:
            free = self.store.free_bytes()
            self._disk = (now, free is None or free >= self.settings.free_bytes)
        if not self._disk[1]:
            raise HTTPException(503, "the server's disk is full: send it again later", {"Retry-After": "60"})


def service_of(request: Request) -> Service:
    """The service that answers a request."""
    service: Service = request.app.state.service
    return service


def sender(request: Request) -> Grant:
    """Whoever uploads: with a token as Bearer only, for a browser adds the password it knows to what any page sends.

    Raises:
        HTTPException: 401 without a valid token; 403 if a page of somebody else has a browser send it.
    """
    service = service_of(request)
    bearer = request.headers.get("authorization", "").lower().startswith("bearer ")
    if "origin" in request.headers and not (bearer and service.tokens is not None):
        raise HTTPException(403, "devices upload, browsers do not")
    grant = service.grant(request) if bearer or service.tokens is None else None
    if grant is None:
        raise HTTPException(
            401, "a valid token is needed: Authorization: Bearer <token>", {"WWW-Authenticate": "Bearer"}
        )
    return grant


def reader(request: Request) -> Service:
    """The service, for whoever may read.

    Raises:
        HTTPException: 401 without a valid token, 403 with one for uploads only.
    """
    service = service_of(request)
    grant = service.grant(request)
    if grant is None:
        raise HTTPException(401, "a valid token is needed, as Bearer or as password", {"WWW-Authenticate": _CHALLENGE})
    if not grant.reads:
        raise HTTPException(403, "this token is for uploads of one sensor only")
    return service


Reader = Annotated[Service, Depends(reader)]
