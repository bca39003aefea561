"""A graph in outline: what a person would draw of it, told from the equations alone.

What only changes values in place, or moves them, belongs to the block before it (batch norm,
activation, shuffle, flattening). Blocks lie in units: between two units all data goes through one
block. Equal units in a row are one that repeats.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import prod

from striate.network.describe import Layer, layers
from striate.network.graph import Computed, Concatenated, Derived, Graph, Node, Parameter
from striate.notation import multiply_adds
from striate.notation.access import indices_of
from striate.notation.ir import Apply, Expression, Read, Reduce, Shape, reads, walk

# Units that lie within a module of at most so many blocks are drawn as one.
_MOST_BLOCKS = 8


class Kind(StrEnum):
    """What a block does."""

    INPUT = "input"
    CONVOLUTION = "convolution"
    GROUPED = "grouped convolution"
    POOLING = "pooling"
    LINEAR = "linear"
    JOIN = "join"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Block:
    """A box of the drawing: its first layer and those that follow it in place.

    `operands` are the numbers of the blocks it reads, `shape` is that of its last layer.
    """

    kind: Kind
    text: str
    label: str
    shape: Shape
    operands: tuple[int, ...]
    layers: tuple[Layer, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unit:
    """Blocks between two places that all data goes through; the last is what follows reads.

    `blocks` are numbered from 0, and -1 is what the unit before it gives; `name` is that of the
    module they lie in, `last` that of its last repetition.
    """

    blocks: tuple[Block, ...]
    name: str
    last: str
    repeats: int = 1

    @property
    def shape(self) -> Shape:
        """The shape of what it gives."""
        return self.blocks[-1].shape

    def signature(self) -> object:
        """What equal units share: all but their names, and the sizes of what only joins."""
        blocks = tuple([(block.kind, block.text, block.operands) for block in self.blocks])
        return blocks, self.shape[1:-1]


def blocks(graph: Graph) -> list[Block]:
    """The blocks of a graph in order; the first is its input."""
    image = graph.inputs[0]
    found = [Block(Kind.INPUT, "input", image.name, image.shape, (), ())]
    place: dict[Node, int] = {image: 0}
    joined: list[tuple[tuple[Node, ...], int]] = []
    for layer in layers(graph):
        unknown = _unknown(layer, joined, place)
        kind, text = _nature(layer, unknown)
        sources = tuple(dict.fromkeys(place[node] for node in unknown if node in place))
        if kind is Kind.OTHER and not text and len(sources) == 1:
            block = found[sources[0]]
            found[sources[0]] = replace(block, shape=layer.shape, layers=(*block.layers, layer))
            place[layer] = sources[0]
        else:
            place[layer] = len(found)
            found.append(Block(kind, text, layer.label, layer.shape, sources, (layer,)))
        if isinstance(layer, Concatenated):
            joined.append((layer.parts, place[layer]))
    return found


def outline(graph: Graph) -> list[Unit]:
    """The units of a graph in order; the first is its input."""
    every = blocks(graph)
    sizes = _sizes(every)
    merged: list[Unit] = []
    for unit in _units(every):
        home = _home(unit, sizes)
        if merged and home and home == _home(merged[-1], sizes):
            merged[-1] = replace(_chained(merged[-1], unit), name=home, last=home)
        else:
            merged.append(unit)
    repeated: list[Unit] = []
    for unit in merged:
        before = repeated[-1] if repeated else None
        if before is not None and before.signature() == unit.signature():
            repeated[-1] = replace(unit, name=before.name, repeats=before.repeats + 1)
        else:
            repeated.append(unit)
    return repeated


def _unknown(
    layer: Layer, joined: Sequence[tuple[tuple[Node, ...], int]], place: dict[Node, int]
) -> tuple[Node, ...]:
    """What the layer reads that no parameter is; a growing concatenation reads the one before."""
    if isinstance(layer, Computed):
        return tuple(
            [node for _, node in layer.operands if not isinstance(node, Parameter | Derived)]
        )
    for parts, number in reversed(joined):
        if len(parts) < len(layer.parts) and layer.parts[: len(parts)] == parts:
            whole = next(node for node, at in place.items() if at == number)
            return (whole, *layer.parts[len(parts) :])
    return layer.parts


def _nature(layer: Layer, unknown: Sequence[Node]) -> tuple[Kind, str]:
    """What a layer does and what a person writes on its box; nothing for work in place."""
    if isinstance(layer, Concatenated):
        return Kind.JOIN, "concat"
    expression = layer.statement.equation.expression
    if len(set(unknown)) > 1:
        functions = {node.function for node in walk(expression) if isinstance(node, Apply)}
        sign = next((s for name, s in _SIGNS.items() if name in functions), "join")
        return Kind.JOIN, sign
    named = dict(layer.operands)
    data = [read for read in reads(expression) if named[read.tensor] in unknown]
    if not data:
        return Kind.OTHER, "constant"
    window = _window(layer, data[0])
    features = data[0].access[-1]
    if multiply_adds(layer.statement) and _mixes(layer):
        groups = prod([size for index, size in _outer(layer) if features.coefficient(index)])
        if len(layer.shape) <= 2:
            return Kind.LINEAR, f"linear, {layer.shape[-1]}"
        if groups == 1:
            return Kind.CONVOLUTION, f"{window}, {layer.shape[-1]}"
        depthwise = groups == named[data[0].tensor].shape[-1]
        kind = "depthwise" if depthwise else f"{groups} groups"
        return Kind.GROUPED, f"{window}, {kind}"
    reduced = _reduction(expression)
    if reduced is None:
        return Kind.OTHER, ""
    along = {index for value in data[0].access[1:-1] for index, _ in value.terms}
    if not along & set(reduced.indices):
        return Kind.OTHER, "norm"
    name = "max" if reduced.kind == "max" else "avg"
    whole = prod(layer.shape[1:-1]) == 1
    return Kind.POOLING, f"{name}, all" if whole else f"{name} {window}"


_SIGNS = {"add": "+", "subtract": "-", "multiply": "×"}


def _outer(layer: Computed) -> list[tuple[str, int]]:
    """The output's indices and their sizes."""
    outer = indices_of(layer.statement.equation.output.access)
    return [(index, size) for index, size in layer.statement.extents if index in outer]


