"""A bounded call comes back at its deadline, says why, and leaves the process as it was."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lensai_integrations.errors import FormatError, InputError, MissingDependencyError, TrackingError
from lensai_integrations.mlflow.address import Checkpoint, bounded, resolve_tracking_uri

LOCAL = "sqlite:///mlflow.db"


def never(_: Checkpoint) -> None:
    raise AssertionError("the work must not begin")


def test_the_result_of_the_work_is_returned() -> None:
    assert bounded(lambda _: 42, 10, LOCAL) == 42


def test_the_work_runs_on_a_thread_that_ends_with_the_process() -> None:
    assert bounded(lambda _: threading.current_thread().daemon, 10, LOCAL)
    assert bounded(lambda _: threading.current_thread() is not threading.main_thread(), 10, LOCAL)


def test_context_variables_of_the_caller_are_seen_by_the_work() -> None:
    workspace: ContextVar[str] = ContextVar("workspace", default="none")
    token = workspace.set("team")
    try:
        assert bounded(lambda _: workspace.get(), 10, LOCAL) == "team"
    finally:
        workspace.reset(token)


def test_the_caller_does_not_wait_for_work_beyond_the_deadline() -> None:
    release = threading.Event()
    with pytest.raises(TrackingError, match=r"no answer within 0\.2 s"):
        bounded(lambda _: release.wait(60), 0.2, LOCAL)
    assert not release.is_set()
    release.set()


def test_work_that_was_left_behind_ends_at_its_next_step() -> None:
    release, ended = threading.Event(), threading.Event()
    steps: list[str] = []

    def work(checkpoint: Checkpoint) -> None:
        steps.append("first")
        release.wait(60)
        try:
            checkpoint()
            steps.append("second")
        finally:
            ended.set()

    with pytest.raises(TrackingError, match="no answer"):
        bounded(work, 0.2, LOCAL)
    release.set()
    assert ended.wait(60)
    assert steps == ["first"]


def test_a_checkpoint_in_time_does_nothing() -> None:
    assert bounded(lambda checkpoint: checkpoint(), 10, LOCAL) is None


def test_errors_of_this_package_stay_as_they_are() -> None:
    raised = FormatError("truncated")

    def work(_: Checkpoint) -> None:
        raise raised

    with pytest.raises(FormatError) as caught:
        bounded(work, 10, LOCAL)
    assert caught.value is raised


def test_a_timeout_inside_the_work_is_not_taken_for_the_deadline() -> None:
    def work(_: Checkpoint) -> None:
        raise TimeoutError("the read operation timed out")

    with pytest.raises(TrackingError, match="TimeoutError: the read operation timed out"):
        bounded(work, 10, LOCAL)


def test_other_errors_become_tracking_errors_without_a_chain_that_shows_credentials() -> None:
    def work(_: Checkpoint) -> None:
        raise ConnectionError("cannot connect to sqlite://ada:hushhush@host")

    with pytest.raises(TrackingError, match="cannot connect to sqlite://host") as caught:
        bounded(work, 10, "sqlite://ada:hushhush@host")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_an_interrupt_inside_the_work_reaches_the_caller() -> None:
    def work(_: Checkpoint) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bounded(work, 10, LOCAL)


@pytest.mark.parametrize("deadline", [0, -1.0, float("nan")])
def test_a_deadline_must_be_positive(deadline: float) -> None:
    with pytest.raises(InputError, match="deadline="):
        bounded(never, deadline, LOCAL)


def test_a_server_that_is_down_is_found_out_before_the_work(unreachable: str) -> None:
    with pytest.raises(TrackingError, match=r"Connection refused|actively refused"):
        bounded(never, 60, unreachable)


def test_a_host_that_does_not_exist_is_found_out_before_the_work() -> None:
    with pytest.raises(TrackingError, match=r"tracking\.invalid"):
        bounded(never, 60, "http://tracking.invalid:5000")


def test_a_server_that_never_answers_is_found_out_before_the_work(hanging: str) -> None:
    with pytest.raises(TrackingError, match=r"timed? ?out|no answer within"):
        bounded(never, 0.5, hanging)


def test_the_environment_is_left_alone(unreachable: str, hanging: str) -> None:
    before = dict(os.environ)
    for address in (unreachable, hanging):
        with pytest.raises(TrackingError):
            bounded(never, 0.5, address)
    assert dict(os.environ) == before


@pytest.fixture
def answering() -> Iterator[Callable[[int], tuple[str, list[str]]]]:
    """Starts an HTTP server that answers everything with one status, and lists what it was asked."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int) -> tuple[str, list[str]]:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}", asked

    yield start
    for running in servers:
        running.shutdown()
        running.server_close()


@pytest.mark.parametrize("status", [200, 302, 401, 404, 500, 503])
def test_any_answer_shows_that_a_server_is_there_and_it_is_asked_once(
    status: int, answering: Callable[[int], tuple[str, list[str]]]
) -> None:
    uri, asked = answering(status)
    assert bounded(lambda _: "done", 60, uri) == "done"
    assert asked == ["/health"]


def test_the_probe_keeps_the_path_of_a_server_behind_a_proxy(
    answering: Callable[[int], tuple[str, list[str]]],
) -> None:
    uri, asked = answering(200)
    bounded(lambda _: None, 60, f"{uri}/team/mlflow/")
    assert asked == ["/team/mlflow/health"]


def test_a_given_tracking_uri_wins_over_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://from.environment")
    assert resolve_tracking_uri("http://given") == "http://given"
    assert resolve_tracking_uri(None) == "http://from.environment"


def test_without_mlflow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingDependencyError, match=r"lensai-integrations\[mlflow\]"):
        resolve_tracking_uri("http://given")
