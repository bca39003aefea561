"""`striate models`: the networks there are."""

from typing import Annotated

import typer

from striate.cli.output import Column, count, print_json, print_table


def models(
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """List the networks, with their parameters, multiply-adds of one image, and image size."""
    from striate.models import registry

    if json:
        for name, entry in registry.items():
            print_json(
                {
                    "name": name,
                    "parameters": entry.parameters,
                    "multiply_adds": entry.multiply_adds,
                    "input": list(entry.input_size),
                }
            )
        return
    columns = [
        Column("name"),
        Column("parameters", number=True),
        Column("multiply-adds", number=True),
        Column("image", number=True),
    ]
    print_table(
        columns,
        [
            [
                name,
                count(entry.parameters),
                count(entry.multiply_adds),
                " x ".join(map(str, entry.input_size)),
            ]
            for name, entry in registry.items()
        ],
    )
