"""A baseline's calibration: its features, where the baseline is in them, and what chance does.

It travels in the baseline as plain arrays, which are read believing nothing. Of earlier releases it is read, too: what
they stored of statistics that no verdict rests on any more is passed over, and since the draws are stored for each
statistic by itself, the thresholds of the others are what they would have been without.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import isfinite
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.accuracy import Confidence, confidences_of
from lensai_integrations.drift.features import (
    Block,
    ClassShares,
    Distributions,
    Floats,
    Kernel,
    Principal,
    rank_spread,
)
from lensai_integrations.drift.null import Halves, Null, null_of
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import OUTPUTS, is_labels, is_outputs
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.sketches.state import LARGEST_COUNT, State, field, require
from lensai_integrations.storage.checked_json import from_json, to_json

#: Rows of the windows that are drawn.
SIZES = (5, 10, 25, 50, 100, 200, 500, 1000)
#: Windows drawn of each size.
DRAWS = 1000
#: With fewer rows formulas are more to be trusted than resampling.
FEWEST_ROWS = 100
#: With fewer rows the calibration says so.
_FEW_ROWS = 500
#: What the name of the classes in a row sample ends with; -1 is none.
TOP_CLASS_SUFFIX = "/top_class"
#: The share of the rows that axes and classes are learned from. These suit the rows they were learned from better
#: than any others, so those rows are left out where such a statistic is drawn or held against.
_LEARNED = 0.2
#: Groups with a smaller share of finite rows are not calibrated.
_ENOUGH = 0.5
#: Numbers beyond are no measurements, and their squares no float32.
LARGEST = 1e15
#: More rows than these tell hardly more of windows of 1,000, and take memory in proportion.
_MOST_ROWS = 10_000
_KINDS: Final[dict[str, Any]] = {block.kind: block for block in (Distributions, ClassShares, Kernel, Principal)}
#: Kinds of earlier releases that no verdict rests on any more; they are passed over. Components that were not bounded
#: and chi-square of classes alarmed too often for some baselines; the top class is judged by its formula then.
_GIVEN_UP = ("slices", "clusters", "principal", "components", "classes")
_ABOUT = "about"
_NULL = ("centre", "spread", "largest")
_INFLATION = "inflation"
#: More windows, sizes or blocks than these are no calibration.
_MOST_DRAWS, _MOST_SIZES, _MOST_PARTS = 2**17, 64, 4096
#: No feature's mean is as large.
_MOST_MEAN = 1e9
#: Numbers of a `Confidence` besides its rows; all but the first are shares.
_SHARES = ("threshold", "accuracy", "tied", "wrong")


@dataclass(frozen=True)
class Part:
    """A block of the baseline: where its rows are, what the baseline is, and what chance does.

    Attributes:
        group: The profile's group.
        rows: Under which name the row sample keeps the rows.
        block: The features.
        mean: Their mean in the baseline, float32 `[F]`.
        n: Rows of that mean; of a sketch as many as would make it as certain.
        null: The null distribution.
        inflation: By how much more the means of clean windows were off than those of independent rows, by how many
            windows were put together, float32 `[L, D]` of single streams or `[L, F]`; None if that was not learned.
    """

    group: str
    rows: str
    block: Block
    mean: Floats
    n: int
    null: Null
    inflation: Floats | None = None


@dataclass(frozen=True)
class Learned:
    """What clean windows of production tell of how much they vary.

    Attributes:
        windows: How many they were.
        rows: Rows of a window in the mean, by how many were put together: 1, 2, 4, ..., `[L]`.
        streams: By full name the inflation of a stream that is judged by a formula, `[L]` each.
        inside: Whether the baseline is made of these windows.
    """

    windows: int
    rows: tuple[float, ...]
    streams: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    inside: bool = False


@dataclass(frozen=True)
class Calibration:
    """The null distributions of a baseline's statistics, and what they are statistics of.

    Attributes:
        parts: All blocks.
        sizes: Rows of the windows drawn, ascending.
        rows: Rows of the baseline they were drawn from.
        draws: Windows of each size.
        confidences: By group of outputs, how sure the model has to be for as many rows as it is right about.
        notes: What a reader should know.
        learned: What clean windows of production told; None without any.
    """

    parts: tuple[Part, ...]
    sizes: tuple[int, ...]
    rows: int
    draws: int
    confidences: Mapping[str, Confidence] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    learned: Learned | None = None


def calibration_of(baseline: Baseline | Profile) -> Calibration | None:
    """What a baseline knows of clean windows; None if it was not calibrated. Read once.

    Raises:
        FormatError: If it is damaged, or another baseline's.

    Example:
        >>> calibration_of(Baseline(Profile())) is None
        True
    """
    if not isinstance(baseline, Baseline) or baseline.calibration is None:
        return None
    state = baseline.calibration
    last = _LAST[0]  # taken once, for another thread may put another there
    if last is None or last[0] is not state:
        try:
            _LAST[0] = last = (state, _fitting(from_state(state), baseline.reference))
        except FormatError as error:
            raise FormatError(
                f"the baseline's calibration cannot be used: {error}; run `lensai calibrate` on the baseline, "
                "or compare with correction='holm'"
            ) from error
    return last[1]


def _fitting(calibration: Calibration, reference: Profile) -> Calibration:
    """The calibration, if it can be of this profile."""
    for part in calibration.parts:
        group = reference.groups.get(part.group)
        wanted = 1 if is_top_class(part.rows) else len(group.streams) if group is not None else None
        if part.block.columns != wanted:
            raise FormatError(f"it is of {part.block.columns} columns of {part.group!r}, which has {wanted}")
    return calibration


#: The calibration read last, and what of: a monitor asks for the same one again and again.
_LAST: list[tuple[State, Calibration] | None] = [None]


def calibrated(
    profile: Profile,
    *,
    sizes: Sequence[int] = SIZES,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Find out what clean windows of a profile look like.

    Args:
        profile: The reference, with a sample of its rows.
        sizes: Rows of the windows to draw; those of more than half of the rows kept are left out.
        draws: Windows of each size.
        seed: Of the draws.
        progress: Told how many streams are done, and of how many.

    Raises:
        InputError: If the profile keeps too few rows.

    Example:
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler()
        >>> profiler.update(embeddings={"pool": np.random.default_rng(0).normal(size=(200, 3))})
        >>> [part.block.kind for part in calibrated(profiler.profile(), sizes=[10], draws=100).parts]
        ['distributions', 'kernel', 'bounded_components']
    """
    kept, notes = finite_rows(profile)
    count = len(next(iter(kept.values()), ()))
    if count < FEWEST_ROWS:
        why = "" if profile.rows is not None else "; the profile keeps no sample of its rows: make it with rows=2000"
        raise InputError(f"{count} complete rows are too few to calibrate: {FEWEST_ROWS} at the least{why}")
    if count < _FEW_ROWS:
        notes.append(f"calibrated on {count} rows only: thresholds are wider, {_FEW_ROWS} rows or more are better")
    learned = int(count * _LEARNED)
    first = {name: rows[:learned] for name, rows in kept.items()}
    rest = {name: rows[learned:] for name, rows in kept.items()}
    halves = Halves.draw(count - learned, sizes, draws, seed)
    blocks = list(blocks_of(profile, rest, first))
    total, done = sum(block.streams for _, _, block in blocks), 0

    def tick(streams: int) -> None:
        nonlocal done
        done += streams
        if progress is not None:
            progress(done, total)

    parts = []
    for group, name, block in blocks:
        null = null_of(block, rest[name], halves, tick)
        mean, n = _mean(block, profile.groups[group], rest[name], first[name])
        parts.append(Part(group, name, block, mean, n, null))
    return Calibration(tuple(parts), halves.sizes, count, draws, confidences_of(profile), tuple(notes))


