from __future__ import annotations

import pytest

from lensai_integrations import ImageInputs
from lensai_integrations.errors import InputError
from lensai_integrations.lightning import BaselineCallback


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"layers": None, "inputs": None, "outputs": None, "target": None, "training": None},
        {"layers": ["avgpool", "fc.input"], "reduce": {"avgpool": "max"}},
        {"layers": (), "reduce": lambda x: x},
        {"inputs": ImageInputs(mean=(0.5,), std=(0.5,)), "target": 2, "outputs": "head"},
        {"target": "class", "task": "logits", "reference": "test", "training": "all", "convention": "lensai-edge"},
        {"inputs": {"left": ImageInputs(), "right": ImageInputs(key=1)}},
        {"inputs": {0: ImageInputs(), 1: ImageInputs()}},
        {"inputs": {"training": {"left": ImageInputs()}, "validation": "auto", "test": None}},
        {"clean_windows": 0},
        {"clean_windows": 100},
        {"k": 8, "rows": 0, "max_dim": 1, "seed": 2**62, "dataloader_idx": 3, "upload_deadline": 0.5},
    ],
)
def test_accepts(arguments):
    BaselineCallback(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "avgpool"}, r"layers='avgpool' should be 'auto', a list of layer names such as \['avgpool'\]"),
        ({"layers": [1]}, "layers="),
        ({"layers": 3}, "layers=3"),
        ({"layers": ["a", "a"]}, "names a layer twice"),
        ({"inputs": "NCHW"}, "inputs='NCHW' should be 'auto', ImageInputs"),
        ({"inputs": {}}, "inputs={}"),
        ({"inputs": {"left": "auto"}}, "inputs={'left': 'auto'} should be ImageInputs"),
        ({"inputs": {"left": None}}, "inputs={'left': None} should be ImageInputs"),
        (
            {"inputs": {"left": ImageInputs(), "training": ImageInputs()}},
            "mixes kinds of passes and names of image inputs",
        ),
        ({"inputs": {"validation": {"": ImageInputs()}}}, "inputs has the name ''"),
        ({"inputs": {"lensai-edge": ImageInputs()}}, "inputs has the name 'lensai-edge'"),
        ({"outputs": 3}, "outputs=3"),
        ({"task": {"age": "detection"}}, "task='detection' is unknown"),
        ({"task": "detection"}, "task='detection' is unknown; pass 'auto', 'classification'"),
        ({"target": 1.5}, "target=1.5"),
        ({"target": True}, "target=True"),
        (
            {"reference": "train"},
            "reference='train' is unknown; pass 'validation', 'training', 'test', 'prediction' or 'final'",
        ),
        ({"training": "images"}, "training='images' is unknown; pass 'inputs', 'all' or None"),
        ({"reduce": "average"}, "reduce='average' is unknown"),
        ({"reduce": {"fc": "average"}}, "reduce='average' is unknown"),
        ({"convention": "opencv"}, "convention='opencv'"),
        ({"clean_windows": -1}, "clean_windows=-1 should be a whole number from 0 to 100000"),
        ({"clean_windows": 99}, "clean_windows=99 are too few to calibrate: pass 0, or 100 or more"),
        ({"clean_windows": 10**6}, "clean_windows=1000000"),
        ({"k": 7}, "k=7 should be a whole number from 8 to 65535"),
        ({"k": 200.0}, "k=200.0"),
        ({"rows": -1}, "rows=-1"),
        ({"max_dim": 0}, "max_dim=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": True}, "seed=True"),
        ({"dataloader_idx": -1}, "dataloader_idx=-1 should be a whole number from 0"),
        ({"artifact_path": "../up"}, "artifact_path="),
        ({"upload_deadline": 0}, "upload_deadline=0"),
    ],
)
def test_refuses_at_construction_and_says_what_to_pass(arguments, message):
    with pytest.raises(InputError, match=message):
        BaselineCallback(**arguments)


def test_all_but_the_layers_are_named():
    with pytest.raises(TypeError):
        BaselineCallback(["avgpool"], ImageInputs())
