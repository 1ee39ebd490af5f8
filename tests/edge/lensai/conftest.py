"""A LensAI server's upload address, on loopback."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclass
class Upload:
    """One request: headers, form fields as text, and the file."""

    headers: Message
    fields: dict[str, str]
    file: bytes


@dataclass
class Server:
    """Where to send to, what came, and what is answered; an answer of 0 is none at all."""

    url: str = ""
    answer: int = 201
    uploads: list[Upload] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server() -> Iterator[Server]:
    known = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kind = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            parts = {
                part.get_param("name", header="content-disposition"): part
                for part in message_from_bytes(kind + body).get_payload()
            }
            texts = {name: part.get_payload(decode=True) for name, part in parts.items()}
            file = texts.pop("file")
            known.uploads.append(Upload(self.headers, {name: text.decode() for name, text in texts.items()}, file))
            if known.answer == 0:
                known.hold.wait(30)
                return
            self.send_response(known.answer)
            if known.answer == 302:
                self.send_header("Location", known.url)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        known.url = f"http://127.0.0.1:{listening.server_port}/upload/"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield known
        known.hold.set()
        listening.shutdown()
        thread.join()
