"""Where meta-training on one-parameter quadratics lands, and what is nearest to the optima."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from fewshot.adaptation import Adaptation
from fewshot.errors import InvalidParameterError
from fewshot.functional import FunctionalModule
from fewshot.kernels import LoopKernels
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters, inner_loop
from fewshot.theory import (
    FixedEpisodes,
    adapted_losses,
    maml_initialization,
    maml_weights,
    nearest_initialization,
    nearest_weights,
    quadratic_rows,
)

from ._training import landed, without_intercept

OPTIMA = np.array([-2.0, 0.0, 1.0, 3.0])
# With a step of 0.2: barely moved, half solved, solved, diverging.
CURVATURES = np.array([0.4, 2.5, 5.0, 12.0])
CONVERGING = np.array([0.4, 2.5, 5.0, 6.0])
ALPHA = 0.2


@pytest.mark.parametrize("curvatures", [CURVATURES, CONVERGING], ids=["one diverges", "all converge"])
def test_meta_training_lands_on_the_closed_form(curvatures):
    rows = quadratic_rows(curvatures, OPTIMA)
    expected = maml_initialization(OPTIMA, curvatures, ALPHA)
    got = landed(rows, rows, inner_lr=ALPHA, outer_lr=0.3 / maml_weights(curvatures, ALPHA).sum(), max_iter=100)
    assert got == pytest.approx(expected, abs=1e-8)
    assert abs(expected - nearest_initialization(OPTIMA, curvatures, ALPHA)) > 0.01


@pytest.mark.parametrize("curvatures", [CURVATURES, CONVERGING], ids=["one diverges", "all converge"])
def test_meta_training_on_distances_lands_on_the_nearest(curvatures):
    """A query loss that is the squared distance to the optimum, whatever the support's curvature."""
    support, query = quadratic_rows(curvatures, OPTIMA), quadratic_rows(np.full(4, 2.0), OPTIMA)
    rate = 0.3 / nearest_weights(curvatures, ALPHA).sum() / 2
    got = landed(support, query, inner_lr=ALPHA, outer_lr=rate, max_iter=100)
    assert got == pytest.approx(nearest_initialization(OPTIMA, curvatures, ALPHA), abs=1e-8)


@pytest.mark.parametrize("p", [None, (1.0, 4.0, 2.0, 3.0)])
def test_brute_force_over_the_packages_own_step(p):
    module = without_intercept(1, 1).to(torch.float64)
    functional, adaptation = FunctionalModule(module, squared_error, "all", 1), Adaptation(1, ALPHA, False)
    rows = quadratic_rows(CURVATURES, OPTIMA)
    rows = rows._replace(y=rows.y.unsqueeze(-1))
    share = np.full(4, 0.25) if p is None else np.array(p) / sum(p)

    def adapted(start):
        theta = {"weight": torch.full((1, 1), float(start), dtype=torch.float64)}
        meta = MetaParameters(theta, {}, adaptation.init(theta))
        return inner_loop(LoopKernels(functional), adaptation, meta, [rows])[0][-1]["weight"].numpy().ravel()

    def distance(start):
        return share @ (adapted(start) - OPTIMA) ** 2

    def loss(start):
        return share @ (CURVATURES / 2 * (adapted(start) - OPTIMA) ** 2)

    nearest = minimize_scalar(distance, bounds=(-5, 5), method="bounded", options={"xatol": 1e-8}).x
    assert nearest_initialization(OPTIMA, CURVATURES, ALPHA, probabilities=p) == pytest.approx(nearest, abs=1e-5)
    least = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-8}).x
    assert maml_initialization(OPTIMA, CURVATURES, ALPHA, probabilities=p) == pytest.approx(least, abs=1e-5)
    assert share @ adapted_losses(0.7, OPTIMA, CURVATURES, ALPHA) == pytest.approx(loss(0.7), rel=1e-12)


@pytest.mark.parametrize("initialization", [maml_initialization, nearest_initialization])
def test_a_diverging_task_pulls_the_initialisation_towards_its_optimum(initialization):
    """From a step that solves the last task on, its weight rises from zero and the initialisation goes to its optimum."""
    curvatures = [1.0, 1.0, 1.0, 5.0]
    found = [initialization(OPTIMA, [*curvatures[:3], h], ALPHA) for h in (5.0, 8.0, 11.0, 20.0, 50.0)]
    others = OPTIMA[:3].mean()
    assert found[0] == pytest.approx(others)  # solved in one step: no say at all
    distances = np.abs(np.array(found) - OPTIMA[3])
    assert (np.diff(distances) < 0).all()
    assert distances[-1] < 0.11
    landing = [
        landed(rows, rows, inner_lr=ALPHA, outer_lr=0.3 / maml_weights(h, ALPHA).sum(), max_iter=60)[0]
        for h in ([*curvatures[:3], 5.0], [*curvatures[:3], 20.0])
        for rows in [quadratic_rows(h, OPTIMA)]
    ]
    assert landing[0] == pytest.approx(others, abs=1e-6)
    assert abs(landing[1] - OPTIMA[3]) < 0.12


def test_quadratic_rows_give_the_quadratic():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 2, 2))
    h, star, theta = root @ root.swapaxes(1, 2) + np.eye(2), rng.normal(size=(3, 2)), rng.normal(size=2)
    rows = quadratic_rows(h, star)
    loss = ((rows.x.numpy() @ theta - rows.y.numpy()) ** 2).mean(1)
    np.testing.assert_allclose(loss, np.einsum("ti,tij,tj->t", theta - star, h, theta - star) / 2)


def test_errors():
    with pytest.raises(InvalidParameterError, match="step_size: one step solves every task"):
        maml_initialization([1.0, 2.0], [2.0, 2.0], 0.5)
    with pytest.raises(InvalidParameterError, match="curvatures: got 0; expected each above 0"):
        nearest_weights([0.0, 1.0], 0.1)
    with pytest.raises(InvalidParameterError, match="optima: got 1 values for 2 curvatures"):
        nearest_initialization([1.0], [2.0, 2.0], 0.1)
    with pytest.raises(InvalidParameterError, match="optima: got 1 values for 2 curvatures"):
        adapted_losses(0.0, [1.0], [2.0, 2.0], 0.1)
    with pytest.raises(InvalidParameterError, match="probabilities: got 2 values from -1"):
        maml_weights([1.0, 2.0], 0.1, probabilities=[-1, 2])
    with pytest.raises(InvalidParameterError, match="curvatures: got no values"):
        maml_weights([], 0.1)
    with pytest.raises(InvalidParameterError, match="hessians: got shape"):
        quadratic_rows([1.0, 2.0], [1.0])
    with pytest.raises(InvalidParameterError, match="hessians: at least one is not positive definite"):
        quadratic_rows([-1.0], [1.0])
    rows = quadratic_rows([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(InvalidParameterError, match="query: got 1 tasks; expected 2"):
        FixedEpisodes(rows, quadratic_rows([1.0], [1.0]))
