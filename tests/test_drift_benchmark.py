"""The benchmark of drift methods, on made-up features: which rows it compares, how it counts, and that it runs."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensai_integrations.drift.max_t import corrected_statistics

HOW = {"references": 3, "clean": 6, "shifted": 2, "sizes": (10, 50)}


@pytest.fixture(scope="module")
def parts():
    """The benchmark's modules; importing it sets the number of threads, for itself alone."""
    pytest.importorskip("torchvision")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", os.environ.copy())
        from benchmarks.drift import dependent, detection, fleet, peer_answers, tables, windows, years

        modules = {"windows": windows, "tables": tables, "peers": peer_answers, "years": years, "fleet": fleet}
        yield {"drift": detection, "dependent": dependent, **modules}


@pytest.fixture(scope="module")
def made(parts):
    """Features of 400 rows of ten classes; every shift moves all columns by one standard deviation."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 40)
    features = {}
    for number, shift in enumerate(("clean", *parts["windows"].IMAGES)):
        rows = {name: rng.normal(size=(400, dim)) + (number > 0) for name, dim in (("inputs", 4), ("embeddings", 8))}
        rows["outputs"] = rng.dirichlet(np.ones(14), 400) + 0.1 * (number > 0)
        features[shift] = {name: each.astype(np.float32) for name, each in rows.items()} | {"labels": labels}
    return features


@pytest.fixture(scope="module")
def draws(parts, made):
    kept = {key: value for key, value in HOW.items() if key != "sizes"}
    return parts["windows"].drawn(tuple(made), made["clean"]["labels"], HOW["sizes"], rows=160, **kept)


def test_windows_come_from_the_other_rows_and_from_their_shift(parts, draws):
    names = list(draws.names)
    for windows in draws.windows.values():
        assert len(windows.rows) == 3 * (6 + 2 * len(parts["windows"].SHIFTS))
        for shift, reference, rows in zip(windows.shift, windows.reference, windows.rows, strict=True):
            source, image = rows // 400, rows % 400
            assert len(set(image)) == windows.size
            assert not set(image) & set(draws.references[reference])
            of = parts["windows"].MIXED.get(shift, (shift if shift in names else "clean", 1))[0]
            assert set(source) <= {0, names.index(of)}
            assert shift in parts["windows"].MIXED or set(source) == {names.index(of)}


def test_a_dropped_class_is_not_there_and_a_mixture_has_its_share(parts, draws, made):
    labels, windows = made["clean"]["labels"], draws.windows[50]
    for rows in windows.rows[windows.shift == "class dropped"]:
        assert len(set(labels[rows % 400])) == 9
    moved = windows.rows[windows.shift == "25% blur easy"] >= 400
    assert 0.15 < moved.mean() < 0.35


def test_windows_stay_the_same_when_more_are_drawn(parts, draws, made):
    more = parts["windows"].drawn(
        tuple(made), made["clean"]["labels"], (10,), rows=160, references=3, clean=9, shifted=4
    )
    first = more.windows[10].first(6, 2)
    np.testing.assert_array_equal(more.windows[10].rows[first], draws.windows[10].rows)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.floats(0.01, 0.99))
def test_power_of_the_clean_windows_themselves_is_the_rate(parts, scores, rate):
    clean = np.array(scores, float)
    assert parts["tables"].power(clean, clean, rate) == pytest.approx(rate)


def test_false_alarms_by_reference(parts, draws):
    windows = draws.windows[10]
    p = np.full(len(windows.shift), 0.5)
    p[np.flatnonzero(windows.clean)[:3]] = 0.001  # three of six of the first reference
    p[np.flatnonzero(windows.clean)[-1]] = np.nan
    row = parts["tables"].false_alarms(-p, windows, 0.01)
    assert row["windows"] == 17
    assert row["mean"] == pytest.approx((0.5 + 0 + 0) / 3)
    assert row["worst"] == 0.5
    assert row["verdict"] == "about"


def test_a_peer_is_ahead_only_beyond_chance(parts):
    methods = {"ours": {"found": 0.5, "windows": 100}}
    row = {"methods": methods | {name: {"found": x, "windows": 100} for name, x in (("a", 0.6), ("b", 0.7))}}
    assert parts["tables"].ahead(row, "ours", ["a", "b", "c"]) == ["b"]


@pytest.mark.slow
def test_it_runs_and_finds_what_is_plain(parts, made, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parts["windows"], "SHIFTS", ("noise 6", "class dropped", "25% blur easy"))
    drift, cache = parts["drift"], tmp_path / "peers"
    how = {"references": 2, "clean": 4, "shifted": 1, "sizes": (50,)}
    result = drift.result_of(made, ["scipy"], cache, tmp_path, how, 0.05)
    json.dumps(result)
    found = {(row["shift"], row["size"]): row["methods"] for row in result["detection"]}
    assert found["noise 6", 50]["combined"]["found"] == found["noise 6", 50]["KS softmax"]["found"] == 1
    assert all(row["found"] == 1 for row in result["as_asked"] if row["shift"] == "noise 6" and row["size"] == 50)
    assert result["peers"].keys() == {"scipy"}
    drift.show(result)
    assert "| noise 6 | 50 | **1.00** |" in capsys.readouterr().out


def test_what_a_peer_said_is_asked_again_only_of_other_rows(parts, tmp_path):
    asked = []

    def make(answer):
        return lambda: asked.append(answer) or {"scores": answer}

    kept, cache = parts["peers"].kept, tmp_path / "peers"
    assert kept(cache, "one", "key", make(1))["scores"] == 1
    assert kept(cache, "two", "key", make(2))["scores"] == 2
    assert kept(cache, "one", "key", make(3))["scores"] == 1
    assert kept(cache, "one", "other", make(4))["scores"] == 4
    assert asked == [1, 2, 4]


def test_a_peer_answers_from_its_own_process(parts, draws, made, tmp_path, monkeypatch):
    """The script that runs there, with a peer of this test's in the place of one that has to be installed."""
    from benchmarks.drift import peer_scores as within

    monkeypatch.setitem(
        within.PEERS, "frouros", lambda reference: lambda rows: {"mean": rows.mean() - reference.mean()}
    )
    windows = draws.windows[10]
    table = parts["windows"].table_of(made, "embeddings")
    jobs = {"table": table, "references": draws.references, "rows": windows.rows, "reference": windows.reference}
    answers = {10: {"scores": list(within.answers("frouros", jobs))}}
    scores = parts["peers"].scores_of(answers, windows, (6, 2))["mean"]
    assert scores[windows.shift == "noise 6"].min() > scores[windows.clean].max()
    np.testing.assert_allclose(
        scores[-1], table[windows.rows[-1]].mean() - table[draws.references[-1]].mean(), rtol=1e-4, atol=1e-4
    )


