"""What `detection.py` makes of scores: false alarms, detection at equal false alarms, and tables of both.

A score is the larger, the more drift; a p-value's score is its negative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from benchmarks.drift.windows import Windows

Floats = NDArray[np.float64]
#: One line of a table.
Row = dict[str, Any]


def false_alarms(score: Floats, windows: Windows, rate: float) -> Row:
    """How often clean windows have a p-value below the rate: the mean of the references, with a 99% interval.

    The interval is of the spread between references. "held": its upper end is at most the rate, and the mean at least
    a third of it. "about": it has the rate in it. "EXCEEDED": it lies above the rate. "careful": the mean is below a
    third of the rate.
    """
    asked = windows.clean & ~np.isnan(score)
    alarms, reference = -score[asked] < rate, windows.reference[asked]
    means = np.array([alarms[reference == each].mean() for each in np.unique(reference)])
    mean, half = float(means.mean()), 0.0
    if len(means) > 1:
        half = float(t.ppf(0.995, len(means) - 1) * means.std(ddof=1) / len(means) ** 0.5)
    low, high = max(mean - half, 0.0), min(mean + half, 1.0)
    word = "EXCEEDED" if low > rate else "careful" if mean < rate / 3 else "held" if high <= rate else "about"
    found: Row = {"rate": rate, "size": windows.size, "windows": int(asked.sum()), "mean": mean, "low": low}
    return {**found, "high": high, "worst": float(means.max()), "verdict": word}


def power(clean: Floats, shifted: Floats, rate: float) -> float:
    """Share of shifted windows above the score that exactly `rate` of the clean ones are above.

    Where several clean windows tie at that score, windows there count as found with the probability that makes it
    exact.

    Example:
        >>> power(np.arange(20.0), np.array([0.0, 18.5, 19.0, 30.0]), 0.05)
        0.75
    """
    ordered = np.sort(clean)[::-1]
    threshold = ordered[min(int(rate * len(ordered)), len(ordered) - 1)]
    above, at = np.mean(clean > threshold), np.mean(clean == threshold)
    chance = np.clip((rate - above) / at, 0, 1)
    return float(np.mean(shifted > threshold) + chance * np.mean(shifted == threshold))


def detection(scores: Mapping[str, Floats], windows: Windows, rate: float) -> list[Row]:
    """Of every shift and method, how many windows are found; thresholds are those of all references together."""
    rows = []
    for shift in dict.fromkeys(windows.shift[~windows.clean].tolist()):
        found = {}
        for name, score in scores.items():
            asked = ~np.isnan(score)
            clean, shifted = score[asked & windows.clean], score[asked & (windows.shift == shift)]
            if len(clean) and len(shifted):
                found[name] = {"found": power(clean, shifted, rate), "windows": len(shifted), "clean": len(clean)}
        rows.append({"shift": shift, "size": windows.size, "rate": rate, "methods": found})
    return rows


def wilson(share: float, n: int) -> tuple[float, float]:
    """95% interval of a share found in n windows (E. B. Wilson, 1927).

    Example:
        >>> [round(end, 3) for end in wilson(0.1, 100)]
        [0.055, 0.174]
    """
    z = 1.959964
    middle, half = share + z**2 / (2 * n), z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


def ahead(row: Row, ours: str, peers: Sequence[str]) -> list[str]:
    """The peers that found more than ours did: the 95% interval of the difference is above 0 (R. G. Newcombe, 1998)."""

    mine = row["methods"][ours]["found"]
    most = wilson(mine, row["methods"][ours]["windows"])[1]

    def is_ahead(theirs: float, n: int) -> bool:
        margin = ((theirs - wilson(theirs, n)[0]) ** 2 + (most - mine) ** 2) ** 0.5
        return bool(theirs - mine > margin)

    asked = [(name, row["methods"][name]) for name in peers if name in row["methods"]]
    return [name for name, found in asked if is_ahead(found["found"], found["windows"])]


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table.

    Example:
        >>> print(markdown(["shift", "n"], [["blur", "3"]]))
        | shift | n |
        |---|---|
        | blur | 3 |
    """
    table = [list(head), ["---"] * len(head), *map(list, lines)]
    return "\n".join(f"|{'|'.join(row)}|" if row[0] == "---" else f"| {' | '.join(row)} |" for row in table)


def alarm_table(rows: Sequence[Row]) -> str:
    """False alarms, a line per method, rate and size."""
    lines = [
        [
            row["method"],
            f"{row['rate']:g}",
            str(row["size"]),
            f"{row['mean']:.4f}",
            f"{row['low']:.4f} to {row['high']:.4f}",
            f"{row['worst']:.3f}",
            str(row["windows"]),
            row["verdict"],
        ]
        for row in rows
    ]
    return markdown(["method", "asked", "rows", "mean", "99% interval", "worst reference", "windows", ""], lines)


def detection_table(rows: Sequence[Row], methods: Sequence[str]) -> str:
    """Shares of windows found, a line per shift and size, the largest of a line in bold."""
    lines = []
    for row in rows:
        found = [row["methods"].get(name, {}).get("found") for name in methods]
        best = max(share for share in found if share is not None)
        cells = ["" if each is None else f"**{each:.2f}**" if 0 < each == best else f"{each:.2f}" for each in found]
        lines.append([row["shift"], str(row["size"]), *cells])
    return markdown(["shift", "rows", *methods], lines)
