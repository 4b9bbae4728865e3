"""Saved models come back as they were, and whatever else comes is refused."""

import copy
import dataclasses
import functools
import json
import pathlib
import pickle
import warnings
import zipfile

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeRegressor
from torch import nn

import fewshot
from fewshot import MAMLClassifier, MAMLRegressor, make_meta_pipeline
from fewshot.baselines import PooledModel
from fewshot.errors import FewShotError, InvalidParameterError, SerializationError
from fewshot.networks import conv4, linear
from fewshot.persistence import _registry, register
from fewshot.serialization import read, write

RNG = np.random.default_rng(0)
N_TASKS, N_ROWS = 6, 8
TASKS = np.repeat(np.arange(N_TASKS), N_ROWS)
X = RNG.normal(size=(len(TASKS), 3))
Y = X[:, 0] * (TASKS - 2.5) + X[:, 1]
QUICK = {"algorithm": "maml", "base": None, "max_iter": 3, "hidden": (5,), "inner_steps": 2, "random_state": 0}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model"


@pytest.fixture(scope="module")
def regressor():
    return MAMLRegressor(**QUICK).fit_meta(X, Y, tasks=TASKS)


def reloaded(model, path, module=None):
    fewshot.save(model, path)
    return fewshot.load(path, module)


def refused(path, match, module=None):
    with pytest.raises(SerializationError, match=match) as caught:
        fewshot.load(path, module)
    assert "\n" not in str(caught.value)


def same(a, b):
    np.testing.assert_array_equal(a, b, strict=True)


# ---------------------------------------------------------------- estimators


def test_regressor(regressor, path):
    loaded = reloaded(regressor, path)
    assert type(loaded) is MAMLRegressor
    assert loaded.get_params() == regressor.get_params() and type(loaded.hidden) is tuple
    same(loaded.predict(X), regressor.predict(X))
    same(loaded.adapt(X[:4], Y[:4]).predict(X), regressor.adapt(X[:4], Y[:4]).predict(X))
    pd.testing.assert_frame_equal(loaded.history_, regressor.history_)
    assert vars(loaded).keys() - {"_training"} == vars(regressor).keys() - {"_training"}
    assert (loaded.n_iter_, loaded.n_features_in_) == (3, 3)
    for name, value in regressor.module_.state_dict().items():
        assert torch.equal(loaded.module_.state_dict()[name], value)
    same(loaded.module_(torch.ones(2, 3)).detach(), regressor.module_(torch.ones(2, 3)).detach())
    assert fewshot.load(str(path)).n_iter_ == 3


def test_saving_again_gives_the_same_file(regressor, path, tmp_path):
    loaded = reloaded(regressor, path)
    fewshot.save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_training_goes_on_alike(path):
    model = MAMLRegressor(**QUICK, warm_start=True).fit_meta(X, Y, tasks=TASKS)
    loaded = reloaded(model, path)
    for each in (model, loaded):
        each.fit_meta(X, -Y, tasks=TASKS)
    same(loaded.predict(X), model.predict(X))
    assert (
        copy.deepcopy(loaded).adapt(X[:2], Y[:2]).predict(X).tolist() == model.adapt(X[:2], Y[:2]).predict(X).tolist()
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "huber", "adapted": "head", "learn_step_sizes": "parameter"},
        {"loss": "absolute_error", "adapted": ["0.*"], "learn_step_sizes": False, "activation": "tanh"},
        {"dtype": "float64", "hidden": [4, 3], "adapted": "body", "order": "first"},
        {"module": linear, "validation_tasks": np.array([0, 1]), "verbose": np.int64(0)},
        {"hidden": (), "inner_steps": 0, "early_stopping": False, "max_grad_norm": None, "inner_lr": np.float64(0.25)},
    ],
    ids=lambda s: next(iter(s)),
)
def test_settings(settings, path):
    model = MAMLRegressor(**QUICK | settings).fit_meta(X, Y, tasks=TASKS).adapt(X[:5], Y[:5])
    loaded = reloaded(model, path)
    same(loaded.predict(X), model.predict(X))
    same(loaded.adapt(X[:3], Y[:3]).predict(X), model.adapt(X[:3], Y[:3]).predict(X))
    for name, value in model.get_params().items():
        assert type(getattr(loaded, name)) is type(value)
        np.testing.assert_equal(getattr(loaded, name), value)


