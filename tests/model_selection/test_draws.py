"""Supports and queries: nested, apart from one another by blocks, and the same for everybody."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.baselines._table import Table
from fewshot.errors import InvalidDataError, InvalidParameterError
from fewshot.model_selection._draws import Shots, draw_tasks, seed_of

SIZES = [9, 12, 5, 20]
TASKS = np.repeat(["p", "q", "r", "s"], SIZES)
N = len(TASKS)
X = np.arange(N, dtype=float)[:, None]
BLOCKS = np.arange(N) // 3  # also across tasks: compared within a task only
EVERYONE = np.ones(4, dtype=bool)


def drawn(shots=(0, 1, 2, 4), rows=slice(None), seed=0, support="random", classes=None, **columns):
    table = Table.read(X[rows], np.zeros(len(X[rows])), TASKS[rows], **columns)
    per_class = None if classes is None else list(shots)
    return table, draw_tasks(table, Shots.read(list(shots), per_class), 3, support, seed, classes)


def rows_of(table, draws, draw, k, tasks=EVERYONE):
    return tuple(table.X[part, 0].astype(int) for part in draws.split(draw, k, tasks[: len(table.labels)]))


@pytest.mark.parametrize("blocks", [None, BLOCKS])
def test_supports_have_k_rows_are_nested_and_share_no_block_with_the_query(blocks):
    table, draws = drawn(blocks=blocks)
    for draw in range(3):
        before = set()
        for k in (0, 1, 2, 4):
            support, query = rows_of(table, draws, draw, k)
            np.testing.assert_array_equal(np.bincount(table.codes[support], minlength=4), k * draws.included(k))
            large = draws.included(k)[table.codes]
            assert {row for row in before if large[row]} <= set(support)
            before = set(support)
            groups = list(zip(TASKS, np.arange(N) if blocks is None else blocks, strict=True))
            touched = {groups[row] for row in support}
            assert set(query) == {row for row in range(N) if large[row] and groups[row] not in touched}
            assert (np.diff(table.codes[query]) >= 0).all()


def test_a_draw_depends_on_seed_label_and_number_only():
    table, draws = drawn()
    without_q, fewer = drawn(rows=TASKS != "q")
    reversed_table, again = drawn(shots=(2,))
    other_seed = drawn(seed=1)[1]
    for draw in range(3):
        support, _ = rows_of(table, draws, draw, 2)
        kept = support[TASKS[support] != "q"]
        assert set(rows_of(without_q, fewer, draw, 2)[0]) == set(kept)
        assert set(rows_of(reversed_table, again, draw, 2)[0]) == set(support)
        only_s = np.array([False, False, False, True])
        assert set(rows_of(table, draws, draw, 2, only_s)[0]) == set(support[TASKS[support] == "s"])
        assert set(rows_of(table, other_seed, draw, 2)[0]) != set(support)
    assert set(rows_of(table, draws, 0, 2)[0]) != set(rows_of(table, draws, 1, 2)[0])


def test_first_rows_in_time():
    table, draws = drawn(support="first", time=-np.arange(N))
    support, query = rows_of(table, draws, 0, 2)
    last = np.cumsum(SIZES)
    assert set(support) == {*(last - 1), *(last - 2)}
    assert set(query) == set(range(N)) - set(support)


def test_first_blocks_in_time_cut_k_instead_of_leaving_tasks_out():
    table, draws = drawn(shots=(1, 4), support="first", time=np.arange(N), blocks=np.arange(N) // 2)
    assert draws.left_out() == {1: 0, 4: 0}
    support, query = rows_of(table, draws, 0, 4)
    counts = np.bincount(table.codes[support])
    blocks = [len(np.unique((np.arange(N) // 2)[t == TASKS])) for t in "pqrs"]
    assert counts.tolist() == [min(4, max(b - 3, 1)) for b in blocks]
    for code in range(4):
        assert support[table.codes[support] == code].max() < query[table.codes[query] == code].min()


def test_tasks_too_small_are_counted_with_one_warning():
    _, draws = drawn(shots=(4, 5, 12))
    with pytest.warns(UserWarning, match="left out: 1 of 4 for shots=5, 3 of 4 for shots=12") as caught:
        assert draws.left_out() == {4: 0, 5: 1, 12: 3}
    assert len(caught) == 1


def test_all_tasks_too_small_is_an_error():
    with pytest.raises(InvalidDataError, match=r"shots: 20 support row\(s\) leave none of the 4 task"):
        drawn(shots=(20, 50))[1].left_out()


def test_shots_per_class_leave_a_row_of_each_class_to_the_query():
    classes = np.arange(N) % 2
    classes[TASKS == "r"] = [0, 0, 0, 0, 1]
    table, draws = drawn(shots=(2, 4), classes=classes)
    support, query = rows_of(table, draws, 0, 2)
    for code, task in enumerate("pqrs"):
        in_support = np.bincount(classes[support[table.codes[support] == code]], minlength=2)
        assert in_support.tolist() == ([2, 1] if task == "r" else [2, 2])
    assert draws.included(2).all()
    assert draws.included(4).tolist() == [True, True, False, True]
    assert len(set(support) & set(query)) == 0


@pytest.mark.parametrize("value", [-1, 1.5, "3", [], [1, 1], [2, -1], True, [[1]]])
@pytest.mark.parametrize("name", ["shots", "shots_per_class"])
def test_support_sizes_are_checked(name, value):
    with pytest.raises(InvalidParameterError, match=f"{name}: got .*; expected a number of support rows"):
        Shots.read(**{"shots": 1, "shots_per_class": None, name: value})


def test_other_settings_are_checked():
    with pytest.raises(InvalidParameterError, match="support: got 'last'; expected 'random' or 'first'"):
        drawn(support="last")
    with pytest.raises(InvalidParameterError, match="needs time="):
        drawn(support="first")
    with pytest.raises(InvalidParameterError, match="shots_per_class: cannot be combined"):
        drawn(support="first", time=np.arange(N), classes=np.arange(N) % 2)
    with pytest.raises(InvalidParameterError, match="draws: got 0"):
        draw_tasks(drawn()[0], Shots.read(1, None), 0, "random", 0)


def test_seeds():
    assert seed_of(7) == 7
    assert seed_of(np.random.RandomState(0)) == seed_of(np.random.RandomState(0))
    assert seed_of(None) != seed_of(None)
