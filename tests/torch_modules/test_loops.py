"""A profiler beside a module, in loops that have no callbacks: what it holds is what was fed and answered."""

from __future__ import annotations

import copy
import logging
import threading

import numpy as np
import pytest
import torch
from checks.adapter import Adapter
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lensai_integrations import Baseline, DriftMonitor, ImageInputs, Profile, Profiler, calibrate, compare, measure
from lensai_integrations.errors import InputError
from lensai_integrations.torch import profiled
from lensai_integrations.torch.layers import SampledWeights
from lensai_integrations.training.options import Profiling
from lensai_integrations.training.weights import Weights

N = 60


class Net(nn.Module):
    def __init__(self, ways=3):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, ways)

    def pooled(self, images):
        return self.features(images).mean((2, 3))

    def forward(self, images):
        return self.head(self.drop(self.pooled(images)))


def net(seed=0, **settings):
    torch.manual_seed(seed)
    return Net(**settings).eval()


def weights_of(model):
    return SampledWeights(model).weights()


def photos(n=N, seed=1):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


LABELS = torch.arange(N) % 3


def batches(size=16):
    """The last one is smaller than the others."""
    return list(zip(photos().split(size), LABELS.split(size), strict=True))


def hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def column(profile, group, place=0):
    """A column of the joint rows, sorted."""
    return np.sort(profile.rows.data[group][:, place])


def evaluate(model, profiler, data=None):
    for images, labels in data or batches():
        with profiler.batch(labels=labels):
            model(images)


def groups(profile):
    return {name: group.n for name, group in profile.groups.items()}


def counted(profile):
    """How often each label was seen."""
    (sketch,) = profile.groups["labels"].categories.values()
    return {label: int(n) for label, n, *_ in sketch.top(9)}


ALL = {"inputs": N, "outputs": N, "embeddings/head.input": N, "labels": N}


def is_of(profile, model):
    """Whether a profile holds what the model was fed in `batches` and what it answered, by numbers made apart."""
    with torch.no_grad():
        pooled, logits = model.pooled(photos()), model(photos())
    assert counted(profile) == {"0": 20, "1": 20, "2": 20}
    expected = Profiler()
    expected.update(inputs=photos())
    fed = column(expected.profile(), "inputs")
    near = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(column(profile, "embeddings/head.input"), np.sort(pooled[:, 0].numpy()), **near)
    np.testing.assert_allclose(column(profile, "outputs"), np.sort(torch.softmax(logits, 1)[:, 0].numpy()), **near)
    np.testing.assert_allclose(column(profile, "inputs"), fed, **near)
    return True


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_holds_what_the_model_was_fed_and_answered_and_changes_nothing(context):
    model = net()
    with context():
        expected = [model(images) for images, _ in batches()]
    state, seen = torch.get_rng_state(), []
    with context(), profiled(model) as profiler:
        for images, labels in batches():
            with profiler.batch(labels=labels):
                seen.append(model(images))
    profile = profiler.profile()
    assert all(torch.equal(*pair) for pair in zip(seen, expected, strict=True))  # bit for bit
    assert torch.equal(torch.get_rng_state(), state)
    assert hooks(model) == 0
    assert (groups(profile), profile.n, profile.source, profile.warnings) == (ALL, N, "validation", [])
    assert is_of(profile, model)


def test_the_readmes_way_ends_in_a_baseline_that_production_is_held_against(tmp_path):
    model = net()
    with torch.inference_mode(), profiled(model) as profiler:
        evaluate(model, profiler, [*batches(), *batches()])
    baseline = calibrate(Baseline(profiler.profile()), draws=100)
    baseline.save(tmp_path / "baseline")
    monitor = DriftMonitor(Baseline.load(tmp_path / "baseline"), window=N)
    with torch.inference_mode(), monitor, monitor.watch(model):
        model(photos(seed=2))
        model(photos(seed=3) * 0.2)
    assert (monitor.status.rows, monitor.status.windows, monitor.level) == (2 * N, 2, "alarm")
    assert monitor.status.failures == {}
    assert compare(baseline, baseline.reference).drift is False


