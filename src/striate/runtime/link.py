"""Link object files to one image: ELF for x86-64 and AArch64.

Kernels are position-independent and call at most a function of the C library (on CPUs that cannot
round by themselves), so that linking is laying the sections that are loaded one after another and
writing a few distances into them. LLVM need not be loaded for it.
Sources: the ELF-64 object file format; the ELF supplements of the System V ABI for both machines.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

MAGIC = b"\x7fELF"
X86_64, AARCH64 = 62, 183
# Functions start on a cache line.
ALIGNMENT = 64
# Images start on a page, so that places within a page are known before the image has its own.
PAGE = 4096

_HEADER_BYTES = 64
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_TABLE_OF_SYMBOLS, _RELOCATIONS_WITH_ADDENDS, _NO_CONTENT = 2, 4, 8
_ALLOCATED = 2


class LinkError(RuntimeError):
    """An object file that cannot be linked, and why."""


@dataclass(slots=True)
class Image:
    """Code and constants as they lie in memory, from a page's start, and the functions' places.

    `external` gives the address of a function of the C library by its name, or 0.
    """

    content: bytearray = field(default_factory=bytearray)
    functions: dict[str, int] = field(default_factory=dict)
    external: Callable[[str], int] = lambda _: 0
    _stubs: dict[str, int] = field(default_factory=dict)

    def add(self, code: bytes) -> None:
        """Append an object file; its global functions join `functions`. Raises LinkError."""
        try:
            self._add(code)
        except (struct.error, IndexError, ValueError) as error:
            raise LinkError(f"the object file is damaged: {error}") from error

    def _add(self, code: bytes) -> None:
        machine = machine_of(code)
        sections = _sections(code)
        self._align(ALIGNMENT)
        places: dict[int, int] = {}
        for number, section in enumerate(sections):
            if section.loaded:
                self._align(max(section.alignment, 1))
                places[number] = len(self.content)
                self.content += section.content
        symbols = _symbols(code, sections)
        for section in sections:
            if section.kind == _RELOCATIONS_WITH_ADDENDS and section.target in places:
                for offset, info, addend in _RELOCATION.iter_unpack(section.content):
                    symbol = symbols[info >> 32]
                    if symbol.section in places:
                        value = places[symbol.section] + symbol.value + addend
                    else:
                        value = self._stub(machine, symbol.name) + addend
                    _apply(
                        machine,
                        info & 0xFFFFFFFF,
                        self.content,
                        places[section.target] + offset,
                        value,
                    )
        for symbol in symbols:
            if symbol.exported and symbol.section in places:
                self.functions[symbol.name] = places[symbol.section] + symbol.value

    def _stub(self, machine: int, name: str) -> int:
        """The place of a jump to the external function `name`, which may lie far away."""
        if name not in self._stubs:
            where = self.external(name)
            if not where:
                raise LinkError(f"the code needs {name!r}, which the C library does not have")
            self._align(8)
            self._stubs[name] = len(self.content)
            self.content += _JUMPS[machine] + struct.pack("<Q", where)
        return self._stubs[name]

    def _align(self, alignment: int) -> None:
        self.content += bytes(-len(self.content) % alignment)


def machine_of(code: bytes) -> int:
    """The number of the machine that an ELF object file is for."""
    if len(code) < _HEADER_BYTES or not code.startswith(MAGIC):
        raise LinkError("it is no object file")
    return int.from_bytes(code[18:20], "little")


@dataclass(frozen=True, slots=True)
class _Section:
    kind: int
    flags: int
    content: bytes
    link: int
    target: int
    alignment: int
    name: bytes

    @property
    def loaded(self) -> bool:
        """Whether the running code needs it: unwinding tables it does not."""
        return bool(self.flags & _ALLOCATED) and self.name != b".eh_frame"


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    section: int
    value: int
    exported: bool


def _sections(code: bytes) -> list[_Section]:
    start = int.from_bytes(code[40:48], "little")
    count, names = struct.unpack_from("<HH", code, 60)
    heads = [_SECTION.unpack_from(code, start + _SECTION.size * k) for k in range(count)]
    names_at = heads[names][4]
    found = []
    for name, kind, flags, _, offset, size, link, info, alignment, _ in heads:
        if kind == _NO_CONTENT and flags & _ALLOCATED and size:
            raise LinkError("it has variables; code without state is expected")
        content = b"" if kind == _NO_CONTENT else code[offset : offset + size]
        if kind != _NO_CONTENT and len(content) != size:
            raise LinkError("the object file is cut short")
        title = code[names_at + name : code.index(b"\0", names_at + name)]
        found.append(_Section(kind, flags, content, link, info, alignment, title))
    return found


def _symbols(code: bytes, sections: list[_Section]) -> list[_Symbol]:
    found = []
    for section in sections:
        if section.kind != _TABLE_OF_SYMBOLS:
            continue
        names = sections[section.link].content
        for name, info, _, index, value, _ in _SYMBOL.iter_unpack(section.content):
            text = names[name : names.index(b"\0", name)].decode()
            found.append(_Symbol(text, index, value, info >> 4 == 1))
    return found


def _apply(machine: int, kind: int, image: bytearray, place: int, value: int) -> None:
    """Write what relocation `kind` asks for at `place`, of a symbol at `value`."""
    rule = _RULES.get((machine, kind))
    if rule is None:
        raise LinkError(f"relocation {kind} of ELF machine {machine} is unknown")
    (word,) = struct.unpack_from("<I", image, place)
    struct.pack_into("<I", image, place, rule(word, place, value) & 0xFFFFFFFF)


def _distance(word: int, place: int, value: int) -> int:
    return value - place


def _pages(word: int, place: int, value: int) -> int:
    """ADRP: the distance in pages, its two low bits apart from the others."""
    pages = (value // PAGE - place // PAGE) & 0x1FFFFF
    return (word & 0x9F00001F) | (pages & 3) << 29 | pages >> 2 << 5


def _in_page(scale: int) -> Callable[[int, int, int], int]:
    """ADD, LDR, STR: the place within the page, in units of 2^scale bytes."""

    def rule(word: int, place: int, value: int) -> int:
        return (word & 0xFFC003FF) | (value % PAGE >> scale) << 10

    return rule


def _call(word: int, place: int, value: int) -> int:
    return (word & 0xFC000000) | (value - place >> 2) & 0x3FFFFFF


# A jump to the address that lies behind it: jmp *[rip + 2]; ldr x16, .+8 and br x16.
_JUMPS = {
    X86_64: bytes.fromhex("ff2502000000") + bytes(2),
    AARCH64: struct.pack("<II", 0x58000050, 0xD61F0200),
}
_RULES: dict[tuple[int, int], Callable[[int, int, int], int]] = {
    (X86_64, 2): _distance,
    (X86_64, 4): _distance,
    (AARCH64, 261): _distance,
    (AARCH64, 275): _pages,
    (AARCH64, 277): _in_page(0),
    (AARCH64, 278): _in_page(0),
    (AARCH64, 282): _call,
    (AARCH64, 283): _call,
    (AARCH64, 284): _in_page(1),
    (AARCH64, 285): _in_page(2),
    (AARCH64, 286): _in_page(3),
    (AARCH64, 299): _in_page(4),
}
