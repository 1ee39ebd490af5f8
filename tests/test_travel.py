"""What is copied, pickled and sent to other processes is what it was: merged, saved and gone on with, to the byte."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import joblib
import measures_of_a_module
import numpy as np
import pytest
import torch

from lensai_integrations import Baseline, DriftMonitor, ImageInputs, Profile, Profiler, Sketches, calibrate, compare
from lensai_integrations import measure as declared
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.lightning import BaselineCallback, DriftCallback
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.profile import to_bytes
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.storage.npz import pack, unpack
from lensai_integrations.training.tracking import active_run
from lensai_integrations.transforms import ProfileImages

N = 120
TRIPS = {
    "pickle": lambda what: pickle.loads(pickle.dumps(what)),
    "cloudpickle": lambda what: pickle.loads(cloudpickle.dumps(what)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}
trips = pytest.mark.parametrize("trip", TRIPS.values(), ids=TRIPS)


def batch(start=0, stop=N):
    rng = np.random.default_rng(0)
    whole = {
        "inputs": rng.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8),
        "labels": rng.integers(0, 5, N),
        "outputs": rng.normal(size=(N, 5)).astype(np.float32),
        "embeddings": rng.normal(size=(N, 7)).astype(np.float32),
    }
    part = {name: rows[start:stop] for name, rows in whole.items()}
    return {**part, "embeddings": {"layer": part["embeddings"]}}


def profile_of(seed=0, start=0, stop=N, **settings) -> Profile:
    profiler = Profiler(seed=seed, source="validation", **settings)
    profiler.update(**batch(start, stop))
    return profiler.profile()


def shard(number: int) -> Profile:
    return profile_of(number, 30 * number, 30 * number + 30)


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return calibrate(profile_of(7), draws=100)


def same(one, two) -> bool:
    return to_bytes(one) == to_bytes(two)


@trips
@pytest.mark.parametrize("settings", [{}, {"segment_by": "label"}, {"convention": ("lensai", "lensai-edge")}])
def test_a_profile_is_the_same_to_the_byte_and_merges_as_before(trip, settings):
    one, two = profile_of(1, 0, 60, **settings), profile_of(2, 60, **settings)
    there = trip(one)
    assert same(there, one)
    assert there.info == one.info
    assert list(there.segments) == list(one.segments)
    assert same(there.merge(two), one.merge(two))
    assert same(two.merge(trip(there)), two.merge(one))


@trips
def test_a_baseline_is_the_same_with_its_calibration_and_what_it_says(trip, baseline):
    given = Baseline(baseline.reference, profile_of(3), {"epoch": 4, "warnings": ["of all"]}, baseline.calibration)
    there = trip(given)
    assert same(there, given)
    assert (there.info, there.warnings, there.n) == (given.info, given.warnings, N)
    assert compare(there, there.reference).correction == "max-t"
    assert trip(Baseline(profile_of(3))).calibration is None


def test_a_copy_is_a_profile_of_its_own(baseline):
    there = copy.copy(baseline)
    there.info["epoch"] = 9
    there.reference.groups.clear()
    assert "epoch" not in baseline.info
    assert baseline.n == N


@pytest.mark.parametrize("kinds", [1, 50, 200, 1000, 5000])
def test_categories_go_on_as_before(kinds):
    rng = np.random.default_rng(0)
    one, two = Categories(), Categories()
    one.update(rng.integers(0, kinds, 20_000))
    two.update(rng.integers(kinds // 2, 2 * kinds, 20_000))
    there, also = pickle.loads(pickle.dumps(one)), pickle.loads(pickle.dumps(one))
    there.merge(two)
    also.merge(copy.deepcopy(copy.deepcopy(two)))
    for each in (there, also):
        assert (each.n, each.top(20), each.error, each.distinct) == (40_000, there.top(20), there.error, there.distinct)
    for name, array in there.state().items():
        assert np.array_equal(array, also.state()[name]), name


def test_damage_on_the_way_is_found():
    (read, arguments) = profile_of().__reduce__()
    with pytest.raises(FormatError):
        read(arguments[0][:-100])


def test_a_later_release_s_bytes_are_refused_and_an_earlier_one_s_are_read(monkeypatch):
    (read, (blob,)) = profile_of().__reduce__()
    arrays = unpack(blob)
    manifest = json.loads(arrays.pop("manifest").tobytes())
    for version, fails in ((2, True), (None, False)):
        known = {key: value for key, value in manifest.items() if key != "format_version"}
        known |= {} if version is None else {"format_version": version}
        sent = pack({**arrays, "manifest": np.frombuffer(json.dumps(known).encode(), np.uint8)})
        with (
            pytest.raises(FormatError, match="format_version 2; this release reads 1: upgrade")
            if fails
            else nullcontext()
        ):
            assert read(sent).n == N


def test_what_no_file_can_hold_is_named():
    given = profile_of()
    given.info["place"] = Path("here")
    with pytest.raises(InputError, match=r"info\['place'\] of the profile is .*Path"):
        pickle.dumps(given)
    with pytest.raises(InputError, match=r"info\['f1'\] of the baseline is nan"):
        pickle.dumps(Baseline(profile_of(), info={"f1": float("nan")}))


@trips
@pytest.mark.parametrize(
    "settings",
    [{}, {"segment_by": "label"}, {"like": True}, {"convention": ("lensai", "lensai-edge")}, {"measures": True}],
    ids=str,
)
def test_a_profiler_goes_on_in_mid_pass(trip, settings, baseline):
    if "like" in settings:
        settings = {"like": baseline}
    if "measures" in settings:
        settings = {"measures": [measures_of_a_module.glare, measures_of_a_module.darkest]}
    here = Profiler(seed=3, **settings)
    here.update(**batch(0, 50))
    if trip is copy.copy:
        trip = copy.deepcopy  # a shallow copy shares its sketches, as that of any object does
    there = trip(here)
    for each in (here, there):
        each.update(**batch(50))
    profiles = [each.profile() for each in (here, there)]
    for each in profiles:
        del each.info["created"]
    assert same(*profiles)
    assert trip(Profiler(**settings)).profile().n == 0


def test_a_profiler_of_tensors_goes_on():
    profiler = Profiler(seed=0)
    profiler.update(inputs=torch.rand(10, 3, 8, 8), outputs=torch.randn(10, 4))
    there = pickle.loads(pickle.dumps(profiler))
    there.update(inputs=torch.rand(10, 3, 8, 8), outputs=torch.randn(10, 4))
    assert there.profile().n == 20


def test_measures_are_found_where_they_are_declared():
    for each in (measures_of_a_module.glare, measures_of_a_module.darkest):
        assert all(trip(each) is each for trip in TRIPS.values())


def test_measures_of_no_module_travel_as_their_code_or_not_at_all():
    @declared("travel-local")
    def local(images):
        return images.mean((1, 2, 3))

    of_lambda = declared("travel-lambda")(lambda images: images.max((1, 2, 3)))
    for each in (local, of_lambda):
        assert pickle.loads(cloudpickle.dumps(each)) is each
        assert copy.deepcopy(each) is each
        with pytest.raises((pickle.PicklingError, AttributeError), match=r"local|lambda"):
            pickle.dumps(each)


_ELSEWHERE = """
import pickle, sys
import numpy as np
profiler = pickle.load(open(sys.argv[1], "rb"))
profiler.update(inputs=np.full((4, 8, 8, 3), 250, np.uint8))
profile = profiler.profile()
print(profile.n, sorted(profile.groups["inputs"].apart), profile.groups["inputs"].apart["travel-code"].bank.max)
"""


def test_another_process_measures_what_came_as_code(tmp_path):
    @declared("travel-code")
    def bright(images):
        return (images > 245).mean((1, 2, 3))

    (tmp_path / "profiler").write_bytes(cloudpickle.dumps(Profiler(measures=[bright])))
    command = [sys.executable, "-c", _ELSEWHERE, str(tmp_path / "profiler")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "4 ['travel-code'] [1.]\n"


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_shards_of_processes_are_one_profile(method):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        there = list(pool.map(shard, range(4)))
    here = [shard(number) for number in range(4)]
    whole, expected = there[0], here[0]
    for one, two in zip(there[1:], here[1:], strict=True):
        whole, expected = whole.merge(one), expected.merge(two)
    assert (whole.n, whole.groups["labels"].n) == (N, N)
    for name, group in expected.groups.items():
        for key, sketch in group.sketches.items():
            for part, array in sketch.state().items():
                assert np.array_equal(array, whole.groups[name].sketches[key].state()[part]), (name, key, part)


_OF_MAIN = """
import multiprocessing

