"""`striate explain`: what a layer is at each stage on its way to machine code."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.choices import (
    Algorithm,
    AlgorithmOption,
    InputOption,
    JsonOption,
    ModelArgument,
)
from striate.cli.output import print_json

if TYPE_CHECKING:
    from striate.compiler.program import Program
    from striate.compiler.target import Target
    from striate.network.graph import Graph


class Stage(StrEnum):
    """A form that a layer takes."""

    EQUATION = "equation"
    PLAN = "plan"
    LLVM = "llvm"
    ASM = "asm"


class TargetName(StrEnum):
    """A kind of CPU."""

    AVX512 = "avx512"
    AVX2 = "avx2"
    NEON = "neon"
    GENERIC = "generic"


def explain(
    model: ModelArgument,
    layer: Annotated[
        str, typer.Argument(metavar="LAYER", help="A layer or module, such as layer1.0.conv2.")
    ],
    at: Annotated[Stage, typer.Option(help="The stage to show.")] = Stage.EQUATION,
    target: Annotated[
        TargetName | None, typer.Option(help="The CPU to compile for.", show_default="this one")
    ] = None,
    input: InputOption = None,
    algorithm: AlgorithmOption = Algorithm.AUTO,
    json: JsonOption = False,
) -> None:
    """Show a layer as its equation, its plan, its LLVM code or its assembly.

    From the plan on a kernel stands for the layer and what was fused into it.
    """
    from striate.cli.networks import network

    module, sizes = network(model, input)
    graph = module.trace(sizes, abstract=True)
    if at is Stage.EQUATION:
        forms = list(equations(graph, layer, model))
        lines = [
            f"{form.layers[0]}: {form.text}" if len(forms) > 1 else form.text for form in forms
        ]
        shown = "\n".join(lines)
    else:
        from striate.compiler import compile_graph
        from striate.compiler.target import Target

        kind = Target.named(target.value) if target else Target.host()
        program = compile_graph(graph, kind, algorithm=algorithm)
        forms = list(kernel_forms(graph, program, layer, model, at, kind))
        shown = "\n\n".join(form.text.rstrip() for form in forms)
    if json:
        head = {"model": model, "input": list(sizes), "at": str(at)}
        print_json({**head, "forms": [asdict(form) for form in forms]})
        return
    print(shown)


@dataclass(frozen=True, slots=True)
class Form:
    """What the `layers` that share it are at a stage."""

    layers: tuple[str, ...]
    text: str


def equations(graph: "Graph", layer: str, model: str) -> Iterator[Form]:
    """The equation of each layer that `layer` names."""
    from striate.cli.networks import matching
    from striate.network.describe import equation, layers

    nodes = {node.label: node for node in layers(graph)}
    found = matching(list(nodes), layer, model)
    for label in found:
        yield Form((label,), equation(nodes[label]))


def kernel_forms(
    graph: "Graph", program: "Program", layer: str, model: str, at: Stage, target: "Target"
) -> Iterator[Form]:
    """The kernels that compute `layer`, each once, at a stage."""
    from striate.cli.networks import matching
    from striate.compiler.codegen import assembly
    from striate.network.describe import layers

    asked = set(matching([node.label for node in layers(graph)], layer, model))
    steps = [step for phase in program.phases for step in phase if step.label in asked]
    if not steps:
        raise ValueError(
            f"{layer} has no kernel of its own in {model}: it was folded into its neighbours. "
            f"Ask for the layer before it, or for the module around it."
        )
    used: dict[int, list[str]] = {}
    for step in steps:
        labels = used.setdefault(step.kernel, [])
        if step.label not in labels:
            labels.append(step.label)
    comment = {Stage.PLAN: "", Stage.LLVM: "; ", Stage.ASM: "# "}[at]
    for number, labels in used.items():
        kernel = program.kernels[number]
        head = f"{comment}{', '.join(labels)}: {kernel.schedule} on {target.name}\n"
        if at is Stage.PLAN:
            code = f"{kernel.equation}\n{kernel.plan}"
        else:
            code = kernel.ir if at is Stage.LLVM else assembly(kernel.ir, target)
        yield Form(tuple(labels), head + code)
