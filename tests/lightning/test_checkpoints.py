from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import _utils

from lensai_integrations import Profiler
from lensai_integrations.errors import FormatError, LensAIError
from lensai_integrations.lightning.checkpoints import CheckpointFile
from lensai_integrations.profiles.profile import to_bytes
from lensai_integrations.torch.layers import SampledWeights
from lensai_integrations.training.fit import StateCache, profiles_of

KEY = "lensai_integrations.BaselineCallback[lensai]"


class Strange:
    """A hyperparameter of a user's own class."""

    def __init__(self, value):
        self.value = value


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture(scope="module")
def profile():
    profiler = Profiler(source="validation")
    profiler.update(inputs=np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8))
    return profiler.profile()


def saved(path, state, **more):
    weights = OrderedDict(weight=torch.zeros(3, 4), half=torch.ones(2, dtype=torch.bfloat16))
    torch.save(
        {"epoch": 1, "state_dict": weights, "callbacks": {KEY: state, "Other": {"best": torch.ones(1)}}, **more}, path
    )
    return path


def test_the_state_is_plain_and_loads_with_weights_only(tmp_path, profile):
    path = saved(tmp_path / "a.ckpt", StateCache().state({"validation": profile}))
    loaded = torch.load(path, weights_only=True)

    assert to_bytes(profiles_of(loaded["callbacks"][KEY])["validation"]) == to_bytes(profile)


def test_the_stored_state_is_the_saved_one(tmp_path, profile):
    state = StateCache().state({"validation": profile, "training": profile})

    assert CheckpointFile(saved(tmp_path / "a.ckpt", state)).state(KEY) == state


def test_other_peoples_objects_are_not_needed(tmp_path, monkeypatch):
    parameters = {"model": torch.nn.Linear(2, 2), "mine": Strange(3), "path": Path("x"), "number": np.float64(1.5)}
    parameters |= {"set": {1, 2}, "dtype": torch.float16, "tuple": (Strange([Strange(1)]), 2**80, None)}
    path = saved(tmp_path / "a.ckpt", {"validation": b"\x00\xff"}, hyper_parameters=parameters, after=[1, 2.5, "x"])
    monkeypatch.delitem(globals(), "Strange")

    assert CheckpointFile(path).state(KEY) == {"validation": b"\x00\xff"}


def test_no_foreign_code_runs(tmp_path):
    path = saved(tmp_path / "a.ckpt", {"validation": b"1"}, hyper_parameters=Evil(tmp_path / "ran"))
    CheckpointFile(path).state(KEY)

    assert not (tmp_path / "ran").exists()


def test_a_sharded_checkpoint_is_a_folder(tmp_path):
    folder = tmp_path / "sharded.ckpt"
    folder.mkdir()
    saved(folder / "meta.pt", {"validation": b"1"})

    assert CheckpointFile(folder).state(KEY) == {"validation": b"1"}


@pytest.mark.parametrize("content", [{"state_dict": {}}, {"callbacks": {}}, {"callbacks": {"Other": {}}}, [1], None])
def test_a_checkpoint_without_our_state_says_so(tmp_path, content):
    torch.save(content, tmp_path / "a.ckpt")

    with pytest.raises(FormatError, match="has no baseline: it was saved without one or with save_weights_only=True"):
        CheckpointFile(tmp_path / "a.ckpt").state(KEY)


def test_truncated_and_foreign_files_are_refused(tmp_path):
    path = saved(tmp_path / "a.ckpt", {"validation": b"1" * 100})
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"junk", whole[100:]):
        path.write_bytes(content)
        with pytest.raises(FormatError):
            CheckpointFile(path).state(KEY)


def test_a_zip_file_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/b.txt", "x")
    with pytest.raises(FormatError, match="cannot be read as a torch checkpoint"):
        CheckpointFile(tmp_path / "a.zip").state(KEY)


def test_every_damaged_pickle_is_refused_or_read(tmp_path):
    good = pickle.dumps(
        {"callbacks": {KEY: {"validation": b"1" * 9}}, "x": [Strange(1), {1, 2}, np.ones(2)]},
        protocol=2,
    )
    rng = np.random.default_rng(0)
    for _ in range(300):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] = rng.integers(256)
        with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
            archive.writestr("archive/data.pkl", bytes(bad))
        with contextlib.suppress(LensAIError):
            CheckpointFile(tmp_path / "a.ckpt").state(KEY)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        CheckpointFile(tmp_path / "none.ckpt").state(KEY)


