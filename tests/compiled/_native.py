"""Functions of C++ called on arrays: little libraries made with the compiler and options that programs are made with."""

import ctypes
from importlib import resources

from fewshot.compiled.build import Build

RUNTIME = resources.files("fewshot.compiled").joinpath("runtime.hpp").read_text()


def built(source, instead=()):
    """Build source below the runtime and load it."""
    return ctypes.CDLL(str(Build("\n".join([RUNTIME, source, *instead])).wait(float("inf"))))


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)
