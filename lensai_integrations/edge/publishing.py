"""A profile or a device's folder, sent to a LensAI server; what could not be delivered is kept in a spool.

From there it is delivered later: each upload once, oldest first, and removed when the server has it.
"""

from __future__ import annotations

import logging
import shlex
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from lensai_integrations.edge import spool as spools
from lensai_integrations.edge.reading import recognised
from lensai_integrations.edge.sending import (
    EARLIEST,
    MOST_TIMES,
    AheadUploadError,
    DifferentUploadError,
    RefusedUploadError,
    UndeliveredError,
    Upload,
    archive,
    check_settings,
    send,
    time_named,
)
from lensai_integrations.edge.writing import contents_of
from lensai_integrations.errors import FormatError, InputError, LensAIError, TrackingError
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.storage.posting import checked_url, server_of

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
    folders, problems = recognised(Path(what))
    if len(folders) > 1:
        raise InputError(
            f"profile_or_dir={str(what)!r} holds sketches of {len(folders)} sensors or times: publish each folder"
        )
    for problem in problems:
        _LOG.warning("%s: %s; it is not sent", what, problem)
    for (_, when), contents in folders.items():
        return contents, time_named(str(when))
    raise InputError(f"profile_or_dir={str(what)!r} holds no readable LensAI sketch: pass the folder with imgstats/")


def _kept(folder: Path, upload: Upload, max_bytes: int) -> str:
    """Keep an upload; what a message says of it."""
    try:
        spools.keep(folder, upload, max_bytes)
    except OSError as error:
        return f"and it could not be kept in {folder}: {error}"
    return f"it is kept, deliver it with: {shlex.join(['lensai', 'push', str(folder)])}"


#: Failures in a row after which the rest of what goes to an address is left for later.
MOST_FAILURES: Final = 3


@dataclass
class Delivery:
    """What became of the uploads in a spool.

    Attributes:
        delivered: How many the server has now.
        problems: Why others were not delivered, by file name.
        elsewhere: How many were left because they go to another address than was asked for.
        refused: Why those in the spool's folder `refused` are there, now or from before, by file name, oldest first.
    """

    delivered: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    elsewhere: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def deliver(
    spool: str | Path,
    *,
    token: str | None = None,
    endpoint: str | None = None,
    timeout: float = 30.0,
    retries: int = 3,
) -> Delivery:
    """Deliver what `publish` could not, oldest first, as `lensai push` does.

    A file is removed once the server has it. One that the server will never take goes to the spool's folder `refused`,
    as does one of a time that was named, if the server has something else of that; that folder is a spool, too, so what
    is in it is sent again by delivering it. One whose time is ahead of the server's clock stays, and holds up no other.
    After another failure the next ones are tried once each, and after three in a row the rest is left for later.
    Several calls at once share the work.

    Args:
        spool: The folder.
        token: Sent as `Authorization: Bearer`.
        endpoint: Deliver only what goes to this address. Each file says where it goes: pass this with a token if others
            could have put files there. With a token it has to be passed if the files name several servers.
        timeout: Seconds to wait for a connection, and for each piece of the answer.
        retries: How often it is tried again.

    Returns:
        How many were delivered, and why others were not.

    Raises:
        InputError: If an argument is out of range, or the folder is no spool, or a token would go to several servers.
        OSError: If the folder cannot be read.

    Example:
        >>> deliver("/nonexistent")
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: spool='/nonexistent' is no folder that publish has kept uploads in
    """
    check_settings(token, timeout, retries)
    folder = Path(spool)
    if not spools.is_spool(folder):
        raise InputError(f"spool={str(spool)!r} is no folder that publish has kept uploads in")
    if endpoint is not None:
        checked_url("endpoint", endpoint)
    spools.remove_abandoned(folder)
    done = Delivery()
    addresses = _addresses(folder, done)
    if token and endpoint is None:
        _check_one_server(folder, addresses.values())
    failures: Counter[str] = Counter()
    for path, address in addresses.items():
        if endpoint not in (None, address):
            done.elsewhere += 1
        elif failures[address] >= MOST_FAILURES:
            done.problems[path.name] = f"left for later: {MOST_FAILURES} failures in a row"
        else:
            attempts = 0 if failures[address] else retries
            failed = _deliver(path, address, done, token=token, timeout=timeout, retries=attempts)
            failures[address] = failures[address] + 1 if failed else 0
    done.refused = spools.refused(folder)
    return done


def _addresses(folder: Path, done: Delivery) -> dict[Path, str]:
    """Where each upload goes, oldest first; what is none is a problem."""
    addresses = {}
    for path in spools.waiting(folder):
        try:
            address = spools.read_endpoint(path)
            checked_url("its endpoint", address)
            addresses[path] = address
        except FileNotFoundError:
            continue  # another push has just delivered it
        except (LensAIError, OSError) as error:
            done.problems[path.name] = str(error)
    return addresses


def _check_one_server(folder: Path, addresses: Iterable[str]) -> None:
    servers = sorted({server_of(address) for address in addresses})
    if len(servers) > 1:
        raise InputError(
            f"spool={str(folder)!r} holds uploads to {len(servers)} servers ({', '.join(servers[:5])}), and the token"
            " may be for one only: pass endpoint (--endpoint), and only what goes there is delivered"
        )


def _deliver(path: Path, address: str, done: Delivery, *, token: str | None, timeout: float, retries: int) -> bool:
    """Deliver one upload and note what became of it; whether the next one is likely to fail, too."""
    try:
        with spools.claimed(path):
            upload = spools.read_upload(path)
            if upload.endpoint != address:
                raise FormatError("it has just been changed")
            if upload.fresh and upload.timestamp <= EARLIEST:
                path, upload = spools.stamp(path, upload)
            try:
                _send(upload, token=token, timeout=timeout, retries=retries)
            except RefusedUploadError as error:
                done.problems[path.name] = f"{error}; moved to {spools.set_aside(path, str(error))}"
                return False
            done.delivered += 1
            spools.remove(path)
    except FileNotFoundError:
        return False  # another push has delivered it
    except BlockingIOError:
        done.problems[path.name] = "another push is sending it"
    except AheadUploadError as error:
        done.problems[path.name] = str(error)
    except TrackingError as error:
        done.problems[path.name] = str(error)
        return True
    except (FormatError, OSError) as error:
        done.problems[path.name] = str(error)
    return False


def _send(upload: Upload, **settings: Any) -> None:
    """Send an upload that was kept: one of now at its second or, if the server has another of that, soon after.

    The seconds are the same in every push, so that one whose answer was lost is recognised there.
    """
    for later in range(MOST_TIMES if upload.fresh else 1):
        try:
            send(replace(upload, timestamp=upload.timestamp + later, fresh=False), **settings)
        except DifferentUploadError as error:
            different = error
        else:
            return
    raise different
