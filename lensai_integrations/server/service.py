"""The parts of a running server, and what every request goes through: a token, room on the disk, a turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, HTTPException, Request

from lensai_integrations.profile import Baseline
from lensai_integrations.server.inbox import Inbox
from lensai_integrations.server.metrics import Metrics
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.settling import Settler
from lensai_integrations.server.store import Store
from lensai_integrations.server.tokens import Grant, Tokens

#: How a browser is asked for a token, too.
_CHALLENGE = 'Basic realm="LensAI, token as password", charset="UTF-8", Bearer realm="LensAI"'
#: Seconds for which what the disk said is believed.
_DISK_SECONDS = 1.0


class Turns:
    """Lets so many at once, and so many wait.

    Args:
        at_once: How many have a turn at the same time.
        waiting: How many may wait for one.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self._turns, self._waiting, self._most_waiting = asyncio.Semaphore(at_once), 0, waiting

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it.

        Raises:
            HTTPException: 503 if too many wait.
        """
        if self._waiting >= self._most_waiting:
            raise HTTPException(503, "too many uploads at once: send it again", {"Retry-After": "2"})
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()


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
    """Whoever uploads.

    Raises:
        HTTPException: 401 without a valid token.
    """
    grant = service_of(request).grant(request)
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
