"""The server as a process: its sockets, its certificate, its signals."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import signal
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from lensai_integrations.errors import InputError
from lensai_integrations.mlflow.monitoring import SensorRuns
from lensai_integrations.profiles.profile import Baseline
from lensai_integrations.server.app import create_app
from lensai_integrations.server.connections import (
    Connections,
    CrowdedError,
    GuardedApp,
    Listener,
    listen,
    most_connections,
)
from lensai_integrations.server.lasting import Lasting
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.settling import Listener as OnJudged
from lensai_integrations.server.store import Store
from lensai_integrations.server.tokens import TokenFile
from lensai_integrations.storage.posting import is_loopback

_LOG = logging.getLogger(__name__)

#: Seconds that requests get to end when the server is asked to stop.
_GRACE: Final = 15
#: Loggers of others that have a line for every wrong request or connection.
_TALKATIVE: Final = ("uvicorn.error", "asyncio")


def serve(
    baseline: Baseline,
    store: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    token_file: str | Path | None = None,
    no_tokens: bool = False,
    settings: Settings | None = None,
    name: str = "baseline",
    on_judged: OnJudged | None = None,
    runs: SensorRuns | None = None,
    allow_hosts: Iterable[str] = (),
    root_path: str = "",
    trusted_proxies: Sequence[str] = (),
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
) -> None:
    """Take uploads until SIGINT or SIGTERM; requests under way are answered first.

    SIGHUP has the tokens and the certificate read again; tokens are also when their file has changed.

    Args:
        baseline: What hours are held against.
        store: Folder, or URL of a PostgreSQL database.
        host: Address to listen at.
        port: Port to listen at.
        token_file: Who may upload and read, a token per line; see `tokens.Tokens`.
        no_tokens: Let everyone who reaches `host` upload and read.
        settings: Limits and intervals.
        name: What the baseline is called on pages.
        on_judged: Told of every hour that was judged.
        runs: Where reports are logged in MLflow.
        allow_hosts: Names under which the server is reached, besides `host` and the machine's own; see `app.Hosts`.
        root_path: Path below which a proxy has it, e.g. `"/lensai"`.
        trusted_proxies: Addresses of proxies whose `X-Forwarded-For` and `-Proto` are believed.
        tls_cert: Certificate, with those between it and the root's, as PEM; the server then speaks HTTPS only.
        tls_key: Its private key as PEM; None if it is in the file of the certificate.

    Raises:
        InputError: If there is no token file and `host` can be reached from elsewhere, the address cannot be listened
            at, or an argument is wrong.
        StoreError: If the store cannot be used.
    """
    _ignore_hangups()
    tokens = TokenFile(Path(token_file)) if token_file is not None else None
    if tokens is None and not no_tokens and not is_loopback(host):
        raise InputError(
            f"host={host!r} can be reached from other machines: pass --token-file, or --no-tokens to let anyone upload"
        )
    _check_proxies(trusted_proxies)
    certificate = Certificate(tls_cert, tls_key) if tls_cert is not None or tls_key is not None else None
    most = most_connections(tls=certificate is not None)
    connections = Connections(most)
    sockets = _listeners(host, port, connections)
    try:
        opened = Store(store)
        try:
            app = create_app(
                baseline, opened, settings, tokens, name=name, on_judged=on_judged, runs=runs,
                hosts=_names(host, allow_hosts), root_path=root_path,
            )  # fmt: skip
            app.state.service.turns.fit(most)
            _LOG.info(
                "listens at %s", " ".join(_address(listener, tls=certificate is not None) for listener in sockets)
            )
            _run(app, trusted_proxies, connections, sockets, certificate, tokens)
        finally:
            opened.close()
    finally:
        for listener in sockets:
            listener.close()


def _ignore_hangups() -> None:
    """A SIGHUP that comes before there is anything to read again does not end the process."""
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _names(host: str, allowed: Iterable[str]) -> list[str]:
    named = host and ":" not in host and not host.replace(".", "").isdecimal()
    return [*([host] if named else []), *allowed]


def _check_proxies(addresses: Iterable[str]) -> None:
    """Refuse a name, to which no connection's address would ever be equal."""
    for address in addresses:
        try:
            ipaddress.ip_network(address)
        except ValueError as error:
            raise InputError(
                f"trusted_proxy={address!r} is no address: pass that of the proxy, or of its network, e.g."
                " '172.18.0.0/16'"
            ) from error


