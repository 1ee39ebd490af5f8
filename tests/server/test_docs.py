"""The page's snippets run as they stand."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess

import pytest
from certificates import make
from click.testing import CliRunner
from receiving import HOUR, client_of, device, form, listening
from snippets import DOCS, run_section

from lensai_integrations.cli import cli
from lensai_integrations.server import intake, serving
from lensai_integrations.server.ledger import Outcome
from lensai_integrations.server.tokens import Tokens, read_tokens

TOKEN = "a" * 32
PAGE = (DOCS / "receiver.md").read_text(encoding="utf-8")


def snippets(language, heading=""):
    part = PAGE.split(f"\n## {heading}")[1].split("\n## ")[0] if heading else PAGE
    return re.findall(rf"```{language}\n(.*?)```", part, re.DOTALL)


def test_every_command_line_starts_a_server(monkeypatch, baseline, tmp_path):
    """With a baseline and a store that are there; options are what the command knows."""
    ran = []
    monkeypatch.setattr(serving, "_run", lambda app, *_: ran.append(app))
    monkeypatch.setattr(serving, "_listeners", lambda *_: [])
    (tmp_path / "tokens").write_text(TOKEN)
    folder = str(baseline.save(tmp_path / "baseline"))
    lines = [
        line
        for part in snippets("bash") + snippets("ini")
        for line in part.replace("\\\n", "").splitlines()
        if "lensai serve" in line
    ]
    make(tmp_path / "cert.pem", tmp_path / "key.pem")
    for line in lines:
        words = shlex.split(line.split("lensai serve")[1])
        here = {"--baseline": folder, "--store": str(tmp_path / "store"), "--token-file": str(tmp_path / "tokens")}
        here |= {"--tls-cert": str(tmp_path / "cert.pem"), "--tls-key": str(tmp_path / "key.pem")}
        for option, value in here.items():
            if option in words:
                words[words.index(option) + 1] = value
        env = {"LENSAI_STORE": str(tmp_path / "store")}
        done = CliRunner().invoke(cli, ["serve", *words], env=env, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert len(ran) == len(lines) == 6


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_the_token_file(tmp_path):
    subprocess.run(["bash", "-euc", snippets("bash", "Tokens")[0]], cwd=tmp_path, check=True)
    assert read_tokens(tmp_path / "tokens")
    assert (tmp_path / "tokens").stat().st_mode & 0o077 == 0


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_sending_by_hand(baseline, sqlite, tmp_path):
    (tmp_path / "device" / "imgstats").mkdir(parents=True)
    for name, content in device().items():
        (tmp_path / "device" / name).write_bytes(content)
    with listening(client_of(baseline, sqlite, tokens=Tokens([TOKEN])).app) as port:
        command = f"TOKEN={TOKEN}\n" + snippets("bash", "Send")[0].replace("localhost:8080", f"127.0.0.1:{port}")
        done = subprocess.run(["bash", "-euc", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["status"] == "created"


def test_asking(baseline, sqlite, capsys):
    client = client_of(baseline, sqlite, tokens=Tokens([TOKEN]))
    client.headers["authorization"] = f"Bearer {TOKEN}"
    assert client.post("/upload/", **form()).status_code == 201
    client.work()
    with listening(client.app) as port:
        run_section("receiver.md", "Ask", {"server": f"http://127.0.0.1:{port}", "token": TOKEN})
    assert capsys.readouterr().out.startswith(f"{HOUR} 50 True ['inputs/")


def test_what_needs_no_token_and_every_result_of_an_upload_are_named(baseline, sqlite):
    (named,) = re.findall(r"((?:`/[^`]+`\s(?:and\s)?)+)need none", PAGE)
    client = client_of(baseline, sqlite, tokens=Tokens([TOKEN]))
    paths = [path for path in client.get("/openapi.json").json()["paths"] if "{" not in path and path != "/upload/"]
    free = {path for path in [*paths, "/openapi.json"] if client.get(path).status_code != 401}
    assert set(re.findall(r"`([^`]+)`", named)) == free
    results = re.search(r"`lensai_uploads_total.result.` \| (.*) \|", PAGE)[1]
    later = {"over share", "unavailable", "ahead"}
    assert set(re.findall("`([^`]+)`", results)) == {*Outcome, *intake._RESULTS.values(), *later, "refused", "failed"}


def test_from_python(baseline, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = {"baseline": baseline, "token": TOKEN}
    run_section("receiver.md", "From Python", given)
    assert given["app"].state.service.settings.judge_seconds == 300
    given["app"].state.service.settler.work(0.0)
    given["store"].close()
    assert capsys.readouterr().out == ""


def test_every_address_and_metric_of_the_page_is_there(service):
    service.post("/upload/", **form())
    service.work()
    paths = set(service.get("/openapi.json").json()["paths"]) | {"/openapi.json"}
    table = PAGE.split("\n## Ask")[1].split("```")[0]
    for address in re.findall(r"`(/[^`]*)`", table):
        assert address.split("?")[0] in paths
    told = service.get("/metrics").text
    for name in re.findall(r"lensai_[a-z_]+", PAGE.split("\n## Prometheus")[1].split("\n## ")[0]):
        assert name in told, name
