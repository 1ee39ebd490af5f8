"""What an upload may say of itself."""

from __future__ import annotations

import pytest

from lensai_integrations.errors import InputError
from lensai_integrations.server.intake import TimestampAheadError, checked_sensor, checked_timestamp
from lensai_integrations.server.records import hour_of

NOW = 1_800_000_000.0


@pytest.mark.parametrize("name", ["a", "door-3", "A.b_c-9", "0", "x" * 128])
def test_sensors(name):
    assert checked_sensor(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "ä", "a\0", "x" * 129, "<b>"])
def test_no_sensors(name):
    with pytest.raises(InputError, match="sensor_id="):
        checked_sensor(name)


@pytest.mark.parametrize("when", [946_684_801, 1_719_393_854, 1_800_000_000, 1_800_086_400])
def test_times(when):
    assert checked_timestamp(str(when), NOW) == when


@pytest.mark.parametrize(
    "text",
    ["", "0", "946684800", "2115360001", "-1", "+1719393854", "1719393854.5", "1e9", " 1719393854", "1_719_393_854",
     "١٧١٩٣٩٣٨٥٤", "9" * 10_000, "1719393854000", "nan"],
)  # fmt: skip
def test_no_times(text):
    with pytest.raises(InputError, match="timestamp="):
        checked_timestamp(text, NOW)


@pytest.mark.parametrize("ahead", [86_401, 3 * 86_400, 10 * 365 * 86_400])
def test_a_time_that_is_ahead_may_be_right_where_the_clock_here_is_behind(ahead):
    """Answered "send it again": 400 would be for ever."""
    with pytest.raises(TimestampAheadError, match=f"timestamp={int(NOW) + ahead} is {ahead // 86_400} days? ahead of"):
        checked_timestamp(str(int(NOW) + ahead), NOW)


@pytest.mark.parametrize("now", [0.0, 946_684_800.0, 1_500_000_000.0])
def test_a_server_whose_clock_was_never_set_refuses_no_device_for_ever(now):
    with pytest.raises(TimestampAheadError):
        checked_timestamp("1795000000", now)


def test_hours():
    assert [hour_of(when) for when in (7199, 7200, 10_799)] == [3600, 7200, 7200]
