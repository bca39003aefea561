"""Where in an image a network finds a class: activations times gradients."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from striate.layers import Module
from striate.layers.extract import feature_graph
from striate.network.describe import Layer, layers
from striate.network.gradient import depends, gradient
from striate.network.graph import Graph, Input, Node
from striate.network.receptive import Field, receptive_fields
from striate.runtime import execute

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

    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The rows and the columns in the middle of what places see; pixel n runs to n + 1."""
        rows, columns = (
            np.array([field.centre(cell) + 0.5 for cell in range(field.cells)])
            for field in self.fields
        )
        return rows, columns


def class_activation_map(
    model: Module, images: Array, index: int, layer: str | None = None
) -> ClassMap:
    """Where in `images[b, x, y, i]` the network finds the class number `index`.

    At every place of the layer the activations times the derivatives of the class's score by them,
    summed over the features. Of a network that ends in a mean over all places and a linear layer
    that is the class-activation map (Zhou et al. 2016); of any other it is HiResCAM (Draelos, Carin
    2020). The layer has a name as `features` takes it, and is by default the last that has places.
    Raises ValueError.
    """
    # The whole network is called "".
    graph, places = feature_graph(model, images.shape, ["", *([layer] if layer else [])])
    output = graph.outputs[places[""]]
    if len(output.shape) != 2 or not 0 <= index < output.shape[1]:
        raise ValueError(
            f"class {index} of a network whose output is {list(output.shape)}; expected scores "
            f"[b, class] and a class among them"
        )
    node: Node
    if layer:
        name, node = layer, graph.outputs[places[layer]]
    else:
        node = _last(graph)
        name = node.label
    if len(node.shape) != 4:
        raise ValueError(f"{name} gives {list(node.shape)}, which has no places; choose one before")
    asked = Input("class", output.shape)
    slope = gradient(output, node, asked)
    if slope is None:
        raise ValueError(f"the scores do not depend on {name}")
    chosen = np.zeros(output.shape, np.float32)
    chosen[:, index] = 1
    outputs = (node, slope, output)
    values, slopes, scores = execute(Graph((*graph.inputs, asked), outputs), [images, chosen])
    return ClassMap(
        name,
        np.einsum("bxyi,bxyi->bxy", values, slopes),
        scores,
        not depends(slope, graph.inputs[0]),
        receptive_fields(graph)[node],
    )


def _last(graph: Graph) -> Layer:
    """The last layer with several places."""
    places = [node for node in layers(graph) if len(node.shape) == 4 and _cells(node) > 1]
    if not places:
        raise ValueError("the network has no layer with places; expected images [b, x, y, i]")
    return places[-1]


def _cells(node: Node) -> int:
    _, rows, columns, _ = node.shape
    return rows * columns
