"""Any feature of a network by its name: one program that computes those asked for, and no more.

A tensor of a network is called as torchvision's feature extraction calls it: by the path of the
module that gives it (`layer1.0.conv2`), or by its label, which `striate inspect` prints and which
also names what no module gives (`layer1.0.add`). What is called more than once is numbered from the
second time on: `layer1.0.relu`, `layer1.0.relu_1`. Besides, `input` is the image itself, and
`stride4` the last feature map with a pixel stride of 4, whatever it is called.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from striate.layers import scope
from striate.layers.arguments import Array, Layout, as_float32
from striate.layers.scope import Call
from striate.layers.tracing import compiled
from striate.network.graph import Computed, Concatenated, Graph, Node

if TYPE_CHECKING:
    from striate.layers.module import Module, Sequential
    from striate.notation.ir import Shape
    from striate.runtime import Executable

# An image is drawn once more with so many more rows and columns, to see how its maps grow: a
# multiple of all strides there are.
_MORE = 960
_STAGE = re.compile(r"stride(\d+)")

Stride = tuple[Fraction, Fraction]


def features(
    model: "Module",
    images: Array,
    names: Sequence[str],
    *,
    layout: Layout = "NHWC",
    threads: int | None = None,
    algorithm: str = "auto",
) -> dict[str, Array]:
    """The tensors of `model` called `names`, for images float32`[b,x,y,i]`.

    Feature maps are `[b,p,q,j]` (`[b,j,p,q]` with layout "NCHW", which is the images', too). All
    come from one program, kept for the shape, which computes nothing that they do not need. A
    module's output is what it gives, before the layers after it. Two names of one tensor get the
    same array. Names are paths (`model.paths()`), labels (`striate inspect`) and strides:
    "stride4", "stride8", ... for the last feature map at each. Raises ValueError for a name that
    there is not, with the nearest ones, and as a call of the model does.
    """
    array = as_float32(images, f"{type(model).__name__}: images")
    shape, asked = tuple(array.shape), _checked(names)

    def make() -> "tuple[Executable, dict[str, int]]":
        graph, places = feature_graph(model, shape, asked, layout=layout)
        return compiled(graph, threads, algorithm), places

    key = ("features", asked, shape, layout, threads, algorithm)
    executable, places = model.kept(key, make)
    outputs = executable(np.asarray(array, order="C"))
    return {name: outputs[place] for name, place in places.items()}


def feature_graph(
    model: "Module", shape: "Shape", names: Sequence[str], *, layout: Layout = "NHWC"
) -> tuple[Graph, dict[str, int]]:
    """The graph of the tensors called `names`, and which of its outputs each of them is."""
    resolved = dict.fromkeys(names, "")
    stages: Mapping[str, str] = {}
    if any(_STAGE.fullmatch(name) for name in names):
        stages = survey(model, shape, layout=layout).stages
    places: dict[str, int] = {}

    def forward(given: Node) -> tuple[Node, ...]:
        drawing = _Drawing.of(model, given)
        found: dict[int, Node] = {}
        for name in resolved:
            node = drawing.find(stages.get(name, name), model, stages)
            places[name] = list(found).index(id(node)) if id(node) in found else len(found)
            found[id(node)] = node
        return tuple(found.values())

    graph = model.trace(shape, layout=layout, forward=forward)
    return graph, places


@dataclass(frozen=True, slots=True)
class Survey:
    """What the tensors of a network on an image are: `stages` are names by "stride4" and so on.

    `strides` holds how many rows and columns of the image go to one of each tensor; tensors that
    are no maps of the image's pixels have none.
    """

    stages: Mapping[str, str]
    strides: Mapping[str, Stride]


def survey(model: "Module", shape: "Shape", *, layout: Layout = "NHWC") -> Survey:
    """The strides of all tensors, found by drawing the network for a larger image, too.

    The feature map of a stride is the last one that passes between the parts of the network: parts
    that go from one stride to the next are not looked into, those that pass more than one are.
    """
    rows, columns = (1, 2) if layout == "NHWC" else (2, 3)
    if len(shape) != 4:
        raise ValueError(f"images have {len(shape)} axes, expected 4: [b,x,y,i]")
    larger = tuple(n + _MORE if k in (rows, columns) else n for k, n in enumerate(shape))
    drawings: list[_Drawing] = []

    def forward(given: Node) -> Node:
        drawings.append(_Drawing.of(model, given))
        return given

    for each in (shape, larger):
        model.trace(each, layout=layout, abstract=True, forward=forward)
    one, other = drawings
    strides = {
        name: stride
        for name, node in one.tensors.items()
        if name in other.tensors and (stride := _growth(node, other.tensors[name]))
    }

    def of_call(first: Node | None, second: Node | None) -> Stride | None:
        return _growth(first, second) if first is not None and second is not None else None

    calls = [
        (call, of_call(call.input, twin.input), of_call(call.output, twin.output))
        for call, twin in zip(one.calls, other.calls, strict=False)
    ]
    # Of a tensor's names the outermost module's. A pooling to one cell is the map that it pools
    # where that has one cell; but only one of them grows.
    outer = sorted(strides, key=lambda name: -name.count("."))
    image = one.tensors["input"]
    named = {id(one.tensors[name]): name for name in outer}
    stages: dict[int, str] = {}
    for node, stride in _between_parts(calls):
        square = stride[0] == stride[1] and stride[0].denominator == 1
        if square and id(node) in named and node is not image:
            stages[int(stride[0])] = named[id(node)]
    return Survey({f"stride{n}": stages[n] for n in sorted(stages)}, strides)


def _growth(node: Node, larger: Node) -> Stride | None:
    """The stride of `node`, which is `larger` where the image has `_MORE` rows and columns."""
    if len(node.shape) != 4:
        return None
    steps = [larger.shape[axis] - node.shape[axis] for axis in (1, 2)]
    return (Fraction(_MORE, steps[0]), Fraction(_MORE, steps[1])) if all(steps) else None


def _between_parts(
    calls: Sequence[tuple[Call, Stride | None, Stride | None]],
) -> Iterator[tuple[Node, Stride]]:
    """What passes between the parts of the network, in order, with its stride."""
    inside = 0
    for number, (call, before, after) in enumerate(calls):
        if call.depth > inside:
            continue
        inside = call.depth
        has_parts = number + 1 < len(calls) and calls[number + 1][0].depth > call.depth
        unfinished = call.output is None or call.depth == 0
        long = before and after and max(after[0] / before[0], after[1] / before[1]) > 2
        if has_parts and (unfinished or long):
            inside = call.depth + 1
            continue
        if before:
            yield call.input, before
        if after and call.output is not None:
            yield call.output, after


@dataclass(frozen=True, slots=True)
class _Drawing:
    """A network as far as it could be drawn: the calls of its modules, its tensors by name."""

    calls: tuple[Call, ...]
    tensors: Mapping[str, Node]
    error: Exception | None

    @staticmethod
    def of(model: "Module", given: Node) -> "_Drawing":
        """The drawing of `model` on `given`, within the scope of a trace.

        What lies behind the features that are wanted may not take an image of this size: the fully
        connected layers of AlexNet of 2012.
        """
        error: Exception | None = None
        try:
            model.draw(given)
        except (ValueError, TypeError) as refused:
            error = refused
        drawing = scope.current()
        assert drawing is not None
        calls = tuple(drawing.record)
        done = [node for call in calls for node in (call.input, call.output) if node is not None]
        nodes = Graph((), tuple(done)).nodes()
        tensors: dict[str, Node] = {"input": given}
        tensors |= {n.label: n for n in nodes if isinstance(n, Computed | Concatenated)}
        tensors |= {call.name: call.output for call in calls if call.output is not None}
        return _Drawing(calls, tensors, error)

    def find(self, name: str, model: "Module", stages: Mapping[str, str]) -> Node:
        """The tensor called `name`. Raises ValueError."""
        if name in self.tensors:
            return self.tensors[name]
        kind = type(model).__name__
        if stages and _STAGE.fullmatch(name):
            raise ValueError(
                f"{kind} has no feature map called {name!r}; it has {', '.join(stages)}"
            )
        if self.error is not None:
            raise self.error
        if name in model.paths().values():
            raise ValueError(f"{kind} does not use its part {name!r} for its answer")
        near = get_close_matches(name, self.tensors, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "model.paths() has the names"
        raise ValueError(f"{kind} has no feature called {name!r}; {hint}")


def _checked(names: object) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"names is {names!r}; expected a list of names, such as ['layer1']")
    if not names:
        raise ValueError("names is empty; expected at least one name")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a name is {name!r}; expected text")
    return tuple(names)


class Features:
    """The attribute `features` of a module: the method, and the part of that name if it has one.

    Some families call a part so, in the names of their weights. What such a network gives is the
    part, which can be called with names besides.
    """

    @overload
    def __get__(self, module: None, kind: type) -> "Features": ...

    @overload
    def __get__(self, module: "Module", kind: type) -> "Named": ...

    def __get__(self, module: "Module | None", kind: type) -> object:
        if module is None:
            return self
        part = module.parts().get("features")
        method = partial(features, module)
        if part is not None:
            return _reached(type(part), part, method)
        return module.own_arrays().get("features", method)

    if TYPE_CHECKING:

        def __set__(self, module: "Module", part: "Module") -> None: ...


if TYPE_CHECKING:

    class Named(Sequential):
        """What `features` of a module is, for type checkers."""

        @overload
        def __call__(self, input: Node) -> Node: ...

        @overload
        def __call__(self, input: Array, **options: Any) -> Array: ...

        @overload
        def __call__(
            self,
            images: Array,
            names: Sequence[str],
            *,
            layout: Layout = "NHWC",
            threads: int | None = None,
            algorithm: str = "auto",
        ) -> dict[str, Array]: ...

        def __call__(self, *given: object, **options: object) -> object: ...


class _Reached:
    """A part, shared to the last attribute, that is the method of its network if called with names.

    What it is and holds is the part's own: both have one dictionary.
    """

    __slots__ = ()
    _part: "Module"
    _method: Callable[..., object]

    def __call__(
        self, input: Node | Array, names: Sequence[str] | None = None, **options: Any
    ) -> object:
        if names is None:
            return self._part(cast(Array, input), **options)
        return self._method(input, names, **options)

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        return itself, (self._part,)


def _reached(kind: type, part: "Module", method: Callable[..., object]) -> object:
    reached: object = object.__new__(_reached_kind(kind))
    object.__setattr__(reached, "__dict__", part.__dict__)
    object.__setattr__(reached, "_part", part)
    object.__setattr__(reached, "_method", method)
    return reached


@cache
def _reached_kind(kind: type) -> type:
    """The class of reached parts of class `kind`, which are of that class, too."""
    body = {"__slots__": ("_method", "_part"), "__doc__": kind.__doc__}
    return type(kind.__name__, (_Reached, kind), body)


def itself(part: "Module") -> "Module":
    """The part itself, of one that was reached under the name of a method."""
    other: object = part
    return other._part if isinstance(other, _Reached) else part
