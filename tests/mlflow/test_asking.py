"""What a server answers that is not MLflow, or not well: said at once, and never taken for success."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_mlflow import Handler, serving
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils import rest_utils
from profiles import make_baseline, make_profile
from requests import Response

from lensai_integrations import Baseline, Profile, compare
from lensai_integrations.drift.result import DriftReport
from lensai_integrations.errors import TrackingError
from lensai_integrations.mlflow import MLflowSink, SensorRuns, address, load_baseline, push
from lensai_integrations.mlflow.address import bounded
from lensai_integrations.mlflow.log import upload_files
from lensai_integrations.monitoring.events import STATUS, Event
from lensai_integrations.server.records import HourDrift

Fault = Callable[[Handler], bool]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, in no time."""
    made: list[float] = []
    monkeypatch.setattr(address, "_pause", made.append)
    return made


def answering(status: int, content: object, kind: str = "application/json", **headers: str) -> Fault:
    def fault(request: Handler) -> bool:
        request.read()
        return request.reply(status, content, kind, **headers)

    return fault


def drop(request: Handler) -> bool:
    return request.drop()


def drop_in_the_middle(request: Handler) -> bool:
    request.read(int(request.headers.get("Content-Length") or 0) // 2)
    return request.drop()


def drop_in_the_answer(request: Handler) -> bool:
    request.read()
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"{")
    return request.drop()


def to_login(page: bool) -> Fault:
    def fault(request: Handler) -> bool:
        request.read()
        if request.path == "/login":
            return request.reply(200, b"<html>Log in</html>", "text/html") if page else request.reply(200, {})
        return request.reply(302, b"", "text/html", Location="/login")

    return fault


def take_and_forget(request: Handler) -> bool:
    request.read()
    return request.command == "PUT" and request.reply(200, {})


def take_a_part(request: Handler) -> bool:
    if request.command != "PUT":
        return False
    request.server.files[request.path.split("artifacts/", 1)[1]] = request.read()[:10]
    return request.reply(200, {})


DROPPED = r"no answer to \w+ .*(Connection reset|closed connection|Broken pipe|IncompleteRead)"
PAGE = "with a web page.*login before the server"
#: By name, what the server does, what is said of it, and how often it is asked.
FAULTS: dict[str, tuple[Fault, str, int]] = {
    "500": (answering(500, {"error_code": "INTERNAL_ERROR", "message": "boom"}), "500 Internal Server Error .boom.", 3),
    "429": (answering(429, {"message": "slow"}, Retry_After="3600"), r"429 Too Many Requests \(slow\) to", 3),
    "503": (answering(503, b"<html>down</html>", "text/html"), "503 Service Unavailable to", 3),
    "502": (answering(502, ["message"]), "502 Bad Gateway to", 3),
    "413": (answering(413, b"<html>large</html>", "text/html"), "413 .* to .*: raise the limit of the proxy", 1),
    "403": (answering(403, {"error_code": "PERMISSION_DENIED", "message": "no"}), "PERMISSION_DENIED", 1),
    "drop": (drop, DROPPED, 3),
    "drop in the middle": (drop_in_the_middle, DROPPED, 3),
    "drop in the answer": (drop_in_the_answer, DROPPED, 3),
    "login page": (answering(200, b"<html>Log in</html>", "text/html; charset=utf-8"), PAGE, 1),
    "redirect to a login page": (to_login(page=True), "(web page, /login|redirect to /login): .*login before", 1),
}
#: Where the fault is.
PLACES: dict[str, Callable[[Handler], bool]] = {
    "uploads": lambda request: request.command == "PUT",
    "artifacts": lambda request: request.is_of_artifacts,
    "everything": lambda _: True,
}


def within(place: str, fault: Fault) -> Fault:
    """A fault at one place; where a redirect leads to is everywhere."""
    return lambda request: (PLACES[place](request) or request.path == "/login") and fault(request)