def _mean(block: Block, group: Group, rest: Floats, first: Floats) -> tuple[Floats, int]:
    """Where the baseline is, by as many rows as there are, and of how many; without those that the block learned of."""
    more, learned = block.known(group), len(first) * block.learned
    if more is None or more[1] <= len(rest) + len(first):
        rows = rest if learned else np.concatenate([first, rest])
        return block.mean(rows), len(rows)
    mean, n = more
    if learned:
        mean = ((n * mean.astype(np.float64) - learned * block.mean(first)) / (n - learned)).astype(np.float32)
    error = rank_spread(group) if block.kind == "distributions" else 0.0
    return mean, max(int(1 / (1 / (n - learned) + 4 * error**2)), 1)


def measured(name: str, rows: Floats) -> NDArray[np.bool_]:
    """Which rows are measurements, bool `[n]`: finite, and of classes those that are one.

    Example:
        >>> measured("outputs/top_class", np.array([[3], [-1], [np.nan]], np.float32)).tolist()
        [True, False, False]
    """
    finite = np.asarray(np.isfinite(rows).all(axis=1))
    return np.logical_and(finite, rows[:, 0] >= 0) if is_top_class(name) else finite


def finite_rows(profile: Profile) -> tuple[dict[str, Floats], list[str]]:
    """The rows kept of a profile's groups that are measurements in all of them, and what a reader should know.

    Returns:
        Rows float32 `[r, D]` by name, r at most 10,000; and notes.
    """
    data = profile.rows.data if profile.rows is not None else {}
    named = {
        name: rows
        for name, rows in data.items()
        if group_of(name) in profile.groups and rows.size and not is_labels(name)
    }
    usual = {name: measured(name, rows) & (np.abs(rows) <= LARGEST).all(axis=1) for name, rows in named.items()}
    usable = [name for name, mask in usual.items() if mask.mean() >= _ENOUGH]
    together = np.logical_and.reduce([usual[name] for name in usable]) if usable else np.zeros(0, bool)
    chosen = np.flatnonzero(together)[:_MOST_ROWS]  # in random order, so the first are a sample as well
    notes = [f"{name}: too many rows are not finite to calibrate" for name in named if name not in usable]
    return {name: np.ascontiguousarray(named[name][chosen], np.float32) for name in usable}, notes


