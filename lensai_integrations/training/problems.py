"""What goes wrong with the monitoring never reaches the training: it is logged once, and listed at the end."""

from __future__ import annotations

import logging
from types import TracebackType

from lensai_integrations.errors import LensAIError
from lensai_integrations.interruptions import pass_on

log = logging.getLogger("lensai_integrations")


class Problems:
    """Collects what is wrong or missing, by topic; the first problem of a topic is logged, with its cause.

    Args:
        quiet: Collect without logging, as on all ranks but the first.

    Attributes:
        messages: A sentence per topic, in the order they came up.

    Example:
        >>> problems = Problems(quiet=True)
        >>> with problems.caught("labels"):
        ...     {}["label"]
        >>> problems.messages
        ["labels: KeyError('label')"]
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._known: set[str] = set()
        self.messages: list[str] = []

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()
        self.messages.clear()

    def note(self, topic: str, problem: str | Exception, *, listed: bool = True) -> None:
        """Remember and log a problem, unless the topic had one before.

        Args:
            topic: What it is about.
            problem: What is wrong and what to do, or the error that says so.
            listed: Whether `messages` has it; not if a profile already says so itself.
        """
        if topic in self._known:
            return
        self._known.add(topic)
        expected = isinstance(problem, str | LensAIError)
        message = f"{topic}: {problem if expected else repr(problem)}"
        if listed:
            self.messages.append(message)
        if not self._quiet:
            log.warning("%s", message, exc_info=None if expected else problem)  # type: ignore[arg-type]

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
