"""What programs read: sensors, their hours, health and metrics, each a model that OpenAPI describes.

`describe` adds what routes cannot say themselves: which tokens are asked for, and that a wrong parameter is a 400.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field

from lensai_integrations.edge.sending import SENSOR
from lensai_integrations.server import queries
from lensai_integrations.server.records import HourDrift, Sensor
from lensai_integrations.server.service import Reader, service_of
from lensai_integrations.server.store import StoreError

_UNIX = "Unix time in seconds."


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="What was wrong, and what to do.", examples=["sensor_id is missing: ..."])


class UploadAnswer(BaseModel):
    """What became of an upload."""

    sensor: str = Field(examples=["door-3"])
    timestamp: int = Field(description=_UNIX, examples=[1719393854])
    status: Literal["created", "repeated", "different"] = Field(
        description="`created`: stored. `repeated`: it was stored before. `different`: another upload of that sensor"
        " and timestamp was stored before, and stays."
    )
    problems: list[str] = Field(description="Files that were not read or may be misread, and why.", examples=[[]])


class HourAnswer(BaseModel):
    """An hour of a sensor, held against the baseline."""

    model_config = ConfigDict(from_attributes=True)

    hour: int = Field(description="When it begins. " + _UNIX, examples=[1719392400])
    uploads: int = Field(description="How many uploads are merged in it.", examples=[6])
    rows: int = Field(description="Images it has sketches of.", examples=[2096])
    drift: bool | None = Field(description="The verdict; null while there is none.", examples=[True])
    effect: float | None = Field(description="Of the stream that moved most, 0 to 1.", examples=[0.31])
    moved: list[str] = Field(description="Streams that moved, worst first.", examples=[["inputs/sharpness"]])
    judged: float | None = Field(description="When it was judged. " + _UNIX, examples=[1719394000.5])
    problem: str = Field(
        description="Why it, or what came after the verdict, could not be judged; else empty.", examples=[""]
    )


class EvidenceAnswer(BaseModel):
    """How much evidence there is that a sensor drifts, beside all others."""

    model_config = ConfigDict(from_attributes=True)

    reported: bool = Field(
        description="Whether it is enough: of all sensors that are reported at most 5% are false on average.",
        examples=[True],
    )
    log_e: float = Field(
        description="Natural logarithm of an e-value, which is 1 or less on average where nothing moved.",
        examples=[31.4],
    )
    hours: int = Field(description="Length of the span that says most, in hours.", examples=[24])
    until: int = Field(description="When that span ends. " + _UNIX, examples=[1719396000])
    moved: list[str] = Field(description="Streams that moved in it, worst first.", examples=[["inputs/sharpness"]])
    weighed: float = Field(description="When this was found. " + _UNIX, examples=[1719394000.5])


class SensorAnswer(BaseModel):
    """A sensor."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(examples=["door-3"])
    uploads: int = Field(description="How many uploads it has sent.", examples=[42])
    first: int = Field(description="Timestamp of the earliest upload. " + _UNIX, examples=[1719393854])
    last: int = Field(description="Timestamp of the latest upload. " + _UNIX, examples=[1719882112])
    received: float = Field(description="When the newest came. " + _UNIX, examples=[1719882113.2])
    problems: list[str] = Field(
        description="Files of the newest that were not read or may be misread, and why.", examples=[[]]
    )
    run_url: str = Field(description="Page of its MLflow run; empty if there is none.", examples=[""])
    latest: HourAnswer | None = Field(None, description="Its newest judged hour.")
    evidence: EvidenceAnswer | None = Field(
        None, description="That it drifts; null while it was not weighed, or nothing came for a week."
    )

    @classmethod
    def of(cls, sensor: Sensor) -> SensorAnswer:
        """The answer for a sensor."""
        judged = [hour for hour in sensor.hours if hour.judged is not None]
        answer = cls.model_validate(sensor)
        answer.latest = HourAnswer.model_validate(judged[-1]) if judged else None
        return answer


class SensorsAnswer(BaseModel):
    """Sensors by name."""

    sensors: list[SensorAnswer]
    next: str | None = Field(description="Pass it as `after` for the next ones; null if there are none.")


class DriftAnswer(BaseModel):
    """Hours of a sensor, newest last."""

    sensor: str = Field(examples=["door-3"])
    hours: list[HourAnswer]
    cut: bool = Field(description="Whether there are older hours in the range asked for.", examples=[False])

    @classmethod
    def of(cls, sensor: str, hours: Sequence[HourDrift], most: int) -> DriftAnswer:
        """The answer for hours of which one more than `most` was asked for."""
        listed = [HourAnswer.model_validate(hour) for hour in hours[-most:]]
        return cls(sensor=sensor, hours=listed, cut=len(hours) > most)