def train(model, around=None):
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        model.train()
        for images, labels in batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for images, labels in batches():
                if around is None:
                    model(images)
                else:
                    with around.batch(labels=labels):
                        model(images)


class TestLoops(Adapter):
    declared = ((profiled, Profiling, {"target", "reference"}),)

    @pytest.fixture(params=[{}, {"source": "training"}, {"source": "training", "layers": ["head.input"]}], ids=str)
    def asked(self, request):
        return request.param, {}

    @pytest.fixture
    def make(self):
        return lambda **arguments: lambda model: profiled(model, **arguments)

    @pytest.fixture
    def train(self):
        def run(beside):
            model = net()
            if beside is None:
                train(model)
            else:
                beside.profiler = beside(model)
                with beside.profiler:
                    train(model)
            return [*model.state_dict().values(), torch.get_rng_state()], range(hooks(model))

        return run

    @staticmethod
    def profile_of(beside):
        return beside.profiler.profile()

    @staticmethod
    def warnings_of(beside):
        return beside.profiler.profile().warnings


def test_weights_that_changed_while_it_was_recorded_are_said_and_the_advice_works(caplog):
    model = net()
    with profiled(model) as profiler:
        train(model, profiler)
    profile = profiler.profile()
    (warning,) = profile.warnings
    assert "the model's weights changed while this was recorded" in warning
    assert "weights" not in profile.info
    assert groups(profile)["inputs"] == 2 * N
    with torch.no_grad(), profiler:  # around one evaluation, the last
        evaluate(model, profiler)
    profile = profiler.profile()
    assert (groups(profile), profile.warnings) == (ALL, [])
    assert Weights.from_json(profile.info["weights"]).same_as(weights_of(model)) is True
    assert is_of(profile, model)


@pytest.mark.parametrize("change", [lambda weight: weight.mul_(2), lambda weight: weight.data.mul_(2)])
def test_weights_that_changed_after_the_last_pass_count_as_well(change):
    model = net()
    with torch.no_grad(), profiled(model) as profiler:
        evaluate(model, profiler)
        change(model.head.weight)
    assert "weights changed" in profiler.profile().warnings[-1]


def test_of_training_what_the_model_is_fed_is_profiled():
    model = net()
    with profiled(model, source="training") as profiler:
        train(model)
    profile = profiler.profile()
    assert (groups(profile), profile.source, profile.warnings) == ({"inputs": 2 * N}, "training", [])
    with profiled(model, source="training", layers=["features"], outputs="head") as profiler:
        train(model)
    assert groups(profiler.profile()) == {"inputs": 2 * N, "outputs": 2 * N, "embeddings/features": 2 * N}


def test_an_exception_passes_and_hooks_go():
    model = net()
    profiler = profiled(model)

    def fails():
        with torch.no_grad(), profiler:
            model(photos(4))
            with profiler.batch(labels=LABELS[:4]):
                model(photos(4))
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert hooks(model) == 0
    assert groups(profiler.profile())["inputs"] == 8
    with pytest.raises(RuntimeError), torch.no_grad(), profiled(model) as profiler:
        model(torch.zeros(4, 5, 8, 8))  # while it is followed
    assert hooks(model) == 0
    model(photos(4))


