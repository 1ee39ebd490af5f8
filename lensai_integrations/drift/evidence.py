"""What speaks for drift in one group: a row per stream with its distances and p-value, and the MMD of whole rows.

A p-value is found by a formula only where none comes from clean windows, so that none is computed to be replaced.
Measures of images that half precision alone moves are left out where only one side was read at it. Values of the window
that are the baseline's up to rounding are taken for these (`rounding.py`).

Where a sketch keeps only part of what it saw, its stated error is taken off before a p-value is computed, so that two
sketches of the same rows are never certain of a difference. What cannot be compared is said in the group's notes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.dependence import INDEPENDENT, Inflation
from lensai_integrations.drift.distances import (
    Distances,
    Reference,
    View,
    bisect,
    distances,
    hellinger,
    jensen_shannon,
    pixel_distances,
    population_stability,
    quantiles,
    reference,
    total_variation,
)
from lensai_integrations.drift.kernel import kernel_test
from lensai_integrations.drift.result import RANKS, GroupDrift, StreamDrift, VectorDrift
from lensai_integrations.drift.rounding import Rounding, are_shared, is_of_layer, near, shared_of, typical_sizes
from lensai_integrations.drift.significance import category_p_value, ks_p_value, labels_p_value
from lensai_integrations.errors import DefinitionError
from lensai_integrations.measures.outputs import PER_IMAGE
from lensai_integrations.profiles.conventions import is_images
from lensai_integrations.profiles.groups import Group, check_comparable
from lensai_integrations.profiles.names import class_names, name_of, shown
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.categories import Categories

#: From counts of both sides, and the sketches' errors, to a p-value.
_Formula: TypeAlias = Callable[..., float]

#: More categories than any sketch keeps.
_ALL = 1 << 30
#: Name of the categories too rare for the sketches, together.
RARE_CATEGORIES = "(other)"
_PIXEL = "pixel/"
#: What rows as vectors are called among the streams of their group.
ROWS = ""
#: A baseline's sorted values are kept up to this many of a bank (12 bytes each).
_LARGEST_KEPT = 1 << 24
#: What is of the differences between neighbouring pixels, or of how many values there are.
SENSITIVE: Final = ("noise_sigma", "noise", "snr", "sharpness", "entropy")
FULL: Final = "full precision"
#: Ranks by which values are found that more than a fortieth of the rows share; 0.025 and 0.975 say what is typical.
_STEPS: Final = tuple(step / 40 for step in range(41))


@dataclass(frozen=True)
class Side:
    """A group of one profile, and what is asked of it more than once.

    Attributes:
        group: The group.
        n: Rows in its sketches.
        invalid: Rows left out.
        rows: Rows the profile kept of it, float32 `[r, D]` in random order, or None.
    """

    group: Group
    n: int
    invalid: int
    rows: NDArray[Any] | None = None

    @classmethod
    def of(cls, group: Group, rows: NDArray[Any] | None = None) -> Side:
        """The side of a group. Its bank counts invalid rows by looking at those that wait, so it is asked once."""
        invalid = group.invalid
        return cls(group, group.n if group.bank is None else group.bank.rows_seen - invalid, invalid, rows)


def compare_group(a: Side, b: Side, calibrated: Collection[str] = (), inflation: Inflation = INDEPENDENT) -> GroupDrift:
    """What is found in one group, its p-values not yet corrected and nothing decided.

    Args:
        a: The baseline's group.
        b: The window's.
        calibrated: Full names of the streams whose p-values come from clean windows, `ROWS` among them for the rows as
            vectors: these get none here.
        inflation: By how much more the window's means are off than those of independent rows.

    Raises:
        DefinitionError: If a stream was measured differently on the two sides.

    Example:
        >>> compare_group(Side.of(Group("labels")), Side.of(Group("labels"))).streams
        ()
    """
    check_comparable(a.group, b.group)
    notes: list[str] = []
    streams = [*_invalid(a, b, inflation), *_numbers(a, b, notes, calibrated, inflation)]
    streams += _apart(a.group, b.group, notes, inflation)
    streams += [*_categories(a.group, b.group, notes, calibrated, inflation), *_pixels(a.group, b.group, notes)]
    streams += _of_sketches(a.group, b.group)
    vectors = _vectors(a, b, notes, ROWS in calibrated, inflation)
    named = tuple(_named(streams, a.group, b.group))
    drift = GroupDrift(a.group.name, a.n, b.n, a.invalid, b.invalid, named, vectors, tuple(notes))
    return without_rounded(drift, a.group, b.group)


def _labels_of_a_row(group: Group) -> float:
    return (
        group.categories[""].n / group.n if PER_IMAGE in group.streams and "" in group.categories and group.n else 1.0
    )


def _named(streams: list[StreamDrift], a: Group, b: Group) -> Iterator[StreamDrift]:
    """The streams with their classes by name, and the shares of labels, of several to a row, as shares of rows."""
    names, a_labels, b_labels = class_names(a, b), _labels_of_a_row(a), _labels_of_a_row(b)
    for stream in streams:
        if stream.kind != "invalid" and (names or stream.shares):
            shares = tuple(
                (shown(name, names), a_labels * before, b_labels * after) for name, before, after in stream.shares
            )
            label = name_of(stream.stream.removeprefix(f"{a.name}/"), names)
            yield replace(stream, shares=shares, label=label)
        else:
            yield stream


def _apart(a: Group, b: Group, notes: list[str], inflation: Inflation) -> Iterator[StreamDrift]:
    """The measures that have a bank of their own on one side or on both, and the share of rows each left out."""
    ours, theirs = a.apart, b.apart
    missing = []
    for name in dict.fromkeys([*ours, *theirs]):
        baseline, window = _with_stream(a, name), _with_stream(b, name)
        if name.startswith(_PIXEL) and (views := (_pixel_view(a, name), _pixel_view(b, name))) and None not in views:
            yield from _pixel_sketches(a, name, *views)  # type: ignore[arg-type]
        elif baseline is None or window is None:
            missing.append(name)
        elif name in ours and name in theirs:
            yield from _invalid(Side.of(baseline), Side.of(window), inflation, f"{a.name}/{name}")
            yield from _numbers(Side.of(baseline), Side.of(window), notes, (), inflation)
        else:
            # that the other streams are not there is no news
            yield from _numbers(Side.of(baseline), Side.of(window), [], (), inflation)
    measures = a.custom.keys() | b.custom.keys()
    custom = [name for name in missing if name in measures]
    if custom:
        notes.append(f"custom measures only on one side, not compared: {', '.join(sorted(custom))}")
    alone = [*sorted({*missing} - {*custom}), *(_joint_alone(a, b) or _joint_alone(b, a))]
    if alone:
        notes.append(f"only on one side, not compared: {', '.join(alone[:5])}{', ...' if len(alone) > 5 else ''}")


def _with_stream(group: Group, name: str) -> Group | None:
    """A group that has the stream in its bank: the stream's own, or all the streams together."""
    return group.own(name) or (group if group.bank is not None and name in group.streams else None)


