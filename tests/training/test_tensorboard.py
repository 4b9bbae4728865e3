"""TensorBoard: what its own reader finds against histories."""

import math
import pickle
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA

from fewshot import MAMLClassifier, MAMLRegressor
from fewshot.applications.rl import MAMLPolicy, PointNavigation
from fewshot.errors import InvalidParameterError, MissingDependencyError
from fewshot.training import TensorBoardCallback

SETTINGS = {"algorithm": "maml", "base": None, "max_iter": 8, "hidden": (4,), "random_state": 0, "engine": "vectorized"}
rng = np.random.default_rng(0)
X = rng.normal(size=(80, 2)).astype(np.float32)
TASKS = np.repeat(np.arange(8), 10)
Y = X[:, 0] * (TASKS - 3)


@pytest.fixture
def read():
    pytest.importorskip("tensorboard", reason="the extra tracking brings it")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def curves(folder):
        """By tag, what a folder holds: steps and values."""
        found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}

    return curves


@pytest.mark.parametrize("estimator, y", [(MAMLRegressor, Y), (MAMLClassifier, (Y > 0).astype(int))])
def test_supervised(read, tmp_path, estimator, y):
    model = estimator(**SETTINGS).set_callbacks(TensorBoardCallback(tmp_path)).fit_meta(X, y, tasks=TASKS)
    found = read(tmp_path / f"{estimator.__name__}-1")
    for name in ("loss", "skipped", "seconds"):
        expected = list(zip(model.history_["iteration"], np.float32(model.history_[name]), strict=True))
        assert found[f"by_iteration/{name}"] == expected
    assert len(model.history_) == 8 and math.isnan(model.history_["validation_loss"].iloc[0])
    assert set(found) == {"by_iteration/loss", "by_iteration/skipped", "by_iteration/seconds"}  # NaN is left out


def test_policies(read, tmp_path):
    family = PointNavigation(horizon=10)
    settings = {"tasks_per_batch": 3, "episodes": 4, "hidden": (8,), "random_state": 0}
    policy = MAMLPolicy(**settings).set_callbacks(TensorBoardCallback(tmp_path)).fit_meta(family, total_env_steps=1000)
    found, history = read(tmp_path / "MAMLPolicy-1"), policy.history_
    assert len(history) > 2
    for name in ("return_0", "return_1", "kl"):
        assert found[f"by_iteration/{name}"] == list(zip(history["iteration"], np.float32(history[name]), strict=True))
        steps = [step for step, _ in found[f"by_env_steps/{name}"]]
        assert np.diff(steps).tolist() == history["env_steps"].tolist()[1:] and steps[-1] == policy.n_env_steps_
    assert "by_iteration/env_steps" not in found and "by_iteration/iteration" not in found


def test_rows_come_while_training_goes_on(read, tmp_path):
    class Reading:
        lengths = []

        def setup(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...
        def teardown(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context):
            if context.task_name == "round":
                self.lengths.append(len(read(tmp_path / "MAMLRegressor-1")["by_iteration/loss"]))

    MAMLRegressor(**SETTINGS).set_callbacks(TensorBoardCallback(tmp_path), Reading()).fit_meta(X, Y, tasks=TASKS)
    assert Reading.lengths == list(range(1, 9))


def test_every_fit_is_a_run(read, tmp_path):
    model = MAMLRegressor(**SETTINGS).set_callbacks(TensorBoardCallback(tmp_path / "new" / "runs"))
    model.fit_meta(X, Y, tasks=TASKS)
    clone(model).fit_meta(X, Y, tasks=TASKS)
    folders = sorted(path.name for path in (tmp_path / "new" / "runs").iterdir())
    assert folders == ["MAMLRegressor-1", "MAMLRegressor-2"]
    one, two = (read(tmp_path / "new" / "runs" / name)["by_iteration/loss"] for name in folders)
    assert one == two and len(one) == 8


def test_an_interrupted_fit_is_closed_and_goes_on_as_a_whole_run(read, tmp_path):
    class Stop:
        def setup(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...
        def teardown(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context):
            if context.task_id == 3 and context.task_name == "round":
                raise KeyboardInterrupt

    callback = TensorBoardCallback(tmp_path)
    model = MAMLRegressor(warm_start=True, **SETTINGS).set_callbacks(callback, Stop())
    with pytest.raises(KeyboardInterrupt):
        model.fit_meta(X, Y, tasks=TASKS)
    assert not callback._runs and len(read(tmp_path / "MAMLRegressor-1")["by_iteration/loss"]) == 4
    model.set_callbacks(callback).fit_meta(X, Y, tasks=TASKS)
    steps = [step for step, _ in read(tmp_path / "MAMLRegressor-2")["by_iteration/loss"]]
    assert steps == list(range(1, 9))


def test_it_can_be_pickled(tmp_path):
    callback = TensorBoardCallback(tmp_path)
    callback._runs[0] = object()
    loaded = pickle.loads(pickle.dumps(callback))
    assert loaded.log_dir == tmp_path and not loaded._runs and repr(loaded) == f"TensorBoardCallback('{tmp_path}')"


def test_without_tensorboard(tmp_path, monkeypatch):
    for name in [n for n in sys.modules if n.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    model = MAMLRegressor(**SETTINGS).set_callbacks(TensorBoardCallback(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"needs the package tensorboard.*fewshot\[tracking\]"):
        model.fit_meta(X, Y, tasks=TASKS)


def test_places_that_cannot_be_used(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tracking brings it")
    taken = tmp_path / "file"
    taken.write_text("x")
    with pytest.raises(InvalidParameterError, match="log_dir: got '.*file'"):
        MAMLRegressor(**SETTINGS).set_callbacks(TensorBoardCallback(taken)).fit_meta(X, Y, tasks=TASKS)


def test_estimators_that_keep_no_history(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tracking brings it")
    callback = TensorBoardCallback(tmp_path)
    callback.setup(PCA(), None)
    other = PCA()
    callback.setup(other, None)
    with pytest.raises(InvalidParameterError, match="TensorBoardCallback: got set on PCA, which keeps no history_"):
        callback.on_fit_task_end(other, None, fitted_estimator=None)
    callback.teardown(other, None)
