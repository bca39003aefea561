"""`striate explain`: what a layer is at each stage on its way to machine code."""

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.choices import Algorithm, AlgorithmOption

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
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The network; `striate models` lists them.")
    ],
    layer: Annotated[
        str, typer.Argument(metavar="LAYER", help="A layer or module, such as layer1.0.conv2.")
    ],
    at: Annotated[Stage, typer.Option(help="The stage to show.")] = Stage.EQUATION,
    target: Annotated[
        TargetName | None, typer.Option(help="The CPU to compile for.", show_default="this one")
    ] = None,
    input: Annotated[
        str | None, typer.Option(metavar="HxW", help="The image's size.", show_default="its own")
    ] = None,
    algorithm: AlgorithmOption = Algorithm.AUTO,
) -> None:
    """Show a layer as its equation, its plan, its LLVM code or its assembly.

    From the plan on a kernel stands for the layer and what was fused into it.
    """
    from striate.cli.networks import network

    module, sizes = network(model, input)
    graph = module.trace(sizes, abstract=True)
    if at is Stage.EQUATION:
        print("\n".join(equations(graph, layer, model)))
        return
    from striate.compiler import compile_graph
    from striate.compiler.target import Target

    kind = Target.named(target.value) if target else Target.host()
    program = compile_graph(graph, kind, algorithm=algorithm)
    texts = kernel_texts(graph, program, layer, model, at, kind)
    print("\n\n".join(text.rstrip() for text in texts))


def equations(graph: "Graph", layer: str, model: str) -> Iterator[str]:
    """A line for each layer that `layer` names."""
    from striate.cli.networks import equation, layers, matching

    nodes = {node.label: node for node in layers(graph)}
    found = matching(list(nodes), layer, model)
    for label in found:
        prefix = f"{label}: " if len(found) > 1 else ""
        yield prefix + equation(nodes[label])


def kernel_texts(
    graph: "Graph", program: "Program", layer: str, model: str, at: Stage, target: "Target"
) -> Iterator[str]:
    """The kernels that compute `layer`, each once, at a stage."""
    from striate.cli.networks import layers, matching
    from striate.compiler.codegen import assembly

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
            yield f"{head}{kernel.equation}\n{kernel.plan}"
        else:
            yield head + (kernel.ir if at is Stage.LLVM else assembly(kernel.ir, target))
