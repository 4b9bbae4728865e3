"""Parkinson's telemonitoring: error in points of motor UPDRS after K recordings of a new patient.

    python tests/benchmarks/parkinsons.py [--methods auto maml baselines] [--folds 6]

Six folds of patients; K recordings of a held-out patient drawn at random, scored on the recordings of his other visits;
features standardised on the training patients; five draws per patient and K.
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

SHOTS = [1, 5, 10, 20]


def main() -> None:
    """Run the protocol and print one line per method."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--methods", nargs="+", default=["auto", "maml", "baselines"], choices=["auto", "maml", "baselines"]
    )
    parser.add_argument("--folds", type=int, nargs="*", default=list(range(6)))
    args = parser.parse_args()
    data = fetch_parkinsons_telemonitoring()
    patients = np.unique(data.tasks)
    frames, seconds = [], []
    for fold, (train, test) in enumerate(KFold(6, shuffle=True, random_state=0).split(patients)):
        if fold not in args.folds:
            continue
        rows = [np.flatnonzero(np.isin(data.tasks, patients[part])) for part in (train, test)]
        methods = {}
        if "maml" in args.methods:
            maml = MAMLRegressor(algorithm="maml", base=None, random_state=fold)
            methods["MAML alone"] = make_meta_pipeline(StandardScaler(), maml)
        if "auto" in args.methods:
            methods["MAMLRegressor()"] = MAMLRegressor(random_state=fold)
        if "baselines" in args.methods:
            methods |= default_baselines("regression", random_state=fold)
        began = time.perf_counter()
        frames.append(
            evaluate_few_shot(
                methods,
                data.data,
                data.target,
                data.tasks,
                shots=SHOTS,
                draws=5,
                cv=[tuple(rows)],
                blocks=data.blocks,
                scoring="neg_mean_absolute_error",
                random_state=fold,
            )
        )
        seconds.append(time.perf_counter() - began)
        print(f"fold {fold}: {seconds[-1]:.0f} s", flush=True)
    scores = pd.concat(frames)
    table = summarize(scores)
    table[["mean", "low", "high"]] = -table[["mean", "high", "low"]]
    for method, part in table.groupby("method", sort=False):
        cells = " | ".join(f"{r['mean']:.2f} [{r.low:.2f}, {r.high:.2f}]" for _, r in part.iterrows())
        print(f"{method:45s} {cells}")
    print(
        f"worst patient of any method: {(-scores.value).groupby([scores.method, scores.shots, scores.task]).mean().max():.2f}"
    )


if __name__ == "__main__":
    main()
