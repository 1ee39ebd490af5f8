"""The page on distances: every snippet runs, in order, and prints what the page leads one to expect."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from lensai_integrations import Profiler, compare
from lensai_integrations.drift import vector_distances
from lensai_integrations.drift.distances import Distances

PAGE = (Path(__file__).parents[2] / "docs" / "distances.md").read_text(encoding="utf-8")


def profile(rows):
    profiler = Profiler(seed=1)
    profiler.update(embeddings={"layer": rows})
    return profiler.profile()


def test_every_snippet_runs(capsys):
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    rows, others = rng.normal(size=(200, 4)), rng.normal(1, 1, size=(200, 4))
    given = {"compare": compare, "baseline": profile(rows), "window": profile(others), "rows": rows, "others": others}
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(snippets) == 3
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"docs/distances.md, snippet {number}", "exec"), given)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in printed[:1]] == [["True", "0.5", "1", "0.9", "False"]]
    found, p = map(float, printed[1].split())
    assert 0.1 < found < 0.4
    assert p == 1 / 200
    frechet, shares = map(float, printed[2].split())
    assert 3.5 < frechet < 5
    assert 0.1 < shares < 0.8
    assert float(printed[3].split()[0]) == pytest.approx(2, abs=0.2)
    assert printed[3].split()[1] == "True"
    assert printed[4] == "True True"


def test_the_page_has_every_distance():
    for name in {field.name for field in fields(Distances)} - {"ks"}:
        assert f"| `{name}` |" in PAGE
    for name in set(vector_distances.__all__) - {"PermutationTest", "random_directions"}:
        assert f"| `{name}` |" in PAGE
