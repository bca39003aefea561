"""State dicts: arrays by their paths, in torchvision's names, layouts and order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from striate.layers.arguments import AnyArray, as_float32, shape_text

if TYPE_CHECKING:
    from striate.layers.module import Module

# How many names a message lists of each kind.
_LISTED = 6


class StateDictError(ValueError):
    """A state dict that does not fit a module: which names, and which shapes."""

    def __init__(
        self, module: str, missing: Sequence[str], unexpected: Sequence[str], shapes: Sequence[str]
    ) -> None:
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.shapes = tuple(shapes)
        super().__init__(
            f"the state dict does not fit {module}"
            + _listed("missing", missing)
            + _listed("unexpected", unexpected)
            + _listed("of another shape", shapes)
            + "\n  is it the state dict of another network or variant?"
        )


def frozen(value: AnyArray, name: str, *, copy: bool = False) -> AnyArray:
    """`value` as a read-only array: int64 if it counts batches, else float32."""
    array: AnyArray
    if name.endswith("num_batches_tracked"):
        if value.dtype.kind not in "iuf":
            raise TypeError(f"{name} has dtype {value.dtype}; expected int64")
        array = value.astype(np.int64)
    else:
        array = as_float32(value, name)
    shared = np.may_share_memory(array, value)
    if copy and shared and value.flags.writeable:
        array = array.copy()
    array = array.view()
    array.flags.writeable = False
    return array


def to_state(array: AnyArray, axes: tuple[int, ...] | None) -> AnyArray:
    """The house's array as a view with its axes in a state dict's order."""
    return array if axes is None else array.transpose(axes)


def from_state(array: AnyArray, axes: tuple[int, ...] | None) -> AnyArray:
    """A state dict's array as a view with its axes in the house's order."""
    return array if axes is None else array.transpose(np.argsort(axes))


def load_state(module: "Module", state: Mapping[str, AnyArray]) -> None:
    """Replace the arrays of `module` and all its parts; see Module.load_state_dict."""
    absent = _absent(module, state)
    shapes = {
        name: shape
        for name, shape in module.state_shapes().items()
        if not name.startswith(tuple(f"{path}." for path in absent))
    }
    missing = [
        name for name in shapes if name not in state and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state if name not in shapes]
    wrong = [
        f"{name} {shape_text(tuple(state[name].shape))}, expected {shape_text(shape)}"
        for name, shape in shapes.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if missing or unexpected or wrong:
        raise StateDictError(type(module).__name__, missing, unexpected, wrong)
    arrays = {name: frozen(state[name], name) for name in shapes if name in state}
    parts = dict(module.modules())
    for path in absent:
        owner, _, name = path.rpartition(".")
        setattr(parts[owner], name, None)
    for name, array in arrays.items():
        owner, _, key = name.rpartition(".")
        part = parts[owner]
        setattr(part, key, from_state(array, part.state_axes.get(key)))


def _absent(module: "Module", state: Mapping[str, AnyArray]) -> list[str]:
    """Paths of optional parts of which `state` holds nothing."""
    paths = [
        f"{path}.{name}" if path else name
        for path, part in module.modules()
        for name in part.optional
        if name in part.parts()
    ]
    return [path for path in paths if not any(name.startswith(f"{path}.") for name in state)]


def _listed(what: str, names: Iterable[str]) -> str:
    names = list(names)
    if not names:
        return ""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"\n  {what} ({len(names)}): {', '.join(names[:_LISTED])}{more}"
