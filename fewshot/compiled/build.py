"""Turning source into a shared library: which compiler, with which options, kept where.

The compiler runs as a process of its own beside training. What it made is kept on disk under a hash of everything that it
depends on, so a second process finds it there.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

import torch

__all__ = ["Build", "BuildError", "cache_folder", "find_compiler", "lanes"]

logger = logging.getLogger("fewshot")

OPTIONS = (
    "-O2",
    "-ftree-vectorize",
    "-fvect-cost-model=dynamic",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
    "-fno-strict-aliasing",  # scratch memory holds numbers of several types one after another
    "-w",
)
TARGETS = ("-march=native", "-mcpu=native", "")  # the first that the compiler takes


LONGEST_WAIT = 1e6  # seconds that a timeout may be


class BuildError(Exception):
    """No library could be made; the message is one line."""


def cache_folder() -> Path:
    """Folder of compiled programs: the environment's FEWSHOT_CACHE, or the user's cache folder."""
    if chosen := os.environ.get("FEWSHOT_CACHE"):
        return Path(chosen)
    try:
        if sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        elif sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home())
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise BuildError("the user has no home folder; FEWSHOT_CACHE names a folder for compiled programs") from error
    return base / "fewshot" / "compiled"


def find_compiler() -> tuple[str, ...] | None:
    """Command of a C++ compiler that understands the options of GCC: the environment's CXX, or the first one found."""
    chosen = shlex.split(os.environ.get("CXX", ""))
    if chosen:
        found = shutil.which(chosen[0])
        return None if found is None else (found, *chosen[1:])
    return next(((found,) for found in map(shutil.which, ("g++", "clang++", "c++")) if found), None)


def lanes(dtype: torch.dtype) -> int:
    """Numbers in a vector register of this machine."""
    capability = torch.backends.cpu.get_cpu_capability()
    return {"AVX512": 64, "AVX2": 32}.get(capability, 16) // dtype.itemsize


@functools.cache
def _machine() -> str:
    """Describe what native code depends on, so that a cache folder can be shared between machines."""
    features = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return f"{sys.platform} {platform.machine()} {platform.processor()} {features}"


@functools.cache
def _toolchain(compiler: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Version of the compiler, and the options for it on this machine."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout
    wide = ("-mprefer-vector-width=512",) if lanes(torch.float32) == 16 else ()
    for target in TARGETS:
        options = tuple(filter(None, (*OPTIONS, target, *wide)))
        test = [*compiler, *options, "-x", "c++", "-fsyntax-only", os.devnull]
        if subprocess.run(test, capture_output=True, check=False).returncode == 0:
            return version, options
        wide = ()
    logger.debug("compiled: the options are %s", " ".join(OPTIONS))
    raise BuildError(f"{shlex.join(compiler)} does not take the options of g++ for C++17; CXX names another compiler")


class Build:
    """A library in the making, or found in the cache.

    Parameters
    ----------
    source : str
        C++.

    Raises
    ------
    BuildError
        If there is no compiler, or nowhere to write.

    Attributes
    ----------
    path : Path or None
        The library, once it is made.
    was_cached : bool
        The library was there already.
    """

    def __init__(self, source: str) -> None:
        compiler = find_compiler()
        if compiler is None:
            chosen = os.environ.get("CXX")
            raise BuildError(
                f"no C++ compiler found (the environment variable CXX names {chosen!r})"
                if chosen
                else "no C++ compiler found (g++ or clang++; the environment variable CXX names another)"
            )
        version, options = _toolchain(compiler)
        key = hashlib.sha256("\0".join([source, *compiler, version, *options, _machine()]).encode()).hexdigest()[:32]
        self._cache, self._key = cache_folder(), key
        self.began = time.perf_counter()
        self.path = _whole(self._cache, key)
        self.was_cached = self.path is not None
        self._process: subprocess.Popen[str] | None = None
        if self.was_cached:
            return
        try:
            self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder = tempfile.mkdtemp(prefix="build-", dir=self._cache)
            self._running: list[subprocess.Popen[str]] = []
            self._finalizer = weakref.finalize(self, _abandon, self._running, self._folder, os.getpid())
            written = Path(self._folder) / "program.cpp"
            written.write_text(source)
        except OSError as error:
            raise _unwritable(self._cache, error) from error
        self._made = Path(self._folder) / "program.so"
        command = [*compiler, *options, "-o", str(self._made), str(written)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for training, which decides what becomes of the build
            )
        except OSError as error:
            self._finalizer()
            raise BuildError(f"{shlex.join(compiler)} cannot be started ({error})") from error
        self._running.append(self._process)

    @property
    def seconds(self) -> float:
        """Time since the build began."""
        return time.perf_counter() - self.began

    def wait(self, seconds: float) -> Path | None:
        """Return the library's path once it is made, None if that takes longer than `seconds`.

        Raises
        ------
        BuildError
            If the compiler failed.
        """
        if self._process is None:
            return self.path
        try:
            complaint = self._process.communicate(timeout=None if seconds > LONGEST_WAIT else seconds)[1]
        except subprocess.TimeoutExpired:
            return None
        return self._finish(complaint)

    def _finish(self, complaint: str) -> Path:
        assert self._process is not None
        failed = self._process.returncode
        try:
            if not failed:
                self.path = _keep(self._made, self._cache, self._key)
        except OSError as error:
            raise _unwritable(self._cache, error) from error
        finally:
            self._finalizer()
        if self.path is None:
            lines = [line for line in complaint.splitlines() if "error" in line] or [f"exit status {failed}"]
            raise BuildError(f"the C++ compiler failed: {lines[0][:200]}")
        self._process = None
        return self.path


def _unwritable(folder: Path, error: OSError) -> BuildError:
    return BuildError(f"{folder} cannot be written to ({error.strerror}); FEWSHOT_CACHE names another folder")


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()[:16]


def _keep(made: Path, cache: Path, key: str) -> Path:
    """Put a library into the cache under its own hash: one that is cut short there would end the process that loads it."""
    with made.open("rb") as file:
        os.fsync(file.fileno())
    path = cache / f"{key}-{_digest(made)}.so"
    os.replace(made, path)  # another process may have made the same: either is good
    return path


def _whole(cache: Path, key: str) -> Path | None:
    """Return the library of a key, if it is there and as it was written; one that is not goes."""
    for path in sorted(cache.glob(f"{key}-*.so")):
        try:
            if path.stem.rpartition("-")[2] == _digest(path):
                return path
            path.unlink()
        except OSError as error:
            logger.debug("compiled: passing over %s (%s)", path, error)
    return None


def _abandon(running: list[subprocess.Popen[str]], folder: str, owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork of the process that builds
    for process in running:
        if process.poll() is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # the compiler's own children too
            except (AttributeError, ProcessLookupError):  # no process groups on Windows; or ended in between
                process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()
    shutil.rmtree(folder, ignore_errors=True)
