"""A graph's layers, and how each is written."""

from striate.network.graph import Computed, Concatenated, Graph
from striate.notation import to_text

Layer = Computed | Concatenated


def layers(graph: Graph) -> list[Layer]:
    """What is computed, in order."""
    return [node for node in graph.nodes() if isinstance(node, Computed | Concatenated)]


def equation(layer: Layer) -> str:
    """The layer's equation as text."""
    if isinstance(layer, Computed):
        return to_text(layer.statement.equation)
    indices = ["b", "p", "q", "i"][: len(layer.shape)]
    offset, lines = 0, []
    for number, part in enumerate(layer.parts):
        access = list(indices)
        if offset:
            access[layer.axis] += f"+{offset}"
        lines.append(f"y[{','.join(access)}] = x{number}[{','.join(indices)}]")
        offset += part.shape[layer.axis]
    return "; ".join(lines)
