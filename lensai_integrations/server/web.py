"""What people read: pages."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from lensai_integrations.drift.compare import compare
from lensai_integrations.edge.reading import profile_of_files
from lensai_integrations.errors import LensAIError
from lensai_integrations.report import drift_html
from lensai_integrations.server import queries
from lensai_integrations.server.answers import refusals
from lensai_integrations.server.api import no_such
from lensai_integrations.server.describing import HourStart, SensorName
from lensai_integrations.server.pages import About, index_page, problem_page, sensor_page
from lensai_integrations.server.service import Reader, Service
from lensai_integrations.server.store import StoreError

#: The tag of routes that answer with pages.
PEOPLE: Final = "people"

router = APIRouter(default_response_class=HTMLResponse, tags=[PEOPLE])

_ALL: Final = refusals(
    _401="No valid token.",
    _403="The token is for uploads only.",
    _429="Many wrong tokens came from the address, or too many requests of the sender wait.",
    _503="The store cannot be used.",
)
_SENSOR: Final = _ALL | refusals(_400="A parameter is wrong.", _404="There is no such sensor or hour.")
#: What a page says itself of what a browser may load for it.
_OWN_POLICY: Final = re.compile(r'http-equiv="Content-Security-Policy" content="([^"]*)"')
#: Most hours of a sensor's page: a month.
_HOURS: Final = 31 * 24
_NOTHING_ELSE: Final = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@router.get("/", responses=_ALL)
def index(service: Reader, request: Request) -> HTMLResponse:
    """All sensors, with drift over time."""

    def make() -> str:
        sensors, verdicts = queries.sensors_to_look_at(service.store, most=service.settings.listed)
        return index_page(sensors, about(service, request, cut=len(sensors) < verdicts.total()), verdicts)

    return page(service.index.get(make))


@router.get("/sensors/{sensor}", responses=_SENSOR)
def one_sensor(service: Reader, request: Request, sensor: SensorName) -> HTMLResponse:
    """One sensor, hour by hour."""
    found = queries.find_sensor(service.store, sensor)
    if found is None:
        raise no_such(sensor)
    hours = queries.list_hours(service.store, sensor, most=_HOURS + 1)
    return page(sensor_page(found, hours[-_HOURS:], about(service, request, cut=len(hours) > _HOURS)))


@router.get("/sensors/{sensor}/hours/{hour}/report", responses=_SENSOR)
def report(service: Reader, sensor: SensorName, hour: HourStart) -> HTMLResponse:
    """The whole report of an hour."""
    try:
        sketches = queries.hour_sketches(service.store, sensor, hour)
        if sketches is None:
            raise no_such(sensor, hour)
        window = profile_of_files(sketches, sensor, hour)
        found = compare(service.baseline, window, false_alarm_rate=service.settings.false_alarm_rate)
    except StoreError:
        raise
    except LensAIError as error:
        return page(problem_page(None, f"This hour cannot be judged: {error}", "../../../../"))
    return page(drift_html(found, service.baseline, window))


def page(content: str, status: int = 200, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    """A page, with the policy it states itself as a header, too: what a proxy adds cannot loosen it."""
    own = _OWN_POLICY.search(content)
    policy = own[1] if own else "default-src 'none'; style-src 'unsafe-inline'"
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
