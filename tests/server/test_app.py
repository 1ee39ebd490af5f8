"""Under which names the server answers: to a page that has its own name lead here (DNS rebinding) it says nothing."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from receiving import client_of, form

from lensai_integrations.errors import InputError
from lensai_integrations.server.app import Hosts
from lensai_integrations.server.tokens import Tokens

TOKEN = "a" * 32
EVIL = {"Host": "attacker.example:8080"}
KNOWN = ["localhost", "LOCALHOST:8080", "localhost.", "a.localhost:1", "127.0.0.1", "127.0.0.1:8080", "[::1]:8080",
         "192.0.2.7:80", "[2001:db8::1]", socket.gethostname()]  # fmt: skip
UNKNOWN = ["attacker.example", "localhost.attacker.example", "127.0.0.1.attacker.example", "[attacker]", "", " ",
           "127.0.0.1@attacker.example", "attacker.example#localhost", "localhost:8080:80", "::1]", "localhost/..",
           "xlocalhost", "lensai.example.org.attacker.example", "1.2.3", "0x7f.1"]  # fmt: skip


@pytest.mark.parametrize("host", KNOWN)
def test_this_machine(host):
    assert host in Hosts()


@pytest.mark.parametrize("host", UNKNOWN)
def test_somebody_else(host):
    assert host not in Hosts(["lensai.example.org"])


def test_names_that_are_allowed():
    hosts = Hosts(["LensAI.example.org", "*.example.com"])
    assert all(host in hosts for host in ("lensai.example.org", "lensai.example.org.:443", "a.b.example.com:8080"))
    assert not any(host in hosts for host in ("example.com", "aexample.com", "www.lensai.example.org"))
    assert "attacker.example" in Hosts(["*"])


@pytest.mark.parametrize("name", ["http://lensai.example", "lensai.example:8080", "", "a b", "*.", "a.*", "[::1]"])
def test_what_is_no_name(name):
    with pytest.raises(InputError, match=r"allow_host=.* is no name: pass one as 'lensai\.example\.org'"):
        Hosts([name])


@given(st.text(max_size=40))
def test_no_text_is_taken_for_the_server(host):
    assert (f"{host}.attacker.example" in Hosts()) is False


def test_without_tokens_nothing_is_read_or_sent_under_another_name(service):
    service.post("/upload/", **form())
    service.work()
    paths = [path for path in service.get("/openapi.json").json()["paths"] if path not in ("/upload/", "/healthz")]
    for path in [*paths, "/openapi.json", "/none", "/sensors/"]:
        for method in ("GET", "HEAD", "OPTIONS", "POST"):
            answer = service.request(method, path, headers={**EVIL, "Authorization": f"Bearer {TOKEN}"})
            assert (answer.status_code, "door-3" in answer.text) == (421, False)
    assert service.post("/upload/", **form(timestamp=1719393855), headers=EVIL).status_code == 421
    assert service.get("/sensors").json()["sensors"][0]["uploads"] == 1
    assert service.get("/healthz", headers=EVIL).status_code == service.get("/healthz").status_code


def test_the_answer_says_what_to_do_and_nothing_of_what_was_sent(service):
    for accept, kind in (("text/html", "text/html; charset=utf-8"), ("*/*", "application/json")):
        answer = service.get("/sensors", headers={"Host": "<b>.example", "Accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (421, kind)
        assert "--allow-host" in answer.text
        assert "<b>" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_devices_may_use_any_name_where_tokens_are_asked_for(baseline, sqlite):
    client = client_of(baseline, sqlite, tokens=Tokens([TOKEN]))
    signed = {**EVIL, "Authorization": f"Bearer {TOKEN}"}
    assert client.post("/upload/", **form(), headers=signed).status_code == 201
    assert client.get("/sensors", headers=signed).status_code == 200
    assert client.get("/sensors", headers={**signed, "Authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/sensors", headers={**EVIL}).status_code == 421  # a browser, which is not asked for a password
    assert client.get("/sensors", headers={**EVIL}, auth=("any", TOKEN)).status_code == 421


def test_names_can_be_added_and_none_is_needed_where_none_is_sent(baseline, sqlite):
    client = client_of(baseline, sqlite, hosts=["lensai.example"])
    assert client.get("/sensors", headers={"Host": "lensai.example"}).status_code == 200
    twice = [("Host", "localhost"), ("Host", "attacker.example")]
    assert client.get("/sensors", headers=twice).status_code in (400, 421)
