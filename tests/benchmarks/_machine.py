"""A description of the machine and of the libraries, to stand beside the numbers."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["compiler", "describe", "processor"]


def processor() -> str:
    """Model name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def compiler() -> str:
    """First line of what the C++ compiler says about itself."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name):
            said = subprocess.run([name, "--version"], capture_output=True, text=True).stdout
            if said:
                return said.splitlines()[0]
    return "none found"


def describe(peers: dict[str, str] | None, pinned: bool) -> list[str]:
    """List the machine, the versions and the date.

    Parameters
    ----------
    peers : dict of str to str, or None
        Versions in the peers' environment.
    pinned : bool
        Whether all processes were kept on one core.
    """
    where = "one core" if pinned else "one thread, not bound to a core,"
    lines = [
        f"Processor: {processor()} ({platform.machine()}), {where} of {os.cpu_count()}; {platform.system()}",
        f"Compiler: {compiler()}",
        "fewshot's environment: " + _listed({"python": platform.python_version(), **_own("torch", "numpy")}),
    ]
    if peers is not None:
        lines.append("Peers' environment: " + _listed(peers))
    return [*lines, f"Date: {datetime.now(UTC):%Y-%m-%d}"]


def _own(*names: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in names}


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
