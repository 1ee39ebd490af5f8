"""Results of benchmarks: what a file holds, that two are compared figure by figure, and that `make bench` runs all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compare_results, results

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def written(tmp_path):
    """`written(name, figures, benchmark)`: the path of a result."""

    def write(name, figures, benchmark="subject/script"):
        results.write(tmp_path / name, benchmark, figures)
        return tmp_path / name

    return write


def test_a_result_says_what_its_figures_depend_on(written):
    result = json.loads(written("one.json", {"speed": {"ns": np.float32(2.5), "turns": np.arange(3)}}).read_text())
    assert result["figures"] == {"speed": {"ns": 2.5, "turns": [0, 1, 2]}}
    assert result["benchmark"] == "subject/script"
    assert result["machine"]["processor"]
    assert result["machine"]["cores"] >= result["machine"]["usable_cores"] >= 1
    assert result["versions"]["numpy"] == np.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", result["made"])
    assert result["commit"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", result["commit"])


def test_no_file_is_written_where_none_is_asked_for():
    results.write(None, "subject/script", {"never": object()})


def test_what_is_no_figure_is_refused(written):
    with pytest.raises(TypeError, match="figures hold a set"):
        written("one.json", {"a": {1, 2}})


def test_figures_are_found_by_their_path_and_rows_by_their_texts():
    tree = {
        "a": {"b": 1, "turns": [3.0, 1.0, 2.0]},
        "rows": [{"shift": "blur", "found": 1}, {"shift": "noise", "found": 0.5}, {"size": 10}],
        "twice": [{"shift": "blur", "found": 1}, {"shift": "blur", "found": 2}],
        "none": None,
        "flag": True,
        "text": "x",
    }
    found = {name: figure.median for name, figure in compare_results.figures_of(tree)}
    assert found == {
        "a/b": 1,
        "a/turns": 2,
        "rows/blur/found": 1,
        "rows/noise/found": 0.5,
        "rows/2/size": 10,
        "twice/blur 0/found": 1,
        "twice/blur 1/found": 2,
    }


def test_two_results_are_compared_figure_by_figure(written, capsys):
    before = written("before.json", {"ratio": [1.0, 1.1, 1.2], "ms": 4, "calm": [1.0, 3.0], "gone": 1, "zero": 0})
    after = written("after.json", {"ratio": [1.3, 1.65, 1.4], "ms": 5, "calm": [2.0, 4.0], "new": 1, "zero": 2})
    assert compare_results.main([str(before), str(after)]) == 0
    output = capsys.readouterr().out
    assert "| ratio | 1.1 (1 to 1.2) | 1.4 (1.3 to 1.65) | 1.273 | beyond |" in output
    assert "| ms | 4 | 5 | 1.250 |  |" in output  # once each: no range to be beyond
    assert "| calm | 2 (1 to 3) | 3 (2 to 4) | 1.500 |  |" in output
    assert "| zero | 0 | 2 | nan |  |" in output
    assert "gone" not in output
    assert "new" not in output
    assert "4 of 4 figures shown; 1 beyond" in output


def test_small_changes_and_other_figures_can_be_left_out(written, capsys):
    before, after = written("before.json", {"a": 100, "b": 100}), written("after.json", {"a": 104, "b": 94})
    assert compare_results.main([str(before), str(after), "--least", "5"]) == 0
    assert "| a |" not in (output := capsys.readouterr().out)
    assert "| b | 100 | 94 | 0.940 |  |" in output
    assert compare_results.main([str(before), str(after), "--only", "a"]) == 0
    assert "1 of 1 figures shown" in capsys.readouterr().out


def test_another_machine_is_said_and_another_benchmark_refused(written, capsys):
    before, after = written("before.json", {"a": 1}), written("after.json", {"a": 1})
    changed = json.loads(after.read_text())
    changed["machine"]["processor"], changed["versions"]["extra"] = "another", "1.0"
    after.write_text(json.dumps(changed))
    assert compare_results.main([str(before), str(after)]) == 0
    output = capsys.readouterr().out
    assert "-> another" in output
    assert "- versions, extra: None -> 1.0" in output
    assert compare_results.main([str(before), str(written("other.json", {"a": 1}, "subject/other"))]) == 2
    assert "of subject/other" in capsys.readouterr().err


def test_make_bench_runs_every_script_of_every_subject():
    (listed,) = re.findall(r"^BENCHMARKS := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.M)
    scripts = {
        ".".join(path.relative_to(ROOT / "benchmarks").with_suffix("").parts)
        for path in (ROOT / "benchmarks").glob("*/*.py")
        if "results.write(" in path.read_text(encoding="utf-8")
        and path.name != "__main__.py"  # that of a GPU needs one
    }
    assert set(listed.replace("\\", " ").split()) == scripts
