"""A calibration as plain arrays and back: how it travels in a baseline, believing nothing that is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.checked_json import from_json, to_json
from lensai_integrations.drift.accuracy import Confidence
from lensai_integrations.drift.calibration import TOP_CLASS, Calibration, Part
from lensai_integrations.drift.features import Block
from lensai_integrations.drift.null import Null
from lensai_integrations.drift.row_features import Kernel, Principal
from lensai_integrations.drift.stream_features import ClassShares, Distributions
from lensai_integrations.errors import FormatError
from lensai_integrations.heads import OUTPUTS, is_outputs
from lensai_integrations.sketches.state import LARGEST_COUNT, State, field, require

_KINDS: Final[dict[str, Any]] = {block.kind: block for block in (Distributions, ClassShares, Kernel, Principal)}
#: Kinds of earlier releases that no verdict rests on any more; they are passed over.
_GIVEN_UP = ("slices", "clusters")
#: Principal components as earlier releases have them: with covariances, and of three statistics the second is left.
_EARLIER = "principal"
_ABOUT = "about"
_NULL = ("centre", "spread", "largest")
#: More windows, sizes or blocks than these are no calibration.
_MOST_DRAWS, _MOST_SIZES, _MOST_PARTS = 2**17, 64, 4096
#: No feature's mean is as large.
_MOST_MEAN = 1e9
#: Numbers of a `Confidence` besides its rows; all but the first are shares.
_SHARES = ("threshold", "accuracy", "tied", "wrong")


def to_state(calibration: Calibration) -> State:
    """Plain arrays: `about` (JSON as uint8), and by block's number its own, `mean` and its null distribution."""
    parts = [
        {"group": part.group, "rows": part.rows, "kind": part.block.kind, "n": part.n} for part in calibration.parts
    ]
    told = {name: asdict(confidence) for name, confidence in calibration.confidences.items()}
    about = {
        "sizes": list(calibration.sizes),
        "rows": calibration.rows,
        "draws": calibration.draws,
        "confidence": told.pop(OUTPUTS, None),  # the only one that earlier releases know
        "confidences": told,
        "notes": list(calibration.notes),
        "parts": parts,
    }
    state: State = {_ABOUT: np.frombuffer(to_json(about, "what is said about the calibration"), np.uint8)}
    return state | _arrays(calibration.parts)


def _arrays(parts: Sequence[Part]) -> State:
    """The arrays of all blocks."""
    state: State = {}
    for number, part in enumerate(parts):
        state |= {f"{number}/{name}": array for name, array in _arrays_of(part).items()}
    return state


def _arrays_of(part: Part) -> State:
    """The arrays of a block."""
    null = {f"null/{name}": getattr(part.null, name) for name in _NULL}
    return {**part.block.state(), "mean": part.mean, **null}


def from_state(state: Mapping[str, NDArray[Any]]) -> Calibration:
    """The calibration whose state this is.

    Raises:
        FormatError: If it is none, or of a kind this release does not know.

    Example:
        >>> from_state({})
        Traceback (most recent call last):
        ...
        lensai_integrations.errors.FormatError: a sketch's state lacks the array 'about': ...
    """
    try:
        about = from_json(field(state, _ABOUT, np.uint8, (None,)).tobytes(), "what is said about it")
        sizes, rows, draws = tuple(map(int, about["sizes"])), int(about["rows"]), int(about["draws"])
        require(0 < len(sizes) <= _MOST_SIZES and list(sizes) == sorted(set(sizes)) and sizes[0] > 0, "sizes")
        require(sizes[-1] <= LARGEST_COUNT and 0 < rows <= LARGEST_COUNT, "rows")
        require(0 < draws <= _MOST_DRAWS and 0 < len(about["parts"]) <= _MOST_PARTS, "draws")
        kinds = {(each["rows"], each["kind"]) for each in about["parts"]}
        require(len(kinds) == len(about["parts"]), "two blocks of a kind for the same rows")
        parts = list(_parts(about["parts"], dict(state), len(sizes), draws))
        require(len(parts) > 0, "no block that a verdict rests on")
        told = {} if about["confidence"] is None else {OUTPUTS: about["confidence"]}
        told |= dict(about.get("confidences", {}))
        confidences = {str(name): _confidence(each) for name, each in told.items()}
        return Calibration(tuple(parts), sizes, rows, draws, confidences, tuple(map(str, about["notes"])))
    except FormatError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise FormatError(f"damaged or foreign calibration: {error!r}") from error


