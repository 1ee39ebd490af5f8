"""What people read: the routes of pages, and of errors a page for people and JSON for programs."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Scope

from lensai_integrations.drift.compare import compare
from lensai_integrations.edge.reading import profile_of_files
from lensai_integrations.errors import LensAIError
from lensai_integrations.report import drift_html
from lensai_integrations.server import queries
from lensai_integrations.server.api import REFUSALS, SENSOR_REFUSALS, HourStart, SensorName, no_such
from lensai_integrations.server.pages import About, index_page, problem_page, sensor_page
from lensai_integrations.server.service import Reader, Service
from lensai_integrations.server.store import StoreError

#: The tag of routes that answer with pages.
PEOPLE: Final = "people"

router = APIRouter(default_response_class=HTMLResponse, tags=[PEOPLE])

#: What a page says itself of what a browser may load for it.
_OWN_POLICY: Final = re.compile(r'http-equiv="Content-Security-Policy" content="([^"]*)"')
#: Most hours of a sensor's page: a month.
_HOURS: Final = 31 * 24
_NOTHING_ELSE: Final = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@router.get("/", responses=REFUSALS)
def index(service: Reader, request: Request) -> HTMLResponse:
    """All sensors, with drift over time."""

    def make() -> str:
        most, now = service.settings.listed, time.time()
        sensors, fleet = queries.sensors_to_look_at(service.store, now=now, most=most)
        return index_page(sensors, about(service, request, cut=len(sensors) < fleet.sensors), fleet)

    return page(service.index.get(make))


@router.get("/sensors/{sensor}", responses=SENSOR_REFUSALS)
def one_sensor(service: Reader, request: Request, sensor: SensorName) -> HTMLResponse:
    """One sensor, hour by hour."""
    overview = queries.find_sensor(service.store, sensor)
    if overview is None:
        raise no_such(sensor)
    hours = queries.list_hours(service.store, sensor, most=_HOURS + 1)
    weighed = queries.weighed_sensors(service.store, now=time.time())
    overview = replace(overview, evidence=weighed.get(sensor))
    told = about(service, request, cut=len(hours) > _HOURS)
    return page(sensor_page(overview, hours[-_HOURS:], told, len(weighed)))


@router.get("/sensors/{sensor}/hours/{hour}/report", responses=SENSOR_REFUSALS)
def report(service: Reader, sensor: SensorName, hour: HourStart) -> HTMLResponse:
    """The whole report of an hour."""
    try:
        sketches = queries.hour_sketches(service.store, sensor, hour)
        if sketches is None:
            raise no_such(sensor, hour)
        window = profile_of_files(sketches, sensor, hour)
        comparison = compare(service.baseline, window, false_alarm_rate=service.settings.false_alarm_rate)
    except StoreError:
        raise
    except LensAIError as error:
        return page(problem_page(None, f"This hour cannot be judged: {error}", "../../../../"))
    return page(drift_html(comparison, service.baseline, window))


def page(content: str, status: int = 200, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    """A page, with the policy it states itself as a header, too: what a proxy adds cannot loosen it."""
    stated = _OWN_POLICY.search(content)
    policy = stated[1] if stated else "default-src 'none'; style-src 'unsafe-inline'"
    policies = {"Content-Security-Policy": f"{policy}; {_NOTHING_ELSE}"}
    return HTMLResponse(content, status, {**(headers or {}), **policies})


def about(service: Service, request: Request, cut: bool) -> About:
    """What pages say of the server.

    Args:
        service: The server.
        request: Of the page, for the address at which the server is reached.
        cut: Whether there is more than is shown.
    """
    reporter = service.reporter
    return About(
        baseline=service.name,
        baseline_rows=service.baseline.n,
        false_alarm_rate=service.settings.false_alarm_rate,
        now=time.time(),
        problems=(reporter.problem,) if reporter is not None and reporter.problem else (),
        cut=cut,
        address=str(request.base_url),
    )


#: Headers that every answer has.
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def answer_problems(app: FastAPI) -> None:
    """Have every error of an application answered here.

    Args:
        app: The application, with its service.
    """

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return answer_of(request, error.status_code, str(error.detail), error.headers)

    async def wrong(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first: Any = error.errors()[0]
        return answer_of(request, 400, f"{first['loc'][-1]}: {first['msg']}")

    async def unavailable(request: Request, error: Exception) -> Response:
        service = request.app.state.service
        service.metrics.failures.labels("store").inc()  # a store that can be read only has no other sign
        service.told.warning("answered 503: %s", error)
        return answer_of(request, 503, "the store cannot be used now: send it again", {"Retry-After": "5"})

    async def failed(request: Request, error: Exception) -> Response:
        detail = f"this is a defect of the server: {type(error).__name__}"
        return answer_of(request, 500, detail, HEADERS)  # no middleware sees this one

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, wrong)
    app.add_exception_handler(StoreError, unavailable)
    app.add_exception_handler(Exception, failed)


def answer_of(request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as whoever asks can read it.

    Args:
        request: What asks.
        status: The HTTP status.
        detail: What was wrong, and what to do.
        headers: Of the answer.
    """
    if not _wants_page(request):
        return JSONResponse({"detail": detail}, status, headers)
    return page(problem_page(status, detail, _home(request)), status, headers)


def _home(request: Request) -> str:
    """The page of all sensors, seen from the path asked for, under whatever name and below whatever path."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()  # a slash of a name is %2F here
    below = raw.partition(b"?")[0].removeprefix(request.scope.get("root_path", "").encode())
    return "../" * (below.count(b"/") - 1) or "./"


def path_of(scope: Scope) -> str:
    """The path asked for, without that below which a proxy has the server."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _wants_page(request: Request) -> bool:
    """Whether the client names HTML, as browsers do, or asks for a page and does not name JSON."""
    accepted = request.headers.get("accept", "").lower()
    route = request.scope.get("route")
    page = route is not None and PEOPLE in getattr(route, "tags", ())
    return "text/html" in accepted or (page and "json" not in accepted)
