"""What an upload says of itself: the sensor's name and the time, checked."""

from __future__ import annotations

from typing import Final

from lensai_integrations.edge.sending import EARLIEST, SENSOR
from lensai_integrations.errors import InputError
from lensai_integrations.server.times import duration

#: Seconds by which a device's clock may be ahead.
AHEAD: Final = 86_400
#: What no clock here can be so far behind of that a timestamp after it were right: ten years after now, or after 2026
#: where the clock has not been set since it was built.
_YEARS: Final = 10 * 365 * 86_400
_OF_THIS_RELEASE: Final = 1_767_225_600


class TimestampAheadError(InputError):
    """A timestamp is more than a day ahead of the clock here. Either may be wrong, so it is not refused for ever."""


def checked_sensor(name: str) -> str:
    """The name of a sensor.

    Raises:
        InputError: If it is not one.

    Example:
        >>> checked_sensor("door-3")
        'door-3'
    """
    if not SENSOR.fullmatch(name):
        raise InputError(
            f"sensor_id={name[:140]!r} should be 1 to 128 letters, digits, dots, dashes and underscores, beginning with"
            " a letter or digit"
        )
    return name


def checked_timestamp(text: str, now: float) -> int:
    """Unix time in whole seconds.

    Args:
        text: As it was sent.
        now: Unix time in seconds.

    Raises:
        TimestampAheadError: If it is more than a day ahead: it may be right later, or here.
        InputError: If it is not one, before 2000, or ten years ahead.

    Example:
        >>> checked_timestamp("1719393854", now=1719393860.0)
        1719393854
    """
    value = int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else -1
    if not EARLIEST < value <= max(now, _OF_THIS_RELEASE) + _YEARS:
        raise InputError(
            f"timestamp={text[:40]!r} should be unix time in whole seconds, after 2000 and at most a day ahead of"
            f" {int(now)}, which it is here"
        )
    if value > now + AHEAD:
        raise TimestampAheadError(
            f"timestamp={value} is {duration(value - now)} ahead of {int(now)}, which it is here; the clock of the"
            " device or of this server is wrong"
        )
    return value
