"""How many connections are open, and for how long one may be without a request.

ASGI servers wait for whoever has connected: uvicorn has no limit at all for a head that does not come, hypercorn and
granian have one and still answer nobody until it is over, and all of them accept until the process has no file left.
Here the sockets themselves are counted, below TLS and HTTP, so that a handshake that never ends, half a head, silence
after an answer and an answer that is never read are one case: a connection without a request under way, quiet since
some time. It is closed when that was too long, or, the longest quiet first, when its place is needed. So nobody who
sends a head without delay is kept out by many who do not.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice, takewhile
from typing import Any, Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lensai_integrations.server.lasting import Lasting

_LOG = logging.getLogger(__name__)

#: Connections that may be open at the same time, where the process may have as many files.
MOST: Final = 5_000
#: Files for everything else: the store, MLflow, what Python imports.
_OTHER_FILES: Final = 256
#: Seconds from the connection, or the answer before, to a whole head; and for the next bytes of an answer to be taken.
QUIET: Final = 20.0
#: The same while the server stops.
QUIET_AT_THE_END: Final = 2.0
#: Seconds for which nobody has to make room: all devices of a fleet may connect in the same second, and what they send
#: is on its way. Further ones wait in the kernel's queue meanwhile, where nothing of them is lost.
GRACE: Final = 1.0
#: Places that are made at once: a connection needs some turns of the event loop to end.
_PLACES: Final = 16
#: Seconds for which asyncio accepts nothing after an error of these kinds.
_PAUSE: Final = 1.0
#: Seconds for which the event loop is to read what has come before nothing is accepted.
_PATIENCE: Final = 0.1
#: Connections without any request after whose end memory is looked through: of a TLS handshake that has failed asyncio
#: leaves half a megabyte in a circle of references, which Python takes for a few small objects.
_USELESS: Final = 64
_NO_FILES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: Address and port of a client.
Peer = tuple[Any, ...]


def most_connections(*, tls: bool = False) -> int:
    """How many connections fit into the files this process may open; the soft limit is raised for them if it can be.

    Args:
        tls: Whether they are encrypted: asyncio then holds 0.4 MiB for each, so there are a tenth as many.
    """
    most = MOST // 10 if tls else MOST
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return most
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited, wanted = resource.RLIM_INFINITY, most + _OTHER_FILES
    if soft != unlimited and soft < wanted:
        raised = wanted if hard == unlimited else min(wanted, hard)
        with suppress(ValueError, OSError):  # macOS has a limit below the one it names
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    return most if soft == unlimited else min(most, max(soft - _OTHER_FILES, soft // 2))


class CrowdedError(OSError):
    """Nothing is accepted for a while."""


class Connections:
    """The connections of a server.

    Args:
        most: How many may be open.
        clock: Seconds that only grow.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock, self._told = most, clock, Lasting(_LOG)
        self._open: dict[Peer, _Connection] = {}
        #: Those without a request under way, and since when; the longest quiet first.
        self._quiet: dict[_Connection, float] = {}
        self._leaving: set[_Connection] = set()
        self._made_room = self._paused = float("-inf")
        #: Since when there is no place to be made.
        self._crowded: float | None = None
        self._useless = 0

    def __len__(self) -> int:
        return len(self._open)

    def accept(self, listener: socket.socket) -> tuple[socket.socket, Peer]:
        """The next connection, as `socket.accept` returns it.

        Raises:
            BlockingIOError: If there is none, or places are being made; asyncio asks again.
            CrowdedError: If every connection has a request under way, or is new; asyncio then asks after a second.
        """
        if len(self._open) >= self._most:
            self._make_room()
            raise BlockingIOError
        try:
            accepted, peer = socket.socket.accept(listener)
        except OSError as error:
            if error.errno in _NO_FILES:
                self._make_room()
                raise BlockingIOError from error
            raise
        self._crowded = None
        connection = _Connection(self, peer[:2], accepted)
        self._open[connection.peer] = connection
        self._quiet[connection] = self._clock()
        return connection, peer

    def _make_room(self) -> None:
        now = self._clock()
        if self._leaving and now - self._made_room < _PAUSE:
            return
        quiet = takewhile(lambda entry: entry[1] <= now - GRACE, self._quiet.items())
        silent = list(islice((connection for connection, _ in quiet if connection.is_silent()), _PLACES))
        if silent:
            self._close(silent)
            self._made_room, self._crowded = now, None
            self._told.warning("%d connections are open, the most there may be: the longest quiet ones end", self._most)
            return
        self._crowded = now if self._crowded is None else self._crowded  # what has come may just wait to be read
        if now - self._crowded >= _PATIENCE and now - self._paused >= _PAUSE:
            self._paused = now
            self._told.warning("%d connections are open, none of them quiet: further ones wait", self._most)
            raise CrowdedError(errno.EMFILE, "every connection that may be open has a request under way, or is new")

    def _close(self, connections: list[_Connection]) -> None:
        for connection in connections:
            del self._quiet[connection]
            self._leaving.add(connection)
            with suppress(OSError):  # the client was quicker
                connection.shutdown(socket.SHUT_RDWR)  # the event loop then ends whatever it was doing with it

    def sweep(self, seconds: float = QUIET) -> None:
        """End the connections that were quiet for so long."""
        end, late = self._clock() - seconds, []
        for connection, since in self._quiet.items():
            if since > end:
                break
            late.append(connection)
        self._close(late)

    async def watch(self, stops: Callable[[], bool] = lambda: False) -> None:
        """Sweep every second, for ever.

        Args:
            stops: Whether the server waits for connections to end; uvicorn has not asked those that came last to.
        """
        while True:
            await asyncio.sleep(1.0)
            self.sweep(QUIET_AT_THE_END if stops() else QUIET)

    @contextmanager
    def busy(self, peer: Peer | None) -> Iterator[_Connection | None]:
        """A request of a client is under way; None if its connection has ended."""
        connection = self._open.get(tuple(peer)) if peer else None
        if connection is None:
            yield None
            return
        connection.requests += 1
        connection.served = True
        self.works(connection)
        try:
            yield connection
        finally:
            connection.requests -= 1  # the next one may be under way before this one has ended to the last line
            if not connection.requests:
                self.waits(connection)

    def waits(self, connection: _Connection) -> None:
        """It is the client's turn."""
        if self._open.get(connection.peer) is connection and connection not in self._leaving:
            self._quiet.pop(connection, None)  # to the end
            self._quiet[connection] = self._clock()

    def works(self, connection: _Connection) -> None:
        """It is the server's turn."""
        self._quiet.pop(connection, None)

    def sent(self, connection: _Connection) -> None:
        """The client has taken some bytes."""
        if connection in self._quiet:
            self.waits(connection)

    def closed(self, connection: _Connection) -> None:
        """It has ended."""
        self._quiet.pop(connection, None)
        self._leaving.discard(connection)
        if self._open.get(connection.peer) is connection:
            del self._open[connection.peer]
        self._useless += not connection.served
        if self._useless >= _USELESS:
            self._useless = 0
            gc.collect()


