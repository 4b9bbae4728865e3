"""Invariants of episodes: what may stand where, and how often."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.episodes import EpisodeSampler, PerTaskLabels, check_shots, rank_rows
from fewshot.errors import InvalidDataError, InvalidParameterError
from fewshot.tasks import Rows, TaskSet


@st.composite
def task_sets(draw, blocks=None, classes=3, smallest=1):
    """A task set whose x is the row's position in it, so that every drawn row can be recognised."""
    sizes = draw(st.lists(st.integers(smallest, 12), min_size=1, max_size=6))
    n = sum(sizes)
    tasks = np.repeat(np.arange(len(sizes)), sizes)
    y = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
    has_blocks = draw(st.booleans()) if blocks is None else blocks
    codes = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))) if has_blocks else None
    time = np.array(draw(st.lists(st.integers(0, 6), min_size=n, max_size=n)), dtype=float)
    return TaskSet.from_arrays(np.arange(n)[:, None], y, tasks, blocks=codes, time=time)


RNG = st.integers(0, 2**31).map(np.random.default_rng)
COMMON = settings(max_examples=40, deadline=None)


def members(rows: Rows, t):
    """Positions of the real rows of episode t."""
    return rows.x[t, rows.weight[t] > 0, 0].long().tolist()


def groups(ts, rows):
    return {int(ts.blocks[i]) if ts.blocks is not None else i for i in rows}


class TestRanks:
    @COMMON
    @given(task_sets(), RNG, st.sampled_from(["random", "first"]), st.data())
    def test_sides_are_disjoint_nested_and_never_share_a_block(self, ts, rng, support, data):
        per_class = support == "random" and data.draw(st.booleans())
        chosen = data.draw(st.lists(st.integers(0, ts.n_tasks - 1), min_size=1, max_size=5))
        ranks = rank_rows(ts, chosen, rng, support=support, per_class=per_class)
        assert np.bincount(ranks.segment, minlength=len(chosen)).tolist() == ts.sizes[chosen].tolist()
        owner = np.repeat(np.arange(ts.n_tasks), ts.sizes)
        assert (owner[ranks.row] == np.array(chosen)[ranks.segment]).all()
        before = np.zeros(len(ranks.row), dtype=bool)
        for k in (0, 1, 2, 3, 5, 9, 13):
            is_support, is_query = ranks.split(k)
            assert not (is_support & is_query).any()
            assert (is_support | ~before).all()  # nested
            before = is_support
            for t in range(len(chosen)):
                here = ranks.segment == t
                mine, theirs = ranks.row[here & is_support], ranks.row[here & is_query]
                assert not groups(ts, mine) & groups(ts, theirs)
                if (
                    k <= ranks.limit[t] or support == "random" or ts.blocks is None
                ):  # else more than one block is kept back
                    assert (len(theirs) > 0) == (k <= ranks.limit[t])  # the limit is the last that leaves a query row
                if not per_class and support == "random":
                    assert len(mine) == min(k, ts.sizes[chosen[t]])
                if ts.blocks is None and not per_class:  # nothing is wasted
                    assert len(mine) + len(theirs) == ts.sizes[chosen[t]]

    @COMMON
    @given(task_sets(blocks=False), RNG)
    def test_first_without_blocks_are_the_earliest_rows(self, ts, rng):
        ranks = rank_rows(ts, np.arange(ts.n_tasks), rng, support="first")
        assert (ranks.limit == ts.sizes - 1).all()
        for k in (0, 1, 3, 12):
            is_support, is_query = ranks.split(k)
            for t in range(ts.n_tasks):
                rows = np.arange(ts.offsets[t], ts.offsets[t + 1])
                in_time = rows[np.argsort(ts.time[rows], kind="stable")]  # ties keep the order of the table
                here = ranks.segment == t
                assert set(ranks.row[here & is_support]) == set(in_time[:k])
                assert set(ranks.row[here & is_query]) == set(in_time[k:])

    @COMMON
    @given(task_sets(blocks=True), RNG)
    def test_first_with_blocks_is_one_row_of_each_early_block(self, ts, rng):
        ranks = rank_rows(ts, np.arange(ts.n_tasks), rng, support="first")
        for t in range(ts.n_tasks):
            rows = np.arange(ts.offsets[t], ts.offsets[t + 1])
            codes = ts.blocks[rows]
            starts = {b: ts.time[rows[codes == b]].min() for b in set(codes)}
            n = len(starts)
            assert ranks.limit[t] == (n - 3 if n >= 5 else min(n - 1, 1))
            assert n - ranks.limit[t] >= (3 if n >= 4 else 1)
            for k in range(int(ranks.limit[t]) + 1):
                is_support, is_query = ranks.split(k)
                here = ranks.segment == t
                support, query = ranks.row[here & is_support], ranks.row[here & is_query]
                assert len(support) == k == len(groups(ts, support))
                early, late = groups(ts, support), groups(ts, query)
                assert early | late == set(codes) and not early & late
                if early and late:
                    assert max(starts[b] for b in early) <= min(starts[b] for b in late)

    def test_first_with_blocks_draws_a_random_row_of_the_block(self):
        ts = TaskSet.from_arrays(
            np.arange(20)[:, None], np.zeros(20), [0] * 20, blocks=np.repeat([0, 1], 10), time=np.arange(20)
        )
        drawn = {
            int(r.row[r.rank == 0][0])
            for r in (rank_rows(ts, [0], np.random.default_rng(s), support="first") for s in range(60))
        }
        assert len(drawn) > 5 and max(drawn) < 10

    @COMMON
    @given(task_sets(blocks=False), RNG, st.integers(0, 4))
    def test_shots_per_class(self, ts, rng, k):
        ranks = rank_rows(ts, np.arange(ts.n_tasks), rng, per_class=True)
        is_support, is_query = ranks.split(k)
        for t in range(ts.n_tasks):
            here = ranks.segment == t
            y = ts.y.numpy()[ranks.row]
            for c in range(3):
                count = int((here & (y == c)).sum())
                expected = min(k, count - 1) if count > 1 else min(k, count)
                assert int((here & is_support & (y == c)).sum()) == expected
                assert int((here & is_query & (y == c)).sum()) == count - expected

    def test_every_row_is_as_likely_to_come_first(self):
        ts = TaskSet.from_arrays(np.arange(8)[:, None], np.zeros(8), np.repeat([0, 1], 4))
        ranks = rank_rows(ts, np.tile([0, 1], 2000), np.random.default_rng(0))
        first = np.bincount(ranks.row[ranks.rank == 0], minlength=8)
        assert abs(first - 500).max() < 5 * np.sqrt(500)

    def test_first_needs_times(self):
        ts = TaskSet.from_arrays(np.zeros((4, 1)), np.zeros(4), [0] * 4)
        with pytest.raises(InvalidParameterError, match=r'^support="first" needs time='):
            rank_rows(ts, [0], np.random.default_rng(0), support="first")
        with pytest.raises(InvalidParameterError, match=r'^support="first" needs time='):
            EpisodeSampler(ts, support="first")


