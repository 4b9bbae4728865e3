import numpy as np
import pandas as pd
import pytest

from fewshot.errors import InvalidDataError, InvalidParameterError
from fewshot.study import study_data


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    n = 120
    task = np.repeat(np.arange(12), 10)
    x = rng.normal(size=n)
    return pd.DataFrame(
        {
            "Unnamed: 0": np.arange(n),
            "site": [f"s{i}" for i in task],
            "site_number": task + 100,
            "x": np.where(rng.random(n) < 0.2, np.nan, x),
            "age": rng.integers(20, 90, n),
            "beds": np.array([30, 900, 55, 410, 77, 1200, 19, 64, 333, 150, 275, 808])[task],
            "on": rng.random(n) < 0.5,
            "colour": rng.choice(["red", "green", None], n),
            "count": rng.integers(0, 9, n).astype(str),
            "comment": [f"text {i}" for i in range(n)],
            "date": pd.date_range("2020-01-01", periods=n).strftime("%Y-%m-%d"),
            "stamp": pd.date_range("2020-01-01", periods=n),
            "constant": 7,
            "label": np.where(x > 0, "high", "low"),
            "visit": np.tile(np.arange(5), 24),
            "y": x + task,
        }
    )


def notes(data):
    return "\n".join(data.notes)


def test_columns_by_kind(frame):
    data = study_data(frame, "site", "y", drop=["label"], name="t.csv")
    assert data.kind == "regression"
    assert data.numeric == ["x", "age", "beds", "on", "count", "visit"]
    assert data.text == ["colour"]
    assert set(data.X["colour"]) == {"red", "green", "(missing)"}
    assert data.X[data.numeric].dtypes.eq("float64").all()
    said = notes(data)
    for part in (
        "identifiers): Unnamed: 0, site_number",
        "free text): comment",
        "dates): date, stamp",
        "throughout): constant",
    ):
        assert part in said
    assert "Taken for regression" in said
    assert dict(data.facts())["Missing"].startswith("x ")


def test_roles_are_never_inputs(frame):
    data = study_data(frame, "site", "y", block="visit", time="stamp", drop=["label"])
    assert not {"site", "y", "visit", "stamp"} & set(data.X.columns)
    assert data.blocks.tolist() == frame["visit"].tolist()
    np.testing.assert_allclose(np.diff(data.time), 1.0)


def test_times(frame):
    assert "visit" in study_data(frame, "site", "y", time="visit").numeric, "a numeric time is an input"
    np.testing.assert_allclose(np.diff(study_data(frame, "site", "y", time="date").time), 1.0)
    with pytest.raises(InvalidDataError, match="neither a number nor a date"):
        study_data(frame, "site", "y", time="comment")


@pytest.mark.parametrize(
    ("target", "kind", "expected"),
    [
        ("label", None, "classification"),
        ("on", None, "classification"),
        ("count", None, "regression"),
        ("visit", "classification", "classification"),
        ("y", None, "regression"),
    ],
)
def test_kind_of_target(frame, target, kind, expected):
    data = study_data(frame, "site", target, features=["age"], kind=kind)
    assert data.kind == expected
    assert ("Taken for" in notes(data)) == (kind is None)
    if expected == "regression":
        assert data.y.dtype == np.float64


def test_incomplete_rows_are_dropped_and_said(frame):
    frame.loc[:2, "y"] = [np.nan, np.inf, np.nan]
    frame.loc[5, "site"] = None
    data = study_data(frame, "site", "y")
    assert len(data.y) == len(data.X) == len(data.tasks) == 116
    assert "3 of 119 rows have no target (y)" in notes(data)
    assert "1 of 120 rows have no task (site)" in notes(data)


def test_slips_and_infinities_are_missing_values(frame):
    frame["age"] = frame["age"].astype(object).where(frame.index > 1, "?").astype(str)
    frame.loc[3, "x"] = np.inf
    data = study_data(frame, "site", "y")
    assert "age" in data.numeric
    assert data.X["age"].isna().sum() == 2
    assert np.isnan(data.X.loc[3, "x"])
    assert "2 texts such as '?'" in notes(data)
    assert "1 infinite values" in notes(data)


def test_task_labels(frame):
    frame["site"] = np.repeat(np.arange(12.0), 10)
    assert study_data(frame, "site", "y").tasks.dtype.kind == "i"


ERRORS = {
    "unknown task": (dict(task="Sites", target="y"), "did you mean 'site'?"),
    "unknown target": (dict(task="site", target="zzz"), "no column 'zzz'; The columns are"),
    "unknown feature": (dict(task="site", target="y", features=["ages"]), "did you mean 'age'?"),
    "unknown drop": (dict(task="site", target="y", drop=["Label"]), "did you mean 'label'?"),
    "text for regression": (dict(task="site", target="colour", kind="regression"), "is not numeric"),
    "dates": (dict(task="site", target="stamp"), "holds dates"),
    "constant": (dict(task="site", target="constant"), "nothing to predict"),
    "many classes": (dict(task="site", target="y", kind="classification"), "too many for classes"),
    "text of many values": (dict(task="site", target="comment"), "too many for classes"),
    "two tasks": (dict(task="colour", target="y"), "has 2 task"),
    "free text wished for": (dict(task="site", target="y", features=["x", "comment"]), "'comment' cannot be an input"),
    "nothing left": (dict(task="site", target="y", features=[]), "no column is left"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(frame, case):
    arguments, message = ERRORS[case]
    with pytest.raises(InvalidDataError) as caught:
        study_data(frame, **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(task="site", target="site"),
        dict(task="site", target="y", block="y"),
        dict(task="site", target="y", time="y"),
        dict(task="site", target="y", features=["x", "site"]),
        dict(task="site", target="y", kind="ranking"),
    ],
)
def test_double_roles(frame, arguments):
    with pytest.raises(InvalidParameterError):
        study_data(frame, **arguments)


def test_a_numeric_target_with_slips_is_not_guessed(frame):
    frame["count"] = frame["count"].where(frame.index > 0, "n/a")
    with pytest.raises(InvalidDataError, match="numeric but for 1 value"):
        study_data(frame, "site", "count")
