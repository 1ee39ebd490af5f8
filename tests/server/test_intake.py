"""Uploads over HTTP: both dialects, every refusal, and what a device may count on.

What an upload may say of itself.
"""

from __future__ import annotations

import contextlib
import encodings
import shutil
import sqlite3
import threading
import time
from base64 import b64encode
from collections import Counter, namedtuple
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import HTTPException
from receiving import HOUR, WHEN, TestClient, client_of, device, emptied, form, sketch_of, tarred
from sqlalchemy import event
from starlette.datastructures import Headers

from lensai_integrations.errors import InputError
from lensai_integrations.server import intake as reading
from lensai_integrations.server import ledger, queries
from lensai_integrations.server import ledger as inboxes
from lensai_integrations.server import store as stores
from lensai_integrations.server.intake import TimestampAheadError, checked_sensor, checked_timestamp
from lensai_integrations.server.records import hour_of
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.store import Store
from lensai_integrations.server.tokens import Tokens

ALL, DOOR = "a" * 32, "b" * 32


def post(client, headers=None, **request):
    return client.post("/upload/", headers=headers, **form(**request))


def uploads(client, result):
    return client.service.metrics.registry.get_sample_value("lensai_uploads_total", {"result": result})


def stored(client):
    return queries.counts(client.service.store).pending


def test_the_newer_dialect(service):
    response = post(service)
    assert (response.status_code, response.json()) == (
        201,
        {"sensor": "door-3", "timestamp": WHEN, "status": "created", "problems": []},
    )
    assert response.headers["x-content-type-options"] == "nosniff"


def test_the_older_dialect(service):
    """Headers, only the file in the form, members below the folder's name."""
    archive = tarred({f"stats/{name}": content for name, content in device().items()} | {"stats/.DS_Store": b"x"})
    headers = {"metrictype": "stats", "sensorid": "door-3", "timestamp": str(WHEN)}
    request = {"files": {"file": ("stats.tar.gz", archive, "application/gzip")}}
    assert service.post("/upload/", headers=headers, **request).status_code == 201
    assert post(service).json()["status"] == "repeated"  # it is the same upload
    assert service.post("/upload", headers=headers, **request).status_code == 200


@pytest.mark.parametrize("tar", ["w", "w:gz"])
def test_archives_plain_and_gzipped(service, tar):
    assert post(service, archive=tarred(device(), tar)).status_code == 201


def test_again_and_different(service, caplog):
    assert [post(service).status_code for _ in range(3)] == [201, 200, 200]
    for _ in range(2):
        response = post(service, content=device(1))
        assert (response.status_code, response.json()["status"]) == (200, "different")
    assert [uploads(service, each) for each in ("created", "repeated", "different")] == [1, 2, 2]
    assert caplog.text.count("the first stays") == 1
    assert stored(service) == 1
    service.work()
    assert queries.list_hours(service.service.store, "door-3", most=9)[0].rows == 50
    assert post(service).json()["status"] == "repeated"  # also after it was merged


