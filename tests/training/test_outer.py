"""The outer optimiser: torch's formulas on one vector, and a step that is either done or not done."""

import copy
import math

import pytest
import torch

from fewshot.metagradient import MetaParameters
from fewshot.training import outer
from fewshot.training.outer import OPTIMIZERS, OuterOptimizer

from .._watching import interrupted, operations

F64 = torch.float64
TORCHS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
RATES = (0.02, 0.3)
SIZES = 6  # values of the step sizes of `start`, the last ones of the vector


def start(dtype=F64):
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=g, dtype=dtype)

    moving = {"a.weight": draw(3, 4), "a.bias": draw(3), "scalar": draw()}
    sizes = {
        "log_alpha.a.weight": draw(2),
        "log_alpha.a.bias": draw(2),
        "log_c.a.weight": draw(),
        "log_c.a.bias": draw(),
    }
    return MetaParameters(moving, {"b": draw(2, 1)}, sizes)


def vector(parameters):
    return torch.cat([t.reshape(-1) for t in parameters.flat().values()])


N = len(vector(start()))


def gradients(n_steps, n=N, dtype=F64, seed=1):
    """Gradients of very different norms, so that some are clipped at 1 and others are not."""
    g = torch.Generator().manual_seed(seed)
    scales = torch.logspace(-2, 2, n_steps, dtype=dtype)[torch.randperm(n_steps, generator=g)]
    return torch.randn(n_steps, n, generator=g, dtype=dtype) * scales[:, None]


def momentum(groups, lr):
    return torch.optim.RMSprop(groups, lr=lr, momentum=0.5)


