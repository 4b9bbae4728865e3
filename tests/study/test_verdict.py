import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from fewshot.study import compare, verdict
from fewshot.study.verdict import META


def scores(errors, *, n=20, shots=(0, 1, 5), protocol="random", validation=None, spread=0.01, seed=0, fold=0):
    """Scores of tasks whose difficulty all methods share; `errors` are the methods' means."""
    rng = np.random.default_rng(seed)
    rows = []
    for part, means in (("validation", validation or errors), ("test", errors)):
        for task in range(n):
            hard = rng.normal()
            for k in shots:
                for method, mean in means.items():
                    error = hard + mean + spread * rng.normal()
                    rows.append((protocol, fold, part, method, f"{part}{fold}-{task}", k, 0, error))
    return pd.DataFrame(rows, columns=["protocol", "fold", "part", "method", "task", "shots", "draw", "error"])


def sentence(frame):
    return verdict(compare(frame), "error of dose (mg)", "patient", "visit")


def test_paired_difference_and_its_joint_interval():
    frame = scores({META: 1.0, "ridge": 1.2, "boosting": 2.0}, spread=0.1)
    found = compare(frame)
    assert found["shots"].tolist() == [1, 5], "0 shots are no adaptation"
    assert set(found["baseline"]) == {"ridge"}
    wide = frame[(frame["part"] == "test") & (frame["shots"] == 5)].pivot(
        index="task", columns="method", values="error"
    )
    d = wide["ridge"] - wide[META]
    half = t.ppf(1 - 0.05 / 2 / 2, 19) * d.std() / np.sqrt(20)
    np.testing.assert_allclose(
        found.loc[1, ["difference", "low", "high"]].to_numpy(dtype=float), [d.mean(), d.mean() - half, d.mean() + half]
    )


def test_draws_are_averaged_first():
    frame = scores({META: 1.0, "ridge": 1.2}, spread=0.1)
    twice = pd.concat([frame, frame.assign(draw=1)])
    pd.testing.assert_frame_equal(compare(frame), compare(twice))


def test_the_baseline_is_chosen_on_validation_tasks():
    frame = scores({META: 1.0, "lucky": 0.5, "good": 0.9}, validation={META: 1.0, "lucky": 1.5, "good": 0.9})
    assert set(compare(frame)["baseline"]) == {"good"}


def test_without_validation_scores_the_test_tasks_choose():
    frame = scores({META: 1.0, "a": 0.5, "b": 0.9})
    assert set(compare(frame[frame["part"] == "test"])["baseline"]) == {"a"}


def test_each_protocol_and_fold_has_its_own_baseline():
    first = scores({META: 1.0, "a": 0.5, "b": 0.9}, protocol="first")
    both = pd.concat([scores({META: 1.0, "a": 0.9, "b": 0.5}), first])
    assert dict(compare(both).groupby("protocol")["baseline"].first()) == {"first": "a", "random": "b"}
    folds = pd.concat(
        [scores({META: 1.0, "a": 0.9, "b": 0.5}, fold=i) for i in (0, 1)]
        + [scores({META: 1.0, "a": 0.5, "b": 0.9}, fold=2)]
    )
    found = compare(folds)
    assert set(found["baseline"]) == {"the best baseline (mostly b)"}
    assert set(found["n_tasks"]) == {60}


def test_paid():
    said = sentence(scores({META: 1.0, "ridge": 1.2}))
    assert said.startswith("Meta-learning paid here: with ")
    assert "fewshot is better than ridge by 0.19" in said
    assert "it is better in 2 of 2 comparisons and worse in none" in said
    assert "error of dose (mg), 20 patients" in said


def test_did_not_pay():
    said = sentence(scores({META: 1.2, "ridge": 1.0, "poor": 3.0}, shots=(5,)))
    assert said.startswith("Meta-learning did not pay here: with 5 random visits, ridge is better than fewshot by 0.2")
    assert said.endswith("95 % interval).")


def test_no_evidence():
    said = sentence(scores({META: 1.0, "ridge": 1.0}, spread=0.5))
    assert said.startswith("No evidence that meta-learning paid here: none of 2 comparisons")
    assert "ahead of" in said
    assert "better than" not in said


def test_paid_in_part():
    frame = pd.concat(
        [
            scores({META: 1.0, "ridge": 1.3}, shots=(1,), protocol="first"),
            scores({META: 1.0, "ridge": 0.7}, shots=(5,)),
        ]
    )
    said = sentence(frame)
    assert said.startswith("Meta-learning paid in part: with the first visit, fewshot is better than ridge")
    assert "but with 5 random visits, ridge is better than fewshot" in said


@pytest.mark.parametrize("n", [1, 4])
def test_too_few_tasks_are_no_evidence(n):
    frame = scores({META: 1.0, "ridge": 2.0}, n=n)
    assert np.isinf(compare(frame)["high"]).all()
    assert sentence(frame) == (
        f"Whether meta-learning paid cannot be said: {n} test patient(s) are too few to judge by (at least 5 are needed)."
    )


def test_one_sentence_whatever_comes_out():
    for difference in (-0.3, 0.0, 0.3):
        said = sentence(scores({META: 1.0, "ridge": 1.0 + difference}, spread=0.2))
        assert said.endswith(".")
        assert ". " not in said
        assert "\n" not in said
