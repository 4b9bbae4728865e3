"""Bad input: one line that begins with the parameter's name, and a model that stays usable."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from fewshot import EpisodeSampler, MAMLClassifier, MAMLRegressor, TaskSet, make_meta_pipeline
from fewshot.datasets import Sinusoids
from fewshot.errors import DivergenceError, FewShotError, InvalidDataError, InvalidParameterError, NotFittedError

QUICK = dict(algorithm="maml", base=None, max_iter=3, random_state=0)


def message(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.fixture
def fitted(lines):
    X, y, tasks = lines
    return MAMLRegressor(**QUICK).fit_meta(X, y, tasks=tasks)


@pytest.mark.parametrize(
    ("change", "starts"),
    [
        (lambda X, y, t: (np.where(np.arange(400).reshape(200, 2) == 7, np.nan, X), y, t), "X: contains 1 NaN"),
        (lambda X, y, t: (np.where(np.arange(400).reshape(200, 2) == 7, np.inf, X), y, t), "X: contains 1 infinity"),
        (
            lambda X, y, t: (pd.DataFrame(X, columns=["a", "b"]).assign(c="text"), y, t),
            "X: column.* 'c' are not numeric",
        ),
        (lambda X, y, t: (X[:, 0], y, t), "X: Expected 2D array"),
        (lambda X, y, t: (X, y[:-1], t), "y: got 199 values for 200 rows"),
        (lambda X, y, t: (X, np.where(np.arange(200) == 3, np.nan, y), t), "y: contains 1"),
        (lambda X, y, t: (X, np.full(200, "text"), t), "y: "),
        (lambda X, y, t: (X, None, t), "y: requires"),
        (lambda X, y, t: (X, y, t[:-1]), "tasks: got 199 labels for 200 rows"),
        (lambda X, y, t: (X, y, "patient"), "tasks: got the string 'patient'"),
        (lambda X, y, t: (X, y, [None, *t[1:]]), "tasks: 1 of 200 labels are missing"),
        (lambda X, y, t: (X, y, np.arange(200)), "shots: 1 support row"),
    ],
)
def test_data(lines, fitted, change, starts):
    X, y, tasks = lines
    before = fitted.predict(X)
    data = change(X, y, tasks)
    with pytest.raises(FewShotError, match=f"^{starts}") as error:
        fitted.fit_meta(*data[:2], tasks=data[2])
    message(error)
    assert np.array_equal(fitted.predict(X), before)  # the model that was there is still there


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("hidden", "a"),
        ("hidden", (0,)),
        ("activation", "foo"),
        ("input_shape", (3, 3)),
        ("module", 3),
        ("loss", "foo"),
        ("inner_steps", -1),
        ("inner_lr", 0),
        ("learn_step_sizes", "foo"),
        ("adapted", "foo"),
        ("adapted", ["foo*"]),
        ("order", "second"),
        ("batch_norm", "foo"),
        ("shots", -1),
        ("shots", (5, 2)),
        ("shots", "many"),
        ("shots", 50),
        ("shots_per_class", 2),
        ("queries", 0),
        ("support", "last"),
        ("support", "first"),
        ("tasks_per_batch", 0),
        ("max_iter", 0),
        ("outer_lr", -1),
        ("outer_lr", None),
        ("optimizer", "foo"),
        ("schedule", "foo"),
        ("max_grad_norm", -1),
        ("validation_tasks", 2.0),
        ("validation_tasks", ["nobody"]),
        ("engine", "x"),
        ("verify", "x"),
        ("max_memory", -1),
        ("device", "foo"),
        ("dtype", "int"),
        ("random_state", "a"),
    ],
)
def test_settings(lines, fitted, setting, value):
    X, y, tasks = lines
    before = fitted.predict(X)
    with pytest.raises(FewShotError) as error:
        fitted.set_params(**{setting: value}).fit_meta(X, y, tasks=tasks)
    text = message(error)
    assert text.startswith((f"{setting}: ", f"{setting}=", f'{setting}="'))
    fitted.set_params(**{setting: getattr(MAMLRegressor(algorithm="maml", base=None), setting)})
    assert np.array_equal(fitted.predict(X), before)


def test_one_class_only(halves):
    X, y, tasks = halves
    with pytest.raises(InvalidDataError, match="^y: got one class only"):
        MAMLClassifier(**QUICK).fit_meta(X, np.full(len(y), "low"), tasks=tasks)


def test_tasks_too_small_are_counted_in_one_warning(lines):
    X, y, tasks = lines
    with pytest.warns(UserWarning, match="^shots: 1 of 20 tasks are too small") as caught:
        MAMLRegressor(shots=5, **QUICK).fit_meta(X[:-5], y[:-5], tasks=tasks[:-5])
    assert len(caught) == 1


def test_without_tasks_there_is_a_warning(lines):
    X, y, _ = lines
    with pytest.warns(UserWarning, match="^tasks: not given"):
        MAMLRegressor(**QUICK).fit_meta(X, y)


def test_adapt(lines, fitted):
    X, y, _ = lines
    with pytest.raises(NotFittedError, match="^adapt: .*call fit_meta"):
        MAMLRegressor(algorithm="maml", base=None).adapt(X, y)
    for bad, starts in [
        ((X[:0], y[:0]), "X: got 0 support rows"),
        ((X[:3], y[:2]), "y: got 2 values"),
        ((X[:3, :1], y[:3]), "X: X has 1 features"),
    ]:
        with pytest.raises(FewShotError, match=f"^{starts}") as error:
            fitted.adapt(*bad)
        message(error)
    with pytest.raises(InvalidParameterError, match="^steps: got -1"):
        fitted.adapt(X[:3], y[:3], steps=-1)


def test_other_feature_names_are_refused_in_scikit_learns_words(halves):
    X, y, tasks = halves
    model = MAMLClassifier(**QUICK).fit_meta(X, y, tasks=tasks)
    with pytest.raises(ValueError, match="feature names should match"):
        model.adapt(X.rename(columns={"age": "years"}), y)


def test_unknown_class_in_a_support(halves):
    X, y, tasks = halves
    model = MAMLClassifier(**QUICK).fit_meta(X, y, tasks=tasks)
    with pytest.raises(InvalidDataError, match="^y: class 'huge' was not seen"):
        model.adapt(X[:2], ["low", "huge"])


def test_a_sampler_brings_its_own(lines):
    with pytest.raises(InvalidDataError, match="^blocks: X is a task sampler"):
        MAMLRegressor(**QUICK).fit_meta(Sinusoids(), blocks=[1])


def test_training_that_never_made_a_step_is_no_training(lines):
    X, y, tasks = lines
    with pytest.raises(DivergenceError, match="standardise the features"):
        MAMLRegressor(**QUICK).fit_meta(X * 1e30, y, tasks=tasks)


def test_a_failed_fit_leaves_the_transformers_too(lines):
    from sklearn.preprocessing import StandardScaler

    X, y, tasks = lines
    model = make_meta_pipeline(StandardScaler(), MAMLRegressor(**QUICK)).fit_meta(X, y, tasks=tasks)
    before = model.predict(X)
    with pytest.raises(InvalidDataError):
        model.fit_meta(X * 10, y[:-1], tasks=tasks)
    assert np.array_equal(model.predict(X), before)


def test_adapted_models_predict_in_threads(lines, fitted):
    X, y, _ = lines
    adapted = [fitted.adapt(X[i : i + 5], y[i : i + 5]) for i in range(0, 40, 10)]
    expected = [a.predict(X) for a in adapted]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            got = list(pool.map(lambda a: a.predict(X), adapted))
            assert all(np.array_equal(g, e) for g, e in zip(got, expected, strict=True))


def test_sampler_and_table_of_the_same_tasks(lines):
    X, y, tasks = lines
    sampler = EpisodeSampler(TaskSet.from_arrays(X, y, tasks))
    assert MAMLRegressor(**QUICK).fit_meta(sampler).n_features_in_ == 2
