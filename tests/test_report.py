import re
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from fewshot.errors import FewShotError, MissingDependencyError
from fewshot.report import draw_curve, render_report, write_report
from fewshot.study import StudyData, StudyResult, StudySettings, compare, verdict


@pytest.fixture(scope="module")
def result():
    rng = np.random.default_rng(0)
    methods = {"fewshot": 0.5, "pooled ridge": 0.6, "mixed <slopes>": 0.4}
    rows = [
        (protocol, 0, part, method, f"{part}-{task}", k, 0, mean / (1 + k) + 0.02 * rng.random())
        for protocol in ("random", "first")
        for part in ("validation", "test")
        for method, mean in methods.items()
        for task in range(8)
        for k in (0, 1, 5)
    ]
    scores = pd.DataFrame(rows, columns=["protocol", "fold", "part", "method", "task", "shots", "draw", "error"])
    test = scores[scores["part"] == "test"].groupby(["protocol", "method", "shots"], sort=False)["error"]
    summary = test.mean().rename("mean").reset_index()
    summary = summary.assign(low=summary["mean"] - 0.02, high=summary["mean"] + 0.03, n_tasks=8)
    tasks = np.repeat(np.arange(20), 5)
    data = StudyData(
        X=pd.DataFrame({"a & b": rng.normal(size=100)}),
        y=rng.normal(size=100),
        tasks=tasks,
        kind="regression",
        name="A <b>table</b>",
        target="dose",
        task="patients",
        numeric=["a & b"],
        text=[],
        task_noun="patient",
        row_noun="visit",
        unit="mg",
        notes=["a note of the data"],
        description="**Known problems.** None & all.",
    )
    found = compare(scores)
    said = verdict(found, data.error_name_and_unit, "patient", "visit")
    return StudyResult(
        data, StudySettings(shots=(0, 1, 5)), scores, summary, found, said, (10, 2, 8), ["another note"], 12.3
    )


@pytest.fixture(scope="module")
def html(result):
    return render_report(result, command="fewshot evaluate 'my file.csv' --seed 0")


class Checker(HTMLParser):
    """Collects tags and attributes, and holds opening against closing tags."""

    VOID = {"meta", "br", "link", "img", "hr"}

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_well_formed(html):
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert checker.tags.count("table") == 3  # two protocols and the comparison
    assert checker.tags.count("svg") == 1
    assert "script" not in checker.tags


def test_nothing_from_elsewhere(html):
    checker = Checker()
    checker.feed(html)
    for name, value in checker.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action"):
            assert value.startswith("#"), f"{name}={value}"
    assert set(re.findall(r"https?://[^\s\"'<)]+", html)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }
    assert "@import" not in html
    assert not re.search(r"url\((?!['\"]?#)", html)


def test_content(html, result):
    for part in (
        "A &lt;b&gt;table&lt;/b&gt;",
        "mixed &lt;slopes&gt;",
        "a &amp; b",
        "mean absolute error of dose, in mg",
        "a note of the data",
        "another note",
        "my file.csv",
        "seed 0",
        "torch ",
        "Known problems. None &amp; all.",
        "10 patients to train on, 2 to choose by",
        "It took 12 s",
        "Supports from the first visits",
        "8 patients",
    ):
        assert part in html
    row = result.summary.iloc[0]
    assert f"<b>{row['mean']:.3f}</b>" in html
    assert f"[{row['low']:.3f}, {row['high']:.3f}]" in html
    assert "did not pay" in html
    assert html.count('class="best"') == 6


def test_the_same_result_gives_the_same_report(html, result):
    assert html == render_report(result, command="fewshot evaluate 'my file.csv' --seed 0")


def test_curve(result):
    figure = draw_curve(result)
    left, right = figure.axes
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "Supports drawn at random",
        "Supports from the first visits",
    ]
    assert [label.get_text() for label in left.get_xticklabels()] == ["0\n8", "1\n8", "5\n8"]
    means = result.summary[(result.summary["protocol"] == "first") & (result.summary["method"] == "fewshot")]
    (maml,) = (c for c in right.containers if c.get_label() == "fewshot")
    np.testing.assert_allclose(maml.lines[0].get_ydata(orig=False), means.sort_values("shots")["mean"])
    assert {text.get_text() for text in right.texts} == {"fewshot", "pooled ridge", "mixed <slopes>"}


def test_labels_do_not_overlap(result):
    for axis in draw_curve(result).axes:
        heights = sorted(axis.transData.transform((0, text.get_position()[1]))[1] for text in axis.texts)
        assert np.diff(heights).min() > 10


def test_one_protocol_and_tasks_that_give_no_interval(result):
    few = result.summary[result.summary["protocol"] == "random"].assign(low=np.nan, high=np.nan, n_tasks=1)
    scores = result.scores[result.scores["protocol"] == "random"]
    found = compare(scores[scores["task"].isin(["test-0", "validation-0"])])
    one = StudyResult(result.data, result.settings, scores, few, found, "Too few.", (1, 1, 1))
    html = render_report(one)
    assert "too few tasks" in html
    assert "1 patient<" in html
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL)


def test_written_to_a_file(result, tmp_path):
    path = write_report(result, tmp_path / "r.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(FewShotError, match="cannot be written"):
        write_report(result, tmp_path)


def test_without_jinja2(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"fewshot\[report\]"):
        render_report(result)
