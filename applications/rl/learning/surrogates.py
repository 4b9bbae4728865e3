"""Surrogate losses whose derivatives are policy gradients.

With tau_t = log pi(a_t | s_t) - log mu(a_t | s_t), mu the policy that acted, and A_t an estimate of the advantage, the loss of a
time step is

* ``"reinforce"``: -A_t log pi(a_t | s_t). Its gradient is the policy gradient; its second derivative lacks the curvature that
  comes from the sampling (Williams 1992; used so by the first MAML implementations, section 4 of Rothfuss et al. 2019);
* ``"lvc"``: -A_t exp(tau_t), the low-variance curvature surrogate: of the second derivative it lacks the products of different
  time steps' scores, a small bias for a large gain in variance (Rothfuss et al. 2019, section 5);
* ``"dice"``: -A_t (exp(sum_{s <= t} tau_s) - exp(sum_{s < t} tau_s)), whose derivatives of every order are unbiased (Foerster et
  al. 2018; in this form, with advantages, Farquhar et al. 2019, "Loaded DiCE").

These are losses of rows, so kernels, compiled programs and padding serve them as they serve supervised ones. The rows of a task
are its episodes one after another; what a loss needs of a row beside the observation is in its target.

References
----------
Foerster et al. (2018), DiCE: the infinitely differentiable Monte Carlo estimator, ICML. Farquhar, Whiteson, Foerster (2019),
Loaded DiCE, NeurIPS. Rothfuss et al. (2019), ProMP: proximal meta-policy search, ICLR. Williams (1992), Simple statistical
gradient-following algorithms for connectionist reinforcement learning, Machine Learning 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot.errors import InvalidParameterError

from .distributions import Distribution

__all__ = ["SURROGATES", "Surrogate", "pack"]

SURROGATES = ("lvc", "dice", "reinforce")


def pack(action: Tensor, log_prob: Tensor, advantage: Tensor, place: Tensor) -> Tensor:
    """Put what a surrogate needs of each row into one target.

    Parameters
    ----------
    action : Tensor of shape (..., n_values)
        Raw.
    log_prob, advantage, place : Tensor of shape (...)
        Of the action; 1 in `place` marks the first row of an episode, 2 the others, and 0 rows that fill up: zeros throughout.

    Returns
    -------
    Tensor of shape (..., n_values + 3)
    """
    return torch.cat([action, torch.stack([log_prob, advantage, place.to(action.dtype)], -1)], -1)


@dataclass(frozen=True)
class Surrogate:
    """Row loss ``(output, target) -> loss`` of a policy; targets as :func:`pack` makes them.

    Parameters
    ----------
    distribution : Distribution
        Of the actions.
    kind : {"lvc", "dice", "reinforce"}
        See the module.
    clip : float, default=None
        For "lvc": bound of the probability ratio, 1 - clip to 1 + clip, as in PPO (Schulman et al. 2017, equation 7).

    Examples
    --------
    >>> from fewshot.applications.rl.learning.distributions import Categorical
    >>> action, half, one = torch.zeros(1, 1), torch.tensor([0.5]), torch.ones(1)
    >>> Surrogate(Categorical(2), "lvc")(torch.zeros(1, 2), pack(action, half.log(), 3 * one, one))
    tensor([-3.])
    """

    distribution: Distribution
    kind: str
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in SURROGATES:
            raise InvalidParameterError(
                f"surrogate: got {self.kind!r}; expected one of {', '.join(map(repr, SURROGATES))}."
            )

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss of each row; (rows, n_outputs), (rows, n_values + 3) -> (rows,)."""
        action, (log_prob, advantage, place) = target[..., :-3], target[..., -3:].unbind(-1)
        now = self.distribution.log_prob(output, action)
        if self.kind == "reinforce":
            return -now * advantage
        # What fills up is no action of anybody: its ratio may be infinite, which no weight of 0 takes back.
        tau = torch.where(place > 0, now - log_prob, 0.0)
        if self.kind == "dice":
            until = tau.cumsum(-1)
            before = until - tau
            places = torch.arange(tau.shape[-1], device=tau.device).expand(tau.shape)
            first = (places * (place == 1)).cummax(-1).values  # of the episode that a row belongs to
            earlier = before.gather(-1, first)
            return -((until - earlier).exp() - (before - earlier).exp()) * advantage
        ratio = tau.exp()
        if self.clip is None:
            return -ratio * advantage
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        return -torch.minimum(ratio * advantage, clipped * advantage)
