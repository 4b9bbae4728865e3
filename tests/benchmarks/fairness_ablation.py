"""What adapting adds to a fair classifier, by what it is given, and whether every episode ends in a valid model.

    python tests/benchmarks/fairness_ablation.py             # Communities and ACS, paired over states, 95 % intervals
    python tests/benchmarks/fairness_ablation.py --validity  # K = 5, 10, 20: finite, above chance, nobody forced to one label

One penalty, 1, for all. Differences are to the unadapted constrained model, on the same rows of the same states.
"""

import argparse
import warnings

import numpy as np
import pandas as pd
from fairness import SUPPORT_ONLY, WITH_GROUPS, WITH_ROWS, Part, evaluate, fitted, load, states

from fewshot import MAMLClassifier
from fewshot.applications.fairness import FairnessConstrainedClassifier
from fewshot.model_selection import summarize

DATA = {"communities": 10, "acs": 20}
GIVEN = {"support": SUPPORT_ONLY, "support, rows": WITH_ROWS, "support, rows with groups": WITH_GROUPS}


def constrained(data, fold):
    """A model of the training states of a fold."""
    test, train = states(data, fold)
    model = FairnessConstrainedClassifier(
        penalty=1.0, classifier=MAMLClassifier(algorithm="map", random_state=0), random_state=0
    )
    return fitted(model, data, train), test


def ablation(name, shots, draws):
    """Accuracy and gap of what is given, and differences to the unadapted model."""
    data, frames = load(name), []
    for fold in range(3):
        model, test = constrained(data, fold)
        for told in (False, True):
            for label, given in {"nothing": (), **GIVEN}.items():
                given = (*given, "sensitive_at_predict") if told else given
                part = Part(name, shots if label != "nothing" else 0, given, 0.0)
                found = evaluate(part, data, {label: model}, test, draws, 0, 1, frontier=False)
                frames.append(found.assign(told=told))
    frame = pd.concat(frames, ignore_index=True)
    kept = frame[frame["metric"].isin(["accuracy", "selection_rate_gap"])]
    keys = ["told", "method", "metric", "task"]
    per_state = kept.groupby(keys, sort=False)["value"].mean().unstack("method")
    for told, part in per_state.groupby(level="told"):
        print(f"\n{name}, K = {shots}, group {'told' if told else 'not told'} at predict")
        for metric, own in part.groupby(level="metric"):
            print(f"  {metric}: {own['nothing'].mean():.3f} unadapted")
            for label in GIVEN:
                difference = own[label] - own["nothing"]
                paired = pd.DataFrame(
                    {"method": label, "shots": shots, "metric": metric, "task": own.index.get_level_values("task")}
                ).assign(value=difference.to_numpy())
                row = summarize(paired).iloc[0]
                print(
                    f"    {label}: {own[label].mean():.3f}, {row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
                )


def validity(name, draws):
    """Count episodes whose model is not valid."""
    data = load(name)
    models = [constrained(data, fold) for fold in range(3)]
    for shots in (5, 10, 20):
        n = infinite = forced = 0
        above = []
        for model, test in models:
            for state in np.unique(data.tasks[test]):
                rows = test[data.tasks[test] == state]
                for draw in range(draws):
                    order = np.random.default_rng([draw, int(rows[0])]).permutation(rows)
                    support, query = order[:shots], order[shots : shots + 400]
                    groups = data.sensitive[support]
                    adapted = model.adapt(data.X[support], data.y[support], sensitive_features=groups)
                    free = adapted.classifier_.predict(data.X[query])
                    missing = set(data.sensitive) - set(groups)
                    majority = np.bincount(data.y[support], minlength=2).argmax()
                    for told in ({}, {"sensitive_features": data.sensitive[query]}):
                        p = adapted.predict_proba(data.X[query], **told)[:, 1]
                        n += 1
                        infinite += not np.isfinite(p).all()
                        above.append(((p > 0.5) == data.y[query]).mean() - (data.y[query] == majority).mean())
                        for group in missing:
                            mine = data.sensitive[query] == group
                            forced += mine.sum() >= 10 and len(np.unique(p[mine] > 0.5)) == 1 < len(
                                np.unique(free[mine])
                            )
        print(
            f"{name}, K = {shots}: {n} models, {infinite} not finite, {forced} with a missing group forced to one label that "
            f"the unconstrained model does not give to all of it; "
            f"accuracy above the support's majority class by {np.mean(above):.3f}",
            flush=True,
        )


def main():
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--validity", action="store_true")
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="shots: tasks too small", category=UserWarning)
        for name, shots in DATA.items():
            if options.validity:
                validity(name, options.draws)
            else:
                ablation(name, shots, options.draws)


if __name__ == "__main__":
    main()
