"""The trust region against autograd through the unrolled adaptation, and conjugate gradients against a direct solution."""

import pytest
import torch
from torch import nn

from fewshot.adaptation import Adaptation
from fewshot.applications.rl.learning.distributions import Categorical, Gaussian
from fewshot.applications.rl.learning.networks import PolicyNetwork
from fewshot.applications.rl.learning.surrogates import Surrogate, pack
from fewshot.applications.rl.learning.trust_region import AdaptedFisher, conjugate_gradient, trust_region_step
from fewshot.functional import FunctionalModule
from fewshot.kernels import LoopKernels
from fewshot.metagradient import MetaParameters, expand, inner_loop
from fewshot.step_sizes import effective_rows
from fewshot.tasks import Rows

F64 = torch.float64
N_OBSERVED, N_ROWS, N_TASKS = 3, 6, 2


class Problem:
    def __init__(self, distribution, steps, seed=0):
        self.g = torch.Generator().manual_seed(seed)
        n_values = distribution.n_values if isinstance(distribution, Gaussian) else distribution.n_outputs
        log_std = -0.3 if isinstance(distribution, Gaussian) else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            body = nn.Sequential(nn.Linear(N_OBSERVED, 4), nn.Tanh(), nn.Linear(4, n_values))
        network = PolicyNetwork(body, N_OBSERVED, n_values, log_std).to(F64)
        self.distribution = distribution
        self.functional = FunctionalModule(network, Surrogate(distribution, "lvc"), "all", distribution.n_outputs)
        self.adaptation = Adaptation(steps, 0.3, learn_step_sizes=False, half_trust=None)
        moving = self.functional.moving
        self.parameters = MetaParameters(moving, {}, self.adaptation.init(moving))
        self.supports = [self.rows() for _ in range(steps)]
        self.query = self.rows()
        self.query.weight[1, -1] = 0

    def rows(self):
        x = torch.randn(N_TASKS, N_ROWS, N_OBSERVED, generator=self.g, dtype=F64)
        d = self.distribution
        if isinstance(d, Categorical):
            action = torch.randint(0, d.n_outputs, (N_TASKS, N_ROWS, 1), generator=self.g).to(F64)
        else:
            action = torch.randn(N_TASKS, N_ROWS, d.n_values, generator=self.g, dtype=F64)
        log_prob, advantage = -1 + 0.1 * torch.randn(2, N_TASKS, N_ROWS, generator=self.g, dtype=F64)
        return Rows(
            x,
            pack(action, log_prob, 10 * advantage, torch.ones(N_TASKS, N_ROWS)),
            torch.ones(N_TASKS, N_ROWS, dtype=F64),
        )

    def outputs(self, theta, t):
        f = self.functional
        return f.output(theta, {}, f.constant, self.query.x[t])

    def adapted(self, theta, t):
        """Plain unrolled adaptation of one task."""
        f = self.functional
        for k, support in enumerate(self.supports):
            mine = Rows(support.x[t], support.y[t], support.weight[t])
            gradient = torch.func.grad(f.support_loss)(theta, {}, f.constant, mine)
            sizes = self.adaptation.at(self.parameters.sizes, k)
            rows = effective_rows(support.weight)[t : t + 1]
            batched = self.adaptation.rule.step(
                {n: p[None] for n, p in theta.items()}, {n: g[None] for n, g in gradient.items()}, sizes, rows
            )
            theta = {name: p[0] for name, p in batched.items()}
        return theta

    def divergence(self, vector):
        """Mean divergence of the adapted policies at `vector` from those at the present parameters."""
        total = 0.0
        parts = vector.split([p.numel() for p in self.parameters.moving.values()])
        theta = {
            name: part.view(p.shape) for (name, p), part in zip(self.parameters.moving.items(), parts, strict=True)
        }
        for t in range(N_TASKS):
            old = self.outputs(self.adapted(self.parameters.moving, t), t).detach()
            kl = self.distribution.kl(old, self.outputs(self.adapted(theta, t), t))
            total = total + (kl * self.query.weight[t]).sum() / self.query.weight[t].sum() / N_TASKS
        return total

    def fisher(self, damping=0.0, order="exact"):
        kernels = LoopKernels(self.functional)
        start = expand(self.parameters.moving, N_TASKS)
        path, _ = inner_loop(kernels, self.adaptation, self.parameters, self.supports, start=start)
        old = torch.stack([self.outputs({k: v[t] for k, v in path[-1].items()}, t) for t in range(N_TASKS)])
        fisher = AdaptedFisher(
            self.functional, lambda out, target: self.distribution.kl(target, out), self.adaptation, order, damping
        )
        query = self.query._replace(y=old.detach())
        return fisher.product(self.parameters, path, self.supports, query)


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("distribution", [Gaussian(2), Categorical(3)], ids=["gaussian", "categorical"])
def test_the_product_is_the_hessian_of_the_divergence_after_adaptation(steps, distribution):
    problem = Problem(distribution, steps)
    at = torch.cat([p.reshape(-1) for p in problem.parameters.moving.values()])
    with torch.enable_grad():
        hessian = torch.autograd.functional.hessian(problem.divergence, at)
    product = problem.fisher(damping=0.5)
    got = torch.stack([product(v) for v in torch.eye(len(at), dtype=F64)])
    torch.testing.assert_close(got, hessian + 0.5 * torch.eye(len(at), dtype=F64), rtol=1e-8, atol=1e-10)


