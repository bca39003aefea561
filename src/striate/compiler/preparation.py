"""The preparation of a program's constants: values that NumPy computes, then copies by kernels."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from striate.compiler.layout import memory_order, strides_in
from striate.compiler.pack import Copy, Factor, copy, packed_shape, product
from striate.compiler.pack_code import emit_pack
from striate.compiler.program import Kernel, Pointer, Preparation, Program, Step, Value
from striate.compiler.schedules.base import Emission
from striate.compiler.target import Target
from striate.compiler.toom_cook import Matrices
from striate.network.graph import Array, Derived, Known, Parameter
from striate.notation.ir import Shape, Statement
from striate.transforms.rewrite import copying

CACHE_LINE = 64

MakeKernel = Callable[[object, Emission, str, str], Kernel]


@dataclass(frozen=True, slots=True)
class _Wish:
    """A constant: how it is copied, out of what, to which byte of the block."""

    name: str
    copy: Copy
    sources: tuple[Known, ...]
    place: int
    nbytes: int


@dataclass(slots=True)
class Preparer:
    """Collects the constants that kernels ask for, made of `arrays`, in one block of `nbytes`."""

    arrays: tuple[Array, ...]
    nbytes: int = 0
    _wishes: list[_Wish] = field(default_factory=list)
    _places: dict[object, int] = field(default_factory=dict)
    _values: dict[int, Derived] = field(default_factory=dict)

    def constant(
        self, node: Known, packing: Statement | None, matrices: Matrices | None = None
    ) -> Pointer:
        """Where the constant `packing` of `node` will lie; the same for equal wishes."""
        key = (_identity(node), packing, matrices)
        if key not in self._places:
            self._places[key] = self._place(node, packing or copying(node.shape), matrices)
        return Pointer("constant", 0, self._places[key])

    def _place(self, node: Known, packing: Statement, matrices: Matrices | None) -> int:
        place = self.nbytes
        shape = packed_shape(packing, matrices)
        nbytes = -(-4 * math.prod(shape) // CACHE_LINE) * CACHE_LINE
        self.nbytes += nbytes
        factors = product(packing, node)
        made = copy(packing, factors, [_strides(factor) for factor in factors], matrices)
        if made is None:
            # More than a copy: NumPy computes it, and what it computed is copied.
            assert matrices is None, "weights to be transformed are read in place"
            node = Derived(node.name, packing, ((packing.shapes[0][0], node),))
            identity = copying(node.shape)
            factors = (Factor(node, identity.equation.output.access),)
            made = copy(identity, factors, [_strides(factors[0])], None)
            assert made is not None, "a whole array is a copy"
        for factor in factors:
            self._add(factor.node)
        sources = tuple(factor.node for factor in factors)
        self._wishes.append(_Wish(node.name, made, sources, place, nbytes))
        return place

    def _add(self, node: Known) -> None:
        if isinstance(node, Derived) and id(node) not in self._values:
            for _, operand in node.operands:
                self._add(operand)
            self._values[id(node)] = node

    def preparation(self, target: Target, kernel: MakeKernel) -> Preparation:
        """All wishes as a program; `kernel` makes the code of an emission."""
        identities = [*[id(array) for array in self.arrays], *self._values]
        numbers = {identity: number for number, identity in enumerate(identities)}
        values = tuple(
            Value(node.statement, tuple((name, numbers[_identity(o)]) for name, o in node.operands))
            for node in self._values.values()
        )
        kernels: list[Kernel] = []
        variants: dict[object, int] = {}
        given: list[tuple[str, Shape]] = []
        places: dict[int, int] = {}
        steps = []
        words: list[int] = []
        for wish in self._wishes:
            variant = wish.copy.variant
            if variant not in variants:
                emission = emit_pack(variant, target, 1)
                variants[variant] = len(kernels)
                kernels.append(kernel(("pack", variant), emission, "pack", emission.plan))
            pointers = [Pointer("output", 0, wish.place)]
            for source, offset in zip(wish.sources, wish.copy.offsets, strict=True):
                number = numbers[_identity(source)]
                if number not in places:
                    places[number] = len(given)
                    given.append((source.name, _memory_shape(source)))
                pointers.append(Pointer("input", places[number], offset))
            if len(pointers) < 3:
                pointers.append(Pointer("constant", 0, 0))
            pointers.append(Pointer("constant", 0, 8 * len(words)))
            words += wish.copy.words
            chunks, moved = wish.copy.chunks, 2 * wish.nbytes
            steps.append(Step(wish.name, variants[variant], chunks, tuple(pointers), 0, moved))
        shape = (self.nbytes // 4,)
        program = Program(tuple(kernels), (tuple(steps),), None, None, 0, tuple(given), (shape,))
        return Preparation(self.arrays, values, tuple(places), tuple(words), program)


def _identity(node: Known) -> int:
    """Parameters of one array are one."""
    return id(node.array) if isinstance(node, Parameter) else id(node)


def _order(node: Known) -> tuple[int, ...]:
    if isinstance(node, Parameter):
        return memory_order(node.array)
    return tuple(range(len(node.shape)))


def _strides(factor: Factor) -> tuple[int, ...]:
    return strides_in(_order(factor.node), factor.node.shape)


def _memory_shape(node: Known) -> Shape:
    """The shape of the array with its axes as they lie in memory."""
    return tuple(node.shape[axis] for axis in _order(node))
