"""From a module to its graph and to machine code, kept for each input shape."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar, cast

from striate.layers import scope
from striate.layers.arguments import Layout, check_layout, integer, shape_text
from striate.layers.arrange import to_channels_first, to_channels_last
from striate.network.graph import Graph, Input, Node
from striate.notation.ir import Shape

if TYPE_CHECKING:
    from striate.runtime import Executable

T = TypeVar("T")
Forward = Callable[[Node], Node | tuple[Node, ...]]

# Input shapes whose compiled program a module keeps; the one used longest ago goes first.
KEPT = 8


def draw_graph(
    forward: Forward,
    shape: Shape,
    paths: Mapping[int, str],
    *,
    layout: Layout = "NHWC",
    abstract: bool = False,
) -> Graph:
    """The graph of `forward` on an input of `shape`, which is in `layout`, as image outputs are."""
    check_layout(layout)
    for size in shape:
        integer(size, f"input shape {shape_text(shape)}: size", 1)
    given = Input("input", tuple(shape))
    with scope.entered(scope.Scope(paths, abstract)):
        swap = layout == "NCHW" and len(shape) == 4
        drawn = forward(to_channels_last(given) if swap else given)
        outputs = drawn if isinstance(drawn, tuple) else (drawn,)
        if swap:
            outputs = tuple(
                [to_channels_first(out) if len(out.shape) == 4 else out for out in outputs]
            )
    return Graph((given,), outputs)


class Executables:
    """The programs of one module, by input shape; forgotten when the module has changed."""

    def __init__(self) -> None:
        from striate.runtime.mutex import Mutex

        self._lock = Mutex()
        self._signature: object = None
        self._kept: OrderedDict[object, object] = OrderedDict()

    def get(self, key: object, signature: object, make: Callable[[], T]) -> T:
        """The program for `key`, which `make` makes where there is none of this `signature`.

        What else a key's program needs may be kept with it.
        """
        with self._lock:
            if signature != self._signature:
                self._kept.clear()
                self._signature = signature
            if key not in self._kept:
                self._kept[key] = make()
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return cast(T, self._kept[key])


def compiled(
    graph: Graph, threads: int | None, algorithm: str, *, watched: bool = False
) -> "Executable":
    """The graph as machine code for this machine."""
    from striate.compiler import program_of
    from striate.runtime import Executable

    return Executable(program_of(graph, algorithm=algorithm, watched=watched), threads)
