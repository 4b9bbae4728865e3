"""Surrogates against a tabular decision process whose every trajectory is enumerated.

Two objectives are exact here. With infinitely many episodes a task adapts by the true policy gradient, and the meta-gradient is
(I + alpha H) grad J(theta'), H the Hessian of the expected return J: "dice" has it as the expectation of its second
derivative, the others a biased one. With finitely many episodes the data of adaptation depend on theta too, and the objective
E_D[J(theta'(D))] has one more term, grad log p(D) J(theta'(D)), which no surrogate of the support holds: it is what the sampling
correction of E-MAML adds (Stadie et al. 2018).
"""

import pytest
import torch

from fewshot.applications.rl.learning.distributions import Categorical, Gaussian
from fewshot.applications.rl.learning.surrogates import SURROGATES, Surrogate, pack
from fewshot.errors import InvalidParameterError

from ....benchmarks._tabular import ACTIONS, ALPHA, F64, STATES, Process, derivatives


@pytest.fixture(params=range(3), ids="seed {}".format)
def process(request):
    return Process(request.param)


def truth(process):
    gradient = torch.func.grad(process.value)(process.theta).reshape(-1)
    hessian = torch.func.jacrev(torch.func.grad(process.value))(process.theta).reshape(STATES * ACTIONS, -1)
    return gradient, hessian


def test_the_enumeration_is_complete(process):
    assert float(process.weights(process.theta).sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", SURROGATES)
def test_every_expected_gradient_is_the_policy_gradient(process, kind):
    gradient, _ = derivatives(process, kind, process.weights(process.theta))
    torch.testing.assert_close(-gradient, truth(process)[0])


def test_expected_hessians(process):
    """None for dice, some for lvc, most for reinforce: what the choice of a surrogate costs."""
    exact = truth(process)[1]
    error = {
        kind: float((-derivatives(process, kind, process.weights(process.theta))[1] - exact).norm() / exact.norm())
        for kind in SURROGATES
    }
    assert error["dice"] < 1e-12
    assert 1e-3 < error["lvc"] < error["reinforce"] / 2


def test_dice_gives_the_exact_meta_gradient_of_infinitely_many_episodes(process):
    gradient, hessian = derivatives(process, "dice", process.weights(process.theta))
    adapted = process.theta.reshape(-1) - ALPHA * gradient
    outer = torch.func.grad(process.value)(adapted.reshape(STATES, ACTIONS)).reshape(-1)

    def objective(theta):
        return process.value(theta + ALPHA * torch.func.grad(process.value)(theta))

    expected = torch.func.grad(objective)(process.theta).reshape(-1)
    torch.testing.assert_close(outer - ALPHA * (hessian @ outer), expected)
    for kind in ("lvc", "reinforce"):
        biased = derivatives(process, kind, process.weights(process.theta))[1]
        assert (outer - ALPHA * (biased @ outer) - expected).norm() > 1e-3 * expected.norm()


def test_with_one_episode_the_sampling_term_is_what_is_missing(process):
    """Sum over single episodes D of p(D) (I + alpha H_D) grad J(theta'(D)), plus grad p(D) J(theta'(D)), is exact."""

    def adapted(theta, d):
        step = torch.func.grad(lambda t: (process.log_probs(t)[d] * process.advantages[d]).sum())(theta)
        return theta + ALPHA * step

    def objective(theta):
        weights = process.weights(theta)
        return sum(weights[d] * process.value(adapted(theta, d)) for d in range(len(weights)))

    exact = torch.func.grad(objective)(process.theta).reshape(-1)
    weights = process.weights(process.theta)
    of_weights = torch.func.jacrev(process.weights)(process.theta)
    through_data, sampling = torch.zeros_like(exact), torch.zeros_like(exact)
    for d in range(len(weights)):
        single = torch.zeros_like(weights)
        single[d] = 1.0
        gradient, hessian = derivatives(process, "reinforce", single)
        theta = process.theta - ALPHA * gradient.reshape(STATES, ACTIONS)
        outer = torch.func.grad(process.value)(theta).reshape(-1)
        through_data += weights[d] * (outer - ALPHA * (hessian @ outer))
        sampling += of_weights[d].reshape(-1) * process.value(theta)
    torch.testing.assert_close(through_data + sampling, exact)
    assert sampling.norm() > 0.05 * exact.norm()


def test_lvc_clipped_is_ppo():
    distribution = Categorical(2)
    output = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]], dtype=F64)
    old = torch.full((4,), 0.5, dtype=F64).log()
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=F64)
    loss = Surrogate(distribution, "lvc", clip=0.2)(
        output, pack(torch.zeros(4, 1, dtype=F64), old, advantage, torch.ones(4))
    )
    high, low = 2 * float(torch.sigmoid(torch.tensor(2.0, dtype=F64))), 2 * float(torch.sigmoid(torch.tensor(-2.0)))
    expected = torch.tensor([-1.2, -low, high, 0.8], dtype=F64)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


def test_an_unknown_surrogate_is_named():
    with pytest.raises(InvalidParameterError, match="surrogate: got 'lcv'; expected one of 'lvc'"):
        Surrogate(Categorical(2), "lcv")


@pytest.mark.parametrize("kind", SURROGATES)
def test_rows_that_fill_up_change_nothing_however_narrow_the_policy(kind):
    """Their actions of 0 are infinitely unlikely under it, or likely beyond all numbers."""
    surrogate, g = Surrogate(Gaussian(2), kind), torch.Generator().manual_seed(0)
    mean, log_std = torch.randn(9, 2, generator=g), torch.full((9, 2), -6.0)
    action = mean + log_std.exp() * torch.randn(9, 2, generator=g)
    output = torch.cat([mean, log_std], -1)
    log_prob = Gaussian(2).log_prob(output, action) + 0.1
    place = torch.tensor([1, 2, 2, 1, 2, 1, 2, 2, 2])
    kept = torch.tensor([0, 1, 2, 6, 7, 12, 13, 14, 15])  # three episodes of 3, 2 and 4 rows, filled up to 6 each
    advantage = torch.randn(9, generator=g)

    def loss(output, target, weight):
        return (surrogate(output, target) * weight).sum()

    def filled(values):
        return torch.zeros(18, *values.shape[1:]).index_copy(0, kept, values)

    plain = torch.func.grad_and_value(loss)(output, pack(action, log_prob, advantage, place), torch.ones(9))
    target = pack(filled(action), filled(log_prob), filled(advantage), filled(place.float()))
    wide = output[torch.arange(18).clamp(max=8)].index_copy(0, kept, output)
    gradient, value = torch.func.grad_and_value(loss)(wide, target, filled(torch.ones(9)))
    assert plain[0].isfinite().all() and plain[0].abs().max() > 0
    torch.testing.assert_close(value, plain[1])
    torch.testing.assert_close(gradient[kept], plain[0])
