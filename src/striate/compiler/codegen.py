"""LLVM IR text to object code and assembly; the only place that talks to LLVM to compile."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from striate.compiler.target import Target


def object_code(ir: str, target: Target) -> bytes:
    """Relocatable object code of the module `ir`."""
    machine, module = _optimised(ir, target)
    return bytes(machine.emit_object(module))


def assembly(ir: str, target: Target) -> str:
    """The assembly of the module `ir`."""
    machine, module = _optimised(ir, target)
    return str(machine.emit_assembly(module))


def _optimised(ir: str, target: Target) -> tuple[Any, Any]:
    """The target machine and the module after LLVM's passes.

    The schedules have already tiled, unrolled, vectorised and hoisted, and the builder writes each
    operation once. Simplifying what is left takes 2 ms for a convolution where LLVM's standard
    pipeline takes 13 to 21, for code of the same speed.
    """
    import llvmlite.binding as llvm

    machine = _machine(target)
    module = llvm.parse_assembly(ir, llvm.create_context())
    passes = llvm.create_new_module_pass_manager()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return machine, module


def _machine(target: Target) -> Any:
    """A target machine of its own for every call: LLVM's are not safe to share between threads."""
    import llvmlite.binding as llvm

    _initialize()
    triple = target.triple or llvm.get_process_triple()
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small"
    )


@lru_cache(maxsize=1)
def _initialize() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@lru_cache(maxsize=1)
def version() -> str:
    """What code depends on besides its task and target: LLVM, and how it was written.

    That is said by the sources of the compiler, and of the equations and graphs that it compiles.
    """
    import llvmlite

    package = Path(__file__).parents[1]
    folders = [package / name for name in ("compiler", "network", "notation", "transforms")]
    sources = sorted(source for folder in folders for source in folder.rglob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return f"llvmlite {llvmlite.__version__}, striate {digest}"
