"""Groups: streams that are measured together, row for row, and the sketches they share.

A sketch declares how it merges, travels and is told (`sketches/state.py`), and a group only keeps the names. So all
that is written once, whatever sketches a group holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lensai_integrations.errors import DefinitionError, InputError
from lensai_integrations.measures.custom import same_formula
from lensai_integrations.measures.definitions import DEFINITIONS, Definition
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.counts import PixelCounts
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.moments import Moments
from lensai_integrations.sketches.rows import RowSample
from lensai_integrations.sketches.state import Sketch

#: What the key of a bank begins with that is of one measure: a custom one, or one of a device.
_APART = "bank/"
#: Banks that have more than one value of a row: a device's pixels, and the components of its embeddings.
_SEVERAL_A_ROW = ("bank/pixel/", "bank/component/")


@dataclass
class Group:
    """Streams that are measured together, row for row.

    Attributes:
        name: `"inputs"`, `"outputs"`, `"labels"` or `"embeddings/<layer>"`.
        streams: Names of the bank's columns within the group; empty if it has no bank.
        definitions: Measure name to definition id; the key `"*"` stands for all streams.
        sketches: By key: a kind of the table (`sketches/kinds.py`), and behind a stroke what it is of if there are
            several: `"categories/<stream>"`, and `"bank/<measure>"` for each custom measure and stream of a device.
        info: What was read and from where, as JSON values (layer, layout, how outputs were read). `"measures"` has the
            definitions of custom measures by name, which other programs do not know; `"sampled"` how many of the
            images that were `seen` are `measured`, if not all.

    Raises:
        InputError: If a name has something in it that is no Unicode, as half of a surrogate pair.
    """

    name: str
    streams: tuple[str, ...] = ()
    definitions: dict[str, str] = field(default_factory=dict)
    sketches: dict[str, Sketch] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            "".join((self.name, *self.streams, *self.definitions, *self.definitions.values(), *self.sketches)).encode()
        except UnicodeEncodeError as error:
            raise InputError(f"a name in group {self.name!r} cannot be written as UTF-8: {error}") from error

    @property
    def bank(self) -> KLLBank | None:
        """The KLL sketches of `streams`, or None."""
        return self.sketches.get("bank")  # type: ignore[return-value]

    @property
    def pixels(self) -> PixelCounts | None:
        """The exact pixel counts, or None."""
        return self.sketches.get("pixels")  # type: ignore[return-value]

    @property
    def kernel_mean(self) -> KernelMean | None:
        """The kernel mean of the group's rows, or None."""
        return self.sketches.get("kernel_mean")  # type: ignore[return-value]

    @property
    def moments(self) -> Moments | None:
        """Mean and covariance of the group's rows, or None."""
        return self.sketches.get("moments")  # type: ignore[return-value]

    @property
    def categories(self) -> dict[str, Categories]:
        """The category sketches by stream name within the group; `""` is the stream named as the group."""
        prefix = "categories/"
        return {k[len(prefix) :]: s for k, s in self.sketches.items() if k.startswith(prefix)}  # type: ignore[misc]

    @property
    def apart(self) -> dict[str, Group]:
        """The custom measures by name, each as a group of its streams alone: which rows are invalid is its own."""
        names = [key[len(_APART) :] for key in self.sketches if key.startswith(_APART)]
        return {name: self._only(name, self.sketches[_APART + name]) for name in names}

    def own(self, measure: str) -> Group | None:
        """One of `apart`, without making the others.

        Example:
            >>> Group("inputs").own("noise") is None
            True
        """
        bank = self.sketches.get(_APART + measure)
        return None if bank is None else self._only(measure, bank)

    @property
    def custom(self) -> dict[str, dict[str, Any]]:
        """The definitions of custom measures by name, as the group tells them; whatever a file says else is left out.

        Example:
            >>> Group("inputs", info={"measures": {"glare": {"id": "custom/glare@1"}, "hue": "junk"}}).custom
            {'glare': {'id': 'custom/glare@1'}}
        """
        measures = self.info.get("measures")
        return (
            {name: measure for name, measure in measures.items() if isinstance(measure, dict)}
            if isinstance(measures, dict)
            else {}
        )

    def _only(self, measure: str, bank: Any) -> Group:
        streams = self.streams_of(_APART + measure)
        return Group(self.name, streams, {measure: self.definition_of(measure)}, {"bank": bank}, self.info)

    def streams_of(self, key: str) -> tuple[str, ...]:
        """The names of a sketch's columns within the group.

        Example:
            >>> group = Group("inputs", ("mean/0",), sketches={"bank": KLLBank(1), "bank/hue": KLLBank(2)})
            >>> [group.streams_of(key) for key in group.sketches]
            [('mean/0',), ('hue/0', 'hue/1')]
        """
        _, several, stream = key.partition("/")
        if not several:
            return self.streams
        columns = getattr(self.sketches[key], "dim", 1)
        return (stream,) if columns == 1 else tuple(f"{stream}/{column}" for column in range(columns))

    @property
    def n(self) -> int:
        """Rows in the group's sketches."""
        if self.bank is not None:
            return self.bank.n
        return max((s.n for key, s in self.sketches.items() if not key.startswith(_SEVERAL_A_ROW)), default=0)

    @property
    def invalid(self) -> int:
        """Rows left out because a value was not finite."""
        return self.bank.invalid if self.bank is not None else 0

    @property
    def delivered(self) -> bool:
        """Whether its rows are images as they were delivered, of which the model need not have seen all."""
        return bool(self.info.get("delivered", False))

    def definition_of(self, stream: str) -> str:
        """The definition id of a stream of this group.

        Example:
            >>> Group("inputs", ("mean/0",), {"mean": "lensai/mean@1"}).definition_of("mean/0")
            'lensai/mean@1'
        """
        for key in (stream, stream.split("/", maxsplit=1)[0], "*"):
            if key in self.definitions:
                return self.definitions[key]
        return ""

    def definition(self, id: str) -> Definition | None:
        """The definition behind an id, as this group or else this program knows it; None where neither does.

        Example:
            >>> Group("inputs").definition("custom/of-another-program@1") is None
            True
        """
        return self.known([id])[id]

    def known(self, ids: Iterable[str]) -> dict[str, Definition | None]:
        """The definitions behind several ids, in their order.

        Example:
            >>> list(Group("inputs").known(["lensai/mean@1", "lensai/mean@1", "lensai/std@1"]))
            ['lensai/mean@1', 'lensai/std@1']
        """
        definitions: dict[Any, Any] = {}
        for measure in self.custom.values():
            if isinstance(measure.get("id"), str):
                definitions.setdefault(measure["id"], measure)
        return {id: _definition(definitions.get(id)) or DEFINITIONS.get(id) for id in ids}

    @property
    def seen(self) -> int:
        """Rows, those left out included, and images that were delivered and not measured.

        Example:
            >>> Group("raw", info={"sampled": {"seen": 50_000, "measured": 3125}}).seen
            50000
        """
        return int(self.info["sampled"]["seen"]) if self.info.get("sampled") else self.n + self.invalid

    def merge(self, other: Group) -> Group:
        """A new group that has seen the rows of both; neither is changed.

        Half precision is noted if one side's values came in it, of two kinds the coarser.
        Sketches that say so are left out where they cannot be merged, as kernel means that share no bandwidth, and so
        are custom measures of different widths. A custom measure that only one side has is kept as it is.

        Raises:
            DefinitionError: If a measure was computed by different definitions.
            InputError: If the streams are not the same.
        """
        check_comparable(self, other)
        if self.streams != other.streams:
            raise InputError(f"group {self.name!r} has other streams in the two profiles: {_differing(self, other)}")
        both = [(key, sketch) for key, sketch in self.sketches.items() if key in other.sketches]
        merged = {key: _merged(key, sketch, other.sketches[key]) for key, sketch in both}
        sketches = {key: sketch for key, sketch in merged.items() if sketch is not None}
        alone = {key for key in self.sketches.keys() ^ other.sketches.keys() if key.startswith(_APART)}
        sketches |= {key: sketch for key, sketch in (self.sketches | other.sketches).items() if key in alone}
        info = shared_info(self.info, other.info)
        if measures := other.custom | self.custom:
            info["measures"] = measures
        if sampled := _sampled(self, other):
            info["sampled"] = sampled
        if halves := {self.info.get("precision"), other.info.get("precision")} - {None}:
            info["precision"] = min(halves, key=str)  # the coarser, in which some values came: bfloat16 before float16
        return Group(self.name, self.streams, other.definitions | self.definitions, sketches, info)