def test_names_of_features_and_several_outputs(path):
    frame = pd.DataFrame(X, columns=["age", "dose", "weight"]).assign(age=TASKS)
    model = MAMLRegressor(**QUICK).fit_meta(frame, np.column_stack([Y, -Y]), tasks=TASKS)
    loaded = reloaded(model, path)
    same(loaded.feature_names_in_, model.feature_names_in_)
    same(loaded.predict(frame), model.predict(frame))
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame.rename(columns={"age": "years"}))


@pytest.mark.parametrize(
    "classes",
    [
        np.array(["no", "yes"]),
        np.array(["no", "yes"], dtype=object),
        np.array([False, True]),
        np.array([2, 7], dtype=np.int8),
        np.array([0.0, 1.0], dtype=np.float32),
    ],
    ids=lambda c: str(c.dtype),
)
def test_classifier(classes, path):
    y = classes[(Y > 0).astype(int)]
    model = MAMLClassifier(**QUICK, class_weight="balanced").fit_meta(X, y, tasks=TASKS)
    for each in (model, model.adapt(X[:4], y[:4])):
        loaded = reloaded(each, path)
        same(loaded.classes_, each.classes_)
        same(loaded.predict(X), each.predict(X))
        same(loaded.predict_proba(X), each.predict_proba(X))


def test_class_weights_by_label(path):
    y = np.where(Y > 0, 5, 3)
    model = MAMLClassifier(**QUICK, class_weight={3: 1.0, np.int64(5): 2}, loss="binary_cross_entropy")
    model.fit_meta(X, y, tasks=TASKS)
    loaded = reloaded(model, path)
    assert loaded.class_weight == {3: 1.0, 5: 2}
    same(loaded.adapt(X[:6], y[:6]).decision_function(X), model.adapt(X[:6], y[:6]).decision_function(X))


def test_classes_of_each_task(path):
    y = np.char.add(np.where(Y > 0, "a", "b"), TASKS.astype(str))
    model = MAMLClassifier(**QUICK, label_space="per_task").fit_meta(X, y, tasks=TASKS)
    loaded = reloaded(model, path)
    with pytest.raises(fewshot.errors.NotFittedError, match="adapt"):
        loaded.predict(X)
    adapted = model.adapt(X, y, tasks=TASKS)
    loaded = reloaded(adapted, path)
    same(loaded.predict(X, tasks=TASKS), adapted.predict(X, tasks=TASKS))
    same(loaded.predict_proba(X, tasks=TASKS), adapted.predict_proba(X, tasks=TASKS))


