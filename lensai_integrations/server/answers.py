"""What the server answers, as models that OpenAPI describes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lensai_integrations.server.records import HourDrift, Sensor

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
