"""What Prometheus is told, in a registry of the server's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lensai_integrations.server import queries
from lensai_integrations.server.queries import Latest
from lensai_integrations.server.store import Store, StoreError

#: Sensors that have their own gauges.
MOST_SENSORS: Final = 1_000
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ServerMetrics:
    """Counters of this process, and gauges that are read from the store when they are asked for.

    Args:
        store: Where gauges come from.

    Example:
        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> metrics = ServerMetrics(store)
        >>> metrics.uploads.labels("created").inc()
        >>> b'lensai_uploads_total{result="created"} 1.0' in metrics.exposition()
        True
        >>> store.close()
    """

    def __init__(self, store: Store) -> None:
        self.registry: Final = CollectorRegistry()
        self.uploads = Counter("lensai_uploads", "Uploads by what became of them.", ["result"], registry=self.registry)
        self.unauthorised = Counter(
            "lensai_unauthorised",
            "Requests without a valid token, by what was wrong.",
            ["token"],
            registry=self.registry,
        )
        for token in ("missing", "wrong", "slowed"):
            self.unauthorised.labels(token)
        self.bytes = Counter("lensai_upload_bytes", "Bytes of archives that were stored.", registry=self.registry)
        self.seconds = Histogram(
            "lensai_upload_seconds", "From the request to its answer.", buckets=_SECONDS, registry=self.registry
        )
        self.merged = Counter("lensai_uploads_merged", "Uploads merged into their hours.", registry=self.registry)
        self.judged = Counter(
            "lensai_hours_judged", "Hours compared with the baseline.", ["verdict"], registry=self.registry
        )
        self.forgotten = Counter("lensai_hours_forgotten", "Hours deleted for their age.", registry=self.registry)
        self.failures = Counter(
            "lensai_failures",
            "What no sender is to blame for, by topic.",
            ["topic"],
            registry=self.registry,
        )
        for topic in ("settle", "judge", "report", "store"):
            self.failures.labels(topic)
        self.registry.register(_FromStore(store))
        ProcessCollector(registry=self.registry)

    def exposition(self) -> bytes:
        """All of them, as Prometheus' text."""
        return generate_latest(self.registry)


class _FromStore(Collector):
    """Gauges of what is in the store; of one that cannot be reached only that."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing is asked of the store when this is registered."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges."""
        try:
            totals = queries.counts(self._store)
            latest = queries.latest(self._store, now=time.time(), most=MOST_SENSORS)
            free = self._store.free_bytes()
        except StoreError:
            yield GaugeMetricFamily("lensai_store_up", "Whether the store can be used.", value=0)
            return
        yield GaugeMetricFamily("lensai_store_up", "Whether the store can be used.", value=1)
        yield GaugeMetricFamily("lensai_sensors", "Sensors in the store.", value=totals.sensors)
        yield GaugeMetricFamily("lensai_uploads_pending", "Uploads stored and not merged yet.", value=totals.pending)
        yield GaugeMetricFamily("lensai_hours_due", "Hours changed since they were judged.", value=totals.due)
        if free is not None:
            yield GaugeMetricFamily("lensai_store_free_bytes", "Space left on the store's disk.", value=free)
        reported = sum(each.reported for each in latest.evidence.values())
        yield GaugeMetricFamily(
            "lensai_sensors_reported", "Sensors with enough evidence, among all, that they drift.", value=reported
        )
        yield GaugeMetricFamily(
            "lensai_sensors_drifting", "Sensors heard of lately whose newest judged hour drifts.", value=latest.drifting
        )
        yield GaugeMetricFamily(
            "lensai_sensors_left_out",
            "Sensors heard of lately that have no gauges of their own.",
            value=latest.left_out,
        )
        yield from _of_sensors(latest)


def _of_sensors(latest: Latest) -> Iterator[GaugeMetricFamily]:
    drift = GaugeMetricFamily("lensai_sensor_drift", "1 if the newest judged hour has drift.", labels=["sensor"])
    effect = GaugeMetricFamily("lensai_sensor_effect", "Effect of that hour, 0 to 1.", labels=["sensor"])
    hour = GaugeMetricFamily("lensai_sensor_hour_timestamp_seconds", "When that hour began.", labels=["sensor"])
    reported = GaugeMetricFamily("lensai_sensor_reported", "1 if the sensor is reported.", labels=["sensor"])
    log_e = GaugeMetricFamily(
        "lensai_sensor_log_e", "Natural logarithm of the evidence that it drifts.", labels=["sensor"]
    )
    for judged in latest.hours:
        hour.add_metric([judged.sensor], judged.hour)
        if judged.drift is not None:
            drift.add_metric([judged.sensor], float(judged.drift))
            effect.add_metric([judged.sensor], judged.effect or 0.0)
        if (evidence := latest.evidence.get(judged.sensor)) is not None:
            reported.add_metric([judged.sensor], float(evidence.reported))
            log_e.add_metric([judged.sensor], evidence.log_e)
    yield from (drift, effect, hour, reported, log_e)
