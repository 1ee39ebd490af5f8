"""Two processes on the CPU: one baseline, counted exactly, in every checkpoint; training is as without the callback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lensai_integrations import Baseline
from lensai_integrations.lightning.checkpoints import CheckpointFile
from lensai_integrations.training.chosen import is_chosen
from lensai_integrations.training.fit import profiles_of

TRAIN, VAL = 101, 51
GROUPS = ("inputs", "outputs", "embeddings/avgpool", "labels")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which two processes have run the script."""
    folder = tmp_path_factory.mktemp("ddp")
    here = Path(__file__).parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])]),
    }
    done = subprocess.run(
        [*command, str(here / "ddp_script.py"), str(folder)],
        env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def ranks(ran):
    """What each rank found."""
    return [json.loads((ran / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_every_row_is_counted_once(ranks):
    found = ranks[0]["fit"]

    assert (found["validation"][0], found["training"][0]) == (VAL, TRAIN)
    assert found["groups"] == dict.fromkeys(GROUPS, VAL)
    assert found["rows"] == VAL
    assert found["warnings"] == []


def test_of_several_batches_one_is_profiled_and_on_all_ranks_the_same(ranks):
    """Of 101 rows each rank has 51, in seven batches, the last of three."""
    chosen = [[epoch, index] for epoch in range(2) for index in range(7) if is_chosen(index, 3, epoch=epoch)]
    last = [index for epoch, index in chosen if epoch == 1]
    found = ranks[0]["every"]

    assert [found["every_taken"] for found in ranks] == [chosen, chosen]
    assert found["training"][1]["batches"] == {"profiled": 2 * len(last), "of": 14, "every": 3}
    assert found["training"][0] == sum(5 if index == 6 else 16 for index in last)
    assert found["training"][1]["padding_left_out"] == int(6 in last)
    assert found["validation"][0] == VAL
    assert found["warnings"] == []


def test_the_samplers_repeats_are_reported(ranks):
    for source in ("validation", "training"):
        info = ranks[0]["fit"][source][1]
        assert info["padding_left_out"] == 1
        assert info["ranks"] == 2
        assert info["epoch"] == 1


def test_only_the_first_rank_has_the_baseline(ranks):
    assert all(ranks[1][case] is None for case in ("fit", "resumed", "stopped", "faulty", "test"))
    assert ranks[0]["state"] == ["training", "validation"]
    assert ranks[1]["state"] == []


def test_the_counts_are_those_of_the_data(ranks, images):
    reference = Baseline.load(ranks[0]["fit"]["folder"]).reference
    data = images(VAL, 2)
    pixels = np.floor(torch.stack([picture for picture, _ in data]).numpy() * 255 + 0.5).astype(np.uint8)
    expected = [np.bincount(pixels[:, channel].ravel(), minlength=256) for channel in range(3)]
    labels = np.bincount([int(label) for _, label in data])

    np.testing.assert_array_equal(reference.groups["inputs"].pixels.counts, expected)
    assert dict(reference.groups["labels"].categories[""].top(9)) == {str(i): n for i, n in enumerate(labels)}


def test_checkpoints_hold_the_merged_baseline(ran):
    for epoch in range(2):
        checkpoint = CheckpointFile(ran / "checkpoints" / f"epoch={epoch}.ckpt")
        state = checkpoint.state("lensai_integrations.BaselineCallback[lensai]")
        found = {name: (profile.n, profile.info["epoch"]) for name, profile in profiles_of(state).items()}
        assert found == {"validation": (VAL, epoch), "training": (TRAIN, epoch)}


def test_resuming_counts_nothing_twice(ranks):
    found = ranks[0]["resumed"]

    assert (found["validation"][0], found["training"][0]) == (VAL, TRAIN)
    assert found["validation"][1]["epoch"] == 1


def test_an_interruption_logs_what_was_resumed_and_gathers_nothing(ranks):
    assert [found["error"] for found in ranks] == ["stopped", "stopped"]
    assert ranks[0]["stopped"]["validation"][0] == VAL
    assert ranks[0]["stopped"]["validation"][1]["epoch"] == 0


def test_a_rank_that_fails_is_missed_and_training_goes_on(ranks):
    found = ranks[0]["faulty"]

    assert found["validation"][0] == VAL // 2 + 1
    assert "ranks: the rows of rank 1 are missing: it has no profile" in found["warnings"]
    assert ranks[0]["faulty_weights"] == ranks[0]["weights"]


def test_the_test_set_as_the_reference(ranks):
    assert ranks[0]["test"]["test"][0] == VAL
    assert ranks[0]["test"]["training"][0] == TRAIN


def test_a_final_pass_is_of_the_first_ranks_weights_on_all_ranks(ran, ranks, images, lit):
    found = ranks[0]["final"]
    model = lit()
    model.load_state_dict(torch.load(ran / "final0.pt", weights_only=True))
    kept = []
    model.model.avgpool.register_forward_hook(lambda _, __, answer: kept.append(answer.flatten(1)))
    with torch.no_grad():
        model.eval()(torch.stack([picture for picture, _ in images(VAL, 2)]))
    bank = Baseline.load(found["folder"]).reference.groups["embeddings/avgpool"].bank

    assert found["validation"][0] == VAL
    assert found["weights_of"] == "the weights that fit leaves, at step 10 (epoch 1)"
    assert found["warnings"] == []
    np.testing.assert_allclose(bank.min, kept[0].amin(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bank.max, kept[0].amax(0), rtol=1e-4, atol=1e-6)
    assert [found["final_weights"] for found in ranks] == [found["final_plain"] for found in ranks]


def test_a_final_pass_that_fails_on_one_rank_is_none(ranks):
    found = ranks[0]["final_faulty"]

    assert "validation" not in found
    assert "there was no validation pass, so the reference is the training data" in found["warnings"][0]


def test_validating_a_checkpoint_alone_names_it(ranks):
    found = ranks[0]["alone"]

    assert found["validation"][0] == VAL
    assert found["weights_of"].startswith("checkpoint epoch=0.ckpt, at step 7 (epoch 0)")
    assert ranks[1]["alone"] is None


def test_training_is_bit_identical(ranks):
    hashes = {found[key] for found in ranks for key in ("weights", "every_weights", "plain_weights")}

    assert len(hashes) == 1


def test_each_rank_monitors_its_own_rows_without_the_samplers_repeats(ran, ranks):
    assert [found["drift"] for found in ranks] == [
        ["production-rank0", 26, [20, 6]],
        ["production-rank1", 25, [20, 5]],
    ]
    assert sorted(path.name for path in (ran / "state").iterdir()) == ["rank0", "rank1"]