def is_top_class(name: str) -> bool:
    """Whether rows of this name in a sample are classes that a model answered.

    Example:
        >>> is_top_class("outputs/age/top_class"), is_top_class("outputs/age"), is_top_class("labels")
        (True, False, False)
    """
    return is_outputs(name) and name.endswith(TOP_CLASS_SUFFIX)


def group_of(name: str) -> str:
    """The group that rows of this name in a sample are of.

    Example:
        >>> group_of("outputs/top_class"), group_of("outputs/age")
        ('outputs', 'outputs/age')
    """
    return name.removesuffix(TOP_CLASS_SUFFIX) if is_top_class(name) else name


def blocks_of(
    profile: Profile, rows: Mapping[str, Floats], first: Mapping[str, Floats]
) -> Iterator[tuple[str, str, Block]]:
    """The blocks to calibrate: group, name of its rows, block; those that learn do so from the first rows."""
    for name, kept in rows.items():
        if is_top_class(name):
            yield group_of(name), name, ClassShares.of(first[name])
            continue
        mean = profile.groups[name].kernel_mean
        yield name, name, Distributions.of(kept)
        if mean is not None and mean.exponents:
            yield name, name, Kernel(mean.dim, mean.frequencies, mean.seed, tuple(mean.exponents))
        if (principal := Principal.of(first[name])) is not None:
            yield name, name, principal


# -- as plain arrays, and back


def to_state(calibration: Calibration) -> State:
    """Plain arrays: `about` (JSON as uint8), and by block's number its own, `mean` and its null distribution."""
    parts = [
        {"group": part.group, "rows": part.rows, "kind": part.block.kind, "n": part.n} for part in calibration.parts
    ]
    confidences = {name: asdict(confidence) for name, confidence in calibration.confidences.items()}
    about = {
        "sizes": list(calibration.sizes),
        "rows": calibration.rows,
        "draws": calibration.draws,
        "confidence": confidences.pop(OUTPUTS, None),  # the only one that earlier releases know
        "confidences": confidences,
        "notes": list(calibration.notes),
        "parts": parts,
    }
    if calibration.learned is not None:
        about["learned"] = asdict(calibration.learned)
    state: State = {_ABOUT: np.frombuffer(to_json(about, "what is said about the calibration"), np.uint8)}
    for number, part in enumerate(calibration.parts):
        state |= {f"{number}/{name}": array for name, array in _arrays_of(part).items()}
    return state


def _arrays_of(part: Part) -> State:
    """The arrays of a block."""
    null = {f"null/{name}": getattr(part.null, name) for name in _NULL}
    learned = {} if part.inflation is None else {_INFLATION: part.inflation}
    return {**part.block.state(), "mean": part.mean, **null, **learned}


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
        kinds = {(entry["rows"], entry["kind"]) for entry in about["parts"]}
        require(len(kinds) == len(about["parts"]), "two blocks of a kind for the same rows")
        learned = _learned(about.get("learned"))
        parts = list(_parts(about["parts"], state, (len(sizes), draws, 0 if learned is None else len(learned.rows))))
        entries = {} if about["confidence"] is None else {OUTPUTS: about["confidence"]}
        entries |= dict(about.get("confidences", {}))
        confidences = {str(name): _confidence(entry) for name, entry in entries.items()}
        return Calibration(tuple(parts), sizes, rows, draws, confidences, tuple(map(str, about["notes"])), learned)
    except FormatError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise FormatError(f"damaged or foreign calibration: {error!r}") from error