def _parts(entries: Sequence[Mapping[str, Any]], state: State, sizes: int, draws: int) -> Iterator[Part]:
    """The blocks that this release knows, of any release's."""
    states = _by_part(state)
    unknown = [path for path in state if path.partition("/")[0] not in {_ABOUT, *map(str, range(len(entries)))}]
    for at, entry in enumerate(entries):
        arrays = states.get(f"{at}", {})
        if entry["kind"] in _GIVEN_UP:
            continue
        part = _part(*_of_today(entry, arrays, sizes), sizes, draws)
        unknown += [f"{at}/{name}" for name in arrays if name not in _arrays_of(part) and entry["kind"] != _EARLIER]
        yield part
    require(not unknown, f"nothing refers to the arrays {sorted(unknown)[:5]}")


def _of_today(entry: Mapping[str, Any], state: State, sizes: int) -> tuple[Mapping[str, Any], State]:
    """A block's entry and arrays, as this release would have written them."""
    if entry["kind"] != _EARLIER:
        return entry, state
    kept = len(field(state, "sizes", np.float32, (None,)))
    mean = field(state, "mean", np.float32, (kept * (kept + 3) // 2,))[:kept]
    null = {f"null/{name}": field(state, f"null/{name}", np.float32, (sizes, 3, None))[:, 1:2] for name in _NULL}
    return {**entry, "kind": Principal.kind}, {**state, "mean": mean, **null}


def _by_part(state: Mapping[str, NDArray[Any]]) -> dict[str, State]:
    """The arrays of each block, by its number and by their name in it."""
    parts: dict[str, State] = {}
    for path, array in state.items():
        number, _, name = path.partition("/")
        parts.setdefault(number, {})[name] = array
    return parts


def _confidence(about: Mapping[str, Any]) -> Confidence:
    found = Confidence(**{name: float(about[name]) for name in _SHARES}, rows=int(about["rows"]))
    shares = all(0 <= getattr(found, name) <= 1 for name in _SHARES[1:])
    require(shares and isfinite(found.threshold) and 0 < found.rows <= LARGEST_COUNT, "confidence")
    return found


def _part(entry: Mapping[str, Any], state: State, sizes: int, draws: int) -> Part:
    kind = _KINDS.get(entry["kind"])
    if kind is None:
        raise FormatError(f"a calibration of unknown kind {entry['kind']!r}: upgrade this package")
    block: Block = kind.from_state(state)
    shape = (sizes, len(block.statistics), block.streams)
    mean = field(state, "mean", np.float32, (block.width,))
    shapes = (shape, shape, (*shape[:2], draws))
    centre, spread, largest = (field(state, f"null/{n}", np.float32, s) for n, s in zip(_NULL, shapes, strict=True))
    finite = all(bool(np.isfinite(array).all()) for array in (mean, centre, spread, largest))
    require(finite and bool((spread > 0).all()) and bool((np.abs(mean) < _MOST_MEAN).all()), "numbers that cannot be")
    require(0 < int(entry["n"]) <= LARGEST_COUNT, "n")
    of_classes = kind is ClassShares
    group = str(entry["group"])
    require(entry["rows"] == (group + TOP_CLASS if of_classes else entry["group"]), "rows of another group")
    require(not of_classes or is_outputs(group), "classes of another group")
    return Part(group, str(entry["rows"]), block, mean, int(entry["n"]), Null(centre, spread, largest))
