"""The preparation of a program's constants: values that NumPy computes, then copies by kernels."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from striate.compiler.balance import Balance
from striate.compiler.balance_code import balance_words, emit_balance
from striate.compiler.layout import CACHE_LINE, memory_order, strides_in
from striate.compiler.pack import CHUNK_BYTES, Copy, Factor, copy, packed_shape, product
from striate.compiler.pack_code import emit_pack
from striate.compiler.program import Kernel, Pointer, Preparation, Program, Step, Value
from striate.compiler.schedules.base import Emission
from striate.compiler.target import Target
from striate.compiler.toom_cook import Matrices
from striate.network.graph import Array, Derived, Known, Parameter
from striate.notation.ir import Shape, Statement
from striate.transforms.rewrite import copying

MakeKernel = Callable[[object, Emission, str, str], Kernel]


@dataclass(frozen=True, slots=True)
class _Wish:
    """A constant: how it is copied, out of what, to which byte of the block."""

    name: str
    copy: Copy
    sources: tuple[Known, ...]
    place: int
    nbytes: int
    balance: Balance | None


@dataclass(slots=True)
class Preparer:
    """Collects the constants that kernels ask for, made of `arrays`, in one block of `nbytes`."""

    arrays: tuple[Array, ...]
    nbytes: int = 0
    _wishes: list[_Wish] = field(default_factory=list)
    _places: dict[object, int] = field(default_factory=dict)
    _values: dict[int, Derived] = field(default_factory=dict)

    def constant(
        self,
        node: Known,
        packing: Statement | None,
        matrices: Matrices | None = None,
        balance: Balance | None = None,
    ) -> Pointer:
        """Where the constant `packing` of `node` will lie; the same for equal wishes."""
        key = (_identity(node), packing, matrices, balance)
        if key not in self._places:
            packed = packing or copying(node.shape)
            self._places[key] = self._place(node, packed, matrices, balance)
        return Pointer("constant", 0, self._places[key])

    def _place(
        self,
        node: Known,
        packing: Statement,
        matrices: Matrices | None,
        balance: Balance | None,
    ) -> int:
        place = self.nbytes
        shape = packed_shape(packing, matrices)
        nbytes = balance.nbytes if balance else 4 * math.prod(shape)
        nbytes = -(-nbytes // CACHE_LINE) * CACHE_LINE
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
        self._wishes.append(_Wish(node.name, made, sources, place, nbytes, balance))
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
        made = _Code(target, kernel)
        given: dict[int, tuple[str, Shape]] = {}
        copies = []
        for wish in self._wishes:
            sources = []
            for source, offset in zip(wish.sources, wish.copy.offsets, strict=True):
                number = numbers[_identity(source)]
                given.setdefault(number, (source.name, _memory_shape(source)))
                sources.append(Pointer("input", list(given).index(number), offset))
            copies.append(made.copying(wish, sources))
        balances = [made.balancing(wish, wish.balance) for wish in self._wishes if wish.balance]
        phases = tuple(tuple(steps) for steps in (copies, balances) if steps)
        shape = (self.nbytes // 4,)
        inputs = tuple(given.values())
        program = Program(tuple(made.kernels), phases or ((),), None, None, 0, inputs, (shape,))
        return Preparation(self.arrays, values, tuple(given), tuple(made.words), program)


@dataclass(slots=True)
class _Code:
    """The steps of a preparation: their kernels, each made once, and the words that tell them."""

    target: Target
    make: MakeKernel
    kernels: list[Kernel] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    _numbers: dict[object, int] = field(default_factory=dict)

    def copying(self, wish: _Wish, sources: list[Pointer]) -> Step:
        """The step that writes the packed array."""
        variant = wish.copy.variant
        number = self._number("pack", variant, lambda: emit_pack(variant, self.target, 1))
        unused = [Pointer("constant", 0, 0)] * (2 - len(sources))
        pointers = (*sources, *unused, self._table(wish.copy.words))
        return self._step(wish, number, wish.copy.chunks, pointers)

    def balancing(self, wish: _Wish, balance: Balance) -> Step:
        """The step that scales the packed array, and writes its corrections."""
        rest, lanes = balance.terms % self.target.lanes, self.target.lanes
        number = self._number("balance", rest, lambda: emit_balance(rest, self.target))
        chunks = min(balance.panels, max(1, wish.nbytes // CHUNK_BYTES))
        table = self._table(balance_words(balance, lanes, chunks))
        return self._step(wish, number, chunks, (table,))

    def _number(self, kind: str, variant: object, emit: Callable[[], Emission]) -> int:
        key = (kind, variant)
        if key not in self._numbers:
            emission = emit()
            self._numbers[key] = len(self.kernels)
            self.kernels.append(self.make(key, emission, kind, emission.plan))
        return self._numbers[key]

    def _table(self, words: tuple[int, ...]) -> Pointer:
        place = Pointer("constant", 0, 8 * len(self.words))
        self.words += words
        return place

    def _step(self, wish: _Wish, number: int, chunks: int, pointers: tuple[Pointer, ...]) -> Step:
        pointers = (Pointer("output", 0, wish.place), *pointers)
        return Step(wish.name, number, chunks, pointers, 0, 2 * wish.nbytes)


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
