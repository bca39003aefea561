"""Reading a pickle without running it: an opcode interpreter that imports and calls nothing.

A pickle is a program for a stack machine; Python's own reader imports what the program names and
calls it. Here a name stays a `Name`, an object stays an `Opaque`, and the only calls that mean
something are those of the `calls` table, each a plain function of this package. A call of anything
else is refused by its name. Opcodes of protocols 2 to 5, except those that need a registry or
out-of-band buffers. Format: Python's `pickletools`, which documents every opcode.
"""

import mmap
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from striate.weights.errors import WeightsError

Call = Callable[[tuple[object, ...]], object]


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """A reference `module.qualified_name` to something that is never imported."""

    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """An object of the class or function `kind` whose contents were left unread."""

    kind: str


class Unpickler:
    """One pickle in `data` from byte `position` on; `load` moves `position` behind it.

    `calls` gives a meaning to callables by name, a call of a name in `inert` yields an `Opaque`,
    and `persistent` turns a persistent id into an object.
    """

    def __init__(
        self,
        data: bytes | mmap.mmap,
        position: int,
        calls: Mapping[str, Call],
        inert: frozenset[str],
        persistent: Call,
    ) -> None:
        self.data = data
        self.position = position
        self.calls = calls
        self.inert = inert
        self.persistent = persistent
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}

    def load(self) -> object:
        """The object that the pickle describes; WeightsError where it is corrupt or forbidden."""
        start = self.position
        data, handlers = self.data, _HANDLERS
        try:
            while True:
                opcode = data[self.position]
                self.position += 1
                if opcode == _STOP:
                    return self.stack.pop()
                handler = handlers.get(opcode)
                if handler is None:
                    raise WeightsError(f"its pickle uses {_opcode_name(opcode)}, which is not read")
                handler(self)
        except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
            if isinstance(error, WeightsError):
                raise
            place = self.position - start
            raise WeightsError(f"its pickle is corrupt or cut off at byte {place}") from error

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self.position + size
        piece = self.data[self.position : end]
        if size < 0 or len(piece) != size:
            raise IndexError
        self.position = end
        return piece

    def line(self) -> str:
        """The text up to the next newline."""
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise IndexError
        text = self.take(end - self.position).decode("utf-8")
        self.position += 1
        return text

    def count(self, size: int) -> int:
        """The next unsigned little-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def pop_mark(self) -> list[object]:
        """The objects above the last mark."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def call(self, function: object, arguments: object) -> object:
        """What calling `function` means here; refused by name where it means nothing."""
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise TypeError
        known = self.calls.get(function.text)
        if known is not None:
            return known(arguments)
        if function.text in self.inert:
            return Opaque(function.text)
        raise WeightsError(
            f"its pickle asks to call {function.text!r}, which tensors do not need; nothing was "
            "executed. Do not load this file elsewhere unless you trust who made it; "
            "from a training run of your own, save model.state_dict() instead"
        )


def _opcode_name(opcode: int) -> str:
    known = next((op for op in pickletools.opcodes if op.code == chr(opcode)), None)
    return f"the opcode {known.name}" if known else f"the unknown opcode 0x{opcode:02x}"


def _key(value: object) -> object:
    """`value` where it is safe to hash: hashing runs no code and does not recurse."""
    return value if value is None or isinstance(value, _PLAIN) else Opaque("key")


def _set_items(container: object, pairs: list[object]) -> None:
    if isinstance(container, dict):
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            container[_key(key)] = value
    elif not isinstance(container, Opaque):
        raise TypeError


def _append(container: object, items: list[object]) -> None:
    if isinstance(container, list):
        container.extend(items)
    elif not isinstance(container, Opaque):
        raise TypeError


# Handlers: each does what `pickletools` says of its opcode.


def _constant(value: object) -> Callable[[Unpickler], None]:
    return lambda u: u.stack.append(value)


def _fresh(kind: Callable[[], object]) -> Callable[[Unpickler], None]:
    return lambda u: u.stack.append(kind())


def _fixed(layout: str) -> Callable[[Unpickler], None]:
    form = struct.Struct(layout)
    return lambda u: u.stack.append(form.unpack(u.take(form.size))[0])


def _integer(width: int) -> Callable[[Unpickler], None]:
    return lambda u: u.stack.append(int.from_bytes(u.take(u.count(width)), "little", signed=True))


def _text(width: int, errors: str = "surrogatepass") -> Callable[[Unpickler], None]:
    return lambda u: u.stack.append(u.take(u.count(width)).decode("utf-8", errors))


def _bytes(width: int) -> Callable[[Unpickler], None]:
    return lambda u: u.stack.append(u.take(u.count(width)))


def _skip(size: int) -> Callable[[Unpickler], None]:
    def skip(u: Unpickler) -> None:
        u.take(size)

    return skip


def _tuple(size: int) -> Callable[[Unpickler], None]:
    def make(u: Unpickler) -> None:
        if len(u.stack) < size:
            raise IndexError
        u.stack[-size:] = [tuple(u.stack[-size:])]

    return make


