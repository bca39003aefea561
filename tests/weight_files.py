"""Weight files for tests, written byte by byte: both forms of torch.save without torch."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

STORAGES = {
    "f8": "DoubleStorage",
    "f4": "FloatStorage",
    "f2": "HalfStorage",
    "bf16": "BFloat16Storage",
    "i8": "LongStorage",
    "i4": "IntStorage",
    "i2": "ShortStorage",
    "i1": "CharStorage",
    "u1": "ByteStorage",
    "b1": "BoolStorage",
}


class Global:
    """Pickled as a reference to `module.name`, whether or not that exists."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self) -> None:
        raise AssertionError("nothing may call this")


class Call:
    """Pickled as `function(*arguments)`, with `state` given to the result."""

    def __init__(self, function: Global, *arguments: Any, state: Any = None) -> None:
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self) -> Any:
        whole = (self.function, self.arguments)
        return whole if self.state is None else (*whole, self.state)


class Instance:
    """Pickled as an object of the class `kind` with a `state`, as protocol 2 does it (NEWOBJ)."""

    def __init__(self, kind: Global, state: Any = None) -> None:
        self.kind, self.state = kind, state


class Stored:
    """A storage: `values` are its elements of type `kind`, said to be `count`."""

    def __init__(
        self, key: str, values: np.ndarray, kind: str | None = None, count: int | None = None
    ) -> None:
        self.key, self.values = key, values
        self.kind = kind or values.dtype.str[1:]
        self.count = len(values) if count is None else count

    def content(self, order: str = "<") -> bytes:
        return self.values.astype(self.values.dtype.newbyteorder(order)).tobytes()


_counter = 0


def tensor(
    values: Any,
    *,
    storage: Stored | None = None,
    offset: int = 0,
    strides: tuple[int, ...] | None = None,
    shape: tuple[int, ...] | None = None,
    kind: str | None = None,
) -> Call:
    """A tensor; contiguous on a storage of its own unless told otherwise."""
    global _counter
    if storage is None:
        _counter += 1
        storage = Stored(str(_counter), np.asarray(values).ravel(), kind)
    shape = np.shape(values) if shape is None else shape
    if strides is None:
        strides = tuple(int(np.prod(shape[k + 1 :])) for k in range(len(shape)))
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, storage, offset, shape, strides, False, OrderedDict())


class _Pickler(pickle._Pickler):  # type: ignore[misc, name-defined]
    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, file: Any, protocol: int) -> None:
        super().__init__(file, protocol)
        self.storages: dict[str, Stored] = {}

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Stored):
            return None
        self.storages[obj.key] = obj
        kind = Global("torch", STORAGES.get(obj.kind, obj.kind))
        identifier = ("storage", kind, obj.key, "cpu", obj.count)
        return (*identifier, None) if self.proto == 2 and self.legacy else identifier

    legacy = False

    def save_name(self, obj: Global) -> None:
        if self.proto >= 4:
            self.save(obj.module)
            self.save(obj.name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())

    def save_instance(self, obj: Instance) -> None:
        self.save(obj.kind)
        self.write(pickle.EMPTY_TUPLE + pickle.NEWOBJ)
        self.save(obj.state)
        self.write(pickle.BUILD)

    dispatch[Global] = save_name
    dispatch[Instance] = save_instance


def pickled(content: Any, protocol: int = 2, legacy: bool = False) -> tuple[bytes, dict[str, Any]]:
    """The pickle of `content` and the storages it names."""
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, protocol)
    pickler.legacy = legacy
    pickler.dump(content)
    return buffer.getvalue(), pickler.storages


def archive(
    content: Any,
    *,
    protocol: int = 2,
    order: str | None = "little",
    compression: int = zipfile.ZIP_STORED,
    extra: Mapping[str, bytes] | None = None,
    root: str = "archive/",
) -> bytes:
    """The zip form."""
    program, storages = pickled(content, protocol)
    return archive_of(program, storages, order, compression, extra or {}, root)


def archive_of(
    program: bytes,
    storages: Mapping[str, Stored],
    order: str | None = "little",
    compression: int = zipfile.ZIP_STORED,
    extra: Mapping[str, bytes] | None = None,
    root: str = "archive/",
) -> bytes:
    """The zip form of a pickle given as bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr(f"{root}data.pkl", program)
        if order:
            file.writestr(f"{root}byteorder", order)
        for storage in storages.values():
            sign = ">" if order == "big" else "<"
            file.writestr(f"{root}data/{storage.key}", storage.content(sign))
        for name, content in (extra or {}).items():
            file.writestr(root + name, content)
    return buffer.getvalue()


def stream(content: Any, *, protocol: int = 2, little: bool = True) -> bytes:
    """The legacy form."""
    program, storages = pickled(content, protocol, legacy=True)
    system = {"protocol_version": PROTOCOL, "little_endian": little, "type_sizes": {"int": 4}}
    head = [pickle.dumps(part, protocol) for part in (MAGIC, PROTOCOL, system)]
    keys = sorted(storages)
    pieces = [*head, program, pickle.dumps(keys, protocol)]
    for key in keys:
        pieces.append(struct.pack("<q", len(storages[key].values)) + storages[key].content())
    return b"".join(pieces)
