"""The parts of a running server as requests see them, and what each needs first: a token, and room on the disk.

A page that takes long to make is not made for everyone who looks at it (`KeptPage`).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Annotated, Final, NoReturn

from fastapi import Depends, HTTPException, Request

from lensai_integrations.problems import Problems
from lensai_integrations.profiles.profile import Baseline
from lensai_integrations.server.lasting import Lasting
from lensai_integrations.server.ledger import Inbox
from lensai_integrations.server.metrics import ServerMetrics
from lensai_integrations.server.reporting import Reporter
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.settling import Settler
from lensai_integrations.server.shares import Allowances, Budget, LaterError, Sender, Turns, network_of
from lensai_integrations.server.store import Store
from lensai_integrations.server.tokens import Grant, Tokens

#: Seconds below which a page is made anew every time.
QUICK: Final = 0.2
#: A page is kept for so many times as long as it took, so that making it takes a tenth of a core at most.
_TIMES: Final = 9


class KeptPage:
    """The newest of one page; who asks while it is being made gets that one, or the error that came of it.

    Args:
        clock: Seconds, of a clock that is never set back.

    Example:
        >>> kept = KeptPage()
        >>> kept.get(lambda: "quick"), kept.get(lambda: "quick, too")
        ('quick', 'quick, too')
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._text, self._until = "", -1.0
        self._coming: Future[str] | None = None

    def get(self, make: Callable[[], str]) -> str:
        """The page as it was made a moment ago, as it is being made, or made now.

        Args:
            make: Makes it. What it raises is raised, also where others wait for it: each trying for itself, one after
                the other, would keep threads from uploads for as long as the store does not answer.
        """
        with self._lock:
            if self._clock() < self._until:
                return self._text
            coming, first = self._coming or Future[str](), self._coming is None
            self._coming = coming
        if first:
            self._make(make, coming)
        return coming.result()

    def _make(self, make: Callable[[], str], coming: Future[str]) -> None:
        began = self._clock()
        try:
            text = make()
        except BaseException as error:  # noqa: BLE001  raised by `result`, here and wherever it is waited for
            with self._lock:
                self._coming = None
            coming.set_exception(error)
            return
        ended = self._clock()
        with self._lock:
            self._coming = None
            if ended - began > QUICK:
                self._text, self._until = text, ended + _TIMES * (ended - began)
        coming.set_result(text)


_LOG = logging.getLogger(__name__)
#: Wrong tokens of an address that are answered 401, at once and again every minute; further ones are answered 429.
#: A right one is served whatever came before it: others may be behind the same address.
WRONG_TOKENS: Final = 10
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
        turns: What requests share.
        allowances: What senders may store in a day.
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
    metrics: ServerMetrics
    settler: Settler
    inbox: Inbox
    turns: Turns
    allowances: Allowances
    reporter: Reporter | None = None
    index: KeptPage = field(default_factory=KeptPage)
    differing: Problems = field(default_factory=Problems)
    told: Lasting = field(default_factory=lambda: Lasting(_LOG))
    guesses: Budget = field(default_factory=lambda: Budget("wrong tokens", WRONG_TOKENS, WRONG_TOKENS * 1440))
    _disk: tuple[float, int | None] = field(default=(float("-inf"), None), repr=False)

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
        if self.disk_room() < 0:
            raise LaterError(503, "the server's disk is full", 60)

    def disk_room(self) -> float:
        """Bytes that may still be stored; less than none where the disk is nearly full.

        Raises:
            StoreError: If the store's folder is gone.
        """
        now = time.monotonic()
        if now - self._disk[0] > _DISK_SECONDS or _room(self._disk[1], self.settings) < 0:
            self._disk = (now, self.store.free_bytes())
        return _room(self._disk[1], self.settings)

    def refuse(self, request: Request, detail: str, challenge: str) -> NoReturn:
        """Answer a request without a valid token, and count it.

        Raises:
            HTTPException: 401; 429 if the address has sent so many wrong ones that it should wait.
        """
        counted, address = self.metrics.unauthorised, _address(request)
        wrong = bool(request.headers.get("authorization")) and self.grant(request) is None
        if wrong:
            if wait := self.guesses.wait(address, 1):
                counted.labels("slowed").inc()
                seconds = str(math.ceil(wait))
                raise HTTPException(429, "too many wrong tokens came from this address", {"Retry-After": seconds})
            self.guesses.spend(address, 1)
            self.told.warning("a wrong token came from %s", address)
        counted.labels("wrong" if wrong else "missing").inc()
        raise HTTPException(401, detail, {"WWW-Authenticate": challenge})


def _room(free: int | None, settings: Settings) -> float:
    return math.inf if free is None else free - settings.free_bytes


def _address(request: Request) -> str:
    return network_of(request.client.host) if request.client is not None else ""


def service_of(request: Request) -> Service:
    """The service that answers a request."""
    service: Service = request.app.state.service
    return service


def sender(request: Request) -> Sender:
    """Whoever uploads: with a token as Bearer only, for a browser adds the password it knows to what any page sends.

    Raises:
        HTTPException: 401 without a valid token, 429 after many wrong ones; 403 if a page of somebody else has a
            browser send it.
    """
    service = service_of(request)
    bearer = request.headers.get("authorization", "").lower().startswith("bearer ")
    if "origin" in request.headers and not (bearer and service.tokens is not None):
        raise HTTPException(403, "devices upload, browsers do not")
    grant = service.grant(request) if bearer or service.tokens is None else None
    if grant is None:
        service.refuse(request, "a valid token is needed: Authorization: Bearer <token>", "Bearer")
    return Sender(grant, _address(request))


async def reader(request: Request) -> AsyncIterator[Service]:
    """The service, for whoever may read, when it is their turn.

    Raises:
        HTTPException: 401 without a valid token, 429 after many wrong ones or if too many requests of the sender wait,
            403 with one for uploads only.
    """
    service = service_of(request)
    grant = service.grant(request)
    if grant is None:
        service.refuse(request, "a valid token is needed, as Bearer or as password", _CHALLENGE)
    if not grant.reads:
        raise HTTPException(403, "this token is for uploads of one sensor only")
    async with service.turns.read(Sender(grant, _address(request))):
        yield service


Reader = Annotated[Service, Depends(reader)]
