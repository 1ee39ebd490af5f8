"""Publishing to a real server on loopback."""

from __future__ import annotations

import io
import socket
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from datasketches import kll_floats_sketch

from lensai_integrations import Sketches
from lensai_integrations.errors import InputError, TrackingError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sketches = Sketches()
    sketches.register_metric("noise")
    sketches.register_metric("embeddings")
    sketches.update_sketches(noise=np.arange(10.0), embeddings=np.ones((3, 4)))
    sketches.save_sketches(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_folder_arrives_in_both_dialects(server, folder: Path) -> None:
    (folder / "secrets.txt").write_text("not for others")
    (folder / "imgstats" / "link.bin").symlink_to(folder / "secrets.txt")
    before = sorted(folder.rglob("*"))
    Sketches().publish_sketches(str(folder), server.url)
    Sketches().publish_sketches(folder, server.url, sensor_id="camera-1", token="t0ken")
    first, second = server.uploads
    assert (first.fields["sensor_id"], second.fields["sensor_id"]) == ("reference", "camera-1")
    assert first.fields["file_type"] == first.headers["metrictype"] == "stats"
    assert first.headers["sensorid"] == "reference"
    assert int(first.fields["timestamp"]) == int(first.headers["timestamp"]) > 1_600_000_000
    assert (first.headers["Authorization"], second.headers["Authorization"]) == (None, "Bearer t0ken")
    with tarfile.open(fileobj=io.BytesIO(first.file), mode="r:gz") as tar:
        contents = {member.name: tar.extractfile(member).read() for member in tar}
    assert sorted(contents) == ["imgstats/noise.bin", "modelstats/embeddings.bin"]
    assert kll_floats_sketch.deserialize(contents["imgstats/noise.bin"]).n == 10
    assert sorted(folder.rglob("*")) == before


def test_folders_sent_at_once_arrive_whole(server, tmp_path: Path) -> None:
    def send(n: int) -> None:
        sketches = Sketches()
        sketches.register_metric("noise")
        sketches.update_sketches(noise=np.zeros(n))
        sketches.save_sketches(tmp_path / str(n))
        sketches.publish_sketches(tmp_path / str(n), server.url, sensor_id=f"sensor-{n}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(1, 17)))
    found = {}
    for upload in server.uploads:
        with tarfile.open(fileobj=io.BytesIO(upload.file), mode="r:gz") as tar:
            (member,) = tar
            found[upload.fields["sensor_id"]] = kll_floats_sketch.deserialize(tar.extractfile(member).read()).n
    assert found == {f"sensor-{n}": n for n in range(1, 17)}


@pytest.mark.parametrize("answer", [400, 401, 500, 302, 204])
def test_a_refusal_is_raised(server, folder: Path, answer: int) -> None:
    server.answer = answer
    with pytest.raises(TrackingError, match=f"did not take the sketches: it answered {answer}"):
        Sketches().publish_sketches(folder, server.url, token="t0ken")
    assert len(server.uploads) == 1


def test_a_server_that_has_something_of_every_second_has_none_of_this(server, folder: Path) -> None:
    server.answer = 200
    with pytest.raises(TrackingError, match=r"answered 20 times .* is this the address of uploads\?"):
        Sketches().publish_sketches(folder, server.url)
    times = [int(each.fields["timestamp"]) for each in server.uploads]
    assert times == list(range(times[0], times[0] + 20))
    assert all(each.headers["timestamp"] == each.fields["timestamp"] for each in server.uploads)


def test_what_the_server_has_of_a_folder_that_names_a_time_is_no_failure(server, folder: Path, caplog) -> None:
    server.answer = 200
    folder = folder.rename(folder.with_name("1719393854"))
    Sketches().publish_sketches(folder, server.url)
    assert [each.fields["timestamp"] for each in server.uploads] == ["1719393854"]
    assert "had sketches of sensor 'reference' at 1719393854 before and does not say" in caplog.text


def test_no_answer_is_raised_in_time(server, folder: Path) -> None:
    server.answer = 0
    with pytest.raises(TrackingError, match=r"could not be reached within 0\.2 s"):
        Sketches().publish_sketches(folder, server.url, timeout=0.2)


def test_no_server_is_raised(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(TrackingError, match="could not be reached"):
            Sketches().publish_sketches(folder, f"http://127.0.0.1:{free.getsockname()[1]}/upload/")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"endpoint_url": "file:///etc/passwd"}, "endpoint_url should begin"),
        ({"endpoint_url": "localhost/upload"}, "endpoint_url should begin"),
        ({"sensor_id": "a\r\nX: 1"}, "sensor_id="),
        ({"token": "a\nb"}, "token should be"),
        ({"timeout": 0}, "timeout=0"),
        ({"folder_path": "/nonexistent"}, "has no sketches"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_sent(server, folder: Path, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        Sketches().publish_sketches(**{"folder_path": folder, "endpoint_url": server.url, **arguments})
    assert "a\nb" not in str(raised.value)
    assert not server.uploads
