"""What needs a C++ compiler is left out where there is none, with a reason."""

import pytest

from fewshot.compiled.build import find_compiler


@pytest.fixture(scope="session")
def compiler():
    """Path of the C++ compiler."""
    found = find_compiler()
    if found is None:
        pytest.skip("needs a C++ compiler (g++ or clang++), and there is none")
    return found
