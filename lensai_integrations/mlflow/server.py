"""Calls to a tracking server that are sure to come back.

MLflow retries by itself: a server that is down holds a caller for about four minutes, one that accepts and never
answers for about twenty. So a call runs on a thread of its own, which is left behind at the deadline and ends with the
process. It asks as `asking.py` says, and a short question goes ahead of it: one request, no retries, sent by MLflow's
own client, so with its certificates, proxies and credentials.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

from lensai_integrations.errors import LensAIError, MissingDependencyError, TrackingError
from lensai_integrations.measures.inputs import check_seconds
from lensai_integrations.mlflow.address import cause
from lensai_integrations.mlflow.asking import hurried
from lensai_integrations.problems import pass_on

Result = TypeVar("Result")

#: Called between the steps of a bounded piece of work; it ends the work when nobody waits for it any more.
Checkpoint = Callable[[], None]

#: Seconds a server may take to answer the first short question.
PROBE_SECONDS = 10.0


def resolve_tracking_uri(tracking_uri: str | None) -> str:
    """The given tracking URI, or else the one MLflow is set to.

    Raises:
        MissingDependencyError: If MLflow is not installed.
    """
    try:
        import mlflow
    except ImportError as error:
        raise MissingDependencyError(
            "runs and logged models need MLflow: pip install 'lensai-integrations[mlflow]'"
        ) from error
    return str(tracking_uri) if tracking_uri else mlflow.get_tracking_uri()


def bounded(work: Callable[[Checkpoint], Result], deadline: float, uri: str) -> Result:
    """Do the work on another thread, after a probe of the server, and wait for it until the deadline.

    Args:
        work: Receives a function to call between its steps; that raises once the deadline has passed, so that work
            left behind does not go on for long.
        deadline: Seconds to wait, the probe included.
        uri: Tracking URI; its credentials are kept out of messages.

    Raises:
        InputError: If `deadline` is not positive.
        TrackingError: If the server does not answer in time, or the work fails; errors of this package stay as they
            are.
    """
    check_seconds("deadline", deadline)
    outcome: Future[Result] = Future()
    left_behind = threading.Event()

    def checkpoint() -> None:
        if left_behind.is_set():
            raise TrackingError("given up at the deadline")

    def run() -> None:
        try:
            _probe(uri, min(PROBE_SECONDS, deadline))
            checkpoint()
            with hurried():
                outcome.set_result(work(checkpoint))
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, which decides
            outcome.set_exception(error)

    threading.Thread(target=copy_context().run, args=(run,), daemon=True, name="lensai-mlflow").start()
    try:
        failure = outcome.exception(timeout=deadline)
    except TimeoutError as error:
        pass_on(error)  # of a user's signal handler, while this waited
        failure = TrackingError(f"no answer within {deadline:g} s")
    finally:
        left_behind.set()
    if failure is None:
        return outcome.result()
    if isinstance(failure, LensAIError) or not isinstance(failure, Exception):
        raise failure
    raise TrackingError(_told(failure) or cause(failure, uri))


def _told(failure: BaseException) -> str:
    """What `asking.py` has raised, of which MLflow makes an error of its own, with the whole address in it."""
    while context := failure.__context__:
        if isinstance(context, TrackingError):
            return str(context)
        failure = context
    return ""


def _probe(uri: str, seconds: float) -> None:
    """Ask an HTTP server whether it is there; any answer will do, since proxies answer in their own ways."""
    if not uri.startswith(("http://", "https://")):
        return
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    host = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    once = {"max_retries": 0, "timeout": seconds, "raise_on_status": False}
    try:
        http_request(host, "/health", "GET", **once)  # type: ignore[no-untyped-call]
    except MlflowException as error:
        problem = cause(error, uri)
    else:
        return
    raise TrackingError(f"the server does not answer: {problem}")
