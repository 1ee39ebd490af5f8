"""How rarely batches are profiled for a cost: decided by a clock that the test winds, and that nobody waits for."""

from __future__ import annotations

import pytest

from lensai_integrations.training.chosen import ChosenBatches, is_chosen
from lensai_integrations.training.cost import FEWEST, MOST, WARM_UP, Cost, HostClock


class Wound:
    """A clock that goes on when the test says so. With a lag, a time is known only so many marks later."""

    def __init__(self, *, lag=0, runs_ahead=False):
        self.now, self.lag, self.runs_ahead, self.marks = 0.0, lag, runs_ahead, []

    def mark(self):
        self.marks.append(self.now)
        return len(self.marks) - 1

    def between(self, first, second):
        if len(self.marks) - 1 - second < self.lag:
            return None
        return self.marks[second] - self.marks[first]


class Training:
    """Steps of a length, profiled for another, as an adapter goes through them."""

    def __init__(self, cost, clock, every=1):
        self.batches, self.clock, self.index = ChosenBatches(every, cost=cost), clock, 0
        self.batches.begin(0)
        self.spent = self.profiled = 0.0

    def step(self, plain=10.0, cost=1.0):
        before = self.clock.now
        taken = self.batches.takes(self.index, lambda: self.clock)
        if taken:
            with self.batches.spending():
                self.clock.now += cost / 4
        self.clock.now += plain
        if taken:
            with self.batches.spending():
                self.clock.now += cost - cost / 4
            self.profiled += cost
        self.batches.ended(profiled=taken)
        self.index += 1
        self.spent += self.clock.now - before
        return taken

    def steps(self, n, **how):
        return [self.step(**how) for _ in range(n)]


@pytest.mark.parametrize("lag", [0, 1, 7, 50])
@pytest.mark.parametrize(
    ("plain", "cost", "most", "every"),
    [
        (10, 0.05, 0.02, 1),
        (10, 0.5, 0.02, 4),
        (10, 1, 0.02, 8),
        (10, 1, 0.05, 2),
        (10, 3, 0.02, 16),
        (1, 5, 0.02, 256),
    ],
)
def test_the_number_becomes_the_least_that_the_cost_allows(plain, cost, most, every, lag):
    training = Training(most, Wound(lag=lag))
    training.steps(2000 + 100 * every, plain=plain, cost=cost)

    assert training.batches.every == every
    before = training.spent, training.profiled
    training.steps(64 * every, plain=plain, cost=cost)
    share = (training.profiled - before[1]) / (training.spent - before[0])
    assert share <= most
    assert training.batches.counts()["share"] == pytest.approx(share, rel=0.02, abs=1e-4)


def test_it_grows_in_a_few_steps_and_after_the_first_batches():
    training, seen = Training(0.02, Wound()), []
    for _ in range(600):
        training.step(cost=6)
        seen.append(training.batches.every)

    assert seen[: WARM_UP + FEWEST] == [1] * (WARM_UP + FEWEST)
    assert sorted(set(seen)) == [1, 4, 16, 32]
    assert seen == sorted(seen)


def test_every_is_the_least():
    training = Training(0.5, Wound(), every=3)
    training.steps(600, cost=0.1)
    assert training.batches.every == 3

    training.steps(3000, cost=200)
    assert training.batches.every == 24  # 200 / (24 * 10 + 200) is less than a half


def test_what_is_profiled_is_a_part_of_what_every_would_have_chosen():
    training = Training(0.02, Wound(), every=3)
    taken = training.steps(3000, cost=4)

    assert training.batches.every > 3
    assert all(is_chosen(index, 3) for index, was in enumerate(taken) if was)


def test_it_comes_down_again_but_not_at_the_edge():
    training = Training(0.02, Wound())
    training.steps(3000, cost=3)
    assert training.batches.every == 16
    training.steps(5000, cost=1.5)  # with 8 it would be 1.8%: within, and not clearly
    assert training.batches.every == 16
    training.steps(5000, cost=1.2)
    assert training.batches.every == 8
    training.steps(5000, cost=0.01)
    assert training.batches.every == 1


def test_slower_steps_allow_more():
    training = Training(0.02, Wound())
    training.steps(2000, plain=10, cost=3)
    training.steps(8000, plain=200, cost=3)

    assert training.batches.every == 1


def test_the_first_batches_are_left_out():
    training = Training(0.02, Wound())
    training.steps(WARM_UP, cost=5000)
    training.steps(300, cost=0.1)

    assert training.batches.every == 1


