"""What goes wrong beside the work of others: said once with its cause, counted, and never fatal.

A training, a service and a pipeline go on whatever fails in here. So the first problem of a topic is logged, all are
counted, and whoever reports at the end (a manifest, the status of a monitor) has a sentence for each topic.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from types import TracebackType
from typing import Final

from lensai_integrations.errors import LensAIError
from lensai_integrations.interruptions import pass_on

log: Final = logging.getLogger("lensai_integrations")


class Problems:
    """Collects what is wrong or missing, by topic; the first problem of a topic is logged, with its cause.

    Args:
        monitor: Of which monitor, that its log lines name; its status counts what is not logged. Empty for none.
        quiet: Collect without logging, as on all ranks but the first.
        most: How much is told by `remark` and `first` at the most, where each may name another value; None for all.

    Attributes:
        messages: A sentence per topic, in the order they came up.
        counts: How often, by topic.
        causes: The last cause, by topic.

    Example:
        >>> problems = Problems(quiet=True)
        >>> for _ in range(2):
        ...     with problems.caught("labels"):
        ...         {}["label"]
        >>> problems.messages, problems.counts, problems.total
        (["labels: KeyError('label')"], {'labels': 2}, 2)
    """

    def __init__(self, monitor: str = "", *, quiet: bool = False, most: int | None = None) -> None:
        self._monitor, self._quiet, self._most = monitor, quiet, most
        self._told: set[Hashable] = set()
        self.messages: list[str] = []
        self.counts: dict[str, int] = {}
        self.causes: dict[str, str] = {}

    def clear(self) -> None:
        """Forget all."""
        for collected in (self._told, self.messages, self.counts, self.causes):
            collected.clear()

    @property
    def total(self) -> int:
        """All problems together."""
        return sum(self.counts.values())

    def note(self, topic: str, problem: str | Exception, *, listed: bool = True) -> None:
        """Count a problem, and remember and log it if it is the first of its topic.

        Args:
            topic: What it is about.
            problem: What is wrong and what to do, or the error that says so.
            listed: Whether `messages` has it; not if a profile already says so itself.
        """
        expected = isinstance(problem, str | LensAIError)
        message = f"{topic}: {problem if expected else repr(problem)}"
        first = topic not in self.counts
        self.counts[topic] = self.counts.get(topic, 0) + 1
        self.causes[topic] = str(problem) if expected else f"{type(problem).__name__}: {problem}"
        if not first:
            return
        if listed:
            self.messages.append(message)
        if self._monitor:
            message = f"{topic}: {self.causes[topic]} (logged once; its status counts the rest)"
        self._log(message, ", ", None if expected else problem)  # type: ignore[arg-type]

    def remark(self, sentence: str, topic: str = "") -> None:
        """Log what a reader should know, once. It is no problem, and not counted.

        Args:
            sentence: What is logged.
            topic: What it is about; by default, every sentence is about something else.
        """
        if self.first(topic or sentence):
            self._log(sentence)

    def first(self, topic: Hashable) -> bool:
        """Whether something is to be told for the first time, which it is with this.

        Example:
            >>> problems = Problems()
            >>> problems.first("sensor 1"), problems.first("sensor 1")
            (True, False)
        """
        if topic in self._told or (self._most is not None and len(self._told) >= self._most):
            return False
        self._told.add(topic)
        return True

    def _log(self, sentence: str, joined: str = ": ", error: Exception | None = None) -> None:
        if not self._quiet:
            named = f"monitor {self._monitor!r}{joined}" if self._monitor else ""
            log.warning("%s", named + sentence, exc_info=error)

    def caught(self, topic: str, *raised: type[Exception]) -> Caught:
        """A context that turns an exception in its block into a problem.

        Args:
            topic: What is done in the block.
            raised: Exceptions that pass; so do Ctrl-C, exits and what a signal handler raises (`pass_on`).
        """
        return Caught(self, topic, raised)


class Caught:
    """See `Problems.caught`."""

    def __init__(self, problems: Problems, topic: str, raised: tuple[type[Exception], ...]) -> None:
        self._problems, self._topic, self._raised = problems, topic, raised

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception) or isinstance(error, self._raised):
            return False
        pass_on(error)
        self._problems.note(self._topic, error)
        return True
