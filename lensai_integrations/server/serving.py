"""The server as a process."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from lensai_integrations.errors import InputError
from lensai_integrations.mlflow.sensors import SensorRuns
from lensai_integrations.posting import is_loopback
from lensai_integrations.profile import Baseline
from lensai_integrations.server.app import create_app
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.settling import Listener
from lensai_integrations.server.store import Store
from lensai_integrations.server.tokens import read_tokens

#: Seconds that requests get to end when the server is asked to stop.
_GRACE = 15


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
    on_judged: Listener | None = None,
    runs: SensorRuns | None = None,
) -> None:
    """Take uploads until SIGINT or SIGTERM; requests under way are answered first.

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

    Raises:
        InputError: If there is no token file and `host` can be reached from elsewhere, or an argument is wrong.
        StoreError: If the store cannot be used.
    """
    tokens = read_tokens(Path(token_file)) if token_file is not None else None
    if tokens is None and not no_tokens and not is_loopback(host):
        raise InputError(
            f"host={host!r} can be reached from other machines: pass --token-file, or --no-tokens to let anyone upload"
        )
    opened = Store(store)
    try:
        app = create_app(baseline, opened, settings, tokens, name=name, on_judged=on_judged, runs=runs)
        _run(app, host, port)
    finally:
        opened.close()


def _run(app: FastAPI, host: str, port: int) -> None:
    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again when it has ended by them
            signal.signal(each, _stop)
    with suppress(_StoppedError):
        uvicorn.run(
            app,
            host=host,
            port=port,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
            log_level="warning",
        )


class _StoppedError(SystemExit):
    """A signal asked the server to end; nothing is wrong."""


def _stop(*_: object) -> None:
    raise _StoppedError(0)
