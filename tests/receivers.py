"""A LensAI server's upload address on loopback, which does as a test says; forms are read by python-multipart."""

from __future__ import annotations

import contextlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from python_multipart import parse_form

#: Answers beside a status: 201 or 200 as a server would; take it in and break the connection; none in time.
ACCEPT, LOSE, HANG = "accept", "lose", "hang"


@dataclass
class Received:
    """One request."""

    path: str
    headers: Message
    fields: dict[str, str]
    name: str
    file: bytes

    @property
    def key(self) -> tuple[str, int]:
        return self.fields["sensor_id"], int(self.fields["timestamp"])

    def members(self) -> dict[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(self.file), mode="r:gz") as tar:
            return {member.name: tar.extractfile(member).read() for member in tar}


@dataclass
class Receiver:
    """Where to send to, what is answered (in turn, the last for ever), and what came."""

    url: str = ""
    answers: list[int | str] = field(default_factory=lambda: [ACCEPT])
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    requests: list[Received] = field(default_factory=list)
    stored: dict[tuple[str, int], bytes] = field(default_factory=dict)
    end: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, received: Received) -> int | str:
        with self.lock:
            self.requests.append(received)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer not in (ACCEPT, LOSE):
                return answer
            known = received.key in self.stored
            self.stored.setdefault(received.key, received.file)
            return LOSE if answer == LOSE else 200 if known else 201


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    known = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer = known.answer(read(self))
            if answer in (HANG, LOSE):
                known.end.wait(20 if answer == HANG else 0)
                self.close_connection = True
                return
            self.send_response_only(int(answer))
            general = {"Date": self.date_time_string(), "Content-Length": str(len(known.body))}
            for name, value in (general | known.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(known.body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that went away is no news."""

    with Server(("127.0.0.1", 0), Handler) as server:
        known.url = f"http://127.0.0.1:{server.server_port}/upload/"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield known
        known.end.set()
        server.shutdown()
        thread.join()


def read(request: BaseHTTPRequestHandler) -> Received:
    body = request.rfile.read(int(request.headers["Content-Length"]))
    fields, files = [], []
    headers = {name: request.headers[name].encode() for name in ("Content-Type", "Content-Length")}
    parse_form(headers, io.BytesIO(body), fields.append, files.append)
    (file,) = files
    file.file_object.seek(0)
    assert file.field_name == b"file"
    texts = {each.field_name.decode(): each.value.decode() for each in fields}
    assert len(texts) == len(fields)
    return Received(request.path, request.headers, texts, file.file_name.decode(), file.file_object.read())


def free_address() -> str:
    """An address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/upload/"
