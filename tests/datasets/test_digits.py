"""Episodes of digits: classes, orientations, disjoint images; and a convolutional network that learns across them."""

import functools

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fewshot import MAMLClassifier
from fewshot.datasets import Digits
from fewshot.errors import InvalidParameterError
from fewshot.networks import conv4

IMAGES = load_digits()


def owner(image, turned=False):
    """Position of an image among scikit-learn's; -1 if it is none of them."""
    versions = [np.rot90(image.reshape(8, 8), k) for k in range(4)]
    versions = [v.ravel() for w in versions for v in (w, w[:, ::-1])] if turned else [image]
    for version in versions:
        found = np.flatnonzero(np.isclose(IMAGES.data / 16, version).all(1))
        if len(found):
            return found[0]
    return -1


def test_a_task_has_so_many_images_of_each_class_and_none_twice():
    support, query = Digits(ways=4, shots=2, queries=3, digits=(5, 6, 7, 8, 9), orientations=1).sample(
        6, np.random.default_rng(0)
    )
    assert support.x.shape == (6, 8, 64) and query.x.shape == (6, 12, 64)
    for t in range(6):
        x, y = np.concatenate([support.x[t], query.x[t]]), np.concatenate([support.y[t], query.y[t]])
        found = [owner(image) for image in x]
        assert min(found) >= 0 and len(set(found)) == 20
        labels = IMAGES.target[found]
        assert set(labels) <= set(range(5, 10))
        for way in range(4):
            assert (y == way).sum() == 5 and len(set(labels[y == way])) == 1
        assert len({labels[y == way][0] for way in range(4)}) == 4


def test_orientations_are_eight_classes():
    rng = np.random.default_rng(0)
    support, _ = Digits(ways=8, shots=1, queries=1, digits=(4,)).sample(1, rng)
    assert all(IMAGES.target[owner(image, turned=True)] == 4 for image in support.x[0].numpy())
    assert sum(owner(image) >= 0 for image in support.x[0].numpy()) == 1  # one is upright


def test_numbers_of_classes_mean_nothing_from_task_to_task():
    support, _ = Digits(digits=(5, 6, 7, 8, 9), orientations=1).sample(40, np.random.default_rng(0))
    first = {IMAGES.target[owner(x[0])] for x in support.x.numpy()}
    assert first == {5, 6, 7, 8, 9}


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"ways": 6, "orientations": 1}, "^ways: got 6; expected at most 5"),
        ({"digits": (3, 12)}, "^digits: got "),
        ({"orientations": 2}, "^orientations: got 2; expected 1, 4 or 8"),
        ({"shots": 0}, "^shots: got 0"),
        ({"queries": 500}, "^queries: got 500 beside 1 shots; a digit has 17"),
    ],
)
def test_errors(settings, match):
    with pytest.raises(InvalidParameterError, match=match):
        Digits(**settings)


@pytest.mark.parametrize("batch_norm", ["episode", "global", "transductive", "per_step"])
def test_conv4_learns_to_tell_unseen_digits_apart(batch_norm):
    model = MAMLClassifier(
        functools.partial(conv4, channels=8),
        batch_norm=batch_norm,
        inner_steps=2,
        tasks_per_batch=4,
        max_iter=120,
        outer_lr=0.005,
        early_stopping=False,
        random_state=0,
        algorithm="maml",
        base=None,
    ).fit_meta(Digits(shots=3))
    support, query = Digits(shots=3, digits=(5, 6, 7, 8, 9), orientations=1).sample(60, np.random.default_rng(1))
    tasks, asked = np.repeat(np.arange(60), 15), np.repeat(np.arange(60), 25)
    adapted = model.adapt(support.x.reshape(-1, 64).numpy(), support.y.flatten().numpy(), tasks=tasks)
    accuracy = adapted.score(query.x.reshape(-1, 64).numpy(), query.y.flatten().numpy(), tasks=asked)
    # Chance is 0.2; with running averages the first meta-steps learn little.
    assert accuracy > (0.5 if batch_norm in ("episode", "transductive") else 0.28)
