"""What is written of profiles and baselines: one manifest, and the arrays that it describes.

A profile becomes one flat table of arrays (`reference/0/1/items`) and one manifest that says what they are. Names live
in the manifest only, so a layer may be called anything. The same pair is a folder (MLflow, disk) or one byte string
(checkpoints, other processes).

What comes out of a file may have been written by anybody: names, widths and counts are held against each other, and
what programs compute with in an `info` has to be of its kind. Anybody may add to an info, so what is not named here is
carried as it is.

What a profile can do is not known here, only what it consists of: so `profile.py` saves and loads itself through this.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import DefinitionError, FormatError, InputError, LensAIError
from lensai_integrations.measures import embeddings, images, outputs
from lensai_integrations.measures.custom import same_formula
from lensai_integrations.measures.definitions import DEFINITIONS
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.profiles.conventions import named_as_measured
from lensai_integrations.profiles.groups import Contents, Group
from lensai_integrations.profiles.names import check_read
from lensai_integrations.sketches.kinds import KINDS
from lensai_integrations.sketches.rows import RowSample
from lensai_integrations.storage.checked_json import from_json, to_json
from lensai_integrations.storage.folders import MAX_MANIFEST_BYTES
from lensai_integrations.storage.npz import pack, unpack

#: This release, as the package says of itself: it is loaded, since this is a part of it, installed or only on the path.
RELEASE: Final[str] = sys.modules["lensai_integrations"].__version__
#: Whole numbers that may be None, at least 0.
_GROUP_NUMBERS: Final = ("axes", "classes", "columns", "projected_from", "seed", "width")
_GROUP_TEXTS: Final = ("convention", "kind", "layer", "model", "note", "precision", "reduce")
_PROFILE_NUMBERS: Final = ("max_segments", "padding_left_out")
_PROFILE_TEXTS: Final = ("segment_by",)
_LARGEST: Final = 2**64
#: Of another package, whose metadata is read once: a monitor with a state writes a manifest for every image.
_version: Final = cache(version)
Arrays = dict[str, NDArray[Any]]
_MANIFEST_KEY = "manifest"
_CALIBRATION, _ABOUT = "calibration", "about"
#: Of the bytes, whose manifest needs no digest of its own: what holds it has a checksum.
_BYTES_VERSION = 1
_DECLARING = (embeddings, images, outputs)  # imported so that every definition of this release is declared
#: A profile that was read; how one is made of what it consists of, in the order above.
Made = TypeVar("Made", bound=Contents)
Make = Callable[[dict[str, Group], RowSample | None, dict[str, Any], dict[str, Made]], Made]


class Decoded(NamedTuple, Generic[Made]):
    """What a manifest and its arrays hold.

    Attributes:
        kind: `"profile"` or `"baseline"`.
        info: JSON values of a baseline; those of a profile are in the profile.
        profiles: Of a profile `profile`; of a baseline `reference`, and `training` if it has one.
        calibration: Arrays of a baseline's clean windows; empty without.
    """

    kind: str
    info: dict[str, Any]
    profiles: dict[str, Made]
    calibration: Arrays


def to_bytes(manifest: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], *, compressed: bool = True) -> bytes:
    """Manifest and arrays as one byte string, for checkpoints and other processes. No pickle inside.

    Args:
        manifest: What `encode` made.
        arrays: Likewise.
        compressed: As in `pack`.

    Example:
        >>> from_bytes(to_bytes({"kind": "profile"}, {"a": np.zeros(2)}))
        ({'format_version': 1, 'kind': 'profile'}, {'a': array([0., 0.])})
    """
    text = to_json({"format_version": _BYTES_VERSION, **manifest}, "the manifest")
    return pack({**arrays, _MANIFEST_KEY: np.frombuffer(text, np.uint8)}, compressed=compressed)


def from_bytes(blob: bytes) -> tuple[dict[str, Any], Arrays]:
    """Manifest and arrays of what `to_bytes` wrote.

    Raises:
        FormatError: If the bytes are truncated or of another format.
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
    return manifest, arrays


