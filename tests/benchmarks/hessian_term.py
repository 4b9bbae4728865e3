"""How much of the meta-gradient first-order MAML leaves out: sinusoids, before, during and after meta-training.

    python tests/benchmarks/hessian_term.py

For batches of 1,000 tasks (10 + 10 rows, 40-40 ReLU): the length of the Hessian term relative to the exact gradient in the
initialisation, and the cosine between the two gradients. In the paper's setting (one fixed step of 0.01) and with the package's
default (five learned steps).
"""

import numpy as np
import torch

from fewshot import MAMLRegressor
from fewshot.datasets import Sinusoids
from fewshot.kernels import VectorizedKernels
from fewshot.metagradient import meta_gradient
from fewshot.tasks import Rows

SETTINGS = {
    "algorithm": "maml",
    "base": None,
    "one fixed step of 0.01": dict(inner_steps=1, inner_lr=0.01, learn_step_sizes=False),
    "five learned steps": {},
}


def compare(model: MAMLRegressor) -> tuple[float, float]:
    """Relative length of the Hessian term, and cosine of first-order and exact gradient."""
    support, query = Sinusoids(shots=10, queries=10).sample(1000, np.random.default_rng(1))
    support, query = (Rows(r.x, r.y[..., None], r.weight) for r in (support, query))
    adaptation, parameters = model._fitted_adaptation, model._parameters
    supports = [support] * adaptation.inner_steps
    exact, first = (
        torch.cat(
            [
                g.flatten()
                for g in meta_gradient(
                    VectorizedKernels(model._functional, trace=False),
                    adaptation,
                    parameters,
                    supports,
                    query,
                    order=order,
                    chunk=100,
                ).gradient.moving.values()
            ]
        ).double()
        for order in ("exact", "first")
    )
    return float((exact - first).norm() / exact.norm()), float(torch.dot(exact, first) / exact.norm() / first.norm())


def main() -> None:
    """Print a line for each setting and length of training."""
    for name, settings in SETTINGS.items():
        for n in (1, 1000, 10_000):
            model = MAMLRegressor(
                tasks_per_batch=25, max_iter=n, schedule="constant", early_stopping=False, random_state=0, **settings
            ).fit_meta(Sinusoids(shots=10, queries=10))
            term, cosine = compare(model)
            print(
                f"{name}, {n} meta-steps: Hessian term {term:.2f} of the exact gradient, cosine {cosine:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
