"""Names while a network is drawn: which module is being called, and what its arrays are called.

A node is labelled by the path of the module that made it (`layer1.0.conv2`). A function called in
the body of a module with children adds its own name (`layer1.0.add`); a label that is used again
gets a number (`layer1.0.relu_1`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from striate.layers.arguments import Array
from striate.network.graph import Node, Parameter


class Named(Protocol):
    """What a scope asks of a module."""

    def own_arrays(self) -> Mapping[str, object]: ...

    def is_leaf(self) -> bool: ...


@dataclass(slots=True)
class Call:
    """One call of a module: its path, how many calls it is in, what it was given and gave.

    From the second call on the path is numbered as labels are; `output` is None until it is known.
    """

    name: str
    depth: int
    input: Node
    output: Node | None = None


@dataclass(slots=True)
class Scope:
    """One drawing of a network.

    `paths` holds the paths of the modules by identity; with `abstract`, arrays that nobody has
    asked for yet stay undrawn and stand-ins of their shape take their place. `record` holds all
    calls of modules with a path, each before those within it.
    """

    paths: Mapping[int, str]
    abstract: bool = False
    calls: list[Named] = field(default_factory=list)
    used: dict[str, int] = field(default_factory=dict)
    entered: dict[str, int] = field(default_factory=dict)
    record: list[Call] = field(default_factory=list)
    parameters: dict[int, Parameter] = field(default_factory=dict)
    standins: dict[int, dict[str, Array]] = field(default_factory=dict)

    def enter(self, module: Named, input: Node) -> Call:
        """The record of a call that begins; whoever began it ends it by `calls.pop`."""
        path = self.paths.get(id(module))
        call = Call("" if path is None else _numbered(path, self.entered), len(self.calls), input)
        if path is not None:
            self.record.append(call)
        self.calls.append(module)
        return call

    def label(self, function: str) -> str:
        """The label of a node made by `function` in the module that is being called."""
        label = function
        if self.calls:
            module = self.calls[-1]
            path = self.paths.get(id(module), "")
            if path:
                label = path if module.is_leaf() else f"{path}.{function}"
        return _numbered(label, self.used)

    def parameter(self, array: Array, name: str, label: str) -> Parameter:
        """The node of `array`, the same at each use; named `label.name` if no module owns it."""
        known = self.parameters.get(id(array))
        if known is None:
            known = Parameter(self.array_name(array) or f"{label}.{name}", array)
            self.parameters[id(array)] = known
        return known

    def array_name(self, array: Array) -> str | None:
        """The state-dict name of an array of the module that is being called."""
        if not self.calls:
            return None
        module = self.calls[-1]
        path = self.paths.get(id(module), "")
        for arrays in (module.own_arrays(), self.standins.get(id(module), {})):
            for name, value in arrays.items():
                if value is array:
                    return f"{path}.{name}" if path else name
        return None


def _numbered(name: str, used: dict[str, int]) -> str:
    """`name`, with a number from its second use on."""
    count = used.get(name, 0)
    used[name] = count + 1
    return f"{name}_{count}" if count else name


_current: ContextVar[Scope | None] = ContextVar("striate_scope", default=None)


def current() -> Scope | None:
    """The drawing in progress, if any."""
    return _current.get()


@contextmanager
def entered(scope: Scope) -> Iterator[Scope]:
    """Make `scope` the drawing in progress."""
    token = _current.set(scope)
    try:
        yield scope
    finally:
        _current.reset(token)
