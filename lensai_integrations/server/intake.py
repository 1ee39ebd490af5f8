"""`POST /upload/`: from a request, in either dialect that devices speak, to an upload that is checked and on disk.

The newer dialect has form fields: `sensor_id`, `timestamp`, `file_type` and `file`. The older one has headers
`sensorid`, `timestamp` and `metrictype`, and only `file` in the form. The body is counted while it comes, and kept in
memory: no temporary file is made, and no archive extracted.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Request, Response
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from lensai_integrations.edge.sending import EARLIEST, SENSOR
from lensai_integrations.edge.uploads import pack_sketches, read_upload
from lensai_integrations.errors import InputError, LensAIError
from lensai_integrations.server.api import UploadAnswer, refusals
from lensai_integrations.server.ledger import Outcome, Received
from lensai_integrations.server.records import duration
from lensai_integrations.server.service import Service, sender, service_of
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.shares import LaterError, Room, Sender, Spent, Turns, used_up
from lensai_integrations.server.store import StoreError
from lensai_integrations.server.tokens import Grant

router = APIRouter()

_TEXT: Final = {"type": "string"}
#: The body is read by hand, counted and bounded, so OpenAPI has to be told of it.
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "sensor_id": {**_TEXT, "description": "The sensor's name.", "example": "door-3"},
                        "timestamp": {**_TEXT, "description": "Unix time in seconds.", "example": "1719393854"},
                        "file_type": {**_TEXT, "enum": ["stats"]},
                        "file": {
                            **_TEXT,
                            "format": "binary",
                            "description": "Tar archive, gzipped: `imgstats/noise.bin` and so on.",
                        },
                    },
                }
            }
        },
    },
    "parameters": [
        {"in": "header", "name": name, "schema": _TEXT, "description": f"Older devices send {field} so."}
        for name, field in (("sensorid", "sensor_id"), ("timestamp", "timestamp"), ("metrictype", "file_type"))
    ],
}
_REFUSALS: Final = refusals(
    _400="Something about the upload is wrong; sending it again does not help.",
    _401="No valid token.",
    _403="The token is for uploads of another sensor.",
    _408="The body did not come in time.",
    _413="The body is too large.",
    _429="The sender has too much under way, or has had its share of the day: send it again after `Retry-After`"
    " seconds.",
    _503="Too busy, full, the store cannot be used, or the timestamp is ahead of the clock: send it again after"
    " `Retry-After` seconds.",
)
_RESULTS: Final = {401: "unauthorised", 403: "unauthorised", 413: "too large", 429: "unauthorised"}


@router.post(
    "/upload/",
    status_code=201,
    response_model=UploadAnswer,
    responses={200: {"model": UploadAnswer, "description": "It was stored before."}, **_REFUSALS},
    openapi_extra=_BODY,
    tags=["devices"],
)
@router.post("/upload", status_code=201, include_in_schema=False)
async def upload(request: Request, response: Response) -> UploadAnswer:
    """Take a device's sketches. When the answer comes they are on disk; sending the same again changes nothing."""
    service, result = service_of(request), "failed"
    with service.metrics.seconds.time():
        try:
            received, outcome = await _stored(request, service)
            result = outcome.value
        except LaterError as later:
            result = later.result
            service.told.warning(f"answered {later.status_code}, {result}: %s", later.detail)  # each kind for itself
            raise
        except HTTPException as error:
            result = _RESULTS.get(error.status_code, "refused")
            raise
        except StoreError:
            result = "unavailable"
            raise
        finally:
            service.metrics.uploads.labels(result).inc()
    return _answer(service, received, outcome, response)


async def _stored(request: Request, service: Service) -> tuple[Received, Outcome]:
    whose = sender(request)  # before the body is read
    service.check_disk()
    async with receive(request, service.settings, service.turns, whose, time.time()) as received:
        _check_share_of_disk(service, received)
        outcome = await service.inbox.put(received, whose.holder)
    if isinstance(outcome, Spent):
        raise used_up(received.sensor, outcome)
    if outcome is Outcome.NO_ROOM:
        raise LaterError(503, f"there are {service.settings.sensors} sensors, which is --max-sensors", 3600, "no room")
    return received, outcome


def _check_share_of_disk(service: Service, received: Received) -> None:
    """Of the last room on the disk nobody may have used more than is left for others."""
    if service.allowances.bytes.spent(received.account) > service.disk_room():
        raise LaterError(429, f"the server's disk is nearly full, and sensor {received.sensor!r} has sent much", 600)


