"""`lensai serve`: what it refuses, and a whole run as a process."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from click.testing import CliRunner
from receiving import form

from lensai_integrations.cli import cli
from lensai_integrations.errors import InputError
from lensai_integrations.server import serving
from lensai_integrations.server.serving import serve
from lensai_integrations.server.settings import Settings
from lensai_integrations.storage.posting import is_loopback


@pytest.fixture
def run(monkeypatch):
    """What the server would have been run with."""
    ran, places = [], []
    monkeypatch.setattr(serving, "_listeners", lambda host, port, _: places.append((host, port)) or [])
    monkeypatch.setattr(serving, "_run", lambda app, *_: ran.append((app.state.service, places[-1])))
    return ran


def test_the_command_and_its_options(run, baseline, tmp_path):
    folder = str(baseline.save(tmp_path / "baseline"))
    (tmp_path / "tokens").write_text("a" * 32)
    options = ["--port", "9", "--keep-days", "7", "--max-sensors", "5", "--judge-seconds", "0", "--host", "0.0.0.0"]
    done = CliRunner().invoke(
        cli,
        ["serve", "--baseline", folder, "--token-file", str(tmp_path / "tokens"), *options],
        env={"LENSAI_STORE": str(tmp_path / "store")},
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    ((service, given),) = run
    assert given == ("0.0.0.0", 9)
    assert service.settings == Settings(keep_days=7, sensors=5, judge_seconds=0)
    assert service.tokens.grant("Bearer " + "a" * 32)
    assert service.name == folder
    assert (tmp_path / "store" / "lensai.db").exists()
    assert "64 images\n" in done.output


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_without_tokens_only_for_this_machine(run, baseline, tmp_path, host):
    with pytest.raises(InputError, match="can be reached from other machines: pass --token-file"):
        serve(baseline, tmp_path, host=host)
    serve(baseline, tmp_path, host=host, no_tokens=True)
    assert [service.tokens for service, _ in run] == [None]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_addresses_of_this_machine(run, baseline, tmp_path, host):
    assert is_loopback(host)
    serve(baseline, tmp_path, host=host)
    assert len(run) == 1


@pytest.mark.parametrize(
    "wrong", [{"keep_days": 0}, {"upload_bytes": -1}, {"judge_seconds": -1}, {"false_alarm_rate": 1}]
)
def test_settings_that_are_none(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Settings(**wrong)


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["nginx", "*", "172.18.0.1/16", "localhost", ""])
def test_a_proxy_that_would_never_be_believed(run, baseline, tmp_path, proxy):
    with pytest.raises(InputError, match=f"trusted_proxy={re.escape(repr(proxy))} is no address"):
        serve(baseline, tmp_path, trusted_proxies=["127.0.0.1", "::1", "10.0.0.0/8", proxy])


@pytest.mark.slow
def test_its_help_needs_nothing_that_is_not_installed():
    code = "import sys\nfrom lensai_integrations.cli import cli\nprint({'fastapi', 'sqlalchemy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.slow
def test_a_whole_run(baseline, tmp_path):
    """Started as people start it, sent to, asked, and ended; started again it knows what it was sent."""
    folder, store = baseline.save(tmp_path / "baseline"), tmp_path / "store"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [sys.executable, "-c", "from lensai_integrations.cli import main; main()"]
    command = [*start, "serve", "--baseline", str(folder), "--store", str(store)]
    for expected in (201, 200):
        with subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.PIPE, text=True) as process:
            try:
                with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                    wait_for(client)
                    assert client.post("/upload/", **form()).status_code == expected
                    assert client.get("/sensors").json()["sensors"][0]["uploads"] == 1
            finally:
                process.send_signal(signal.SIGTERM)
                told = process.communicate(timeout=30)[1]
        assert process.returncode == 0, told
        assert "Traceback" not in told
        assert re.search(r"listens at http://127\.0\.0\.1:\d+/\n", told)


def wait_for(client):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if client.get("/healthz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail("the server has not started")
