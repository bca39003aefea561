"""Programs as bytes: plain data of a few known classes, and nothing that a reader would run.

The format is pickle's, read by a reader that makes tuples, numbers, texts and the classes of
programs and statements, and refuses everything else by name.
"""

import hashlib
import io
import pickle
from dataclasses import fields, replace

from striate.compiler import program as programs
from striate.compiler.program import Program
from striate.notation import ir

_CLASSES = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (
        programs.Kernel,
        programs.Pointer,
        programs.Prefetch,
        programs.Preparation,
        programs.Program,
        programs.Room,
        programs.Step,
        programs.Value,
        programs.View,
        ir.Affine,
        ir.Apply,
        ir.Constant,
        ir.Equation,
        ir.Position,
        ir.Read,
        ir.Reduce,
        ir.Statement,
    )
}


# The names of all fields: programs of another form are another version's.
_FIELDS = [(name, [field.name for field in fields(kind)]) for name, kind in _CLASSES.items()]
_FORM = hashlib.sha256(repr(_FIELDS).encode()).hexdigest()


class StorageError(ValueError):
    """Bytes that hold no program of this version."""


def dumps(program: Program) -> bytes:
    """`program` without its parameters, its large constants, and its kernels' IR."""
    return pickle.dumps((_FORM, _bare(program)), protocol=5)


def loads(content: bytes) -> Program:
    """The program in `content`. Raises StorageError."""
    try:
        form, found = _Reader(io.BytesIO(content)).load()
    except StorageError:
        raise
    except Exception as error:
        raise StorageError(f"no program of this version: {error}") from error
    if form != _FORM or not isinstance(found, Program):
        raise StorageError("no program of this version: it has another form")
    return found


def _bare(program: Program) -> Program:
    """The program with nothing in it but plain data."""
    preparation = program.preparation
    if preparation is not None:
        preparation = replace(preparation, parameters=(), program=_bare(preparation.program))
    kernels = tuple(replace(kernel, write=None) for kernel in program.kernels)
    return replace(program, kernels=kernels, constants=None, preparation=preparation)


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        kind = _CLASSES.get((module, name))
        if kind is None:
            raise StorageError(f"{module}.{name} is none of the classes of a program")
        return kind
