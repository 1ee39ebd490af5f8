"""What is published is what devices would have sent, and what could not be is kept and delivered later."""

from __future__ import annotations

import errno
import re
import shlex
import sys
import time
from email.utils import formatdate

import numpy as np
import pytest
from receivers import ACCEPT, LOSE, free_address, receiving

from lensai_integrations import Baseline, Profile, Profiler, cli, edge
from lensai_integrations.edge import sending
from lensai_integrations.edge import spool as spools
from lensai_integrations.errors import DefinitionError, InputError, TrackingError
from lensai_integrations.storage import folders

TOKEN = "t0ken-of-nobody"


@pytest.fixture(scope="module")
def profile() -> Profile:
    profiler = Profiler(convention="lensai-edge", seed=0)
    rng = np.random.default_rng(0)
    profiler.update(
        inputs=rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8), outputs=rng.normal(size=(60, 3)).astype(np.float32)
    )
    return profiler.profile()


@pytest.fixture
def server():
    with receiving() as known:
        yield known


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of its own, and no waiting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sending, "_pause", lambda seconds: None)
    monkeypatch.delenv("LENSAI_TOKEN", raising=False)
    return tmp_path


@pytest.fixture
def lensai(monkeypatch, capsys):
    """The command: exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lensai", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


def publish_in_vain(what, url, sensor="door-3", **settings):
    with pytest.raises(TrackingError) as raised:
        edge.publish(what, url, sensor, **{"retries": 0, "timeout": 5.0, "timestamp": 1719393854} | settings)
    return str(raised.value)


def everything_in(folder):
    return b"".join(path.name.encode() + path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_profile_is_sent_as_write_stats_writes_it(server, profile, here):
    assert edge.publish(profile, server.url, "door-3", token=TOKEN)
    (request,) = server.requests
    written = edge.write_stats(profile, here / "written")
    assert request.members() == {path.relative_to(here / "written").as_posix(): path.read_bytes() for path in written}
    assert "imgstats/noise.bin" in request.members()
    (here / "upload.tar.gz").write_bytes(request.file)
    assert edge.read_stats(here / "upload.tar.gz").n == 60
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert int(request.fields["timestamp"]) > 1_700_000_000
    assert not (here / "lensai_spool").exists()


def test_of_a_baseline_the_reference_is_sent(server, profile):
    edge.publish(Baseline(profile), server.url, "a", timestamp=5)
    edge.publish(profile, server.url, "b", timestamp=5)
    one, two = server.requests
    assert (one.file, one.key) == (two.file, ("a", 5))


def test_the_same_timestamp_is_known(server, profile):
    assert [edge.publish(profile, server.url, "a", timestamp=5) for _ in range(2)] == [True, False]


def test_other_measures_than_devices_have_are_refused(server, here):
    profiler = Profiler()
    profiler.update(inputs=np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(DefinitionError, match="convention='lensai-edge'"):
        edge.publish(profiler.profile(), server.url, "a")
    assert not server.requests
    assert not list(here.iterdir())


def test_of_a_folder_only_the_sketches_are_sent(server, profile, here, caplog):
    folder = here / "device" / "sensor1" / "1719393854"
    written = edge.write_stats(profile, folder)
    stats = folder / "imgstats"
    sketch = (stats / "noise.bin").read_bytes()
    (here / "secret.bin").write_bytes(sketch)
    for name in (".DS_Store", "._noise.bin", ".hidden.bin", "photo.jpg", "unknown.bin", ".noise.bin.1.ab.partial"):
        (stats / name).write_bytes(sketch)
    (stats / "contrast.bin").write_bytes(b"")
    (stats / "mean_7.bin").write_bytes(sketch[:20])
    (stats / "mean_8.bin").symlink_to(here / "secret.bin")
    (folder / "linked").symlink_to(here)
    edge.publish(here / "device", server.url, "a")
    assert sorted(server.requests[0].members()) == sorted(path.relative_to(folder).as_posix() for path in written)
    assert [re.search(r"1719393854/(\S+) was not read", each)[1] for each in caplog.messages] == [
        "linked", "imgstats/contrast.bin", "imgstats/mean_8.bin", "imgstats/mean_7.bin",
    ]  # fmt: skip


def test_a_real_device_is_sent_as_it_is(server, data_dir):
    source = data_dir / "lensai_edge" / "sensor1" / "1719393854"
    if not source.is_dir():
        pytest.skip(f"no real device files at {source}")
    assert edge.publish(source, server.url, "sensor1", timestamp=1719393854)
    sent = server.requests[0].members()
    assert sent == {name: (source / name).read_bytes() for name in sent}
    files = {path.relative_to(source).as_posix() for path in source.rglob("*.bin") if not path.name.startswith(".")}
    assert set(sent) == files


def test_of_two_files_of_one_name_the_first_is_sent(server, profile, here, caplog):
    edge.write_stats(profile, here / "a" / "door")
    sketch = (here / "a" / "door" / "imgstats" / "noise.bin").read_bytes()
    other = here / "a" / "door" / "other" / "door" / "imgstats"
    other.mkdir(parents=True)
    (other / "noise.bin").write_bytes((here / "a" / "door" / "imgstats" / "sharpness.bin").read_bytes())
    edge.publish(here / "a" / "door", server.url, "a")
    assert server.requests[0].members()["imgstats/noise.bin"] == sketch
    assert "same sensor, time and name came before" in caplog.text


def test_a_folder_of_several_times_is_refused(server, profile, here):
    for when in ("1719393854", "1719397454"):
        edge.write_stats(profile, here / "sensor1" / when)
    with pytest.raises(InputError, match="2 sensors or times: publish each"):
        edge.publish(here / "sensor1", server.url, "sensor1")
    assert not server.requests


@pytest.mark.parametrize("answer", [500, 401, 404, 302])
def test_what_was_not_delivered_is_kept_and_pushed(server, profile, here, lensai, caplog, answer):
    server.answers = [answer, ACCEPT]
    told = publish_in_vain(profile, server.url, token=TOKEN)
    command = re.search(r"it is kept, deliver it with: (.*)$", told)[1]
    assert len(list((here / "lensai_spool").glob("*.upload"))) == 1
    (here / "token").write_text(f"{TOKEN}\n")
    code, out, err = lensai(*shlex.split(command)[1:], "--token-file", "token")
    assert (code, out, err) == (0, "1 uploads of lensai_spool delivered\n", "")
    first, second = server.requests
    assert (second.file, second.fields) == (first.file, first.fields)
    assert second.headers["Authorization"] == f"Bearer {TOKEN}"
    assert [path.name for path in (here / "lensai_spool").iterdir()] == [spools.MARK]
    assert lensai("push", "lensai_spool") == (0, "0 uploads of lensai_spool delivered\n", "")
    assert TOKEN not in told + caplog.text


def test_the_token_is_kept_nowhere(profile, here, lensai, monkeypatch):
    publish_in_vain(profile, free_address(), token=TOKEN)
    assert TOKEN.encode() not in everything_in(here)
    monkeypatch.setenv("LENSAI_TOKEN", TOKEN)
    code, out, err = lensai("push", "lensai_spool")
    assert code == 2
    assert TOKEN not in out + err
    assert TOKEN.encode() not in everything_in(here)


def test_an_upload_whose_answer_was_lost_counts_as_done(server, profile, here, lensai, monkeypatch):
    server.answers = [LOSE, ACCEPT]
    publish_in_vain(profile, server.url)
    monkeypatch.setenv("LENSAI_TOKEN", TOKEN)
    assert lensai("push", "lensai_spool")[0] == 0
    assert len(server.requests) == 2
    assert list(server.stored) == [("door-3", 1719393854)]
    assert server.requests[1].headers["Authorization"] == f"Bearer {TOKEN}"


def test_what_remains_is_a_line_each_and_2(profile, lensai):
    for when in (3, 1):
        publish_in_vain(profile, free_address(), timestamp=when)
    code, out, err = lensai("push", "lensai_spool")
    one, two = err.splitlines()
    assert (code, out) == (2, "0 uploads of lensai_spool delivered\n")
    assert one.startswith("not delivered: 0000000001-")
    assert two.startswith("not delivered: 0000000003-")


@pytest.mark.parametrize("answer", [400, 413])
def test_what_is_never_taken_is_raised_and_not_kept(server, profile, here, answer):
    server.answers = [answer]
    assert "kept" not in publish_in_vain(profile, server.url)
    assert not list(here.iterdir())


def test_what_a_server_refuses_whose_clock_is_behind_is_kept(server, profile, here, lensai):
    server.answers, server.headers = [400], {"Date": formatdate(1719393854 - 2 * 86400, usegmt=True)}
    told = publish_in_vain(profile, server.url)
    assert "ahead of that server's clock, 2024-06-24 09:24:14 UTC: set the clock that is wrong; it is kept" in told
    server.answers, server.headers = [ACCEPT], {}
    assert lensai("push", "lensai_spool")[0] == 0
    assert list(server.stored) == [("door-3", 1719393854)]


def test_what_is_in_refused_is_named_at_every_push_until_it_is_sent_or_deleted(server, profile, here, lensai):
    server.answers = [503]
    for when in (1719393855, 1719393854):
        publish_in_vain(profile, server.url, timestamp=when)
    server.answers, server.body = [400], b'{"detail": "no such sensor"}'
    server.headers = {"Content-Type": "application/json"}
    code, out, err = lensai("push", "lensai_spool")
    assert (code, out) == (2, "0 uploads of lensai_spool delivered\n")
    code, _, error = lensai("push", "lensai_spool")
    assert code == 2
    assert error in err
    assert "2 uploads in lensai_spool/refused, which the server has refused, the oldest of 2024-06-26 09:24:14" in error
    assert (
        f"UTC: {server.url.removesuffix('/upload/')} did not take the sketches: it answered 400 Bad Request; " in error
    )
    assert "no such sensor" in error
    (command,) = re.findall(r"send them again with: (.*); or delete them", error)
    server.answers, server.body = [ACCEPT], b""
    assert lensai(*shlex.split(command)[1:])[:2] == (0, "2 uploads of lensai_spool/refused delivered\n")
    assert lensai("push", "lensai_spool") == (0, "0 uploads of lensai_spool delivered\n", "")
    assert lensai(*shlex.split(command)[1:])[0] == 0


def test_a_clock_that_is_not_set_keeps_it_until_it_is(server, profile, here, lensai, monkeypatch):
    """A device without a battery begins in 1970, whatever it has to send."""
    now = 1719393854
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: 1000.0)
        told = publish_in_vain(profile, server.url, timestamp=None)
        assert "the clock here says 1970-01-01 00:16:40 UTC, and that is wrong; set it; it is kept" in told
        assert not server.requests
        code, _, err = lensai("push", "lensai_spool")
        assert code == 2
        assert "not delivered" in err
    monkeypatch.setattr(time, "time", lambda: float(now))
    assert lensai("push", "lensai_spool")[:2] == (0, "1 uploads of lensai_spool delivered\n")
    assert list(server.stored) == [("door-3", now)]
    assert not spools.waiting(here / "lensai_spool")


def test_a_time_that_is_named_needs_no_clock(server, profile, here, monkeypatch):
    edge.write_stats(profile, here / "sensor1" / "1719393854")
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert edge.publish(here / "sensor1" / "1719393854", server.url, "door-3")
    assert list(server.stored) == [("door-3", 1719393854)]


def test_of_a_stamped_upload_the_time_stays_if_the_answer_is_lost(server, profile, here, lensai, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: 1000.0)
        publish_in_vain(profile, server.url, timestamp=None)
    server.answers = [LOSE]
    clock = iter(range(1719393854, 1719399999))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    assert lensai("push", "lensai_spool")[0] == 2
    server.answers = [ACCEPT]
    assert lensai("push", "lensai_spool")[0] == 0
    assert len(server.stored) == 1


def test_without_a_spool_nothing_is_kept(profile, here):
    assert "kept" not in publish_in_vain(profile, free_address(), spool=None)
    assert not list(here.iterdir())


def test_a_full_disk_is_told_beside_the_failure(profile, here, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders.os, "fsync", full)
    told = publish_in_vain(profile, free_address())
    assert "could not be reached" in told
    assert "and it could not be kept in lensai_spool: [Errno 28] No space left on device" in told
    assert not list((here / "lensai_spool").iterdir())


def test_a_spool_that_is_full_gives_nothing_up(profile, here):
    publish_in_vain(profile, free_address(), timestamp=1)
    (before,) = spools.waiting(here / "lensai_spool")
    least = before.stat().st_size
    told = publish_in_vain(profile, free_address(), timestamp=2, max_spool_bytes=2 * least)
    assert "could not be kept in lensai_spool: it has" in told
    assert spools.waiting(here / "lensai_spool") == [before]
    assert "it is kept" in publish_in_vain(profile, free_address(), timestamp=2, max_spool_bytes=2 * least + 9999)


def test_the_same_upload_is_kept_once(profile, here):
    url = free_address()
    for when in (1, 1, 2):
        publish_in_vain(profile, url, timestamp=when)
    assert len(spools.waiting(here / "lensai_spool")) == 2


def test_a_baseline_and_a_spool_are_told_apart(profile, here, lensai, server):
    profile.save(here / "saved")
    publish_in_vain(profile, free_address())
    assert "is a spool of edge.publish: --run" in lensai("push", "lensai_spool", "--run", "x")[2]
    assert "saved is no spool" in lensai("push", "saved", "--endpoint", server.url)[2]
    (here / "token").write_text("\n")
    assert "is empty" in lensai("push", "lensai_spool", "--token-file", "token")[2]
    with pytest.raises(InputError, match="holds a saved profile"):
        edge.publish(profile, server.url, "a", spool=here / "saved")
    assert not server.requests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profile_or_dir": "nowhere"}, "profile_or_dir='nowhere' is no folder"),
        ({"profile_or_dir": 3}, "profile_or_dir=3"),
        ({"profile_or_dir": "."}, "holds no readable LensAI sketch"),
        ({"endpoint": "lensai.example"}, "endpoint should begin"),
        ({"sensor_id": "a b"}, "sensor_id='a b'"),
        ({"timestamp": "now"}, "timestamp='now'"),
        ({"token": "\n"}, "token should be"),
        ({"timeout": 0}, "timeout=0"),
        ({"retries": True}, "retries=True"),
        ({"spool": __file__}, "is a file"),
        ({"max_spool_bytes": -1}, "max_spool_bytes=-1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_sent(server, profile, arguments, message):
    given = {"profile_or_dir": profile, "endpoint": server.url, "sensor_id": "a"} | arguments
    with pytest.raises(InputError, match=message):
        edge.publish(**given)
    assert not server.requests
