"""The type check sees ``applications/``: an error planted there is found as `make types` would find it."""

import subprocess

PLANTED = '''"""A module with a type error."""

length: int = "five"
'''


def test_a_type_error_in_an_application_is_found(source_copy, install_apart, tmp_path):
    source = source_copy()
    (source / "applications" / "medicine" / "planted.py").write_text(PLANTED)
    python = install_apart(source)
    empty = tmp_path / "empty"
    empty.mkdir()
    config = ["--config-file", source / "pyproject.toml", "--cache-dir", tmp_path / "cache"]
    done = subprocess.run([python, "-m", "mypy", *config, "-p", "fewshot"], cwd=empty, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "planted.py:3: error:" in line]
    assert lines and "Incompatible types in assignment" in lines[0], done.stdout


def test_make_types_runs_the_same_check(root):
    recipe = (root / "Makefile").read_text(encoding="utf-8")
    assert "-m mypy --config-file ../../pyproject.toml --cache-dir ../cache -p fewshot" in recipe
    assert "--no-deps --no-build-isolation --force-reinstall ." in recipe
