"""Sphinx configuration. Every build writes the API pages from the ``__all__`` of the public modules."""

import importlib
import importlib.metadata
import pkgutil
import re
import shutil
import sys
from pathlib import Path

project = "fewshot"
author = "The fewshot developers"
copyright = "The fewshot developers"
release = importlib.metadata.version("fewshot")
version = release

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
exclude_patterns = ["_build", "gallery"]  # the pages of scripts are written into auto_gallery/
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings name the types
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

sys.path.insert(0, str(Path(__file__).parent))  # for gallery_pages
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "within_subsection_order": "gallery_pages.place",
    "image_scrapers": ("matplotlib", "gallery_pages.move_gifs"),
    "image_srcset": ["2x"],
    "capture_repr": ("_repr_html_",),
    "doc_module": ("fewshot",),
    "notebook_extensions": set(),
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "write_computation_times": False,
    "parallel": 2,
}

html_theme = "pydata_sphinx_theme"
html_title = "fewshot"
html_static_path = ["_static"]
html_show_sourcelink = False
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}


def public_modules() -> list[str]:
    """Every importable module without an underscore in its path, the package itself first."""
    names = {"fewshot"}
    for top in ("fewshot", "fewshot.applications", "fewshot.datasets"):
        try:
            package = importlib.import_module(top)
        except ModuleNotFoundError:
            continue
        names |= {top} | {module.name for module in pkgutil.walk_packages(package.__path__, top + ".")}
    # What serves the command line alone is described by its --help.
    hidden = ("fewshot.cli", "fewshot.study", "fewshot.report")
    names = {n for n in names if not n.startswith(hidden)}
    return sorted(name for name in names if not any(part.startswith("_") for part in name.split(".")))


def write_reference(folder: Path) -> None:
    """Write one page per public module; what several modules export stands on the shortest one's."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    seen: set[int] = set()
    for name in sorted(public_modules(), key=lambda name: (name.count("."), name)):
        module = importlib.import_module(name)
        exported = [item for item in getattr(module, "__all__", ()) if not item.startswith("__")]
        new = []
        for item in exported:
            thing = getattr(module, item)
            if isinstance(thing, type(importlib)):
                continue  # a submodule has a page of its own
            # Small constants are shared between modules, so only what has a definition is recognised again.
            if not hasattr(thing, "__qualname__") or id(thing) not in seen:
                new.append(item)
                seen.add(id(thing))
        if not new and not module.__doc__:
            continue
        lines = [name, "=" * len(name), "", f".. automodule:: {name}", "   :no-members:", ""]
        if new:
            lines += [f".. currentmodule:: {name}", "", ".. autosummary::", "   :toctree: ../generated", ""]
            lines += [f"   {item}" for item in new]
        (folder / f"{name}.rst").write_text("\n".join(lines) + "\n", encoding="utf-8")


def escape_star(app, what, name, obj, options, lines) -> None:
    """Keep the star of a shape such as ``(rows, *features)`` from opening an emphasis."""
    lines[:] = [re.sub(r"(?<=[ (])\*(?=[\w.]+[,)])", r"\\*", line) for line in lines]


def setup(app) -> None:
    """Run before numpydoc, whose priority is the default 500."""
    app.connect("autodoc-process-docstring", escape_star, priority=100)


write_reference(Path(__file__).parent / "reference")
shutil.rmtree(Path(__file__).parent / "generated", ignore_errors=True)