def test_at_the_same_time(baseline, store):
    client, found = client_of(baseline, store), Counter()
    with client:
        requests = [form(timestamp=WHEN + n) for n in range(3)]

        def send(k):
            for n in range(6):
                found[client.post("/upload/", **requests[(n + k) % 3]).status_code] += 1

        threads = [threading.Thread(target=send, args=(k,)) for k in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    client_of(baseline, store).work()
    assert found == {201: 3, 200: 21}
    assert [(each.uploads, each.rows) for each in queries.list_hours(store, "door-3", most=9)] == [(3, 150)]


def test_what_cannot_be_read_is_told_and_the_rest_is_kept(service):
    content = {**device(), "imgstats/mean_0.bin": b"", "samples/ratioconfidence.bin": b"x", "data/1.jpg": b"image"}
    answer = post(service, content=content)
    assert answer.status_code == 201
    first, second = answer.json()["problems"]
    assert first.startswith("imgstats/mean_0.bin was not read: empty")
    assert second.startswith("samples/ratioconfidence.bin was not read: not a readable KLL sketch")
    assert service.get("/sensors").json()["sensors"][0]["problems"] == [first, second]


@pytest.mark.parametrize(
    ("request_", "detail"),
    [
        ({"sensor": "../etc"}, "sensor_id='../etc' should be"),
        ({"sensor": ""}, "sensor_id is missing"),
        ({"timestamp": "yesterday"}, "timestamp='yesterday' should be unix time"),
        ({"timestamp": int(time.time()) + 20 * 365 * 86_400}, "timestamp="),
        ({"kind": "data"}, "no image is kept here"),
        ({"kind": "other"}, "file_type='other' is not known"),
        ({"archive": b"no archive"}, "not a readable tar archive"),
        ({"archive": b""}, "not a readable tar archive"),
        ({"archive": tarred(device())[:-20]}, "not a readable tar archive"),
        ({"archive": tarred({"data/1.jpg": b"image"})}, "no .bin file in a folder such as imgstats/"),
        ({"archive": tarred({"../../imgstats/noise.bin": sketch_of([1])})}, "its path leads out of the folder"),
        ({"archive": tarred({"imgstats/noise.bin": sketch_of([])})}, "has seen no values"),
    ],
)
def test_what_is_refused(service, request_, detail):
    response = post(service, **request_)
    assert response.status_code == 400
    assert set(response.json()) == {"detail"}
    assert detail in response.json()["detail"]
    assert stored(service) == 0
    assert uploads(service, "refused") == 1


@pytest.mark.parametrize(
    "request_",
    [
        {"content": b"x", "headers": {"content-type": "application/json"}},
        {"content": b"x"},
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"no form", "headers": {"content-type": "multipart/form-data; boundary=abc"}},
        {"content": b"--abc\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=abc"}},
        {"content": b"--abc\r\n\r\n\r\n--abc--\r\n", "headers": {"content-type": "multipart/form-data; boundary=abc"}},
        {"data": {"sensor_id": "a"}, "files": {"other": b"x"}},
        {"data": form()["data"], "files": {"other": b"x"}},
        {"data": {**form()["data"], "file": "text"}, "files": {"other": b"x"}},
        {"data": form()["data"], "files": [("file", b"x"), ("file", b"y")]},
        {"data": {f"field{n}": "x" for n in range(20)}, "files": {"file": b"x"}},
        {"data": {**form()["data"], "note": "x" * 5000}, "files": {"file": b"x"}},
        {"files": {"sensor_id": b"a"}},
        {"content": b"x", "headers": {"content-type": b"multipart/form-data; boundary=" + b"\xff" * 300}},
        *(
            {
                "content": b'--abc\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n\xff\r\n--abc--\r\n',
                "headers": {"content-type": b"multipart/form-data; boundary=abc; charset=" + charset},
            }
            for charset in (b"punycode", b"undefined", b'"a\0b"', b"idna", b"hex")
        ),
    ],
)
def test_forms_that_are_none(service, request_):
    response = service.post("/upload/", **request_)
    assert response.status_code == 400, response.text
    assert response.json()["detail"]
    assert stored(service) == 0


def test_charsets_that_somebody_makes_up_are_refused_and_not_kept(service):
    """Python keeps every name of a codec that it was asked for."""

    def answer(charset, timestamp=WHEN):
        request = service.build_request("POST", "/upload/", **form(timestamp=timestamp))
        request.headers["content-type"] += f"; charset={charset}"
        return service.send(request)

    for n, charset in enumerate(("utf-8", "UTF8", '"us-ascii"')):
        assert answer(charset, WHEN + n).status_code == 201
    known = len(encodings._cache)
    refused = [answer(f"made-up-{n}") for n in range(20)]
    assert {(each.status_code, each.json()["detail"]) for each in refused} == {
        (400, "the form's charset should be UTF-8")
    }
    assert len(encodings._cache) == known


def test_names_in_archives_reach_nothing_as_they_are(service):
    """Control characters, surrogates and markup of a member's name are in no answer, log or page."""
    bad = {"imgstats/<b>\x1b[31m\udcff\n.bin": b""}
    answer = post(service, archive=tarred({**device(), **bad}))
    assert answer.status_code == 201
    (problem,) = answer.json()["problems"]
    assert problem.startswith("imgstats/<b>?[31m??.bin was not read: empty")
    page = service.get("/")
    assert page.status_code == 200
    assert "<b>?[31m" not in page.text


