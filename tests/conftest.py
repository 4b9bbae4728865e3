"""Fixtures shared by all tests: real data, copies of the sources, clean environments."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")  # before anything imports matplotlib

ROOT = Path(__file__).resolve().parents[1]

NOT_SOURCES = shutil.ignore_patterns(
    ".git",
    ".venv*",
    "build",
    "dist",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "_build",
    "htmlcov",
)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled programs go to a temporary folder, not to the user's own, unless the environment names a folder.

    The workers of pytest-xdist share it, as they share the folder above their own: two of them may need one program.
    """
    if os.environ.get("FEWSHOT_CACHE"):
        yield
        return
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_CACHE", str(base / "compiled"))
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: where it is absent a test that asks for it is skipped, or fails if told to."""
    name = os.environ.get("FEWSHOT_DATA")
    if name and Path(name).is_dir():
        return Path(name).resolve()
    reason = f"FEWSHOT_DATA={name!r} is not a folder" if name else "FEWSHOT_DATA is not set"
    if os.environ.get("FEWSHOT_REQUIRE_DATA", "0") not in ("", "0"):
        pytest.fail(f"{reason}, and FEWSHOT_REQUIRE_DATA asks for the real data")
    pytest.skip(f"needs the real data: {reason}")


@pytest.fixture(scope="session")
def source_copy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A function that copies the checkout, without what was built in it, into a new folder."""

    def copy() -> Path:
        target = tmp_path_factory.mktemp("source") / "project"
        shutil.copytree(ROOT, target, ignore=NOT_SOURCES)
        return target

    return copy


@pytest.fixture(scope="session")
def install_apart(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """A function that installs a wheel or a source folder, not editably, into a new environment.

    The environment borrows this one's libraries through a ``.pth`` line, so nothing but the project is
    installed. The ``.pth`` files of a borrowed folder are not read, so an editable install of the project
    stays out of sight; the test that uses the environment makes sure of it.

    Returns the path of its interpreter.
    """

    def install(what: Path) -> Path:
        folder = tmp_path_factory.mktemp("apart")
        run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
        python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        own = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        borrowed = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
        (Path(own) / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--disable-pip-version-check",
            "--quiet",
        ]
        run(*pip, "--no-deps", "--no-index", "--no-build-isolation", "--force-reinstall", what)
        return python

    return install


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command, return what it printed, and fail the test with all of its output when it fails."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MYPYPATH", "PYTHONHOME")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        text = " ".join(str(part) for part in command)
        pytest.fail(f"{text}\nreturned {done.returncode}:\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    """Close what a test drew: matplotlib warns at the twentieth open figure, and warnings are errors."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
