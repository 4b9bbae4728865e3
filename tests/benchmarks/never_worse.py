"""Never worse: the default estimators against what users have, on every cell of the suite, and what may be said of all together.

    python tests/benchmarks/never_worse.py                       # development cells
    python tests/benchmarks/never_worse.py --confirm             # confirmation cells, to be run once
    python tests/benchmarks/never_worse.py --only "PBC, first visits"
    python tests/benchmarks/never_worse.py --report              # what the last runs found, all cells together

The cells are listed in _cells.py. In each, the comparator is the baseline that does best on the training tasks; the one that turned
out best on the test tasks is printed beside it. Each part that ends is written to logs/never_worse/ (its table, the mean scores of
all methods, and a line in runs.txt); --report corrects all p-values together.
"""

import argparse
import re
import subprocess
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from _cells import PARTS, Part

from fewshot.baselines import default_baselines
from fewshot.model_selection import Comparison, combine, compare, evaluate_few_shot

LOGS = Path(__file__).parent / "logs" / "never_worse"
METHOD = "fewshot"


def run(name: str, part: Part, seed: int, n_jobs: int) -> None:
    """Compare on one part and write down what came out."""
    began, data = time.perf_counter(), part.load()
    columns = {"blocks": data.get("blocks"), "time": data.get("time") if part.support == "first" else None}
    rows = {"X": data.data, "y": data.target.to_numpy(), "tasks": data.tasks.to_numpy()}
    rest = dict(draws=part.draws, cv=part.folds, support=part.support, random_state=seed, n_jobs=n_jobs)
    rest |= {"shots": list(part.shots), **columns}
    if part.is_tested:
        found = compare({METHOD: part.method()}, **rows, scoring=part.scoring, **rest)
        scores, table = found.scores, found.table
        print(found)
    else:
        methods = {METHOD: part.method(), **default_baselines("classification", random_state=0)}
        scores = evaluate_few_shot(methods, **rows, scoring=list(part.scoring), **rest)
        table = means_table(scores)
    LOGS.mkdir(parents=True, exist_ok=True)
    table.round(6).to_csv(LOGS / f"{_file(name)}.csv", index=False)
    by_task = scores.groupby(["metric", "method", "shots", "task"], sort=False)["value"].mean()
    means = by_task.groupby(level=[0, 1, 2], sort=False).mean().unstack("shots")
    means.round(4).to_csv(LOGS / f"{_file(name)}_methods.csv")
    seconds = time.perf_counter() - began
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    with (LOGS / "runs.txt").open("a") as log:
        kind = "confirmation" if part.confirmation else "development"
        now = datetime.now(UTC)
        log.write(f"{now:%Y-%m-%d %H:%M} {commit} {kind} seed {seed}, {part.draws} draws: {name}, {seconds:.0f} s\n")


def means_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean over tasks of each method, and the worst task's difference to the pooled model."""
    means = scores.groupby(["metric", "shots", "task", "method"])["value"].mean().unstack("method")
    own = means[METHOD]
    table = means.groupby(level=["metric", "shots"]).mean()
    pooled = (own - means["pooled logistic"]).groupby(level=["metric", "shots"])
    return table.assign(worst_task_to_pooled=pooled.min(), n_tasks=pooled.size()).reset_index()


def report() -> None:
    """Print what the logs hold."""
    comparisons = {}
    for name in PARTS:
        path = LOGS / f"{_file(name)}.csv"
        if path.exists() and PARTS[name].is_tested:
            comparisons[name] = Comparison(pd.read_csv(path), pd.DataFrame(), PARTS[name].scoring, METHOD)
    if comparisons:
        table = combine(comparisons)
        print(
            "| cell | K | fewshot | comparator | | difference | best in hindsight | | |\n|---|---|---|---|---|---|---|---|---|"
        )
        for row in table.to_dict("records"):
            own, theirs, best = (abs(row[score]) for score in ("score", "opponent_score", "best_score"))
            difference = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
            print(
                f"| {row['comparison']} | {row['shots']} | {own:.3f} | {row['opponent']} | {theirs:.3f} | {difference} | "
                f"{row['best']} | {best:.3f} | {row['conclusion']} |"
            )
        counts = table["conclusion"].value_counts()
        decided = int(counts.drop(["undecided", "too few tasks"], errors="ignore").sum())
        print(f"\n{len(table)} cells: {counts.to_dict()}; better in {counts.get('better', 0)} of {decided} decided.")
    for name, part in PARTS.items():
        path = LOGS / f"{_file(name)}.csv"
        if path.exists() and not part.is_tested:
            print(f"\n{name}, means over tasks (too few for a test):")
            print(pd.read_csv(path).round(3).set_index(["metric", "shots"]).T.to_string())


def _file(name: str) -> str:
    return re.sub(r"[^a-z]+", "_", name.lower()).strip("_")


def main() -> None:
    """Run what was asked for, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--confirm", action="store_true", help="run the confirmation cells")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), help="run these parts")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--seed", type=int, help="of the draws, where a part must be run again")
    parser.add_argument("--n-jobs", type=int, default=1, help="fits at the same time")
    args = parser.parse_args()
    if not args.report:
        wanted = args.only or [name for name, part in PARTS.items() if part.confirmation == args.confirm]
        for name in wanted:
            if PARTS[name].confirmation and not args.confirm:
                parser.error(f"{name} is for confirmation; add --confirm if nothing will be changed after it")
        warnings.filterwarnings("ignore", message=".*too small to leave a query row", category=UserWarning)
        for name in wanted:
            print(f"--- {name}", flush=True)
            run(name, PARTS[name], PARTS[name].seed if args.seed is None else args.seed, args.n_jobs)
    report()


if __name__ == "__main__":
    main()
