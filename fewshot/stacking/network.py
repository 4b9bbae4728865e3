"""Algorithms of the family that adapt a network, as members of a stack.

With values, the network learns what the offset leaves. With classes, it gets the offset's logits as further inputs: a classifier
has no residuals to learn from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from ..tasks import TaskSet
from .base import task_codes
from .members import State
from .responses import Response

__all__ = ["NetworkMember"]

Floats = npt.NDArray[np.float64]


class NetworkMember:
    """An estimator of this package that adapts a network.

    Parameters
    ----------
    response : Response
        Values or classes.
    name : str
        Of the algorithm.
    estimator : estimator
        Unfitted; with the settings of the network.
    from_base : bool, default=True
        Whether it starts from the pooled base or from a constant.
    """

    expensive = True
    on_trial = False

    def __init__(self, response: Response, name: str, estimator: Any, from_base: bool = True) -> None:
        self.response, self.estimator, self.from_base = response, estimator, from_base
        self.name = name if from_base else f"{name} from a constant"
        self.variants = [name]

    def fit(self, pool: TaskSet, offset: Floats, rng: np.random.Generator) -> None:
        """Meta-train the network."""
        x, y = self._inputs(pool.x.numpy(), offset), self._targets(pool.y.numpy(), offset)
        self.model = clone(self.estimator).set_params(random_state=int(rng.integers(2**31)))
        weight = pool.weight.numpy()
        columns: dict[str, Any] = {"blocks": pool.blocks, "time": pool.time}
        if not (weight == 1).all():
            columns["sample_weight"] = weight
        self.model.fit_meta(x, y, tasks=task_codes(pool), **columns)

    def adapt(self, support: TaskSet, offset: Floats) -> State:
        """Adapt the network to all tasks at once."""
        x, y = self._inputs(support.x.numpy(), offset), self._targets(support.y.numpy(), offset)
        codes, rows = task_codes(support), np.ones(support.n_rows, dtype=bool)
        if self.response.classifies:
            rows = np.isin(y, self.model.classes_)  # a class that a fold's training tasks lack
        large = np.bincount(codes[rows], minlength=support.n_tasks) >= self._fewest_rows(support)
        rows &= large[codes]
        model = None
        if rows.any():
            model = self.model.adapt(x[rows], y[rows], tasks=codes[rows], sample_weight=support.weight.numpy()[rows])
        return {"model": model, "large": large}

    def _fewest_rows(self, support: TaskSet) -> int:
        """Two where a layer takes statistics over rows: one row has none."""
        return 1 if self.model._layer_over_rows(support.x[:1]) is None else 2

    def predict(self, state: State, x: Floats, task: npt.NDArray[np.int64], offset: Floats) -> Floats:
        """Predict with the adapted networks."""
        rows, out = state["large"][task], offset[:, None, :].copy()  # whoever has too few rows stays at the offset
        if not rows.any():
            return out
        inputs, model = self._inputs(x, offset)[rows], state["model"]
        if self.response.classifies:
            proba = np.full((int(rows.sum()), offset.shape[1]), 1e-6)
            proba[:, model.classes_] = np.maximum(model.predict_proba(inputs, tasks=task[rows]), 1e-6)
            out[rows, 0] = np.log(proba)
        else:
            out[rows, 0] += np.asarray(model.predict(inputs, tasks=task[rows])).reshape(-1, offset.shape[1])
        return out

    def _inputs(self, x: Floats, offset: Floats) -> Floats:
        if not (self.response.classifies and self.from_base):
            return x
        logits = offset - offset[:, :1]
        return np.column_stack([x, logits[:, 1:]])

    def _targets(self, y: npt.NDArray[Any], offset: Floats) -> npt.NDArray[Any]:
        if self.response.classifies:
            return y
        return y - offset if y.shape[1] > 1 else (y - offset)[:, 0]
