"""Time of one meta-step of exact second-order MAML, here and in other libraries, on the same arrays and one core.

    python tests/benchmarks/speed.py
    python tests/benchmarks/speed.py --peers path/to/environment [--write] [--mode vectorized]

Every time is taken in a fresh process; libraries take turns, round after round, and medians over the rounds are shown.
A library whose first loss or gradient is not that of plain autograd gets no time and no ratio. Without ``--peers``, an
environment in which the other libraries are installed, only fewshot is timed. With ``--write`` the tables also go into
docs/performance.md, which says more on what is compared.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _machine import describe
from _problems import PROBLEMS, WORK
from _processes import ChildFailed, interpreter_of, pin_to_one_core, run
from _table import OURS, Cell, Line, comparison, details, disagreement, markdown, replace_block, summary

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
PEERS = ("loop", "higher", "torchopt", "learn2learn", "func", "jax")
COMPILED_PEERS = ("func-fx", "func-inductor", "func-compile")
NEEDS = {"higher": ["higher"], "torchopt": ["torchopt"], "learn2learn": ["learn2learn"], "jax": ["jax", "optax"]}
BUSY = 1.1  # wall time over CPU time from which the core was not ours alone


class Comparison:
    """Measurements of all libraries on all problems, collected over the rounds.

    Parameters
    ----------
    args : argparse.Namespace
        The command line.
    python : Path or None
        Interpreter of the peers' environment.
    peers : sequence of str
        Peers that are installed there.
    scratch : Path
        Folder for gradients.
    """

    def __init__(self, args: argparse.Namespace, python: Path | None, peers: Sequence[str], scratch: Path) -> None:
        self.args, self.python, self.peers, self.scratch = args, python, peers, scratch
        self.work = [(name, steps) for name, steps in WORK if name in args.problems]
        self.rounds: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
        self.refused: dict[tuple[str, int, str], str] = {}
        self.references: dict[tuple[str, int, bool], tuple[float, np.ndarray]] = {}

    def contestants(self, problem: str) -> list[str]:
        """Everyone who takes part in a problem; JAX has no convolutional network here."""
        return [OURS, *(p for p in self.peers if not (p == "jax" and PROBLEMS[problem].kind == "images"))]

    def run_all(self) -> None:
        """Run all rounds."""
        for number in range(self.args.rounds):
            for problem, steps in self.work:
                for name in self.contestants(problem):
                    if (problem, steps, name) not in self.refused:
                        self.run_one(number, problem, steps, name)

    def run_one(self, number: int, problem: str, steps: int, name: str) -> None:
        """Time one library on one problem once, unless its first step is wrong."""
        key = problem, steps, name
        options = ["--seconds", self.args.seconds, "--warm-up", self.args.warm_up]
        try:
            result, gradient = self.child(name, problem, steps, options)
            why = None
            if self.python is not None:
                why = disagreement(*self.reference(problem, steps, name), result["loss"], gradient)
        except ChildFailed as error:
            say(f"{name} on {problem}: {error}")
            why = "failed"
        if why is not None:
            self.refused[key] = why
            say(f"{name} on {problem}, {steps} step(s): no time, since: {why}")
            return
        self.rounds.setdefault(key, []).append(result)
        busy = ", the core was busy" if result["ms"] > BUSY * result["cpu_ms"] else ""
        say(f"round {number + 1}: {problem}, {steps} step(s), {name}: {result['ms']:.3g} ms{busy}")

    def reference(self, problem: str, steps: int, name: str) -> tuple[float, np.ndarray]:
        """Loss and gradient of the first step by plain autograd, one task after another.

        Batch normalisation is a choice: here query rows are normalised by the support's statistics, in the peers by
        their own.
        """
        by_support = name == OURS and PROBLEMS[problem].kind == "images"
        key = problem, steps, by_support
        if key not in self.references:
            options = ["--seconds", 0, *(["--support-statistics"] if by_support else [])]
            result, gradient = self.child("loop", problem, steps, options)
            self.references[key] = result["loss"], gradient
        return self.references[key]

    def child(
        self, name: str, problem: str, steps: int, options: Sequence[object]
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Run one library in a fresh process; returns its result and its first gradient."""
        file = self.scratch / "gradient.npy"
        common = ["--problem", problem, "--steps", steps, "--gradient", file, *options]
        if name == OURS:
            result = ours("step", "--mode", self.args.mode, *common)
        else:
            assert self.python is not None
            result = run(self.python, "_peer.py", "--peer", name, *common)
        return result, np.load(file)

    def lines(self) -> list[Line]:
        """Medians over the rounds, one line for each problem."""
        found = []
        for problem, steps in self.work:
            cells: dict[str, Cell | str] = {}
            for name in self.contestants(problem):
                key = problem, steps, name
                cells[name] = self.refused.get(key) or summary(self.rounds[key], self.args.clock)
            label = f"{problem}: {PROBLEMS[problem].describe()}, {steps} step{'s' if steps > 1 else ''}"
            found.append(Line(label, cells))
        return found


def ours(measurement: str, *options: object) -> dict[str, Any]:
    """Measure fewshot in a fresh process with an empty cache of compiled programs, as on a user's first day."""
    with tempfile.TemporaryDirectory() as cache:
        return run(sys.executable, "_ours.py", measurement, *options, variables={"FEWSHOT_CACHE": cache})


