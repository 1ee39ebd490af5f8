"""A request as a checked upload, in both dialects devices speak.

The newer one has form fields: `sensor_id`, `timestamp`, `file_type` and `file`. The older one has headers `sensorid`,
`timestamp` and `metrictype`, and only `file` in the form. The body is counted while it comes, and kept in memory: no
temporary file is made, and no archive extracted.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import HTTPException, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from lensai_integrations.edge.uploads import pack_sketches, read_upload
from lensai_integrations.errors import LensAIError
from lensai_integrations.server.ledger import Received
from lensai_integrations.server.names import TimestampAheadError, checked_sensor, checked_timestamp
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.shares import Sender
from lensai_integrations.server.tokens import Grant
from lensai_integrations.server.turns import LaterError, Room, Turns

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
