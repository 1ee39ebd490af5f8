"""Uploads folded into the sketches of their hour, as far as there is room in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lensai_integrations.edge.uploads import Sketches, merged, pack_sketches, unpack_sketches
from lensai_integrations.errors import FormatError
from lensai_integrations.server.hours import UnmergedHour

#: Most streams of an hour, and most bytes they may grow to: one more upload can always be merged in memory.
MOST_STREAMS: Final = 2_000
MOST_BYTES: Final = 32 * 2**20
#: Bytes of a sketch with the parameter k once it has seen a lot: up to 3 k values, and what is around them.
_BYTES_PER_K: Final = 12
_AROUND: Final = 2_500


def fitting(batch: UnmergedHour) -> tuple[UnmergedHour, list[int]]:
    """A batch without the streams for which its hour has no room: names are chosen by whoever sends them.

    Args:
        batch: The hour and the uploads.

    Returns:
        The batch, and the timestamps of uploads that have lost streams.

    Raises:
        FormatError: If what is stored of the hour is damaged.

    Example:
        >>> noise = bytes.fromhex("02 02 0f 04 c8 00 08 00 00 00 c0 3f")
        >>> sketches = pack_sketches({"imgstats/noise.bin": noise})
        >>> batch = UnmergedHour("door-3", 1719392400, 0, None, {1719393854: sketches})
        >>> fitting(batch) == (batch, [])
        True
    """
    known = unpack_sketches(batch.sketches) if batch.sketches is not None else {}
    streams, room = set(known), MOST_BYTES - sum(map(_grown, known.values()))
    payloads, fewer = dict(batch.payloads), []
    for timestamp, payload in batch.payloads.items():
        try:
            sketches = unpack_sketches(payload)
        except FormatError:  # `folded` says so
            continue
        fits = {}
        for path, sketch in sketches.items():
            if path not in streams:
                if len(streams) >= MOST_STREAMS or _grown(sketch) > room:
                    continue
                streams.add(path)
                room -= _grown(sketch)
            fits[path] = sketch
        if len(fits) < len(sketches):
            payloads[timestamp] = pack_sketches(fits)
            fewer.append(timestamp)
    return (replace(batch, payloads=payloads) if fewer else batch), fewer


def _grown(sketch: bytes) -> int:
    return _AROUND + _BYTES_PER_K * int.from_bytes(sketch[4:6], "little")


def folded(batch: UnmergedHour) -> tuple[Sketches, list[int]]:
    """An hour's sketches with a batch of uploads merged into them.

    Args:
        batch: The hour and the uploads.

    Returns:
        The sketches, and the timestamps of uploads that could not be merged.

    Raises:
        FormatError: If what is stored of the hour is damaged.

    Example:
        >>> folded(UnmergedHour("door-3", 1719392400, 0, None, {1719393854: b"damaged"}))
        ({}, [1719393854])
    """
    known = unpack_sketches(batch.sketches) if batch.sketches is not None else {}
    try:
        return merged([known, *map(unpack_sketches, batch.payloads.values())]), []
    except FormatError:
        whole, damaged = merged([known]), []
    for timestamp, payload in batch.payloads.items():
        try:
            whole = merged([whole, unpack_sketches(payload)])
        except FormatError:
            damaged.append(timestamp)
    return whole, damaged