LABELS = {
    "integers": TASKS * 10,
    "strings": np.array(["s" * (t + 1) for t in TASKS]),
    "objects": np.array([f"p{t}" for t in TASKS], dtype=object),
    "floats": TASKS / 3,
    "booleans": TASKS > 2,
    "bytes": TASKS.astype("S"),
    "days": np.datetime64("2024-01-01") + TASKS,
    "durations": TASKS.astype("m8[s]"),
    "pandas strings": pd.Series([f"p{t}" for t in TASKS], dtype="string"),
    "pandas integers": pd.Series(TASKS, dtype="Int64"),
    "categories": pd.Series(pd.Categorical([f"p{t}" for t in TASKS])),
    "time zones": pd.Series(pd.date_range("2024-03-30", periods=N_TASKS, tz="Europe/Berlin")[TASKS]),
    "periods": pd.Series(pd.period_range("2024Q1", periods=N_TASKS, freq="Q")[TASKS]),
    "timestamps": np.array([pd.Timestamp(2024, 1, 1 + t) for t in TASKS], dtype=object),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_tasks(kind, regressor, path):
    labels = LABELS[kind]
    adapted = regressor.adapt(X, Y, tasks=labels)
    loaded = reloaded(adapted, path)
    same(loaded._adapted.labels, adapted._adapted.labels)
    same(loaded.predict(X, tasks=labels), adapted.predict(X, tasks=labels))
    same(loaded.step_scale_, adapted.step_scale_)
    with pytest.raises(fewshot.errors.UnknownTaskError):
        loaded.predict(X)


def test_one_adapted_task(regressor, path):
    adapted = regressor.adapt(X[:5], Y[:5])
    loaded = reloaded(adapted, path)
    same(loaded.predict(X), adapted.predict(X))
    same(loaded.adapt(X[5:8], Y[5:8]).predict(X), regressor.adapt(X[5:8], Y[5:8]).predict(X))


def test_not_fitted(path):
    loaded = reloaded(MAMLClassifier(hidden=(3,), max_iter=2, algorithm="maml", base=None), path)
    assert loaded.get_params() == MAMLClassifier(hidden=(3,), max_iter=2, algorithm="maml", base=None).get_params()
    with pytest.raises(fewshot.errors.NotFittedError):
        loaded.predict(X)


def test_what_belongs_to_a_session_stays_behind(regressor, path):
    model = copy.copy(regressor)
    model._training = object()
    model.set_callbacks(sklearn.callback.ProgressBar())
    loaded = reloaded(model, path)
    assert getattr(loaded, "_training", None) is None and not hasattr(loaded, "_skl_callbacks")
    same(loaded.predict(X), regressor.predict(X))


def test_metadata_requests(path):
    with sklearn.config_context(enable_metadata_routing=True):
        model = MAMLRegressor(algorithm="maml", base=None).set_fit_request(tasks="hospital", blocks=False)
        loaded = reloaded(model, path)
        assert loaded.get_metadata_routing().fit.requests == model.get_metadata_routing().fit.requests
        assert clone(loaded).get_metadata_routing().fit.requests["tasks"] == "hospital"


# ---------------------------------------------------------------- networks


class Net(nn.Module):
    """Norm layers, a frozen layer, a tied weight, dropout and buffers of both kinds."""

    def __init__(self, n_in, n_out, width=6):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_in, width), nn.BatchNorm1d(width), nn.LayerNorm(width), nn.Tanh())
        self.frozen = nn.Linear(width, width).requires_grad_(False)
        self.drop = nn.Dropout(0.5)
        self.head, self.tied = nn.Linear(width, n_out), nn.Linear(width, width)
        self.again = self.tied
        self.register_buffer("offset", torch.randn(n_out))
        self.register_buffer("counter", torch.tensor(3), persistent=False)

    def forward(self, x):
        return self.head(self.again(self.drop(self.tied(self.frozen(self.body(x)))))) + self.offset * self.counter


def fitted_net(module=Net):
    return MAMLRegressor(module, max_iter=3, shots=(2, 6), random_state=0, algorithm="maml", base=None).fit_meta(
        X, Y, tasks=TASKS
    )


@pytest.fixture(scope="module")
def net():
    return fitted_net()


@pytest.mark.parametrize(
    "hand", [Net, lambda n_in, n_out: Net(n_in, n_out), Net(3, 1), functools.partial(Net, width=6)]
)
def test_a_network_of_ones_own(hand, net, path):
    for model in (net, net.adapt(X[:5], Y[:5])):
        loaded = reloaded(model, path, hand)
        assert loaded.module is hand
        same(loaded.predict(X), model.predict(X))
        same(loaded.adapt(X[:5], Y[:5]).predict(X), model.adapt(X[:5], Y[:5]).predict(X))
        assert not any(p.requires_grad for p in loaded.module_.frozen.parameters())
        assert loaded.module_.again is loaded.module_.tied
        for name, tensor in {**dict(model.module_.named_parameters()), **dict(model.module_.named_buffers())}.items():
            own = {**dict(loaded.module_.named_parameters()), **dict(loaded.module_.named_buffers())}[name]
            assert torch.equal(own, tensor) and own.requires_grad == tensor.requires_grad


def test_a_network_handed_over_is_left_as_it_is(net, path):
    mine = Net(3, 1)
    before = copy.deepcopy(mine.state_dict())
    reloaded(net, path, mine)
    assert all(torch.equal(before[k], v) for k, v in mine.state_dict().items())


def test_batch_statistics_need_two_rows_after_loading_too(net, path):
    with pytest.raises(FewShotError, match="support of one row"):
        reloaded(net, path, Net).adapt(X[:1], Y[:1])


