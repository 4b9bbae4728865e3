"""Spaces: every entry of an observation and an action lands where it belongs, over any leading axes."""

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.applications.rl.environments.spaces import (
    check_spaces,
    differ,
    encode_observations,
    n_actions,
    n_observed,
    to_actions,
    to_raw,
)
from fewshot.errors import InvalidDataError, InvalidParameterError

BOXES = [
    spaces.Box(-1.0, 1.0, (2,)),
    spaces.Box(0.0, 5.0, (2, 3), np.float64),
    spaces.Box(np.array([-1.0, 0.0, 10.0]), np.array([1.0, 4.0, 20.0]), dtype=np.float64),
    spaces.Box(-3, 7, (4,), np.int32),
    spaces.Box(0, 255, (2, 2, 3), np.uint8),
    spaces.Box(-2.0, 2.0, (), np.float32),
    spaces.Box(-np.inf, np.inf, (2,)),
    spaces.Box(np.array([-np.inf, -1.0]), np.array([0.0, 1.0]), dtype=np.float64),
    spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (2,), np.int64),
    spaces.Box(0, np.iinfo(np.uint64).max, (1,), np.uint64),
    spaces.Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (2,)),
    spaces.Box(0, 1, (3,), np.bool_),
]
DISCRETE = [spaces.Discrete(2), spaces.Discrete(5, start=3), spaces.Discrete(3, start=-1)]
LEADING = st.lists(st.integers(1, 3), max_size=3).map(tuple)


@pytest.mark.parametrize("space", [*BOXES, *DISCRETE], ids=str)
@settings(deadline=None, max_examples=25)
@given(leading=LEADING, seed=st.integers(0, 1000), scale=st.sampled_from([0.0, 0.3, 1.0, 20.0]))
def test_actions_are_in_the_space(space, leading, seed, scale):
    rng = np.random.default_rng(seed)
    if isinstance(space, spaces.Discrete):
        raw = rng.integers(space.n, size=(*leading, 1)).astype(np.float32)
    else:
        raw = (scale * rng.normal(size=(*leading, n_actions(space)))).astype(np.float32)
    actions = to_actions(space, raw)
    assert actions.shape == (*leading, *space.shape)
    assert actions.dtype == space.dtype
    for i in np.ndindex(leading):
        assert space.contains(actions[i] if isinstance(space, spaces.Discrete) else np.asarray(actions[i]))
        np.testing.assert_array_equal(actions[i], to_actions(space, raw[i]))  # no slot depends on another


@pytest.mark.parametrize("space", [box for box in BOXES if box.is_bounded() and box.dtype.itemsize < 8], ids=str)
def test_bounds_and_middle(space):
    ends = [to_actions(space, np.full(n_actions(space), value)) for value in (-1.0, 1.0)]
    np.testing.assert_allclose(ends[0], space.low, rtol=1e-6)
    np.testing.assert_allclose(ends[1], space.high, rtol=1e-6)
    if space.dtype.kind == "f":
        middle = to_actions(space, np.zeros(n_actions(space)))
        np.testing.assert_allclose(middle, space.low / 2 + space.high / 2, atol=1e-6)


def test_each_entry_has_its_own_bounds():
    np.testing.assert_allclose(to_actions(BOXES[2], [0.5, 0.5, -0.5]), [0.5, 3.0, 12.5])


def test_infinite_bounds_leave_an_entry_unchanged():
    np.testing.assert_array_equal(to_actions(BOXES[6], [-3.5, 70.0]), np.float32([-3.5, 70.0]))
    np.testing.assert_array_equal(to_actions(BOXES[7], [-3.5, 0.5]), [-3.5, 0.5])
    np.testing.assert_array_equal(to_actions(BOXES[7], [3.5, -9.0]), [0.0, -1.0])  # one end is a bound all the same
    above = spaces.Box(2.0, np.inf, (3,), np.float64)
    np.testing.assert_array_equal(to_actions(above, [2.5, -3.0, 0.0]), [2.5, 2.0, 2.0])


def test_integers_are_rounded():
    np.testing.assert_array_equal(to_actions(spaces.Box(0, 10, (3,), np.int32), [0.0, 0.19, -0.19]), [5, 6, 4])


def test_discrete_actions_begin_at_start():
    actions = to_actions(DISCRETE[1], np.array([[0.0], [4.0]], np.float32))
    assert actions.tolist() == [3, 7]


