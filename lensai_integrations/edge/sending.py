"""The one upload that LensAI's servers take: a form with an archive of sketches, and when it is tried again.

urllib3 makes the form. The retries are a loop here because urllib3's own read all that a refusal holds, wait up to six
hours if they are asked to, and try a 413 again.
"""

from __future__ import annotations

import gzip
import io
import logging
import math
import random
import re
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from lensai_integrations.errors import InputError, TrackingError
from lensai_integrations.storage.posting import ServerAnswer, checked_url, is_loopback, post, server_of

_LOG: Final = logging.getLogger(__name__)

NEW, KNOWN = 201, 200
#: Answers that mean that this upload will never be taken: malformed, too large, or of another kind.
_NEVER: Final = (400, 413, 415, 422)
#: Seconds that a server's clock may be behind the time of an upload. If it is more, one of the two clocks is wrong, and
#: these answers may mean no more than that.
BEHIND: Final = 3600.0
_OF_CLOCKS: Final = (400, 422, 503)
#: What to do about an answer.
_ADVICE: Final = {
    401: "pass the token that the server was started with",
    403: "pass a token that may upload",
    404: "is this the address of uploads? It usually ends in /upload/",
    413: "the upload is larger than the server takes",
} | dict.fromkeys(
    (301, 302, 303, 307, 308), "redirects are not followed, the token would go with them: pass the address it leads to"
)

#: Seconds before the first retry, doubled before each further one, and the longest that is waited, whoever asks for it.
BACKOFF, LONGEST_WAIT = 1.0, 60.0

#: Seconds that are tried for an upload of now: where the server says that it has others, and where it may mean these.
MOST_TIMES, _MOST_DOUBTFUL = 600, 20
#: 2000-01-01, before which no device has uploaded anything.
EARLIEST: Final = 946_684_800
#: By address and sensor, the latest second of which something was sent by this process as of now.
_LATEST: Final[dict[tuple[str, str], int]] = {}
_CLOCK: Final = threading.Lock()

#: A sensor's name, for those who send and those who receive.
SENSOR: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_pause = time.sleep
_jitter = random.SystemRandom().uniform  # leaves the generators of a training run alone


class UndeliveredError(TrackingError):
    """An upload that the server does not have, as far as is known.

    Attributes:
        upload: The upload, as it was tried last.
    """

    upload: Upload


class AheadUploadError(UndeliveredError):
    """The upload's time is ahead of the server's clock, and the server did not take it: later, or set right, it may."""


class RefusedUploadError(UndeliveredError):
    """The server answered that it will never take this upload: there is no point in trying again."""


class DifferentUploadError(RefusedUploadError):
    """The server has something else of this sensor and time, and keeps that."""


@dataclass(frozen=True)
class Upload:
    """Sketches of one sensor at one time, and where they go.

    Args:
        endpoint: `http://` or `https://`, with the path, such as `/upload/`.
        sensor_id: Whose they are: letters, digits, `.`, `_` and `-`, at most 128.
        timestamp: Of when, unix time in whole seconds. A server takes one upload of each sensor and timestamp.
        archive: What `archive` made.
        fresh: That the time is no more than that of now: where the server has another of it, a later second will do.

    Raises:
        InputError: If one is not like that.

    Example:
        >>> Upload("https://lensai.example/upload/", "../door", 1719393854, b"")
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: sensor_id='../door' should be letters, digits, '.', '_' and '-', ...
    """

    endpoint: str
    sensor_id: str
    timestamp: int
    archive: bytes
    fresh: bool = False

    def __post_init__(self) -> None:
        checked_url("endpoint", self.endpoint)
        if not isinstance(self.sensor_id, str) or not SENSOR.fullmatch(self.sensor_id):
            raise InputError(f"sensor_id={self.sensor_id!r} should be letters, digits, '.', '_' and '-', at most 128")
        if isinstance(self.timestamp, bool) or not isinstance(self.timestamp, int) or not 0 <= self.timestamp < 2**40:
            raise InputError(f"timestamp={self.timestamp!r} should be unix time in whole seconds")

    @property
    def server(self) -> str:
        """What messages call it: `https://lensai.example`."""
        return server_of(self.endpoint)


