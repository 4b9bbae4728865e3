"""scikit-learn's own checks, with few meta-steps; the slow job runs them with the defaults."""

import warnings

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from fewshot import MAMLClassifier, MAMLRegressor

QUICK, DEFAULT = {"max_iter": 5}, {}


def _checks(settings):
    for cls in (MAMLRegressor, MAMLClassifier):
        estimator = cls(**settings)
        expected = dict(cls._expected_failed_checks)
        yield from estimator_checks_generator(estimator, legacy=True, expected_failed_checks=expected, mark="xfail")


def _name(parameter):
    name = getattr(parameter, "func", parameter)
    return getattr(name, "__name__", type(parameter).__name__)


def _run(estimator, check):
    with warnings.catch_warnings():
        # The checks fit one task without labels, which is worth a warning, and hand over columns as targets.
        warnings.simplefilter("ignore", UserWarning)
        check(estimator)


@pytest.mark.parametrize(("estimator", "check"), list(_checks(QUICK)), ids=_name)
def test_scikit_learn_checks(estimator, check):
    _run(estimator, check)


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "check"), list(_checks(DEFAULT)), ids=_name)
def test_scikit_learn_checks_with_the_defaults(estimator, check):
    _run(estimator, check)