def further(args: argparse.Namespace, scratch: Path) -> str:
    """Measure what no other library is compared with, and make a table of it."""

    engine, estimator = (["--mode", mode, "--clock", args.clock] for mode in (args.mode, args.fit_mode))

    def wide(steps: int) -> float:
        options = ["--problem", "wide", "--steps", steps, "--seconds", 0.01, "--gradient", scratch / "gradient.npy"]
        return ours("step", *estimator, *options)["peak_mib"]

    collected: dict[str, list[float]] = {}
    for number in range(args.rounds):
        adapted = ours("adapt", *estimator)
        found = {
            "fit": ours("fit", *estimator, "--meta-steps", args.fit_steps)["seconds"],
            "bare": ours("bare", *engine, "--meta-steps", args.fit_steps, "--warm-up", args.warm_up)["seconds"],
            "one step": wide(1),
            "twenty steps": wide(20),
            "adapt": adapted["seconds"],
            "rate": adapted["gflop"] / adapted["seconds"],
            "products": adapted["product_gflop_s"],
            # Wall time in any case: whoever waits for the first step waits for a compiler in another process too.
            "first": ours("fit", *estimator, "--meta-steps", 1, "--clock", "wall")["seconds"],
        }
        say(f"round {number + 1}: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()))
        for name, value in found.items():
            collected.setdefault(name, []).append(value)
    m = {name: median(values) for name, values in collected.items()}
    count = f"{args.fit_steps:,}"
    rows = [
        [
            f"`fit_meta`, {count} meta-steps on sinusoids (5 steps), against as many bare meta-steps",
            f"{m['fit']:.1f} s against {m['bare']:.1f} s",
            f"{m['fit'] / m['bare']:.2f}",
        ],
        [
            "peak memory on wide, 20 steps against 1",
            f"{m['twenty steps']:,.0f} MiB against {m['one step']:,.0f} MiB",
            f"{m['twenty steps'] / m['one step']:.2f}",
        ],
        [
            "`adapt` to 10,000 tasks (adapt.py), against bare matrix products of its shapes",
            f"{m['adapt']:.2f} s: {m['rate']:.1f} against {m['products']:.1f} GFLOP/s",
            f"{m['rate'] / m['products']:.2f}",
        ],
        [
            "`fit_meta` in a fresh process until the first meta-step is done, imports excluded",
            f"{m['first']:.2f} s",
            "–",
        ],
    ]
    return markdown(["fewshot alone", "measured", "ratio"], rows)


def peers_of(args: argparse.Namespace) -> tuple[Path | None, dict[str, str] | None, list[str]]:
    """Find the peers' interpreter, the versions in its environment, and the peers that are installed."""
    if args.peers is None:
        return None, None, []
    python = interpreter_of(args.peers)
    try:
        found = run(python, "_peer.py", "--versions")
    except ChildFailed as error:
        raise SystemExit(f"PEERS: the interpreter of {str(args.peers)!r} cannot run the peers ({error})") from None
    versions, missing = found["versions"], found["missing"]
    if "torch" in missing:
        raise SystemExit(
            f"PEERS: torch in {str(args.peers)!r} is {missing['torch']}; install it there, with numpy: "
            f"{args.peers}/bin/pip install torch==2.13.0 numpy"
        )
    peers = []
    for name in [*PEERS, *(COMPILED_PEERS if args.torch_compile else ())]:
        lacking = [library for library in NEEDS.get(name, ()) if library in missing]
        if lacking:
            say(f"{name}: left out, since {lacking[0]} is {missing[lacking[0]]}")
        elif not args.only or name in args.only:
            peers.append(name)
    return python, versions, peers


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time meta-steps here and in other libraries.")
    parser.add_argument("--peers", type=Path, help="virtual environment in which the other libraries are installed")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--mode", default="compiled", help="kernels of fewshot's engine")
    parser.add_argument("--fit-mode", default="auto", help="the same for estimators, whose default is auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing in each process")
    parser.add_argument("--warm-up", type=float, default=1.0, help="least seconds of untimed steps in each process")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu is for machines busy otherwise")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--only", nargs="+", choices=[*PEERS, *COMPILED_PEERS], help="some of the peers")
    parser.add_argument("--torch-compile", action="store_true", help="peers under make_fx and torch.compile too: slow")
    parser.add_argument("--fit-steps", type=int, default=10_000, help="meta-steps of the whole fit")
    parser.add_argument("--no-further", action="store_true", help="leave out what no peer is compared with")
    args = parser.parse_args()
    if args.write and args.peers is None:
        parser.error("--write: the page compares with other libraries, so it needs --peers")
    if args.rounds < 1 or args.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    return args


def main() -> int:
    """Measure, print the tables, write the page if asked; 1 if fewshot's own part failed or its gradient is wrong."""
    args = arguments()
    python, versions, peers = peers_of(args)
    core = pin_to_one_core()
    with tempfile.TemporaryDirectory() as folder:
        everyone = Comparison(args, python, peers, Path(folder))
        everyone.run_all()
        lines = everyone.lines()
        parts = [comparison(lines)] if peers else []
        parts.append(details(lines, "ms", "ms per meta-step"))
        parts.append(details(lines, "first_s", "s until the first meta-step is done"))
        parts.append(details(lines, "peak_mib", "peak memory, MiB"))
        failed = any(isinstance(line.cells[OURS], str) for line in lines)
        if not args.no_further:
            try:
                parts.append(further(args, Path(folder)))
            except ChildFailed as error:
                say(f"fewshot alone: {error}")
                failed = True
    settings = (
        f'Engine mode "{args.mode}" (in estimators "{args.fit_mode}"); medians over {args.rounds} round(s) of '
        f"{args.seconds:g} s; {args.clock} time."
    )
    parts += [settings, "\n".join(f"- {line}" for line in describe(versions, core is not None))]
    block = "\n\n".join(parts)
    say(f"\n{block}")
    if args.write and failed:
        say("\nnot written, since fewshot itself failed")
    elif args.write:
        PAGE.write_text(replace_block(PAGE.read_text(encoding="utf-8"), block), encoding="utf-8")
        say(f"\nwritten to {PAGE.name}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
