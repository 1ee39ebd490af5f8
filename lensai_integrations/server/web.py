"""What people read: pages."""

from __future__ import annotations

import html
import re
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from lensai_integrations.drift.compare import compare
from lensai_integrations.edge.reading import profile_of_files
from lensai_integrations.errors import LensAIError
from lensai_integrations.report import drift_html
from lensai_integrations.server import queries
from lensai_integrations.server.answers import refusals
from lensai_integrations.server.api import no_such
from lensai_integrations.server.describing import HourStart, SensorName
from lensai_integrations.server.records import Sensor
from lensai_integrations.server.service import Reader, Service

router = APIRouter(default_response_class=HTMLResponse, tags=["people"])

_ALL: Final = refusals(_401="No valid token.", _403="The token is for uploads only.", _503="The store cannot be used.")
_SENSOR: Final = _ALL | refusals(_400="A parameter is wrong.", _404="There is no such sensor or hour.")
#: What a page says itself of what a browser may load for it.
_OWN_POLICY: Final = re.compile(r'http-equiv="Content-Security-Policy" content="([^"]*)"')
_NOTHING_ELSE: Final = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@router.get("/", responses=_ALL)
def index(service: Reader) -> HTMLResponse:
    """All sensors, with drift over time."""
    most = service.settings.listed
    sensors = queries.list_sensors(service.store, most=most, recent=168)
    return page(_index_page(sensors, service))


@router.get("/sensors/{sensor}", responses=_SENSOR)
def sensor_page(service: Reader, sensor: SensorName) -> HTMLResponse:
    """One sensor, hour by hour."""
    found = queries.find_sensor(service.store, sensor)
    if found is None:
        raise no_such(sensor)
    return page(_sensor_page(found, service))


@router.get("/sensors/{sensor}/hours/{hour}/report", responses=_SENSOR)
def report(service: Reader, sensor: SensorName, hour: HourStart) -> HTMLResponse:
    """The whole report of an hour."""
    sketches = queries.hour_sketches(service.store, sensor, hour)
    if sketches is None:
        raise no_such(sensor, hour)
    try:
        window = profile_of_files(sketches, sensor, hour)
        found = compare(service.baseline, window, false_alarm_rate=service.settings.false_alarm_rate)
    except LensAIError as error:
        return page(f"<!doctype html><title>No report</title><p>This hour cannot be judged: {html.escape(str(error))}")
    return page(drift_html(found, service.baseline, window))


def page(content: str) -> HTMLResponse:
    """A page, with the policy it states itself as a header, too: what a proxy adds cannot loosen it."""
    own = _OWN_POLICY.search(content)
    policy = own[1] if own else "default-src 'none'; style-src 'unsafe-inline'"
    return HTMLResponse(content, headers={"Content-Security-Policy": f"{policy}; {_NOTHING_ELSE}"})


def _index_page(sensors: list[Sensor], service: Service) -> str:
    """Placeholder for `pages.index_page`."""
    rows = "".join(f'<li><a href="sensors/{each.name}">{html.escape(each.name)}</a>' for each in sensors)
    return f"<!doctype html><title>Sensors</title><h1>{html.escape(service.name)}</h1><ul>{rows}</ul>"


def _sensor_page(sensor: Sensor, service: Service) -> str:
    """Placeholder for `pages.sensor_page`."""
    place = f"{sensor.name}/hours"
    rows = "".join(f'<li><a href="{place}/{h.hour}/report">{h.hour}</a> {h.drift}' for h in sensor.hours)
    return f"<!doctype html><title>{html.escape(sensor.name)}</title>{html.escape(service.name)}<ul>{rows}</ul>"
