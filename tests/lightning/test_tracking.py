from __future__ import annotations

import sys
from types import SimpleNamespace

from lensai_integrations.lightning.base import runs_of_loggers
from lensai_integrations.training.tracking import TrackedRun, active_run


class MLFlowLogger:
    """Looks like Lightning's."""

    def __init__(self, run_id, uri="http://tracking"):
        self.run_id = run_id
        self.experiment = SimpleNamespace(tracking_uri=uri)


class Mine(MLFlowLogger):
    """A user's own, made from it."""


class CSVLogger:
    """Another kind."""


def trainer(*loggers):
    return SimpleNamespace(loggers=list(loggers))


def test_the_runs_of_mlflow_loggers_each_once():
    found = runs_of_loggers(trainer(CSVLogger(), MLFlowLogger("a"), Mine("b"), MLFlowLogger("a")))

    assert found == [TrackedRun("a", "http://tracking"), TrackedRun("b", "http://tracking")]


def test_one_run_id_on_two_servers_is_two_runs():
    assert len(runs_of_loggers(trainer(MLFlowLogger("a"), MLFlowLogger("a", "sqlite:///x.db")))) == 2


def test_loggers_without_a_run_have_none():
    assert runs_of_loggers(trainer(MLFlowLogger(None))) == []
    assert runs_of_loggers(trainer()) == []


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