def _joint_alone(group: Group, other: Group) -> list[str]:
    """The streams of a bank that the other group, which has only banks of single streams, does not have."""
    if group.bank is None or other.bank is not None:
        return []
    apart = other.apart
    return [stream for stream in group.streams if stream not in apart] if apart else []


def _pixel_view(group: Group, name: str) -> View | None:
    """The pixels of a channel, counted or sketched."""
    if (alone := group.own(name)) is not None:
        return _view(alone, [name])
    channel = name.removeprefix(_PIXEL)
    if group.pixels is None or not channel.isdecimal() or int(channel) >= group.pixels.channels or not group.pixels.n:
        return None
    counts = np.asarray(group.pixels.counts)[int(channel)]
    present = np.flatnonzero(counts)
    return present.astype(np.float32)[None], counts[present][None].astype(np.int64)


def _pixel_sketches(group: Group, name: str, baseline: View, window: View) -> Iterator[StreamDrift]:
    """Sketched pixels: reported, but not tested, as counted ones are not."""
    sides = (quantiles(baseline, RANKS), quantiles(window, RANKS))
    measured = distances(reference(baseline), window)
    yield from _rows(
        [f"{group.name}/{name}"], "pixels", [group.definition_of(name)], measured, np.full(1, np.nan), sides
    )


