"""Networks of twelve families, by name; one file for each family, written as tables."""

from striate.models.blocks import Classifier
from striate.models.create import NewHeadWarning, create
from striate.models.registry import REGISTRY, Entry, find, names

__all__ = [
    "REGISTRY",
    "Classifier",
    "Entry",
    "NewHeadWarning",
    "create",
    "find",
    "names",
]
