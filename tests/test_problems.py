from __future__ import annotations

import logging

import pytest

from lensai_integrations.errors import InputError
from lensai_integrations.problems import Problems, guarded


def test_a_topic_is_logged_once_with_its_cause(caplog):
    problems = Problems()
    for _ in range(3):
        with problems.caught("measuring"):
            raise RuntimeError("the disk is gone")

    assert problems.messages == ["measuring: RuntimeError('the disk is gone')"]
    (record,) = caplog.records
    assert record.name == "lensai_integrations"
    assert record.levelno == logging.WARNING
    assert "the disk is gone" in record.getMessage()
    assert record.exc_info[1].args == ("the disk is gone",)


def test_topics_are_apart_and_in_order(caplog):
    problems = Problems()
    problems.note("b", "one")
    problems.note("a", "two")

    assert problems.messages == ["b: one", "a: two"]
    assert len(caplog.records) == 2


def test_our_own_errors_need_no_trace(caplog):
    problems = Problems()
    problems.note("labels", InputError("pass target="))

    assert problems.messages == ["labels: pass target="]
    assert caplog.records[0].exc_info is None


def test_what_a_profile_says_itself_is_logged_and_not_listed(caplog):
    problems = Problems()
    problems.note("inputs", "unreadable", listed=False)
    problems.note("inputs", "unreadable")

    assert problems.messages == []
    assert len(caplog.records) == 1


def test_quiet_ranks_collect_only(caplog):
    problems = Problems(quiet=True)
    problems.note("x", "y")

    assert problems.messages == ["x: y"]
    assert not caplog.records


def test_a_percent_sign_is_no_format(caplog):
    Problems().note("x", "100% of %s")

    assert caplog.records[0].getMessage() == "x: 100% of %s"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_interruptions_pass(kind):
    problems = Problems()
    with pytest.raises(kind), problems.caught("x"):
        raise kind

    assert not problems.messages


def test_named_exceptions_pass():
    problems = Problems()
    with pytest.raises(InputError), problems.caught("x", InputError):
        raise InputError("yours")
    assert not problems.messages


def test_a_block_without_an_error_is_no_problem():
    problems = Problems()
    with problems.caught("x"):
        pass

    assert not problems.messages


def test_all_are_counted_and_the_last_cause_stays():
    problems = Problems("production")
    for number in (1, 2):
        problems.note("state", OSError(f"disk {number}"))
    problems.note("outputs", InputError("they are texts"))

    assert problems.counts == {"state": 2, "outputs": 1}
    assert problems.causes == {"state": "OSError: disk 2", "outputs": "they are texts"}
    assert problems.total == 3


def test_a_monitors_problem_names_it_and_where_the_rest_is_counted(caplog):
    problems = Problems("production")
    for _ in range(2):
        problems.note("sink {%s}", OSError("no route"))

    (record,) = caplog.records
    assert record.getMessage() == (
        "monitor 'production', sink {%s}: OSError: no route (logged once; its status counts the rest)"
    )
    assert isinstance(record.exc_info[1], OSError)


def test_a_remark_is_made_once_and_is_no_problem(caplog):
    problems = Problems("production")
    for _ in range(2):
        problems.remark("images are read as grey")
    problems.remark("as RGB", "images")
    problems.remark("as BGR", "images")

    assert caplog.messages == ["monitor 'production': images are read as grey", "monitor 'production': as RGB"]
    assert (problems.total, problems.messages) == (0, [])


def test_no_more_than_so_much_is_told():
    problems = Problems(most=2)

    assert [problems.first(number) for number in (1, 2, 2, 3)] == [True, True, False, False]


def test_forgotten_problems_are_new(caplog):
    problems = Problems()
    for _ in range(2):
        problems.note("a", "one")
        problems.remark("two")
        problems.clear()

    assert caplog.messages == ["a: one", "two"] * 2
    assert (problems.messages, problems.counts, problems.causes) == ([], {}, {})


class Fit:
    def __init__(self):
        self.problems = Problems(quiet=True)


class Callback:
    def __init__(self, fit):
        self._fit = fit

    @guarded("starting", InputError)
    def on_start(self, error):
        raise error


def test_what_a_hook_raises_is_a_problem():
    callback = Callback(Fit())
    callback.on_start(ValueError("injected"))
    assert callback._fit.problems.messages == ["starting: ValueError('injected')"]


def test_wrong_arguments_and_interruptions_pass():
    for error in (InputError("layers"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            Callback(Fit()).on_start(error)


def test_without_a_fit_nothing_is_done():
    Callback(None).on_start(ValueError("injected"))