def test_training_goes_on_with_a_network_of_ones_own(path):
    model = fitted_net().set_params(warm_start=True)
    loaded = reloaded(model, path, Net)
    for each in (model, loaded):
        each.fit_meta(X, -Y, tasks=TASKS)
    same(loaded.predict(X), model.predict(X))


class Other(Net):
    def forward(self, x):
        return -super().forward(x)


class Fewer(Net):
    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out)
        del self.offset
        self.offset = 0.0


class Broken(nn.Module):
    def __init__(self, n_in, n_out):
        raise RuntimeError("no such machine")


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (None, r"network of your own, 'Net'; hand it over, load\(path, module=...\)"),
        (functools.partial(Net, width=7), r"parameter 'body.0.weight' has shape \(7, 3\) .*learned was \(6, 3\)"),
        (nn.Linear(3, 1), "module: only the file has a parameter 'body.0.weight'"),
        (nn.Sequential(Net(3, 1)), "only the file has a parameter"),
        (Fewer, "only the file has a buffer 'offset'"),
        (Other, "gives other outputs"),
        (Broken, "RuntimeError: no such machine"),
    ],
)
def test_the_wrong_network_is_refused(module, match, net, path):
    fewshot.save(net, path)
    refused(path, match, module)


def test_what_is_no_network_is_refused(net, regressor, path):
    fewshot.save(net, path)
    for wrong in ("Net", lambda n_in, n_out: 3):
        with pytest.raises(InvalidParameterError, match="module: "):
            fewshot.load(path, wrong)
    fewshot.save(regressor, path)
    refused(path, "holds no network of your own; leave module out", Net)


def test_built_in_networks_by_name(path):
    images = RNG.normal(size=(len(TASKS), 16))
    y = np.where(Y > 0, "a", "b")
    small = functools.partial(conv4, channels=2, image_shape=(1, 4, 4))
    model = MAMLClassifier(
        small,
        max_iter=1,
        shots=4,
        inner_steps=1,
        engine="loop",
        order="first",
        random_state=0,
        algorithm="maml",
        base=None,
    )
    model = model.fit_meta(images, y, tasks=TASKS).adapt(images[:6], y[:6])
    loaded = reloaded(model, path)
    same(loaded.predict_proba(images), model.predict_proba(images))
    assert loaded.module.func is conv4 and loaded.module.keywords == small.keywords
    assert reloaded(clone(loaded).set_params(module=conv4), path).module is conv4


def test_input_shape(path):
    model = MAMLRegressor(
        lambda n_in, n_out: nn.Sequential(nn.Flatten(), nn.Linear(n_in, n_out)),
        input_shape=(3, 1),
        max_iter=2,
        random_state=0,
        algorithm="maml",
        base=None,
    ).fit_meta(X, Y, tasks=TASKS)
    loaded = reloaded(model, path, nn.Sequential(nn.Flatten(), nn.Linear(3, 1)))
    same(loaded.predict(X), model.predict(X))
    refused(
        path,
        "only the network has a parameter 'module.2.weight'",
        nn.Sequential(nn.Flatten(), nn.Linear(3, 1), nn.PReLU()),
    )


def test_settings_that_no_longer_fit_are_refused_when_saving(regressor, path):
    model = copy.copy(regressor).set_params(hidden=(7,))
    with pytest.raises(SerializationError, match="module: parameter '0.weight' has shape"):
        fewshot.save(model, path)
    model = copy.copy(regressor).set_params(adapted="head")
    same(reloaded(model, path).adapt(X[:3], Y[:3]).predict(X), model.adapt(X[:3], Y[:3]).predict(X))


# ---------------------------------------------------------------- pipelines

FRAME = pd.DataFrame(X, columns=["a", "b", "c"]).assign(
    d=np.array(["x", "y", "z"])[TASKS % 3], e=pd.Categorical(np.array(["u", "v"])[TASKS % 2])
)
FRAME.loc[3, "a"] = np.nan
NUMBERS, WORDS = ["a", "b", "c"], ["d", "e"]

