"""Finding the state dict in what a training run saved: wrappers, prefixes, old names."""

import re
from collections.abc import Mapping
from typing import TypeVar

from striate.weights.errors import WeightsError
from striate.weights.pickles import Opaque
from striate.weights.tensors import Tensor

# Averaged weights first: they are what a run that keeps them publishes.
WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
)
# Put before every name by DistributedDataParallel (and averaging), torch.compile, Lightning.
PREFIXES = ("module.", "_orig_mod.", "model.")
# The averaging wrapper's own count of its updates.
_COUNTERS = ("n_averaged", "module.n_averaged")

_DEPTH = 4

T = TypeVar("T")

# DenseNet before torchvision 0.2.1 had modules `norm.1`, `conv.2`; attributes cannot have a dot.
_DENSE_NAME = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")


def find_state(content: object) -> dict[str, Tensor]:
    """The state dict in `content`, with torchvision's names; WeightsError where there is none."""
    if isinstance(content, Opaque):
        raise WeightsError(
            f"it holds a pickled {content.kind} object, not weights; load it where its code is "
            "and save model.state_dict()"
        )
    found = _descend(content, _DEPTH)
    if found is None:
        raise WeightsError(f"it holds no state dict; it holds {_describe(content)}")
    return rename(found)


def _descend(content: object, depth: int) -> dict[str, Tensor] | None:
    if not isinstance(content, dict) or depth == 0:
        return None
    for wrapper in WRAPPERS:
        found = _descend(content.get(wrapper), depth - 1)
        if found:
            return found
    tensors = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    return tensors or None


def rename(state: Mapping[str, T]) -> dict[str, T]:
    """`state` without the prefixes of wrappers and with DenseNet's old names made new."""
    names = [name for name in state if name not in _COUNTERS or len(state) == 1]
    renamed = names
    for _ in range(_DEPTH):
        for prefix in PREFIXES:
            if all(name.startswith(prefix) for name in renamed):
                renamed = [name.removeprefix(prefix) for name in renamed]
    renamed = [_DENSE_NAME.sub(r"\1\2", name) for name in renamed]
    return {new: state[old] for old, new in zip(names, renamed, strict=True)}


def _describe(content: object) -> str:
    if isinstance(content, Tensor):
        return f"a single tensor of shape {content.shape}"
    if isinstance(content, dict):
        keys = [str(key) for key in content if isinstance(key, str)]
        listed = ", ".join(repr(key) for key in keys[:8]) + (", ..." if len(keys) > 8 else "")
        return f"a dict with the keys {listed}" if keys else "an empty dict"
    return f"a {type(content).__name__}"
