"""Libraries that only some uses need, and how to install them."""

from importlib.util import find_spec


class UnavailableError(ValueError):
    """Something that is not installed, and how to install it."""


def require(module: str, extra: str, need: str) -> None:
    """Raises UnavailableError, which says the `need`, where there is no such `module`.

    `extra` is the part of `pip install 'striate[extra]'` that brings it.
    """
    if find_spec(module) is None:
        raise UnavailableError(f"{need}: pip install 'striate[{extra}]'")
