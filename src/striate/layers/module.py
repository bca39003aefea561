"""Modules: parts of a network that hold parameters and other parts, and can be called.

A module is a plain object. Its arrays and its parts are attributes, in the order they were first
set; that order and the attributes' names make the state dict.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar, cast, overload

import numpy as np

from striate.layers import scope
from striate.layers.arguments import AnyArray, Array, Layout, as_float32, is_node
from striate.layers.extract import Features, itself
from striate.layers.initial import Initial
from striate.layers.state import frozen, load_state, to_state
from striate.layers.tracing import Executables, Forward, compiled, draw_graph
from striate.network.graph import Graph, Node
from striate.notation.ir import Shape

if TYPE_CHECKING:
    from striate.runtime import Executable


T = TypeVar("T")
_FLOAT32 = np.dtype(np.float32)


class _Clock:
    """Counts the changes to all modules, so that an unchanged one is known at once."""

    now = 0


_serials = itertools.count()


class Module:
    """A part of a network: subclasses set arrays and parts in `__init__` and define `forward`.

    Calling a module on a node draws it; calling it on an array compiles it for the array's shape
    (once) and runs it. Arrays are read-only float32: replace them to change them.
    """

    # Arrays that are no parameters: not counted, not trained.
    buffers: ClassVar[frozenset[str]] = frozenset()
    # For each array the order of its axes in a state dict, if it is another than the house's.
    state_axes: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    # Parts that a state dict may lack altogether; the module then does without them.
    optional: ClassVar[tuple[str, ...]] = ()

    # The method `striate.features` of the network; a part of that name is reached by it as well.
    features = Features()

    _arrays: dict[str, Initial | AnyArray]
    _parts: dict[str, "Module"]
    _serial: int
    _version: int
    _checked: tuple[int, tuple[tuple[int, int], ...]]
    # What the last array was, and how it was to be computed; the program for it. Whoever calls
    # again for the same finds it without a search, which takes long where caches are full.
    _latest: tuple[object, "Executable"]

    def __new__(cls, *_: object, **__: object) -> Self:
        module = object.__new__(cls)
        module.__dict__["_arrays"] = {}
        module.__dict__["_parts"] = {}
        module._renew()
        return module

    def forward(self, input: Node) -> Node:
        """The module's output, drawn as a node of the network."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    @overload
    def __call__(self, input: Node) -> Node: ...

    @overload
    def __call__(
        self,
        input: Array,
        *,
        layout: Layout = "NHWC",
        threads: int | None = None,
        algorithm: str = "auto",
        exact: bool = False,
    ) -> Array: ...

    def __call__(
        self,
        input: Node | Array,
        *,
        layout: Layout = "NHWC",
        threads: int | None = None,
        algorithm: str = "auto",
        exact: bool = False,
    ) -> Node | Array:
        """`forward` on a node, or its values on an array `[b,x,y,i]` (`[b,i,x,y]` with "NCHW").

        `threads`, `algorithm` and `exact` are what `compile` takes.
        """
        asked = (_Clock.now, getattr(input, "shape", None), layout, threads, algorithm, exact)
        latest, executable = self._latest
        if asked != latest or type(input) is not np.ndarray or input.dtype is not _FLOAT32:
            if is_node(input):
                return self.draw(cast(Node, input))
            input = np.asarray(as_float32(input, f"{type(self).__name__}: input"), order="C")
            executable = self.compile(
                input.shape, layout=layout, threads=threads, algorithm=algorithm, exact=exact
            )
            self.__dict__["_latest"] = asked, executable
        (output,) = executable(input)
        return output

    def draw(self, input: Node) -> Node:
        """`forward`, with the nodes labelled by the paths of their modules."""
        drawing = scope.current()
        if drawing is None:
            with scope.entered(scope.Scope(self.paths())):
                return self.draw(input)
        call = drawing.enter(self, input)
        try:
            call.output = self.forward(input)
            return call.output
        except (ValueError, TypeError) as error:
            if not getattr(error, "__notes__", None):
                place = drawing.paths.get(id(self)) or type(self).__name__
                error.add_note(f"in {place}")
            raise
        finally:
            drawing.calls.pop()

    def trace(
        self,
        shape: Shape,
        *,
        layout: Layout = "NHWC",
        abstract: bool = False,
        forward: Forward | None = None,
    ) -> Graph:
        """The module as a graph, for one input of `shape`.

        With `abstract`, parameters nobody has asked for are not drawn; zeros that take no memory
        stand for them. `forward` draws something else than the module's answer. Raises ValueError.
        """
        return draw_graph(
            forward or self.draw, tuple(shape), self.paths(), layout=layout, abstract=abstract
        )

    def compile(
        self,
        shape: Shape,
        *,
        layout: Layout = "NHWC",
        threads: int | None = None,
        algorithm: str = "auto",
        exact: bool = False,
    ) -> "Executable":
        """The module as machine code for one input shape; made once, until the module changes.

        Algorithm "auto" takes the fastest way, "direct" forbids Winograd's. With `exact` every sum
        is taken in its equation's order, whatever the algorithm. Raises ValueError for another.
        """
        algorithm = "exact" if exact else algorithm
        return self.kept(
            (tuple(shape), layout, threads, algorithm),
            lambda: compiled(self.trace(shape, layout=layout), threads, algorithm),
        )

    def kept(self, key: object, make: Callable[[], T]) -> T:
        """What `make` made for `key` since the module last changed: a compiled program.

        The last few are kept.
        """
        store = self.__dict__.get("_executables") or self.__dict__.setdefault(
            "_executables", Executables()
        )
        return cast(Executables, store).get(key, self._signature(), make)

    def modules(self, path: str = "") -> Iterator[tuple[str, "Module"]]:
        """The module and all its parts with their paths, each before its parts."""
        yield path, self
        for name, part in self._parts.items():
            yield from part.modules(f"{path}.{name}" if path else name)

    def parts(self) -> Mapping[str, "Module"]:
        """The module's own parts by name."""
        return dict(self._parts)

    def paths(self) -> dict[int, str]:
        """The paths of all parts by identity."""
        return {id(module): path for path, module in self.modules()}

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        """Names and arrays of everything that training changes, in the house's layout."""
        for path, module in self.modules():
            for name in module._arrays:
                if name not in module.buffers:
                    yield f"{path}.{name}" if path else name, getattr(module, name)

    def count_parameters(self) -> int:
        """How many numbers training changes."""
        return sum(
            int(np.prod(array.shape, dtype=np.int64))
            for _, module in self.modules()
            for name, array in module._arrays.items()
            if name not in module.buffers
        )

    def state_shapes(self) -> dict[str, Shape]:
        """Names and shapes of the state dict, without drawing any array."""
        return {name: module.state_shape(key) for name, module, key in self._entries()}

    def state_dict(self) -> dict[str, AnyArray]:
        """All arrays by their paths, in torchvision's names, layouts and order; read-only views."""
        return {
            name: to_state(getattr(module, key), module.state_axes.get(key))
            for name, module, key in self._entries()
        }

    def load_state_dict(self, state: Mapping[str, AnyArray]) -> None:
        """Replace all arrays by those of `state`, without copies where they are float32.

        Only `num_batches_tracked` and the whole of an optional part may be missing. Raises
        StateDictError, which names what is missing, unexpected or of another shape, and then
        nothing has changed.
        """
        load_state(self, state)

    def state_shape(self, name: str) -> Shape:
        """The shape of the module's own array `name` in a state dict."""
        shape = self._arrays[name].shape
        axes = self.state_axes.get(name)
        return tuple([shape[axis] for axis in axes]) if axes else tuple(shape)

    def own_arrays(self) -> Mapping[str, object]:
        """The module's own arrays, as far as they are drawn."""
        return {k: v for k, v in self._arrays.items() if not isinstance(v, Initial)}

    def initials(self) -> Iterator[tuple[str, Initial]]:
        """Names and recipes of all arrays that nobody has asked for yet."""
        for name, module, key in self._entries():
            array = module._arrays[key]
            if isinstance(array, Initial):
                yield name, array

    def is_leaf(self) -> bool:
        """Whether the module has no parts."""
        return not self._parts

    def _entries(self) -> Iterator[tuple[str, "Module", str]]:
        for path, module in self.modules():
            for key in module._arrays:
                yield f"{path}.{key}" if path else key, module, key

    def _signature(self) -> tuple[tuple[int, int], ...]:
        """What changes when any part or array of the module is replaced."""
        if self._checked[0] != _Clock.now:
            now = _Clock.now
            found = tuple([(part._serial, part._version) for _, part in self.modules()])
            self.__dict__["_checked"] = (now, found)
        return self._checked[1]

    def _renew(self) -> None:
        self.__dict__["_serial"] = next(_serials)
        self.__dict__["_version"] = 0
        self.__dict__.pop("_executables", None)
        self.__dict__["_latest"] = (None, None)
        self.__dict__["_checked"] = (-1, ())

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, Module):
            value = itself(value)
            self._forget(name, but=self._parts)
            self._parts[name] = value
        elif isinstance(value, Initial):
            self._forget(name, but=self._arrays)
            self._arrays[name] = value
        elif isinstance(value, np.ndarray):
            self._forget(name, but=self._arrays)
            self._arrays[name] = frozen(value, name, copy=True)
        else:
            self._forget(name)
            self.__dict__[name] = value
        self._changed()

    def __delattr__(self, name: str) -> None:
        if name not in self._parts and name not in self._arrays and name not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        self._forget(name)
        self._changed()

    def _forget(self, name: str, but: object = None) -> None:
        # A part that is replaced keeps its place in the order, so its own table stays as it is.
        for table in (self._parts, self._arrays, self.__dict__):
            if table is not but:
                table.pop(name, None)

    def _changed(self) -> None:
        self.__dict__["_version"] = self._version + 1
        _Clock.now += 1

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            """The part or array `name`; an array is drawn when it is first asked for."""
            if name in ("_parts", "_arrays"):
                raise AttributeError(name)
            if name in self._parts:
                return self._parts[name]
            if name not in self._arrays:
                parts, arrays = (", ".join(held) or "none" for held in (self._parts, self._arrays))
                raise AttributeError(
                    f"{type(self).__name__} has no attribute {name!r}; "
                    f"its parts are {parts}, its arrays {arrays}"
                )
            array = self._arrays[name]
            if isinstance(array, Initial):
                drawing = scope.current()
                if drawing is not None and drawing.abstract:
                    standins = drawing.standins.setdefault(id(self), {})
                    return standins.setdefault(name, array.standin())
                array = self._arrays[name] = array.draw()
            return array

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parts, *self._arrays})

    def __getstate__(self) -> dict[str, object]:
        # A copy is another module: its programs and its identity are its own.
        left = ("_serial", "_version", "_executables", "_latest", "_checked")
        return {name: value for name, value in self.__dict__.items() if name not in left}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._renew()

    def __repr__(self) -> str:
        own = ", ".join(
            f"{name}={value!r}" for name, value in self.__dict__.items() if not name.startswith("_")
        )
        lines = [f"{type(self).__name__}({own})"]
        for name, part in self._parts.items():
            lines += [
                f"  {name}: {line}" if k == 0 else f"  {line}"
                for k, line in enumerate(repr(part).splitlines())
            ]
        return "\n".join(lines)


