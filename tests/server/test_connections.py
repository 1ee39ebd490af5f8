"""Connections are counted and timed: half a head, silence, an answer nobody reads. Only the clock is not real."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

import pytest
import uvicorn

from lensai_integrations.server import connections as module
from lensai_integrations.server.connections import GRACE, QUIET, Connections, GuardedApp, listen, most_connections

LARGE = 32 * 2**20


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def doors(clock):
    """Two places, a listener, and clients that have connected."""
    with contextlib.ExitStack() as stack:
        known = Connections(2, clock)
        (listener,) = listen("127.0.0.1", 0, known)
        stack.enter_context(listener)
        listener.listen()
        known.address, known.listener, known.accepted = listener.getsockname(), listener, []

        def connect():
            return stack.enter_context(socket.create_connection(known.address, timeout=5))

        def accept():
            accepted, peer = listener.accept()
            accepted.setblocking(False)
            stack.enter_context(accepted)
            return accepted, peer

        known.connect, known.take = connect, accept
        yield known


def ended(client):
    client.settimeout(5)
    return client.recv(1) == b""


def is_open(client):
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    return True


def test_the_longest_quiet_one_ends_for_the_next(doors, clock):
    clients, taken = [], []
    for _ in range(2):
        clients.append(doors.connect())
        taken.append(doors.take())
        clock.now += 1
    late = doors.connect()
    with pytest.raises(BlockingIOError):
        doors.take()
    assert ended(clients[0])
    assert ended(clients[1])  # some places are made at once
    for connection, _ in taken:  # as the event loop does when it sees the end
        connection.close()
    doors.take()
    assert (len(doors), is_open(late)) == (1, True)


def test_who_has_just_come_makes_no_room(doors, clock):
    """Of a fleet that connects in the same second the heads are on their way; the kernel has the others wait."""
    clients = [doors.connect(), doors.connect()]
    for _ in clients:
        doors.take()
    doors.connect()
    clock.now += GRACE / 2
    with pytest.raises(BlockingIOError):
        doors.take()
    assert all(map(is_open, clients))
    clock.now += GRACE / 2
    with pytest.raises(BlockingIOError):
        doors.take()
    clients[0].setblocking(True)
    assert ended(clients[0])


def test_a_request_under_way_and_what_has_come_are_left_alone(doors, clock):
    working, sent, late = doors.connect(), doors.connect(), None
    peer = doors.take()[1]
    doors.take()
    sent.sendall(b"GET / HTTP/1.1\r\n")
    late = doors.connect()
    clock.now += GRACE
    with doors.busy(peer):
        with pytest.raises(BlockingIOError):
            doors.take()
        clock.now += 0.2  # the event loop has had its time
        with pytest.raises(OSError, match="has a request under way") as full:
            doors.take()
        assert full.value.errno == errno.EMFILE
        with pytest.raises(BlockingIOError):  # asyncio asks some times more, and each error has it wait a second
            doors.take()
        assert is_open(working)
        assert is_open(sent)
        assert is_open(late)
    clock.now += GRACE
    with pytest.raises(BlockingIOError):
        doors.take()
    assert ended(working)


def test_what_does_not_end_though_it_should_keeps_no_processor_busy(doors, clock):
    for _ in range(2):
        doors.connect()
        doors.take()
    doors.connect()
    clock.now += GRACE
    for _ in range(2):  # both end, but nobody closes them
        with pytest.raises(BlockingIOError):
            doors.take()
        clock.now += 2
    clock.now += 2
    with pytest.raises(OSError, match="has a request under way"):
        doors.take()


def test_quiet_for_too_long(doors, clock):
    first, second = doors.connect(), doors.connect()
    peer = doors.take()[1]
    clock.now += 1
    doors.take()
    clock.now += QUIET - 1
    doors.sweep()
    assert ended(first)
    assert is_open(second)
    with doors.busy(peer):
        pass  # it has ended: there is nothing to do
    clock.now += 1
    doors.sweep()
    assert ended(second)


def test_no_bytes_that_come_make_a_head_last(doors, clock):
    client = doors.connect()
    accepted, _ = doors.take()
    for _ in range(int(QUIET)):
        client.sendall(b"a")
        accepted.recv(1)
        clock.now += 1
        doors.sweep()
    assert ended(client)


def test_bytes_that_are_taken_do(doors, clock):
    client = doors.connect()
    accepted, _ = doors.take()
    for _ in range(3):
        clock.now += QUIET - 1
        doors.sweep()
        accepted.send(b"answer")
        assert client.recv(6) == b"answer"
    clock.now += QUIET
    doors.sweep()
    assert ended(client)


def test_no_file_is_left(doors, clock, monkeypatch):
    def refuse(_):
        raise OSError(errno.EMFILE, "Too many open files")

    client = doors.connect()
    doors.take()
    clock.now += GRACE
    monkeypatch.setattr(socket.socket, "accept", refuse)
    with pytest.raises(BlockingIOError):
        doors.take()
    assert ended(client)


def test_what_lasts_is_logged_once(doors, clock, caplog):
    for _ in range(10):
        doors.connect()
        with contextlib.suppress(OSError):
            doors.take()
        clock.now += 2
    assert caplog.text.count("2 connections are open, the most there may be") == 1


def test_connections_that_never_had_a_request_leave_no_memory(clock, monkeypatch):
    collected = []
    monkeypatch.setattr(module.gc, "collect", lambda: collected.append(1))
    known = Connections(1000, clock)
    (listener,) = listen("127.0.0.1", 0, known)
    with listener:
        listener.listen()
        for _ in range(64):
            with socket.create_connection(listener.getsockname()), listener.accept()[0]:
                pass
    assert (len(known), collected) == (0, [1])


@pytest.mark.parametrize(
    ("soft", "hard", "most", "raised"),
    [(1024, 1024, 768, 1024), (1024, 524288, 5000, 5256), (256, 2**63 - 1, 5000, 5256), (100, 100, 50, 100),
     (-1, -1, 5000, -1), (1024, -1, 5000, 5256)],
)  # fmt: skip
def test_as_many_as_there_are_files_for(monkeypatch, soft, hard, most, raised):
    resource = pytest.importorskip("resource")
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    assert most_connections() == most
    assert limits[-1] == (raised, hard)
    assert most_connections(tls=True) == min(500, most)


def test_a_name_is_listened_at_wherever_it_leads():
    known = Connections(10)
    listeners = listen("localhost", 0, known)
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    port = listeners[0].getsockname()[1]
    with contextlib.ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(listener)
        listeners[0].listen()
        with pytest.raises(OSError) as used:  # noqa: PT011
            listen("localhost", port, known)
        assert used.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError):  # noqa: PT011
        listen("192.0.2.1", 0, known)


async def app(scope, receive, send):
    """`/large`: an answer; `/wait`: one when it is told to; else a short one."""
    if scope["path"] == "/wait":
        app.came.set()
        await app.go.wait()
    body = bytes(LARGE) if scope["path"] == "/large" else b"ok"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def running(clock, grace=5):
    known = Connections(50, clock)
    (listener,) = listen("127.0.0.1", 0, known)
    config = uvicorn.Config(
        GuardedApp(app, known), http="h11", ws="none", loop="asyncio", lifespan="off", log_config=None,
        log_level="critical", timeout_graceful_shutdown=grace,
    )  # fmt: skip
    server = uvicorn.Server(config)
    app.came, app.go = asyncio.Event(), asyncio.Event()
    with listener:
        task = asyncio.create_task(server._serve([listener]))
        while not server.started:
            await asyncio.sleep(0.001)
        try:
            yield listener.getsockname()[1], known, server
        finally:
            server.should_exit = True
            app.go.set()
            await task


async def ask(port, path, limit=2**16):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return reader, writer


def test_half_a_head_and_an_answer_that_is_not_read_end(clock):
    async def main():
        async with running(clock) as (port, known, _):
            half = await asyncio.open_connection("127.0.0.1", port)
            half[1].write(b"GET / HTTP/1.1\r\n")
            unread = [await ask(port, "/large", 1000) for _ in range(2)]
            pipelined = await ask(port, "/large", 1000)
            pipelined[1].write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
            working = await ask(port, "/wait")
            await app.came.wait()
            for reader, _ in (*unread, pipelined):
                assert await reader.read(4) == b"HTTP"
            for _ in range(3):  # until the kernels have taken what they can hold
                await asyncio.sleep(0.05)
            clock.now += QUIET + 1
            known.sweep()
            assert await half[0].read() == b""
            while len(known) > 1:
                await asyncio.sleep(0.001)
            app.go.set()
            assert (await working[0].read(15)) == b"HTTP/1.1 200 OK"
            for _, writer in (half, *unread, pipelined, working):
                writer.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_request_under_way_is_answered_though_the_server_stops(clock):
    async def main():
        async with running(clock) as (port, _, server):
            idle = await ask(port, "/")
            await idle[0].readuntil(b"ok")
            working = await ask(port, "/wait")
            await app.came.wait()
            server.should_exit = True
            assert await idle[0].read() == b""
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            app.go.set()
            assert (await working[0].read()).startswith(b"HTTP/1.1 200 OK")
            for _, writer in (idle, working):
                writer.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_one_that_takes_too_long_is_asked_to_come_again(clock):
    async def main():
        async with running(clock, grace=0) as (port, _, server):
            reader, writer = await ask(port, "/wait")
            await app.came.wait()
            server.should_exit = True
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 5\r\n" in answer.lower()
            writer.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_connection_is_quiet_again_after_the_last_of_its_requests(doors, clock):
    doors.connect()
    peer = doors.take()[1]
    first, second = doors.busy(peer), doors.busy(peer)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # the next request began before this one had ended to the last line
    clock.now += 2 * QUIET
    doors.sweep()
    assert not doors._leaving
    second.__exit__(None, None, None)
    clock.now += QUIET
    doors.sweep()
    assert len(doors._leaving) == 1
