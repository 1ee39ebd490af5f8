"""A tracking server: its names and addresses as they may be shown and stored, and calls that are sure to come back.

A tracking URI may carry a password, and MLflow, requests and database drivers repeat the URI in their error messages.
Whatever is put into a message or a file goes through here first. Artifact names keep to letters, digits, `.`, `_` and
`-`: names with `#`, `?` or `%` overwrite each other on a tracking server or cannot be downloaded again.

MLflow tries a request that failed again seven times, or as late as the server's `Retry-After` says, and tells nobody
why: a server that is down holds a caller for about four minutes, one that accepts and never answers for about twenty.
It also takes any page of status 200 for success, as where a proxy asks for a login. So a call runs on a thread of its
own (`bounded`), which is left behind at the deadline and ends with the process. A short question goes ahead of it: one
request, no retries, sent by MLflow's own client, so with its certificates, proxies and credentials. How often MLflow
tries is a setting of the whole process, an environment variable, and belongs to its user; but all its requests go
through one function, and inside `hurried` that one asks as is written here, everywhere else as ever.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from lensai_integrations.errors import InputError, LensAIError, MissingDependencyError, TrackingError
from lensai_integrations.measures.arguments import check_seconds
from lensai_integrations.problems import pass_on
from lensai_integrations.storage.posting import ServerAnswer

if TYPE_CHECKING:
    from requests import Response


#: Where a baseline lives below a run or a logged model, unless the caller says otherwise.
DEFAULT_PATH = "lensai"

#: One or more directory names, none of them `.` or `..`.
PATH_PATTERN = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)*"

# A user name and a password stand between "://" and the last "@"; an address whose path follows at once has none.
_USER_INFO = re.compile(r"://(?!/)(.*)@")
# Network errors come wrapped three times; what happened stands at the end: "... [Errno 111] Connection refused")".
_NETWORK_ROOT = re.compile(r"\(Caused by \w+\(.*: ((?!.*://)[^'\"]{3,200})['\"]\)\)$")
_ANY_USER_INFO = re.compile(r"://[^\s/@]*@")
# Characters of a long cause that are kept at either end.
_LONGEST_PART = 200


def checked_path(artifact_path: str) -> str:
    """The artifact path, if it is one that every artifact store keeps as it is.

    Raises:
        InputError: If it holds other characters than letters, digits, `.`, `_`, `-` and `/`, or is not relative.

    Example:
        >>> checked_path("lensai/best")
        'lensai/best'
    """
    if not re.fullmatch(PATH_PATTERN, artifact_path):
        raise InputError(
            f"artifact_path={artifact_path!r} cannot be used; pass a relative path of letters, digits, "
            "'.', '_' and '-', such as 'lensai'"
        )
    return artifact_path


def without_credentials(uri: str) -> str:
    """The URI without user name, password and query, which may hold a password too.

    Example:
        >>> without_credentials("https://ada:secret@mlflow.example:5000/team?token=abc")
        'https://mlflow.example:5000/team'
        >>> without_credentials("sqlite:///mlflow.db")
        'sqlite:///mlflow.db'
    """
    return re.split(r"[?#]", _USER_INFO.sub("://", uri), maxsplit=1)[0]


def cause(error: BaseException, uri: str) -> str:
    """What an error says, on one line, shortened, and without the credentials of `uri` or of any other address.

    Of a network error it is the innermost part, such as `[Errno 111] Connection refused`.

    Example:
        >>> cause(OSError("cannot reach http://ada:secret@host/api"), "http://ada:secret@host")
        'OSError: cannot reach http://host/api'
    """
    text = " ".join(str(error).split())
    root = _NETWORK_ROOT.search(text)
    text = root.group(1) if root else text
    text = text.replace(uri, without_credentials(uri))
    text = _ANY_USER_INFO.sub("://", text)
    for secret in _secrets(uri):
        text = text.replace(secret, "***")
    if len(text) > 2 * _LONGEST_PART:
        text = f"{text[:_LONGEST_PART]} ... {text[-_LONGEST_PART:]}"
    kind = type(error).__name__
    return text if root else f"{kind}: {text}" if text else kind


def _secrets(uri: str) -> list[str]:
    """The password and the values of the query, as they stand and decoded; very short ones would match anything."""
    match = _USER_INFO.search(uri)
    password = match.group(1).partition(":")[2] if match else ""
    values = re.findall(r"[?&][^=&#]+=([^&#]+)", uri)
    return [text for raw in (password, *values) for text in {raw, unquote(raw)} if len(text) > 3]


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
    """What `_ask` has raised, of which MLflow makes an error of its own, with the whole address in it."""
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


#: Seconds before each further try of what was answered with 429 or 5xx, or not at all.
PAUSES: Final = (1.0, 3.0)
#: Seconds for an answer to what is only a question; an upload may take longer to be stored.
QUESTION_SECONDS: Final = 15.0
#: Characters of what a server says of an error.
_MOST_SAID: Final = 200
_TOO_LARGE: Final = "raise the limit of the proxy before it (of nginx: client_max_body_size)"
#: Redirects after which what was sent is sent again; after others it is lost, also where a PUT stays a PUT.
_KEEPING: Final = (307, 308)
_FUNCTION: Final = "_get_http_response_with_retries"
_HURRIED: ContextVar[bool] = ContextVar("lensai_hurried", default=False)
_pause = time.sleep


@contextmanager
def hurried() -> Iterator[None]:
    """Have the requests that MLflow makes in this thread asked as this module says."""
    _install()
    token = _HURRIED.set(True)
    try:
        yield
    finally:
        _HURRIED.reset(token)


def _install() -> None:
    """Put `_ask` before MLflow's function, once; where a release has none, the caller's deadline is all there is."""
    from mlflow.utils import rest_utils

    request = getattr(rest_utils, _FUNCTION, None)
    if request is None or getattr(request, "of_lensai", False):
        return

    def asked(method: str, url: str, *arguments: Any, **options: Any) -> Response:
        if not _HURRIED.get():
            answer: Response = request(method, url, *arguments, **options)
            return answer
        return _ask(request, method, url, *arguments, **options)

    asked.of_lensai = True  # type: ignore[attr-defined]
    setattr(rest_utils, _FUNCTION, asked)


def _ask(
    request: Callable[..., Response],
    method: str,
    url: str,
    max_retries: int,
    backoff_factor: float,
    backoff_jitter: float,
    retry_codes: frozenset[int],
    raise_on_status: bool = True,
    **options: Any,
) -> Response:
    """Ask at most three times, and return an answer that MLflow can make something of.

    Raises:
        TrackingError: If there is none. It names the answer, or what happened to the connection.
    """
    from requests.exceptions import RequestException
    from urllib3.exceptions import NewConnectionError, TimeoutError

    asked, body = f"{method} {urlsplit(url).path}", options.get("data")
    if body is None and options.get("timeout"):
        options["timeout"] = min(options["timeout"], QUESTION_SECONDS)
    options["respect_retry_after_header"] = False
    for pause in (*PAUSES[:max_retries], None):
        try:
            answer = request(method, url, 0, backoff_factor, backoff_jitter, retry_codes, False, **options)
        except RequestException as error:
            reason = _reason(error)
            if isinstance(reason, TimeoutError) and not isinstance(reason, NewConnectionError):
                raise TrackingError(f"no answer to {asked} within {options['timeout']:g} s") from error
            failure = TrackingError(
                f"no answer to {asked}: {str(reason).rpartition('): ')[2] or type(reason).__name__}"
            )
        else:
            if answer.status_code not in retry_codes:
                _check(answer, method, asked, download=bool(options.get("stream")))
                return answer
            failure = TrackingError(f"{_said(answer)} to {asked}")
        if pause is not None:
            _pause(pause)
            if body is not None and hasattr(body, "seek"):
                body.seek(0)
    raise failure


def _reason(error: BaseException) -> BaseException:
    """What happened to a connection: of errors in errors, the innermost."""
    inner = [
        argument for argument in (*error.args, getattr(error, "reason", None)) if isinstance(argument, BaseException)
    ]
    return _reason(inner[0]) if inner else error


def _said(answer: Response) -> str:
    """An answer's status, and what it says of the error."""
    try:
        message = answer.json()["message"]
    except (ValueError, TypeError, KeyError):
        message = ""
    text = " ".join(str(message).split())[:_MOST_SAID]
    return f"the server answered {ServerAnswer(answer.status_code)}{f' ({text})' if text else ''}"


def _place(answer: Response) -> str:
    """Where redirects have led to, without credentials; the whole address if that is another server's."""
    first, last = urlsplit(answer.history[0].url), urlsplit(answer.url)
    host = last.netloc.rpartition("@")[2]
    is_same = (last.scheme, host) == (first.scheme, first.netloc.rpartition("@")[2])
    return last.path if is_same else f"{last.scheme}://{host}{last.path}"


def _check(answer: Response, method: str, asked: str, *, download: bool) -> None:
    """Refuse what a proxy or a login page answers in the server's place; a file that is downloaded may be a page."""
    advice = "is a proxy or a login before the server? Pass the address, and the credentials, of MLflow itself"
    if method != "GET" and any(hop.status_code not in _KEEPING for hop in answer.history):
        raise TrackingError(f"the server answered {asked} with a redirect to {_place(answer)}: {advice}")
    if answer.status_code == 413:
        raise TrackingError(f"{_said(answer)} to {asked}: {_TOO_LARGE}")
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if answer.status_code == 200 and kind == "text/html" and not download:
        redirected = f", {_place(answer)}" if answer.history else ""
        raise TrackingError(f"the server answered {asked} with a web page{redirected}: {advice}")
