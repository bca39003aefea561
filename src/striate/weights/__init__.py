"""Weight files: read without executing them, written atomically, found or downloaded by name."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from striate.weights.errors import WeightsError
    from striate.weights.finding import find
    from striate.weights.reading import read
    from striate.weights.safe import write_safetensors

__all__ = ["WeightsError", "find", "read", "write_safetensors"]

_HOMES = {
    "WeightsError": "errors",
    "find": "finding",
    "read": "reading",
    "write_safetensors": "safe",
}


def __getattr__(name: str) -> object:
    """The public name `name`, imported now that it is wanted."""
    if name not in __all__:
        raise AttributeError(f"module 'striate.weights' has no attribute {name!r}")
    value: object = getattr(import_module(f"striate.weights.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
