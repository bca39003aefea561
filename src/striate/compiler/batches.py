"""A batch in parts: the graph for fewer images, and programs one after another, part after part."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from striate.compiler.arena import Lifetime, allocate
from striate.compiler.program import Pointer, Program, Step
from striate.network.graph import Computed, Concatenated, Graph, Input, Known, Node
from striate.notation.ir import Position, Read, Statement, walk


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
    if not statement.equation.output.access:
        return None
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


def chained(sections: Sequence[tuple[Program, int]]) -> Program:
    """One program of several with their numbers of parts: each reads what the one before it wrote.

    Every program's phases run on one part after another. What passes between two programs is kept
    in the arena for all images.
    """
    lives, passing = [], []
    for number, (program, parts) in enumerate(sections):
        lives.append(Lifetime(program.arena_bytes, number, number))
        passing.append(Lifetime(parts * 4 * math.prod(program.outputs[0]), number, number + 1))
    places, arena = allocate([*lives, *passing[:-1]])
    phases: list[tuple[Step, ...]] = []
    for number, (program, parts) in enumerate(sections):
        moves = {("arena", 0): _Move(Pointer("arena", 0, places[number]), 0)}
        for index, (_, shape) in enumerate(program.inputs):
            moves["input", index] = _Move(Pointer("input", index, 0), 4 * math.prod(shape))
        for index, shape in enumerate(program.outputs):
            moves["output", index] = _Move(Pointer("output", index, 0), 4 * math.prod(shape))
        between = [Pointer("arena", 0, place) for place in places[len(sections) :]]
        if number > 0:
            moves["input", 0] = replace(moves["input", 0], start=between[number - 1])
        if number < len(between):
            moves["output", 0] = replace(moves["output", 0], start=between[number])
        phases += [
            tuple(_moved(step, moves, part) for step in phase)
            for part in range(parts)
            for phase in program.phases
        ]
    (first, before), (final, after) = sections[0], sections[-1]
    return replace(
        final,
        phases=tuple(phases),
        sections=tuple((len(program.phases), parts) for program, parts in sections),
        arena_bytes=arena,
        inputs=tuple((name, (before * s[0], *s[1:])) for name, s in first.inputs),
        outputs=tuple((after * shape[0], *shape[1:]) for shape in final.outputs),
    )


@dataclass(frozen=True, slots=True)
class _Move:
    """Where memory of a section's program starts in the whole, and how far its parts lie apart."""

    start: Pointer
    nbytes: int


def _moved(step: Step, moves: Mapping[tuple[str, int], _Move], part: int) -> Step:
    """The step for that part; constants stay where they are."""
    pointers = []
    for pointer in step.pointers:
        move = moves.get((pointer.space, pointer.index))
        if move is not None:
            offset = move.start.offset + part * move.nbytes + pointer.offset
            pointer = replace(move.start, offset=offset)
        pointers.append(pointer)
    return replace(step, pointers=tuple(pointers))
