"""What programs are answered."""

from __future__ import annotations

import pytest
from receiving import HOUR, WHEN, client_of, device, form

from lensai_integrations import Profiler
from lensai_integrations.errors import InputError
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.tokens import Tokens

ALL, DOOR = "a" * 32, "b" * 32


def fill(client, sensors=("door-3",), hours=1):
    for sensor in sensors:
        for n in range(hours):
            assert client.post("/upload/", **form(sensor, WHEN + 3600 * n)).status_code == 201
    client.work(1e6)


@pytest.fixture
def filled(baseline, store):
    client = client_of(baseline, store)
    fill(client, ("b", "a", "c"), 3)
    return client


def test_sensors(filled):
    answer = filled.get("/sensors").json()
    assert [sensor["name"] for sensor in answer["sensors"]] == ["a", "b", "c"]
    assert answer["next"] is None
    first = answer["sensors"][0]
    assert {key: first[key] for key in ("uploads", "first", "last", "problems", "run_url")} == {
        "uploads": 3,
        "first": WHEN,
        "last": WHEN + 7200,
        "problems": [],
        "run_url": "",
    }
    assert (first["latest"]["hour"], first["latest"]["drift"]) == (HOUR + 7200, True)


def test_sensors_page_by_page(filled):
    seen, after = [], ""
    while after is not None:
        answer = filled.get("/sensors", params={"limit": 2, "after": after}).json()
        seen.append([sensor["name"] for sensor in answer["sensors"]])
        after = answer["next"]
    assert seen == [["a", "b"], ["c"]]


BETWEEN = [
    ({}, [0, 1, 2]),
    ({"from": HOUR + 3600}, [1, 2]),
    ({"from": HOUR + 3599}, [0, 1, 2]),
    ({"to": HOUR + 3600}, [0]),
    ({"from": WHEN + 3600, "to": WHEN + 3600}, [1]),
    ({"from": "2024-06-26T10:00:00Z"}, [1, 2]),
    ({"from": "2024-06-26T12:00:00+02:00"}, [1, 2]),
    ({"to": "2024-06-26T10:00"}, [0]),
    ({"from": "2024-06-27"}, []),
]


def test_drift(service):
    fill(service, hours=3)
    for query, hours in BETWEEN:
        answer = service.get("/sensors/door-3/drift", params=query).json()
        assert [each["hour"] for each in answer["hours"]] == [HOUR + 3600 * n for n in hours], query
        assert answer["cut"] is False
        assert all(each["drift"] is True and each["judged"] == 1e6 for each in answer["hours"])
    plus = service.get("/sensors/door-3/drift?from=2024-06-26T12:00:00+02:00")  # as people type it
    assert [each["hour"] for each in plus.json()["hours"]] == [HOUR + 3600, HOUR + 7200]


def test_the_newest_of_many_hours(baseline, sqlite):
    client = client_of(baseline, sqlite, Settings(judge_seconds=0, hours=2))
    fill(client, hours=3)
    answer = client.get("/sensors/door-3/drift").json()
    assert ([each["hour"] for each in answer["hours"]], answer["cut"]) == ([HOUR + 3600, HOUR + 7200], True)


def test_an_hour_with_its_report(service):
    fill(service)
    answer = service.get(f"/sensors/door-3/hours/{HOUR}").json()
    assert answer["verdict"]["uploads"] == 1
    assert answer["report"]["drift"] is True
    assert answer["report"]["groups"][0]["name"] == "inputs/lensai-edge"


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/sensors/none/drift", 404, "there is no sensor 'none'"),
        ("/sensors/none", 404, "there is no sensor 'none'"),
        ("/sensors/none/hours/0", 404, "'none' has no hour 0"),
        ("/sensors/none/hours/0/report", 404, "'none' has no hour 0"),
        ("/sensors/a/hours/noon", 400, "hour: "),
        ("/sensors?limit=0", 400, "limit: "),
        ("/sensors/a/drift?from=yesterday", 400, "from='yesterday' should be"),
        ("/sensors/a/drift?to=99999-01-01", 400, "to='99999-01-01'"),
        ("/sensors/a%00/drift", 400, "sensor: "),
        ("/sensors?after=%00", 400, "after: "),
        ("/sensors/a/hours/99999999999999999999999", 400, "hour: "),
        ("/docs", 404, "Not Found"),
    ],
)
def test_what_is_not_there(baseline, store, path, status, detail):
    response = client_of(baseline, store).get(path, headers={"Accept": "application/json"})
    assert response.status_code == status
    assert detail in response.json()["detail"]


