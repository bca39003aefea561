"""The compiler: from a graph of equations to a program of machine code.

What writes code is imported when it is first used: a program that was kept needs none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from striate.compiler.kept import program_of
from striate.compiler.program import Kernel, Pointer, Program, Step
from striate.compiler.target import Target

if TYPE_CHECKING:
    from striate.compiler.compile import compile_graph

__all__ = ["Kernel", "Pointer", "Program", "Step", "Target", "compile_graph", "program_of"]


def __getattr__(name: str) -> object:
    if name != "compile_graph":
        raise AttributeError(f"module 'striate.compiler' has no attribute {name!r}")
    value: object = import_module("striate.compiler.compile").compile_graph
    globals()[name] = value
    return value
