"""Programs kept on disk: a network that was compiled before is read, and LLVM is not loaded."""

from dataclasses import replace

from striate.compiler.cache import code_cache
from striate.compiler.codegen import version
from striate.compiler.layout import memory_order
from striate.compiler.program import Program
from striate.compiler.storage import StorageError, dumps, loads
from striate.compiler.target import Target, fingerprint
from striate.compiler.tuned import tuned
from striate.network.graph import Computed, Concatenated, Derived, Graph, Input, Parameter, operands
from striate.notation.ir import Statement


def program_of(graph: Graph, *, algorithm: str = "auto", watched: bool = False) -> Program:
    """The program of `graph` on this CPU, read if a graph alike was compiled before.

    Graphs are alike whose parameters differ in nothing but their numbers.
    """
    cpu = fingerprint() or repr(Target.host())
    measured = repr(sorted(tuned().choices().items()))
    key = "\n".join((signature(graph), algorithm, f"{watched=}", cpu, measured, version()))
    content = code_cache().get(key)
    if content is not None:
        try:
            program = loads(content)
        except StorageError:
            content = None
    if content is None:
        from striate.compiler.compile import compile_graph

        program = compile_graph(graph, algorithm=algorithm, watched=watched)
        code_cache().put(key, dumps(program))
    assert program.preparation is not None
    return replace(program, preparation=replace(program.preparation, parameters=graph.arrays()))


def signature(graph: Graph) -> str:
    """All of `graph` that its program depends on: everything but the numbers in its parameters."""
    numbers: dict[int, int] = {}
    statements: dict[Statement, int] = {}
    arrays: dict[int, int] = {}
    lines = [repr([(node.name, node.shape) for node in graph.inputs])]
    for node in graph.nodes():
        match node:
            case Input(name, _):
                line = f"input {name}"
            case Parameter(name, array):
                same = arrays.setdefault(id(array), len(arrays))
                line = f"parameter {same} {name} {array.shape} {memory_order(array)}"
            case Computed(statement, _, label):
                known = statement in statements
                number = statements.setdefault(statement, len(statements))
                line = f"{label} = {number if known else statement!r}"
            case Concatenated(_, axis, label):
                line = f"{label} = concatenated along {axis}"
            case Derived(name, statement, _):
                raise ValueError(f"{name} is derived: the graph has been transformed already")
        wiring = [numbers[id(operand)] for operand in operands(node)]
        named = [name for name, _ in node.operands] if isinstance(node, Computed) else []
        lines.append(f"{line} {named} {wiring}")
        numbers[id(node)] = len(numbers)
    lines.append(repr([numbers[id(node)] for node in graph.outputs]))
    return "\n".join(lines)