def test_of_first_order_the_product_is_the_fisher_information_of_the_adapted_policies():
    """J is the identity: the Hessian of the divergence in a common shift of all adapted parameters."""
    problem = Problem(Gaussian(2), 2)
    base = [problem.adapted(problem.parameters.moving, t) for t in range(N_TASKS)]
    sizes = [p.numel() for p in problem.parameters.moving.values()]

    def divergence(shift):
        total = 0.0
        for t, theta in enumerate(base):
            moved = {n: p + part.view(p.shape) for (n, p), part in zip(theta.items(), shift.split(sizes), strict=True)}
            kl = problem.distribution.kl(problem.outputs(theta, t), problem.outputs(moved, t))
            total = total + (kl * problem.query.weight[t]).sum() / problem.query.weight[t].sum() / N_TASKS
        return total

    with torch.enable_grad():
        fisher = torch.autograd.functional.hessian(divergence, torch.zeros(sum(sizes), dtype=F64))
    product = problem.fisher(order="first")
    got = torch.stack([product(v) for v in torch.eye(sum(sizes), dtype=F64)])
    torch.testing.assert_close(got, fisher, rtol=1e-8, atol=1e-10)


def spd(n=8):
    a = torch.randn(n, n, generator=torch.Generator().manual_seed(0), dtype=F64)
    return a @ a.T + 0.1 * torch.eye(n, dtype=F64)


def test_conjugate_gradients_solve():
    matrix, b = spd(), torch.arange(8, dtype=F64)
    torch.testing.assert_close(conjugate_gradient(matrix.mv, b, 20, 1e-20), torch.linalg.solve(matrix, b))
    few = conjugate_gradient(matrix.mv, b, 3)
    assert 0 < torch.linalg.vector_norm(matrix @ few - b) < torch.linalg.vector_norm(b)
    assert not conjugate_gradient(matrix.mv, torch.zeros(8, dtype=F64), 5).any()
    assert not conjugate_gradient(lambda v: -v, b, 5).any()  # not positive definite: no step


def test_on_a_quadratic_the_step_goes_to_the_border():
    """The loss b'x under x'Fx/2 <= bound is least at -sqrt(2 bound / b'F^-1 b) F^-1 b."""
    matrix, b, bound = spd(), torch.arange(1, 9, dtype=F64), 0.01
    natural = torch.linalg.solve(matrix, b)
    expected = -natural * (2 * bound / torch.dot(b, natural)).sqrt()

    def evaluate(change):
        return float(b @ change), float(0.5 * change @ matrix @ change) * (1 - 1e-9)

    change, loss, kl = trust_region_step(b, matrix.mv, evaluate, max_kl=bound, loss=0.0, iterations=30)
    torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-6)
    assert loss < 0 and kl == pytest.approx(bound)


def test_a_step_that_is_too_long_is_shortened_and_one_that_does_not_help_is_not_taken():
    b = torch.ones(3, dtype=F64)
    lengths = []

    def strict(change):
        lengths.append(float(change.norm()))
        return float(b @ change), 0.01 if len(lengths) < 3 else 0.001

    change, _, kl = trust_region_step(b, lambda v: v, strict, max_kl=0.005, loss=0.0)
    assert len(lengths) == 3 and lengths[2] == pytest.approx(lengths[0] / 4) and kl == 0.001 and change.any()
    nothing, loss, kl = trust_region_step(b, lambda v: v, lambda c: (1.0, 0.0), max_kl=0.005, loss=0.0)
    assert not nothing.any() and (loss, kl) == (0.0, 0.0)
    worse = trust_region_step(b, lambda v: v, lambda c: (float("nan"), 0.0), max_kl=0.005, loss=0.0)
    assert not worse[0].any()
