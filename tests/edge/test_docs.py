"""The page's snippets run as they stand."""

from __future__ import annotations

import numpy as np
import pytest
from receivers import receiving
from snippets import run_section

from lensai_integrations import Profiler, edge
from lensai_integrations.edge import sending
from lensai_integrations.storage import posting


@pytest.fixture
def devices(tmp_path, monkeypatch):
    """A folder of devices, beside which the snippets run."""
    profiler = Profiler(convention="lensai-edge", seed=0)
    rng = np.random.default_rng(0)
    given = {
        "images": rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8),
        "logits": rng.normal(size=(60, 3)).astype(np.float32),
    }
    profiler.update(inputs=given["images"], outputs=given["logits"])
    for name in ("reference", "sensor1"):
        edge.write_stats(profiler.profile(), tmp_path / "devices" / name / "1719393854")
    monkeypatch.chdir(tmp_path)
    return {**given, "baseline": profiler.profile()}


@pytest.mark.parametrize("heading", ["Read and compare", "Compare with a baseline", "Write for devices"])
def test_snippets_run(heading, devices, capsys, tmp_path):
    run_section("edge.md", heading, devices)
    told = capsys.readouterr().out
    if heading.startswith("Read"):
        assert told == "False [] []\nreference 1719393854 60\nsensor1 1719393854 60\n"
    elif heading.startswith("Compare"):
        assert not devices["report"].drift
        assert {group.name for group in devices["report"].groups} == {"inputs/lensai-edge", "outputs"}
        assert (tmp_path / "config.ini").exists()
    else:
        assert "sensorId = door-3" in (tmp_path / "device" / "config.ini").read_text()


def test_sending_runs_and_keeps(devices, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sending, "_pause", lambda seconds: None)
    with receiving() as server:
        server.answers = [201, 401]
        monkeypatch.setattr(sending, "post", lambda _, *rest: posting.post(server.url, *rest))
        for _ in range(2):
            run_section("edge.md", "Send to a server", devices | {"token": "t0ken"})
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "delivered"
    assert told[1].endswith("; it is kept, deliver it with: lensai push lensai_spool")
    assert len(server.requests) == 2
    assert len(list((tmp_path / "lensai_spool").glob("*.upload"))) == 1
