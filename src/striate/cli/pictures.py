"""The pictures of `striate inspect`: what each of them needs, and how it is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from striate.cli.networks import class_number, matching
from striate.cli.output import check_figure, count, duration, size
from striate.cli.photo import parse_pixels, source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from striate.layers import Module
    from striate.models.inspection import Inspection
    from striate.network.describe import Layer
    from striate.network.receptive import Field
    from striate.pictures.figures import Panel
    from striate.pictures.overlay import Mark

# Feature maps of a layer that has more.
_MOST_MAPS = 32


class Picture(StrEnum):
    """What a picture shows."""

    OVERVIEW = "overview"
    ARCHITECTURE = "architecture"
    COST = "cost"
    FILTERS = "filters"
    FEATURES = "features"
    FIELD = "field"
    CAM = "cam"


# The options that each takes; those of the first set it must be given.
_TAKES: dict[Picture, tuple[set[str], set[str]]] = {
    Picture.OVERVIEW: (set(), set()),
    Picture.ARCHITECTURE: (set(), set()),
    Picture.COST: (set(), set()),
    Picture.FILTERS: (set(), {"--layer", "--weights"}),
    Picture.FEATURES: ({"--image"}, {"--layer", "--weights"}),
    Picture.FIELD: ({"--image"}, {"--layer", "--cell"}),
    Picture.CAM: ({"--image"}, {"--layer", "--class", "--weights"}),
}


@dataclass(frozen=True, slots=True)
class Request:
    """A picture as it was asked for; None is what was not given."""

    what: Picture
    file: Path
    image: str | None = None
    layer: str | None = None
    cell: str | None = None
    class_: str | None = None
    weights: str | None = None

    def check(self) -> None:
        """Raises ValueError for options that do not go together, and for a file's name."""
        given = {
            "--image": self.image,
            "--layer": self.layer,
            "--cell": self.cell,
            "--class": self.class_,
            "--weights": self.weights,
        }
        needed, taken = _TAKES[self.what]
        for name, value in given.items():
            if value is None and name in needed:
                raise ValueError(f"--what {self.what} needs {name}")
            if value is not None and name not in needed | taken:
                takers = [str(one) for one, names in _TAKES.items() if name in names[0] | names[1]]
                raise ValueError(f"{name} is for --what {' or '.join(takers)}, not for {self.what}")
        if self.cell is not None and self.layer is None:
            raise ValueError("--cell needs --layer: the cell is one of that layer's")
        check_figure(self.file, "--plot")


def save(request: Request, found: "Inspection") -> None:
    """Draw the picture that was asked for into its file."""
    from striate.compiler.files import write_atomically
    from striate.pictures.figures import encoded, stacked

    figure = stacked(_panels(request, found))
    write_atomically(request.file, [encoded(figure, request.file.suffix)], durable=True)


def _panels(request: Request, found: "Inspection") -> "list[Panel]":
    match request.what:
        case Picture.OVERVIEW:
            return [_architecture(found), _costs(found)]
        case Picture.ARCHITECTURE:
            return [_architecture(found)]
        case Picture.COST:
            return [_costs(found, found.model)]
        case Picture.FILTERS:
            return [_filters(request, found)]
        case Picture.FEATURES:
            return [_features(request, found)]
        case Picture.FIELD:
            return [_field(request, found)]
        case Picture.CAM:
            return [_cam(request, found)]


def _architecture(found: "Inspection") -> "Panel":
    from striate.network.outline import outline
    from striate.pictures.architecture import Architecture

    title = (
        f"{found.model}: {count(found.parameters)} parameters, "
        f"{count(found.multiply_adds)} multiply-adds"
    )
    return Architecture(title, tuple(outline(found.graph)))


def _costs(found: "Inspection", title: str = "") -> "Panel":
    from striate.pictures.cost import Column, Costs

    parts = found.costs()
    columns = [
        Column(
            f"multiply-adds: {count(found.multiply_adds)}",
            [part.multiply_adds for part in parts],
            [count(part.multiply_adds) if part.multiply_adds else "" for part in parts],
        ),
        Column(
            f"parameters: {count(sum(part.parameters for part in parts))}",
            [part.parameters for part in parts],
            [count(part.parameters) if part.parameters else "" for part in parts],
        ),
        Column(
            f"activations: {size(sum(part.bytes for part in parts))}",
            [part.bytes for part in parts],
            [size(part.bytes) for part in parts],
        ),
    ]
    if any(part.seconds for part in parts):
        columns.append(
            Column(
                f"time: {duration(sum(part.seconds for part in parts))}",
                [part.seconds for part in parts],
                [duration(part.seconds) if part.seconds else "" for part in parts],
            )
        )
    return Costs([part.name for part in parts], columns, title)


def _filters(request: Request, found: "Inspection") -> "Panel":
    from striate.models.inspection import colour_filters
    from striate.pictures.tiles import Tiles, filters

    module = _trained(request, found)
    layer = _chosen(found, request.layer).label if request.layer else None
    name, weights = colour_filters(module, found.input, layer)
    images = filters(weights)
    sizes = "×".join(map(str, weights.shape[:2]))
    title = f"{found.model}, {name}: {len(images)} filters of {sizes} pixels, grey is 0"
    return Tiles(title, images, columns=16)


