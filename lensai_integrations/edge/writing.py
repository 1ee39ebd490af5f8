"""Profiles as the files of a LensAI device, in the layout its C++ profiler reads: a file for each stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from lensai_integrations.edge.layout import CONVENTION, IMAGE_IDS, INPUTS, NAME, OLDER, file_of
from lensai_integrations.errors import DefinitionError, InputError
from lensai_integrations.measures.edge import NO_NOISE
from lensai_integrations.profiles.conventions import (
    RAW,
    convention_of,
    conventions_of,
    images_group,
    inputs_of,
    is_images,
    renamed,
    with_conventions,
)
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.sketches import wire
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.weighted import Floats
from lensai_integrations.storage.folders import replace_file


def write_stats(profile: Profile | Baseline, folder: str | Path) -> tuple[Path, ...]:
    """Write a profile's sketches where a LensAI device has them: `imgstats/`, `modelstats/`, `samples/` and so on.

    Each file appears whole or not at all, under a name of its own until then. `read_stats` reads the same profile back,
    and writing that again gives the same bytes. Where an image has no noise, `NO_NOISE` becomes the device's +inf. What
    a device has no file for is left out: contrast, embeddings by component, categories, sketches of rows, row samples.

    Args:
        profile: Read from a device, or made with `convention="lensai-edge"`, alone or among others; of a baseline, its
            reference. Images as they were delivered (`raw`) go before those the model was fed.
        folder: Made if absent; files of the same names are replaced, others stay.

    Returns:
        The files.

    Raises:
        DefinitionError: If its image measures are not those of devices.
        InputError: If it has no stream that devices have, or `folder` is a file, or a name is no file's.
        OSError: If the disk is full or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler(convention="lensai-edge")
        >>> profiler.update(inputs=np.zeros((4, 8, 8, 1), np.uint8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in write_stats(profiler.profile(), folder)]
        ['brightness.bin', 'sharpness.bin', 'noise.bin', 'mean_0.bin', 'pixel_0.bin']
    """
    root = Path(folder)
    if root.is_file():
        raise InputError(f"folder={str(root)!r} is a file; pass a folder to write to")
    contents = contents_of(profile)
    for name, content in contents.items():
        write_file(root / name, content)
    return tuple(root / name for name in contents)


def contents_of(profile: Profile | Baseline) -> dict[str, bytes]:
    """What `write_stats` writes, by path within the folder.

    Raises:
        DefinitionError: If its image measures are not those of devices.
        InputError: If it has no stream that devices have, or a name is no file's.

    Example:
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler(convention="lensai-edge")
        >>> profiler.update(inputs=np.zeros((4, 8, 8, 1), np.uint8))
        >>> list(contents_of(profiler.profile()))[-1]
        'imgstats/pixel_0.bin'
    """
    profile = profile_of(profile, "profile")
    named = {name: stream for stream in streams_of(profile) if (name := _file(stream)) is not None}
    banks = {id(stream.bank): stream.bank for stream in named.values()}
    written = {key: bank.to_bytes() for key, bank in banks.items()}  # once for all the streams of a bank
    contents = {name: _bytes(stream, written[id(stream.bank)][stream.column]) for name, stream in named.items()}
    if not contents:
        raise InputError(f"profile has no stream that devices have: its groups are {sorted(profile.groups)}")
    return contents


def _file(stream: Stream) -> str | None:
    name = file_of(stream.group.name, stream.name, str(stream.group.info.get("model", "model")))
    if name is not None and not all(NAME.fullmatch(component) for component in name.split("/")):
        raise InputError(f"profile: {stream.group.name}/{stream.name} would be the file {name!r}, which is not safe")
    if name is not None and name.count("/") != 1:
        raise InputError(f"profile: {stream.group.name}/{stream.name} is not the name of a file")
    return name


def _bytes(stream: Stream, content: bytes) -> bytes:
    """What a device would have of a stream."""
    if stream.group.name not in (INPUTS, OLDER) or stream.name != "noise":
        return content
    sketch = wire.read(content)
    items = np.where(sketch.items == np.float32(NO_NOISE), np.float32(np.inf), sketch.items)
    ends = np.array([[sketch.minimum], [sketch.maximum]], np.float32)
    ends[ends == np.float32(NO_NOISE)] = np.inf
    return wire.write(sketch.k, sketch.sizes, items[None], ends[0], ends[1], sketch.min_k)[0]


def write_file(path: Path, content: bytes) -> None:
    """Replace a file in one step: readers see the old content or the new, never half of it.

    Raises:
        OSError: If the disk is full or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_file(Path(folder, "new", "a.bin"), b"1")
        ...     Path(folder, "new", "a.bin").read_bytes()
        b'1'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content)