def test_too_large(baseline, sqlite):
    client = client_of(baseline, sqlite, Settings(upload_bytes=10_000, unpacked_bytes=200_000, members=5))
    assert post(client).status_code == 201
    assert post(client, archive=b"x" * 10_001).status_code == 413
    assert post(client, archive=b"x" * 1_000_000).status_code == 413
    bomb = tarred({"imgstats/noise.bin": bytes(1_000_000)})
    assert len(bomb) < 10_000
    assert "unpacks to more than the 200000 bytes" in post(client, archive=bomb).json()["detail"]
    many = tarred({f"{n}.txt": b"" for n in range(9)})
    assert "more than 5 files" in post(client, archive=many).json()["detail"]
    assert uploads(client, "too large") == 2
    assert stored(client) == 1


def test_sketches_that_unpack_to_more_than_a_device_has(baseline, sqlite):
    """An archive of 70 KB can hold 66 MB of sketches that are all valid."""
    assert Settings().archive.sketches_bytes == 4 * 2**20
    client = client_of(baseline, sqlite, Settings(sketches_bytes=2_000))
    assert post(client, content={"custom/a.bin": sketch_of([1.0]), "custom/b.bin": sketch_of([2.0])}).status_code == 201
    refused = post(client, content={f"custom/{n}.bin": sketch_of(range(200)) for n in range(3)}, timestamp=WHEN + 1)
    assert refused.status_code == 400
    assert "more than the 2000 bytes" in refused.json()["detail"]


def test_there_is_room_in_memory_for_an_upload_until_it_is_on_disk(service, monkeypatch):
    inbox, memory = service.service.inbox, service.service.turns.memory
    put, taken = inbox.put, []

    async def watched(upload, holder):
        taken.append(memory.taken == upload.bytes > len(upload.payload))
        return await put(upload, holder)

    monkeypatch.setattr(inbox, "put", watched)
    assert post(service).status_code == 201
    assert taken == [True]
    monkeypatch.setattr(inbox, "put", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        post(service)
    assert memory.taken == 0


def test_what_was_unpacked_and_is_not_on_disk_is_in_memory_up_to_its_limit(baseline, sqlite, monkeypatch):
    """While the disk stands still as many are kept as there is memory for; the others are sent again."""
    client = client_of(baseline, sqlite, Settings(memory_bytes=200_000, upload_bytes=50_000))
    content = {"custom/a.bin": sketch_of(range(4000), k=1500)}
    most, add, go_on = 0, ledger.add_uploads, threading.Event()

    def slow(*arguments):
        nonlocal most
        go_on.wait(20)
        most = max(most, client.service.turns.memory.taken)
        return add(*arguments)

    monkeypatch.setattr(inboxes, "add_uploads", slow)
    monkeypatch.setattr(client.service.turns, "_of_sensor", 100)

    def send(n):
        answer = post(client, content=content, timestamp=WHEN + n)
        if answer.status_code != 201:
            go_on.set()
        return answer

    with client, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(send, range(12)))
        again = [n for n, answer in enumerate(answers) if answer.status_code != 201]
        assert {answer.status_code for answer in answers} == {201, 429}
        assert all(2 <= int(answers[n].headers["retry-after"]) <= 30 for n in again)
        assert [send(n).status_code for n in again] == [201] * len(again)
    assert 0 < most <= 200_000
    assert uploads(client, "over share") == len(again)


def test_a_length_says_nothing_of_a_body_in_chunks():
    settings = Settings(upload_bytes=1000)
    head = {"content-type": "multipart/form-data; boundary=a", "content-length": "1000000"}
    reading._check_head(Headers({**head, "transfer-encoding": "chunked"}), settings)
    with pytest.raises(HTTPException):
        reading._check_head(Headers(head), settings)


