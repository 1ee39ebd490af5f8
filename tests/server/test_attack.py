"""A process with 1,024 files, and more clients than that who never say what they want: others are answered."""

from __future__ import annotations

import contextlib
import signal
import socket
import time

import httpx
import pytest
from certificates import make
from receiving import form
from serving_process import serving

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.slow

CLIENTS = 1100
HEAD = b"POST /upload/ HTTP/1.1\r\nHost: localhost\r\n"
ALL, DOOR = "a" * 32, "b" * 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory, baseline):
    folder = tmp_path_factory.mktemp("attack")
    baseline.save(folder / "baseline")
    return folder


@pytest.fixture(autouse=True)
def files():
    """As many as the clients need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 2 * CLIENTS:
        pytest.skip(f"clients need more files than {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * CLIENTS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def crowd(port, first):
    """Clients that connect, send some bytes and stay; `send` has all of them send more."""
    with contextlib.ExitStack() as stack:
        links = []

        def send(content):
            for link in links:
                with contextlib.suppress(OSError):  # those whose place was needed
                    link.send(content)

        for _ in range(CLIENTS):
            links.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)))
            if first:
                links[-1].send(first)
        yield send


def answered_soon(server):
    began = time.monotonic()
    assert server.get().status_code == 200  # within five seconds at the latest, on a machine that is busy
    return time.monotonic() - began


def test_half_heads_and_silence(folder, tmp_path):
    with serving(tmp_path, folder / "baseline", few_files=True) as server:
        ask_for_nonsense(server.port)
        for first in (HEAD, b""):
            with crowd(server.port, first) as send:
                for _ in range(3):
                    answered_soon(server)
                    send(b"X")  # a head that grows is still none
            answered_soon(server)
        with crowd(server.port, HEAD):
            assert server.stop() == 0
        told = server.log.read_text()
        for once in ("768 connections are open, the most there may be", "Invalid HTTP request"):
            assert told.count(once) == 1
        assert (len(told) < 10_000, "Traceback" in told) == (True, False)


def test_handshakes_that_never_end(folder, tmp_path):
    make(tmp_path / "cert.pem", tmp_path / "key.pem")
    options = ["--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem")]
    with serving(tmp_path, folder / "baseline", *options, few_files=True) as server:
        with crowd(server.port, bytes.fromhex("16030100")):
            answered_soon(server)
        answered_soon(server)
        make(tmp_path / "cert.pem", tmp_path / "key.pem")
        server.process.send_signal(signal.SIGHUP)
        server.wait(lambda: "were read again" in server.log.read_text())
        answered_soon(server)
        assert server.stop() == 0
        assert len(server.log.read_text()) < 10_000


NONSENSE = (b"\0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")


def ask_for_nonsense(port):
    for content in NONSENSE:
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
                link.sendall(content)
                assert link.recv(9) == b"HTTP/1.1 "


def test_hup_has_the_tokens_read_again_and_term_has_requests_answered(folder, tmp_path):
    (tmp_path / "tokens").write_text(ALL)
    (tmp_path / "tokens").chmod(0o600)
    with serving(tmp_path, folder / "baseline", "--token-file", str(tmp_path / "tokens")) as server:
        signed = [{"Authorization": f"Bearer {token}"} for token in (ALL, DOOR)]
        again, stays = "tokens and certificate were read again", "what was before stays: line 1 of the token file"
        for content, statuses, says in (
            (DOOR, [401, 200], again),
            ("broken", [401, 200], stays),
            (ALL, [200, 401], again),
        ):
            (tmp_path / "tokens").write_text(content)
            told = len(server.log.read_text())
            server.process.send_signal(signal.SIGHUP)
            server.wait(lambda told=told, says=says: f"SIGHUP: {says}" in server.log.read_text()[told:])
            assert [server.get("/sensors", headers=each).status_code for each in signed] == statuses
        assert server.log.read_text().count(f"SIGHUP: {again}") == 2
        assert send_while_it_stops(server, signed[0]).startswith(b"HTTP/1.1 201")
        assert server.process.wait(30) == 0


def send_while_it_stops(server, headers):
    """What an upload is answered of which a part has come when the server is asked to stop."""
    request = httpx.Request("POST", f"{server.url}/upload/", headers=headers, **form())
    body = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as link:
        link.sendall(f"POST /upload/ HTTP/1.1\r\n{head}\r\n".encode() + body[:100])
        server.get()  # by now the head has been read
        server.process.terminate()
        server.wait(lambda: not listens(server.port))
        link.sendall(body[100:])
        return link.recv(12)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_port_in_use_is_told_before_the_store_is_opened(folder, tmp_path, baseline):
    from lensai_integrations.errors import InputError
    from lensai_integrations.server.serving import serve

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"cannot listen at host='127.0.0.1', port={port}: .*another --port"):
            serve(baseline, tmp_path / "store", port=port)
    with pytest.raises(InputError, match=r"cannot listen at host='no\.such\.host\.invalid'"):
        serve(baseline, tmp_path / "store", host="no.such.host.invalid", no_tokens=True)
    assert not (tmp_path / "store").exists()
