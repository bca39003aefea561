"""`striate segment`: an object cut out of a photo by a few of its pixels, or all its regions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from striate.cli.output import check_output, print_json, progress, write_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


def segment(
    photo: PhotoArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE.png", help="The mask: white inside.", show_default=False
        ),
    ],
    inside: Annotated[
        list[str] | None,
        typer.Option(
            metavar=PLACE,
            help=f"A pixel of the object: {PLACE_HELP} Repeat it.",
            show_default=False,
        ),
    ] = None,
    outside: Annotated[
        list[str] | None,
        typer.Option(
            metavar=PLACE, help="A pixel of anything else. Repeat it.", show_default=False
        ),
    ] = None,
    regions: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=256,
            help="Instead: how many kinds of pixels to divide the photo into.",
            show_default=False,
        ),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="The result over the photo.", show_default="NAME-overlay.png"
        ),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    weights: WeightsOption = "imagenet",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Cut an object out of a photo, shown by a handful of pixels inside it and outside it.

    A small classifier learns from the hypercolumns of those pixels and is asked about every other.
    With --regions nothing is shown: the mask has a colour for each of the kinds of pixels found.
    Needs scikit-learn: pip install 'striate[segment]'.
    """
    from striate.cli.photo import check_within, parse_pixels, source
    from striate.images import load
    from striate.models import create
    from striate.vision.segmentation import check
    from striate.vision.segmentation import regions as regions_of
    from striate.vision.segmentation import segment as segment_by

    beside = overlay or output.with_name(f"{output.stem}-overlay.png")
    check_output(output, "--output", [".png"])
    check_output(beside, "--overlay", [".png"])
    if beside == output:
        raise ValueError(f"--overlay is {beside}, which is the mask's file; expected another")
    if bool(inside or outside) == (regions is not None):
        raise typer.BadParameter("give --inside and --outside, or --regions")
    if regions is None and not (inside and outside):
        raise typer.BadParameter("give one --inside and one --outside or more of each")
    check()
    image = load(source(photo))
    within = check_within(parse_pixels(inside or (), "--inside"), image, "--inside")
    without = check_within(parse_pixels(outside or (), "--outside"), image, "--outside")
    with progress(None) as advance:
        advance(f"{model} on {image.size[0]} x {image.size[1]} pixels", 0)
        network = create(model, weights)
        if regions is None:
            cut = segment_by(network, image, within, without, threads=threads)
            mask, shown, shares = cut_object(image, cut.mask, within, without)
        else:
            found = regions_of(network, image, regions, threads=threads)
            mask, shown, shares = painted(image, found, regions)
    write_image(output, mask)
    write_image(beside, shown)
    if json:
        head = {"file": photo, "model": model, "mask": str(output), "overlay": str(beside)}
        print_json({**head, ("inside" if regions is None else "regions"): shares})
        return
    said = ", ".join(f"{share:.1%}" for share in (shares if isinstance(shares, list) else [shares]))
    print(f"{output}: {said} of {photo}")
    print(f"{beside}: the same over the photo")


def cut_object(
    image: "Image",
    mask: "NDArray[np.bool_]",
    inside: "NDArray[np.int64]",
    outside: "NDArray[np.int64]",
) -> "tuple[Image, Image, float | list[float]]":
    """The mask and the overlay as pictures, and the object's share of the photo."""
    from PIL import Image

    from striate.pictures.segments import cut_out

    shown = cut_out(image, mask, inside, outside)
    return Image.fromarray(mask).convert("L"), shown, round(float(mask.mean()), 6)


def painted(
    image: "Image", numbers: "NDArray[np.int64]", count: int
) -> "tuple[Image, Image, float | list[float]]":
    """The regions as a picture of their numbers with a palette, the overlay, and their shares."""
    import numpy as np
    from PIL import Image

    from striate.pictures.segments import coloured, palette

    mask = Image.fromarray(numbers.astype(np.uint8), "P")
    mask.putpalette([value for colour in palette(count) for value in colour])
    shares = np.bincount(numbers.ravel(), minlength=count) / numbers.size
    return mask, coloured(image, numbers), [round(float(share), 6) for share in shares]
