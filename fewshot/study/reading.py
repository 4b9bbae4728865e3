"""Reading a user's table: one clear error for each way in which a file is not one."""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd

from ..errors import DataNotFoundError, InvalidDataError, MissingDependencyError

__all__ = ["read_table"]

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")
DECIMAL_COMMA = r"\s*[-+]?\d+,\d+\s*"


def read_table(path: str | Path) -> pd.DataFrame:
    r"""Read a CSV or Parquet file, which of the two its content tells.

    Separators (comma, semicolon, tab, bar) are recognised by the first line, decimal commas by the values.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    DataFrame
        With names of columns as text.

    Raises
    ------
    DataNotFoundError
        If there is no such file.
    InvalidDataError
        If it is empty, no table, or a table of one column.
    MissingDependencyError
        If it is a Parquet file and pyarrow is not installed.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "table.csv")
    ...     _ = path.write_text("site;dose\na;1,5\nb;2,0\n")
    ...     read_table(path)["dose"].tolist()
    [1.5, 2.0]
    """
    path = Path(path)
    if path.is_dir():
        raise InvalidDataError(f"{path}: is a folder; give the path of a CSV or Parquet file.")
    if not path.exists():
        raise DataNotFoundError(f"{path}: no such file.")
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise InvalidDataError(f"{path}: cannot be read ({error.strerror}).") from error
    if not start.strip():
        raise InvalidDataError(f"{path}: the file is empty.")
    frame = _read_parquet(path) if start.startswith(b"PAR1") else _read_csv(path, start)
    frame.columns = [str(c) for c in frame.columns]
    if frame.shape[1] < 2:
        raise InvalidDataError(
            f"{path}: found one column only ({frame.columns[0] if len(frame.columns) else 'none'}); expected at least a "
            f"column of tasks, a target and an input, separated by {', '.join(SEPARATORS.values())}."
        )
    if not len(frame):
        raise InvalidDataError(f"{path}: has a header but no rows.")
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet files need the package pyarrow, which is not installed; run: pip install 'fewshot[data]'"
        ) from error
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        raise InvalidDataError(f"{path}: damaged Parquet file: {_first_line(error)}") from error


def _read_csv(path: Path, start: bytes) -> pd.DataFrame:
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise InvalidDataError(f"{path}: is a web page (HTML or XML), not a table; download the CSV file itself.")
    if start.startswith(COMPRESSED):
        what = "a zip archive or an Excel workbook" if start.startswith(b"PK") else "compressed"
        raise InvalidDataError(f"{path}: is {what}; unpack it, or export the table as CSV.")
    if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidDataError(f"{path}: is a binary file, neither CSV nor Parquet.")
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    header = start.decode(encoding, errors="replace").splitlines()[0]
    separator = max(SEPARATORS, key=header.count)

    def read(decimal: str = ".") -> pd.DataFrame:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            return pd.read_csv(
                path, sep=separator, decimal=decimal, encoding=encoding, skipinitialspace=True, index_col=False
            )

    try:
        frame = read()
        return read(",") if separator != "," and _has_decimal_commas(frame) else frame
    except UnicodeDecodeError as error:
        raise InvalidDataError(
            f"{path}: is not in UTF-8 (byte {error.start}); convert it, for example with: iconv -f latin1 -t utf-8"
        ) from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise InvalidDataError(
            f"{path}: not a table separated by {SEPARATORS[separator]}: {_first_line(error)}"
        ) from error


def _has_decimal_commas(frame: pd.DataFrame) -> bool:
    for column in frame.columns[[not pd.api.types.is_numeric_dtype(t) for t in frame.dtypes]]:
        values = frame[column].dropna().astype(str)
        if len(values) and values.str.fullmatch(DECIMAL_COMMA).all():
            return True
    return False


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].removeprefix("Error tokenizing data. C error: ") if lines else type(error).__name__