class Layouts(torch.nn.Module):
    """Tensors of every layout that a state_dict may hold."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 64, 3).to(memory_format=torch.channels_last)
        self.norm = torch.nn.BatchNorm2d(64)
        self.half = torch.nn.Linear(40, 30).bfloat16()
        self.double = torch.nn.Linear(4, 3).double()
        self.scalar = torch.nn.Parameter(torch.tensor(2.0))
        self.turned = torch.nn.Parameter(torch.randn(40, 50).t())
        self.empty = torch.nn.Parameter(torch.zeros(0, 3))
        self.every_third = torch.nn.Parameter(torch.randn(3000)[::3])
        self.view = torch.nn.Parameter(torch.randn(900)[100:800])
        self.complex = torch.nn.Parameter(torch.randn(1000, dtype=torch.complex64))
        self.same = self.scalar


def test_a_files_weights_have_the_digest_of_the_models(tmp_path):
    model = Layouts()
    torch.save({"state_dict": model.state_dict(), "global_step": 7, "epoch": 1}, tmp_path / "a.ckpt")
    sample, file = SampledWeights(model), CheckpointFile(tmp_path / "a.ckpt")

    assert file.weights(sample.names) == sample.weights()
    assert (file.step, file.epoch) == (7, 1)
    with torch.no_grad():
        model.turned[-1, -1] += 1
    assert file.weights(sample.names).same_as(SampledWeights(model).weights()) is False


def test_of_weights_that_are_not_there_nothing_is_told(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(3)}}, tmp_path / "a.ckpt")
    torch.save({"state_dict": [1]}, tmp_path / "b.ckpt")

    assert CheckpointFile(tmp_path / "a.ckpt").weights(["a"]).tensors == 1
    assert CheckpointFile(tmp_path / "a.ckpt").weights(["a", "b"]) is None
    assert CheckpointFile(tmp_path / "a.ckpt").weights([]) is None
    assert CheckpointFile(tmp_path / "b.ckpt").weights(["a"]) is None
    assert (CheckpointFile(tmp_path / "a.ckpt").step, CheckpointFile(tmp_path / "a.ckpt").epoch) == (None, None)


def forged(path, offset=0, size=(3,), stride=(1,), storage="FloatStorage", key="0"):
    """A checkpoint whose tensor claims to lie elsewhere in its storage of 12 bytes."""

    class Claims:
        def __reduce__(self):
            return _utils._rebuild_tensor_v2, (Stored(), offset, size, stride, False, OrderedDict())

    class Stored:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, part):
            return ("storage", getattr(torch, storage), key, "cpu", 3) if isinstance(part, Stored) else None

    out = io.BytesIO()
    Pickler(out, protocol=2).dump({"state_dict": {"a": Claims()}})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", out.getvalue())
        archive.writestr("archive/data/0", np.arange(3, dtype="f4").tobytes())
    return CheckpointFile(path)


@pytest.mark.parametrize(
    "claims",
    [
        {"offset": 1},
        {"offset": -1},
        {"size": (4,)},
        {"size": (2**40, 2**40), "stride": (1, 1)},
        {"size": (2**62,)},
        {"stride": (2,)},
        {"stride": (-1,)},
        {"stride": (2**63,)},
        {"stride": (1, 1)},
        {"size": ("3",)},
        {"size": 3, "stride": 1},
        {"storage": "DoubleStorage"},
        {"storage": "UntypedStorage"},
        {"key": "../../etc/passwd"},
    ],
    ids=str,
)
def test_a_tensor_that_lies_about_itself_is_not_told(tmp_path, claims):
    assert forged(tmp_path / "a.ckpt").weights(["a"]).kinds == ("float32",)
    assert forged(tmp_path / "b.ckpt", **claims).weights(["a"]) is None


def test_a_compressed_pickle_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x": "0" * 10_000_000}))
    with pytest.raises(FormatError, match="compressed"):
        CheckpointFile(tmp_path / "a.ckpt")


def test_a_file_that_is_gone_or_cut_off_meanwhile_is_not_told(tmp_path):
    path = saved(tmp_path / "a.ckpt", {})
    file, content = CheckpointFile(path), path.read_bytes()
    assert file.weights(["weight", "half"]).tensors == 2
    path.write_bytes(content[: len(content) // 2])
    assert file.weights(["weight", "half"]) is None
    path.unlink()
    assert file.weights(["weight", "half"]) is None