def profile_of(what: Profile | Baseline, name: str) -> Profile:
    """A profile, or the reference of a baseline, with images as devices measure them alone if it has them so.

    Args:
        what: Either.
        name: What the parameter is called.

    Raises:
        InputError: If it is neither.

    Example:
        >>> profile_of(Baseline(Profile(info={"source": "test"})), "baseline").source
        'test'
    """
    if not isinstance(what, Profile | Baseline):
        raise InputError(f"{name} is a {type(what).__name__}: pass a Profile or a Baseline")
    return for_devices(what.reference if isinstance(what, Baseline) else what)


def for_devices(profile: Profile) -> Profile:
    """The profile with images by the devices' convention alone, called as on devices; itself if it has none of these.

    Images as they were delivered (`raw`) are what devices measure, if these were profiled by that convention. Where
    there are no others they are called so by any convention, so that `streams_of` can say what is wrong.

    Raises:
        InputError: If its image inputs have names: a device has one camera.

    Example:
        >>> raw = Group("raw", info={"convention": "lensai-edge"})
        >>> list(for_devices(Profile({"inputs": Group("inputs", info={"convention": "lensai"}), "raw": raw})).groups)
        ['inputs/lensai-edge']
    """
    raw = profile.groups.get(RAW)
    if raw is not None and (convention_of(raw) == CONVENTION or not any(map(is_images, profile.groups))):
        others = {name: None for name in profile.groups if is_images(name)}
        return renamed(profile, {**others, RAW: images_group("", convention_of(raw) or CONVENTION)})
    if any(names := inputs_of(profile)):
        quoted = " and ".join(map(repr, names))
        raise InputError(
            f"the profile has the image inputs {quoted}, and a device has one camera: make a profile of that camera's"
            f" images alone, with inputs=ImageInputs(key={names[0]!r}) and convention={CONVENTION!r}"
        )
    return with_conventions(profile, (CONVENTION,)) if CONVENTION in conventions_of(profile) else profile


@dataclass(frozen=True)
class Stream:
    """One stream that a device might have a file of.

    Attributes:
        group: The group it is of.
        name: Its name within the group.
        column: Its column in `bank`.
        bank: A bank that has it.
    """

    group: Group
    name: str
    column: int
    bank: KLLBank

    def quantiles(self, ranks: ArrayLike) -> Floats:
        """Its values at some ranks, float32 `[r]`."""
        values: Floats = self.bank.quantiles(ranks)[self.column]
        return values


def streams_of(profile: Profile) -> Iterator[Stream]:
    """Every stream of numbers, the pixels of channels included, that has seen a value.

    Raises:
        DefinitionError: If its image measures are not those of devices.

    Example:
        >>> list(streams_of(Profile()))
        []
    """
    for group in profile.groups.values():
        if is_images(group.name) or group.name == OLDER:
            _check(group)
        for subgroup in (group, *group.apart.values()):
            if subgroup.bank is not None and subgroup.bank.n:
                yield from (Stream(group, name, column, subgroup.bank) for column, name in enumerate(subgroup.streams))
        yield from _pixels(group)


def _check(group: Group) -> None:
    for measure, id in group.definitions.items():
        if measure in IMAGE_IDS and id != IMAGE_IDS[measure]:
            raise DefinitionError(
                f"{group.name}/{measure} was computed as {id!r}, and devices compute {IMAGE_IDS[measure]!r}:"
                " profile with convention='lensai-edge'"
            )


def _pixels(group: Group) -> Iterator[Stream]:
    """Exact counts of bytes as sketches."""
    if group.pixels is not None and group.pixels.counts.any():
        for channel, content in enumerate(group.pixels.to_bytes()):
            yield Stream(group, f"pixel/{channel}", 0, KLLBank.from_bytes([content], seed=channel))
