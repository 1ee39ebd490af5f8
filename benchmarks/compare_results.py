"""Two results of one benchmark, figure by figure.

    python -m benchmarks.compare_results BEFORE.json AFTER.json [--least 5] [--only TEXT]

A figure that was measured several times is compared by its median; its change is marked `beyond` where the two ranges
do not overlap, so that it is more than the spread of the turns. What differs of machine, versions and commit is said
first: absolute times of two machines say nothing, ratios say more. Exit status 2 if the two are of different
benchmarks, or none.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Figure(NamedTuple):
    """Median, least and most of what was measured; `count` is how often."""

    median: float
    least: float
    most: float
    count: int


class Change(NamedTuple):
    """A figure in both results; `ratio` is after / before, NaN where before is 0."""

    name: str
    before: Figure
    after: Figure
    ratio: float

    @property
    def beyond(self) -> bool:
        """Whether the ranges do not overlap, of figures that were measured more than once."""
        apart = self.after.least > self.before.most or self.after.most < self.before.least
        return apart and min(self.before.count, self.after.count) > 1


def figures_of(tree: Any, name: str = "") -> Iterator[tuple[str, Figure]]:
    """The leaves of a tree of figures, by their path; texts, flags and what is null are no figures."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from figures_of(value, f"{name}/{key}" if name else str(key))
    elif _is_number(tree):
        yield name, Figure(float(tree), float(tree), float(tree), 1)
    elif isinstance(tree, list) and tree and all(map(_is_number, tree)):
        yield name, Figure(float(np.median(tree)), float(min(tree)), float(max(tree)), len(tree))
    elif isinstance(tree, list):
        for key, value in zip(_row_names(tree), tree, strict=True):
            yield from figures_of(value, f"{name}/{key}" if name else key)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The figures that both results have, in the order of the first."""
    new = dict(figures_of(after["figures"]))
    return [
        Change(name, old, new[name], new[name].median / old.median if old.median else math.nan)
        for name, old in figures_of(before["figures"])
        if name in new
    ]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What else is not the same in the two results: one line each."""
    lines = [] if before["commit"] == after["commit"] else [f"commit: {before['commit']} -> {after['commit']}"]
    for part in ("machine", "versions"):
        for key in {**before[part], **after[part]}:
            old, new = before[part].get(key), after[part].get(key)
            lines.extend([f"{part}, {key}: {old} -> {new}"] if old != new else [])
    return lines


def table(rows: list[Change]) -> str:
    """The Markdown table of some changes."""
    lines = ["| figure | before | after | after / before | |", "|---|---|---|---|---|"]
    for row in rows:
        mark = "beyond" if row.beyond else ""
        lines.append(f"| {row.name} | {_text(row.before)} | {_text(row.after)} | {row.ratio:.3f} | {mark} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--least", type=float, default=0, help="leave out changes of less than so many percent")
    parser.add_argument("--only", default="", help="only figures whose name has this in it")
    options = parser.parse_args(arguments)
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (options.before, options.after))
    if before["benchmark"] != after["benchmark"]:
        print(f"{options.before} is of {before['benchmark']}, {options.after} of {after['benchmark']}", file=sys.stderr)
        return 2
    rows = [row for row in changes(before, after) if options.only in row.name]
    shown = [row for row in rows if not abs(row.ratio - 1) < options.least / 100]
    print("\n".join([f"# {before['benchmark']}", "", *(f"- {line}" for line in differences(before, after)), ""]))
    print(table(shown))
    print(
        f"\n{len(shown)} of {len(rows)} figures shown; {sum(row.beyond for row in rows)} beyond the spread of the turns"
    )
    return 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _row_names(rows: list[Any]) -> list[str]:
    """Rows are called by the texts in them; by their number as well where several have the same."""
    texts = [
        " ".join(v for v in row.values() if isinstance(v, str)) if isinstance(row, Mapping) else "" for row in rows
    ]
    return [text if text and texts.count(text) == 1 else f"{text} {i}".strip() for i, text in enumerate(texts)]


def _text(figure: Figure) -> str:
    return f"{figure.median:.4g}" + (f" ({figure.least:.4g} to {figure.most:.4g})" if figure.count > 1 else "")


if __name__ == "__main__":
    sys.exit(main())