def test_several_passes_of_a_batch_have_its_labels_in_order():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, images):
            return self.head(images.mean((2, 3)))

    torch.manual_seed(0)
    model = Mean().eval()
    dark = torch.where(LABELS.view(-1, 1, 1, 1) == 1, 0.1, 0.9) * torch.ones(N, 3, 8, 8)
    with torch.no_grad(), profiled(model, segment_by="label") as profiler:
        for start in range(0, N, 20):
            with profiler.batch(labels=LABELS[start : start + 20]):
                for part in dark[start : start + 20].split(7):
                    model(part)
    profile = profiler.profile()
    assert groups(profile)["labels"] == N
    levels = {key: each.groups["inputs"].bank for key, each in profile.segments.items()}
    assert {key: round(float(bank.min[0])) for key, bank in levels.items()} == {"0": 230, "1": 26, "2": 230}


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (
            lambda model, profiler: [model(photos(8)), model(photos(8).flip(3))],
            "batch(labels=...) was given 8 for 8 + 8 images in 2 forward passes, so which belong together is not known"
            " and none are taken: put the block around the one pass that they belong to",
        ),
        (
            lambda model, profiler: model(photos(7)),
            "batch(labels=...) was given 8 for 7 images, so which belong together is not known and none are taken: pass"
            " one for every image",
        ),
        (lambda model, profiler: None, "batch(...) saw no forward pass in its block: call the model inside of"),
        (lambda model, profiler: model.forward(photos(8)), "batch(...) saw no forward pass in its block"),
    ],
)
def test_labels_that_cannot_be_paired_are_left_out_and_said_once(caplog, use, told):
    model = net()
    with torch.no_grad(), profiled(model, task="classification") as profiler:
        model(photos(4))
        for _ in range(2):
            with profiler.batch(labels=LABELS[:8]):
                use(model, profiler)
    profile = profiler.profile()
    assert "labels" not in profile.groups
    (warning,) = profile.warnings
    assert told in warning
    assert [told in record.getMessage() for record in caplog.records] == [True]


def test_that_advice_followed_gives_every_label_once():
    model = net()
    with torch.no_grad(), profiled(model) as profiler:
        for images, labels in batches():
            with profiler.batch(labels=labels):
                model(images)
            model(images.flip(3))
    profile = profiler.profile()
    assert (groups(profile)["labels"], groups(profile)["inputs"], profile.warnings) == (N, 2 * N, [])


def test_threads_have_batches_of_their_own():
    model, barrier = net(), threading.Barrier(3)
    with torch.no_grad():
        model(photos(2))

    def serve(seed):
        with torch.no_grad():
            for _ in range(5):
                barrier.wait()
                with profiler.batch(labels=torch.full((seed + 1,), seed)):
                    model(torch.full((seed + 1, 3, 8, 8), seed / 10))

    with profiled(model, segment_by="label", task="classification") as profiler:
        threads = [threading.Thread(target=serve, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    profile = profiler.profile()
    assert counted(profile) == {"0": 5, "1": 10, "2": 15}
    brightest = {key: float(each.groups["inputs"].bank.max[0]) for key, each in profile.segments.items()}
    assert brightest == pytest.approx({"0": 0, "1": 25.5, "2": 51}, abs=0.5)


class HuggingFaceLike(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, pixel_values=None, labels=None, **_):
        logits = self.net(pixel_values)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits, "hidden_states": [logits.new_zeros(len(logits), 4, 5)]}


@pytest.mark.parametrize(
    "call",
    [
        lambda model, images, labels: model(pixel_values=images, labels=labels),
        lambda model, images, labels: model(**{"pixel_values": images, "labels": labels, "interpolate": True}),
        lambda model, images, labels: model(images, labels),
    ],
)
def test_labels_that_the_model_is_given_by_name_are_read(call):
    model = HuggingFaceLike().eval()
    with torch.no_grad(), profiled(model) as profiler:
        for images, labels in batches():
            call(model, images, labels)
    profile = profiler.profile()
    assert groups(profile) == {"inputs": N, "outputs": N, "embeddings/net.head.input": N, "labels": N}
    assert counted(profile) == {"0": 20, "1": 20, "2": 20}
    assert profile.groups["outputs"].info["loss"] == "cross_entropy"
    assert profile.warnings == []


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(3, 1)

    def forward(self, left, right):
        return {"species": self.left(left.mean((2, 3))), "age": self.right(right.mean((2, 3)))}


def test_several_images_and_several_heads_are_groups_of_their_own():
    model = Pair().eval()
    with torch.no_grad(), profiled(model, task={"age": "regression"}) as profiler:
        for images, labels in batches():
            with profiler.batch(labels={"species": labels, "age": labels + 0.5}):
                model(images, right=images * 0.5)
    profile = profiler.profile()
    names = ["inputs/left", "inputs/right", "outputs/species", "outputs/age", "embeddings/left.input"]
    assert groups(profile) == dict.fromkeys([*names, "embeddings/right.input", "labels/species", "labels/age"], N)
    assert float(profile.groups["inputs/right"].bank.max[0]) * 2 == pytest.approx(
        float(profile.groups["inputs/left"].bank.max[0]), rel=0.01
    )
    assert profile.warnings == []


def test_labels_by_name_beside_several_images():
    class Labelled(Pair):
        def forward(self, left, right, labels=None):
            return super().forward(left, right)["species"]

    model = Labelled().eval()
    with torch.no_grad(), profiled(model) as profiler:
        for images, labels in batches():
            model(images, images * 0.5, labels=labels)
    profile = profiler.profile()
    names = ["inputs/left", "inputs/right", "outputs", "embeddings/left.input", "labels"]
    assert (groups(profile), profile.warnings) == (dict.fromkeys(names, N), [])
    assert counted(profile) == {"0": 20, "1": 20, "2": 20}


def test_a_model_whose_answer_is_unclear_is_said_with_what_to_pass(caplog):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 5, 3)

        def forward(self, images):
            return self.body(images)

    model = Encoder().eval()
    with torch.no_grad(), profiled(model) as profiler:
        model(photos(8))
    (warning,) = profiler.profile().warnings
    assert groups(profiler.profile()) == {"inputs": 8}
    assert "maps and sequences are not read as outputs yet. Pass outputs=None and layers=[...]" in warning
    assert "body 8x5x6x6" in warning
    with torch.no_grad(), profiled(model, outputs=None, layers=["body"]) as profiler:
        model(photos(8))
    assert (groups(profiler.profile()), profiler.profile().warnings) == ({"inputs": 8, "embeddings/body": 8}, [])


