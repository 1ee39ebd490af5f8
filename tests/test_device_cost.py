"""What profiling a training step asks of a GPU: counted operation by operation, and held below a limit.

No GPU is needed: see `benchmarks/gpu/counting.py` for what is counted and how. The limits are of the setting that the
docs give figures for: 224 x 224 images, batches of 128, 1000 outputs in bfloat16, a layer of 2048.
"""

from __future__ import annotations

import contextlib
import dataclasses

import pytest

torch = pytest.importorskip("torch")

from benchmarks.gpu import costs, counting  # noqa: E402
from benchmarks.gpu.counting import Counts, Setting, Tally  # noqa: E402

LAUNCHES, BYTES = 60, 300e6
#: Operations that the host asks torch for, views and allocations as well: of each some microseconds of its thread.
CALLS = 120
#: Whole rounds of what happens once in some batches: rows are taken together, sketches fill and are compacted.
BATCHES = 36
SMALL = 16384
#: What the first batch of a pass may send.
FIRST = 64 << 10

SETTINGS = {
    "float32": Setting(),
    "uint8": Setting(dtype="uint8"),
    "bfloat16, channels last": Setting(dtype="bfloat16", channels_last=True),
}


@pytest.fixture(scope="module")
def counts():
    """By setting, counted when one is asked for."""
    made: dict[Setting, Counts] = {}

    def of(setting):
        if setting not in made:
            made[setting] = counting.counted(setting, BATCHES, epochs=2 if setting == Setting() else 1)
        return made[setting]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_the_steady_state(counts, setting):
    found = counts(setting)
    steady = found.between(counting.STEADY, BATCHES)
    batches = BATCHES - counting.STEADY

    assert found.problems == []
    assert sum(op.launches for op in steady) / batches <= LAUNCHES
    assert sum(op.bytes for op in steady) / batches <= BYTES
    assert len(steady) / batches <= CALLS
    assert [op for op in steady if op.waits] == []
    assert [
        copy for copy in found.copies(counting.STEADY, BATCHES) if not copy.to_device or not copy.non_blocking
    ] == []


@pytest.mark.slow
def test_a_batch_of_twice_as_many_has_at_most_twice_as_many_launches(counts):
    twice = counts(dataclasses.replace(Setting(), batch=256))
    assert twice.mean("launches") <= 2 * LAUNCHES
    assert twice.mean("bytes") <= 2 * BYTES


@pytest.mark.slow
def test_memory_does_not_grow(counts):
    found = counts(Setting())
    half = BATCHES // 2
    assert max(found.peak[batch] for batch in range(half, BATCHES)) <= 1.1 * max(found.peak[b] for b in range(half))


@pytest.mark.slow
def test_copies_from_the_host_are_small_and_pinned(counts):
    copies = counts(Setting()).copies(counting.STEADY, BATCHES)
    assert [copy for copy in copies if copy.bytes > SMALL] == []
    assert [copy for copy in copies if not copy.pinned] == []


@pytest.mark.slow
def test_the_first_batch_of_a_second_epoch_sends_nothing_large(counts):
    copies = counts(Setting()).copies(BATCHES, BATCHES + 1)
    assert sum(copy.bytes for copy in copies) < FIRST
    assert [copy for copy in copies if not copy.pinned] == []


@pytest.mark.slow
def test_nor_does_a_window_of_a_monitor():
    found = counting.counted_windows(Setting(batch=100))
    copies = found.copies(1)
    assert len(found.operations) > 0
    assert sum(copy.bytes for copy in copies) < FIRST * (found.batches - 1)
    assert [copy for copy in copies if not copy.pinned] == []


# The counter itself.