def _put(width: int) -> Callable[[Unpickler], None]:
    def put(u: Unpickler) -> None:
        u.memo[u.count(width)] = u.stack[-1]

    return put


def _get(width: int) -> Callable[[Unpickler], None]:
    return lambda u: u.stack.append(u.memo[u.count(width)])


def _memoize(u: Unpickler) -> None:
    u.memo[len(u.memo)] = u.stack[-1]


def _mark(u: Unpickler) -> None:
    u.marks.append(u.stack)
    u.stack = []


def _marked_tuple(u: Unpickler) -> None:
    items = tuple(u.pop_mark())
    u.stack.append(items)


def _marked_list(u: Unpickler) -> None:
    items = u.pop_mark()
    u.stack.append(items)


def _marked_dict(u: Unpickler) -> None:
    pairs = u.pop_mark()
    container: dict[object, object] = {}
    _set_items(container, pairs)
    u.stack.append(container)


def _frozen_set(u: Unpickler) -> None:
    u.pop_mark()
    u.stack.append(Opaque("builtins.frozenset"))


def _append_one(u: Unpickler) -> None:
    item = u.stack.pop()
    _append(u.stack[-1], [item])


def _append_many(u: Unpickler) -> None:
    items = u.pop_mark()
    _append(u.stack[-1], items)


def _set_one(u: Unpickler) -> None:
    value, key = u.stack.pop(), u.stack.pop()
    _set_items(u.stack[-1], [key, value])


def _set_many(u: Unpickler) -> None:
    pairs = u.pop_mark()
    _set_items(u.stack[-1], pairs)


def _pop(u: Unpickler) -> None:
    # As in Python's own reader: with nothing above the mark, the mark itself goes.
    if u.stack:
        u.stack.pop()
    else:
        u.pop_mark()


def _pop_mark(u: Unpickler) -> None:
    u.pop_mark()


def _duplicate(u: Unpickler) -> None:
    u.stack.append(u.stack[-1])


def _global(u: Unpickler) -> None:
    module, name = u.line(), u.line()
    u.stack.append(Name(f"{module}.{name}"))


def _stack_global(u: Unpickler) -> None:
    name, module = u.stack.pop(), u.stack.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise TypeError
    u.stack.append(Name(f"{module}.{name}"))


def _reduce(u: Unpickler) -> None:
    arguments, function = u.stack.pop(), u.stack.pop()
    u.stack.append(u.call(function, arguments))


def _new_object(extra: int) -> Callable[[Unpickler], None]:
    """An instance of a class: `cls.__new__(cls, *arguments)` would run it, so it stays opaque."""

    def make(u: Unpickler) -> None:
        for _ in range(extra):
            u.stack.pop()
        kind = u.stack.pop()
        if not isinstance(kind, Name):
            raise TypeError
        # Subclasses of dict fill themselves with SETITEMS; these two are common and plain.
        plain = kind.text in ("collections.OrderedDict", "builtins.dict")
        u.stack.append({} if plain else Opaque(kind.text))

    return make


def _build(u: Unpickler) -> None:
    # State given to an object would call its __setstate__; what tensors need is in their arguments.
    u.stack.pop()
    if not u.stack:
        raise IndexError


def _persistent(u: Unpickler) -> None:
    identifier = u.stack.pop()
    if not isinstance(identifier, tuple):
        raise TypeError
    u.stack.append(u.persistent(identifier))


_STOP = ord(".")
_PLAIN = (str, int, float, bytes)

_TABLE: Mapping[bytes, Callable[[Unpickler], None]] = {
    b"\x80": _skip(1),
    b"\x95": _skip(8),
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"}": _fresh(dict),
    b"]": _fresh(list),
    b")": _fresh(tuple),
    b"\x8f": _constant(Opaque("builtins.set")),
    b"K": _fixed("<B"),
    b"M": _fixed("<H"),
    b"J": _fixed("<i"),
    b"G": _fixed(">d"),
    b"\x8a": _integer(1),
    b"\x8b": _integer(4),
    b"\x8c": _text(1),
    b"X": _text(4),
    b"\x8d": _text(8),
    b"U": _text(1, "replace"),
    b"T": _text(4, "replace"),
    b"C": _bytes(1),
    b"B": _bytes(4),
    b"\x8e": _bytes(8),
    b"\x96": _bytes(8),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"q": _put(1),
    b"r": _put(4),
    b"h": _get(1),
    b"j": _get(4),
    b"\x94": _memoize,
    b"(": _mark,
    b"t": _marked_tuple,
    b"l": _marked_list,
    b"d": _marked_dict,
    b"\x91": _frozen_set,
    b"a": _append_one,
    b"e": _append_many,
    b"\x90": _append_many,
    b"s": _set_one,
    b"u": _set_many,
    b"0": _pop,
    b"1": _pop_mark,
    b"2": _duplicate,
    b"c": _global,
    b"\x93": _stack_global,
    b"R": _reduce,
    b"\x81": _new_object(1),
    b"\x92": _new_object(2),
    b"b": _build,
    b"Q": _persistent,
}
_HANDLERS = {code[0]: handler for code, handler in _TABLE.items()}
