"""A batch in parts that stay in the cache: the graph for fewer images, run part after part.

Where the activations of a whole batch outgrow the last-level cache, every kernel writes to memory
what the next one reads from there. With few enough images at a time they meet in the cache; what it
costs is that the weights are read once for each part.
"""

import math
from dataclasses import replace

from striate.compiler.plan import Plan
from striate.compiler.program import Pointer, Program, Step
from striate.compiler.target import Target
from striate.network.graph import Computed, Concatenated, Graph, Input, Known, Node
from striate.notation.ir import Position, Read, Statement, walk

# The share of the last-level cache for the activations of a part: weights pass through it, too.
_SHARE = 0.5
# Reading the weights again may take this much of the bytes that activations move in all.
_WEIGHTS = 0.25
# A step of the program for each kernel and part.
_MOST_PARTS = 256


def worthwhile_parts(plan: Plan, target: Target) -> int:
    """Into how many parts to divide the batch; 1 where it fits, or where weights weigh more."""
    batches = {given.shape[:1] for given in plan.graph.inputs}
    if len(batches) != 1 or not (batch := next(iter(batches))) or batch[0] < 2:
        return 1
    if plan.arena_bytes <= target.l3:
        return 1
    images, budget = batch[0], _SHARE * target.l3
    sizes = [n for n in range(1, images + 1) if images % n == 0 and images // n <= _MOST_PARTS]
    fitting = [n for n in sizes if n * plan.arena_bytes <= budget * images]
    parts = images // max(fitting, default=sizes[0])
    weights = moved = 0
    for work in plan.work:
        for _, operand in work.node.operands:
            if isinstance(operand, Known):
                weights += 4 * math.prod(operand.shape)
            else:
                moved += 4 * math.prod(operand.shape)
        moved += 4 * math.prod(work.node.shape)
    return parts if (parts - 1) * weights <= _WEIGHTS * moved else 1


def divided(graph: Graph, parts: int) -> Graph | None:
    """The graph for a part of its images; None if some statement doesn't take each by itself."""
    made: dict[int, Node] = {}
    for node in graph.nodes():
        part: Node | None
        match node:
            case Input(name, shape):
                part = Input(name, (shape[0] // parts, *shape[1:]))
            case Concatenated(pieces, axis, label):
                alone = axis != 0 and not any(isinstance(piece, Known) for piece in pieces)
                joined = tuple(made[id(piece)] for piece in pieces)
                part = Concatenated(joined, axis, label) if alone else None
            case Computed():
                statement = _divided(node, parts)
                operands = tuple((name, made[id(operand)]) for name, operand in node.operands)
                part = Computed(statement, operands, node.label) if statement else None
            case _:
                part = node
        if part is None:
            return None
        made[id(node)] = part
    inputs = [made[id(given)] for given in graph.inputs if id(given) in made]
    given = tuple(node for node in inputs if isinstance(node, Input))
    outputs = tuple(made[id(wanted)] for wanted in graph.outputs)
    whole = len(given) == len(graph.inputs) and not any(isinstance(n, Known) for n in outputs)
    return Graph(given, outputs) if whole else None


def _divided(node: Computed, parts: int) -> Statement | None:
    """The node's statement for a part of the images, if image b of the output needs b alone."""
    statement = node.statement
    output, *others = statement.equation.output.access
    index = output.index
    if index is None:
        return None
    data = {name for name, operand in node.operands if not isinstance(operand, Known)}
    if not data or any(affine.coefficient(index) for affine in others):
        return None
    for part in walk(statement.equation.expression):
        match part:
            case Position(place) if place == index:
                return None
            case Read(tensor, access):
                first = access[0].index if access else None
                rest = access[1:] if tensor in data else access
                if (tensor in data and first != index) or any(a.coefficient(index) for a in rest):
                    return None
    images = statement.shape[0] // parts
    shapes = tuple(
        (name, (images, *shape[1:]) if name in data else shape) for name, shape in statement.shapes
    )
    sizes, extents = (
        tuple((i, images if i == index else size) for i, size in known)
        for known in (statement.equation.sizes, statement.extents)
    )
    equation = replace(statement.equation, sizes=sizes)
    return Statement(equation, shapes, extents, (images, *statement.shape[1:]))


def repeated(program: Program, parts: int) -> Program:
    """The program for `parts` times the images: the same phases on one part after another."""
    if parts == 1:
        return program
    sizes = {
        "input": [4 * math.prod(shape) for _, shape in program.inputs],
        "output": [4 * math.prod(shape) for shape in program.outputs],
    }

    def moved(pointer: Pointer, part: int) -> Pointer:
        if pointer.space not in sizes:
            return pointer
        return replace(pointer, offset=pointer.offset + part * sizes[pointer.space][pointer.index])

    def step_of(step: Step, part: int) -> Step:
        return replace(step, pointers=tuple(moved(pointer, part) for pointer in step.pointers))

    phases = tuple(
        tuple(step_of(step, part) for step in phase)
        for part in range(parts)
        for phase in program.phases
    )
    return replace(
        program,
        phases=phases,
        parts=parts,
        inputs=tuple((name, (parts * s[0], *s[1:])) for name, s in program.inputs),
        outputs=tuple((parts * shape[0], *shape[1:]) for shape in program.outputs),
    )
