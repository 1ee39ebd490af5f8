"""What has to be settled before anything is imported, for tests and doctests."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import re
import sys
import warnings

import pytest

# Albumentations asks PyPI for a newer version when it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

# Workers of pytest-xdist are as many as the cores: threads of a second pool would spin while they wait for one another,
# which doubles the time that anything with a model in it takes. Read when numpy and torch are loaded, and by processes.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


class _TorchFirst:
    """Both torch, once it loads triton, and TensorFlow bring LLVM; the process aborts if TensorFlow's is there first.

    So whoever imports TensorFlow gets torch's before, and tests of the core wait for neither.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "tensorflow" and "torch._dynamo" not in sys.modules:
            with contextlib.suppress(ImportError), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # within a test they would be errors
                importlib.import_module("torch._dynamo")


sys.meta_path.insert(0, _TorchFirst)

#: Modules that cannot be imported where what they are written in is not installed.
_WRITTEN_IN = {"numba": "compiled.py", "triton": "pixel_kernels.py"}
collect_ignore = [
    f"lensai_integrations/measures/{module}"
    for library, module in _WRITTEN_IN.items()
    if not importlib.util.find_spec(library)
]


#: What a test's parameters have in them if it takes seconds: frameworks to load and to trace, processes to start.
_SLOW = re.compile(r"\[.*(jax|tensorflow|fork|spawn)")


def pytest_itemcollected(item: pytest.Item) -> None:
    """What is no part of `make quick` though its test, with other parameters, is."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if _SLOW.search(item.name) or parameters.get("workers"):
        item.add_marker("slow")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first: at the end no worker of pytest-xdist waits for another that is in the middle of one."""
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, item.path.name != "test_backends.py"))


def pytest_collection_finish() -> None:
    """The frameworks and the tests stay: the garbage collector need not look through them again and again."""
    gc.freeze()