def _answer(service: Service, received: Received, outcome: Outcome, response: Response) -> UploadAnswer:
    if outcome is Outcome.CREATED:
        service.metrics.bytes.inc(received.size)
        service.settler.wake()
    else:
        response.status_code = 200
    if outcome is Outcome.DIFFERENT and service.differing.first(received.sensor):
        service.told.warning(
            "sensor %s sent something else for %d again; the first stays", received.sensor, received.timestamp
        )
    about = {"sensor": received.sensor, "timestamp": received.timestamp, "problems": list(received.problems)}
    return UploadAnswer.model_validate({**about, "status": outcome.value})


#: Headers of the older dialect by the form fields of the newer one.
HEADERS: Final = {"sensor_id": "sensorid", "timestamp": "timestamp", "file_type": "metrictype"}
_FIELDS: Final = 10
_FIELD_BYTES: Final = 4096
#: Most problems of one upload that are kept.
_PROBLEMS: Final = 50
_CHARSETS: Final = (b"utf-8", b"utf8", b"us-ascii")
#: Bytes around the file of a form.
_AROUND: Final = 64 * 1024


@asynccontextmanager
async def receive(
    request: Request, settings: Settings, turns: Turns, sender: Sender, now: float
) -> AsyncIterator[Received]:
    """Read the body and check all of it; there is room in memory for it until the context ends.

    Args:
        request: Its body has not been read.
        settings: Limits.
        turns: Of which it has one while the body or what it unpacks to is in memory.
        sender: Whose it is.
        now: Unix time in seconds.

    Raises:
        HTTPException: 400 if anything is wrong with it, 403 if the token is another sensor's, 408 if it does not come
            in time, 413 if it is too large.
        LaterError: 429 if the sender has too much under way, 503 if all together have, or if it is ahead of the clock.
    """
    _check_head(request.headers, settings)
    with turns.turn(sender) as room:
        content, sensor, timestamp = await _read(request, settings, room, sender.grant, now)
        async with turns.unpacking.slot(sender.holder):
            loop = asyncio.get_running_loop()
            received = await loop.run_in_executor(
                turns.threads, _received, content, sensor, timestamp, settings, now, sender.grant
            )
        del content
        room.resize(received.bytes)
        yield received


def _check_head(headers: Headers, settings: Settings) -> None:
    """Refuse what need not be read to be refused."""
    chunked = "transfer-encoding" in headers  # then a length says nothing
    length = "0" if chunked else headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise HTTPException(400, f"Content-Length {length[:40]!r} is not a number of bytes")
    if len(length) > 18 or int(length) > settings.upload_bytes + _AROUND:
        raise _too_large(settings)
    if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(400, "the body should be multipart/form-data with the archive in the field 'file'")
    _, options = parse_options_header(headers["content-type"])
    if options.get(b"charset", b"utf-8").lower() not in _CHARSETS:  # Python keeps every name it is asked for, for ever
        raise HTTPException(400, "the form's charset should be UTF-8")


def _too_large(settings: Settings) -> HTTPException:
    detail = f"the upload has more than the {settings.upload_bytes} bytes that are taken: upload more often"
    return HTTPException(413, detail, {"Connection": "close"})


async def _read(request: Request, settings: Settings, room: Room, grant: Grant, now: float) -> tuple[bytes, str, int]:
    """The archive, the sensor and the timestamp."""
    form = await _form(request, settings, room)
    try:
        said = {name: _text(form, request.headers, name) for name in HEADERS}
        sensor, timestamp = _checked(said, now)
        if not grant.uploads(sensor):
            raise HTTPException(403, f"this token is not for uploads of sensor {sensor!r}")
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise HTTPException(400, "the form has no file in a field called 'file'")
        return await file.read(), sensor, timestamp
    finally:
        await form.close()


async def _form(request: Request, settings: Settings, room: Room) -> FormData:
    parser = MultiPartParser(request.headers, _counted(request, settings, room), max_files=1, max_fields=_FIELDS)
    parser.max_part_size = _FIELD_BYTES
    # In memory, not in temporary files; the attribute has had two names.
    parser.max_file_size = parser.spool_max_size = settings.upload_bytes + _AROUND  # type: ignore[attr-defined]
    try:
        return await parser.parse()
    except _UnreadError as stopped:
        raise stopped.answer from None
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from error
    except (FormParserError, ValueError, KeyError) as error:  # of made-up encodings, too
        raise HTTPException(400, "the form cannot be read") from error


class _UnreadError(MultiPartException):
    """The body is not read on. The parser closes what it holds when it meets an error of this kind."""

    def __init__(self, answer: HTTPException) -> None:
        super().__init__(str(answer.detail))
        self.answer = answer


