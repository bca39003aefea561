"""Object code becomes functions of this process: equal code once, until its last user is gone.

All kernels that a call of `load` brings anew share one engine, because an engine and its target
machine cost more than linking a kernel (60 of 20 KB take 15 to 22 ms; benchmarks/thread_team.py).
"""

import hashlib
import platform
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from striate.runtime.mutex import Mutex

if TYPE_CHECKING:
    from llvmlite import binding


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
    """Machine code at `address`, there as long as this object is."""

    __slots__ = ("__weakref__", "_engine", "address")

    def __init__(self, address: int, engine: "binding.ExecutionEngine") -> None:
        self.address = address
        self._engine = engine


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
            # An engine knows its functions by name: namesakes go to different engines.
            batch = {each.symbol: (key, each) for key, each in missing.items()}
            for (key, _), function in zip(
                batch.values(), _link([each for _, each in batch.values()]), strict=True
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


def _link(objects: Sequence[Code]) -> list[Function]:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    files = []
    for each in objects:
        _check(each)
        files.append(binding.ObjectFileRef.from_data(each.code))
        engine.add_object_file(files[-1])
    engine.finalize_object()
    functions = []
    for each in objects:
        where = engine.get_function_address(each.symbol)
        if not where:
            raise RuntimeError(f"the object file of {each.symbol} does not export that function")
        functions.append(Function(where, engine))
    return functions


# The machine's number in the header of an ELF file, by its name.
_ELF_MACHINES = {"x86_64": 62, "amd64": 62, "aarch64": 183, "arm64": 183, "riscv64": 243}


def _check(given: Code) -> None:
    """Refuse what would crash the linker: on ELF systems, other files and other machines' code."""
    machine = _ELF_MACHINES.get(platform.machine().lower())
    if platform.system() != "Linux" or machine is None:
        return
    if len(given.code) < 64 or not given.code.startswith(b"\x7fELF"):
        raise RuntimeError(f"the code of {given.symbol} is no object file")
    found = int.from_bytes(given.code[18:20], "little")
    if found != machine:
        names = {number: name for name, number in reversed(_ELF_MACHINES.items())}
        raise RuntimeError(
            f"the code of {given.symbol} is for {names.get(found, f'ELF machine {found}')}, "
            f"this machine is {names[machine]}; compile for Target.host()"
        )
