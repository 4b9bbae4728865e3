"""Tasks made up for the tests: rows with probabilities, groups and outcomes."""

from dataclasses import replace

import numpy as np

from fewshot.applications.fairness.notions import NOTIONS
from fewshot.applications.fairness.scored import Scored, guessed

PARITY = NOTIONS["demographic_parity"]


def rows(n_tasks=8, n=500, shift=0.8, spread=0.0, seed=0, known=True, notion=PARITY, share=0.4):
    """Tasks in which the second group has the lower probabilities; known or half known groups."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(n_tasks), n)
    group = (rng.random(n_tasks * n) < share).astype(int)
    own = shift + spread * rng.normal(size=n_tasks)
    probability = 1 / (1 + np.exp(-(rng.normal(size=n_tasks * n) + 0.3 - own[task] * group)))
    favourable = rng.random(n_tasks * n) < probability
    # A calibrated guess: with s of the second group among rows of this guess.
    sure = np.where(rng.random(len(group)) < 0.8, group, 1 - group)
    second = np.where(
        sure == 1, 0.8 * share / (0.8 * share + 0.2 * (1 - share)), 0.2 * share / (0.2 * share + 0.8 * (1 - share))
    )
    membership = np.eye(2)[group] if known else np.column_stack([1 - second, second])
    shares = np.zeros((n_tasks, len(notion.events), 2))
    found = Scored(
        notion, probability, membership, group, notion.among(favourable).astype(float), task, shares, favourable
    )
    return replace(found, shares=found.held / found.held.sum(-1, keepdims=True))


def blind(data):
    return guessed(data.notion, data.probability, data.others, data.membership, data.task, data.shares)


def part(data, mask):
    arrays = {name: getattr(data, name)[mask] for name in ("probability", "membership", "group", "task", "favourable")}
    return replace(data, among=data.among[:, mask], **arrays)