def test_tokens_for_uploads(baseline, sqlite):
    client = client_of(baseline, sqlite, tokens=Tokens([ALL, f"{DOOR} door-3"]))
    headers = {"authorization": f"Bearer {DOOR}"}
    assert post(client).status_code == 401
    assert post(client).headers["www-authenticate"] == "Bearer"
    assert post(client, {"authorization": "Bearer wrong"}).status_code == 401
    assert post(client, headers).status_code == 201
    assert post(client, headers, sensor="door-4").status_code == 403
    assert post(client, {"authorization": f"Bearer {ALL}"}, sensor="door-4").status_code == 201
    assert uploads(client, "unauthorised") == 4


def test_pages_of_others_cannot_have_a_browser_upload(service, baseline, sqlite):
    origin = {"origin": "https://example.org"}
    assert post(service, origin).status_code == 403
    with_tokens = client_of(baseline, sqlite, tokens=Tokens([ALL]))  # which such pages do not have
    known_to_the_browser = {"authorization": f"Basic {b64encode(f'me:{ALL}'.encode()).decode()}"}
    assert with_tokens.get("/sensors", headers=known_to_the_browser).status_code == 200
    assert post(with_tokens, origin | known_to_the_browser).status_code == 403
    assert post(with_tokens, known_to_the_browser).status_code == 401
    assert post(with_tokens, origin | {"authorization": f"Bearer {ALL}"}).status_code == 201


def test_there_are_so_many_sensors(baseline, sqlite):
    client = client_of(baseline, sqlite, Settings(sensors=1))
    assert post(client).status_code == 201
    refused = post(client, sensor="door-4")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "3600")
    assert uploads(client, "no room") == 1
    assert post(client, timestamp=WHEN + 1).status_code == 201


def test_a_sensor_with_a_token_of_its_own_has_room_whoever_came_before(baseline, sqlite):
    client = client_of(baseline, sqlite, Settings(sensors=1), tokens=Tokens([ALL, f"{DOOR} door-3"]))
    fleet, door = ({"authorization": f"Bearer {token}"} for token in (ALL, DOOR))
    assert [post(client, fleet, sensor=name).status_code for name in ("made-up", "another")] == [201, 503]
    assert post(client, door).status_code == 201


def test_a_sensor_has_an_allowance_of_new_hours_and_says_when_it_may_send_more(baseline, sqlite):
    """And only of new ones: what is known, and the hour that is there, are taken; so are other sensors' uploads."""
    client = client_of(baseline, sqlite, Settings(hours_a_day=1))
    assert [post(client, timestamp=WHEN + 3600 * n).status_code for n in range(11)] == [201] * 10 + [429]
    refused = post(client, timestamp=WHEN + 3600 * 10)
    assert refused.status_code == 429
    assert 86_000 < int(refused.headers["retry-after"]) <= 86_400
    assert "sensor 'door-3' has had all the new hours" in refused.json()["detail"]
    assert post(client, timestamp=WHEN + 3600 * 9).json()["status"] == "repeated"
    assert post(client, timestamp=WHEN + 3600 * 9 + 1).status_code == 201
    assert post(client, sensor="door-4", timestamp=WHEN + 3600 * 10).status_code == 201
    assert uploads(client, "over share") == 2


def test_a_sensor_has_an_allowance_of_bytes(baseline, sqlite, monkeypatch, caplog):
    size = len(b"".join(device().values()))
    client = client_of(baseline, sqlite, Settings(bytes_a_day=size, sketches_bytes=size))
    answers = [post(client, timestamp=WHEN + n).status_code for n in range(30)]
    taken = answers.count(201)
    assert answers == [201] * taken + [429] * (30 - taken)
    assert 2 <= taken < 10  # a row has bytes, too
    assert 0 < int(post(client, timestamp=WHEN + 99).headers["retry-after"]) <= 2 * 86_400
    assert caplog.text.count("answered 429") == 1
    assert post(client, sensor="door-4").status_code == 201


def test_who_has_sent_most_is_refused_first_where_the_disk_has_little_left(baseline, sqlite, monkeypatch):
    usage, free = namedtuple("usage", "total used free"), [2**40]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 0, free[0]))
    client = client_of(baseline, sqlite)
    assert [post(client, timestamp=WHEN + n).status_code for n in range(5)] == [201] * 5
    sent = int(client.service.allowances.bytes.spent(("", "door-3")))
    free[0] = Settings().free_bytes + sent - 1000
    client.service._disk = (float("-inf"), None)
    refused = post(client, timestamp=WHEN + 9)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "600")
    assert post(client, sensor="door-4").status_code == 201