class Reference:
    """torch's optimiser on tensors of its own, with rates per group and torch's clipping."""

    def __init__(self, name, bound):
        flat = start().flat()
        self.leaves = {k: v.clone().requires_grad_() for k, v in flat.items()}
        sizes = [v for k, v in self.leaves.items() if k.startswith("sizes/")]
        weights = [v for k, v in self.leaves.items() if not k.startswith("sizes/")]
        groups = [{"params": weights}, {"params": sizes}]
        if name == "adamw":
            groups[1]["weight_decay"] = 0.0
        self.optimizer, self.bound = TORCHS[name](groups, lr=1.0), math.inf if bound is None else bound

    def step(self, gradient, factor):
        first = 0
        for leaf in self.leaves.values():
            leaf.grad = None
            if first < len(gradient):
                leaf.grad = gradient[first : first + leaf.numel()].view(leaf.shape).clone()
                first += leaf.numel()
        norm = torch.nn.utils.clip_grad_norm_(list(self.leaves.values()), self.bound)
        for group, rate in zip(self.optimizer.param_groups, RATES, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        return float(norm)


@pytest.mark.parametrize("bound", [None, 1.0])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_many_steps_are_torchs(name, bound):
    ours, theirs = OuterOptimizer(start(), name, RATES, bound), Reference(name, bound)
    norms = []
    for i, gradient in enumerate(gradients(120)):
        factor = 0.5 * (1 + math.cos(math.pi * i / 120))
        expected = theirs.step(gradient, factor)
        norms.append(ours.step(gradient, factor))
        assert norms[-1] == pytest.approx(expected, rel=1e-12)
    assert min(norms) < 1 < max(norms)  # with the bound, some steps were clipped and others not
    for key, value in ours.parameters.flat().items():
        torch.testing.assert_close(value, theirs.leaves[key].detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_without_step_sizes_leaves_these_alone(name):
    ours, theirs = OuterOptimizer(start(), name, RATES, 1.0), Reference(name, 1.0)
    for gradient in gradients(30, N - SIZES):
        theirs.step(gradient, 1.0)
        ours.step(gradient, 1.0)
    for key, value in ours.parameters.flat().items():
        torch.testing.assert_close(value, theirs.leaves[key].detach(), rtol=1e-10, atol=1e-12)
    before = start().flat()
    for key, value in ours.parameters.flat().items():
        assert torch.equal(value, before[key]) == key.startswith("sizes/")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_step_sizes_have_a_rate_of_their_own(name):
    """The first step of each of these is proportional to the rate."""
    steps = []
    for rates in ((0.01, 0.01), (0.01, 0.05), (0.03, 0.05)):
        ours = OuterOptimizer(start(), name, rates, None)
        ours.step(gradients(1)[0], 1.0)
        steps.append(vector(ours.parameters) - vector(start()))
    one, other, both = steps
    weights, sizes = slice(0, N - SIZES), slice(N - SIZES, None)
    assert torch.equal(other[weights], one[weights]) and torch.equal(both[sizes], other[sizes])
    torch.testing.assert_close(other[sizes], 5 * one[sizes])
    torch.testing.assert_close(both[weights], 3 * one[weights])


def test_adamw_decays_weights_and_not_step_sizes():
    ours = OuterOptimizer(start(), "adamw", RATES, None)
    for _ in range(5):
        ours.step(torch.zeros(N, dtype=F64), 0.5)
    for key, value in start().flat().items():
        factor = 1.0 if key.startswith("sizes/") else (1 - 0.5 * RATES[0] * 0.01) ** 5
        torch.testing.assert_close(ours.parameters.flat()[key], value * factor, rtol=1e-12, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, momentum])
def test_a_gradient_that_is_not_finite_changes_nothing(optimizer, bad):
    ours, other = (OuterOptimizer(start(), optimizer, RATES, 1.0) for _ in range(2))
    for i, gradient in enumerate(gradients(6)):
        if i == 3:
            poisoned = gradient.clone()
            poisoned[5] = bad
            before = vector(ours.parameters)
            assert not math.isfinite(ours.step(poisoned, 1.0))
            assert torch.equal(vector(ours.parameters), before)
        ours.step(gradient.clone(), 1.0)
        other.step(gradient.clone(), 1.0)
    assert torch.equal(vector(ours.parameters), vector(other.parameters))  # so the moments were left alone too


# ------------------------------------------------------------------------------------------------ state


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, momentum])
def test_going_on_from_a_saved_state_is_going_on(optimizer):
    whole = OuterOptimizer(start(), optimizer, RATES, 1.0)
    steps = gradients(10)
    for gradient in steps[:5]:
        whole.step(gradient.clone(), 0.7)
    resumed = OuterOptimizer(whole.parameters, optimizer, RATES, 1.0, copy.deepcopy(whole.state_dict()))
    assert torch.equal(vector(resumed.parameters), vector(whole.parameters))
    for gradient in steps[5:]:
        resumed.step(gradient.clone(), 0.7)
    halfway = vector(whole.parameters)  # not moved by the other's steps: values are copied
    for gradient in steps[5:]:
        whole.step(gradient.clone(), 0.7)
    assert torch.equal(vector(resumed.parameters), vector(whole.parameters))
    assert not torch.equal(vector(whole.parameters), halfway)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", momentum])
def test_without_the_state_it_would_be_another_way(optimizer):
    """The test above would not notice a state that is dropped if the state were of no account."""
    whole = OuterOptimizer(start(), optimizer, RATES, 1.0)
    steps = gradients(2)
    whole.step(steps[0].clone(), 1.0)
    fresh = OuterOptimizer(whole.parameters, optimizer, RATES, 1.0)
    for o in (whole, fresh):
        o.step(steps[1].clone(), 1.0)
    assert not torch.equal(vector(whole.parameters), vector(fresh.parameters))