def _sampled(a: Group, b: Group) -> dict[str, Any]:
    """What there is to say of both where not all images of one were measured; nothing if all were."""
    infos = [group.info.get("sampled") or {} for group in (a, b)]
    if not any(infos):
        return {}
    measured = sum(int(info.get("measured", group.seen)) for group, info in zip((a, b), infos, strict=True))
    return {**shared_info(*infos), "seen": a.seen + b.seen, "measured": measured}


class Contents(Protocol):
    """What a profile consists of: groups by name, a sample of their rows, JSON values, and a profile per segment."""

    @property
    def groups(self) -> Mapping[str, Group]: ...  # noqa: D102  as the class says
    @property
    def rows(self) -> RowSample | None: ...  # noqa: D102
    @property
    def info(self) -> dict[str, Any]: ...  # noqa: D102
    @property
    def segments(self) -> Mapping[str, Contents]: ...  # noqa: D102


def _definition(declared: Mapping[str, Any] | None) -> Definition | None:
    """What a group tells of a custom measure, if it is a definition."""
    try:
        return None if declared is None else Definition(**{**declared, "range": tuple(declared["range"])})
    except (TypeError, KeyError, DefinitionError):  # written by another release, or by hand
        return None


def check_comparable(a: Group, b: Group) -> None:
    """Refuse two groups of one name whose streams were computed by different definitions.

    Raises:
        DefinitionError: Naming the stream and both definitions.

    Example:
        >>> old = Group("inputs", definitions={"noise": "lensai/noise@1"})
        >>> check_comparable(old, Group("inputs", definitions={"noise": "lensai/noise@1"}))
    """
    for measure, first in a.definitions.items():
        second = b.definitions.get(measure, first)
        if first != second:
            raise DefinitionError(
                f"stream {a.name}/{measure} was computed as {first!r} in one profile and as {second!r} in the other: "
                "profile both with the same convention and release"
            )
    ours, theirs = a.custom, b.custom
    for measure in ours.keys() & theirs.keys():
        if not same_formula(ours[measure], theirs[measure]):
            raise DefinitionError(
                f"stream {a.name}/{measure} is {a.definitions.get(measure)!r} in both profiles, but computed by two"
                f" functions: {ours[measure].get('formula')!r} and {theirs[measure].get('formula')!r}; give a"
                " changed measure a new version, and profile both with the same"
            )
    for detail in ("reduce", "projected_from", "seed"):
        if a.info.get(detail) != b.info.get(detail):
            raise DefinitionError(
                f"group {a.name} has {detail}={a.info.get(detail)!r} in one profile and {b.info.get(detail)!r} in the "
                "other: profile both alike, e.g. with Profiler(like=baseline)"
            )


def _differing(a: Group, b: Group) -> str:
    only_a, only_b = sorted(set(a.streams) - set(b.streams)), sorted(set(b.streams) - set(a.streams))
    return f"only in the first: {only_a[:5]}, only in the second: {only_b[:5]} ({len(a.streams)} and {len(b.streams)})"


def _merged(key: str, a: Sketch, b: Sketch) -> Sketch | None:
    """A new sketch that has seen what both saw; None where there is none."""
    result = a.copied()
    try:
        result.merge(b.to_host())
    except (DefinitionError, InputError) as error:
        if (a.dropped and isinstance(error, DefinitionError)) or key.startswith(_APART):
            return None
        raise
    return result


def shared_info(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """What two infos say alike. Two different answers are no answer.

    Example:
        >>> shared_info({"epoch": 3, "site": "north"}, {"epoch": 3, "site": "south"})
        {'epoch': 3}
    """
    return {key: value for key, value in a.items() if key in b and b[key] == value}