def send(
    upload: Upload,
    *,
    token: str | None = None,
    timeout: float = 30.0,
    retries: int = 3,
    older: bool = False,
) -> bool:
    """Deliver an upload, in LensAI's C++ protocol. What the server does not have when this returns, it raises.

    Tried again are: no connection, no answer, 429 and 5xx; after 1, 2, 4, ... seconds, a random part of it less, and
    not before the server's `Retry-After`. A server that asks for more than 60 seconds is not tried again.

    Args:
        upload: What, and to where. A fresh one is sent as of now, or of the next second of which the server has
            nothing. Two of one process never have the same.
        token: Sent as `Authorization: Bearer`.
        timeout: Seconds to wait for a connection, and for each piece of the answer.
        retries: How often it is tried again.
        older: Whether the older dialect is spoken as well, that of LensAI's Python profiler.

    Returns:
        Whether the server had none of this sensor and timestamp before.

    Raises:
        InputError: If an argument is out of range.
        RefusedUploadError: If the server will never take it: 400, 413, 415 or 422.
        AheadUploadError: If it answers 400, 422 or 503 and its clock is more than an hour behind the upload's time.
        DifferentUploadError: If the server answers that it has something else of this sensor and timestamp.
        UndeliveredError: If the server could not be reached, refused, or did not answer in time.

    Example:
        >>> send(Upload("https://lensai.example/upload/", "door-3", 1719393854, b""), retries=-1)
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: retries=-1 should be a whole number from 0 to 100
    """
    check_settings(token, timeout, retries)
    if not upload.fresh:
        answer, unanswered = _send(upload, token, timeout, retries, older)
        if answer.status == KNOWN and not unanswered and "status" not in answer.told:
            _LOG.warning(
                "%s had sketches of sensor %r at %d before and does not say whether they are these; the first stay",
                upload.server, upload.sensor_id, upload.timestamp,
            )  # fmt: skip
        return answer.status == NEW
    times = doubtful = 0
    while times < MOST_TIMES and doubtful < _MOST_DOUBTFUL:
        times, upload = times + 1, replace(upload, timestamp=_free_time(upload))
        with suppress(DifferentUploadError):
            answer, unanswered = _send(upload, token, timeout, retries, older)
            if answer.status == NEW or unanswered:  # the try without an answer was taken
                return True
            doubtful += 1
    raise _undelivered(
        UndeliveredError, upload,
        f"{upload.server} answered {times} times that it had an upload of that second already, so it may have"
        " stored none of these: is this the address of uploads? It usually ends in /upload/",
    )  # fmt: skip


def _free_time(upload: Upload) -> int:
    """The second of an upload that is of now: a later one than that of any other of this process and sensor.

    Raises:
        UndeliveredError: If the clock has not been set since the machine was started.
    """
    key = upload.endpoint, upload.sensor_id
    now = now_for(upload)
    with _CLOCK:
        _LATEST[key] = when = max(now, _LATEST.get(key, 0) + 1)
        for other in [other for other, last in _LATEST.items() if last < now]:
            del _LATEST[other]
    return when


def now_for(upload: Upload) -> int:
    """The second that it is, for an upload that is of now.

    Raises:
        UndeliveredError: If the clock has not been set since the machine was started.
    """
    now = int(time.time())
    if now <= EARLIEST:
        problem = f"it was not sent: the clock here says {utc(now)}, and that is wrong; set it"
        raise _undelivered(UndeliveredError, upload, problem)
    return now


def time_named(name: str) -> int | None:
    """The unix time in seconds that a folder is named by, if it is one of this century that has been.

    Where the clock has not been set, what has been is not known: then any time of 32 bits is one.

    Example:
        >>> time_named("1719393854"), time_named("door-3"), time_named("202406260924")
        (1719393854, None, None)
    """
    when = int(name) if name.isascii() and name.isdecimal() and len(name) <= 13 else 0
    now = time.time()
    return when if EARLIEST < when <= (now if now > EARLIEST else 2**32) else None


def _undelivered(kind: type[UndeliveredError], upload: Upload, message: str) -> UndeliveredError:
    error = kind(message)
    error.upload = upload
    return error


def _send(upload: Upload, token: str | None, timeout: float, retries: int, older: bool) -> tuple[ServerAnswer, bool]:
    """What the server answered that has the upload, and whether there was a try without an answer before.

    Raises:
        UndeliveredError: As `send`.
    """
    body, kind = _form(upload)
    sent = {"User-Agent": "lensai-integrations", "Content-Type": kind}
    if older:
        sent |= {"metrictype": "stats", "sensorid": upload.sensor_id, "timestamp": str(upload.timestamp)}
    if token:
        _warn_of_plain_http(upload.server)
        sent["Authorization"] = f"Bearer {token}"
    unanswered = False
    for pause in _pauses(retries):
        try:
            answer = post(upload.endpoint, body, sent, timeout)
        except ConnectionError as error:
            answer, unanswered = ServerAnswer(0), True
            message = f"{upload.server} could not be reached within {timeout:g} s: {error}"
            failure = _undelivered(UndeliveredError, upload, message)
        else:
            if answer.status in (NEW, KNOWN) and not answer.page:
                _check_stored(upload, answer)
                return answer, unanswered
            failure = _failure(upload, answer, token)
            unanswered = unanswered or answer.status >= 500  # a proxy before the server may say so
        if isinstance(failure, AheadUploadError) or (answer.status not in (0, 429) and answer.status < 500):
            break
        if pause is None or answer.wait > LONGEST_WAIT:
            break
        _pause(max(pause, answer.wait))
    raise failure


