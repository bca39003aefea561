"""`striate hypercolumns`: the features above the pixels of a photo, as a file of arrays."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from striate.cli.choices import (
    DEFAULT_MODEL,
    PLACE,
    PLACE_HELP,
    JsonOption,
    ModelOption,
    PhotoArgument,
    ThreadsOption,
    WeightsOption,
)
from striate.cli.output import check_output, print_json, progress, size

# Every hypercolumn of a photo of a megapixel would take some gigabytes.
_EVERY = 4


class Interpolation(StrEnum):
    """How a pixel takes features from a map that has fewer pixels."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"


def hypercolumns(
    photo: PhotoArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.npz", help="Where to.", show_default=False),
    ],
    model: ModelOption = DEFAULT_MODEL,
    weights: WeightsOption = "imagenet",
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER,...",
            help="Names as in `striate inspect`, or stride4 for the last map of that stride.",
            show_default="the last of every stride",
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar=PLACE,
            help=f"A pixel: {PLACE_HELP} Repeat it.",
            show_default="a grid of the whole photo",
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The grid's pixels: every so many rows and columns.",
            show_default=str(_EVERY),
        ),
    ] = None,
    interpolation: Annotated[
        Interpolation, typer.Option(help="The cell above the pixel, or the four around it weighed.")
    ] = Interpolation.NEAREST,
    longest: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Reduce the photo first, to so many pixels on its longer side.",
            show_default="its own",
        ),
    ] = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Write the hypercolumns of a photo: for each pixel the features above it, of several layers.

    The file (numpy.load reads it) has values [row, column, feature] on a grid of pixels, or with
    --at [pixel, feature]; rows and columns, where in the photo the pixels are; and layers, with for
    each its first and last feature + 1 (slices) and its stride (strides). With --longest the grid
    is that of the smaller photo, and rows and columns still count pixels of the photo as it is.
    """
    import numpy as np

    from striate.cli.photo import check_within, parse_pixels, source
    from striate.compiler.files import written_atomically
    from striate.images import load, reduced
    from striate.models import create
    from striate.vision.hypercolumns import TooLargeError
    from striate.vision.hypercolumns import hypercolumns as columns_of

    check_output(output, "--output", [".npz"])
    if at and every is not None:
        raise typer.BadParameter("choose one of --at and --every")
    names = None if layers is None else [name.strip() for name in layers.split(",")]
    if names is not None and not all(names):
        raise ValueError(f"--layers is {layers!r}, expected names with commas between them")
    wanted = parse_pixels(at or (), "--at")
    original = load(source(photo))
    image = reduced(original, longest)
    full, seen = np.array(original.size[::-1]), np.array(image.size[::-1])
    if at:
        places = check_within(wanted, original, "--at") * seen // full
        rows, columns = wanted.T
    else:
        grid = [np.arange(0, pixels, every or _EVERY) for pixels in seen]
        places = np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, 2)
        # The first pixel of the photo that a pixel of the smaller one stands for.
        rows, columns = (-(-n * a // b) for n, a, b in zip(grid, full, seen, strict=True))
    with progress(None) as advance:
        advance(f"{model} on {image.size[0]} x {image.size[1]} pixels", 0)
        network = create(model, weights)
        # All at once they are made row by row.
        where = None if every == 1 else places
        try:
            found = columns_of(network, image, names, where, interpolation.value, threads=threads)
        except TooLargeError as error:
            raise ValueError(
                f"the hypercolumns of {len(places)} pixels take {size(error.size)}; a larger "
                "--every, fewer --layers and a smaller --longest take less, and so do single "
                f"pixels (--at {PLACE})"
            ) from None
        values = found.values if at else found.values.reshape(len(rows), len(columns), -1)
        arrays = {
            "values": values,
            "rows": rows,
            "columns": columns,
            "layers": np.array([layer.name for layer in found.layers]),
            "slices": np.array([(la.columns.start, la.columns.stop) for la in found.layers]),
            "strides": np.array([[float(n) for n in layer.stride] for layer in found.layers]),
        }
        advance(f"writing {output}", 0)
        with written_atomically(output, durable=True) as file:
            np.savez(file, allow_pickle=False, **arrays)
    if json:
        parts = [
            {"name": la.name, "columns": [la.columns.start, la.columns.stop]} for la in found.layers
        ]
        head = {"file": photo, "model": model, "output": str(output)}
        print_json({**head, "shape": list(values.shape), "layers": parts})
        return
    print(f"{output}: {' x '.join(map(str, values.shape))}, {size(output.stat().st_size)}")
    for layer in found.layers:
        print(f"  {layer.columns.start:6}-{layer.columns.stop - 1:<6} {layer.name}")