def test_everything_is_profiled_that_is_counted():
    setting = Setting(batch=8, side=16, classes=5, width=16)
    with counting.FakeTensorMode(allow_non_fake_inputs=True):
        training = counting.FakeTraining(setting)
        for _ in range(3):
            training.batch()
    assert training.recorded.problems.messages == []
    assert training.recorded.profiler.n == 3 * setting.batch
    assert set(training.recorded.profiler._recorders) == {"inputs", "outputs", "labels", "embeddings/avgpool"}
    files = {op.file for op in training.counts.operations}
    assert {"sketches/bank.py", "torch/taps.py"} <= files
    assert training.counts.kept > 0


def tallied(work):
    """What is counted of some work, as if a file of the package had asked for it."""
    counts = Counts(Setting())
    code = compile("def asked(work):\n    work()\n", "/somewhere/lensai_integrations/a/file.py", "exec")
    names: dict = {}
    exec(code, names)
    with counting.FakeTensorMode():
        tally = Tally(counts)
        with tally.of(0, "open"):
            names["asked"](work)
    return counts


def test_an_operation_is_one_launch_that_reads_and_writes_once():
    def work():
        ones = torch.ones(1000, device="cuda")
        ones.view(10, 100)[2:5].T + torch.ones(1, 1, device="cuda").expand(100, 3)

    ones, one, added = tallied(work).between(0)[0], *(op for op in tallied(work).between(0)[1:] if op.launches)
    assert (ones.launches, ones.bytes) == (1, 4000)
    assert (one.launches, one.bytes) == (1, 4)
    assert (added.name, added.launches, added.bytes) == ("add", 1, 1200 + 4 + 1200)
    assert (added.file, added.line, added.phase, added.batch) == ("a/file.py", 2, "open", 0)


def test_what_the_package_did_not_ask_for_is_not_counted():
    counts = Counts(Setting())
    with counting.FakeTensorMode(), Tally(counts).of(0, "open"):
        torch.ones(1000, device="cuda")
    assert counts.operations == []


@pytest.mark.parametrize(
    ("pin", "pinned"),
    [
        (lambda host: host, False),
        (lambda host: host.pin_memory(), True),
        (lambda host: torch.empty(100, pin_memory=True).copy_(host)[:50], True),
    ],
    ids=["pageable", "pin_memory()", "part of a pinned buffer"],
)
def test_copies_are_told_apart(pin, pinned):
    def work():
        pin(torch.zeros(100)).to("cuda", non_blocking=True)

    (copy,) = tallied(work).copies()
    assert (copy.to_device, copy.pinned, copy.non_blocking) == (True, pinned, True)
    assert copy.bytes in (200, 400)


def test_copies_to_the_host_are_seen():
    counts = tallied(lambda: torch.ones(3, device="cuda").cpu())
    assert [(copy.to_device, copy.non_blocking) for copy in counts.copies()] == [(False, False)]


@pytest.mark.parametrize(
    "read",
    [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: x.masked_select(x > 0), lambda x: x.nonzero()],
    ids=["item", "mask", "masked_select", "nonzero"],
)
def test_a_value_that_is_read_is_noticed(read):
    def work():
        with contextlib.suppress(Exception):  # there is none to be read
            read(torch.ones(3, device="cuda"))

    assert sum(op.waits for op in tallied(work).between(0)) == 1


@pytest.mark.parametrize(
    ("shape", "launches", "keys"),
    [
        ((128, 3000), 3, 128 * 3000),
        ((1, 50176), 5, 50176),
        ((41, 50176), 12, 2 * 41 * 50176),
        ((200, 50176), 5, 200 * 50176),
    ],
    ids=["short rows", "one row", "few long rows", "many long rows"],
)
def test_a_sort_has_the_passes_of_its_algorithm(shape, launches, keys):
    values = torch.empty(shape, dtype=torch.uint8, device="meta")
    assert costs.sort_cost(values, 1)[::2] == (launches, keys)


def test_memory_is_followed():
    def work():
        large = torch.ones(1 << 20, device="cuda")
        del large
        torch.ones(1 << 10, device="cuda")

    counts = tallied(work)
    assert counts.peak == {0: 4 << 20}
    assert counts.kept == 0
