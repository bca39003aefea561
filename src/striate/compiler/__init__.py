"""Graphs to programs: fused kernels, schedules, one block of memory, machine code."""

from striate.compiler.compile import compile_graph
from striate.compiler.program import Kernel, Pointer, Program, Step
from striate.compiler.target import Target

__all__ = ["Kernel", "Pointer", "Program", "Step", "Target", "compile_graph"]
