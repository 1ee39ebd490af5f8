from __future__ import annotations

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from lensai_integrations import ImageInputs, Profiler
from lensai_integrations.lightning import BaselineCallback
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.profile import to_bytes
from lensai_integrations.profiling import batch_reading
from lensai_integrations.profiling.batch_reading import BatchReader
from lensai_integrations.profiling.waiting import Looked
from lensai_integrations.torch.layers import Layer
from lensai_integrations.torch.recording import LoaderPass
from lensai_integrations.torch.taps import Tap, Taps
from lensai_integrations.training import recording as training_recording
from lensai_integrations.training.chosen import ChosenBatches, is_chosen
from lensai_integrations.training.recording import _blas_pools


@pytest.fixture
def recording():
    """`recording(taps=..., problems=...)`: of validation, with images and labels."""

    def make(taps=None, problems=None, inputs=None):
        problems = problems or Problems()

        def prepare(_):
            reader = BatchReader(inputs or ImageInputs(), "auto", problems)
            on_error = lambda group, error: problems.note(group, error, listed=False)  # noqa: E731
            return reader, Profiler(inputs=reader.inputs, source="validation", on_error=on_error)

        return LoaderPass("validation", prepare, taps, problems)

    return make


@pytest.fixture
def network():
    """A layer with taps on what comes out (as embedding) and on itself (as output)."""
    module = nn.Linear(12, 4)
    layer = Layer("head", "model.head", module)
    problems = Problems(quiet=True)
    taps = Taps([Tap("embeddings/head", layer, "mean"), Tap("outputs", layer)], problems)
    yield module, taps, problems
    taps.remove()


def batch(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, 8, 8, generator=rng), torch.randint(4, (n,), generator=rng)


def run(recording, batches, step=lambda _: None):
    for images, labels in batches:
        recording.open((images, labels))
        step(images)
        recording.close()
    return recording.finish()


def padded_loader(n, rank, ranks):
    return DataLoader(range(n), sampler=DistributedSampler(range(n), ranks, rank, shuffle=False))


def test_a_pass_becomes_a_profile(recording):
    running = recording()
    running.start(None)
    profile = run(running, [batch(5), batch(3, 1)])

    assert profile.n == 8
    assert list(profile.groups) == ["inputs", "labels"]
    assert profile.source == "validation"
    assert profile.info["padding_left_out"] == 0
    assert profile.groups["labels"].info["read_from"] == 1
    assert not profile.warnings


def test_info_is_kept(recording):
    running = recording()
    running.start(None)
    running.open(batch(2))
    running.close()

    assert running.finish(epoch=4, step=9).info | {"epoch": 4, "step": 9} == running.finish(epoch=4, step=9).info


def test_every_pass_begins_from_nothing(recording):
    running = recording()
    for n in (5, 7):
        running.start(None)
        assert run(running, [batch(n)]).n == n


def test_what_is_opened_before_a_pass_is_not_recorded(recording):
    running = recording()
    running.open(batch(3))
    running.close()
    running.start(None)

    assert run(running, [batch(4)]).n == 4


def test_a_batch_that_was_never_closed_does_not_count(recording):
    running = recording()
    running.start(None)
    running.open(batch(3))

    assert run(running, [batch(4)]).n == 4


def test_what_is_profiled_is_the_batch_as_it_was_opened(recording):
    changed, kept = recording(), recording()
    changed.start(None)
    kept.start(None)
    profile = run(changed, [batch(6)], step=lambda images: images.sub_(0.5))
    expected = run(kept, [batch(6)])

    np.testing.assert_array_equal(profile.groups["inputs"].bank.max, expected.groups["inputs"].bank.max)


def states(profile):
    """All that the groups and the joint sample hold, but for when it was made."""
    profile.info.pop("created")
    return to_bytes(profile)


