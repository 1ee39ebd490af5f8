"""Who may upload and read."""

from __future__ import annotations

import base64
import os

import pytest

from lensai_integrations.errors import InputError
from lensai_integrations.server.tokens import Grant, TokenFile, Tokens, read_tokens

ALL, DOOR = "a" * 32, "b" * 32


def basic(password, user="anyone"):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def tokens():
    return Tokens(["# everything", f"{ALL}   # the fleet's", "", f"{DOOR} door-3"])


def test_what_tokens_allow(tokens):
    everything, door = tokens.grant(f"Bearer {ALL}"), tokens.grant(f"bearer  {DOOR} ")
    assert (everything.reads, everything.uploads("any")) == (True, True)
    assert (door.reads, door.uploads("door-3"), door.uploads("door-4")) == (False, True, False)
    assert tokens.grant(basic(ALL)) == Grant()


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", f"Bearer {ALL[:-1]}", f"Bearer {ALL}a", f"Token {ALL}", ALL, basic(""), "Basic ???",
     "Basic //79", f"Bearer {ALL.upper()}", "Bearer \udcff", "Bearer #", f"Bearer {DOOR} door-3"],
)  # fmt: skip
def test_what_is_no_token(tokens, header):
    assert tokens.grant(header) is None


def test_tokens_are_found_by_digests_whose_key_nobody_knows(tokens):
    """So how long it takes to find one tells nothing of the others; and nothing is done for each of 10,000."""
    assert all(len(digest) == 32 for digest in tokens._grants)
    assert not set(tokens._grants) & set(Tokens([ALL, f"{DOOR} door-3"])._grants)


def test_tokens_are_not_kept_as_they_are(tokens):
    assert ALL not in repr(vars(tokens))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "has no token"),
        (["# none"], "has no token"),
        (["short"], "line 1 of the token file"),
        ([f"{ALL} door-3 more"], "line 1 of the token file"),
        ([ALL, f"{DOOR} ../door"], "line 2 of the token file: '../door'"),
        (["ä" * 32], "line 1"),
    ],
)
def test_lines_that_are_no_tokens(lines, problem):
    with pytest.raises(InputError, match=problem) as failed:
        Tokens(lines)
    assert ALL not in str(failed.value)


def test_a_file_that_others_may_read_is_warned_of(tmp_path, caplog):
    path = tmp_path / "tokens"
    path.write_text(ALL)
    path.chmod(0o600)
    assert read_tokens(path).grant(f"Bearer {ALL}")
    assert not caplog.text
    path.chmod(0o644)
    read_tokens(path)
    assert "others may read the token file" in caplog.text


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read(tmp_path, content):
    if content:
        (tmp_path / "tokens").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        read_tokens(tmp_path / "tokens")


def test_a_token_may_hold_the_sign_of_comments():
    tokens = Tokens(["0123456789abcdef#more", "#nothing", "fedcba9876543210\t# the fleet's"])
    assert tokens.grant("Bearer 0123456789abcdef") is None
    assert tokens.grant("Bearer 0123456789abcdef#more") == Grant()
    assert tokens.grant("Bearer fedcba9876543210") == Grant()


def test_a_token_stands_once():
    with pytest.raises(InputError, match="line 2 of the token file has the token of an earlier line"):
        Tokens([f"{DOOR} door-3", f"{DOOR} door-4"])


@pytest.fixture
def file(tmp_path):
    """A token file, what it is read by, and seconds that pass when they are told to."""
    path, now = tmp_path / "tokens", [0.0]
    path.write_text(f"{ALL}\n")
    path.chmod(0o600)
    read = TokenFile(path, lambda: now[0])
    read.path, read.now = path, now
    return read


def replaced(path, text):
    """As an editor, or Kubernetes, does it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(path)


def test_a_file_that_has_changed_is_read_again_within_a_second(file):
    replaced(file.path, f"{DOOR} door-3\n")
    assert file.grant(f"Bearer {ALL}") == Grant()
    file.now[0] = 1.0
    assert file.grant(f"Bearer {ALL}") is None
    assert file.grant(f"Bearer {DOOR}") == Grant("door-3")


def test_a_file_written_over_with_as_many_bytes_is_read_again(file):
    about = file.path.stat()
    file.path.write_text(f"{DOOR}\n")
    os.utime(file.path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    file.now[0] = 1.0
    assert (file.grant(f"Bearer {ALL}"), file.grant(f"Bearer {DOOR}")) == (None, Grant())


def test_a_file_that_stays_is_not_read(file, monkeypatch):
    monkeypatch.setattr(type(file.path), "read_text", lambda *_, **__: pytest.fail("read"))
    for second in range(100):
        file.now[0] = float(second)
        assert file.grant(f"Bearer {ALL}")


@pytest.mark.parametrize("content", [None, "short\n", "# nobody\n", f"{DOOR}\n{DOOR}\n"])
def test_a_broken_file_leaves_the_tokens_as_they_were(file, content, caplog):
    file.path.unlink() if content is None else replaced(file.path, content)
    for second in range(1, 30):
        file.now[0] = float(second)
        assert file.grant(f"Bearer {ALL}") == Grant()
        assert file.grant(f"Bearer {DOOR}") is None
    assert caplog.text.count("the tokens from before stay") == 1
    with pytest.raises(InputError, match="token file"):
        file.load()
    replaced(file.path, f"{DOOR}\n")
    file.now[0] = 60.0
    assert (file.grant(f"Bearer {ALL}"), file.grant(f"Bearer {DOOR}")) == (None, Grant())


def test_a_token_keeps_its_digest(file):
    before = dict(file._grants)
    replaced(file.path, f"{DOOR} door-3\n{ALL}\n")
    file.load()
    assert set(before) < set(dict(file._grants))


@pytest.mark.parametrize("kind", ["pipe", "link to a device", "folder"])
def test_what_is_no_file_is_not_waited_for(file, kind):
    """Every request would wait: a pipe that nobody writes into never ends, nor does /dev/zero."""
    file.path.unlink()
    {"pipe": os.mkfifo, "link to a device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](
        file.path
    )
    file.now[0] = 1.0
    assert file.grant(f"Bearer {ALL}") == Grant()
    with pytest.raises(InputError, match="is no regular file"):
        file.load()
    with pytest.raises(InputError, match="is no regular file"):
        TokenFile(file.path)