def test_years_are_those_of_the_monitor_and_of_single_windows(parts, made, monkeypatch):
    years = parts["years"]
    for name, windows in (("MONTH", 300), ("BEFORE", 40), ("SOON", 60), ("LONGEST", 100)):
        monkeypatch.setattr(years, name, windows)
    data = years.Data.of(made)
    options = SimpleNamespace(baselines=2, runs=1, months=1, peers="", quick=True)
    found = years.result_of(data, options)
    assert [len(each) for each in found["false_alarms_a_year"].values()] == [2] * 4
    assert len(found["delays"]) == len(years.SHIFTS)
    assert found["delays"]["noise, 12 grey levels"][years.OURS] == [10]
    assert found["effects"]["noise, 12 grey levels"] > 0.3
    assert "| noise, 12 grey levels |" in years.table_of_delays(found)
    assert years.words_of([10, None, None]) == "- (1 of 3)"


def test_p_values_of_years_are_those_of_compare(parts, made):
    years, data = parts["years"], parts["years"].Data.of(made)
    reference, rng = np.arange(160), np.random.default_rng(3)
    baseline = years.profile_of({name: rows[reference] for name, rows in data.tables.items()})
    calibration = years.calibrated(baseline, seed=1)
    numbers = rng.choice(np.arange(160, 400), 40)
    stream = years.Stream(calibration, data, numbers)
    for first, last in ((0, 0), (2, 2), (0, 1), (0, 3)):
        rows = numbers[first * years.WINDOW : (last + 1) * years.WINDOW]
        window = years.profile_of({name: table[rows] for name, table in data.tables.items()}, baseline)
        found = min(float(np.exp(each.log_p.min())) for each in corrected_statistics(calibration, window))
        # between two sizes it is the least of means there, and here the mean of least ones
        assert stream.ask(years.Stretch(first, last), 0.5).p_value == pytest.approx(found, rel=0.1)


def test_peers_count_alarms_an_hour_apart(parts):
    peers = parts["years"].answers_of.__globals__
    assert peers["alarms_of"](iter([3, 4, 60, 61, 200])) == 3


@pytest.fixture(scope="module")
def net_fleet(parts, made):
    """Windows of the answers of a net, of which 160 rows are the baseline."""
    fleet = parts["fleet"]
    classes = made["clean"]["outputs"][:, :10].argmax(1)[:, None].astype(np.float32)
    population = fleet.of_table({"outputs": made["clean"]["outputs"], "outputs/top_class": classes})
    return fleet, population, fleet.Windows(population.calibration(np.arange(160), 0), population.rows)


