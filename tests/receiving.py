"""Devices and their archives, and servers to send them to."""

from __future__ import annotations

import contextlib
import io
import tarfile
import threading
import time
import warnings

import numpy as np
import uvicorn
from datasketches import kll_floats_sketch
from sqlalchemy import create_engine

from lensai_integrations.server.app import create_app
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.store import METADATA

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # this client is about to move to another package
    from starlette.testclient import TestClient

WHEN = 1719393854
HOUR = 1719392400


def sketch_of(values, k=200) -> bytes:
    sketch = kll_floats_sketch(k)
    for value in values:
        sketch.update(float(value))
    return sketch.serialize()


def tarred(contents: dict[str, bytes], mode: str = "w:gz") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=tarfile.GNU_FORMAT) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def device(seed: int = 0, n: int = 50, shift: float = 0.0) -> dict[str, bytes]:
    """What a device has in its folder."""
    rng = np.random.default_rng(seed)
    measures = {"noise": 12.0, "brightness": 100.0, "sharpness": 30.0}
    return {
        f"imgstats/{name}.bin": sketch_of(rng.normal(mean + shift, 5, n))
        for name, mean in measures.items()
    }  # fmt: skip


def form(sensor="door-3", timestamp=WHEN, kind="stats", content=None, archive=None):
    """A request of the newer dialect."""
    archive = tarred(content or device()) if archive is None else archive
    data = {"sensor_id": sensor, "timestamp": str(timestamp), "file_type": kind}
    return {"data": data, "files": {"file": ("stats.tar.gz", archive, "application/gzip")}}


def emptied(url: str) -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    METADATA.drop_all(engine)
    engine.dispose()


def client_of(baseline, store, settings=None, tokens=None, **options) -> TestClient:
    app = create_app(baseline, store, settings or Settings(judge_seconds=0), tokens, **options)
    client = TestClient(app, base_url="http://localhost")
    client.service = client.app.state.service
    client.work = lambda now=None: client.service.settler.work(time.time() if now is None else now)
    return client


@contextlib.contextmanager
def listening(app):
    """The application at a port of this machine."""
    # Configuring logging closes the handlers there are: absl's, which TensorFlow brings, would close pytest's capture.
    config = uvicorn.Config(app, port=0, log_config=None, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