class _Connection(socket.socket):
    """A connection that says when bytes were taken, and when it is closed."""

    def __init__(self, connections: Connections, peer: Peer, accepted: socket.socket) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self._connections, self.peer, self.requests, self.served = connections, peer, 0, False

    def is_silent(self) -> bool:
        """Whether there is nothing to read; what has come is read before long, and may be a whole head."""
        try:
            return not self.recv(1, socket.MSG_PEEK)
        except OSError:  # that it would block, mostly
            return True

    def send(self, *args: Any) -> int:
        sent = super().send(*args)
        self._connections.sent(self)
        return sent

    def sendmsg(self, *args: Any) -> int:  # asyncio's from Python 3.12 on
        sent = super().sendmsg(*args)
        self._connections.sent(self)
        return sent

    def close(self) -> None:
        self._connections.closed(self)
        super().close()


class Listener(socket.socket):
    """A listening socket whose connections are counted."""

    connections: Connections

    def accept(self) -> tuple[socket.socket, Peer]:
        """The next connection; see `Connections.accept`."""
        return self.connections.accept(self)


def listen(host: str, port: int, connections: Connections) -> list[Listener]:
    """Sockets at every address of a host: a name has one for each way to reach it.

    Args:
        host: Name or address; empty: every address of this machine.
        port: Port; 0: any that is free, the same at every address.
        connections: Where theirs are counted.

    Raises:
        OSError: If the host is not known, is not of this machine, or the port is in use.
    """
    listeners: list[Listener] = []
    missing: OSError | None = None
    try:
        for family, kind, proto, _, address in dict.fromkeys(
            socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        ):
            try:
                listeners.append(_bound(family, kind, proto, (address[0], port, *address[2:])))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # of two ways one may be switched off
                    raise
                missing = error
                continue
            listeners[-1].connections = connections
            port = listeners[-1].getsockname()[1]
        if missing is not None and not listeners:
            raise missing
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _bound(family: int, kind: int, proto: int, address: tuple[Any, ...]) -> Listener:
    listener = Listener(family, kind, proto)
    try:
        listener.setblocking(False)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


class GuardedApp:
    """An application whose requests are known to be under way, and told when they are cut short.

    Args:
        app: The application.
        connections: The server's; client addresses are those of the connections, not of what a proxy says.
    """

    def __init__(self, app: ASGIApp, connections: Connections) -> None:
        self._app, self._connections = app, connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._connections.busy(scope["client"]) as connection:
            began = False

            async def answer(message: Message) -> None:
                nonlocal began
                began = True
                if connection is not None:
                    self._connections.waits(connection)  # until the client takes what waits to be sent
                await send(message)
                if connection is not None:
                    self._connections.works(connection)

            try:
                await self._app(scope, receive, answer)
            except asyncio.CancelledError:  # the server stops and has waited for long enough
                if began:
                    raise
                detail = {"detail": "the server stops: send it again"}
                await JSONResponse(detail, 503, {"Retry-After": "5", "Connection": "close"})(scope, receive, send)
