"""Child processes of the benchmark: one thread, one core, one line of JSON back."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["ChildFailed", "interpreter_of", "pin_to_one_core", "run"]

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
# These would let one environment's interpreter see another one's packages.
LEAKS = ("PYTHONPATH", "PYTHONHOME")
HOW = (
    "make one with: python -m venv peers; peers/bin/pip install torch==2.13.0 numpy higher torchopt jax optax; "
    "make bench PEERS=peers"
)


class ChildFailed(RuntimeError):
    """A measurement ended with an error; the message is its last line."""


def interpreter_of(environment: Path) -> Path:
    """Python interpreter of a virtual environment.

    Parameters
    ----------
    environment : Path
        The environment's folder.

    Raises
    ------
    SystemExit
        If there is none.
    """
    # Not resolved: an environment's interpreter is a link, and only under its own name does it know its packages.
    folder = environment.expanduser().absolute()
    for python in (folder / "bin" / "python", folder / "Scripts" / "python.exe"):
        if python.is_file():
            return python
    raise SystemExit(f"PEERS: got {str(environment)!r}, which has no bin/python; expected a virtual environment: {HOW}")


def pin_to_one_core() -> int | None:
    """Keep this process and its children on the last of the cores it may use; None where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))  # the first ones tend to serve interrupts
    os.sched_setaffinity(0, {core})
    return core


def run(
    python: str | Path, script: str, *arguments: object, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a script of this folder in a fresh process and return what it reports on its last line.

    Parameters
    ----------
    python : str or Path
        Interpreter.
    script : str
        Name of the script.
    *arguments : object
        Its command line.
    variables : mapping of str to str, default=None
        Further environment variables.

    Raises
    ------
    ChildFailed
        If it ends with an error.
    """
    environment = {name: value for name, value in os.environ.items() if name not in LEAKS}
    environment |= ONE_THREAD | dict(variables or {})
    command = [str(python), str(Path(__file__).parent / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise ChildFailed(_last_line(done.stderr) or f"ended with status {done.returncode}")
    return json.loads(lines[-1])


def _last_line(text: str) -> str:
    lines: Sequence[str] = text.strip().splitlines()
    return lines[-1][:200] if lines else ""
