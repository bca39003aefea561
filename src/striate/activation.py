"""What a network sees in an image: the values of a layer, and where a class was found."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from striate.layers import Module
from striate.network.describe import Layer, layers
from striate.network.gradient import depends, gradient
from striate.network.graph import Graph, Input, Node
from striate.network.receptive import Field, receptive_fields

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Where the evidence for a class lies: `map[b, x, y]`, what each place adds to its score.

    `linear` says that the score is a linear function of the layer, so that the map's sum and the
    bias are the score; `fields` are what each place sees, `scores[b, class]` those of all classes.
    """

    layer: str
    map: Array
    scores: Array
    linear: bool
    fields: tuple[Field, ...]

    def spread(self) -> Array:
        """The map for every pixel `[b, x, y]`, linear between the middles of what places see."""
        rows, columns = map(_weights, self.fields)
        spread = np.einsum("xp,yq,bpq->bxy", rows, columns, self.map, optimize=True)
        return np.asarray(spread, np.float32)


def _weights(field: Field) -> NDArray[np.float64]:
    """How much each pixel takes of each cell, `[pixel, cell]`: of the two it lies between."""
    centres = [field.centre(cell) for cell in range(field.cells)]
    pixels = np.arange(field.image)
    return np.stack([np.interp(pixels, centres, one) for one in np.eye(field.cells)], axis=1)


def feature_maps(model: Module, images: Array, layer: str) -> Array:
    """The values of the layer `layer` on `images[b, x, y, i]`. Raises ValueError."""
    graph = model.trace(images.shape)
    (values,) = _run(Graph(graph.inputs, (named(graph, layer),)), images)
    return values


def class_activation_map(
    model: Module, images: Array, index: int, layer: str | None = None
) -> ClassMap:
    """Where in `images[b, x, y, i]` the network finds the class number `index`.

    At every place of the layer the activations times the derivatives of the class's score by them,
    summed over the features. Of a network that ends in a mean over all places and a linear layer
    that is the class-activation map (Zhou et al. 2016); of any other it is HiResCAM (Draelos, Carin
    2020). The layer is by default the last that has places. Raises ValueError.
    """
    graph = model.trace(images.shape)
    (output,) = graph.outputs
    if len(output.shape) != 2 or not 0 <= index < output.shape[1]:
        raise ValueError(
            f"class {index} of a network whose output is {list(output.shape)}; expected scores "
            f"[b, class] and a class among them"
        )
    node = named(graph, layer) if layer is not None else _last(graph)
    if len(node.shape) != 4:
        raise ValueError(
            f"{layer} gives {list(node.shape)}, which has no places; choose one before"
        )
    asked = Input("class", output.shape)
    slope = gradient(output, node, asked)
    if slope is None:
        raise ValueError(f"the scores do not depend on {layer}")
    chosen = np.zeros(output.shape, np.float32)
    chosen[:, index] = 1
    outputs = (node, slope, output)
    values, slopes, scores = _run(Graph((*graph.inputs, asked), outputs), images, chosen)
    return ClassMap(
        node.label,
        np.einsum("bxyi,bxyi->bxy", values, slopes),
        scores,
        not depends(slope, graph.inputs[0]),
        receptive_fields(graph)[node],
    )


def named(graph: Graph, label: str) -> Layer:
    """The layer called `label`. Raises ValueError."""
    for layer in layers(graph):
        if layer.label == label:
            return layer
    raise ValueError(f"there is no layer {label!r}")


def _last(graph: Graph) -> Layer:
    """The last layer with several places."""
    places = [node for node in layers(graph) if len(node.shape) == 4 and _cells(node) > 1]
    if not places:
        raise ValueError("the network has no layer with places; expected images [b, x, y, i]")
    return places[-1]


def _cells(node: Node) -> int:
    _, rows, columns, _ = node.shape
    return rows * columns


def _run(graph: Graph, *arrays: Array) -> tuple[Array, ...]:
    from striate.compiler import program_of
    from striate.runtime import Executable

    return Executable(program_of(graph))(*[np.ascontiguousarray(array) for array in arrays])