def test_without_labels_logits_are_stated_as_a_guess_and_task_settles_it():
    model = net()
    with torch.no_grad(), profiled(model) as profiler:
        model(photos())
    (warning,) = profiler.profile().warnings
    assert "neither the loss nor labels are known: pass task='classification', task='multilabel'" in warning
    with torch.no_grad(), profiled(model, task="multilabel") as profiler:
        model(photos())
    assert profiler.profile().warnings == []
    assert profiler.profile().groups["outputs"].info["kind"] == "multilabel_logits"


class Normalize:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)

    def __call__(self, image):
        return (image - torch.tensor(self.mean).view(3, 1, 1)) / torch.tensor(self.std).view(3, 1, 1)


class Pets(Dataset):
    classes = ("cat", "dog", "bird")

    def __init__(self):
        from torchvision.transforms import v2

        self.transform = v2.Normalize(mean=Normalize.mean, std=Normalize.std)
        self.images = photos()

    def __len__(self):
        return N

    def __getitem__(self, place):
        return self.transform(self.images[place]), int(LABELS[place])


def test_what_the_loader_tells_is_used(caplog):
    pytest.importorskip("torchvision")
    loader, model = DataLoader(Pets(), batch_size=16), net()
    with torch.no_grad(), profiled(model, loader=loader) as profiler:
        evaluate(model, profiler, loader)
    profile = profiler.profile()
    expected = Profiler()
    expected.update(inputs=photos())
    np.testing.assert_allclose(column(profile, "inputs"), column(expected.profile(), "inputs"), rtol=1e-4)
    assert (groups(profile), profile.warnings) == (ALL, [])
    assert profile.groups["labels"].info["class_names"] == ["cat", "dog", "bird"]
    with torch.no_grad(), profiled(model) as profiler:  # without it, what cannot be known is said
        evaluate(model, profiler, loader)
    assert "inputs" not in profiler.profile().groups
    assert any("mean=" in warning for warning in profiler.profile().warnings)
    readers = ImageInputs(mean=Normalize.mean, std=Normalize.std)
    with torch.no_grad(), profiled(model, inputs=readers) as profiler:
        evaluate(model, profiler, loader)
    np.testing.assert_allclose(column(profiler.profile(), "inputs"), column(expected.profile(), "inputs"), rtol=1e-4)


