"""The team's machine code in this process: compiled once, then read from the code cache."""

import ctypes
import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from striate.compiler.cache import CodeCache
from striate.compiler.target import Target
from striate.runtime import team_cpu, team_ir
from striate.runtime.loader import Function, ObjectCode, load
from striate.runtime.memory import symbol


@dataclass(frozen=True, slots=True)
class TeamCode:
    """The functions of `team_ir`; Python's lock is free while they run. Pointers are integers."""

    serve: Callable[[int, int], int]
    run: Callable[[int, int], None]
    alone: Callable[[int], None]
    occupied: Callable[[int, int, int], int]
    stop: Callable[[int], None]
    pauses: Callable[[int, int], None]
    code: Function


@lru_cache(maxsize=1)
def team_code() -> TeamCode:
    """The team's functions for this CPU."""
    (code,) = load([ObjectCode(team_ir.SYMBOL, _object_code())])
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    address_of = ctypes.CFUNCTYPE(pointer, integer)(code.address)

    def function(name: str, result: type | None, *arguments: type) -> Callable[..., Any]:
        where = address_of(team_ir.FUNCTIONS.index(name))
        prototype: Callable[[int], Callable[..., Any]] = ctypes.CFUNCTYPE(result, *arguments)
        return prototype(where)

    return TeamCode(
        serve=function("serve", ctypes.c_int32, pointer, integer),
        run=function("run", None, pointer, pointer),
        alone=function("alone", None, pointer),
        occupied=function("occupied", ctypes.c_int32, pointer, pointer, integer),
        stop=function("stop", None, pointer),
        pauses=function("pauses", None, pointer, integer),
        code=code,
    )


@dataclass(frozen=True, slots=True)
class SystemCalls:
    """What the team asks of Linux: addresses in the C library and numbers of system calls."""

    syscall: int
    getcpu: int
    futex: int
    affinity: int


def system_calls() -> SystemCalls | None:
    """The system calls by which threads sleep and spread, or None on other systems."""
    numbers = team_cpu.SYSTEM_CALLS.get(team_cpu.machine())
    if platform.system() != "Linux" or numbers is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    where = symbol("syscall")
    return SystemCalls(where, symbol("sched_getcpu"), *numbers) if where else None


def yielding() -> int:
    """The address of the system's function that lets other threads run, or 0."""
    if platform.system() == "Windows":
        kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 (unknown to checkers elsewhere)
        return ctypes.cast(kernel.SwitchToThread, ctypes.c_void_p).value or 0
    return symbol("sched_yield")


def _object_code() -> bytes:
    import llvmlite

    ir = team_ir.team_ir(team_cpu.machine())
    source = hashlib.sha256(ir.encode()).hexdigest()
    system = f"{platform.system()} {platform.machine()}"
    key = f"team {source} {system} llvmlite {llvmlite.__version__}"
    cache = CodeCache()
    code = cache.get(key)
    if code is None:
        from striate.compiler.codegen import object_code

        code = object_code(ir, Target.named("generic"))
        cache.put(key, code)
    return code
