"""A profile or a device's folder, sent to a LensAI server; what could not be delivered is kept, and delivered later."""

from __future__ import annotations

import logging
import shlex
import time
from dataclasses import replace
from pathlib import Path

from lensai_integrations.edge import spool as spools
from lensai_integrations.edge.reading import recognised
from lensai_integrations.edge.writing import contents_of
from lensai_integrations.errors import InputError, TrackingError
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.uploads import (
    RefusedUploadError,
    UndeliveredError,
    Upload,
    archive,
    check_settings,
    send,
    time_named,
)

_LOG = logging.getLogger(__name__)


def publish(
    profile_or_dir: Profile | Baseline | str | Path,
    endpoint: str,
    sensor_id: str,
    *,
    token: str | None = None,
    timeout: float = 30.0,
    retries: int = 3,
    timestamp: int | None = None,
    spool: str | Path | None = "lensai_spool",
    max_spool_bytes: int = 2**28,
) -> bool:
    """Send sketches to a LensAI server, in the protocol of its C++ profiler.

    No connection, no answer, 429 and 5xx are tried again, after 1, 2, 4, ... seconds. What could not be delivered is
    kept in the spool, and `lensai push` delivers it, under the same timestamp: if only the answer was lost, the server
    answers that it has it. An upload that the server will never take (400, 413, 415, 422, or because it has something
    else of that sensor and timestamp) is raised and not kept; but it is kept where its time is ahead of the server's
    clock, for then one of the two is wrong. Without a `timestamp`, and while the clock here has not been set, it is
    kept unsent, and gets the time when `lensai push` finds the clock set. Of a process that is killed before this
    returns, the upload is not kept; of one that is interrupted it is. Files that the server could not read are named in
    the log.

    Args:
        profile_or_dir: A profile made with `convention="lensai-edge"` or read from a device, of a baseline its
            reference: what `write_stats` would write is sent. Or a folder of one device and time: the sketches in it
            that `read_stats` reads are sent; links, hidden files, saved images and damaged files are not.
        endpoint: `http://` or `https://`, with the path, such as `/upload/`. It is kept in the spool as it is.
        sensor_id: Whose they are: letters, digits, `.`, `_` and `-`.
        token: Sent as `Authorization: Bearer`; kept nowhere. Without https a log message says who can read it.
        timeout: Seconds to wait for a connection, and for each piece of the answer.
        retries: How often it is tried again.
        timestamp: Of when, unix time in whole seconds. By default the one that the folder is named by, or that a
            profile read from such a folder has; else now, or the next second of which the server has nothing: a server
            takes one upload of each sensor and timestamp.
        spool: Folder for what could not be delivered; None keeps nothing.
        max_spool_bytes: Most bytes that the spool may have. When it is full, nothing in it is given up for the new.

    Returns:
        Whether the server had none of this sensor and timestamp before.

    Raises:
        InputError: If an argument is out of range, or there is no sketch.
        DefinitionError: If the profile's image measures are not those of devices.
        FormatError: If the folder is too large.
        DifferentUploadError: If the server has something else of this sensor and timestamp.
        TrackingError: If it could not be delivered; the message says why, and whether it is kept.

    Example:
        >>> publish(Profile(), "https://lensai.example/upload/", "door-3", spool=None)
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: profile has no stream that devices have: its groups are []
    """
    check_settings(token, timeout, retries)
    folder = None if spool is None else spools.checked_spool(spool)
    if isinstance(max_spool_bytes, bool) or not isinstance(max_spool_bytes, int) or max_spool_bytes < 0:
        raise InputError(f"max_spool_bytes={max_spool_bytes!r} should be a whole number of bytes")
    now = int(time.time())
    # The arguments are held against what they may be, before the work.
    upload = Upload(endpoint, sensor_id, now if timestamp is None else timestamp, b"")
    contents, named = _contents(profile_or_dir)
    if timestamp is None:
        upload = replace(upload, timestamp=now if named is None else named, fresh=named is None)
    upload = replace(upload, archive=archive(contents, upload.timestamp))
    try:
        return send(upload, token=token, timeout=timeout, retries=retries)
    except RefusedUploadError:
        raise
    except UndeliveredError as error:
        if folder is None:
            raise
        raise TrackingError(f"{error}; {_kept(folder, error.upload, max_spool_bytes)}") from error
    except BaseException:  # Ctrl-C while it waits to try again
        if folder is not None:
            _LOG.warning("interrupted before it was delivered: %s", _kept(folder, upload, max_spool_bytes))
        raise


def _contents(what: Profile | Baseline | str | Path) -> tuple[dict[str, bytes], int | None]:
    """Sketches by path, e.g. `imgstats/noise.bin`, and of when they say they are."""
    if isinstance(what, Profile | Baseline):
        info = (what.reference if isinstance(what, Baseline) else what).info
        times = info.get("timestamps", [info.get("timestamp")])  # of several, or of one
        return contents_of(what), time_named(str(times[0])) if isinstance(times, list) and len(times) == 1 else None
    if not isinstance(what, str | Path) or not Path(what).is_dir():
        raise InputError(f"profile_or_dir={what!r} is no folder: pass one with imgstats/, a Profile or a Baseline")
    found, problems = recognised(Path(what))
    if len(found) > 1:
        raise InputError(
            f"profile_or_dir={str(what)!r} holds sketches of {len(found)} sensors or times: publish each folder"
        )
    for problem in problems:
        _LOG.warning("%s: %s; it is not sent", what, problem)
    for (_, when), contents in found.items():
        return contents, time_named(str(when))
    raise InputError(f"profile_or_dir={str(what)!r} holds no readable LensAI sketch: pass the folder with imgstats/")


def _kept(folder: Path, upload: Upload, max_bytes: int) -> str:
    """Keep an upload; what a message says of it."""
    try:
        spools.keep(folder, upload, max_bytes)
    except OSError as error:
        return f"and it could not be kept in {folder}: {error}"
    return f"it is kept, deliver it with: {shlex.join(['lensai', 'push', str(folder)])}"
