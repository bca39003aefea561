"""Object code becomes functions of this process: equal code once, until its last user is gone.

All kernels that a call of `load` brings anew share one image, and live as long as any of them.
"""

import hashlib
import platform
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from striate.runtime.link import AARCH64, X86_64, Image, LinkError, machine_of
from striate.runtime.memory import address, executable_memory, symbol
from striate.runtime.mutex import Mutex


class Code(Protocol):
    """A relocatable object without external symbols that exports the function `symbol`."""

    @property
    def symbol(self) -> str: ...

    @property
    def code(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ObjectCode:
    """Code and nothing else."""

    symbol: str
    code: bytes


class Function:
    """Machine code at `address`, there as long as this object is, which holds its memory."""

    __slots__ = ("__weakref__", "_memory", "address")

    def __init__(self, address: int, memory: object) -> None:
        self.address = address
        self._memory = memory


_Identity = tuple[str, bytes]
_loaded: weakref.WeakValueDictionary[_Identity, Function] = weakref.WeakValueDictionary()
_mutex = Mutex()


def load(objects: Iterable[Code]) -> list[Function]:
    """The functions of `objects`, in order; RuntimeError for code that isn't for this machine."""
    asked = [(identity(each), each) for each in objects]
    with _mutex:
        found = {key: function for key, _ in asked if (function := _loaded.get(key)) is not None}
        missing = {key: each for key, each in asked if key not in found}
        while missing:
            # An image knows its functions by name: namesakes go to different images.
            batch = {each.symbol: (key, each) for key, each in missing.items()}
            for (key, _), function in zip(
                batch.values(), _load([each for _, each in batch.values()]), strict=True
            ):
                found[key] = _loaded[key] = function
                del missing[key]
    return [found[key] for key, _ in asked]


def identity(code: Code) -> _Identity:
    """What tells `code` from other code."""
    return code.symbol, hashlib.sha256(code.code).digest()


def loaded_count() -> int:
    """How many functions are loaded and in use."""
    return len(_loaded)


def _load(objects: Sequence[Code]) -> list[Function]:
    """The functions of `objects`, which have different names."""
    machine = _ELF_MACHINES.get(platform.machine().lower())
    if platform.system() == "Linux" and machine in (X86_64, AARCH64):
        return _mapped(objects, machine)
    return _linked_by_llvm(objects)


def _mapped(objects: Sequence[Code], machine: int) -> list[Function]:
    image = Image(external=symbol)
    for each in objects:
        try:
            found = machine_of(each.code)
            if found == machine:
                image.add(each.code)
        except LinkError as error:
            raise RuntimeError(f"the code of {each.symbol} cannot be loaded: {error}") from error
        if found != machine:
            raise RuntimeError(
                f"the code of {each.symbol} is for {_machine_name(found)}, "
                f"this machine is {_machine_name(machine)}; compile for Target.host()"
            )
        if each.symbol not in image.functions:
            raise RuntimeError(_missing(each))
    memory = executable_memory(image.content)
    start = address(np.frombuffer(memory, np.uint8))
    return [Function(start + image.functions[each.symbol], memory) for each in objects]


def _linked_by_llvm(objects: Sequence[Code]) -> list[Function]:
    """For other systems' files and ways to make memory executable."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    files = []
    for each in objects:
        files.append(binding.ObjectFileRef.from_data(each.code))
        engine.add_object_file(files[-1])
    engine.finalize_object()
    functions = []
    for each in objects:
        where = engine.get_function_address(each.symbol)
        if not where:
            raise RuntimeError(_missing(each))
        functions.append(Function(where, engine))
    return functions


# The machine's number in the header of an ELF file, by its name.
_ELF_MACHINES = {"x86_64": X86_64, "amd64": X86_64, "aarch64": AARCH64, "arm64": AARCH64}


def _machine_name(number: int) -> str:
    names = {known: name for name, known in reversed(_ELF_MACHINES.items())}
    return names.get(number, f"ELF machine {number}")


def _missing(code: Code) -> str:
    return f"the object file of {code.symbol} does not export that function"
