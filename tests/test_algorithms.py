"""Names, defaults and refusals of the algorithms."""

import pytest

from fewshot.algorithms import ALGORITHMS, DEFAULTS, get_algorithm
from fewshot.errors import InvalidParameterError


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_open_is_filled_in_and_what_is_said_is_kept(name):
    algorithm = get_algorithm(name)
    resolved = algorithm.resolve({"random_state": 3})
    assert set(resolved) == set(DEFAULTS)
    assert None not in resolved.values()
    said = {
        name: value for name, value in resolved.items() if name not in algorithm.refuses or name in algorithm.settings
    }
    assert algorithm.resolve(said) == resolved  # saying aloud what it is anyhow is no contradiction
    if "inner_lr" not in algorithm.refuses:
        assert algorithm.resolve({"inner_lr": 0.7})["inner_lr"] == 0.7


@pytest.mark.parametrize(
    ("got", "meant"), [("MAML", "maml"), ("metasgd", "meta-sgd"), ("i-maml", "imaml"), ("reptil", "reptile")]
)
def test_a_misspelt_name_is_answered_with_the_one_that_was_meant(got, meant):
    with pytest.raises(
        InvalidParameterError, match=f"^algorithm: got '{got}' \\(did you mean '{meant}'\\?\\); expected"
    ):
        get_algorithm(got)


def test_a_name_that_is_like_none_gets_the_list():
    with pytest.raises(
        InvalidParameterError, match="^algorithm: got 3; expected one of 'auto', 'map', 'maml', 'fomaml'"
    ):
        get_algorithm(3)


@pytest.mark.parametrize(
    ("algorithm", "setting", "value", "reason"),
    [
        ("imaml", "order", "first", "its gradient is implicit"),
        ("imaml", "learn_step_sizes", "tensor", "does not depend on the step sizes"),
        ("reptile", "order", "exact", "no derivative through the inner steps"),
        ("reptile", "adapted", "head", "would not be learned"),
        ("maml", "head_objective", "predictive", "no head in closed form"),
    ],
)
def test_settings_without_a_use_are_refused_with_the_reason(algorithm, setting, value, reason):
    expected = f"^{setting}: got '{value}', which algorithm='{algorithm}' cannot take, since .*{reason}.*; leave {setting} at None"
    with pytest.raises(InvalidParameterError, match=expected):
        get_algorithm(algorithm).resolve({setting: value})


def test_leaving_out_in_words_what_is_left_out_anyhow_is_fine():
    assert get_algorithm("reptile").resolve({"learn_step_sizes": False, "multi_step_loss": False})