def _learned(about: Mapping[str, Any] | None) -> Learned | None:
    """What is said of clean windows."""
    if about is None:
        return None
    rows = tuple(map(float, about["rows"]))
    streams = {str(name): tuple(map(float, each)) for name, each in about["streams"].items()}
    require(0 < len(rows) <= _MOST_SIZES and rows[0] > 0 and rows[-1] <= LARGEST_COUNT, "rows of windows")
    require(all(before < after for before, after in pairwise(rows)), "rows of windows out of order")
    inflations = (each for of_stream in streams.values() for each in of_stream)
    require(all(len(each) == len(rows) for each in streams.values()), "an inflation of other windows")
    require(all(1 <= each <= LARGEST_COUNT for each in inflations), "an inflation that cannot be")
    require(0 < int(about["windows"]) <= LARGEST_COUNT, "windows")
    require(isinstance(about["inside"], bool), "what the windows are to the baseline")
    return Learned(int(about["windows"]), rows, streams, about["inside"])


def _parts(
    entries: Sequence[Mapping[str, Any]], state: Mapping[str, Any], counts: tuple[int, int, int]
) -> Iterator[Part]:
    """The blocks that this release knows, of any release's."""
    states = _by_part(state)
    unknown = [path for path in state if path.partition("/")[0] not in {_ABOUT, *map(str, range(len(entries)))}]
    for at, entry in enumerate(entries):
        arrays = states.get(f"{at}", {})
        if entry["kind"] in _GIVEN_UP:
            continue
        part = _part(entry, arrays, *counts)
        unknown += [f"{at}/{name}" for name in arrays.keys() - _arrays_of(part).keys()]
        yield part
    require(not unknown, f"nothing refers to the arrays {sorted(unknown)[:5]}")


def units_of(block: Block) -> int:
    """Of how many things a block has an inflation: of its single streams, or of each feature of whole rows."""
    return block.streams if isinstance(block, Distributions) else block.width


def _by_part(state: Mapping[str, NDArray[Any]]) -> dict[str, State]:
    """The arrays of each block, by its number and by their name in it."""
    parts: dict[str, State] = {}
    for path, array in state.items():
        number, _, name = path.partition("/")
        parts.setdefault(number, {})[name] = array
    return parts


def _confidence(about: Mapping[str, Any]) -> Confidence:
    numbers = {name: float(about[name]) for name in _SHARES}
    low, high = (_threshold_at(about.get(name)) for name in ("low", "high"))
    confidence = Confidence(rows=int(about["rows"]), low=low, high=high, **numbers)
    shares = all(0 <= getattr(confidence, name) <= 1 for name in _SHARES[1:])
    require(shares and isfinite(confidence.threshold) and 0 < confidence.rows <= LARGEST_COUNT, "confidence")
    return confidence


def _threshold_at(pair: Any) -> tuple[float, float] | None:
    """A threshold and what a row at it counts; None in calibrations of earlier releases."""
    if pair is None:
        return None
    threshold, tied = map(float, pair)
    require(isfinite(threshold) and 0 <= tied <= 1, "confidence")
    return threshold, tied


def _part(entry: Mapping[str, Any], state: State, sizes: int, draws: int, lengths: int) -> Part:
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
    inflation = field(state, _INFLATION, np.float32, (lengths, units_of(block))) if lengths else None
    if inflation is not None:
        require(bool(((inflation >= 1) & (inflation <= LARGEST_COUNT)).all()), "an inflation that cannot be")
    of_classes = kind is ClassShares
    group = str(entry["group"])
    require(entry["rows"] == (group + TOP_CLASS_SUFFIX if of_classes else entry["group"]), "rows of another group")
    require(not of_classes or is_outputs(group), "classes of another group")
    return Part(group, str(entry["rows"]), block, mean, int(entry["n"]), Null(centre, spread, largest), inflation)