def test_health(service):
    down = service.get("/healthz")
    assert (down.status_code, down.json()["worker"]) == (503, False)
    with service:
        up = service.get("/healthz")
    assert (up.status_code, up.json()) == (200, {"status": "ok", "store": True, "worker": True, "disk": True})


def test_metrics(service):
    fill(service)
    service.post("/upload/", **form())
    answer = service.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    for line in (
        'lensai_uploads_total{result="created"} 1.0',
        'lensai_uploads_total{result="repeated"} 1.0',
        "lensai_upload_seconds_count 2.0",
        "lensai_uploads_merged_total 1.0",
        'lensai_hours_judged_total{verdict="drift"} 1.0',
        'lensai_failures_total{topic="judge"} 0.0',
        "lensai_store_up 1.0",
        "lensai_sensors 1.0",
        "lensai_uploads_pending 0.0",
        "lensai_hours_due 0.0",
        "lensai_hours_forgotten_total 0.0",
        "lensai_sensors_drifting 1.0",
        "lensai_sensors_left_out 0.0",
        'lensai_sensor_drift{sensor="door-3"} 1.0',
        f'lensai_sensor_hour_timestamp_seconds{{sensor="door-3"}} {float(HOUR)!r}'.replace(
            "1719392400.0", "1.7193924e+09"
        ),
    ):
        assert line in lines


def test_two_servers_of_one_process_count_apart(baseline, sqlite):
    one, other = client_of(baseline, sqlite), client_of(baseline, sqlite)
    fill(one)
    assert 'result="created"' not in other.get("/metrics").text


@pytest.mark.parametrize("path", ["/", "/sensors", "/sensors/a", "/sensors/a/drift", "/sensors/a/hours/0", "/metrics"])
def test_reading_needs_a_token_for_reading(baseline, sqlite, path):
    client = client_of(baseline, sqlite, tokens=Tokens([ALL, f"{DOOR} a"]))
    nobody = client.get(path)
    assert nobody.status_code == 401
    assert nobody.headers["www-authenticate"].startswith("Basic ")
    assert client.get(path, headers={"authorization": f"Bearer {DOOR}"}).status_code == 403
    for who in ({"headers": {"authorization": f"Bearer {ALL}"}}, {"auth": ("me", ALL)}):
        assert client.get(path, **who).status_code in (200, 404)
    assert client.get("/healthz").status_code == 503  # open; no worker runs here


def test_openapi_says_everything(service):
    described = service.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/upload/", "/sensors", "/sensors/{sensor}", "/sensors/{sensor}/drift", "/sensors/{sensor}/hours/{hour}",
        "/sensors/{sensor}/hours/{hour}/report", "/", "/healthz", "/metrics",
    }  # fmt: skip
    upload = described["paths"]["/upload/"]["post"]
    assert set(upload["responses"]) == {"200", "201", "400", "401", "403", "408", "413", "429", "503"}
    fields = upload["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(fields) == {"sensor_id", "timestamp", "file_type", "file"}
    for path in described["paths"].values():
        for operation in path.values():
            assert operation["description"]
            assert "422" not in operation["responses"]
    assert "ValidationError" not in described["components"]["schemas"]


def test_openapi_asks_for_tokens_where_the_server_does(baseline, sqlite):
    client = client_of(baseline, sqlite, tokens=Tokens([ALL]))
    described = client.get("/openapi.json").json()
    assert set(described["components"]["securitySchemes"]) == {"bearer", "basic"}
    assert described["paths"]["/upload/"]["post"]["security"] == [{"bearer": []}]
    assert described["paths"]["/sensors"]["get"]["security"] == [{"bearer": []}, {"basic": []}]
    assert "security" not in described["paths"]["/healthz"]["get"]


def test_a_baseline_without_measures_of_devices_is_refused(sqlite, baseline):
    other = Profiler()
    other.update(inputs=__import__("numpy").zeros((4, 8, 8, 3), "uint8"))
    for each in (Baseline(other.profile()), Baseline(Profile())):
        with pytest.raises(InputError, match="convention='lensai-edge'"):
            client_of(each, sqlite)


def test_another_baseline_judges_what_is_there_anew(baseline, sqlite, caplog):
    fill(client_of(baseline, sqlite))
    from lensai_integrations.edge.reading import profile_of_files

    same = client_of(Baseline(profile_of_files(device(), "door-3", WHEN)), sqlite)
    assert "every hour in it is judged anew" in caplog.text
    again = client_of(Baseline(profile_of_files(device(), "door-3", WHEN)), sqlite)
    assert caplog.text.count("every hour in it is judged anew") == 1
    same.work(2e6)
    again.work(3e6)
    (found,) = same.get("/sensors/door-3/drift").json()["hours"]
    assert (found["drift"], found["judged"]) == (False, 2e6)