def test_rows_that_a_distributed_sampler_repeats_are_left_out():
    pytest.importorskip("torchvision")
    model, found = net(), []
    for rank in range(2):
        pets = torch.utils.data.Subset(Pets(), range(59))
        sampler = torch.utils.data.DistributedSampler(pets, num_replicas=2, rank=rank, shuffle=False)
        loader = DataLoader(pets, batch_size=8, sampler=sampler)
        with torch.no_grad(), profiled(model, loader=loader, seed=rank) as profiler:
            evaluate(model, profiler, loader)
        found.append(profiler.profile())
    assert groups(found[0].merge(found[1])) == dict.fromkeys(ALL, 59)


@measure("red_mean", unit="")
def red(images):
    return images[:, 0].mean((1, 2))


def test_options_are_those_of_the_callback():
    model = net()
    with torch.no_grad(), profiled(
        model, ["features"], reduce={"features": "max"}, outputs="head", convention=("lensai", "lensai-edge"),
        measures=[red], k=100, rows=10, inputs=ImageInputs(key="images"), segment_by="site",
    ) as profiler:  # fmt: skip
        for images, labels in batches():
            with profiler.batch(labels=labels, segments=["a"] * (len(images) - 1) + ["b"]):
                model(images=images)
    profile = profiler.profile()
    assert groups(profile) == dict.fromkeys(
        ["inputs", "inputs/lensai-edge", "outputs", "embeddings/features", "labels"], N
    )
    assert list(profile.groups["inputs"].apart) == ["red_mean"]
    assert {key: each.n for key, each in profile.segments.items()} == {"a": N - 4, "b": 4}
    assert profile.rows.size == 10
    with torch.no_grad():
        expected = model.features(photos()).amax((2, 3))[:, 0]
    bank = profile.groups["embeddings/features"].bank
    assert float(bank.max[0]) == pytest.approx(float(expected.max()), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "module is a int: pass a torch.nn.Module"),
        ({"layers": ["nothing"]}, "nothing"),
        ({"layers": "head"}, "layers='head' should be 'auto', a list"),
        ({"source": "eval"}, "source='eval' is unknown: pass 'validation'"),
        ({"inputs": 3}, "inputs=3"),
        ({"outputs": "nothing"}, "nothing"),
        ({"task": "x"}, "task='x'"),
        ({"k": 1}, "k=1"),
        ({"layers": ["head"], "reduce": {"tail": "max"}}, "reduce has .'tail'.*'head'"),
    ],
)
def test_wrong_arguments_raise(arguments, message):
    model = net()
    with pytest.raises(InputError, match=message):
        profiled(arguments.pop("model", model), **arguments)
    assert hooks(model) == 0


def test_nothing_recorded_is_an_empty_profile_that_says_so(caplog):
    model = net()
    with profiled(model) as profiler:
        model.features(photos(4))
    assert profiler.profile().groups == {}
    assert (
        "the module was not called, so nothing was recorded: call the module itself" in profiler.profile().warnings[0]
    )
    with profiled(model.train()) as profiler:
        model(photos(4))
    (warning,) = profiler.profile().warnings
    assert warning.endswith("the module is in training mode, in which nothing is recorded: call module.eval() first")
    with profiled(model.eval(), source="training") as profiler:
        model(photos(4))
    assert "call module.train() first" in profiler.profile().warnings[0]


def test_what_fails_inside_does_not_reach_the_loop(monkeypatch, caplog):
    model = net()
    monkeypatch.setattr(Profiler, "update", lambda *_, **__: 1 / 0)
    with torch.no_grad(), profiled(model) as profiler:
        assert model(photos(4)).shape == (4, 3)
        with profiler.batch(labels=LABELS[:4]):
            model(photos(4))
    assert any("2 of 2 batches of validation were left out" in text for text in profiler.profile().warnings)