def test_images_are_measured_before_the_step_and_copied_in_the_first_alone(recording, monkeypatch):
    copies = []
    for module in (batch_reading, training_recording):
        monkeypatch.setattr(
            module, "copy_of", lambda values, real=module.copy_of: copies.append(values) or real(values)
        )
    problems = Problems()
    changed, kept = recording(problems=problems), recording(problems=problems)
    for running in (changed, kept):
        running._recording._prepare = seeded(running._recording._prepare)
        running.start(None)
    batches = [batch(6, seed) for seed in range(4)]
    expected = run(kept, [(images.clone(), labels) for images, labels in batches])
    profile = run(changed, batches, step=lambda images: images.copy_(torch.rand_like(images)))

    assert states(profile) == states(expected)
    assert sorted(values.ndim for values in copies) == [1] * 8 + [4] * 2  # labels of all; two passes


def seeded(prepare):
    def prepared(loader):
        reader, _ = prepare(loader)
        return reader, Profiler(inputs=reader.inputs, source="validation", seed=0)

    return prepared


def test_skipped_steps_count_nowhere_at_any_place(recording):
    skipping, plain = recording(), recording()
    for running in (skipping, plain):
        running._recording._prepare = seeded(running._recording._prepare)
        running.start(None)
    for seed in range(4):
        skipping.open(batch(5, 90 + seed))
        for running in (skipping, plain):
            running.open(batch(6, seed))
            running.close()
    skipping.open(batch(5, 99))

    assert states(skipping.finish()) == states(plain.finish())


def test_a_batch_that_padding_may_reach_is_copied_and_the_others_are_not(recording):
    running = recording()
    running.start(padded_loader(23, rank=1, ranks=2))  # 11 of its own and one repeated
    images, labels = batch(12)
    kept = []
    for part in (slice(4), slice(4, 8), slice(8, 12)):
        running.open((images[part], labels[part]))
        kept.append(type(running._taken.images))
        running.close()

    assert kept == [torch.Tensor, Looked, torch.Tensor]  # the first decides how images are read
    assert running.finish().n == 11


def test_what_a_monitor_cuts_is_copied():
    class Monitor:
        def reset(self):
            self.seen = []

        def describe(self, *_, **__):
            pass

        def update(self, **groups):
            self.seen.append(groups["inputs"])

    monitor, problems = Monitor(), Problems()
    running = LoaderPass("test", lambda _: (BatchReader(ImageInputs(), "auto", problems), monitor), None, problems)
    running.start(None)
    for seed in range(2):
        images, labels = batch(3, seed)
        running.open((images, labels))
        images.zero_()
        running.close()
    assert [float(seen.abs().sum()) > 0 for seen in monitor.seen] == [True, True]


def test_images_that_cannot_be_measured_fail_where_batches_are_counted():
    problems = Problems(quiet=True)

    def prepare(_):
        return BatchReader(ImageInputs(layout="NCHW", scale=255), "auto", problems), Profiler(seed=0)

    running = LoaderPass("validation", prepare, None, problems)
    running.start(None)
    for shape in ((3, 3, 8, 8), (3, 5, 8, 8)):
        running.open((torch.rand(shape), torch.zeros(3, dtype=torch.int64)))
        with problems.caught("a batch"):
            running.close()

    assert running.finish().warnings[-1] == "1 of 2 batches of validation were left out after an error"


@pytest.mark.parametrize("every", [1, 2])
def test_what_was_opened_and_never_closed_counts_for_none_and_is_not_held(recording, network, every):
    module, taps, problems = network
    profiler = Profiler(seed=0)

    def prepare(_):
        return BatchReader(ImageInputs(layout="NCHW", scale=1, kind="float"), "auto", problems), profiler

    chosen = ChosenBatches(every)
    running = LoaderPass("training", prepare, taps, problems, chosen=chosen)
    running.start(None)
    taken = [index for index in range(12) if is_chosen(index, every)]
    lost = taken[2]
    for index in range(12):
        images, labels = batch(4, index)
        running.open((images, labels), index=index)
        assert taps._open == (index in (0, *taken))
        module(images.mean(dim=3).reshape(4, -1)[:, :12])
        if index != lost:
            running.close()
            assert not taps._open
    profile = running.finish()

    assert {group.n for group in profile.groups.values()} == {4 * (len(taken) - 1)}
    assert (chosen.profiled, chosen.of) == (len(taken) - 1, 11)
    assert ("batches" in profile.info) == (every > 1)
    assert not running.started
    running.open(batch(4))
    assert running._taken is None


