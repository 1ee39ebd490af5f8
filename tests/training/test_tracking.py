from __future__ import annotations

import sys
from types import SimpleNamespace

from lensai_integrations.training.tracking import TrackedRun, active_run, name_of_run


def test_no_run_where_mlflow_is_not_loaded(monkeypatch):
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)

    assert active_run() is None
    assert "mlflow" not in sys.modules


def test_the_run_that_is_active(monkeypatch):
    run = SimpleNamespace(info=SimpleNamespace(run_id="abc"))
    fake = SimpleNamespace(active_run=lambda: run, get_tracking_uri=lambda: "sqlite:///x.db")
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    assert active_run() == TrackedRun("abc", "sqlite:///x.db")
    fake.active_run = lambda: None

    assert active_run() is None


def test_runs_of_mlflow_come_before_those_of_others(monkeypatch):
    assert name_of_run([]) == ""
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None))
    assert name_of_run([]) == ""
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=SimpleNamespace(id="3x7k")))
    assert name_of_run([]) == "3x7k"
    assert name_of_run([TrackedRun("0a", "u"), TrackedRun("0b", "u")]) == "0a"
