"""What goes wrong inside a monitor never reaches the service: logged once per topic with its cause, and counted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from lensai_integrations.errors import LensAIError
from lensai_integrations.interruptions import pass_on

_log = logging.getLogger("lensai_integrations")


class Failures:
    """Counts failures by topic; the first of a topic is logged, the last is kept as a sentence.

    Attributes:
        counts: How often, by topic.
        causes: The last cause, by topic.

    Example:
        >>> failures = Failures("production")
        >>> failures.counts["state"] = 2
        >>> failures.total
        2
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.counts: dict[str, int] = {}
        self.causes: dict[str, str] = {}
        self._remarks: set[str] = set()

    @property
    def total(self) -> int:
        """All failures together."""
        return sum(self.counts.values())

    def note(self, topic: str, problem: str | Exception) -> None:
        """Count a failure, and log it if it is the first of its topic.

        Args:
            topic: What failed: `"state"`, `"sink webhook"`, `"outputs"`.
            problem: What is wrong, or the exception.
        """
        expected = isinstance(problem, str | LensAIError)
        cause = str(problem) if expected else f"{type(problem).__name__}: {problem}"
        first = topic not in self.counts
        self.counts[topic] = self.counts.get(topic, 0) + 1
        self.causes[topic] = cause
        if first:
            trace = None if expected or isinstance(problem, str) else problem
            _log.warning("monitor %r, %s: %s (logged once; its status counts the rest)", self._name, topic, cause,
                         exc_info=trace)  # fmt: skip

    def remark(self, sentence: str) -> None:
        """Log what a reader should know, a sentence once. It is no failure."""
        if sentence not in self._remarks:
            self._remarks.add(sentence)
            _log.warning("monitor %r: %s", self._name, sentence)

    def lacking(self, groups: Iterable[str], feeds: Mapping[str, str]) -> None:
        """State and log, once, which groups of the baseline get no rows. It is no failure: it may be meant so.

        Args:
            groups: Their names.
            feeds: The argument of `update` by the name of the group, of those that have one.
        """
        new = [group for group in groups if group not in self.causes]
        for told in (True, False):
            if some := [group for group in new if (group in feeds) is told]:
                wanted = ", ".join(dict.fromkeys(feeds[group] for group in some if told))
                gives = f"update({wanted}) gives them" if told else "no update gives them"
                why = f"a window has no rows of what the baseline has here, so nothing is held against it; {gives}"
                self.causes |= dict.fromkeys(some, why)
                self.remark(f"{', '.join(some)}: {why}")

    @contextmanager
    def caught(self, topic: str) -> Iterator[None]:
        """Note an exception of the block instead of raising it; Ctrl-C and exits pass."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - monitoring never stops a service
            pass_on(error)
            self.note(topic, error)
