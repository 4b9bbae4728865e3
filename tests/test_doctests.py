"""Every example in a docstring runs and prints what it says.

The modules are found by importing and walking the packages, never by path: ``applications/`` and
``datasets/`` have their real names only below ``fewshot``.
"""

import doctest
import importlib
import io
import pkgutil

import pytest

PACKAGES = ("fewshot", "fewshot.applications", "fewshot.datasets")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def refuse(name):
    raise ImportError(f"the package {name} cannot be imported")


def all_modules():
    names = set(PACKAGES)
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        names |= {module.name for module in pkgutil.walk_packages(path, package + ".", onerror=refuse)}
    return sorted(names)


def failures(module):
    """The text of the failed examples of one module, empty when all pass."""
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    out = io.StringIO()
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__):
        runner.run(test, out=out.write)
    return out.getvalue()


@pytest.mark.parametrize("name", all_modules())
def test_examples(name):
    text = failures(importlib.import_module(name))
    assert not text, f"\n{text}"


def test_a_wrong_example_is_found():
    module = type(doctest)("module", "A docstring.\n\n>>> 2 * 2\n4\n")
    assert not failures(module)
    wrong = """
def function():
    '>>> 1 + 1\\n3'
"""
    exec(wrong, vars(module))  # in the module's own namespace, or doctest takes it for an import
    assert "Expected:\n    3\nGot:\n    2" in failures(module)
