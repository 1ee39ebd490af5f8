"""Posts over HTTP, of uploads and of notices.

urllib3 speaks HTTP and keeps the time; it is imported with the first post. A receiver is believed as little as a
sender: of what it answers a few bytes are read, redirects are not followed (a token would go with them), and no message
holds an address.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from lensai_integrations.errors import InputError
from lensai_integrations.problems import pass_on

if TYPE_CHECKING:
    import urllib3

_MOST_READ: Final = 4096
#: Characters of a cause that messages hold.
_MOST_SAID: Final = 200
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True)
class ServerAnswer:
    """What a server answered.

    Attributes:
        status: The HTTP status.
        detail: What a JSON answer says under `detail`, as one line; empty where it says nothing.
        wait: Seconds it asks to wait before another try.
        told: What else a JSON answer says.
        page: Whether it is a web page.
        date: Unix time in seconds on the server's clock; 0 where it does not say.

    Example:
        >>> str(ServerAnswer(429, wait=5.0))
        '429 Too Many Requests'
    """

    status: int
    detail: str = ""
    wait: float = 0.0
    told: Mapping[str, Any] = field(default_factory=dict)
    page: bool = False
    date: float = 0.0

    def __str__(self) -> str:
        return f"{self.status} {_PHRASES.get(self.status, '')}".strip()


def checked_url(name: str, url: Any) -> SplitResult:
    """The parts of a URL that can be posted to.

    Args:
        name: What the parameter is called.
        url: `http://` or `https://`.

    Raises:
        InputError: If it is of another kind. It is not in the message: URLs may hold secrets.

    Example:
        >>> checked_url("url", "https://lensai.example:8000/upload/").hostname
        'lensai.example'
    """
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        named = parts is not None and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise InputError(f"{name} is no URL: pass one that begins with http:// or https://") from error
    scheme = parts.scheme if parts is not None else type(url).__name__
    if parts is None or not named or scheme not in ("http", "https"):
        raise InputError(f"{name} should begin with http:// or https:// and name a server, not with {scheme + ':'!r}")
    if "@" in parts.netloc or not url.isprintable():
        raise InputError(f"{name} should have no user name, password or control character in it; pass a token instead")
    return parts


def server_of(url: str) -> str:
    """What messages call a server.

    Example:
        >>> server_of("https://lensai.example/upload/?key=secret")
        'https://lensai.example'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def post(url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> ServerAnswer:
    """Post once, through the proxy that the environment names, if any.

    Args:
        url: One that `checked_url` takes.
        body: What to send.
        headers: All headers but those of HTTP itself.
        timeout: Seconds to wait for a connection, and for each piece of the answer.

    Raises:
        ConnectionError: If there was no answer. The message has the cause, and not the URL.
    """
    import urllib3

    try:
        with _pool(url) as pool:
            answer = pool.request(
                "POST", url, body=body, headers=headers, timeout=timeout,
                retries=False, redirect=False, preload_content=False,
            )  # fmt: skip
            try:
                kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
                content = _content(answer) if kind == "application/json" or answer.status >= 400 else {}
                wait = _wait(answer.headers.get("Retry-After"))
                date = _date(answer.headers.get("Date"))
                return ServerAnswer(
                    answer.status, _line(content.get("detail")), wait, content, kind == "text/html", date
                )
            finally:
                answer.close()  # the rest is not read: it may have no end
    except (urllib3.exceptions.HTTPError, OSError) as error:
        pass_on(error)
        raise ConnectionError(_cause(error)) from None


def _pool(url: str) -> urllib3.PoolManager:
    import urllib3

    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    if not proxy:
        return urllib3.PoolManager()
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    auth = urllib3.util.parse_url(proxy).auth
    credentials = urllib3.util.make_headers(proxy_basic_auth=unquote(auth)) if auth else None
    return urllib3.ProxyManager(proxy, proxy_headers=credentials)


def _content(answer: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    """What FastAPI, and so LensAI's server, says of an upload or of a refusal, as far as a few bytes go."""
    import urllib3

    try:
        content = json.loads(answer.read1(_MOST_READ, decode_content=False))
    except (urllib3.exceptions.HTTPError, OSError, ValueError, RecursionError) as error:
        pass_on(error)
        return {}  # its status says enough
    return content if isinstance(content, dict) else {}


def _line(text: Any) -> str:
    return "".join(character for character in text if character.isprintable()) if isinstance(text, str) else ""


def _wait(asked: str | None) -> float:
    """Seconds of a `Retry-After`, which may be a date."""
    import urllib3

    try:
        return urllib3.Retry().parse_retry_after(asked) if asked else 0.0
    except (urllib3.exceptions.HTTPError, ValueError, OverflowError):
        return 0.0


def _date(said: str | None) -> float:
    """Unix time of a `Date`."""
    try:
        return parsedate_to_datetime(said).timestamp() if said else 0.0
    except (ValueError, OverflowError):
        return 0.0


def _cause(error: BaseException) -> str:
    """What lies under urllib3's errors, whose own texts name the server and the path."""
    while inner := error.__cause__ or next(
        (argument for argument in error.args if isinstance(argument, Exception)), None
    ):
        error = inner
    return _line(str(error))[:_MOST_SAID] or type(error).__name__  # of an answer that is none it holds the first line


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
