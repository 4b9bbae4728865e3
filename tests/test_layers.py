"""Who may import whom: the imports of every file, held against the table of layers in docs/architecture.md.

Every import counts, also one inside a function or under ``TYPE_CHECKING``: what a file needs to be understood
is what matters, not when it is loaded.
"""

import ast
import re
from graphlib import CycleError, TopologicalSorter

import pytest

# Bottom first. A file or folder of fewshot/ may import only from entries before its own; inside a folder,
# files may import one another as long as no cycle arises. A new file gets its place here and, unless its name
# begins with an underscore, in docs/architecture.md.
LAYERS = [
    "errors",
    "threads",
    "tasks",
    "episodes",
    "networks",
    "normalization",
    "losses",
    "_reml",
    "_weighted_fit",
    "step_sizes",
    "inner_optimizers",
    "adaptation",
    "algorithms",
    "solvers",
    "functional",
    "heads",
    "recording",
    "kernels",
    "implicit",
    "metagradient",
    "compiled",
    "agreement",
    "engine",
    "inference",
    "serialization",
    "training",
    "stacking",
    "estimators",
    "pipeline",
    "persistence",
    "baselines",
    "model_selection",
    "theory",
    "inspection",
    "study",
    "report",
    "_console",
    "cli",
    "__main__",
]
# The same inside an application that has grown folders; every file and folder of it has a place.
INSIDE_APPLICATIONS = {
    "fairness": [
        "notions",
        "favourable",
        "gaps",
        "groups",
        "linear",
        "guess",
        "rule",
        "scored",
        "evidence",
        "distances",
        "direct",
        "judged",
        "curve",
        "decider",
        "bounded_loss",
        "constraint_report",
        "given_rows",
        "operating_points",
        "training",
        "classifier",
        "saving",
        "report",
        "displays",
        "baselines",
        "evaluation",
    ],
    "rl": [
        "checks",
        "environments",
        "learning",
        "recorded",
        "adaptation_report",
        "policy",
        "saving",
        "sb3_policy",
        "evaluation",
        "displays",
    ],
}
# The package itself re-exports the public names, so it stands above everything but the command line.
TOP = "fewshot"
APPLICATIONS, DATASETS = "fewshot.applications", "fewshot.datasets"
DATASETS_MAY_IMPORT = {"errors", "tasks", "episodes"}
FOLDERS = {"fewshot": TOP, "applications": APPLICATIONS, "datasets": DATASETS}


def modules_of(root):
    """All modules of the project: dotted name -> path."""
    modules = {}
    for folder, package in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            modules[".".join((package, *parts))] = path
    return modules


def imports_of(name, path, modules):
    """What one file imports of the project, as (module, line, inside a function)."""
    found = []
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node, lazy):
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                start = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(start + ([node.module] if node.module else []))
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.append((inner if inner in modules else base, node.lineno, lazy))
        for child in ast.iter_child_nodes(node):
            visit(child, lazy)

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return [hit for hit in found if hit[0].split(".")[0] in ("fewshot", "applications", "datasets")]


