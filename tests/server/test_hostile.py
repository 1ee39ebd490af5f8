"""Through a socket, as a stranger would: what is read of a body, and when."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time

import httpx
import pytest
from receiving import WHEN, client_of, device, form, listening, tarred

from lensai_integrations.server import queries
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.tokens import Tokens

TOKEN = "a" * 32
SIGNED = f"Authorization: Bearer {TOKEN}"
MULTIPART = "Content-Type: multipart/form-data; boundary=abc"
LIMIT = 100_000


@pytest.fixture(scope="module")
def server(baseline, tmp_path_factory):
    from lensai_integrations.server.store import Store

    store = Store(tmp_path_factory.mktemp("store"))
    settings = Settings(upload_bytes=LIMIT, upload_seconds=1.0)
    client = client_of(baseline, store, settings, Tokens([TOKEN]))
    with listening(client.app) as port:
        yield port, store
    store.close()


def talk(port, *headers, body=(), method="POST /upload/"):
    """The status and the JSON that come back, and how much of the body was taken."""
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=15) as link:
        lines = [f"{method} HTTP/1.1", "Host: localhost", *headers, "", ""]
        link.sendall("\r\n".join(lines).encode("latin-1"))
        link.settimeout(15)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for chunk in body:
                link.sendall(chunk)
                sent += len(chunk)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := link.recv(65536):
                received += chunk
                if _complete(received):
                    break
    head, _, content = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content), sent


def _complete(received):
    head, end, content = received.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return bool(end) and len(content) >= sum(lengths)


def chunked(n, size=10_000):
    for _ in range(n):
        yield b"%x\r\n" % size + b"x" * size + b"\r\n"


FIELDS = b"".join(
    b'--abc\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value.encode())
    for name, value in form()["data"].items()
)
FILE = b'--abc\r\nContent-Disposition: form-data; name="file"; filename="a.tar.gz"\r\n\r\n'


def test_without_a_token_nothing_is_read(server):
    """The answer comes though not one byte of the body has."""
    status, answer, _ = talk(server[0], MULTIPART, "Content-Length: 50000")
    assert (status, set(answer)) == (401, {"detail"})


def test_a_length_beyond_the_limit_is_refused_before_the_body(server):
    for length in ("100000000", "9" * 18):
        status, answer, _ = talk(server[0], SIGNED, MULTIPART, f"Content-Length: {length}")
        assert status == 413
        assert "upload more often" in answer["detail"]


def test_a_body_without_a_length_is_counted(server):
    body = (b"%x\r\n%s\r\n" % (len(part), part) for part in (FIELDS, FILE))
    status, _, sent = talk(
        server[0], SIGNED, MULTIPART, "Transfer-Encoding: chunked", body=[*body, *chunked(1000)][:60]
    )
    assert status == 413
    assert sent <= 700_000


def test_endless_fields_and_headers_of_parts_are_counted(server):
    endless = [b"--abc\r\n", *[b"X-Header: " + b"y" * 9000 + b"\r\n"] * 40]
    body = [b"%x\r\n%s\r\n" % (len(part), part) for part in endless]
    status, _, _ = talk(server[0], SIGNED, MULTIPART, "Transfer-Encoding: chunked", body=body)
    assert status in (400, 413)


def test_a_body_that_does_not_come_is_waited_for_in_vain(server):
    """It says more than it sends."""
    started = time.monotonic()
    status, answer, _ = talk(server[0], SIGNED, MULTIPART, "Content-Length: 5000", body=[FIELDS])
    assert (status, answer["detail"]) == (408, "the body did not come in time")
    assert time.monotonic() - started < 10


def test_a_device_that_is_gone_leaves_nothing(server):
    port, store = server
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.sendall(
            f"POST /upload/ HTTP/1.1\r\nHost: a\r\n{SIGNED}\r\n{MULTIPART}\r\nContent-Length: 999\r\n\r\n".encode()
        )
        link.sendall(FIELDS)
    assert talk(port, method="GET /healthz")[0] == 200
    assert queries.counts(store).sensors == 0


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "+5", "5, 6"])
def test_lengths_that_are_none(server, length):
    try:
        status, _, _ = talk(server[0], SIGNED, MULTIPART, f"Content-Length: {length}", body=[b"12345"])
    except ValueError:  # the protocol's own answer is no JSON
        return
    assert status == 400


def test_a_real_upload_still_works(server):
    request = form()
    answer = httpx.post(
        f"http://127.0.0.1:{server[0]}/upload/", headers={"Authorization": f"Bearer {TOKEN}"}, **request
    )
    assert (answer.status_code, answer.json()["timestamp"]) == (201, WHEN)


@pytest.mark.slow
def test_one_token_that_announces_and_floods_keeps_nobody_from_sending(baseline, sqlite):
    """It has hundreds of bodies under way that it never sends; a body is waited for for a minute."""
    door, settings = "d" * 32, Settings(memory_bytes=16 * 2**20, upload_bytes=4 * 2**20)
    client = client_of(baseline, sqlite, settings, Tokens([TOKEN, f"{door} door-3"]))
    turns = client.service.turns
    with listening(client.app) as port, contextlib.ExitStack() as stack:
        head = f"POST /upload/ HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {door}\r\n{MULTIPART}\r\n"
        for n in range(300):
            link = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=15))
            link.sendall(f"{head}Content-Length: {4 * 2**20}\r\n\r\n".encode() + FIELDS)
            if n >= 16:  # those have their answer
                assert link.recv(12) == b"HTTP/1.1 429"
        assert turns.uploads.taken == 16
        assert turns.memory.taken < 2**20
        url, fleet = f"http://127.0.0.1:{port}/upload/", {"Authorization": f"Bearer {TOKEN}"}
        answers = [httpx.post(url, headers=fleet, timeout=15, **form("door-4", WHEN + n)) for n in range(5)]
        assert [answer.status_code for answer in answers] == [201] * 5
        refused = httpx.post(url, headers={"Authorization": f"Bearer {door}"}, timeout=15, **form())
        assert (refused.status_code, 2 <= int(refused.headers["retry-after"]) <= 30) == (429, True)
    assert {row.name: row.uploads for row in queries.list_sensors(sqlite, most=9)} == {"door-4": 5}


@pytest.mark.slow
def test_a_fleet_that_uploads_in_the_same_second_is_not_refused(baseline, sqlite):
    """LensAI's C++ profiler loses what is refused. All heads come before any body, as over slow lines."""
    client = client_of(baseline, sqlite, tokens=Tokens([TOKEN]))
    with listening(client.app) as port, contextlib.ExitStack() as stack:
        fleet = []
        for n in range(300):
            request = httpx.Request("POST", f"http://localhost:{port}/upload/", **form(f"door-{n}"))
            head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            link = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            link.sendall(f"POST /upload/ HTTP/1.1\r\n{head}Authorization: Bearer {TOKEN}\r\n\r\n".encode())
            fleet.append((link, request.read()))
        for link, body in fleet:
            link.sendall(body)
        assert {link.recv(12) for link, _ in fleet} == {b"HTTP/1.1 201"}


