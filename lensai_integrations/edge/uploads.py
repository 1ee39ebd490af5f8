"""What a receiver keeps of a device's upload: its sketches, checked, by the newest names of their files.

Sketches are merged as DataSketches' bytes, by DataSketches: an upload costs a quarter of a millisecond, while merging
it as profiles costs ten. A profile is made when one is to be looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from datasketches import kll_floats_sketch

from lensai_integrations.edge.layout import canonical, class_names, place_of
from lensai_integrations.edge.members import ArchiveLimits, find
from lensai_integrations.edge.reading import checked
from lensai_integrations.errors import FormatError
from lensai_integrations.sketches import wire

#: Sketches by the path of their file, e.g. `"imgstats/noise.bin"`.
Sketches = dict[str, bytes]

#: Most values a sketch of an upload may have seen: a million of them merged can still be counted.
MOST_VALUES: Final = 2**40
#: No folder and file of a device have longer names together.
_LONGEST_NAME: Final = 300


@dataclass(frozen=True)
class UploadedSketches:
    """What an archive holds.

    Attributes:
        sketches: By path, in the order of the paths.
        problems: Files that were not read, and why; and those that may be of another class.
    """

    sketches: Sketches
    problems: tuple[str, ...] = ()


def read_upload(archive: bytes, limits: ArchiveLimits | None = None) -> UploadedSketches:
    """The sketches of an upload; nothing is extracted, and everything is checked.

    Args:
        archive: A tar archive, plain or gzipped; folders around `imgstats/` and so on are passed over.
        limits: How much is read.

    Raises:
        FormatError: If it is no archive, is cut short, is too large, or holds not one readable sketch.

    Example:
        >>> import io, tarfile
        >>> file, noise = io.BytesIO(), bytes.fromhex("02 02 0f 04 c8 00 08 00 00 00 80 7f")
        >>> with tarfile.open(fileobj=file, mode="w:gz") as archive:
        ...     member = tarfile.TarInfo("door-3/imagestats/kll_snr-2.bin")
        ...     member.size = len(noise)
        ...     archive.addfile(member, io.BytesIO(noise))
        >>> list(read_upload(file.getvalue()).sketches)
        ['imgstats/kll_snr-2.bin']
    """
    contents = find(archive, limits)
    sketches: Sketches = {}
    names, doubts = class_names(contents.sketches)
    for path, content in contents.sketches.items():
        name, noise = _name(path.parent.name, names.get(path, path.stem))
        if name is None:
            contents.ignore(path, "no name that LensAI gives")
            continue
        if name in sketches:
            contents.problem(path, "another file of the upload is the same stream")
            continue
        try:
            sketches[name] = _bounded(name, checked(content, noise=noise))
        except FormatError as error:
            contents.problem(path, str(error))
    if not sketches:
        why = "; ".join(contents.problems[:3]) or "no .bin file in a folder such as imgstats/ or modelstats/"
        raise FormatError(f"the upload holds no readable LensAI sketch: {why}")
    return UploadedSketches(dict(sorted(sketches.items())), (*contents.problems, *doubts))


def _name(folder: str, stem: str) -> tuple[str | None, bool]:
    """A file's newest name, None where LensAI gives no such name, and whether it is of noise."""
    return (None, False) if len(folder) + len(stem) > _LONGEST_NAME else _named(folder, stem)


@lru_cache(maxsize=4096)
def _named(folder: str, stem: str) -> tuple[str | None, bool]:
    """Devices repeat their names; what is too long for one must not stay in memory."""
    place = place_of(folder, stem)
    return (None, False) if place is None else (canonical(place), place.measure == "noise")


def _bounded(path: str, content: bytes) -> bytes:
    if place_of(*path.removesuffix(".bin").split("/")) is None:  # the newest name may be longer than what was sent
        raise FormatError("its name is too long")
    if (n := kll_floats_sketch.deserialize(content).n) > MOST_VALUES:
        raise FormatError(f"its sketch says to have seen {n} values, more than any device has")
    return content


def rows_of(sketches: Mapping[str, bytes]) -> int:
    """How many images they are of; without image measures, the most values of a stream.

    Example:
        >>> rows_of({"imgstats/noise.bin": bytes.fromhex("02 02 0f 04 c8 00 08 00 00 00 c0 3f")})
        1
    """
    single = [path for path in sketches if not _several(path)]
    images = [path for path in single if path.startswith("imgstats/")]
    newest = [path for path in images if not path.startswith("imgstats/kll_")]
    return max((_deserialized(path, sketches[path]).n for path in newest or images or single), default=0)


def _several(path: str) -> bool:
    """Whether an image has several values of it: its pixels, the components of its embedding."""
    name = path.rpartition("/")[2]
    return path.startswith(("imgstats/pixel_", "imgstats/kll_channel_pixels_")) or (
        path.startswith("modelstats/") and name.endswith(("embeddings.bin", "_embedding.bin"))
    )


def merged(uploads: Iterable[Mapping[str, bytes]]) -> Sketches:
    """Sketches that have seen what all of them have seen; counts and extremes are exact in any order.

    Raises:
        FormatError: If one cannot be merged.

    Example:
        >>> one = {"imgstats/noise.bin": bytes.fromhex("02 02 0f 04 c8 00 08 00 00 00 c0 3f")}
        >>> rows_of(merged([one, one, one]))
        3
    """
    whole: dict[str, kll_floats_sketch] = {}
    for upload in uploads:
        for path, content in upload.items():
            sketch = _deserialized(path, content)
            if path in whole:
                _merge(path, whole[path], sketch)
            else:
                whole[path] = sketch
    return {path: sketch.serialize() for path, sketch in sorted(whole.items())}


def _merge(path: str, whole: kll_floats_sketch, sketch: kll_floats_sketch) -> None:
    try:
        whole.merge(sketch)
    except (RuntimeError, ValueError, IndexError) as error:
        raise FormatError(f"{path} cannot be merged: {error}") from error


def _deserialized(path: str, content: bytes) -> kll_floats_sketch:
    try:
        wire.read(content)  # what is stored may be damaged, too, and DataSketches would write beyond its memory
        return kll_floats_sketch.deserialize(content)
    except (RuntimeError, ValueError, IndexError) as error:
        raise FormatError(f"{path} is not a readable sketch: {error}") from error


def pack_sketches(sketches: Mapping[str, bytes]) -> bytes:
    """Sketches as one byte string: a line of JSON with names and sizes, then their bytes.

    Example:
        >>> pack_sketches({"imgstats/noise.bin": b"abc"})
        b'{"imgstats/noise.bin": 3}\\nabc'
    """
    sizes = {path: len(content) for path, content in sketches.items()}
    return json.dumps(sizes).encode() + b"\n" + b"".join(sketches.values())


def unpack_sketches(blob: bytes) -> Sketches:
    """Read what `pack_sketches` wrote.

    Raises:
        FormatError: If it is damaged.

    Example:
        >>> unpack_sketches(pack_sketches({"imgstats/noise.bin": b"abc"}))
        {'imgstats/noise.bin': b'abc'}
    """
    head, _, body = blob.partition(b"\n")
    try:
        sizes = {str(path): int(size) for path, size in json.loads(head).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"the stored sketches are damaged: {error!r}") from error
    if min(sizes.values(), default=0) < 0 or sum(sizes.values()) != len(body):
        raise FormatError(f"the stored sketches are damaged: {len(body)} bytes, {sum(sizes.values())} announced")
    sketches, at = {}, 0
    for path, size in sizes.items():
        sketches[path] = body[at : at + size]
        at += size
    return sketches
