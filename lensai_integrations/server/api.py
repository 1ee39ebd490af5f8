"""What programs read: sensors, their hours, health, metrics."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, HTTPException, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from lensai_integrations.server import queries
from lensai_integrations.server.answers import (
    DriftAnswer,
    HealthAnswer,
    HourAnswer,
    ReportAnswer,
    SensorAnswer,
    SensorsAnswer,
    refusals,
)
from lensai_integrations.server.describing import HourStart, SensorName
from lensai_integrations.server.service import Reader, service_of
from lensai_integrations.server.store import StoreError

router = APIRouter()

_ALL: Final = refusals(
    _401="No valid token.",
    _403="The token is for uploads only.",
    _429="Many wrong tokens came from the address, or too many requests of the sender wait.",
    _503="The store cannot be used.",
)
_SENSOR: Final = _ALL | refusals(_400="A parameter is wrong.", _404="There is no such sensor or hour.")
_WHEN: Final = "Unix time in seconds, or ISO 8601 (UTC where it has no offset), e.g. `2026-01-31T12:00:00Z`."


@router.get("/sensors", responses=_ALL | refusals(_400="A parameter is wrong."), tags=["programs"])
def sensors(
    service: Reader,
    limit: Annotated[int, Query(ge=1, le=10_000, description="How many at most.")] = 100,
    after: Annotated[
        str, Query(max_length=128, pattern="^[A-Za-z0-9._-]*$", description="Only names after this one.")
    ] = "",
) -> SensorsAnswer:
    """Sensors by name, each with its newest judged hour."""
    most = min(limit, service.settings.listed)
    found = queries.list_sensors(service.store, most=most + 1, after=after)
    answers = [SensorAnswer.of(sensor) for sensor in found[:most]]
    return SensorsAnswer(sensors=answers, next=answers[-1].name if len(found) > most else None)


@router.get("/sensors/{sensor}/drift", responses=_SENSOR, tags=["programs"])
def drift(
    service: Reader,
    sensor: SensorName,
    start: Annotated[str | None, Query(alias="from", max_length=40, description="From when on. " + _WHEN)] = None,
    end: Annotated[str | None, Query(alias="to", max_length=40, description="Until when. " + _WHEN)] = None,
) -> DriftAnswer:
    """Hours of a sensor and what was found of them, newest last."""
    most = service.settings.hours
    between = {"start": moment(start, "from"), "end": moment(end, "to")}
    hours = queries.list_hours(service.store, sensor, **between, most=most + 1)
    if not hours and queries.find_sensor(service.store, sensor, recent=0) is None:
        raise no_such(sensor)
    return DriftAnswer.of(sensor, hours, most)


@router.get("/sensors/{sensor}/hours/{hour}", responses=_SENSOR, tags=["programs"])
def hour(service: Reader, sensor: SensorName, hour: HourStart) -> ReportAnswer:
    """An hour of a sensor with its whole report."""
    found = queries.hour_report(service.store, sensor, hour)
    if found is None:
        raise no_such(sensor, hour)
    return ReportAnswer(verdict=HourAnswer.model_validate(found[0]), report=found[1])


@router.get("/healthz", responses={503: {"model": HealthAnswer, "description": "It cannot."}}, tags=["operation"])
def healthz(request: Request, response: Response) -> HealthAnswer:
    """Whether the server can do its work. Needs no token."""
    service = service_of(request)
    store = disk = True
    try:
        queries.ping(service.store)
    except StoreError:
        store = False
    try:
        service.check_disk()
    except (HTTPException, StoreError):
        disk = False
    fine = store and disk and service.settler.alive
    response.status_code = 200 if fine else 503
    return HealthAnswer(status="ok" if fine else "failing", store=store, worker=service.settler.alive, disk=disk)


@router.get("/metrics", response_class=Response, responses=_ALL, tags=["operation"])
def metrics(service: Reader) -> Response:
    """Counters and gauges as Prometheus reads them."""
    return Response(service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


def moment(text: str | None, name: str) -> int | None:
    """A time in a query, as unix time in seconds.

    Args:
        text: As it was sent.
        name: What the parameter is called.

    Raises:
        HTTPException: 400 if it is no time.

    Example:
        >>> moment("2024-06-26T09:00:00Z", "from"), moment("1719392400", "from")
        (1719392400, 1719392400)
    """
    if not text:
        return None
    if text.isascii() and text.isdecimal() and len(text) <= 12:
        return int(text)
    try:
        when = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)  # a + in a query is a space
        return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError) as error:
        raise HTTPException(400, f"{name}={text!r} should be unix time in seconds or ISO 8601") from error


def no_such(sensor: str, hour: int | None = None) -> HTTPException:
    """404 for a sensor, or for an hour of one."""
    return HTTPException(404, f"there is no sensor {sensor!r}" if hour is None else f"{sensor!r} has no hour {hour}")
