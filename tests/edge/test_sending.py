"""One upload to a real server on loopback: what is sent, when it is tried again, and what is never told."""

from __future__ import annotations

import email.utils
import gzip
import random
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from receivers import ACCEPT, HANG, LOSE, free_address, receiving

from lensai_integrations.edge import sending
from lensai_integrations.edge.sending import RefusedUploadError, Upload, archive, send
from lensai_integrations.errors import InputError, TrackingError
from lensai_integrations.storage import posting
from lensai_integrations.storage.posting import ServerAnswer

TOKEN = "t0ken-of-nobody"


@pytest.fixture
def server():
    with receiving() as known:
        yield known


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that were waited, without waiting them."""
    waited = []
    monkeypatch.setattr(sending, "_pause", waited.append)
    monkeypatch.setattr(sending, "_jitter", lambda low, high: high)
    return waited


def upload(url, timestamp=1719393854):
    return Upload(url, "door-3", timestamp, archive({"imgstats/noise.bin": b"\x00\r\n--"}, timestamp))


def test_the_form_is_that_of_devices(server):
    assert send(upload(server.url), token=TOKEN)
    (request,) = server.requests
    assert request.path == "/upload/"
    assert request.fields == {"sensor_id": "door-3", "timestamp": "1719393854", "file_type": "stats"}
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["metrictype"] is request.headers["sensorid"] is None
    assert request.file[:2] == b"\x1f\x8b"
    assert request.members() == {"imgstats/noise.bin": b"\x00\r\n--"}


def test_without_a_token_there_is_no_header_of_one(server):
    assert send(upload(server.url))
    assert server.requests[0].headers["Authorization"] is None


def test_what_the_server_has_is_told(server):
    assert [send(upload(server.url)) for _ in range(2)] == [True, False]


def test_an_archive_depends_on_its_files_only():
    one = archive({"imgstats/a.bin": b"1" * 3000}, 5)
    assert one == archive({"imgstats/a.bin": b"1" * 3000}, 5)
    assert b"ustar  \x00" in gzip.decompress(one)  # GNU's magic


def test_a_server_that_comes_back_gets_it(server, pauses):
    server.answers = [503, 429, 500, ACCEPT]
    assert send(upload(server.url), retries=3)
    assert len(server.requests) == 4
    assert len({request.file for request in server.requests}) == 1
    assert pauses == [1.0, 2.0, 4.0]


def test_pauses_grow_up_to_a_minute(pauses):
    with pytest.raises(TrackingError, match=r"could not be reached within 5 s: .*refused"):
        send(upload(free_address()), retries=8, timeout=5)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_pauses_are_not_all_the_same_and_leave_random_alone(monkeypatch):
    waited, state = [], random.getstate()
    monkeypatch.setattr(sending, "_pause", waited.append)
    for _ in range(20):
        with pytest.raises(TrackingError):
            send(upload(free_address()), retries=1)
    assert random.getstate() == state
    assert all(0.5 <= wait <= 1 for wait in waited)
    assert len(set(waited)) == 20


@pytest.mark.parametrize(
    ("asked", "waited"), [("7", [7.0]), ("0", [1.0]), ("soon", [1.0]), ("61", []), ("9" * 400, []), ("-5", [1.0])]
)
def test_the_server_says_when_to_come_back(server, pauses, asked, waited):
    server.answers, server.headers = [429, ACCEPT], {"Retry-After": asked}
    if waited:
        assert send(upload(server.url))
    else:
        with pytest.raises(TrackingError, match="429 Too Many Requests"):
            send(upload(server.url))
    assert pauses == waited


def test_the_server_may_name_a_date(server, pauses):
    server.answers, server.headers = [503, ACCEPT], {"Retry-After": email.utils.formatdate(0)}
    assert send(upload(server.url))
    assert pauses == [1.0]


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_what_is_never_taken_is_not_tried_again(server, pauses, status):
    server.answers, server.headers = [status], {"Retry-After": "1"}
    with pytest.raises(RefusedUploadError, match=f"did not take the sketches: it answered {status} "):
        send(upload(server.url))
    assert (len(server.requests), pauses) == (1, [])


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "pass the token"), (403, "token that may"), (404, "/upload/"), (409, "409"), (204, "204 No Content")],
)
def test_other_answers_are_not_tried_again_at_once(server, pauses, status, advice):
    server.answers = [status]
    with pytest.raises(TrackingError, match=advice) as raised:
        send(upload(server.url), token=TOKEN)
    assert not isinstance(raised.value, RefusedUploadError)
    assert (len(server.requests), pauses) == (1, [])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(server, status):
    with receiving() as elsewhere:
        server.answers, server.headers = [status], {"Location": elsewhere.url}
        with pytest.raises(TrackingError, match="redirects are not followed"):
            send(upload(server.url), token=TOKEN, retries=2)
        assert (len(server.requests), len(elsewhere.requests)) == (1, 0)


def test_a_server_that_hangs_is_left_in_time(server, pauses):
    server.answers = [HANG]
    with pytest.raises(TrackingError, match=r"could not be reached within 0\.1 s: "):
        send(upload(server.url), timeout=0.1, retries=2)
    assert (len(server.requests), len(pauses)) == (3, 2)


def test_a_lost_answer_is_made_up_for(server, pauses):
    server.answers = [LOSE, ACCEPT]
    assert not send(upload(server.url))
    assert (len(server.requests), len(server.stored)) == (2, 1)


@contextmanager
def raw_server(answer, endless=b"", *, hold=False):
    """A server that sends these bytes, and then more of them without an end, or waits for the client to go."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(answer)
                    while endless:
                        connection.sendall(endless)
                    while hold and connection.recv(65536):
                        pass
                except OSError:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/upload/"
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"HTTP/1.1 abc\r\n\r\n"])
def test_what_is_no_answer_is_raised(answer):
    with raw_server(answer) as url, pytest.raises(TrackingError, match="could not be reached"):
        send(upload(url), retries=0, timeout=5)


