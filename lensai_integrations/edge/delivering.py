"""Uploads that were kept in a spool, delivered: each once, oldest first, and removed when the server has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from lensai_integrations.edge import spool as spools
from lensai_integrations.errors import FormatError, InputError, LensAIError, TrackingError
from lensai_integrations.storage.posting import checked_url, server_of
from lensai_integrations.uploads import (
    EARLIEST,
    MOST_TIMES,
    AheadUploadError,
    DifferentUploadError,
    RefusedUploadError,
    Upload,
    check_settings,
    send,
)

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
    found = {}
    for path in spools.waiting(folder):
        try:
            address = spools.read_endpoint(path)
            checked_url("its endpoint", address)
            found[path] = address
        except FileNotFoundError:
            continue  # another push has just delivered it
        except (LensAIError, OSError) as error:
            done.problems[path.name] = str(error)
    return found


def _check_one_server(folder: Path, addresses: Iterable[str]) -> None:
    servers = sorted({server_of(each) for each in addresses})
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
