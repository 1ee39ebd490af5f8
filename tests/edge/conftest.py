"""The C++ example, built once for all tests, where a compiler and the headers are there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "edge_cpp"


def headers() -> Path:
    """Where Apache DataSketches' C++ headers are, given by the environment or in a usual place."""
    given = os.environ.get("DATASKETCHES_INCLUDE")
    places = [Path(given)] if given else [Path("/usr/include"), Path("/usr/local/include")]
    for place in places:
        if any((place / each / "kll_sketch.hpp").is_file() for each in ("DataSketches", "", "kll/include")):
            return place
    pytest.skip(f"no DataSketches C++ headers in {' or '.join(map(str, places))}: set DATASKETCHES_INCLUDE")


@pytest.fixture(scope="session")
def configure(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
    """CMake with some more arguments, in a folder of its own unless one is given."""
    missing = [name for name in ("cmake", "c++") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found: the C++ example is not built")

    def run(*arguments: str, build: Path | None = None) -> subprocess.CompletedProcess:
        command = ["cmake", "-S", EXAMPLE, "-B", build or tmp_path_factory.mktemp("build"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def binary(configure, tmp_path_factory) -> Path:
    """The program, built without a warning: once, also where the tests are spread over several processes."""
    base = tmp_path_factory.getbasetemp()
    build = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "lensai_edge"
    build.mkdir(exist_ok=True)
    flags = ["-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1 -Werror", f"-DDATASKETCHES_INCLUDE={headers()}"]
    with FileLock(build / "lock"):
        if not (build / "lensai_edge").exists():
            configured = configure(*flags, build=build)
            assert configured.returncode == 0, configured.stderr
            command = ["cmake", "--build", build, "--parallel", "2"]
            built = subprocess.run(command, capture_output=True, text=True, check=False)
            assert built.returncode == 0, built.stdout + built.stderr
            assert "warning" not in built.stdout + built.stderr
    return build / "lensai_edge"


@pytest.fixture
def program(binary) -> Callable[..., str]:
    """Runs the program and gives what it printed."""

    def run(*arguments: object) -> str:
        done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


@pytest.fixture
def refused(binary) -> Callable[..., str]:
    """Runs the program where it has to refuse, and gives its one line."""

    def run(*arguments: object) -> str:
        done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stderr.startswith("lensai_edge: ")
        assert done.stderr.count("\n") == 1
        return done.stderr

    return run
