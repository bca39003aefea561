"""What a network is made of: equations, sizes, work, memory, receptive fields and times."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from striate.layers import Module
from striate.layers.arguments import pair
from striate.network import outline
from striate.network.describe import Layer, equation, layers
from striate.network.graph import Computed, Graph, Node, Parameter
from striate.network.receptive import Field, receptive_fields
from striate.notation import multiply_adds
from striate.notation.ir import Shape

if TYPE_CHECKING:
    from striate.runtime.roofline import Limits, Timed

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer: `bytes` are those of its output, `fields` its receptive field along each axis.

    `seconds` is None where the layer was not timed, or runs within the kernel of another;
    `roofline` is the least time that this CPU allows the kernel over the time it took.
    """

    layer: str
    equation: str
    shape: Shape
    parameters: int
    multiply_adds: int
    bytes: int
    fields: tuple[Field, ...]
    seconds: float | None = None
    roofline: float | None = None

    def record(self) -> dict[str, object]:
        """The layer for programs; sizes along the image's axes are lists, rows first."""
        middles = [field.pixels(field.cells // 2) for field in self.fields]
        return {
            "layer": self.layer,
            "equation": self.equation,
            "shape": list(self.shape),
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "activation_bytes": self.bytes,
            "receptive_field": {
                "size": [field.size for field in self.fields],
                "stride": [field.stride for field in self.fields],
                "offset": [field.offset for field in self.fields],
                "middle": [[seen.start, seen.stop - 1] if seen else None for seen in middles],
            },
            "seconds": self.seconds,
            "roofline": self.roofline,
        }


@dataclass(frozen=True, slots=True)
class PartCost:
    """The costs of a part of a network; of work in place only the last output takes memory."""

    name: str
    parameters: int
    multiply_adds: int
    bytes: int
    seconds: float

    def and_then(self, other: "PartCost") -> "PartCost":
        """Those of both together."""
        return PartCost(
            self.name,
            self.parameters + other.parameters,
            self.multiply_adds + other.multiply_adds,
            self.bytes + other.bytes,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Inspection:
    """A network on images of one shape; `parameters` counts heads for training alone as well."""

    model: str
    input: Shape
    parameters: int
    layers: tuple[LayerReport, ...]
    graph: Graph = field(repr=False)

    @property
    def multiply_adds(self) -> int:
        """Those of all layers."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def unused(self) -> int:
        """Parameters that no layer reads: those of heads for training alone."""
        return self.parameters - sum(layer.parameters for layer in self.layers)

    def costs(self, most: int = 36) -> list[PartCost]:
        """The costs of layers, united by their modules until there are at most so many parts."""
        reports = {report.layer: report for report in self.layers}
        blocks = [block for block in outline.blocks(self.graph) if block.layers]
        deepest = max((block.label.count(".") for block in blocks), default=0) + 1
        for depth in range(deepest, 0, -1):
            parts: dict[str, PartCost] = {}
            for block in blocks:
                name = ".".join(block.label.split(".")[:depth])
                cost = _cost(name, [reports[layer.label] for layer in block.layers])
                parts[name] = parts[name].and_then(cost) if name in parts else cost
            if len(parts) <= most:
                break
        return list(parts.values())

    def record(self) -> dict[str, object]:
        """The network for programs."""
        return {
            "model": self.model,
            "input": list(self.input),
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "activation_bytes": sum(layer.bytes for layer in self.layers),
            "layers": [layer.record() for layer in self.layers],
        }


def inspect(
    model: str | Module,
    size: int | Sequence[int] | None = None,
    *,
    batch: int = 1,
    time: bool = False,
    threads: int | None = None,
    algorithm: str = "auto",
) -> Inspection:
    """Every layer of a network on images of `size` (rows, columns; pixels), or of its own size.

    `model` is a network or the name of one. With `time` it is compiled and run, which takes some
    seconds. Raises ValueError for an unknown name, and for sizes that the network cannot take.
    """
    module, name = _module(model)
    shape = (batch, *_size(size, name), 3)
    graph = module.trace(shape, abstract=True)
    fields = receptive_fields(graph)
    timed, limits = _timed(module, shape, threads, algorithm) if time else ({}, None)
    counts = _parameters(module, layers(graph))
    reports = []
    for layer in layers(graph):
        taken = timed.get(layer.label)
        reports.append(
            LayerReport(
                layer.label,
                equation(layer),
                tuple(layer.shape),
                counts[layer],
                multiply_adds(layer.statement) if isinstance(layer, Computed) else 0,
                _FLOAT_BYTES * math.prod(layer.shape),
                fields.get(layer, ()),
                taken.seconds if taken else None,
                taken.least_seconds(limits) / taken.seconds if taken and limits else None,
            )
        )
    return Inspection(name, shape, module.count_parameters(), tuple(reports), graph)


def colour_filters(
    model: Module, shape: Shape, layer: str | None = None
) -> tuple[str, NDArray[np.float32]]:
    """The name and the weights `[u, v, i, j]` of a layer whose filters are pictures.

    By default the first that has weights; they must read one feature or three. Raises ValueError.
    """
    for node in layers(model.trace(shape)):
        if layer is not None and node.label != layer:
            continue
        for operand in [one for _, one in node.operands] if isinstance(node, Computed) else []:
            if isinstance(operand, Parameter) and len(operand.shape) == 4:
                if operand.shape[2] not in (1, 3):
                    raise ValueError(
                        f"the filters of {node.label} read {operand.shape[2]} features; only those "
                        f"that read 3 (colours) or 1 can be shown"
                    )
                return node.label, operand.array
    raise ValueError(f"{layer or 'the network'} has no filters [u, v, i, j] to show")


def _cost(name: str, layers: Sequence[LayerReport]) -> PartCost:
    """Those of layers that work one after another in the same place."""
    return PartCost(
        name,
        sum(layer.parameters for layer in layers),
        sum(layer.multiply_adds for layer in layers),
        layers[-1].bytes,
        sum(layer.seconds or 0.0 for layer in layers),
    )


def _module(model: str | Module) -> tuple[Module, str]:
    """The network and what to call it."""
    from striate.models import create

    if isinstance(model, str):
        return create(model), model
    return model, getattr(model, "name", "") or type(model).__name__


def _size(size: int | Sequence[int] | None, name: str) -> tuple[int, int]:
    from striate.models import find, names

    if size is not None:
        return pair(size, "inspect: size")
    if name not in names():
        raise ValueError(f"{name} has no size of its own; expected size=(rows, columns) in pixels")
    return find(name).input


def _parameters(module: Module, every: Sequence[Layer]) -> dict[Node, int]:
    """The numbers that training learns for each layer; shared ones count where they come first."""
    unlearned = {
        f"{path}.{name}" if path else name
        for path, part in module.modules()
        for name in part.buffers
    }
    counted: set[Node] = set()
    found: dict[Node, int] = {}
    for layer in every:
        operands = [node for _, node in layer.operands] if isinstance(layer, Computed) else []
        own = {
            node
            for node in operands
            if isinstance(node, Parameter) and node.name not in unlearned and node not in counted
        }
        counted |= own
        found[layer] = sum(math.prod(node.shape) for node in own)
    return found


def _timed(
    module: Module, shape: Shape, threads: int | None, algorithm: str
) -> "tuple[dict[str, Timed], Limits]":
    """What runs by its label, with its time, and what this CPU can do."""
    from striate.runtime.roofline import against_limits, timed_steps

    executable = module.compile(shape, threads=threads, algorithm=algorithm)
    phases, limits = against_limits(executable, np.zeros(shape, np.float32))
    return timed_steps(executable.program, phases, limits), limits
