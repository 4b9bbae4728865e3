"""The set of baselines that a new method is compared with unless the user names others."""

from __future__ import annotations

from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from ..errors import InvalidParameterError
from ..stacking.base import ALPHAS, BOOSTING
from ._base import Baseline
from ._linear import standardizer
from .boosted_mixed import BoostedMixedEffects
from .fine_tuned import FineTunedNetwork
from .mixed_effects import MixedEffects
from .mixed_logistic import GRID, MixedLogistic
from .pooled import PooledModel
from .support import SupportModel
from .support_mean import SupportMean

__all__ = ["default_baselines"]


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
        A linear model of all tasks, gradient boosting of all tasks, a linear model of the support, the mean of the support
        and mixed models.

    Examples
    --------
    >>> list(default_baselines("regression"))  # doctest: +NORMALIZE_WHITESPACE
    ['pooled ridge', 'pooled boosting', 'support ridge', 'support mean', 'mixed intercept', 'mixed slopes',
     'boosting + intercepts', 'fine-tuned network']
    >>> list(default_baselines("classification"))  # doctest: +NORMALIZE_WHITESPACE
    ['pooled logistic', 'pooled boosting', 'support logistic', 'support mean', 'mixed intercept',
     'fine-tuned network']
    """
    if kind == "regression":
        boosting = HistGradientBoostingRegressor(early_stopping=False, random_state=random_state)
        return {
            "pooled ridge": PooledModel(
                make_pipeline(standardizer(), Ridge()), param_grid={"ridge__alpha": list(ALPHAS)}
            ),
            "pooled boosting": PooledModel(boosting, param_grid=BOOSTING),
            "support ridge": SupportModel(Ridge(), param_grid={"alpha": list(ALPHAS)}, random_state=random_state),
            "support mean": SupportMean(),
            "mixed intercept": MixedEffects("intercept"),
            "mixed slopes": MixedEffects("slopes"),
            "boosting + intercepts": BoostedMixedEffects(random_state=random_state),
            "fine-tuned network": FineTunedNetwork(random_state=random_state),
        }
    if kind == "classification":
        logistic = LogisticRegression(max_iter=1000)
        boosting = HistGradientBoostingClassifier(early_stopping=False, random_state=random_state)
        return {
            "pooled logistic": PooledModel(
                make_pipeline(standardizer(), logistic), param_grid={"logisticregression__C": list(GRID)}
            ),
            "pooled boosting": PooledModel(boosting, param_grid=BOOSTING),
            "support logistic": SupportModel(logistic, param_grid={"C": list(GRID)}, random_state=random_state),
            "support mean": SupportMean("classification"),
            "mixed intercept": MixedLogistic(),
            "fine-tuned network": FineTunedNetwork("classification", random_state=random_state),
        }
    raise InvalidParameterError(f"kind: got {kind!r}; expected 'regression' or 'classification'.")
