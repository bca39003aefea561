"""The 1000 classes of ImageNet, in the order of their WordNet synsets."""

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from striate.images.errors import UnknownClassError

# Classes that a message names before it counts the others.
LISTED = 8


@dataclass(frozen=True, slots=True)
class ClassName:
    """A class: its number in a network's scores, its synset, its name and all its names."""

    index: int
    synset: str
    name: str
    synonyms: tuple[str, ...]


@cache
def class_names() -> tuple[ClassName, ...]:
    """All classes, by number."""
    table = files("striate").joinpath("data", "imagenet1k_classes.tsv").read_text("utf-8")
    rows = (line.split("\t") for line in table.splitlines()[1:])
    return tuple(
        ClassName(int(index), synset, name, tuple(synonyms.split(", ")))
        for index, synset, name, synonyms in rows
    )


def find_class(query: str | int) -> ClassName:
    """The class with this number, synset or name, or else with this synonym, in any case.

    A part of names will do where one class alone has it: the beginning, or else any part. Raises
    UnknownClassError: with suggestions where there is none, with all where there are several.
    """
    text = str(query).strip()
    found = classes_called(text)
    how = "is the name" if found else "stands in names"
    number = text.removeprefix("-").isdecimal()
    found = found or (() if number else _partly(text.casefold()))
    if len(found) == 1:
        return found[0]
    if found:
        listed = [f"{one.index} ({', '.join(one.synonyms)})" for one in found[:LISTED]]
        if len(found) > LISTED:
            listed.append(f"{len(found) - LISTED} more")
        raise UnknownClassError(
            f"{text!r} {how} of classes {' and '.join(listed)}; give the number"
        )
    if number:
        raise UnknownClassError(f"there is no class {text}; they are 0 to {len(class_names()) - 1}")
    close = get_close_matches(text.casefold(), list(_by_name()), n=3)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise UnknownClassError(f"there is no class {text!r}{hint}")


def classes_called(text: str) -> tuple[ClassName, ...]:
    """The classes with just this number, synset, name or synonym; several if it is ambiguous."""
    if text.removeprefix("-").isdecimal():
        return class_names()[int(text) :][:1] if int(text) >= 0 else ()
    found = _by_name().get(text.casefold(), ())
    # Cardigan is a dog, a cardigan is not.
    same_case = tuple(one for one in found if one.name == text)
    return same_case[:1] or found


def _partly(text: str) -> tuple[ClassName, ...]:
    """The classes with a name or synonym that begins with `text`, or else that holds it."""
    if not text:
        return ()
    names = [(one, name.casefold()) for one in class_names() for name in one.synonyms]
    begin = dict.fromkeys(one for one, name in names if name.startswith(text))
    return tuple(begin or dict.fromkeys(one for one, name in names if text in name))


@cache
def _by_name() -> dict[str, tuple[ClassName, ...]]:
    """Classes by synset, name and synonym, in small letters; names go before mere synonyms."""
    names: dict[str, tuple[ClassName, ...]] = {}
    synonyms: dict[str, tuple[ClassName, ...]] = {}
    for one in class_names():
        for text in (one.synset, one.name.casefold()):
            names[text] = (*names.get(text, ()), one)
        for text in {synonym.casefold() for synonym in one.synonyms}:
            synonyms[text] = (*synonyms.get(text, ()), one)
    return synonyms | names
