"""Pages that take long are kept for a while, quick ones are not."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lensai_integrations.server.service import KeptPage


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


@pytest.mark.parametrize("fails", [False, True])
def test_whoever_asks_meanwhile_gets_what_comes_of_it(fails):
    """A store that does not answer keeps readers for one wait, not for one wait each."""
    begun, go, calls = threading.Event(), threading.Event(), []

    def make():
        calls.append(1)
        begun.set()
        assert go.wait(20)
        if fails:
            raise OSError("the store does not answer")
        return "page"

    asked = threading.Semaphore(0)

    def clock():
        asked.release()
        return 0.0

    kept = KeptPage(clock)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(kept.get, make)
        assert begun.wait(20)
        others = [pool.submit(kept.get, make) for _ in range(7)]
        assert all(asked.acquire(timeout=20) for _ in range(9))  # each has looked whether the page is kept
        with kept._lock:  # and the last of them has seen that it is being made
            go.set()
        each = [first, *others]
        told = {str(one.exception(20)) if fails else one.result(20) for one in each}
    assert told == {"the store does not answer" if fails else "page"}
    assert len(calls) == 1
    assert kept.get(lambda: "again") == "again"
