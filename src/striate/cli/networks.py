"""What several commands do with a network: make it without weights, find its layers."""

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from striate.layers import Module
    from striate.notation.ir import Shape


def network(name: str, size: str | None, batch: int = 1) -> "tuple[Module, Shape]":
    """The network `name` as it is before training, and the shape of its input.

    `size` is HEIGHTxWIDTH in pixels; None is the size the network is trained for.
    """
    from striate.models import create

    return create(name), input_shape(name, size, batch)


def input_shape(name: str, size: str | None, batch: int = 1) -> "Shape":
    """The shape of the input of the network `name`, whose images are of `size` or its own."""
    from striate.models import find

    height, width = find(name).input if size is None else parse_size(size)
    return batch, height, width, 3


def parse_size(text: str, option: str = "--input") -> tuple[int, int]:
    """Height and width in pixels of `224x320`, or of `224` for a square. Raises ValueError."""
    parts = text.lower().replace("×", "x").split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise ValueError(f"{option} is {text!r}, expected HEIGHTxWIDTH in pixels, such as 224x224")
    height, width = int(parts[0]), int(parts[-1])
    if not 1 <= height <= 65536 or not 1 <= width <= 65536:
        raise ValueError(f"{option} is {text!r}, expected 1 to 65536 pixels each way")
    return height, width


def class_number(query: str, classes: int) -> int:
    """Which of so many classes `query` names; only ImageNet's have names. Raises ValueError."""
    from striate.images import class_names, find_class

    if classes == len(class_names()):
        return find_class(query).index
    if not query.isdecimal() or int(query) >= classes:
        raise ValueError(
            f"--class is {query!r}; the network's classes have no names: 0 to {classes - 1}"
        )
    return int(query)


def matching(labels: list[str], asked: str, model: str) -> list[str]:
    """The labels that `asked` names: one layer, or all parts of a module.

    ValueError with the nearest names where there is none.
    """
    found = [label for label in labels if label == asked or label.startswith(f"{asked}.")]
    if not found:
        near = get_close_matches(asked, labels, n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"{model} has no layer {asked!r}.{hint} `striate inspect {model}` names them all."
        )
    return found
