"""The machine code that balances packed weights, of any number and sizes of panels.

    for each panel, for each feature (a lane):
      scale = the power of two that takes the largest weight to [1, 2)
      weight[term] *= scale
      correction = - sum over pairs (sign * weight[first] * weight[second])

It works in place, and writes the corrections and inverse scales behind the panels. Sizes are read
at run time: one kernel balances the weights of all layers alike but for the terms past the last
vector of them.
"""

from striate.compiler.balance import Balance, emit_exponents, emit_scale, pair_signs
from striate.compiler.builder import Builder, Value
from striate.compiler.described import Described
from striate.compiler.schedules.base import Emission
from striate.compiler.target import Target

# The words (int64) of a descriptor; terms and features are counted in vectors.
_CHUNKS, _PANELS, _RUNS, _TERMS, _FEATURES = range(5)


def balance_words(balance: Balance, lanes: int, chunks: int) -> tuple[int, ...]:
    """The descriptor that tells the code what to balance."""
    return (chunks, balance.panels, balance.runs, balance.terms // lanes, balance.width // lanes)


def emit_balance(rest: int, target: Target) -> Emission:
    """The kernel; its pointers are the panels and the descriptor. `rest` terms are no vector."""
    return Emission(lambda: _Balancing(rest, target).write(), 1, f"balance: {rest} terms past")


class _Balancing(Described):
    def __init__(self, rest: int, target: Target) -> None:
        super().__init__(target)
        b = self.builder
        self.rest, self.lanes = rest, target.lanes
        self.packed, self.table = b.argument(0), b.argument(1)
        self.row = self._times(4 * self.lanes, self._word(_FEATURES))
        self.terms = str(b.add(self._times(self.lanes, self._word(_TERMS)), rest))

    def write(self) -> Builder:
        """All panels of a chunk, vector of features by vector."""
        b, panels = self.builder, self._word(_PANELS)
        panel_bytes = self._times(self._times(self.row, self.terms), self._word(_RUNS))
        first, last = self._share(self._word(_CHUNKS), panels)
        behind = b.at(self.packed, self._times(panels, panel_bytes))
        with b.loop(first, last) as panel, b.loop(0, self._word(_FEATURES)) as vector:
            lane = b.multiply(vector.index, 4 * self.lanes)
            start = b.at(b.at(self.packed, self._times(panel.index, panel_bytes)), lane)
            scale, inverse = self._scales(start)
            correction = self._balanced(start, scale)
            kept = b.at(b.at(behind, self._times(b.multiply(panel.index, 2), self.row)), lane)
            b.store(correction, kept)
            b.store(inverse, b.at(kept, self.row))
        return b

    def _scales(self, start: Value) -> tuple[Value, Value]:
        """The scales of a vector of features, and their inverses."""
        b, kind = self.builder, f"<{self.lanes} x i32>"
        every = self._times(self._word(_RUNS), self.terms)
        with b.loop(0, every, 1, [(kind, b.zero())]) as term:
            value = b.load(b.at(start, self._times(term.index, self.row)))
            term.following = [emit_exponents(b, term.values[0], value)]
        return emit_scale(b, term.values[0], kind)

    def _balanced(self, start: Value, scale: Value) -> Value:
        """Scale the terms of a vector of features; gives their correction."""
        b, vectors = self.builder, self._word(_TERMS)
        with b.loop(0, self._word(_RUNS), 1, [(b.vector, b.zero())]) as run:
            begin = b.at(start, self._times(self._times(run.index, self.terms), self.row))
            carried = [(b.vector, run.values[0])]
            with b.loop(0, vectors, 1, carried, maybe_empty=True) as loop:
                place = b.at(begin, self._times(b.multiply(loop.index, self.lanes), self.row))
                loop.following = [self._vector(place, self.lanes, scale, loop.values[0])]
            place = b.at(begin, self._times(self._times(self.lanes, vectors), self.row))
            run.following = [self._vector(place, self.rest, scale, loop.values[0])]
        return run.values[0]

    def _vector(self, place: Value, terms: int, scale: Value, correction: Value) -> Value:
        """Scale some terms, a row each; gives `correction` less the products of their pairs."""
        b, values = self.builder, list[Value]()
        for term in range(terms):
            address = b.at(place, self._times(term, self.row))
            values.append(b.emit(f"fmul {b.vector} {b.load(address)}, {scale}"))
            b.store(values[-1], address)
        for term, sign in pair_signs(terms).items():
            one = values[term] if sign < 0 else b.emit(f"fneg {b.vector} {values[term]}")
            correction = b.fma(one, values[term + 1], correction)
        return correction