@pytest.fixture(scope="module")
def folder(baseline: Baseline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved baseline."""
    return baseline.save(tmp_path_factory.mktemp("saved") / "kept")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_at_once(name: str, place: str, folder: Path, pauses: list[float]) -> None:
    fault, said, times = FAULTS[name]
    with serving(within(place, fault)) as server:
        command = rf"finish with: lensai push .*kept --run {server.run_id} --tracking-uri {server.uri}$"
        with pytest.raises(TrackingError, match=rf"(?s)not uploaded.*{said}.*{command}"):
            push(folder, run_id=server.run_id, tracking_uri=server.uri)
    assert pauses == [1.0, 3.0][: times - 1]
    asked = [each for each in server.asked if each != "GET /health"]
    wrong = [each for each in asked if each == asked[-1]] if "/login" not in asked[-1] else asked[-1:]
    assert len(wrong) == times
    assert not any("/set-tag" in each for each in asked)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_address_is_followed_where_it_keeps_the_method_and_named_otherwise(
    status: int, folder: Path
) -> None:
    """As from http:// to https://."""
    with serving(lambda _: False) as server:

        def elsewhere(request: Handler) -> bool:
            request.read()
            return request.reply(status, b"", "text/html", Location=server.uri + request.path)

        with serving(elsewhere) as before:
            if status > 302:
                push(folder, run_id=server.run_id, tracking_uri=before.uri)
                assert len(server.files) == len(list(folder.iterdir()))
                return
            with pytest.raises(TrackingError, match=rf"with a redirect to {server.uri}/api/.*Pass the address"):
                push(folder, run_id=server.run_id, tracking_uri=before.uri.replace("://", "://me:hush@"))


def test_of_what_is_saved_nowhere_no_command_is_said() -> None:
    with serving(drop) as server, pytest.raises(TrackingError, match=r"\. It is saved nowhere$"):
        upload_files({"manifest.json": b"{}"}, None, run_id=server.run_id, tracking_uri=server.uri)


@pytest.mark.parametrize("fault", [take_and_forget, take_a_part, to_login(page=False)])
def test_what_the_server_does_not_list_was_not_logged(fault: Fault, folder: Path) -> None:
    with (
        serving(within("uploads", fault)) as server,
        pytest.raises(
            TrackingError, match=r"redirect to /login|does not have.*manifest.json (is missing|has 10 bytes)"
        ),
    ):
        push(folder, run_id=server.run_id, tracking_uri=server.uri)
    assert not any("/set-tag" in each for each in server.asked)


def test_a_server_that_recovers_has_the_whole(baseline: Baseline, folder: Path, pauses: list[float]) -> None:
    """Every second request fails, dropped in the middle of what is sent or answered with 503."""
    asked: list[int] = []

    def fault(request: Handler) -> bool:
        asked.append(1)
        return len(asked) % 2 == 1 and (drop_in_the_middle(request) if len(asked) % 4 == 1 else UNWELL(request))

    with serving(fault) as server:
        push(folder, run_id=server.run_id, tracking_uri=server.uri)
        assert load_baseline(f"runs:/{server.run_id}", tracking_uri=server.uri).n == baseline.n
    assert {Path(path).name: content for path, content in server.files.items()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    assert set(pauses) == {1.0}


UNWELL = answering(503, b"")


@pytest.mark.parametrize("place", ["artifacts", "everything"])
@pytest.mark.parametrize("name", FAULTS)
def test_loading_says_what_the_server_answered(name: str, place: str) -> None:
    fault, said, _ = FAULTS[name]
    with (
        serving(within(place, fault)) as server,
        pytest.raises(TrackingError, match=rf"(?s)could not be loaded.*{said}"),
    ):
        load_baseline(f"runs:/{server.run_id}", tracking_uri=server.uri)


@pytest.fixture(scope="module")
def compared() -> tuple[DriftReport, Baseline, Profile]:
    """A report with its two sides."""
    baseline, window = make_baseline(60), make_profile(60, seed=7)
    return compare(baseline, window), baseline, window


@pytest.mark.parametrize("place", ["uploads", "everything"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_sensor_s_hour_is_not_logged_where_no_mlflow_answers(
    name: str, place: str, compared: tuple[DriftReport, Baseline, Profile]
) -> None:
    fault, said, _ = FAULTS[name]
    hour = HourDrift("door", 1_795_298_400, 2, 100, drift=True, effect=0.5, judged=1_795_298_460.0)
    with serving(within(place, fault)) as server:
        runs = SensorRuns("devices", server.uri)
        with pytest.raises(TrackingError, match=rf"(?s){said}"):
            runs.log("door", hour, *compared)
        runs.close()  # nothing was written
    assert not any(path.endswith(".html") for path in server.files)


@pytest.mark.parametrize("name", FAULTS)
def test_a_monitor_s_events_are_not_logged_where_no_mlflow_answers(name: str) -> None:
    fault, said, _ = FAULTS[name]
    with serving(within("everything", fault)) as server:
        sink = MLflowSink(server.run_id, tracking_uri=server.uri)
        with pytest.raises(TrackingError, match=rf"(?s){said}"):
            sink.deliver(Event("a-1", STATUS, "Running", "camera", 0.0, "It runs."))


def test_a_page_in_the_place_of_a_file_is_no_baseline(folder: Path) -> None:
    def fault(request: Handler) -> bool:
        page = request.command == "GET" and request.is_of_artifacts and "?" not in request.path
        return page and request.reply(200, b"<html>Log in</html>", "text/html")

    with serving(fault) as server:
        push(folder, run_id=server.run_id, tracking_uri=server.uri)
        with pytest.raises(TrackingError, match=r"of lensai/manifest\.json came 19 bytes, and the server lists \d+"):
            load_baseline(f"runs:/{server.run_id}", tracking_uri=server.uri)


def test_a_server_that_hangs_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, folder: Path, pauses: list[float]
) -> None:
    monkeypatch.setattr(address, "QUESTION_SECONDS", 0.2)

    def hang(request: Handler) -> bool:
        return request.server.closing.wait(60)

    with serving(hang) as server, pytest.raises(TrackingError, match=r"no answer to GET .*runs/get within 0\.2 s"):
        push(folder, run_id=server.run_id, tracking_uri=server.uri)
    assert server.asked == ["GET /health", "GET /api/2.0/mlflow/runs/get"]
    assert pauses == []


def test_a_server_that_went_away_is_asked_three_times(pauses: list[float]) -> None:
    with serving(lambda _: False) as server:
        pass
    with address.hurried(), pytest.raises(MlflowException) as caught:
        MlflowClient(server.uri).get_run(server.run_id)
    assert re.fullmatch(r"no answer to GET .*runs/get: .*Connection refused", str(caught.value.__context__))
    assert pauses == [1.0, 3.0]


@pytest.mark.parametrize(
    ("given", "body", "expected"), [(120, None, 15), (5, None, 5), (120, b"content", 120), (None, None, None)]
)
def test_an_upload_may_take_longer_than_a_question(given: int | None, body: bytes | None, expected: int | None) -> None:
    waited = []

    def request(*_: object, timeout: float | None, **__: object) -> Response:
        waited.append(timeout)
        answer = Response()
        answer.status_code = 204
        return answer

    address._ask(request, "PUT", "http://host/path", 7, 2, 1, frozenset({500}), timeout=given, data=body)
    assert waited == [expected]


def test_a_user_who_wants_no_tries_gets_none(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with serving(UNWELL) as server, pytest.raises(TrackingError, match="503"):
        load_baseline(f"runs:/{server.run_id}", tracking_uri=server.uri)
    assert pauses == []
    assert [each for each in server.asked if "runs/get" in each] == ["GET /api/2.0/mlflow/runs/get"]


def test_credentials_are_in_no_message() -> None:
    with serving(drop) as server, pytest.raises(TrackingError) as caught:
        load_baseline(f"runs:/{server.run_id}", tracking_uri=server.uri.replace("://", "://ada:hushhush@"))
    assert "hush" not in str(caught.value)


def test_other_calls_of_the_process_are_as_they_were(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    """The user's own calls are tried as MLflow tries them, and its environment stays what it was."""
    before = dict(os.environ)

    def twice(request: Handler) -> bool:
        return len([each for each in request.server.asked if "runs/get" in each]) < 3 and UNWELL(request)

    with serving(lambda _: False) as server:
        bounded(lambda _: MlflowClient(server.uri).get_run(server.run_id), 60, server.uri)
    assert dict(os.environ) == before
    with serving(twice) as server:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
        assert MlflowClient(server.uri).get_run(server.run_id).info.run_id == server.run_id
    assert pauses == []
    with serving(UNWELL) as server:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
        with pytest.raises(MlflowException, match="too many 503 error responses"):
            MlflowClient(server.uri).get_run(server.run_id)
    assert len(server.asked) == 5


def test_mlflow_asks_through_the_function_that_is_stepped_before() -> None:
    """Of an MLflow without it, only the deadline would hold: this test says so."""
    assert hasattr(rest_utils, "_get_http_response_with_retries")
    with address.hurried(), address.hurried():
        function = rest_utils._get_http_response_with_retries
    assert function.of_lensai
    assert not hasattr(function.__closure__[0].cell_contents, "of_lensai")


def test_an_mlflow_that_asks_in_another_way_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(rest_utils, "_get_http_response_with_retries")
    with address.hurried():
        assert not hasattr(rest_utils, "_get_http_response_with_retries")