@pytest.mark.slow
def test_bodies_that_are_half_there_are_no_more_than_half_of_the_memory(baseline, sqlite):
    """A fleet's token, from one address; a device that sends slowly meanwhile loses nothing."""
    settings = Settings(memory_bytes=8 * 2**20, upload_bytes=2 * 2**20)
    door = "d" * 32
    client = client_of(baseline, sqlite, settings, Tokens([TOKEN, f"{door} door-3"]))
    body = FIELDS + FILE + tarred(device()) + b"\r\n--abc--\r\n"
    with listening(client.app) as port, contextlib.ExitStack() as stack:
        slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=15))
        own = SIGNED.replace(TOKEN, door)
        slow.sendall(f"POST /upload/ HTTP/1.1\r\nHost: a\r\n{own}\r\n{MULTIPART}\r\n".encode())
        slow.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body[:100]))
        answers = []
        for _ in range(12):
            link = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=15))
            link.sendall(f"POST /upload/ HTTP/1.1\r\nHost: a\r\n{SIGNED}\r\n{MULTIPART}\r\n".encode())
            link.sendall(b"Content-Length: %d\r\n\r\n%s" % (2 * 2**20, FIELDS + FILE))
            with contextlib.suppress(OSError):
                link.sendall(bytes(2**20))
            answers.append(link)
        refused = []
        while not refused:
            assert client.service.turns.memory.taken <= 4 * 2**20 + 2**16
            refused = [link for link in select.select(answers, [], [], 15)[0] if b" 429 " in link.recv(100)]
        for at in range(100, len(body), 500):
            slow.sendall(body[at : at + 500])
        assert slow.recv(12) == b"HTTP/1.1 201"
    assert client.service.turns.memory.taken == 0