def test_a_profile_can_be_taken_in_the_middle_and_goes_on():
    model = net()
    with torch.no_grad(), profiled(model) as profiler:
        model(photos(8))
        first = profiler.profile()
        assert profiler.profile() is first
        model(photos(8))
    assert (groups(first)["outputs"], groups(profiler.profile())["outputs"]) == (8, 16)


def test_autocast_reads_the_images_whole_and_measures_in_full():
    model = net()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), profiled(model) as profiler:
        evaluate(model, profiler)
    profile = profiler.profile()
    expected = Profiler()
    expected.update(inputs=photos())
    np.testing.assert_allclose(column(profile, "inputs"), column(expected.profile(), "inputs"), rtol=1e-5)
    assert groups(profile) == ALL


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_in_another_dtype(dtype):
    model = net().to(dtype)
    with torch.no_grad(), profiled(model) as profiler:
        evaluate(model, profiler, [(images.to(dtype), labels) for images, labels in batches()])
    profile = profiler.profile()
    assert groups(profile) == ALL
    assert Weights.from_json(profile.info["weights"]).kinds == (str(dtype)[6:],)
    noted = {
        name: group.info.get("precision") for name, group in profile.groups.items() if name not in ("inputs", "labels")
    }
    assert set(noted.values()) == {"bfloat16" if dtype == torch.bfloat16 else None}, noted


@pytest.fixture
def compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
def test_a_compiled_model_has_outputs_and_says_what_its_embeddings_need(compiler, caplog):
    model = torch.compile(net(), backend="eager")
    with torch.no_grad(), profiled(model) as profiler:
        evaluate(model, profiler)
    (warning,) = profiler.profile().warnings
    assert groups(profiler.profile()) == {"inputs": N, "outputs": N, "labels": N}
    assert "the module is compiled, so what goes into its last layer is not known: pass layers=[...]" in warning
    with torch.no_grad(), profiled(model, layers=["head.input"]) as profiler:
        evaluate(model, profiler)
    assert (groups(profiler.profile()), profiler.profile().warnings) == (ALL, [])
    assert is_of(profiler.profile(), model._orig_mod)


def test_the_model_can_be_saved_whole_while_it_is_profiled(tmp_path):
    model = net()
    with torch.no_grad(), profiled(model) as profiler:
        expected = model(photos(4))
        torch.save(model, tmp_path / "model.pt")
        loaded = torch.load(tmp_path / "model.pt", weights_only=False)
        assert torch.equal(loaded(photos(4)), expected)
    assert groups(profiler.profile())["inputs"] == 4


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_scripts_say_what_they_need(caplog):
    traced, script = torch.jit.trace(net(), photos(4)), torch.jit.script(net())
    with torch.no_grad(), profiled(traced, layers=None) as profiler:
        evaluate(traced, profiler)
    assert (groups(profiler.profile())["outputs"], profiler.profile().warnings) == (N, [])
    with pytest.raises(InputError, match=r"takes no hooks .*: wrap it, as in torch.nn.Sequential\(module\).eval\(\)"):
        profiled(script).__enter__()
    wrapped = nn.Sequential(script).eval()
    with torch.no_grad(), profiled(wrapped, layers=None) as profiler:
        evaluate(wrapped, profiler)
    assert (groups(profiler.profile())["outputs"], profiler.profile().warnings) == (N, [])


@pytest.fixture
def processes():
    """One process alone, that is connected all the same."""
    dist = torch.distributed
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1,))
    for part in (model.features, model.head, model):
        fully_shard(part, mesh=mesh)
    return model


@pytest.mark.parametrize("wrapped", [nn.parallel.DistributedDataParallel, sharded])
@pytest.mark.parametrize("layers", ["auto", ["head.input"]])
def test_a_model_for_several_processes(processes, wrapped, layers):
    model = wrapped(net()).eval()
    with torch.no_grad(), profiled(model, layers) as profiler:
        evaluate(model, profiler)
    profile = profiler.profile()
    assert (groups(profile), profile.warnings) == (ALL, [])
    assert ("weights" in profile.info) is (wrapped is not sharded)
    assert is_of(profile, net())