def layer_of(module):
    """The entry of LAYERS a core module belongs to, or None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def is_in(module, package):
    return module == package or module.startswith(package + ".")


def complaint(name, target, lazy):
    """Why ``name`` must not import ``target``, or None if it may."""
    if target.split(".")[0] != TOP:
        return f"there is no top-level {target.split('.')[0]}: write fewshot.{target}"
    if is_in(target, APPLICATIONS) or is_in(target, DATASETS):
        if name == "fewshot.cli":
            return None if lazy else "the command line imports datasets and applications inside functions only"
        if is_in(name, DATASETS):
            return None if is_in(target, DATASETS) else "datasets import no application"
        if not is_in(name, APPLICATIONS):
            return "the core imports neither applications nor datasets"
        if is_in(target, DATASETS):
            return "applications import the core only, not datasets"
        if name == APPLICATIONS:
            return None
        if name.split(".")[2] == [*target.split("."), ""][2]:
            return complaint_inside(name, target)
        return "applications do not import one another"
    layer = layer_of(target)
    if is_in(name, DATASETS):
        allowed = ", ".join(sorted(DATASETS_MAY_IMPORT))
        return None if layer in DATASETS_MAY_IMPORT else f"datasets import only {allowed} of the core"
    if is_in(name, APPLICATIONS):
        return "applications do not import the command line" if layer == "cli" else None
    own = layer_of(name)
    if own is None:
        return "the package does not import its command line" if layer == "cli" else None
    if layer is None:
        return "import from the module that holds the name, not from the package, which imports all of them"
    if own == layer or own not in LAYERS or layer not in LAYERS:  # not in the table: reported on its own
        return None
    return None if LAYERS.index(layer) < LAYERS.index(own) else f"{layer} does not stand below {own} in the table"


def complaint_inside(name, target):
    """The same for two modules of one application."""
    application, *own = name.split(".")[2:]
    layers, layer = INSIDE_APPLICATIONS.get(application), target.split(".")[3:4]
    if layers is None or not own or own[:1] == layer:
        return None
    if not layer:
        return "import from the module that holds the name, not from the package, which imports all of them"
    for part in (own[0], layer[0]):
        if part not in layers:
            return f"{part!r} has no place in INSIDE_APPLICATIONS of tests/test_layers.py"
    below = layers.index(layer[0]) < layers.index(own[0])
    return None if below else f"{layer[0]} does not stand below {own[0]} in applications/{application}"


def violations(root):
    """Every import of the checkout that breaks the rules, and every module without a place in the table."""
    modules, problems = modules_of(root), []
    for name, path in modules.items():
        where = path.relative_to(root)
        core = not (is_in(name, APPLICATIONS) or is_in(name, DATASETS))
        if core and layer_of(name) not in (None, *LAYERS):
            problems.append(
                f"{where}: {layer_of(name)!r} has no place among the layers: add it to LAYERS in "
                "tests/test_layers.py and the table in docs/architecture.md, above everything that imports it"
            )
        for target, line, lazy in imports_of(name, path, modules):
            why = complaint(name, target, lazy)
            if why:
                problems.append(f"{where}:{line}: {name} imports {target}: {why}")
    return problems


def cycle(root):
    """A circle of imports, as a list of modules, or None."""
    modules = modules_of(root)
    graph = {
        name: {target for target, _, _ in imports_of(name, path, modules) if target in modules and target != name}
        for name, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def table_in_docs(root):
    """The first column of the layers' table, from rows such as ``| `tasks.py` | ... |``: (name, planned)."""
    text = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    text = text.split("\n## The layers of the core\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_]+(?:\.py|/))`( \(planned\))? \|", text, flags=re.MULTILINE)
    return [(name, bool(planned)) for name, planned in rows]


def test_imports_go_down_the_layers(root):
    problems = violations(root)
    assert not problems, "\n".join(problems)


def test_no_circular_imports(root):
    found = cycle(root)
    assert not found, "a circle of imports: " + " <- ".join(found)


def test_the_document_has_the_same_table(root):
    rows = table_in_docs(root)
    names = [name.removesuffix(".py").removesuffix("/") for name, _ in rows]
    assert names == [name for name in LAYERS if not name.startswith("_")]
    for name, planned in rows:
        there = (root / "fewshot" / name / "__init__.py" if name.endswith("/") else root / "fewshot" / name).is_file()
        assert planned != there, (
            f"docs/architecture.md: fewshot/{name} is on disk, so remove its mark (planned)"
            if planned
            else f"docs/architecture.md: no fewshot/{name} on disk: mend its row, or mark it (planned)"
        )


# The checks above, tried on small trees that break one rule each.