import joblib
import numpy as np
from lensai_integrations import Profiler, measure


@measure("travel-main")
def bright(images):
    return images.mean((1, 2, 3))


def work(profiler):
    profiler.update(inputs=np.full((4, 8, 8, 3), 7, np.uint8))
    return profiler.profile()


if __name__ == "__main__":
    given = [Profiler(measures=[bright], seed=seed) for seed in range(2)]
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            one, two = pool.map(work, given)
        print(one.merge(two).n, one.groups["inputs"].apart["travel-main"].bank.max)
    one, two = joblib.Parallel(2)(joblib.delayed(work)(each) for each in given)
    print(one.merge(two).n, one.groups["inputs"].apart["travel-main"].bank.max)
"""


@pytest.mark.slow
def test_measures_of_a_script_are_there_in_its_processes(tmp_path):
    (tmp_path / "script.py").write_text(_OF_MAIN)
    command = [sys.executable, str(tmp_path / "script.py")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "8 [7.]\n" * 3


@pytest.mark.slow
def test_shards_of_joblib_and_torch_are_one_profile():
    found = joblib.Parallel(2)(joblib.delayed(shard)(number) for number in range(2))
    context = torch.multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        found += pool.map(shard, [2, 3])
    whole = found[0].merge(found[1]).merge(found[2]).merge(found[3])
    assert whole.groups["labels"].n == N
    assert whole.groups["outputs"].bank.n == N


def test_a_monitor_says_that_it_stays_and_what_to_send(baseline):
    monitor = DriftMonitor(baseline, window=50, name="door")
    for trip in TRIPS.values():
        with pytest.raises(InputError, match=r"the monitor 'door' cannot be copied .* send the baseline, and make"):
            trip(monitor)
    callback = DriftCallback(monitor=monitor)
    for trip in TRIPS.values():
        if trip is not copy.copy:  # both hand their batches to the one monitor then
            with pytest.raises(InputError, match=r"with monitor=\.\.\. cannot be copied .*: give it the baseline"):
                trip(callback)


def test_what_a_monitor_gives_travels(baseline):
    events = []
    with DriftMonitor(baseline, window=60, sinks=[events.append]) as monitor:
        reports = monitor.update(**batch())
    assert [each.rows for each in reports] == [60, 60]
    for trip in TRIPS.values():
        for report in reports:
            there = trip(report)
            assert there.to_dict() == report.to_dict()
            assert same(there.profile, report.profile)
        assert trip(monitor.status) == monitor.status
        assert [trip(event).to_dict() for event in events] == [event.to_dict() for event in events]
    report = compare(baseline, profile_of(5))
    assert str(pickle.loads(pickle.dumps(report))) == str(report)


@trips
def test_small_things_travel(trip):
    inputs = ImageInputs(mean=[0.5] * 3, std=[0.2] * 3, key=("a", 0))
    assert trip(inputs) == inputs
    sketches = Sketches()
    sketches.register_metric("mean", 3)
    sketches.update_sketches(mean=np.arange(30.0).reshape(10, 3))
    assert trip(sketches).compute_thresholds() == sketches.compute_thresholds()
    images = ProfileImages()
    images(torch.zeros(3, 8, 8, dtype=torch.uint8))
    there = trip(images)
    assert there.collector.name == "raw"


@trips
def test_callbacks_ask_for_the_same_and_have_nothing_of_a_fit(trip, baseline):
    callback = BaselineCallback(layers=["fc"], measures=[measures_of_a_module.glare], directory="there")
    callback._fit, callback._pending = SimpleNamespace(lock=multiprocessing.Lock()), True
    callback.log = callback.log_dict = lambda: None  # Lightning's, with the model
    there = trip(callback)
    assert there._options == callback._options
    assert (there._fit, there._pending, there.baseline_) == (None, False, None)
    assert "log" not in there.__dict__
    assert active_run() is None
    drift = trip(DriftCallback(baseline, window=30, layers=["layer"]))
    assert (drift.reports_, drift.monitor_, drift._passes.options.window) == ([], None, 30)


def test_what_a_callback_has_made_goes_to_other_processes_and_not_into_copies(baseline):
    callback = BaselineCallback()
    callback.baseline_, callback.directory_ = baseline, Path("there")
    there = pickle.loads(pickle.dumps(callback))
    assert same(there.baseline_, baseline)
    assert there.directory_ == Path("there")
    for copied in (copy.copy(callback), copy.deepcopy(callback)):
        assert (copied.baseline_, copied.directory_) == (None, None)

    drift = DriftCallback(baseline, window=30)
    drift._passes.begin(Problems())
    drift._passes.update(**batch())
    assert [each.rows for each in pickle.loads(pickle.dumps(drift)).reports_] == [30] * 4
    for copied in (copy.copy(drift), copy.deepcopy(drift)):
        assert (copied.reports_, copied.monitor_) == ([], None)
    assert len(drift.reports_) == 4
    drift.monitor_.close()


def test_baselines_are_no_larger_than_their_files(baseline, tmp_path):
    baseline.save(tmp_path / "saved")
    assert len(pickle.dumps(baseline)) < 1.2 * (tmp_path / "saved" / "profile.npz").stat().st_size + 20_000
    assert len(pickle.dumps(DriftCallback(baseline))) < 1.1 * len(pickle.dumps(baseline))