class ReportAnswer(BaseModel):
    """An hour with its whole report."""

    verdict: HourAnswer
    report: dict[str, Any] | None = Field(description="What `lensai compare --json` prints; null while there is none.")


class HealthAnswer(BaseModel):
    """Whether the server can do its work."""

    status: Literal["ok", "failing"]
    store: bool = Field(description="Whether the store answers.")
    worker: bool = Field(description="Whether uploads are merged and judged.")
    disk: bool = Field(description="Whether the store's disk has room.")


def refusals(**codes: str) -> dict[int | str, dict[str, Any]]:
    """Answers other than success, for OpenAPI.

    Args:
        codes: What each means, e.g. `_404="No such sensor."`.

    Example:
        >>> refusals(_404="No such sensor.")[404]["description"]
        'No such sensor.'
    """
    return {int(code[1:]): {"model": Problem, "description": text} for code, text in codes.items()}


_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A token, as devices and programs send it."},
    "basic": {"type": "http", "scheme": "basic", "description": "A token as the password, as browsers send it."},
}
#: What needs no token, as load balancers have none.
OPEN: Final = "/healthz"

#: Parameters of paths.
SensorName = Annotated[str, Path(pattern=f"^{SENSOR.pattern}$", description="A sensor's name.", examples=["door-3"])]
HourStart = Annotated[
    int, Path(ge=0, le=2**40, description="When the hour begins, unix time in seconds.", examples=[1719392400])
]


def describe(app: FastAPI, *, tokens: bool) -> None:
    """Have the application described: wrong parameters are answered 400, and tokens are asked for.

    Args:
        app: With all its routes.
        tokens: Whether it asks for tokens.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            about: dict[str, Any] = {"title": app.title, "version": app.version, "description": app.description}
            made = get_openapi(**about, routes=app.routes, servers=app.servers)
            app.openapi_schema = _corrected(made, tokens)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _corrected(made: dict[str, Any], tokens: bool) -> dict[str, Any]:
    components = made.setdefault("components", {})
    for name in ("HTTPValidationError", "ValidationError"):
        components.get("schemas", {}).pop(name, None)
    for path, operations in made["paths"].items():
        for name, operation in operations.items():
            operation["responses"].pop("422", None)
            if tokens and path != OPEN:
                schemes = ["bearer"] if name == "post" else ["bearer", "basic"]
                operation["security"] = [{scheme: []} for scheme in schemes]
    if tokens:
        components["securitySchemes"] = _SCHEMES
    return made


router = APIRouter()

#: Answers of every route that is read from, and of those of one sensor.
REFUSALS: Final = refusals(
    _401="No valid token.",
    _403="The token is for uploads only.",
    _429="Many wrong tokens came from the address, or too many requests of the sender wait.",
    _503="The store cannot be used.",
)
SENSOR_REFUSALS: Final = REFUSALS | refusals(_400="A parameter is wrong.", _404="There is no such sensor or hour.")
_WHEN: Final = "Unix time in seconds, or ISO 8601 (UTC where it has no offset), e.g. `2026-01-31T12:00:00Z`."


@router.get("/sensors", responses=REFUSALS | refusals(_400="A parameter is wrong."), tags=["programs"])
def sensors(
    service: Reader,
    limit: Annotated[int, Query(ge=1, le=10_000, description="How many at most.")] = 100,
    after: Annotated[
        str, Query(max_length=128, pattern="^[A-Za-z0-9._-]*$", description="Only names after this one.")
    ] = "",
) -> SensorsAnswer:
    """Sensors by name, each with its newest judged hour and the evidence that it drifts."""
    most = min(limit, service.settings.listed)
    listed = queries.list_sensors(service.store, most=most + 1, after=after)
    weighed = queries.weighed_sensors(service.store, now=time.time())
    answers = [SensorAnswer.of(replace(each, evidence=weighed.get(each.name))) for each in listed[:most]]
    return SensorsAnswer(sensors=answers, next=answers[-1].name if len(listed) > most else None)


@router.get("/sensors/{sensor}/drift", responses=SENSOR_REFUSALS, tags=["programs"])
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


@router.get("/sensors/{sensor}/hours/{hour}", responses=SENSOR_REFUSALS, tags=["programs"])
def hour(service: Reader, sensor: SensorName, hour: HourStart) -> ReportAnswer:
    """An hour of a sensor with its whole report."""
    judged = queries.hour_report(service.store, sensor, hour)
    if judged is None:
        raise no_such(sensor, hour)
    verdict, report = judged
    return ReportAnswer(verdict=HourAnswer.model_validate(verdict), report=report)


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
    worker = service.settler.alive
    fine = store and disk and worker
    response.status_code = 200 if fine else 503
    return HealthAnswer(status="ok" if fine else "failing", store=store, worker=worker, disk=disk)


@router.get("/metrics", response_class=Response, responses=REFUSALS, tags=["operation"])
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
