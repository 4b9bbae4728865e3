"""What the gallery needs beyond sphinx-gallery: the order of its pages, and GIF files that scripts write as pictures.

Sphinx keeps its settings between builds, which functions in ``conf.py`` would prevent; so they are named by where they are.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

__all__ = ["move_gifs", "place"]

BUILD_BEGAN = time.time()
# Easy ones first.
ORDER = [
    "plot_point_navigation.py",
    "plot_cartpole_goal.py",
    "plot_joint_is_enough.py",
    "half_cheetah.py",
    "plot_inspection.py",
    "plot_theory_steps.py",
    "plot_theory_initialization.py",
    "plot_theory_tasks.py",
]


def place(filename: str) -> int:
    """Return where a page stands; one that is not listed is an error."""
    return ORDER.index(filename)


def move_gifs(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Show the GIF files that a block of code has written beside its script.

    Parameters
    ----------
    block : tuple
        The block of code.
    block_vars : dict
        What sphinx-gallery knows of the script.
    gallery_conf : dict
        Its settings.

    Returns
    -------
    str
        Directives that show them; the files lie where sphinx-gallery keeps pictures.
    """
    shown = []
    found = sorted(Path(block_vars["src_file"]).parent.glob("*.gif"))
    for path in (p for p in found if p.stat().st_mtime > BUILD_BEGAN):  # others are left from running a script by hand
        target = Path(next(block_vars["image_path_iterator"])).with_suffix(".gif")
        shutil.move(path, target)
        shown.append(figure_rst([target], gallery_conf["src_dir"], f"Animation: {path.stem.replace('_', ' ')}"))
    return "".join(shown)