def encode(
    kind: str,
    info: dict[str, Any],
    profiles: Mapping[str, Contents],
    calibration: Mapping[str, NDArray[Any]] | None = None,
) -> tuple[dict[str, Any], Arrays]:
    """Manifest and arrays. The place of each group among the arrays is its number, not its name.

    Args:
        kind: `"profile"` or `"baseline"`.
        info: JSON values of the whole.
        profiles: Of a profile `profile`; of a baseline `reference`, and `training` if it has one.
        calibration: Arrays of a baseline's clean windows.

    Raises:
        InputError: If an entry of an `info` is no JSON, or would be refused when it is read.
    """
    infos = {kind: info} | {name: profile.info for name, profile in profiles.items()}
    for name, values in infos.items():
        _check_info(name, values)
        _check_kinds(checked_profile_info, values)
    groups = [group for profile in profiles.values() for group in profile.groups.values()]
    for group in groups:
        _check_info(f"group {group.name!r}", group.info)
        _check_kinds(checked_group_info, group.info, group.name)
    arrays: Arrays = {f"{_CALIBRATION}/{name}": array for name, array in (calibration or {}).items()}
    encoded = {name: _encode_profile(profile, name, arrays) for name, profile in profiles.items()}
    definitions: dict[str, Any] = {}
    for group in groups:
        definitions |= group.known(group.definitions.values())
    manifest = {
        "kind": kind,
        "info": info,
        "profiles": encoded,
        "definitions": {
            id: dict(vars(definition)) for id, definition in sorted(definitions.items()) if definition is not None
        },
        "versions": {"lensai-integrations": RELEASE} | {name: _version(name) for name in ("datasketches", "numpy")},
    }
    return manifest, arrays


def _check_info(owner: str, info: Mapping[str, Any]) -> None:
    """Refuse what a manifest cannot hold.

    Raises:
        InputError: Naming the entry.
    """
    try:
        to_json(info, f"the info of the {owner}")
    except InputError:
        for key, value in info.items():
            to_json(key, f"a key in the info of the {owner}")
            to_json(value, f"info[{key!r}] of the {owner}")
        raise


def _check_kinds(check: Callable[..., Any], *of: Any) -> None:
    """Refuse to write what would be refused when it is read.

    Raises:
        InputError: Naming the entry.
    """
    try:
        check(*of)
    except FormatError as error:
        raise InputError(f"{error}: it could not be read again") from error


def _encode_profile(profile: Contents, prefix: str, arrays: Arrays) -> dict[str, Any]:
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


def decode(manifest: Mapping[str, Any], arrays: Arrays, make: Make[Made]) -> Decoded[Made]:
    """The profiles that a manifest describes. Nothing may be left of the arrays.

    Args:
        manifest: What `encode` made.
        arrays: Likewise; they are taken away from it.
        make: Makes a profile of its groups, rows, info and segments.

    Raises:
        FormatError: If the manifest describes no profile, or others than one of its kind has.
        DefinitionError: If a definition id means something else here than where it was written.
    """
    try:
        _check_definitions(manifest["definitions"])
        prefix = f"{_CALIBRATION}/"
        calibration = {name.removeprefix(prefix): arrays.pop(name) for name in [*arrays] if name.startswith(prefix)}
        states = _by_place(arrays)
        profiles, names = {}, {}
        for role, entry in manifest["profiles"].items():
            profiles[role], names[role] = named_as_measured(_decode_profile(entry, role, states, make))
        calibration = _renamed_calibration(calibration, names.get("reference", {}))
        kind = _checked_kind(manifest["kind"], profiles.keys(), calibration)
        info = checked_profile_info(manifest["info"]) if kind == "baseline" else {}
    except LensAIError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise FormatError(f"the manifest does not describe a profile this release can read: {error!r}") from error
    if left := [f"{path}/{name}" for path, state in states.items() for name in state]:
        raise FormatError(f"the manifest refers to none of {len(left)} arrays: {', '.join(left[:5])}")
    return Decoded(kind, info, profiles, calibration)