class Sequential(Module):
    """Parts one after another, named by their number, or by the names given."""

    def __init__(self, *parts: Module, **named: Module) -> None:
        for number, part in enumerate(parts):
            setattr(self, str(number), part)
        for name, part in named.items():
            setattr(self, name, part)

    def forward(self, input: Node) -> Node:
        for part in self._parts.values():
            input = part(input)
        return input

    def append(self, part: Module) -> Self:
        """Add a part at the end, named by its number."""
        setattr(self, str(len(self._parts)), part)
        return self

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self._parts.values()))

    @overload
    def __getitem__(self, place: int) -> Module: ...

    @overload
    def __getitem__(self, place: slice) -> "Sequential": ...

    def __getitem__(self, place: int | slice) -> Module:
        """The part at a place, or a Sequential of some of them that keep their names."""
        if isinstance(place, slice):
            kept = Sequential()
            for name in list(self._parts)[place]:
                setattr(kept, name, self._parts[name])
            return kept
        return self._parts[self._name(place)]

    def __setitem__(self, place: int, part: Module) -> None:
        setattr(self, self._name(place), part)

    def __delitem__(self, place: int) -> None:
        delattr(self, self._name(place))

    def _name(self, place: int) -> str:
        names = list(self._parts)
        try:
            return names[place]
        except IndexError:
            raise IndexError(f"part {place} of a Sequential with {len(names)} parts") from None
