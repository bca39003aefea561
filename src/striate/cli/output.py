"""How commands print: numbers for people, tables that fit a terminal and do not break in a pipe."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

# Takes what is under way, and how many steps are done.
Advance = Callable[[str, int], None]
# A pipe has no width: wide enough that no row of a table is folded.
_PIPE_COLUMNS = 10_000


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; numbers go to the right, long text may fold on a terminal."""

    title: str
    number: bool = False
    folds: bool = False


def print_json(value: object) -> None:
    """Print `value` as one line of JSON."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print `rows` under the titles of `columns`."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_COLUMNS, color_system=None)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(
            Text(column.title),
            justify="right" if column.number else "left",
            no_wrap=not column.folds,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(Text, row))
    if console.is_terminal:
        console.print(table)
        return
    # Rich fills every line with blanks up to the width of the table.
    with console.capture() as capture:
        console.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))


@contextmanager
def progress(total: int | None) -> Iterator[Advance]:
    """A bar on standard error while a person looks at it; says what is under way.

    Without a `total` it only shows that work goes on.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=total)

        def advance(description: str, steps: int) -> None:
            progress.update(task, description=description, advance=steps)

        yield advance


def check_output(path: Path, option: str, suffixes: Sequence[str] = ()) -> None:
    """Raises ValueError if `path`, which `option` was given, is not called as such files are.

    Also if no file can be written there, before long work is done in vain.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        *most, last = suffixes
        expected = f"{', '.join(most)} or {last}" if most else last
        raise ValueError(f"{option} is {path}, expected a name that ends in {expected}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected the name of a file")
    folder = path.parent
    if not folder.is_dir():
        raise ValueError(f"{path} cannot be written: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{path} cannot be written: the folder {folder} is read-only")


def check_figure(path: Path, option: str) -> None:
    """The same for a figure that matplotlib draws; UnavailableError if that is not there."""
    from striate.extras import require
    from striate.pictures.figures import SUFFIXES

    check_output(path, option, SUFFIXES)
    require("matplotlib", "plot", f"{option} needs matplotlib")


def write_image(path: Path, image: "Image", form: str = "PNG") -> None:
    """The image as a file that is there complete or not at all, in one of Pillow's formats."""
    from striate.compiler.files import write_atomically

    content = io.BytesIO()
    image.save(content, form)
    write_atomically(path, [content.getbuffer()], durable=True)


def count(number: int) -> str:
    """A large count with three digits: `11.7 M`."""
    return _scaled(number, ((1e9, " G"), (1e6, " M"), (1e3, " k"))) or str(number)


def size(number: int) -> str:
    """A size in bytes with three digits: `3.21 MB`."""
    return _scaled(number, ((1e9, " GB"), (1e6, " MB"), (1e3, " kB"))) or f"{number} B"


def duration(seconds: float) -> str:
    """A time with three digits: `23.4 ms`."""
    return (
        _scaled(seconds, ((1.0, " s"), (1e-3, " ms"), (1e-6, " µs"))) or f"{seconds * 1e9:.0f} ns"
    )


def shape(sizes: Sequence[int]) -> str:
    """A shape as `1 x 224 x 224 x 3`."""
    return " x ".join(map(str, sizes))


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str | None:
    """`value` in the first of `units` that it fills, or None."""
    for scale, unit in units:
        scaled = value / scale
        if scaled >= 0.9995:
            return f"{scaled:.0f}{unit}" if scaled >= 99.95 else f"{scaled:#.3g}{unit}"
    return None