def test_problems_are_kept_up_to_a_number(service):
    many = {f"imgstats/mean_{n}.bin": b"" for n in range(80)}
    told = post(service, content={**device(), **many}).json()["problems"]
    assert len(told) == 51
    assert told[-1] == "and 30 more"


def test_wrong_tokens_are_slowed_and_counted_and_a_right_one_is_not(baseline, sqlite, caplog):
    client = client_of(baseline, sqlite, tokens=Tokens([ALL, f"{DOOR} door-3"]))
    wrong, right = ({"authorization": f"Bearer {token}"} for token in ("wrong" * 8, DOOR))
    asked = [lambda: post(client, wrong), lambda: client.get("/sensors", headers=wrong)]
    answers = [asked[n % 2]() for n in range(30)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 20
    assert {answer.headers["retry-after"] for answer in answers[10:]} <= {"5", "6"}
    assert post(client, right).status_code == 201
    assert client.get("/sensors", headers={"authorization": f"Bearer {ALL}"}).status_code == 200
    known = {"authorization": f"Basic {b64encode(f'me:{ALL}'.encode()).decode()}"}
    assert post(client, known).status_code == 401  # not for uploads, but not wrong either
    browser = client.get("/")  # which asks before it sends the password
    assert (browser.status_code, "Basic" in browser.headers["www-authenticate"]) == (401, True)
    metric = client.service.metrics.registry.get_sample_value
    counts = {kind: metric("lensai_unauthorised_total", {"token": kind}) for kind in ("missing", "wrong", "slowed")}
    assert counts == {"missing": 2, "wrong": 10, "slowed": 20}
    assert uploads(client, "unauthorised") == 16
    assert caplog.text.count("a wrong token came from testclient") == 1
    assert client.service.turns.reading._shared.taken == 0


def test_reading_is_shared_like_uploading(baseline, sqlite, monkeypatch):
    """Pages are made of the store's connections, which uploads need as well."""
    client, most = client_of(baseline, sqlite, Settings(reads_at_once=6)), []
    listed = queries.list_sensors

    def watched(*arguments, **options):
        most.append(client.service.turns.reading._shared.taken)
        time.sleep(0.02)
        return listed(*arguments, **options)

    monkeypatch.setattr(queries, "list_sensors", watched)
    with client, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: client.get("/sensors").status_code, range(24)))
    assert answers == [200] * 24
    assert max(most) <= 3


@pytest.mark.parametrize("zone", [86_401, 3 * 86_400])
def test_an_upload_of_a_time_ahead_is_sent_again(service, zone):
    """Its clock may be wrong, or the server's; a device must not give it up for that."""
    answer = post(service, timestamp=int(time.time()) + zone + 60)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert uploads(service, "ahead") == 1
    assert stored(service) == 0


def test_the_disk_is_nearly_full_and_then_is_not(service, monkeypatch):
    usage, free = namedtuple("usage", "total used free"), [10]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, free[0]))
    refused = post(service)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "60")
    assert service.get("/healthz").json()["disk"] is False
    free[0] = 2**40
    assert post(service).status_code == 201


def test_the_folder_of_the_store_is_gone(service, monkeypatch):
    def gone(_):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(shutil, "disk_usage", gone)
    assert post(service).status_code == 503
    assert service.get("/healthz").json()["disk"] is False
    assert b"lensai_store_up 0.0" in service.get("/metrics").content
    monkeypatch.undo()
    assert post(service).status_code == 201


def test_the_store_is_full_in_the_middle(service):
    """The database's own error, not ours: nothing is stored, the device is told to send again, and can."""
    store = service.service.store
    with store.reading() as db:
        pages = db.exec_driver_sql("PRAGMA page_count").scalar()
    large = device(n=20_000) | {f"custom/{n}.bin": sketch_of(range(3000), k=2000) for n in range(40)}
    engine = store._engine

    def limited(connection, *_):
        connection.execute(f"PRAGMA max_page_count={pages + 4}")

    event.listen(engine, "checkout", limited)
    refused = post(service, content=large)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert "Traceback" not in refused.text
    exposed = service.service.metrics.exposition()
    assert b'lensai_failures_total{topic="store"} 1.0' in exposed  # alarms go by it: the store can still be read
    event.remove(engine, "checkout", limited)
    engine.dispose()
    assert post(service, content=large).status_code == 201


