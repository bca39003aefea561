"""From a name to a network with its weights."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

from striate.layers.arguments import AnyArray, integer
from striate.models import registry
from striate.models.blocks import Classifier

# The weights published for these were trained on images of another scale than their preset gives.
_OTHER_SCALE = frozenset({"googlenet", "inception_v3"})


class NewHeadWarning(UserWarning):
    """The weights' file has other classes than asked for, so that the head was drawn at random."""


def create(
    name: str,
    weights: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    **options: object,
) -> Classifier:
    """The network `name`, with weights from a file, "imagenet", or drawn at random.

    `classes` is by default the number the file has, else 1000; another number than the file's
    keeps the body and makes a new head, with a NewHeadWarning. `options` go to the network
    (`transform_input`, `version`). The same name always gets the same random weights. The network's
    `preset` is that of a published file, else that of the first one published for the network.
    Raises ValueError, StateDictError, and whatever reading the file raises.
    """
    entry = registry.find(name)
    wanted = None if classes is None else integer(classes, "classes", 1)
    if weights is None:
        return _new(entry, wanted or 1000, options)
    path, published = _find(entry, weights)
    state = _read(path)
    network = _new(entry, wanted or 1000, options)
    found = _classes(network, state)
    if wanted is None and found not in (None, 1000):
        network = _new(entry, found, options)
    if published and name in _OTHER_SCALE and "transform_input" not in options:
        network.transform_input = True
    if wanted is not None and found not in (None, wanted):
        state = _with_new_head(network, state)
        warnings.warn(
            f"{path} has {found} classes, not {wanted}: the body of {name} is the file's, its "
            f"head ({', '.join(network.heads)}) is new and untrained",
            NewHeadWarning,
            stacklevel=2,
        )
    network.load_state_dict(state)
    network.preset = entry.preset_of(path)
    return network


def _find(entry: registry.Entry, weights: str | os.PathLike[str]) -> tuple[Path, bool]:
    """The weights' file, and whether it is the one that is published for the network."""
    if isinstance(weights, str) and weights == "imagenet":
        from striate.weights import find

        return Path(find(entry.name)), True
    path = Path(weights)
    return path, path.name == entry.file


def _read(path: Path) -> Mapping[str, AnyArray]:
    from striate.weights import read

    return read(path)


def _classes(network: Classifier, state: Mapping[str, AnyArray]) -> int | None:
    """How many classes the first head in `state` has, None if it has no such head."""
    for name, array in state.items():
        if name == f"{network.heads[0]}.weight" and array.ndim > 0:
            return int(array.shape[0])
    return None


def _with_new_head(network: Classifier, state: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """`state` with the heads of `network` itself in place of its own."""
    own = network.state_dict()
    heads = tuple(f"{head}." for head in network.heads)
    return {
        name: own[name] if name.startswith(heads) and name in own else array
        for name, array in state.items()
    }


def _new(entry: registry.Entry, classes: int | None, options: Mapping[str, object]) -> Classifier:
    """The network with random values that depend on the names of its arrays alone."""
    network = entry.build(classes=classes, **options)
    network.name, network.preset = entry.name, entry.preset
    for name, initial in network.initials():
        initial.seed = crc32(name.encode())
    return network
