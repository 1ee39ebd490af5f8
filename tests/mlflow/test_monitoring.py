"""The MLflow sink against a real store: metrics of every window, the report of an alarm, a server that is down."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mlflow.utils.validation import _validate_metric_name
from monitors import Clock
from profiles import batch, make_baseline
from tracking import free_port

from lensai_integrations import DriftMonitor
from lensai_integrations.errors import InputError
from lensai_integrations.mlflow import MLflowSink
from lensai_integrations.mlflow.monitoring import MOST_CHARTED, medians
from lensai_integrations.monitoring.events import Event


def test_windows_are_metrics_and_an_alarm_brings_its_report(embedded_store):
    run_id, clock = embedded_store.new_run(), Clock(1_700_000_000.0)
    rng = np.random.default_rng(0)
    sink = MLflowSink(run_id, tracking_uri=embedded_store.uri, flush_seconds=60)
    with DriftMonitor(make_baseline(300), 60, sinks=[sink], name="camera 3", clock=clock) as monitor:
        monitor.update(**batch(rng, 60))
        clock.now += 3600
        monitor.update(**batch(rng, 60, brightness=0.4))
    assert monitor.status.failures == {}
    client = embedded_store.client
    levels = client.get_metric_history(run_id, "drift/level")
    assert [(m.step, m.timestamp, m.value) for m in levels] == [
        (1, 1_700_000_000_000, 0.0),
        (2, 1_700_003_600_000, 2.0),
    ]
    run = client.get_run(run_id)
    assert run.data.metrics["drift/rows"] == 60
    assert run.data.metrics["drift/effects/inputs"] > 0.5
    evidence = client.get_metric_history(run_id, "drift/evidence")
    assert [m.value > 2 for m in evidence] == [False, True]  # 2 is one clean window in a hundred
    assert run.data.metrics["drift/p_value"] < 0.01
    assert run.data.metrics["drift/evidences/inputs"] == evidence[1].value
    dark = [run.data.metrics[f"drift/{name}/inputs/brightness"] for name in ("medians_baseline", "medians")]
    assert dark[1] < 0.6 * dark[0]
    assert run.data.tags["lensai.monitor.camera 3"] == "Completed"
    assert [f.path for f in client.list_artifacts(run_id, "lensai/drift")] == ["lensai/drift/window-000002.html"]


def test_another_drift_has_a_page_and_medians_go_on_after_a_restart(embedded_store, tmp_path):
    run_id, rng, baseline, heard = embedded_store.new_run(), np.random.default_rng(0), make_baseline(300), []
    answers = batch(rng, 60)
    answers["outputs"] = answers["outputs"][:, ::-1] * 0.1
    for number, window in enumerate([batch(rng, 60, brightness=0.3), answers, batch(rng, 60)]):
        sink = MLflowSink(run_id, tracking_uri=embedded_store.uri, flush_seconds=60)
        clock = Clock(1_700_000_000.0 + number)
        with DriftMonitor(baseline, 60, sinks=[sink, heard.append], state=tmp_path, clock=clock) as monitor:
            monitor.update(**window)
    assert monitor.status.failures == {}
    assert [event.kind for event in heard] == ["alarm", "change"]
    assert "now drifted in another way instead: outputs" in heard[1].text
    client = embedded_store.client
    pages = [file.path for file in client.list_artifacts(run_id, "lensai/drift")]
    assert pages == ["lensai/drift/window-000001.html", "lensai/drift/window-000002.html"]
    brightness = client.get_metric_history(run_id, "drift/medians/inputs/brightness")
    assert [m.step for m in brightness] == [1, 2, 3]  # also where it does not move any more
    charts = [name for name in client.get_run(run_id).data.metrics if name.startswith("drift/medians/")]
    assert len(charts) == MOST_CHARTED


def test_names_that_mlflow_refuses_are_made_such_that_it_takes_them():
    hue = {"effect": 0.5, "drift": True, "median_baseline": 20.0, "median": 31.0}
    odd = ["inputs/a//b", 'inputs/\u00e9 "x"', "inputs/" + "x" * 300, "inputs/../up", "labels/"]
    names = [name for name, _ in medians([hue | {"stream": stream} for stream in odd], set())]
    assert names[::2] == [
        "drift/medians/inputs/a/b",
        "drift/medians/inputs/_ _x_",
        ("drift/medians/inputs/" + "x" * 300)[:250],
        "drift/medians/up",
        "drift/medians/labels",
    ]
    for name in names:
        _validate_metric_name(name)


def test_told_again_after_a_crash_changes_nothing(embedded_store):
    run_id = embedded_store.new_run()
    sink = MLflowSink(run_id, tracking_uri=embedded_store.uri, flush_seconds=60)
    groups = {"inputs": {"drift": True, "effect": 0.5}}
    window = {"number": 7, "level": "alarm", "rows": 200, "moved": 1, "groups": groups}
    events = [Event(kind, kind, "alarm", "production", 1.7e9, "It drifts.", window) for kind in ("window", "notice")]
    sink.open(make_baseline(60), "production", pytest.fail)
    for event in events * 2:
        sink.tell(event)
    sink.close()
    assert len(embedded_store.client.get_metric_history(run_id, "drift/level")) == 1
    (artifact,) = embedded_store.client.list_artifacts(run_id, "lensai/drift")
    text = Path(embedded_store.client.download_artifacts(run_id, artifact.path)).read_text()
    assert json.loads(text)["text"] == "It drifts."


def test_a_server_that_is_down_is_counted(caplog):
    uri = f"http://127.0.0.1:{free_port()}"
    sink = MLflowSink("0123", tracking_uri=uri, retries=0, flush_seconds=20, deadline=15)
    with DriftMonitor(make_baseline(60), 20, sinks=[sink]) as monitor:
        monitor.update(**batch(np.random.default_rng(0), 3))
    assert monitor.status.failures == {"sink MLflowSink": sink.undelivered}
    assert sink.undelivered == 2
    assert "does not answer" in monitor.status.causes["sink MLflowSink"]


def test_wrong_arguments_raise():
    with pytest.raises(InputError, match="no MLflow run is active"):
        MLflowSink()
    with pytest.raises(InputError, match="deadline=0"):
        MLflowSink("0123", deadline=0)