class TestSampler:
    @COMMON
    @given(task_sets(), st.integers(0, 2**31), st.data())
    def test_draws(self, ts, seed, data):
        kind = data.draw(st.sampled_from(["shots", "first", "shots_per_class"]))
        low = data.draw(st.integers(1, 3))
        shots = (low, data.draw(st.integers(low, 8)))
        queries = data.draw(st.sampled_from([None, 1, 3]))
        options = {"shots_per_class" if kind == "shots_per_class" else "shots": shots, "queries": queries}
        if kind == "first":
            options["support"] = "first"
        try:
            sampler = EpisodeSampler(ts, **options)
        except InvalidDataError as error:
            assert str(error).startswith("shots") and "\n" not in str(error)
            return
        assert sampler.n_left_out_ == ts.n_tasks - len(sampler.tasks_)
        n = data.draw(st.integers(1, 9))
        support, query = sampler.sample(n, np.random.default_rng(seed))
        again = sampler.sample(n, np.random.default_rng(seed))
        for a, b in zip((*support[:3], *query[:3]), (*again[0][:3], *again[1][:3]), strict=True):
            assert torch.equal(a, b)
        other = sampler.sample(n + 1, np.random.default_rng(seed + 1))
        assert other[0].x.shape[1:] == support.x.shape[1:] and other[1].x.shape[1:] == query.x.shape[1:]
        owner = np.repeat(np.arange(ts.n_tasks), ts.sizes)
        counts = np.zeros(ts.n_tasks, dtype=int)
        for t in range(n):
            mine, theirs = members(support, t), members(query, t)
            # With classes and blocks a draw may leave no query row; such an episode judges nothing.
            assert len(theirs) >= 1 or (kind == "shots_per_class" and ts.blocks is not None)
            assert len(mine) >= 1 and (queries is None or len(theirs) <= queries)
            assert len(set(mine)) == len(mine) and len(set(theirs)) == len(theirs)
            assert not groups(ts, mine) & groups(ts, theirs)
            (task,) = {int(owner[i]) for i in mine + theirs}
            assert task in sampler.tasks_
            counts[task] += 1
            if kind != "shots_per_class":
                assert len(mine) <= shots[1]
                if ts.blocks is None:
                    assert len(mine) >= low
        assert counts[sampler.tasks_].max() - counts[sampler.tasks_].min() <= 1

    @COMMON
    @given(task_sets(blocks=True), RNG, st.booleans())
    def test_an_episode_has_at_least_one_support_row(self, ts, rng, per_class):
        """A task whose rows are one block cannot give both sides, so it must be left out."""
        try:
            sampler = EpisodeSampler(ts, **({"shots_per_class": 1} if per_class else {"shots": 1}))
        except InvalidDataError:
            return
        support, _ = sampler.sample(2 * len(sampler.tasks_), rng)
        assert (support.weight > 0).any(1).all()

    def test_tasks_that_are_too_small_are_left_out_and_counted(self):
        ts = TaskSet.from_arrays(np.arange(10)[:, None], np.zeros(10), [0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
        for shots, kept in ((1, [1, 2, 3]), (2, [2, 3]), ((3, 9), [3])):
            sampler = EpisodeSampler(ts, shots=shots)
            assert sampler.tasks_.tolist() == kept and sampler.n_left_out_ == 4 - len(kept)
        assert EpisodeSampler(ts, shots=1, min_rows=4).tasks_.tolist() == [3]
        with pytest.raises(InvalidDataError, match=r"^shots: 4 support row\(s\) leave none of the 4 task\(s\)"):
            EpisodeSampler(ts, shots=4)

    def test_one_block_per_task_is_too_small(self):
        ts = TaskSet.from_arrays(
            np.arange(4)[:, None], np.zeros(4), [0, 0, 1, 1], blocks=[0, 0, 0, 0], time=[0, 1, 2, 3]
        )
        for support in ("random", "first"):
            with pytest.raises(InvalidDataError, match="in blocks that stay together"):
                EpisodeSampler(ts, shots=1, support=support)

    def test_a_range_is_drawn_from_uniformly_after_it_was_cut(self):
        ts = TaskSet.from_arrays(np.arange(20)[:, None], np.zeros(20), [0] * 4 + [1] * 16)
        support, _ = EpisodeSampler(ts, shots=(1, 6)).sample(6000, np.random.default_rng(0))
        n = (support.weight > 0).sum(1).numpy()
        small = np.array([members(support, t)[0] < 4 for t in range(6000)])
        assert np.unique(n[small], return_counts=True)[1].tolist() == pytest.approx([1000] * 3, rel=0.12)
        assert np.unique(n[~small], return_counts=True)[1].tolist() == pytest.approx([500] * 6, rel=0.2)

    def test_zero_shots_are_allowed_in_a_range(self):
        ts = TaskSet.from_arrays(np.arange(4)[:, None], np.zeros(4), [0] * 4)
        support, _ = EpisodeSampler(ts, shots=(0, 1)).sample(50, np.random.default_rng(0))
        assert set((support.weight > 0).sum(1).tolist()) == {0, 1}

    def test_weights_and_targets_come_along(self):
        ts = TaskSet.from_arrays(np.arange(6)[:, None], np.arange(6.0) * 10, [0] * 6, sample_weight=np.arange(1, 7))
        for rows in EpisodeSampler(ts, shots=2).sample(3, np.random.default_rng(0)):
            real = rows.weight > 0
            assert torch.equal(rows.y[real], rows.x[real][:, 0] * 10)
            assert torch.equal(rows.weight[real], rows.x[real][:, 0] + 1)

    def test_queries_are_a_random_part(self):
        ts = TaskSet.from_arrays(np.arange(12)[:, None], np.zeros(12), [0] * 12, time=np.arange(12))
        sampler = EpisodeSampler(ts, shots=2, queries=3, support="first")
        _, query = sampler.sample(400, np.random.default_rng(0))
        counts = np.bincount(query.x[..., 0].long().ravel().numpy(), minlength=12)
        assert not counts[:2].any() and abs(counts[2:] - 120).max() < 5 * np.sqrt(120)

    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({"shots": 0}, "shots"),
            ({"shots": -1}, "shots"),
            ({"shots": True}, "shots"),
            ({"shots": (3, 2)}, "shots"),
            ({"shots": (1, 2, 3)}, "shots"),
            ({"shots": 1.5}, "shots"),
            ({"shots": "five"}, "shots"),
            ({"shots_per_class": 0}, "shots_per_class"),
            ({"queries": 0}, "queries"),
            ({"queries": 2.0}, "queries"),
            ({"support": "last"}, "support"),
            ({"shots_per_class": 1, "support": "first"}, "shots_per_class"),
        ],
    )
    def test_wrong_settings(self, options, name):
        ts = TaskSet.from_arrays(np.zeros((4, 1)), np.zeros(4, dtype=int), [0] * 4, time=np.arange(4))
        with pytest.raises(InvalidParameterError, match=f"^{name}: ") as error:
            EpisodeSampler(ts, **options)
        assert "\n" not in str(error.value)

    def test_shots_per_class_need_classes(self):
        ts = TaskSet.from_arrays(np.zeros((4, 1)), np.array([0.5, 1.0, 2.0, 3.0]), [0] * 4)
        with pytest.raises((InvalidParameterError, InvalidDataError), match="^shots_per_class: "):
            EpisodeSampler(ts, shots_per_class=1)

    def test_check_shots(self):
        assert check_shots("shots", 3) == (3, 3) == check_shots("shots", np.int64(3))
        assert check_shots("shots", [0, 4]) == (0, 4) == check_shots("shots", np.array([0, 4]))