def _checked_kind(kind: Any, parts: Collection[str], calibration: Arrays) -> str:
    """`"profile"` or `"baseline"`, if what is there is what such a one has."""
    if kind == "profile" and set(parts) == {"profile"} and not calibration:
        return "profile"
    if kind == "baseline" and {"reference"} <= set(parts) <= {"reference", "training"}:
        return "baseline"
    raise FormatError(f"the manifest is of kind {kind!r} and lists other profiles than such a one has")


def _renamed_calibration(calibration: Arrays, names: Mapping[str, str]) -> Arrays:
    """A calibration that calls groups as the reference does by now; one that cannot be read is left as it is."""
    if not names or _ABOUT not in calibration:
        return calibration
    with suppress(FormatError, KeyError, TypeError, AttributeError):
        about = from_json(calibration[_ABOUT].tobytes(), "the calibration")
        for entry in about["parts"]:  # rows of images are called as their group
            entry |= {key: names.get(entry[key], entry[key]) for key in ("group", "rows")}
        return {**calibration, _ABOUT: np.frombuffer(to_json(about, "the calibration"), np.uint8)}
    return calibration


def _by_place(arrays: Arrays) -> dict[str, Arrays]:
    """The states of sketches: arrays by the place of their sketch, `reference/0/1`, and by their name in it."""
    states: dict[str, Arrays] = {}
    for path, array in arrays.items():
        prefix, _, name = path.rpartition("/")
        states.setdefault(prefix, {})[name] = array
    return states


def _decode_profile(entry: Mapping[str, Any], prefix: str, states: dict[str, Arrays], make: Make[Made]) -> Made:
    groups = [_decode_group(group, f"{prefix}/{number}", states) for number, group in enumerate(entry["groups"])]
    if len({group.name for group in groups}) < len(groups):
        raise FormatError(f"two groups of {prefix!r} have the same name")
    rows = _decode_sketch(RowSample, f"{prefix}/rows", states) if entry["rows"] else None
    for group in groups:
        _check_rows(group, rows.widths if rows is not None else {})
    info, segments = checked_profile_info(entry["info"]), entry.get("segments", [])
    if segments:
        check_read(info, [segment["name"] for segment in segments], any("segments" in segment for segment in segments))
    below = {
        segment["name"]: _decode_profile(segment, f"{prefix}/segments/{number}", states, make)
        for number, segment in enumerate(segments)
    }
    return make({group.name: group for group in groups}, rows, info, below)


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
        sketch = _decode_sketch(kind, f"{prefix}/{position}", states, f" of {key!r} in group {name!r}")
        if key in KINDS and kind.takes in ("rows", "vectors") and sketch.dim != len(streams):
            raise FormatError(f"group {name!r} names {len(streams)} streams for a {key} of {sketch.dim}")
        sketches[key] = sketch
    if len(sketches) < len(keys) or len(set(streams)) < len(streams):
        raise FormatError(f"group {name!r} has two sketches or two streams of the same name")
    return Group(name, tuple(streams), definitions, sketches, checked_group_info(entry["info"], name))


def _check_rows(group: Group, widths: Mapping[str, int]) -> None:
    """Hold the rows that a sample keeps of a group against its streams."""
    custom = {f"{group.name}/{measure}": len(measured.streams) for measure, measured in group.apart.items()}
    streams = {group.name: len(group.streams) or None, f"{group.name}/top_class": 1, **custom}
    for name in streams.keys() & widths.keys():
        if not widths[name] or streams[name] not in (None, widths[name]):
            raise FormatError(f"rows of {widths[name]} columns are kept of {name!r}, which has {streams[name]}")