def tensors_of(state):
    if isinstance(state, torch.Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [t for v in values for t in tensors_of(v)]


@pytest.mark.parametrize("optimizer", ["adam", momentum])
def test_a_saved_state_is_a_copy(optimizer):
    ours = OuterOptimizer(start(), optimizer, RATES, None)
    first, second = gradients(2)
    ours.step(first, 1.0)
    kept = tensors_of(ours.state_dict())
    before = [t.clone() for t in kept]
    ours.step(second, 1.0)
    assert kept and all(map(torch.equal, kept, before))


# ------------------------------------------------------------------------------------------------ the user's own


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_callable_is_what_it_builds(name):
    """Torch's class, handed in, is the optimiser of that name, but for the decay of step sizes."""
    torchs = TORCHS[name]

    def theirs(groups, lr):
        options = {"weight_decay": 0.0} if name == "adamw" else {}
        return torchs([groups[0], {**groups[1], **options}], lr=lr)

    a, b = OuterOptimizer(start(), name, RATES, 1.0), OuterOptimizer(start(), theirs, RATES, 1.0)
    for i, gradient in enumerate(gradients(40)):
        norms = [o.step(gradient.clone(), 1 - i / 40) for o in (a, b)]
        assert norms[0] == norms[1]
    torch.testing.assert_close(vector(a.parameters), vector(b.parameters), rtol=1e-10, atol=1e-12)


def test_a_callable_gets_leaves_in_two_groups_and_no_gradient_for_what_has_none():
    made = []

    def build(groups, lr):
        made.append((groups, lr))
        return torch.optim.SGD(groups, lr=lr)

    ours = OuterOptimizer(start(), build, RATES, None)
    ((groups, lr),) = made
    assert lr == RATES[0] and [len(g["params"]) for g in groups] == [4, 4]
    assert all(p.is_leaf and p.requires_grad for g in groups for p in g["params"])
    before = vector(ours.parameters)
    gradient = gradients(1, N - SIZES)[0]
    ours.step(gradient, 0.5)
    expected = before.clone()
    expected[: N - SIZES] -= 0.5 * RATES[0] * gradient
    torch.testing.assert_close(vector(ours.parameters), expected, rtol=1e-12, atol=1e-14)
    assert all(p.grad is None for p in groups[1]["params"])


def test_a_callable_may_order_groups_as_it_likes():
    """Each tensor gets its own gradient, whatever the order in which the optimiser keeps them."""
    a = OuterOptimizer(start(), torch.optim.SGD, RATES, None)
    b = OuterOptimizer(start(), lambda groups, lr: torch.optim.SGD(groups[::-1], lr=lr), RATES, None)
    gradient = gradients(1)[0]
    for o in (a, b):
        o.step(gradient.clone(), 1.0)
    assert torch.equal(vector(a.parameters), vector(b.parameters))


# ------------------------------------------------------------------------------------------------ interruptions


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_interruption_finds_the_step_done_or_not_done_and_says_which(optimizer):
    """At every place where one may come: the count of steps says whether to repeat, and the end is the same."""
    steps = gradients(3)
    whole = OuterOptimizer(start(), optimizer, RATES, 1.0)
    for gradient in steps:
        whole.step(gradient.clone(), 0.7)
    answers = set()
    for at in range(1, 200):
        ours = OuterOptimizer(start(), optimizer, RATES, 1.0)
        ours.step(steps[0].clone(), 0.7)
        try:
            with interrupted(at, lambda frame: frame.f_code.co_filename == outer.__file__) as places:
                ours.step(steps[1].clone(), 0.7)
        except KeyboardInterrupt:
            pass
        if not places:
            break
        done = ours.steps == 2
        answers.add(done)
        if not done:
            ours.step(steps[1].clone(), 0.7)
        ours.step(steps[2].clone(), 0.7)
        assert torch.equal(vector(ours.parameters), vector(whole.parameters)), places
    assert not places and at > 5 and False in answers  # arrays are assigned without a call after it


@pytest.mark.parametrize("late", [False, True])
def test_an_interruption_of_ones_own_optimiser(late):
    class Interrupted(torch.optim.SGD):
        calls = 0

        def step(self, closure=None):
            self.calls += 1
            if self.calls == 2 and not late:
                raise KeyboardInterrupt
            super().step(closure)
            if self.calls == 2:
                raise KeyboardInterrupt

    ours, other = (OuterOptimizer(start(), c, RATES, None) for c in (Interrupted, torch.optim.SGD))
    first, second = gradients(2)
    for o in (ours, other):
        o.step(first, 1.0)
    if late:
        other.step(second, 1.0)
    with pytest.raises(KeyboardInterrupt):
        ours.step(second, 1.0)
    assert ours.steps == 1 + late and torch.equal(vector(ours.parameters), vector(other.parameters))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_interruption_inside_the_formulas_leaves_everything(name, monkeypatch):
    ours = OuterOptimizer(start(), name, RATES, None)
    update, (first, second) = ours._update, gradients(2)
    ours.step(first, 1.0)
    before, state = vector(ours.parameters), ours.state_dict()

    def interrupt(*arguments):
        update(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(ours, "_update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ours.step(second, 1.0)
    assert ours.steps == 1 and torch.equal(vector(ours.parameters), before)
    assert torch.equal(ours.state_dict()["moments"], state["moments"]) and ours.state_dict()["steps"] == state["steps"]


# ------------------------------------------------------------------------------------------------ one vector


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, momentum])
def test_parameters_stay_views_of_one_vector(optimizer):
    ours = OuterOptimizer(start(), optimizer, RATES, 1.0)
    views = ours.parameters.flat()
    module = torch.nn.Linear(4, 3, dtype=F64)
    module.weight.data, module.bias.data = views["moving/a.weight"], views["moving/a.bias"]
    x = torch.ones(1, 4, dtype=F64)
    before = module(x)
    for gradient in gradients(3):
        ours.step(gradient, 1.0)
    assert ours.parameters.flat().keys() == views.keys()
    assert all(a is b for a, b in zip(ours.parameters.flat().values(), views.values(), strict=True))
    addresses = [v.data_ptr() for v in views.values()]
    ends = [v.data_ptr() + v.numel() * v.element_size() for v in views.values()]
    assert addresses[1:] == ends[:-1]  # one after another in memory
    assert not torch.equal(module(x), before)  # who holds the views sees the step


def test_the_callers_tensors_are_left_alone():
    given = start()
    before = vector(given)
    OuterOptimizer(given, "sgd", RATES, None).step(gradients(1)[0], 1.0)
    assert torch.equal(vector(given), before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_as_many_operations_however_many_tensors(name):
    """This is what it is for: torch's optimisers walk through the tensors."""

    def count(n_tensors):
        moving = {str(i): torch.ones(2) for i in range(n_tensors)}
        ours = OuterOptimizer(MetaParameters(moving, {}, {}), name, RATES, 1.0)
        return operations(ours.step, torch.ones(2 * n_tensors), 1.0)

    few, many = count(2), count(40)
    assert few == many and few.total() < 40


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_tensors_take_the_same_steps_as_arrays(name, monkeypatch):
    """On another device there are no arrays."""
    ours = OuterOptimizer(start(), name, RATES, 1.0)
    monkeypatch.setattr(outer, "_has_arrays", lambda tensor: False)
    theirs = OuterOptimizer(start(), name, RATES, 1.0)
    assert isinstance(theirs._on_arrays, torch.Tensor) and not isinstance(ours._on_arrays, torch.Tensor)
    for gradient in gradients(4):
        also = 0.01 * gradient[:2]
        ours.step(gradient.clone(), 0.7, also)
        theirs.step(gradient.clone(), 0.7, also)
    torch.testing.assert_close(vector(ours.parameters), vector(theirs.parameters), rtol=1e-12, atol=1e-12)


def test_what_is_added_beside_the_step(monkeypatch):
    ours, plain = (OuterOptimizer(start(), "sgd", RATES, None) for _ in range(2))
    (gradient,) = gradients(1)
    ours.step(gradient.clone(), 1.0, torch.tensor([2.0, 3.0], dtype=F64))
    plain.step(gradient.clone(), 1.0)
    difference = vector(ours.parameters) - vector(plain.parameters)
    torch.testing.assert_close(difference[:2], torch.tensor([2.0, 3.0], dtype=F64))
    assert not difference[2:].any()
