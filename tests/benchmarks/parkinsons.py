"""Parkinson's telemonitoring: error in points of motor UPDRS after K recordings of a new patient.

    python tests/benchmarks/parkinsons.py [--methods auto maml baselines] [--folds 0 1 2 3 4 5]

Six folds of patients; each method is fitted once to the other patients of a fold. Two ways to choose the K recordings: at random,
scored on the recordings of the patient's other visits; and "first": one recording of each of the first K visits, scored on all
later visits. Five draws per patient and K. Features of "maml" are standardised on the training patients.
"""

import argparse
import time

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

from fewshot import MAMLRegressor, make_meta_pipeline
from fewshot.baselines import default_baselines
from fewshot.datasets import fetch_parkinsons_telemonitoring
from fewshot.model_selection import evaluate_few_shot, summarize

PROTOCOLS = {"random": [1, 5, 10, 20], "first": [5, 10, 20]}


def methods_of(names: list[str], fold: int) -> dict[str, object]:
    """Return the methods by name, unfitted."""
    methods = {}
    if "auto" in names:
        methods["MAMLRegressor()"] = MAMLRegressor(random_state=fold)
    if "maml" in names:
        maml = MAMLRegressor(algorithm="maml", base=None, random_state=fold)
        methods["MAML alone"] = make_meta_pipeline(StandardScaler(), maml)
    if "baselines" in names:
        methods |= default_baselines("regression", random_state=fold)
    return methods


def main() -> None:
    """Run the protocol and print one line per method."""
    parser = argparse.ArgumentParser()
    choices = ["auto", "maml", "baselines"]
    parser.add_argument("--methods", nargs="+", default=choices, choices=choices)
    parser.add_argument("--folds", type=int, nargs="*", default=list(range(6)))
    args = parser.parse_args()
    data = fetch_parkinsons_telemonitoring()
    patients = np.unique(data.tasks)
    frames, seconds = [], {}
    for fold, (train, test) in enumerate(KFold(6, shuffle=True, random_state=0).split(patients)):
        if fold not in args.folds:
            continue
        rows, held = (np.isin(data.tasks, patients[part]) for part in (train, test))
        fitted = {}
        for name, method in methods_of(args.methods, fold).items():
            began = time.perf_counter()
            columns = {"tasks": data.tasks[rows], "blocks": data.blocks[rows]}
            fitted[name] = method.fit_meta(data.data[rows], data.target[rows], **columns)
            seconds.setdefault(name, []).append(time.perf_counter() - began)
        for protocol, shots in PROTOCOLS.items():
            scores = evaluate_few_shot(
                fitted,
                data.data[held],
                data.target[held],
                data.tasks[held],
                shots=shots,
                draws=5,
                cv="prefit",
                blocks=data.blocks[held],
                time=data.time[held],
                support=protocol,
                scoring="neg_mean_absolute_error",
                random_state=fold,
            )
            scores["metric"] = protocol
            frames.append(scores)
        print(f"fold {fold}: fitted in " + ", ".join(f"{n} {s[-1]:.0f} s" for n, s in seconds.items()), flush=True)
    scores = pd.concat(frames)
    table = summarize(scores)
    table[["mean", "low", "high"]] = -table[["mean", "high", "low"]]
    for (protocol, method), part in table.groupby(["metric", "method"], sort=False):
        cells = " | ".join(f"{r['mean']:.2f} [{r.low:.2f}, {r.high:.2f}]" for _, r in part.iterrows())
        print(f"{protocol:7s} {method:20s} {cells}")
    by_task = (-scores["value"]).groupby([scores["method"], scores["metric"], scores["shots"], scores["task"]]).mean()
    print(f"worst patient of any method: {by_task.max():.2f}; slowest fit: {max(map(max, seconds.values())):.0f} s")


if __name__ == "__main__":
    main()