def test_the_store_is_locked_and_then_is_not(service, monkeypatch):
    monkeypatch.setattr(stores, "WAIT", 0.2)
    with service.service.store.writing():
        assert post(service).status_code == 503
    assert post(service).status_code == 201


def test_another_program_locks_the_store(service, tmp_path):
    with service.service.store.reading() as db:
        db.exec_driver_sql("PRAGMA busy_timeout=50")
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "lensai.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert post(service).status_code == 503
        assert service.get("/sensors").status_code == 200
    assert uploads(service, "unavailable") == 1
    assert post(service).status_code == 201


@pytest.mark.slow
def test_the_database_goes_and_comes_back(baseline, postgresql_server, caplog):
    emptied(postgresql_server.url)
    store = Store(postgresql_server.url)
    client = client_of(baseline, store)
    assert post(client).status_code == 201
    postgresql_server.stop()
    try:
        assert post(client, timestamp=WHEN + 1).status_code == 503
        assert client.get("/sensors").status_code == 503
        assert caplog.text.count("answered 503") == 1
        assert client.get("/healthz").json()["store"] is False
        assert b"lensai_store_up 0.0" in client.get("/metrics").content
    finally:
        postgresql_server.start()
    assert post(client, timestamp=WHEN + 1).status_code == 201
    client.work()
    assert [each.hour for each in queries.list_hours(store, "door-3", most=9)] == [HOUR]
    store.close()


def test_a_defect_is_answered_without_a_traceback(baseline, sqlite, monkeypatch):
    client = client_of(baseline, sqlite)
    monkeypatch.setattr(reading, "read_upload", lambda *_: 1 / 0)
    calm = TestClient(client.app, base_url="http://localhost", raise_server_exceptions=False)
    response = calm.post("/upload/", **form())
    assert response.status_code == 500
    assert response.json() == {"detail": "this is a defect of the server: ZeroDivisionError"}


NOW = 1_800_000_000.0


@pytest.mark.parametrize("name", ["a", "door-3", "A.b_c-9", "0", "x" * 128])
def test_sensors(name):
    assert checked_sensor(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "ä", "a\0", "x" * 129, "<b>"])
def test_no_sensors(name):
    with pytest.raises(InputError, match="sensor_id="):
        checked_sensor(name)


@pytest.mark.parametrize("when", [946_684_801, 1_719_393_854, 1_800_000_000, 1_800_086_400])
def test_times(when):
    assert checked_timestamp(str(when), NOW) == when


@pytest.mark.parametrize(
    "text",
    ["", "0", "946684800", "2115360001", "-1", "+1719393854", "1719393854.5", "1e9", " 1719393854", "1_719_393_854",
     "١٧١٩٣٩٣٨٥٤", "9" * 10_000, "1719393854000", "nan"],
)  # fmt: skip
def test_no_times(text):
    with pytest.raises(InputError, match="timestamp="):
        checked_timestamp(text, NOW)


@pytest.mark.parametrize("ahead", [86_401, 3 * 86_400, 10 * 365 * 86_400])
def test_a_time_that_is_ahead_may_be_right_where_the_clock_here_is_behind(ahead):
    """Answered "send it again": 400 would be for ever."""
    with pytest.raises(TimestampAheadError, match=f"timestamp={int(NOW) + ahead} is {ahead // 86_400} days? ahead of"):
        checked_timestamp(str(int(NOW) + ahead), NOW)


@pytest.mark.parametrize("now", [0.0, 946_684_800.0, 1_500_000_000.0])
def test_a_server_whose_clock_was_never_set_refuses_no_device_for_ever(now):
    with pytest.raises(TimestampAheadError):
        checked_timestamp("1795000000", now)


def test_hours():
    assert [hour_of(when) for when in (7199, 7200, 10_799)] == [3600, 7200, 7200]
