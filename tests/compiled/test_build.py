"""Building: what is found again, what is a build of its own, and every way it can fail."""

import ctypes
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fewshot.compiled import build
from fewshot.compiled.build import Build, BuildError, cache_folder

pytestmark = pytest.mark.usefixtures("compiler")

FOREVER = float("inf")


def source(number):
    return f'extern "C" int answer() {{ return {number}; }}\n'


def slow():
    """Source that keeps the compiler busy for many seconds, and so long that a test would notice having waited."""
    steps = "\n".join(
        f"template <int N> struct S{k} {{ static constexpr long v = S{k}<N - 1>::v + 1; }};" for k in (0,)
    )
    many = "\n".join(f"long f{k}(long x) {{ return x * {k} + S0<{800 - k % 50}>::v; }}" for k in range(20_000))
    return f"{steps}\ntemplate <> struct S0<0> {{ static constexpr long v = 0; }};\n{many}\n"


def answer(path):
    return ctypes.CDLL(str(path)).answer()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache folder, which does not exist yet."""
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache" / "programs"))
    return tmp_path / "cache" / "programs"


def message(error):
    text = str(error.value)
    assert "\n" not in text and text
    return text


def test_a_library_is_made_once(folder):
    first = Build(source(42))
    path = first.wait(FOREVER)
    assert not first.was_cached and path.parent == folder and answer(path) == 42
    made = path.stat().st_mtime_ns
    again = Build(source(42))
    assert again.was_cached and again.wait(0.0) == path == first.wait(0.0)
    assert path.stat().st_mtime_ns == made
    assert [p.name for p in folder.iterdir()] == [path.name], "something was left behind"
    assert folder.stat().st_mode & 0o077 == 0 or os.name == "nt", "others could plant libraries there"


def test_other_source_and_other_options_are_other_libraries(folder, monkeypatch):
    builds = [Build(source(1)), Build(source(2))]
    assert [answer(b.wait(FOREVER)) for b in builds] == [1, 2]
    monkeypatch.setattr(build, "_toolchain", lambda compiler: ("another compiler", ("-shared", "-fPIC")))
    builds.append(Build(source(1)))
    monkeypatch.setattr(build, "_machine", lambda: "another machine")
    builds.append(Build(source(1)))
    assert not any(b.was_cached for b in builds)
    assert len({b.wait(FOREVER) for b in builds}) == len(builds)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[::-1]])
def test_a_damaged_library_is_made_again_and_never_loaded(folder, damage):
    path = Build(source(42)).wait(FOREVER)
    path.write_bytes(damage(path.read_bytes()))
    again = Build(source(42))
    assert not again.was_cached and not path.exists()
    assert answer(again.wait(FOREVER)) == 42
    assert len(list(folder.iterdir())) == 1


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here" == Build(source(1)).wait(FOREVER).parent
    monkeypatch.delenv("FEWSHOT_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "fewshot" / "compiled"


def test_the_compiler_may_be_a_command(folder, monkeypatch, compiler):
    monkeypatch.setenv("CXX", f"{compiler[0]} -DANSWER=7")
    assert answer(Build('extern "C" int answer() { return ANSWER; }').wait(FOREVER)) == 7
    monkeypatch.setenv("CXX", f"{compiler[0]} -DANSWER=8")
    assert answer(Build('extern "C" int answer() { return ANSWER; }').wait(FOREVER)) == 8


def test_no_home(monkeypatch):
    monkeypatch.delenv("FEWSHOT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")

    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(BuildError, match="no home folder; FEWSHOT_CACHE names") as error:
        Build(source(1))
    message(error)


def test_a_compiler_that_cannot_be_started_leaves_nothing(folder, monkeypatch):
    started = subprocess.Popen

    def failing(command, *arguments, **options):
        if "-o" in command:
            raise OSError("no more processes")
        return started(command, *arguments, **options)

    monkeypatch.setattr(build.subprocess, "Popen", failing)
    with pytest.raises(BuildError):
        Build(source(1))
    gc.collect()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("chosen", [None, "no-such-compiler"])
def test_no_compiler(folder, monkeypatch, tmp_path, chosen):
    if chosen is None:
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setenv("CXX", chosen)
    with pytest.raises(BuildError, match="no C.. compiler found .*CXX") as error:
        Build(source(1))
    message(error)
    assert not folder.exists()


def test_a_compiler_that_takes_no_options(folder, monkeypatch, tmp_path):
    refuses = tmp_path / "refuses"
    refuses.write_text("#!/bin/sh\nexit 1\n")
    refuses.chmod(0o755)
    monkeypatch.setenv("CXX", str(refuses))
    with pytest.raises(BuildError, match="does not take the options") as error:
        Build(source(1))
    message(error)


def test_source_that_is_wrong(folder):
    failing = Build("int f() { return undeclared; }")
    with pytest.raises(BuildError, match="^the C.. compiler failed: .*undeclared") as error:
        failing.wait(FOREVER)
    message(error)
    assert list(folder.iterdir()) == []


def test_a_compiler_that_dies(folder, monkeypatch, tmp_path, compiler):
    dies = tmp_path / "dies"
    dies.write_text('#!/bin/sh\ncase "$*" in *syntax-only*|*version*) exit 0;; esac\nexit 3\n')
    dies.chmod(0o755)
    monkeypatch.setenv("CXX", str(dies))
    with pytest.raises(BuildError, match="exit status 3") as error:
        Build(source(1)).wait(FOREVER)
    message(error)


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "file"))
    with pytest.raises(BuildError, match="cannot be written to .*FEWSHOT_CACHE names another") as error:
        Build(source(1))
    assert str(tmp_path / "file") in message(error)


def test_two_builds_of_one_source_at_the_same_time(folder):
    builds = [Build(source(7)) for _ in range(3)]
    assert not any(b.was_cached for b in builds)
    paths = {b.wait(FOREVER) for b in builds}
    assert len(paths) == 1 and answer(paths.pop()) == 7
    assert len(list(folder.iterdir())) == 1


def test_waiting_is_as_long_as_it_was_asked_for(folder):
    building = Build(slow())
    began = time.perf_counter()
    assert building.wait(0.0) is None
    assert building.wait(0.1) is None
    assert 0.1 <= time.perf_counter() - began < 2.0
    assert building.seconds > 0.1
    building._finalizer()


def test_a_build_that_is_abandoned_leaves_nothing(folder):
    building = Build(slow())
    process = building._process
    assert process.poll() is None and len(list(folder.iterdir())) == 1
    del building
    gc.collect()
    assert process.returncode is not None, "the compiler is still there"
    assert list(folder.iterdir()) == []


def test_the_end_of_the_process_ends_its_builds(folder):
    """A script that ends while the compiler runs leaves no compiler behind that eats the machine's time."""
    script = (
        "import sys; from fewshot.compiled.build import Build\n"
        "b = Build(sys.stdin.read()); print(b._process.pid, flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", script], input=slow(), capture_output=True, text=True, check=True)
    assert list(folder.iterdir()) == []
    assert not Path(f"/proc/{int(done.stdout)}").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_leaves_the_build_of_its_parent_alone(folder):
    """A worker that is forked while the compiler runs and ends before it must not take it along."""
    script = (
        "import os, sys; from fewshot.compiled.build import Build\n"
        "b = Build(sys.stdin.read())\n"
        "child = os.fork()\n"
        "if not child: sys.exit()\n"  # unlike os._exit, this runs the finalizers
        "os.waitpid(child, 0)\n"
        "print(b._process.poll() is None and os.path.exists(b._folder))"
    )
    done = subprocess.run([sys.executable, "-c", script], input=slow(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_the_compilers_own_children_end_with_it(folder, monkeypatch, tmp_path):
    """g++ is a driver: what takes the time is a process that it starts."""
    drives = tmp_path / "drives"
    drives.write_text(
        '#!/bin/sh\ncase "$*" in *syntax-only*|*version*) exit 0;; esac\n'
        f"sleep 600 & echo $! > {tmp_path}/child; wait\n"
    )
    drives.chmod(0o755)
    monkeypatch.setenv("CXX", str(drives))
    building = Build(source(1))
    file = tmp_path / "child"
    deadline = time.perf_counter() + 10
    while not (file.exists() and file.read_text().endswith("\n")) and time.perf_counter() < deadline:
        time.sleep(0.01)
    child = Path(f"/proc/{int(file.read_text())}/stat")
    building._finalizer()
    while child.exists() and child.read_text().split()[2] != "Z" and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert not child.exists() or child.read_text().split()[2] == "Z", "it runs on"
