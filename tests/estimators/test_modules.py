"""Every kind of network a user may bring: meta-trained for three steps, adapted, asked for predictions."""

import logging
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from fewshot import MAMLClassifier, MAMLRegressor
from fewshot.errors import InvalidDataError, InvalidParameterError, VerificationError
from fewshot.networks import conv4

T, FEATURES = 4, 2
N_TASKS, N_ROWS = 8, 10
SETTINGS = {
    "algorithm": "maml",
    "base": None,
    "max_iter": 3,
    "tasks_per_batch": 3,
    "inner_steps": 2,
    "random_state": 0,
    "shots": (2, 5),
    "queries": 4,
    "validation_tasks": 2 / 8,
}


def table(n_in=T * FEATURES, seed=0):
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(N_TASKS), N_ROWS)
    X = rng.normal(size=(len(tasks), n_in))
    return X, (X * rng.normal(size=(N_TASKS, n_in))[tasks]).sum(1), tasks


X, Y, TASKS = table()
CODES = np.where(Y > 0, "high", "low")


class Recurrent(nn.Module):
    def __init__(self, n_out, kind):
        super().__init__()
        self.body, self.head = kind(FEATURES, 5, batch_first=True), nn.Linear(5, n_out)

    def forward(self, x):
        return self.head(self.body(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self, n_out):
        super().__init__()
        self.lift = nn.Linear(FEATURES, 4)
        self.body = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.head = nn.Linear(4, n_out)

    def forward(self, x):
        return self.head(self.body(self.lift(x)).mean(1))


class Tied(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(n_in, n_in), nn.Linear(n_in, n_in), nn.Linear(n_in, n_out)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Dependent(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.layer = nn.Linear(n_in, n_out)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


class Embedded(nn.Module):
    """The first column holds codes 0 to 3."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.codes, self.head = nn.Embedding(4, 3), nn.Linear(3 + n_in - 1, n_out)

    def forward(self, x):
        return self.head(torch.cat([self.codes(x[:, 0].long()), x[:, 1:]], 1))


class Temperature(nn.Module):
    """A parameter without axes."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.layer, self.temperature = nn.Linear(n_in, n_out), nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.layer(x) * self.temperature


def stack(between):
    return lambda i, o: nn.Sequential(nn.Linear(i, 6), between(6), nn.Tanh(), nn.Linear(6, o))


SEQUENCE = {"input_shape": (T, FEATURES)}
MODULES = {
    "lstm": (lambda i, o: Recurrent(o, nn.LSTM), SEQUENCE, False),
    "gru": (lambda i, o: Recurrent(o, nn.GRU), SEQUENCE, True),
    "attention": (lambda i, o: Attention(o), SEQUENCE, True),
    "dropout": (stack(lambda n: nn.Dropout(0.5)), {}, True),
    "tied": (Tied, {}, True),
    "batch norm": (stack(nn.BatchNorm1d), {}, True),
    "layer norm": (stack(nn.LayerNorm), {}, True),
    "group norm": (stack(lambda n: nn.GroupNorm(2, n)), {}, True),
    "dependent": (Dependent, {}, False),
    "temperature": (Temperature, {}, True),
    "linear": (nn.Linear, {}, True),
}


def tensors(model):
    return {k: v.clone() for k, v in model._parameters.flat().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in b)


def fit(kind=MAMLRegressor, y=None, X=X, **settings):
    y = (CODES if kind is MAMLClassifier else Y) if y is None else y
    return kind(**{**SETTINGS, **settings}).fit_meta(X, y, tasks=TASKS)


@pytest.mark.parametrize("kind", [MAMLRegressor, MAMLClassifier])
@pytest.mark.parametrize("name", MODULES)
def test_fit_adapt_predict(name, kind, caplog):
    module, options, vectorized = MODULES[name]
    rng = torch.get_rng_state()
    with caplog.at_level(logging.INFO, "fewshot"):
        model = fit(kind, module=module, **options)
    assert model._vectorized == vectorized
    reasons = [r for r in caplog.records if "one by one" in r.getMessage()]
    assert len(reasons) == (0 if vectorized else 1)
    assert model.n_iter_ == 3 and np.isfinite(model.history_["loss"]).all()
    before = tensors(model)
    y = CODES if kind is MAMLClassifier else Y
    adapted = model.adapt(X[:5], y[:5])
    again = model.adapt(X[:5], y[:5])
    out, other = adapted.predict(X[5:10]), model.predict(X[5:10])
    assert out.shape == other.shape == (5,)
    assert (out == again.predict(X[5:10])).all()  # no dropout in adaptation or prediction
    if kind is MAMLClassifier:
        p = adapted.predict_proba(X[5:10])
        assert p.shape == (5, 2) and np.allclose(p.sum(1), 1) and not np.allclose(p, model.predict_proba(X[5:10]))
    else:
        assert np.isfinite(out).all() and not np.allclose(out, other)
        alone = np.concatenate([adapted.predict(X[[i]]) for i in range(5, 10)])
        if name != "dependent":
            np.testing.assert_allclose(alone, out, rtol=1e-6, atol=1e-8)
    many = model.adapt(X[:20], y[:20], tasks=TASKS[:20])
    assert many.predict(X[:20], tasks=TASKS[:20]).shape == (20,)
    assert same(tensors(model), before)
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("name", ["lstm", "dropout", "batch norm", "dependent"])
def test_the_same_seed_gives_the_same_model(name):
    module, options, _ = MODULES[name]
    a = fit(module=module, **options)
    torch.rand(3)
    b, c = fit(module=module, **options), fit(module=module, **{**options, "random_state": 1})
    assert same(tensors(a), tensors(b)) and not same(tensors(a), tensors(c))


@pytest.mark.parametrize("engine", ["loop", "vectorized"])
def test_dropout_is_at_work_in_training(engine):
    """Three steps with masks differ from three steps of the same network without."""
    with_masks = fit(module=stack(lambda n: nn.Dropout(0.5)), engine=engine, early_stopping=False)
    without = fit(module=stack(lambda n: nn.Dropout(0.0)), engine=engine, early_stopping=False)
    assert not same(tensors(with_masks), tensors(without))


class Predicting:
    """A callback that asks the half-trained model for predictions and adapts it, as a scoring monitor does."""

    rounds = 0

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        if fitted_estimator is not None:
            self.rounds += 1
            fitted_estimator.predict(X[:2])
            fitted_estimator.adapt(X[:4], Y[:4]).predict(X[:2])


@pytest.mark.parametrize("engine", ["loop", "auto"])
@pytest.mark.parametrize("layer", [lambda n: nn.Dropout(0.5), nn.BatchNorm1d], ids=["dropout", "batch norm"])
def test_a_callback_that_predicts_does_not_change_training(layer, engine):
    """The half-trained model shares its network with the training that goes on, so its mode must be put back."""
    settings = {**SETTINGS, "max_iter": 6, "engine": engine, "early_stopping": False}
    expected = MAMLRegressor(stack(layer), **settings).fit_meta(X, Y, tasks=TASKS)
    callback = Predicting()
    model = MAMLRegressor(stack(layer), **settings).set_callbacks(callback).fit_meta(X, Y, tasks=TASKS)
    assert callback.rounds >= 6
    assert same(tensors(model), tensors(expected))
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))


def test_an_embedding():
    codes = X.copy()
    codes[:, 0] = np.arange(len(X)) % 4
    model = fit(module=Embedded, X=codes)
    adapted = model.adapt(codes[:5], Y[:5])
    moved = adapted._adapted.tasks.moving["codes.weight"][0] - model._parameters.moving["codes.weight"]
    assert bool(moved.any())
    swapped = codes[:5].copy()
    swapped[:, 0] = (swapped[:, 0] + 1) % 4
    assert not np.allclose(adapted.predict(codes[:5]), adapted.predict(swapped))


def test_conv4_on_digits():
    digits = load_digits()
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(digits.data))[:240]
    images, y, tasks = digits.data[rows] / 16, digits.target[rows], np.arange(240) % 4
    model = MAMLClassifier(lambda i, o: conv4(i, o, channels=4), **{**SETTINGS, "shots": 5}).fit_meta(
        images, y, tasks=tasks
    )
    adapted = model.adapt(images[:20], y[:20])
    assert adapted.predict_proba(images[:7]).shape == (7, 10)
    shaped = MAMLClassifier(
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 10)),
        input_shape=(1, 8, 8),
        **SETTINGS,
    ).fit_meta(images, y, tasks=tasks)
    assert shaped.adapt(images[:20], y[:20]).predict(images[:7]).shape == (7,)


