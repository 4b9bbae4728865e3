"""Task sets: order, selection, padding and the errors."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.errors import InvalidDataError
from fewshot.tasks import Rows, TaskSampler, TaskSet, factorize, ranges

X = np.arange(10.0).reshape(5, 2)
Y = np.arange(5.0)
TASKS = ["b", "a", "b", "c", "a"]


def make(**columns):
    return TaskSet.from_arrays(X, Y, TASKS, **columns)


def one_line(error):
    return "\n" not in str(error.value)


class TestFromArrays:
    def test_rows_are_sorted_by_task_and_keep_their_order_within(self):
        ts = make(sample_weight=[1, 2, 3, 4, 5], time=[5, 4, 3, 2, 1])
        assert ts.labels.tolist() == ["a", "b", "c"]
        assert ts.order.tolist() == [1, 4, 0, 2, 3]
        assert ts.offsets.tolist() == [0, 2, 4, 5] and ts.sizes.tolist() == [2, 2, 1]
        assert ts.y.tolist() == [1, 4, 0, 2, 3] and ts.weight.tolist() == [2, 5, 1, 3, 4]
        assert ts.time.tolist() == [4, 1, 5, 3, 2]
        assert ts.x.tolist() == X[ts.order].tolist()
        assert (ts.n_tasks, ts.n_rows, len(ts)) == (3, 5, 3)
        assert repr(ts) == "TaskSet(3 tasks, 5 rows, 1 to 2 rows each)"

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
    def test_every_row_goes_to_its_task(self, tasks):
        n = len(tasks)
        ts = TaskSet.from_arrays(np.arange(n)[:, None], np.arange(float(n)), tasks)
        assert sorted(ts.order.tolist()) == list(range(n))
        for t, label in enumerate(ts.labels):
            rows = ts.order[ts.offsets[t] : ts.offsets[t + 1]]
            assert rows.tolist() == [i for i in range(n) if tasks[i] == label]
            assert ts.y[ts.offsets[t] : ts.offsets[t + 1]].tolist() == rows.tolist()

    @pytest.mark.parametrize(
        ("y", "expected"),
        [
            (np.arange(5), torch.int64),
            (np.arange(5, dtype=np.uint8), torch.int64),
            (np.arange(5) > 2, torch.int64),
            (np.arange(5.0), torch.float64),
            (np.arange(5, dtype=np.float32), torch.float64),
            (np.zeros((5, 2)), torch.float64),
        ],
    )
    def test_types(self, y, expected):
        ts = TaskSet.from_arrays(X, y, TASKS, dtype=torch.float64)
        assert ts.y.dtype == expected and ts.x.dtype == ts.weight.dtype == torch.float64
        assert ts.y.shape == y.shape

    def test_the_default_type_is_single_precision(self):
        assert make().x.dtype == torch.float32

    def test_inputs_may_have_more_axes(self):
        ts = TaskSet.from_arrays(np.zeros((5, 3, 4, 4)), Y, TASKS)
        assert ts.x.shape == (5, 3, 4, 4)

    def test_nothing_of_the_callers_is_changed(self):
        x, y = X.copy(), Y.copy()
        ts = TaskSet.from_arrays(x, y, [0] * 5, dtype=torch.float64)
        ts.x.zero_(), ts.y.zero_()
        assert x.tolist() == X.tolist() and y.tolist() == Y.tolist()

    def test_labels_of_a_column_vector_and_a_series(self):
        assert TaskSet.from_arrays(X, Y, np.array(TASKS)[:, None]).labels.tolist() == ["a", "b", "c"]
        series = pd.Series(TASKS, index=[9, 8, 7, 6, 5])
        assert TaskSet.from_arrays(X, Y, series).order.tolist() == [1, 4, 0, 2, 3]
        categories = pd.Series(pd.Categorical(TASKS, categories=["z", "c", "b", "a"]))
        assert set(TaskSet.from_arrays(X, Y, categories).labels) == {"a", "b", "c"}

    def test_blocks_are_compared_within_a_task(self):
        ts = make(blocks=["v1", "v1", "v1", "v1", "v2"])
        by_row = dict(zip(ts.order.tolist(), ts.blocks.tolist(), strict=True))
        assert by_row[0] == by_row[2]  # both of task b, visit 1
        assert len({by_row[0], by_row[1], by_row[3], by_row[4]}) == 4

    def test_times_may_be_timestamps_with_or_without_a_zone(self):
        days = pd.Series(pd.to_datetime(["2024-03-01", "2024-01-01", "2024-02-01", "2023-01-01", "2025-01-01"]))
        expected = np.argsort(make(time=[3, 1, 2, 0, 4]).time)
        assert np.argsort(make(time=days).time).tolist() == expected.tolist()
        assert np.argsort(make(time=days.dt.tz_localize("UTC")).time).tolist() == expected.tolist()

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"blocks": [1, 2]}, r"^blocks: got 2 values for 5 rows"),
            ({"time": [1, 2]}, r"^time: got 2 values for 5 rows"),
            ({"sample_weight": [1, 2]}, r"^sample_weight: got 2 values for 5 rows"),
            ({"blocks": [1, 2, None, 4, 5]}, r"^blocks: 1 of 5 labels are missing"),
            ({"time": [1, 2, np.nan, 4, 5]}, r"^time: 1 of 5 values are missing"),
            ({"time": list("abcde")}, r"^time: got dtype"),
        ],
    )
    def test_wrong_columns(self, columns, message):
        with pytest.raises(InvalidDataError, match=message) as error:
            make(**columns)
        assert one_line(error)

    @pytest.mark.parametrize(
        ("tasks", "message"),
        [
            ([1, 2], r"^tasks: got 2 labels for 5 rows"),
            ([1, 2, None, 4, 5], r"^tasks: 1 of 5 labels are missing"),
            ([1.0, 2.0, np.nan, np.nan, 5.0], r"^tasks: 2 of 5 labels are missing"),
            ("patient", r"^tasks: got the string 'patient'"),
            (np.zeros((5, 2)), r"^tasks: got an array of shape \(5, 2\)"),
            ([date(2024, 1, 1), 1, 2, 3, 4], r"^tasks: got labels of types date and int"),
        ],
    )
    def test_wrong_tasks(self, tasks, message):
        with pytest.raises(InvalidDataError, match=message) as error:
            TaskSet.from_arrays(X, Y, tasks)
        assert one_line(error)

    def test_wrong_lengths_and_no_rows(self):
        with pytest.raises(InvalidDataError, match=r"^y: got 3 values for 5 rows of X"):
            TaskSet.from_arrays(X, Y[:3], TASKS)
        with pytest.raises(InvalidDataError, match=r"^X: got 0 rows"):
            TaskSet.from_arrays(X[:0], Y[:0], [])

    @pytest.mark.parametrize(
        ("x", "y", "columns", "name"),
        [
            (np.full((5, 2), "a"), Y, {}, "X"),
            (X, np.array(list("abcde")), {}, "y"),
            (X, 3.0, {}, "y"),
            (X, Y, {"sample_weight": 3.0}, "sample_weight"),
        ],
        ids=["text X", "text y", "scalar y", "scalar weight"],
    )
    def test_what_is_no_numbers_is_refused_by_name(self, x, y, columns, name):
        with pytest.raises(InvalidDataError, match=f"^{name}: ") as error:
            TaskSet.from_arrays(x, y, TASKS, **columns)
        assert one_line(error)


class TestFromFrame:
    frame = pd.DataFrame(
        {
            "patient": [2, 1, 2],
            "visit": ["a", "a", "b"],
            "when": [3.0, 1.0, 2.0],
            "dose": [0.1, 0.2, 0.3],
            "sex": ["f", "m", "f"],
            "w": [1.0, 2.0, 3.0],
            "effect": [5.0, 6.0, 7.0],
            "other": [1, 2, 3],
        }
    )

    def test_columns_go_to_their_roles_and_time_stays_an_input(self):
        frame = self.frame.drop(columns="sex")
        ts = TaskSet.from_frame(frame, target="effect", tasks="patient", blocks="visit", time="when", sample_weight="w")
        assert ts.x.tolist() == torch.tensor([[1.0, 0.2, 2], [3, 0.1, 1], [2, 0.3, 3]]).tolist()
        assert ts.y.tolist() == [6, 5, 7] and ts.weight.tolist() == [2, 1, 3] and ts.time.tolist() == [1, 3, 2]
        assert len(set(ts.blocks.tolist())) == 3

    def test_chosen_features_and_several_targets(self):
        ts = TaskSet.from_frame(self.frame, target=["effect", "other"], tasks="patient", features=["dose"])
        assert ts.x.shape == (3, 1) and ts.y.tolist() == [[6, 2], [5, 1], [7, 3]]

    def test_one_target_in_a_list_keeps_its_axis(self):
        assert TaskSet.from_frame(self.frame, target=["effect"], tasks="patient", features=["dose"]).y.shape == (3, 1)

    @pytest.mark.parametrize("role", ["target", "tasks", "blocks", "time", "sample_weight", "features"])
    def test_an_unknown_column(self, role):
        roles = {"target": "effect", "tasks": "patient", "features": ["dose"]}
        roles[role] = ["nope"] if role == "features" else "nope"
        with pytest.raises(
            InvalidDataError, match=f"^{role}: no column 'nope'; the columns are: patient, visit"
        ) as error:
            TaskSet.from_frame(self.frame, **roles)
        assert one_line(error)

    def test_a_column_that_is_not_numeric(self):
        with pytest.raises(InvalidDataError, match=r"^features: column\(s\) 'visit', 'sex' are not numeric") as error:
            TaskSet.from_frame(self.frame, target="effect", tasks="patient")
        assert one_line(error)

    def test_a_target_that_is_not_numeric_is_refused_by_name(self):
        with pytest.raises(InvalidDataError, match="^(target|y): "):
            TaskSet.from_frame(self.frame, target="sex", tasks="patient", features=["dose"])


class TestSelectAndRows:
    ts = TaskSet.from_arrays(X, Y, TASKS, blocks=[0, 1, 2, 3, 4], time=[9, 8, 7, 6, 5], sample_weight=[1, 2, 3, 4, 5])

    def test_select_keeps_the_given_order_and_every_column(self):
        part = self.ts.select([2, 0])
        assert part.labels.tolist() == ["c", "a"] and part.sizes.tolist() == [1, 2]
        assert part.order.tolist() == [3, 1, 4] and part.y.tolist() == [3, 1, 4]
        assert part.weight.tolist() == [4, 2, 5] and part.time.tolist() == [6, 8, 5]
        assert len(set(part.blocks.tolist())) == 3
        assert part.x.tolist() == X[[3, 1, 4]].tolist()

    def test_a_task_selected_twice_has_blocks_of_its_own_each_time(self):
        ts = TaskSet.from_arrays(X[:4], Y[:4], [0, 0, 1, 1], blocks=[0, 0, 0, 1])
        assert ts.select([1, 0, 0]).blocks.tolist() == [0, 1, 2, 2, 3, 3]

    def test_select_carries_extra_columns(self):
        import dataclasses

        ts = dataclasses.replace(self.ts, extra={"e": torch.arange(5)})
        assert ts.select([1]).extra["e"].tolist() == [2, 3]
        assert ts.rows([1, 2]).extra["e"].tolist() == [[2, 3], [4, 0]]

    def test_rows_are_padded_with_weight_zero(self):
        rows = self.ts.rows([2, 0])
        assert isinstance(rows, Rows)
        assert rows.weight.tolist() == [[4, 0], [2, 5]]
        assert rows.y[0, 0] == 3 and rows.y[1].tolist() == [1, 4]
        assert rows.x[1].tolist() == X[[1, 4]].tolist() and bool(rows.x.isfinite().all())

    def test_no_tasks(self):
        assert self.ts.rows([]).x.shape == (0, 1, 2)
        assert self.ts.select([]).n_rows == 0 and repr(self.ts.select([])) == "TaskSet(0 tasks, 0 rows, no rows)"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=10))
def test_ranges(pairs):
    starts, lengths = (np.array([p[i] for p in pairs], dtype=np.int64) for i in (0, 1))
    assert ranges(starts, lengths).tolist() == [v for s, n in pairs for v in range(s, s + n)]


def test_factorize_sorts():
    labels, codes = factorize("tasks", [30, 10, 30], 3)
    assert labels.tolist() == [10, 30] and codes.tolist() == [1, 0, 1] and codes.dtype == np.int64


def test_a_sampler_is_known_by_its_method():
    class Sampler:
        def sample(self, n_tasks, rng):
            return None

    assert isinstance(Sampler(), TaskSampler) and not isinstance(np.zeros(3), TaskSampler)
