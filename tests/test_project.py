"""Promises of the repository as a whole: first commands, continuous integration, no machine in its text."""

import os
import re
import subprocess

import pytest

# Homes and scratch folders of one machine; after a letter or dot it is part of a longer path or a URL.
MACHINE_PATH = re.compile(r"(?<![\w.*-])/(?:home|root|work|opt/v|tmp/bash|Users)[/_.]")


def commands(markdown):
    """The command lines in the fenced blocks of a text, without prompts and comments."""
    blocks = re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ").split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def tracked_files(root):
    if not (root / ".git").exists():
        pytest.skip("not a git checkout, so there is no list of tracked files")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    return [root / name for name in names if name and (root / name).is_file()]


def test_readme_begins_with_demo_and_test(root):
    assert commands((root / "README.md").read_text(encoding="utf-8"))[:2] == ["make demo", "make test"]


def test_continuous_integration_runs_both(root):
    script = root / ".ci" / "run"
    assert os.access(script, os.X_OK), ".ci/run is not executable"
    lines = [line.strip() for line in script.read_text(encoding="utf-8").splitlines()]
    called = [line for line in lines if not line.startswith("#")]
    for target in ("demo", "test"):
        assert any(re.search(rf"\bmake {target}\b", line) for line in called), f".ci/run does not call make {target}"
    assert "export FEWSHOT_REQUIRE_DATA=1" in called


def test_no_path_of_one_machine(root):
    hits = []
    for path in tracked_files(root):
        text = path.read_bytes().decode("utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line):
                hits.append(f"{path.relative_to(root)}:{number}: {line.strip()[:100]}")
    assert not hits, "\n".join(hits)


def test_no_source_file_is_over_600_lines(root):
    for folder in ("fewshot", "applications", "datasets"):
        for path in (root / folder).rglob("*.py"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= 600, f"{path.relative_to(root)} has {lines} lines: split it by idea"


def test_the_patterns_find_what_they_look_for():
    assert commands("text\n```bash\n$ make demo  # say\n# no\nmake test\n```\n") == ["make demo", "make test"]
    for parts in (("", "home", "me"), ("", "root", "x"), ("x = '", "work", "main'"), ("", "opt", "v", "dev")):
        assert MACHINE_PATH.search("/".join(parts)), parts
    for text in ("https://example.org/home/page", "src/work/x", "tests/root/", "/homework/", "../work/x"):
        assert not MACHINE_PATH.search(text), text
