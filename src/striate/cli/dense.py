"""`striate dense`: where in a photo a network sees a class."""

import io
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.choices import (
    DEFAULT_MODEL,
    JsonOption,
    ModelOption,
    PhotoArgument,
    ThreadsOption,
    WeightsOption,
)
from striate.cli.output import check_figure, check_output, print_json, progress

if TYPE_CHECKING:
    from PIL.Image import Image

    from striate.vision.classification import Label
    from striate.vision.presence import Presence

# The longer side of the photo in the picture (pixels).
_LONGEST = 1200


class Borders(StrEnum):
    """Where padding stands: at the photo's border, or at every window's."""

    IMAGE = "image"
    WINDOW = "window"


def dense(
    photo: PhotoArgument,
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
    model: ModelOption = DEFAULT_MODEL,
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
    from striate.cli.networks import class_number, parse_size
    from striate.cli.photo import source
    from striate.images import load
    from striate.models import create
    from striate.vision.classification import labels_for, preset_of
    from striate.vision.dense import dense as dense_network
    from striate.vision.presence import presence, working_size

    raw = output.with_suffix(".npy")
    check_figure(output, "--output")
    check_output(raw, "--output")
    if size is not None and scale is not None:
        raise typer.BadParameter("choose one of --size and --scale")
    image = load(source(photo))
    module = create(model, weights)
    network = dense_network(
        module, output_stride, borders, margin=module.preset.crop // 2, threads=threads
    )
    labels = labels_for(network.classes)
    wanted = list(dict.fromkeys(class_number(query, len(labels)) for query in classes or []))
    if size is None:
        pixels = working_size(image.size[::-1], network.window, scale)
    else:
        pixels = parse_size(size, "--size")
    doing = f"{model} on {pixels[0]} x {pixels[1]} pixels"
    with progress(network.geometry_for(pixels).shape[0]) as advance:
        advance(doing, 0)
        found = presence(
            network,
            preset_of(module),
            image,
            wanted,
            size=pixels,
            top=top,
            advance=lambda rows: advance(doing, rows),
        )
    _write(output, raw, image, found, [labels[index].name for index in found.classes], model)
    seen = _seen(found, labels, image)
    if json:
        files = {"file": photo, "picture": str(output), "map": str(raw)}
        print_json({**files, "model": model, **_record(found), "classes": seen})
        return
    for one in seen:
        print(
            f"{one['name']}: up to {one['most']:.1%}, at {one['column']},{one['row']} (X,Y); "
            f"{one['mean']:.1%} on average"
        )
    print(f"{output} and {raw}")


def _write(
    output: Path, raw: Path, image: "Image", found: "Presence", names: Sequence[str], model: str
) -> None:
    """The picture, and the maps as float32[class, p, q]."""
    import numpy as np

    from striate.compiler.files import write_atomically
    from striate.pictures.figures import encoded, stacked
    from striate.pictures.heat import Heat, on_pixels

    shown = image.copy()
    shown.thumbnail((_LONGEST, _LONGEST))
    rows, columns = found.centres()
    down, across = shown.height / image.height, shown.width / image.width
    maps = [
        on_pixels(cells, down * rows, across * columns, shown.size[::-1]) for cells in found.maps
    ]
    title = f"{model}: what the window around each pixel shows"
    titled = list(zip(names, maps, strict=True))
    panel = Heat(title, np.asarray(shown), titled, "probability", shares=True)
    picture = encoded(stacked([panel]), output.suffix)
    array = io.BytesIO()
    np.save(array, found.maps)
    write_atomically(output, [picture], durable=True)
    write_atomically(raw, [array.getvalue()], durable=True)


def _record(found: "Presence") -> dict[str, object]:
    """Where the maps' cells lie, for programs."""
    geometry = found.geometry
    return {
        "scale": list(found.scale),
        "window": list(geometry.size),
        "stride": list(geometry.stride),
        "offset": list(geometry.offset),
        "shape": list(geometry.shape),
    }


def _seen(found: "Presence", labels: "Sequence[Label]", image: "Image") -> list[dict[str, object]]:
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
                "row": min(round(rows[p]), image.height - 1),
                "column": min(round(columns[q]), image.width - 1),
            }
        )
    return seen