@pytest.mark.parametrize("status", [b"503 Down", b"400 No", b"302 Found"])
def test_an_answer_without_an_end_is_not_read(status):
    head = b"HTTP/1.1 " + status + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    with raw_server(head, b"10000\r\n" + b"x" * 65536 + b"\r\n") as url, pytest.raises(TrackingError):
        send(upload(url), retries=0, timeout=5)


@pytest.mark.parametrize(
    ("answer", "timeout"),
    [(b"401 No\r\nContent-Length: 9\r\n\r\n", 0.1), (b"401 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 5)],
)
def test_an_answer_whose_text_does_not_come_still_counts(pauses, answer, timeout):
    with raw_server(b"HTTP/1.1 " + answer, hold=timeout < 1) as url, pytest.raises(TrackingError, match="401"):
        send(upload(url), timeout=timeout)
    assert pauses == []


def test_https_to_a_server_without_it_is_raised(server):
    with pytest.raises(TrackingError, match=r"could not be reached within 5 s: .*SSL"):
        send(upload(server.url.replace("http:", "https:")), retries=0, timeout=5)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"detail": "no such\\r\\nsensor"}', "400 Bad Request; no suchsensor"),
        (b'{"detail": "bad Bearer ' + TOKEN.encode() + b'"}', r"bad Bearer \*\*\*$"),
        (b'{"detail": "' + b"x" * 3000 + b'"}', "Bad Request; x{200}$"),
        (b'{"detail": [1]}', "Bad Request$"),
        (b"[" * 4096, "Bad Request$"),
        (b"\xff", "Bad Request$"),
    ],
)
def test_what_the_server_says_is_passed_on_without_the_token(server, body, told):
    server.answers, server.body = [400], body
    with pytest.raises(RefusedUploadError, match=told) as raised:
        send(upload(server.url), token=TOKEN)
    assert TOKEN not in str(raised.value)


def test_messages_have_the_server_and_not_the_rest_of_the_address(pauses):
    url = free_address() + "deep?key=secret"
    with pytest.raises(TrackingError) as raised:
        send(upload(url), token=TOKEN, retries=1)
    assert "secret" not in str(raised.value)
    assert "deep" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_proxy_of_the_environment_is_used(server, monkeypatch):
    proxy = server.url.removesuffix("/upload/").replace("http://", "http://me:p%40ss@")
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert send(upload("http://lensai.invalid/upload/"))
    (request,) = server.requests
    assert request.path == "http://lensai.invalid/upload/"
    assert request.headers["Proxy-Authorization"] == "Basic bWU6cEBzcw=="
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert not send(upload(server.url))
    assert server.requests[1].path == "/upload/"


def test_a_token_without_encryption_is_warned_of_once(monkeypatch, caplog):
    monkeypatch.setattr(sending, "post", lambda *_: ServerAnswer(201))
    sending._warn_of_plain_http.cache_clear()
    for host in ("http://plain.example", "http://127.0.0.1:1", "http://[::1]", "http://localhost", "https://a.example"):
        for _ in range(2):
            send(upload(f"{host}/upload/"), token=TOKEN)
    send(upload("http://other.example/"))
    (message,) = caplog.messages
    assert message == "the token goes to http://plain.example without encryption: use https://"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"endpoint": "ftp://x/"}, "endpoint should begin"),
        ({"endpoint": "http://[::1"}, "endpoint is no URL"),
        ({"endpoint": "http://x:99999/"}, "endpoint is no URL"),
        ({"endpoint": "http://me:secret@x/"}, "no user name"),
        ({"endpoint": "http://x/\x00"}, "control character"),
        ({"endpoint": 3}, "endpoint should begin"),
        ({"sensor_id": "../x"}, "sensor_id="),
        ({"sensor_id": "x" * 129}, "sensor_id="),
        ({"sensor_id": None}, "sensor_id="),
        ({"timestamp": -1}, "timestamp=-1"),
        ({"timestamp": 1.5}, r"timestamp=1\.5"),
        ({"timestamp": True}, "timestamp=True"),
        ({"token": "a\nb"}, "token should be"),
        ({"token": b"ab"}, "token should be"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"retries": -1}, "retries=-1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    given = {"endpoint": "http://127.0.0.1:9/", "sensor_id": "a", "timestamp": 1, "archive": b""} | arguments
    settings = {name: given.pop(name) for name in ("token", "timeout", "retries") if name in given}
    with pytest.raises(InputError, match=message) as raised:
        send(Upload(**given), **settings)
    assert "secret" not in str(raised.value)


@pytest.mark.slow
def test_urllib3_is_imported_with_the_first_post():
    imports = "import sys, lensai_integrations.edge, lensai_integrations.monitoring.sinks"
    code = f"{imports}; assert 'urllib3' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_is_no_answer_of_http_is_one_line_of_a_message():
    """It is printed by `lensai push`, and may be in a log: no control character of a server's gets there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            link, _ = listener.accept()
            with link:
                link.recv(65_536)
                link.sendall(b"\x1b[2J\x1b]0;owned\x07" + b"a" * 10_000 + b"\r\n2026-01-01 ERROR made up\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ConnectionError) as told:
            posting.post(f"http://127.0.0.1:{listener.getsockname()[1]}/upload/", b"", {}, timeout=10)
        thread.join()
    assert str(told.value).isprintable()
    assert len(str(told.value)) == 200
