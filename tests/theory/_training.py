"""Meta-training with the package's own estimator, on episodes that are the same at every meta-step."""

import torch

from fewshot import MAMLRegressor
from fewshot.theory import FixedEpisodes

F64 = torch.float64


def without_intercept(n_in, n_out):
    return torch.nn.Linear(n_in, n_out, bias=False)


def linear_model(inner_lr, outer_lr, max_iter=300, inner_steps=1, **settings):
    """A linear model without intercept, with plain gradient descent inside and outside."""
    return MAMLRegressor(
        module=without_intercept,
        inner_steps=inner_steps,
        inner_lr=inner_lr,
        learn_step_sizes=False,
        optimizer="sgd",
        outer_lr=outer_lr,
        schedule="constant",
        max_grad_norm=None,
        max_iter=max_iter,
        early_stopping=False,
        engine="vectorized",
        verify=False,
        dtype="float64",
        random_state=0,
        **settings,
    )


def landed(support, query, **settings):
    """Initialisation that meta-training ends with, shape (features,)."""
    model = linear_model(**settings).fit_meta(FixedEpisodes(support, query))
    return model.module_.weight.detach().numpy().ravel()
