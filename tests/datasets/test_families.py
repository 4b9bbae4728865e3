"""What holds for every synthetic family: shapes, types, reproducibility, speed, and errors."""

import pickle
import time

import numpy as np
import pytest
import torch

from fewshot.datasets import GaussianMeans, LinearRegressions, Quadratics, RotatingBoundaries, Sinusoids
from fewshot.errors import InvalidParameterError
from fewshot.tasks import TaskSampler

FAMILIES = [GaussianMeans, LinearRegressions, Quadratics, RotatingBoundaries, Sinusoids]
FEATURES = {LinearRegressions: 5, RotatingBoundaries: 2}


@pytest.fixture(params=FAMILIES, ids=lambda family: family.__name__)
def family(request):
    return request.param


def equal(a, b):
    return all(torch.equal(left, right) for left, right in zip(a[:3], b[:3], strict=True))


def test_shapes_and_types(family):
    sampler = family(shots=3, queries=7)
    assert isinstance(sampler, TaskSampler)
    for rows, n_rows in zip(sampler.sample(4, np.random.default_rng(0)), (3, 7), strict=True):
        assert rows.x.shape == (4, n_rows, FEATURES.get(family, 1))
        assert rows.y.shape == rows.weight.shape == (4, n_rows)
        assert rows.x.dtype == rows.weight.dtype == torch.float32
        assert rows.y.dtype == (torch.int64 if family is RotatingBoundaries else torch.float32)
        assert (rows.weight == 1).all()
        assert rows.x.isfinite().all()
        assert not rows.extra


def test_sample_is_tasks_then_rows(family):
    sampler = family(shots=3, queries=7)
    support, query = sampler.sample(4, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    tasks = sampler.sample_tasks(4, rng)
    assert equal(support, sampler.rows(tasks, 3, rng))
    assert equal(query, sampler.rows(tasks, 7, rng))


def test_the_generator_decides_and_nothing_else(family):
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, again, other = (family().sample(6, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert equal(first[0], again[0]) and equal(first[1], again[1])
    assert not torch.equal(first[0].y, other[0].y)
    assert (np.random.get_state()[1] == np_state).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_support_and_query_are_drawn_apart(family):
    support, query = family(shots=5, queries=5).sample(3, np.random.default_rng(0))
    assert torch.equal(support.y, query.y) == (family is Quadratics)  # whose rows are all the same


def test_samplers_can_be_pickled(family):
    sampler = family(shots=2)
    copy = pickle.loads(pickle.dumps(sampler))
    assert equal(sampler.sample(3, np.random.default_rng(0))[0], copy.sample(3, np.random.default_rng(0))[0])
    assert repr(copy) == repr(sampler)


def test_a_draw_is_quick(family):
    sampler, rng = family(shots=10, queries=10), np.random.default_rng(0)
    took = []
    for _ in range(200):
        start = time.perf_counter()
        sampler.sample(25, rng)
        took.append(time.perf_counter() - start)
    assert np.quantile(took, 0.1) < 0.6e-3  # the target is 0.15 ms; shared machines are slow


@pytest.mark.parametrize("name", ["shots", "queries"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "3"])
def test_counts_are_checked(family, name, value):
    with pytest.raises(InvalidParameterError, match=f"{name}: got {value!r}; expected an integer"):
        family(**{name: value})
