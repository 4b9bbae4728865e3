"""Baselines with the same verbs as the meta-estimators: what few-shot adaptation has to beat."""

from .biased import BiasedRegularization
from .boosted_mixed import BoostedMixedEffects
from .defaults import default_baselines
from .fine_tuned import FineTunedNetwork
from .mixed_effects import MixedEffects
from .mixed_logistic import MixedLogistic
from .pooled import PooledModel
from .refitted import RefittedModel
from .support import SupportModel
from .support_mean import SupportMean

__all__ = [
    "BiasedRegularization",
    "BoostedMixedEffects",
    "FineTunedNetwork",
    "MixedEffects",
    "MixedLogistic",
    "PooledModel",
    "RefittedModel",
    "SupportMean",
    "SupportModel",
    "default_baselines",
]
