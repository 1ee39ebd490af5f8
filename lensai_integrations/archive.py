"""Profiles and baselines as folders and as bytes.

A profile becomes one flat table of arrays (`reference/0/1/items`) and one manifest that says what they are. Names live
in the manifest only, so a layer may be called anything. The same pair is a folder (MLflow, disk) or one byte string
(checkpoints, other processes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensai_integrations import __version__, storage
from lensai_integrations.checked_json import from_json, to_json
from lensai_integrations.conventions import named_as_measured
from lensai_integrations.errors import DefinitionError, FormatError, InputError, LensAIError
from lensai_integrations.group import KINDS, Group
from lensai_integrations.infos import checked_group_info, checked_profile_info
from lensai_integrations.measures import embeddings, images, outputs
from lensai_integrations.measures.custom import same_formula
from lensai_integrations.measures.definitions import DEFINITIONS
from lensai_integrations.profile import Baseline, Profile
from lensai_integrations.segments import check_read
from lensai_integrations.sketches.rows import RowSample
from lensai_integrations.storage import MAX_MANIFEST_BYTES, pack, read_folder, unpack, write_files
from lensai_integrations.summary import segments_csv, to_csv

Arrays = dict[str, NDArray[Any]]

_MANIFEST_KEY = "manifest"
_CALIBRATION, _ABOUT = "calibration", "about"
#: Keys of the sketches of a group's rows, of which each has a column for each of its streams.
_OF_ROWS = frozenset(("bank", "kernel_mean", "moments"))
#: Of the bytes, whose manifest needs no digest of its own: what holds it has a checksum.
_BYTES_VERSION = 1
_DECLARING = (embeddings, images, outputs)  # imported so that every definition of this release is declared


def save(what: Profile | Baseline, folder: str | Path, *, report_html: str | None = None) -> Path:
    """Write a profile or baseline to a folder: arrays, table, the report if given, and last the manifest.

    Returns:
        The folder.

    Raises:
        InputError: If `folder` is a file.
        OSError: If it cannot be written.
    """
    write_files(Path(folder), files_of(what, report_html=report_html))
    return Path(folder)


def files_of(what: Profile | Baseline, *, report_html: str | None = None) -> dict[str, bytes]:
    """What `save` writes, in memory: the name of each file and what is in it, the manifest last.

    Whoever sends a baseline elsewhere sends these, and not what a folder holds by then.

    Example:
        >>> from lensai_integrations.profile import Profile
        >>> list(files_of(Profile()))
        ['profile.npz', 'streams.csv', 'manifest.json']
    """
    manifest, arrays = _encode(what)
    texts = {"streams.csv": to_csv(what.sources())}
    if any(profile.segments for profile in what.sources().values()):
        texts["segments.csv"] = segments_csv(what.sources())
    if report_html is not None:
        texts["report.html"] = report_html
    return storage.files_of(manifest, arrays, texts)


def load(folder: str | Path) -> Profile | Baseline:
    """Read what `save` wrote, whichever it was.

    Raises:
        FormatError: If a check fails: manifest, sha256, sizes, versions, contents.
        DefinitionError: If a definition id means something else here than where it was written.

    Example:
        >>> import tempfile
        >>> from lensai_integrations.profile import Profile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load(save(Profile(info={"source": "production"}), folder)).source
        'production'
    """
    return _decode(*read_folder(Path(folder)))


def to_bytes(what: Profile | Baseline) -> bytes:
    """The whole profile or baseline as one byte string, for checkpoints and other processes. No pickle inside.

    Example:
        >>> from lensai_integrations.profile import Profile
        >>> from_bytes(to_bytes(Profile(info={"source": "test"}))).source
        'test'
    """
    manifest, arrays = _encode(what)
    text = to_json({"format_version": _BYTES_VERSION, **manifest}, "the manifest")
    return pack({**arrays, _MANIFEST_KEY: np.frombuffer(text, np.uint8)})


def from_bytes(blob: bytes) -> Profile | Baseline:
    """Read what `to_bytes` wrote.

    Raises:
        FormatError: If the bytes are truncated or of another format.
        DefinitionError: If a definition id means something else here than where it was written.
    """
    arrays = unpack(blob, "the bytes")
    text = arrays.pop(_MANIFEST_KEY, None)
    if text is None or text.dtype != np.uint8 or text.nbytes > MAX_MANIFEST_BYTES:
        raise FormatError(f"the bytes hold no manifest, or one of more than {MAX_MANIFEST_BYTES} bytes")
    manifest = from_json(text.tobytes(), "the manifest of the bytes")
    written = manifest.get("format_version", 1) if isinstance(manifest, dict) else None  # at first it was not told
    if type(written) is not int or written != _BYTES_VERSION:
        raise FormatError(
            f"the bytes have format_version {written!r}; this release reads {_BYTES_VERSION}: upgrade"
            " lensai-integrations here, or profile again"
        )
    return _decode(manifest, arrays)


def _encode(what: Profile | Baseline) -> tuple[dict[str, Any], Arrays]:
    """Manifest and arrays. The place of each group among the arrays is its number, not its name."""
    if isinstance(what, Profile):
        kind, parts = "profile", {"profile": what}
    else:
        kind, parts = "baseline", {"reference": what.reference}
        if what.training is not None:
            parts["training"] = what.training
    for part, each in {kind: what, **parts}.items():
        _check_info(part, each.info)
        _check_kinds(checked_profile_info, each.info)
    for group in (group for part in parts.values() for group in part.groups.values()):
        _check_info(f"group {group.name!r}", group.info)
        _check_kinds(checked_group_info, group.info, group.name)
    arrays: Arrays = {}
    calibration = what.calibration if isinstance(what, Baseline) else None
    arrays |= {f"{_CALIBRATION}/{name}": array for name, array in (calibration or {}).items()}
    profiles = {part: _encode_profile(profile, part, arrays) for part, profile in parts.items()}
    told: dict[str, Any] = {}
    for group in (group for part in parts.values() for group in part.groups.values()):
        told |= group.known(group.definitions.values())
    manifest = {
        "kind": kind,
        "info": what.info,
        "profiles": profiles,
        "definitions": {id: asdict(each) for id, each in sorted(told.items()) if each is not None},
        "versions": {"lensai-integrations": __version__} | {name: version(name) for name in ("datasketches", "numpy")},
    }
    return manifest, arrays


def _check_info(part: str, info: Mapping[str, Any]) -> None:
    """Refuse what a manifest cannot hold.

    Raises:
        InputError: Naming the entry.
    """
    for key, value in info.items():
        to_json(key, f"a key in the info of the {part}")
        to_json(value, f"info[{key!r}] of the {part}")


def _check_kinds(check: Callable[..., Any], *of: Any) -> None:
    """Refuse to write what would be refused when it is read.

    Raises:
        InputError: Naming the entry.
    """
    try:
        check(*of)
    except FormatError as error:
        raise InputError(f"{error}: it could not be read again") from error


def _encode_profile(profile: Profile, prefix: str, arrays: Arrays) -> dict[str, Any]:
    groups = []
    for number, group in enumerate(profile.groups.values()):
        for position, sketch in enumerate(group.sketches.values()):
            arrays |= {f"{prefix}/{number}/{position}/{name}": array for name, array in sketch.state().items()}
        described = {"name": group.name, "streams": list(group.streams), "definitions": group.definitions}
        groups.append({**described, "info": group.info, "sketches": list(group.sketches)})
    if profile.rows is not None:
        arrays |= {f"{prefix}/rows/{name}": array for name, array in profile.rows.state().items()}
    entry = {"info": profile.info, "groups": groups, "rows": profile.rows is not None}
    if not profile.segments:
        return entry
    parts = [
        {"name": name, **_encode_profile(segment, f"{prefix}/segments/{number}", arrays)}
        for number, (name, segment) in enumerate(profile.segments.items())
    ]
    return {**entry, "segments": parts}


def _decode(manifest: Mapping[str, Any], arrays: Arrays) -> Profile | Baseline:
    """The profile or baseline that a manifest describes. Nothing may be left of the arrays."""
    try:
        _check_definitions(manifest["definitions"])
        calibration = {name: arrays.pop(f"{_CALIBRATION}/{name}") for name in _below(_CALIBRATION, arrays)}
        states = _by_place(arrays)
        profiles, names = {}, {}
        for part, entry in manifest["profiles"].items():
            profiles[part], names[part] = named_as_measured(_decode_profile(entry, part, states))
        made = _assembled(manifest, profiles, _renamed_calibration(calibration, names.get("reference", {})))
    except LensAIError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise FormatError(f"the manifest does not describe a profile this release can read: {error!r}") from error
    if left := [f"{place}/{name}" for place, state in states.items() for name in state]:
        raise FormatError(f"the manifest refers to none of {len(left)} arrays: {', '.join(left[:5])}")
    return made


def _renamed_calibration(calibration: Arrays, names: Mapping[str, str]) -> Arrays:
    """A calibration that calls groups as the reference does by now; one that cannot be read is left as it is."""
    if not names or _ABOUT not in calibration:
        return calibration
    with suppress(FormatError, KeyError, TypeError, AttributeError):
        about = from_json(calibration[_ABOUT].tobytes(), "the calibration")
        for part in about["parts"]:  # rows of images are called as their group
            part |= {key: names.get(part[key], part[key]) for key in ("group", "rows")}
        return {**calibration, _ABOUT: np.frombuffer(to_json(about, "the calibration"), np.uint8)}
    return calibration


def _assembled(manifest: Mapping[str, Any], profiles: dict[str, Profile], calibration: Arrays) -> Profile | Baseline:
    profile, reference, training = (profiles.pop(part, None) for part in ("profile", "reference", "training"))
    if manifest["kind"] == "profile" and profile is not None and not (reference or training or profiles or calibration):
        return profile
    if manifest["kind"] == "baseline" and reference is not None and not (profile or profiles):
        return Baseline(reference, training, checked_profile_info(manifest["info"]), calibration or None)
    raise FormatError(f"the manifest is of kind {manifest['kind']!r} and lists other profiles than such a one has")


def _by_place(arrays: Arrays) -> dict[str, Arrays]:
    """The states of sketches: arrays by the place of their sketch, `reference/0/1`, and by their name in it."""
    states: dict[str, Arrays] = {}
    for path, array in arrays.items():
        place, _, name = path.rpartition("/")
        states.setdefault(place, {})[name] = array
    return states


def _decode_profile(entry: Mapping[str, Any], prefix: str, states: dict[str, Arrays]) -> Profile:
    groups = [_decode_group(group, f"{prefix}/{number}", states) for number, group in enumerate(entry["groups"])]
    if len({group.name for group in groups}) < len(groups):
        raise FormatError(f"two groups of {prefix!r} have the same name")
    rows = _decode_sketch(RowSample, f"{prefix}/rows", states) if entry["rows"] else None
    for group in groups:
        _check_rows(group, rows.widths if rows is not None else {})
    info, segments = checked_profile_info(entry["info"]), entry.get("segments", [])
    if segments:
        check_read(info, [part["name"] for part in segments], any("segments" in part for part in segments))
    below = {part["name"]: _decode_profile(part, f"{prefix}/segments/{i}", states) for i, part in enumerate(segments)}
    return Profile({group.name: group for group in groups}, rows, info, below)


def _decode_group(entry: Mapping[str, Any], prefix: str, states: dict[str, Arrays]) -> Group:
    name, streams, keys = entry["name"], entry["streams"], entry["sketches"]
    definitions = dict(entry["definitions"])
    for texts in ([name], streams, keys, definitions, definitions.values()):
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise FormatError(f"group {name!r} of {prefix!r} has something as a name that is no text")
    sketches = {}
    for position, key in enumerate(keys):
        kind = KINDS.get(key.split("/")[0])
        if kind is None:
            raise FormatError(f"group {name!r} holds a sketch of unknown kind {key!r}: upgrade this package")
        sketches[key] = _decode_sketch(kind, f"{prefix}/{position}", states, f" of {key!r} in group {name!r}")
    if len(sketches) < len(keys) or len(set(streams)) < len(streams):
        raise FormatError(f"group {name!r} has two sketches or two streams of the same name")
    group = Group(name, tuple(streams), definitions, sketches, checked_group_info(entry["info"], name))
    for key in _OF_ROWS & sketches.keys():
        if (dim := sketches[key].dim) != len(streams):
            raise FormatError(f"group {name!r} names {len(streams)} streams for a {key} of {dim}")
    return group


def _check_rows(group: Group, widths: Mapping[str, int]) -> None:
    """Hold the rows that a sample keeps of a group against its streams."""
    own = {f"{group.name}/{measure}": len(each.streams) for measure, each in group.apart.items()}
    streams = {group.name: len(group.streams) or None, f"{group.name}/top_class": 1, **own}
    for name in streams.keys() & widths.keys():
        if not widths[name] or streams[name] not in (None, widths[name]):
            raise FormatError(f"rows of {widths[name]} columns are kept of {name!r}, which has {streams[name]}")


def _decode_sketch(kind: Any, place: str, states: dict[str, Arrays], of: str = "") -> Any:
    """Take a sketch's state away from the others and make the sketch of it."""
    state = states.pop(place, {})
    try:
        sketch = kind.from_state(state)
    except FormatError as error:
        raise FormatError(f"{place}{of}: {error}") from error
    if unknown := sorted(state.keys() - _names_of(kind)):
        raise FormatError(f"{place}{of} has arrays that such a sketch does not have: {', '.join(unknown[:5])}")
    return sketch


@cache
def _names_of(kind: Any) -> frozenset[str]:
    """What the arrays of a sketch's state are called, which is the same for all sketches of a kind."""
    return frozenset(kind(8).state())


def _below(place: str, arrays: Arrays) -> list[str]:
    prefix = f"{place}/"
    return [name.removeprefix(prefix) for name in arrays if name.startswith(prefix)]


def _check_definitions(declared: Mapping[str, Mapping[str, Any]]) -> None:
    for id, entry in declared.items():
        known = DEFINITIONS.get(id)
        if known is not None and not same_formula(asdict(known), entry):
            raise DefinitionError(
                f"definition {id!r} is {entry['formula']!r} in the file and {known.formula!r} here: "
                "they cannot be compared; give a changed measure a new version"
            )