def _listeners(host: str, port: int, connections: Connections) -> list[Listener]:
    try:
        return listen(host, port, connections)
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot listen at host={host!r}, port={port}: {cause}; pass --host with an address of this machine, or"
            " another --port"
        ) from error


def _address(listener: Listener, *, tls: bool) -> str:
    host, port = listener.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/"


def _run(
    app: FastAPI,
    trusted_proxies: Sequence[str],
    connections: Connections,
    sockets: list[Listener],
    certificate: Certificate | None,
    tokens: TokenFile | None,
) -> None:
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(Lasting())
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what is wrong with a form is in the answer
    proxied: Any = ProxyHeadersMiddleware(cast(Any, app), list(trusted_proxies)) if trusted_proxies else app
    config = uvicorn.Config(
        cast(Any, GuardedApp(proxied, connections)),  # outermost: it knows connections by their own addresses
        http="h11",  # has a limit for heads; httptools has none
        ws="none",
        loop="asyncio",  # accepts with the sockets' own methods
        proxy_headers=False,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
        log_config=None,
        log_level="warning",
    )
    config.load()
    config.ssl = certificate.context if certificate is not None else None

    if threading.current_thread() is threading.main_thread():
        for ending in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again when it has ended by them
            signal.signal(ending, _stop)
    read_again = [source.load for source in (tokens, certificate) if source is not None]
    gc.freeze()  # what was imported and loaded stays: it need not be looked through whenever memory is
    try:
        with suppress(_StoppedError):
            asyncio.run(_serve(uvicorn.Server(config), connections, sockets, read_again))
    finally:
        gc.unfreeze()


async def _serve(
    server: uvicorn.Server, connections: Connections, sockets: list[Listener], read_again: Sequence[Callable[[], None]]
) -> None:
    asyncio.get_running_loop().set_exception_handler(_tell)
    watch = asyncio.create_task(connections.watch(lambda: server.should_exit))
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _read_again, read_again)
    try:
        await server.serve(sockets=list(sockets))
    finally:
        watch.cancel()


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio tells of, but for what was logged where it was raised."""
    if not isinstance(context.get("exception"), CrowdedError):
        loop.default_exception_handler(context)


def _read_again(parts: Sequence[Callable[[], None]]) -> None:
    wrong = False
    for load in parts:
        try:
            load()
        except InputError as error:
            wrong = True
            _LOG.warning("SIGHUP: what was before stays: %s", error)
    if not wrong:
        _LOG.info("SIGHUP: %s", "tokens and certificate were read again" if parts else "there is nothing to read again")


class _StoppedError(SystemExit):
    """A signal asked the server to end; nothing is wrong."""


def _stop(*_: object) -> None:
    raise _StoppedError(0)


class Certificate:
    """A certificate and its key, as TLS uses them.

    Attributes:
        context: What connections are made with.

    Args:
        cert: File of the certificate.
        key: File of its key; None if it is in the same.

    Raises:
        InputError: If they cannot be read, or do not belong together.
    """

    def __init__(self, cert: str | Path | None, key: str | Path | None) -> None:
        if cert is None:
            raise InputError(f"tls_key={str(key)!r} is of no use without a certificate: pass --tls-cert, too")
        self._cert, self._key = Path(cert), None if key is None else Path(key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # TLS 1.2 or newer
        self.context.set_alpn_protocols(["http/1.1"])
        self.load()

    def load(self) -> None:
        """Read the files; connections from now on are made with what is in them.

        Raises:
            InputError: If they cannot be read, or do not belong together; those from before then stay.
        """
        for name, path in {"tls_cert": self._cert, "tls_key": self._key}.items():
            if path is not None and not (path.is_file() and os.access(path, os.R_OK)):  # a pipe would be waited for
                raise InputError(f"{name}={str(path)!r} cannot be read: pass a PEM file that is there and may be read")
        try:
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._cert, self._key)  # half of a wrong pair would stay
            _load(self.context, self._cert, self._key)
        except (OSError, ValueError) as error:
            raise InputError(
                f"tls_cert={str(self._cert)!r} and tls_key={str(self._key or self._cert)!r} are not a certificate and"
                f" its key, without a password, as PEM: {error}"
            ) from error


def _load(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    context.load_cert_chain(cert, key, password=lambda: "")  # else OpenSSL asks at the terminal