def test_batches_that_fail_are_counted_as_passed_over(recording):
    problems = Problems(quiet=True)

    def prepare(_):
        return BatchReader(ImageInputs(layout="NCHW", scale=255), "auto", problems), Profiler(seed=0)

    chosen = ChosenBatches(2)
    running = LoaderPass("training", prepare, None, problems, chosen=chosen)
    running.start(None)
    taken = [index for index in range(8) if is_chosen(index, 2)]
    for index in range(8):
        channels = 5 if index == taken[1] else 3
        running.open((torch.rand(3, channels, 8, 8), torch.zeros(3, dtype=torch.int64)), index=index)
        with problems.caught("a batch"):
            running.close()

    assert running.finish().info["batches"] == {"profiled": 3, "of": 8, "every": 2}


def test_layers_are_read_along(recording, network):
    module, taps, problems = network
    running = recording(taps, problems)
    running.start(None)
    profile = run(running, [batch(5)], step=lambda images: module(images.mean(dim=3).reshape(5, -1)[:, :12]))

    assert list(profile.groups) == ["inputs", "outputs", "embeddings/head", "labels"]
    assert profile.groups["outputs"].info["layer"] == "model.head"
    assert profile.groups["outputs"].info["linear"]
    embedding = profile.groups["embeddings/head"].info
    assert (embedding["layer"], embedding["reduce"], embedding["axes"], embedding["width"]) == (
        "model.head",
        "mean",
        2,
        4,
    )
    assert set(profile.rows.data) == {"inputs", "outputs", "outputs/top_class", "embeddings/head", "labels"}
    assert profile.rows.n == 5


def test_rows_of_all_groups_are_of_the_same_image(recording, network):
    module, taps, problems = network
    with torch.no_grad():
        module.weight.zero_()
        module.weight[:, 0] = 1
        module.bias.zero_()
    running = recording(taps, problems)
    running.start(None)
    profile = run(
        running,
        [batch(9, s) for s in range(3)],
        lambda images: module(images.mean(dim=(1, 2, 3))[:, None].repeat(1, 12)),
    )
    data = profile.rows.data
    means = profile.groups["inputs"].streams.index("mean/0")
    average = data["inputs"][:, means : means + 3].mean(axis=1) / 255

    np.testing.assert_allclose(data["embeddings/head"][:, 0], average, atol=0.01)


def test_a_layer_that_never_answers_is_complained_about_once(recording, network):
    _, taps, problems = network
    running = recording(taps, problems)
    for _ in range(2):
        running.start(None)
        profile = run(running, [batch(2), batch(2)])
        assert len(profile.warnings) == 2
        assert "'model.head' answered nothing in 2 batches of validation" in profile.warnings[0]
        assert "torch.compiler.reset()" in profile.warnings[0]

    assert problems.messages == []


def test_a_pass_without_batches_has_nothing_to_complain_about(recording, network):
    _, taps, problems = network
    running = recording(taps, problems)
    running.start(None)

    assert running.finish().warnings == []


def test_the_samplers_repeats_at_the_end_are_left_out(recording):
    running = recording()
    running.start(padded_loader(15, rank=1, ranks=2))  # 7 of its own and one repeated
    images, labels = batch(8)
    profile = run(running, [(images[:5], labels[:5]), (images[5:], labels[5:])])
    expected = recording()
    expected.start(None)
    expected = run(expected, [(images[:7], labels[:7])])

    assert profile.n == 7
    assert profile.info["padding_left_out"] == 1
    np.testing.assert_array_equal(profile.groups["inputs"].pixels.counts, expected.groups["inputs"].pixels.counts)
    assert profile.groups["labels"].categories[""].n == 7


