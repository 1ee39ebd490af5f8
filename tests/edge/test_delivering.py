"""Spools that are delivered: in order, once, whoever else pushes, dies, or has put files there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from receivers import ACCEPT, free_address, receiving

from lensai_integrations import edge
from lensai_integrations.edge import publishing, sending
from lensai_integrations.edge import spool as spools
from lensai_integrations.edge.sending import Upload, archive
from lensai_integrations.errors import InputError

TESTS = Path(__file__).parents[1]
TOKEN = "t0ken-of-nobody"


@pytest.fixture
def server():
    with receiving() as known:
        yield known


@pytest.fixture
def spool(tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "_pause", lambda seconds: None)
    return tmp_path / "spool"


def keep(spool, url, *timestamps, sensor="door-3"):
    return [
        spools.keep(spool, Upload(url, sensor, when, archive({"imgstats/noise.bin": b"1"}, when)), 2**28)
        for when in timestamps
    ]


def times(server):
    return [request.key[1] for request in server.requests]


def test_the_oldest_is_first(server, spool):
    keep(spool, server.url, 30, 4, 2**39, 9, 1719393854)
    assert edge.deliver(spool).delivered == 5
    assert times(server) == [4, 9, 30, 1719393854, 2**39]
    assert [path.name for path in spool.iterdir()] == [spools.MARK]


def test_what_is_never_taken_is_set_aside_and_stops_nothing(server, spool):
    first, *_ = keep(spool, server.url, 1, 2, 3)
    server.answers = [413, ACCEPT]
    done = edge.deliver(spool)
    assert (done.delivered, list(done.problems)) == (2, [first.name])
    assert "413" in done.problems[first.name]
    assert done.problems[first.name].endswith(f"; moved to {spool / 'refused'}")
    assert sorted(path.suffix for path in (spool / "refused").iterdir()) == [".txt", ".upload"]
    (why,) = done.refused.values()
    assert re.fullmatch(r"http://127.0.0.1:\d+ did not take .*413.* larger than the server takes", why)
    assert edge.deliver(spool) == publishing.Delivery(refused={first.name: why})


def test_what_was_refused_is_sent_again_by_pushing_its_folder(server, spool):
    """Several at once; those that are refused again stay there, with the newer reason."""
    paths = keep(spool, server.url, 1, 2, 3)
    server.answers = [422]
    assert list(edge.deliver(spool).refused) == [path.name for path in paths]
    server.answers = [ACCEPT, 413, ACCEPT]
    done = edge.deliver(spool / "refused")
    assert (done.delivered, list(done.problems), done.refused) == (2, [paths[1].name], {})
    assert sorted(path.name for path in (spool / "refused").iterdir()) == [
        paths[1].with_suffix(".txt").name, paths[1].name
    ]  # fmt: skip
    assert "413" in edge.deliver(spool).refused[paths[1].name]
    assert edge.deliver(spool / "refused").delivered == 1
    assert edge.deliver(spool / "refused") == edge.deliver(spool) == publishing.Delivery()
    assert list((spool / "refused").iterdir()) == []


@pytest.mark.parametrize(("reason", "told"), [(None, "no reason is kept"), (b"a\x1b[31m\n\xffb" * 900, "a[31m �b")])
def test_reasons_that_others_left_are_bounded(server, spool, reason, told):
    (path,) = keep(spool, server.url, 1)
    server.answers = [400]
    edge.deliver(spool)
    text = spool / "refused" / path.with_suffix(".txt").name
    text.unlink()
    if reason is not None:
        text.write_bytes(reason)
    (why,) = edge.deliver(spool).refused.values()
    assert why.startswith(told)
    assert why.isprintable()
    assert len(why) <= 1000


def at(when):
    return {"Date": formatdate(when, usegmt=True)}


@pytest.mark.parametrize("status", [400, 422, 503])
def test_a_server_whose_clock_is_behind_loses_nothing(server, spool, status):
    """Of any release: they answered 400 once, which else is for ever."""
    now = int(time.time())
    _, new = keep(spool, server.url, now - 5 * 86400, now)
    server.headers, server.answers = at(now - 3 * 86400) | {"Retry-After": "60"}, [ACCEPT, status]
    done = edge.deliver(spool)
    assert (done.delivered, list(done.problems), done.refused) == (1, [new.name], {})
    assert "is ahead of that server's clock, " in done.problems[new.name]
    assert sending.utc(now) in done.problems[new.name]
    assert len(server.requests) == 2  # it is no use to wait a minute
    server.headers, server.answers = at(now), [ACCEPT]
    assert edge.deliver(spool).delivered == 1
    assert sorted(server.stored) == [("door-3", now - 5 * 86400), ("door-3", now)]
    assert not spools.waiting(spool)


def test_what_is_ahead_holds_up_no_other(server, spool):
    """A device whose clock was ahead, and one whose was not, in one spool."""
    now = int(time.time())
    keep(spool, server.url, *range(now + 9 * 86400, now + 9 * 86400 + 5))
    keep(spool, server.url, 2**39, sensor="door-4")
    server.headers, server.answers = at(now), [503]
    done = edge.deliver(spool)
    assert len(done.problems) == len(server.requests) == 6
    assert not any("left for later" in why for why in done.problems.values())


@pytest.mark.parametrize(("status", "date"), [(400, None), (413, -9), (415, -9), (400, 0), (400, 9)])
def test_what_is_wrong_for_another_reason_is_refused_all_the_same(server, spool, status, date):
    now = int(time.time())
    keep(spool, server.url, now)
    server.headers = {"Date": "no date"} if date is None else at(now + date * 86400)
    server.answers = [status]
    assert len(edge.deliver(spool).refused) == 1


@pytest.mark.parametrize(
    "wait", ["86400", "99999999999999999999", "Fri, 01 Jan 2100 00:00:00 GMT", "-5", "soon", "1e9"]
)
def test_a_server_that_wants_long_waits_has_it_later(server, spool, wait):
    keep(spool, server.url, 1, 2)
    server.headers, server.answers = {"Retry-After": wait}, [503]
    done = edge.deliver(spool, retries=1)
    assert (done.delivered, len(done.problems), done.refused) == (0, 2, {})
    server.headers, server.answers = {}, [ACCEPT]
    assert edge.deliver(spool).delivered == 2


def test_a_server_that_is_down_is_not_asked_for_everything(server, spool):
    keep(spool, server.url, *range(6))
    server.answers = [503]
    done = edge.deliver(spool, retries=2)
    assert times(server) == [0, 0, 0, 1, 2]  # the first is tried again, the next ones are not
    assert len(done.problems) == 6
    assert sum("left for later" in why for why in done.problems.values()) == 3
    assert len(spools.waiting(spool)) == 6


def test_one_that_fails_does_not_hold_up_the_others(server, spool):
    keep(spool, server.url, *range(4))
    server.answers = [500, 500, ACCEPT]
    done = edge.deliver(spool, retries=1)
    assert (done.delivered, len(done.problems)) == (3, 1)
    assert times(server) == [0, 0, 1, 2, 3]


def test_one_address_that_is_down_does_not_hold_up_another(server, spool):
    keep(spool, free_address(), *range(5))
    keep(spool, server.url, *range(100, 103))
    done = edge.deliver(spool, retries=0)
    assert (done.delivered, len(done.problems)) == (3, 5)


def forged(spool, url="http://127.0.0.1:9/", name="0000000000-" + "0" * 32 + ".upload", **changes):
    """A file as a stranger might leave it, its name right unless it is given."""
    head = {"format": "lensai-upload", "version": 1, "endpoint": url, "sensor_id": "a"}
    content = json.dumps(head | {"timestamp": 0} | changes).encode() + b"\n" + b"archive"
    if "0" * 32 in name:
        name = f"{changes.get('timestamp', 0):010}-{spools._digest(content)}.upload"
    (spool / name).write_bytes(content)


def link(spool, url):
    (spool.parent / "outside").write_bytes(b"{}")
    (spool / ("0000000000-" + "a" * 32 + ".upload")).symlink_to(spool.parent / "outside")


HOSTILE = {
    "no JSON": lambda spool, url: (spool / ("0000000000-" + "b" * 32 + ".upload")).write_bytes(b"{nonsense\n"),
    "empty": lambda spool, url: (spool / ("0000000000-" + "b" * 32 + ".upload")).write_bytes(b""),
    "deep JSON": lambda spool, url: (spool / ("0000000000-" + "b" * 32 + ".upload")).write_bytes(b"[" * 16000 + b"\n"),
    "a number": lambda spool, url: (spool / ("0000000000-" + "b" * 32 + ".upload")).write_bytes(b"1\n"),
    "another version": lambda spool, url: forged(spool, url, version=2),
    "another content": lambda spool, url: forged(spool, url, name="0000000000-" + "c" * 32 + ".upload"),
    "another name": lambda spool, url: forged(spool, url, name="evil.upload"),
    "no endpoint": lambda spool, url: forged(spool, url, endpoint=None),
    "a file's URL": lambda spool, url: forged(spool, url, endpoint="file:///etc/passwd"),
    "a password": lambda spool, url: forged(spool, url, endpoint="http://u:p@127.0.0.1/"),
    "a path": lambda spool, url: forged(spool, url, sensor_id="../../etc/cron.d/x"),
    "a header": lambda spool, url: forged(spool, url, sensor_id="a\r\nX: 1"),
    "a time": lambda spool, url: forged(spool, url, timestamp=2**41),
    "a truth": lambda spool, url: forged(spool, url, timestamp=True),
    "a link": link,
    "a folder": lambda spool, url: (spool / ("0000000000-" + "d" * 32 + ".upload")).mkdir(),
    "a pipe": lambda spool, url: os.mkfifo(spool / ("0000000000-" + "e" * 32 + ".upload")),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_a_line_each_and_stop_nothing(server, spool, kind):
    keep(spool, server.url, 5)
    HOSTILE[kind](spool, server.url)
    before = sorted(spool.parent.iterdir())
    done = edge.deliver(spool, token=TOKEN)
    assert (done.delivered, len(done.problems)) == (1, 1), done
    (why,) = done.problems.values()
    assert why.startswith("it")
    assert "\n" not in why
    assert times(server) == [5]
    assert sorted(spool.parent.iterdir()) == before
    assert len([path for path in spool.iterdir() if path.suffix == ".upload"]) == 1


def test_every_truncation_is_refused(server, spool):
    (path,) = keep(spool, server.url, 5)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        done = edge.deliver(spool)
        assert (done.delivered, len(done.problems)) == (0, 1)
    assert not server.requests


def test_a_token_goes_to_one_server_only(server, spool):
    with receiving() as other:
        keep(spool, server.url, 1, 2)
        keep(spool, other.url, 3)
        with pytest.raises(InputError, match=r"uploads to 2 servers .*pass endpoint"):
            edge.deliver(spool, token=TOKEN)
        assert not server.requests
        done = edge.deliver(spool, token=TOKEN, endpoint=server.url)
        assert (done.delivered, done.problems, done.elsewhere) == (2, {}, 1)
        assert not other.requests
        assert edge.deliver(spool).delivered == 1


@pytest.fixture(params=[True, False], ids=["locked itself", "as on Windows"])
def locking(request, monkeypatch):
    """The two ways in which a push holds an upload."""
    monkeypatch.setattr(spools, "_READABLE_WHILE_LOCKED", request.param)


@pytest.mark.usefixtures("locking")
def test_two_pushes_at_once_deliver_once(server, spool):
    keep(spool, server.url, *range(40))
    start, done = threading.Barrier(4), []

    def push():
        start.wait()
        done.append(edge.deliver(spool))

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(times(server)) == list(range(40))
    assert sum(each.delivered for each in done) == 40
    assert {why for each in done for why in each.problems.values()} <= {"another push is sending it"}
    assert not spools.waiting(spool)


@pytest.mark.usefixtures("locking")
def test_one_that_another_push_has_is_left_to_it(server, spool):
    first, _ = keep(spool, server.url, 1, 2)
    with spools.claimed(first):
        done = edge.deliver(spool)
    assert (done.delivered, done.problems) == (1, {first.name: "another push is sending it"})
    assert times(server) == [2]


def test_one_that_cannot_be_removed_is_told_and_sent_again(server, spool, monkeypatch):
    (path,) = keep(spool, server.url, 1)

    def denied(path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(spools, "remove", denied)
        assert edge.deliver(spool).problems == {path.name: "[Errno 13] Permission denied"}
    assert edge.deliver(spool).delivered == 1
    assert len(server.stored) == 1


@pytest.mark.usefixtures("locking")
def test_without_locks_it_is_delivered_all_the_same(server, spool, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    keep(spool, server.url, 1)
    monkeypatch.setattr(fcntl, "flock", none)
    assert edge.deliver(spool).delivered == 1


@settings(max_examples=15, deadline=None)
@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True),
    st.integers(0, 2**40 - 1),
    st.binary(max_size=99),
)
def test_what_is_kept_reads_back(sensor, timestamp, content):
    upload = Upload("https://lensai.example/upload/?a=\u00fc", sensor, timestamp, content)
    with tempfile.TemporaryDirectory() as folder:
        path = spools.keep(Path(folder), upload, 2**20)
        assert spools.waiting(Path(folder)) == [path]
        assert spools.read_upload(path) == upload
        assert spools.read_endpoint(path) == upload.endpoint


def test_what_killed_processes_left_is_removed(server, spool):
    keep(spool, server.url, 1)
    old, new = spool / ".a.upload.1.ab.partial", spool / ".b.upload.1.ab.partial"
    for path, age in ((old, 2 * spools.ABANDONED), (new, 0)):
        path.write_bytes(b"x")
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    edge.deliver(spool)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_folder_that_is_no_spool_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no folder that publish has kept uploads in"):
        edge.deliver(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_killed_at_every_step_nothing_is_lost(server, tmp_path):
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), *sys.path[:1]])
    command = [sys.executable, str(Path(__file__).with_name("push_kill_script.py")), str(tmp_path), server.url]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    # Killed while it is kept: it is there whole or not at all, and a second attempt keeps it.
    assert len(told["kept"]) == 16
    assert {len(found) for found in told["kept"]} == {0, 1}
    assert told["damaged"] == 0
    # Killed while it is pushed: the next push delivers the rest, and the server has all of them once.
    assert told["kills"] == 20
    assert told["left"] == 0
    wanted = {(f"push-{at}", when) for at in range(1, told["kills"] + 1) for when in (1, 2)}
    assert wanted <= set(server.stored)
    assert len(server.requests) <= len(server.stored) + told["kills"]