TRANSFORMERS = {
    "scaler": (lambda: [StandardScaler()], X),
    "imputer": (lambda: [SimpleImputer(add_indicator=True), PolynomialFeatures()], FRAME[NUMBERS]),
    "columns": (
        lambda: [
            ColumnTransformer(
                [("n", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS), ("w", OneHotEncoder(), WORDS)],
                sparse_threshold=0,
            )
        ],
        FRAME,
    ),
    "selector": (
        lambda: [
            ColumnTransformer(
                [
                    ("w", OrdinalEncoder(), make_column_selector(dtype_exclude=np.number)),
                    ("n", SimpleImputer(), make_column_selector(pattern="^[abc]$")),
                ]
            )
        ],
        FRAME,
    ),
    "slice": (lambda: [ColumnTransformer([("n", StandardScaler(), slice(0, 2))], remainder="passthrough")], X),
    "union": (lambda: [make_union(StandardScaler(), PCA(2)), "passthrough"], X),
    "pipeline": (lambda: [make_pipeline(StandardScaler(), PCA(2))], X),
    "bins": (lambda: [KBinsDiscretizer(3, encode="onehot-dense", quantile_method="averaged_inverted_cdf")], X),
    "spline": (lambda: [SplineTransformer(3)], X),
    "quantiles": (lambda: [QuantileTransformer(n_quantiles=5), SelectKBest(f_regression, k=2)], X),
    "function": (lambda: [FunctionTransformer(np.arcsinh), FunctionTransformer()], X),
    "frames": (lambda: [StandardScaler().set_output(transform="pandas")], X),
    "none": (list, X),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_pipelines(name, path):
    make, data = TRANSFORMERS[name]
    model = make_meta_pipeline(*make(), MAMLRegressor(**QUICK)).fit_meta(data, Y, tasks=TASKS)
    for each, columns in (
        (model, {}),
        (model.adapt(data[:5], Y[:5]), {}),
        (model.adapt(data, Y, tasks=TASKS), {"tasks": TASKS}),
    ):
        loaded = reloaded(each, path)
        same(loaded.predict(data, **columns), each.predict(data, **columns))
        same(loaded.adapt(data[:4], Y[:4]).predict(data), each.adapt(data[:4], Y[:4]).predict(data))
    assert type(loaded) is fewshot.MetaPipeline and [n for n, _ in loaded.steps] == [n for n, _ in model.steps]


def test_transformers_that_see_the_target(path):
    encoder = TargetEncoder(target_type="continuous").fit(FRAME[WORDS], Y)
    loaded = reloaded(make_meta_pipeline(encoder, MAMLRegressor(algorithm="maml", base=None)), path)
    same(loaded[0].transform(FRAME[WORDS]), encoder.transform(FRAME[WORDS]))


def test_a_pipeline_of_scikit_learn_and_one_around_a_network_of_ones_own(path):
    with sklearn.config_context(enable_metadata_routing=True):
        model = Pipeline([("scale", StandardScaler()), ("maml", fitted_net())], memory=str(path.parent / "cache"))
        model.set_params(memory=None).fit(X, Y, tasks=TASKS)
    loaded = reloaded(model, path, Net)
    assert type(loaded) is Pipeline
    same(loaded.predict(X), model.predict(X))
    refused(path, "hand it over")


def test_metadata_requests_of_transformers(path):
    with sklearn.config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight=True)
        model = make_meta_pipeline(scaler, MAMLRegressor(**QUICK))
        model.fit_meta(X, Y, tasks=TASKS, sample_weight=np.ones(len(Y)))
        loaded = reloaded(model, path)
        same(loaded.predict(X), model.predict(X))
        assert loaded.steps[0][1].get_metadata_routing().fit.requests == {"sample_weight": True}
        assert scaler.get_metadata_routing().fit.requests == {"sample_weight": True}
        loaded.fit_meta(X, Y, tasks=TASKS, sample_weight=np.ones(len(Y)))


def squared(x):
    return x**2


class Doubler(StandardScaler):
    pass


