"""The set of baselines that a new method is compared with unless the user names others."""

from __future__ import annotations

from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from ..errors import InvalidParameterError
from ..stacking.base import ALPHAS, BOOSTING
from ._base import Baseline
from ._linear import standardizer
from .biased import BiasedRegularization
from .boosted_mixed import BoostedMixedEffects
from .fine_tuned import FineTunedNetwork
from .mixed_effects import MixedEffects
from .mixed_logistic import GRID, MixedLogistic
from .pooled import PooledModel
from .refitted import RefittedModel
from .support import SupportModel
from .support_mean import SupportMean

__all__ = ["default_baselines"]

SUPPORT_WEIGHT = 5.0  # of a support row where the pooled model is refitted with it


def default_baselines(kind: str, random_state: int | None = None) -> dict[str, Baseline]:
    """Return unfitted baselines by name, with settings that are tuned over held-out training tasks.

    Parameters
    ----------
    kind : {"regression", "classification"}
        What the targets are.
    random_state : int or None, default=None
        Seed of everything random in them.

    Returns
    -------
    dict of str to estimator
        A linear model of all tasks, gradient boosting of all tasks, a linear model of the support, the mean of the support,
        mixed models, a linear model regularised towards the pooled one, the pooled one refitted with the support (each of its
        rows weighing as much as five), and a network that was pre-trained on all tasks and is fine-tuned.

    Examples
    --------
    >>> list(default_baselines("regression"))  # doctest: +NORMALIZE_WHITESPACE
    ['pooled ridge', 'pooled boosting', 'support ridge', 'support mean', 'mixed intercept', 'mixed slopes',
     'boosting + intercepts', 'ridge to pooled', 'pooled + support', 'fine-tuned network']
    >>> list(default_baselines("classification"))  # doctest: +NORMALIZE_WHITESPACE
    ['pooled logistic', 'pooled boosting', 'support logistic', 'support mean', 'mixed intercept', 'ridge to pooled',
     'pooled + support', 'fine-tuned network']
    """
    if kind == "regression":
        boosting = HistGradientBoostingRegressor(early_stopping=False, random_state=random_state)
        linear, penalties = make_pipeline(standardizer(), Ridge()), {"ridge__alpha": list(ALPHAS)}
        return {
            "pooled ridge": PooledModel(linear, param_grid=penalties),
            "pooled boosting": PooledModel(boosting, param_grid=BOOSTING),
            "support ridge": SupportModel(Ridge(), param_grid={"alpha": list(ALPHAS)}, random_state=random_state),
            "support mean": SupportMean(),
            "mixed intercept": MixedEffects("intercept"),
            "mixed slopes": MixedEffects("slopes"),
            "boosting + intercepts": BoostedMixedEffects(random_state=random_state),
            "ridge to pooled": BiasedRegularization(random_state=random_state),
            "pooled + support": RefittedModel(linear, SUPPORT_WEIGHT, param_grid=penalties, shots=(0,)),
            "fine-tuned network": FineTunedNetwork(random_state=random_state),
        }
    if kind == "classification":
        logistic = LogisticRegression(max_iter=1000)
        boosting = HistGradientBoostingClassifier(early_stopping=False, random_state=random_state)
        linear, penalties = make_pipeline(standardizer(), logistic), {"logisticregression__C": list(GRID)}
        return {
            "pooled logistic": PooledModel(linear, param_grid=penalties),
            "pooled boosting": PooledModel(boosting, param_grid=BOOSTING),
            "support logistic": SupportModel(logistic, param_grid={"C": list(GRID)}, random_state=random_state),
            "support mean": SupportMean("classification"),
            "mixed intercept": MixedLogistic(),
            "ridge to pooled": BiasedRegularization("classification", random_state=random_state),
            "pooled + support": RefittedModel(linear, SUPPORT_WEIGHT, param_grid=penalties, shots=(0,)),
            "fine-tuned network": FineTunedNetwork("classification", random_state=random_state),
        }
    raise InvalidParameterError(f"kind: got {kind!r}; expected 'regression' or 'classification'.")
