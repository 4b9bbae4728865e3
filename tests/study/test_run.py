import numpy as np
import pandas as pd
import pytest

from fewshot.baselines import PooledModel, SupportMean, default_baselines
from fewshot.errors import FewShotError, InvalidParameterError
from fewshot.study import StudySettings, run_study, study_data
from fewshot.study.run import preparation, split_tasks

FAST = {"shots": (0, 1, 3), "draws": 2, "max_iter": 3}


@pytest.fixture
def two_baselines(monkeypatch):
    def few(kind, random_state=None):
        found = default_baselines(kind, random_state)
        linear = "pooled ridge" if kind == "regression" else "pooled logistic"
        return {linear: PooledModel(found[linear].estimator), "support mean": SupportMean(kind)}

    monkeypatch.setattr("fewshot.study.run.default_baselines", few)


def table(n_tasks=12, n_rows=8):
    rng = np.random.default_rng(0)
    task = np.repeat(np.arange(n_tasks), n_rows)
    x = rng.normal(size=len(task))
    return pd.DataFrame(
        {
            "site": [f"s{i:02d}" for i in task],
            "x": np.where(rng.random(len(task)) < 0.2, np.nan, x),
            "colour": rng.choice(["red", "green"], len(task)),
            "visit": np.tile(np.arange(n_rows), n_tasks),
            "y": x + task + 0.1 * rng.normal(size=len(task)),
            "label": np.where(x > 0, "high", "low"),
        }
    )


@pytest.mark.parametrize("folds", [None, 3])
def test_tasks_are_divided_in_three(folds):
    splits = list(split_tasks(np.arange(20), StudySettings(folds=folds)))
    assert len(splits) == (folds or 1)
    for parts in splits:
        assert sorted(np.concatenate(parts)) == list(range(20))
        assert min(map(len, parts)) >= 1
    if folds:
        assert sorted(np.concatenate([s[2] for s in splits])) == list(range(20))


def test_preparation_fills_marks_and_scales():
    data = study_data(table(), "site", "y", drop=["label"])
    out = preparation(data).fit_transform(data.X)
    assert out.shape == (96, 5)  # x, visit, whether x is missing, two colours
    assert np.isfinite(out).all()
    np.testing.assert_allclose(out[:, :3].std(0), 1.0)


def test_a_study_of_both_protocols(two_baselines):
    data = study_data(table(), "site", "y", drop=["label"], time="visit")
    told = []
    result = run_study(data, StudySettings(**FAST), lambda *said: told.append(said))
    assert result.protocols == ["random", "first"]
    assert list(dict.fromkeys(result.summary["method"])) == ["fewshot", "pooled ridge", "support mean"]
    assert set(result.summary["shots"]) == {0, 1, 3}
    assert result.sizes == (6, 2, 4)
    assert len(result.comparison) == 4
    test = result.scores[result.scores["part"] == "test"]
    assert test.groupby("method")["task"].nunique().eq(4).all()
    assert result.scores["error"].ge(0).all()
    # All methods were shown the same supports, and every task was judged as often.
    assert test.groupby(["protocol", "method"]).size().groupby("protocol").nunique().eq(1).all()
    assert test.loc[test["protocol"] == "first", "draw"].eq(0).all(), "the first rows are always the same"
    done = [d for _, d, _ in told]
    assert done == sorted(done)
    assert told[-1][0] == "done"
    assert told[-1][1] == told[-1][2]


def test_the_same_seed_gives_the_same_numbers(two_baselines):
    data = study_data(table(), "site", "y", drop=["label"])
    first, second = (run_study(data, StudySettings(**FAST, seed=1)) for _ in range(2))
    pd.testing.assert_frame_equal(first.scores, second.scores)


def test_classification_with_folds_and_a_rare_class(two_baselines):
    frame = table()
    frame.loc[:1, "label"] = "odd"  # in one task only: where that task is not for training, nobody knows the class
    data = study_data(frame, "site", "label", drop=["y"])
    result = run_study(data, StudySettings(**FAST, folds=3))
    assert result.scores["error"].between(0, 1).all()
    assert result.scores.loc[result.scores["part"] == "test", "task"].nunique() == 12
    assert any("classes that no training task has (odd)" in note for note in result.notes)


def test_block_rows_and_sizes_that_are_too_large(two_baselines):
    frame = table().assign(visit=np.tile(np.repeat(np.arange(4), 2), 12))
    data = study_data(frame, "site", "y", block="visit", drop=["label"])
    result = run_study(data, StudySettings(shots=(1, 50), draws=1, max_iter=3))
    assert set(result.summary["shots"]) == {1}
    assert any("large enough for 50 shots" in note for note in result.notes)


def test_all_sizes_too_large():
    data = study_data(table(), "site", "y", drop=["label"])
    with pytest.raises(FewShotError, match="shots: 50 support row"):
        run_study(data, StudySettings(shots=(50,), max_iter=3))


@pytest.mark.parametrize(
    "settings",
    [
        {"shots": (0,)},
        {"shots": ()},
        {"shots": (1, 1)},
        {"shots": (-1, 2)},
        {"draws": 0},
        {"test_share": 1.0},
        {"folds": 1},
        {"folds": 13},
        {"seed": -1},
        {"max_iter": 0},
    ],
)
def test_settings_out_of_range(settings):
    data = study_data(table(), "site", "y", drop=["label"])
    with pytest.raises(InvalidParameterError, match=next(iter(settings))):
        run_study(data, StudySettings(**settings))
