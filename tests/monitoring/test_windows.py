"""Windows by rows and by time: every row in exactly the windows it belongs to, whatever the panes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensai_integrations import Profile
from lensai_integrations.errors import InputError
from lensai_integrations.monitoring.windows import Pane, Panes, Plan, boundaries, plan_windows


class Rows(Profile):
    """A profile that knows which panes are merged in it, and refuses to merge in another order."""

    merges = 0

    def __init__(self, numbers):
        super().__init__()
        self.numbers = tuple(numbers)

    def merge(self, other):
        assert self.numbers[-1] < other.numbers[0]
        Rows.merges += 1
        return Rows(self.numbers + other.numbers)


def pane(number):
    return Pane(number, 1, 0.0, 0.0, Rows([number]))


@pytest.mark.parametrize(
    ("arguments", "plan"),
    [
        ((200,), Plan(200, 1, 1)),
        ((200, 200), Plan(200, 1, 1)),
        ((200, 50), Plan(50, 4, 1)),
        ((200, 150), Plan(50, 4, 3)),
        ((7, 1), Plan(1, 7, 1)),
        ((timedelta(hours=1),), Plan(3_600_000_000, 1, 1, True)),
        ((timedelta(hours=1), None, timedelta(minutes=40)), Plan(1_200_000_000, 3, 2, True)),
    ],
)
def test_panes_are_the_largest_pieces_of_all_windows(arguments, plan):
    assert plan_windows(*arguments) == plan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "window=0"),
        ((True,), "window=True"),
        ((2.0,), "window=2.0"),
        (("1h",), "window='1h'"),
        ((10, 11), "stride is longer than the window"),
        ((10, 0), "stride=0"),
        ((10, None, timedelta(1)), "every=.* is for windows by time"),
        ((timedelta(1), 5), "stride=5 counts rows"),
        ((timedelta(1), None, 5), "every=5"),
        ((timedelta(1), None, timedelta(2)), "every is longer"),
        ((timedelta(0),), "window=datetime.timedelta"),
    ],
)
def test_what_makes_no_windows_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        plan_windows(*arguments)


@given(window=st.integers(1, 12), stride=st.integers(1, 12), count=st.integers(1, 40))
def test_windows_by_rows_are_those_of_a_plain_list(window, stride, count):
    stride = min(stride, window)
    plan = plan_windows(window, stride)
    panes, found = Panes(plan), []
    for number in range(count):
        panes.push(pane(number))
        if plan.ends(number):
            inside = panes.window(number)
            assert [p.number for p in inside] == list(range(number - plan.window + 1, number + 1))
            found.append(panes.merged(number).numbers)
            panes.judged(number)
            assert len(panes.kept) == plan.window - plan.stride
    size = plan.window
    assert found == [tuple(range(end - size, end)) for end in range(size, count + 1, plan.stride)]


def test_a_step_costs_few_merges_however_long_the_window():
    panes, Rows.merges = Panes(plan_windows(200, 1)), 0
    for number in range(2000):
        panes.push(pane(number))
        if panes.plan.ends(number):
            assert len(panes.merged(number).numbers) == 200
    assert Rows.merges < 3.1 * 2000
    assert len(panes.kept) == 200


def test_profiles_that_are_on_disk_or_merged_are_let_go():
    panes = Panes(plan_windows(4, 2))
    panes.push(pane(0))
    panes.settle(0, "a file")
    assert panes.kept[0].profile is None
    panes.push(pane(1))
    assert panes.merged(1).numbers == (0, 1)


@given(
    window=st.integers(1, 6),
    stride=st.integers(1, 6),
    times=st.lists(st.integers(0, 80), min_size=1, max_size=20).map(sorted),
)
def test_windows_by_time_hold_what_came_in_them(window, stride, times):
    """Held against every window on the time axis, filled by comparing times."""
    stride = min(stride, window)
    plan = plan_windows(timedelta(seconds=window), every=timedelta(seconds=stride))
    seconds = plan.pane / 1e6
    panes, found, last = Panes(plan), [], None
    for number in [*sorted({plan.pane_at(t) for t in times}), 10_000]:
        if last is not None:
            panes.push(pane(last))
            for end in boundaries(plan, last, number):
                if panes.window(end):
                    found.append((end, panes.merged(end).numbers))
        last = number
    expected = []
    for end in range(400):
        ended = (end + 1) * seconds
        inside = {plan.pane_at(t) for t in times if ended - window <= t < ended}
        if inside and ended % stride == 0:
            expected.append((end, tuple(sorted(inside))))
    assert found == expected