def test_one_slow_batch_changes_nothing():
    training = Training(0.02, Wound())
    training.steps(40, cost=0.1)
    training.steps(1, cost=100)
    training.steps(200, cost=0.1)
    assert training.batches.every == 1

    training.steps(1, plain=10_000, cost=0.1)  # a validation pass in between
    assert training.batches.counts()["share"] == pytest.approx(0.0099, abs=1e-4)


def test_what_is_done_for_several_batches_at_once_counts_for_each():
    """Sketches take four batches together: three cost next to nothing, and the median would be theirs."""
    training = Training(0.02, Wound())
    for _ in range(4000):
        is_full = training.batches.profiled % 4 == 3
        training.step(cost=2.0 if is_full else 0.01)

    assert training.batches.every == 4  # 0.5 on average: 4.8%, 1.2% of one in four


def test_nothing_is_decided_before_the_device_is_there():
    training = Training(0.02, Wound(lag=10**6))
    training.steps(500, cost=100)

    assert training.batches.every == 1
    assert training.batches.counts() == {"profiled": 500, "of": 500, "every": 1, "cost": 0.02}
    assert len(training.batches._cost._waiting) <= 64  # and nothing piles up


def test_a_batch_that_is_not_profiled_makes_no_mark():
    clock = Wound()
    training = Training(None, clock, every=4)
    training.steps(40)
    assert clock.marks == []

    training = Training(0.02, clock)
    training.steps(3000, cost=3)
    before, profiled = len(clock.marks), training.batches.profiled
    training.steps(1600, cost=3)
    assert len(clock.marks) - before <= 6 * (training.batches.profiled - profiled)


def test_a_pass_begins_without_the_last_one():
    clock = Wound()
    training = Training(0.02, clock)
    for epoch in range(40):
        training.batches.begin(epoch)
        training.steps(1, plain=1, cost=1)  # of which no step is seen to end
        clock.now += 1000

    assert "share" not in training.batches.counts()


def test_a_host_that_runs_ahead_is_seen_over_many_steps():
    """Steps return at once, and the time is spent where a profiled batch's values are waited for."""
    clock, batches, behind = Wound(runs_ahead=True), ChosenBatches(cost=0.02), 0.0
    batches.begin(0)
    for index in range(20_000):
        taken = batches.takes(index, lambda: clock)
        behind += 10
        if taken:
            clock.now += behind
            behind = 0
            with batches.spending():
                clock.now += 3
        batches.ended(profiled=taken)

    assert batches.every == 16


@pytest.mark.parametrize(("together", "lag"), [(1, 0), (1, 1), (4, 0), (4, 1), (32, 1)])
def test_a_call_of_several_steps_costs_what_all_of_them_do(together, lag):
    """A call hands out its steps one by one, the last of them when the next one was called."""
    clock, batches, behind, waiting = Wound(runs_ahead=True), ChosenBatches(cost=0.02), 0.0, 0
    batches.begin(0, together=together)

    def measure(left):
        nonlocal behind, waiting
        while waiting > left:
            waiting -= 1
            clock.now += behind
            behind = 0
            with batches.spending():
                clock.now += 3 / together

    for index in range(20_000):
        taken = batches.takes(index, lambda: clock)
        for _ in range(together):
            behind += 10 / together
            if taken:
                waiting += 1
                measure(lag)
        if not taken:
            measure(0)
        batches.ended(profiled=taken)

    assert batches.every == 16
    assert batches.counts()["share"] == pytest.approx(3 / 163, rel=0.1)


def test_what_cannot_be_held_is_said():
    training = Training(0.02, Wound())
    training.steps(MOST * 20, plain=0.001, cost=10)

    assert training.batches.every == MOST
    assert training.batches.complaint() == (
        "one training batch in 1,024 is profiled, which is as few as there are, and takes 90.7% of training time where"
        " cost=0.02 was asked for"
    )


def test_the_hosts_clock_goes_on():
    clock = HostClock()
    marks = [clock.mark() for _ in range(3)]

    assert clock.between(marks[0], marks[2]) >= clock.between(marks[0], marks[1]) >= 0
    assert not clock.runs_ahead
    assert HostClock(runs_ahead=True).runs_ahead


def test_outside_of_a_step_nothing_is_spent():
    cost = Cost(0.02)
    with cost.spending():
        pass
    assert cost.share is None
