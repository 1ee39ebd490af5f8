"""What still has to be told to which sink, so that nothing is told twice, not even across a crash.

A sink for which telling twice does no harm (`repeatable`) is told until it is known that it was. For any other, it is
written down that it is being told before it is: after a crash in between nobody knows whether it was, and it is not
told again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lensai_integrations.monitoring.events import STATUS, Event
from lensai_integrations.monitoring.sinks.base import Sink, checked_sinks
from lensai_integrations.problems import Problems, log
from lensai_integrations.profiles.profile import Baseline, Profile


@dataclass
class UntoldEvent:
    """An event, and the names of the sinks that were told, or may have been."""

    event: Event
    told: set[str] = field(default_factory=set)


class Teller:
    """The sinks of a monitor, and what they have not been told yet.

    Args:
        sinks: Sinks or functions of an event.
        failures: Where it is noted that a sink failed.

    Raises:
        InputError: If one is neither.
    """

    def __init__(self, sinks: Sequence[Sink | Callable[[Event], Any]], failures: Problems) -> None:
        self._sinks = checked_sinks(sinks)
        self._failures = failures
        self._pending: list[UntoldEvent] = []

    def open(self, baseline: Baseline | Profile, monitor: str) -> None:
        """Tell all sinks that a monitor begins."""
        for name, sink in self._sinks.items():
            with self._failures.caught(f"sink {name}"):
                sink.open(baseline, monitor, partial(self._failures.note, f"sink {name}"))

    def close(self) -> None:
        """Tell all sinks that it ends; they deliver what they still have."""
        for name, sink in self._sinks.items():
            with self._failures.caught(f"sink {name}"):
                sink.close()

    def add(self, event: Event) -> None:
        """Put an event behind those that are to be told."""
        self._pending.append(UntoldEvent(event))

    def tell(self, commit: Callable[[], None]) -> None:
        """Tell everything to everybody.

        Args:
            commit: Writes the state down.
        """
        if not self._pending:
            return
        for pending in self._pending:
            for name, sink in self._sinks.items():
                if pending.event.type in sink.types and name not in pending.told:
                    self._tell(pending, name, sink, commit)
        self._pending = []
        commit()

    def _tell(self, pending: UntoldEvent, name: str, sink: Sink, commit: Callable[[], None]) -> None:
        pending.told.add(name)
        if not sink.repeatable:
            commit()
        with self._failures.caught(f"sink {name}"):
            sink.tell(pending.event)

    def state(self) -> list[dict[str, Any]]:
        """What is to be told, as JSON values."""
        return [
            {
                "event": untold.event.to_dict(),
                "told": sorted(name for name in untold.told if not self._repeatable(name)),
            }
            for untold in self._pending
        ]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Go on with what `state` returned; raises `KeyError`, `TypeError` or `ValueError` for anything else.

        What was to be told of a status is left out: another holds now, and a process that is killed again and again
        would have more and more to tell.
        """
        pending = [UntoldEvent(Event.from_dict(entry["event"]), set(map(str, entry["told"]))) for entry in state]
        self._pending = [untold for untold in pending if untold.event.type != STATUS]
        for untold in self._pending:
            for name in sorted(untold.told & self._sinks.keys()):
                log.warning(
                    "monitor %r was killed while it told %s: %s. It is not told again", untold.event.monitor, name,
                    untold.event.text,
                )  # fmt: skip

    def _repeatable(self, name: str) -> bool:
        return name in self._sinks and self._sinks[name].repeatable