def _invalid(a: Side, b: Side, inflation: Inflation, name: str | None = None) -> Iterator[StreamDrift]:
    """The share of rows that were left out, as a stream: production that turns into NaN has moved."""
    if (a.group.bank is None) != (b.group.bank is None):  # where every stream is apart, no row is left out as a whole
        return
    n, m = a.n + a.invalid, b.n + b.invalid
    if not (n and m and a.invalid + b.invalid):
        return
    before, after = a.invalid / n, b.invalid / m
    shares = (("not finite", before, after),)
    stream = f"{name or a.group.name}/invalid"
    fewer = inflation.of_stream(stream, m)
    p = category_p_value(np.array([a.n, a.invalid]), np.array([b.n, b.invalid]) / fewer, n, m / fewer)
    yield StreamDrift(stream, "invalid", "", False, abs(after - before), math.nan, p, shares=shares)


def _numbers(
    a: Side, b: Side, notes: list[str], calibrated: Collection[str], inflation: Inflation
) -> Iterator[StreamDrift]:
    """The streams of the banks that both sides have."""
    common = _common_streams(a.group, b.group, notes)
    if not common:
        return
    if not (a.n and b.n):
        notes.append(f"no finite rows in the {'window' if a.n else 'baseline'}")
        return
    baseline = _known(a.group, common)
    window = baseline.near(_view(b.group, common), Rounding.of(a.group, b.group))
    measured, names = distances(baseline.reference, window), [f"{a.group.name}/{stream}" for stream in common]
    by_formula = np.array([name not in calibrated for name in names])
    p = np.full(len(names), np.nan)
    if by_formula.any():
        fewer = np.array([inflation.of_stream(name, b.n) for name in names])[by_formula]
        error = math.hypot(baseline.error, _error(b.group, window))
        p[by_formula] = ks_p_value(measured.ks[by_formula], a.n, b.n / fewer, error)
    yield from _rows(
        names,
        "numbers",
        [a.group.definition_of(stream) for stream in common],
        measured,
        p,
        (baseline.quantiles, quantiles(window, RANKS)),
    )


@dataclass(frozen=True)
class _BaselineBank:
    """What a comparison needs of a baseline's bank, its first `rows_seen` rows.

    Attributes:
        rows_seen: How many they are.
        reference: Its values, and what follows for distances.
        error: Of ranks.
        quantiles: At `RANKS`.
        low, high: The 2.5% and 97.5% quantiles, `[D]`.
        typical: How large values typically are, `[D]`.
        shared: Values that many rows share, `[D, H]`, ascending; NaN behind the last.
    """

    rows_seen: int
    reference: Reference
    error: float
    quantiles: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    typical: NDArray[np.float64]
    shared: NDArray[np.float64]

    @classmethod
    def of(cls, group: Group, streams: list[str]) -> _BaselineBank:
        assert group.bank is not None
        view = _view(group, streams)
        steps = quantiles(view, _STEPS)
        typical = typical_sizes(steps[:, 1], steps[:, -2], is_of_layer(group))
        known, (low, high) = reference(view), (view[0][:, end].astype(np.float64) for end in (0, -1))
        never_varied = high - low <= 2 * shared_of(is_of_layer(group)).of_values(low, typical)
        known = replace(known, deviation=np.where(never_varied, 0.0, known.deviation))
        about = (_error(group, view), quantiles(view, RANKS), steps[:, 1], steps[:, -2], typical)
        return cls(group.bank.rows_seen, known, *about, _shared_values(steps, typical, is_of_layer(group)))

    def near(self, window: View, rounding: Rounding) -> View:
        """A window in which what is a value of the baseline up to rounding is that value.

        Row by row of both sides in ascending order, for of values that lie close together no other tells which is
        which; only in streams that hardly vary by more, or in which rounding shows.
        """
        values, weights = window
        if not values.shape[1]:
            return window
        columns = np.flatnonzero((self.moved_alike(rounding) > 0) | self._is_rounded(values, rounding))
        if not columns.size:
            return window
        known, counts = self.reference.view
        target = _of_the_same_ranks(known[columns], counts[columns], weights[columns])
        nearer = near(values[columns], target, rounding.of_values(values[columns], self.typical[columns, None]))
        values, weights = values.copy(), weights.copy()
        values[columns] = nearer
        for column in columns[(nearer[:, 1:] < nearer[:, :-1]).any(axis=1)]:
            order = np.argsort(values[column], kind="stable")
            values[column], weights[column] = values[column, order], weights[column, order]
        return values, weights

    def _is_rounded(self, values: NDArray[Any], rounding: Rounding) -> NDArray[np.bool_]:
        """In which streams of a window rounding shows: values beside one that many rows of the baseline share, `[D]`.

        Also those of which the baseline has several of these, closer to each other than the tolerance tells apart.
        """
        tolerance = rounding.of_values(self.shared, self.typical[:, None])
        shows = np.zeros(self.shared.shape, bool)
        shows[:, 1:] = np.diff(self.shared, axis=1) <= 2 * tolerance[:, 1:]
        for side, beyond in (("left", self.shared - tolerance), ("right", self.shared + tolerance)):
            shows |= bisect(values, beyond, side) != bisect(values, self.shared, side)
        return np.asarray(shows.any(axis=1))

    def moved_alike(self, rounding: Rounding) -> NDArray[np.float64]:
        """How far rounding moves each stream as a whole, `[D]`; see `Rounding.of_coarse`."""
        return rounding.of_coarse(self.low, self.high, self.typical)