@pytest.mark.parametrize(
    ("transformer", "match"),
    [
        (FunctionTransformer(squared), r"steps\[0\]\[1\]: FunctionTransformer .*squared"),
        (FunctionTransformer(lambda x: x), r"steps\[0\]\[1\]: FunctionTransformer .*<lambda>"),
        (FunctionTransformer(np.asarray), "FunctionTransformer holds numpy.asarray, which is not on the list"),
        (
            FunctionTransformer(functools.partial(np.clip, a_min=0)),
            "FunctionTransformer holds .*, which is not on the list",
        ),
        (FunctionTransformer(np.log1p, kw_args={"dtype": pathlib.Path("x")}), "FunctionTransformer"),
        (Doubler(), r"steps\[0\]\[1\]: got a Doubler, which cannot be saved"),
        (make_pipeline(Doubler()), r"steps\[0\]\[1\].steps\[0\]\[1\]: got a Doubler"),
        (make_union(Doubler()), "FeatureUnion holds .*Doubler, which is not on the list"),
        (DecisionTreeRegressor().fit(X, Y), "DecisionTreeRegressor holds .*Tree"),
    ],
)
def test_other_transformers_are_refused(transformer, match, path):
    path.write_bytes(b"what was there")
    with pytest.raises(SerializationError, match=match) as caught:
        fewshot.save(make_meta_pipeline(transformer, MAMLRegressor(algorithm="maml", base=None)), path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"what was there" and list(path.parent.iterdir()) == [path]


def test_another_version_of_scikit_learn_warns_as_scikit_learn_does(path, monkeypatch):
    model = make_meta_pipeline(StandardScaler(), MAMLRegressor(**QUICK)).fit_meta(X, Y, tasks=TASKS)
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        patch.setattr(sklearn.base, "__version__", "1.8.0")
        fewshot.save(model, path)
    with pytest.warns(InconsistentVersionWarning, match="StandardScaler from version 1.8.0"):
        same(fewshot.load(path).predict(X), model.predict(X))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"loss": lambda output, target: output}, "loss: got the function .*<lambda>.*losses known by name"),
        ({"optimizer": torch.optim.SGD}, "optimizer: got the type 'SGD', .*optimisers known by name"),
        ({"random_state": np.random.RandomState(0)}, "random_state: got a RandomState, .*whole number"),
        ({"validation_tasks": {1}}, "validation_tasks: got a set"),
        ({"hidden": range(3)}, "hidden: got a range"),
        ({"module": conv4, "adapted": [len]}, r"adapted\[0\]: got "),
        ({"module": functools.partial(conv4, channels=object())}, "module.channels: got an object"),
    ],
)
def test_settings_that_cannot_be_saved_are_named(settings, match, path):
    with pytest.raises(SerializationError, match=match):
        fewshot.save(MAMLRegressor(**settings), path)
    with pytest.raises(SerializationError, match=r"^steps\[0\]\[1\]\."):
        fewshot.save(make_meta_pipeline(MAMLRegressor(**settings)), path)
    assert not path.exists()


def test_the_cache_of_a_pipeline_cannot_be_saved(path):
    with pytest.raises(SerializationError, match="memory: got a Memory, .*name of a folder"):
        fewshot.save(make_meta_pipeline(MAMLRegressor(algorithm="maml", base=None), memory=joblib.Memory(None)), path)


class Subclass(MAMLRegressor):
    pass


@pytest.mark.parametrize(
    "model",
    [PooledModel(StandardScaler()), Subclass(), StandardScaler(), MAMLRegressor, None, {"a": 1}, nn.Linear(1, 1)],
)
def test_other_objects_are_refused(model, path):
    with pytest.raises(SerializationError, match="model: got .*cannot be saved; expected .*MAMLRegressor"):
        fewshot.save(model, path)
    assert not path.exists()


def test_a_baseline_inside_a_pipeline_is_refused(path):
    with pytest.raises(SerializationError, match=r"steps\[1\]\[1\]: got a PooledModel"):
        fewshot.save(make_meta_pipeline(StandardScaler(), PooledModel(StandardScaler())), path)


def test_an_attribute_that_cannot_be_saved_is_named(regressor, path):
    model = copy.copy(regressor)
    model.note_ = {"of": [open]}
    with pytest.raises(SerializationError, match=r"note_.of\[0\]: got the builtin_function_or_method 'open'"):
        fewshot.save(model, path)
    model.note_ = []
    model.note_.append(model.note_)
    with pytest.raises(SerializationError, match="holds itself"):
        fewshot.save(model, path)


