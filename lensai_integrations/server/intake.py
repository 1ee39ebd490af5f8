"""`POST /upload/`."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Request, Response

from lensai_integrations.server.answers import UploadAnswer, refusals
from lensai_integrations.server.ledger import Outcome, Received
from lensai_integrations.server.service import Service, sender, service_of
from lensai_integrations.server.store import StoreError
from lensai_integrations.server.uploads import receive

_LOG = logging.getLogger(__name__)

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
    _429="There are as many sensors as there may be.",
    _503="Too busy, the disk is full, or the store cannot be used: send it again after `Retry-After` seconds.",
)
_RESULTS: Final = {401: "unauthorised", 403: "unauthorised", 413: "too large", 429: "no room", 503: "unavailable"}


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
    grant = sender(request)  # before the body is read
    service.check_disk()
    async with receive(request, service.settings, service.turns, grant, time.time()) as received:
        outcome = await service.inbox.put(received)
    if outcome is Outcome.NO_ROOM:
        most = service.settings.sensors
        raise HTTPException(429, f"there are {most} sensors, the most there may be", {"Retry-After": "3600"})
    return received, outcome


def _answer(service: Service, received: Received, outcome: Outcome, response: Response) -> UploadAnswer:
    if outcome is Outcome.CREATED:
        service.metrics.bytes.inc(received.size)
        service.settler.wake()
    else:
        response.status_code = 200
    if outcome is Outcome.DIFFERENT and received.sensor not in service.differing:
        service.differing.add(received.sensor)
        _LOG.warning("sensor %s sent something else for %d again; the first stays", received.sensor, received.timestamp)
    about = {"sensor": received.sensor, "timestamp": received.timestamp, "problems": list(received.problems)}
    return UploadAnswer.model_validate({**about, "status": outcome.value})