def _shared_values(steps: NDArray[np.float64], typical: NDArray[np.float64], of_layer: bool) -> NDArray[np.float64]:
    """The values that follow upon equal ones, each once, of ascending ones: `[D, H]`, NaN behind the last."""
    shared = np.concatenate([np.zeros((len(steps), 1), bool), are_shared(steps, typical, of_layer)], axis=1)
    shared[:, 1:] &= (steps[:, 1:] != steps[:, :-1]) | ~shared[:, :-1]
    values = np.sort(np.where(shared, steps, np.nan), axis=1)
    return values[:, : shared.sum(axis=1).max(initial=0)]


def _of_the_same_ranks(values: NDArray[Any], weights: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """The values of the same ranks as others in ascending order, of which the weights are given: `[D, m]`."""
    summed, theirs = np.cumsum(weights, axis=1), np.cumsum(others, axis=1)
    ranks = (theirs - others / 2) / theirs[:, -1:] * summed[:, -1:]
    if weights.max() == 1 and others.max() == 1:  # as many rows in each stream, and the same ranks
        return values[:, np.ceil(ranks[0]).astype(np.intp) - 1]
    places = np.stack([np.searchsorted(*pair) for pair in zip(summed, ranks, strict=True)])
    return np.take_along_axis(values, places, axis=1)


#: Of baselines, for as long as they live. A bank changes only by seeing rows, so their number tells whether it has.
_KNOWN: WeakKeyDictionary[KLLBank, _BaselineBank] = WeakKeyDictionary()


def _known(group: Group, streams: list[str]) -> _BaselineBank:
    """What is known of a baseline's streams, found once if they are all of its bank's."""
    bank = group.bank
    assert bank is not None
    if list(group.streams) != streams:
        return _BaselineBank.of(group, streams)
    kept = _KNOWN.get(bank)
    if kept is None or kept.rows_seen != bank.rows_seen:
        kept = _BaselineBank.of(group, streams)
        if kept.reference.view[0].size <= _LARGEST_KEPT:
            _KNOWN[bank] = kept
    return kept


def _common_streams(a: Group, b: Group, notes: list[str]) -> list[str]:
    """The streams of both banks, by name; positions in a layer are no names, so of a layer all or none."""
    if a.bank is None or b.bank is None:
        return []
    if a.streams == b.streams:
        return list(a.streams)
    if "*" in a.definitions:
        notes.append(f"{len(a.streams)} streams in the baseline and {len(b.streams)} in the window: not the same layer")
        return []
    missing = sorted(set(a.streams) ^ set(b.streams))
    notes.append(f"only on one side, not compared: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}")
    theirs = set(b.streams)
    return [stream for stream in a.streams if stream in theirs]


def _view(group: Group, streams: list[str]) -> View:
    """Values and weights of some of a group's streams."""
    assert group.bank is not None
    values, weights = group.bank.sorted_view()
    if list(group.streams) == streams:
        return values, weights
    columns = [group.streams.index(stream) for stream in streams]
    return values[columns], weights[columns]


def _error(group: Group, view: View) -> float:
    """By how much a rank may be off: not at all while every row is still there."""
    return group.bank.rank_error if group.bank is not None and view[1].max() > 1 else 0.0


def _pixels(a: Group, b: Group, notes: list[str]) -> Iterator[StreamDrift]:
    """The pixel counts: reported, but not tested, for the pixels of an image are not independent of each other."""
    if a.pixels is None or b.pixels is None or not (a.pixels.n and b.pixels.n):
        return
    if a.pixels.channels != b.pixels.channels:
        notes.append(f"pixels of {a.pixels.channels} channels and of {b.pixels.channels} were not compared")
        return
    names = [f"pixel/{channel}" for channel in range(a.pixels.channels)]
    yield from _rows(
        [f"{a.name}/{name}" for name in names],
        "pixels",
        [a.definition_of(name) for name in names],
        pixel_distances(a.pixels.counts, b.pixels.counts),
        np.full(len(names), np.nan),
        (a.pixels.quantiles(RANKS), b.pixels.quantiles(RANKS)),
    )


def _rows(
    names: list[str],
    kind: str,
    definitions: list[str],
    measured: Distances,
    p: NDArray[np.float64],
    sides: tuple[NDArray[Any], NDArray[Any]],
) -> Iterator[StreamDrift]:
    """A stream's row for every column of the distances."""
    columns = (measured.ks, p, measured.wasserstein, measured.psi, measured.jensen_shannon, measured.hellinger)
    lists: list[list[Any]] = [column.tolist() for column in columns]
    lists += [[tuple(row) for row in side.tolist()] for side in sides]
    lists.append(measured.energy.tolist())
    for name, definition, ks, raw, area, psi, js, far, low, high, squared in zip(
        names, definitions, *lists, strict=True
    ):
        yield StreamDrift(
            name, kind, definition, False, ks, math.nan, raw, area, psi, js, far, low, high, energy=squared
        )


def _categories(
    a: Group, b: Group, notes: list[str], calibrated: Collection[str], inflation: Inflation
) -> Iterator[StreamDrift]:
    """The streams of categories that both sides have."""
    for stream in (name for name in a.categories if name in b.categories):
        baseline, window = a.categories[stream], b.categories[stream]
        name = f"{a.name}/{stream}".rstrip("/")
        if not (baseline.n and window.n):
            notes.append(f"{name} has no rows in the {'window' if baseline.n else 'baseline'}")
            continue
        fewer = inflation.of_stream(name, window.n)
        p_value: _Formula | None = partial(category_p_value, n=baseline.n, m=window.n / fewer)
        if several := PER_IMAGE in a.streams and PER_IMAGE in b.streams:
            p_value = partial(labels_p_value, n=a.n, m=b.n / fewer)
        p_value = None if name in calibrated else p_value
        row = _category_row(name, a.definition_of(stream), baseline, window, p_value, fewer)
        yield _with_rows_of(row, a, b) if several else row


def _category_row(
    name: str, definition: str, baseline: Categories, window: Categories, p_value: _Formula | None, fewer: float
) -> StreamDrift:
    names, before, after = category_counts(baseline, window)
    p, q = before / baseline.n, after / window.n
    named = slice(None, -1 if names[-1] == RARE_CATEGORIES else None)  # the rest is off by the errors of all the others
    raw, errors = math.nan, (baseline.error, window.error / fewer)
    if p_value is not None:
        raw = p_value(before[named], after[named] / fewer if fewer > 1 else after[named], errors=errors)
    used = np.ones((1, len(names)), bool)
    index = population_stability(p[None], q[None], np.array([baseline.n]), np.array([window.n]), used)
    most = sorted(range(len(names)), key=lambda i: (-abs(p[i] - q[i]), names[i]))[:5]
    shares = tuple((names[i], float(p[i]), float(q[i])) for i in most)
    divergences = (float(index[0]), float(jensen_shannon(p, q)), float(hellinger(p, q)))
    effect = float(total_variation(p, q))
    return StreamDrift(
        name, "categories", definition, False, effect, math.nan, raw, math.nan, *divergences, shares=shares
    )


def _with_rows_of(row: StreamDrift, a: Group, b: Group) -> StreamDrift:
    """The stream of labels of which a row has several: the largest change in the share of the rows with a label."""
    baseline, window = a.categories[""], b.categories[""]
    names, before, after = category_counts(baseline, window)
    named = slice(None, -1 if names[-1] == RARE_CATEGORIES else None)
    return replace(row, effect=float(np.abs(before / a.n - after / b.n)[named].max()))


def category_counts(baseline: Categories, window: Categories) -> tuple[list[str], NDArray[Any], NDArray[Any]]:
    """Names and counts of all categories either side knows; the rows its sketch has lost go to `RARE_CATEGORIES`."""
    sides = [dict(side.top(_ALL)) for side in (baseline, window)]
    names = sorted(sides[0].keys() | sides[1].keys())
    counts = [[side.get(name, 0) for name in names] for side in sides]
    lost = [max(side.n - sum(of_side), 0) for side, of_side in zip((baseline, window), counts, strict=True)]
    if any(lost):
        names = [*names, RARE_CATEGORIES]
        counts = [[*of_side, rest] for of_side, rest in zip(counts, lost, strict=True)]
    return names, np.array(counts[0]), np.array(counts[1])


def _of_sketches(a: Group, b: Group) -> Iterator[StreamDrift]:
    """What sketches say that compare themselves."""
    for key in (key for key in a.sketches if key in b.sketches and a.streams_of(key) == b.streams_of(key)):
        for stream, measured in a.sketches[key].compared(b.sketches[key], a.streams_of(key)).items():
            about = {"definition": a.definition_of(stream), "drift": False, "p_value": math.nan, **measured}
            yield StreamDrift(f"{a.name}/{stream}".rstrip("/"), **about)


def _vectors(a: Side, b: Side, notes: list[str], calibrated: bool, inflation: Inflation) -> VectorDrift | None:
    """The MMD of the rows. Where it cannot be had the streams still tell, so that is a note and no evidence."""
    baseline, window = a.group.kernel_mean, b.group.kernel_mean
    if baseline is None or window is None or a.group.streams != b.group.streams or not (baseline.n and window.n):
        return None
    rounding, rounded = Rounding.of(a.group, b.group), 0.0
    if a.group.bank is not None and a.n:
        rounded = float(np.linalg.norm(_known(a.group, list(a.group.streams)).moved_alike(rounding)))
    try:
        test = kernel_test(
            baseline,
            window,
            a.rows,
            b.rows,
            calibrated=calibrated,
            rounded=rounded,
            inflation=inflation.of_stream(a.group.name, window.n),
        )
        return VectorDrift(False, math.nan, test)
    except DefinitionError as error:
        notes.append(f"rows were not compared as vectors: {error}")
        return None


def rounded_apart(name: str, baseline: Profile, window: Profile) -> bool:
    """Whether a group's pixels were of half precision on one side only, so that its rows are not compared as wholes.

    Example:
        >>> rounded_apart("inputs", Profile(), Profile())
        False
    """
    groups = [profile.groups[name] for profile in (baseline, window) if name in profile.groups]
    return len({_precision(group) for group in groups}) > 1


def _precision(group: Group) -> str:
    return str(group.info.get("precision", FULL)) if is_images(group.name) else FULL


def without_rounded(drift: GroupDrift, baseline: Group, window: Group) -> GroupDrift:
    """The group without the streams that rounding moves, with a note, if only one side is of half precision.

    Pixels at whole levels come back exactly, whatever their precision (`Images.whole`), and are compared in everything.

    Example:
        >>> half = Group("inputs", info={"precision": "bfloat16"})
        >>> without_rounded(GroupDrift("inputs", 9, 9, 0, 0), Group("inputs"), half).notes[0]
        'pixels are of full precision in the baseline and of bfloat16 in the window: noise_sigma, noise, ...'
    """
    there, here = (_precision(group) for group in (baseline, window))
    if there == here:
        return drift
    names = {f"{drift.name}/{name}" for name in SENSITIVE}
    streams = tuple(stream for stream in drift.streams if stream.stream not in names)
    note = (
        f"pixels are of {there} in the baseline and of {here} in the window: {', '.join(SENSITIVE)} would move by"
        " rounding alone and are not compared"
    )
    return replace(drift, streams=streams, notes=(*drift.notes, note))
