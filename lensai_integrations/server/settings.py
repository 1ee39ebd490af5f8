"""How much the server takes, keeps and answers, and how often it judges."""

from __future__ import annotations

from dataclasses import dataclass, fields

from lensai_integrations.edge.members import ArchiveLimits
from lensai_integrations.errors import InputError

MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """Limits and intervals.

    Attributes:
        upload_bytes: Largest body of an upload.
        unpacked_bytes: Largest archive after decompression.
        sketches_bytes: Sketches of an archive, all together; devices send some 50 KB.
        members: Most files and folders of an archive.
        upload_seconds: How long the body of an upload may take to arrive.
        memory_bytes: Bodies, and sketches that are not on disk yet, which are in memory at the same time, all
            together; at least four times a body. What comes beyond that is answered 503 or 429.
        uploads_at_once: How many bodies may be coming; of one sender half at most, see `shares`: a fleet of 2,000
            devices behind one address may upload in the same second. Fewer than there may be connections, for who is
            refused needs one to be told.
        uploads_of_sensor: How many uploads may be under way with a token of one sensor, which sends one at a time and
            what it has kept.
        archives_at_once: How many archives are unpacked at the same time; half of them of one sender.
        reads_at_once: How many answers and pages are made at the same time; fewer than the store has connections (16).
        sensors: Most sensors; those that have a token of their own are always taken.
        hours_a_day: New hours of a sensor. A device makes 24 a day; what is not used is kept for ten days, so one that
            was offline for three months sends them at once.
        bytes_a_day: Sketches of a sensor, likewise kept for ten days. A device that sends 50 KB a minute has 72 MB a
            day, of two months 4.3 GB.
        keep_days: Hours, and which uploads are in them, are forgotten so long after the last upload of that hour came.
        judge_seconds: An hour is compared with the baseline at most so often.
        report_seconds: An hour's report is logged to MLflow at most so often.
        settle_uploads: Most uploads that are merged in one transaction.
        free_bytes: With less space on the disk of a SQLite store uploads are refused.
        hours: Most hours of an answer.
        listed: Most sensors of an answer, and of the page that lists them.
        false_alarm_rate: Chance of a false alarm of one comparison.

    Raises:
        InputError: If a number is not positive, or too small for a single upload.

    Example:
        >>> Settings(keep_days=7).keep_days
        7
    """

    upload_bytes: int = 32 * MIB
    unpacked_bytes: int = 64 * MIB
    sketches_bytes: int = 4 * MIB
    members: int = 2_000
    upload_seconds: float = 60.0
    memory_bytes: int = 512 * MIB
    uploads_at_once: int = 4_096
    uploads_of_sensor: int = 16
    archives_at_once: int = 8
    reads_at_once: int = 12
    sensors: int = 10_000
    hours_a_day: int = 240
    bytes_a_day: int = 512 * MIB
    keep_days: float = 90.0
    judge_seconds: float = 60.0
    report_seconds: float = 600.0
    settle_uploads: int = 500
    free_bytes: int = 64 * MIB
    hours: int = 2_400
    listed: int = 500
    false_alarm_rate: float = 0.01

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            may_be_zero = field.name in ("judge_seconds", "report_seconds", "free_bytes")
            if not (value > 0 or (may_be_zero and value == 0)):
                raise InputError(f"{field.name}={value!r} should be a positive number")
        for name, least, of in (("memory_bytes", 4, "upload_bytes"), ("bytes_a_day", 1, "sketches_bytes")):
            if getattr(self, name) < least * getattr(self, of):
                raise InputError(
                    f"{name}={getattr(self, name)!r} should be at least {least} x {of}: pass"
                    f" {least * getattr(self, of)} or more, or a smaller {of}"
                )
        if self.false_alarm_rate >= 1:
            raise InputError(f"false_alarm_rate={self.false_alarm_rate!r} is a chance: pass less than 1, e.g. 0.01")

    @property
    def archive(self) -> ArchiveLimits:
        """How much is read of an archive."""
        return ArchiveLimits(self.unpacked_bytes, self.sketches_bytes, self.members)
