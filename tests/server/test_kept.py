"""Pages that take long are kept for a while, quick ones are not."""

from __future__ import annotations

import pytest

from lensai_integrations.server.kept import KeptPage


@pytest.mark.parametrize(("took", "later", "made"), [(0.1, 0.0, 2), (1.0, 8.9, 1), (1.0, 9.1, 2), (3.0, 26.0, 1)])
def test_a_page_is_kept_nine_times_as_long_as_it_took(took, later, made):
    now, calls = [100.0], []

    def make():
        now[0] += took
        calls.append(1)
        return f"page {len(calls)}"

    kept = KeptPage(lambda: now[0])
    assert kept.get(make) == "page 1"
    now[0] += later
    assert kept.get(make) == f"page {made}"


def test_a_page_that_fails_is_made_again():
    def fail():
        raise OSError("the disk is gone")

    kept = KeptPage()
    with pytest.raises(OSError, match="the disk is gone"):
        kept.get(fail)
    assert kept.get(lambda: "page") == "page"
