"""The web hook against a real server: delivered, tried again, given up, and never in the way."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from checks.sink import check_sink
from monitors import by_mean, numbers, small_baseline

from lensai_integrations import DriftMonitor
from lensai_integrations.errors import InputError
from lensai_integrations.monitoring.events import Event
from lensai_integrations.monitoring.sinks import WebhookSink


class Receiver(ThreadingHTTPServer):
    """Answers with the given codes in turn, the last one for ever."""

    daemon_threads = True

    def __init__(self, *codes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.codes, self.got, self.gate = list(codes), [], threading.Event()
        self.gate.set()
        self.url = f"http://127.0.0.1:{self.server_port}/hook?token=secret"

    def handle_error(self, request, client_address):
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.gate.wait(10)
        code = self.server.codes.pop(0) if len(self.server.codes) > 1 else self.server.codes[0]
        self.server.got.append((self.headers["Idempotency-Key"], body, dict(self.headers)))
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receive():
    servers = []

    def start(*codes):
        server = Receiver(*codes)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.gate.set()
        server.shutdown()
        server.server_close()


def event(id="e1"):
    return Event(id, "notice", "alarm", "production", 0.0, "It drifts.")


def told(sink, *events):
    complaints = []
    sink.open(None, "production", complaints.append)
    for each in events:
        sink.tell(each)
    sink.close()
    return complaints


def test_notices_of_a_monitor_arrive(monkeypatch, receive):
    by_mean(monkeypatch)
    server = receive(200)
    sink = WebhookSink(server.url, headers={"Authorization": "Bearer x"})
    with DriftMonitor(small_baseline(), 4, sinks=[sink], recover=1) as monitor:
        monitor.update(outputs=numbers(4, shift=9))
        monitor.update(outputs=numbers(4))
    assert [body["kind"] for _, body, _ in server.got] == ["alarm", "recovery"]
    key, body, headers = server.got[0]
    assert (key, headers["Authorization"], body["text"][:18]) == (body["id"], "Bearer x", "production: alarm,")
    assert (sink.delivered, sink.undelivered, monitor.status.failures) == (2, 0, {})


def test_it_is_a_sink(receive):
    server = receive(200)
    check_sink(lambda: WebhookSink(server.url, types=("window", "notice", "status"), retries=0))


def test_a_server_that_is_down_is_tried_again(receive):
    server = receive(503, 429, 200)
    sink = WebhookSink(server.url, backoff=0.001)
    assert told(sink, event()) == []
    assert [key for key, _, _ in server.got] == ["e1"] * 3
    assert (sink.delivered, sink.undelivered) == (1, 0)


@pytest.mark.parametrize(("code", "requests"), [(404, 1), (302, 1), (500, 3)])
def test_what_is_refused_or_fails_for_good_is_counted(receive, code, requests):
    server = receive(code)
    sink = WebhookSink(server.url, retries=2, backoff=0.001)
    (complaint,) = told(sink, event())
    assert len(server.got) == requests
    assert (sink.delivered, sink.undelivered) == (0, 1)
    assert f"the server answered {code}" in complaint
    assert "secret" not in complaint


def test_nobody_listens():
    sink = WebhookSink("http://127.0.0.1:9/", retries=1, backoff=0.0)
    assert len(told(sink, event("1"), event("2"))) == 2
    assert sink.undelivered == 2


def test_update_never_waits_and_the_queue_is_bounded(monkeypatch, receive, caplog):
    by_mean(monkeypatch)
    server = receive(200)
    server.gate.clear()  # it accepts and does not answer
    sink = WebhookSink(server.url, types=("window",), queue_size=2, retries=0, flush_seconds=0.05)
    monitor = DriftMonitor(small_baseline(), 2, sinks=[sink])
    monitor.update(outputs=numbers(2))
    while sink._queue.qsize():  # until the thread has taken the first
        time.sleep(0.001)
    monitor.update(outputs=numbers(10))  # five windows: two wait, three are dropped
    assert sink.undelivered == 3
    monitor.close()
    assert sink.undelivered == 5
    assert monitor.status.failures == {"sink WebhookSink": 5}
    assert len([r for r in caplog.records if "logged once" in r.getMessage()]) == 1
    server.gate.set()


def test_it_can_be_opened_again(receive):
    server = receive(200)
    sink = WebhookSink(server.url)
    told(sink, event("1"))
    told(sink, event("2"))
    assert [key for key, _, _ in server.got] == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "ftp://x/"}, "not with 'ftp:'"),
        ({"url": 3}, "not with 'int:'"),
        ({"url": "http:///x"}, "should begin"),
        ({"types": ("alarm",)}, "types="),
        ({"timeout": 0}, "timeout=0"),
        ({"retries": -1}, "retries=-1"),
        ({"queue_size": 0}, "queue_size=0"),
        ({"backoff": -1}, "backoff=-1"),
    ],
)
def test_wrong_arguments_raise(arguments, message):
    with pytest.raises(InputError, match=message):
        WebhookSink(**{"url": "http://127.0.0.1/", **arguments})