def test_a_month_of_sensors_is_weighed_as_one_sensor_by_itself(net_fleet):
    """By p-values of `compare`, of windows whose rows are put together one by one."""
    fleet, population, windows = net_fleet
    calibration = population.calibration(np.arange(160), 0)
    numbers = fleet.drawn(np.arange(400), 3, [5])
    month = fleet.month_of(windows, numbers, 13)

    def e_value(rows):
        tables = {name: table[rows] for name, table in population.rows.items()}
        classes = {"outputs/top_class": tables.pop("outputs/top_class")}
        found = corrected_statistics(calibration, fleet.profile_of(tables, classes=classes))
        return np.exp(fleet.log_e_value(min(float(each.log_p.min()) for each in found)))

    largest = np.zeros(3)
    for sensor in range(3):
        hours = [numbers(hour)[sensor] for hour in range(13)]
        singles = [e_value(rows) for rows in hours]
        ends = {6: range(1, 14), 24: (*range(1, 7), 7, 9, 11, 13), 168: (*range(1, 7), 7, 9, 11, 13)}
        for end in range(1, 14):
            spans = {length: max(at for at in places if at <= end) for length, places in ends.items()}
            of_spans = [e_value(np.concatenate(hours[max(at - length, 0) : at])) for length, at in spans.items()]
            largest[sensor] = max(largest[sensor], (np.mean(singles[:end]) + sum(of_spans)) / 4)
        for end in range(13):
            spans = {length: max((at for at in places if at <= end), default=0) for length, places in ends.items()}
            of_spans = [e_value(np.concatenate(hours[max(at - n, 0) : at])) for n, at in spans.items() if at]
            for look in range(1, fleet.LOOKS):
                part = e_value(hours[end][: fleet.ROWS * look // fleet.LOOKS])
                largest[sensor] = max(largest[sensor], (np.mean([*singles[:end], part]) + sum(of_spans)) / 4)
    np.testing.assert_allclose(np.exp(month.largest), largest, rtol=0.15)  # between two sizes, as above
    assert month.ever_false == 0


def test_sensors_that_drift_are_reported_and_few_beside_them(net_fleet, made):
    fleet, population, _ = net_fleet
    moved = made["noise 6"]["outputs"]
    classes = moved[:, :10].argmax(1)[:, None].astype(np.float32)
    rows = {
        "outputs": np.concatenate([population.rows["outputs"], moved]),
        "outputs/top_class": np.concatenate([population.rows["outputs/top_class"], classes]),
    }
    both = fleet.Windows(population.calibration(np.arange(160), 0), rows)
    numbers = fleet.drifting_rows(fleet.drawn(np.arange(400), 20, [6]), 400, 1, 4)
    assert (numbers(3)[:4] >= 400).all()
    assert (numbers(3)[4:] < 400).all()
    month = fleet.month_of(both, numbers, 8, drifting=4)
    assert month.true[-1] == 4
    assert month.false == [0] * 8
    assert month.false_share == month.ever_false == 0


@pytest.mark.slow
def test_a_device_that_drifts_goes_through_the_receiver(parts, monkeypatch):
    fleet = parts["fleet"]
    monkeypatch.setattr(fleet, "BEFORE", 25)
    monkeypatch.setattr(fleet, "LONGEST", 4)
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    devices = fleet.Devices.of(images, {"clean": lambda x: x, "dark": lambda x: x // 2})
    baseline = devices.baseline(np.arange(300), 0)
    assert fleet.delay_of(devices, baseline, ("dark", 1.0), 999, [1]) == 1
    assert fleet.delay_of(devices, baseline, ("clean", 1.0), 999, [1]) is None
    assert fleet.effect_of(devices.rows["clean"], devices.rows["dark"], 0.5) > 0.4
    told = fleet.cost_of(devices, baseline)
    assert told["weighing, most"] >= told["weighing"] > 0
    assert told["most log e"] < 5


@pytest.mark.slow
def test_the_page_of_many_sensors_has_so_many_rows_and_no_more(parts):
    assert parts["fleet"].index_of(510)["rows"] == 500


def test_windows_of_dependent_rows_are_what_their_names_say(parts, made, monkeypatch):
    dependent = parts["dependent"]
    monkeypatch.setattr(dependent, "ROWS", 150)
    data, pool = dependent.Data(made), np.arange(150, 400)
    clean = {key: table[:400] for key, table in data.tables.items()}
    for name, draw in dependent.KINDS.items():
        windows = draw(np.random.default_rng(0), clean, data.labels, pool)
        first, second = next(windows), next(windows)
        assert len(first) == len(second) == dependent.M
        assert set(first) <= set(pool)
        in_runs = np.mean(first[1:] == first[:-1])
        assert (in_runs > 0.8) == (name == "bursts of 10")
    scene = next(dependent.scenes(np.random.default_rng(0), clean, data.labels, pool))[:60]
    spread = clean["embeddings"][scene].std(axis=0).mean()
    assert len(set(scene)) == 60
    assert spread < 0.9 * clean["embeddings"][pool].std(axis=0).mean()


def test_dependent_rows_are_judged_in_three_ways(parts, made, monkeypatch):
    dependent = parts["dependent"]
    monkeypatch.setattr(dependent, "ROWS", 150)
    found = dependent.of_kind(dependent.Data(made), dependent.bursts, 1, 8)
    assert set(found) == {"clean", *dependent.SHIFTED}
    assert found["clean"][0] > 0.9 > 0.2 >= found["clean"][1]
    assert found["clean"][2] <= 0.2
    assert all(shares[2] == 1 for shift, shares in found.items() if shift != "clean")
