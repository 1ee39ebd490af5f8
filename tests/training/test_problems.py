from __future__ import annotations

import logging

import pytest

from lensai_integrations.errors import InputError
from lensai_integrations.training.problems import Problems


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
