"""`POST /upload/`."""

from __future__ import annotations

import time
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Request, Response

from lensai_integrations.server.answers import UploadAnswer, refusals
from lensai_integrations.server.ledger import Outcome, Received
from lensai_integrations.server.service import Service, sender, service_of
from lensai_integrations.server.shares import Spent
from lensai_integrations.server.store import StoreError
from lensai_integrations.server.turns import LaterError, used_up
from lensai_integrations.server.uploads import receive

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
