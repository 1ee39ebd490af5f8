"""Sinks that are files: JSON lines and Prometheus' text format."""

from __future__ import annotations

import json
import re

import pytest
from monitors import by_mean, numbers, small_baseline

from lensai_integrations import DriftMonitor
from lensai_integrations.errors import InputError
from lensai_integrations.monitoring.events import Event
from lensai_integrations.monitoring.sinks import JSONLinesSink, PrometheusSink, json_lines
from lensai_integrations.monitoring.sinks.json_lines import read_events
from lensai_integrations.monitoring.sinks.prometheus import exposition

# The grammar of https://prometheus.io/docs/instrumenting/exposition_formats/ without timestamps.
NAME, LABEL = r"[a-zA-Z_:][a-zA-Z0-9_:]*", r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (-?[0-9.]+(?:e[+-][0-9]+)?)")


def event(id="1", text="It drifts."):
    return Event(id, "notice", "alarm", "production", 1.5, text)


def opened(path):
    sink = JSONLinesSink(path)
    sink.open(None, "production", print)
    return sink


def test_events_are_lines_and_come_back(tmp_path):
    path = tmp_path / "below" / "drift.jsonl"
    sink = opened(path)
    for id in "123":
        sink.tell(event(id, 'a "text"\nof two lines, \u00e9'))
    assert len(path.read_text().splitlines()) == 3
    assert [Event.from_dict(line) for line in read_events(path)] == [
        event(id, 'a "text"\nof two lines, \u00e9') for id in "123"
    ]


@pytest.mark.parametrize("left", [1, 5, 8, 40, -1, -2])
def test_a_torn_last_line_is_mended_and_told_again(tmp_path, left):
    path = tmp_path / "drift.jsonl"
    opened(path).tell(event("1"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole.replace(b'"1"', b'"2"')[:left])
    sink = opened(path)
    sink.tell(event("1"))  # it is there
    sink.tell(event("2"))
    lines = path.read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["1", "2"]


def test_somebody_else_s_last_line_stays(tmp_path):
    path = tmp_path / "drift.jsonl"
    path.write_text("a comment")
    opened(path).tell(event())
    assert path.read_text().splitlines()[0] == "a comment"
    assert len(list(read_events(path))) == 1


def test_only_the_end_of_a_long_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "_TAIL_BYTES", 400)
    path = tmp_path / "drift.jsonl"
    sink = opened(path)
    for id in range(50):
        sink.tell(event(str(id)))
    sink = opened(path)
    sink.tell(event("49"))
    assert len(path.read_text().splitlines()) == 50


def test_a_line_that_could_not_be_written_is_mended(tmp_path, monkeypatch):
    path = tmp_path / "drift.jsonl"
    sink = opened(path)
    sink.tell(event("1"))

    def half(path, line):
        with path.open("ab") as file:
            file.write(line[:20])
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(json_lines, "append_line", half)
        with pytest.raises(OSError, match="no space"):
            sink.tell(event("2"))
    sink.tell(event("3"))
    assert [e["id"] for e in read_events(path)] == ["1", "3"]
    assert len(path.read_text().splitlines()) == 2


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        JSONLinesSink(tmp_path)
    with pytest.raises(InputError, match=r"should end in \.prom"):
        PrometheusSink(tmp_path / "drift.txt")


def parsed(text):
    """The samples by name and labels, after every line was held against the grammar."""
    samples, types, helped = {}, {}, set()
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in helped, "one HELP for each metric"
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind in ("gauge", "counter")
            assert name not in types, "all samples of a metric lie together"
            types[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] in types
            assert list(types)[-1] == match[1]
            assert (match[1], match[2]) not in samples
            samples[match[1], match[2]] = float(match[3])
    return samples


def test_prometheus_reads_the_last_window(tmp_path, monkeypatch):
    by_mean(monkeypatch)
    path, baseline = tmp_path / "node" / "drift.prom", small_baseline()
    monitor = DriftMonitor(baseline, 4, sinks=[PrometheusSink(path)], name="camera 3", state=tmp_path / "state")
    with monitor:
        monitor.update(outputs=numbers(9, shift=9))
        found = parsed(path.read_text())
        label = 'monitor="camera 3"'
        assert found["lensai_monitor_running", label] == 1
        assert found["lensai_drift_level", label] == 2
        assert found["lensai_monitor_rows_total", label] == 8  # of the two windows
        assert found["lensai_monitor_alarms_total", label] == 2
    assert parsed(path.read_text())["lensai_monitor_running", label] == 0
    with DriftMonitor(baseline, 4, sinks=[PrometheusSink(path)], name="camera 3", state=tmp_path / "state"):
        assert parsed(path.read_text())["lensai_drift_level", label] == 2  # known from before the restart


def test_real_streams_and_odd_names_keep_to_the_grammar():
    medians = {"median": 2.0, "median_baseline": None}
    streams = [{"stream": name, "effect": 1 / 3, **medians} for name in ('a "b"', "c\\d", "e\nf", "\u00e9")]
    window = {"level": "warning", "rows": 5, "closed": 1.7e9, "moved": 1, "streams": streams}
    window |= {
        "p_value": 0.02,
        "evidence": 1.7,
        "groups": {'inputs/"a"': {"evidence": 1.7}, "outputs": {"effect": 0.1}},
    }
    status = {"state": "Failed", "rows": 10**12, "failures": {'sink "x"\n': 3}}
    found = parsed(exposition('two\n"lines"', status, window))
    assert len([key for key in found if key[0] == "lensai_drift_effect"]) == 4
    assert len([key for key in found if key[0] == "lensai_drift_median"]) == 4
    assert not [key for key in found if key[0] == "lensai_drift_median_baseline"]  # none is known
    evidence = [key for key in found if key[0].endswith("evidence")]
    assert len(evidence) == 2  # of the report and of the group that has one
    assert found["lensai_monitor_rows_total", 'monitor="two\\n\\"lines\\""'] == 1e12
