"""Fair classifiers on states they have not seen: accuracy and gaps beside what users have, at what each method is given.

    python tests/benchmarks/fairness.py                          # development: draw seed 0
    python tests/benchmarks/fairness.py --confirm                # confirmation: draw seed 100, to be run once; logged
    python tests/benchmarks/fairness.py --only "ACS, s known"
    python tests/benchmarks/fairness.py --list

Leave states out, in three folds, sorted by name, every third. In each fold the operating point of every method is chosen on the
tested states of the next fold, by models fitted to neither: the most accurate one whose gap is not above the part's, or the one
with the least gap. Twenty draws of each state's support. Competitors are also compared at our accuracy, by interpolating what they
reach at all of their operating points. Each part that ends is written to logs/fairness/.
"""

import argparse
import subprocess
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from fewshot import MAMLClassifier
from fewshot.applications.fairness import FairnessConstrainedClassifier, evaluate_fairness, summarize_fairness
from fewshot.applications.fairness.baselines import (
    FairlearnClassifier,
    PenalizedNetwork,
    PlainClassifier,
    RateMatching,
)
from fewshot.datasets import fetch_acs_income, fetch_communities_crime

LOGS = Path(__file__).parent / "logs" / "fairness"
OURS = "fewshot"
SUPPORT_ONLY = ("sensitive_features",)
WITH_ROWS = (*SUPPORT_ONLY, "X_unlabelled")
WITH_GROUPS = (*WITH_ROWS, "sensitive_unlabelled")
EVERYTHING = (*WITH_GROUPS, "sensitive_at_predict")
GAPS_OF = {
    "demographic_parity": ["selection_rate_gap"],
    "equal_opportunity": ["true_positive_rate_gap"],
    "equalized_odds": ["true_positive_rate_gap", "false_positive_rate_gap"],
}


class Part(NamedTuple):
    """A row of the table."""

    data: str
    shots: int
    given: tuple[str, ...]
    gap: float
    constraint: str = "demographic_parity"


PARTS = {
    "Communities, s unknown": Part("communities", 10, WITH_ROWS, 0.16),
    "Communities, s unknown, features as they are": Part("communities raw", 10, SUPPORT_ONLY, 0.16),
    "Communities, s unknown at predict only": Part("communities", 10, WITH_GROUPS, 0.16),
    "Communities, s known": Part("communities", 10, EVERYTHING, 0.10),
    "ACS, s unknown": Part("acs", 20, WITH_ROWS, 0.05),
    "ACS, s unknown at predict only": Part("acs", 20, WITH_GROUPS, 0.05),
    "ACS, s known": Part("acs", 20, EVERYTHING, 0.04),
    "Communities, equal opportunity": Part("communities", 10, EVERYTHING, 0.14, "equal_opportunity"),
    "Communities, equalized odds": Part("communities", 10, EVERYTHING, 0.24, "equalized_odds"),
    "ACS, equal opportunity": Part("acs", 20, EVERYTHING, 0.08, "equal_opportunity"),
    "ACS, equalized odds": Part("acs", 20, EVERYTHING, 0.08, "equalized_odds"),
}


class Data(NamedTuple):
    """Columns, and the states that are tested."""

    X: np.ndarray
    y: np.ndarray
    tasks: np.ndarray
    sensitive: np.ndarray
    tested: list
    scored: int | None


def load(name):
    """Communities and Crime, standardised in each state unless it is asked for as it is; ACS income without the column of sex."""
    if name == "acs":
        found = fetch_acs_income()
        tested = sorted(found.tasks.unique())
        X, sensitive, scored = found.data.drop(columns="SEX").to_numpy(float), found.sensitive["sex"], 400
    else:
        found = fetch_communities_crime()
        counts = pd.crosstab(found.tasks, found.sensitive)
        large = (counts.sum(axis=1) >= 36) & (counts.min(axis=1) >= 5)
        tested, sensitive, scored = sorted(counts[large].index), found.sensitive, None
        frame = found.data
        if name == "communities":
            frame = frame.groupby(found.tasks).transform(lambda column: (column - column.mean()) / (column.std() or 1))
        X = frame.fillna(0 if name == "communities" else frame.median()).to_numpy(float)
    return Data(X, found.target.to_numpy(), found.tasks.to_numpy(), sensitive.to_numpy(), tested, scored)


def methods_of(part):
    """What is compared in a part; every method is given the same."""
    linear = LogisticRegression(C=0.01 if part.data == "communities" else 1.0, max_iter=2000)
    trees = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)
    pooled = linear if part.data == "communities" else trees
    told = "sensitive_at_predict" in part.given
    fair = {"constraint": part.constraint, "random_state": 0}
    found = {
        OURS: FairnessConstrainedClassifier(
            use_sensitive_at_predict=told, classifier=MAMLClassifier(algorithm="map", random_state=0), **fair
        ),
        "pooled boosting": PlainClassifier(trees),
        "exponentiated gradient": FairlearnClassifier("exponentiated_gradient", pooled, **fair),
        "grid search": FairlearnClassifier("grid_search", pooled, **fair),
        "penalized network": PenalizedNetwork(0, weights=(0.5, 1, 2, 4, 8), shots=part.shots, **fair),
        "fair MAML": PenalizedNetwork(1, weights=(0.5, 1, 2, 4, 8), shots=part.shots, **fair),
    }
    if told:
        found["threshold optimizer"] = FairlearnClassifier("threshold_optimizer", pooled, **fair)
        if part.constraint == "demographic_parity":
            found["rate matching, pooled boosting"] = RateMatching(trees)
            found["rate matching, fewshot's classifier"] = RateMatching(MAMLClassifier(algorithm="map", random_state=0))
    return found