@pytest.mark.parametrize("space", [*BOXES, *DISCRETE], ids=str)
@settings(deadline=None, max_examples=10)
@given(leading=LEADING, seed=st.integers(0, 1000))
def test_observations_slot_by_slot(space, leading, seed):
    space.seed(seed)
    observations = np.zeros((*leading, *space.shape), space.dtype)
    for i in np.ndindex(leading):
        observations[i] = space.sample()
    encoded = encode_observations(space, observations)
    assert encoded.shape == (*leading, n_observed(space)) and encoded.dtype == np.float32
    for i in np.ndindex(leading):
        expected = observations[i].ravel()
        if isinstance(space, spaces.Discrete):
            expected = np.eye(space.n)[int(observations[i]) - space.start]
        np.testing.assert_array_equal(encoded[i], expected.astype(np.float32))


def test_a_discrete_observation_out_of_its_space():
    with pytest.raises(InvalidDataError, match=r"observations: .*expected integers from 3 to 7"):
        encode_observations(DISCRETE[1], [3, 8])


@pytest.mark.parametrize(
    "changed, found",
    [
        ((spaces.Box(-5.0, 5.0, (2,)), BOXES[1]), None),  # bounds of observations alone
        ((spaces.Box(-1.0, 1.0, (3,)), BOXES[1]), "observation_space"),
        ((spaces.Box(-1.0, 1.0, (2,), np.float64), BOXES[1]), "observation_space"),
        ((spaces.Discrete(2), BOXES[1]), "observation_space"),
        ((BOXES[0], spaces.Box(0.0, 6.0, (2, 3), np.float64)), "action_space"),  # bounds of actions are their units
        ((BOXES[0], spaces.Discrete(2)), "action_space"),
    ],
    ids=str,
)
def test_spaces_that_differ(changed, found):
    known = BOXES[0], BOXES[1]
    assert differ(known, known) is None
    assert differ(changed, known) == found and differ(known, changed) == found


def test_discrete_observations_differ_by_their_values():
    for other in (spaces.Discrete(4), spaces.Discrete(3, start=1)):
        assert differ((other, BOXES[0]), (spaces.Discrete(3), BOXES[0])) == "observation_space"


def test_an_argument_and_a_remedy_of_ones_own():
    for space, wrong in ((BOXES[0], np.zeros(3)), (DISCRETE[0], [7])):
        with pytest.raises(InvalidDataError, match="^obs: got .*; give one observation$"):
            encode_observations(space, wrong, name="obs", remedy="give one observation")
        with pytest.raises(InvalidDataError, match="^observations: got .*; mend the environment's observation_space$"):
            encode_observations(space, wrong)


def test_shapes_that_do_not_fit():
    with pytest.raises(InvalidDataError, match=r"observations: got shape \(3, 2\); expected \(..., 2, 3\)"):
        encode_observations(BOXES[1], np.zeros((3, 2)))
    with pytest.raises(InvalidDataError, match=r"raw: got shape \(4, 3\); expected \(..., 2\)"):
        to_actions(BOXES[0], np.zeros((4, 3)))
    with pytest.raises(InvalidDataError, match=r"raw: got shape \(4,\); expected \(..., 1\)"):
        to_actions(DISCRETE[0], np.zeros(4))


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Dict(a=spaces.Discrete(2)),
        spaces.Tuple([spaces.Discrete(2)]),
        spaces.Text(3),
        None,
    ],
    ids=str,
)
def test_other_spaces_are_refused(space):
    check_spaces(BOXES[0], DISCRETE[0])
    with pytest.raises(InvalidParameterError, match="^observation_space: got .*expected Box or Discrete; .*Flatten"):
        check_spaces(space, BOXES[0])
    with pytest.raises(InvalidParameterError, match="^action_space: got .*expected Box or Discrete; .*Transform"):
        check_spaces(DISCRETE[0], space)


def test_an_empty_box_is_refused():
    with pytest.raises(InvalidParameterError, match="observation_space: .*at least one entry"):
        check_spaces(spaces.Box(-1.0, 1.0, (0,)), BOXES[0])


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-0.1, 0.1, (2,)),
        spaces.Box(np.array([0.0, -np.inf], np.float32), np.array([10.0, 3.0], np.float32)),
        spaces.Box(-2, 5, (2, 2)),
        spaces.Discrete(4, start=2),
    ],
    ids=str,
)
def test_raw_actions_come_back(space):
    rng = np.random.default_rng(0)
    raw = (
        rng.integers(0, 4, (5, 1))
        if isinstance(space, spaces.Discrete)
        else rng.uniform(-0.9, 0.9, (5, n_actions(space)))
    )
    np.testing.assert_allclose(to_raw(space, to_actions(space, raw)), raw, rtol=1e-5, atol=1e-6)
