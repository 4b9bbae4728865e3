"""The error of two meanings of batch statistics: closed forms, simulations, and the package's own norm layers."""

import numpy as np
import pytest
import torch

from fewshot import MAMLRegressor
from fewshot.errors import InvalidParameterError
from fewshot.theory import ShiftedInputs, crossover_support_size, episode_norm_error, global_norm_error


def normalised(support, query, strategy, shift_ratio):
    """Rows of the query after normalisation, written out."""
    if strategy == "global":
        return query / np.sqrt(1 + shift_ratio)
    return (query - support.mean(1, keepdims=True)) / support.std(1, keepdims=True)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(("n", "ratio"), [(8, 0.1), (20, 0.5), (60, 2.0)])
def test_simulation(n, ratio, learned):
    support, query = ShiftedInputs(n, 20, ratio).sample(40_000, np.random.default_rng(0))
    x, z, e = (t.double().numpy() for t in (support.x[..., 0], query.x[..., 0], query.y))
    closed = {
        "episode": episode_norm_error(n, learned_weight=learned),
        "global": global_norm_error(ratio, learned_weight=learned),
    }
    for strategy, expected in closed.items():
        found = normalised(x, z, strategy, ratio)
        weight = (found * e).mean() / (found**2).mean() if learned else 1.0
        assert ((weight * found - e) ** 2).mean() == pytest.approx(expected, rel=0.03)


def layer(n_in, n_out):
    return torch.nn.BatchNorm1d(1)


def meta_trained(strategy, n, ratio, *, learned):
    """A network that is one batch norm; where its weight is not to be learned, the learning rate is as good as 0."""
    model = MAMLRegressor(
        module=layer,
        batch_norm=strategy,
        inner_steps=0,
        inner_lr=0.1,
        learn_step_sizes=False,
        outer_lr=0.02 if learned else 1e-9,
        max_iter=200,
        tasks_per_batch=128,
        early_stopping=False,
        engine="vectorized",
        verify=False,
        dtype="float64",
        random_state=0,
        algorithm="maml",
        base=None,
    )
    return model.fit_meta(ShiftedInputs(n, 20, ratio, dtype=torch.float64))


def error(model, n, ratio, n_tasks=4000):
    """Mean squared error on fresh tasks, each adapted to (with no steps, so by its batch statistics alone)."""
    support, query = ShiftedInputs(n, 20, ratio).sample(n_tasks, np.random.default_rng(1))
    labels = np.arange(n_tasks)
    adapted = model.adapt(support.x.reshape(-1, 1).numpy(), support.y.ravel().numpy(), tasks=labels.repeat(n))
    predicted = adapted.predict(query.x.reshape(-1, 1).numpy(), tasks=labels.repeat(20))
    return ((predicted - query.y.ravel().numpy()) ** 2).mean()


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(("n", "ratio"), [(8, 0.1), (16, 0.5)])
def test_the_packages_norm_layers(n, ratio, learned):
    closed = {
        "episode": episode_norm_error(n, learned_weight=learned),
        "global": global_norm_error(ratio, learned_weight=learned),
    }
    found = {s: error(meta_trained(s, n, ratio, learned=learned), n, ratio) for s in closed}
    assert found == pytest.approx(closed, rel=0.08)
    episode_wins = n >= crossover_support_size(ratio, learned_weight=learned)
    assert (found["episode"] < found["global"]) == episode_wins


def test_leading_order():
    assert episode_norm_error(10_000) == pytest.approx(1.5 / 10_000, rel=1e-3)
    assert episode_norm_error(10_000, learned_weight=True) == pytest.approx(1.5 / 10_000, rel=1e-3)
    assert global_norm_error(1e-4) == pytest.approx(1e-4, rel=1e-3)
    assert crossover_support_size(1e-4) == pytest.approx(1.5e4, rel=1e-2)


@pytest.mark.parametrize("learned", [False, True])
def test_the_crossover_is_where_the_errors_cross(learned):
    for ratio in (0.01, 0.1, 0.5, 1.0, 100.0):
        n, bound = (
            crossover_support_size(ratio, learned_weight=learned),
            global_norm_error(ratio, learned_weight=learned),
        )
        assert episode_norm_error(n, learned_weight=learned) <= bound
        assert n == 4 or episode_norm_error(n - 1, learned_weight=learned) > bound
    errors = [episode_norm_error(n, learned_weight=learned) for n in range(4, 200)]
    assert (np.diff(errors) < 0).all()


def test_errors():
    with pytest.raises(InvalidParameterError, match="n_rows: got 3; expected a whole number of 4 or more"):
        episode_norm_error(3)
    with pytest.raises(InvalidParameterError, match="shift_ratio: got 0; expected a number above 0"):
        crossover_support_size(0)
    with pytest.raises(InvalidParameterError, match="shift_ratio: got -1; expected a number of 0 or more"):
        global_norm_error(-1)
    with pytest.raises(InvalidParameterError, match="n_query: got 0"):
        ShiftedInputs(3, 0, 0.1)