def check_settings(token: str | None, timeout: float, retries: int) -> None:
    """Hold the settings of `send` against what it takes.

    Raises:
        InputError: If one is out of range. A token is in no message.

    Example:
        >>> check_settings(None, 0, 3)
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: timeout=0 should be a positive number of seconds
    """
    if token is not None and not (isinstance(token, str) and token.isascii() and token.isprintable()):
        raise InputError("token should be printable ASCII characters, without a newline")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise InputError(f"timeout={timeout!r} should be a positive number of seconds")
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= 100:
        raise InputError(f"retries={retries!r} should be a whole number from 0 to 100")


def archive(contents: Mapping[str, bytes], timestamp: int) -> bytes:
    """Files as a gzipped GNU tar; the same files always give the same bytes.

    Args:
        contents: Content by path, e.g. `imgstats/noise.bin`.
        timestamp: Unix time in seconds that the members get.

    Example:
        >>> blob = archive({"imgstats/noise.bin": b"..."}, 1719393854)
        >>> tarfile.open(fileobj=io.BytesIO(blob)).getnames()
        ['imgstats/noise.bin']
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), timestamp
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def _form(upload: Upload) -> tuple[bytes, str]:
    from urllib3 import encode_multipart_formdata

    fields = {"sensor_id": upload.sensor_id, "timestamp": str(upload.timestamp), "file_type": "stats"}
    return encode_multipart_formdata({**fields, "file": ("stats.tar.gz", upload.archive, "application/gzip")})


def _pauses(retries: int) -> Iterator[float | None]:
    """Seconds after each attempt; None after the last."""
    yield from (_jitter(0.5, 1.0) * min(LONGEST_WAIT, BACKOFF * 2.0**n) for n in range(retries))
    yield None


def _check_stored(upload: Upload, answer: ServerAnswer) -> None:
    """Raise if the server has kept something else, and say what of the upload it could not read."""
    if answer.told.get("status") == "different":
        message = (
            f"{upload.server} has other sketches of sensor {upload.sensor_id!r} at {upload.timestamp} and keeps those,"
            " so these are not there: send them under another time (timestamp=, or a folder that is named by another),"
            " or as another sensor"
        )
        raise _undelivered(DifferentUploadError, upload, message)
    problems = answer.told.get("problems")
    if isinstance(problems, list) and problems:
        named = "; ".join(
            "".join(char for char in str(problem)[:200] if char.isprintable()) for problem in problems[:5]
        )
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        _LOG.warning("%s stored the sketches of %s, but: %s%s", upload.server, upload.sensor_id, named, more)


def _failure(upload: Upload, answer: ServerAnswer, token: str | None) -> UndeliveredError:
    detail = answer.detail.replace(token, "***") if token else answer.detail
    advice = _ADVICE[404] if answer.page and answer.status < 300 else _ADVICE.get(answer.status, "")
    page = " and a web page" if answer.page and answer.status < 300 else ""
    said = [f"{upload.server} did not take the sketches: it answered {answer}{page}", detail[:200], advice]
    kind = RefusedUploadError if answer.status in _NEVER else UndeliveredError
    if answer.status in _OF_CLOCKS and answer.date and upload.timestamp > answer.date + BEHIND:
        kind = AheadUploadError
        said.append(
            f"the time of the upload, {utc(upload.timestamp)}, is ahead of that server's clock, {utc(answer.date)}:"
            " set the clock that is wrong"
        )
    return _undelivered(kind, upload, "; ".join(sentence for sentence in said if sentence))


def utc(seconds: float) -> str:
    """A unix time as people read it.

    Example:
        >>> utc(1719393854)
        '2024-06-26 09:24:14 UTC'
    """
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} s after 1970"


@lru_cache(64)
def _warn_of_plain_http(server: str) -> None:
    """Say once of a server that everybody on the way can read the token."""
    if server.startswith("http://") and not is_loopback(urlsplit(server).hostname or ""):
        _LOG.warning("the token goes to %s without encryption: use https://", server)
