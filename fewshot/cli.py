"""The command ``fewshot``: whether meta-learning pays, on a demonstration or on a table of one's own.

Whatever is heavy is imported inside functions, so that ``--help`` answers at once. An error that the package raises on
purpose is one line and exit code 2; ``--debug`` shows where it came from.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import FewShotError, InvalidParameterError

if TYPE_CHECKING:
    from .study import StudyData

__all__ = ["app", "demo", "evaluate", "main"]

SHOTS = "0,1,2,5,10"

app = typer.Typer(
    name="fewshot",
    help="Few-shot adaptation: does meta-learning pay on your data?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Shots = Annotated[str, typer.Option(help="Support sizes, separated by commas; 0 judges before adapting.")]
Draws = Annotated[int, typer.Option(help="Random supports per task and size.")]
TestShare = Annotated[float, typer.Option(help="Share of the tasks that judge.")]
Folds = Annotated[int | None, typer.Option(help="Judge all tasks, in so many folds, in place of --test-share.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
MaxIter = Annotated[int | None, typer.Option(help="Meta-steps.", show_default="about one a row")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Where to write the report (HTML).")]
NoReport = Annotated[bool, typer.Option("--no-report", help="Write no report.")]
Scores = Annotated[Path | None, typer.Option(help="Also write every single score to this CSV file.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print tables and verdict only, without progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def main() -> None:
    """Run the command line."""
    app(prog_name="fewshot")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"fewshot {version('fewshot')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    shots: Shots = SHOTS,
    draws: Draws = 5,
    test_share: TestShare = 0.3,
    folds: Folds = None,
    seed: Seed = 0,
    max_iter: MaxIter = None,
    output: Output = Path("report.html"),
    no_report: NoReport = False,
    scores: Scores = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Meta-train on patients of a liver trial, and compare with baselines on other patients."""
    with _one_line_errors(debug):
        options = _Options(shots, draws, test_share, folds, seed, max_iter, output, no_report, scores, quiet)
        _study(_pbc, ["demo"], options)


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet file, one row per observation.", show_default=False)],
    task: Annotated[
        str, typer.Option(help="Column that names each row's task: patient, site, ...", show_default=False)
    ],
    target: Annotated[str, typer.Option(help="Column to predict.", show_default=False)],
    features: Annotated[
        str | None, typer.Option(help="Input columns, separated by commas.", show_default="all that can be")
    ] = None,
    drop: Annotated[str | None, typer.Option(help="Columns that are not inputs, separated by commas.")] = None,
    block: Annotated[
        str | None, typer.Option(help="Column of blocks (visits): rows of one never support and judge at once.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Column of times or dates; adds supports from each task's first rows.")
    ] = None,
    classification: Annotated[
        bool | None,
        typer.Option("--classification/--regression", help="What the target is.", show_default="by its values"),
    ] = None,
    shots: Shots = SHOTS,
    draws: Draws = 5,
    test_share: TestShare = 0.3,
    folds: Folds = None,
    seed: Seed = 0,
    max_iter: MaxIter = None,
    output: Output = Path("report.html"),
    no_report: NoReport = False,
    scores: Scores = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare meta-learning with baselines on a table of your own."""
    kind = {None: None, True: "classification", False: "regression"}[classification]

    def load() -> StudyData:
        from .study import read_table, study_data

        columns: dict[str, Any] = {"block": block, "time": time, "kind": kind, "name": file.name}
        columns |= {"features": _names(features), "drop": _names(drop) or ()}
        return study_data(read_table(file), task, target, **columns)

    command = ["evaluate", str(file), "--task", task, "--target", target]
    for option, value in (("--features", features), ("--drop", drop), ("--block", block), ("--time", time)):
        command += [] if value is None else [option, value]
    command += [] if kind is None else [f"--{kind}"]
    with _one_line_errors(debug):
        options = _Options(shots, draws, test_share, folds, seed, max_iter, output, no_report, scores, quiet)
        _study(load, command, options)


class _Options:
    """The options that both commands share."""

    def __init__(
        self,
        shots: str,
        draws: int,
        test_share: float,
        folds: int | None,
        seed: int,
        max_iter: int | None,
        output: Path,
        no_report: bool,
        scores: Path | None,
        quiet: bool,
    ) -> None:
        self.shots, self.draws, self.test_share, self.folds = _sizes(shots), draws, test_share, folds
        self.seed, self.max_iter, self.quiet = seed, max_iter, quiet
        self.output, self.scores = None if no_report else output, scores
        for option, path in (("--output", self.output), ("--scores", scores)):
            if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
                raise InvalidParameterError(f"{option}: {path} is a folder, or its folder does not exist; give a file.")

    def command(self, start: list[str]) -> str:
        """Spell the command out, with every setting that the results depend on."""
        words = ["fewshot", *start, "--shots", ",".join(map(str, self.shots)), "--draws", str(self.draws)]
        words += ["--test-share", f"{self.test_share:g}"] if self.folds is None else ["--folds", str(self.folds)]
        words += ["--seed", str(self.seed)]
        words += [] if self.max_iter is None else ["--max-iter", str(self.max_iter)]
        return shlex.join(words)


def _study(load: Any, command: list[str], options: _Options) -> None:
    if options.output is not None:
        from .report import require_jinja2

        require_jinja2()  # what is missing is told before minutes of work
    from ._console import output_console, progress_bar, show
    from .study import StudySettings, run_study

    settings = StudySettings(
        shots=options.shots,
        draws=options.draws,
        test_share=options.test_share,
        folds=options.folds,
        seed=options.seed,
        max_iter=options.max_iter,
    )
    with progress_bar(shown=not options.quiet) as progress:
        result = run_study(load(), settings, progress)
    console = output_console()
    show(result, console, notes=not options.quiet)
    written = []
    if options.output is not None:
        from .report import write_report

        write_report(result, options.output, command=options.command(command))
        written.append(str(options.output))
    if options.scores is not None:
        result.scores.to_csv(options.scores, index=False)
        written.append(str(options.scores))
    if not options.quiet:
        wrote = f"; wrote {' and '.join(written)}" if written else ""
        console.print(f"\nDone in {result.seconds:.0f} s{wrote}", soft_wrap=True)


def _pbc() -> StudyData:
    from .datasets import load_pbc
    from .study import StudyData

    pbc = load_pbc()
    return StudyData(
        X=pbc.data,
        y=pbc.target.to_numpy(),
        tasks=pbc.tasks.to_numpy(),
        blocks=pbc.blocks.to_numpy(),
        time=pbc.time.to_numpy(dtype=float),
        kind="regression",
        name="Mayo Clinic primary biliary cirrhosis, sequential data",
        target="log bilirubin",
        unit="ln(mg/dl)",
        task="patients",
        task_noun="patient",
        row_noun="visit",
        numeric=list(pbc.data.columns),
        text=[],
        notes=["An error of 0.1 in the logarithm is an error of about 10 % in bilirubin."],
        description=pbc.DESCR,
    )


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted(int(word) for word in text.split(",")))
    except ValueError:
        raise InvalidParameterError(
            f"--shots: got {text!r}; expected whole numbers separated by commas, such as {SHOTS}."
        ) from None


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


@contextmanager
def _one_line_errors(debug: bool) -> Iterator[None]:
    """Turn errors into one line and an exit code."""
    logger = logging.getLogger("fewshot")
    level = logger.level
    logger.setLevel(level if debug else logging.ERROR)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing was written", err=True)
        raise typer.Exit(130) from None
    except (FewShotError, OSError) as error:
        if debug:
            raise
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    finally:
        logger.setLevel(level)
