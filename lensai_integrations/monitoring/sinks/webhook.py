"""Notices to a URL, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lensai_integrations.errors import InputError
from lensai_integrations.monitoring.events import NOTICE, STATUS, WINDOW, Event
from lensai_integrations.monitoring.sinks.base import QueuedSink, RefusedError
from lensai_integrations.storage.posting import checked_url, post

#: Answers below 500 that are worth another try: timeout, too early, too many requests.
_AGAIN: Final = (408, 425, 429)


class WebhookSink(QueuedSink):
    """Posts every notice to a URL, on a thread of its own, with retries.

    The body is the event as JSON; its `text` is what Slack, Mattermost and Teams' workflows show. Each request carries
    the event's id as `Idempotency-Key`.

    Args:
        url: `http://` or `https://`.
        types: Which events: any of `"window"`, `"notice"`, `"status"`.
        headers: Further headers, such as `{"Authorization": "Bearer ..."}`.
        timeout: Seconds for one request.
        settings: `retries`, `backoff`, `queue_size` and `flush_seconds`, see `QueuedSink`.

    Raises:
        InputError: If an argument is out of range, or the URL is of another kind.

    Example:
        >>> WebhookSink("file:///etc/passwd")
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: url should begin with http:// or https:// and name a server, ...
    """

    def __init__(
        self,
        url: str,
        *,
        types: Sequence[str] = (NOTICE,),
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        checked_url("url", url)
        if isinstance(types, str) or not set(types) <= {WINDOW, NOTICE, STATUS}:
            raise InputError(f"types={types!r} should be some of 'window', 'notice' and 'status'")
        if not isinstance(timeout, int | float) or not timeout > 0:
            raise InputError(f"timeout={timeout!r} should be a positive number of seconds")
        self.types = tuple(types)
        self._url, self._timeout = url, timeout
        self._headers = {"Content-Type": "application/json", "User-Agent": "lensai-integrations", **(headers or {})}

    def deliver(self, event: Event) -> None:
        """Post one event. The URL is in no message: it often is a secret."""
        body = json.dumps(event.to_dict(), allow_nan=False).encode()
        headers = self._headers | {"Idempotency-Key": event.id}
        answer = post(self._url, body, headers, self._timeout)
        if answer.status >= 500 or answer.status in _AGAIN:
            raise OSError(f"the server answered {answer}")
        if answer.status >= 300:
            raise RefusedError(f"the server answered {answer}")