def _features(request: Request, found: "Inspection") -> "Panel":
    import numpy as np

    from striate.layers import features as features_of
    from striate.pictures.tiles import Tiles, stretched

    layer = _chosen(found, request.layer) if request.layer else _first_half(found)
    if len(layer.shape) != 4:
        raise ValueError(f"{layer.label} gives {list(layer.shape)}, which is no map; choose before")
    _, values = _seen(request, found)
    module = _trained(request, found)
    maps = features_of(module, values, [layer.label])[layer.label][0]
    kept = np.argsort(-maps.std(axis=(0, 1)), kind="stable")[:_MOST_MAPS]
    rows, columns, features = maps.shape
    which = f"the {len(kept)} of {features}" if len(kept) < features else f"all {features}"
    title = f"{found.model}, {layer.label}: {which} features of {rows}×{columns} that vary the most"
    images = stretched(np.moveaxis(maps[:, :, kept], -1, 0))
    return Tiles(title, images, tuple([str(number) for number in kept]))


def _field(request: Request, found: "Inspection") -> "Panel":
    from striate.network.receptive import receptive_fields
    from striate.pictures.overlay import Fields

    photo, _ = _seen(request, found)
    fields = receptive_fields(found.graph)
    if request.layer:
        chosen: Sequence[Layer] = [_chosen(found, request.layer)]
        title = f"{found.model}: the pixels that one cell of {chosen[0].label} depends on"
    else:
        chosen = _stages(found)
        title = f"{found.model}: the pixels that the middle cell of each stage depends on"
    marks = [_mark(layer, fields.get(layer, ()), request.cell) for layer in chosen]
    return Fields(title, photo, marks)


def _mark(layer: "Layer", fields: "Sequence[Field]", asked: str | None) -> "Mark":
    """The field of a cell, by default the middle one, in words too."""
    from striate.pictures.overlay import Mark

    if len(fields) != 2:
        raise ValueError(f"{layer.label} does not depend on the image")
    cell = [field.cells // 2 for field in fields]
    if asked is not None:
        (cell,) = parse_pixels([asked], "--cell").tolist()
    high, wide = (field.cells for field in fields)
    if not (cell[0] < high and cell[1] < wide):
        raise ValueError(
            f"--cell is {asked}, but {layer.label} is {wide} cells wide and {high} high "
            f"(X is 0 to {wide - 1}, Y is 0 to {high - 1})"
        )
    rows, columns = (field.pixels(n) for n, field in zip(cell, fields, strict=True))
    sizes = "×".join(str(field.size) for field in fields)
    step = "×".join(dict.fromkeys(_number(field.stride) for field in fields))
    words = [
        f"cell {cell[1]},{cell[0]} (X,Y) of {high}×{wide}",
        f"sees {sizes} pixels, every {step}" if step not in ("0", "?") else f"sees {sizes} pixels",
        f"here rows {_ends(rows)}, columns {_ends(columns)}",
    ]
    return Mark(layer.label, words, rows, columns)


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"


def _ends(pixels: range) -> str:
    return f"{pixels.start} to {pixels.stop - 1}" if pixels else "none"


def _cam(request: Request, found: "Inspection") -> "Panel":
    from striate.pictures.heat import Heat, on_pixels
    from striate.vision.activation import class_activation_map
    from striate.vision.classification import labels_for, softmax

    layer = _chosen(found, request.layer).label if request.layer else None
    photo, values = _seen(request, found)
    module = _trained(request, found)
    asked = request.class_
    classes = found.graph.outputs[0].shape[-1]
    index = int(module(values).argmax()) if asked is None else class_number(asked, classes)
    seen = class_activation_map(module, values, index, layer)
    name = labels_for(classes)[index].name
    kind = "class-activation map" if seen.linear else "gradient times activation"
    title = f"{found.model}: {name} ({softmax(seen.scores)[0, index]:.1%}), {kind} of {seen.layer}"
    map = on_pixels(seen.map[0], *seen.centres(), photo.shape[:2])
    return Heat(title, photo, [("", map)], "contribution to the class's score")


def _chosen(found: "Inspection", asked: str) -> "Layer":
    """The layer called so, or the last of the module called so."""
    from striate.network.describe import layers

    every = {layer.label: layer for layer in layers(found.graph)}
    return every[matching(list(every), asked, found.model)[-1]]


def _stages(found: "Inspection") -> "list[Layer]":
    """The last layer of each size with several cells."""
    from striate.network.describe import layers

    last: dict[tuple[int, ...], Layer] = {}
    for layer in layers(found.graph):
        if len(layer.shape) == 4 and max(layer.shape[1:3]) > 1:
            last[layer.shape[1:3]] = layer
    return list(last.values())[-6:]


def _first_half(found: "Inspection") -> "Layer":
    """The last layer of the second stage: still a picture, no longer edges alone."""
    stages = _stages(found)
    return stages[min(1, len(stages) - 1)]


def _trained(request: Request, found: "Inspection") -> "Module":
    from striate.models import create

    return create(found.model, request.weights or "imagenet")


def _seen(request: Request, found: "Inspection") -> "tuple[NDArray[np.uint8], NDArray[np.float32]]":
    """The photo as the network sees it: its pixels `[x, y, 3]`, and its input `[1, x, y, 3]`."""
    import numpy as np

    from striate.images import load, preset_for

    _, rows, columns, _ = found.input
    if rows != columns:
        raise ValueError(
            f"--input is {rows}x{columns}; a photo is cut to a square, such as 224x224"
        )
    assert request.image is not None
    preset = preset_for(found.model, None, rows)
    frame = preset.frame(load(source(request.image)))
    return np.asarray(frame, np.uint8), preset.normalize(frame)[None]
