"""What several commands let a person choose between."""

from enum import StrEnum
from typing import Annotated

import typer


class Algorithm(StrEnum):
    """How sums may be taken: the names that the compiler knows."""

    AUTO = "auto"
    DIRECT = "direct"


AlgorithmOption = Annotated[
    Algorithm,
    typer.Option(help="direct takes every sum in its equation's order, without Winograd."),
]