class TestSplitSingle:
    @COMMON
    @given(st.integers(4, 60), st.integers(1, 12), st.integers(1, 4), RNG)
    def test_parts_are_disjoint(self, n, n_tasks, shots, rng):
        ts = TaskSet.from_arrays(np.arange(n)[:, None], np.zeros(n), [0] * n)
        try:
            sampler = EpisodeSampler(ts, shots=shots, queries=3, split_single=True)
        except InvalidDataError:
            assert n <= shots
            return
        support, query = sampler.sample(n_tasks, rng)
        assert len(support.x) == max(1, min(n_tasks, n // (shots + 3)))
        drawn = [i for t in range(len(support.x)) for i in members(support, t) + members(query, t)]
        assert len(set(drawn)) == len(drawn)
        assert ((support.weight > 0).sum(1) == shots).all() and (query.weight > 0).any(1).all()

    def test_only_a_single_task_is_split_and_each_draw_anew(self):
        one = TaskSet.from_arrays(np.arange(40)[:, None], np.zeros(40), [0] * 40)
        two = TaskSet.from_arrays(np.arange(40)[:, None], np.zeros(40), np.repeat([0, 1], 20))
        assert EpisodeSampler(one, 2, 3, split_single=True).split_single
        assert not EpisodeSampler(two, 2, 3, split_single=True).split_single
        rng = np.random.default_rng(0)
        a, b = (EpisodeSampler(one, 2, 3, split_single=True).sample(4, rng)[0] for _ in range(2))
        assert not torch.equal(a.x, b.x)


class TestPerTaskLabels:
    @COMMON
    @given(task_sets(blocks=False, classes=4, smallest=2), st.integers(0, 2**31), st.integers(1, 3))
    def test_renaming(self, ts, seed, shots):
        try:
            inner = EpisodeSampler(ts, shots=shots)
        except InvalidDataError:
            return
        plain = inner.sample(6, np.random.default_rng(seed))
        support, query = PerTaskLabels(inner, 4).sample(6, np.random.default_rng(seed))
        for t in range(6):
            real = plain[0].weight[t] > 0
            old, new = plain[0].y[t][real].tolist(), support.y[t][real].tolist()
            code = dict(zip(old, new, strict=True))
            assert len(set(zip(old, new, strict=True))) == len(code)  # one new name for each old one
            assert sorted(code.values()) == list(range(len(code)))  # 0, 1, ... and no two the same
            assert support.extra["classes"][t].tolist() == [[j < len(code) for j in range(4)]] * support.y.shape[1]
            assert torch.equal(support.weight[t], plain[0].weight[t])
            for old, new, before, after in zip(
                plain[1].y[t].tolist(), query.y[t].tolist(), plain[1].weight[t], query.weight[t], strict=True
            ):
                assert after == (before if old in code else 0)
                assert new == code.get(old, 0)

    def test_names_are_random(self):
        ts = TaskSet.from_arrays(np.arange(20)[:, None], np.tile([3, 7], 10), [0] * 20)
        support, _ = PerTaskLabels(EpisodeSampler(ts, shots_per_class=1), 2).sample(200, np.random.default_rng(0))
        is_three = support.x[..., 0].long() % 2 == 0
        share = float((support.y == 0)[is_three].double().mean())
        assert 0.35 < share < 0.65

    def test_it_is_reproducible(self):
        ts = TaskSet.from_arrays(np.arange(20)[:, None], np.tile([3, 7], 10), [0] * 20)
        sampler = PerTaskLabels(EpisodeSampler(ts, shots=3), 2)
        a, b = (sampler.sample(5, np.random.default_rng(3)) for _ in range(2))
        assert torch.equal(a[0].y, b[0].y) and torch.equal(a[1].y, b[1].y)
