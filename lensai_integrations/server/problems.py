"""What is answered where something is wrong: a page for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Scope

from lensai_integrations.server.pages import problem_page
from lensai_integrations.server.store import StoreError
from lensai_integrations.server.web import PEOPLE, page

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
