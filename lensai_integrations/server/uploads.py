"""A request as a checked upload, in both dialects devices speak.

The newer one has form fields: `sensor_id`, `timestamp`, `file_type` and `file`. The older one has headers `sensorid`,
`timestamp` and `metrictype`, and only `file` in the form. The body is counted while it comes, and kept in memory: no
temporary file is made, and no archive extracted.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from fastapi import HTTPException, Request
from python_multipart.exceptions import FormParserError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from lensai_integrations.edge.uploads import pack_sketches, read_upload
from lensai_integrations.errors import LensAIError
from lensai_integrations.server.ledger import Received
from lensai_integrations.server.names import checked_sensor, checked_timestamp
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.tokens import Grant

#: Headers of the older dialect by the form fields of the newer one.
HEADERS: Final = {"sensor_id": "sensorid", "timestamp": "timestamp", "file_type": "metrictype"}
_FIELDS: Final = 10
_FIELD_BYTES: Final = 4096
#: Bytes around the file of a form.
_AROUND: Final = 64 * 1024


async def receive(request: Request, settings: Settings, grant: Grant, now: float) -> Received:
    """Read the body and check all of it.

    Args:
        request: Its body has not been read.
        settings: Limits.
        grant: What the sender's token allows.
        now: Unix time in seconds.

    Raises:
        HTTPException: 400 if anything is wrong with it, 403 if the token is another sensor's, 408 if it does not come
            in time, 413 if it is too large.
    """
    _check_head(request.headers, settings)
    form = await _form(request, settings)
    try:
        said = {name: _text(form, request.headers, name) for name in HEADERS}
        sensor, timestamp = _checked(said, now)
        if not grant.uploads(sensor):
            raise HTTPException(403, f"this token is not for uploads of sensor {sensor!r}")
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise HTTPException(400, "the form has no file in a field called 'file'")
        content = await file.read()
    finally:
        await form.close()
    return await run_in_threadpool(_received, content, sensor, timestamp, settings, now)


def _check_head(headers: Headers, settings: Settings) -> None:
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise HTTPException(400, f"Content-Length {length[:40]!r} is not a number of bytes")
    if len(length) > 18 or int(length) > settings.upload_bytes + _AROUND:
        raise _too_large(settings)
    if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(400, "the body should be multipart/form-data with the archive in the field 'file'")


def _too_large(settings: Settings) -> HTTPException:
    detail = f"the upload has more than the {settings.upload_bytes} bytes that are taken: upload more often"
    return HTTPException(413, detail, {"Connection": "close"})


async def _form(request: Request, settings: Settings) -> FormData:
    parser = MultiPartParser(request.headers, _counted(request, settings), max_files=1, max_fields=_FIELDS)
    parser.max_part_size = _FIELD_BYTES
    # In memory, not in temporary files; the attribute has had two names.
    parser.max_file_size = parser.spool_max_size = settings.upload_bytes + _AROUND  # type: ignore[attr-defined]
    try:
        async with asyncio.timeout(settings.upload_seconds):
            return await parser.parse()
    except TimeoutError as error:
        raise HTTPException(408, "the body did not come in time", {"Connection": "close"}) from error
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the body was cut short") from error
    except (FormParserError, UnicodeDecodeError, KeyError) as error:
        raise HTTPException(400, "the form cannot be read") from error


async def _counted(request: Request, settings: Settings) -> AsyncGenerator[bytes, None]:
    """The body, up to the limit, whatever its head says of its length."""
    left = settings.upload_bytes + _AROUND
    async for chunk in request.stream():
        left -= len(chunk)
        if left < 0:
            raise _too_large(settings)
        yield chunk


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
    except LensAIError as error:
        raise HTTPException(400, str(error)) from error
    if said["file_type"] == "data":
        raise HTTPException(400, "file_type='data' are saved images, and no image is kept here: upload 'stats' only")
    if said["file_type"] != "stats":
        raise HTTPException(400, f"file_type={said['file_type'][:40]!r} is not known: 'stats' is taken")
    return sensor, timestamp


def _received(content: bytes, sensor: str, timestamp: int, settings: Settings, now: float) -> Received:
    if len(content) > settings.upload_bytes:
        raise _too_large(settings)
    try:
        upload = read_upload(content, settings.archive)
    except LensAIError as error:
        raise HTTPException(400, plain(str(error))) from error
    payload = pack_sketches(upload.sketches)
    problems = tuple(plain(problem) for problem in upload.problems)
    digest = hashlib.sha256(payload).hexdigest()
    return Received(sensor, timestamp, digest, len(content), now, problems, payload)


def plain(text: str) -> str:
    """A text that holds what a sender has chosen, in characters that can be shown and stored anywhere.

    Example:
        >>> plain("a\\x00b\\udcff")
        'a?b?'
    """
    return "".join(char if char.isprintable() else "?" for char in text)[:1000]
