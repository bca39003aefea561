"""`striate models`: the networks there are."""

from striate.cli.choices import JsonLinesOption
from striate.cli.output import Column, count, print_json, print_table, shape


def models(
    json: JsonLinesOption = False,
) -> None:
    """List the networks, with their parameters, multiply-adds of one image, and image size."""
    from striate.models import REGISTRY

    entries = REGISTRY.values()
    if json:
        for entry in entries:
            print_json(
                {
                    "name": entry.name,
                    "family": entry.family,
                    "parameters": entry.parameters,
                    "multiply_adds": entry.multiply_adds,
                    "input": list(entry.input),
                    "weights": entry.file,
                }
            )
        return
    columns = [
        Column("name"),
        Column("family"),
        Column("parameters", number=True),
        Column("multiply-adds", number=True),
        Column("image", number=True),
        Column("trained weights"),
    ]
    rows = [
        [
            entry.name,
            entry.family,
            count(entry.parameters),
            count(entry.multiply_adds),
            shape(entry.input),
            entry.file or "none published",
        ]
        for entry in entries
    ]
    print_table(columns, rows)
