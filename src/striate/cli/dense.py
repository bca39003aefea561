"""`striate dense`: where in a photo a network sees a class."""

import io
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.choices import DEFAULT_MODEL, JsonOption, ThreadsOption, WeightsOption
from striate.cli.output import print_json, progress

if TYPE_CHECKING:
    from PIL.Image import Image

    from striate.classification import Label
    from striate.images.loading import Encoded
    from striate.presence import Presence

STDIN = "-"
# The longer side of the photo in the picture (pixels).
_LONGEST = 1200


class Borders(StrEnum):
    """Where padding stands: at the photo's border, or at every window's."""

    IMAGE = "image"
    WINDOW = "window"


def dense(
    photo: Annotated[
        str, typer.Argument(metavar="PHOTO", help="An image, or - for standard input.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The picture; the raw map goes beside it, in a file of the same name with .npy.",
            show_default=False,
        ),
    ],
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="CLASS",
            help="A name or a part of it, a synset, or a number; may be given several times.",
            show_default="the most present",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes, where none is named.")] = 3,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="The network; `striate models` lists them.")
    ] = DEFAULT_MODEL,
    weights: WeightsOption = "imagenet",
    output_stride: Annotated[
        int, typer.Option(min=1, help="Pixels from one window to the next, once scaled.")
    ] = 16,
    borders: Annotated[
        Borders, typer.Option(help="image: one pass; window: every window cut out, slowly.")
    ] = Borders.IMAGE,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Scale the photo to this.", show_default="two windows wide"
        ),
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Scale the photo by this factor.")] = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Show where a network sees a class: heat maps of its probability over a photo.

    The network looks at a window around every place, as `striate classify` looks at a whole photo.
    A small scale finds what fills the photo, a large one what is small in it.
    """
    from striate.classification import labels_for, preset_of
    from striate.cli.networks import parse_size
    from striate.dense_maps import dense as dense_network
    from striate.images import load
    from striate.models import create
    from striate.pictures.figures import check
    from striate.presence import presence, working_size

    check(output, "--output")
    if size is not None and scale is not None:
        raise typer.BadParameter("choose one of --size and --scale")
    image = load(_source(photo))
    module = create(model, weights)
    network = dense_network(
        module, output_stride, borders, margin=module.preset.crop // 2, threads=threads
    )
    labels = labels_for(network.classes)
    wanted = list(dict.fromkeys(_number(query, labels) for query in classes or []))
    pixels = parse_size(size) if size else working_size(image.size[::-1], network.window, scale)
    with progress(network.geometry_for(pixels).shape[0]) as advance:
        advance(f"{model} on {pixels[0]} x {pixels[1]} pixels", 0)
        found = presence(
            network,
            preset_of(module),
            image,
            wanted,
            size=pixels,
            top=top,
            advance=lambda rows: advance("", rows),
        )
    raw = output.with_suffix(".npy")
    _write(output, raw, image, found, labels)
    if json:
        files = {"file": photo, "picture": str(output), "map": str(raw)}
        print_json({**files, "model": model, **_record(found, labels)})
        return
    for one in _seen(found, labels):
        print(
            f"{one['name']}: up to {one['most']:.1%}, at row {one['row']}, column {one['column']}; "
            f"{one['mean']:.1%} on average"
        )
    print(f"{output} and {raw}")


def _source(photo: str) -> "Encoded":
    from striate.cli.classify import standard_input

    return standard_input() if photo == STDIN else photo


def _number(query: str, labels: "Sequence[Label]") -> int:
    """The class that a user names; only ImageNet's have names."""
    from striate.images import class_names, find_class

    if len(labels) == len(class_names()):
        return find_class(query).index
    if not query.isdecimal() or int(query) >= len(labels):
        raise ValueError(
            f"--class is {query!r}; the network's classes have no names: 0 to {len(labels) - 1}"
        )
    return int(query)


def _write(
    output: Path, raw: Path, image: "Image", found: "Presence", labels: "Sequence[Label]"
) -> None:
    """The picture, and the maps as float32[class, p, q]."""
    import numpy as np

    from striate.compiler.files import write_atomically
    from striate.pictures.figures import encoded
    from striate.pictures.heat import heat_maps, on_pixels

    shown = image.copy()
    shown.thumbnail((_LONGEST, _LONGEST))
    rows, columns = found.centres()
    down, across = shown.height / image.height, shown.width / image.width
    maps = [
        on_pixels(cells, down * rows, across * columns, shown.size[::-1]) for cells in found.maps
    ]
    titles = [labels[index].name for index in found.classes]
    picture = encoded(heat_maps(shown, maps, titles), output.suffix)
    array = io.BytesIO()
    np.save(array, found.maps)
    write_atomically(output, [picture], durable=True)
    write_atomically(raw, [array.getvalue()], durable=True)


def _record(found: "Presence", labels: "Sequence[Label]") -> dict[str, object]:
    """What was found, for programs."""
    geometry = found.geometry
    return {
        "scale": list(found.scale),
        "window": list(geometry.size),
        "stride": list(geometry.stride),
        "offset": list(geometry.offset),
        "shape": list(geometry.shape),
        "classes": _seen(found, labels),
    }


def _seen(found: "Presence", labels: "Sequence[Label]") -> list[dict[str, object]]:
    """Each class with its mean, and with its largest probability and where in the photo that is."""
    import numpy as np

    rows, columns = found.centres()
    seen: list[dict[str, object]] = []
    for index, cells in zip(found.classes, found.maps, strict=True):
        p, q = np.unravel_index(int(cells.argmax()), cells.shape)
        seen.append(
            {
                "index": index,
                "name": labels[index].name,
                "synset": labels[index].synset,
                "mean": float(cells.mean()),
                "most": float(cells.max()),
                "row": round(rows[p]),
                "column": round(columns[q]),
            }
        )
    return seen
