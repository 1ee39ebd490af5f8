"""Sending a folder of sketches to a LensAI server.

One request speaks both dialects: form fields and a bearer token, as devices do, and the headers of the old Python
profiler. The archive is made in memory (a sketch has a few kB), so that no file is left behind or shared.
"""

from __future__ import annotations

import io
import re
import secrets
import tarfile
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from lensai_integrations.errors import InputError, TrackingError
from lensai_integrations.lensai import files

_SENSOR: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ACCEPTED: Final = (200, 201)


def publish_folder(folder: Path, endpoint: str, sensor_id: str, *, token: str | None, timeout: float) -> None:
    """Post the sketches in a folder; see `Sketches.publish_sketches`."""
    parts = urlsplit(endpoint) if isinstance(endpoint, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"endpoint_url={endpoint!r} should begin with http:// or https:// and name a server")
    if not _SENSOR.fullmatch(sensor_id):
        raise InputError(f"sensor_id={sensor_id!r} should be letters, digits, '.', '_' and '-'")
    if token is not None and not (token.isascii() and token.isprintable()):
        raise InputError("token should be printable ASCII characters")
    if not timeout > 0:
        raise InputError(f"timeout={timeout!r} should be a positive number of seconds")
    timestamp = str(int(time.time()))
    fields = {"sensor_id": sensor_id, "timestamp": timestamp, "file_type": "stats"}
    headers = {"metrictype": "stats", "sensorid": sensor_id, "timestamp": timestamp}
    boundary = secrets.token_hex(16)
    headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(  # noqa: S310 - checked above
        endpoint, form(fields, archive(folder), boundary), headers, method="POST"
    )
    _send(request, f"{parts.scheme}://{parts.hostname}", timeout)


def archive(folder: Path) -> bytes:
    """The sketches in a folder as a gzipped GNU tar, members relative to it: `imgstats/noise.bin`.

    Raises:
        InputError: If there are none.
    """
    found = list(files.paths(folder))
    if not found:
        raise InputError(f"folder_path={str(folder)!r} has no sketches: pass the folder save_sketches wrote to")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        for path in found:
            content = path.read_bytes()
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size, member.mtime = len(content), int(path.stat().st_mtime)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def form(fields: dict[str, str], content: bytes, boundary: str) -> bytes:
    """A multipart form of text fields and the archive as `file`.

    Example:
        >>> form({"file_type": "stats"}, b"...", boundary="end").split(b"\\r\\n")[:4]
        [b'--end', b'Content-Disposition: form-data; name="file_type"', b'', b'stats']
    """
    texts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}' for name, text in fields.items()]
    file = (
        'Content-Disposition: form-data; name="file"; filename="stats.tar.gz"\r\nContent-Type: application/gzip\r\n\r\n'
    )
    head = "".join(f"--{boundary}\r\n{text}\r\n" for text in texts) + f"--{boundary}\r\n{file}"
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode()


def _send(request: urllib.request.Request, server: str, timeout: float) -> None:
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(request, timeout=timeout) as answer:
            status, reason = answer.status, answer.reason
    except urllib.error.HTTPError as error:
        error.close()
        status, reason = error.code, error.reason
    except (OSError, HTTPException) as error:
        raise TrackingError(f"{server} could not be reached within {timeout:g} s: {error}") from error
    if status not in _ACCEPTED:
        raise TrackingError(f"{server} did not take the sketches: it answered {status} {reason}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the post into a get, and could take the token anywhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """No."""
