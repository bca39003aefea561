"""What is done to a reduced value before it is stored: the rest of the expression, lane by lane."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.expression import emit_expression
from striate.compiler.schedules.base import Task, overhang
from striate.notation.ir import Expression, Position, Read, Reduce, Statement


def outer_reads(expression: Expression) -> list[Read] | None:
    """The reads outside any reduction; None if an index is used as a number there."""
    match expression:
        case Read():
            return [expression]
        case Position():
            return None
        case Reduce():
            return []
        case _:
            found: list[Read] = []
            for argument in getattr(expression, "arguments", ()):
                inner = outer_reads(argument)
                if inner is None:
                    return None
                found += inner
            return found


def fits_epilogue(statement: Statement) -> bool:
    """Whether each read outside the reduction is either constant or contiguous along the lanes."""
    found = outer_reads(statement.equation.expression)
    if found is None:
        return False
    last = statement.equation.output.access[-1]
    lanes = {index for index, _ in last.terms}
    shapes = dict(statement.shapes)
    for read in found:
        if not read.access:
            continue
        for affine, size in zip(read.access, shapes[read.tensor], strict=True):
            if overhang(statement, affine, size) != (0, 0):
                return False
        *outer, inner = read.access
        if any(index in lanes for affine in outer for index, _ in affine.terms):
            return False
        if inner != last and any(index in lanes for index, _ in inner.terms):
            return False
    return True


@contextmanager
def once(builder: Builder, place: int, overlap: int, start: Offset, last: int) -> Iterator[None]:
    """Run the block unless `place` of the last tile was in the tile before.

    The last tile, which starts at `last`, is moved back by `overlap` places to end at the border.
    What it has in common with the one before may have been written, and where an output lies in
    the memory of an operand that is what the epilogue would read.
    """
    if place >= overlap:
        yield
        return
    with builder.when(builder.emit(f"icmp slt i64 {start}, {last}")):
        yield


def emit_epilogue(
    builder: Builder,
    task: Task,
    reduced: Mapping[Reduce, Value],
    address: Callable[[Read], tuple[Value, Offset]],
    lanes: int | None,
) -> Value:
    """The vector to store, given what each reduction came to.

    `address` gives a read's pointer and byte offset for the first lane; `lanes` bounds the tail.
    """
    last = task.output.access[-1]

    def leaf(node: Expression) -> Value:
        if isinstance(node, Reduce):
            return reduced[node]
        assert isinstance(node, Read)
        pointer, offset = address(node)
        place = builder.at(pointer, offset)
        if node.access and node.access[-1] == last:
            return builder.load(place, lanes)
        return builder.broadcast(builder.load_scalar(place))

    return emit_expression(builder, task.statement.equation.expression, leaf)
