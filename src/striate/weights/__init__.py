"""Weight files: read without executing them, written atomically, found or downloaded by name."""

from striate.weights.errors import WeightsError
from striate.weights.finding import find
from striate.weights.reading import read
from striate.weights.safe import write_safetensors

__all__ = ["WeightsError", "find", "read", "write_safetensors"]