CASES = {
    "upward": ({"fewshot/tasks.py": "from .engine import run"}, "engine does not stand below tasks"),
    "upward, absolute": (
        {"fewshot/tasks.py": "import fewshot.engine as e"},
        "engine does not stand below tasks",
    ),
    "upward, by module name": (
        {"fewshot/tasks.py": "from . import engine"},
        "engine does not stand below tasks",
    ),
    "upward, lazily": (
        {"fewshot/tasks.py": "def f():\n    from .engine import x"},
        "engine does not stand below",
    ),
    "upward from a folder": (
        {"fewshot/training/loop.py": "from ..pipeline import p"},
        "pipeline does not stand",
    ),
    "through the package": ({"fewshot/tasks.py": "from fewshot import Rows"}, "not from the package"),
    "not in the table": ({"fewshot/novelty.py": ""}, "add it to LAYERS"),
    "core to application": (
        {"fewshot/report.py": "from fewshot.applications import rl"},
        "the core imports neither",
    ),
    "core to datasets": ({"fewshot/report.py": "import fewshot.datasets"}, "the core imports neither"),
    "bare name": ({"fewshot/report.py": "import datasets"}, "no top-level datasets"),
    "application to application": (
        {"applications/rl/a.py": "from ..medicine import b"},
        "not import one another",
    ),
    "application to datasets": (
        {"applications/rl/a.py": "import fewshot.datasets"},
        "the core only, not datasets",
    ),
    "upward inside an application": (
        {"applications/rl/environments/a.py": "from ..learning.b import c"},
        "learning does not stand below environments",
    ),
    "no place inside an application": (
        {"applications/rl/novelty.py": "from .checks import c"},
        "'novelty' has no place in INSIDE_APPLICATIONS",
    ),
    "through an application's package": ({"applications/rl/policy.py": "from . import x"}, "not from the package"),
    "datasets to engine": ({"datasets/a.py": "from fewshot.engine import x"}, "datasets import only"),
    "datasets to application": ({"datasets/a.py": "from fewshot.applications import rl"}, "no application"),
    "eager command line": ({"fewshot/cli.py": "import fewshot.datasets"}, "inside functions only"),
    "package to command line": (
        {"fewshot/__init__.py": "from .cli import main"},
        "does not import its command line",
    ),
}
SOUND = {
    "fewshot/cli.py": "import fewshot.report\ndef f():\n  import fewshot.datasets, fewshot.applications.rl",
    "fewshot/__init__.py": "from .tasks import Rows\nfrom .estimators import E",
    "fewshot/training/loop.py": "from ..tasks import Rows\nfrom .validation import v\nimport torch",
    "applications/rl/__init__.py": "from .policy import P",
    "applications/rl/learning/a.py": "from fewshot import Rows\nfrom .b import c\nfrom fewshot.engine import run",
    "applications/rl/policy.py": "from .environments.a import b\nfrom .learning.a import c",
    "applications/medicine/a.py": "from .b import c",
    "datasets/a.py": "from fewshot.tasks import Rows\nfrom .b import c\nfrom fewshot.episodes import E",
}


def plant(root, files):
    names = [
        "fewshot/__init__.py",
        "fewshot/training/__init__.py",
        "applications/__init__.py",
        "datasets/__init__.py",
    ]
    names += [f"applications/{name}/__init__.py" for name in ("rl", "medicine")]
    names += [f"fewshot/{name}.py" for name in ("tasks", "engine", "episodes", "report", "estimators", "pipeline")]
    for name, text in ({name: "" for name in names} | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize("case", CASES)
def test_a_planted_violation_is_found(tmp_path, case):
    files, message = CASES[case]
    plant(tmp_path, files)
    (problem,) = violations(tmp_path)
    assert message in problem


def test_sound_imports_pass(tmp_path):
    plant(tmp_path, SOUND)
    assert violations(tmp_path) == []
    assert cycle(tmp_path) is None


def test_a_planted_circle_is_found(tmp_path):
    plant(tmp_path, {"fewshot/training/a.py": "from .b import x", "fewshot/training/b.py": "from . import a"})
    assert violations(tmp_path) == []
    assert {"fewshot.training.a", "fewshot.training.b"} <= set(cycle(tmp_path))