def test_paths(regressor, path):
    with pytest.raises(SerializationError, match="nowhere.*folder that does not exist"):
        fewshot.save(regressor, path / "nowhere" / "model")
    refused(path, "cannot be read .No such file")


# ---------------------------------------------------------------- damaged and hostile files


def test_damage_anywhere_is_found(regressor, path):
    fewshot.save(regressor.adapt(X[:3], Y[:3]), path)
    content = path.read_bytes()
    step = len(content) // 150
    for i in [*range(0, len(content), step), len(content) - 1]:
        for changed in (content[:i], content[:i] + bytes([content[i] ^ 0xFF]) + content[i + 1 :]):
            path.write_bytes(changed)
            refused(path, "^path: ")


class Trap:
    def __reduce__(self):
        return pathlib.Path.write_text, (pathlib.Path("executed"), "")


@pytest.fixture
def trap(monkeypatch, tmp_path):
    """Fails the test if anything creates the file "executed" in the current folder."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("dump", [pickle.dump, torch.save, joblib.dump], ids=["pickle", "torch", "joblib"])
def test_pickles_are_not_executed(dump, path, trap):
    with open(path, "wb") as file:
        dump(Trap(), file)
    refused(path, "not a file that fewshot wrote")


def rewrite(path, change):
    """Change the document and the tensors of a file; the checksum is right again."""
    document, tensors = read(path)
    change(document, tensors)
    write(path, document, tensors)


def replace_blob(data):
    def change(document, tensors):
        tensors["steps[0][1]"] = torch.frombuffer(bytearray(data), dtype=torch.uint8)

    return change


def skops_file(tmp_path, node, compression=zipfile.ZIP_STORED, **files):
    with zipfile.ZipFile(tmp_path / "blob", "w", compression=compression) as archive:
        archive.writestr("schema.json", json.dumps({"protocol": 2, "_skops_version": "0.16.0", **node}))
        for name, content in files.items():
            archive.writestr(name, content)
    return (tmp_path / "blob").read_bytes()


TOUCH = {"__class__": "partial", "__module__": "functools", "__loader__": "PartialNode"}
PLAIN = {
    "__class__": "str",
    "__module__": "builtins",
    "__loader__": "JsonNode",
    "content": '"executed"',
    "is_json": True,
}
TUPLE = {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "content": [PLAIN]}
HOSTILE = [
    {"__class__": "Popen", "__module__": "subprocess", "__loader__": "ConstructorFromReduceNode", "content": TUPLE},
    {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"},
    {"__class__": "system", "__module__": "os", "__loader__": "TypeNode"},
    {"__class__": "methodcaller", "__module__": "operator", "__loader__": "OperatorFuncNode", "attrs": TUPLE},
    {"__class__": "dict", "__module__": "builtins", "__loader__": "NoSuchNode"},
    {"__class__": "Path", "__module__": "pathlib", "__loader__": "ListNode", "content": []},
    {"__class__": "DecisionTreeRegressor", "__module__": "sklearn.tree._classes", "__loader__": "ObjectNode"},
    {"__class__": "log1p", "__module__": "numpy", "__loader__": ["FunctionNode"]},
]


@pytest.fixture(scope="module")
def pipeline():
    return make_meta_pipeline(StandardScaler(), MAMLRegressor(**QUICK)).fit_meta(X, Y, tasks=TASKS)


@pytest.fixture
def pipeline_file(pipeline, path):
    fewshot.save(pipeline, path)
    return path


@pytest.mark.parametrize("node", HOSTILE, ids=lambda node: str(node["__loader__"]))
@pytest.mark.parametrize("deep", [False, True])
def test_types_that_are_not_on_the_list_are_refused(node, deep, pipeline_file, tmp_path, trap):
    if deep:
        node = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": [PLAIN, node]}
    rewrite(pipeline_file, replace_blob(skops_file(tmp_path, node)))
    refused(pipeline_file, "holds .*, which is not on the list")


def test_other_content_in_place_of_a_transformer(pipeline_file, tmp_path, trap):
    rewrite(pipeline_file, replace_blob(pickle.dumps(Trap())))
    refused(pipeline_file, "cannot be read by fewshot .*BadZipFile")
    bomb = skops_file(tmp_path, PLAIN, zipfile.ZIP_DEFLATED, data=bytes(10**6))
    rewrite(pipeline_file, replace_blob(bomb))
    refused(pipeline_file, "is compressed")
    array = {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode", "type": "numpy", "file": "a"}
    header = b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    for content in (header.ljust(80), pickle.dumps(Trap())):
        rewrite(pipeline_file, replace_blob(skops_file(tmp_path, array, a=content)))
        refused(pipeline_file, "cannot be read by fewshot")


def changed(*keys, to):
    def change(document, tensors):
        *inner, last = keys
        for key in inner:
            document = document[key]
        document[last] = to

    return change


def parameter(name, to):
    def change(document, tensors):
        (entry,) = [e for e in document["model"]["state"]["parameters"] if e[0] == name]
        entry[1] = to

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (changed("model", "class", to="subprocess.Popen"), "holds a 'subprocess.Popen', which nothing imported so far"),
        (changed("model", "class", to="MetaPipeline"), "which MetaPipeline does not have here"),
        (changed("model", "$", to="eval"), "cannot be read by fewshot .*KeyError"),
        (changed("model", to={"$": "tuple", "items": 3}), "cannot be read"),
        (changed("model", "state", to=[]), "cannot be read"),
        (changed("model", to=functools.reduce(lambda inner, _: [inner], range(900), 1)), None),
        (parameter("hidden", [10**9, 10**9]), "module: parameter '0.weight' has shape"),
        (parameter("hidden", [10**30]), "cannot be read"),
        (parameter("loss", "os.system"), None),
        (parameter("module", {"$": "network", "name": "os.system", "settings": None}), "cannot be read"),
        (parameter("algorithm", 1), None),
        (lambda document, tensors: tensors.clear(), "cannot be read"),
        (lambda document, tensors: document.clear(), "cannot be read"),
        (
            lambda document, tensors: document["versions"].update(fewshot="9.9", other=[]) or tensors.clear(),
            "fewshot 9.9",
        ),
    ],
)
def test_other_documents_are_refused(change, match, regressor, path):
    fewshot.save(regressor, path)
    if match is None:
        try:
            rewrite(path, change)
            fewshot.load(path)
        except (FewShotError, ValueError):
            return
        return
    rewrite(path, change)
    refused(path, match)


# ---------------------------------------------------------------- the registry


@dataclasses.dataclass
class Plan:
    doses: np.ndarray
    model: MAMLRegressor


class Application(sklearn.base.BaseEstimator):
    def __init__(self, estimator=None, horizon=(1, 2)):
        self.estimator, self.horizon = estimator, horizon


class Plain:
    def __init__(self, text):
        self.text = text


def test_classes_of_applications(regressor, path):
    assert register(Plan, "tests.Plan") is Plan
    register(Application, "tests.Application")
    register(
        Plain,
        "tests.Plain",
        to_state=lambda p: {"all": {"text": p.text}},
        from_state=lambda cls, s: cls(s["all"]["text"]),
    )
    try:
        model = Application(regressor)
        model.plans_ = [Plan(np.arange(3.0), regressor), Plain("x")]
        loaded = reloaded(model, path)
        assert loaded.horizon == (1, 2) and loaded.plans_[1].text == "x"
        same(loaded.estimator.predict(X), regressor.predict(X))
        same(loaded.plans_[0].doses, np.arange(3.0))
        register(Plan, "tests.Plan")  # again, as when a module is loaded again
        with pytest.raises(InvalidParameterError, match="'tests.Plan' is taken by .*Plan"):
            register(Plain, "tests.Plan", to_state=vars, from_state=dict)
    finally:
        for cls in (Plan, Application, Plain):
            _registry.by_name.pop(_registry.by_class.pop(cls).name)
    refused(path, "holds a 'tests.Application', which nothing imported so far has registered; import")


def test_what_cannot_be_registered():
    with pytest.raises(InvalidParameterError, match="to_state: needed for Plain"):
        register(Plain, "tests.Plain")
    with pytest.raises(InvalidParameterError, match="give both or none"):
        register(Plan, "tests.Plan", to_state=vars)
