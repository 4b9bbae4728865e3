"""A first step size that no task of the first batch diverges with.

Features in their raw units can make the loss so curved that the default step size diverges at once, and every meta-gradient is
then not finite. Where step sizes are learned, their starting value is halved until, on the first batch, adaptation lowers the
support loss of every task (of those that it can be lowered for at all).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch

from ..engine import Engine
from ..inference import halved
from ..metagradient import MetaParameters, inner_loop, of_network
from ..tasks import Rows

__all__ = ["calibrated"]

logger = logging.getLogger("fewshot")

MOST_HALVINGS = 40  # twelve orders of magnitude
TOLERATED = 0.1  # share of tasks that may not improve: a support without signal improves at no step size


def calibrated(engine: Engine, parameters: MetaParameters, supports: Sequence[Rows]) -> MetaParameters:
    """Return `parameters` with step sizes halved as often as the first batch needs.

    Parameters
    ----------
    engine : Engine
        Runs the kernels.
    parameters : MetaParameters
        Starting values.
    supports : sequence of Rows
        Support rows of each step of a first batch.
    """
    steps = engine.adaptation.inner_steps
    if not engine.adaptation.learns or steps == 0:
        return parameters
    supports = supports[:steps]
    for times in range(MOST_HALVINGS):
        sizes = halved(parameters.sizes, times)
        trial = MetaParameters(parameters.moving, parameters.shared, sizes)
        path, losses = inner_loop(engine.kernels, engine.adaptation, trial, supports, 0)
        after, _ = engine.kernels.gradient(of_network(path[-1]), trial.shared, supports[-1], 0, steps)
        worse = ~(after <= losses[0])
        hopeless = ~torch.isfinite(losses[0])
        if float((worse & ~hopeless).double().mean()) <= TOLERATED and bool(torch.isfinite(after[~hopeless]).all()):
            if times:
                logger.info("inner_lr: started from a step size %.3g times smaller", math.exp2(-times))
            return trial
    return parameters
