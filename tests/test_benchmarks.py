"""The speed benchmark: what decides who agrees, who is fastest and what the page says."""

import subprocess
import sys

import numpy as np
import pytest

from .benchmarks import _processes as processes
from .benchmarks import _table as table
from .benchmarks._table import Cell, Line


def cell(ms):
    return Cell(ms, 1.0, 300.0)


LINES = [
    Line(
        "sine", {"fewshot": cell(2.0), "loop": cell(80.0), "func": cell(15.0), "higher": cell(40.0), "jax": cell(3.0)}
    ),
    Line("conv4", {"fewshot": cell(100.0), "loop": cell(400.0), "func": "gradient off by 0.3"}),
    Line("tab", {"fewshot": "gradient off by 0.3", "loop": cell(80.0), "jax": cell(3.0)}),
]


def rows_of(markdown):
    return [[text.strip() for text in line.strip("|").split("|")] for line in markdown.splitlines()]


def test_equal_first_steps_agree():
    gradient = np.array([3.0, 4.0], np.float32)
    assert table.disagreement(2.0, gradient, 2.001, gradient * 1.0005) is None


@pytest.mark.parametrize(
    ("loss", "gradient", "message"),
    [
        (2.01, [3.0, 4.0], "loss off by 0.005"),
        (np.nan, [3.0, 4.0], "loss off by nan"),
        (2.0, [3.1, 4.1], "gradient norm off by 0.03"),
        (2.0, [4.0, 3.0], "gradient off by 0.3"),  # of the same norm
        (2.0, [np.nan, 4.0], "gradient norm off by nan"),
        (2.0, [5.0], "1 derivatives in place of 2"),
    ],
)
def test_another_first_step_does_not(loss, gradient, message):
    reference = np.array([3.0, 4.0], np.float32)
    assert table.disagreement(2.0, reference, loss, np.array(gradient, np.float32)) == message


def test_medians_over_rounds_by_either_clock():
    rounds = [{"ms": ms, "cpu_ms": ms / 2, "first_s": 1.0, "peak_mib": 300.0} for ms in (4.0, 90.0, 6.0)]
    assert table.summary(rounds) == Cell(6.0, 1.0, 300.0)
    assert table.summary(rounds, "cpu").ms == 3.0


def test_fastest_passes_over_those_without_a_time():
    assert table.fastest(LINES[0], ["loop", "func"]) == "func"
    assert table.fastest(LINES[1], ["loop", "func"]) == "loop"
    assert table.fastest(LINES[1], ["func", "absent"]) is None


def test_ratios_are_theirs_by_ours_and_absent_where_a_side_is_refused():
    sine, conv4, tab = rows_of(table.comparison(LINES))[2:]
    assert sine == ["sine", "2.00", "40.0 (higher)", "**20.0**", "15.0 (func)", "**7.50**", "3.00", "**1.50**"]
    assert conv4 == ["conv4", "100", "–", "–", "400 (loop)", "**4.00**", "–", "–"]
    assert tab == ["tab", "gradient off by 0.3", "–", "–", "80.0 (loop)", "–", "3.00", "–"]


def test_details_show_everyone_and_say_why_not():
    header, _, sine, conv4, _ = rows_of(table.details(LINES, "ms", "ms"))
    assert header == ["ms", "fewshot", "loop", "func", "higher", "jax"]
    assert sine == ["sine", "2.00", "80.0", "15.0", "40.0", "3.00"]
    assert conv4 == ["conv4", "100", "400", "gradient off by 0.3", "–", "–"]


def test_columns_are_as_wide_as_their_widest_text():
    assert len({len(line) for line in table.comparison(LINES).splitlines()}) == 1


@pytest.mark.parametrize(
    ("value", "text"), [(0.44, "0.44"), (9.996, "10.0"), (12.34, "12.3"), (99.96, "100"), (1055.2, "1,055")]
)
def test_three_digits(value, text):
    assert rows_of(table.details([Line("a", {"b": cell(value)})], "ms", "t"))[2] == ["a", text]


def test_the_block_is_replaced_and_the_page_around_it_stays():
    page = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    once = table.replace_block(page, "new\n")
    assert once == f"before\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"
    assert table.replace_block(once, "new") == once


@pytest.mark.parametrize("page", ["", table.BEGIN, f"{table.END}{table.BEGIN}", f"{table.BEGIN}{table.END}{table.END}"])
def test_a_page_without_its_markers_is_refused(page):
    with pytest.raises(ValueError, match="once each"):
        table.replace_block(page, "new")


def test_the_page_has_its_markers(root):
    table.replace_block((root / "docs" / "performance.md").read_text(encoding="utf-8"), "new")


def test_the_interpreter_keeps_the_environments_name(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    assert processes.interpreter_of(tmp_path) == tmp_path / "bin" / "python"


def test_an_environment_without_interpreter_is_one_clear_error(root, tmp_path):
    command = [sys.executable, "tests/benchmarks/speed.py", "--peers", tmp_path / "none"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "no bin/python" in done.stderr and "python -m venv" in done.stderr


def test_an_environment_without_torch_is_one_clear_error(root, tmp_path):
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text("""#!/bin/sh\necho '{"versions": {}, "missing": {"torch": "not installed"}}'\n""")
    python.chmod(0o755)
    command = [sys.executable, "tests/benchmarks/speed.py", "--peers", tmp_path]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "not installed" in done.stderr and "pip install torch" in done.stderr


def test_a_child_that_fails_tells_its_last_line(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "__file__", str(tmp_path / "_processes.py"))
    (tmp_path / "bad.py").write_text("raise ValueError('why')")
    (tmp_path / "good.py").write_text("import os\nprint('noise')\nprint('{\"a\":', os.environ['OMP_NUM_THREADS'], '}')")
    with pytest.raises(processes.ChildFailed, match="ValueError: why"):
        processes.run(sys.executable, "bad.py")
    assert processes.run(sys.executable, "good.py") == {"a": 1}
