"""A new sketch is a file of its own and a line in a table: one is made here, and goes all the way of a profile."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from checks.sketch import CHECKS, WIDTH
from scipy.stats import fisher_exact

from lensai_integrations import Baseline, Profile, Profiler, calibrate, compare
from lensai_integrations.arrays.namespaces import local, namespace, to_host, together
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.monitoring.windows import kept_rows, profile_of_rows
from lensai_integrations.report import baseline_html, drift_html
from lensai_integrations.sketches.kinds import KINDS
from lensai_integrations.sketches.state import Sketch, field, number, require


class Zeros(Sketch):
    """How often each column is exactly 0: units that have died.

    Args:
        dim: Columns D.
    """

    takes = "vectors"

    def __init__(self, dim):
        self.dim, self.rows_seen = dim, 0
        self._counts = np.zeros(dim + 1, np.int64)  # of zeros, and of valid rows

    def empty(self):
        return type(self)(self.dim)

    def update(self, rows):
        rows = local(rows)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise InputError(f"rows should be [n, {self.dim}], not {tuple(rows.shape)}")
        xp = namespace(rows)
        valid = xp.all(xp.isfinite(rows), axis=1)[:, None]
        zeros = xp.astype(xp.concat([(rows == 0) & valid, valid], axis=1), xp.int64)
        held, more = together(self._counts, xp.sum(zeros, axis=0))
        self._counts = held + more
        self.rows_seen += int(rows.shape[0])

    def merge(self, other):
        self._counts = to_host(self._counts) + to_host(other._counts)
        self.rows_seen += other.rows_seen

    def to_host(self):
        return self.from_state(self.state())

    def state(self):
        return {"counts": np.array(to_host(self._counts)), "rows_seen": np.array(self.rows_seen)}

    @classmethod
    def from_state(cls, state):
        counts = field(state, "counts", np.int64, (None,))
        require(len(counts) > 1 and bool(np.all((counts >= 0) & (counts <= counts[-1]))), "more zeros than rows")
        result = cls(len(counts) - 1)
        result._counts, result.rows_seen = counts, number(state, "rows_seen", int(counts[-1]))
        return result

    @property
    def n(self):
        return int(self._counts[-1])

    @property
    def invalid(self):
        return self.rows_seen - self.n

    def summary(self, streams):
        counts = to_host(self._counts)[:-1].tolist()
        return {
            f"zeros/{stream}": {"kind": "categories", "n": self.n, "invalid": self.invalid, "top": [("zero", count)]}
            for stream, count in zip(streams, counts, strict=True)
        }

    def compared(self, other, streams):
        found = {}
        for column, stream in enumerate(streams):
            if self.n and other.n:
                zeros, other_zeros = int(self._counts[column]), int(other._counts[column])
                before, after = zeros / self.n, other_zeros / other.n
                p = fisher_exact([[zeros, self.n - zeros], [other_zeros, other.n - other_zeros]]).pvalue
                told = {"kind": "categories", "effect": abs(after - before), "raw_p_value": float(p)}
                found[f"zeros/{stream}"] = {**told, "shares": (("zero", before, after),)}
        return found


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_it_passes_the_suite(check):
    check(lambda: Zeros(WIDTH))


def rows_of(n, seed, dead=0.0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 3)).astype(np.float32)
    rows[rng.random(n) < dead, 1] = 0
    return rows


def profile_of(seed, dead=0.0, source="validation", convert=lambda rows: rows):
    profiler = Profiler(seed=seed, source=source, task="regression", segment_by="site")
    for batch in range(4):
        rows = convert(rows_of(100, [seed, batch], dead))
        profiler.update(outputs=rows, labels=[0.5] * 100, segments=["north"] * 100)
    return profiler.profile()


@pytest.fixture
def _registered(monkeypatch):
    monkeypatch.setitem(KINDS, "zeros", Zeros)


@pytest.mark.usefixtures("_registered")
def test_it_goes_all_the_way_of_a_profile(tmp_path):
    torch = pytest.importorskip("torch")
    whole = profile_of(1).merge(profile_of(2, convert=torch.from_numpy))
    whole.save(tmp_path)
    read = Profile.load(tmp_path)
    zeros = read.groups["outputs"].sketches["zeros"]
    assert (type(zeros), zeros.n) == (Zeros, 800)
    assert "outputs/zeros/value/1,categories,800,0" in (tmp_path / "streams.csv").read_text(encoding="utf-8")
    assert [*read.segments["north"].groups["outputs"].sketches] == ["bank"]  # does not ask to be kept there
    assert profile_of_rows(kept_rows(read, 50), read).groups["outputs"].sketches["zeros"].n == 50

    window = profile_of(3, dead=0.3, source="production")
    for baseline in (Baseline(read), calibrate(Baseline(read), draws=100)):
        report = compare(baseline, window)
        moved = {stream.stream: stream for stream in report.moved}
        assert moved["outputs/zeros/value/1"].effect == pytest.approx(0.3, abs=0.06)
        assert moved["outputs/zeros/value/1"].words.startswith("zero rose from 0% to ")
        assert not compare(baseline, profile_of(4, source="production")).drift
        for text in (str(report), drift_html(report, baseline, window)):
            assert "zeros/value/1" in text
    assert "outputs" in baseline_html(Baseline(read))


@pytest.mark.usefixtures("_registered")
def test_one_of_other_columns_than_its_group_has_is_refused():
    profile = profile_of(1)
    profile.groups["outputs"].sketches["zeros"] = Zeros(2)
    with pytest.raises(FormatError, match="names 3 streams for a zeros of 2"):
        copy.deepcopy(profile)  # which goes by what a file would have


def test_a_profile_with_one_that_is_not_known_here_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setitem(KINDS, "zeros", Zeros)
        profile_of(1).save(tmp_path)
    with pytest.raises(FormatError, match="unknown kind 'zeros': upgrade"):
        Profile.load(tmp_path)