def split(data, fold):
    """Training rows, tested rows of one of three folds."""
    test = np.isin(data.tasks, data.tested[fold::3])
    return np.flatnonzero(~test), np.flatnonzero(test)


def evaluate(part, data, methods, rows, cv, draws, seed, n_jobs, frontier=True):
    """Scores on some rows of the data."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="shots: tasks too small", category=UserWarning)
        return evaluate_fairness(
            methods,
            data.X[rows],
            data.y[rows],
            data.tasks[rows],
            sensitive_features=data.sensitive[rows],
            shots=part.shots,
            draws=draws,
            cv=cv,
            given=part.given,
            scored=data.scored,
            frontier=frontier,
            random_state=seed,
            n_jobs=n_jobs,
        )


def frontier(frame, part):
    """Accuracy, raw gap, debiased gap and floor of every method and setting; the largest of the constraint's gaps."""
    table = summarize_fairness(frame).set_index(["method", "setting"])
    accuracy = table[table["metric"] == "accuracy"]["mean"].rename("accuracy")
    gaps = table[table["metric"].isin(GAPS_OF[part.constraint])]
    worst = gaps.groupby(level=[0, 1], dropna=False, sort=False)[["mean", "debiased", "floor"]].max()
    return worst.rename(columns={"mean": "gap"}).join(accuracy)[["accuracy", "gap", "debiased", "floor"]]


def chosen(table, gap):
    """Operating point of each method: the most accurate within the gap, else that with the least gap."""
    points = {}
    for method, own in table.groupby(level=0, sort=False):
        within = own[own["gap"] <= gap]
        points[method] = within["accuracy"].idxmax()[1] if len(within) else own["gap"].idxmin()[1]
    return points


def run_part(name, part, seed, draws, n_jobs):
    """Validate, choose, test; returns the table of the part and all test scores."""
    data, methods = load(part.data), methods_of(part)
    tests, tables = [], []
    for fold in range(3):
        train, test = split(data, fold)
        held = np.isin(data.tasks[train], data.tested[(fold + 1) % 3 :: 3])
        cv = [(np.flatnonzero(~held), np.flatnonzero(held))]
        validation = evaluate(part, data, methods, train, cv, max(draws // 4, 2), seed + 1000, n_jobs)
        points = chosen(frontier(validation, part), part.gap)
        rows = np.concatenate([train, test])
        outer = [(np.arange(len(train)), np.arange(len(train), len(rows)))]
        scores = evaluate(part, data, methods, rows, outer, draws, seed, n_jobs).assign(fold=fold)
        is_chosen = [_same(points[m], s) for m, s in zip(scores["method"], scores["setting"], strict=True)]
        tests.append(scores.assign(chosen=is_chosen))
        tables.append(pd.Series(points, name=fold))
    scores = pd.concat(tests, ignore_index=True)
    own = frontier(scores[scores["chosen"]].assign(setting="chosen"), part).droplevel(1)
    curves = frontier(scores, part)
    ours = own.loc[OURS]
    own["gap at our accuracy"] = [
        ours["gap"] if m == OURS else interpolated(curves.loc[m], ours["accuracy"]) for m in own.index
    ]
    own["settings"] = [", ".join(f"{t[m]:g}" for t in tables) for m in own.index]
    return own, curves, scores


def interpolated(curve, accuracy):
    """Least gap at an accuracy on the line through a method's operating points, mixing neighbours; NaN if it does not get there."""
    points = curve.sort_values("accuracy")
    if accuracy > points["accuracy"].max():
        return np.nan
    # A method with one more accurate point can be made less accurate at no smaller gap.
    best = points["gap"][::-1].cummin()[::-1]
    return float(np.interp(accuracy, points["accuracy"], best))


def _same(a, b):
    return a == b or (pd.isna(a) and pd.isna(b))


def write(name, part, own, curves, seed, seconds):
    """Log a part that ended."""
    LOGS.mkdir(parents=True, exist_ok=True)
    slug = name.lower().replace(",", "").replace(" ", "_")
    own.round(4).to_csv(LOGS / f"{slug}.csv")
    curves.round(4).to_csv(LOGS / f"{slug}_frontier.csv")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    with (LOGS / "runs.txt").open("a") as log:
        log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M} {name}: draw seed {seed}, commit {commit}, {seconds:.0f} s\n")


def main():
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--confirm", action="store_true", help="draw seed 100 instead of 0; run once, and log it")
    parser.add_argument("--only", help="one part, by name")
    parser.add_argument("--list", action="store_true", help="names of the parts")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--n-jobs", type=int, default=2)
    options = parser.parse_args()
    if options.list:
        print("\n".join(PARTS))
        return
    seed = 100 if options.confirm else 0
    for name, part in PARTS.items():
        if options.only not in (None, name):
            continue
        began = time.perf_counter()
        own, curves, _ = run_part(name, part, seed, options.draws, options.n_jobs)
        print(f"\n{name}: K = {part.shots}, given {', '.join(part.given)}; gap to keep {part.gap:g}")
        print(own.round(3).to_string(), flush=True)
        if options.confirm:
            write(name, part, own, curves, seed, time.perf_counter() - began)


if __name__ == "__main__":
    main()
