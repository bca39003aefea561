"""Tensors as a pickle describes them, and as arrays: storages, strides, element types."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from striate.weights.errors import WeightsError
from striate.weights.pickles import Call, Name

# Element types by torch's names; "bfloat16" is read as the upper half of a float32.
ELEMENTS: Mapping[str, np.dtype[np.generic]] = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "uint64": np.dtype("<u8"),
    "bool": np.dtype("?"),
    "complex64": np.dtype("<c8"),
    "complex128": np.dtype("<c16"),
}

_STORAGES: Mapping[str, str] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}

# A tensor may be larger than its storage only by expansion (stride 0); past this it is an attack.
_MOST_EXPANDED = 1 << 28


@dataclass(frozen=True, slots=True)
class Storage:
    """`count` elements from element `start` of the `whole` elements known as `key`."""

    key: str
    element: str
    start: int
    count: int
    whole: int

    @property
    def bytes_needed(self) -> int:
        """The bytes of all `whole` elements."""
        return self.whole * ELEMENTS[self.element].itemsize


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A strided window on a storage; strides and offset in elements."""

    storage: Storage
    element: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def storage_of(identifier: tuple[object, ...]) -> Storage:
    """The storage that a persistent id `("storage", type, key, location, count[, view])` names."""
    match identifier:
        case ("storage", Name(text), str() as key, _, int() as count, *view) if count >= 0:
            element = _STORAGES.get(text.rpartition(".")[2])
            if element is None or not text.startswith("torch."):
                raise WeightsError(f"it stores elements of the type {text!r}, which is not read")
            match view:
                case [] | [None]:
                    return Storage(key, element, 0, count, count)
                case [(str(), int() as start, int() as size)] if 0 <= start <= count - size:
                    return Storage(key, element, start, max(size, 0), count)
        case ("module", *_):
            raise WeightsError(
                "it holds a whole pickled model, not its weights; load it where its code is "
                "and save model.state_dict()"
            )
    raise TypeError("malformed persistent id")


def _sizes(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(type(v) is int and v >= 0 for v in value):
        raise TypeError("malformed sizes")
    return value


def _tensor(arguments: tuple[object, ...], element: str | None = None) -> Tensor:
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
        raise TypeError("malformed tensor")
    shape, strides = _sizes(shape), _sizes(strides)
    if len(shape) != len(strides) or len(shape) > 32:
        raise TypeError("malformed tensor")
    return Tensor(storage, element or storage.element, offset, shape, strides)


def _tensor_v3(arguments: tuple[object, ...]) -> Tensor:
    kind = arguments[6]
    element = kind.text.removeprefix("torch.") if isinstance(kind, Name) else ""
    if element not in ELEMENTS:
        raise WeightsError(f"it stores elements of the type {element or kind!r}, which is not read")
    return _tensor(arguments, element)


def _first(arguments: tuple[object, ...]) -> object:
    return arguments[0]


def _from_type(arguments: tuple[object, ...]) -> object:
    function, _, inner, _ = arguments
    known = CALLS.get(function.text) if isinstance(function, Name) else None
    if known is None or not isinstance(inner, tuple):
        raise WeightsError(
            f"it builds a tensor by {getattr(function, 'text', function)!r}, which is not read"
        )
    return known(inner)


def _ordered(arguments: tuple[object, ...]) -> dict[object, object]:
    """An OrderedDict: empty, or from a list of pairs as Python 2 wrote it."""
    pairs = arguments[0] if arguments else []
    if not isinstance(pairs, list):
        raise TypeError("malformed OrderedDict")
    result: dict[object, object] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise TypeError("malformed OrderedDict")
        result[key] = value
    return result


def _empty(_: tuple[object, ...]) -> dict[object, object]:
    return {}


CALLS: Mapping[str, Call] = {
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _empty,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.nn.parameter.Parameter": _first,
}

# What training checkpoints hold beside tensors: plain values whose loss does no harm.
INERT = frozenset(
    {
        "_codecs.encode",
        "argparse.Namespace",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.frozenset",
        "builtins.range",
        "builtins.set",
        "builtins.slice",
        "__builtin__.frozenset",
        "__builtin__.set",
        "collections.Counter",
        "collections.deque",
        "copy_reg._reconstructor",
        "copyreg._reconstructor",
        "datetime.date",
        "datetime.datetime",
        "datetime.timedelta",
        "decimal.Decimal",
        "fractions.Fraction",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy.dtype",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "pathlib._local.PosixPath",
        "pathlib._local.WindowsPath",
        "torch.Size",
        "torch.device",
        "torch.serialization._get_layout",
        "types.SimpleNamespace",
        "uuid.UUID",
    }
)


def to_array(
    tensor: Tensor, fetch: Callable[[Storage], NDArray[np.uint8]], big_endian: bool = False
) -> NDArray[np.generic]:
    """`tensor` as an array of native byte order; a view of the file where that can be.

    `fetch` gives a storage's bytes. float16 and bfloat16 become float32; a tensor that is expanded,
    or whose bytes are not aligned to its elements, is copied.
    """
    element = ELEMENTS[tensor.element]
    if prod(tensor.shape) == 0:
        widened = tensor.element in ("float16", "bfloat16")
        return np.zeros(tensor.shape, np.float32 if widened else element.newbyteorder("="))
    stored = tensor.storage.count * ELEMENTS[tensor.storage.element].itemsize // element.itemsize
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
    if last >= stored:
        raise WeightsError(
            f"a tensor of shape {tensor.shape} reads element {last} of a storage of {stored}"
        )
    if prod(tensor.shape) > max(stored, _MOST_EXPANDED):
        raise WeightsError(
            f"a tensor of shape {tensor.shape} is spread over a storage of only {stored} elements"
        )
    flat = fetch(tensor.storage)[: stored * element.itemsize].view(
        element.newbyteorder(">") if big_endian else element
    )
    return _native(_window(flat, tensor), tensor.element)


def contiguous_array(
    content: NDArray[np.uint8], element: str, shape: tuple[int, ...]
) -> NDArray[np.generic]:
    """The little-endian `content` as an array, by the rules of `to_array`."""
    count = prod(shape)
    tensor = Tensor(Storage("", element, 0, count, count), element, 0, shape, _steps(shape))
    return to_array(tensor, lambda _: content)


def _steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a contiguous tensor, in elements."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _window(flat: NDArray[np.generic], tensor: Tensor) -> NDArray[np.generic]:
    """The elements of `flat` that `tensor` shows, aligned.

    A permuted tensor stays a strided view: some files hold convolution weights in memory order
    HWIO under the shape OIHW, and turning those to HWIO then costs nothing.
    """
    pairs = zip(tensor.shape, tensor.strides, _steps(tensor.shape), strict=True)
    if all(extent == 1 or stride == step for extent, stride, step in pairs):
        array = flat[tensor.offset : tensor.offset + prod(tensor.shape)].reshape(tensor.shape)
        return array if array.flags.aligned else array.copy()
    strides = tuple(stride * flat.itemsize for stride in tensor.strides)
    view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides)
    overlapping = any(s == 0 < n - 1 for s, n in zip(strides, tensor.shape, strict=True))
    return view.copy() if overlapping or not view.flags.aligned else view


def _native(array: NDArray[np.generic], element: str) -> NDArray[np.generic]:
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if element == "bfloat16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float32) if element == "float16" else array
