"""Fair classifiers on states they have not seen: accuracy and gaps beside what users have, at what each method is given.

    python tests/benchmarks/fairness.py                          # development: draw seed 0
    python tests/benchmarks/fairness.py --confirm                # confirmation: draw seed 100, to be run once; logged
    python tests/benchmarks/fairness.py --only "ACS, s"          # parts whose name begins so
    python tests/benchmarks/fairness.py --keep DIR               # read fitted models from DIR, or leave them there
    python tests/benchmarks/fairness.py --list

Leave states out, in three folds, sorted by name, every third. For each fold the operating point of every method is chosen on the
tested states of the two others, by models that were fitted neither to these nor to the fold: the most accurate one whose gap is not
above the part's, or the one with the least gap. Twenty draws of each state's support. Competitors are also compared at our accuracy
and at our gap, and we at theirs, by interpolating what is reached at all operating points. Parts of the same data and constraint
share their fits, which do not depend on the draws: with --keep the confirmation can use those of the development run. A folder is
good for one state of the code. What the confirmation finds is written to logs/fairness/.
"""

import argparse
import subprocess
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fewshot import MAMLClassifier
from fewshot.applications.fairness import FairnessConstrainedClassifier, evaluate_fairness, summarize_fairness
from fewshot.applications.fairness.baselines import (
    FairlearnClassifier,
    PenalizedNetwork,
    PlainClassifier,
    RateMatching,
)
from fewshot.baselines import RefittedModel
from fewshot.datasets import fetch_acs_income, fetch_communities_crime

LOGS = Path(__file__).parent / "logs" / "fairness"
OURS = "fewshot"
FOLDS = 3
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
    "Communities, equalized odds": Part("communities", 10, EVERYTHING, 0.20, "equalized_odds"),
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
    """Communities and Crime, standardised in each state or only as a whole; ACS income without the column of sex."""
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
        X = StandardScaler().fit_transform(frame.fillna(0 if name == "communities" else frame.median()))
    return Data(X, found.target.to_numpy(), found.tasks.to_numpy(), sensitive.to_numpy(), tested, scored)


def methods_of(part):
    """What is compared on the data of a part, at its constraint."""
    linear = LogisticRegression(C=0.01, max_iter=2000)
    trees = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)
    pooled = trees if part.data == "acs" else linear
    fair = {"constraint": part.constraint, "random_state": 0}
    network = {"weights": (0.5, 1, 2, 4, 8), "shots": part.shots, **fair}
    adaptive = MAMLClassifier(algorithm="map", random_state=0)
    return {
        OURS: FairnessConstrainedClassifier(classifier=adaptive, **fair),
        "pooled boosting": PlainClassifier(trees),
        "pooled logistic and support": PlainClassifier(
            RefittedModel(make_pipeline(StandardScaler(), linear), support_weight=10.0)
        ),
        "exponentiated gradient": FairlearnClassifier("exponentiated_gradient", pooled, **fair),
        "grid search": FairlearnClassifier("grid_search", pooled, **fair),
        "penalized network": PenalizedNetwork(0, **network),
        "fair MAML": PenalizedNetwork(1, **network),
        "threshold optimizer": FairlearnClassifier("threshold_optimizer", pooled, **fair),
        "rate matching, pooled boosting": RateMatching(trees),
        "rate matching, fewshot's classifier": RateMatching(adaptive),
    }


def able(part, methods):
    """Those that can do with what a part gives, and are meant for its constraint."""
    told = "sensitive_at_predict" in part.given
    parity = part.constraint == "demographic_parity"
    return {
        name: method
        for name, method in methods.items()
        if (told or name != "threshold optimizer") and ((told and parity) or not name.startswith("rate matching"))
    }


def states(data, *folds):
    """Rows of the tested states of some folds, and all others."""
    inside = np.isin(data.tasks, [state for fold in folds for state in data.tested[fold % FOLDS :: FOLDS]])
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def fitted(method, data, rows, path=None):
    """A method fitted to some rows; with a path it is kept there, and read if it is there already."""
    if path and path.exists():
        return joblib.load(path)
    columns = {"tasks": data.tasks[rows], "sensitive_features": data.sensitive[rows]}
    model = clone(method).fit_meta(data.X[rows], data.y[rows], **columns)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        joblib.dump(model, path)
    return model


