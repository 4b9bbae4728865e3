"""A policy in the form that Stable-Baselines3's tools expect of a model.

Its ``evaluate_policy``, and whatever else asks a model for nothing but actions, then works with adapted policies. Nothing of
Stable-Baselines3 is imported.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from fewshot.errors import InvalidParameterError

from .policy import MAMLPolicy

__all__ = ["SB3Policy"]


class SB3Policy:
    """Adapter with the method ``predict`` of a Stable-Baselines3 model.

    Parameters
    ----------
    policy : MAMLPolicy
        Meta-trained, or adapted.

    Attributes
    ----------
    observation_space, action_space : gymnasium.Space
        Of the environments in which it acts.

    Raises
    ------
    InvalidParameterError
        If `policy` is no :class:`MAMLPolicy`.
    NotFittedError
        If it is not meta-trained.

    Examples
    --------
    >>> import numpy as np
    >>> from fewshot.applications.rl import MAMLPolicy, PointNavigation, SB3Policy
    >>> family = PointNavigation(horizon=20)
    >>> policy = MAMLPolicy(tasks_per_batch=4, episodes=5, random_state=0).fit_meta(family, total_env_steps=2000)
    >>> adapted = policy.adapt(family.make((0.3, -0.2)), episodes=5)
    >>> model = SB3Policy(adapted)  # stable_baselines3.common.evaluation.evaluate_policy(model, env) takes it
    >>> actions, state = model.predict(np.zeros((3, 2)))
    >>> actions.shape
    (3, 2)
    """

    def __init__(self, policy: MAMLPolicy) -> None:
        if not isinstance(policy, MAMLPolicy):
            raise InvalidParameterError(
                f"policy: got {type(policy).__name__}; expected a MAMLPolicy; a model of Stable-Baselines3 needs no adapter"
            )
        policy._check_fitted("SB3Policy")
        self.policy = policy
        self.observation_space, self.action_space = policy.observation_space_, policy.action_space_

    def predict(
        self, observation: npt.ArrayLike, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[npt.NDArray[Any], Any]:
        """Choose actions.

        Parameters
        ----------
        observation : array-like of shape (*observation) or (n, *observation)
            One observation, or those of a vector environment.
        state, episode_start : object, default=None
            For policies with a memory, which this one has not.
        deterministic : bool, default=False
            Take the most likely actions; otherwise draw them. The default is Stable-Baselines3's.

        Returns
        -------
        actions : ndarray of shape (*action) or (n, *action)
            In the action space, within its bounds.
        state : object
            As it was given.
        """
        return self.policy.predict(observation, deterministic=deterministic), state