def _decode_sketch(kind: Any, prefix: str, states: dict[str, Arrays], of: str = "") -> Any:
    """Take a sketch's state away from the others and make the sketch of it."""
    state = states.pop(prefix, {})
    try:
        sketch = kind.from_state(state)
    except FormatError as error:
        raise FormatError(f"{prefix}{of}: {error}") from error
    if unknown := sorted(state.keys() - _names_of(kind)):
        raise FormatError(f"{prefix}{of} has arrays that such a sketch does not have: {', '.join(unknown[:5])}")
    return sketch


@cache
def _names_of(kind: Any) -> frozenset[str]:
    """What the arrays of a sketch's state are called, which is the same for all sketches of a kind."""
    empty = kind(8) if kind is RowSample else kind.new(8)
    return frozenset(empty.state())


def _check_definitions(declared: Mapping[str, Mapping[str, Any]]) -> None:
    for id, entry in declared.items():
        here = DEFINITIONS.get(id)
        if here is not None and not same_formula(asdict(here), entry):
            raise DefinitionError(
                f"definition {id!r} is {entry['formula']!r} in the file and {here.formula!r} here: "
                "they cannot be compared; give a changed measure a new version"
            )


def checked_profile_info(info: Any) -> dict[str, Any]:
    """What is said of a profile or a baseline.

    Raises:
        FormatError: If it is no dict, or something that programs use is not what they take it for.

    Example:
        >>> checked_profile_info({"source": "validation", "warnings": []})
        {'source': 'validation', 'warnings': []}
    """
    checked = _checked(info, "a profile", _PROFILE_NUMBERS, _PROFILE_TEXTS)
    warnings = checked.get("warnings", [])
    if not isinstance(warnings, list) or not all(isinstance(warning, str) for warning in warnings):
        raise FormatError(f"the warnings of a profile should be a list of texts, not {reprlib.repr(warnings)}")
    if not isinstance(checked.get("made_by", {}), dict):
        raise FormatError(f"made_by of a profile should be a dict, not {reprlib.repr(checked['made_by'])}")
    return checked


def checked_group_info(info: Any, group: str) -> dict[str, Any]:
    """What is said of a group.

    Raises:
        FormatError: If it is no dict, or something that programs use is not what they take it for.

    Example:
        >>> checked_group_info({"columns": "many"}, "outputs")
        Traceback (most recent call last):
        ...
        lensai_integrations.errors.FormatError: columns of group 'outputs' should be a whole number, not 'many'
    """
    checked = _checked(info, f"group {group!r}", _GROUP_NUMBERS, _GROUP_TEXTS)
    _check_sampled(checked.get("sampled"), group)
    if reader := checked.get("reader"):
        try:
            ImageInputs(**reader)
        except (LensAIError, TypeError, ValueError) as error:
            raise FormatError(f"how the images of group {group!r} were read cannot be: {error}") from error
    return checked


def _check_sampled(sampled: Any, group: str) -> None:
    """Refuse what does not say how many images were measured of how many."""
    if sampled is None:
        return
    _checked(sampled, f"the images measured of group {group!r}", ("seen", "measured", "first"), ())
    seen, measured, shares = sampled.get("seen"), sampled.get("measured"), (sampled.get("share"), sampled.get("budget"))
    if seen is None or measured is None or measured > seen:
        raise FormatError(f"of group {group!r} {measured!r} images should be measured of {seen!r}")
    for share in shares:
        if share is not None and (type(share) not in (int, float) or not 0 < share <= 1):
            raise FormatError(
                f"a share of the images of group {group!r} should be above 0 and at most 1, not {share!r}"
            )


def _checked(info: Any, of: str, numbers: tuple[str, ...], texts: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(info, Mapping):
        raise FormatError(f"what is said of {of} should be a dict, not {reprlib.repr(info)}")
    for name in numbers:
        value = info.get(name)
        if value is not None and (type(value) is not int or not 0 <= value < _LARGEST):
            raise FormatError(f"{name} of {of} should be a whole number, not {reprlib.repr(value)}")
    for name in texts:
        if not isinstance(info.get(name), str | None):
            raise FormatError(f"{name} of {of} should be a text, not {reprlib.repr(info[name])}")
    return dict(info)
