"""The script that counts files and traces runs counts what it says, and still runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "house.py"


@pytest.fixture
def house(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import house

    return house


def test_files_are_counted(house, tmp_path, monkeypatch) -> None:
    package = tmp_path / house.PACKAGE
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").write_text("if TYPE_CHECKING:\n    from lensai_integrations.room.one import One\n")
    (package / "room" / "__init__.py").write_text("")
    (package / "room" / "one.py").write_text("class One:\n    def f(self):\n        import lensai_integrations.two\n")
    (package / "two.py").write_text("from lensai_integrations.room import one\n\n\nclass One: ...\n")
    (package / "room" / "two.py").write_text("from lensai_integrations import two\n")
    monkeypatch.setattr(house, "ROOT", package)
    found = house.layout()
    assert (found["files"], found["lines"], found["functions"], found["classes"]) == (5, 10, 1, 2)
    assert found["modules with one importer"] == []
    assert found["modules that share a basename"] == ["room.two", "two"]
    assert found["class names that exist twice"] == ["One"]
    (package / "two.py").write_text("")
    assert house.layout()["modules with one importer"] == ["room.one"]


def test_a_run_is_traced(house, tmp_path, monkeypatch) -> None:
    code = "def f():\n    return [g() for _ in range(2)]\n\ndef g():\n    pass\n\ndef h():\n    pass\n"
    made = {"__file__": str(tmp_path / "a.py")}
    monkeypatch.setattr(house, "ROOT", tmp_path)
    exec(compile(code, made["__file__"], "exec"), made)
    trace = house.Trace()
    with house.traced(trace):
        made["f"]()
    made["h"]()
    assert trace.counts() == {"files": 1, "functions": 2}


def test_comparisons_are_counted(house) -> None:
    counts = [house.comparison(calibrated=calibrated) for calibrated in (False, True)]
    assert all(0 < each["files"] < each["functions"] for each in counts)


@pytest.mark.slow
def test_it_runs() -> None:
    pytest.importorskip("pytorch_lightning")
    pytest.importorskip("fastapi")
    told = subprocess.run([sys.executable, SCRIPT, "--json"], capture_output=True, text=True, check=True).stdout
    found = json.loads(told)
    assert found["layout"]["lines"] > found["layout"]["files"] > 1
    assert len(found["runs"]) == 5
    assert all(0 < run["files"] < run["functions"] for run in found["runs"].values())
