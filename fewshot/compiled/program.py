"""The source of a compiled program: the generated functions of one task, and the loops over tasks and steps around them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

import torch
from torch.fx import Graph, Node

from ..adaptation import Adaptation
from ..functional import FunctionalModule
from ..step_sizes import Tensors
from ..tasks import Rows
from .lowering import Lowering
from .nests import type_name
from .tracing import Task, Trace, columns, trace_evaluate, trace_query, trace_step
from .values import UnsupportedError, numel

__all__ = ["Program", "adapt_program", "meta_gradient_program"]

GROUPS = ("moving", "shared", "constant", "support", "query", "sizes", "cotangent")


@dataclass(frozen=True)
class Program:
    """C++ source, and what its arguments are.

    Parameters
    ----------
    source : str
        A translation unit.
    names : dict of str to list of str
        Names of the tensors of each group, in order.
    rows : dict of str to dict of str to (tuple of int, torch.dtype)
        Shape and type of each column of the "support" and the "query" of a task.
    dtype : torch.dtype
        Type of the parameters.
    per_step : tuple of str
        Names of the constant tensors whose first axis is the inner step.
    length : int
        Characters that were written for this network; the rest is the same for all.
    """

    source: str
    names: dict[str, list[str]]
    rows: dict[str, dict[str, tuple[tuple[int, ...], torch.dtype]]]
    dtype: torch.dtype
    per_step: tuple[str, ...]
    length: int


def meta_gradient_program(
    functional: FunctionalModule, adaptation: Adaptation, task: Task, query: Rows, order: str, lanes: int
) -> Generator[None, None, Program]:
    """Write the program that adapts to each task and differentiates its query loss.

    A large network takes seconds: the work is done in parts, between which training can go on.

    Parameters
    ----------
    functional : FunctionalModule
        The network and its loss.
    adaptation : Adaptation
        Settings of the inner loop.
    task : Task
        Tensors of one task.
    query : Rows
        Its query rows.
    order : {"exact", "first"}
        Order of the meta-gradient.
    lanes : int
        Numbers in a vector register.

    Raises
    ------
    UnsupportedError
        If the network holds an operation that no code is generated for.
    """
    step = trace_step(functional, adaptation, task, order=order)
    yield
    asked = trace_query(functional, task, query)
    yield
    lowering = Lowering(lanes)
    names = _names(task, query)
    pulled = step.outputs["sizes"]
    results = step.results(["cotangent", "shared"]) + _by_name(
        step, "sizes", [n for n in names["sizes"] if n in pulled]
    )
    _add(lowering, step, names, [("step", step.results(["moving", "loss"])), ("pull_back", results)])
    yield
    _add(lowering, asked, names, [("query", asked.results(["loss", "cotangent", "shared"]))])
    macros = {
        "QUERY_WEIGHT": names["query"].index("weight"),
        "PULLED_SHARED": len(step.outputs["shared"]),
        "PULLED_SIZES": len(pulled),
    }
    return _program(lowering, functional, task, query, names, "HAS_META_GRADIENT", macros)


def adapt_program(
    functional: FunctionalModule, adaptation: Adaptation, task: Task, query: Rows | None, lanes: int
) -> Generator[None, None, Program]:
    """Write the program that adapts to each task and evaluates the loss of `query`, or else of the support, in parts."""
    step = trace_step(functional, adaptation, task, order=None)
    yield
    judged = trace_evaluate(functional, task, query)
    lowering = Lowering(lanes)
    names = _names(task, query)
    _add(lowering, step, names, [("step", step.results(["moving", "loss"]))])
    _add(lowering, judged, names, [("evaluate", judged.results(["loss"]))])
    return _program(lowering, functional, task, query, names, "HAS_ADAPT", {})


def _names(task: Task, query: Rows | None) -> dict[str, list[str]]:
    return {
        "moving": list(task.moving),
        "shared": list(task.shared),
        "constant": list(task.constant),
        "support": list(columns(task.support)),
        "query": [] if query is None else list(columns(query)),
        "sizes": list(task.sizes),
        "cotangent": list(task.moving),
    }


def _by_name(trace: Trace, group: str, names: Sequence[str]) -> list[Node]:
    found = dict(zip(trace.outputs[group], trace.results([group]), strict=True))
    return [found[name] for name in names]


def _add(
    lowering: Lowering, trace: Trace, names: dict[str, list[str]], functions: Sequence[tuple[str, list[Node]]]
) -> None:
    """Write the functions that one graph holds, each with what the earlier ones have not computed."""
    functions = _without_duplicates(trace.graph, functions)
    dtype = trace.values[0].dtype
    for node in trace.graph.nodes:
        if node.op == "call_function" and getattr(node.target, "_schema", None) and node.target._schema.is_mutable:
            raise UnsupportedError(f"{node.target}, which changes a tensor in place")
    for _, results in functions:
        for node in results:
            if node.meta["val"].dtype != dtype:
                raise UnsupportedError(f"a loss of type {node.meta['val'].dtype} from parameters of type {dtype}")
    places = {(group, name): k for k, (group, name) in enumerate((g, n) for g in GROUPS for n in names[g])}
    holders = [n for n in trace.graph.nodes if n.op == "placeholder"]
    inputs = {
        node: places[key]
        for node, key in zip(holders, ((g, n) for g, members in trace.inputs.items() for n in members), strict=True)
    }
    needed = [_ancestors(results) for _, results in functions]
    everything = set().union(*needed)
    uses: dict[Node, int] = {}
    for node in everything:
        for parent in node.all_input_nodes:
            uses[parent] = uses.get(parent, 0) + 1
    for _, results in functions:
        for node in results:
            uses[node] = uses.get(node, 0) + 1
    done: set[Node] = set()
    for k, (name, results) in enumerate(functions):
        mine = [n for n in trace.graph.nodes if n in needed[k] and n not in done and n.op != "placeholder"]
        done |= needed[k]
        rest = {p for n in everything - done for p in n.all_input_nodes}
        later = rest | {n for _, others in functions[k + 1 :] for n in others}
        lowering.function(name, mine, inputs, results, uses, later)


def _ancestors(nodes: Iterable[Node]) -> set[Node]:
    found: set[Node] = set()
    todo = list(nodes)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend(node.all_input_nodes)
    return found


def _without_duplicates(graph: Graph, functions: Sequence[tuple[str, list[Node]]]) -> list[tuple[str, list[Node]]]:
    """Compute equal things once: each gradient transform records its own copy of the step sizes, say."""
    seen: dict[object, Node] = {}
    same: dict[Node, Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        key = (node.target, repr(node.args), repr(node.kwargs))
        first = seen.setdefault(key, node)
        if first is not node:
            same[node] = first
            node.replace_all_uses_with(first)
    return [(name, [same.get(n, n) for n in results]) for name, results in functions]


def _program(
    lowering: Lowering,
    functional: FunctionalModule,
    task: Task,
    query: Rows | None,
    names: dict[str, list[str]],
    kind: str,
    macros: dict[str, int],
) -> Program:
    dtypes = {t.dtype for t in (*task.moving.values(), *task.shared.values(), *task.sizes.values())}
    if len(dtypes) != 1:
        raise UnsupportedError(f"parameters of several types ({', '.join(map(str, dtypes))})")
    dtype = dtypes.pop()
    if any(rows is not None and rows.weight.dtype != dtype for rows in (task.support, query)):
        raise UnsupportedError("row weights of another type than the parameters")

    def table(name: str, values: Sequence[int]) -> str:
        return f"constexpr int64_t {name}[] = {{{', '.join(map(str, [*values, 0]))}}};"

    def sizes(tensors: Tensors) -> list[int]:
        return [numel(tuple(t.shape)) for t in tensors.values()]

    def row_bytes(rows: Rows | None) -> list[int]:
        return [] if rows is None else [t.numel() * t.element_size() for t in columns(rows).values()]

    functions = lowering.memory.code()
    header = [
        f"using real = {type_name(dtype)};",
        f"#define {kind}",
        *(f"constexpr int {group.upper()} = {len(names[group])};" for group in GROUPS[:-1]),
        *(f"constexpr int {name} = {value};" for name, value in macros.items()),
        table("MOVING_SIZE", sizes(task.moving)),
        table("SHARED_SIZE", sizes(task.shared)),
        table("SIZES_SIZE", sizes(task.sizes)),
        table("SIZES_PER_STEP", [int(n.startswith("log_alpha.")) for n in names["sizes"]]),
        table("CONSTANT_BYTES", [t.numel() * t.element_size() for t in task.constant.values()]),
        table("CONSTANT_PER_STEP", [int(name in functional.per_step) for name in names["constant"]]),
        table("SUPPORT_BYTES", row_bytes(task.support)),
        table("QUERY_BYTES", row_bytes(query)),
        f"constexpr int64_t SAVED = {lowering.memory.saved}, SCRATCH = {max(f.scratch for f in lowering.memory.functions)};",
    ]
    here = resources.files(__package__)
    runtime, driver = (here.joinpath(name).read_text() for name in ("runtime.hpp", "driver.hpp"))
    rows = {
        name: {} if part is None else {n: (tuple(t.shape), t.dtype) for n, t in columns(part).items()}
        for name, part in (("support", task.support), ("query", query))
    }
    return Program(
        "\n".join([runtime, *header, "", functions, "", driver]),
        names,
        rows,
        dtype,
        tuple(sorted(functional.per_step)),
        len(functions),
    )
