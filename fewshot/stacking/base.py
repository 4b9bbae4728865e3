"""The pooled model that adaptation starts from: scikit-learn models of the rows of all tasks, tuned and mixed over held-out tasks.

A base that was tuned over rows would learn to recognise the tasks, and what it says about its own training tasks is better than
anything it will say about a new one. So settings and the weights of the mixture are chosen on whole tasks that were left out, and
whoever learns from what the base leaves unexplained gets predictions for each task by models that did not see it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import ParameterGrid

from .._weighted_fit import fit_weighted
from ..tasks import TaskSet
from .responses import Response
from .weights import bootstrap_weights

__all__ = ["PooledBase", "PooledMixture", "candidate_models", "task_codes", "within_tasks"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
NEGLIGIBLE = 0.02  # a candidate with less weight is dropped
ALPHAS = tuple(float(a) for a in np.logspace(-1, 5, 7))
CS = tuple(float(c) for c in np.logspace(-4, 1, 6))
FEWEST_FOR_BOOSTING = 60  # a leaf holds twenty rows or more
# Early stopping would hold out rows of seen tasks; the number of trees is chosen over tasks instead.
BOOSTING = {"max_iter": [30, 100], "max_leaf_nodes": [7, 31]}


def candidate_models(response: Response, base: Any, n_outputs: int, seed: int, n_rows: int) -> dict[str, list[Any]]:
    """Return unfitted pooled models by name, each with the settings to choose from.

    Parameters
    ----------
    response : Response
        Values or classes.
    base : "auto", None or estimator
        What the user asked for.
    n_outputs : int
        Outputs of a regression.
    seed : int
        Seed of boosting.
    n_rows : int
        Training rows; boosting is tried from sixty on.
    """
    constant: Any = DummyClassifier(strategy="prior") if response.classifies else DummyRegressor()
    if base is None:
        return {"constant": [constant]}
    if not isinstance(base, str):
        return {type(base).__name__: [clone(base)]}
    boosting: Any
    if response.classifies:
        linear = {"logistic regression": [LogisticRegression(C=c, max_iter=1000) for c in CS]}
        boosting = HistGradientBoostingClassifier(early_stopping=False, random_state=seed)
    else:
        linear = {"ridge": [Ridge(alpha=a) for a in ALPHAS]}
        boosting = HistGradientBoostingRegressor(early_stopping=False, random_state=seed)
    trees = [clone(boosting).set_params(**point) for point in ParameterGrid(BOOSTING)]
    boosts = n_rows >= FEWEST_FOR_BOOSTING and (n_outputs == 1 or response.classifies)
    return {"constant": [constant], **linear, **({"boosting": trees} if boosts else {})}


@dataclass
class PooledMixture:
    """Fitted pooled models and their weights.

    Parameters
    ----------
    response : Response
        Values or classes.
    n_outputs : int
        Outputs of a regression, or number of classes.
    weights : ndarray of shape (models,)
        Weights of the mixture.
    models : dict of str to estimator
        Fitted.
    """

    response: Response
    n_outputs: int
    weights: Floats
    models: dict[str, Any]

    def predict(self, x: Floats) -> Floats:
        """Predict values, or log-probabilities; shape (rows, outputs)."""
        if not len(x):
            return np.empty((0, self.n_outputs))
        outputs = [_respond(model, self.response, x, self.n_outputs) for model in self.models.values()]
        return self.response.mix(np.stack(outputs, axis=1), np.broadcast_to(self.weights, (len(x), len(outputs))))


@dataclass
class PooledBase:
    """A mixture of pooled models, fitted without each fold of tasks and without each pair of folds.

    Parameters
    ----------
    response : Response
        Values or classes.
    n_outputs : int
        Outputs of a regression, or number of classes.
    models : dict of str to estimator
        The candidates that are left, unfitted, with the settings that were chosen.
    weights : ndarray of shape (candidates,)
        Their weights in the mixture.
    losses : dict of str to float
        Mean loss of each candidate over held-out tasks.
    fitted : dict of frozenset to PooledMixture
        The candidates fitted to all tasks but those of some folds.
    """

    response: Response
    n_outputs: int
    models: dict[str, Any]
    weights: Floats
    losses: dict[str, float]
    fitted: dict[frozenset[int], PooledMixture] = field(default_factory=dict)

    @classmethod
    def choose(
        cls,
        response: Response,
        n_outputs: int,
        candidates: dict[str, list[Any]],
        pool: TaskSet,
        folds: Ints,
        rng: np.random.Generator,
    ) -> PooledBase:
        """Choose settings and weights by what the candidates say about tasks that they were not fitted to.

        Parameters
        ----------
        response : Response
            Values or classes.
        n_outputs : int
            Outputs, or classes.
        candidates : dict of str to list of estimator
            Models by name, each with several settings.
        pool : TaskSet
            The training tasks.
        folds : ndarray of int, shape (tasks,)
            Fold of each task.
        rng : numpy.random.Generator
            Source of the bootstrap draws.
        """
        codes = task_codes(pool)
        n_folds = int(folds.max()) + 1
        judged = np.ones(pool.n_tasks, dtype=bool)
        even = np.full(pool.n_tasks, 1 / pool.n_tasks)
        found, losses, fits = {}, {}, {}
        for name, settings in candidates.items():
            best = np.inf
            for model in settings:
                parts = (
                    [_fit(model, response, pool, folds[codes] != fold) for fold in range(n_folds)]
                    if n_folds > 1
                    else []
                )
                out = np.zeros((pool.n_rows, n_outputs))
                for fold, part in enumerate(parts):
                    rows = folds[codes] == fold
                    out[rows] = _respond(part, response, pool.x.numpy()[rows], n_outputs)
                table = response.losses(out[:, None, :], pool.y.numpy(), codes, pool.n_tasks)
                loss = float(even @ table.value_and_gradient(np.ones(1))[0])
                if loss < best or name not in found:
                    best, found[name], losses[name], fits[name] = loss, (model, out), loss, parts
        outputs = np.stack([out for _, out in found.values()], axis=1)
        weights = np.ones(1)
        if len(found) > 1 and n_folds > 1:
            table = response.losses(outputs, pool.y.numpy(), codes, pool.n_tasks)
            prior = np.full(len(found), 1 / len(found))
            weights = bootstrap_weights(table, judged, prior, rng, likelihood=response.classifies)
        elif len(found) > 1:
            weights = np.full(len(found), 1 / len(found))
        kept = weights >= NEGLIGIBLE
        weights = weights[kept] / weights[kept].sum()
        names = [name for name, keep in zip(found, kept, strict=True) if keep]
        base = cls(response, n_outputs, {name: found[name][0] for name in names}, weights, losses)
        for fold in range(n_folds if n_folds > 1 else 0):
            base.fitted[frozenset({fold})] = base._mixture([fits[name][fold] for name in names])
        return base

    def _mixture(self, fitted: list[Any]) -> PooledMixture:
        return PooledMixture(self.response, self.n_outputs, self.weights, dict(zip(self.models, fitted, strict=True)))

    def without(self, pool: TaskSet, folds: Ints, excluded: frozenset[int]) -> PooledMixture:
        """Return the candidates fitted to the tasks of all other folds, once and for all."""
        if excluded not in self.fitted:
            rows = ~np.isin(folds, list(excluded))[task_codes(pool)]
            self.fitted[excluded] = self._mixture([_fit(m, self.response, pool, rows) for m in self.models.values()])
        return self.fitted[excluded]

    def out_of_fold(self, pool: TaskSet, folds: Ints, excluded: frozenset[int]) -> Floats:
        """Predict every task by models fitted without its own fold and the excluded ones; NaN for excluded tasks."""
        codes = task_codes(pool)
        out = np.full((pool.n_rows, self.n_outputs), np.nan)
        for fold in set(range(int(folds.max()) + 1)) - excluded:
            without = excluded | {fold}
            if np.isin(folds, list(without)).all():  # a lone training task has nobody else to learn from
                without = excluded
            rows = (folds == fold)[codes]
            out[rows] = self.without(pool, folds, without).predict(pool.x.numpy()[rows])
        return out


def task_codes(pool: TaskSet) -> Ints:
    """Position of each row's task."""
    return np.repeat(np.arange(pool.n_tasks), pool.sizes)


