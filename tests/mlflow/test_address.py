"""Addresses in messages carry no credentials, and artifact paths only what every store keeps."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensai_integrations.errors import InputError
from lensai_integrations.mlflow.address import cause, checked_path, without_credentials

PRINTABLE = {"codec": "utf-8", "exclude_categories": ["C", "Z"]}
USER = st.text(st.characters(**PRINTABLE, exclude_characters=":/"), min_size=1, max_size=12)
PASSWORD = st.text(st.characters(**PRINTABLE), min_size=8, max_size=20)


@pytest.mark.parametrize("path", ["lensai", "a", "best/lensai", "v1.2_rc-3", "...", ".hidden", "a/b.c/d"])
def test_paths_of_plain_characters_are_kept(path: str) -> None:
    assert checked_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/lensai",
        "lensai/",
        "a//b",
        ".",
        "..",
        "../x",
        "a/../b",
        "a/.",
        "a b",
        "a#b",
        "a?b",
        "a%20b",
        "a\\b",
        "é",
        "a\n",
    ],
)
def test_other_paths_are_refused_by_name(path: str) -> None:
    with pytest.raises(InputError, match=r"artifact_path=.*letters, digits"):
        checked_path(path)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://host:5000", "http://host:5000"),
        ("https://ada:secret@host/prefix", "https://host/prefix"),
        ("https://token@host", "https://host"),
        ("postgresql+psycopg2://ada:se/cr@et@db.example/mlflow", "postgresql+psycopg2://db.example/mlflow"),
        ("mysql://db/mlflow?password=secret&x=1", "mysql://db/mlflow"),
        ("postgresql://ada:what?#@db/mlflow", "postgresql://db/mlflow"),
        ("http://ada:what?@host:1/x#frag", "http://host:1/x"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite:////home/ada@work/mlflow.db", "sqlite:////home/ada@work/mlflow.db"),
        ("file:///home/ada@work/mlruns", "file:///home/ada@work/mlruns"),
        ("databricks://profile", "databricks://profile"),
        ("./mlruns", "./mlruns"),
    ],
)
def test_shown_addresses_lose_only_credentials_and_query(uri: str, shown: str) -> None:
    assert without_credentials(uri) == shown


@given(user=USER, password=PASSWORD, escaped=st.booleans())
def test_no_password_is_ever_shown(user: str, password: str, escaped: bool) -> None:
    written = (quote(user, safe=""), quote(password, safe="")) if escaped else (user, password)
    uri = f"https://{written[0]}:{written[1]}@host:5000/x"
    error = OSError(f"API request to {uri}/api failed: {password} and {written[1]} are wrong, see {uri}")
    for text in (without_credentials(uri), cause(error, uri)):
        assert password not in text
        assert written[1] not in text


def test_values_of_a_query_are_not_shown_either() -> None:
    uri = "mysql://db/mlflow?ssl_ca=/ca.pem&password=hush%21hush"
    text = cause(RuntimeError(f"no {uri}; hush%21hush; hush!hush"), uri)
    assert "hush" not in text
    assert "mysql://db/mlflow" in text


def test_credentials_of_other_addresses_are_not_shown_either() -> None:
    text = cause(RuntimeError("proxy http://bob:other@proxy:3128/ refused"), "http://host")
    assert text == "RuntimeError: proxy http://proxy:3128/ refused"


def test_a_cause_is_one_short_line_with_both_ends() -> None:
    text = cause(RuntimeError("begins\n  here " + "x" * 10_000 + " Connection refused"), "http://host")
    assert text.startswith("RuntimeError: begins here xxx")
    assert text.endswith("Connection refused")
    assert len(text) < 500


REFUSED = (
    "API request to http://ada:hush@host:1/health failed with exception HTTPConnectionPool(host='host', port=1): "
    "Max retries exceeded with url: /health (Caused by NewConnectionError(\"HTTPConnection(host='host', port=1): "
    'Failed to establish a new connection: [Errno 111] Connection refused"))'
)
TIMED_OUT = (
    "HTTPConnectionPool(host='host', port=1): Max retries exceeded with url: /health (Caused by "
    "ReadTimeoutError(\"HTTPConnectionPool(host='host', port=1): Read timed out. (read timeout=10.0)\"))"
)
PROXY = "Max retries (Caused by ProxyError('Cannot connect to proxy', OSError('http://bob:hush@proxy denied')))"
SECRET_INSIDE = "Max retries (Caused by NewConnectionError('host: wrong password hush'))"


@pytest.mark.parametrize(
    ("text", "root"),
    [
        (REFUSED, "[Errno 111] Connection refused"),
        (TIMED_OUT, "Read timed out. (read timeout=10.0)"),
        (PROXY, f"OSError: {PROXY.replace('bob:hush@', '')}"),
        (SECRET_INSIDE, "wrong password ***"),
    ],
)
def test_of_a_network_error_the_root_is_shown(text: str, root: str) -> None:
    assert cause(OSError(text), "http://ada:hush@host:1") == root


def test_an_error_without_text_is_named() -> None:
    assert cause(TimeoutError(), "http://host") == "TimeoutError"
