"""A program ready to run: code loaded, memory taken, all addresses written into one table."""

import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.compiler.layout import memory_order
from striate.compiler.program import Pointer, Preparation, Program, View
from striate.notation import interpret
from striate.runtime import team_memory
from striate.runtime.cores import MOST_THREADS, default_threads
from striate.runtime.loader import load
from striate.runtime.memory import address, aligned_bytes, aligned_copy, aligned_empty
from striate.runtime.mutex import Mutex
from striate.runtime.team import Job, bury, shared_team
from striate.runtime.team_code import team_code

Array = NDArray[np.float32]

_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, slots=True)
class _Range:
    """Phases one after another, as job words: the address of a first step, the chunks' numbers."""

    step: int
    begin: int
    limit: int


class Executable:
    """`program` as a function of float32 arrays; may be called from several threads at once.

    `threads` is the number of threads that share the work (default: `default_threads()`); the bits
    of the result don't depend on it. Raises ValueError for an impossible number.
    """

    def __init__(self, program: Program, threads: int | None = None) -> None:
        asked = default_threads() if threads is None else threads
        if not 1 <= asked <= MOST_THREADS:
            raise ValueError(f"threads is {threads}, expected 1 to {MOST_THREADS}")
        widest = max((sum(step.chunks for step in phase) for phase in program.phases), default=0)
        self.program = program
        # A thread more than there are chunks in any phase would only have to be woken.
        self.threads = max(1, min(asked, widest))
        self.arena = aligned_bytes(program.arena_bytes)
        self._functions = load(program.kernels)
        self.constants = _constants(program, asked)
        self._mutex = Mutex()
        self._patches: dict[str, list[tuple[int, int, int]]] = {"input": [], "output": []}
        table = self._table()
        scratch = max((kernel.scratch_bytes for kernel in program.kernels), default=0)
        self._job = Job(table, self.threads, scratch)
        self._phases = self._ranges()
        begin, limit = 0, self._phases[-1].limit if self._phases else 0
        self._whole = _Range(self._job.address + 8 * team_memory.JOB_WORDS, begin, limit)
        self._select(self._whole)
        if self.threads == 1:
            self._scratch = aligned_bytes(scratch)
            self._job.words[team_memory.JOB_SCRATCH] = address(self._scratch)
            self._alone = team_code().alone
        weakref.finalize(self, bury, self._job).atexit = False

    @property
    def arena_bytes(self) -> int:
        """The memory that activations take (bytes)."""
        return self.program.arena_bytes

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        """The outputs, as new arrays, for `arrays`, one for each of the program's inputs.

        Raises TypeError for a wrong number or type of arrays, ValueError for another shape.
        """
        outputs = tuple([np.empty(shape, _FLOAT32) for shape in self.program.outputs])
        self.write(arrays, outputs)
        return outputs

    def write(self, arrays: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Compute the outputs into arrays of the caller, which must have their shapes.

        Raises as a call does.
        """
        given = self._check(arrays)
        with self._mutex.lock:
            self._point(given, outputs)
            self._run()

    def watch(self, arrays: Sequence[Array], see: Callable[[int, Array], None]) -> None:
        """Run, and show every view of the program to `see`, by its number, when it is whole.

        What is shown is the network's own memory: read it while `see` lasts. Nothing else runs on
        this executable meanwhile. Raises as a call does.
        """
        given = self._check(arrays)
        views = self.program.views
        with self._mutex.lock:
            self._point(given, ())
            try:
                done = 0
                for phase in sorted({view.phase for view in views}):
                    first, last = self._phases[done], self._phases[phase]
                    self._select(_Range(first.step, first.begin, last.limit))
                    self._run()
                    done = phase + 1
                    for number, view in enumerate(views):
                        if view.phase == phase:
                            see(number, self._seen(view))
            finally:
                self._select(self._whole)

    def _seen(self, view: View) -> Array:
        seen = np.ndarray(view.shape, _FLOAT32, self.arena.data, view.offset, view.strides)
        seen.flags.writeable = False
        return seen

    def profile(self, *arrays: Array, repeat: int = 10) -> tuple[float, ...]:
        """The time that each phase takes (seconds): the median of `repeat` runs.

        A phase is timed from outside, so the least time of a call of nothing is taken off.
        """
        if repeat < 1:
            raise ValueError(f"repeat is {repeat}, expected 1 or more")
        given = self._check(arrays)
        outputs = tuple([np.empty(shape, _FLOAT32) for shape in self.program.outputs])
        nothing = _Range(self._whole.step, 0, 0)
        with self._mutex.lock:
            self._point(given, outputs)
            try:
                empty = min(self._time(nothing) for _ in range(max(repeat, 10)))
                runs = [[self._time(phase) for phase in self._phases] for _ in range(repeat)]
            finally:
                self._select(self._whole)
        return tuple(
            max(0.0, statistics.median(times) - empty) for times in zip(*runs, strict=True)
        )

    def _check(self, arrays: Sequence[object]) -> list[Array]:
        """`arrays`, laid out as kernels read them."""
        expected = self.program.inputs
        if len(arrays) != len(expected):
            names = ", ".join(name for name, _ in expected)
            raise TypeError(f"got {len(arrays)} arrays, expected {len(expected)}: {names}")
        given = []
        for (name, shape), array in zip(expected, arrays, strict=True):
            if not isinstance(array, np.ndarray) or (
                array.dtype is not _FLOAT32 and array.dtype != _FLOAT32
            ):
                raise TypeError(_wrong_type(name, array))
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
            flags = array.flags
            if not (flags.c_contiguous and flags.aligned):
                array = np.array(array, np.float32, order="C")
            given.append(array)
        return given

    def _point(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Write where the inputs and outputs of this call lie."""
        words = self._job.words
        for space, arrays in (("input", inputs), ("output", outputs)):
            bases = [address(array) for array in arrays]
            for word, index, offset in self._patches[space]:
                words[word] = bases[index] + offset

    def _run(self) -> None:
        if self.threads == 1:
            self._alone(self._job.address)
        else:
            shared_team().run(self._job)

    def _time(self, phases: _Range) -> float:
        self._select(phases)
        start = time.perf_counter()
        self._run()
        return time.perf_counter() - start

    def _select(self, phases: _Range) -> None:
        words = self._job.words
        words[team_memory.JOB_STEP] = phases.step
        words[team_memory.JOB_BEGIN] = phases.begin
        words[team_memory.JOB_LIMIT] = phases.limit

    def _table(self) -> NDArray[np.int64]:
        """The job's memory: its words, a record for each step, then the steps' addresses."""
        steps = [step for phase in self.program.phases for step in phase]
        at = team_memory.JOB_WORDS + team_memory.STEP_WORDS * len(steps)
        size = at + sum(len(step.pointers) for step in steps)
        table = aligned_bytes(8 * size).view(np.int64)
        record = table[team_memory.JOB_WORDS : at].reshape(-1, team_memory.STEP_WORDS)
        row = number = 0
        for phase in self.program.phases:
            gate, end = number, number + sum(step.chunks for step in phase)
            for step in phase:
                record[row, team_memory.STEP_FUNCTION] = self._functions[step.kernel].address
                record[row, team_memory.STEP_POINTERS] = address(table) + 8 * at
                record[row, team_memory.STEP_FIRST] = number
                record[row, team_memory.STEP_END] = number + step.chunks
                record[row, team_memory.STEP_GATE] = gate
                record[row, team_memory.STEP_PHASE_END] = end
                record[row, team_memory.STEP_LATER] = address(self.constants) + step.later.offset
                record[row, team_memory.STEP_SHARE] = step.later.share
                record[row, team_memory.STEP_PACE] = step.later.pace
                for place, pointer in enumerate(step.pointers, at):
                    table[place] = self._fixed(pointer, place)
                at += len(step.pointers)
                number += step.chunks
                row += 1
        return table

    def _fixed(self, pointer: Pointer, word: int) -> int:
        """The address that `pointer` always has; 0 for one to be written at every call."""
        if pointer.space == "arena":
            return address(self.arena) + pointer.offset
        if pointer.space == "constant":
            return address(self.constants) + pointer.offset
        self._patches[pointer.space].append((word, pointer.index, pointer.offset))
        return 0

    def _ranges(self) -> list[_Range]:
        step = self._job.address + 8 * team_memory.JOB_WORDS
        number, ranges = 0, []
        for phase in self.program.phases:
            end = number + sum(each.chunks for each in phase)
            ranges.append(_Range(step, number, end))
            step += 8 * team_memory.STEP_WORDS * len(phase)
            number = end
        return ranges


def _constants(program: Program, threads: int) -> Array:
    """The program's block of constants, prepared by so many threads if it isn't there yet."""
    if program.constants is not None:
        return aligned_copy(program.constants)
    if program.preparation is None:
        return aligned_empty((0,))
    return prepared(program.preparation, threads)


def prepared(preparation: Preparation, threads: int) -> Array:
    """The block of constants that `preparation` makes of its parameters."""
    arrays: list[NDArray[np.floating[Any]]] = list(preparation.parameters)
    for value in preparation.values:
        operands = {name: arrays[number].astype(np.float64) for name, number in value.operands}
        arrays.append(interpret(value.statement, operands))
    inputs = []
    for number in preparation.inputs:
        array = arrays[number].astype(np.float32, copy=False)
        inputs.append(array.transpose(memory_order(array)))
    (shape,) = preparation.program.outputs
    block = aligned_empty(shape)
    words = np.array(preparation.words, np.int64).view(np.float32)
    Executable(replace(preparation.program, constants=words), threads).write(inputs, [block])
    return block


def _wrong_type(name: str, given: object) -> str:
    if not isinstance(given, np.ndarray):
        return f"{name} is a {type(given).__name__}, expected a NumPy array of float32"
    return f"{name} holds {given.dtype}, expected float32; convert it with astype(numpy.float32)"