def evaluate(part, data, methods, rows, draws, seed, n_jobs, frontier=True):
    """Scores of fitted methods on some rows of the data."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="shots: tasks too small", category=UserWarning)
        found = evaluate_fairness(
            methods,
            data.X[rows],
            data.y[rows],
            data.tasks[rows],
            sensitive_features=data.sensitive[rows],
            shots=part.shots,
            draws=draws,
            cv="prefit",
            given=part.given,
            scored=data.scored,
            frontier=frontier,
            random_state=seed,
            n_jobs=n_jobs,
        )
    # A method with one operating point has it under 0.
    return found.assign(setting=found["setting"].fillna(0.0))


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


def run_group(parts, data, seed, draws, n_jobs, keep=None):
    """Fit for validation and for the tests, and score for each part; returns operating points and test scores of folds by part."""
    first = next(iter(parts.values()))
    methods = methods_of(first)
    # Models for the test of a fold, then those fitted without it and the next one, by which both choose.
    left_out = [(0,), (1,), (2,), (0, 1), (1, 2), (2, 0)]
    kept = keep and Path(keep) / f"{first.data} {first.constraint}"
    jobs = [(name, folds, kept and kept / f"{name} {folds}.joblib") for folds in left_out for name in methods]
    models = iter(
        Parallel(n_jobs=n_jobs)(
            delayed(fitted)(methods[name], data, states(data, *folds)[1], path) for name, folds, path in jobs
        )
    )
    models = {folds: {name: next(models) for name in methods} for folds in left_out}
    found = {name: [] for name in parts}
    for name, part in parts.items():
        for fold in range(FOLDS):
            validation = [
                evaluate(
                    part,
                    data,
                    able(part, models[pair]),
                    states(data, other)[0],
                    max(draws // 4, 2),
                    seed + 1000,
                    n_jobs,
                )
                for pair, other in ((left_out[3 + fold], fold + 1), (left_out[3 + (fold - 1) % FOLDS], fold - 1))
            ]
            points = chosen(frontier(pd.concat(validation), part), part.gap)
            rows = states(data, fold)[0]
            scores = evaluate(part, data, able(part, models[(fold,)]), rows, draws, seed, n_jobs).assign(fold=fold)
            is_chosen = [points[m] == s for m, s in zip(scores["method"], scores["setting"], strict=True)]
            found[name].append((pd.Series(points, name=fold), scores.assign(chosen=is_chosen)))
    return found


def table_of(part, folds):
    """Return the table of a part, and the frontiers of all methods."""
    settings, tests = zip(*folds, strict=True)
    scores = pd.concat(tests, ignore_index=True)
    own = frontier(scores[scores["chosen"]].assign(setting="chosen"), part).droplevel(1)
    curves = frontier(scores, part)
    own.loc["fewshot, no penalty"] = curves.loc[(OURS, 0.0)]
    ours = own.loc[OURS]
    curves_of = {m: curves.loc[OURS if m.startswith(OURS) else m] for m in own.index}
    own["gap at our accuracy"] = [
        interpolated(curve, ours["accuracy"], "accuracy", "gap") for curve in curves_of.values()
    ]
    own["debiased at our accuracy"] = [
        interpolated(curve, ours["accuracy"], "accuracy", "debiased") for curve in curves_of.values()
    ]
    own["our debiased at its"] = [
        interpolated(curves.loc[OURS], own.loc[m, "accuracy"], "accuracy", "debiased") for m in own.index
    ]
    own["accuracy at our gap"] = [interpolated(curve, ours["gap"], "gap", "accuracy") for curve in curves_of.values()]
    own[f"accuracy at {part.gap:g}"] = [
        interpolated(curve, part.gap, "gap", "accuracy") for curve in curves_of.values()
    ]
    own["settings"] = [", ".join(f"{t.get(m, 0.0):g}" for t in settings) for m in own.index]
    return own, curves


def interpolated(curve, at, along, of):
    """Best value that a method reaches at an accuracy or a gap, mixing two of its operating points; NaN if none gets there."""
    points = curve.sort_values(along)
    x, y = points[along].to_numpy(), points[of].to_numpy()
    if along == "accuracy":  # the least gap with at least that accuracy
        return float(np.interp(at, x, np.minimum.accumulate(y[::-1])[::-1])) if at <= x[-1] else np.nan
    return float(np.interp(at, x, np.maximum.accumulate(y))) if at >= x[0] else np.nan


def write(name, own, curves, seed, seconds):
    """Log a part that ended; the seconds are those of all parts that share its fits."""
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
    """Run the parts asked for, those that share their fits together."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--confirm", action="store_true", help="draw seed 100 instead of 0; run once, and log it")
    parser.add_argument("--only", default="", help="parts whose name begins so")
    parser.add_argument("--list", action="store_true", help="names of the parts")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--keep", help="folder where fitted models are kept, and read again by the next run")
    options = parser.parse_args()
    asked = {name: part for name, part in PARTS.items() if name.startswith(options.only)}
    if options.list:
        print("\n".join(asked))
        return
    seed = 100 if options.confirm else 0
    for kind in dict.fromkeys((part.data, part.constraint) for part in asked.values()):
        parts = {name: part for name, part in asked.items() if (part.data, part.constraint) == kind}
        began = time.perf_counter()
        data = load(kind[0])
        folds = run_group(parts, data, seed, options.draws, options.n_jobs, options.keep)
        for name, part in parts.items():
            own, curves = table_of(part, folds[name])
            print(f"\n{name}: K = {part.shots}, given {', '.join(part.given)}; gap to keep {part.gap:g}")
            print(own.round(3).to_string(), flush=True)
            if options.confirm:
                write(name, own, curves, seed, time.perf_counter() - began)


if __name__ == "__main__":
    main()