def test_a_copy_of_the_model_that_is_called_is_said(caplog):
    model = net()
    with torch.no_grad(), profiled(model) as profiler:
        copy.deepcopy(model)(photos(4))
    assert "a copy of the module was called" in profiler.profile().warnings[0]


def test_log_is_quiet_where_nothing_is_wrong(caplog):
    model = net()
    with caplog.at_level(logging.INFO), torch.no_grad(), profiled(model) as profiler:
        evaluate(model, profiler)
    assert isinstance(profiler.profile(), Profile)
    assert [record for record in caplog.records if record.name.startswith("lensai")] == []


def test_a_first_pass_that_raises_is_followed_by_one_that_is_read():
    model = net()
    with torch.no_grad(), profiled(model) as profiler:
        for images, labels in batches():
            with profiler.batch(labels=labels):
                with pytest.raises(RuntimeError):
                    model(images[:, :2])
                model(images)

    profile = profiler.profile()
    assert (groups(profile), profile.warnings) == (ALL, [])
    assert is_of(profile, model)


def test_a_first_pass_that_raises_before_a_monitor_too(caplog):
    model = net()
    with torch.no_grad(), profiled(model) as profiler:
        evaluate(model, profiler)
    other = nn.Sequential(model.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.head).eval()
    with DriftMonitor(profiler.profile(), window=N) as monitor, monitor.watch(other):
        with pytest.raises(RuntimeError):
            other(photos()[:, :2])
        with torch.no_grad():
            other(photos())
    assert (monitor.status.rows, "head.input" in caplog.text) == (N, False)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_an_exported_module_is_in_the_mode_that_it_was_exported_in(mode):
    source = {"eval": "validation", "train": "training"}[mode]
    model = getattr(net(), mode)()
    exported = torch.export.export(model, (photos(),)).module()
    for each in ("validation", "training"):
        with torch.no_grad(), profiled(exported, layers=None, source=each) as profiler, profiler.batch(labels=LABELS):
            exported(photos())
        assert bool(profiler.profile().groups) == (each == source)


def test_the_layer_of_quantised_weights_is_what_answers(quantised):
    model = quantised(net())
    with torch.no_grad(), profiled(model) as profiler:
        evaluate(model, profiler)

    profile = profiler.profile()
    assert (groups(profile), profile.warnings) == (ALL, [])
    assert profile.groups["outputs"].info["found"] == "what Net.forward returned, made by 'head'"


@pytest.mark.parametrize("layers", [None, ["features"]])
def test_embeddings_that_are_not_to_be_found_are_not_missed(layers, compiler):
    model = net()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad(), profiled(model, layers=layers) as profiler:
        evaluate(compiled, profiler)
    assert profiler.profile().warnings == []


def test_segments_that_are_not_told_are_said_and_the_advice_works():
    model = net()
    for told in (False, True):
        with torch.no_grad(), profiled(model, segment_by="site") as profiler:
            for images, labels in batches():
                sites = ["north", "south"] * (len(images) // 2) if told else None
                with profiler.batch(labels=labels, segments=sites):
                    model(images)
        warnings = profiler.profile().warnings
        assert (warnings == []) is told
        assert told or "segment_by='site', but of some images it was not told" in warnings[0]


class Attributes(dict):
    """Keys that are attributes, and what is missing is no `AttributeError`."""

    __getattr__ = dict.__getitem__


def test_a_dict_with_attributes_is_a_dict():
    class Answering(Net):
        def forward(self, images):
            return Attributes(logits=super().forward(images))

    torch.manual_seed(0)
    model = Answering().eval()
    with torch.no_grad(), profiled(model) as profiler:
        evaluate(model, profiler)
    assert (groups(profiler.profile()), profiler.profile().warnings) == (ALL, [])
