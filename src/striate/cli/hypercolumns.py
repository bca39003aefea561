"""`striate hypercolumns`: the features above the pixels of a photo, as a file of arrays."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from striate.cli.choices import DEFAULT_MODEL, JsonOption, ThreadsOption, WeightsOption
from striate.cli.output import print_json, progress
from striate.cli.pixels import HELP, METAVAR


class Interpolation(StrEnum):
    """How a pixel takes features from a map that has fewer pixels."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"


def hypercolumns(
    photo: Annotated[str, typer.Argument(metavar="PHOTO", help="An image.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.npz", help="Where to.", show_default=False),
    ],
    model: Annotated[str, typer.Option(metavar="NAME", help="The network.")] = DEFAULT_MODEL,
    weights: WeightsOption = "imagenet",
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Names as in `striate inspect`, or stride4 for the last map of that stride.",
            show_default="the last of every stride",
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(metavar=METAVAR, help=f"A pixel: {HELP} Repeat it.", show_default="all"),
    ] = None,
    interpolation: Annotated[
        Interpolation, typer.Option(help="The cell above the pixel, or the four around it weighed.")
    ] = Interpolation.NEAREST,
    size: Annotated[
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

    The file (numpy.load reads it) has values [pixel, feature], or [row, column, feature] of all
    pixels; layers, and for each its first and last column + 1 (slices) and its stride (strides);
    and rows and columns of the pixels, if they were chosen. With --size the pixels are those of the
    photo as it is; its features are those of the smaller one.
    """
    import numpy as np

    from striate.cli.pixels import check_suffix, check_within, parse_pixels
    from striate.columns import hypercolumns as columns_of
    from striate.compiler.files import written_atomically
    from striate.images import load, reduced
    from striate.models import create

    check_suffix(output, ".npz")
    names = None if layers is None else [name.strip() for name in layers.split(",")]
    wanted = parse_pixels(at, "--at") if at else None
    original = load(photo)
    image = reduced(original, size)
    places = None
    if wanted is not None:
        scale = np.array(image.size[::-1]) / np.array(original.size[::-1])
        places = (check_within(wanted, original, "--at") * scale).astype(np.int64)
    with progress(None) as advance:
        advance(f"{model} on {image.size[0]} x {image.size[1]} pixels", 0)
        network = create(model, weights)
        found = columns_of(network, image, names, places, interpolation.value, threads=threads)
        arrays = {
            "values": found.values,
            "layers": np.array([layer.name for layer in found.layers]),
            "slices": np.array([(la.columns.start, la.columns.stop) for la in found.layers]),
            "strides": np.array([[float(n) for n in layer.stride] for layer in found.layers]),
        }
        if wanted is not None:
            arrays |= {"rows": wanted[:, 0], "columns": wanted[:, 1]}
        advance(f"writing {output}", 0)
        with written_atomically(output, durable=True) as file:
            np.savez(file, allow_pickle=False, **arrays)
    shape = found.values.shape
    if json:
        parts = [
            {"name": la.name, "columns": [la.columns.start, la.columns.stop]} for la in found.layers
        ]
        head = {"file": photo, "model": model, "output": str(output)}
        print_json({**head, "shape": list(shape), "layers": parts})
        return
    sizes = " x ".join(map(str, shape))
    print(f"{output}: {sizes}, {output.stat().st_size / 1e6:.1f} MB")
    for layer in found.layers:
        print(f"  {layer.columns.start:6}-{layer.columns.stop - 1:<6} {layer.name}")
