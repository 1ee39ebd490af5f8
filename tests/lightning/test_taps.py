from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
import torch._dynamo
from torch import nn
from torch.utils.checkpoint import checkpoint

from lensai_integrations.problems import Problems
from lensai_integrations.torch.layers import Layer
from lensai_integrations.torch.taps import Tap, Taps, first_tensor


@pytest.fixture
def listen():
    """`listen(module, ...)`: one tap on a module, under the key "x"."""
    made = []

    def make(module, reduce="mean", *, before=False, problems=None):
        taps = Taps([Tap("x", Layer("x", "x", module, before), reduce)], problems or Problems())
        made.append(taps)
        return taps

    yield make
    for taps in made:
        taps.remove()


class Fixed(nn.Module):
    """Answers the same whatever it is asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, *_, **__):
        return self.answer


def test_maps_are_averaged_and_the_number_of_axes_kept(listen):
    maps = torch.rand(2, 3, 4, 5)
    module = Fixed(maps)
    taps = listen(module)
    taps.open()
    module()

    np.testing.assert_allclose(taps.close()["x"], maps.mean(dim=(2, 3)), rtol=1e-6)
    assert taps.layers[0].info == {"layer": "x", "reduce": "mean", "axes": 4}


@pytest.mark.parametrize("reduce", ["mean", None])
def test_what_is_kept_is_a_copy(listen, reduce):
    answer = torch.ones(2, 3)
    module = Fixed(answer)
    taps = listen(module, reduce)
    taps.open()
    module()
    answer.zero_()

    assert np.asarray(taps.close()["x"]).tolist() == [[1, 1, 1]] * 2


def test_the_first_call_counts(listen):
    module = nn.Identity()
    taps = listen(module)
    taps.open()
    module(torch.zeros(2, 3))
    module(torch.ones(5, 3))

    assert np.asarray(taps.close()["x"]).tolist() == [[0, 0, 0]] * 2


def test_nothing_is_kept_while_closed(listen):
    module = nn.Identity()
    taps = listen(module)
    module(torch.zeros(2, 3))
    taps.open()
    assert taps.close() == {}
    module(torch.zeros(2, 3))
    taps.open()
    assert taps.close() == {}


def test_a_batch_does_not_see_the_one_before(listen):
    module = nn.Identity()
    taps = listen(module)
    for value in (1.0, 2.0):
        taps.open()
        module(torch.full((1, 1), value))
        assert taps.close()["x"].item() == value


@pytest.mark.parametrize("call", [lambda m, x: m(x), lambda m, x: m(7, x), lambda m, x: m(hidden=x)])
def test_what_goes_into_a_layer(listen, call):
    module = Fixed(None)
    taps = listen(module, before=True)
    taps.open()
    call(module, torch.full((2, 3), 4.0))

    assert np.asarray(taps.close()["x"]).tolist() == [[4, 4, 4]] * 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_precision_becomes_float32(listen, dtype):
    module = Fixed(torch.full((2, 3, 7, 7), 1.5, dtype=dtype))
    taps = listen(module)
    taps.open()
    module()
    kept = taps.close()["x"]

    assert str(kept.dtype).endswith("float32")
    assert np.asarray(kept).tolist() == [[1.5] * 3] * 2


def test_under_autocast(listen):
    module = nn.Linear(4, 3)
    taps = listen(module)
    taps.open()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = module(torch.rand(2, 4))

    assert answer.dtype == torch.bfloat16
    np.testing.assert_array_equal(taps.close()["x"], answer.detach().float())


def test_the_answer_and_its_gradients_are_untouched(listen):
    module = nn.Linear(4, 3)
    batch = torch.rand(2, 4)
    plain = module(batch)
    plain.square().sum().backward()
    expected = module.weight.grad.clone()
    module.weight.grad = None
    taps = listen(module)
    taps.open()
    answer = module(batch)
    answer.square().sum().backward()

    assert torch.equal(answer, plain)
    assert torch.equal(module.weight.grad, expected)
    assert not torch.as_tensor(taps.close()["x"]).requires_grad


def test_gradient_checkpointing_runs_a_layer_twice(listen):
    calls = []
    module = nn.Dropout(0.5)
    module.register_forward_hook(lambda *a: calls.append(a[2].detach().clone()))
    taps = listen(module)
    taps.open()
    batch = torch.rand(2, 64, requires_grad=True)
    answer = checkpoint(nn.Sequential(module, nn.Linear(64, 3)), batch, use_reentrant=False, preserve_rng_state=False)
    taken = calls[0]
    answer.sum().backward()

    assert len(calls) == 2
    assert not torch.equal(calls[1], taken)
    np.testing.assert_array_equal(taps.close()["x"], taken)


def test_the_users_own_reduction(listen):
    module = Fixed(torch.arange(24.0).reshape(2, 3, 2, 2))
    taps = listen(module, lambda maps: maps[:, :, 0, 0])
    taps.open()
    module()

    assert np.asarray(taps.close()["x"]).tolist() == [[0, 4, 8], [12, 16, 20]]


def test_a_failing_reduction_is_a_problem_and_the_forward_pass_goes_on(listen):
    problems = Problems(quiet=True)
    module = nn.Identity()

    def fails(_):
        raise ZeroDivisionError("mine")

    taps = listen(module, fails, problems=problems)
    taps.open()
    assert module(torch.ones(1, 1)).item() == 1

    assert taps.close() == {}
    assert problems.messages == ["x: ZeroDivisionError('mine')"]


def test_an_answer_without_a_tensor_is_a_problem(listen):
    problems = Problems(quiet=True)
    module = Fixed("words")
    taps = listen(module, problems=problems)
    taps.open()
    module()

    assert taps.close() == {}
    assert "no tensor in what it answers, a str" in problems.messages[0]


def test_no_hook_is_left(listen):
    module = nn.Linear(2, 2)
    taps = listen(module)
    assert module._forward_hooks
    taps.remove()

    assert not module._forward_hooks
    assert not module._forward_pre_hooks


@pytest.mark.parametrize("again", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
@pytest.mark.parametrize("before", [False, True])
def test_a_model_that_is_copied_while_hooked_does_not_write_here(listen, again, before):
    module = nn.Linear(2, 2)
    taps = listen(module, before=before)
    taps.open()
    twin = again(module)
    answer = twin(torch.ones(3, 2))

    assert torch.equal(answer, nn.functional.linear(torch.ones(3, 2), module.weight, module.bias))
    assert taps.close() == {}


def test_first_tensor_goes_depth_first_and_passes_over_scalars():
    wanted = torch.zeros(2, 3)

    assert first_tensor((torch.tensor(1.0), {"a": None, "b": [(), wanted]}, torch.ones(9))) is wanted
    assert first_tensor({"a": 1}) is None
    assert first_tensor(None) is None


@pytest.fixture
def compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_hooks_set_before_compiling_fire_without_a_graph_break(listen, compiler, net, backend):
    model = net()
    taps = listen(model.avgpool)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for seed in range(3):
        batch = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        taps.open()
        compiled(batch).sum().backward()
        kept = taps.close()["x"]
        assert kept.shape == (4, 8)
        model.eval()
        with torch.no_grad():
            taps.open()
            compiled(batch)
            kept = taps.close()["x"]
            plain = model.avgpool(torch.relu(model.norm(model.conv(batch)))).flatten(1)
        model.train()
        np.testing.assert_allclose(kept, plain, rtol=1e-5)

    assert not compiler["graph_break"]
    assert compiler["stats"]["unique_graphs"] == 2  # training and evaluation, nothing compiled again for a new batch


def test_hooks_set_on_a_warm_compiled_model_are_passed_over(listen, compiler, net):
    model = net().eval()
    compiled = torch.compile(model, backend="eager")
    compiled(torch.rand(2, 3, 16, 16))
    taps = listen(model.avgpool)
    taps.open()
    compiled(torch.rand(2, 3, 16, 16))

    assert taps.close() == {}