def within_tasks(values: Floats, weight: Floats, codes: Ints, n_tasks: int) -> Floats:
    """Deviations of columns from their weighted mean in the row's task; shape of `values`, (rows, columns)."""
    total = np.maximum(np.bincount(codes, weights=weight, minlength=n_tasks), 1e-12)[:, None]
    sums = np.stack([np.bincount(codes, weights=weight * column, minlength=n_tasks) for column in values.T], axis=1)
    return np.asarray(values - (sums / total)[codes])


def _fit(model: Any, response: Response, pool: TaskSet, rows: npt.NDArray[np.bool_]) -> Any:
    x, y, weight = pool.x.numpy()[rows], pool.y.numpy()[rows], pool.weight.numpy()[rows]
    if not response.classifies and y.shape[1] == 1:
        y = y[:, 0]
    present = weight > 0
    if response.classifies and len(np.unique(y[present])) < 2:
        model = DummyClassifier(strategy="prior")
    return fit_weighted(clone(model), x, y, None if (weight == 1).all() else weight)


def _respond(model: Any, response: Response, x: Floats, n_outputs: int) -> Floats:
    if not response.classifies:
        return np.asarray(model.predict(x), dtype=np.float64).reshape(len(x), n_outputs)
    proba = np.full((len(x), n_outputs), 1e-6)  # of classes that the model did not see
    proba[:, model.classes_] = np.maximum(model.predict_proba(x), 1e-6)
    logs: Floats = np.log(proba / proba.sum(1, keepdims=True))
    return logs
