"""Weights of mixtures: against closed forms, finite differences, and what they promise."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import log_softmax

from fewshot.stacking.responses import CLASSES, VALUES
from fewshot.stacking.weights import bootstrap_weights, stacking_weights

CODES = np.repeat(np.arange(6), 30)


def values(seed=0):
    """Predictions of three predictors, the last of them nearly useless, and the truth."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(180, 1))
    noise = rng.normal(size=(180, 3, 1)) * np.array([0.5, 0.8, 3.0])[:, None]
    return y[:, None, :] + noise, y


def classes(seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=180)
    logits = rng.normal(size=(180, 2, 3))
    logits[np.arange(180), 0, y] += 2.0
    return logits, y


def test_mixtures_of_values_and_of_probabilities():
    predictions = values()[0]
    w = np.array([0.5, 0.2, 0.3])
    every = np.broadcast_to(w, (180, 3))
    np.testing.assert_allclose(VALUES.mix(predictions, every)[:, 0], predictions[:, :, 0] @ w)
    logits, _ = classes()
    p = np.exp(log_softmax(logits, axis=2))
    mixed = CLASSES.mix(logits, np.broadcast_to([0.25, 0.75], (180, 2)))
    np.testing.assert_allclose(np.exp(mixed), 0.25 * p[:, 0] + 0.75 * p[:, 1])
    alone = CLASSES.mix(logits, np.broadcast_to([0.0, 1.0], (180, 2)))
    np.testing.assert_allclose(np.exp(alone), p[:, 1])


@pytest.mark.parametrize(("response", "made"), [(VALUES, values), (CLASSES, classes)])
def test_losses_of_mixtures_are_those_of_the_mixed_predictions(response, made):
    predictions, y = made()
    n = predictions.shape[1]
    w = np.random.default_rng(1).dirichlet(np.ones(n))
    table = response.losses(predictions, y, CODES, 7)
    value = table.value_and_gradient(w)[0]
    mixed = response.mix(predictions, np.broadcast_to(w, (180, n)))
    for task in range(6):
        mine = task == CODES
        squares = response is not CLASSES
        expected = np.sqrt(((mixed - y)[mine] ** 2).mean()) if squares else -mixed[mine, y[mine]].mean()
        assert value[task] == pytest.approx(expected)
    assert value[6] == pytest.approx(0.0, abs=1e-9)  # a task without rows
    for task in range(6):
        error = check_grad(
            lambda w, t=task: table.value_and_gradient(w)[0][t], lambda w, t=task: table.value_and_gradient(w)[1][t], w
        )
        assert error < 1e-5


def test_much_evidence_gives_the_weights_of_least_squares():
    """Independent errors of sd .5 and .8: the best mixture weighs by precision, 1 / .25 against 1 / .64."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(60_000, 1))
    predictions = y[:, None, :] + rng.normal(size=(60_000, 2, 1)) * np.array([0.5, 0.8])[:, None]
    table = VALUES.losses(predictions, y, np.arange(60_000) % 6, 6)
    w = stacking_weights(table, np.full(6, 1 / 6), np.ones(2), 1e6, likelihood=False)
    assert w[0] == pytest.approx(4 / (4 + 1 / 0.64), abs=0.01)


def test_no_evidence_gives_the_prior():
    predictions, y = values()
    table = VALUES.losses(predictions, y, CODES, 6)
    prior = np.array([0.5, 0.3, 0.2])
    w = stacking_weights(table, np.full(6, 1 / 6), prior, 1e-9, likelihood=False)
    np.testing.assert_allclose(w, prior, atol=1e-4)


def test_twins_share_and_what_is_useless_gets_next_to_nothing():
    predictions, y = values()
    twice = predictions[:, [0, 0, 2]]
    table = VALUES.losses(twice, y, CODES, 6)
    w = bootstrap_weights(table, np.ones(6, dtype=bool), np.ones(3) / 3, np.random.default_rng(0), likelihood=False)
    assert w.sum() == pytest.approx(1.0)
    assert w[0] == pytest.approx(w[1], abs=1e-3)
    assert w[2] < 0.05


def test_with_few_tasks_a_lead_by_chance_is_not_followed_to_the_end():
    """Two equally good predictors, three tasks: the one that is ahead gets more, and the other keeps a share."""
    shares = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        y = rng.integers(2, size=90)
        logits = np.zeros((90, 2, 2))
        lead = 0.4 * rng.normal(size=(3, 2))[np.repeat(np.arange(3), 30)]  # of each task and predictor
        logits[np.arange(90), :, y] = 0.5 + lead
        table = CLASSES.losses(logits, y, np.repeat(np.arange(3), 30), 3)
        w = bootstrap_weights(table, np.ones(3, dtype=bool), np.ones(2) / 2, rng, likelihood=True)
        best = stacking_weights(table, np.full(3, 1 / 3), np.ones(2) / 2, 1e6, likelihood=True)
        shares.append((w.max(), best.max()))
    averaged, chosen = np.mean(shares, axis=0)
    assert averaged < chosen - 0.05
