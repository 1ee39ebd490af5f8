"""Sensors and hours for tests of pages, as a store would give them."""

from __future__ import annotations

from lensai_integrations.server.pages import About
from lensai_integrations.server.records import HOUR, Evidence, HourDrift, Sensor, hour_of

NOW = 1_795_300_000.0  # 2026-11-21 22:26:40 UTC
THIS_HOUR = hour_of(int(NOW))
#: A name as an attacker would choose it.
HOSTILE = "<script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=2>{{7*7}}<!--"


def about(**settings: object) -> About:
    """What the server says of itself."""
    return About(
        **{
            "baseline": "models:/digits@champion",
            "baseline_rows": 2000,
            "false_alarm_rate": 0.01,
            "now": NOW,
            **settings,
        }
    )  # type: ignore[arg-type]


def make_hours(name: str, kinds: str, *, end: int = THIS_HOUR) -> tuple[HourDrift, ...]:
    """Hours up to `end`, a letter each: `g`ood, `d`rift, `f`ailed, `w`aiting, `.` for nothing."""
    found = []
    for place, kind in enumerate(kinds):
        hour = end - HOUR * (len(kinds) - 1 - place)
        about_it = {"uploads": 2, "rows": 100}
        if kind in "gd":
            drift = kind == "d"
            moved = ("inputs/brightness", "inputs/noise", "inputs/mean/0") if drift else ()
            found.append(HourDrift(name, hour, **about_it, drift=drift, effect=0.5 if drift else 0.05, moved=moved))
        elif kind in "fw":
            found.append(HourDrift(name, hour, **about_it, problem="too few images" if kind == "f" else ""))
    return tuple(found)


def evidence(log_e: float, *, reported: bool = False, hours: int = 24) -> Evidence:
    """Of some hours up to the end of this one."""
    return Evidence(log_e, reported, hours, THIS_HOUR + HOUR, ("inputs/noise",) if reported else (), NOW)


def make_sensor(name: str = "door", kinds: str = "g" * 24, *, end: int = THIS_HOUR, **settings: object) -> Sensor:
    """A sensor with these hours and little evidence, whose newest upload came ten minutes into the last of them."""
    hours = make_hours(name, kinds, end=end)
    known = {"uploads": 2 * len(hours), "first": hours[0].hour, "last": end + 590, "received": end + 600.0}
    known["evidence"] = evidence(-0.5) if set(kinds) & set("gd") else None
    return Sensor(**{"name": name, "hours": hours, **known, **settings})  # type: ignore[arg-type]
