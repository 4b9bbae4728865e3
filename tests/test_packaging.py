"""What is packaged: the list in pyproject.toml, the folders on disk, the wheel, and its import elsewhere."""

import json
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

# How a top-level folder is imported; only these hold packages.
IMPORTED_AS = {"fewshot": "fewshot", "applications": "fewshot.applications", "datasets": "fewshot.datasets"}

# Runs in the clean environment, in a foreign folder; prints problems as JSON.
IMPORT_EVERYTHING = """
import ast, importlib, json, pathlib, pkgutil, sys
import fewshot
problems = []
home = pathlib.Path(sys.prefix).resolve()
names = {"fewshot", "fewshot.applications", "fewshot.datasets"}
for top in sorted(names):
    package = importlib.import_module(top)
    if home not in pathlib.Path(package.__file__).resolve().parents:
        problems.append(f"{top} was imported from {package.__file__}, not from the environment {home}")
    names |= {m.name for m in pkgutil.walk_packages(package.__path__, top + ".")}
public = sorted(n for n in names if not any(p.startswith("_") for p in n.split(".")))
for name in public:
    module = importlib.import_module(name)
    if hasattr(module, "__all__"):
        lacks = [x for x in module.__all__ if not hasattr(module, x)]
        problems += [f"{name}.__all__ lists {x!r}, which {name} lacks" for x in lacks]
        twice = {x for x in module.__all__ if list(module.__all__).count(x) > 1}
        problems += [f"{name}.__all__ lists {x!r} twice" for x in sorted(twice)]
        continue
    text = pathlib.Path(module.__file__).read_text(encoding="utf-8")
    if len(ast.parse(text).body) > bool(module.__doc__):
        problems.append(f"the public module {name} has no __all__")
print(json.dumps({"modules": public, "problems": problems}))
"""


def packages_on_disk(root):
    found = set()
    for folder, name in IMPORTED_AS.items():
        for path in (root / folder).rglob("*.py"):
            inner = path.parent.relative_to(root / folder).parts
            found.add(".".join((name, *inner)))
    return found


def setuptools_table(root):
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


@pytest.fixture(scope="module")
def built(source_copy, tmp_path_factory):
    """The sdist, and the wheel made from it, as (checkout copy, sdist path, wheel path)."""
    source, out = source_copy(), tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)],
        cwd=out,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return source, sdist, wheel


def test_package_list_is_what_is_on_disk(root):
    listed = setuptools_table(root)["packages"]
    assert len(listed) == len(set(listed)), "a package is listed twice in pyproject.toml"
    on_disk = packages_on_disk(root)
    assert set(listed) == on_disk, (
        f"[tool.setuptools] packages in pyproject.toml: add {sorted(on_disk - set(listed))}, "
        f"remove {sorted(set(listed) - on_disk)}"
    )
    assert setuptools_table(root)["package-dir"] == {name: folder for folder, name in IMPORTED_AS.items()}


def test_every_package_has_an_init(root):
    for folder in IMPORTED_AS:
        for path in (root / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), f"{path.parent.relative_to(root)} has no __init__.py"


def test_wheel_holds_the_sources_and_nothing_else(built):
    source, _, wheel = built
    expected = {"fewshot/py.typed", "fewshot/templates/report.html"}
    for folder, name in IMPORTED_AS.items():
        for path in [*(source / folder).rglob("*.py"), *(source / folder).rglob("*.hpp")]:
            expected.add(f"{name.replace('.', '/')}/{path.relative_to(source / folder).as_posix()}")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected
    assert {name.split("/")[0] for name in names} == {"fewshot"}, "a top-level name other than fewshot"


def test_sdist_holds_what_a_reader_needs(built):
    _, sdist, _ = built
    with tarfile.open(sdist) as archive:
        names = {"/".join(Path(name).parts[1:]) for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "constraints.txt", "tests/conftest.py"}
    wanted |= {"applications/__init__.py", "datasets/__init__.py", "docs/conf.py"}
    assert wanted <= names, f"missing: {sorted(wanted - names)}"


def test_wheel_metadata(built):
    _, _, wheel = built
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    (scripts,) = (n for n in archive.namelist() if n.endswith(".dist-info/entry_points.txt"))
    lines = archive.read(metadata).decode().splitlines()
    assert "License-Expression: MIT" in lines
    assert "Requires-Python: >=3.11" in lines
    assert any(line.startswith("Requires-Dist: metaworld") for line in lines)
    everything = next(line for line in lines if line.startswith("Requires-Dist: fewshot["))
    assert "metaworld" not in everything, "metaworld pins an old mujoco and stays out of the extra `all`"
    assert "fewshot = fewshot.cli:main" in archive.read(scripts).decode()


def test_everything_public_imports_from_the_wheel_alone(built, install_apart, tmp_path):
    source, _, wheel = built
    python = install_apart(wheel)
    done = subprocess.run([python, "-c", IMPORT_EVERYTHING], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert not report["problems"], "\n".join(report["problems"])
    assert set(report["modules"]) >= {name for name in packages_on_disk(source) if "._" not in name}


def test_datasets_folder_refuses_its_bare_name(root):
    done = subprocess.run([sys.executable, "-c", "import datasets"], cwd=root, capture_output=True, text=True)
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "fewshot.datasets" in done.stderr