def _mixes(layer: Computed) -> bool:
    """Whether it has weights for each feature, as a table of averages has not."""
    named = dict(layer.operands)
    features = {index for index, _ in layer.statement.equation.output.access[-1].terms}
    return any(
        isinstance(named[read.tensor], Parameter | Derived)
        and features & set(indices_of(read.access))
        for read in reads(layer.statement.equation.expression)
    )


def _reduction(expression: Expression) -> Reduce | None:
    """The outermost reduction."""
    return next((node for node in walk(expression) if isinstance(node, Reduce)), None)


def _window(layer: Computed, read: Read) -> str:
    """Kernel, stride and dilation of a read along the image's axes: `3×3/2`."""
    extents, outer = dict(layer.statement.extents), dict(_outer(layer))
    sizes, strides, dilations = [], [], []
    for value in read.access[1:-1]:
        inner = [(i, c) for i, c in value.terms if i not in outer]
        sizes.append(prod([extents[index] for index, _ in inner]))
        strides.append(max([abs(c) for i, c in value.terms if i in outer], default=1))
        dilations.append(max([abs(c) for _, c in inner], default=1))
    text = "×".join(map(str, sizes))
    if any(stride > 1 for stride in strides):
        text += f"/{'×'.join(map(str, dict.fromkeys(strides)))}"
    if any(step > 1 and size > 1 for step, size in zip(dilations, sizes, strict=True)):
        text += f" by {'×'.join(map(str, dict.fromkeys(dilations)))}"
    return text


def _units(every: Sequence[Block]) -> list[Unit]:
    """The blocks divided where no data goes past a block."""
    reach = list(range(len(every)))
    for number, block in enumerate(every):
        for source in block.operands:
            reach[source] = max(reach[source], number)
    units, start, open_until = [], 0, 0
    for number in range(len(every)):
        if open_until <= number:
            units.append(_unit(every, start, number + 1))
            start, open_until = number + 1, 0
        open_until = max(open_until, reach[number])
    return units


def _unit(every: Sequence[Block], start: int, stop: int) -> Unit:
    """The blocks from `start` to `stop`, numbered from 0."""
    own = [
        replace(block, operands=tuple([max(n - start, -1) for n in block.operands]))
        for block in every[start:stop]
    ]
    labels = [block.label for block in own]
    name = labels[0] if len(labels) == 1 else _common(labels) or labels[-1]
    return Unit(tuple(own), name, name)


def _common(labels: Sequence[str]) -> str:
    """The module that all labels lie in."""
    paths = [label.split(".") for label in labels]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def _sizes(every: Sequence[Block]) -> dict[str, tuple[int, int]]:
    """For each module how many blocks it has, and how many of them join."""
    found: dict[str, tuple[int, int]] = {}
    for block in every:
        parts = block.label.split(".")
        for depth in range(1, len(parts)):
            path = ".".join(parts[:depth])
            count, joins = found.get(path, (0, 0))
            found[path] = (count + 1, joins + (block.kind is Kind.JOIN))
    return found


def _home(unit: Unit, sizes: dict[str, tuple[int, int]]) -> str:
    """The largest module around the unit that is small enough to be drawn as one; or nothing."""
    parts = _common([block.label for block in unit.blocks]).split(".")
    for depth in range(1, len(parts) + 1):
        path = ".".join(parts[:depth])
        count, joins = sizes.get(path, (_MOST_BLOCKS + 1, 0))
        if count <= _MOST_BLOCKS and joins <= 1:
            return path
    return ""


def _chained(first: Unit, second: Unit) -> Unit:
    """Two units as one."""
    shift = len(first.blocks)
    moved = [
        replace(block, operands=tuple([number + shift for number in block.operands]))
        for block in second.blocks
    ]
    return Unit((*first.blocks, *moved), first.name, second.last)