async def _counted(request: Request, settings: Settings, room: Room) -> AsyncGenerator[bytes, None]:
    """The body, up to the limits, whatever its head says of its length; of what has come there is room in memory."""
    left = settings.upload_bytes + _AROUND
    end = asyncio.get_running_loop().time() + settings.upload_seconds
    stream = request.stream()
    while True:
        try:
            async with room.waiting(end):
                chunk = await anext(stream, None)
        except TimeoutError:
            late = HTTPException(408, "the body did not come in time", {"Connection": "close"})
            raise _UnreadError(late) from None
        except LaterError as later:
            raise _unread(later) from None
        except ClientDisconnect:
            raise _UnreadError(HTTPException(400, "the body was cut short")) from None
        if chunk is None:
            room.leave()
            return
        left -= len(chunk)
        if left < 0:
            raise _UnreadError(_too_large(settings))
        try:
            room.grow(len(chunk))
        except LaterError as later:
            raise _unread(later) from None
        yield chunk


def _unread(later: LaterError) -> _UnreadError:
    later.headers = {**(later.headers or {}), "Connection": "close"}
    return _UnreadError(later)


def _text(form: FormData, headers: Mapping[str, str], name: str) -> str:
    value: Any = form.get(name, headers.get(HEADERS[name], ""))
    if not isinstance(value, str) or not value:
        raise HTTPException(
            400, f"{name} is missing: send a form field {name!r}, or a header {HEADERS[name]!r} as older devices do"
        )
    return value


def _checked(said: Mapping[str, str], now: float) -> tuple[str, int]:
    try:
        sensor, timestamp = checked_sensor(said["sensor_id"]), checked_timestamp(said["timestamp"], now)
    except TimestampAheadError as error:
        raise LaterError(503, str(error), 60, "ahead") from error
    except LensAIError as error:
        raise HTTPException(400, str(error)) from error
    if said["file_type"] == "data":
        raise HTTPException(400, "file_type='data' are saved images, and no image is kept here: upload 'stats' only")
    if said["file_type"] != "stats":
        raise HTTPException(400, f"file_type={said['file_type'][:40]!r} is not known: 'stats' is taken")
    return sensor, timestamp


def _received(content: bytes, sensor: str, timestamp: int, settings: Settings, now: float, grant: Grant) -> Received:
    if len(content) > settings.upload_bytes:
        raise _too_large(settings)
    try:
        upload = read_upload(content, settings.archive)
    except LensAIError as error:
        raise HTTPException(400, plain(str(error))) from error
    payload = pack_sketches(upload.sketches)
    digest = hashlib.sha256(payload).hexdigest()
    problems = _named(upload.problems)
    return Received(sensor, timestamp, digest, len(content), now, problems, payload, grant)


def _named(problems: Sequence[str]) -> tuple[str, ...]:
    """As many problems as are stored with every upload, and are of use to anybody."""
    more = (f"and {len(problems) - _PROBLEMS} more",) if len(problems) > _PROBLEMS else ()
    return (*(plain(problem) for problem in problems[:_PROBLEMS]), *more)


def plain(text: str) -> str:
    """A text that holds what a sender has chosen, in characters that can be shown and stored anywhere.

    Example:
        >>> plain("a\\x00b\\udcff")
        'a?b?'
    """
    return "".join(char if char.isprintable() else "?" for char in text)[:1000]


#: Seconds by which a device's clock may be ahead.
AHEAD: Final = 86_400
#: What no clock here can be so far behind of that a timestamp after it were right: ten years after now, or after 2026
#: where the clock has not been set since it was built.
_YEARS: Final = 10 * 365 * 86_400
_OF_THIS_RELEASE: Final = 1_767_225_600


class TimestampAheadError(InputError):
    """A timestamp is more than a day ahead of the clock here. Either may be wrong, so it is not refused for ever."""


def checked_sensor(name: str) -> str:
    """The name of a sensor.

    Raises:
        InputError: If it is not one.

    Example:
        >>> checked_sensor("door-3")
        'door-3'
    """
    if not SENSOR.fullmatch(name):
        raise InputError(
            f"sensor_id={name[:140]!r} should be 1 to 128 letters, digits, dots, dashes and underscores, beginning with"
            " a letter or digit"
        )
    return name


def checked_timestamp(text: str, now: float) -> int:
    """Unix time in whole seconds.

    Args:
        text: As it was sent.
        now: Unix time in seconds.

    Raises:
        TimestampAheadError: If it is more than a day ahead: it may be right later, or here.
        InputError: If it is not one, before 2000, or ten years ahead.

    Example:
        >>> checked_timestamp("1719393854", now=1719393860.0)
        1719393854
    """
    value = int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else -1
    if not EARLIEST < value <= max(now, _OF_THIS_RELEASE) + _YEARS:
        raise InputError(
            f"timestamp={text[:40]!r} should be unix time in whole seconds, after 2000 and at most a day ahead of"
            f" {int(now)}, which it is here"
        )
    if value > now + AHEAD:
        raise TimestampAheadError(
            f"timestamp={value} is {duration(value - now)} ahead of {int(now)}, which it is here; the clock of the"
            " device or of this server is wrong"
        )
    return value
