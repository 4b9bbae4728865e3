"""Groups: what they are made of, and what is said of a group that was not there."""

import numpy as np
import pandas as pd
import pytest

from fewshot.applications.fairness.groups import UNKNOWN, Groups
from fewshot.errors import InvalidDataError


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, lambda s: pd.DataFrame({"sex": s})])
def test_one_feature(kind):
    groups = Groups.learn(kind(["m", "f", "m"]), 3)
    assert groups.titles == ["f", "m"] and len(groups) == 2
    assert groups.codes(kind(["f", "f", "m"]), 3).tolist() == [0, 0, 1]


def test_features_are_crossed_and_only_what_occurs_is_a_group():
    frame = pd.DataFrame({"sex": ["m", "f", "f"], "race": [1, 1, 2]})
    groups = Groups.learn(frame, 3)
    assert groups.titles == ["f / 1", "f / 2", "m / 1"]
    assert groups.codes(frame.iloc[::-1], 3).tolist() == [1, 0, 2]
    with pytest.raises(InvalidDataError, match="group 'm / 2' did not occur in training.*f / 1, f / 2, m / 1"):
        groups.codes(pd.DataFrame({"sex": ["m"], "race": [2]}), 1)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_is_a_group_of_its_own(missing):
    groups = Groups.learn(pd.Series(["m", missing, "f"], dtype=object), 3)
    assert UNKNOWN in groups.titles and len(groups) == 3
    assert groups.codes(pd.Series([missing], dtype=object), 1).tolist() == [groups.titles.index(UNKNOWN)]


def test_numbers_stay_the_same_group_whatever_their_type():
    groups = Groups.learn(np.array([0, 1, 1]), 3)
    assert groups.codes([1.0, 0.0], 2).tolist() == [1, 0]
    assert groups.codes(np.array([True, False]), 2).tolist() == [1, 0]


def test_lists_keep_what_is_missing_and_what_is_a_number():
    assert Groups.learn(["a", "b", np.nan], 3).titles == ["a", "b", "unknown"]
    groups = Groups.learn([["a", 1], ["b", 0]], 2)
    assert groups.codes(pd.DataFrame({"x": ["b", "a"], "y": [0, 1]}), 2).tolist() == [1, 0]


def test_columns_of_a_frame_go_by_their_names():
    frame = pd.DataFrame({"sex": [0, 0, 1, 1], "black": [0, 1, 0, 1]})
    groups = Groups.learn(frame, 4)
    assert groups.codes(frame[["black", "sex"]], 4).tolist() == groups.codes(frame, 4).tolist() == [0, 1, 2, 3]
    assert groups.codes(frame.to_numpy(), 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(InvalidDataError, match="^sensitive_features: got the features sex, race, expected sex, black"):
        groups.codes(frame.rename(columns={"black": "race"}), 4)


def test_what_to_do_about_a_group_that_was_not_there():
    for learned, given, message in (
        (["a", "b"], [None], "a row without a value did not occur in training, where the groups were a, b; fill it in"),
        (["a", None], ["c"], "group 'c' did not occur .* mark it as missing"),
        (["a", "b"], ["c"], "group 'c' did not occur .* leave its rows out"),
    ):
        with pytest.raises(InvalidDataError, match=message):
            Groups.learn(learned, 2).codes(given, 1)


def test_mistakes():
    with pytest.raises(InvalidDataError, match="^sensitive_features: '1' stands for two groups"):
        Groups.learn([1, "1"], 2)
    groups = Groups.learn(["a", "b"], 2)
    with pytest.raises(InvalidDataError, match="^sensitive_features: got 2 rows for 3 rows of features"):
        groups.codes(["a", "b"], 3)
    with pytest.raises(InvalidDataError, match="^sensitive_features: group 'c' did not occur"):
        groups.codes(["c"], 1)
    with pytest.raises(InvalidDataError, match=r"^sensitive_features: got 2 feature\(s\), expected 1"):
        groups.codes(pd.DataFrame({"a": ["a"], "b": ["b"]}), 1)
