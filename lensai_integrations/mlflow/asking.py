"""What MLflow asks a server within a bounded call: a few times and not for minutes, and a login page is no answer.

MLflow tries a request that failed again seven times, or as late as the server's `Retry-After` says, and tells nobody
why. How often is a setting of the whole process, an environment variable, and belongs to its user. It also takes any
page of status 200 for success, as where a proxy asks for a login. All its requests go through one function: inside
`hurried` that one asks as is written here, everywhere else in the process as ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from lensai_integrations.errors import TrackingError
from lensai_integrations.storage.posting import ServerAnswer

if TYPE_CHECKING:
    from requests import Response

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
    inner = [each for each in (*error.args, getattr(error, "reason", None)) if isinstance(each, BaseException)]
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
    if method != "GET" and any(each.status_code not in _KEEPING for each in answer.history):
        raise TrackingError(f"the server answered {asked} with a redirect to {_place(answer)}: {advice}")
    if answer.status_code == 413:
        raise TrackingError(f"{_said(answer)} to {asked}: {_TOO_LARGE}")
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if answer.status_code == 200 and kind == "text/html" and not download:
        redirected = f", {_place(answer)}" if answer.history else ""
        raise TrackingError(f"the server answered {asked} with a web page{redirected}: {advice}")
