"""Settings of the inner loop and of what is differentiated, through an estimator."""

import numpy as np
import pytest

import fewshot
from fewshot import MAMLRegressor
from fewshot.errors import InvalidParameterError


def data(seed=0, n_tasks=12, rows=14):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_tasks * rows, 2))
    tasks = np.repeat(np.arange(n_tasks), rows)
    return X, X[:, 0] * rng.normal(size=n_tasks)[tasks], tasks


def fitted(**settings):
    X, y, tasks = data()
    model = MAMLRegressor(
        **{
            "algorithm": "maml",
            "base": None,
            "inner_steps": 3,
            "hidden": (8,),
            "max_iter": 40,
            "random_state": 0,
            **settings,
        }
    )
    return model.fit_meta(X, y, tasks=tasks)


CHOICES = [
    {"inner_optimizer": "momentum"},
    {"inner_optimizer": "adam", "inner_lr": 0.02},
    {"order": "annealed"},
    {"order": "first"},
    {"multi_step_loss": True},
]


@pytest.mark.parametrize("settings", CHOICES, ids=lambda s: "-".join(map(str, s.values())))
def test_each_changes_what_is_learned_and_adapts(settings, tmp_path):
    X, y, _ = data(1)
    model, usual = fitted(**settings), fitted()
    assert not np.allclose(model.predict(X), usual.predict(X))
    adapted = model.adapt(X[:10], y[:10])
    assert ((adapted.predict(X[:10]) - y[:10]) ** 2).mean() < ((model.predict(X[:10]) - y[:10]) ** 2).mean()
    fewshot.save(adapted, tmp_path / "model")
    np.testing.assert_array_equal(fewshot.load(tmp_path / "model").predict(X), adapted.predict(X))
    again = fewshot.load(tmp_path / "model").adapt(X[:5], y[:5])
    np.testing.assert_array_equal(again.predict(X), model.adapt(X[:5], y[:5]).predict(X))


@pytest.mark.parametrize(
    ("name", "value"), [("inner_optimizer", "rmsprop"), ("order", "second"), ("multi_step_loss", "yes")]
)
def test_wrong_settings(name, value):
    with pytest.raises(InvalidParameterError, match=f"^{name}: got '{value}'; expected ") as error:
        fitted(**{name: value})
    assert "\n" not in str(error.value)
