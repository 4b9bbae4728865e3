"""Meta-training on a GPU learns what it learns on the CPU; where none is at hand this is skipped."""

import numpy as np
import pytest
import torch

from fewshot import MAMLClassifier, MAMLRegressor

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("kind", [MAMLRegressor, MAMLClassifier])
def test_training_on_the_gpu_is_training(kind):
    rng = np.random.default_rng(0)
    tasks = np.repeat(np.arange(30), 20)
    X = rng.normal(size=(600, 4))
    score = (X * rng.normal(size=(30, 4))[tasks]).sum(1)
    y = score if kind is MAMLRegressor else (score > 0).astype(int)
    options = {
        "algorithm": "maml",
        "base": None,
        "max_iter": 30,
        "inner_steps": 2,
        "dtype": "float64",
        "random_state": 0,
    }
    found = []
    for device in ("cpu", "cuda"):
        model = kind(device=device, **options).fit_meta(X, y, tasks=tasks)
        adapted = model.adapt(X[:5], y[:5])
        found.append(adapted.predict(X[5:20]) if kind is MAMLRegressor else adapted.predict_proba(X[5:20]))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-6)
