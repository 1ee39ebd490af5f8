"""How much of its pass a profile is of, where not all batches were profiled: counts, merged and in words.

A profile's info has it under `batches`: `profiled`, `of`, in `every` how many batches one was profiled, and where a
cost decided that, the `cost` asked for and the `share` of training time that it was. With `together`, what is counted
are calls of so many steps. Without `batches`, all were profiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

#: Where a profile's info has it.
BATCHES: Final = "batches"
_COUNTS: Final = ("profiled", "of")


def is_whole(info: Mapping[str, Any]) -> bool:
    """Whether all batches of the pass were profiled.

    Example:
        >>> is_whole({}), is_whole({"batches": {"profiled": 12, "of": 96, "every": 8}})
        (True, False)
    """
    batches = info.get(BATCHES)
    return not isinstance(batches, Mapping) or batches.get("profiled") == batches.get("of")


def merged_coverage(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What the info of two profiles together says; nothing if one of them does not count batches.

    Example:
        >>> merged_coverage({"batches": {"profiled": 12, "of": 96}}, {"batches": {"profiled": 11, "of": 96}})
        {'batches': {'profiled': 23, 'of': 192}}
    """
    first, second = one.get(BATCHES), other.get(BATCHES)
    if not (_is_counted(first) and _is_counted(second)):
        return {}
    alike = {key: value for key, value in first.items() if key in second and second[key] == value}
    sums = {key: first[key] + second[key] for key in _COUNTS}
    shares = [side["share"] for side in (first, second) if isinstance(side.get("share"), int | float)]
    return {BATCHES: {**sums, **{key: alike[key] for key in alike if key not in _COUNTS}, **_largest(shares)}}


def merging_problems(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What is to be said of two profiles together whose batches cannot be added up.

    Example:
        >>> merging_problems({"batches": {"profiled": 12, "of": 96, "every": 8}}, {})
        ['some rows are of 12 of 96 batches, one in 8; of the others it is not known']
        >>> merging_problems({"batches": {"profiled": 96, "of": 96}}, {})
        []
    """
    texts = [coverage_text(info) for info in (one, other) if not is_whole(info)]
    if merged_coverage(one, other) or not any(texts):
        return []
    return [f"some rows are of {' and of '.join(filter(None, texts))}; of the others it is not known"]


def _largest(shares: list[float]) -> dict[str, float]:
    return {"share": max(shares)} if shares else {}


def _is_counted(batches: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(batches, Mapping) and all(isinstance(batches.get(key), int) for key in _COUNTS)


def coverage_text(info: Mapping[str, Any]) -> str:
    """The same in words; nothing where all batches were profiled.

    Example:
        >>> coverage_text({"batches": {"profiled": 12, "of": 96, "every": 8}})
        '12 of 96 batches, one in 8'
        >>> coverage_text({"batches": {"profiled": 12, "of": 96, "every": 8, "cost": 0.02, "share": 0.0134}})
        '12 of 96 batches, at the end one in 8, for 1.3% of training time (cost=0.02)'
    """
    batches = info.get(BATCHES)
    if not _is_counted(batches):
        return ""
    together = batches.get("together", 1)
    unit = "batches" if together == 1 else f"calls of {together} steps"
    texts = [f"{batches['profiled']:,} of {batches['of']:,} {unit}"]
    by_cost = isinstance(batches.get("cost"), int | float)
    if isinstance(batches.get("every"), int):
        texts.append(f"{'at the end ' if by_cost else ''}one in {batches['every']:,}")
    if isinstance(batches.get("share"), int | float):
        texts.append(f"for {100 * batches['share']:.1f}% of training time")
    return ", ".join(texts) + (f" (cost={batches['cost']:g})" if by_cost else "")
