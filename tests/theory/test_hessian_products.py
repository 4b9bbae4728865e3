"""Meta-gradients from explicit Hessians against the engine's, which never forms one."""

import numpy as np
import pytest
import torch
from torch.func import functional_call, jacrev

from fewshot.adaptation import Adaptation
from fewshot.engine import Engine
from fewshot.errors import InvalidParameterError
from fewshot.functional import FunctionalModule
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters, inner_loop
from fewshot.tasks import Rows
from fewshot.theory import first_order_error, meta_gradient_product

F64 = torch.float64
N_TASKS = 3


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).to(F64)


def rows(n, seed):
    g = torch.Generator().manual_seed(seed)
    draw = [torch.randn(N_TASKS, n, k, generator=g, dtype=F64) for k in (2, 1)]
    return Rows(*draw, torch.ones(N_TASKS, n, dtype=F64))


def hessians_along(module, path, support, task):
    """Hessian of the support loss at each point of a task's path, over all parameters as one vector."""
    names = list(path[0])
    shapes = [path[0][name][task].shape for name in names]

    def loss(vector):
        parts = vector.split([s.numel() for s in shapes])
        weights = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return ((functional_call(module, weights, (support.x[task],)) - support.y[task]) ** 2).mean()

    # Reverse mode twice: torch.func.hessian's forward mode warns about a deprecated part of torch.
    return np.stack([jacrev(jacrev(loss))(flat(theta, task)).detach().numpy() for theta in path])


def flat(tensors, task):
    return torch.cat([t[task].reshape(-1) for t in tensors.values()])


def both_orders(steps, alpha):
    """The engine's exact and first-order meta-gradients, and the two closed forms, averaged over tasks."""
    module, adaptation = network(), Adaptation(steps, alpha, learn_step_sizes=False)
    functional = FunctionalModule(module, squared_error, "all", 1)
    parameters = MetaParameters(functional.moving, {}, adaptation.init(functional.moving))
    support, query = rows(5, 1), rows(6, 2)
    engine = Engine(functional, adaptation, mode="vectorized")
    engine.prepare(parameters, [support] * steps, query, "exact")
    by_engine = [
        engine.gradient(parameters, [support] * steps, query, order, 0).vector.numpy() for order in ("exact", "first")
    ]
    path, _ = inner_loop(engine.kernels, adaptation, parameters, [support] * steps)
    of_query = engine.kernels.query_gradient(path[-1], {}, support, query, 0)[1]
    closed = [
        (function(hessians_along(module, path[:-1], support, t), alpha, flat(of_query, t).numpy()))
        for function in (meta_gradient_product, first_order_error)
        for t in range(N_TASKS)
    ]
    return *by_engine, np.mean(closed[:N_TASKS], 0), np.mean(closed[N_TASKS:], 0)


@pytest.mark.parametrize(("steps", "alpha"), [(1, 0.1), (2, 0.3), (5, 0.2)])
def test_the_engines_meta_gradient_is_the_product(steps, alpha):
    exact, first, product, error = both_orders(steps, alpha)
    np.testing.assert_allclose(exact, product, rtol=0, atol=1e-12 * abs(product).max())
    np.testing.assert_allclose(first - exact, error, rtol=0, atol=1e-12 * abs(product).max())
    assert abs(error).max() > 0.05 * abs(product).max()  # not a comparison of zeros


def test_the_error_is_what_the_product_leaves_out():
    rng = np.random.default_rng(0)
    h, g = rng.normal(size=(4, 3, 3)), rng.normal(size=3)
    h = h + h.swapaxes(1, 2)
    for alpha in (0.1, [0.1, 0.2, 0.3, 0.4], rng.uniform(size=(4, 3))):
        product = meta_gradient_product(h, alpha, g)
        np.testing.assert_allclose(first_order_error(h, alpha, g), g - product, atol=1e-12)
        literal = g
        for k in reversed(range(4)):
            scale = np.broadcast_to(np.asarray(alpha)[k] if np.ndim(alpha) else alpha, 3)
            literal = (np.eye(3) - h[k] @ np.diag(scale)) @ literal
        np.testing.assert_allclose(product, literal, atol=1e-12)
    np.testing.assert_allclose(first_order_error(h[:1], 0.1, g), 0.1 * h[0] @ g)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.eye(2), 0.1, [1.0, 1.0]), "hessians: got an array of shape"),
        (([np.eye(3)], 0.1, [1.0, 1.0]), "hessians: got shape"),
        (([np.eye(2)], [0.1, 0.2], [1.0, 1.0]), "step_sizes: got shape"),
        (([np.eye(2)], 0.1, [np.nan, 1.0]), "query_gradient: got infinite"),
        (([np.eye(2)], "fast", [1.0, 1.0]), "step_sizes: got str"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(InvalidParameterError, match=message):
        meta_gradient_product(*arguments)
