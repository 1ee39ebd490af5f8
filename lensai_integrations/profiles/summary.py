"""Groups as a table people read: one row per stream, the same in `streams.csv`, pandas and the command line.

A source is a profile, seen here as its groups by name.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lensai_integrations.errors import MissingDependencyError
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import class_names, name_of, shown
from lensai_integrations.sketches.kinds import KINDS
from lensai_integrations.sketches.state import RANKS

if TYPE_CHECKING:
    import pandas as pd


COLUMNS = ("source", "stream", "kind", "n", "invalid", "min", *(f"p{round(100 * r):02d}" for r in RANKS), "max")
CATEGORY_COLUMNS = ("distinct", "top", "definition")

#: Where a spreadsheet would begin a formula: at the start of a text, and after what some countries' separate cells by.
#: Programs differ in what blanks and invisible characters before it they pass over. An apostrophe there says that it is
#: a text (OWASP, CSV injection). One that is there already gets a second.
_CELL_START = re.compile(r"((?:^|[;\t\r\n])(?:[^\S\t\r\n]|[\0\u200b-\u200f\u2060\ufeff])*)(?=[=+\-@\t\r\n'＝＋－＠])")


@dataclass(frozen=True)
class StreamSummary:
    """What is known of one stream.

    Attributes:
        stream: Full name, e.g. `"inputs/mean/0"`.
        kind: `"numbers"`, `"pixels"` (exact counts of 8-bit values) or `"categories"`.
        definition: Definition id of the measure.
        n: Rows (images, for pixels).
        invalid: Rows left out because a value was not finite.
        min: Smallest value; NaN for categories and empty streams.
        max: Largest value; likewise.
        quantiles: Rank to value, for the ranks in `RANKS`; empty for categories.
        distinct: Estimated number of distinct categories; NaN for numbers.
        top: The most frequent categories with their counts, classes by their names where these were told.
        label: The name of the class that the stream is of, of `outputs/softmax/3`; empty where there is none.
    """

    stream: str
    kind: str
    definition: str
    n: int
    invalid: int
    min: float = math.nan
    max: float = math.nan
    quantiles: Mapping[float, float] = field(default_factory=dict)
    distinct: float = math.nan
    top: tuple[tuple[str, int], ...] = ()
    label: str = ""


def summarize(groups: Mapping[str, Group]) -> list[StreamSummary]:
    """One summary per stream, in the order of a profile's groups.

    Example:
        >>> summarize({"labels": Group("labels")})
        []
    """
    return [row for group in groups.values() for row in _group_rows(group)]


def _group_rows(group: Group) -> Iterator[StreamSummary]:
    """What each sketch tells of its streams, kind by kind."""
    names = class_names(group)
    for kind in KINDS:
        for key, sketch in group.sketches.items():
            if key.partition("/")[0] == kind:
                for stream, summary in sketch.summary(group.streams_of(key)).items():
                    yield _row(group, stream, summary, names)


def _row(group: Group, stream: str, summary: Mapping[str, Any], names: Sequence[str]) -> StreamSummary:
    top = tuple((shown(category, names), count) for category, count in summary.get("top", ()))
    about = {"invalid": 0, **summary, "top": top, "definition": group.definition_of(stream)}
    about["label"] = name_of(stream, names) if summary["kind"] == "numbers" else ""
    return StreamSummary(f"{group.name}/{stream}".rstrip("/"), **about)


def table(sources: Mapping[str, Mapping[str, Group]]) -> list[dict[str, Any]]:
    """The rows of `streams.csv`: a dict per source and stream with the keys `COLUMNS` and `CATEGORY_COLUMNS`."""
    return [_record(source, row) for source, groups in sources.items() for row in summarize(groups)]


def segments_csv(sources: Mapping[str, Mapping[str, Mapping[str, Group]]]) -> str:
    """`segments.csv`: the streams of each segment, embeddings aside, as the table has them, with a column `segment`.

    A file of its own, because readers of `streams.csv` take a source and a stream for one row.

    Args:
        sources: The groups of each segment, by source and by the segment's name.

    Example:
        >>> segments_csv({}).startswith("source,segment,stream,kind,n")
        True
    """
    records = [
        {**_record(source, row), "segment": name}
        for source, segments in sources.items()
        for name, groups in segments.items()
        for row in summarize(groups)
        if not row.stream.startswith("embeddings/")
    ]
    return _csv(["source", "segment", *COLUMNS[1:], *CATEGORY_COLUMNS], records)


def _record(source: str, row: StreamSummary) -> dict[str, Any]:
    quantiles = {f"p{round(100 * rank):02d}": row.quantiles.get(rank, math.nan) for rank in RANKS}
    top = "; ".join(f"{name}: {count}" for name, count in row.top)
    return {
        "source": source,
        "stream": row.stream,
        "kind": row.kind,
        "n": row.n,
        "invalid": row.invalid,
        "min": row.min,
        **quantiles,
        "max": row.max,
        "distinct": row.distinct,
        "top": top,
        "definition": row.definition,
    }


def to_csv(sources: Mapping[str, Mapping[str, Group]]) -> str:
    """The table as CSV text; numbers in six significant digits, nothing where there is no number.

    Example:
        >>> to_csv({}).startswith("source,stream,kind,n,invalid,min,p01")
        True
    """
    return _csv([*COLUMNS, *CATEGORY_COLUMNS], table(sources))


def _csv(columns: Sequence[str], records: Iterable[Mapping[str, Any]]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, lineterminator="\r\n")  # so that it quotes either in a text
    writer.writeheader()
    for record in records:
        writer.writerow({key: _cell(value) for key, value in record.items()})
    return buffer.getvalue().replace("\r\n", "\n")


def _cell(value: Any) -> Any:
    """A number in few digits; a text so that a spreadsheet takes it for a text, wherever it cuts cells."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return _CELL_START.sub(r"\1'", value) if isinstance(value, str) else value


def to_pandas(sources: Mapping[str, Mapping[str, Group]]) -> pd.DataFrame:
    """The table as a DataFrame.

    Raises:
        MissingDependencyError: If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingDependencyError("to_pandas needs pandas: pip install 'lensai-integrations[mlflow]'") from error
    return pd.DataFrame(table(sources), columns=[*COLUMNS, *CATEGORY_COLUMNS])
