"""What is handed to `publish` and `publish_sketches` is in the receiver when they return, or they raise."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from receiving import HOUR, WHEN, client_of, device, listening

from lensai_integrations import Profiler, Sketches, edge
from lensai_integrations.edge import sending
from lensai_integrations.edge import spool as spools
from lensai_integrations.edge.sending import DifferentUploadError, RefusedUploadError
from lensai_integrations.errors import TrackingError
from lensai_integrations.server import queries
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.shares import Allowances


@pytest.fixture
def receiver(baseline, sqlite, monkeypatch):
    """A receiver at a port, and what it has: `(uploads, rows)` by hour of a sensor."""
    monkeypatch.setattr(sending, "_pause", lambda seconds: None)
    client = client_of(baseline, sqlite)
    client.work()
    with listening(client.app) as port:
        client.address = f"http://127.0.0.1:{port}/upload/"

        def held(sensor):
            client.work()
            hours = client.get(f"/sensors/{sensor}/drift").json()["hours"]
            return {each["hour"]: (each["uploads"], each["rows"]) for each in hours}

        client.held = held
        yield client


@pytest.fixture
def clock(monkeypatch):
    """The second that it is, for ever."""
    monkeypatch.setattr(sending.time, "time", lambda: float(HOUR + 100))
    return HOUR + 100


def saved(folder, value, n=100):
    sketches = Sketches()
    sketches.register_metric("brightness")
    sketches.update_sketches(brightness=np.full(n, float(value)))
    sketches.save_sketches(folder)
    return folder


def folder_of(path, seed=0, n=50):
    for name, content in device(seed, n).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def test_several_uploads_of_one_second_are_all_there(receiver, tmp_path, clock):
    for value in (50, 51, 51):
        Sketches().publish_sketches(saved(tmp_path / "saved", value), receiver.address, "camera")
    assert receiver.held("camera") == {HOUR: (3, 300)}


def test_so_they_are_from_several_threads_and_processes(receiver, tmp_path, clock, monkeypatch):
    folders = [saved(tmp_path / str(value), value) for value in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda folder: Sketches().publish_sketches(folder, receiver.address, "camera"), folders))
    monkeypatch.setattr(sending, "_LATEST", {})  # as in another process, at the same moment
    Sketches().publish_sketches(folders[0], receiver.address, "camera")
    assert receiver.held("camera") == {HOUR: (9, 900)}


def test_folders_are_of_the_time_they_are_named_by(receiver, tmp_path):
    for when in (HOUR + 7, HOUR + 3607):
        assert edge.publish(folder_of(tmp_path / str(when), seed=when), receiver.address, "door", spool=None)
        Sketches().publish_sketches(saved(tmp_path / "saved" / str(when), 40), receiver.address, "camera")
    assert receiver.held("door") == {HOUR: (1, 50), HOUR + 3600: (1, 50)}
    assert receiver.held("camera") == {HOUR: (1, 100), HOUR + 3600: (1, 100)}


def test_a_profile_of_a_device_keeps_its_time(receiver, tmp_path):
    profile = edge.read_stats(folder_of(tmp_path / "door" / str(HOUR + 7)))
    edge.publish(profile, receiver.address, "door")
    assert receiver.held("door") == {HOUR: (1, 50)}


def test_something_else_of_the_same_time_is_raised_and_the_first_stays(receiver, tmp_path):
    first = folder_of(tmp_path / "a" / str(HOUR + 7), seed=1)
    assert edge.publish(first, receiver.address, "door")
    assert not edge.publish(first, receiver.address, "door")
    other = folder_of(tmp_path / "b" / str(HOUR + 7), seed=2, n=70)
    told = rf"has other sketches of sensor 'door' at {HOUR + 7} and keeps those.*another time \(timestamp="
    for publish in (edge.publish, Sketches().publish_sketches):
        with pytest.raises(DifferentUploadError, match=told):
            publish(other, receiver.address, "door")
    assert receiver.held("door") == {HOUR: (1, 50)}
    assert edge.publish(other, receiver.address, "door", timestamp=HOUR + 8)
    assert receiver.held("door") == {HOUR: (2, 120)}


def test_an_answer_that_was_lost_is_no_second_upload(receiver, tmp_path, clock, monkeypatch):
    real, posts = sending.post, []

    def post(*arguments):
        answer = real(*arguments)
        posts.append(answer)
        if len(posts) == 1:
            raise ConnectionError("cut")
        return answer

    monkeypatch.setattr(sending, "post", post)
    assert edge.publish(folder_of(tmp_path / "door"), receiver.address, "door")
    assert [each.told["status"] for each in posts] == ["created", "repeated"]
    assert receiver.held("door") == {HOUR: (1, 50)}


def test_what_waited_in_the_spool_and_is_of_a_taken_time_is_set_aside_and_said(receiver, tmp_path, monkeypatch):
    spool = tmp_path / "spool"
    with monkeypatch.context() as patch:
        patch.setattr(sending, "post", lambda *_: (_ for _ in ()).throw(ConnectionError("down")))
        with pytest.raises(TrackingError, match="it is kept"):
            edge.publish(folder_of(tmp_path / "a", seed=1), receiver.address, "door", timestamp=HOUR, spool=spool)
    assert edge.publish(folder_of(tmp_path / "b", seed=2), receiver.address, "door", timestamp=HOUR)
    done = edge.deliver(spool)
    (problem,) = done.problems.values()
    assert done.delivered == 0
    assert re.search(r"has other sketches of sensor 'door'.*moved to .*refused", problem)
    assert len(list((spool / "refused").glob("*.upload"))) == 1


def test_what_several_processes_kept_of_one_second_is_all_delivered_once(receiver, tmp_path, monkeypatch, clock):
    spool, kept = tmp_path / "spool", sending.post
    monkeypatch.setattr(sending, "post", lambda *_: (_ for _ in ()).throw(ConnectionError("down")))
    for seed in range(3):
        monkeypatch.setattr(sending, "_LATEST", {})  # as in a process of its own
        with pytest.raises(TrackingError, match="it is kept"):
            edge.publish(folder_of(tmp_path / "door", seed), receiver.address, "door", spool=spool, retries=0)
    assert {path.name[:10] for path in spool.glob("*.upload")} == {str(clock)}

    def losing(*arguments):  # the server takes them, and the answers get lost
        kept(*arguments)
        raise ConnectionError("cut")

    monkeypatch.setattr(sending, "post", losing)
    assert edge.deliver(spool, retries=0).delivered == 0
    monkeypatch.setattr(sending, "post", kept)
    assert edge.deliver(spool).delivered == 3
    assert receiver.held("door") == {HOUR: (3, 150)}


def test_a_process_that_has_taken_many_seconds_ahead_stops_no_other(receiver, tmp_path, clock, monkeypatch):
    for _ in range(25):
        edge.publish(folder_of(tmp_path / "door"), receiver.address, "door")
    monkeypatch.setattr(sending, "_LATEST", {})  # another process
    assert edge.publish(folder_of(tmp_path / "door", seed=1), receiver.address, "door", spool=None)
    assert receiver.held("door") == {HOUR: (26, 1300)}


def test_ctrl_c_while_it_waits_to_try_again_keeps_the_upload(receiver, tmp_path, monkeypatch, clock, caplog):
    def interrupt(seconds):
        raise KeyboardInterrupt

    folder, spool = folder_of(tmp_path / "door"), tmp_path / "spool"
    with monkeypatch.context() as patch:
        patch.setattr(sending, "_pause", interrupt)
        patch.setattr(sending, "post", lambda *_: (_ for _ in ()).throw(ConnectionError("down")))
        with pytest.raises(KeyboardInterrupt):
            edge.publish(folder, receiver.address, "door", spool=spool)
    assert "interrupted before it was delivered: it is kept, deliver it with: lensai push" in caplog.text
    assert edge.deliver(spool).delivered == 1
    assert receiver.held("door") == {HOUR: (1, 50)}


def test_files_that_the_receiver_could_not_read_are_said(receiver, tmp_path, caplog):
    folder = saved(tmp_path / "saved", 50)
    (folder / "imgstats" / "noise.bin").write_bytes(b"damaged")
    Sketches().publish_sketches(folder, receiver.address, "camera")
    assert re.search(r"stored the sketches of camera, but: imgstats/noise\.bin", caplog.text)


@pytest.mark.parametrize("path", ["/", "/sensors", "/docs", "/upload/more"])
def test_a_wrong_address_is_no_delivery(receiver, tmp_path, path):
    address = receiver.address.replace("/upload/", path)
    with pytest.raises(TrackingError, match="did not take the sketches"):
        Sketches().publish_sketches(saved(tmp_path / "saved", 50), address, "camera")


def test_a_website_that_answers_anything_with_a_page_is_no_receiver(receiver, tmp_path, monkeypatch):
    page = sending.ServerAnswer(200, page=True)
    monkeypatch.setattr(sending, "post", lambda *_: page)
    with pytest.raises(TrackingError, match=r"it answered 200 OK and a web page; is this the address of uploads\?"):
        Sketches().publish_sketches(saved(tmp_path / "saved", 50), receiver.address, "camera")


def test_a_profile_is_published_as_of_now(receiver, clock):
    profiler = Profiler(convention="lensai-edge", seed=0)
    profiler.update(inputs=np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8))
    assert edge.publish(profiler.profile(), receiver.address, "door")
    assert edge.publish(profiler.profile(), receiver.address, "door")
    assert receiver.held("door") == {HOUR: (2, 120)}


def test_what_is_refused_for_ever_is_told_apart(receiver, tmp_path):
    with pytest.raises(RefusedUploadError, match="timestamp='5'"):
        edge.publish(folder_of(tmp_path / "door"), receiver.address, "door", timestamp=5)


def test_a_device_that_was_offline_for_long_delivers_everything_though_its_share_is_spent(baseline, sqlite, tmp_path):
    """More than it may at once: what is answered 429 stays in the spool, and every later push delivers some."""
    settings, now = Settings(judge_seconds=0, hours_a_day=1), [0.0]
    client = client_of(baseline, sqlite, settings)
    client.service.inbox._allowances = Allowances(settings, lambda: now[0])
    archive = sending.archive(device(), WHEN)
    pushes = []
    with listening(client.app) as port:
        address = f"http://127.0.0.1:{port}/upload/"
        for n in range(30):
            spools.keep(tmp_path, sending.Upload(address, "door-3", WHEN + 3600 * n, archive), 2**28)
        while not pushes or pushes[-1].problems:
            pushes.append(edge.deliver(tmp_path))
            now[0] += 5 * 86_400
    assert [push.delivered for push in pushes] == [10, 5, 5, 5, 5]
    assert "429 Too Many Requests" in next(iter(pushes[0].problems.values()))
    assert not list(tmp_path.glob("*.upload"))
    assert not (tmp_path / spools.REFUSED).exists()
    assert queries.find_sensor(sqlite, "door-3").uploads == 30