def test_a_batch_of_nothing_but_repeats_is_left_out(recording):
    running = recording()
    running.start(padded_loader(15, rank=1, ranks=2))
    images, labels = batch(8)
    profile = run(running, [(images[:7], labels[:7]), (images[7:], labels[7:])])

    assert profile.n == 7
    assert profile.info["padding_left_out"] == 1
    assert not profile.warnings


def test_a_pass_cut_short_leaves_out_nothing(recording):
    running = recording()
    running.start(padded_loader(15, rank=1, ranks=2))

    assert run(running, [batch(6)]).n == 6


def test_padding_is_left_out_of_every_pass(recording):
    running = recording()
    for _ in range(2):
        running.start(padded_loader(3, rank=1, ranks=2))
        assert run(running, [batch(2)]).n == 1


def test_rows_that_are_not_samples_are_all_kept(recording):
    running = recording()
    running.start(padded_loader(15, rank=1, ranks=2))

    assert run(running, [batch(16), batch(16)]).n == 32


def test_a_batch_that_cannot_be_measured_is_counted(recording, monkeypatch):
    problems = Problems(quiet=True)
    running = recording(problems=problems)
    running.start(None)
    running.open(batch(2))
    with monkeypatch.context() as patch:
        patch.setattr(Profiler, "update", lambda *_, **__: 1 / 0)
        with problems.caught("measuring"):
            running.close()
    profile = run(running, [batch(3)])

    assert profile.n == 3
    assert profile.warnings == ["1 of 2 batches of validation were left out after an error"]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_works_in_every_gradient_mode_and_across_them(recording, mode):
    running = recording()
    with mode():
        running.start(None)
        running.open(batch(4))
        running.close()
    running.open(batch(4))
    running.close()
    with mode():
        profile = running.finish()

    assert profile.n == 8


def test_what_a_linear_layer_answers_are_logits_even_inside_0_and_1(recording):
    module = nn.Linear(3, 2)
    taps = Taps([Tap("outputs", Layer("x", "x", module))], Problems())
    running = recording(taps)
    running.start(None)
    with torch.no_grad():
        module.weight.zero_()
        module.bias.fill_(0.25)
    profile = run(running, [batch(4)], step=lambda images: module(images[:, :, 0, 0]))
    taps.remove()

    assert profile.groups["outputs"].info["kind"] == "logits"


def test_custom_reductions_are_known_by_name(recording):
    module = nn.Identity()

    def corner(maps):
        return maps[:, :, 0, 0]

    taps = Taps([Tap("embeddings/x", Layer("x", "x", module), corner)], Problems())
    running = recording(taps)
    running.start(None)
    profile = run(running, [batch(4)], step=module)
    taps.remove()

    assert profile.groups["embeddings/x"].info["reduce"].endswith("corner")
    assert profile.groups["embeddings/x"].definitions == {"*": "lensai/embedding_custom@1"}


def test_every_batch_is_measured_on_one_thread(trainer, lit, loaders, monkeypatch):
    _blas_pools.cache_clear()  # an earlier test may have loaded one more library
    pools = ThreadpoolController().select(user_api="blas")
    threads = lambda: {pool["num_threads"] for pool in pools.info()}  # noqa: E731
    seen = set()
    update = Profiler.update

    def watched(self, **batch):
        seen.update(threads())
        update(self, **batch)

    monkeypatch.setattr(Profiler, "update", watched)
    with pools.limit(limits=2):
        trainer(BaselineCallback(training="all")).fit(lit(), loaders(16), loaders(16))

        assert seen == {1}
        assert threads() == {2}
