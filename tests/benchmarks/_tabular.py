"""A decision process so small that every trajectory is enumerated, so that expectations are exact.

Advantages are discounted returns, without a baseline or standardising, which would make estimates depend on one another.
"""

import itertools

import torch
from torch import Tensor, nn

from fewshot.applications.rl.learning.advantages import returns_to_go
from fewshot.applications.rl.learning.distributions import Categorical
from fewshot.applications.rl.learning.surrogates import Surrogate, pack
from fewshot.functional import FunctionalModule
from fewshot.kernels import LoopKernels, VectorizedKernels
from fewshot.tasks import Rows

__all__ = ["ACTIONS", "ALPHA", "DISCOUNT", "F64", "STATES", "TIME", "Process", "derivatives", "flat"]

STATES, ACTIONS, TIME, DISCOUNT, ALPHA = 2, 2, 3, 0.9, 0.4
F64 = torch.float64


class Process:
    """Two states, two actions, three steps: (2 x 2)^3 trajectories from the first state.

    Parameters
    ----------
    seed : int
        Of transitions, rewards, and the parameters of the policy, one logit for each state and action.
    """

    def __init__(self, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        self.next = torch.rand(STATES, ACTIONS, STATES, generator=g, dtype=F64).softmax(-1)
        self.reward = torch.randn(STATES, ACTIONS, generator=g, dtype=F64)
        self.theta = 0.5 * torch.randn(STATES, ACTIONS, generator=g, dtype=F64)
        one = list(itertools.product(range(ACTIONS), range(STATES)))
        states, actions, chances = [], [], []
        for choices in itertools.product(one, repeat=TIME):
            s, chance, seen, acted = 0, 1.0, [], []
            for a, after in choices:
                seen.append(s)
                acted.append(a)
                chance *= float(self.next[s, a, after])
                s = after
            states.append(seen)
            actions.append(acted)
            chances.append(chance)
        self.states, self.actions = torch.tensor(states), torch.tensor(actions)
        self.chance = torch.tensor(chances, dtype=F64)  # of the environment's part
        self.rewards = self.reward[self.states, self.actions]
        discounts = DISCOUNT ** torch.arange(TIME, dtype=F64)
        self.returns = (self.rewards * discounts).sum(-1)
        self.advantages = returns_to_go(self.rewards, DISCOUNT) * discounts  # shape (trajectories, time)

    def log_probs(self, theta: Tensor) -> Tensor:
        """Log-probability of every action of every trajectory; shape (trajectories, time)."""
        return theta.log_softmax(-1)[self.states, self.actions]

    def weights(self, theta: Tensor) -> Tensor:
        """Probability of every trajectory."""
        return self.chance * self.log_probs(theta).sum(-1).exp()

    def value(self, theta: Tensor) -> Tensor:
        """Expected discounted return."""
        return (self.weights(theta) * self.returns).sum()

    def rows(self, chosen: Tensor, weight: Tensor, acting: Tensor) -> Rows:
        """Trajectories as episodes of several tasks.

        Parameters
        ----------
        chosen : Tensor of int of shape (tasks, episodes)
            Which.
        weight : Tensor of shape (tasks, episodes)
            Of each.
        acting : Tensor of shape (tasks, states, actions)
            Parameters of the policy that acted.
        """
        states, actions = self.states[chosen], self.actions[chosen]
        x = nn.functional.one_hot(states, STATES).to(F64)
        logs = acting.log_softmax(-1)
        tasks = torch.arange(len(chosen))[:, None, None]
        place = (2 - torch.eye(TIME, dtype=F64)[0]).expand(states.shape)
        y = pack(actions.unsqueeze(-1).to(F64), logs[tasks, states, actions], self.advantages[chosen], place)
        every = weight.detach().unsqueeze(-1).expand(states.shape)
        return Rows(x.flatten(1, 2), y.flatten(1, 2).detach(), every.flatten(1).contiguous())

    def functional(self, kind: str) -> FunctionalModule:
        """The policy under a surrogate."""
        net = nn.Linear(STATES, ACTIONS, bias=False).to(F64)
        with torch.no_grad():
            net.weight.copy_(self.theta.T)
        return FunctionalModule(net, Surrogate(Categorical(ACTIONS), kind), "all", ACTIONS)


def flat(weight: Tensor) -> Tensor:
    """From the layer's (actions, states) to theta's order."""
    return weight.transpose(-1, -2).reshape(*weight.shape[:-2], -1)


def derivatives(process: Process, kind: str, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian of the mean surrogate loss over episodes, by the kernels; TIME rows make an episode.

    Parameters
    ----------
    weight : Tensor of shape (trajectories,)
        Of each.
    """
    functional = process.functional(kind)
    n = STATES * ACTIONS
    every = torch.arange(len(weight)).expand(n, -1)
    many = process.rows(every, weight.expand(n, -1), process.theta.expand(n, STATES, ACTIONS))
    moving = {"weight": functional.moving["weight"].expand(n, ACTIONS, STATES).contiguous()}
    directions = torch.eye(n, dtype=F64).reshape(n, STATES, ACTIONS).transpose(1, 2).contiguous()
    found = [
        kernels.curvature(moving, {}, many, {"weight": directions}, 0)
        for kernels in (LoopKernels(functional), VectorizedKernels(functional))
    ]
    for a, b in zip(found[0][:2], found[1][:2], strict=True):
        torch.testing.assert_close(a["weight"], b["weight"])
    scale = TIME * float(weight.sum())
    return flat(found[1][0]["weight"])[0] * scale, flat(found[1][1]["weight"]) * scale