class TestWhatIsHandedIn:
    def test_a_class_a_factory_and_an_instance(self):
        class Net(nn.Module):
            def __init__(self, n_in, n_out):
                super().__init__()
                self.layer = nn.Linear(n_in, n_out)

            def forward(self, x):
                return self.layer(x)

        by_class, by_factory = fit(module=Net), fit(module=lambda i, o: Net(i, o))
        assert same(tensors(by_class), tensors(by_factory))
        instance = Net(X.shape[1], 1)
        weights = {k: v.clone() for k, v in instance.state_dict().items()}
        by_instance = fit(module=instance)
        assert same(instance.state_dict(), weights) and instance.training
        assert not same(tensors(by_instance), tensors(by_class))

    def test_an_instance_is_where_training_starts(self):
        instance = nn.Linear(X.shape[1], 1)
        model = fit(module=instance, outer_lr=1e-12, early_stopping=False)
        torch.testing.assert_close(model.module_.state_dict(), instance.state_dict(), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("vectorized", [True, False])
    def test_a_frozen_body_stays_bit_for_bit(self, vectorized):
        body = nn.Sequential(nn.Linear(X.shape[1], 6), nn.BatchNorm1d(6), nn.ReLU())
        body(torch.randn(50, X.shape[1]))  # running statistics from elsewhere
        body.requires_grad_(False)
        module = nn.Sequential(body, nn.Linear(6, 1))
        before = {k: v.clone() for k, v in module.state_dict().items()}
        model = fit(module=module, engine="auto" if vectorized else "loop", early_stopping=False)
        assert {k.partition("/")[2] for k in tensors(model) if not k.startswith("sizes")} == {"1.weight", "1.bias"}
        after = model.module_.state_dict()
        for k, v in before.items():
            if k.startswith("0."):
                assert torch.equal(after[k], v), k
        assert not torch.equal(after["1.weight"], before["1.weight"])
        model.adapt(X[:5], Y[:5]).predict(X[:3])
        assert same(module.state_dict(), before)
        assert [p.requires_grad for p in model.module_.parameters()] == [False] * 4 + [True] * 2

    def test_module_can_be_taken_out(self):
        model = fit(loss="poisson", y=np.abs(Y).round(), module=stack(nn.LayerNorm))
        assert isinstance(model.module_[1], nn.LayerNorm) and not model.module_.training
        with torch.no_grad():
            out = model.module_(torch.as_tensor(X[:4], dtype=torch.float32))[:, 0].exp()
        np.testing.assert_allclose(model.predict(X[:4]), out.numpy(), rtol=1e-4)

    @pytest.mark.parametrize(
        ("module", "message"),
        [
            (3, "^module: got int"),
            (lambda i, o: nn.Linear(i, 7), r"^module: returned \(\d+, 7\) for \d+ rows; expected \(\d+, 1\)"),
            (lambda i, o: 3, "^module: the factory returned int"),
        ],
    )
    def test_what_cannot_be_a_module(self, module, message):
        with pytest.raises(InvalidParameterError, match=message):
            fit(module=module)


class TestBatchNorm:
    def test_one_shot_is_refused_with_a_reason(self):
        with pytest.raises(
            InvalidParameterError, match=r"^shots: one support row has no batch statistics for layer '1'"
        ) as error:
            fit(module=stack(nn.BatchNorm1d), shots=1)
        assert "\n" not in str(error.value)

    def test_a_range_starts_at_two(self, caplog):
        with caplog.at_level(logging.INFO, "fewshot"):
            fit(module=stack(nn.BatchNorm1d), shots=(1, 3))
        assert "shots: episodes start at 2 rows" in caplog.text

    def test_one_shot_of_each_of_two_classes_is_two_rows(self):
        model = fit(MAMLClassifier, module=stack(nn.BatchNorm1d), shots_per_class=1)
        assert model.adapt(X[:5], CODES[:5]).predict(X[:3]).shape == (3,)

    def test_adapting_to_one_row_is_refused(self):
        model = fit(module=stack(nn.BatchNorm1d))
        with pytest.raises(InvalidDataError, match="^X: a support of one row has no batch statistics for layer '1'"):
            model.adapt(X[:1], Y[:1])
        with pytest.raises(InvalidDataError, match="^X: a support of one row"):
            model.adapt(X[:3], Y[:3], tasks=[0, 0, 1])

    def test_the_statistics_are_those_of_the_support(self):
        """Shifting support and query alike changes nothing in front of a norm layer: the bias of that layer absorbs it."""
        net = lambda i, o: nn.Sequential(nn.BatchNorm1d(i, affine=False), nn.Linear(i, o))  # noqa: E731
        model = fit(module=net, dtype="float64")
        a = model.adapt(X[:6], Y[:6]).predict(X[6:10])
        b = model.adapt(X[:6] + 100, Y[:6]).predict(X[6:10] + 100)
        np.testing.assert_allclose(a, b, rtol=1e-6)

    def test_predictions_do_not_depend_on_the_rows_beside(self):
        adapted = fit(module=stack(nn.BatchNorm1d)).adapt(X[:6], Y[:6])
        together = adapted.predict(X[6:10])
        alone = np.concatenate([adapted.predict(X[[i]]) for i in range(6, 10)])
        np.testing.assert_allclose(alone, together, rtol=1e-7)

    def test_a_layer_with_two_names(self):
        class Shared(nn.Module):
            def __init__(self, n_in, n_out):
                super().__init__()
                norm = nn.BatchNorm1d(n_in)
                self.first, self.norm, self.head = (
                    nn.Sequential(nn.Linear(n_in, n_in), norm),
                    norm,
                    nn.Linear(n_in, n_out),
                )

            def forward(self, x):
                return self.head(self.first(x))

        assert fit(module=Shared).adapt(X[:6], Y[:6]).predict(X[:2]).shape == (2,)


@pytest.mark.parametrize(
    ("adapted", "moved"),
    [("head", {"2.weight", "2.bias"}), ("body", {"0.weight", "0.bias"}), (["*.bias"], {"0.bias", "2.bias"})],
)
@pytest.mark.parametrize("learn", [None, "parameter", False])
def test_parts_that_adapt(adapted, moved, learn):
    net = lambda i, o: nn.Sequential(nn.Linear(i, 5), nn.Tanh(), nn.Linear(5, o))  # noqa: E731
    model = fit(module=net, adapted=adapted, learn_step_sizes=learn)
    found = model.adapt(X[:5], Y[:5])._adapted.tasks.moving
    assert set(found) == moved == set(model._parameters.moving)
    assert all(not torch.equal(v[0], model._parameters.moving[k]) for k, v in found.items())
    assert set(model._parameters.shared) == {"0.weight", "0.bias", "2.weight", "2.bias"} - moved
    start = net(X.shape[1], 1)
    assert set(dict(start.named_parameters())) == moved | set(model._parameters.shared)


def test_several_outputs():
    two = np.column_stack([Y, 10 * X[:, 0] + 100])
    model = fit(y=two, module=stack(nn.LayerNorm))
    adapted = model.adapt(X[:5], two[:5])
    out = adapted.predict(X[5:10])
    assert out.shape == (5, 2)
    assert abs(out[:, 1].mean() - 100) < 30 and abs(out[:, 0].mean()) < 30  # each in its own units
    with pytest.raises(InvalidDataError, match=r"^y: got shape \(5,\); expected \(rows, 2\)"):
        model.adapt(X[:5], Y[:5])


class Mixing(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.body, self.head = nn.Linear(n_in, 6), nn.Linear(6, n_out)

    def forward(self, x):
        h = torch.tanh(self.body(x))
        return self.head(h - h.mean(0))


class TestModulesThatMixRows:
    def test_padding_is_refused(self):
        with pytest.raises(VerificationError, match="mixes the rows of a batch; use engine='loop'"):
            fit(module=Mixing)

    def test_trained_without_padding_it_adapts_to_ragged_tasks_as_to_each_alone_or_refuses(self):
        """Nothing was padded in training, so the check had nothing to find; adapting many ragged tasks at once pads."""
        try:
            model = fit(module=Mixing, shots=5, queries=5, early_stopping=False)
        except VerificationError:
            return
        rows = np.r_[0:3, 10:19]
        many = model.adapt(X[rows], Y[rows], tasks=TASKS[rows])
        alone = model.adapt(X[:3], Y[:3])
        for k, v in many._adapted.tasks.moving.items():
            torch.testing.assert_close(v[0], alone._adapted.tasks.moving[k][0], rtol=1e-4, atol=1e-5)

    def test_the_loop_takes_it(self):
        model = fit(module=Mixing, engine="loop")
        rows = np.r_[0:3, 10:19]
        many, alone = model.adapt(X[rows], Y[rows], tasks=TASKS[rows]), model.adapt(X[:3], Y[:3])
        for k, v in many._adapted.tasks.moving.items():
            torch.testing.assert_close(v[0], alone._adapted.tasks.moving[k][0], rtol=1e-4, atol=1e-5)


def test_a_module_that_always_draws_is_reproducible_or_refused():
    """Dropout that evaluation mode does not switch off: the self-check must not call it a wrong derivative."""

    class Always(nn.Module):
        def __init__(self, n_in, n_out):
            super().__init__()
            self.body, self.head = nn.Linear(n_in, 6), nn.Linear(6, n_out)

        def forward(self, x):
            return self.head(nn.functional.dropout(torch.tanh(self.body(x)), 0.5, training=True))

    model = fit(module=Always, engine="loop")
    state = torch.get_rng_state()
    a, b = model.adapt(X[:20], Y[:20], tasks=TASKS[:20]), model.adapt(X[:20], Y[:20], tasks=TASKS[:20])
    for k, v in a._adapted.tasks.moving.items():
        assert torch.equal(v, b._adapted.tasks.moving[k])
    assert torch.equal(torch.get_rng_state(), state)


class TestResuming:
    def make(self, module=None, **options):
        module = module or stack(lambda n: nn.Dropout(0.3))
        settings = {**SETTINGS, "max_iter": 8, **options}
        return MAMLRegressor(module=module, **settings)

    def interrupted(self, model, at):
        from fewshot.episodes import EpisodeSampler

        sample, calls = EpisodeSampler.sample, []

        def broken(self, n_tasks, rng):
            calls.append(n_tasks)
            if calls.count(SETTINGS["tasks_per_batch"]) == at:
                raise KeyboardInterrupt
            return sample(self, n_tasks, rng)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(EpisodeSampler, "sample", broken)
            with pytest.raises(KeyboardInterrupt):
                model.fit_meta(X, Y, tasks=TASKS)
        return model

    @pytest.mark.parametrize("at", [1, 4, 8])
    def test_an_interrupted_fit_goes_on_as_if_nothing_had_happened(self, at):
        whole = self.make().fit_meta(X, Y, tasks=TASKS)
        broken = self.interrupted(self.make(warm_start=True), at)
        assert broken.n_iter_ == at - 1
        assert broken.adapt(X[:5], Y[:5]).predict(X[:2]).shape == (2,)  # usable as it is
        broken.fit_meta(X, Y, tasks=TASKS)
        assert broken.n_iter_ == 8 and same(tensors(broken), tensors(whole))
        columns = ["iteration", "validation_loss", "skipped"]
        assert broken.history_[columns].equals(whole.history_[columns])

    def test_also_in_another_process(self):
        module = nn.Sequential(nn.Linear(X.shape[1], 6), nn.Dropout(0.3), nn.Tanh(), nn.Linear(6, 1))
        whole = self.make(module).fit_meta(X, Y, tasks=TASKS)
        broken = pickle.loads(pickle.dumps(self.interrupted(self.make(module, warm_start=True), 5)))
        broken.fit_meta(X, Y, tasks=TASKS)
        assert same(tensors(broken), tensors(whole))

    def test_without_warm_start_it_starts_over(self):
        broken = self.interrupted(self.make(), 5)
        broken.fit_meta(X, Y, tasks=TASKS)
        assert same(tensors(broken), tensors(self.make().fit_meta(X, Y, tasks=TASKS)))

    def test_an_unadapted_interrupted_batch_norm_model_predicts(self):
        broken = self.interrupted(self.make(stack(nn.BatchNorm1d), warm_start=True), 5)
        shifted = self.make(stack(nn.BatchNorm1d)).fit_meta(X, Y, tasks=TASKS)
        assert np.isfinite(broken.predict(X[:3])).all() and np.isfinite(shifted.predict(X[:3])).all()

    def test_warm_start_on_new_tasks_does_not_start_over(self):
        other_X, other_Y, _ = table(seed=5)
        model = self.make(warm_start=True, early_stopping=False, outer_lr=1e-9)
        model.fit_meta(X, Y, tasks=TASKS)
        first, mean = tensors(model), model._target_mean.copy()
        cold = self.make(early_stopping=False, outer_lr=1e-9, random_state=3).fit_meta(other_X, other_Y, tasks=TASKS)
        model.set_params(random_state=3).fit_meta(other_X, other_Y, tasks=TASKS)
        for k, v in tensors(model).items():
            torch.testing.assert_close(v, first[k], rtol=1e-5, atol=1e-6)
        assert not same(tensors(cold), tensors(model))
        assert (model._target_mean == mean).all() and model.n_iter_ == 8

    def test_warm_start_checks_what_it_continues(self):
        model = self.make(warm_start=True).fit_meta(X, Y, tasks=TASKS)
        with pytest.raises(ValueError, match="features"):
            model.fit_meta(X[:, :3], Y, tasks=TASKS)


def test_one_task_only_is_cut_into_episodes_with_a_warning():
    with pytest.warns(UserWarning, match="^tasks: not given"):
        model = MAMLRegressor(**SETTINGS).fit_meta(X, Y)
    assert model.adapt(X[:5], Y[:5]).predict(X[:2]).shape == (2,)


def test_fitting_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit()
