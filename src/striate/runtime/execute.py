"""Run a graph now: compile it, or take the executable that an equal graph was compiled to."""

import collections
from collections.abc import Hashable, Sequence

from striate.network.graph import Computed, Concatenated, Graph, Input, Parameter
from striate.runtime.cores import default_threads
from striate.runtime.executable import Array, Executable
from striate.runtime.mutex import Mutex

# Bounds of what is kept: changing shapes must not fill the memory.
MOST_EXECUTABLES = 256
MOST_ARENA_BYTES = 512 * 2**20


def execute(graph: Graph, arrays: Sequence[Array], threads: int | None = None) -> tuple[Array, ...]:
    """The outputs of `graph` for `arrays`, one for each of its inputs, in order.

    The executable is kept for graphs of the same structure. A graph that holds parameters is
    compiled anew at every call: make an `Executable` of it to keep.
    """
    if threads is None:
        threads = default_threads()
    key = structure(graph)
    if key is None:
        return _compile(graph, threads)(*arrays)
    executable = _kept.get((key, threads))
    if executable is None:
        executable = _compile(graph, threads)
        _kept.put((key, threads), executable)
    return executable(*arrays)


def structure(graph: Graph) -> Hashable | None:
    """What two graphs share that compute the same: inputs, statements and wiring, not labels.

    None if the graph holds arrays of its own (parameters).
    """
    numbers = {id(node): number for number, node in enumerate(graph.inputs)}
    parts: list[Hashable] = [tuple((node.name, node.shape) for node in graph.inputs)]
    for node in graph.nodes():
        match node:
            case Parameter():
                return None
            case Input(name, _):
                if id(node) not in numbers:
                    raise ValueError(f"the graph reads {name}, which is not one of its inputs")
                continue
            case Computed(statement, operands, _):
                wiring = tuple((name, numbers[id(operand)]) for name, operand in operands)
                parts.append((statement, wiring))
            case Concatenated(pieces, axis, _):
                parts.append((axis, tuple(numbers[id(piece)] for piece in pieces)))
        numbers[id(node)] = len(numbers)
    parts.append(tuple(numbers[id(node)] for node in graph.outputs))
    return tuple(parts)


def clear() -> None:
    """Let go of all executables that are kept."""
    _kept.clear()


def _compile(graph: Graph, threads: int) -> Executable:
    from striate.compiler import program_of

    return Executable(program_of(graph), threads)


class Kept:
    """Executables by key, the least recently used dropped beyond a number or a size of arenas."""

    def __init__(self, most: int = MOST_EXECUTABLES, most_bytes: int = MOST_ARENA_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._items: collections.OrderedDict[Hashable, Executable] = collections.OrderedDict()
        self._mutex = Mutex()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Hashable) -> Executable | None:
        """The executable kept under `key`, which is now the most recently used."""
        with self._mutex:
            found = self._items.get(key)
            if found is not None:
                self._items.move_to_end(key)
            return found

    def put(self, key: Hashable, executable: Executable) -> None:
        """Keep `executable`; the last one put stays, however large."""
        dropped = []
        with self._mutex:
            if key in self._items:
                dropped.append(self._items.pop(key))
                self._bytes -= dropped[-1].arena_bytes
            self._items[key] = executable
            self._bytes += executable.arena_bytes
            while len(self._items) > 1 and (
                len(self._items) > self._most or self._bytes > self._most_bytes
            ):
                dropped.append(self._items.popitem(last=False)[1])
                self._bytes -= dropped[-1].arena_bytes
        # What was dropped is freed here, outside the lock.

    def clear(self) -> None:
        """Drop everything."""
        with self._mutex:
            dropped, self._items = self._items, collections.OrderedDict()
            self._bytes = 0
        dropped.clear()


_kept = Kept()
