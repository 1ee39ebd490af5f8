"""What OpenAPI says beyond what the routes say themselves."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import FastAPI, Path
from fastapi.openapi.utils import get_openapi

from lensai_integrations.edge.sending import SENSOR

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
