"""What the notation says when an equation, or what it is given, does not fit."""

from collections.abc import Mapping

from striate.notation.ir import Shape


class NotationError(ValueError):
    """An equation that has no meaning, or operands that do not fit it.

    The message says what is wrong and what to do, then restates the equation and the shapes.
    """

    def __init__(
        self, problem: str, equation: str, shapes: Mapping[str, Shape] | None = None
    ) -> None:
        self.problem = problem
        self.equation = equation
        self.shapes = dict(shapes) if shapes is not None else None
        lines = [problem, f"  in {equation.strip()}"]
        if shapes:
            lines.append(f"  with {', '.join(describe_shape(*item) for item in shapes.items())}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type["NotationError"], tuple[object, ...]]:
        return NotationError, (self.problem, self.equation, self.shapes)


def describe_shape(name: str, shape: Shape) -> str:
    """`x[1, 224, 224, 3]`: a tensor's name and its sizes."""
    return f"{name}[{', '.join(map(str, shape))}]"
